
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stdlib.h>

#include "buf.h"
#include "pick.h"


/*
 * A server that batches continuously: what tools/llm-sim does in batch.c and
 * cache.c, where it is explained, on numbers in place of connections.
 */

/* blocks in the order of their last use; all that there are have a place */

struct pick_cache_s {
    uint32_t           *prev;
    uint32_t           *next;
    unsigned char      *present;
    uint64_t            used;
    uint64_t            size;
};


static void pick_server_decode(pick_server_t *s);
static void pick_server_prefill(pick_server_t *s);
static void pick_server_admit(pick_server_t *s);
static int pick_server_token(pick_server_t *s, pick_request_t *r);
static uint32_t pick_cache_find(pick_cache_t *cache, const pick_request_t *r);
static void pick_cache_insert(pick_cache_t *cache, const pick_request_t *r);
static void pick_cache_touch(pick_cache_t *cache, uint32_t block);
static void pick_cache_unlink(pick_cache_t *cache, uint32_t block);


void
pick_server_init(pick_server_t *s, double speed)
{
    pick_cache_t  *cache;

    s->speed = speed;
    s->next_ms = PICK_NEVER;
    s->queue = mem_zero_alloc(pick_nrequests * sizeof(uint32_t));
    s->prefill = mem_zero_alloc(pick_nrequests * sizeof(uint32_t));
    s->decode = mem_zero_alloc((pick_conf.batch + 1) * sizeof(uint32_t));

    cache = mem_zero_alloc(sizeof(pick_cache_t));

    cache->prev = mem_zero_alloc((pick_nblocks + 1) * sizeof(uint32_t));
    cache->next = mem_zero_alloc((pick_nblocks + 1) * sizeof(uint32_t));
    cache->present = mem_zero_alloc(pick_nblocks + 1);
    cache->size = pick_conf.cache / PICK_BLOCK;

    /* the list's head is behind the last block */

    cache->prev[pick_nblocks] = pick_nblocks;
    cache->next[pick_nblocks] = pick_nblocks;

    s->cache = cache;
}


void
pick_server_free(pick_server_t *s)
{
    free(s->queue);
    free(s->prefill);
    free(s->decode);
    free(s->cache->prev);
    free(s->cache->next);
    free(s->cache->present);
    free(s->cache);
}


void
pick_server_add(pick_server_t *s, uint32_t request)
{
    s->queue[s->queue_tail++] = request;

    if (s->next_ms == PICK_NEVER) {
        pick_server_step(s);
    }
}


void
pick_server_step(pick_server_t *s)
{
    double  ms;

    pick_server_decode(s);
    pick_server_prefill(s);
    pick_server_admit(s);

    if (s->decoding == 0 && s->left == 0) {
        s->next_ms = PICK_NEVER;
        return;
    }

    ms = s->decoding ? pick_conf.itl_ms
                       + pick_conf.slope_ms * (s->decoding - 1.0) : 0;

    s->step = (uint32_t) (s->left < pick_conf.chunk ? s->left
                                                    : pick_conf.chunk);

    ms += s->step * 1000.0 / pick_conf.prefill;
    ms /= s->speed;

    s->busy_ms += ms;
    s->next_ms = pick_now_ms + ms;
}


static void
pick_server_decode(pick_server_t *s)
{
    size_t  i, n;

    for (i = 0, n = 0; i < s->decoding; i++) {
        if (pick_server_token(s, &pick_requests[s->decode[i]])) {
            s->decode[n++] = s->decode[i];
        }
    }

    s->decoding = n;
}


static void
pick_server_prefill(pick_server_t *s)
{
    uint32_t         n, number;
    pick_request_t  *r;

    while (s->step && s->prefill_head < s->prefill_tail) {

        number = s->prefill[s->prefill_head];
        r = &pick_requests[number];

        n = r->left < s->step ? r->left : s->step;

        s->step -= n;
        s->left -= n;
        r->left -= n;

        if (r->left) {
            break;
        }

        s->prefill_head++;
        pick_cache_insert(s->cache, r);

        if (pick_server_token(s, r)) {
            s->decode[s->decoding++] = number;
        }
    }

    s->step = 0;
}


static void
pick_server_admit(pick_server_t *s)
{
    uint32_t         number;
    pick_request_t  *r;

    while (s->running < pick_conf.batch
           && s->queue_head < s->queue_tail
           && s->left < pick_conf.chunk)
    {
        number = s->queue[s->queue_head++];
        r = &pick_requests[number];

        r->cached = pick_cache_find(s->cache, r);
        r->left = r->cached < r->prompt ? r->prompt - r->cached : 1;

        s->running++;
        s->left += r->left;
        s->prefill[s->prefill_tail++] = number;
    }
}


/* 0: it was the last one */

static int
pick_server_token(pick_server_t *s, pick_request_t *r)
{
    if (r->made++ == 0) {
        r->first_ms = pick_now_ms;
        pick_choose_first(r);
    }

    if (r->made < r->output) {
        return 1;
    }

    r->last_ms = pick_now_ms;
    s->running--;
    pick_choose_done(r);

    return 0;
}


static uint32_t
pick_cache_find(pick_cache_t *cache, const pick_request_t *r)
{
    uint32_t  i;

    for (i = 0; i < r->nblocks && cache->present[r->blocks[i]]; i++) {
        pick_cache_touch(cache, r->blocks[i]);
    }

    return i * PICK_BLOCK;
}


static void
pick_cache_insert(pick_cache_t *cache, const pick_request_t *r)
{
    uint32_t  i, oldest;

    for (i = 0; i < r->nblocks && i < cache->size; i++) {

        if (!cache->present[r->blocks[i]] && cache->used == cache->size) {
            oldest = cache->next[pick_nblocks];

            pick_cache_unlink(cache, oldest);
            cache->present[oldest] = 0;
            cache->used--;
        }

        pick_cache_touch(cache, r->blocks[i]);
    }
}


/* the last one to be dropped, present or not */

static void
pick_cache_touch(pick_cache_t *cache, uint32_t block)
{
    uint32_t  last;

    if (cache->present[block]) {
        pick_cache_unlink(cache, block);

    } else {
        cache->present[block] = 1;
        cache->used++;
    }

    last = cache->prev[pick_nblocks];

    cache->prev[block] = last;
    cache->next[block] = pick_nblocks;
    cache->next[last] = block;
    cache->prev[pick_nblocks] = block;
}


static void
pick_cache_unlink(pick_cache_t *cache, uint32_t block)
{
    cache->next[cache->prev[block]] = cache->next[block];
    cache->prev[cache->next[block]] = cache->prev[block];
}
