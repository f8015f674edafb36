
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_hold.h"
#include "ngx_http_llm_lease.h"


static ngx_int_t ngx_http_llm_zone_try(ngx_http_llm_take_t *takes,
    ngx_uint_t n, ngx_llm_bucket_t (*buckets)[NGX_HTTP_LLM_BUDGETS],
    int64_t now_ns);
static void ngx_http_llm_zone_sort(ngx_shmtx_t **sorted,
    ngx_http_llm_take_t *takes, ngx_uint_t n);
static ngx_uint_t ngx_http_llm_zone_room(ngx_http_llm_take_t *takes,
    ngx_uint_t n, int64_t now_ns);
static ngx_int_t ngx_http_llm_zone_look_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);
static int64_t ngx_http_llm_zone_cost(ngx_http_llm_take_t *take,
    ngx_http_llm_key_t *key);
static void ngx_http_llm_zone_take_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);
static void ngx_http_llm_zone_undo_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);
static void ngx_http_llm_zone_copy_locked(ngx_http_llm_take_t *take,
    ngx_llm_bucket_t *buckets, int64_t now_ns);
static void ngx_http_llm_zone_report(ngx_http_llm_take_t *take,
    const ngx_llm_bucket_t *buckets, int64_t now_ns);


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
    ngx_int_t         rc;
    ngx_uint_t        i, tries;
    ngx_llm_bucket_t  buckets[NGX_HTTP_LLM_MAX_ZONES][NGX_HTTP_LLM_BUDGETS];

    for (i = 0; i < n; i++) {
        takes[i].moved = 0;
        takes[i].note = NGX_HTTP_LLM_ZONE_SILENT;
        takes[i].shard = ngx_http_llm_key_shard(takes[i].zone,
                                                takes[i].digest);

        ngx_http_llm_key_prefetch(takes[i].zone, takes[i].digest, now_ns);
    }

    rc = ngx_http_llm_zone_try(takes, n, buckets, now_ns);

    /* it may be keys that lack room first, all at once, and then each hold */

    for (tries = 0; rc != NGX_OK && tries <= n; tries++) {

        if (!ngx_http_llm_zone_room(takes, n, now_ns)) {
            break;
        }

        rc = ngx_http_llm_zone_try(takes, n, buckets, now_ns);
    }

    for (i = 0; i < n; i++) {

        if (takes[i].refused) {
            ngx_http_llm_key_note(&takes[i], NGX_HTTP_LLM_ZONE_FULL, now_ns);
        }

        ngx_http_llm_zone_report(&takes[i], buckets[i], now_ns);
    }

    return rc;
}


static ngx_int_t
ngx_http_llm_zone_try(ngx_http_llm_take_t *takes, ngx_uint_t n,
    ngx_llm_bucket_t (*buckets)[NGX_HTTP_LLM_BUDGETS], int64_t now_ns)
{
    ngx_int_t     rc;
    ngx_uint_t    i;
    ngx_shmtx_t  *sorted[NGX_HTTP_LLM_MAX_ZONES];

    ngx_http_llm_zone_sort(sorted, takes, n);

    for (i = 0; i < n; i++) {
        ngx_shmtx_lock(sorted[i]);
    }

    rc = NGX_OK;

    for (i = 0; i < n; i++) {
        if (ngx_http_llm_zone_look_locked(&takes[i], now_ns) != NGX_OK) {
            rc = NGX_BUSY;
        }
    }

    /* this may fail, and nothing behind it */

    for (i = 0; i < n && rc == NGX_OK; i++) {
        takes[i].hold = ngx_http_llm_hold_begin_locked(&takes[i], now_ns);

        if (takes[i].hold == NULL) {
            takes[i].refused = 1;
            rc = NGX_BUSY;
        }
    }

    for (i = 0; i < n; i++) {

        if (rc == NGX_OK) {
            ngx_http_llm_zone_take_locked(&takes[i], now_ns);

        } else {
            ngx_http_llm_zone_undo_locked(&takes[i], now_ns);
        }

        ngx_http_llm_zone_copy_locked(&takes[i], buckets[i], now_ns);
    }

    for (i = n; i > 0; i--) {
        ngx_shmtx_unlock(sorted[i - 1]);
    }

    return rc;
}


/* all workers lock in the order of the addresses, which they share */

static void
ngx_http_llm_zone_sort(ngx_shmtx_t **sorted, ngx_http_llm_take_t *takes,
    ngx_uint_t n)
{
    ngx_uint_t    i, k;
    ngx_shmtx_t  *mutex;

    for (i = 0; i < n; i++) {
        mutex = takes[i].shard->mutex;

        for (k = i; k > 0 && sorted[k - 1] > mutex; k--) {
            sorted[k] = sorted[k - 1];
        }

        sorted[k] = mutex;
    }
}


