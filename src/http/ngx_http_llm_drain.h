
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * llm_on_abort drain: a stream whose client has left is read to its end, for
 * the usage that upstream reports there.
 */


#ifndef _NGX_HTTP_LLM_DRAIN_H_INCLUDED_
#define _NGX_HTTP_LLM_DRAIN_H_INCLUDED_


#include "ngx_http_llm.h"


/* llm_on_abort */

typedef enum {
    NGX_HTTP_LLM_ABORT_CLOSE = 0,
    NGX_HTTP_LLM_ABORT_DRAIN
} ngx_http_llm_abort_e;


/*
 * A stream begins: from here on its client's leaving is seen here.  Start is
 * called before its header, watch when nginx has set its handlers behind it.
 */

void ngx_http_llm_drain_start(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_drain_watch(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);

/*
 * The client has left.  NGX_OK: what upstream sends is read and dropped
 * from here on, and relay->drained is set; NGX_DECLINED: it is not.
 */

ngx_int_t ngx_http_llm_drain_begin(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);

/* called on every way out of the exchange */

void ngx_http_llm_drain_end(ngx_http_llm_ctx_t *ctx);


extern ngx_conf_enum_t  ngx_http_llm_aborts[];


#endif /* _NGX_HTTP_LLM_DRAIN_H_INCLUDED_ */
