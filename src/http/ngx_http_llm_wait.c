
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_account.h"
#include "ngx_http_llm_live.h"
#include "ngx_http_llm_wait.h"


struct ngx_http_llm_wait_s {
    ngx_queue_t                 queue;
    ngx_http_llm_ctx_t         *ctx;
    ngx_http_llm_wait_look_pt   look;
    ngx_http_llm_wait_pt        ended;
    ngx_http_event_handler_pt   resume;
    ngx_http_cleanup_t         *cleanup;

    /* what llm_cancel finds it by; NULL: not at all */
    ngx_http_llm_id_t          *id;

    ngx_msec_t                  since_ms;
    ngx_event_t                 timer;
};


static void ngx_http_llm_wait_write_handler(ngx_http_request_t *r);
static void ngx_http_llm_wait_timer_handler(ngx_event_t *ev);
static ngx_uint_t ngx_http_llm_wait_is_cancelled(ngx_http_llm_wait_t *wait);
static void ngx_http_llm_wait_fail(ngx_http_llm_wait_t *wait,
    ngx_http_llm_end_e end);
static void ngx_http_llm_wait_stop(ngx_http_llm_wait_t *wait,
    ngx_http_llm_end_e end);
static void ngx_http_llm_wait_cleanup(void *data);


static ngx_queue_t  ngx_http_llm_wait_queue;


void
ngx_http_llm_wait_init_process(void)
{
    ngx_queue_init(&ngx_http_llm_wait_queue);
}


ngx_int_t
ngx_http_llm_wait(ngx_http_llm_ctx_t *ctx, ngx_msec_t wait_ms,
    ngx_http_llm_wait_look_pt look, ngx_http_llm_wait_pt ended,
    ngx_http_event_handler_pt resume)
{
    ngx_event_t          *rev;
    ngx_connection_t     *c;
    ngx_http_cleanup_t   *cln;
    ngx_http_request_t   *r;
    ngx_http_llm_wait_t  *wait;

    r = ctx->request;
    c = r->connection;
    rev = c->read;

    /* not the pool's: that may run seconds late, and behind the log */

    cln = ngx_http_cleanup_add(r, sizeof(ngx_http_llm_wait_t));
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    wait = cln->data;
    ngx_memzero(wait, sizeof(ngx_http_llm_wait_t));

    wait->ctx = ctx;
    wait->look = look;
    wait->ended = ended;
    wait->resume = resume;
    wait->cleanup = cln;
    wait->since_ms = ngx_current_msec;

    /* an end of the client that came along with its body is still unseen */

    if (rev->ready) {
        ngx_post_event(rev, &ngx_posted_events);

    } else if (ngx_handle_read_event(rev, 0) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_llm_is_stopped(c)) {
        ngx_post_event(c->write, &ngx_posted_events);
    }

    if (ngx_http_llm_id_open(ctx, &wait->id) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_llm_wait_write_handler;

    wait->timer.handler = ngx_http_llm_wait_timer_handler;
    wait->timer.data = wait;
    wait->timer.log = c->log;

    cln->handler = ngx_http_llm_wait_cleanup;

    ngx_queue_insert_tail(&ngx_http_llm_wait_queue, &wait->queue);

    ngx_add_timer(&wait->timer, wait_ms);

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0, "llm wait: up to %Mms",
                   wait_ms);

    ctx->wait = wait;

    return NGX_AGAIN;
}


void
ngx_http_llm_wait_end(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_wait_t  *wait;

    wait = ctx->wait;

    if (wait && wait->timer.timer_set) {
        ngx_del_timer(&wait->timer);
        ngx_post_event(&wait->timer, &ngx_posted_events);
    }
}


/* there is nothing to write yet: no event method has to tell it again */

static void
ngx_http_llm_wait_write_handler(ngx_http_request_t *r)
{
    ngx_connection_t  *c;

    c = r->connection;

    if (ngx_http_llm_is_stopped(c)) {
        c->error = 1;

        ngx_log_error(NGX_LOG_INFO, c->log, 0,
                      "client prematurely closed connection");

        ngx_http_finalize_request(r, NGX_HTTP_CLIENT_CLOSED_REQUEST);
        return;
    }

    if (ngx_handle_write_event(c->write, 0) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
    }
}


static void
ngx_http_llm_wait_timer_handler(ngx_event_t *ev)
{
    ngx_connection_t     *c;
    ngx_http_request_t   *r;
    ngx_http_llm_wait_t  *wait;

    wait = ev->data;
    r = wait->ctx->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    /* the client left, and a post_action still runs: the cleanup will come */

    if (r->write_event_handler != ngx_http_llm_wait_write_handler) {
        return;
    }

    /* whoever cancelled it was told so, also if the bell is not heard yet */

    if (ngx_http_llm_wait_is_cancelled(wait)) {
        ngx_http_llm_wait_fail(wait, NGX_HTTP_LLM_END_CANCELLED);
        return;
    }

    ngx_http_llm_wait_stop(wait, NGX_HTTP_LLM_END_NONE);

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);

    } else {
        r->read_event_handler = ngx_http_block_reading;
        r->write_event_handler = wait->resume;

        wait->resume(r);
    }

    ngx_http_run_posted_requests(c);
}


