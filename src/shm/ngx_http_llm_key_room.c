
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_key.h"


/* least recently used keys that are looked at for one with full budgets */
#define NGX_HTTP_LLM_KEY_LOOK      8

/* chunks that move from a stock to where all shards find them, at once */
#define NGX_HTTP_LLM_KEY_RUN       16

/* between two notes */
#define NGX_HTTP_LLM_KEY_QUIET_S   60


static ngx_int_t ngx_http_llm_key_fill(ngx_http_llm_zone_t *zone,
    ngx_http_llm_stock_t *stock);
static void ngx_http_llm_key_spill(ngx_http_llm_zone_t *zone,
    ngx_http_llm_stock_t *stock);
static ngx_http_llm_stock_t *ngx_http_llm_key_stocked_locked(
    ngx_http_llm_shard_t *shard);
static ngx_http_llm_chunk_t *ngx_http_llm_key_give(ngx_http_llm_take_t *take,
    ngx_http_llm_shard_t *shard, ngx_uint_t drop, int64_t now_ns);
static ngx_int_t ngx_http_llm_key_evict_locked(ngx_http_llm_take_t *take,
    ngx_http_llm_shard_t *shard, int64_t now_ns);
static ngx_int_t ngx_http_llm_key_idle(const ngx_http_llm_key_t *key,
    int64_t now_ns);


void *
ngx_http_llm_key_alloc_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    ngx_http_llm_chunk_t  *chunk;
    ngx_http_llm_shard_t  *shard;
    ngx_http_llm_stock_t  *stock;

    shard = take->shard;
    stock = ngx_http_llm_shard_stock(shard);

    if (stock->free == NULL
        && ngx_http_llm_key_fill(take->zone, stock) != NGX_OK)
    {
        stock = ngx_http_llm_key_stocked_locked(shard);

        if (stock == NULL) {
            if (ngx_http_llm_key_evict_locked(take, shard, now_ns) != NGX_OK) {
                return NULL;
            }

            stock = ngx_http_llm_shard_stock(shard);
        }
    }

    chunk = stock->free;

    stock->free = chunk->next;
    stock->nfree--;

    return chunk;
}


void
ngx_http_llm_key_free_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_shard_t *shard, void *chunk)
{
    ngx_http_llm_chunk_t  *head;
    ngx_http_llm_stock_t  *stock;

    stock = ngx_http_llm_shard_stock(shard);

    head = chunk;
    head->next = stock->free;

    stock->free = head;
    stock->nfree++;

    if (stock->nfree == 2 * NGX_HTTP_LLM_KEY_RUN) {
        ngx_http_llm_key_spill(zone, stock);
    }
}


/* a run that another stock had too many of, or a new chunk */

static ngx_int_t
ngx_http_llm_key_fill(ngx_http_llm_zone_t *zone, ngx_http_llm_stock_t *stock)
{
    ngx_uint_t               n;
    ngx_http_llm_chunk_t    *chunk;
    ngx_http_llm_zone_sh_t  *sh;

    sh = zone->sh;

    /* a full zone is not asked each time */

    if (*(ngx_http_llm_chunk_t *volatile *) &sh->runs == NULL
        && *(volatile ngx_uint_t *) &sh->exhausted)
    {
        return NGX_DECLINED;
    }

    ngx_shmtx_lock(&zone->shpool->mutex);

    n = NGX_HTTP_LLM_KEY_RUN;
    chunk = sh->runs;

    if (chunk) {
        sh->runs = chunk->run;

    } else {
        n = 1;
        chunk = ngx_slab_alloc_locked(zone->shpool, NGX_HTTP_LLM_KEY_CHUNK);

        if (chunk) {
            chunk->next = NULL;

        } else {
            sh->exhausted = 1;
        }
    }

    ngx_shmtx_unlock(&zone->shpool->mutex);

    if (chunk == NULL) {
        return NGX_DECLINED;
    }

    stock->free = chunk;
    stock->nfree = n;

    return NGX_OK;
}


/* the half that was not used for longer */

static void
ngx_http_llm_key_spill(ngx_http_llm_zone_t *zone, ngx_http_llm_stock_t *stock)
{
    ngx_uint_t             i;
    ngx_http_llm_chunk_t  *last, *run;

    last = stock->free;

    for (i = 1; i < NGX_HTTP_LLM_KEY_RUN; i++) {
        last = last->next;
    }

    run = last->next;

    last->next = NULL;
    stock->nfree = NGX_HTTP_LLM_KEY_RUN;

    ngx_shmtx_lock(&zone->shpool->mutex);

    run->run = zone->sh->runs;
    zone->sh->runs = run;

    ngx_shmtx_unlock(&zone->shpool->mutex);
}


/* any process' that has something; NULL: none */

static ngx_http_llm_stock_t *
ngx_http_llm_key_stocked_locked(ngx_http_llm_shard_t *shard)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_LLM_ZONE_STOCKS; i++) {
        if (shard->stocks[i].free) {
            return &shard->stocks[i];
        }
    }

    return NULL;
}


/* one lock at a time, for a shard that has what others need is in no hurry */

