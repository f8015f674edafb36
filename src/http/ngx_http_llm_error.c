
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_account.h"


/* an error's JSON: type, code and a message of one line */
#define NGX_HTTP_LLM_ERROR_BYTES  1024

/* the longest time, 2^64 ms */
#define NGX_HTTP_LLM_ERROR_RETRY  32

/* nginx has no name for it; a client is not to try again by itself */
#define NGX_HTTP_GONE             410

/* of a worker that leaves: its successor is there */
#define NGX_HTTP_LLM_ERROR_SHUTDOWN_MS  1000


static ngx_str_t  ngx_http_llm_error_retry_after = ngx_string("Retry-After");
static ngx_str_t  ngx_http_llm_error_retry_after_ms =
    ngx_string("retry-after-ms");


ngx_int_t
ngx_http_llm_reject(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_llm_err_e err, ngx_int_t status, const char *message)
{
    ctx->end = NGX_HTTP_LLM_END_REJECTED;
    ctx->refused = 1;

    ngx_http_llm_error_prepare(r, ctx, err, status, message);

    return status;
}


void
ngx_http_llm_error_prepare(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_llm_err_e err, ngx_int_t status, const char *message)
{
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    if (!llcf->error_events) {
        return;
    }

    ctx->error_body.data = ngx_pnalloc(r->pool, NGX_HTTP_LLM_ERROR_BYTES);
    if (ctx->error_body.data == NULL) {
        return;
    }

    ctx->error_body.len = ngx_llm_error_body(ctx->api, err, status, message,
                                             ctx->error_body.data,
                                             NGX_HTTP_LLM_ERROR_BYTES);
    ctx->error_status = status;
    ctx->error_uri_changes = r->uri_changes;
}


void
ngx_http_llm_error_end(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t      status;
    const char    *message;
    ngx_llm_err_e  err;

    if (ctx->end == NGX_HTTP_LLM_END_CANCELLED) {
        err = NGX_LLM_ERR_CANCELLED;
        status = NGX_HTTP_GONE;
        message = "The request was cancelled.";

    } else {
        err = NGX_LLM_ERR_SHUTDOWN;
        status = NGX_HTTP_SERVICE_UNAVAILABLE;
        message = "The server is shutting down.";
    }

    ngx_http_llm_error_prepare(r, ctx, err, status, message);
    ngx_http_finalize_request(r, status);
}


ngx_int_t
ngx_http_llm_error_add_headers(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    if (ctx->end != NGX_HTTP_LLM_END_SHUTDOWN
        || r->headers_out.status != NGX_HTTP_SERVICE_UNAVAILABLE)
    {
        return NGX_OK;
    }

    return ngx_http_llm_error_retry(r, NGX_HTTP_LLM_ERROR_SHUTDOWN_MS);
}


ngx_int_t
ngx_http_llm_error_header(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    /* nginx's own refusal, with no error_page behind it */

    if (r->err_status == NGX_HTTP_REQUEST_ENTITY_TOO_LARGE
        && ctx->end == NGX_HTTP_LLM_END_NONE
        && ctx->exchange == NULL
        && !r->internal)
    {
        (void) ngx_http_llm_reject(r, ctx, NGX_LLM_ERR_TOO_LARGE,
                                   r->err_status,
                                   "The request body is larger than this "
                                   "server accepts.");
    }

    /* no error_page took the request on: that was the last upstream */

    if (ctx->failed && r->err_status) {
        ngx_http_llm_account_abandon(ctx);
    }

    if (ctx->error_body.len == 0) {
        return NGX_DECLINED;
    }

    /* a redirect went on with the request, and its result is not ours */

    if (ctx->error_uri_changes != r->uri_changes
        || r->headers_out.status != ctx->error_status)
    {
        ctx->error_body.len = 0;
        return NGX_DECLINED;
    }

    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    ngx_str_null(&r->headers_out.charset);

    ngx_http_clear_content_length(r);
    r->headers_out.content_length_n = ctx->error_body.len;

    return NGX_OK;
}


ngx_chain_t *
ngx_http_llm_error_chain(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *in)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    for (cl = in; cl; cl = cl->next) {
        cl->buf->pos = cl->buf->last;
    }

    if (ctx->error_sent) {
        return NULL;
    }

    ctx->error_sent = 1;

    b = ngx_calloc_buf(r->pool);
    cl = ngx_alloc_chain_link(r->pool);

    if (b == NULL || cl == NULL) {
        return NULL;
    }

    b->pos = ctx->error_body.data;
    b->last = b->pos + ctx->error_body.len;
    b->memory = 1;
    b->last_buf = 1;
    b->last_in_chain = 1;

    cl->buf = b;
    cl->next = NULL;

    return cl;
}


ngx_int_t
ngx_http_llm_error_retry(ngx_http_request_t *r, ngx_msec_t retry_ms)
{
    u_char  *last, *p;

    p = ngx_pnalloc(r->pool, 2 * NGX_HTTP_LLM_ERROR_RETRY);
    if (p == NULL) {
        return NGX_ERROR;
    }

    last = ngx_sprintf(p, "%M", (retry_ms - 1) / 1000 + 1);

    if (ngx_http_llm_error_add_header(r, &ngx_http_llm_error_retry_after,
                                      p, last)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    p = last;
    last = ngx_sprintf(p, "%M", retry_ms);

    return ngx_http_llm_error_add_header(r, &ngx_http_llm_error_retry_after_ms,
                                         p, last);
}


ngx_int_t
ngx_http_llm_error_add_header(ngx_http_request_t *r, ngx_str_t *name,
    u_char *value, u_char *last)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    ngx_http_llm_header_last(h);

    h->hash = 1;
    h->key = *name;
    h->lowcase_key = NULL;
    h->value.data = value;
    h->value.len = last - value;

    return NGX_OK;
}
