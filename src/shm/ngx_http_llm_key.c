
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_key.h"


/* keys of a slot that are looked at ahead of the lock; few slots have more */
#define NGX_HTTP_LLM_KEY_GUESS    4

/* 63 years: more is never carried over to another speed */
#define NGX_HTTP_LLM_KEY_AHEAD_NS  2e18


/* chunks are aligned as in their page; the first one of a zone is the slab's */
#define ngx_http_llm_key_number(zone, key)                                    \
    ((uint32_t) (((u_char *) (key) - (u_char *) (zone)->shpool)               \
                 / NGX_HTTP_LLM_KEY_CHUNK))


_Static_assert(sizeof(ngx_http_llm_key_t) <= NGX_HTTP_LLM_KEY_CHUNK,
               "a key fits a chunk");


static void ngx_http_llm_key_fetch(ngx_http_llm_key_t *key, int64_t now_ns);


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
ngx_http_llm_key_prefetch(ngx_http_llm_zone_t *zone, const u_char *digest,
    int64_t now_ns)
{
    ngx_uint_t           i;
    ngx_http_llm_key_t  *key;

    key = ngx_http_llm_key_first(zone, digest);

    for (i = 0; i < NGX_HTTP_LLM_KEY_GUESS; i++) {

        /* it is being changed: any word, but none outside is looked at */

        if ((u_char *) key < zone->shpool->start
            || (u_char *) key > zone->shpool->end - NGX_HTTP_LLM_KEY_CHUNK)
        {
            return;
        }

        if (ngx_memcmp(key->digest, digest, NGX_HTTP_LLM_KEY_DIGEST) == 0) {
            ngx_http_llm_key_fetch(key, now_ns);
            return;
        }

        key = *(ngx_http_llm_key_t *volatile *) &key->next;
    }
}


/* its second line, and its neighbours in the LRU, if it is to leave them */

static void
ngx_http_llm_key_fetch(ngx_http_llm_key_t *key, int64_t now_ns)
{
    uint32_t  listed_s;

    __builtin_prefetch(&key->holds, 1);

    listed_s = *(volatile uint32_t *) &key->listed_s;

    if (listed_s && listed_s != ngx_http_llm_key_second(now_ns)) {
        __builtin_prefetch(key->queue.prev, 1);
        __builtin_prefetch(key->queue.next, 1);
    }
}


/* reading waits for the line here, and not where others wait, too */

void
ngx_http_llm_key_touch(ngx_http_llm_key_t *key, int64_t now_ns)
{
    ngx_http_llm_key_fetch(key, now_ns);

    (void) *(volatile uint32_t *) &key->holds;
}


ngx_http_llm_key_t *
ngx_http_llm_key_create_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    ngx_uint_t           slot;
    ngx_http_llm_key_t  *key;

    key = ngx_http_llm_key_alloc_locked(take, now_ns);
    if (key == NULL) {
        return NULL;
    }

    ngx_memzero(key, sizeof(ngx_http_llm_key_t));

    ngx_memcpy(key->digest, take->digest, NGX_HTTP_LLM_KEY_DIGEST);

    slot = ngx_http_llm_key_slot(take->zone, take->digest);

    key->next = ngx_http_llm_key_first(take->zone, take->digest);
    take->zone->slots[slot] = ngx_http_llm_key_number(take->zone, key);

    ngx_http_llm_key_used_locked(take->zone, key, now_ns);

    return key;
}


void
ngx_http_llm_key_unlink_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_key_t *key)
{
    ngx_uint_t           slot;
    ngx_http_llm_key_t  *previous;

    previous = ngx_http_llm_key_first(zone, key->digest);

    if (previous == key) {
        slot = ngx_http_llm_key_slot(zone, key->digest);
        zone->slots[slot] = key->next
                            ? ngx_http_llm_key_number(zone, key->next) : 0;
        return;
    }

    while (previous->next != key) {
        previous = previous->next;
    }

    previous->next = key->next;
}


void
ngx_http_llm_key_change(ngx_http_llm_key_t *key, ngx_uint_t budget,
    const ngx_llm_rate_t *rate, int64_t now_ns)
{
    double             ahead_ns;
    ngx_llm_rate_t     old;
    ngx_llm_bucket_t  *bucket;

    old = ngx_http_llm_key_rate(key, budget, 0);
    bucket = &key->buckets[budget];
    ahead_ns = ngx_llm_bucket_full_in(bucket, now_ns);

    if (ahead_ns > 0) {
        ahead_ns *= (double) old.tokens / old.period_ns
                    * rate->period_ns / rate->tokens;

        bucket->tat_ns = now_ns + 1
                    + (int64_t) ngx_min(ahead_ns, NGX_HTTP_LLM_KEY_AHEAD_NS);
    }

    key->tokens[budget] = rate->tokens;
    key->period_s[budget] = (uint32_t) (rate->period_ns
                                        / NGX_HTTP_LLM_KEY_NS);
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
