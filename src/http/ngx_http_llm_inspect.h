
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The first room: reads the request's body, its facts, and asks upstream for
 * usage where the client did not.
 */


#ifndef _NGX_HTTP_LLM_INSPECT_H_INCLUDED_
#define _NGX_HTTP_LLM_INSPECT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


/*
 * The PRECONTENT handler: behind access control, so that strangers spend
 * nothing, and before any content handler.  Walks inspect and limit, then
 * puts the exchange in the place of the content handler.
 */

ngx_int_t ngx_http_llm_handler(ngx_http_request_t *r);


#endif /* _NGX_HTTP_LLM_INSPECT_H_INCLUDED_ */
