
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_redis_link.h"


static void ngx_http_llm_redis_link_say(ngx_http_llm_redis_link_t *link,
    ngx_uint_t up, u_char *reason, size_t len);
static void ngx_http_llm_redis_link_fail(ngx_queue_t *queue);
static void ngx_http_llm_redis_link_finish(ngx_http_llm_redis_link_t *link);
static void ngx_http_llm_redis_link_retry(ngx_event_t *ev);
static void ngx_http_llm_redis_link_expire(ngx_event_t *ev);
static void ngx_http_llm_redis_link_put(ngx_http_llm_redis_link_t *link,
    ngx_http_llm_redis_call_t *call);


ngx_http_llm_redis_link_t *
ngx_http_llm_redis_link_create(ngx_http_llm_redis_t *redis,
    const ngx_addr_t *addr)
{
    ngx_http_llm_redis_link_t  *link;

    link = ngx_calloc(sizeof(ngx_http_llm_redis_link_t), redis->log);
    if (link == NULL) {
        return NULL;
    }

    link->redis = redis;

    ngx_queue_init(&link->pending);
    ngx_queue_init(&link->waiting);

    /* housekeeping: it keeps no worker from leaving */

    link->timer.handler = ngx_http_llm_redis_link_expire;
    link->timer.data = link;
    link->timer.log = redis->log;
    link->timer.cancelable = 1;

    link->retry.handler = ngx_http_llm_redis_link_retry;
    link->retry.data = link;
    link->retry.log = redis->log;
    link->retry.cancelable = 1;

    if (addr == NULL) {
        link->addr = ((ngx_addr_t *) redis->addrs.elts)[0];
        return link;
    }

    ngx_http_llm_redis_link_name(link, addr);

    return link;
}


void
ngx_http_llm_redis_link_name(ngx_http_llm_redis_link_t *link,
    const ngx_addr_t *addr)
{
    link->fixed = 1;

    ngx_memcpy(&link->sockaddr, addr->sockaddr, addr->socklen);

    link->addr.sockaddr = &link->sockaddr.sockaddr;
    link->addr.socklen = addr->socklen;
    link->addr.name.data = link->addr_text;
    link->addr.name.len = ngx_sock_ntop(link->addr.sockaddr, addr->socklen,
                                        link->addr_text,
                                        NGX_SOCKADDR_STRLEN, 1);
    link->backoff_ms = 0;
    link->said_up = 0;
    link->said_down = 0;
}


void
ngx_http_llm_redis_link_connect(ngx_http_llm_redis_link_t *link)
{
    ngx_err_t              err;
    ngx_int_t              rc;
    ngx_http_llm_redis_t  *redis;

    redis = link->redis;

    if (link->state != NGX_HTTP_LLM_REDIS_DOWN) {
        return;
    }

    if (!link->fixed) {
        link->addr = ((ngx_addr_t *) redis->addrs.elts)
                     [link->turn++ % redis->addrs.nelts];
    }

    ngx_set_errno(0);

    rc = ngx_http_llm_redis_io_open(link);

    if (rc == NGX_ERROR) {
        err = ngx_errno;

        if (err) {
            ngx_http_llm_redis_link_drop(link, "connect() failed (%d: %s)",
                                         err, strerror(err));
            return;
        }

        ngx_http_llm_redis_link_drop(link, "cannot connect");
        return;
    }

    ngx_add_timer(&link->timer, redis->connect_timeout_ms);

    if (rc == NGX_OK) {
        ngx_http_llm_redis_io_connected(link);
    }
}


void
ngx_http_llm_redis_link_drop(ngx_http_llm_redis_link_t *link,
    const char *fmt, ...)
{
    u_char                *p, reason[NGX_HTTP_LLM_REDIS_REASON];
    va_list                args;
    ngx_msec_t             pause_ms;
    ngx_queue_t            lost, unsent;
    ngx_http_llm_redis_t  *redis;

    redis = link->redis;

    va_start(args, fmt);
    p = ngx_vslprintf(reason, reason + sizeof(reason), fmt, args);
    va_end(args);

    ngx_http_llm_redis_printable(reason, p - reason);

    ngx_http_llm_redis_io_shut(link);

    ngx_http_llm_redis_link_say(link, 0, reason, p - reason);

    /* jitter: servers come back to all workers of all machines at once */

    link->backoff_ms = link->backoff_ms
                       ? ngx_min(link->backoff_ms * 2,
                                 NGX_HTTP_LLM_REDIS_BACKOFF_MAX_MS)
                       : NGX_HTTP_LLM_REDIS_BACKOFF_MS;

    pause_ms = link->backoff_ms / 2 + ngx_random() % link->backoff_ms;

    if (!redis->stopping) {
        ngx_add_timer(&link->retry, pause_ms);
    }

    /* the handlers may ask again, of the same link */

    ngx_queue_init(&lost);
    ngx_queue_init(&unsent);

    if (!ngx_queue_empty(&link->pending)) {
        ngx_queue_add(&lost, &link->pending);
        ngx_queue_init(&link->pending);
    }

    if (!ngx_queue_empty(&link->waiting)) {
        ngx_queue_add(&unsent, &link->waiting);
        ngx_queue_init(&link->waiting);
    }

    link->npending = 0;

    ngx_http_llm_redis_link_fail(&lost);
    ngx_http_llm_redis_link_fail(&unsent);

    ngx_http_llm_redis_refresh(redis);
}


