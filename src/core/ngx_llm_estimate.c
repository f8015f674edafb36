
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_estimate.h"


/* fixed point of a ratio */
#define NGX_LLM_RATIO_ONE      65536

/* shorter texts say little about a model's tokenizer */
#define NGX_LLM_RATIO_TOKENS   8

/* answers that the sums reach back to */
#define NGX_LLM_RATIO_SAMPLES  16

/* fixed point of the sums */
#define NGX_LLM_RATIO_SUM      256


/*
 * Tokens of a thousand bytes of each class.  Fitted once, by least absolute
 * relative error, to what two public byte-pair encodings (o200k_base and,
 * where they differ, some way towards the older cl100k_base) make of 1,100
 * pieces of 1,500 characters: prose in nine languages, nine kinds of source
 * code and markup, JSON, logs, tables, numbers, base64, hex.  Half of these
 * kinds are then within 6% of o200k_base, most of the rest within 20%; the
 * learned ratio does what remains.
 */

static const uint32_t  ngx_llm_estimate_per_1000[NGX_LLM_TEXT_CLASSES] = {
    210,    /* NGX_LLM_TEXT_WORD */
    675,    /* NGX_LLM_TEXT_DIGIT */
    570,    /* NGX_LLM_TEXT_PUNCT */
    145,    /* NGX_LLM_TEXT_SPACE */
    150,    /* NGX_LLM_TEXT_LATIN */
    285,    /* NGX_LLM_TEXT_CJK */
    450     /* NGX_LLM_TEXT_OTHER */
};

/*
 * Letters that make no words cost three times as many tokens.  They are told
 * by their capitals: of all letters, base64 has a fifth behind small ones,
 * camelCase a fiftieth.  Each that is above a sixteenth counts so much more.
 */

#define NGX_LLM_ESTIMATE_FLIPS     16
#define NGX_LLM_ESTIMATE_PER_FLIP  3500

/*
 * Of what nothing is known yet the estimate may be low by a fifth, as it is
 * for words that no vocabulary has.
 */

#define NGX_LLM_ESTIMATE_MARGIN    4


int64_t
ngx_llm_estimate_raw(const ngx_llm_text_t *text)
{
    size_t    i;
    uint64_t  bytes, expected, tokens_1000;

    tokens_1000 = 0;

    for (i = 0; i < NGX_LLM_TEXT_CLASSES; i++) {
        bytes = text->bytes[i];
        tokens_1000 += bytes * ngx_llm_estimate_per_1000[i];
    }

    expected = text->bytes[NGX_LLM_TEXT_WORD] / NGX_LLM_ESTIMATE_FLIPS;

    if (text->flips > expected) {
        tokens_1000 += (text->flips - expected) * NGX_LLM_ESTIMATE_PER_FLIP;
    }

    if (tokens_1000 / 1000 >= (uint64_t) NGX_LLM_MAX_TOKENS) {
        return NGX_LLM_MAX_TOKENS;
    }

    return (tokens_1000 + 999) / 1000;
}


int64_t
ngx_llm_estimate(const ngx_llm_ratio_t *ratio, int64_t raw_tokens,
    int64_t part_tokens)
{
    int64_t  tokens;

    tokens = (raw_tokens < NGX_LLM_MAX_TOKENS) ? raw_tokens
                                               : NGX_LLM_MAX_TOKENS;
    if (tokens < 0) {
        tokens = 0;
    }

    if (ratio != NULL && ratio->ratio_16 != 0) {
        tokens = (tokens * ratio->ratio_16 + NGX_LLM_RATIO_ONE / 2)
                 / NGX_LLM_RATIO_ONE;

        if (tokens == 0 && raw_tokens > 0) {
            tokens = 1;
        }
    }

    if (part_tokens < 0) {
        part_tokens = 0;
    }

    if (part_tokens >= NGX_LLM_MAX_TOKENS
        || tokens >= NGX_LLM_MAX_TOKENS - part_tokens)
    {
        return NGX_LLM_MAX_TOKENS;
    }

    return tokens + part_tokens;
}


int64_t
ngx_llm_estimate_margin(const ngx_llm_ratio_t *ratio, int64_t raw_tokens)
{
    int64_t  samples;

    samples = (ratio != NULL) ? ratio->samples : 0;

    if (samples >= NGX_LLM_RATIO_SAMPLES) {
        return 0;
    }

    return ngx_llm_estimate(ratio, raw_tokens, 0)
           / (NGX_LLM_ESTIMATE_MARGIN * (samples + 1));
}


void
ngx_llm_ratio_learn(ngx_llm_ratio_t *ratio, int64_t raw_tokens,
    int64_t reported_tokens)
{
    int64_t  most_8, raw_8, sample_16;

    if (raw_tokens < NGX_LLM_RATIO_TOKENS
        || reported_tokens < NGX_LLM_RATIO_TOKENS
        || raw_tokens > NGX_LLM_MAX_TOKENS
        || reported_tokens > NGX_LLM_MAX_TOKENS)
    {
        return;
    }

    sample_16 = reported_tokens * NGX_LLM_RATIO_ONE / raw_tokens;

    if (sample_16 < NGX_LLM_RATIO_ONE / 4) {
        sample_16 = NGX_LLM_RATIO_ONE / 4;
    }

    if (sample_16 > NGX_LLM_RATIO_ONE * 4) {
        sample_16 = NGX_LLM_RATIO_ONE * 4;
    }

    raw_8 = raw_tokens * NGX_LLM_RATIO_SUM;

    if (ratio->samples >= NGX_LLM_RATIO_SAMPLES) {
        ratio->raw_8 -= ratio->raw_8 / NGX_LLM_RATIO_SAMPLES;
        ratio->reported_8 -= ratio->reported_8 / NGX_LLM_RATIO_SAMPLES;

        most_8 = ratio->raw_8 / 4;
        raw_8 = (raw_8 < most_8) ? raw_8 : most_8;
    }

    ratio->raw_8 += raw_8;
    ratio->reported_8 += raw_8 * sample_16 / NGX_LLM_RATIO_ONE;

    if (ratio->samples < UINT32_MAX) {
        ratio->samples++;
    }

    ratio->ratio_16 = ratio->reported_8 * NGX_LLM_RATIO_ONE / ratio->raw_8;
}
