
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net.h"
#include "sim.h"


#define SIM_READ_SIZE   65536
#define SIM_ACCEPT_US   100000

/* a client that does not read makes its generation wait at so many bytes */
#define SIM_CONGESTED   65536


static void sim_conn_create(sim_server_t *s, int fd);
static void sim_conn_handler(loop_event_t *ev, uint32_t events);
static void sim_conn_timer(loop_timer_t *t);
static void sim_conn_read(sim_conn_t *c);
static void sim_conn_parse(sim_conn_t *c);
static int sim_conn_parse_head(sim_conn_t *c);
static int sim_conn_parse_body(sim_conn_t *c);
static void sim_conn_flush(sim_conn_t *c);
static ssize_t sim_conn_write(sim_conn_t *c, const char *data, size_t len);
static void sim_conn_post(sim_conn_t *c);
static void sim_conn_gone(sim_conn_t *c);


void
sim_accept_handler(loop_event_t *ev, uint32_t events)
{
    int            fd;
    sim_server_t  *s;

    (void) events;

    s = loop_data(ev, sim_server_t, event);

    for ( ;; ) {
        fd = net_accept(ev->fd);

        if (fd == -1) {

            if (errno != EAGAIN) {
                loop_timer_set(&s->accept, loop_now_us + SIM_ACCEPT_US);
            }

            return;
        }

        sim_conn_create(s, fd);
    }
}


/* out of descriptors: no event will tell of those that wait */

void
sim_accept_timer(loop_timer_t *t)
{
    sim_server_t  *s;

    s = loop_data(t, sim_server_t, accept);

    sim_accept_handler(&s->event, 0);
}


static void
sim_conn_create(sim_server_t *s, int fd)
{
    sim_conn_t  *c;

    c = mem_zero_alloc(sizeof(sim_conn_t));

    c->event.fd = fd;
    c->event.handler = sim_conn_handler;
    c->timer.handler = sim_conn_timer;
    c->server = s;

    if (loop_add(&c->event) == -1) {
        close(fd);
        free(c);
    }
}


static void
sim_conn_handler(loop_event_t *ev, uint32_t events)
{
    sim_conn_t  *c;

    c = loop_data(ev, sim_conn_t, event);

    if (c->dead) {
        return;
    }

    if (events & (EPOLLERR|EPOLLHUP)) {
        sim_conn_gone(c);
        return;
    }

    if (events & (EPOLLIN|EPOLLRDHUP)) {
        c->readable = 1;
    }

    if (events & EPOLLRDHUP) {
        c->eof = 1;
    }

    if ((events & EPOLLOUT) && buf_size(&c->out)) {
        sim_conn_flush(c);
    }

    if (!c->dead) {
        sim_conn_read(c);
    }
}


/*
 * What a handler must not do to its own connection, or to another one's,
 * waits for this timer: freeing it, aborting its request, reading on.
 */

static void
sim_conn_timer(loop_timer_t *t)
{
    sim_conn_t  *c;

    c = loop_data(t, sim_conn_t, timer);

    if (c->dead) {
        buf_free(&c->in);
        buf_free(&c->out);
        free(c);
        return;
    }

    if (c->broken) {
        sim_conn_gone(c);
        return;
    }

    sim_conn_parse(c);

    if (!c->dead) {
        sim_conn_read(c);
    }
}


/*
 * A client that half-closes has left: all that the project knows do so only
 * when they abort.  While a request is worked on, further bytes stay in the
 * socket, but the end of the connection is seen.
 */

static void
sim_conn_read(sim_conn_t *c)
{
    ssize_t      n;
    static char  data[SIM_READ_SIZE];

    while (c->readable) {

        if (c->req != NULL && c->req->state != SIM_REQ_READ) {

            if (c->eof) {
                sim_conn_gone(c);
            }

            return;
        }

        n = recv(c->event.fd, data, sizeof(data), 0);

        if (n == 0) {
            sim_conn_gone(c);
            return;
        }

        if (n == -1) {

            if (errno != EAGAIN && errno != EINTR) {
                sim_conn_gone(c);
                return;
            }

            c->readable = (errno == EINTR);
            continue;
        }

        if ((size_t) n < sizeof(data) && !c->eof) {
            c->readable = 0;
        }

        buf_add(&c->in, data, n);
        sim_conn_parse(c);

        if (c->dead) {
            return;
        }
    }
}


