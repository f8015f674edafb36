
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * What an operator or a variable writes as a rate, a count or a weight; then
 * a bucket of that rate, driven by the same bytes.
 */


#include <stdlib.h>
#include <string.h>

#include "ngx_llm_bucket.h"


#define must(cond)  if (!(cond)) { abort(); }


static void
check_weight(ngx_llm_str_t text)
{
    int64_t             weight;
    const char         *reason;
    ngx_llm_weights_t   weights;

    reason = NULL;

    if (ngx_llm_weight_parse(&weight, text, &reason) != NGX_LLM_OK) {
        must(reason != NULL);
        return;
    }

    must(weight >= 0 && weight <= 1000000);

    weights.prompt_1000 = weight;
    weights.cached_1000 = weight;
    weights.completion_1000 = weight;
    weights.reasoning_1000 = weight;

    must(ngx_llm_weigh(&weights, 1000, 10, 3000, 20) == 4 * weight);
    must(ngx_llm_weigh(&weights, INT64_MAX, INT64_MAX, INT64_MAX, -1) >= 0);
}


/* each byte is an operation: what is asked can be taken, and no more */

static void
check_bucket(const ngx_llm_rate_t *rate, const unsigned char *p, size_t len)
{
    size_t            i;
    int64_t           before, cost, delay_ns, now_ns;
    ngx_llm_bucket_t  bucket;

    bucket.tat_ns = 0;
    now_ns = 1;
    cost = 0;

    for (i = 0; i < len; i++) {

        switch (p[i] >> 6) {

        case 0:
            now_ns += INT64_MAX >> ((p[i] & 0x3f) | 4);
            now_ns = (now_ns < INT64_MAX / 4) ? now_ns : INT64_MAX / 4;
            break;

        case 1:
            cost = INT64_MAX >> (p[i] & 0x3f);
            break;

        case 2:
            cost = -(INT64_MAX >> (p[i] & 0x3f)) - (i & 1);
            break;

        case 3:
            now_ns -= now_ns >> ((p[i] & 0x3f) | 1);
            break;
        }

        before = ngx_llm_bucket_level(&bucket, rate, now_ns);
        delay_ns = ngx_llm_bucket_delay(&bucket, rate, cost, now_ns);

        must(delay_ns >= 0);
        must(rate->tokens == 0 || cost < 0
             || (delay_ns == 0) == (cost <= before));

        if (delay_ns != NGX_LLM_NEVER && delay_ns < INT64_MAX / 4) {
            must(ngx_llm_bucket_delay(&bucket, rate, cost, now_ns + delay_ns)
                 == 0);
        }

        ngx_llm_bucket_take(&bucket, rate, cost, now_ns);

        must(bucket.tat_ns >= 0);
        must(ngx_llm_bucket_full_in(&bucket, now_ns) >= 0);
        must(cost < 0 || rate->tokens == 0
             || ngx_llm_bucket_level(&bucket, rate, now_ns) <= before);
        must(cost > 0 || rate->tokens == 0
             || ngx_llm_bucket_level(&bucket, rate, now_ns) >= before);
    }
}


int
LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    int64_t         count;
    const char     *reason;
    ngx_llm_str_t   text;
    ngx_llm_rate_t  rate;

    text.data = data;
    text.len = size;

    check_weight(text);

    reason = NULL;

    if (ngx_llm_count_parse(&count, text, &reason) == NGX_LLM_OK) {
        must(count >= 0 && count <= NGX_LLM_MAX_TOKENS * 1000);

    } else {
        must(reason != NULL);
    }

    /* the first bytes that are a rate, the rest drives its bucket */

    for (text.len = 0; text.len <= size && text.len < 24; text.len++) {
        reason = NULL;

        if (ngx_llm_rate_parse(&rate, text, &reason) != NGX_LLM_OK) {
            must(reason != NULL);
            continue;
        }

        must(rate.tokens >= 0 && rate.tokens <= NGX_LLM_MAX_TOKENS * 1000);
        must(rate.period_ns >= 1000000000);

        rate.burst = rate.tokens ? rate.tokens : 1;
        check_bucket(&rate, data + text.len, size - text.len);
    }

    return 0;
}
