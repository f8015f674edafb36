
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_peer.h"


static void ngx_http_llm_balancer_add_seats(ngx_http_llm_peer_data_t *lp,
    ngx_http_llm_seats_t *seats);


void
ngx_http_llm_balancer_seats(ngx_http_upstream_srv_conf_t *us,
    ngx_http_llm_seats_t *seats)
{
    ngx_http_llm_srv_conf_t       *lscf;
    ngx_http_llm_peer_data_t       lp;
    ngx_http_upstream_rr_peers_t  *peers;

    ngx_memzero(seats, sizeof(ngx_http_llm_seats_t));

    seats->limited = 1;

    lscf = ngx_http_conf_upstream_srv_conf(us, ngx_http_llm_stream_module);

    /* as of a request, as far as its list needs it */

    ngx_memzero(&lp, sizeof(ngx_http_llm_peer_data_t));

    lp.conf = &lscf->balancer;
    lp.list = &lscf->balancer.primary;

    for (peers = us->peer.data; peers; peers = peers->next) {
        lp.rrp.peers = peers;

        ngx_http_upstream_rr_peers_rlock(peers);

        lp.rrp.config = ngx_http_llm_peers_generation(peers);

        if (ngx_http_llm_balancer_update_list(&lp, ngx_cycle->log) == NGX_OK) {
            ngx_http_llm_balancer_add_seats(&lp, seats);
        }

        ngx_http_upstream_rr_peers_unlock(peers);

        lp.list = &lscf->balancer.backup;
    }

    if (!seats->limited) {
        seats->free = NGX_MAX_UINT32_VALUE;

    } else if (seats->clean) {
        seats->free -= seats->doubtful;
    }
}


static void
ngx_http_llm_balancer_add_seats(ngx_http_llm_peer_data_t *lp,
    ngx_http_llm_seats_t *seats)
{
    uint32_t                      inflight;
    ngx_uint_t                    free, i;
    ngx_http_llm_load_t          *loads;
    ngx_http_upstream_rr_peer_t  *peer;

    loads = lp->list->loads;

    ngx_http_llm_inflight_loads(lp->conf->zone, lp->list->slots,
                                lp->list->nslots, loads);

    for (peer = lp->rrp.peers->peer, i = 0; peer; peer = peer->next, i++) {

        if (peer->down
            || !ngx_http_llm_balancer_healthy(lp->rrp.peers, peer))
        {
            continue;
        }

        seats->live = 1;

        if (peer->max_conns == 0) {
            seats->limited = 0;
            continue;
        }

        /* both have the same requests in flight, and so the same seats */

        if (lp->list->doubled
            && ngx_http_llm_balancer_find_slot(lp->list->slots, i,
                                               lp->list->slots[i]))
        {
            continue;
        }

        inflight = (lp->list->slots[i] != NGX_HTTP_LLM_INFLIGHT_NONE)
                   ? loads[i].inflight : (uint32_t) peer->conns;

        free = (inflight < peer->max_conns) ? peer->max_conns - inflight : 0;

        seats->free += free;

        /* otherwise max_fails says when it is out, and when it is tried */

        if (peer->max_fails == 0 && loads[i].penalty) {
            seats->doubtful += ngx_min(free, loads[i].penalty);

        } else {
            seats->clean = 1;
        }
    }
}
