
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_bucket.h"
#include "tap.h"


#define MS         ((int64_t) 1000000)
#define SECOND     (1000 * MS)
#define MINUTE     (60 * SECOND)
#define DAY        (86400 * SECOND)

#define SEQUENCES  100000
#define STEPS      24


typedef __int128  wide_t;


typedef enum {
    DELAY,      /* want: ms, rounded up */
    TAKE,       /* want: the level after it */
    LEVEL,      /* want: tokens */
    FULL        /* want: ms, rounded up */
} op_e;


typedef struct {
    int64_t  now_ms;
    op_e     op;
    int64_t  cost;
    int64_t  want;
} step_t;


static uint64_t
rnd(void)
{
    static uint64_t  state = 0x9e3779b97f4a7c15;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;

    return state;
}


static int64_t
rnd_to(int64_t max)
{
    return rnd() % (uint64_t) (max + 1);
}


static void
run(const char *name, ngx_llm_rate_t rate, const step_t *steps, size_t n)
{
    size_t            i;
    int64_t           got, now_ns;
    ngx_llm_bucket_t  bucket;

    memset(&bucket, 0, sizeof(bucket));

    for (i = 0; i < n; i++) {
        now_ns = steps[i].now_ms * MS;
        got = 0;

        switch (steps[i].op) {

        case DELAY:
            got = ngx_llm_bucket_delay(&bucket, &rate, steps[i].cost, now_ns);

            if (got != NGX_LLM_NEVER) {
                got = (got + MS - 1) / MS;
            }

            break;

        case TAKE:
            ngx_llm_bucket_take(&bucket, &rate, steps[i].cost, now_ns);

            /* fall through */

        case LEVEL:
            got = ngx_llm_bucket_level(&bucket, &rate, now_ns);
            break;

        case FULL:
            got = (ngx_llm_bucket_full_in(&bucket, now_ns) + MS - 1) / MS;
            break;
        }

        tap_int(got, steps[i].want, "%s: step %d", name, (int) i);
    }
}


#define run_table(name, rate, steps)                                          \
    run(name, rate, steps, sizeof(steps) / sizeof(steps[0]))


static void
test_tables(void)
{
    static const ngx_llm_rate_t  per_second = { 10, SECOND, 20 };
    static const ngx_llm_rate_t  per_minute = { 60, MINUTE, 3 };
    static const ngx_llm_rate_t  per_day = { 1000000, DAY, 1000000 };
    static const ngx_llm_rate_t  none = { 0, SECOND, 5 };

    static const step_t  take_and_wait[] = {
        { 1000, LEVEL, 0, 20 },
        { 1000, DELAY, 20, 0 },
        { 1000, DELAY, 21, NGX_LLM_NEVER },
        { 1000, TAKE, 20, 0 },
        { 1000, DELAY, 0, 0 },
        { 1000, DELAY, 1, 100 },
        { 1000, DELAY, 20, 2000 },
        { 1000, FULL, 0, 2000 },
        { 1500, LEVEL, 0, 5 },
        { 1500, DELAY, 5, 0 },
        { 1500, DELAY, 6, 100 },
        { 1500, TAKE, 5, 0 },
        { 1550, LEVEL, 0, 0 },
        { 1599, LEVEL, 0, 0 },
        { 1600, LEVEL, 0, 1 },
        { 9000, LEVEL, 0, 20 }
    };

    /* debt is paid by waiting; giving back stops at full */

    static const step_t  debt_and_refund[] = {
        { 1000, TAKE, 50, -30 },
        { 1000, DELAY, 0, 3000 },
        { 1000, DELAY, 1, 3100 },
        { 1000, DELAY, -1, 0 },
        { 1000, FULL, 0, 5000 },
        { 1000, TAKE, -40, 10 },
        { 1000, TAKE, -40, 20 },
        { 1000, TAKE, -40, 20 },
        { 1000, FULL, 0, 0 },
        { 1000, TAKE, 1, 19 },
        { 1000, TAKE, 0, 19 }
    };

    /* it takes 30 s for the level to be what it was at 40 s */

    static const step_t  clock_back[] = {
        { 40000, TAKE, 15, 5 },
        { 10000, DELAY, 20, 31500 },
        { 39999, LEVEL, 0, 4 },
        { 40000, LEVEL, 0, 5 },
        { 41500, LEVEL, 0, 20 },
        { 10000, TAKE, -1000000, 20 },

        /* a refund saves nothing up for an earlier time */

        { 9000, LEVEL, 0, 10 },
        { 10000, TAKE, 20, 0 },
        { 11000, LEVEL, 0, 10 }
    };

    /* a burst below one period's tokens */

    static const step_t  small_burst[] = {
        { 5, DELAY, 4, NGX_LLM_NEVER },
        { 5, TAKE, 3, 0 },
        { 5, DELAY, 3, 3000 },
        { 1004, DELAY, 1, 1 },
        { 1005, DELAY, 1, 0 },
        { 60005, LEVEL, 0, 3 }
    };

    static const step_t  idle[] = {
        { 1, TAKE, 1000000, 0 },
        { (int64_t) 30 * 86400 * 1000, LEVEL, 0, 1000000 },
        { (int64_t) 30 * 86400 * 1000, FULL, 0, 0 },
        { (int64_t) 30 * 86400 * 1000, TAKE, 1000000, 0 },
        { (int64_t) 30 * 86400 * 1000, DELAY, 1, 87 }
    };

    static const step_t  no_limit[] = {
        { 1, DELAY, INT64_MAX, 0 },
        { 1, TAKE, INT64_MAX, INT64_MAX },
        { 1, FULL, 0, 0 },
        { 1, LEVEL, 0, INT64_MAX }
    };

    run_table("taking and waiting", per_second, take_and_wait);
    run_table("debt and refund", per_second, debt_and_refund);
    run_table("a clock that steps back", per_second, clock_back);
    run_table("a burst below the rate", per_minute, small_burst);
    run_table("30 idle days", per_day, idle);
    run_table("no rate", none, no_limit);
}