ngx_uint_t
ngx_http_llm_key_room(ngx_http_llm_take_t *take, int64_t now_ns)
{
    ngx_uint_t             drop, i;
    ngx_http_llm_zone_t   *zone;
    ngx_http_llm_chunk_t  *chunk, *next;
    ngx_http_llm_shard_t  *other, *shard;

    static ngx_uint_t  turn;

    zone = take->zone;
    shard = take->shard;

    chunk = NULL;
    turn++;

    for (drop = 0; drop < 2 && chunk == NULL; drop++) {

        for (i = 0; i < zone->nshards && chunk == NULL; i++) {
            other = &zone->shards[(turn + i) & (zone->nshards - 1)];

            if (other != shard) {
                chunk = ngx_http_llm_key_give(take, other, drop, now_ns);
            }
        }
    }

    if (chunk == NULL) {
        return 0;
    }

    ngx_shmtx_lock(shard->mutex);

    for ( /* void */ ; chunk; chunk = next) {
        next = chunk->next;
        ngx_http_llm_key_free_locked(zone, shard, chunk);
    }

    ngx_shmtx_unlock(shard->mutex);

    return 1;
}


static ngx_http_llm_chunk_t *
ngx_http_llm_key_give(ngx_http_llm_take_t *take, ngx_http_llm_shard_t *shard,
    ngx_uint_t drop, int64_t now_ns)
{
    ngx_http_llm_chunk_t  *chunk;
    ngx_http_llm_stock_t  *stock;

    ngx_shmtx_lock(shard->mutex);

    stock = ngx_http_llm_key_stocked_locked(shard);

    if (stock == NULL && drop
        && ngx_http_llm_key_evict_locked(take, shard, now_ns) == NGX_OK)
    {
        stock = ngx_http_llm_shard_stock(shard);
    }

    chunk = NULL;

    if (stock) {
        chunk = stock->free;
        stock->free = NULL;
        stock->nfree = 0;
    }

    ngx_shmtx_unlock(shard->mutex);

    return chunk;
}


void
ngx_http_llm_key_used_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_key_t *key, int64_t now_ns)
{
    uint32_t  now_s;

    now_s = ngx_http_llm_key_second(now_ns);

    if (key->holds == 0 && key->listed_s != now_s) {
        ngx_http_llm_key_unlist_locked(key);

        key->listed_s = now_s;
        ngx_queue_insert_head(&ngx_http_llm_key_shard(zone, key->digest)
                                  ->sh->lru,
                              &key->queue);
    }
}


void
ngx_http_llm_key_hold_locked(ngx_http_llm_key_t *key, int64_t now_ns)
{
    if (key->holds++ == 0
        && key->listed_s != ngx_http_llm_key_second(now_ns))
    {
        ngx_http_llm_key_unlist_locked(key);
    }
}


void
ngx_http_llm_key_release_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_key_t *key, int64_t now_ns)
{
    if (--key->holds == 0) {
        key->paced = 0;
        ngx_http_llm_key_used_locked(zone, key, now_ns);
    }
}


void
ngx_http_llm_key_unlist_locked(ngx_http_llm_key_t *key)
{
    if (key->listed_s) {
        key->listed_s = 0;

        ngx_queue_remove(&key->queue);
        ngx_queue_init(&key->queue);
    }
}


static ngx_int_t
ngx_http_llm_key_evict_locked(ngx_http_llm_take_t *take,
    ngx_http_llm_shard_t *shard, int64_t now_ns)
{
    ngx_uint_t               looked;
    ngx_queue_t             *lru, *prev, *q;
    ngx_http_llm_key_t      *idle, *key, *oldest;

    idle = NULL;
    oldest = NULL;
    looked = 0;

    lru = &shard->sh->lru;

    for (q = ngx_queue_last(lru);
         q != ngx_queue_sentinel(lru)
         && idle == NULL && looked < NGX_HTTP_LLM_KEY_LOOK;
         q = prev)
    {
        prev = ngx_queue_prev(q);
        key = ngx_queue_data(q, ngx_http_llm_key_t, queue);

        /* it comes back when it is used no more: found here at most once */

        if (key->holds) {
            ngx_http_llm_key_unlist_locked(key);
            continue;
        }

        if (oldest == NULL) {
            oldest = key;
        }

        if (ngx_http_llm_key_idle(key, now_ns)) {
            idle = key;
        }

        looked++;
    }

    if (oldest == NULL) {
        return NGX_DECLINED;
    }

    key = idle;

    if (key == NULL) {
        key = oldest;
        ngx_http_llm_key_note(take, NGX_HTTP_LLM_ZONE_DROPPED, now_ns);
    }

    ngx_http_llm_key_unlink_locked(take->zone, key);
    ngx_queue_remove(&key->queue);
    ngx_http_llm_key_free_locked(take->zone, shard, key);

    return NGX_OK;
}


/* all its budgets are full: it differs from a new one by its lessons only */

static ngx_int_t
ngx_http_llm_key_idle(const ngx_http_llm_key_t *key, int64_t now_ns)
{
    ngx_uint_t  b;

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        if (ngx_llm_bucket_full_in(&key->buckets[b], now_ns) > 0) {
            return 0;
        }
    }

    return 1;
}


void
ngx_http_llm_key_note(ngx_http_llm_take_t *take,
    ngx_http_llm_zone_note_e note, int64_t now_ns)
{
    ngx_atomic_uint_t  noted_s, now_s;

    noted_s = take->zone->sh->noted_s;
    now_s = ngx_http_llm_key_second(now_ns);

    /* whoever comes first, of all shards; a clock may be a little behind */

    if ((noted_s == 0 || now_s > noted_s + NGX_HTTP_LLM_KEY_QUIET_S)
        && ngx_atomic_cmp_set(&take->zone->sh->noted_s, noted_s, now_s))
    {
        take->note = note;
    }
}