static ngx_uint_t
ngx_http_llm_wait_is_cancelled(ngx_http_llm_wait_t *wait)
{
    return wait->id && ngx_http_llm_ids_is_cancelled(wait->id);
}


/* timers of the same time expire in the order in which they were set */

void
ngx_http_llm_wait_hear(void)
{
    ngx_queue_t          *q;
    ngx_msec_int_t        left_ms;
    ngx_http_llm_wait_t  *wait;

    for (q = ngx_queue_head(&ngx_http_llm_wait_queue);
         q != ngx_queue_sentinel(&ngx_http_llm_wait_queue);
         q = ngx_queue_next(q))
    {
        wait = ngx_queue_data(q, ngx_http_llm_wait_t, queue);

        if (!wait->timer.timer_set) {
            continue;
        }

        left_ms = wait->look(wait->ctx);

        if (left_ms == -1) {
            continue;
        }

        /* nginx leaves a timer alone that is to change by little */

        ngx_del_timer(&wait->timer);
        ngx_add_timer(&wait->timer, (ngx_msec_t) left_ms);
    }
}


/* to end one may end others of its connection: from the start again */

void
ngx_http_llm_wait_cancel(void)
{
    ngx_queue_t          *q;
    ngx_http_llm_wait_t  *wait;

again:

    for (q = ngx_queue_head(&ngx_http_llm_wait_queue);
         q != ngx_queue_sentinel(&ngx_http_llm_wait_queue);
         q = ngx_queue_next(q))
    {
        wait = ngx_queue_data(q, ngx_http_llm_wait_t, queue);

        if (ngx_http_llm_wait_is_cancelled(wait)) {
            ngx_http_llm_wait_fail(wait, NGX_HTTP_LLM_END_CANCELLED);
            goto again;
        }
    }
}


void
ngx_http_llm_wait_shutdown(void)
{
    ngx_queue_t          *q;
    ngx_http_llm_wait_t  *wait;

    while (!ngx_queue_empty(&ngx_http_llm_wait_queue)) {
        q = ngx_queue_head(&ngx_http_llm_wait_queue);
        wait = ngx_queue_data(q, ngx_http_llm_wait_t, queue);

        ngx_http_llm_wait_fail(wait, NGX_HTTP_LLM_END_SHUTDOWN);
    }
}


/* it ends from outside, and its client is told */

static void
ngx_http_llm_wait_fail(ngx_http_llm_wait_t *wait, ngx_http_llm_end_e end)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = wait->ctx->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    ngx_http_llm_wait_stop(wait, end);

    /* the client has left before, and a post_action still runs */

    if (r->write_event_handler != ngx_http_llm_wait_write_handler) {
        return;
    }

    ngx_log_error(NGX_LOG_INFO, c->log, 0,
                  "llm request was ended while it waited");

    r->read_event_handler = ngx_http_block_reading;

    ngx_http_llm_error_end(r, wait->ctx);

    ngx_http_run_posted_requests(c);
}


/* end is none where it goes on; else that, and it pays nothing */

static void
ngx_http_llm_wait_stop(ngx_http_llm_wait_t *wait, ngx_http_llm_end_e end)
{
    ngx_http_llm_ctx_t        *ctx;
    ngx_http_llm_main_conf_t  *lmcf;

    ctx = wait->ctx;

    if (wait->timer.timer_set) {
        ngx_del_timer(&wait->timer);
    }

    if (wait->timer.posted) {
        ngx_delete_posted_event(&wait->timer);
    }

    ngx_queue_remove(&wait->queue);

    if (wait->id) {
        lmcf = ngx_http_get_module_main_conf(ctx->request,
                                             ngx_http_llm_stream_module);

        ngx_http_llm_ids_remove(lmcf->ids, wait->id);
    }

    wait->cleanup->handler = NULL;
    ctx->wait = NULL;

    wait->ended(ctx, ngx_current_msec - wait->since_ms,
                end != NGX_HTTP_LLM_END_NONE);

    if (end != NGX_HTTP_LLM_END_NONE) {
        ctx->end = end;
        ngx_http_llm_account_abandon(ctx);
    }
}


static void
ngx_http_llm_wait_cleanup(void *data)
{
    ngx_http_llm_wait_stop(data, NGX_HTTP_LLM_END_CLIENT_ABORT);
}
