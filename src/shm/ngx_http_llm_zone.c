
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_queue.h"


_Static_assert(sizeof(ngx_http_llm_hold_t) <= NGX_HTTP_LLM_KEY_CHUNK,
               "a hold fits a chunk");


static ngx_int_t ngx_http_llm_zone_init(ngx_shm_zone_t *shm_zone, void *data);
static ngx_int_t ngx_http_llm_zone_reuse(ngx_http_llm_zone_t *zone,
    ngx_http_llm_zone_t *old);

static void ngx_http_llm_zone_sort(ngx_http_llm_zone_t **sorted,
    ngx_http_llm_take_t *takes, ngx_uint_t n);
static ngx_int_t ngx_http_llm_zone_look_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);
static int64_t ngx_http_llm_zone_cost(ngx_http_llm_take_t *take,
    ngx_http_llm_key_t *key);
static ngx_int_t ngx_http_llm_zone_take_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);
static void ngx_http_llm_zone_undo_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);
static void ngx_http_llm_zone_report_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);
static ngx_uint_t ngx_http_llm_zone_end_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_hold_t *hold, const int64_t *costs, int64_t now_ns);


/* tells these zones from all others: its address is their tag */

static ngx_uint_t  ngx_http_llm_zone_tag;

static const int64_t  ngx_http_llm_zone_nothing[NGX_HTTP_LLM_BUDGETS];


ngx_shm_zone_t *
ngx_http_llm_zone_add(ngx_conf_t *cf, ngx_str_t *name, size_t size)
{
    return ngx_shared_memory_add(cf, name, size, &ngx_http_llm_zone_tag);
}


void
ngx_http_llm_zone_bind(ngx_shm_zone_t *shm_zone, ngx_http_llm_zone_t *zone)
{
    zone->shm_zone = shm_zone;

    shm_zone->init = ngx_http_llm_zone_init;
    shm_zone->data = zone;
}


static ngx_int_t
ngx_http_llm_zone_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_http_llm_zone_t  *old = data;

    ngx_slab_pool_t         *shpool;
    ngx_http_llm_zone_t     *zone;
    ngx_http_llm_zone_sh_t  *sh;

    zone = shm_zone->data;

    if (old) {
        return ngx_http_llm_zone_reuse(zone, old);
    }

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    /* no log under the lock: who allocates says what it means */

    shpool->log_nomem = 0;

    sh = ngx_slab_calloc(shpool, sizeof(ngx_http_llm_zone_sh_t));
    if (sh == NULL) {
        return NGX_ERROR;
    }

    sh->nslots = ngx_http_llm_key_slots(shm_zone->shm.size);

    sh->slots = ngx_slab_calloc(shpool,
                                sh->nslots * sizeof(ngx_http_llm_key_t *));
    if (sh->slots == NULL) {
        return NGX_ERROR;
    }

    ngx_queue_init(&sh->lru);
    ngx_queue_init(&sh->holds);

    sh->version = NGX_HTTP_LLM_ZONE_VERSION;

    shpool->data = sh;

    zone->sh = sh;
    zone->shpool = shpool;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_zone_reuse(ngx_http_llm_zone_t *zone, ngx_http_llm_zone_t *old)
{
    if (zone->key.len != old->key.len
        || ngx_strncmp(zone->key.data, old->key.data, zone->key.len) != 0)
    {
        ngx_log_error(NGX_LOG_EMERG, zone->shm_zone->shm.log, 0,
                      "llm_limit_zone \"%V\" uses the \"%V\" key "
                      "while previously it used the \"%V\" key",
                      &zone->shm_zone->shm.name, &zone->key, &old->key);
        return NGX_ERROR;
    }

    /*
     * The memory cannot be cleared: workers of the old cycle use it.  Another
     * build of the module never gets here, for its tag differs, and nginx
     * makes a new zone.
     */

    if (old->sh->version != NGX_HTTP_LLM_ZONE_VERSION) {
        ngx_log_error(NGX_LOG_EMERG, zone->shm_zone->shm.log, 0,
                      "llm_limit_zone \"%V\" has layout %ui of another "
                      "version of the module, this one needs layout %d: "
                      "restart nginx or rename the zone",
                      &zone->shm_zone->shm.name, old->sh->version,
                      NGX_HTTP_LLM_ZONE_VERSION);
        return NGX_ERROR;
    }

    zone->sh = old->sh;
    zone->shpool = old->shpool;

    return NGX_OK;
}


