
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_queue.h"


static int64_t ngx_http_llm_queue_floor(ngx_http_llm_key_t *key,
    ngx_uint_t budget, int64_t now_ns);


void
ngx_http_llm_queue_join_locked(ngx_http_llm_hold_t *hold,
    const ngx_http_llm_take_t *take, int64_t now_ns)
{
    ngx_uint_t  b;

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        hold->start_ns[b] = now_ns + take->delay_ns[b];
        hold->bursts[b] = take->rates[b].burst;
    }

    hold->asleep = 1;

    ngx_http_llm_key_unlist_locked(hold->key);
    ngx_queue_insert_tail(&hold->key->queue, &hold->sleeper);
}


void
ngx_http_llm_queue_leave_locked(ngx_http_llm_hold_t *hold)
{
    if (hold->asleep) {
        hold->asleep = 0;
        ngx_queue_remove(&hold->sleeper);
    }
}


int64_t
ngx_http_llm_queue_start(const ngx_http_llm_hold_t *hold)
{
    return ngx_max(hold->start_ns[NGX_HTTP_LLM_TOKENS],
                   hold->start_ns[NGX_HTTP_LLM_REQUESTS]);
}


ngx_uint_t
ngx_http_llm_queue_refund_locked(ngx_http_llm_key_t *key, ngx_uint_t budget,
    int64_t tokens, int64_t now_ns)
{
    int64_t            floor_ns;
    ngx_llm_bucket_t  *bucket;

    /* streams that pause look for themselves what it is to them */

    key->refunds += key->paced;

    if (key->listed_s || ngx_queue_empty(&key->queue)) {
        ngx_http_llm_key_charge(key, budget, -tokens, now_ns);
        return key->paced;
    }

    bucket = &key->buckets[budget];

    floor_ns = ngx_http_llm_queue_floor(key, budget, now_ns);
    floor_ns = ngx_min(floor_ns, bucket->tat_ns);

    ngx_http_llm_key_charge(key, budget, -tokens, now_ns);

    bucket->tat_ns = ngx_max(bucket->tat_ns, floor_ns);

    return ngx_http_llm_queue_move_locked(key, budget, now_ns) | key->paced;
}


/*
 * A bucket is never more than full: it is now, at best, and from there those
 * who sleep take what is theirs.
 */

static int64_t
ngx_http_llm_queue_floor(ngx_http_llm_key_t *key, ngx_uint_t budget,
    int64_t now_ns)
{
    ngx_queue_t          *q;
    ngx_llm_rate_t        rate;
    ngx_llm_bucket_t      full;
    ngx_http_llm_hold_t  *hold;

    full.tat_ns = now_ns;

    for (q = ngx_queue_last(&key->queue);
         q != ngx_queue_sentinel(&key->queue);
         q = ngx_queue_prev(q))
    {
        hold = ngx_queue_data(q, ngx_http_llm_hold_t, sleeper);

        /*
         * What has come already is spent: it is another budget that they
         * sleep for.  Who is ahead of them may not have it yet, where clocks
         * differ.
         */

        if (!(hold->budgets & (1 << budget))
            || hold->start_ns[budget] <= now_ns)
        {
            continue;
        }

        rate = ngx_http_llm_key_rate(key, budget, hold->bursts[budget]);
        ngx_llm_bucket_take(&full, &rate, hold->costs[budget], now_ns);
    }

    return full.tat_ns;
}


/*
 * From the last one on: its time is what the bucket says; that of the one
 * ahead of it what the bucket would say without it.  What was taken without
 * waiting in line (overrun) makes that later: they keep their time then.
 * Who is ahead has at least as much of such slack: the first one that does
 * not move is the last to look at.
 */

ngx_uint_t
ngx_http_llm_queue_move_locked(ngx_http_llm_key_t *key, ngx_uint_t budget,
    int64_t now_ns)
{
    int64_t               start_ns;
    ngx_uint_t            moved;
    ngx_queue_t          *q;
    ngx_llm_rate_t        rate;
    ngx_llm_bucket_t      bucket;
    ngx_http_llm_hold_t  *hold;

    if (key->listed_s) {
        return 0;
    }

    moved = 0;
    bucket = key->buckets[budget];

    for (q = ngx_queue_last(&key->queue);
         q != ngx_queue_sentinel(&key->queue);
         q = ngx_queue_prev(q))
    {
        hold = ngx_queue_data(q, ngx_http_llm_hold_t, sleeper);

        if (!(hold->budgets & (1 << budget))) {
            continue;
        }

        rate = ngx_http_llm_key_rate(key, budget, hold->bursts[budget]);

        start_ns = now_ns + ngx_llm_bucket_delay(&bucket, &rate, 0, now_ns);

        if (start_ns >= hold->start_ns[budget]) {
            break;
        }

        hold->start_ns[budget] = start_ns;
        hold->moved = 1;
        moved = 1;

        ngx_llm_bucket_take(&bucket, &rate, -hold->costs[budget], now_ns);
    }

    return moved;
}
