
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_key.h"


/* least recently used keys that are looked at for one with full budgets */
#define NGX_HTTP_LLM_KEY_LOOK      8

#define NGX_HTTP_LLM_KEY_QUIET_NS  (60 * NGX_HTTP_LLM_KEY_NS)


static ngx_int_t ngx_http_llm_key_evict_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);
static ngx_int_t ngx_http_llm_key_idle(const ngx_http_llm_key_t *key,
    int64_t now_ns);
static void ngx_http_llm_key_note_locked(ngx_http_llm_take_t *take,
    ngx_http_llm_zone_note_e note, int64_t now_ns);


void *
ngx_http_llm_key_alloc_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    void                  *chunk;
    ngx_uint_t             i;
    ngx_http_llm_stock_t  *stock, *stocks;

    stock = ngx_http_llm_zone_stock(take->zone);

    if (stock->free == NULL) {
        chunk = ngx_slab_alloc_locked(take->zone->shpool,
                                      NGX_HTTP_LLM_KEY_CHUNK);
        if (chunk) {
            return chunk;
        }

        stocks = take->zone->sh->stocks;

        for (i = 0; i < NGX_HTTP_LLM_ZONE_STOCKS; i++) {
            if (stocks[i].free) {
                stock = &stocks[i];
                break;
            }
        }

        if (stock->free == NULL
            && ngx_http_llm_key_evict_locked(take, now_ns) != NGX_OK)
        {
            return NULL;
        }
    }

    chunk = stock->free;
    stock->free = *(void **) chunk;

    return chunk;
}


void
ngx_http_llm_key_free_locked(ngx_http_llm_zone_t *zone, void *chunk)
{
    ngx_http_llm_stock_t  *stock;

    stock = ngx_http_llm_zone_stock(zone);

    *(void **) chunk = stock->free;
    stock->free = chunk;
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
        ngx_queue_insert_head(&zone->sh->lru, &key->queue);
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
ngx_http_llm_key_evict_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    ngx_uint_t               looked;
    ngx_queue_t             *lru, *prev, *q;
    ngx_http_llm_key_t      *idle, *key, *oldest;

    idle = NULL;
    oldest = NULL;
    looked = 0;

    lru = &take->zone->sh->lru;

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
        ngx_http_llm_key_note_locked(take, NGX_HTTP_LLM_ZONE_FULL, now_ns);
        return NGX_DECLINED;
    }

    key = idle;

    if (key == NULL) {
        key = oldest;
        ngx_http_llm_key_note_locked(take, NGX_HTTP_LLM_ZONE_DROPPED, now_ns);
    }

    ngx_http_llm_key_unlink_locked(take->zone, key);
    ngx_queue_remove(&key->queue);
    ngx_http_llm_key_free_locked(take->zone, key);

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


static void
ngx_http_llm_key_note_locked(ngx_http_llm_take_t *take,
    ngx_http_llm_zone_note_e note, int64_t now_ns)
{
    ngx_http_llm_zone_sh_t  *sh;

    sh = take->zone->sh;

    if (sh->noted_ns == 0
        || now_ns - sh->noted_ns >= NGX_HTTP_LLM_KEY_QUIET_NS)
    {
        sh->noted_ns = now_ns;
        take->note = note;
    }
}
