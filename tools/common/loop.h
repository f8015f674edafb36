
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#ifndef TOOLS_LOOP_H
#define TOOLS_LOOP_H


#include <stddef.h>
#include <stdint.h>


/*
 * One epoll loop a process, with timers in a heap.  Descriptors are added
 * once, edge-triggered, for both directions and for the peer's half-close;
 * closing a descriptor removes it.  A handler may close and free its own
 * event, no other descriptor's: that one may still be in the same batch of
 * events.  What must touch others goes into a timer: timers run when the
 * batch is done.
 */

typedef struct loop_event_s  loop_event_t;
typedef struct loop_timer_s  loop_timer_t;

typedef void (*loop_event_pt)(loop_event_t *ev, uint32_t events);
typedef void (*loop_timer_pt)(loop_timer_t *t);

struct loop_event_s {
    loop_event_pt   handler;
    int             fd;
};

struct loop_timer_s {
    loop_timer_pt   handler;
    uint64_t        at_us;
    size_t          slot;           /* place in the heap; 0: not armed */
};

/* a doubly linked list with a head that is an element, linked to itself */
typedef struct link_s  link_t;

struct link_s {
    link_t         *prev;
    link_t         *next;
};


#define loop_data(p, type, field)                                             \
    (type *) ((char *) (p) - offsetof(type, field))


/* monotonic, as of the current batch of events */
extern uint64_t  loop_now_us;

/* -1 with a message on stderr when the kernel refuses */
int loop_init(void);
int loop_add(loop_event_t *ev);

/* ends at loop_stop(), SIGINT or SIGTERM */
void loop_run(void);
void loop_stop(void);
uint64_t loop_clock_us(void);

/* arms, or moves one that is armed; del() of one not armed does nothing */
void loop_timer_set(loop_timer_t *t, uint64_t at_us);
void loop_timer_del(loop_timer_t *t);

void link_init(link_t *head);
int link_empty(const link_t *head);
void link_append(link_t *head, link_t *x);

/* leaves x unlinked; of an unlinked (all zero) x it does nothing */
void link_remove(link_t *x);


#endif /* TOOLS_LOOP_H */