/* once for each change; of a cluster by the links that decide */

static void
ngx_http_llm_redis_link_say(ngx_http_llm_redis_link_t *link, ngx_uint_t up,
    u_char *reason, size_t len)
{
    ngx_uint_t             level, said;
    ngx_http_llm_redis_t  *redis;

    static const char  *fallbacks[] = {
        "this machine decides", "all requests pass", "requests are rejected"
    };

    redis = link->redis;

    said = up ? link->said_up : link->said_down;

    link->said_up = up;
    link->said_down = !up;

    level = up ? NGX_LOG_NOTICE : NGX_LOG_ERR;

    if (said || (redis->map->cluster && !link->fixed)) {
        level = NGX_LOG_DEBUG;
    }

    if (up) {
        ngx_log_error(level, redis->log, 0, "llm redis: \"%V\" is up, %V",
                      &redis->name, &link->addr.name);
        return;
    }

    ngx_log_error(level, redis->log, 0,
                  "llm redis: \"%V\" is down, %V: %*s; %s", &redis->name,
                  &link->addr.name, len, reason, fallbacks[redis->fallback]);
}


static void
ngx_http_llm_redis_link_fail(ngx_queue_t *queue)
{
    ngx_queue_t                *q;
    ngx_http_llm_redis_call_t  *call;

    while (!ngx_queue_empty(queue)) {
        q = ngx_queue_head(queue);
        ngx_queue_remove(q);

        call = ngx_queue_data(q, ngx_http_llm_redis_call_t, queue);
        call->link = NULL;
        call->done(call, NULL);
    }
}


void
ngx_http_llm_redis_link_close(ngx_http_llm_redis_link_t *link)
{
    if (link->state == NGX_HTTP_LLM_REDIS_UP) {
        ngx_http_llm_redis_link_finish(link);
    }

    if (link->retry.timer_set) {
        ngx_del_timer(&link->retry);
    }

    ngx_http_llm_redis_io_shut(link);
}


static void
ngx_http_llm_redis_link_finish(ngx_http_llm_redis_link_t *link)
{
    int        bytes, fd;
    ssize_t    n;
    u_char     unread[4096];
    ngx_int_t  rc;

    fd = link->connection->fd;

    rc = ngx_http_llm_redis_io_send(link);

    /* more than a socket is meant to hold: the system has it afterwards */

    if (rc == NGX_AGAIN) {
        bytes = 2 * (int) (link->out_bytes - link->out_sent);

        (void) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, (const void *) &bytes,
                          sizeof(int));

        rc = ngx_http_llm_redis_io_send(link);
    }

    if (rc == NGX_ERROR) {
        return;
    }

    /*
     * A close with bytes that are unread is a reset: the rest may be lost.
     * They are there although no event has told of them yet.
     */

    (void) ngx_shutdown_socket(fd, NGX_WRITE_SHUTDOWN);

    do {
        n = recv(fd, unread, sizeof(unread), 0);
    } while (n > 0);
}


static void
ngx_http_llm_redis_link_retry(ngx_event_t *ev)
{
    ngx_http_llm_redis_link_t  *link;

    link = ev->data;

    /* one that has left the cluster is not missed */

    if (!link->fixed || link->used) {
        ngx_http_llm_redis_link_connect(link);
    }
}


static void
ngx_http_llm_redis_link_expire(ngx_event_t *ev)
{
    ngx_msec_t                  age_ms;
    ngx_queue_t                *q;
    ngx_http_llm_redis_t       *redis;
    ngx_http_llm_redis_call_t  *call;
    ngx_http_llm_redis_link_t  *link;

    link = ev->data;
    redis = link->redis;

    if (link->state != NGX_HTTP_LLM_REDIS_UP) {
        ngx_http_llm_redis_link_drop(link, "no answer to %s within %Mms",
                                     link->state == NGX_HTTP_LLM_REDIS_GREETS
                                     ? "the greeting" : "connect()",
                                     redis->connect_timeout_ms);
        return;
    }

    if (ngx_queue_empty(&link->pending)) {
        return;
    }

    q = ngx_queue_head(&link->pending);
    call = ngx_queue_data(q, ngx_http_llm_redis_call_t, queue);

    age_ms = ngx_current_msec - call->sent_ms;

    if (age_ms < redis->timeout_ms) {
        ngx_add_timer(ev, redis->timeout_ms - age_ms);
        return;
    }

    ngx_http_llm_redis_link_drop(link, "no answer within %Mms",
                                 redis->timeout_ms);
}