/*
 * Workers read the clock at different times, once in each turn of their
 * loop: a bucket may see it step back by some milliseconds.
 */

int64_t
ngx_http_llm_zone_now(void)
{
    return (int64_t) ngx_current_msec * 1000000 + 1;
}


ngx_int_t
ngx_http_llm_zone_reserve(ngx_http_llm_take_t *takes, ngx_uint_t n,
    int64_t now_ns)
{
    ngx_int_t             rc;
    ngx_uint_t            i;
    ngx_http_llm_zone_t  *sorted[NGX_HTTP_LLM_MAX_ZONES];

    ngx_http_llm_zone_sort(sorted, takes, n);

    for (i = 0; i < n; i++) {
        ngx_shmtx_lock(&sorted[i]->shpool->mutex);
    }

    rc = NGX_OK;

    for (i = 0; i < n; i++) {
        if (ngx_http_llm_zone_look_locked(&takes[i], now_ns) != NGX_OK) {
            rc = NGX_BUSY;
        }
    }

    for (i = 0; i < n && rc == NGX_OK; i++) {
        rc = ngx_http_llm_zone_take_locked(&takes[i], now_ns);
    }

    for (i = 0; i < n; i++) {

        if (rc != NGX_OK) {
            ngx_http_llm_zone_undo_locked(&takes[i], now_ns);
        }

        ngx_http_llm_zone_report_locked(&takes[i], now_ns);
    }

    while (n--) {
        ngx_shmtx_unlock(&sorted[n]->shpool->mutex);
    }

    return rc;
}


/* all workers lock in the order of the addresses, which they share */

static void
ngx_http_llm_zone_sort(ngx_http_llm_zone_t **sorted,
    ngx_http_llm_take_t *takes, ngx_uint_t n)
{
    ngx_uint_t            i, k;
    ngx_http_llm_zone_t  *zone;

    for (i = 0; i < n; i++) {
        zone = takes[i].zone;

        for (k = i; k > 0 && sorted[k - 1]->sh > zone->sh; k--) {
            sorted[k] = sorted[k - 1];
        }

        sorted[k] = zone;
    }
}


static ngx_int_t
ngx_http_llm_zone_look_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    ngx_int_t            rc;
    ngx_uint_t           b;
    ngx_http_llm_key_t  *key;

    take->hold = NULL;
    take->refused = 0;
    take->moved = 0;
    take->note = NGX_HTTP_LLM_ZONE_SILENT;

    key = ngx_http_llm_key_find_locked(take->zone, take->digest);

    if (key == NULL) {
        key = ngx_http_llm_key_create_locked(take, now_ns);
    }

    take->key = key;

    if (key == NULL) {
        take->refused = 1;
        return NGX_BUSY;
    }

    take->costs[NGX_HTTP_LLM_TOKENS] = ngx_http_llm_zone_cost(take, key);
    take->costs[NGX_HTTP_LLM_REQUESTS] = 1;

    rc = NGX_OK;

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {

        if (take->rates[b].tokens == 0) {
            take->costs[b] = 0;
            take->delay_ns[b] = 0;
            continue;
        }

        if (ngx_http_llm_key_speed(key, b, &take->rates[b], now_ns)
            && key->holds)
        {
            take->moved |= ngx_http_llm_queue_move_locked(key, b, now_ns);
        }

        take->delay_ns[b] = ngx_llm_bucket_delay(&key->buckets[b],
                                                 &take->rates[b],
                                                 take->costs[b], now_ns);
        if (take->delay_ns[b] > take->wait_ns) {
            rc = NGX_BUSY;
        }
    }

    return rc;
}


