
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_redis_link.h"


/* how often the links are looked after */
#define NGX_HTTP_LLM_REDIS_TICK_MS  1000


static void ngx_http_llm_redis_unask(ngx_http_llm_redis_link_t *link);
static void ngx_http_llm_redis_tick(ngx_event_t *ev);
static ngx_http_llm_redis_call_t *ngx_http_llm_redis_ask(
    ngx_http_llm_redis_call_t *call, ngx_http_llm_redis_pt handler,
    void *data);
static void ngx_http_llm_redis_end(ngx_http_llm_redis_call_t *call);


static const int64_t  ngx_http_llm_redis_nothing[NGX_HTTP_LLM_REDIS_BUDGETS];

static u_char    ngx_http_llm_redis_node[8];
static uint64_t  ngx_http_llm_redis_charges;


ngx_int_t
ngx_http_llm_redis_start(ngx_http_llm_redis_t *redis, ngx_cycle_t *cycle)
{
    ngx_fd_t                   fd;
    ngx_uint_t                 i;
    ngx_http_llm_redis_map_t  *map;

    if (redis->map) {
        return NGX_OK;
    }

    redis->log = cycle->log;
    redis->quiet = *cycle->log;
    redis->quiet.next = NULL;

    if (!(redis->quiet.log_level & NGX_LOG_DEBUG_ALL)) {
        redis->quiet.log_level = NGX_LOG_ALERT;
    }

    ngx_queue_init(&redis->journal);

    map = ngx_pcalloc(cycle->pool, sizeof(ngx_http_llm_redis_map_t));
    if (map == NULL) {
        return NGX_ERROR;
    }

    redis->map = map;

    redis->seen = ngx_pcalloc(cycle->pool,
                              NGX_HTTP_LLM_REDIS_SEEN
                              * sizeof(ngx_http_llm_redis_visit_t));
    if (redis->seen == NULL) {
        return NGX_ERROR;
    }

    map->links[0] = ngx_http_llm_redis_link_create(redis, NULL);
    if (map->links[0] == NULL) {
        return NGX_ERROR;
    }

    map->nlinks = 1;

    /* charges of all machines have names of their own */

    for (i = 0; i < sizeof(ngx_http_llm_redis_node); i++) {
        ngx_http_llm_redis_node[i] = (u_char) ngx_random();
    }

    fd = ngx_open_file("/dev/urandom", NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd != NGX_INVALID_FILE) {
        (void) !ngx_read_fd(fd, ngx_http_llm_redis_node,
                            sizeof(ngx_http_llm_redis_node));
        (void) ngx_close_file(fd);
    }

    redis->tick.handler = ngx_http_llm_redis_tick;
    redis->tick.data = redis;
    redis->tick.log = cycle->log;
    redis->tick.cancelable = 1;

    ngx_add_timer(&redis->tick, NGX_HTTP_LLM_REDIS_TICK_MS);

    ngx_http_llm_redis_link_connect(map->links[0]);

    return NGX_OK;
}


/*
 * A server whose answer meets a closed connection does not read what else it
 * was sent there.
 */

void
ngx_http_llm_redis_hush(ngx_http_llm_redis_t *redis)
{
    ngx_uint_t                  i;
    ngx_http_llm_redis_link_t  *link;

    static const u_char  text[] =
        "*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n";

    if (redis->map == NULL) {
        return;
    }

    for (i = 0; i < redis->map->nlinks; i++) {
        link = redis->map->links[i];

        if (link->state == NGX_HTTP_LLM_REDIS_UP) {
            (void) ngx_http_llm_redis_link_write(link, text,
                                                 sizeof(text) - 1);
        }
    }
}


void
ngx_http_llm_redis_stop(ngx_http_llm_redis_t *redis)
{
    ngx_uint_t  i;

    if (redis->map == NULL) {
        return;
    }

    redis->stopping = 1;

    ngx_http_llm_redis_resume(redis);

    for (i = 0; i < redis->map->nlinks; i++) {
        ngx_http_llm_redis_unask(redis->map->links[i]);
    }

    for (i = 0; i < redis->map->nlinks; i++) {
        ngx_http_llm_redis_link_close(redis->map->links[i]);
    }

    if (redis->tick.timer_set) {
        ngx_del_timer(&redis->tick);
    }
}


