
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Whose turn is it?  The virtual token counter of Sheng et al., "Fairness in
 * Serving Large Language Models" (OSDI 2024): each key has a counter of the
 * weighted tokens that it was served, and of the keys that wait the one with
 * the least is next.  A key that comes back is lifted to the least of those
 * that wait: it has no credit from the time in which it asked for nothing.
 *
 * What a turn costs is known when it ends.  Until then it counts for what it
 * was taken to cost, on top of the counter, so that turns at the same time
 * are shared out as well; only what has been served lifts others.
 *
 * So of keys that always wait each is served as many tokens as any other, but
 * for what its turns at one time cost; one that asks for less than its share
 * has all it asks for.
 *
 * There is no time and no memory here: keys lie where the caller puts them,
 * also in shared memory that all of its users have at the same address.  All
 * calls take O(log n) of the n keys that wait, amortised (a pairing heap).
 */


#ifndef _NGX_LLM_FAIR_H_INCLUDED_
#define _NGX_LLM_FAIR_H_INCLUDED_


#include "ngx_llm.h"


/* what one token weighs, as in the paper: decoding takes longer */
#define NGX_LLM_FAIR_PROMPT      1
#define NGX_LLM_FAIR_COMPLETION  2


typedef struct ngx_llm_fair_key_s  ngx_llm_fair_key_t;


/* zero-initialised by the caller, who reads waiting and nothing else */

struct ngx_llm_fair_key_s {
    /* weighted tokens of turns that ended, and what it was lifted by */
    uint64_t              served;

    /* of those that did not, what they were taken to cost */
    uint64_t              taken;

    /* of equals, who came first */
    uint64_t              order;

    /* the heap: the first below, the next beside, and who points here */
    ngx_llm_fair_key_t   *child;
    ngx_llm_fair_key_t   *next;
    ngx_llm_fair_key_t   *prev;

    /* turns that have not ended yet */
    uint32_t              turns;

    uint32_t              waiting;
};


/* zero-initialised by the caller */

typedef struct {
    ngx_llm_fair_key_t   *root;

    /* the most that anybody was served whose turn it was; only grows */
    uint64_t              floor;

    uint64_t              order;
} ngx_llm_fair_t;


/* the cost of a turn, at least 1; negative tokens are not known: 0 */

int64_t ngx_llm_fair_cost(int64_t prompt, int64_t completion);

/* a key that does not wait begins to; one that waits has nothing left */

void ngx_llm_fair_join(ngx_llm_fair_t *fair, ngx_llm_fair_key_t *key);
void ngx_llm_fair_leave(ngx_llm_fair_t *fair, ngx_llm_fair_key_t *key);

/* whose turn it is; NULL: nobody waits */

ngx_llm_fair_key_t *ngx_llm_fair_next(const ngx_llm_fair_t *fair);

/* the key, which is next, has a turn that is taken to cost so much, >= 0 */

void ngx_llm_fair_serve(ngx_llm_fair_t *fair, ngx_llm_fair_key_t *key,
    int64_t taken);

/* a turn that was taken for so much has ended, and cost that */

void ngx_llm_fair_settle(ngx_llm_fair_t *fair, ngx_llm_fair_key_t *key,
    int64_t taken, int64_t cost);

/* true: the key has no turn and does not wait, and a new one stands as well */

int ngx_llm_fair_is_new(const ngx_llm_fair_t *fair,
    const ngx_llm_fair_key_t *key);


#endif /* _NGX_LLM_FAIR_H_INCLUDED_ */
