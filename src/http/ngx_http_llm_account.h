
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The last room: how did a request end, and what does it cost?
 */


#ifndef _NGX_HTTP_LLM_ACCOUNT_H_INCLUDED_
#define _NGX_HTTP_LLM_ACCOUNT_H_INCLUDED_


#include "ngx_http_llm.h"


/*
 * The exchange with upstream has ended with rc (0, an HTTP status, NGX_ERROR
 * or NGX_DONE, as ngx_http_upstream_finalize_request() has it): decides the
 * end and the bill and settles the charge.  The first call wins.
 */

void ngx_http_llm_account_end(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_int_t rc);

/* ctx->bill before the end */

extern const ngx_http_llm_bill_t  ngx_http_llm_account_unknown;

/* there was no exchange, or none that ended: everything is given back */

void ngx_http_llm_account_abandon(ngx_http_llm_ctx_t *ctx);


#endif /* _NGX_HTTP_LLM_ACCOUNT_H_INCLUDED_ */
