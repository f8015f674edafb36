
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_live.h"
#include "ngx_http_llm_relay.h"
#include "ngx_http_llm_wait.h"


/*
 * When worker_shutdown_timeout runs out nginx closes all connections.  So
 * long before that the streams are ended, but not before half of it.
 */
#define NGX_HTTP_LLM_SHUTDOWN_MS  500

/* and this long before them, at most, who waits for a turn or for tokens */
#define NGX_HTTP_LLM_SHUTDOWN_WAITS_MS  250


typedef struct {
    /* of ngx_http_llm_exchange_t */
    ngx_queue_t       queue;

    /* ngx_http_llm_ids_cancels() at the last look */
    ngx_uint_t        cancels;

    /*
     * worker_shutdown_timeout is about to run out: for those who wait, and
     * at streams_ms, of ngx_current_msec, for streams
     */
    ngx_event_t       shutdown;
    ngx_msec_t        streams_ms;
    ngx_connection_t  dumb;
} ngx_http_llm_lives_t;


static void ngx_http_llm_live_look(ngx_shm_zone_t *ids);
static void ngx_http_llm_live_exiting(void);
static void ngx_http_llm_live_shutdown(ngx_event_t *ev);


static ngx_http_llm_lives_t  ngx_http_llm_lives;


void
ngx_http_llm_live_init_process(void)
{
    ngx_queue_init(&ngx_http_llm_lives.queue);
}


ngx_int_t
ngx_http_llm_live_add(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_exchange_t  *ex;

    ex = ctx->exchange;

    if (ex->live.next == NULL) {
        ngx_queue_insert_tail(&ngx_http_llm_lives.queue, &ex->live);
    }

    if (ex->id) {
        return NGX_OK;
    }

    return ngx_http_llm_id_open(ctx, &ex->id);
}


void
ngx_http_llm_live_remove(ngx_http_llm_exchange_t *ex)
{
    ngx_http_llm_main_conf_t  *lmcf;

    if (ex->live.next) {
        ngx_queue_remove(&ex->live);
        ex->live.next = NULL;
    }

    if (ex->id) {
        lmcf = ngx_http_get_module_main_conf(ex->ctx->request,
                                             ngx_http_llm_stream_module);

        ngx_http_llm_ids_remove(lmcf->ids, ex->id);
        ex->id = NULL;
    }
}


void
ngx_http_llm_live_hear(void)
{
    ngx_uint_t                 cancels;
    ngx_http_llm_main_conf_t  *lmcf;

    if (ngx_exiting) {
        ngx_http_llm_live_exiting();
    }

    lmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                               ngx_http_llm_stream_module);

    if (lmcf == NULL || lmcf->ids == NULL) {
        return;
    }

    cancels = ngx_http_llm_ids_cancels(lmcf->ids);

    if (cancels != ngx_http_llm_lives.cancels) {
        ngx_http_llm_lives.cancels = cancels;

        ngx_http_llm_live_look(lmcf->ids);
        ngx_http_llm_wait_cancel();
    }
}


/* to end one may end others of its connection: from the start again */

static void
ngx_http_llm_live_look(ngx_shm_zone_t *ids)
{
    ngx_queue_t              *q;
    ngx_http_llm_exchange_t  *ex;

again:

    for (q = ngx_queue_head(&ngx_http_llm_lives.queue);
         q != ngx_queue_sentinel(&ngx_http_llm_lives.queue);
         q = ngx_queue_next(q))
    {
        ex = ngx_queue_data(q, ngx_http_llm_exchange_t, live);

        if (ex->id && ngx_http_llm_ids_is_cancelled(ex->id)) {
            ngx_http_llm_live_end(ex->ctx, NGX_HTTP_LLM_END_CANCELLED);
            goto again;
        }
    }
}


/*
 * nginx's own way out for a request whose client has left closes upstream
 * and leaves the rest to its caller.
 */

