
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Which server gets the request: a fold over the candidates, one at a time,
 * that keeps the best so far.  The caller filters (down, tried, at
 * max_conns); the fold compares.
 */


#ifndef _NGX_LLM_PICK_H_INCLUDED_
#define _NGX_LLM_PICK_H_INCLUDED_


#include "ngx_llm.h"


typedef struct {
    /* the caller's number of this server */
    uint32_t              index;

    /* requests in flight there, this one not included */
    uint32_t              inflight;

    /* > 0 */
    uint32_t              weight;

    /* failures that still weigh, in requests: not idle, failing fast */
    uint32_t              penalty;
} ngx_llm_candidate_t;


/* zero-initialised by the caller */

typedef struct {
    ngx_llm_candidate_t   best;

    /* candidates that tied with the best, itself included; 0: none yet */
    uint32_t              ties;
} ngx_llm_pick_t;


/*
 * Folds one candidate in.  Less (inflight + penalty + 1) / weight wins; ties
 * are broken evenly: the k-th of k equals replaces the best with probability
 * 1/k, for which random is a fresh number from the caller for each call.
 * No division by weight: cross-multiplied in 64 bits.
 */

void ngx_llm_pick_fold(ngx_llm_pick_t *pick,
    const ngx_llm_candidate_t *candidate, uint32_t random);


#endif /* _NGX_LLM_PICK_H_INCLUDED_ */
