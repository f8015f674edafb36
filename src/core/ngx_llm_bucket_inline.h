
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The arithmetic of ngx_llm_bucket.h, which says what it does: a request needs
 * each of these for each of its budgets, and calls took longer than they do.
 */


#ifndef _NGX_LLM_BUCKET_INLINE_H_INCLUDED_
#define _NGX_LLM_BUCKET_INLINE_H_INCLUDED_


/*
 * Rounding, always against the one who spends: what is taken is rounded up
 * to whole nanoseconds, what is given back is rounded down, and the room
 * left is compared before a cost is rounded.  So the sum of what was
 * admitted in any window never exceeds rate * window + burst, not even by a
 * fraction of a token; the other way a charge loses less than 2 ns of
 * refill, one token in 300,000 charges at 100k/m.
 */

/* 146 years: a bucket never holds more, so that sums cannot overflow */
#define NGX_LLM_BUCKET_MAX_NS  (INT64_MAX / 2)


typedef unsigned __int128  ngx_llm_uint128_t;


/* n * mul / div of numbers >= 0, saturated; mostly 64 bits are enough */

static inline int64_t
ngx_llm_bucket_scale(int64_t n, int64_t mul, int64_t div, int up)
{
    int64_t            product;
    ngx_llm_uint128_t  quotient, wide;

    if (!__builtin_mul_overflow(n, mul, &product)) {
        return product / div + (up && product % div != 0);
    }

    /* one division: it is a call of some 30 instructions, the rest is not */

    wide = (ngx_llm_uint128_t) n * mul;
    quotient = wide / div;
    quotient += (up && quotient * div != wide);

    return (quotient > INT64_MAX) ? INT64_MAX : (int64_t) quotient;
}


static inline int64_t
ngx_llm_rate_most(const ngx_llm_rate_t *rate)
{
    return ngx_llm_bucket_scale(NGX_LLM_BUCKET_MAX_NS, rate->tokens,
                                rate->period_ns, 0);
}


/* the burst, cut to what a time stamp can express */

static inline int64_t
ngx_llm_bucket_burst(const ngx_llm_rate_t *rate)
{
    int64_t  max, product;

    if (!__builtin_mul_overflow(rate->burst, rate->period_ns, &product)
        && product <= NGX_LLM_BUCKET_MAX_NS)
    {
        return rate->burst;
    }

    max = ngx_llm_rate_most(rate);

    return (rate->burst < max) ? rate->burst : max;
}


/* what has been taken and is not refilled yet, as time */

static inline int64_t
ngx_llm_bucket_ahead(const ngx_llm_bucket_t *bucket, int64_t now_ns)
{
    return (bucket->tat_ns > now_ns) ? bucket->tat_ns - now_ns : 0;
}


static inline int64_t
ngx_llm_bucket_delay(const ngx_llm_bucket_t *bucket,
    const ngx_llm_rate_t *rate, int64_t cost, int64_t now_ns)
{
    int64_t  ahead_ns, burst, room_ns;

    if (rate->tokens <= 0 || cost < 0) {
        return 0;
    }

    burst = ngx_llm_bucket_burst(rate);

    if (cost > burst) {
        return NGX_LLM_NEVER;
    }

    ahead_ns = ngx_llm_bucket_ahead(bucket, now_ns);
    room_ns = ngx_llm_bucket_scale(burst - cost, rate->period_ns,
                                   rate->tokens, 0);

    return (ahead_ns > room_ns) ? ahead_ns - room_ns : 0;
}


static inline void
ngx_llm_bucket_take(ngx_llm_bucket_t *bucket, const ngx_llm_rate_t *rate,
    int64_t cost, int64_t now_ns)
{
    int64_t  ahead_ns, cost_ns;

    if (rate->tokens <= 0 || cost == 0) {
        return;
    }

    ahead_ns = ngx_llm_bucket_ahead(bucket, now_ns);

    if (cost > 0) {
        cost_ns = ngx_llm_bucket_scale(cost, rate->period_ns, rate->tokens, 1);

        if (cost_ns > INT64_MAX - now_ns - ahead_ns) {
            bucket->tat_ns = INT64_MAX;
            return;
        }

        bucket->tat_ns = now_ns + ahead_ns + cost_ns;
        return;
    }

    if (ahead_ns == 0) {
        return;
    }

    cost = (cost == INT64_MIN) ? INT64_MAX : -cost;
    cost_ns = ngx_llm_bucket_scale(cost, rate->period_ns, rate->tokens, 0);

    bucket->tat_ns = now_ns
                     + ((cost_ns < ahead_ns) ? ahead_ns - cost_ns : 0);
}


static inline int64_t
ngx_llm_bucket_level(const ngx_llm_bucket_t *bucket,
    const ngx_llm_rate_t *rate, int64_t now_ns)
{
    int64_t  ahead_ns;

    if (rate->tokens <= 0) {
        return INT64_MAX;
    }

    ahead_ns = ngx_llm_bucket_ahead(bucket, now_ns);

    return ngx_llm_bucket_burst(rate)
           - ngx_llm_bucket_scale(ahead_ns, rate->tokens, rate->period_ns, 1);
}


static inline int64_t
ngx_llm_bucket_full_in(const ngx_llm_bucket_t *bucket, int64_t now_ns)
{
    return ngx_llm_bucket_ahead(bucket, now_ns);
}


#endif /* _NGX_LLM_BUCKET_INLINE_H_INCLUDED_ */
