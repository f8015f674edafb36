
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_pick.h"


/* one of ties even parts of the random number's range */

#define ngx_llm_pick_is_one_of(ties, random)                                  \
    (((uint64_t) (random) * (ties)) >> 32 == 0)

/* another random number from the last one (Numerical Recipes, 7.1) */

#define ngx_llm_pick_again(random)  ((random) * 1664525u + 1013904223u)


static void ngx_llm_pick_compare(ngx_llm_pick_t *pick,
    const ngx_llm_candidate_t *candidate, double load_ns, uint32_t random);
static double ngx_llm_pick_load(const ngx_llm_candidate_t *candidate);


void
ngx_llm_pick_fold(ngx_llm_pick_t *pick, const ngx_llm_candidate_t *candidate,
    uint32_t random)
{
    double  load_ns;

    load_ns = ngx_llm_pick_load(candidate);

    pick->load_ns += load_ns;
    pick->weight += candidate->weight;

    if (candidate->warm && pick->nwarm < NGX_LLM_PICK_WARM) {
        pick->warm[pick->nwarm++] = *candidate;
    }

    ngx_llm_pick_compare(pick, candidate, load_ns, random);
}


const ngx_llm_candidate_t *
ngx_llm_pick_end(ngx_llm_pick_t *pick, uint32_t bound_1000, uint32_t random)
{
    double          bound_ns, load_ns;
    uint32_t        i;
    ngx_llm_pick_t  warm;

    warm.ties = 0;

    bound_ns = pick->load_ns * bound_1000 / 1000;

    for (i = 0; i < pick->nwarm; i++) {
        load_ns = ngx_llm_pick_load(&pick->warm[i]);

        if (load_ns * pick->weight <= bound_ns * pick->warm[i].weight) {
            random = ngx_llm_pick_again(random);
            ngx_llm_pick_compare(&warm, &pick->warm[i], load_ns, random);
        }
    }

    if (warm.ties) {
        pick->best = warm.best;
        pick->ties = warm.ties;
    }

    return pick->ties ? &pick->best : NULL;
}


static void
ngx_llm_pick_compare(ngx_llm_pick_t *pick,
    const ngx_llm_candidate_t *candidate, double load_ns, uint32_t random)
{
    double  best, score, score_ns;

    score_ns = load_ns
               + ((double) candidate->uncached - candidate->held)
                 * candidate->token_ns
               + candidate->request_ns;

    if (pick->ties) {
        best = pick->score_ns * candidate->weight;
        score = score_ns * pick->best.weight;

        if (score > best) {
            return;
        }

        pick->ties = (score < best) ? 1 : pick->ties + 1;

    } else {
        pick->ties = 1;
    }

    if (ngx_llm_pick_is_one_of(pick->ties, random)) {
        pick->best = *candidate;
        pick->score_ns = score_ns;
    }
}


/* without this request, but for what failures make of it */

static double
ngx_llm_pick_load(const ngx_llm_candidate_t *candidate)
{
    double  failure_ns, load_ns;

    load_ns = (double) candidate->pending * candidate->token_ns
              + (double) candidate->inflight * candidate->request_ns;

    if (candidate->penalty) {
        failure_ns = ((double) candidate->uncached + candidate->held)
                     * candidate->token_ns
                     + candidate->request_ns;

        load_ns += candidate->penalty * failure_ns;
    }

    return load_ns;
}