/* what an answer takes that nobody hears: the ends go behind the questions */

static void
ngx_http_llm_redis_unask(ngx_http_llm_redis_link_t *link)
{
    ngx_queue_t                *q;
    ngx_http_llm_redis_call_t  *call;

    for (q = ngx_queue_head(&link->pending);
         q != ngx_queue_sentinel(&link->pending);
         q = ngx_queue_next(q))
    {
        call = ngx_queue_data(q, ngx_http_llm_redis_call_t, queue);

        if (ngx_http_llm_redis_takes(call)) {
            ngx_http_llm_redis_give_up(&call->charge);
        }
    }
}


static void
ngx_http_llm_redis_tick(ngx_event_t *ev)
{
    ngx_uint_t                  i;
    ngx_http_llm_redis_t       *redis;
    ngx_http_llm_redis_map_t   *map;
    ngx_http_llm_redis_link_t  *link;

    redis = ev->data;
    map = redis->map;

    for (i = 1; i < map->nlinks; i++) {
        link = map->links[i];

        if (link->used && link->state != NGX_HTTP_LLM_REDIS_UP) {
            map->stale = 1;
        }
    }

    if (map->stale) {
        ngx_http_llm_redis_refresh(redis);
    }

    ngx_http_llm_redis_resume(redis);

    ngx_add_timer(ev, NGX_HTTP_LLM_REDIS_TICK_MS);
}


void
ngx_http_llm_redis_name_charge(ngx_http_llm_redis_charge_t *charge)
{
    ngx_uint_t  i;
    uint64_t    n;

    ngx_memcpy(charge->id, ngx_http_llm_redis_node,
               sizeof(ngx_http_llm_redis_node));

    n = ++ngx_http_llm_redis_charges;

    for (i = 0; i < 8; i++) {
        charge->id[8 + i] = (u_char) (n >> (56 - 8 * i));
    }
}


ngx_http_llm_redis_call_t *
ngx_http_llm_redis_reserve(const ngx_http_llm_redis_charge_t *charge,
    const int64_t *costs, int64_t wait_ns,
    const ngx_http_llm_redis_facts_t *facts, ngx_http_llm_redis_pt handler,
    void *data)
{
    ngx_http_llm_redis_call_t  *call;

    call = ngx_http_llm_redis_command(NGX_HTTP_LLM_REDIS_RESERVE, charge,
                                      costs, wait_ns / 1000, 0, facts);

    if (call) {
        call->wait_ns = wait_ns;
    }

    return ngx_http_llm_redis_ask(call, handler, data);
}


ngx_http_llm_redis_call_t *
ngx_http_llm_redis_lease(const ngx_http_llm_redis_charge_t *charge,
    const int64_t *wants, const int64_t *debts, ngx_http_llm_redis_pt handler,
    void *data)
{
    return ngx_http_llm_redis_ask(
               ngx_http_llm_redis_command(NGX_HTTP_LLM_REDIS_LEASE, charge,
                                          wants, debts[0], debts[1], NULL),
               handler, data);
}


ngx_http_llm_redis_call_t *
ngx_http_llm_redis_raise(const ngx_http_llm_redis_charge_t *charge,
    int64_t need, int64_t least, int64_t most, ngx_http_llm_redis_pt handler,
    void *data)
{
    int64_t  costs[NGX_HTTP_LLM_REDIS_BUDGETS];

    ngx_memzero(costs, sizeof(costs));
    costs[0] = need;

    return ngx_http_llm_redis_ask(
               ngx_http_llm_redis_command(NGX_HTTP_LLM_REDIS_RAISE, charge,
                                          costs, least, most, NULL),
               handler, data);
}


static ngx_http_llm_redis_call_t *
ngx_http_llm_redis_ask(ngx_http_llm_redis_call_t *call,
    ngx_http_llm_redis_pt handler, void *data)
{
    if (call == NULL) {
        return NULL;
    }

    call->handler = handler;
    call->data = data;

    if (ngx_http_llm_redis_send(call) != NGX_OK) {
        ngx_http_llm_redis_call_free(call);
        return NULL;
    }

    return call;
}


