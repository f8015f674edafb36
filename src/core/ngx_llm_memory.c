
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stdlib.h>
#include <string.h>

#include "ngx_llm_memory.h"


#define NGX_LLM_MEMORY_ALIGN  16


/*
 * Stands before each piece of memory.  Pieces from libc are linked, so that
 * a parse that was left by a jump can free them.
 */

struct ngx_llm_memory_block_s {
    ngx_llm_memory_block_t   *next;

    /* the pointer that points here; NULL: the piece is in the scratch */
    ngx_llm_memory_block_t  **link;

    /* bytes of the piece; a multiple of the alignment, as this struct is */
    size_t                    size;
    size_t                    unused;
};


static size_t ngx_llm_memory_round(ngx_llm_memory_t *memory, size_t size);
static ngx_llm_memory_block_t *ngx_llm_memory_libc(ngx_llm_memory_t *memory,
    ngx_llm_memory_block_t *block, size_t size);


void
ngx_llm_memory_init(ngx_llm_memory_t *memory,
    const ngx_llm_scratch_t *scratch)
{
    size_t  skew;

    skew = -(uintptr_t) scratch->data & (NGX_LLM_MEMORY_ALIGN - 1);

    memory->pos = NULL;
    memory->end = NULL;
    memory->blocks = NULL;

    if (scratch->size_bytes > skew) {
        memory->pos = scratch->data + skew;
        memory->end = scratch->data + scratch->size_bytes;
    }
}


void
ngx_llm_memory_done(ngx_llm_memory_t *memory)
{
    ngx_llm_memory_block_t  *block, *next;

    for (block = memory->blocks; block != NULL; block = next) {
        next = block->next;
        free(block);
    }
}


void *
ngx_llm_memory_malloc(void *ctx, size_t size)
{
    size_t                   total;
    ngx_llm_memory_t        *memory;
    ngx_llm_memory_block_t  *block;

    memory = ctx;
    size = ngx_llm_memory_round(memory, size);
    total = sizeof(ngx_llm_memory_block_t) + size;

    if (total <= (size_t) (memory->end - memory->pos)) {
        block = (ngx_llm_memory_block_t *) memory->pos;
        memory->pos += total;

        block->link = NULL;
        block->size = size;

        return block + 1;
    }

    return ngx_llm_memory_libc(memory, NULL, size) + 1;
}


/*
 * yajl unescapes a string into one piece that doubles: the last piece of the
 * scratch grows where it is, one from libc as libc finds room for it.
 */

void *
ngx_llm_memory_realloc(void *ctx, void *p, size_t size)
{
    void                    *new;
    ngx_llm_memory_t        *memory;
    ngx_llm_memory_block_t  *block;

    if (p == NULL) {
        return ngx_llm_memory_malloc(ctx, size);
    }

    memory = ctx;
    block = (ngx_llm_memory_block_t *) p - 1;

    if (size <= block->size) {
        return p;
    }

    size = ngx_llm_memory_round(memory, size);

    if (block->link != NULL) {
        return ngx_llm_memory_libc(memory, block, size) + 1;
    }

    if ((unsigned char *) p + block->size == memory->pos
        && size <= (size_t) (memory->end - (unsigned char *) p))
    {
        block->size = size;
        memory->pos = (unsigned char *) p + block->size;

        return p;
    }

    new = ngx_llm_memory_malloc(ctx, size);
    memcpy(new, p, block->size);
    ngx_llm_memory_free(ctx, p);

    return new;
}


void
ngx_llm_memory_free(void *ctx, void *p)
{
    ngx_llm_memory_t        *memory;
    ngx_llm_memory_block_t  *block;

    if (p == NULL) {
        return;
    }

    memory = ctx;
    block = (ngx_llm_memory_block_t *) p - 1;

    if (block->link != NULL) {
        *block->link = block->next;

        if (block->next != NULL) {
            block->next->link = block->link;
        }

        free(block);
        return;
    }

    /* of the scratch, only the last piece can be used again */

    if ((unsigned char *) p + block->size == memory->pos) {
        memory->pos = (unsigned char *) block;
    }
}


static size_t
ngx_llm_memory_round(ngx_llm_memory_t *memory, size_t size)
{
    if (size > SIZE_MAX / 2) {
        longjmp(memory->failed, 1);
    }

    return (size + NGX_LLM_MEMORY_ALIGN - 1)
           & ~(size_t) (NGX_LLM_MEMORY_ALIGN - 1);
}


/* a piece of libc's of that size: a new one, or the same one grown */

static ngx_llm_memory_block_t *
ngx_llm_memory_libc(ngx_llm_memory_t *memory, ngx_llm_memory_block_t *block,
    size_t size)
{
    ngx_llm_memory_block_t  *new;

    new = realloc(block, sizeof(ngx_llm_memory_block_t) + size);
    if (new == NULL) {
        longjmp(memory->failed, 1);
    }

    new->size = size;

    if (block == NULL) {
        new->next = memory->blocks;
        new->link = &memory->blocks;
    }

    *new->link = new;

    if (new->next != NULL) {
        new->next->link = &new->next;
    }

    return new;
}
