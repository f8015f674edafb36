
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_bucket.h"
#include "tap.h"


#define SECOND  ((int64_t) 1000000000)


static ngx_llm_str_t
str(const char *text)
{
    ngx_llm_str_t  s;

    s.data = (const unsigned char *) text;
    s.len = strlen(text);

    return s;
}


static void
test_rates(void)
{
    size_t          i;
    const char     *reason;
    ngx_llm_rc_e    rc;
    tap_guard_t     guard;
    ngx_llm_str_t   text;
    ngx_llm_rate_t  rate;

    static const struct {
        const char  *text;
        int64_t      tokens;
        int64_t      period_s;
    } good[] = {
        { "1/s", 1, 1 },
        { "100k/m", 100000, 60 },
        { "2M/h", 2000000, 3600 },
        { "3G/d", 3000000000, 86400 },
        { "007/m", 7, 60 },
        { "0/s", 0, 1 },
        { "0k/d", 0, 86400 },
        { "1000000000000/s", 1000000000000, 1 },
        { "1000G/s", 1000000000000, 1 },
        { "", 0, 1 },
        { "0", 0, 1 },
        { "off", 0, 1 }
    };

    static const char  *bad[] = {
        "1", "00", "on", "OFF", "off ", " 1/s", "1/s ", "1 /s", "1/ s", "/s",
        "k/s", "1/", "1/x", "1/S", "1/sec", "1/ms", "1//s", "1/s/s", "-1/s",
        "+1/s", "1.5k/m", "1,5/m", "1e3/s", "0x10/s", "1K/s", "1m/s", "1kk/s",
        "1k", "1T/s", "1001G/s", "1000000000001/s", "1000000001k/s",
        "99999999999999999999999999/s", "18446744073709551617/s", "r/s"
    };

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        guard = tap_guard(good[i].text, strlen(good[i].text));
        text.data = guard.data;
        text.len = strlen(good[i].text);

        rate.burst = 77;
        reason = NULL;

        rc = ngx_llm_rate_parse(&rate, text, &reason);

        tap_ok(rc == NGX_LLM_OK && rate.tokens == good[i].tokens
               && rate.period_ns == good[i].period_s * SECOND
               && rate.burst == 77,
               "rate \"%s\"", good[i].text);

        tap_unguard(&guard);
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        guard = tap_guard(bad[i], strlen(bad[i]));
        text.data = guard.data;
        text.len = strlen(bad[i]);

        rate.tokens = -5;
        reason = NULL;

        rc = ngx_llm_rate_parse(&rate, text, &reason);

        tap_ok(rc == NGX_LLM_INVALID && reason != NULL
               && strstr(reason, "s, m, h, d") != NULL && rate.tokens == -5,
               "no rate: \"%s\"", bad[i]);

        tap_unguard(&guard);
    }
}


static void
test_counts(void)
{
    size_t        i;
    int64_t       count;
    const char   *reason;
    ngx_llm_rc_e  rc;

    static const struct {
        const char  *text;
        int64_t      count;
    } good[] = {
        { "0", 0 },
        { "50k", 50000 },
        { "12M", 12000000 },
        { "1000G", 1000000000000 },
        { "123456", 123456 }
    };

    static const char  *bad[] = {
        "", "off", "-1", "1.5", "1 ", "k", "1kk", "1001G", "1/s", "50K"
    };

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        count = -1;
        rc = ngx_llm_count_parse(&count, str(good[i].text), &reason);

        tap_ok(rc == NGX_LLM_OK && count == good[i].count, "count \"%s\"",
               good[i].text);
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        count = -5;
        reason = NULL;
        rc = ngx_llm_count_parse(&count, str(bad[i]), &reason);

        tap_ok(rc == NGX_LLM_INVALID && reason != NULL && count == -5,
               "no count: \"%s\"", bad[i]);
    }
}


static void
test_weights(void)
{
    size_t        i;
    int64_t       weight;
    const char   *reason;
    ngx_llm_rc_e  rc;

    static const struct {
        const char  *text;
        int64_t      weight;
    } good[] = {
        { "1", 1000 },
        { "0", 0 },
        { "0.25", 250 },
        { "0.1", 100 },
        { "0.001", 1 },
        { "1.050", 1050 },
        { "4", 4000 },
        { "1000", 1000000 },
        { "1000.000", 1000000 }
    };

    static const char  *bad[] = {
        "", ".", ".5", "1.", "-1", "+1", "1.2345", "1..2", "1.2.3", "1,5",
        "1000.001", "1001", "99999999999999999999", "1e3", " 1", "1 ", "x"
    };

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        weight = -1;
        rc = ngx_llm_weight_parse(&weight, str(good[i].text), &reason);

        tap_ok(rc == NGX_LLM_OK && weight == good[i].weight, "weight \"%s\"",
               good[i].text);
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        weight = -5;
        reason = NULL;
        rc = ngx_llm_weight_parse(&weight, str(bad[i]), &reason);

        tap_ok(rc == NGX_LLM_INVALID && reason != NULL && weight == -5,
               "no weight: \"%s\"", bad[i]);
    }
}


static void
test_weigh(void)
{
    size_t  i;

    static const ngx_llm_weights_t  ones = { 1000, 1000, 1000, 1000 };
    static const ngx_llm_weights_t  price = { 1000, 100, 4000, 5000 };
    static const ngx_llm_weights_t  prompt = { 1000, 1000, 0, 0 };
    static const ngx_llm_weights_t  most = { 1000000, 0, 1000000, 0 };

    static const struct {
        const ngx_llm_weights_t  *weights;
        int64_t                   prompt;
        int64_t                   cached;
        int64_t                   completion;
        int64_t                   reasoning;
        int64_t                   want;
    } table[] = {
        { &ones, 10, 5, 20, 7, 30 },
        { &ones, 0, 0, 0, 0, 0 },
        { &price, 100, 0, 0, 0, 100 },
        { &price, 100, 100, 0, 0, 10 },
        { &price, 100, 60, 0, 0, 46 },
        { &price, 0, 0, 10, 4, 44 },

        /* rounded up, once */

        { &price, 1, 1, 0, 0, 1 },
        { &price, 11, 11, 0, 0, 2 },

        /* what upstream did not report is -1 */

        { &price, -1, -1, 10, -1, 40 },
        { &price, 10, -1, -1, -1, 10 },

        /* a part larger than its whole */

        { &price, 10, 50, 0, 0, 1 },

        { &prompt, 10, 0, 1000, 0, 10 },

        /* absurd numbers do not overflow */

        { &most, INT64_MAX, 0, INT64_MAX, 0,
          2 * NGX_LLM_MAX_TOKENS * NGX_LLM_MAX_CHOICES * 1000 },
        { &ones, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, 0 }
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        tap_int(ngx_llm_weigh(table[i].weights, table[i].prompt,
                              table[i].cached, table[i].completion,
                              table[i].reasoning),
                table[i].want, "cost %d", (int) i);
    }
}


int
main(void)
{
    test_rates();
    test_counts();
    test_weights();
    test_weigh();

    return tap_done();
}
