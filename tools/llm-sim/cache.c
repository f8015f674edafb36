
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stdlib.h>

#include "sim.h"


/*
 * The prefix cache of one server: hashes of blocks of 512 prompt tokens, the
 * least recently used leaves.  A block's hash covers all text before it, so
 * a block is found only behind the same prefix.
 */

typedef struct {
    link_t        link;                     /* oldest first */
    uint64_t      hash;
    uint32_t      next;                     /* in its bucket, from 1 */
} sim_block_t;

struct sim_cache_s {
    link_t        used;
    sim_block_t  *blocks;
    uint32_t     *buckets;
    uint32_t      nblocks;
    uint32_t      nused;
};


static sim_block_t *sim_cache_lookup(sim_cache_t *cache, uint64_t hash);
static sim_block_t *sim_cache_take(sim_cache_t *cache);
static uint32_t *sim_cache_bucket(sim_cache_t *cache, uint64_t hash);
static void sim_cache_touch(sim_cache_t *cache, sim_block_t *block);


sim_cache_t *
sim_cache_create(uint64_t tokens)
{
    sim_cache_t  *cache;

    cache = mem_zero_alloc(sizeof(sim_cache_t));

    cache->nblocks = (uint32_t) (tokens / SIM_BLOCK_TOKENS);
    cache->blocks = mem_zero_alloc(cache->nblocks * sizeof(sim_block_t));
    cache->buckets = mem_zero_alloc(cache->nblocks * sizeof(uint32_t));

    link_init(&cache->used);

    return cache;
}


/* tokens of the prompt that are cached; they become the most recent */

uint64_t
sim_cache_find(sim_cache_t *cache, const sim_ask_t *ask)
{
    size_t        i;
    sim_block_t  *block;

    for (i = 0; i < ask->nblocks; i++) {

        block = sim_cache_lookup(cache, ask->blocks[i]);
        if (block == NULL) {
            break;
        }

        sim_cache_touch(cache, block);
    }

    return i * SIM_BLOCK_TOKENS;
}


void
sim_cache_insert(sim_cache_t *cache, const sim_ask_t *ask)
{
    size_t        i;
    uint32_t     *bucket;
    sim_block_t  *block;

    for (i = 0; i < ask->nblocks && i < cache->nblocks; i++) {

        block = sim_cache_lookup(cache, ask->blocks[i]);

        if (block == NULL) {
            block = sim_cache_take(cache);
            block->hash = ask->blocks[i];

            bucket = sim_cache_bucket(cache, block->hash);

            block->next = *bucket;
            *bucket = (uint32_t) (block - cache->blocks) + 1;
        }

        sim_cache_touch(cache, block);
    }
}


static sim_block_t *
sim_cache_lookup(sim_cache_t *cache, uint64_t hash)
{
    uint32_t  n;

    for (n = *sim_cache_bucket(cache, hash);
         n;
         n = cache->blocks[n - 1].next)
    {
        if (cache->blocks[n - 1].hash == hash) {
            return &cache->blocks[n - 1];
        }
    }

    return NULL;
}


/* a fresh block, or the oldest one, out of its bucket */

static sim_block_t *
sim_cache_take(sim_cache_t *cache)
{
    uint32_t     *n;
    sim_block_t  *block;

    if (cache->nused < cache->nblocks) {
        return &cache->blocks[cache->nused++];
    }

    block = loop_data(cache->used.next, sim_block_t, link);

    n = sim_cache_bucket(cache, block->hash);

    while (&cache->blocks[*n - 1] != block) {
        n = &cache->blocks[*n - 1].next;
    }

    *n = block->next;

    return block;
}


static uint32_t *
sim_cache_bucket(sim_cache_t *cache, uint64_t hash)
{
    return &cache->buckets[hash % cache->nblocks];
}


static void
sim_cache_touch(sim_cache_t *cache, sim_block_t *block)
{
    link_remove(&block->link);
    link_append(&cache->used, &block->link);
}
