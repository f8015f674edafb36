
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_pick.h"


static uint64_t ngx_llm_pick_load(const ngx_llm_candidate_t *candidate);


void
ngx_llm_pick_fold(ngx_llm_pick_t *pick, const ngx_llm_candidate_t *candidate,
    uint32_t random)
{
    uint64_t  best, load;

    if (pick->ties == 0) {
        pick->best = *candidate;
        pick->ties = 1;
        return;
    }

    best = ngx_llm_pick_load(&pick->best) * candidate->weight;
    load = ngx_llm_pick_load(candidate) * pick->best.weight;

    if (load > best) {
        return;
    }

    if (load < best) {
        pick->best = *candidate;
        pick->ties = 1;
        return;
    }

    pick->ties++;

    /* one of ties even parts of the random number's range */

    if (((uint64_t) random * pick->ties) >> 32 == 0) {
        pick->best = *candidate;
    }
}


/* cut to 32 bits, so that its product with a weight fits in 64 */

static uint64_t
ngx_llm_pick_load(const ngx_llm_candidate_t *candidate)
{
    uint64_t  load;

    load = (uint64_t) candidate->inflight + candidate->penalty + 1;

    return (load < UINT32_MAX) ? load : UINT32_MAX;
}
