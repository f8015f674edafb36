
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <math.h>

#include "load.h"


static size_t load_hist_bucket(uint64_t us);
static uint64_t load_hist_middle(size_t bucket);


void
load_hist_add(load_hist_t *h, uint64_t us)
{
    h->count++;
    h->sum += us;
    h->buckets[load_hist_bucket(us)]++;

    if (us > h->max) {
        h->max = us;
    }
}


/* below 64 each value has its own; then 64 for every power of two */

static size_t
load_hist_bucket(uint64_t us)
{
    int  exponent;

    if (us < LOAD_HIST_SUB) {
        return us;
    }

    exponent = 63 - __builtin_clzll(us);

    return (size_t) (exponent - 6) * LOAD_HIST_SUB + (us >> (exponent - 6));
}


static uint64_t
load_hist_middle(size_t bucket)
{
    int       shift;
    uint64_t  low;

    if (bucket < 2 * LOAD_HIST_SUB) {
        return bucket;
    }

    shift = (int) (bucket / LOAD_HIST_SUB) - 1;
    low = (uint64_t) (bucket % LOAD_HIST_SUB + LOAD_HIST_SUB) << shift;

    return low + ((uint64_t) 1 << shift) / 2;
}


/* within 1/128; the highest one is exact */

uint64_t
load_hist_percentile(const load_hist_t *h, double percent)
{
    size_t    i;
    uint64_t  rank, seen, us;

    rank = (uint64_t) ceil(h->count * percent / 100);
    seen = 0;

    for (i = 0; i < LOAD_HIST_SIZE; i++) {
        seen += h->buckets[i];

        if (seen && seen >= rank) {
            us = load_hist_middle(i);
            return us < h->max ? us : h->max;
        }
    }

    return h->max;
}
