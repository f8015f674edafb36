
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The inside of llm_least_inflight: what its files share, and nobody else.
 * The hooks of a request are in ngx_http_llm_balancer.c, who is chosen in
 * _choose.c, where the servers are counted in _list.c, what is counted and
 * learned there in _work.c.
 */


#ifndef _NGX_HTTP_LLM_PEER_H_INCLUDED_
#define _NGX_HTTP_LLM_PEER_H_INCLUDED_


#include "ngx_http_llm.h"


/* one request at its upstream, over all attempts */

struct ngx_http_llm_peer_data_s {
    /* must be first: round robin's free and its sessions are called with it */
    ngx_http_upstream_rr_peer_data_t   rrp;

    ngx_http_request_t                *request;
    ngx_http_upstream_t               *upstream;
    ngx_http_llm_balancer_conf_t      *conf;

    /* of a main request with llm_stream on, otherwise NULL */
    ngx_http_llm_ctx_t                *ctx;

    /* the list that rrp.peers is counted in */
    ngx_http_llm_balancer_list_t      *list;

    /* hash of the affinity's value; 0: none */
    uint64_t                           key;

    /* the prompt's tokens where they count, or 0 */
    uint32_t                           prompt;

    /* its seat, where the upstream has a queue; or NULL */
    ngx_http_llm_turn_t               *turn;

    /* where this request is counted in flight now, or _NONE */
    uint32_t                           slot;

    /* of the server there: a hash of its address */
    uint32_t                           server;

    /* counted there as not read yet */
    uint32_t                           pending;

    /* that, and what was pending before it: done with its first token */
    uint32_t                           ahead;

    /* what was sent there for this key last, and what was read since */
    uint32_t                           held;
    uint32_t                           distance;

    ngx_msec_t                         start_ms;

    /* no server of the list was tried yet, whatever rrp.tried says */
    unsigned                           restarted:1;
};


typedef struct {
    ngx_http_upstream_rr_peer_t       *peer;
    ngx_uint_t                         index;
    uint32_t                           slot;

    /* requests in flight there, this one not included */
    uint32_t                           inflight;

    /* prompt tokens there that are not read yet, and those of this one */
    uint32_t                           pending;
    uint32_t                           uncached;

    /* what was sent there for this key last, and what was read since */
    uint32_t                           held;
    uint32_t                           distance;
} ngx_http_llm_choice_t;


/* what a choice compares with, of the whole list */

typedef struct {
    ngx_http_llm_place_t               places[NGX_HTTP_LLM_PLACES];

    /* ns in the mean: to read a prompt's token, and between two of an answer */
    double                             read_ns;
    double                             write_ns;

    /* what a request in flight adds, over what a token takes to be written */
    double                             request_per_write;
} ngx_http_llm_scale_t;


/*
 * Of one request, at most: so that the sums of all that a worker has fit in
 * 32 bits.
 */
#define NGX_HTTP_LLM_BALANCER_PROMPT  (1024 * 1024)


/* of the upstream: us->peer.init */

ngx_int_t ngx_http_llm_balancer_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);

/*
 * The only place where servers are compared.  NGX_DECLINED: nobody is left
 * of this list.
 */

ngx_int_t ngx_http_llm_balancer_choose_locked(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_data_t *lp, ngx_http_llm_choice_t *choice);

/*
 * The request is counted where it was sent to, and is remembered there; it
 * is counted no more, and what it teaches is learned.
 */

void ngx_http_llm_balancer_enter(ngx_http_llm_peer_data_t *lp,
    ngx_http_llm_choice_t *choice);
void ngx_http_llm_balancer_keep_place(ngx_http_llm_peer_data_t *lp,
    ngx_http_llm_choice_t *choice);
void ngx_http_llm_balancer_leave(ngx_http_llm_peer_data_t *lp,
    ngx_uint_t failed);

/* not out after failures */

ngx_uint_t ngx_http_llm_balancer_healthy(ngx_http_upstream_rr_peers_t *peers,
    ngx_http_upstream_rr_peer_t *peer);

/* the servers' slots are searched for when the list is new, or changed */

ngx_int_t ngx_http_llm_balancer_update_list(ngx_http_llm_peer_data_t *lp,
    ngx_log_t *log);
void ngx_http_llm_balancer_drop_list(ngx_http_llm_balancer_list_t *list);

/* one of the first n slots is this one */

ngx_uint_t ngx_http_llm_balancer_find_slot(const uint32_t *slots,
    ngx_uint_t n, uint32_t slot);


#endif /* _NGX_HTTP_LLM_PEER_H_INCLUDED_ */
