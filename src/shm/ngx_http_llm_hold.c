
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_hold.h"
#include "ngx_http_llm_lease.h"


_Static_assert(sizeof(ngx_http_llm_hold_t) <= NGX_HTTP_LLM_KEY_CHUNK,
               "a hold fits a chunk");


static ngx_shmtx_t *ngx_http_llm_hold_lock(ngx_http_llm_zone_t *zone,
    ngx_http_llm_hold_t *hold);
static ngx_uint_t ngx_http_llm_hold_reap_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_shard_t *shard, ngx_pid_t pid, int64_t now_ns);


const int64_t  ngx_http_llm_hold_nothing[NGX_HTTP_LLM_BUDGETS];


ngx_http_llm_hold_t *
ngx_http_llm_hold_begin_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    ngx_uint_t            b;
    ngx_http_llm_hold_t  *hold;

    /* first, or the key might be dropped to make room for its own hold */

    ngx_http_llm_key_hold_locked(take->key, now_ns);

    hold = ngx_http_llm_key_alloc_locked(take, now_ns);
    if (hold == NULL) {
        ngx_http_llm_key_release_locked(take->zone, take->key, now_ns);
        return NULL;
    }

    hold->key = take->key;
    hold->model = take->model;
    hold->most = take->completion_max;
    hold->pid = ngx_pid;
    hold->slot = ngx_process_slot;
    hold->budgets = 0;
    hold->asleep = 0;
    hold->moved = 0;

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        hold->costs[b] = take->costs[b];

        if (take->rates[b].tokens && !take->elsewhere) {
            hold->budgets |= 1 << b;
        }
    }

    ngx_queue_insert_head(&ngx_http_llm_shard_stock(take->shard)->holds,
                          &hold->queue);

    return hold;
}


/* its key is not dropped, and so the same as long as there is a hold */

static ngx_shmtx_t *
ngx_http_llm_hold_lock(ngx_http_llm_zone_t *zone, ngx_http_llm_hold_t *hold)
{
    ngx_shmtx_t  *mutex;

    mutex = ngx_http_llm_key_shard(zone, hold->key->digest)->mutex;

    ngx_shmtx_lock(mutex);

    return mutex;
}


void
ngx_http_llm_zone_raise(ngx_http_llm_zone_t *zone, ngx_http_llm_hold_t *hold,
    ngx_http_llm_raise_t *raise, int64_t now_ns)
{
    int64_t              ahead, level;
    ngx_shmtx_t         *mutex;
    ngx_llm_rate_t       rate;
    ngx_llm_bucket_t    *bucket;
    ngx_http_llm_key_t  *key;

    mutex = ngx_http_llm_hold_lock(zone, hold);

    key = hold->key;

    if (hold->budgets & NGX_HTTP_LLM_HOLD_LEASED) {
        ngx_http_llm_lease_raise_locked(zone, key->digest, raise, now_ns);
        hold->costs[NGX_HTTP_LLM_TOKENS] += raise->need + raise->ahead;

        ngx_shmtx_unlock(mutex);
        return;
    }

    bucket = &key->buckets[NGX_HTTP_LLM_TOKENS];

    rate = ngx_http_llm_key_rate(key, NGX_HTTP_LLM_TOKENS, raise->burst);

    level = ngx_llm_bucket_level(bucket, &rate, now_ns) - raise->need;

    ahead = (level > 0) ? ngx_max(level / 8, 1) : 0;
    ahead = ngx_max(ngx_min(ahead, raise->most), raise->least);

    ngx_http_llm_key_charge(key, NGX_HTTP_LLM_TOKENS, raise->need + ahead,
                            now_ns);

    hold->costs[NGX_HTTP_LLM_TOKENS] += raise->need + ahead;

    raise->ahead = ahead;
    raise->delay_ns = ngx_llm_bucket_delay(bucket, &rate, 0, now_ns);

    if (raise->pauses && raise->delay_ns > 0) {
        key->paced = 1;
    }

    raise->refunds = key->refunds;

    ngx_shmtx_unlock(mutex);
}


ngx_uint_t
ngx_http_llm_zone_refunded(ngx_http_llm_zone_t *zone,
    ngx_http_llm_hold_t *hold, ngx_http_llm_raise_t *raise, int64_t now_ns)
{
    ngx_shmtx_t         *mutex;
    ngx_llm_rate_t       rate;
    ngx_http_llm_key_t  *key;

    key = hold->key;

    if (key->refunds == raise->refunds) {
        return 0;
    }

    mutex = ngx_http_llm_hold_lock(zone, hold);

    rate = ngx_http_llm_key_rate(key, NGX_HTTP_LLM_TOKENS, raise->burst);

    raise->delay_ns = ngx_llm_bucket_delay(&key->buckets[NGX_HTTP_LLM_TOKENS],
                                           &rate, 0, now_ns);
    raise->refunds = key->refunds;

    ngx_shmtx_unlock(mutex);

    return 1;
}


