
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The header and body filters: which answers are ours to read?
 */


#ifndef _NGX_HTTP_LLM_FILTER_H_INCLUDED_
#define _NGX_HTTP_LLM_FILTER_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_llm_frame.h"


/* postconfiguration: only where some location has llm_stream on */

void ngx_http_llm_filter_install(void);

/* whether that is the type, parameters apart */

ngx_uint_t ngx_http_llm_filter_type(ngx_str_t *value, const char *type);

/* whether it is the type of a stream of events, and how they are framed */

ngx_uint_t ngx_http_llm_filter_framing(ngx_str_t *type,
    ngx_llm_framing_e *framing);

/* the body filter behind ours */

ngx_int_t ngx_http_llm_filter_next(ngx_http_request_t *r, ngx_chain_t *out);


#endif /* _NGX_HTTP_LLM_FILTER_H_INCLUDED_ */