/* nothing overflows, whatever is taken and given back */

static void
test_extremes(void)
{
    ngx_llm_rate_t    rate;
    ngx_llm_bucket_t  bucket;

    rate.tokens = 1;
    rate.period_ns = DAY;
    rate.burst = NGX_LLM_MAX_TOKENS;
    bucket.tat_ns = 0;

    tap_int(ngx_llm_bucket_level(&bucket, &rate, 1), 53375,
           "a burst is cut to what the rate fills in 146 years");
    tap_int(ngx_llm_bucket_delay(&bucket, &rate, 53375, 1), 0,
           "that much can be taken");
    tap_ok(ngx_llm_bucket_delay(&bucket, &rate, 53376, 1) == NGX_LLM_NEVER,
       "and no more");

    ngx_llm_bucket_take(&bucket, &rate, 53375, 1);
    tap_int(ngx_llm_bucket_level(&bucket, &rate, 1), 0, "it is empty then");

    ngx_llm_bucket_take(&bucket, &rate, INT64_MAX, 1);
    tap_ok(bucket.tat_ns == INT64_MAX, "an immense cost saturates");
    tap_ok(ngx_llm_bucket_level(&bucket, &rate, 1) < 0, "as debt");
    tap_ok(ngx_llm_bucket_delay(&bucket, &rate, 1, DAY) > DAY,
       "that a day does not pay");

    ngx_llm_bucket_take(&bucket, &rate, INT64_MAX, 1);
    tap_ok(bucket.tat_ns == INT64_MAX, "and stays saturated");

    ngx_llm_bucket_take(&bucket, &rate, INT64_MIN, 1);
    tap_int(ngx_llm_bucket_full_in(&bucket, 1), 0,
           "an immense refund fills the bucket");
    tap_int(ngx_llm_bucket_level(&bucket, &rate, 1), 53375, "and not more");

    rate.tokens = NGX_LLM_MAX_TOKENS * 1000;
    rate.period_ns = SECOND;
    rate.burst = NGX_LLM_MAX_TOKENS * 1000;
    bucket.tat_ns = 0;

    tap_int(ngx_llm_bucket_delay(&bucket, &rate, rate.burst, 1), 0,
           "the largest rate holds its burst");
    ngx_llm_bucket_take(&bucket, &rate, rate.burst, 1);
    tap_int(ngx_llm_bucket_full_in(&bucket, 1), SECOND,
           "and refills in its period");
}


/* a full bucket holds exactly its burst, however the rate divides */

static void
test_full(void)
{
    int               good;
    size_t            i;
    ngx_llm_rate_t    rate;
    ngx_llm_bucket_t  bucket;

    good = 1;

    for (i = 0; i < SEQUENCES && good; i++) {
        rate.tokens = 1 + rnd_to(200000);
        rate.period_ns = (i & 1) ? MINUTE : SECOND;
        rate.burst = 1 + rnd_to(200000);
        bucket.tat_ns = 0;

        good = ngx_llm_bucket_level(&bucket, &rate, DAY) == rate.burst
               && ngx_llm_bucket_delay(&bucket, &rate, rate.burst, DAY) == 0
               && ngx_llm_bucket_delay(&bucket, &rate, rate.burst + 1, DAY)
                  == NGX_LLM_NEVER;

        ngx_llm_bucket_take(&bucket, &rate, rate.burst, DAY);

        /* rounded up by a nanosecond: a token of a fast rate at most */

        good &= ngx_llm_bucket_level(&bucket, &rate, DAY) <= 0
                && ngx_llm_bucket_level(&bucket, &rate, DAY) >= -1
                && ngx_llm_bucket_delay(&bucket, &rate, 1, DAY) > 0;
    }

    tap_ok(good, "a full bucket holds its burst, at %d random rates",
           SEQUENCES);
}


/*
 * The promise, in exact arithmetic: over any window from one admission to
 * another, what was admitted less what was given back is at most
 * rate * window + burst.  Requests that wait count when they go on.
 */

