
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"


#define LOAD_READ_SIZE   65536

/* what comes behind the terminal marker or an error has so long to end */
#define LOAD_LINGER_US   1000000


static load_conn_t *load_conn_get(load_target_t *target);
static load_conn_t *load_conn_create(load_target_t *target);
static void load_conn_handler(loop_event_t *ev, uint32_t events);
static void load_conn_timer(loop_timer_t *t);
static void load_conn_send(load_conn_t *c);
static void load_conn_read(load_conn_t *c, int more);
static void load_conn_reply(load_conn_t *c, str_t in);
static void load_conn_failed(load_conn_t *c, int error);
static load_outcome_e load_conn_outcome(const load_reply_t *reply);
static void load_conn_done(load_conn_t *c, load_outcome_e outcome,
    int keepalive);
static void load_conn_count(load_conn_t *c, load_outcome_e outcome);
static void load_conn_close(load_conn_t *c);


static link_t  load_conns_busy = { &load_conns_busy, &load_conns_busy };


void
load_conn_start(load_target_t *target, const load_job_t *job,
    uint64_t number, uint64_t start_us)
{
    load_conn_t  *c;

    load_stats.started++;
    load_stats.inflight++;

    if (load_stats.inflight > load_stats.max_inflight) {
        load_stats.max_inflight = load_stats.inflight;
    }

    load_hist_add(&load_stats.late, loop_now_us - start_us);

    c = load_conn_get(target);

    c->start_us = start_us;
    c->number = number;
    c->prompt = job->prompt;
    c->output = job->output;
    c->busy = 1;

    link_append(&load_conns_busy, &c->link);
    load_reply_init(&c->reply);

    if (c->event.fd == -1) {
        load_conn_failed(c, errno);
        return;
    }

    load_body_write(&c->out, target, job, number);

    loop_timer_set(&c->timer, loop_now_us
                              + (uint64_t) (load_conf.timeout_sec * 1e6));

    if (c->connected) {
        load_conn_send(c);
    }
}


/* the one that was used last, or a new one */

static load_conn_t *
load_conn_get(load_target_t *target)
{
    link_t  *x;

    if (link_empty(&target->idle)) {
        return load_conn_create(target);
    }

    x = target->idle.prev;
    link_remove(x);

    return loop_data(x, load_conn_t, link);
}


static load_conn_t *
load_conn_create(load_target_t *target)
{
    load_conn_t  *c;

    c = mem_zero_alloc(sizeof(load_conn_t));

    c->target = target;
    c->timer.handler = load_conn_timer;
    c->event.handler = load_conn_handler;
    c->event.fd = net_connect(&target->addr);

    if (c->event.fd != -1 && loop_add(&c->event) == -1) {
        close(c->event.fd);
        c->event.fd = -1;
    }

    return c;
}


