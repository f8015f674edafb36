
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Errors of our own, as JSON in the request's dialect.
 */


#ifndef _NGX_HTTP_LLM_ERROR_H_INCLUDED_
#define _NGX_HTTP_LLM_ERROR_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_llm_dialect.h"


/*
 * Prepares a JSON error and returns status, for a phase handler to return.
 * A matching error_page goes before it; with llm_error_events off nginx's
 * own page is sent.  message is for the client: plain, constant text.
 */

ngx_int_t ngx_http_llm_reject(ngx_http_request_t *r,
    struct ngx_http_llm_ctx_s *ctx, ngx_llm_err_e err, ngx_int_t status,
    const char *message);

/* the same for an error that nginx is about to send: no end is set */

void ngx_http_llm_error_prepare(ngx_http_request_t *r,
    struct ngx_http_llm_ctx_s *ctx, ngx_llm_err_e err, ngx_int_t status,
    const char *message);

/*
 * The same for a request that was ended from outside, ahead of its header:
 * by llm_cancel or shutdown, which ctx->end says.  It is finalized.
 */

void ngx_http_llm_error_end(ngx_http_request_t *r,
    struct ngx_http_llm_ctx_s *ctx);

/* Retry-After, if this response is such one that another server may answer */

ngx_int_t ngx_http_llm_error_add_headers(ngx_http_request_t *r,
    struct ngx_http_llm_ctx_s *ctx);

/*
 * The header of an error page that is ours to replace: sets type and length.
 * NGX_DECLINED when this response is not such a page.
 */

ngx_int_t ngx_http_llm_error_header(ngx_http_request_t *r,
    struct ngx_http_llm_ctx_s *ctx);

/* its body: takes the place of whatever in carries, once */

ngx_chain_t *ngx_http_llm_error_chain(ngx_http_request_t *r,
    struct ngx_http_llm_ctx_s *ctx, ngx_chain_t *in);

/* Retry-After in seconds, rounded up, and retry-after-ms */

ngx_int_t ngx_http_llm_error_retry(ngx_http_request_t *r,
    ngx_msec_t retry_ms);

/* adds a header to the response; name and value live as long as it does */

ngx_int_t ngx_http_llm_error_add_header(ngx_http_request_t *r,
    ngx_str_t *name, u_char *value, u_char *last);


#endif /* _NGX_HTTP_LLM_ERROR_H_INCLUDED_ */
