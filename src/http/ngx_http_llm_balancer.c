
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_llm_pick.h"


/*
 * Round robin keeps the servers, their failures and sessions, and frees
 * them; only the choice and the counts are ours.  Its own get is not called:
 * it compares max_conns with peer->conns, which a shared zone forgets on
 * reload and a killed worker leaves too high for good.
 */


/* what versions before "resolve" and "sticky" do not have */

#ifndef NGX_HTTP_UPSTREAM_MODIFY
#define NGX_HTTP_UPSTREAM_MODIFY  0
#endif

#if (NGX_HTTP_UPSTREAM_ZONE && defined ngx_http_upstream_rr_peer_ref)
#define ngx_http_llm_peers_generation(peers)                                  \
    ((peers)->config ? *(peers)->config : 0)
#else
#define ngx_http_llm_peers_generation(peers)  0
#endif

#ifndef ngx_http_upstream_rr_peer_ref
#define ngx_http_upstream_rr_peer_ref(peers, peer)
#endif

#if (NGX_HTTP_UPSTREAM_STICKY)
#define NGX_HTTP_LLM_DRAINING     NGX_HTTP_UPSTREAM_DRAINING
#else
#define NGX_HTTP_LLM_DRAINING     0
#endif


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


static ngx_int_t ngx_http_llm_balancer_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t ngx_http_llm_balancer_get(ngx_peer_connection_t *pc,
    void *data);
static ngx_int_t ngx_http_llm_balancer_get_locked(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_data_t *lp, ngx_http_llm_choice_t *choice);
static ngx_int_t ngx_http_llm_balancer_choose_locked(
    ngx_peer_connection_t *pc, ngx_http_llm_peer_data_t *lp,
    ngx_http_llm_choice_t *choice);
static ngx_uint_t ngx_http_llm_balancer_wanted(ngx_peer_connection_t *pc,
    ngx_http_upstream_rr_peer_t *peer);
static ngx_uint_t ngx_http_llm_balancer_usable(
    ngx_http_upstream_rr_peer_data_t *rrp, ngx_http_upstream_rr_peer_t *peer,
    ngx_uint_t index, ngx_uint_t wanted);
static void ngx_http_llm_balancer_use_locked(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_data_t *lp, ngx_http_llm_choice_t *choice);
static ngx_int_t ngx_http_llm_balancer_update_list(
    ngx_http_llm_peer_data_t *lp, ngx_log_t *log);
static void ngx_http_llm_balancer_drop_list(
    ngx_http_llm_balancer_list_t *list);
static uint32_t ngx_http_llm_balancer_random(void);
static void ngx_http_llm_balancer_free(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static ngx_uint_t ngx_http_llm_balancer_failed(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_data_t *lp, ngx_uint_t state);
static ngx_int_t ngx_http_llm_balancer_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);
static void ngx_http_llm_balancer_cleanup(void *data);


static ngx_int_t
ngx_http_llm_balancer_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us)
{
    ngx_http_llm_srv_conf_t   *lscf;
    ngx_http_llm_peer_data_t  *lp;

    lp = ngx_palloc(r->pool, sizeof(ngx_http_llm_peer_data_t));
    if (lp == NULL) {
        return NGX_ERROR;
    }

    lscf = ngx_http_conf_upstream_srv_conf(us, ngx_http_llm_stream_module);

    lp->request = r;
    lp->upstream = r->upstream;
    lp->conf = &lscf->balancer;
    lp->list = &lscf->balancer.primary;
    lp->slot = NGX_HTTP_LLM_INFLIGHT_NONE;
    lp->restarted = 0;

    r->upstream->peer.data = &lp->rrp;

    if (ngx_http_upstream_init_round_robin_peer(r, us) != NGX_OK) {
        return NGX_ERROR;
    }

    r->upstream->peer.get = ngx_http_llm_balancer_get;
    r->upstream->peer.free = ngx_http_llm_balancer_free;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_balancer_get(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_llm_peer_data_t  *lp = data;

    ngx_int_t                      rc;
    ngx_http_llm_ctx_t            *ctx;
    ngx_http_llm_choice_t          choice;
    ngx_http_upstream_rr_peers_t  *peers;

    pc->cached = 0;
    pc->connection = NULL;

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

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                   "llm balancer: get %V inflight:%uD try:%ui",
                   pc->name, choice.inflight + 1, pc->tries);

    ctx = ngx_http_llm_find_ctx(lp->request);

    if (ctx) {
        ctx->inflight = choice.inflight + 1;
    }

    return NGX_OK;
}


/* NGX_DECLINED: no server of this list; NGX_BUSY: the list has changed */

static ngx_int_t
ngx_http_llm_balancer_get_locked(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_data_t *lp, ngx_http_llm_choice_t *choice)
{
    size_t           size;
    ngx_int_t        rc;
    ngx_uint_t       generation;
    ngx_shm_zone_t  *zone;

    generation = ngx_http_llm_peers_generation(lp->rrp.peers);

    /* the servers were resolved anew, rrp.tried names others: as in rr */

    if (generation != lp->rrp.config) {
        return NGX_BUSY;
    }

    if (lp->restarted) {
        size = ngx_align(lp->rrp.peers->number, 8 * sizeof(uintptr_t)) / 8;
        ngx_memzero(lp->rrp.tried, size);

        lp->restarted = 0;
    }

    if (lp->list->slots == NULL || lp->list->generation != generation) {
        if (ngx_http_llm_balancer_update_list(lp, pc->log) != NGX_OK) {
            return NGX_ERROR;
        }

        lp->list->generation = generation;
    }

    /* two workers must not both take the last place under max_conns */

    zone = lp->list->limited ? lp->conf->zone : NULL;

    if (zone) {
        ngx_http_llm_inflight_lock(zone);
    }

    rc = ngx_http_llm_balancer_choose_locked(pc, lp, choice);

    if (rc == NGX_OK && choice->slot != NGX_HTTP_LLM_INFLIGHT_NONE) {
        ngx_http_llm_inflight_enter(choice->slot);
        lp->slot = choice->slot;
    }

    if (zone) {
        ngx_http_llm_inflight_unlock(zone);
    }

    if (rc == NGX_OK) {
        ngx_http_llm_balancer_use_locked(pc, lp, choice);
    }

    return rc;
}


