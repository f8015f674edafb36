
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_speed.h"


/* a token: with others' tokens in between at most, and in 32 bits */
#define NGX_LLM_SPEED_MIN_NS  1e3
#define NGX_LLM_SPEED_MAX_NS  4e9

/* a capacity goes so far towards a hit beyond it, or a miss within it */
#define NGX_LLM_CACHE_UP    2
#define NGX_LLM_CACHE_DOWN  8

/*
 * One miss may have other reasons, such as another branch of the same
 * conversation: it does not make a cache smaller than most are.
 */
#define NGX_LLM_CACHE_FIRST  65536


const ngx_llm_speed_kind_t  ngx_llm_speed_prefill = {
    262144, 8192, 50000, 1.4
};

const ngx_llm_speed_kind_t  ngx_llm_speed_decode = {
    8192, 256, 20000000, 1
};


ngx_llm_speed_t
ngx_llm_speed_faded(ngx_llm_speed_t speed, uint32_t age_s)
{
    uint32_t  halves;

    halves = age_s / NGX_LLM_SPEED_HALF_S;

    if (halves > 31) {
        halves = 31;
    }

    speed.work >>= halves;
    speed.time_ms >>= halves;

    return speed;
}


ngx_llm_speed_t
ngx_llm_speed_learn(ngx_llm_speed_t speed, const ngx_llm_speed_kind_t *kind,
    uint32_t work, uint32_t time_ms)
{
    if (work == 0 || time_ms == 0) {
        return speed;
    }

    /* one sample is not all that is known */

    while (work > kind->window || time_ms > UINT32_MAX / 4) {
        work /= 2;
        time_ms /= 2;
    }

    speed.work += work;
    speed.time_ms += time_ms;

    while (speed.work > 2 * kind->window || speed.time_ms > UINT32_MAX / 2) {
        speed.work /= 2;
        speed.time_ms /= 2;
    }

    return speed;
}


double
ngx_llm_speed_mean_ns(const ngx_llm_speed_kind_t *kind, uint64_t work,
    uint64_t time_ms)
{
    double  mean_ns;

    mean_ns = (work && time_ms) ? time_ms * 1e6 / work : kind->default_ns;

    if (mean_ns < NGX_LLM_SPEED_MIN_NS) {
        return NGX_LLM_SPEED_MIN_NS;
    }

    return (mean_ns < NGX_LLM_SPEED_MAX_NS) ? mean_ns : NGX_LLM_SPEED_MAX_NS;
}


double
ngx_llm_speed_ns(ngx_llm_speed_t speed, const ngx_llm_speed_kind_t *kind,
    double mean_ns)
{
    double  least_ns, most_ns, ns;

    ns = (speed.time_ms * 1e6 + mean_ns * kind->prior)
         / ((double) speed.work + kind->prior);

    if (ns < mean_ns * kind->band && ns * kind->band > mean_ns) {
        return mean_ns;
    }

    least_ns = mean_ns * (1.0 / NGX_LLM_SPEED_RANGE);
    most_ns = mean_ns * NGX_LLM_SPEED_RANGE;

    if (ns < least_ns) {
        return least_ns;
    }

    return (ns < most_ns) ? ns : most_ns;
}


uint32_t
ngx_llm_speed_cost(double ns)
{
    if (ns < 1) {
        return 1;
    }

    return (ns < UINT32_MAX) ? (uint32_t) ns : UINT32_MAX;
}


uint32_t
ngx_llm_cache_learn(uint32_t capacity, uint32_t distance, int hit)
{
    if (hit) {
        return (capacity && distance > capacity)
               ? capacity + (distance - capacity) / NGX_LLM_CACHE_UP
               : capacity;
    }

    if (capacity == 0) {
        return (distance > NGX_LLM_CACHE_FIRST) ? distance
                                                : NGX_LLM_CACHE_FIRST;
    }

    if (distance < capacity) {
        capacity -= (capacity - distance) / NGX_LLM_CACHE_DOWN;
    }

    return capacity;
}


uint32_t
ngx_llm_cache_tokens(uint32_t capacity, uint32_t distance, uint32_t held,
    uint32_t prompt)
{
    if (capacity && distance >= capacity) {
        return 0;
    }

    return (held < prompt) ? held : prompt;
}