ngx_uint_t
ngx_http_llm_zone_settle(ngx_http_llm_zone_t *zone, ngx_http_llm_hold_t *hold,
    const int64_t *costs, int64_t completion, int64_t now_ns)
{
    ngx_uint_t    moved;
    ngx_shmtx_t  *mutex;

    ngx_http_llm_key_touch(hold->key, now_ns);

    mutex = ngx_http_llm_hold_lock(zone, hold);

    if (completion >= 0) {
        ngx_http_llm_key_learn(hold->key, hold->model, completion,
                               hold->most);
    }

    moved = ngx_http_llm_hold_end_locked(zone, hold, costs, now_ns);

    ngx_shmtx_unlock(mutex);

    return moved;
}


ngx_uint_t
ngx_http_llm_zone_moved(ngx_http_llm_zone_t *zone, ngx_http_llm_hold_t *hold,
    int64_t *start_ns)
{
    ngx_shmtx_t  *mutex;

    if (!hold->moved) {
        return 0;
    }

    mutex = ngx_http_llm_hold_lock(zone, hold);

    hold->moved = 0;
    *start_ns = ngx_http_llm_queue_start(hold);

    ngx_shmtx_unlock(mutex);

    return 1;
}


void
ngx_http_llm_zone_wake(ngx_http_llm_zone_t *zone, ngx_http_llm_hold_t *hold,
    int64_t *full_ns, int64_t now_ns)
{
    ngx_uint_t    b;
    ngx_shmtx_t  *mutex;

    mutex = ngx_http_llm_hold_lock(zone, hold);

    ngx_http_llm_queue_leave_locked(hold);

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        full_ns[b] = ngx_llm_bucket_full_in(&hold->key->buckets[b], now_ns);
    }

    ngx_shmtx_unlock(mutex);
}


ngx_uint_t
ngx_http_llm_zone_reap(ngx_http_llm_zone_t *zone, ngx_pid_t pid,
    int64_t now_ns)
{
    ngx_uint_t             i, moved;
    ngx_http_llm_shard_t  *shard;

    moved = 0;

    for (i = 0; i < zone->nshards; i++) {
        shard = &zone->shards[i];

        ngx_shmtx_lock(shard->mutex);

        moved |= ngx_http_llm_hold_reap_locked(zone, shard, pid, now_ns);

        ngx_shmtx_unlock(shard->mutex);
    }

    return moved;
}


static ngx_uint_t
ngx_http_llm_hold_reap_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_shard_t *shard, ngx_pid_t pid, int64_t now_ns)
{
    ngx_uint_t            dead, i, moved;
    ngx_queue_t          *holds, *next, *q;
    ngx_http_llm_hold_t  *hold;

    moved = 0;

    for (i = 0; i < NGX_HTTP_LLM_ZONE_STOCKS; i++) {
        holds = &shard->stocks[i].holds;

        for (q = ngx_queue_head(holds);
             q != ngx_queue_sentinel(holds);
             q = next)
        {
            next = ngx_queue_next(q);
            hold = ngx_queue_data(q, ngx_http_llm_hold_t, queue);

            dead = (pid == NGX_INVALID_PID)
                   ? (hold->slot == ngx_process_slot && hold->pid != ngx_pid)
                   : (hold->pid == pid);

            if (dead) {
                moved |= ngx_http_llm_hold_end_locked(zone, hold,
                                          ngx_http_llm_hold_nothing, now_ns);
            }
        }
    }

    return moved;
}


ngx_uint_t
ngx_http_llm_hold_end_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_hold_t *hold, const int64_t *costs, int64_t now_ns)
{
    int64_t              cost, final[NGX_HTTP_LLM_BUDGETS];
    ngx_uint_t           b, moved;
    ngx_http_llm_key_t  *key;

    key = hold->key;
    moved = 0;

    ngx_http_llm_queue_leave_locked(hold);

    if ((hold->budgets & NGX_HTTP_LLM_HOLD_LEASED) && costs) {

        /* a budget that does not apply holds nothing, and costs nothing */

        for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
            final[b] = (hold->budgets & (1 << b)) ? costs[b] : 0;
        }

        ngx_http_llm_lease_settle_locked(zone, key->digest, hold->costs,
                                         final);
        costs = NULL;
    }

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

    ngx_http_llm_key_release_locked(zone, key, now_ns);

    ngx_http_llm_key_free_locked(zone,
                                 ngx_http_llm_key_shard(zone, key->digest),
                                 hold);

    return moved;
}
