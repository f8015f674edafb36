
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_key.h"


/* least recently used keys that are looked at for one with full budgets */
#define NGX_HTTP_LLM_KEY_LOOK      8

#define NGX_HTTP_LLM_KEY_QUIET_NS  ((int64_t) 60 * 1000 * 1000 * 1000)

/* 63 years: more is never carried over to another speed */
#define NGX_HTTP_LLM_KEY_AHEAD_NS  2e18


_Static_assert(sizeof(ngx_http_llm_key_t) <= NGX_HTTP_LLM_KEY_CHUNK,
               "a key fits a chunk");


static ngx_http_llm_key_t **ngx_http_llm_key_slot(ngx_http_llm_zone_t *zone,
    const u_char *digest);
static ngx_int_t ngx_http_llm_key_evict_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);
static ngx_int_t ngx_http_llm_key_idle(const ngx_http_llm_key_t *key,
    int64_t now_ns);
static void ngx_http_llm_key_note_locked(ngx_http_llm_take_t *take,
    ngx_http_llm_zone_note_e note, int64_t now_ns);


ngx_uint_t
ngx_http_llm_key_slots(size_t zone_bytes)
{
    ngx_uint_t  n;

    n = 1;

    while (n * 2 * NGX_HTTP_LLM_KEY_CHUNK <= zone_bytes) {
        n *= 2;
    }

    return n;
}


void
ngx_http_llm_key_prefetch(ngx_http_llm_zone_t *zone, const u_char *digest)
{
    __builtin_prefetch(ngx_http_llm_key_slot(zone, digest));
}


/*
 * Of many keys none is in a cache: what a hold on it takes is fetched while
 * the costs are reckoned.
 */

ngx_http_llm_key_t *
ngx_http_llm_key_find_locked(ngx_http_llm_zone_t *zone, const u_char *digest)
{
    ngx_http_llm_key_t  *key;

    key = *ngx_http_llm_key_slot(zone, digest);

    while (key) {
        __builtin_prefetch(key->speeds);

        if (ngx_memcmp(key->digest, digest, NGX_HTTP_LLM_KEY_DIGEST) == 0) {
            __builtin_prefetch(key->queue.prev, 1);
            __builtin_prefetch(key->queue.next, 1);
            break;
        }

        key = key->next;
    }

    return key;
}


/* digests are even: any part of them is a hash */

static ngx_http_llm_key_t **
ngx_http_llm_key_slot(ngx_http_llm_zone_t *zone, const u_char *digest)
{
    uint32_t  start;

    ngx_memcpy(&start, digest, sizeof(uint32_t));

    return &zone->sh->slots[start & (zone->sh->nslots - 1)];
}


ngx_http_llm_key_t *
ngx_http_llm_key_create_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    ngx_http_llm_key_t  *key, **slot;

    key = ngx_http_llm_key_alloc_locked(take, now_ns);
    if (key == NULL) {
        return NULL;
    }

    ngx_memzero(key, sizeof(ngx_http_llm_key_t));

    ngx_memcpy(key->digest, take->digest, NGX_HTTP_LLM_KEY_DIGEST);

    slot = ngx_http_llm_key_slot(take->zone, take->digest);

    key->next = *slot;
    *slot = key;

    ngx_queue_insert_head(&take->zone->sh->lru, &key->queue);

    return key;
}


ngx_uint_t
ngx_http_llm_key_speed(ngx_http_llm_key_t *key, ngx_uint_t budget,
    const ngx_llm_rate_t *rate, int64_t now_ns)
{
    double                 ahead_ns;
    ngx_llm_bucket_t      *bucket;
    ngx_http_llm_speed_t  *speed;

    bucket = &key->buckets[budget];
    speed = &key->speeds[budget];

    if (speed->tokens == rate->tokens && speed->period_ns == rate->period_ns) {
        return 0;
    }

    ahead_ns = ngx_llm_bucket_full_in(bucket, now_ns);

    if (ahead_ns > 0) {
        ahead_ns *= (double) speed->tokens / speed->period_ns
                    * rate->period_ns / rate->tokens;

        bucket->tat_ns = now_ns + 1
                    + (int64_t) ngx_min(ahead_ns, NGX_HTTP_LLM_KEY_AHEAD_NS);
    }

    speed->tokens = rate->tokens;
    speed->period_ns = rate->period_ns;

    return 1;
}