static int64_t
ngx_http_llm_zone_cost(ngx_http_llm_take_t *take, ngx_http_llm_key_t *key)
{
    int64_t  burst, completion, cost, mean;

    completion = take->completion;

    if (take->use_mean) {
        mean = ngx_http_llm_key_mean(key, take->model);

        if (mean >= 0) {
            completion = ngx_min(mean, take->completion_max);
        }
    }

    cost = ngx_llm_weigh(take->weights, take->prompt, 0, completion, 0);
    burst = take->rates[NGX_HTTP_LLM_TOKENS].burst;

    if (take->need > burst) {
        return take->need;
    }

    return ngx_min(cost, burst);
}


static ngx_int_t
ngx_http_llm_zone_take_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    ngx_uint_t            b;
    ngx_http_llm_key_t   *key;
    ngx_http_llm_hold_t  *hold;

    key = take->key;

    /* first, or the key might be dropped to make room for its own hold */

    ngx_http_llm_key_hold_locked(take->zone, key);

    hold = ngx_http_llm_key_alloc_locked(take, now_ns);
    if (hold == NULL) {
        ngx_http_llm_key_release_locked(take->zone, key);
        take->refused = 1;
        return NGX_BUSY;
    }

    hold->key = key;
    hold->model = take->model;
    hold->pid = ngx_pid;
    hold->slot = ngx_process_slot;
    hold->budgets = 0;
    hold->asleep = 0;
    hold->moved = 0;

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        hold->costs[b] = take->costs[b];

        if (take->rates[b].tokens) {
            hold->budgets |= 1 << b;
            ngx_http_llm_key_charge(key, b, take->costs[b], now_ns);
        }
    }

    take->start_ns = 0;

    if (take->delay_ns[NGX_HTTP_LLM_TOKENS] > 0
        || take->delay_ns[NGX_HTTP_LLM_REQUESTS] > 0)
    {
        ngx_http_llm_queue_join_locked(hold, take, now_ns);
        take->start_ns = ngx_http_llm_queue_start(hold);
    }

    ngx_queue_insert_head(&take->zone->sh->holds, &hold->queue);

    take->hold = hold;

    return NGX_OK;
}


static void
ngx_http_llm_zone_undo_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    if (take->hold) {
        ngx_http_llm_zone_end_locked(take->zone, take->hold,
                                     ngx_http_llm_zone_nothing, now_ns);
        take->hold = NULL;

    } else if (take->key) {
        ngx_http_llm_key_touch_locked(take->zone, take->key);
    }
}


static void
ngx_http_llm_zone_report_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    ngx_uint_t           b;
    ngx_http_llm_key_t  *key;

    key = take->key;

    if (key == NULL) {
        return;
    }

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        take->level[b] = ngx_llm_bucket_level(&key->buckets[b],
                                              &take->rates[b], now_ns);
        take->full_ns[b] = ngx_llm_bucket_full_in(&key->buckets[b], now_ns);
    }
}


void
ngx_http_llm_zone_raise(ngx_http_llm_zone_t *zone, ngx_http_llm_hold_t *hold,
    ngx_http_llm_raise_t *raise, int64_t now_ns)
{
    int64_t              ahead, level;
    ngx_llm_rate_t       rate;
    ngx_llm_bucket_t    *bucket;
    ngx_http_llm_key_t  *key;

    ngx_shmtx_lock(&zone->shpool->mutex);

    key = hold->key;
    bucket = &key->buckets[NGX_HTTP_LLM_TOKENS];

    rate.tokens = key->speeds[NGX_HTTP_LLM_TOKENS].tokens;
    rate.period_ns = key->speeds[NGX_HTTP_LLM_TOKENS].period_ns;
    rate.burst = raise->burst;

    level = ngx_llm_bucket_level(bucket, &rate, now_ns) - raise->need;

    ahead = (level > 0) ? ngx_max(level / 8, 1) : 0;
    ahead = ngx_max(ngx_min(ahead, raise->most), raise->least);

    ngx_http_llm_key_charge(key, NGX_HTTP_LLM_TOKENS, raise->need + ahead,
                            now_ns);

    hold->costs[NGX_HTTP_LLM_TOKENS] += raise->need + ahead;

    raise->ahead = ahead;
    raise->delay_ns = ngx_llm_bucket_delay(bucket, &rate, 0, now_ns);

    ngx_shmtx_unlock(&zone->shpool->mutex);
}