ngx_int_t
ngx_http_llm_redis_link_send(ngx_http_llm_redis_link_t *link,
    ngx_http_llm_redis_call_t *call)
{
    ngx_uint_t  greeting;

    greeting = (call->script == NGX_HTTP_LLM_REDIS_GREETING);

    if (link->npending >= NGX_HTTP_LLM_REDIS_PENDING) {
        return NGX_BUSY;
    }

    if (link->state == NGX_HTTP_LLM_REDIS_UP
        || (greeting && link->state == NGX_HTTP_LLM_REDIS_GREETS))
    {
        if ((call->asking && ngx_http_llm_redis_asking(link) != NGX_OK)
            || ngx_http_llm_redis_link_write(link, call->text,
                                             call->text_bytes)
               != NGX_OK)
        {
            return NGX_BUSY;
        }

        ngx_http_llm_redis_link_put(link, call);
        return NGX_OK;
    }

    /* it is about to be up for the first time */

    if (!greeting && !link->said_down
        && link->state != NGX_HTTP_LLM_REDIS_DOWN)
    {
        call->link = link;
        link->npending++;
        ngx_queue_insert_tail(&link->waiting, &call->queue);
        return NGX_OK;
    }

    return NGX_BUSY;
}


static void
ngx_http_llm_redis_link_put(ngx_http_llm_redis_link_t *link,
    ngx_http_llm_redis_call_t *call)
{
    call->link = link;
    call->sent = 1;
    call->tried = 1;
    call->asking = 0;
    call->sent_ms = ngx_current_msec;

    link->npending++;
    ngx_queue_insert_tail(&link->pending, &call->queue);

    if (!link->timer.timer_set) {
        ngx_add_timer(&link->timer, link->redis->timeout_ms);
    }
}


ngx_int_t
ngx_http_llm_redis_link_write(ngx_http_llm_redis_link_t *link,
    const u_char *text, size_t bytes)
{
    u_char  *out;
    size_t   size;

    /* of what a slow server has taken nothing counts; moved rarely */

    if (link->out_sent > link->out_bytes / 2) {
        link->out_bytes -= link->out_sent;
        ngx_memmove(link->out, link->out + link->out_sent, link->out_bytes);
        link->out_sent = 0;
    }

    if (link->out_bytes + bytes > link->out_size) {
        size = ngx_max(link->out_size * 2, 4096);

        while (size < link->out_bytes + bytes) {
            size *= 2;
        }

        if (size > NGX_HTTP_LLM_REDIS_OUT_BYTES) {
            return NGX_BUSY;
        }

        out = ngx_alloc(size, link->redis->log);
        if (out == NULL) {
            return NGX_BUSY;
        }

        if (link->out) {
            ngx_memcpy(out, link->out, link->out_bytes);
            ngx_free(link->out);
        }

        link->out = out;
        link->out_size = size;
    }

    ngx_memcpy(link->out + link->out_bytes, text, bytes);
    link->out_bytes += bytes;

    /*
     * The first one wakes the server while this worker does what is left to
     * do; others go behind all that this turn of the loop has to send.  A
     * connection that is broken is dropped there: not under the caller.
     */

    if (link->npending == 0 && ngx_http_llm_redis_io_send(link) == NGX_OK) {
        return NGX_OK;
    }

    ngx_post_event(link->connection->write, &ngx_posted_events);

    return NGX_OK;
}


void
ngx_http_llm_redis_link_up(ngx_http_llm_redis_link_t *link)
{
    ngx_queue_t                *q;
    ngx_http_llm_redis_t       *redis;
    ngx_http_llm_redis_call_t  *call;

    redis = link->redis;

    link->state = NGX_HTTP_LLM_REDIS_UP;
    link->backoff_ms = 0;

    ngx_del_timer(&link->timer);

    ngx_http_llm_redis_link_say(link, 1, NULL, 0);

    while (!ngx_queue_empty(&link->waiting)) {
        q = ngx_queue_head(&link->waiting);
        ngx_queue_remove(q);

        call = ngx_queue_data(q, ngx_http_llm_redis_call_t, queue);

        link->npending--;
        call->link = NULL;

        if (ngx_http_llm_redis_link_send(link, call) != NGX_OK) {
            call->done(call, NULL);
        }
    }

    ngx_http_llm_redis_resume(redis);
}
