
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The bucket: GCRA (ITU-T I.371, the virtual scheduling algorithm), one time
 * stamp for each key and budget.
 *
 * tat is the time at which the bucket is full again; an empty state (0) is a
 * full bucket.  The level at now is burst - (tat - now) * rate.  Taking n
 * tokens moves tat forward by n / rate; giving back moves it backward.  The
 * level may be negative: debt, paid by waiting.
 *
 * Time is an argument: nanoseconds of any monotonic clock that all users of
 * one state share, > 0.  A clock that steps back neither refills nor takes.
 */


#ifndef _NGX_LLM_BUCKET_H_INCLUDED_
#define _NGX_LLM_BUCKET_H_INCLUDED_


#include "ngx_llm.h"


/* d of a request that no waiting can help */
#define NGX_LLM_NEVER  INT64_MAX


typedef struct {
    /* tokens for each period; 0: this limit does not apply */
    int64_t               tokens;

    /* nanoseconds: second, minute, hour or day */
    int64_t               period_ns;

    /* tokens that a full bucket holds, > 0 */
    int64_t               burst;
} ngx_llm_rate_t;


/* zero is full; plain integers, so that it can live in shared memory */

typedef struct {
    /* theoretical arrival time */
    int64_t               tat_ns;
} ngx_llm_bucket_t;


/*
 * Nanoseconds until cost tokens can be taken: 0 is now, NGX_LLM_NEVER when
 * cost exceeds the burst.  0 exactly when cost <= the level; so a cost of 0
 * waits for debt to be paid, one below 0 never waits.  A burst above what the
 * rate fills in 146 years counts as that.  Changes nothing.
 */

static inline int64_t ngx_llm_bucket_delay(const ngx_llm_bucket_t *bucket,
    const ngx_llm_rate_t *rate, int64_t cost, int64_t now_ns);

/*
 * Takes cost tokens (negative: gives back), into debt if need be.  Giving
 * back never fills above the burst.  Saturates instead of overflowing.  What
 * is taken is rounded up to a nanosecond, what is given back down.
 */

static inline void ngx_llm_bucket_take(ngx_llm_bucket_t *bucket,
    const ngx_llm_rate_t *rate, int64_t cost, int64_t now_ns);

/*
 * tokens that could be taken now, rounded down; negative in debt; INT64_MAX
 * without a rate
 */

static inline int64_t ngx_llm_bucket_level(const ngx_llm_bucket_t *bucket,
    const ngx_llm_rate_t *rate, int64_t now_ns);

/* nanoseconds until the bucket is full; 0 when it is: the key is idle */

static inline int64_t ngx_llm_bucket_full_in(const ngx_llm_bucket_t *bucket,
    int64_t now_ns);

/* the largest burst that counts: what the rate fills in 146 years */

static inline int64_t ngx_llm_rate_most(const ngx_llm_rate_t *rate);

/*
 * Reads a RATE: digits, optional k, M or G (powers of ten), "/", one of
 * s m h d.  "", "0" and "off" are rates of 0 tokens.  Sets tokens and
 * period_ns; burst is left alone.  NGX_LLM_INVALID with *reason set to what
 * is allowed otherwise; above NGX_LLM_MAX_TOKENS times 1000 is invalid too.
 */

ngx_llm_rc_e ngx_llm_rate_parse(ngx_llm_rate_t *rate, ngx_llm_str_t text,
    const char **reason);

/* reads a count with an optional k, M or G: burst=50k; 0 is allowed */

ngx_llm_rc_e ngx_llm_count_parse(int64_t *count, ngx_llm_str_t text,
    const char **reason);


/*
 * What a usage costs: weights scaled by 1000.  Cached tokens are a part of
 * the prompt tokens, reasoning tokens of the completion tokens: each part is
 * charged with its own weight, the rest with the whole's.
 */

typedef struct {
    int64_t               prompt_1000;
    int64_t               cached_1000;
    int64_t               completion_1000;
    int64_t               reasoning_1000;
} ngx_llm_weights_t;


/* rounded up; parts larger than their whole count as the whole; >= 0 */

int64_t ngx_llm_weigh(const ngx_llm_weights_t *weights, int64_t prompt,
    int64_t cached, int64_t completion, int64_t reasoning);

/* reads a decimal weight, "0.25", at most three places, 0 to 1000 */

ngx_llm_rc_e ngx_llm_weight_parse(int64_t *weight_1000, ngx_llm_str_t text,
    const char **reason);


#include "ngx_llm_bucket_inline.h"


#endif /* _NGX_LLM_BUCKET_H_INCLUDED_ */
