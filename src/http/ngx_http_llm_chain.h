
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Chains and buffers of the relay: what is built to be sent, what is held
 * back, and what can be used again.
 */


#ifndef _NGX_HTTP_LLM_CHAIN_H_INCLUDED_
#define _NGX_HTTP_LLM_CHAIN_H_INCLUDED_


#include "ngx_http_llm.h"


/* appends b to the output at *ll; an empty one is left out */

ngx_int_t ngx_http_llm_chain_push(ngx_http_request_t *r, ngx_chain_t ***ll,
    ngx_buf_t *b);

/* appends to relay->held, which grows by doubling */

ngx_int_t ngx_http_llm_chain_hold(ngx_http_request_t *r,
    ngx_http_llm_relay_t *relay, const u_char *p, size_t len);

/* an empty buffer of ours for at least size bytes, used before or new */

ngx_buf_t *ngx_http_llm_chain_take(ngx_http_request_t *r,
    ngx_http_llm_relay_t *relay, size_t size);

/* gives it back unsent */

ngx_int_t ngx_http_llm_chain_give(ngx_http_request_t *r,
    ngx_http_llm_relay_t *relay, ngx_buf_t *b);

/* marks all buffers as read: nobody is to see them */

void ngx_http_llm_chain_drop(ngx_chain_t *in);

ngx_uint_t ngx_http_llm_chain_has(ngx_chain_t *in, const ngx_buf_t *b);

/* the end of the body is in the chain */

ngx_uint_t ngx_http_llm_chain_has_last(ngx_chain_t *in);


#endif /* _NGX_HTTP_LLM_CHAIN_H_INCLUDED_ */
