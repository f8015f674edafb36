
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_gate.h"


/* nginx asks the next server by these statuses only: who stands in for whom */

typedef struct {
    ngx_uint_t           status;
    ngx_uint_t           stand_in;
    ngx_uint_t           mask;
} ngx_http_llm_gate_status_t;


static ngx_http_llm_gate_status_t  ngx_http_llm_gate_statuses[] = {
    { 408, NGX_HTTP_GATEWAY_TIME_OUT, NGX_HTTP_UPSTREAM_FT_HTTP_504 },
    { 409, NGX_HTTP_SERVICE_UNAVAILABLE, NGX_HTTP_UPSTREAM_FT_HTTP_503 },
    { 529, NGX_HTTP_SERVICE_UNAVAILABLE, NGX_HTTP_UPSTREAM_FT_HTTP_503 }
};

static ngx_http_llm_gate_status_t  ngx_http_llm_gate_server_error =
    { 0, NGX_HTTP_INTERNAL_SERVER_ERROR, NGX_HTTP_UPSTREAM_FT_HTTP_500 };


ngx_int_t
ngx_http_llm_gate_error(ngx_http_request_t *r, ngx_http_llm_exchange_t *ex)
{
    size_t                size, len;
    ngx_uint_t            status;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_upstream_t  *u;
    ngx_http_llm_gate_t  *gate;

    ctx = ex->ctx;
    gate = ex->gate;
    u = r->upstream;

    status = gate->answer.error_status ? gate->answer.error_status
                                       : NGX_HTTP_BAD_GATEWAY;

    ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                  "upstream sent an error instead of content, status %ui",
                  status);

    size = ngx_max(gate->event_bytes, NGX_LLM_ERROR_BYTES);

    ctx->error_body.data = ngx_pnalloc(r->pool, size);
    if (ctx->error_body.data == NULL) {
        return NGX_ERROR;
    }

    if (gate->whole) {
        len = gate->event_bytes;
        ngx_memcpy(ctx->error_body.data, gate->event, len);

    } else {
        len = ngx_llm_error_of_event(gate->answer.api, gate->event,
                                     gate->event_bytes, status,
                                     ngx_http_llm_scratch(),
                                     ctx->error_body.data, size);
    }

    ctx->error_body.len = len;
    ctx->error_status = status;
    ctx->error_uri_changes = r->uri_changes;

    ex->first_error = 1;

    u->state->status = status;

    u->headers_in.status_n = status;
    ngx_str_null(&u->headers_in.status_line);

    u->headers_in.chunked = 0;
    u->headers_in.content_length_n = 0;
    u->headers_in.connection_close = 1;
    u->buffer.last = u->buffer.pos;

    ngx_http_llm_gate_stand_in(r, ex);

    return NGX_OK;
}


void
ngx_http_llm_gate_stand_in(ngx_http_request_t *r, ngx_http_llm_exchange_t *ex)
{
    ngx_msec_t                   timeout_ms;
    ngx_uint_t                   i, mask, status;
    ngx_http_upstream_t         *u;
    ngx_http_llm_gate_status_t  *like;

    if (ex->ctx->api == NULL || ex->ctx->facts == NULL) {
        return;
    }

    u = r->upstream;
    status = u->headers_in.status_n;
    like = NULL;

    for (i = 0; i < sizeof(ngx_http_llm_gate_statuses)
                    / sizeof(ngx_http_llm_gate_statuses[0]); i++)
    {
        if (status == ngx_http_llm_gate_statuses[i].status) {
            like = &ngx_http_llm_gate_statuses[i];
        }
    }

    if (like == NULL && (status == 501 || status > NGX_HTTP_GATEWAY_TIME_OUT))
    {
        like = &ngx_http_llm_gate_server_error;
    }

    if (like == NULL) {
        return;
    }

    mask = like->mask;
    timeout_ms = u->conf->next_upstream_timeout;

    if (u->request_sent
        && (r->method & (NGX_HTTP_POST|NGX_HTTP_LOCK|NGX_HTTP_PATCH)))
    {
        mask |= NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT;
    }

    if (u->peer.tries > 1
        && (u->conf->next_upstream & mask) == mask
        && !(u->request_sent && r->request_body_no_buffering)
        && !(timeout_ms
             && ngx_current_msec - u->peer.start_time >= timeout_ms))
    {
        u->headers_in.status_n = like->stand_in;
    }
}


void
ngx_http_llm_gate_last(ngx_http_request_t *r)
{
    ngx_uint_t        i, k;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h, *copy;

    static ngx_str_t  names[] = {
        ngx_string("retry-after"),
        ngx_string("x-ratelimit-"),
        ngx_null_string
    };

    part = &r->upstream->headers_in.headers.part;

    for ( /* void */ ; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            for (k = 0; names[k].len; k++) {

                if (h[i].key.len < names[k].len
                    || ngx_strncmp(h[i].lowcase_key, names[k].data,
                                   names[k].len)
                       != 0)
                {
                    continue;
                }

                copy = ngx_list_push(&r->headers_out.headers);
                if (copy == NULL) {
                    return;
                }

                *copy = h[i];
                ngx_http_llm_header_last(copy);
            }
        }
    }
}


void
ngx_http_llm_gate_last_status(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    if (r->err_status == NGX_HTTP_BAD_GATEWAY
        && ctx->exchange
        && ctx->exchange->finalized
        && ctx->exchange->first_error
        && ctx->error_body.len
        && ctx->error_uri_changes == r->uri_changes)
    {
        r->err_status = ctx->error_status;
        r->headers_out.status = ctx->error_status;
    }
}
