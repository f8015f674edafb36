
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_chain.h"
#include "ngx_http_llm_drain.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_relay.h"


/* at once in a worker; who leaves then has its stream closed */
#define NGX_HTTP_LLM_DRAINS_MAX  64


static void ngx_http_llm_drain_read_handler(ngx_http_request_t *r);
static void ngx_http_llm_drain_write_handler(ngx_http_request_t *r);
static ngx_uint_t ngx_http_llm_drain_can(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);


ngx_conf_enum_t  ngx_http_llm_aborts[] = {
    { ngx_string("close"), NGX_HTTP_LLM_ABORT_CLOSE },
    { ngx_string("drain"), NGX_HTTP_LLM_ABORT_DRAIN },
    { ngx_null_string, 0 }
};


static ngx_uint_t  ngx_http_llm_drains;


void
ngx_http_llm_drain_start(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    if (llcf->on_abort == NGX_HTTP_LLM_ABORT_DRAIN) {
        ctx->exchange->read_event_handler = r->read_event_handler;
        r->read_event_handler = ngx_http_llm_drain_read_handler;
    }
}


/*
 * Behind the header nginx learns that a stream of HTTP/3 is not taken any
 * more only when it has something to write: a stalled one would stay.
 */

void
ngx_http_llm_drain_watch(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_connection_t  *c;

    c = r->connection;

    if (!ngx_http_llm_is_quic(c)) {
        return;
    }

    ctx->exchange->write_event_handler = r->write_event_handler;
    r->write_event_handler = ngx_http_llm_drain_write_handler;

    if (ngx_http_llm_is_stopped(c)) {
        ngx_post_event(c->write, &ngx_posted_events);
    }
}


static void
ngx_http_llm_drain_write_handler(ngx_http_request_t *r)
{
    ngx_connection_t    *c;
    ngx_http_llm_ctx_t  *ctx;

    c = r->connection;
    ctx = ngx_http_llm_find_ctx(r);

    if (ngx_http_llm_is_stopped(c) && !ctx->relay->drained) {
        c->error = 1;
        r->read_event_handler(r);
        return;
    }

    ctx->exchange->write_event_handler(r);
}


/*
 * nginx looks whether the client is there, and closes upstream if it is not,
 * unless the answer were to be cached: for the time of the look it is.
 */

static void
ngx_http_llm_drain_read_handler(ngx_http_request_t *r)
{
    ngx_connection_t     *c;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_upstream_t  *u;

    c = r->connection;
    u = r->upstream;
    ctx = ngx_http_llm_find_ctx(r);

    if (ctx->relay->drained) {
        return;
    }

    if (!ngx_http_llm_drain_can(r, ctx)) {
        ctx->exchange->read_event_handler(r);
        return;
    }

    u->cacheable = 1;
    ctx->exchange->read_event_handler(r);
    u->cacheable = 0;

    if (c->error && ngx_http_llm_drain_begin(r, ctx) == NGX_OK) {

        /* what waited for the client, or for its time, is read now */

        r->write_event_handler(r);
    }
}


/*
 * Before any content closing costs no more than the prompt; and a worker
 * that is to leave begins none.
 */

static ngx_uint_t
ngx_http_llm_drain_can(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    return llcf->on_abort == NGX_HTTP_LLM_ABORT_DRAIN
           && ngx_http_llm_drains < NGX_HTTP_LLM_DRAINS_MAX
           && !ngx_exiting
           && !ctx->exchange->finalized
           && r->upstream->peer.connection
           && ctx->first_content_ms
           && !ctx->relay->blind;
}


ngx_int_t
ngx_http_llm_drain_begin(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_chain_t           *cl;
    ngx_connection_t      *c;
    ngx_http_llm_relay_t  *relay;

    c = r->connection;
    relay = ctx->relay;

    if (!ngx_http_llm_drain_can(r, ctx)) {
        return NGX_DECLINED;
    }

    ngx_log_error(NGX_LOG_INFO, c->log, 0,
                  "client left, llm answer is read to its end");

    ngx_http_llm_drains++;
    relay->drained = 1;

    /* to have received it all is to have had it all */

    if (!(relay->answer.seen & NGX_LLM_EV_END)) {
        ctx->end = NGX_HTTP_LLM_END_CLIENT_ABORT;
    }

    ngx_http_llm_pause_stop(ctx);
    relay->paused = 0;

    /* nobody takes it any more; what has not been read yet is still to be */

    for (cl = r->upstream->busy_bufs; cl; cl = cl->next) {

        if (!ngx_http_llm_chain_has(relay->in, cl->buf)) {
            cl->buf->pos = cl->buf->last;
        }
    }

    c->write->ready = 1;
    c->write->delayed = 0;

    return NGX_OK;
}


void
ngx_http_llm_drain_end(ngx_http_llm_ctx_t *ctx)
{
    if (ctx->relay && ctx->relay->drained) {
        ngx_http_llm_drains--;
    }
}
