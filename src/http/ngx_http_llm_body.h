
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


/*
 * All of r->request_body, which is not NULL: where it is if it is one buffer,
 * or copied into the request's pool, out of its file too.  It stays valid
 * until the body is set.  NGX_DECLINED: it has more bytes than max_bytes;
 * NGX_ERROR: no memory, or the file could not be read (logged).
 */

ngx_int_t ngx_http_llm_body_gather(ngx_http_request_t *r, size_t max_bytes,
    ngx_str_t *body);

/*
 * Memory for a body that is up to more bytes longer than the one that was
 * gathered, which is not empty: body->data itself where nobody else's bytes
 * follow it, or new memory of the request's pool.  NULL: there is none.
 */

u_char *ngx_http_llm_body_room(ngx_http_request_t *r, const ngx_str_t *body,
    size_t more);

/*
 * The body is p[0..len) from now on, p being what _room() has returned: for
 * the content handler, for its retries, and in $content_length.  NGX_ERROR:
 * no memory.
 */

ngx_int_t ngx_http_llm_body_set(ngx_http_request_t *r, u_char *p, size_t len);


#endif /* _NGX_HTTP_LLM_BODY_H_INCLUDED_ */
