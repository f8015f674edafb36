
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_level.h"


#define NGX_LLM_LEVEL_SAMPLES  8

/* no level: all that was seen reached its maximum */
#define NGX_LLM_LEVEL_NONE     ((1 << 28) - 1)

#define NGX_LLM_LEVEL_TOKENS   (NGX_LLM_LEVEL_NONE / 16 - 1)


static int64_t ngx_llm_level_16(int64_t tokens);


int64_t
ngx_llm_level_reserve(ngx_llm_level_t level, int64_t most, int64_t unknown)
{
    int64_t  tokens;

    if (level.samples == 0 || level.tokens_16 == NGX_LLM_LEVEL_NONE) {
        return unknown;
    }

    tokens = (level.tokens_16 + 15) / 16;

    return (tokens < most) ? tokens : most;
}


void
ngx_llm_level_learn(ngx_llm_level_t *level, int64_t completion, int64_t most)
{
    int64_t  base_16, completion_16, error_16, most_16, rest;

    completion_16 = ngx_llm_level_16(completion);
    most_16 = ngx_llm_level_16(most);

    if (level->samples == 0) {
        level->tokens_16 = NGX_LLM_LEVEL_NONE;
    }

    if (level->samples < NGX_LLM_LEVEL_SAMPLES) {
        level->samples++;
    }

    base_16 = level->tokens_16;

    if (base_16 == NGX_LLM_LEVEL_NONE) {

        if (completion >= most) {
            return;
        }

        /* the first one that could have got more: what was reserved for it */

        base_16 = (most == NGX_LLM_LEVEL_ANY) ? completion_16 : most_16;
    }

    error_16 = completion_16 - ((most_16 < base_16) ? most_16 : base_16);

    /* rounded away from zero, or small errors would never count */

    rest = level->samples - 1;
    base_16 += (error_16 + ((error_16 < 0) ? -rest : rest)) / level->samples;

    level->tokens_16 = base_16;
}


static int64_t
ngx_llm_level_16(int64_t tokens)
{
    if (tokens < 0) {
        return 0;
    }

    return 16 * ((tokens < NGX_LLM_LEVEL_TOKENS) ? tokens
                                                 : NGX_LLM_LEVEL_TOKENS);
}