void
ngx_http_llm_key_charge(ngx_http_llm_key_t *key, ngx_uint_t budget,
    int64_t cost, int64_t now_ns)
{
    ngx_llm_rate_t  rate;

    rate.tokens = key->speeds[budget].tokens;
    rate.period_ns = key->speeds[budget].period_ns;
    rate.burst = 0;

    ngx_llm_bucket_take(&key->buckets[budget], &rate, cost, now_ns);
}


void *
ngx_http_llm_key_alloc_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    void                    *chunk;
    ngx_http_llm_zone_sh_t  *sh;

    sh = take->zone->sh;

    if (sh->free == NULL) {
        chunk = ngx_slab_alloc_locked(take->zone->shpool,
                                      NGX_HTTP_LLM_KEY_CHUNK);
        if (chunk) {
            return chunk;
        }

        if (ngx_http_llm_key_evict_locked(take, now_ns) != NGX_OK) {
            return NULL;
        }
    }

    chunk = sh->free;
    sh->free = *(void **) chunk;

    return chunk;
}


void
ngx_http_llm_key_free_locked(ngx_http_llm_zone_t *zone, void *chunk)
{
    *(void **) chunk = zone->sh->free;
    zone->sh->free = chunk;
}


void
ngx_http_llm_key_touch_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_key_t *key)
{
    if (key->holds == 0) {
        ngx_queue_remove(&key->queue);
        ngx_queue_insert_head(&zone->sh->lru, &key->queue);
    }
}


void
ngx_http_llm_key_hold_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_key_t *key)
{
    if (key->holds++ == 0) {
        ngx_queue_remove(&key->queue);
        ngx_queue_init(&key->queue);
    }
}


void
ngx_http_llm_key_release_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_key_t *key)
{
    if (--key->holds == 0) {
        key->paced = 0;
        ngx_queue_insert_head(&zone->sh->lru, &key->queue);
    }
}


static ngx_int_t
ngx_http_llm_key_evict_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    ngx_uint_t               i;
    ngx_queue_t             *q;
    ngx_http_llm_key_t      *key, *oldest, **slot;
    ngx_http_llm_zone_sh_t  *sh;

    sh = take->zone->sh;

    if (ngx_queue_empty(&sh->lru)) {
        ngx_http_llm_key_note_locked(take, NGX_HTTP_LLM_ZONE_FULL, now_ns);
        return NGX_DECLINED;
    }

    q = ngx_queue_last(&sh->lru);
    oldest = ngx_queue_data(q, ngx_http_llm_key_t, queue);
    key = oldest;

    for (i = 1; i < NGX_HTTP_LLM_KEY_LOOK; i++) {
        if (ngx_http_llm_key_idle(key, now_ns)) {
            break;
        }

        q = ngx_queue_prev(q);

        if (q == ngx_queue_sentinel(&sh->lru)) {
            break;
        }

        key = ngx_queue_data(q, ngx_http_llm_key_t, queue);
    }

    if (!ngx_http_llm_key_idle(key, now_ns)) {
        key = oldest;
        ngx_http_llm_key_note_locked(take, NGX_HTTP_LLM_ZONE_DROPPED, now_ns);
    }

    slot = ngx_http_llm_key_slot(take->zone, key->digest);

    while (*slot != key) {
        slot = &(*slot)->next;
    }

    *slot = key->next;

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


ngx_llm_level_t
ngx_http_llm_key_level(const ngx_http_llm_key_t *key, uint32_t model)
{
    ngx_uint_t       i;
    ngx_llm_level_t  none;

    for (i = 0; i < NGX_HTTP_LLM_KEY_MODELS; i++) {
        if (key->lessons[i].model == model) {
            return key->lessons[i].level;
        }
    }

    ngx_memzero(&none, sizeof(ngx_llm_level_t));

    return none;
}


void
ngx_http_llm_key_learn(ngx_http_llm_key_t *key, uint32_t model,
    int64_t completion, int64_t most)
{
    ngx_uint_t             i;
    ngx_http_llm_lesson_t  lesson;

    for (i = 0; i < NGX_HTTP_LLM_KEY_MODELS - 1; i++) {
        if (key->lessons[i].model == model) {
            break;
        }
    }

    lesson = key->lessons[i];

    if (lesson.model != model) {
        ngx_memzero(&lesson, sizeof(ngx_http_llm_lesson_t));
        lesson.model = model;
    }

    ngx_llm_level_learn(&lesson.level, completion, most);

    for ( /* void */ ; i > 0; i--) {
        key->lessons[i] = key->lessons[i - 1];
    }

    key->lessons[0] = lesson;
}
