
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * How much to reserve for a completion: the smaller of the most that its
 * request may get and a level that is learned, so that what is reserved is,
 * on average, what is used.
 *
 * Where requests name no maximum, or one that is far above what they get,
 * the level is the mean.  Where maxima are what clients do get, the smaller
 * of maximum and mean would be too little for the long ones with nothing to
 * make up for it: there the level climbs until the maxima are reserved.  It
 * is the m for which the mean of min(most, m) is that of the completions,
 * found by stochastic approximation: each answer moves m by a part of what
 * would have been reserved for it in error.
 */


#ifndef _NGX_LLM_LEVEL_H_INCLUDED_
#define _NGX_LLM_LEVEL_H_INCLUDED_


#include "ngx_llm.h"


/* most, of a request that names no maximum */
#define NGX_LLM_LEVEL_ANY  NGX_LLM_MAX_TOKENS


/*
 * Zero is "nothing learned".  Plain integers, and few, so that it can live
 * in shared memory.
 */

typedef struct {
    /* answers learned from, as long as that matters */
    uint32_t              samples:4;

    /* scaled by 16; all ones: every answer so far was the most it could be */
    uint32_t              tokens_16:28;
} ngx_llm_level_t;


/*
 * tokens to reserve for a request that may get most, rounded up; unknown as
 * long as there is no level
 */

int64_t ngx_llm_level_reserve(ngx_llm_level_t level, int64_t most,
    int64_t unknown);

/*
 * Learns from one answer of completion tokens whose request could get most.
 * Its weight is 1/n, then 1/8.  The level never exceeds what some request
 * got, or named as its maximum; completions count as 16 million at most.
 */

void ngx_llm_level_learn(ngx_llm_level_t *level, int64_t completion,
    int64_t most);


#endif /* _NGX_LLM_LEVEL_H_INCLUDED_ */
