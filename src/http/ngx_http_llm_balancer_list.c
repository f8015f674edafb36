
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_peer.h"


ngx_int_t
ngx_http_llm_balancer_update_list(ngx_http_llm_peer_data_t *lp, ngx_log_t *log)
{
    uint32_t                      *slots, *servers;
    ngx_uint_t                     i, n;
    ngx_http_llm_load_t           *loads;
    ngx_http_llm_known_t          *known;
    ngx_http_upstream_rr_peer_t   *peer;
    ngx_http_llm_balancer_list_t  *list;

    list = lp->list;

    if (list->slots && list->generation == lp->rrp.config) {
        return NGX_OK;
    }

    for (peer = lp->rrp.peers->peer, n = 0; peer; peer = peer->next) {
        n++;
    }

    /* one more than none, for a list that is yet to be resolved */

    loads = ngx_calloc((n + 1) * (sizeof(ngx_http_llm_load_t)
                                  + sizeof(ngx_http_llm_known_t)
                                  + 2 * sizeof(uint32_t)), log);
    if (loads == NULL) {
        return NGX_ERROR;
    }

    known = (ngx_http_llm_known_t *) &loads[n + 1];
    slots = (uint32_t *) &known[n + 1];
    servers = &slots[n + 1];

    list->limited = 0;
    list->doubled = 0;

    for (peer = lp->rrp.peers->peer, i = 0; i < n; peer = peer->next, i++) {
        slots[i] = ngx_http_llm_inflight_hold(lp->conf->zone,
                                              lp->rrp.peers->name,
                                              &peer->name, log);

        servers[i] = ngx_crc32_long(peer->name.data, peer->name.len) | 1;

        if (peer->max_conns) {
            list->limited = 1;
        }

        if (ngx_http_llm_balancer_find_slot(slots, i, slots[i])) {
            list->doubled = 1;
        }
    }

    /* after the new ones are held: most servers stay what they were */

    ngx_http_llm_balancer_drop_list(list);

    list->loads = loads;
    list->known = known;
    list->slots = slots;
    list->servers = servers;
    list->nslots = n;
    list->generation = lp->rrp.config;

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, log, 0,
                   "llm balancer: %ui servers in \"%V\", generation:%ui",
                   n, lp->rrp.peers->name, lp->rrp.config);

    return NGX_OK;
}


ngx_uint_t
ngx_http_llm_balancer_find_slot(const uint32_t *slots, ngx_uint_t n,
    uint32_t slot)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        if (slots[i] == slot && slot != NGX_HTTP_LLM_INFLIGHT_NONE) {
            return 1;
        }
    }

    return 0;
}


void
ngx_http_llm_balancer_drop_list(ngx_http_llm_balancer_list_t *list)
{
    ngx_uint_t  i;

    if (list->slots == NULL) {
        return;
    }

    for (i = 0; i < list->nslots; i++) {
        ngx_http_llm_inflight_release(list->slots[i]);
    }

    ngx_free(list->loads);
    list->slots = NULL;
}