static void
load_conn_handler(loop_event_t *ev, uint32_t events)
{
    int           error;
    socklen_t     len;
    load_conn_t  *c;

    c = loop_data(ev, load_conn_t, event);

    if (c->dead) {
        return;
    }

    if (!c->connected) {
        len = sizeof(error);

        if (getsockopt(ev->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1) {
            error = errno;
        }

        if (error) {
            load_conn_failed(c, error);
            return;
        }

        if ((events & EPOLLOUT) == 0) {
            return;
        }

        c->connected = 1;
    }

    if (c->busy && (events & EPOLLOUT) && buf_size(&c->out)) {
        load_conn_send(c);
    }

    if (!c->dead && (events & (EPOLLIN|EPOLLRDHUP|EPOLLHUP|EPOLLERR))) {
        load_conn_read(c, (events & ~(EPOLLIN|EPOLLOUT)) != 0);
    }
}


/* the time of a request is over; a connection that is dead is freed */

static void
load_conn_timer(loop_timer_t *t)
{
    load_conn_t  *c;

    c = loop_data(t, load_conn_t, timer);

    if (c->dead) {
        free(c);
        return;
    }

    if (c->reply.ended || c->reply.failed) {
        load_stats.left_open++;
        load_conn_done(c, load_conn_outcome(&c->reply), 0);
        return;
    }

    load_conn_done(c, LOAD_TIMEOUT, 0);
}


static void
load_conn_send(load_conn_t *c)
{
    ssize_t  n;

    while (buf_size(&c->out)) {

        n = send(c->event.fd, buf_head(&c->out), buf_size(&c->out),
                 MSG_NOSIGNAL);

        if (n == -1) {

            /* an early answer may be there: reading will tell */

            return;
        }

        buf_take(&c->out, n);
    }

    buf_free(&c->out);
}


/*
 * Until there is nothing left, an idle connection's end included; a read that
 * does not fill the buffer says so, unless the end has been announced: more.
 */

static void
load_conn_read(load_conn_t *c, int more)
{
    int          rc;
    ssize_t      n;
    static char  data[LOAD_READ_SIZE];

    while (!c->dead) {

        n = recv(c->event.fd, data, sizeof(data), 0);

        if (n == -1) {

            if (errno != EAGAIN && errno != EINTR) {
                load_conn_failed(c, errno);
            }

            return;
        }

        /* between two requests there is nothing to come but the end */

        if (!c->busy) {
            load_conn_close(c);
            return;
        }

        if (n == 0) {
            rc = load_reply_eof(&c->reply, loop_clock_us());

            load_conn_done(c, rc == HTTP_DONE || c->reply.ended
                              || c->reply.failed
                              ? load_conn_outcome(&c->reply) : LOAD_CLOSED, 0);
            return;
        }

        load_conn_reply(c, (str_t) { data, n });

        if ((size_t) n < sizeof(data) && !more) {
            return;
        }
    }
}


static void
load_conn_reply(load_conn_t *c, str_t in)
{
    int            rc;
    load_reply_t  *reply;

    reply = &c->reply;

    rc = load_reply_read(reply, in, loop_clock_us());

    if (rc == HTTP_DONE) {
        load_conn_done(c, load_conn_outcome(reply),
                       reply->keepalive && buf_size(&c->out) == 0);
        return;
    }

    if (rc == HTTP_ERROR) {
        load_conn_done(c, reply->ended || reply->failed
                          ? load_conn_outcome(reply) : LOAD_MALFORMED, 0);
        return;
    }

    if (load_conf.abort_after && reply->tokens >= load_conf.abort_after) {
        load_conn_done(c, LOAD_ABORTED, 0);
        return;
    }

    if ((reply->ended || reply->failed)
        && c->timer.at_us > loop_now_us + LOAD_LINGER_US)
    {
        loop_timer_set(&c->timer, loop_now_us + LOAD_LINGER_US);
    }
}


static void
load_conn_failed(load_conn_t *c, int error)
{
    load_outcome_e  outcome;

    if (!c->busy) {
        load_conn_close(c);
        return;
    }

    switch (error) {

    case ECONNREFUSED:
        outcome = LOAD_REFUSED;
        break;

    case ECONNRESET:
    case EPIPE:
        outcome = LOAD_RESET;
        break;

    case ETIMEDOUT:
        outcome = LOAD_TIMEOUT;
        break;

    default:
        outcome = LOAD_LOCAL;
    }

    if (c->reply.ended || c->reply.failed) {
        outcome = load_conn_outcome(&c->reply);
    }

    load_conn_done(c, outcome, 0);
}


/* of an answer that has properly ended, as far as HTTP is concerned */

static load_outcome_e
load_conn_outcome(const load_reply_t *reply)
{
    if (reply->status != 200) {
        return LOAD_HTTP_ERROR;
    }

    if (reply->failed) {
        return LOAD_ERROR_EVENT;
    }

    return reply->ended ? LOAD_COMPLETE : LOAD_TRUNCATED;
}


static void
load_conn_done(load_conn_t *c, load_outcome_e outcome, int keepalive)
{
    load_conn_count(c, outcome);

    c->busy = 0;

    link_remove(&c->link);
    loop_timer_del(&c->timer);
    load_reply_free(&c->reply);
    buf_free(&c->out);

    if (keepalive) {
        link_append(&c->target->idle, &c->link);

    } else {
        load_conn_close(c);
    }

    load_arrive_again(outcome >= LOAD_REFUSED);
}


static void
load_conn_count(load_conn_t *c, load_outcome_e outcome)
{
    uint64_t       now_us;
    load_reply_t  *reply;
    load_usage_t  *usage;

    reply = &c->reply;
    usage = &load_stats.usage;

    load_stats.inflight--;
    load_stats.outcomes[outcome]++;

    if (outcome == LOAD_HTTP_ERROR && reply->status < LOAD_STATUS_SIZE) {
        load_stats.status[reply->status]++;
    }

    if (reply->first_us) {
        load_hist_add(&load_stats.first, reply->first_us - c->start_us);
    }

    now_us = loop_clock_us();

    if (outcome == LOAD_COMPLETE) {
        load_hist_add(&load_stats.total, now_us - c->start_us);
    }

    load_log_write(c, load_report_outcome(outcome), now_us);

    if (reply->usage.completion >= 0 || reply->usage.prompt >= 0) {
        load_stats.usages++;
        usage->prompt += reply->usage.prompt > 0 ? reply->usage.prompt : 0;
        usage->cached += reply->usage.cached > 0 ? reply->usage.cached : 0;
        usage->completion += reply->usage.completion > 0
                             ? reply->usage.completion : 0;
    }
}


/* freed by its timer, when no event of it can be left */

static void
load_conn_close(load_conn_t *c)
{
    c->dead = 1;

    link_remove(&c->link);

    if (c->event.fd != -1) {
        close(c->event.fd);
    }

    loop_timer_set(&c->timer, loop_now_us);
}


/* what is still in flight when the time is over */

void
load_conn_stop_all(void)
{
    link_t  *x;

    while (!link_empty(&load_conns_busy)) {
        x = load_conns_busy.next;
        load_conn_done(loop_data(x, load_conn_t, link), LOAD_UNFINISHED, 0);
    }
}