ngx_int_t
ngx_http_llm_redis_send(ngx_http_llm_redis_call_t *call)
{
    ngx_http_llm_redis_map_t  *map;

    map = call->charge.redis->map;

    if (map == NULL) {
        return NGX_BUSY;
    }

    return ngx_http_llm_redis_link_send(map->links[map->slots[call->slot]],
                                        call);
}


void
ngx_http_llm_redis_forget(ngx_http_llm_redis_call_t *call)
{
    call->handler = NULL;

    if (!call->sent) {
        ngx_queue_remove(&call->queue);
        call->link->npending--;
        ngx_http_llm_redis_call_free(call);
    }
}


void
ngx_http_llm_redis_settle(const ngx_http_llm_redis_charge_t *charge,
    const int64_t *costs)
{
    ngx_http_llm_redis_end(
               ngx_http_llm_redis_command(NGX_HTTP_LLM_REDIS_SETTLE, charge,
                                          costs, 0, 0, NULL));
}


void
ngx_http_llm_redis_return(const ngx_http_llm_redis_charge_t *charge,
    const int64_t *wants, const int64_t *debts)
{
    ngx_http_llm_redis_end(
               ngx_http_llm_redis_command(NGX_HTTP_LLM_REDIS_LEASE, charge,
                                          wants, debts[0], debts[1], NULL));
}


void
ngx_http_llm_redis_give_up(const ngx_http_llm_redis_charge_t *charge)
{
    ngx_http_llm_redis_end(
               ngx_http_llm_redis_command(NGX_HTTP_LLM_REDIS_SETTLE, charge,
                                          ngx_http_llm_redis_nothing, 1, 0,
                                          NULL));
}


static void
ngx_http_llm_redis_end(ngx_http_llm_redis_call_t *call)
{
    if (call == NULL) {
        return;
    }

    call->final = 1;

    if (ngx_http_llm_redis_send(call) != NGX_OK) {
        ngx_http_llm_redis_store(call);
    }
}


void
ngx_http_llm_redis_store(ngx_http_llm_redis_call_t *call)
{
    ngx_queue_t                *q;
    ngx_http_llm_redis_t       *redis;
    ngx_http_llm_redis_call_t  *oldest;

    redis = call->charge.redis;

    /* Redis may have it, and forget about it before it is said again */

    if (call->script == NGX_HTTP_LLM_REDIS_LEASE && call->tried
        && ngx_current_msec - call->made_ms > call->charge.keep_ms / 2)
    {
        ngx_http_llm_redis_call_free(call);
        return;
    }

    if (redis->map == NULL || redis->stopping) {
        ngx_http_llm_redis_call_free(call);
        return;
    }

    if (redis->njournal == NGX_HTTP_LLM_REDIS_JOURNAL) {
        q = ngx_queue_head(&redis->journal);
        ngx_queue_remove(q);

        oldest = ngx_queue_data(q, ngx_http_llm_redis_call_t, queue);
        ngx_http_llm_redis_call_free(oldest);

        redis->njournal--;
    }

    call->link = NULL;
    call->sent = 0;
    call->hops = 0;
    call->asking = 0;

    ngx_http_llm_redis_forget_since(call);

    ngx_queue_insert_tail(&redis->journal, &call->queue);
    redis->njournal++;
}


/*
 * Not all at once: a server that is busy with them for longer than a timeout
 * would be taken for one that is away.  Those that cannot be sent yet come
 * back to the journal's end.
 */

void
ngx_http_llm_redis_resume(ngx_http_llm_redis_t *redis)
{
    ngx_uint_t                  n;
    ngx_queue_t                *q;
    ngx_http_llm_redis_call_t  *call;

    for (n = redis->njournal; n; n--) {

        if (redis->nresent >= NGX_HTTP_LLM_REDIS_RESENT && !redis->stopping) {
            return;
        }

        q = ngx_queue_head(&redis->journal);
        ngx_queue_remove(q);
        redis->njournal--;

        call = ngx_queue_data(q, ngx_http_llm_redis_call_t, queue);

        if (ngx_http_llm_redis_send(call) != NGX_OK) {
            ngx_http_llm_redis_store(call);
            continue;
        }

        call->resent = 1;
        redis->nresent++;
    }
}
