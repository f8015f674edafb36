
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_account.h"
#include "ngx_http_llm_buffer.h"
#include "ngx_http_llm_drain.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_live.h"
#include "ngx_http_llm_relay.h"


static void ngx_http_llm_exchange_end_stream(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_exchange_end_header(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_int_t rc);


void
ngx_http_llm_exchange_finalize(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_upstream_t      *u;
    ngx_http_llm_exchange_t  *ex;

    ctx = ngx_http_llm_find_ctx(r);
    ex = ctx->exchange;
    u = r->upstream;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm exchange finalize: %i", rc);

    if (ex->clock.timer_set) {
        ngx_del_timer(&ex->clock);
    }

    ngx_http_llm_pause_stop(ctx);
    ngx_http_llm_drain_end(ctx);
    ngx_http_llm_live_remove(ex);
    ngx_http_llm_buffer_end(ex);

    ex->finalized = 1;

    ex->finalize_request(r, rc);

    ngx_http_llm_turn_end(ctx);

    /* X-Accel-Redirect: another location goes on */

    if (rc == NGX_DECLINED) {
        return;
    }

    ngx_http_llm_account_end(r, ctx, rc);

    if (!u->header_sent) {
        ngx_http_llm_exchange_end_header(r, ctx, rc);

    } else if (rc == NGX_HTTP_BAD_GATEWAY
               || rc == NGX_HTTP_GATEWAY_TIME_OUT
               || ex->ending)
    {
        ngx_http_llm_exchange_end_stream(r, ctx);
    }
}


/*
 * Upstream failed in mid-stream, or the stream is ended from outside.  nginx
 * would break off the connection: what
 * is pending goes out, then the relay's error event with the end of the
 * body.  nginx's flush that follows is swallowed there.
 */

static void
ngx_http_llm_exchange_end_stream(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx)
{
    ngx_buf_t            *b;
    ngx_chain_t          *cl, **ll;
    ngx_connection_t     *c;
    ngx_http_upstream_t  *u;

    c = r->connection;
    u = r->upstream;

    if (!ctx->exchange->stream
        || r->header_only
        || c->error
        || c->timedout
        || !ngx_http_llm_relay_can_end(r, ctx))
    {
        return;
    }

    b = ngx_calloc_buf(r->pool);
    cl = ngx_alloc_chain_link(r->pool);

    if (b == NULL || cl == NULL) {
        return;
    }

    b->last_buf = 1;
    cl->buf = b;
    cl->next = NULL;

    for (ll = &u->out_bufs; *ll; ll = &(*ll)->next) { /* void */ }

    *ll = cl;

    ctx->exchange->keepalive = r->keepalive;

    (void) ngx_http_output_filter(r, u->out_bufs);

    u->out_bufs = NULL;
}


/* an error of nginx itself before any header: told as JSON */

static void
ngx_http_llm_exchange_end_header(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_int_t rc)
{
    switch (rc) {

    case NGX_HTTP_BAD_GATEWAY:

        /* nobody was left to ask: what the last one said stays */

        if (ctx->exchange->first_error) {
            ngx_http_llm_gate_last(r);
            break;
        }

        ngx_http_llm_error_prepare(r, ctx, NGX_LLM_ERR_UPSTREAM, rc,
                                   "The model server could not be reached "
                                   "or did not answer.");
        break;

    case NGX_HTTP_SERVICE_UNAVAILABLE:
        ngx_http_llm_error_prepare(r, ctx, NGX_LLM_ERR_OVERLOADED, rc,
                                   "The model servers are busy.");
        break;

    case NGX_HTTP_GATEWAY_TIME_OUT:
        ngx_http_llm_error_prepare(r, ctx, NGX_LLM_ERR_TIMEOUT, rc,
                                   "The model server did not answer in "
                                   "time.");
        break;

    default:
        break;
    }
}