static void
sim_conn_parse(sim_conn_t *c)
{
    while (buf_size(&c->in) && !c->dead) {

        if (c->req == NULL) {

            if (sim_conn_parse_head(c) != HTTP_OK) {
                return;
            }

            continue;
        }

        if (c->req->state != SIM_REQ_READ
            || sim_conn_parse_body(c) != HTTP_OK)
        {
            return;
        }
    }

    if (buf_size(&c->in) == 0) {
        buf_free(&c->in);
    }
}


static int
sim_conn_parse_head(sim_conn_t *c)
{
    int          rc;
    http_head_t  head;

    rc = http_parse_head(&head, buf_head(&c->in), buf_size(&c->in), 0);

    if (rc == HTTP_ERROR) {
        sim_conn_close(c, 0);
    }

    if (rc != HTTP_OK) {
        return rc;
    }

    c->minor = head.minor;
    c->split = 0;

    http_body_init(&c->body, &head);

    c->req = sim_req_create(c, &head);

    if (!head.keepalive) {
        c->close = 1;
    }

    buf_take(&c->in, head.size);

    return sim_conn_parse_body(c);
}


static int
sim_conn_parse_body(sim_conn_t *c)
{
    int         rc;
    str_t       in, piece;
    sim_req_t  *r;

    r = c->req;

    in.data = buf_head(&c->in);
    in.len = buf_size(&c->in);

    for ( ;; ) {
        rc = http_parse_body(&c->body, &in, &piece);

        if (rc != HTTP_OK) {
            break;
        }

        buf_add(&r->body, piece.data, piece.len);

        if (r->body.len > SIM_MAX_BODY) {
            rc = HTTP_ERROR;
            break;
        }
    }

    buf_take(&c->in, buf_size(&c->in) - in.len);

    if (rc == HTTP_ERROR) {
        c->close = 1;
        sim_req_reject(r, 400, "the request's body is not readable");
        return HTTP_ERROR;
    }

    if (rc == HTTP_DONE) {
        sim_req_start(r);
        return HTTP_OK;
    }

    return rc;
}


/* after an answer: the connection's next request, or its end */

void
sim_conn_next(sim_conn_t *c)
{
    c->req = NULL;

    if (c->close) {
        sim_conn_close(c, 0);
        return;
    }

    if (buf_size(&c->in) || c->readable) {
        sim_conn_post(c);
    }
}


void
sim_conn_send(sim_conn_t *c, const void *data, size_t len)
{
    ssize_t  n;

    if (c->dead || c->broken) {
        return;
    }

    n = 0;

    if (buf_size(&c->out) == 0) {
        n = sim_conn_write(c, data, len);
    }

    if (n >= 0 && (size_t) n < len) {
        buf_add(&c->out, (const char *) data + n, len - n);
    }
}


static void
sim_conn_flush(sim_conn_t *c)
{
    ssize_t  n;

    n = sim_conn_write(c, buf_head(&c->out), buf_size(&c->out));

    if (n == -1) {
        return;
    }

    buf_take(&c->out, n);

    if (buf_size(&c->out)) {
        return;
    }

    buf_free(&c->out);

    if (c->req != NULL) {
        sim_req_flushed(c->req);
    }
}


/* as much as the socket takes, in pieces of the ordered size */

static ssize_t
sim_conn_write(sim_conn_t *c, const char *data, size_t len)
{
    size_t   size, sent;
    ssize_t  n;

    for (sent = 0; sent < len; sent += n) {

        size = len - sent;

        if (c->split && size > c->split) {
            size = c->split;
        }

        n = send(c->event.fd, data + sent, size, MSG_NOSIGNAL);

        if (n == -1) {

            if (errno == EAGAIN || errno == EINTR) {
                break;
            }

            c->broken = 1;
            sim_conn_post(c);
            return -1;
        }
    }

    return sent;
}


int
sim_conn_congested(const sim_conn_t *c)
{
    return buf_size(&c->out) > SIM_CONGESTED;
}


static void
sim_conn_post(sim_conn_t *c)
{
    loop_timer_set(&c->timer, loop_now_us);
}


/* the other side has closed or reset */

static void
sim_conn_gone(sim_conn_t *c)
{
    sim_req_t  *r;

    r = c->req;
    c->req = NULL;

    if (r != NULL) {
        sim_req_abort(r);
    }

    sim_conn_close(c, 0);
}


void
sim_conn_close(sim_conn_t *c, int reset)
{
    if (c->dead) {
        return;
    }

    c->dead = 1;
    c->req = NULL;

    if (reset) {
        net_reset(c->event.fd);

    } else {
        close(c->event.fd);
    }

    sim_conn_post(c);
}
