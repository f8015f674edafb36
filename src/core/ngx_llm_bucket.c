
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_bucket.h"


#define NGX_LLM_RATE_MAX       (NGX_LLM_MAX_TOKENS * 1000)

#define NGX_LLM_NS             ((int64_t) 1000000000)


static int64_t ngx_llm_weigh_part(int64_t whole, int64_t part,
    int64_t whole_1000, int64_t part_1000);
static size_t ngx_llm_count_read(int64_t *count, ngx_llm_str_t text);


static const char  ngx_llm_rate_allowed[] =
    "a number with an optional k, M or G, \"/\" and one of s, m, h, d, "
    "at most 1000G; or 0; or off";

static const char  ngx_llm_count_allowed[] =
    "a number with an optional k, M or G, at most 1000G";

static const char  ngx_llm_weight_allowed[] =
    "a decimal number from 0 to 1000 with at most three places";


ngx_llm_rc_e
ngx_llm_rate_parse(ngx_llm_rate_t *rate, ngx_llm_str_t text,
    const char **reason)
{
    size_t   n;
    int64_t  period_s, tokens;

    if (text.len == 0
        || (text.len == 1 && text.data[0] == '0')
        || (text.len == 3 && text.data[0] == 'o' && text.data[1] == 'f'
            && text.data[2] == 'f'))
    {
        rate->tokens = 0;
        rate->period_ns = NGX_LLM_NS;
        return NGX_LLM_OK;
    }

    n = ngx_llm_count_read(&tokens, text);

    if (n == 0 || text.len - n != 2 || text.data[n] != '/') {
        *reason = ngx_llm_rate_allowed;
        return NGX_LLM_INVALID;
    }

    switch (text.data[n + 1]) {

    case 's':
        period_s = 1;
        break;

    case 'm':
        period_s = 60;
        break;

    case 'h':
        period_s = 3600;
        break;

    case 'd':
        period_s = 86400;
        break;

    default:
        *reason = ngx_llm_rate_allowed;
        return NGX_LLM_INVALID;
    }

    rate->tokens = tokens;
    rate->period_ns = period_s * NGX_LLM_NS;

    return NGX_LLM_OK;
}


ngx_llm_rc_e
ngx_llm_count_parse(int64_t *count, ngx_llm_str_t text, const char **reason)
{
    int64_t  value;

    if (text.len == 0 || ngx_llm_count_read(&value, text) != text.len) {
        *reason = ngx_llm_count_allowed;
        return NGX_LLM_INVALID;
    }

    *count = value;

    return NGX_LLM_OK;
}


/* reads digits and a scale; the bytes read, 0 when there is no such number */

static size_t
ngx_llm_count_read(int64_t *count, ngx_llm_str_t text)
{
    size_t   i;
    int64_t  scale, value;

    value = 0;

    for (i = 0; i < text.len; i++) {

        if (text.data[i] < '0' || text.data[i] > '9') {
            break;
        }

        value = value * 10 + (text.data[i] - '0');

        if (value > NGX_LLM_RATE_MAX) {
            return 0;
        }
    }

    if (i == 0) {
        return 0;
    }

    scale = 1;

    if (i < text.len) {

        switch (text.data[i]) {

        case 'k':
            scale = 1000;
            i++;
            break;

        case 'M':
            scale = 1000 * 1000;
            i++;
            break;

        case 'G':
            scale = 1000 * 1000 * 1000;
            i++;
            break;
        }
    }

    if (value > NGX_LLM_RATE_MAX / scale) {
        return 0;
    }

    *count = value * scale;

    return i;
}


int64_t
ngx_llm_weigh(const ngx_llm_weights_t *weights, int64_t prompt,
    int64_t cached, int64_t completion, int64_t reasoning)
{
    int64_t  cost_1000;

    cost_1000 = ngx_llm_weigh_part(prompt, cached, weights->prompt_1000,
                                   weights->cached_1000);
    cost_1000 += ngx_llm_weigh_part(completion, reasoning,
                                    weights->completion_1000,
                                    weights->reasoning_1000);

    return (cost_1000 + 999) / 1000;
}


static int64_t
ngx_llm_weigh_part(int64_t whole, int64_t part, int64_t whole_1000,
    int64_t part_1000)
{
    /* the most that a request can name; times a weight it fits 64 bits */

    if (whole > NGX_LLM_MAX_TOKENS * NGX_LLM_MAX_CHOICES) {
        whole = NGX_LLM_MAX_TOKENS * NGX_LLM_MAX_CHOICES;
    }

    if (whole < 0) {
        whole = 0;
    }

    if (part > whole) {
        part = whole;
    }

    if (part < 0) {
        part = 0;
    }

    return (whole - part) * whole_1000 + part * part_1000;
}


ngx_llm_rc_e
ngx_llm_weight_parse(int64_t *weight_1000, ngx_llm_str_t text,
    const char **reason)
{
    size_t         i;
    int64_t        scale, value;
    unsigned       digits;
    unsigned char  ch;

    value = 0;
    scale = 0;
    digits = 0;

    for (i = 0; i < text.len; i++) {
        ch = text.data[i];

        if (ch == '.' && scale == 0 && digits != 0) {
            scale = 1000;
            digits = 0;
            continue;
        }

        if (ch < '0' || ch > '9' || scale == 1) {
            goto invalid;
        }

        digits++;
        value = value * 10 + (ch - '0');
        scale /= 10;

        if (value > 1000 * 1000) {
            goto invalid;
        }
    }

    if (digits == 0) {
        goto invalid;
    }

    value *= scale ? scale : 1000;

    if (value > 1000 * 1000) {
        goto invalid;
    }

    *weight_1000 = value;

    return NGX_LLM_OK;

invalid:

    *reason = ngx_llm_weight_allowed;
    return NGX_LLM_INVALID;
}
