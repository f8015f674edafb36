
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_clock.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_heartbeat.h"
#include "ngx_http_llm_relay.h"


/* after the terminal marker: for upstream to end its body by itself */
#define NGX_HTTP_LLM_LINGER_MS  1000


static ngx_http_llm_end_e ngx_http_llm_clock_expired(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex, ngx_http_llm_loc_conf_t *llcf);
static ngx_uint_t ngx_http_llm_clock_blocked(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_clock_expire(ngx_http_request_t *r);


/*
 * The timer itself is lazy: content only writes down when it came.  So it
 * must never be set later than the next deadline may turn out to be, which
 * is why the first content sets it anew.
 */

void
ngx_http_llm_clock_arm(ngx_http_request_t *r, ngx_http_llm_exchange_t *ex)
{
    ngx_msec_t                beat_ms, deadline_ms, next_ms;
    ngx_msec_int_t            delay_ms;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_loc_conf_t  *llcf;

    /* an event that was held until now is read, but nobody waits any more */

    if (ex->finalized) {
        return;
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    ctx = ex->ctx;
    deadline_ms = ex->total_deadline_ms;
    next_ms = 0;

    if (ex->lingering) {
        next_ms = ex->stage_deadline_ms;

    } else if (ex->stream && ctx->last_content_ms) {
        next_ms = llcf->idle_timeout_ms
                  ? ctx->last_content_ms + llcf->idle_timeout_ms : 0;

    } else if (ex->stream) {
        next_ms = ex->stage_deadline_ms;
    }

    beat_ms = ngx_http_llm_heartbeat_deadline(r, ex);

    if (beat_ms
        && (next_ms == 0 || (ngx_msec_int_t) (beat_ms - next_ms) < 0))
    {
        next_ms = beat_ms;
    }

    if (next_ms
        && (deadline_ms == 0 || (ngx_msec_int_t) (next_ms - deadline_ms) < 0))
    {
        deadline_ms = next_ms;
    }

    if (ex->clock.timer_set) {
        ngx_del_timer(&ex->clock);
    }

    if (deadline_ms) {
        delay_ms = (ngx_msec_int_t) (deadline_ms - ngx_current_msec);
        ngx_add_timer(&ex->clock, ngx_max(delay_ms, 1));
    }
}


void
ngx_http_llm_clock_first(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ctx->first_content_ms = ngx_current_msec;

    if (ctx->peer) {
        ngx_http_llm_balancer_first_token(ctx->peer);
    }

    ngx_http_llm_clock_arm(r, ctx->exchange);
}


void
ngx_http_llm_clock_linger(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_exchange_t  *ex;

    ex = ctx->exchange;

    if (ex == NULL || ex->lingering || r->upstream->length == 0) {
        return;
    }

    ex->lingering = 1;
    ex->stage_deadline_ms = ngx_current_msec + NGX_HTTP_LLM_LINGER_MS;

    ngx_http_llm_clock_arm(r, ex);
}


void
ngx_http_llm_clock_handler(ngx_event_t *ev)
{
    ngx_msec_t                beat_ms;
    ngx_connection_t         *c;
    ngx_http_llm_end_e        end;
    ngx_http_request_t       *r;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_exchange_t  *ex;
    ngx_http_llm_loc_conf_t  *llcf;

    r = ev->data;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    ctx = ngx_http_llm_find_ctx(r);
    ex = ctx->exchange;

    end = ngx_http_llm_clock_expired(r, ex, llcf);

    if (end == NGX_HTTP_LLM_END_NONE) {
        beat_ms = ngx_http_llm_heartbeat_deadline(r, ex);

        if (beat_ms && (ngx_msec_int_t) (ngx_current_msec - beat_ms) >= 0) {
            ngx_http_llm_heartbeat(r, ctx);

        } else {
            ngx_http_llm_clock_arm(r, ex);
        }

        return;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm exchange clock: end %ui", (ngx_uint_t) end);

    if (end == NGX_HTTP_LLM_END_DONE) {
        c = r->connection;

        ngx_http_llm_exchange_stop(r);

        r->write_event_handler(r);
        ngx_http_run_posted_requests(c);

        return;
    }

    /* a client that has left ended it before */

    if (ctx->relay == NULL || !ctx->relay->drained) {
        ctx->end = end;
    }

    ngx_http_llm_clock_expire(r);
}


/* which of the clocks has run out; DONE: the linger after the end */

static ngx_http_llm_end_e
ngx_http_llm_clock_expired(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex, ngx_http_llm_loc_conf_t *llcf)
{
    ngx_msec_t           now_ms;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ex->ctx;
    now_ms = ngx_current_msec;

    if (ex->lingering
        && (ngx_msec_int_t) (now_ms - ex->stage_deadline_ms) >= 0)
    {
        return NGX_HTTP_LLM_END_DONE;
    }

    if (ex->total_deadline_ms
        && (ngx_msec_int_t) (now_ms - ex->total_deadline_ms) >= 0)
    {
        return NGX_HTTP_LLM_END_TOTAL_TIMEOUT;
    }

    if (!ex->stream || ex->lingering) {
        return NGX_HTTP_LLM_END_NONE;
    }

    if (ctx->last_content_ms == 0) {
        return ex->stage_deadline_ms
               && (ngx_msec_int_t) (now_ms - ex->stage_deadline_ms) >= 0
               ? NGX_HTTP_LLM_END_FIRST_TOKEN_TIMEOUT
               : NGX_HTTP_LLM_END_NONE;
    }

    if (llcf->idle_timeout_ms == 0
        || now_ms - ctx->last_content_ms < llcf->idle_timeout_ms)
    {
        return NGX_HTTP_LLM_END_NONE;
    }

    if (ngx_http_llm_clock_blocked(r, ctx)) {
        ctx->last_content_ms = now_ms;
        return NGX_HTTP_LLM_END_NONE;
    }

    return NGX_HTTP_LLM_END_IDLE_TIMEOUT;
}


/*
 * The client does not read, or there are no tokens for more: upstream's
 * silence is not its own.
 */

static ngx_uint_t
ngx_http_llm_clock_blocked(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (ctx->relay && ctx->relay->paused) {
        return 1;
    }

    return u->busy_bufs != NULL
           && r->connection->buffered
           && !r->connection->write->ready;
}


/*
 * Ends the exchange as if nginx's own timer had run out, by the handler that
 * is in charge now.  Nothing of ours may be touched behind it.
 */

static void
ngx_http_llm_clock_expire(ngx_http_request_t *r)
{
    ngx_event_t              *ev;
    ngx_connection_t         *c;
    ngx_http_upstream_t      *u;
    ngx_http_cleanup_pt       handler;
    ngx_http_llm_ctx_t       *ctx;

    u = r->upstream;
    c = u->peer.connection;
    ctx = ngx_http_llm_find_ctx(r);

    if (ctx->end == NGX_HTTP_LLM_END_TOTAL_TIMEOUT) {
        u->peer.tries = 0;
    }

    if (u->cleanup == NULL) {

        /* nginx gave up before it had begun */

        return;
    }

    if (c == NULL) {

        /* still resolving a name */

        c = r->connection;
        handler = *u->cleanup;

        r->main->count++;
        handler(r);
        ngx_http_llm_error_prepare(r, ctx, NGX_LLM_ERR_TIMEOUT,
                                   NGX_HTTP_GATEWAY_TIME_OUT,
                                   "The model server did not answer in time.");
        ngx_http_finalize_request(r, NGX_HTTP_GATEWAY_TIME_OUT);
        ngx_http_run_posted_requests(c);

        return;
    }

    if (u->request_body_sent || u->header_sent) {
        ev = c->read;
        ev->delayed = 0;

    } else {
        ev = c->write;
    }

    ev->timedout = 1;
    ev->handler(ev);
}