/* false: those that were refused will be again */

static ngx_uint_t
ngx_http_llm_zone_room(ngx_http_llm_take_t *takes, ngx_uint_t n,
    int64_t now_ns)
{
    ngx_uint_t  i, room;

    room = 0;

    for (i = 0; i < n; i++) {
        if (takes[i].refused) {
            room |= ngx_http_llm_key_room(&takes[i], now_ns);
        }
    }

    return room;
}


static ngx_int_t
ngx_http_llm_zone_look_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    ngx_int_t            rc;
    ngx_uint_t           b;
    ngx_http_llm_key_t  *key;

    take->hold = NULL;
    take->leased = 0;
    take->refused = 0;

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

        if (take->elsewhere) {
            take->delay_ns[b] = 0;

            if (take->costs[b] > take->rates[b].burst) {
                take->delay_ns[b] = NGX_LLM_NEVER;
                rc = NGX_BUSY;
            }

            continue;
        }

        if (ngx_http_llm_key_speed(key, b, &take->rates[b], now_ns)
            && key->holds)
        {
            take->moved |= ngx_http_llm_queue_move_locked(key, b, now_ns);
        }

        take->delay_ns[b] = ngx_llm_bucket_delay(&key->buckets[b],
                                                 &take->rates[b],
                                                 take->costs[b],
                                                 now_ns + take->late_ns);
        if (take->delay_ns[b] > take->wait_ns) {
            rc = NGX_BUSY;
        }
    }

    return rc;
}


static int64_t
ngx_http_llm_zone_cost(ngx_http_llm_take_t *take, ngx_http_llm_key_t *key)
{
    int64_t  burst, completion, cost;

    completion = take->completion;

    if (take->use_level) {
        completion = ngx_llm_level_reserve(
                         ngx_http_llm_key_level(key, take->model),
                         take->completion_max, completion);
    }

    cost = ngx_llm_weigh(take->weights, take->prompt, 0, completion, 0);
    burst = take->rates[NGX_HTTP_LLM_TOKENS].burst;

    if (take->need > burst) {
        return take->need;
    }

    return ngx_min(cost, burst);
}


static void
ngx_http_llm_zone_take_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    ngx_uint_t            b;
    ngx_http_llm_hold_t  *hold;

    hold = take->hold;

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        if (take->rates[b].tokens && !take->elsewhere) {
            ngx_http_llm_key_charge(take->key, b, take->costs[b], now_ns);
        }
    }

    if (take->elsewhere && take->lease
        && ngx_http_llm_lease_take_locked(take, now_ns))
    {
        hold->budgets = NGX_HTTP_LLM_HOLD_LEASED;
        take->leased = 1;

        for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
            if (take->rates[b].tokens) {
                hold->budgets |= 1 << b;
            }
        }
    }

    take->start_ns = 0;

    if (take->delay_ns[NGX_HTTP_LLM_TOKENS] > 0
        || take->delay_ns[NGX_HTTP_LLM_REQUESTS] > 0)
    {
        ngx_http_llm_queue_join_locked(hold, take, now_ns);
        take->start_ns = ngx_http_llm_queue_start(hold);
    }
}


/* a hold that has taken nothing yet */

static void
ngx_http_llm_zone_undo_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    if (take->hold) {
        ngx_http_llm_hold_end_locked(take->zone, take->hold, NULL, now_ns);
        take->hold = NULL;

    } else if (take->key) {
        ngx_http_llm_key_used_locked(take->zone, take->key, now_ns);
    }
}


/* what the report tells of, as it is now */

static void
ngx_http_llm_zone_copy_locked(ngx_http_llm_take_t *take,
    ngx_llm_bucket_t *buckets, int64_t now_ns)
{
    if (take->key == NULL) {
        return;
    }

    if (take->leased) {
        ngx_http_llm_lease_report_locked(take, now_ns);
        return;
    }

    ngx_memcpy(buckets, take->key->buckets, sizeof(take->key->buckets));
}


static void
ngx_http_llm_zone_report(ngx_http_llm_take_t *take,
    const ngx_llm_bucket_t *buckets, int64_t now_ns)
{
    ngx_uint_t  b;

    if (take->key == NULL || take->leased) {
        return;
    }

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {

        if (take->elsewhere) {
            take->level[b] = take->rates[b].burst;
            take->full_ns[b] = 0;
            continue;
        }

        take->level[b] = ngx_llm_bucket_level(&buckets[b], &take->rates[b],
                                              now_ns + take->late_ns);
        take->full_ns[b] = ngx_llm_bucket_full_in(&buckets[b], now_ns);
    }
}
