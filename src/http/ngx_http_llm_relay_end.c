
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_chain.h"
#include "ngx_http_llm_relay.h"


/* an error event: see ngx_llm_error_event() */
#define NGX_HTTP_LLM_EVENT_BYTES  1024


static ngx_int_t ngx_http_llm_relay_error(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t ***ll);


/*
 * The end of the body.  What is held of an unfinished event goes out, unless
 * the answer was cut off: then it never was an event, and an error event
 * takes its place.
 */

ngx_int_t
ngx_http_llm_relay_last(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t ***ll)
{
    ngx_buf_t                *b;
    ngx_http_llm_relay_t     *relay;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    relay = ctx->relay;

    ngx_http_llm_relay_finish(r, ctx);

    relay->ended = 1;

    if (ngx_http_llm_relay_is_incomplete(relay)
        && ctx->end != NGX_HTTP_LLM_END_DONE)
    {
        if (relay->torn || !llcf->error_events) {

            /* never a clean end: the client must not take it for whole */

            ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                          "llm answer ended early, closing connection");

            r->keepalive = 0;
            r->connection->error = 1;

            return NGX_ERROR;
        }

        if (ngx_http_llm_relay_error(r, ctx, ll) != NGX_OK) {
            return NGX_ERROR;
        }

    } else if (relay->held) {

        if (ngx_http_llm_chain_push(r, ll, relay->held) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    relay->held = NULL;

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->last_buf = 1;

    return ngx_http_llm_chain_push(r, ll, b);
}


ngx_uint_t
ngx_http_llm_relay_is_incomplete(const ngx_http_llm_relay_t *relay)
{
    return !relay->blind
           && relay->answer.api != NULL
           && !(relay->answer.seen & (NGX_LLM_EV_END|NGX_LLM_EV_ERROR));
}


ngx_uint_t
ngx_http_llm_relay_is_unread(const ngx_http_llm_relay_t *relay)
{
    return (relay->answer.seen & NGX_LLM_EV_UNREAD)
           && relay->answer.events == relay->unread_events
           && !relay->torn;
}


ngx_uint_t
ngx_http_llm_relay_can_end(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    return ctx->relay
           && ctx->relay->stream
           && !ctx->relay->ended
           && !ctx->relay->blind
           && ctx->relay->answer.api != NULL;
}


static ngx_int_t
ngx_http_llm_relay_error(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t ***ll)
{
    ngx_buf_t             *b;
    const char            *message;
    ngx_llm_err_e          err;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    switch (ctx->end) {

    case NGX_HTTP_LLM_END_FIRST_TOKEN_TIMEOUT:
        err = NGX_LLM_ERR_TIMEOUT;
        message = "The model server sent no token in time.";
        break;

    case NGX_HTTP_LLM_END_IDLE_TIMEOUT:
        err = NGX_LLM_ERR_TIMEOUT;
        message = "The model server stopped sending tokens.";
        break;

    case NGX_HTTP_LLM_END_TOTAL_TIMEOUT:
        err = NGX_LLM_ERR_TIMEOUT;
        message = "The answer took longer than this server allows.";
        break;

    case NGX_HTTP_LLM_END_LIMIT_CUT:
        err = NGX_LLM_ERR_RATE_LIMIT;
        message = "Rate limit reached for tokens: the answer was cut.";
        break;

    case NGX_HTTP_LLM_END_CANCELLED:
        err = NGX_LLM_ERR_CANCELLED;
        message = "The request was cancelled.";
        break;

    case NGX_HTTP_LLM_END_SHUTDOWN:
        err = NGX_LLM_ERR_SHUTDOWN;
        message = "The server is shutting down.";
        break;

    default:
        err = NGX_LLM_ERR_UPSTREAM;
        message = "The model server ended the answer before it was complete.";
    }

    b = ngx_http_llm_chain_take(r, relay, NGX_HTTP_LLM_EVENT_BYTES);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->last += ngx_llm_error_event(relay->answer.api, err, message, b->last,
                                   NGX_HTTP_LLM_EVENT_BYTES);

    return ngx_http_llm_chain_push(r, ll, b);
}
