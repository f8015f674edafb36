
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Memory of one parse: from the caller's scratch while that lasts, then from
 * libc.  For a library that does not look at what its allocator returns: an
 * allocation that fails does not return, but jumps to failed.
 */


#ifndef _NGX_LLM_MEMORY_H_INCLUDED_
#define _NGX_LLM_MEMORY_H_INCLUDED_


#include <setjmp.h>

#include "ngx_llm.h"


typedef struct ngx_llm_memory_block_s  ngx_llm_memory_block_t;


typedef struct {
    /* what is left of the scratch */
    unsigned char           *pos;
    unsigned char           *end;

    /* what libc gave */
    ngx_llm_memory_block_t  *blocks;

    /* set by the caller's setjmp() before the first allocation */
    jmp_buf                  failed;
} ngx_llm_memory_t;


void ngx_llm_memory_init(ngx_llm_memory_t *memory,
    const ngx_llm_scratch_t *scratch);

/* gives everything back to libc, after a jump too */

void ngx_llm_memory_done(ngx_llm_memory_t *memory);

/* the three functions of yajl_alloc_funcs; ctx is the ngx_llm_memory_t */

void *ngx_llm_memory_malloc(void *ctx, size_t size);
void *ngx_llm_memory_realloc(void *ctx, void *p, size_t size);
void ngx_llm_memory_free(void *ctx, void *p);


#endif /* _NGX_LLM_MEMORY_H_INCLUDED_ */
