
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_learn.h"
#include "ngx_http_llm_table.h"


#define ngx_http_llm_learn_slot(zone, slot)                                   \
    (&((ngx_http_llm_table_t *) (zone)->data)->slots[slot].learned)

#define ngx_http_llm_learn_now_s()  ((uint32_t) (ngx_current_msec / 1000))


static ngx_llm_speed_t ngx_http_llm_learn_speed(volatile uint64_t *word,
    uint32_t age_s);
static void ngx_http_llm_learn_sample(volatile uint64_t *word,
    volatile uint32_t *changed_s, const ngx_llm_speed_kind_t *kind,
    uint32_t tokens, ngx_msec_t time_ms);


void
ngx_http_llm_learn_look(ngx_shm_zone_t *zone, const uint32_t *slots,
    ngx_uint_t n, ngx_http_llm_known_t *known)
{
    uint32_t                          now_s;
    ngx_uint_t                        i;
    volatile ngx_http_llm_learned_t  *learned;

    now_s = ngx_http_llm_learn_now_s();

    for (i = 0; i < n; i++) {

        if (slots[i] == NGX_HTTP_LLM_INFLIGHT_NONE) {
            ngx_memzero(&known[i], sizeof(ngx_http_llm_known_t));
            continue;
        }

        learned = ngx_http_llm_learn_slot(zone, slots[i]);

        known[i].prefill = ngx_http_llm_learn_speed(&learned->prefill,
                                               now_s - learned->prefill_s);
        known[i].decode = ngx_http_llm_learn_speed(&learned->decode,
                                               now_s - learned->decode_s);
        known[i].clock = learned->clock;
        known[i].capacity = learned->capacity;
    }
}


void
ngx_http_llm_learn_prefill(ngx_shm_zone_t *zone, uint32_t slot,
    uint32_t tokens, ngx_msec_t time_ms)
{
    volatile ngx_http_llm_learned_t  *learned;

    learned = ngx_http_llm_learn_slot(zone, slot);

    ngx_http_llm_learn_sample(&learned->prefill, &learned->prefill_s,
                              &ngx_llm_speed_prefill, tokens, time_ms);
}


void
ngx_http_llm_learn_decode(ngx_shm_zone_t *zone, uint32_t slot,
    uint32_t tokens, ngx_msec_t time_ms)
{
    volatile ngx_http_llm_learned_t  *learned;

    learned = ngx_http_llm_learn_slot(zone, slot);

    ngx_http_llm_learn_sample(&learned->decode, &learned->decode_s,
                              &ngx_llm_speed_decode, tokens, time_ms);
}


void
ngx_http_llm_learn_cache(ngx_shm_zone_t *zone, uint32_t slot,
    uint32_t distance, ngx_uint_t hit)
{
    volatile ngx_http_llm_learned_t  *learned;

    learned = ngx_http_llm_learn_slot(zone, slot);

    learned->capacity = ngx_llm_cache_learn(learned->capacity, distance, hit);
}


uint32_t
ngx_http_llm_learn_clock(ngx_shm_zone_t *zone, uint32_t slot, uint32_t tokens)
{
    volatile ngx_http_llm_learned_t  *learned;

    learned = ngx_http_llm_learn_slot(zone, slot);

    return __atomic_add_fetch(&learned->clock, tokens, __ATOMIC_RELAXED);
}


static ngx_llm_speed_t
ngx_http_llm_learn_speed(volatile uint64_t *word, uint32_t age_s)
{
    uint64_t         sums;
    ngx_llm_speed_t  speed;

    sums = __atomic_load_n(word, __ATOMIC_RELAXED);

    speed.work = (uint32_t) (sums >> 32);
    speed.time_ms = (uint32_t) sums;

    return ngx_llm_speed_faded(speed, age_s);
}


static void
ngx_http_llm_learn_sample(volatile uint64_t *word,
    volatile uint32_t *changed_s, const ngx_llm_speed_kind_t *kind,
    uint32_t tokens, ngx_msec_t time_ms)
{
    uint32_t         now_s;
    uint64_t         sums;
    ngx_llm_speed_t  speed;

    now_s = ngx_http_llm_learn_now_s();

    speed = ngx_http_llm_learn_speed(word, now_s - *changed_s);
    speed = ngx_llm_speed_learn(speed, kind, tokens,
                                (uint32_t) ngx_min(time_ms, UINT32_MAX));

    sums = (uint64_t) speed.work << 32 | speed.time_ms;

    *changed_s = now_s;
    __atomic_store_n(word, sums, __ATOMIC_RELAXED);
}
