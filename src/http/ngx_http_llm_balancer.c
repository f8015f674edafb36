
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_peer.h"
#include "ngx_llm_hash.h"


/*
 * Round robin keeps the servers, their failures and sessions, and frees
 * them; only the choice and the counts are ours.  Its own get is not called:
 * it compares max_conns with peer->conns, which a shared zone forgets on
 * reload and a killed worker leaves too high for good.
 */


static ngx_int_t ngx_http_llm_balancer_key(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us, ngx_http_llm_peer_data_t *lp);
static ngx_int_t ngx_http_llm_balancer_get(ngx_peer_connection_t *pc,
    void *data);
static ngx_int_t ngx_http_llm_balancer_get_locked(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_data_t *lp, ngx_http_llm_choice_t *choice);
static ngx_int_t ngx_http_llm_balancer_renew_locked(
    ngx_http_llm_peer_data_t *lp);
static void ngx_http_llm_balancer_use_locked(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_data_t *lp, ngx_http_llm_choice_t *choice);
static void ngx_http_llm_balancer_free(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static ngx_uint_t ngx_http_llm_balancer_left(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_data_t *lp);
static ngx_uint_t ngx_http_llm_balancer_recovers(
    ngx_http_llm_peer_data_t *lp, ngx_uint_t state);
static ngx_uint_t ngx_http_llm_balancer_failed(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_data_t *lp, ngx_uint_t state);


ngx_int_t
ngx_http_llm_balancer_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us)
{
    ngx_http_llm_srv_conf_t   *lscf;
    ngx_http_llm_peer_data_t  *lp;

    lp = ngx_pcalloc(r->pool, sizeof(ngx_http_llm_peer_data_t));
    if (lp == NULL) {
        return NGX_ERROR;
    }

    lscf = ngx_http_conf_upstream_srv_conf(us, ngx_http_llm_stream_module);

    lp->request = r;
    lp->upstream = r->upstream;
    lp->conf = &lscf->balancer;
    lp->list = &lscf->balancer.primary;
    lp->slot = NGX_HTTP_LLM_INFLIGHT_NONE;
    lp->ctx = (r == r->main) ? ngx_http_llm_find_ctx(r) : NULL;

    if (lp->ctx
        && lp->ctx->facts
        && lp->conf->cost == NGX_HTTP_LLM_COST_TOKENS)
    {
        lp->prompt = (uint32_t) ngx_min(lp->ctx->estimated_tokens,
                                        NGX_HTTP_LLM_BALANCER_PROMPT);
    }

    if (lp->conf->affinity && ngx_http_llm_balancer_key(r, us, lp) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_llm_turn_find(r, &lscf->turn, &lp->turn) != NGX_OK) {
        return NGX_ERROR;
    }

    r->upstream->peer.data = &lp->rrp;

    if (ngx_http_upstream_init_round_robin_peer(r, us) != NGX_OK) {
        return NGX_ERROR;
    }

    r->upstream->peer.get = ngx_http_llm_balancer_get;
    r->upstream->peer.free = ngx_http_llm_balancer_free;

    return NGX_OK;
}


/* the same value is another key in another upstream, and none if empty */