void
ngx_http_llm_live_end(ngx_http_llm_ctx_t *ctx, ngx_http_llm_end_e end)
{
    ngx_uint_t            sent;
    ngx_connection_t     *c;
    ngx_http_request_t   *r;
    ngx_http_cleanup_pt   handler;
    ngx_http_upstream_t  *u;

    r = ctx->request;
    c = r->connection;
    u = r->upstream;

    ngx_http_llm_live_remove(ctx->exchange);

    if (u == NULL || u->cleanup == NULL) {

        /* nginx gave up before it had begun */

        return;
    }

    ngx_http_set_log_request(c->log, r);

    /* a client that has left, or has its terminal marker, ended it before */

    if (ctx->end == NGX_HTTP_LLM_END_NONE
        && (ctx->relay == NULL
            || !(ctx->relay->answer.seen & (NGX_LLM_EV_END|NGX_LLM_EV_ERROR))))
    {
        ctx->end = end;

        ngx_log_error(NGX_LOG_INFO, c->log, 0, "llm answer was ended: %s",
                      end == NGX_HTTP_LLM_END_CANCELLED
                      ? "cancelled" : "worker is shutting down");
    }

    sent = u->header_sent;
    handler = *u->cleanup;

    r->main->count++;
    ctx->exchange->ending = 1;

    handler(r);

    if (!sent) {
        ngx_http_llm_error_end(r, ctx);

    } else if (ctx->relay && ctx->relay->ended) {
        ngx_http_finalize_request(r, NGX_OK);

    } else {

        /* nothing can be put into it any more: it breaks off */

        ngx_http_finalize_request(r, NGX_ERROR);
    }

    ngx_http_run_posted_requests(c);
}


static void
ngx_http_llm_live_exiting(void)
{
    ngx_msec_t        end_ms, timeout_ms;
    ngx_event_t      *ev;
    ngx_core_conf_t  *ccf;

    ev = &ngx_http_llm_lives.shutdown;
    ccf = (ngx_core_conf_t *) ngx_get_conf(ngx_cycle->conf_ctx,
                                           ngx_core_module);
    timeout_ms = ccf->shutdown_timeout;

    if (timeout_ms == 0 || ev->handler) {
        return;
    }

    /* the event module logs the descriptor */

    ngx_http_llm_lives.dumb.fd = (ngx_socket_t) -1;

    ev->data = &ngx_http_llm_lives.dumb;
    ev->handler = ngx_http_llm_live_shutdown;
    ev->log = ngx_cycle->log;
    ev->cancelable = 1;

    end_ms = timeout_ms - ngx_min(timeout_ms / 2, NGX_HTTP_LLM_SHUTDOWN_MS);

    ngx_http_llm_lives.streams_ms = ngx_current_msec + end_ms;

    ngx_add_timer(ev, end_ms - ngx_min(end_ms / 2,
                                       NGX_HTTP_LLM_SHUTDOWN_WAITS_MS));
}


/*
 * Who waits comes first: the place of a stream that ends would be given to
 * somebody in another worker that is to leave, and who is ended right behind.
 * A worker that comes so late that nginx's timer has run out, too, has this
 * moment only.
 */

static void
ngx_http_llm_live_shutdown(ngx_event_t *ev)
{
    ngx_queue_t              *queue;
    ngx_msec_int_t            left_ms;
    ngx_http_llm_exchange_t  *ex;

    ngx_http_llm_wait_shutdown();

    left_ms = (ngx_msec_int_t) (ngx_http_llm_lives.streams_ms
                                - ngx_current_msec);

    if (left_ms > 0) {
        ngx_add_timer(ev, left_ms);
        return;
    }

    queue = &ngx_http_llm_lives.queue;

    while (!ngx_queue_empty(queue)) {
        ex = ngx_queue_data(ngx_queue_head(queue), ngx_http_llm_exchange_t,
                            live);

        ngx_http_llm_live_end(ex->ctx, NGX_HTTP_LLM_END_SHUTDOWN);
    }
}


void
ngx_http_llm_live_process_gone(ngx_cycle_t *cycle, ngx_pid_t pid)
{
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_llm_stream_module);

    if (lmcf && lmcf->ids) {
        ngx_http_llm_ids_reap(lmcf->ids, pid);
    }
}
