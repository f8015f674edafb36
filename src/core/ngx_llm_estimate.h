
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Tokens from bytes by character class, corrected by a ratio that is learned
 * per model from what upstream reports.  No table of a vocabulary.
 */


#ifndef _NGX_LLM_ESTIMATE_H_INCLUDED_
#define _NGX_LLM_ESTIMATE_H_INCLUDED_


#include "ngx_llm_text.h"


/* an image or audio part counts as so many tokens unless others are given */
#define NGX_LLM_IMAGE_TOKENS  800
#define NGX_LLM_AUDIO_TOKENS  500

/* the most that one such part may count as */
#define NGX_LLM_MEDIA_TOKENS_MAX  1000000


/* tokens of one part that is no text, whatever its bytes */

typedef struct {
    int64_t               image;
    int64_t               audio;
} ngx_llm_media_t;


/*
 * What has been learned for one model.  All zero is "nothing yet": ratio 1.
 * Plain integers, so that it can live in shared memory.
 */

typedef struct {
    /* upstream's tokens over ours, scaled by 65536; 0 is nothing learned */
    uint32_t              ratio_16;

    /* answers learned from, saturating */
    uint32_t              samples;

    /* of the last ones: our tokens and upstream's, scaled by 256 */
    int64_t               raw_8;
    int64_t               reported_8;
} ngx_llm_ratio_t;


/* tokens by class alone, before any correction; at least 1 for any text */

int64_t ngx_llm_estimate_raw(const ngx_llm_text_t *text);

/*
 * tokens = raw * ratio + parts; parts (images, audio) are not corrected.
 * ratio may be NULL.  Saturates at NGX_LLM_MAX_TOKENS.
 */

int64_t ngx_llm_estimate(const ngx_llm_ratio_t *ratio, int64_t raw_tokens,
    int64_t part_tokens);

/*
 * Tokens to reserve besides, as long as little is known of a model, so that
 * many who come at once do not all get through with an estimate that is too
 * low: a quarter of the text's; half of that when one answer has taught, a
 * third with two, and so on; nothing from the 16th on.
 */

int64_t ngx_llm_estimate_margin(const ngx_llm_ratio_t *ratio,
    int64_t raw_tokens);

/*
 * Learns from one answer: upstream counted reported_tokens where we had
 * raw_tokens (text only; requests with parts are not learned from).  Ignored
 * when either is below 8.  The ratio is that of the sums of both, so that it
 * is all estimates together that come out right, which is what a budget sees;
 * a mean of the ratios would be that of short texts, with their overhead.
 * What is known loses a sixteenth with each answer behind the 16th, of which
 * none adds more than a quarter to it.  One sample is bounded to [1/4, 4] of
 * ours.
 */

void ngx_llm_ratio_learn(ngx_llm_ratio_t *ratio, int64_t raw_tokens,
    int64_t reported_tokens);


#endif /* _NGX_LLM_ESTIMATE_H_INCLUDED_ */