static ngx_int_t
ngx_http_llm_balancer_key(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us, ngx_http_llm_peer_data_t *lp)
{
    uint64_t   seed;
    ngx_str_t  value;

    if (ngx_http_complex_value(r, lp->conf->affinity, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (value.len) {
        seed = ngx_llm_hash(us->host.data, us->host.len, 0);
        lp->key = ngx_llm_hash(value.data, value.len, seed);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_balancer_get(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_llm_peer_data_t  *lp = data;

    ngx_int_t                      rc;
    ngx_http_llm_choice_t          choice;
    ngx_http_upstream_rr_peers_t  *peers;

    pc->cached = 0;
    pc->connection = NULL;

    if (lp->turn && ngx_http_llm_turn_take(lp->turn) != NGX_OK) {
        pc->name = lp->rrp.peers->name;

        ngx_log_debug1(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                       "llm balancer: others wait for \"%V\"", pc->name);

        return NGX_BUSY;
    }

    for ( ;; ) {
        peers = lp->rrp.peers;

        ngx_http_upstream_rr_peers_wlock(peers);
        rc = ngx_http_llm_balancer_get_locked(pc, lp, &choice);
        ngx_http_upstream_rr_peers_unlock(peers);

        if (rc != NGX_DECLINED || peers->next == NULL) {
            break;
        }

        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                       "llm balancer: backup servers");

        lp->rrp.peers = peers->next;
        lp->list = &lp->conf->backup;
        lp->restarted = 1;
    }

    if (rc != NGX_OK) {
        pc->name = peers->name;

        ngx_log_debug1(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                       "llm balancer: no server in \"%V\"", pc->name);

        return (rc == NGX_ERROR) ? NGX_ERROR : NGX_BUSY;
    }

    if (lp->turn) {
        ngx_http_llm_turn_seat(lp->turn);
    }

    ngx_log_debug7(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                   "llm balancer: get %V inflight:%uD try:%ui pending:%uD "
                   "uncached:%uD of:%uD held:%uD",
                   pc->name, choice.inflight + 1, pc->tries, choice.pending,
                   choice.uncached, lp->prompt, choice.held);

    if (lp->ctx) {
        lp->ctx->inflight = choice.inflight + 1;
        lp->ctx->peer = lp;
    }

    if (lp->key) {
        ngx_http_llm_balancer_keep_place(lp, &choice);
    }

    return NGX_OK;
}


/* NGX_DECLINED: no server of this list */

static ngx_int_t
ngx_http_llm_balancer_get_locked(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_data_t *lp, ngx_http_llm_choice_t *choice)
{
    size_t           size;
    ngx_int_t        rc;
    ngx_shm_zone_t  *zone;

    if (lp->rrp.config != ngx_http_llm_peers_generation(lp->rrp.peers)
        && ngx_http_llm_balancer_renew_locked(lp) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (lp->restarted) {
        size = ngx_align(lp->rrp.peers->number, 8 * sizeof(uintptr_t)) / 8;
        ngx_memzero(lp->rrp.tried, size);

        lp->restarted = 0;
    }

    if (ngx_http_llm_balancer_update_list(lp, pc->log) != NGX_OK) {
        return NGX_ERROR;
    }

    /* two workers must not both take the last place under max_conns */

    zone = lp->list->limited ? lp->conf->zone : NULL;

    if (zone) {
        ngx_http_llm_inflight_lock(zone);
    }

    rc = ngx_http_llm_balancer_choose_locked(pc, lp, choice);

    if (rc == NGX_OK) {
        ngx_http_llm_balancer_enter(lp, choice);
    }

    if (zone) {
        ngx_http_llm_inflight_unlock(zone);
    }

    if (rc == NGX_OK) {
        ngx_http_llm_balancer_use_locked(pc, lp, choice);
    }

    return rc;
}


/*
 * The servers were resolved anew, and rrp.tried names others.  Round robin
 * gives the request up here; but it may have waited for minutes at a server
 * that has gone since.  One that was tried and is still there may be tried
 * again: its failure weighs, and tries are counted all the same.
 */

static ngx_int_t
ngx_http_llm_balancer_renew_locked(ngx_http_llm_peer_data_t *lp)
{
    uintptr_t                     *tried;
    ngx_uint_t                     n;
    ngx_http_upstream_rr_peers_t  *peers;

    peers = lp->rrp.peers;

    /* first: who changes the backups meanwhile, changes it behind them */

    lp->rrp.config = ngx_http_llm_peers_generation(peers);
    ngx_memory_barrier();

    n = peers->number;

    if (peers->next && peers->next->number > n) {
        n = peers->next->number;
    }

    tried = &lp->rrp.data;

    if (n > 8 * sizeof(uintptr_t)) {
        tried = ngx_palloc(lp->request->pool,
                           ngx_align(n, 8 * sizeof(uintptr_t)) / 8);
        if (tried == NULL) {
            return NGX_ERROR;
        }
    }

    lp->rrp.tried = tried;
    lp->restarted = 1;

    return NGX_OK;
}


/* leaves everything as round robin's get would */

static void
ngx_http_llm_balancer_use_locked(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_data_t *lp, ngx_http_llm_choice_t *choice)
{
    uintptr_t                     mask;
    ngx_http_upstream_rr_peer_t  *peer;

    peer = choice->peer;

    pc->sockaddr = peer->sockaddr;
    pc->socklen = peer->socklen;
    pc->name = &peer->name;

#if (NGX_HTTP_UPSTREAM_SID)
    pc->sid = &peer->sid;
#endif

    peer->conns++;

    if (ngx_time() - peer->checked > peer->fail_timeout) {
        peer->checked = ngx_time();
    }

    lp->rrp.current = peer;
    ngx_http_upstream_rr_peer_ref(lp->rrp.peers, peer);

    mask = (uintptr_t) 1 << choice->index % (8 * sizeof(uintptr_t));
    lp->rrp.tried[choice->index / (8 * sizeof(uintptr_t))] |= mask;
}


static void
ngx_http_llm_balancer_free(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state)
{
    ngx_http_llm_peer_data_t  *lp = data;

    uint32_t    slot;
    ngx_uint_t  failed, left, recovered;

    failed = ngx_http_llm_balancer_failed(pc, lp, state);

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                   "llm balancer: free %V state:%ui failed:%ui",
                   pc->name, state, failed);

    slot = lp->slot;
    recovered = ngx_http_llm_balancer_recovers(lp, state);

    if (lp->turn) {
        ngx_http_llm_turn_rise(lp->turn, state);
    }

    ngx_http_llm_balancer_leave(lp, failed);

    left = ngx_http_llm_balancer_left(pc, lp);

    ngx_http_upstream_free_round_robin_peer(pc, &lp->rrp, state);

    if (left) {
        pc->tries = left;
    }

    if (recovered && slot != NGX_HTTP_LLM_INFLIGHT_NONE) {
        ngx_http_llm_inflight_recovered(slot);
    }

    if (lp->turn) {
        ngx_http_llm_turn_free(lp->turn);
    }
}


/*
 * Where there is one server only round robin tries no other.  This one may
 * have been resolved away, and the only one be another: the tries that are
 * left then, or 0.
 */

static ngx_uint_t
ngx_http_llm_balancer_left(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_data_t *lp)
{
    ngx_uint_t                     other;
    ngx_http_upstream_rr_peers_t  *peers;

    peers = lp->rrp.peers;

    ngx_http_upstream_rr_peers_rlock(peers);

    other = (peers->single && peers->peer != lp->rrp.current);

    ngx_http_upstream_rr_peers_unlock(peers);

    return (other && pc->tries) ? pc->tries - 1 : 0;
}


/*
 * Round robin is about to forget what kept the server out.  Not behind it:
 * a server that was resolved away is freed with its last request.
 */

static ngx_uint_t
ngx_http_llm_balancer_recovers(ngx_http_llm_peer_data_t *lp,
    ngx_uint_t state)
{
    ngx_http_upstream_rr_peer_t  *peer;

    peer = lp->rrp.current;

    if (peer->max_fails == 0 || peer->fails < peer->max_fails) {
        return 0;
    }

    return lp->rrp.peers->single
           || (!(state & NGX_PEER_FAILED) && peer->accessed < peer->checked);
}


/* what makes a server look idle that is not: also where it is not retried */

static ngx_uint_t
ngx_http_llm_balancer_failed(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_data_t *lp, ngx_uint_t state)
{
    ngx_uint_t  status;

    status = lp->upstream->headers_in.status_n;

    if (status >= NGX_HTTP_INTERNAL_SERVER_ERROR
        || status == NGX_HTTP_TOO_MANY_REQUESTS)
    {
        return 1;
    }

    /* a stale keep-alive connection says nothing about its server */

    return (state & NGX_PEER_FAILED) && !pc->cached;
}


ngx_int_t
ngx_http_llm_balancer_init_process(ngx_cycle_t *cycle)
{
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_llm_stream_module);

    if (lmcf == NULL || lmcf->inflight == NULL) {
        return NGX_OK;
    }

    /* the cache's manager and loader proxy nothing */

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    return ngx_http_llm_inflight_attach(lmcf->inflight,
                                        ngx_http_llm_process_gone,
                                        cycle->log);
}


void
ngx_http_llm_balancer_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_llm_inflight_detach();
}
