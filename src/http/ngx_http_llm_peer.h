
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The inside of llm_least_inflight: what its files share, and nobody else.
 * The hooks of a request are in ngx_http_llm_balancer.c, who is chosen in
 * _choose.c, where the servers are counted in _list.c.
 */


#ifndef _NGX_HTTP_LLM_PEER_H_INCLUDED_
#define _NGX_HTTP_LLM_PEER_H_INCLUDED_


#include "ngx_http_llm.h"


typedef struct {
    /* must be first: round robin's free and its sessions are called with it */
    ngx_http_upstream_rr_peer_data_t   rrp;

    ngx_http_request_t                *request;
    ngx_http_upstream_t               *upstream;
    ngx_http_llm_balancer_conf_t      *conf;

    /* the list that rrp.peers is counted in */
    ngx_http_llm_balancer_list_t      *list;

    /* where this request is counted in flight now, or _NONE */
    uint32_t                           slot;

    /* no server of the list was tried yet, whatever rrp.tried says */
    unsigned                           restarted:1;
} ngx_http_llm_peer_data_t;


typedef struct {
    ngx_http_upstream_rr_peer_t       *peer;
    ngx_uint_t                         index;
    uint32_t                           slot;

    /* requests in flight there, this one not included */
    uint32_t                           inflight;
} ngx_http_llm_choice_t;


/* of the upstream: us->peer.init */

ngx_int_t ngx_http_llm_balancer_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);

/*
 * The only place where servers are compared.  NGX_DECLINED: nobody is left
 * of this list.
 */

ngx_int_t ngx_http_llm_balancer_choose_locked(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_data_t *lp, ngx_http_llm_choice_t *choice);

/* the servers' slots are searched for once, not for each request */

ngx_int_t ngx_http_llm_balancer_update_list(ngx_http_llm_peer_data_t *lp,
    ngx_log_t *log);
void ngx_http_llm_balancer_drop_list(ngx_http_llm_balancer_list_t *list);


#endif /* _NGX_HTTP_LLM_PEER_H_INCLUDED_ */
