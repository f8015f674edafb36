
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * A request's body once nginx has read it: as one piece of memory, and with
 * other bytes in it.
 */


#ifndef _NGX_HTTP_LLM_BODY_H_INCLUDED_
#define _NGX_HTTP_LLM_BODY_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_llm_request.h"


/*
 * All of r->request_body, which is not NULL: where it is if its buffers can
 * be made one, or copied into the request's pool, out of its file too.  It
 * stays valid until the body is edited.  NGX_DECLINED: it has more bytes than
 * max_bytes; NGX_ERROR: no memory, or the file could not be read (logged).
 */

ngx_int_t ngx_http_llm_body_gather(ngx_http_request_t *r, size_t max_bytes,
    ngx_str_t *body);

/*
 * The body that was gathered is the edited one from now on: for the content
 * handler, for its retries, and in $content_length.  It is edited in its place
 * where there is room; otherwise it stays where it is, and the edit is a buffer
 * between two of it.  What is edited is inside of an object: there is something
 * before it, and behind it.  NGX_ERROR: no memory.
 */

ngx_int_t ngx_http_llm_body_edit(ngx_http_request_t *r, const ngx_str_t *body,
    const ngx_llm_edit_t *edit);


#endif /* _NGX_HTTP_LLM_BODY_H_INCLUDED_ */
