
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * What stands at the root of a shared memory zone of ours that has no
 * directive: a structure that is made once and kept over reloads.
 */


#ifndef _NGX_HTTP_LLM_SHM_H_INCLUDED_
#define _NGX_HTTP_LLM_SHM_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * For the init handler of shm_zone: the structure of so many bytes that
 * shpool->data points to, whose first member is an ngx_uint_t, the version of
 * its layout.  The first time it is new: zeroed, but for the version.  NULL:
 * no memory, or another version of the module has made it; logged.
 */

void *ngx_http_llm_shm_root(ngx_shm_zone_t *shm_zone, size_t bytes,
    ngx_uint_t version, ngx_uint_t *is_new);


#endif /* _NGX_HTTP_LLM_SHM_H_INCLUDED_ */