static int
window_holds(const ngx_llm_rate_t *rate, size_t n, const int64_t *at,
    const wide_t *before, const wide_t *after)
{
    size_t  i, j;

    for (i = 0; i < n; i++) {
        for (j = i; j < n; j++) {

            if ((after[j] - before[i]) * rate->period_ns
                > (wide_t) rate->tokens * (at[j] - at[i])
                  + (wide_t) rate->burst * rate->period_ns)
            {
                return 0;
            }
        }
    }

    return 1;
}


static int
sequence(void)
{
    size_t            i, n;
    int64_t           at[STEPS], cost, delay_ns, level, now_ns, wait_ns;
    wide_t            after[STEPS], before[STEPS], sum;
    ngx_llm_rate_t    rate;
    ngx_llm_bucket_t  bucket;

    rate.tokens = 1 + rnd_to((rnd() & 1) ? 20 : 300000);
    rate.period_ns = (rnd() & 1) ? SECOND : MINUTE;
    rate.burst = 1 + rnd_to((rnd() & 1) ? 10 : rate.tokens);

    wait_ns = (rnd() & 1) ? rnd_to(rate.period_ns) : 0;
    now_ns = 1 + rnd_to(DAY);
    bucket.tat_ns = 0;
    sum = 0;
    n = 0;

    for (i = 0; i < STEPS; i++) {
        now_ns += rnd_to(rate.period_ns / 8);
        cost = rnd_to(rate.burst);

        if ((rnd() & 7) == 0) {
            ngx_llm_bucket_take(&bucket, &rate, -cost, now_ns);
            sum -= cost;
            continue;
        }

        delay_ns = ngx_llm_bucket_delay(&bucket, &rate, cost, now_ns);
        level = ngx_llm_bucket_level(&bucket, &rate, now_ns);

        if ((delay_ns == 0) != (cost <= level)) {
            return 0;
        }

        if (delay_ns > wait_ns) {
            continue;
        }

        ngx_llm_bucket_take(&bucket, &rate, cost, now_ns);

        at[n] = now_ns + delay_ns;
        before[n] = sum;
        sum += cost;
        after[n] = sum;
        n++;
    }

    return window_holds(&rate, n, at, before, after);
}


static void
test_windows(void)
{
    size_t  failed, i;

    failed = 0;

    for (i = 0; i < SEQUENCES; i++) {
        failed += !sequence();
    }

    tap_int(failed, 0, "no window admits more than rate * window + burst, in "
            "%d random sequences", SEQUENCES);
}


/* who comes later never goes on earlier, however small its cost */

static void
test_order(void)
{
    int               good;
    size_t            i, j;
    int64_t           cost, delay_ns, last_ns;
    ngx_llm_rate_t    rate;
    ngx_llm_bucket_t  bucket;

    good = 1;

    for (i = 0; i < 1000; i++) {
        rate.tokens = 1 + rnd_to(5000);
        rate.period_ns = MINUTE;
        rate.burst = 1 + rnd_to(500);
        bucket.tat_ns = 0;
        last_ns = 0;

        for (j = 0; j < 50; j++) {
            cost = rnd_to(rate.burst);
            delay_ns = ngx_llm_bucket_delay(&bucket, &rate, cost, DAY);
            ngx_llm_bucket_take(&bucket, &rate, cost, DAY);

            good &= (delay_ns >= last_ns);
            last_ns = delay_ns;
        }
    }

    tap_ok(good, "who waits is served in the order of arrival");
}


/* charges that reserve and settle a million times lose a token or two */

static void
test_drift(void)
{
    size_t            i;
    int64_t           exact_ns, got_ns, tokens;
    ngx_llm_rate_t    rate;
    ngx_llm_bucket_t  bucket;

    rate.tokens = 70000;
    rate.period_ns = MINUTE;
    rate.burst = 70000;
    bucket.tat_ns = 0;
    tokens = 0;

    for (i = 0; i < 1000000; i++) {
        ngx_llm_bucket_take(&bucket, &rate, 30, SECOND);
        ngx_llm_bucket_take(&bucket, &rate, -(int64_t) (i % 29), SECOND);

        tokens += 30 - i % 29;
    }

    got_ns = ngx_llm_bucket_full_in(&bucket, SECOND);
    exact_ns = (wide_t) tokens * rate.period_ns / rate.tokens;

    tap_ok(got_ns >= exact_ns, "rounding never gives tokens away");
    tap_ok((got_ns - exact_ns) / (rate.period_ns / rate.tokens) <= 2,
           "and takes two of %d million at most", (int) (tokens / 1000000));

    /* where a token is a whole number of nanoseconds nothing is lost at all */

    rate.tokens = 100000;
    bucket.tat_ns = 0;

    for (i = 0; i < 1000000; i++) {
        ngx_llm_bucket_take(&bucket, &rate, 17, SECOND);
        ngx_llm_bucket_take(&bucket, &rate, -7, SECOND);
    }

    tap_int(ngx_llm_bucket_full_in(&bucket, SECOND), 100 * MINUTE,
            "a million charges of 10 at 100k/m are 100 minutes exactly");
}


int
main(void)
{
    test_tables();
    test_extremes();
    test_full();
    test_windows();
    test_order();
    test_drift();

    return tap_done();
}
