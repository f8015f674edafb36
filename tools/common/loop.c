
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "loop.h"


#define LOOP_EVENTS  512


typedef struct {
    int              epoll;
    int              alarm;         /* timerfd: epoll counts milliseconds */
    int              stop;
    size_t           count;
    size_t           size;
    uint64_t         armed_us;
    loop_event_t     signals;
    loop_timer_t   **heap;          /* from 1 */
} loop_t;


static void loop_signal_handler(loop_event_t *ev, uint32_t events);
static int loop_add_system(int fd, void *data, uint32_t events);
static int loop_run_timers(void);
static void loop_arm(void);
static void loop_place(loop_timer_t *t, size_t slot);
static void loop_up(size_t slot);
static void loop_down(size_t slot);


static loop_t   loop;

uint64_t        loop_now_us;


int
loop_init(void)
{
    sigset_t  set;

    signal(SIGPIPE, SIG_IGN);

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);

    loop.heap = mem_grow(NULL, 0, sizeof(loop_timer_t *));
    loop.size = 1;

    loop.epoll = epoll_create1(EPOLL_CLOEXEC);
    loop.alarm = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK|TFD_CLOEXEC);

    loop.signals.fd = signalfd(-1, &set, SFD_NONBLOCK|SFD_CLOEXEC);
    loop.signals.handler = loop_signal_handler;

    if (loop.epoll == -1 || loop.alarm == -1 || loop.signals.fd == -1
        || loop_add_system(loop.alarm, NULL, EPOLLIN|EPOLLET) == -1
        || loop_add_system(loop.signals.fd, &loop.signals, EPOLLIN) == -1)
    {
        perror("event loop");
        return -1;
    }

    loop_now_us = loop_clock_us();

    return 0;
}


static void
loop_signal_handler(loop_event_t *ev, uint32_t events)
{
    (void) ev;
    (void) events;

    loop.stop = 1;
}


static int
loop_add_system(int fd, void *data, uint32_t events)
{
    struct epoll_event  ee;

    ee.events = events;
    ee.data.ptr = data;

    return epoll_ctl(loop.epoll, EPOLL_CTL_ADD, fd, &ee);
}


int
loop_add(loop_event_t *ev)
{
    if (loop_add_system(ev->fd, ev, EPOLLIN|EPOLLOUT|EPOLLRDHUP|EPOLLET)
        == -1)
    {
        perror("epoll_ctl()");
        return -1;
    }

    return 0;
}


void
loop_run(void)
{
    int                  i, n, due;
    loop_event_t        *ev;
    struct epoll_event   events[LOOP_EVENTS];

    while (!loop.stop) {

        due = loop_run_timers();
        loop_arm();

        n = epoll_wait(loop.epoll, events, LOOP_EVENTS, due ? 0 : -1);

        if (n == -1 && errno != EINTR) {
            perror("epoll_wait()");
            exit(1);
        }

        loop_now_us = loop_clock_us();

        for (i = 0; i < n; i++) {
            ev = events[i].data.ptr;

            if (ev != NULL) {
                ev->handler(ev, events[i].events);
            }
        }
    }
}


void
loop_stop(void)
{
    loop.stop = 1;
}


uint64_t
loop_clock_us(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}


/*
 * No more than were armed at the start: a timer that its handler arms for
 * "now" again must not keep the loop from its descriptors.  Returns whether
 * a timer is still due.
 */

static int
loop_run_timers(void)
{
    size_t         n;
    loop_timer_t  *t;

    for (n = loop.count; n && loop.count; n--) {
        t = loop.heap[1];

        if (t->at_us > loop_now_us) {
            return 0;
        }

        loop_timer_del(t);
        t->handler(t);
    }

    return loop.count && loop.heap[1]->at_us <= loop_now_us;
}


static void
loop_arm(void)
{
    uint64_t           at_us;
    struct itimerspec  its;

    at_us = loop.count ? loop.heap[1]->at_us : 0;

    if (at_us == loop.armed_us) {
        return;
    }

    loop.armed_us = at_us;

    memset(&its, 0, sizeof(its));
    its.it_value.tv_sec = at_us / 1000000;
    its.it_value.tv_nsec = at_us % 1000000 * 1000;

    timerfd_settime(loop.alarm, TFD_TIMER_ABSTIME, &its, NULL);
}


void
loop_timer_set(loop_timer_t *t, uint64_t at_us)
{
    if (t->slot) {
        loop_timer_del(t);
    }

    if (loop.count + 1 == loop.size) {
        loop.heap = mem_grow(loop.heap, loop.size, sizeof(loop_timer_t *));
        loop.size *= 2;
    }

    t->at_us = at_us;

    loop.count++;
    loop_place(t, loop.count);
    loop_up(loop.count);
}


void
loop_timer_del(loop_timer_t *t)
{
    size_t         slot;
    loop_timer_t  *last;

    slot = t->slot;

    if (slot == 0) {
        return;
    }

    t->slot = 0;

    last = loop.heap[loop.count];
    loop.count--;

    if (last == t) {
        return;
    }

    loop_place(last, slot);
    loop_up(slot);
    loop_down(last->slot);
}


static void
loop_place(loop_timer_t *t, size_t slot)
{
    loop.heap[slot] = t;
    t->slot = slot;
}


static void
loop_up(size_t slot)
{
    loop_timer_t  *t;

    t = loop.heap[slot];

    while (slot > 1 && t->at_us < loop.heap[slot / 2]->at_us) {
        loop_place(loop.heap[slot / 2], slot);
        slot /= 2;
    }

    loop_place(t, slot);
}


static void
loop_down(size_t slot)
{
    size_t         child;
    loop_timer_t  *t;

    t = loop.heap[slot];

    for (child = slot * 2; child <= loop.count; child = slot * 2) {

        if (child < loop.count
            && loop.heap[child + 1]->at_us < loop.heap[child]->at_us)
        {
            child++;
        }

        if (t->at_us <= loop.heap[child]->at_us) {
            break;
        }

        loop_place(loop.heap[child], slot);
        slot = child;
    }

    loop_place(t, slot);
}


void
link_init(link_t *head)
{
    head->prev = head;
    head->next = head;
}


int
link_empty(const link_t *head)
{
    return head->next == head;
}


void
link_append(link_t *head, link_t *x)
{
    x->prev = head->prev;
    x->next = head;
    head->prev->next = x;
    head->prev = x;
}


void
link_remove(link_t *x)
{
    if (x->next == NULL) {
        return;
    }

    x->prev->next = x->next;
    x->next->prev = x->prev;
    x->prev = NULL;
    x->next = NULL;
}
