
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_chain.h"
#include "ngx_http_llm_clock.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_filter.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_relay.h"


static ngx_int_t ngx_http_llm_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_filter_start(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_body_filter(ngx_http_request_t *r, ngx_chain_t
    *in);
static ngx_int_t ngx_http_llm_filter_other(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t *in) __attribute__((noinline));
static ngx_int_t ngx_http_llm_filter_answer(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t *in);


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


void
ngx_http_llm_filter_install(void)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_llm_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_llm_body_filter;
}


static ngx_int_t
ngx_http_llm_header_filter(ngx_http_request_t *r)
{
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    if (r != r->main) {
        return ngx_http_next_header_filter(r);
    }

    if (!llcf->enable) {

        /* a redirect led out of our locations: this answer is not ours */

        if (r->internal) {
            ctx = ngx_http_llm_find_ctx(r);

            if (ctx) {
                ctx->error_body.len = 0;
                ngx_http_llm_relay_drop(ctx);
            }
        }

        return ngx_http_next_header_filter(r);
    }

    ctx = ngx_http_llm_find_ctx(r);

    if (ctx == NULL) {

        if (r->err_status != NGX_HTTP_REQUEST_ENTITY_TOO_LARGE) {
            return ngx_http_next_header_filter(r);
        }

        /* client_max_body_size refuses before any handler runs */

        ctx = ngx_http_llm_get_ctx(r);
        if (ctx == NULL) {
            return NGX_ERROR;
        }
    }

    /* a content handler that needs no upstream is not to be held back */

    if (ctx->hooking) {
        ctx->hooking = 0;
        r->aio = 0;
    }

    ngx_http_llm_gate_last_status(r, ctx);

    if (ngx_http_llm_limit_add_headers(r, ctx) != NGX_OK
        || ngx_http_llm_turn_add_headers(r, ctx) != NGX_OK
        || ngx_http_llm_error_add_headers(r, ctx) != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* what the cache answers needs no place at a server */

    if (ngx_http_llm_is_cached(r)) {
        ngx_http_llm_turn_end(ctx);
    }

    if (ngx_http_llm_error_header(r, ctx) == NGX_OK) {
        ngx_http_llm_gate_header(r, ctx);

        return ngx_http_next_header_filter(r);
    }

    if (ctx->exchange
        && ctx->relay == NULL
        && r->upstream
        && ngx_http_llm_exchange_is_of(r->upstream)
        && r->upstream->peer.connection
        && !ngx_http_llm_is_cached(r)
        && ngx_http_llm_filter_start(r, ctx) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_next_header_filter(r);
}


/*
 * What kind of answer is this?  A stream of events is passed event by event;
 * of a JSON answer a copy is kept, to be read at its end; anything else
 * passes.
 */

static ngx_int_t
ngx_http_llm_filter_start(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t                stream;
    ngx_llm_framing_e         framing;
    ngx_http_upstream_t      *u;
    ngx_http_llm_relay_t     *relay;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    u = r->upstream;

    if (r->headers_out.status == NGX_HTTP_SWITCHING_PROTOCOLS) {
        ngx_http_llm_exchange_release(r, ctx);
        return NGX_OK;
    }

    stream = ngx_http_llm_filter_framing(&r->headers_out.content_type,
                                         &framing);

    if (!stream && !ngx_http_llm_filter_type(&r->headers_out.content_type,
                                             "application/json"))
    {
        return NGX_OK;
    }

    /* 204, 304..: there is nothing to read */

    if (u->headers_in.status_n != NGX_HTTP_OK
        && u->headers_in.status_n < NGX_HTTP_BAD_REQUEST)
    {
        return NGX_OK;
    }

    relay = ngx_pcalloc(r->pool, sizeof(ngx_http_llm_relay_t));
    if (relay == NULL) {
        return NGX_ERROR;
    }

    ngx_llm_answer_init(&relay->answer, ctx->api);
    ctx->relay = relay;

    if (r->headers_out.content_encoding
        && r->headers_out.content_encoding->value.len)
    {
        relay->blind = 1;

        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "llm answer is compressed (\"%V\") and passes unread",
                      &r->headers_out.content_encoding->value);
    }

    if (!stream) {
        r->main_filter_need_in_memory = 1;
        return NGX_OK;
    }

    if (ngx_http_llm_pace_start(r, ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    relay->stream = 1;
    relay->sent_ms = ngx_current_msec;
    relay->frame.framing = framing;

    if (u->headers_in.status_n != NGX_HTTP_OK) {
        relay->blind = 1;
    }

    relay->beats = llcf->heartbeat_ms
                   && framing == NGX_LLM_FRAME_SSE
                   && !relay->blind
                   && !r->header_only;

    ngx_http_llm_exchange_start_stream(r, ctx);

    /* bytes may be added or left out */

    ngx_http_clear_content_length(r);
    ngx_http_clear_accept_ranges(r);

    /* an event would wait in the compressor for the next one */

#if (NGX_HTTP_GZIP)
    r->gzip_tested = 1;
    r->gzip_ok = 0;
#endif

    r->main_filter_need_in_memory = 1;

    return NGX_OK;
}


ngx_uint_t
ngx_http_llm_filter_framing(ngx_str_t *type, ngx_llm_framing_e *framing)
{
    *framing = NGX_LLM_FRAME_SSE;

    if (ngx_http_llm_filter_type(type, "text/event-stream")) {
        return 1;
    }

    *framing = NGX_LLM_FRAME_LINES;

    return ngx_http_llm_filter_type(type, "application/x-ndjson")
           || ngx_http_llm_filter_type(type, "application/ndjson");
}


ngx_uint_t
ngx_http_llm_filter_type(ngx_str_t *value, const char *type)
{
    size_t  len;

    len = ngx_strlen(type);

    return value->len >= len
           && ngx_strncasecmp(value->data, (u_char *) type, len) == 0
           && (value->len == len
               || value->data[len] == ';'
               || value->data[len] == ' ');
}


static ngx_int_t
ngx_http_llm_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_http_llm_ctx_t    *ctx;
    ngx_http_llm_relay_t  *relay;

    /* behind a redirect the header filter has found the context again */

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_stream_module);

    if (ctx == NULL || r != r->main) {
        return ngx_http_next_body_filter(r, in);
    }

    relay = ctx->relay;

    if (relay && relay->stream && !relay->blind && ctx->error_body.len == 0) {
        return ngx_http_llm_relay_stream(r, ctx, in);
    }

    return ngx_http_llm_filter_other(r, ctx, in);
}


/* what is no stream of events that are read */

static ngx_int_t
ngx_http_llm_filter_other(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *in)
{
    ngx_http_llm_relay_t  *relay;

    if (ctx->error_body.len) {

        if (in == NULL) {
            return ngx_http_next_body_filter(r, NULL);
        }

        return ngx_http_next_body_filter(r,
                                     ngx_http_llm_error_chain(r, ctx, in));
    }

    relay = ctx->relay;

    if (relay == NULL) {
        return ngx_http_next_body_filter(r, in);
    }

    if (relay->blind && !relay->ended) {

        /* whatever it is, it is what the client waits for */

        if (relay->stream && in && ngx_buf_in_memory(in->buf)) {
            ngx_http_llm_clock_content(r, ctx);
        }

        return ngx_http_next_body_filter(r, in);
    }

    if (relay->stream) {
        return ngx_http_llm_relay_stream(r, ctx, in);
    }

    return ngx_http_llm_filter_answer(r, ctx, in);
}


/*
 * A JSON answer passes as it comes; a copy is read when it is complete, if
 * it is not too large for that.
 */

static ngx_int_t
ngx_http_llm_filter_answer(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *in)
{
    size_t                 held_bytes;
    ngx_buf_t             *b;
    ngx_chain_t           *cl;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    for (cl = in; cl; cl = cl->next) {
        b = cl->buf;

        if (relay->blind || !ngx_buf_in_memory(b) || b->pos == b->last) {
            continue;
        }

        held_bytes = relay->held ? relay->held->last - relay->held->pos : 0;

        if (held_bytes + (b->last - b->pos) > NGX_LLM_MAX_ANSWER_BYTES) {
            relay->blind = 1;
            continue;
        }

        if (ngx_http_llm_chain_hold(r, relay, b->pos, b->last - b->pos)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return ngx_http_next_body_filter(r, in);
}


ngx_int_t
ngx_http_llm_filter_next(ngx_http_request_t *r, ngx_chain_t *out)
{
    return ngx_http_next_body_filter(r, out);
}
