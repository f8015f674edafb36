
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_peer.h"
#include "ngx_llm_pick.h"


static ngx_uint_t ngx_http_llm_balancer_wanted(ngx_peer_connection_t *pc,
    ngx_http_upstream_rr_peer_t *peer);
static ngx_uint_t ngx_http_llm_balancer_usable(
    ngx_http_upstream_rr_peer_data_t *rrp, ngx_http_upstream_rr_peer_t *peer,
    ngx_uint_t index, ngx_uint_t wanted);
static uint32_t ngx_http_llm_balancer_random(void);


ngx_int_t
ngx_http_llm_balancer_choose_locked(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_data_t *lp, ngx_http_llm_choice_t *choice)
{
    uint32_t                      slot;
    ngx_uint_t                    i, wanted;
    ngx_llm_pick_t                pick;
    ngx_llm_candidate_t           candidate;
    ngx_http_llm_load_t          *loads;
    ngx_http_upstream_rr_peer_t  *peer;

    ngx_memzero(&pick, sizeof(ngx_llm_pick_t));
    ngx_memzero(choice, sizeof(ngx_http_llm_choice_t));

    loads = lp->list->loads;

    ngx_http_llm_inflight_loads(lp->conf->zone, lp->list->slots,
                                lp->list->nslots, loads);

    for (peer = lp->rrp.peers->peer, i = 0; peer; peer = peer->next, i++) {

        wanted = ngx_http_llm_balancer_wanted(pc, peer);

        if (!ngx_http_llm_balancer_usable(&lp->rrp, peer, i, wanted)) {
            continue;
        }

        slot = lp->list->slots[i];

        /* what is not in the table is counted in this worker only */

        candidate.index = (uint32_t) i;
        candidate.inflight = (slot != NGX_HTTP_LLM_INFLIGHT_NONE)
                             ? loads[i].inflight : (uint32_t) peer->conns;
        candidate.penalty = loads[i].penalty;
        candidate.weight = (uint32_t) peer->weight;

        if (peer->max_conns && candidate.inflight >= peer->max_conns) {
            continue;
        }

        /* a sticky session's server is taken as it is */

        if (wanted) {
            pick.ties = 0;
        }

        ngx_llm_pick_fold(&pick, &candidate, ngx_http_llm_balancer_random());

        if (pick.best.index == i) {
            choice->peer = peer;
            choice->slot = slot;
        }

        if (wanted) {
            break;
        }
    }

    if (choice->peer == NULL) {
        return NGX_DECLINED;
    }

    choice->index = pick.best.index;
    choice->inflight = pick.best.inflight;

    return NGX_OK;
}


static ngx_uint_t
ngx_http_llm_balancer_wanted(ngx_peer_connection_t *pc,
    ngx_http_upstream_rr_peer_t *peer)
{
#if (NGX_HTTP_UPSTREAM_SID)

    return pc->hint
           && pc->hint->len == peer->sid.len
           && ngx_memcmp(pc->hint->data, peer->sid.data, peer->sid.len) == 0;

#else

    return 0;

#endif
}


/* what round robin asks, but for max_conns, which is ours */

static ngx_uint_t
ngx_http_llm_balancer_usable(ngx_http_upstream_rr_peer_data_t *rrp,
    ngx_http_upstream_rr_peer_t *peer, ngx_uint_t index, ngx_uint_t wanted)
{
    uintptr_t   mask;
    ngx_uint_t  down;

    down = wanted ? peer->down & ~NGX_HTTP_LLM_DRAINING : peer->down;

    if (down) {
        return 0;
    }

    /* the only server is tried again, whatever it did */

    if (rrp->peers->single) {
        return 1;
    }

    mask = (uintptr_t) 1 << index % (8 * sizeof(uintptr_t));

    if (rrp->tried[index / (8 * sizeof(uintptr_t))] & mask) {
        return 0;
    }

    return peer->max_fails == 0
           || peer->fails < peer->max_fails
           || ngx_time() - peer->checked > peer->fail_timeout;
}


/* xorshift (Marsaglia, 2003): random() takes longer than the comparison */

static uint32_t
ngx_http_llm_balancer_random(void)
{
    static uint32_t  state;

    if (state == 0) {
        state = (uint32_t) ngx_random() | 1;
    }

    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;

    return state;
}