ngx_uint_t
ngx_http_llm_zone_settle(ngx_http_llm_zone_t *zone, ngx_http_llm_hold_t *hold,
    const int64_t *costs, int64_t completion, int64_t now_ns)
{
    ngx_uint_t  moved;

    ngx_shmtx_lock(&zone->shpool->mutex);

    if (completion >= 0) {
        ngx_http_llm_key_learn(hold->key, hold->model, completion);
    }

    moved = ngx_http_llm_zone_end_locked(zone, hold, costs, now_ns);

    ngx_shmtx_unlock(&zone->shpool->mutex);

    return moved;
}


ngx_uint_t
ngx_http_llm_zone_moved(ngx_http_llm_zone_t *zone, ngx_http_llm_hold_t *hold,
    int64_t *start_ns)
{
    if (!hold->moved) {
        return 0;
    }

    ngx_shmtx_lock(&zone->shpool->mutex);

    hold->moved = 0;
    *start_ns = ngx_http_llm_queue_start(hold);

    ngx_shmtx_unlock(&zone->shpool->mutex);

    return 1;
}


void
ngx_http_llm_zone_wake(ngx_http_llm_zone_t *zone, ngx_http_llm_hold_t *hold)
{
    /* nobody else changes this */

    if (!hold->asleep) {
        return;
    }

    ngx_shmtx_lock(&zone->shpool->mutex);

    ngx_http_llm_queue_leave_locked(hold);

    ngx_shmtx_unlock(&zone->shpool->mutex);
}


ngx_uint_t
ngx_http_llm_zone_reap(ngx_http_llm_zone_t *zone, ngx_pid_t pid,
    int64_t now_ns)
{
    ngx_uint_t            dead, moved;
    ngx_queue_t          *q, *next;
    ngx_http_llm_hold_t  *hold;

    moved = 0;

    ngx_shmtx_lock(&zone->shpool->mutex);

    for (q = ngx_queue_head(&zone->sh->holds);
         q != ngx_queue_sentinel(&zone->sh->holds);
         q = next)
    {
        next = ngx_queue_next(q);
        hold = ngx_queue_data(q, ngx_http_llm_hold_t, queue);

        dead = (pid == NGX_INVALID_PID)
               ? (hold->slot == ngx_process_slot && hold->pid != ngx_pid)
               : (hold->pid == pid);

        if (dead) {
            moved |= ngx_http_llm_zone_end_locked(zone, hold,
                                         ngx_http_llm_zone_nothing, now_ns);
        }
    }

    ngx_shmtx_unlock(&zone->shpool->mutex);

    return moved;
}


static ngx_uint_t
ngx_http_llm_zone_end_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_hold_t *hold, const int64_t *costs, int64_t now_ns)
{
    int64_t              cost;
    ngx_uint_t           b, moved;
    ngx_http_llm_key_t  *key;

    key = hold->key;
    moved = 0;

    ngx_http_llm_queue_leave_locked(hold);

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {

        if (costs == NULL || !(hold->budgets & (1 << b))) {
            continue;
        }

        cost = costs[b] - hold->costs[b];

        if (cost < 0) {
            moved |= ngx_http_llm_queue_refund_locked(key, b, -cost, now_ns);

        } else {
            ngx_http_llm_key_charge(key, b, cost, now_ns);
        }
    }

    ngx_queue_remove(&hold->queue);

    ngx_http_llm_key_release_locked(zone, key);

    ngx_slab_free_locked(zone->shpool, hold);

    return moved;
}