static ngx_int_t
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


/* the servers' slots are searched for once, not for each request */

static ngx_int_t
ngx_http_llm_balancer_update_list(ngx_http_llm_peer_data_t *lp, ngx_log_t *log)
{
    uint32_t                      *slots;
    ngx_uint_t                     i, n;
    ngx_http_llm_load_t           *loads;
    ngx_http_upstream_rr_peer_t   *peer;
    ngx_http_llm_balancer_list_t  *list;

    list = lp->list;

    for (peer = lp->rrp.peers->peer, n = 0; peer; peer = peer->next) {
        n++;
    }

    /* one more than none, for a list that is yet to be resolved */

    loads = ngx_alloc((n + 1) * (sizeof(ngx_http_llm_load_t)
                                 + sizeof(uint32_t)), log);
    if (loads == NULL) {
        return NGX_ERROR;
    }

    slots = (uint32_t *) &loads[n + 1];

    list->limited = 0;

    for (peer = lp->rrp.peers->peer, i = 0; i < n; peer = peer->next, i++) {
        slots[i] = ngx_http_llm_inflight_hold(lp->conf->zone,
                                              lp->rrp.peers->name,
                                              &peer->name, log);

        if (peer->max_conns) {
            list->limited = 1;
        }
    }

    /* after the new ones are held: most servers stay what they were */

    ngx_http_llm_balancer_drop_list(list);

    list->loads = loads;
    list->slots = slots;
    list->nslots = n;

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, log, 0,
                   "llm balancer: %ui servers in \"%V\", generation:%ui",
                   n, lp->rrp.peers->name, lp->rrp.config);

    return NGX_OK;
}


static void
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


static void
ngx_http_llm_balancer_free(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state)
{
    ngx_http_llm_peer_data_t  *lp = data;

    ngx_uint_t  failed;

    failed = ngx_http_llm_balancer_failed(pc, lp, state);

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                   "llm balancer: free %V state:%ui failed:%ui",
                   pc->name, state, failed);

    if (lp->slot != NGX_HTTP_LLM_INFLIGHT_NONE) {
        if (failed) {
            ngx_http_llm_inflight_failed(lp->slot);
        }

        ngx_http_llm_inflight_leave(lp->slot);
        lp->slot = NGX_HTTP_LLM_INFLIGHT_NONE;
    }

    ngx_http_upstream_free_round_robin_peer(pc, &lp->rrp, state);
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
                                        ngx_http_llm_limit_process_gone,
                                        cycle->log);
}


void
ngx_http_llm_balancer_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_llm_inflight_detach();
}


static ngx_int_t
ngx_http_llm_balancer_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us)
{
    ngx_pool_cleanup_t       *cln;
    ngx_http_llm_srv_conf_t  *lscf;

    if (ngx_http_upstream_init_round_robin(cf, us) != NGX_OK) {
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    lscf = ngx_http_conf_upstream_srv_conf(us, ngx_http_llm_stream_module);

    cln->handler = ngx_http_llm_balancer_cleanup;
    cln->data = &lscf->balancer;

    us->peer.init = ngx_http_llm_balancer_init_peer;

    return NGX_OK;
}


static void
ngx_http_llm_balancer_cleanup(void *data)
{
    ngx_http_llm_balancer_conf_t  *conf = data;

    ngx_http_llm_balancer_drop_list(&conf->primary);
    ngx_http_llm_balancer_drop_list(&conf->backup);
}


char *
ngx_http_llm_least_inflight_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_str_t                     *value;
    ngx_uint_t                     i;
    ngx_http_llm_srv_conf_t       *lscf;
    ngx_http_llm_main_conf_t      *lmcf;
    ngx_http_upstream_srv_conf_t  *uscf;

    lscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_llm_stream_module);

    if (lscf->balancer.enabled) {
        return "is duplicate";
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strcmp(value[i].data, "cost=requests") == 0) {
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" of "
                           "\"llm_least_inflight\", allowed is "
                           "\"cost=requests\"", &value[i]);
        return NGX_CONF_ERROR;
    }

    uscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);

    if (uscf->peer.init_upstream) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "load balancing method redefined");
    }

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_stream_module);

    if (lmcf->inflight == NULL) {
        lmcf->inflight = ngx_http_llm_inflight_zone(cf,
                                                  &ngx_http_llm_stream_module);
        if (lmcf->inflight == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    lscf->balancer.zone = lmcf->inflight;
    lscf->balancer.enabled = 1;

    uscf->peer.init_upstream = ngx_http_llm_balancer_init_upstream;

    uscf->flags = NGX_HTTP_UPSTREAM_CREATE
                  |NGX_HTTP_UPSTREAM_MODIFY
                  |NGX_HTTP_UPSTREAM_WEIGHT
                  |NGX_HTTP_UPSTREAM_MAX_CONNS
                  |NGX_HTTP_UPSTREAM_MAX_FAILS
                  |NGX_HTTP_UPSTREAM_FAIL_TIMEOUT
                  |NGX_HTTP_UPSTREAM_DOWN
                  |NGX_HTTP_UPSTREAM_BACKUP;

    return NGX_CONF_OK;
}
