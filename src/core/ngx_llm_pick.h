
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Which server gets the request: a fold over the candidates, one at a time,
 * that keeps the best so far.  The caller filters (down, tried, at
 * max_conns); the fold compares.
 *
 * What is compared is how long the server is busy with what it has, and with
 * this request:
 *
 *     score = (pending + uncached - held) * token_ns
 *             + (inflight + 1) * request_ns
 *             + penalty * ((uncached + held) * token_ns + request_ns)
 *
 * over weight.  Prompt tokens that are still to be read decide when the next
 * request's first token comes: prefill is done one prompt after the other.
 * Requests that only decode cost little, but all of them slow each step
 * down.  What a server holds of the prompt counts twice, as it is not in
 * uncached either: read elsewhere it takes its time there, and the place of
 * another prefix in that server's cache.  A failure weighs like requests of
 * this one's size.  With token_ns 0 and request_ns 1 requests in flight are
 * all that counts.
 *
 * A warm server has served this request's key before.  It is preferred as
 * long as its load, that is its score without this request, is at most
 * "bound" times the mean: "Consistent Hashing with Bounded Loads" (Mirrokni,
 * Thorup, Zadimoghaddam, 2017).  Above that all servers are compared by
 * score, in which the warm one still has the smaller prompt to read.
 */


#ifndef _NGX_LLM_PICK_H_INCLUDED_
#define _NGX_LLM_PICK_H_INCLUDED_


#include "ngx_llm.h"


/* servers that are remembered as warm for one key */
#define NGX_LLM_PICK_WARM  4


typedef struct {
    /* the caller's number of this server */
    uint32_t              index;

    /* requests in flight there, this one not included */
    uint32_t              inflight;

    /* > 0 */
    uint32_t              weight;

    /* failures that still weigh, in requests: not idle, failing fast */
    uint32_t              penalty;

    /* prompt tokens that the server has not read yet */
    uint32_t              pending;

    /* of this request's prompt: what it will have to read, what it holds */
    uint32_t              uncached;
    uint32_t              held;

    /* what one token of them takes, and what one request in flight adds */
    uint32_t              token_ns;
    uint32_t              request_ns;

    /* it has served this key before */
    uint32_t              warm;
} ngx_llm_candidate_t;


/* zero-initialised by the caller */

typedef struct {
    ngx_llm_candidate_t   best;

    /* candidates that tied with the best, itself included; 0: none yet */
    uint32_t              ties;

    /* the best one's, without its weight */
    double                score_ns;

    uint32_t              nwarm;
    ngx_llm_candidate_t   warm[NGX_LLM_PICK_WARM];

    /* of all candidates */
    double                load_ns;
    double                weight;
} ngx_llm_pick_t;


/*
 * Folds one candidate in.  The smaller score wins; ties are broken evenly:
 * the k-th of k equals replaces the best with probability 1/k, for which
 * random is a fresh number from the caller for each call.  No division by
 * weight: cross-multiplied, in doubles, which are exact below 2^53 and never
 * wrap around.
 */

void ngx_llm_pick_fold(ngx_llm_pick_t *pick,
    const ngx_llm_candidate_t *candidate, uint32_t random);

/*
 * Who it is, behind the last candidate: the best warm one within the bound
 * (1250 is 1.25 times the mean), otherwise the best of all; NULL when there
 * was none.  Valid as long as pick is.
 */

const ngx_llm_candidate_t *ngx_llm_pick_end(ngx_llm_pick_t *pick,
    uint32_t bound_1000, uint32_t random);


#endif /* _NGX_LLM_PICK_H_INCLUDED_ */
