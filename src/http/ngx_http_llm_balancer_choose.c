
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_peer.h"
#include "ngx_llm_pick.h"


static void ngx_http_llm_balancer_look(ngx_http_llm_peer_data_t *lp,
    ngx_http_llm_scale_t *scale);
static void ngx_http_llm_balancer_candidate(ngx_http_llm_peer_data_t *lp,
    ngx_http_llm_scale_t *scale, ngx_http_upstream_rr_peer_t *peer,
    ngx_uint_t index, ngx_llm_candidate_t *candidate);
static void ngx_http_llm_balancer_costs(ngx_http_llm_peer_data_t *lp,
    ngx_http_llm_scale_t *scale, ngx_llm_candidate_t *candidate);
static ngx_http_llm_place_t *ngx_http_llm_balancer_place(
    ngx_http_llm_peer_data_t *lp, ngx_http_llm_scale_t *scale,
    ngx_uint_t index, uint32_t *distance);
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
    ngx_uint_t                    i, wanted;
    ngx_llm_pick_t                pick;
    ngx_llm_candidate_t           candidate;
    ngx_http_llm_scale_t          scale;
    ngx_http_llm_place_t         *place;
    ngx_http_upstream_rr_peer_t  *peer;
    const ngx_llm_candidate_t    *best;

    ngx_memzero(&pick, sizeof(ngx_llm_pick_t));

    ngx_http_llm_balancer_look(lp, &scale);

    for (peer = lp->rrp.peers->peer, i = 0; peer; peer = peer->next, i++) {

        wanted = ngx_http_llm_balancer_wanted(pc, peer);

        if (!ngx_http_llm_balancer_usable(&lp->rrp, peer, i, wanted)) {
            continue;
        }

        ngx_http_llm_balancer_candidate(lp, &scale, peer, i, &candidate);

        if (peer->max_conns && candidate.inflight >= peer->max_conns) {
            continue;
        }

        /* a sticky session's server is taken as it is */

        if (wanted) {
            ngx_memzero(&pick, sizeof(ngx_llm_pick_t));
        }

        ngx_llm_pick_fold(&pick, &candidate, ngx_http_llm_balancer_random());

        if (wanted) {
            break;
        }
    }

    best = ngx_llm_pick_end(&pick, lp->conf->bound_1000,
                            ngx_http_llm_balancer_random());

    if (best == NULL) {
        return NGX_DECLINED;
    }

    for (peer = lp->rrp.peers->peer, i = 0; i < best->index; i++) {
        peer = peer->next;
    }

    choice->peer = peer;
    choice->index = i;
    choice->slot = lp->list->slots[i];
    choice->inflight = best->inflight;
    choice->pending = best->pending;
    choice->uncached = best->uncached;

    place = ngx_http_llm_balancer_place(lp, &scale, i, &choice->distance);
    choice->held = place ? place->tokens : 0;

    return NGX_OK;
}


/* what is in flight, and what of it matters to this request */

static void
ngx_http_llm_balancer_look(ngx_http_llm_peer_data_t *lp,
    ngx_http_llm_scale_t *scale)
{
    uint64_t                       prefill_work, prefill_ms;
    uint64_t                       decode_work, decode_ms;
    ngx_uint_t                     i;
    ngx_http_llm_known_t          *known;
    ngx_http_llm_balancer_list_t  *list;

    list = lp->list;
    known = list->known;

    ngx_memzero(scale, sizeof(ngx_http_llm_scale_t));

    ngx_http_llm_inflight_loads(lp->conf->zone, list->slots, list->nslots,
                                list->loads);

    if (lp->key) {
        ngx_http_llm_place_find(lp->conf->places, lp->key, scale->places);
    }

    if (lp->conf->cost == NGX_HTTP_LLM_COST_REQUESTS) {
        return;
    }

    ngx_http_llm_learn_look(lp->conf->zone, list->slots, list->nslots, known);

    prefill_work = 0;
    prefill_ms = 0;
    decode_work = 0;
    decode_ms = 0;

    for (i = 0; i < list->nslots; i++) {
        prefill_work += known[i].prefill.work;
        prefill_ms += known[i].prefill.time_ms;
        decode_work += known[i].decode.work;
        decode_ms += known[i].decode.time_ms;
    }

    scale->read_ns = ngx_llm_speed_mean_ns(&ngx_llm_speed_prefill,
                                           prefill_work, prefill_ms);
    scale->write_ns = ngx_llm_speed_mean_ns(&ngx_llm_speed_decode,
                                            decode_work, decode_ms);

    scale->request_per_write = NGX_LLM_SPEED_REQUEST_TOKENS * scale->read_ns
                               / scale->write_ns;
}


static void
ngx_http_llm_balancer_candidate(ngx_http_llm_peer_data_t *lp,
    ngx_http_llm_scale_t *scale, ngx_http_upstream_rr_peer_t *peer,
    ngx_uint_t index, ngx_llm_candidate_t *candidate)
{
    uint32_t               distance;
    ngx_http_llm_load_t   *load;
    ngx_http_llm_place_t  *place;

    load = &lp->list->loads[index];

    /* what is not in the table is counted in this worker only */

    candidate->index = (uint32_t) index;
    candidate->inflight =
        (lp->list->slots[index] != NGX_HTTP_LLM_INFLIGHT_NONE)
        ? load->inflight : (uint32_t) peer->conns;
    candidate->penalty = load->penalty;
    candidate->weight = (uint32_t) peer->weight * load->share;
    candidate->pending = load->pending;
    candidate->uncached = lp->prompt;
    candidate->held = 0;
    candidate->token_ns = 0;
    candidate->request_ns = 1;

    place = ngx_http_llm_balancer_place(lp, scale, index, &distance);

    candidate->warm = (place != NULL);

    if (lp->conf->cost == NGX_HTTP_LLM_COST_REQUESTS) {
        return;
    }

    if (place) {
        candidate->held =
            ngx_llm_cache_tokens(lp->list->known[index].capacity, distance,
                                 place->tokens, lp->prompt);
        candidate->uncached -= candidate->held;
    }

    ngx_http_llm_balancer_costs(lp, scale, candidate);
}


static void
ngx_http_llm_balancer_costs(ngx_http_llm_peer_data_t *lp,
    ngx_http_llm_scale_t *scale, ngx_llm_candidate_t *candidate)
{
    ngx_http_llm_known_t  *known;

    known = &lp->list->known[candidate->index];

    candidate->token_ns = ngx_llm_speed_cost(
        ngx_llm_speed_ns(known->prefill, &ngx_llm_speed_prefill,
                         scale->read_ns));

    candidate->request_ns = ngx_llm_speed_cost(
        ngx_llm_speed_ns(known->decode, &ngx_llm_speed_decode, scale->write_ns)
        * scale->request_per_write);
}


/* where this server stands among those of the key, or NULL */

static ngx_http_llm_place_t *
ngx_http_llm_balancer_place(ngx_http_llm_peer_data_t *lp,
    ngx_http_llm_scale_t *scale, ngx_uint_t index, uint32_t *distance)
{
    ngx_uint_t             i;
    ngx_http_llm_place_t  *place;

    for (i = 0; i < NGX_HTTP_LLM_PLACES; i++) {
        place = &scale->places[i];

        if (place->server == lp->list->servers[index]) {
            *distance = lp->list->known[index].clock - place->clock;
            return place;
        }
    }

    *distance = 0;

    return NULL;
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

    mask = (uintptr_t) 1 << index % (8 * sizeof(uintptr_t));

    if (!rrp->peers->single
        && rrp->tried[index / (8 * sizeof(uintptr_t))] & mask)
    {
        return 0;
    }

    return ngx_http_llm_balancer_healthy(rrp->peers, peer);
}


/* the only server is tried again, whatever it did */

ngx_uint_t
ngx_http_llm_balancer_healthy(ngx_http_upstream_rr_peers_t *peers,
    ngx_http_upstream_rr_peer_t *peer)
{
    return peers->single
           || peer->max_fails == 0
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
