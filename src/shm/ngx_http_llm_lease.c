
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_key.h"
#include "ngx_http_llm_lease.h"


/* of the tables of all shards; a power of two */
#define NGX_HTTP_LLM_LEASE_SLOTS  1024

/* what one sweep looks at, in all shards */
#define NGX_HTTP_LLM_LEASE_LOOK   256


typedef struct ngx_http_llm_lease_s  ngx_http_llm_lease_t;

struct ngx_http_llm_lease_s {
    /* the next one in the same slot of the table */
    ngx_http_llm_lease_t   *next;

    /* in the order of their use, the last one first */
    ngx_queue_t             queue;

    u_char                  digest[NGX_HTTP_LLM_KEY_DIGEST];

    ngx_llm_lease_t         lease;
    ngx_llm_rate_t          rates[NGX_HTTP_LLM_BUDGETS];

    /* the shared budget, as it was when it answered */
    int64_t                 level[NGX_HTTP_LLM_BUDGETS];
    int64_t                 full_ns[NGX_HTTP_LLM_BUDGETS];
    int64_t                 answered_ns;
};


struct ngx_http_llm_leases_s {
    ngx_queue_t             queue;

    /* the shard's part of them */
    ngx_http_llm_lease_t   *slots[];
};


#define ngx_http_llm_lease_slots(zone)                                        \
    (NGX_HTTP_LLM_LEASE_SLOTS / (zone)->nshards)


static ngx_http_llm_lease_t **ngx_http_llm_lease_find_locked(
    ngx_http_llm_zone_t *zone, const u_char *digest);
static ngx_http_llm_lease_t *ngx_http_llm_lease_create_locked(
    ngx_http_llm_take_t *take);
static ngx_uint_t ngx_http_llm_lease_news_locked(ngx_http_llm_lease_t *lease,
    ngx_uint_t percent, int64_t now_ns, ngx_http_llm_lease_news_t *news);
static void ngx_http_llm_lease_name(ngx_http_llm_lease_t *lease,
    ngx_http_llm_lease_news_t *news);
static void ngx_http_llm_lease_size(ngx_http_llm_lease_t *lease,
    ngx_uint_t percent, ngx_llm_lease_size_t *size);
static ngx_uint_t ngx_http_llm_lease_sweep_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_leases_t *leases, ngx_uint_t percent, ngx_uint_t all,
    int64_t now_ns, ngx_http_llm_lease_news_t *news, ngx_uint_t n);
static void ngx_http_llm_lease_free_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_lease_t *lease);
static ngx_uint_t ngx_http_llm_lease_unused(ngx_http_llm_zone_t *zone,
    ngx_http_llm_lease_t *lease, int64_t now_ns);


ngx_uint_t
ngx_http_llm_lease_take_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    ngx_uint_t              b;
    ngx_http_llm_lease_t   *lease, **slot;

    slot = ngx_http_llm_lease_find_locked(take->zone, take->digest);
    lease = slot ? *slot : NULL;

    if (lease == NULL) {
        lease = ngx_http_llm_lease_create_locked(take);

        if (lease == NULL) {
            return 0;
        }
    }

    /* what is held of a budget that does not apply now goes back by its rate */

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        if (take->rates[b].tokens) {
            lease->rates[b] = take->rates[b];
        }
    }

    ngx_queue_remove(&lease->queue);
    ngx_queue_insert_head(&take->shard->sh->leases->queue, &lease->queue);

    return ngx_llm_lease_take(&lease->lease, take->costs, now_ns);
}


/* the link that leads to it, or would; NULL: there are none at all */

static ngx_http_llm_lease_t **
ngx_http_llm_lease_find_locked(ngx_http_llm_zone_t *zone,
    const u_char *digest)
{
    uint32_t                start;
    ngx_http_llm_lease_t  **slot;
    ngx_http_llm_leases_t  *leases;

    leases = ngx_http_llm_key_shard(zone, digest)->sh->leases;

    if (leases == NULL) {
        return NULL;
    }

    ngx_memcpy(&start, digest, sizeof(uint32_t));

    slot = &leases->slots[start & (ngx_http_llm_lease_slots(zone) - 1)];

    while (*slot
           && ngx_memcmp((*slot)->digest, digest, NGX_HTTP_LLM_KEY_DIGEST)
              != 0)
    {
        slot = &(*slot)->next;
    }

    return slot;
}


static ngx_http_llm_lease_t *
ngx_http_llm_lease_create_locked(ngx_http_llm_take_t *take)
{
    size_t                    size;
    ngx_http_llm_zone_t      *zone;
    ngx_http_llm_lease_t     *lease, **slot;
    ngx_http_llm_shard_sh_t  *sh;

    zone = take->zone;
    sh = take->shard->sh;

    if (sh->leases == NULL) {
        size = sizeof(ngx_http_llm_leases_t)
               + ngx_http_llm_lease_slots(zone)
                 * sizeof(ngx_http_llm_lease_t *);

        sh->leases = ngx_slab_calloc(zone->shpool, size);
        if (sh->leases == NULL) {
            return NULL;
        }

        ngx_queue_init(&sh->leases->queue);
    }

    lease = ngx_slab_calloc(zone->shpool, sizeof(ngx_http_llm_lease_t));
    if (lease == NULL) {
        return NULL;
    }

    ngx_memcpy(lease->digest, take->digest, NGX_HTTP_LLM_KEY_DIGEST);

    slot = ngx_http_llm_lease_find_locked(zone, take->digest);

    *slot = lease;
    ngx_queue_insert_head(&sh->leases->queue, &lease->queue);

    return lease;
}


void
ngx_http_llm_lease_settle_locked(ngx_http_llm_zone_t *zone,
    const u_char *digest, const int64_t *held, const int64_t *final)
{
    ngx_http_llm_lease_t  **slot;

    slot = ngx_http_llm_lease_find_locked(zone, digest);

    if (slot && *slot) {
        ngx_llm_lease_settle(&(*slot)->lease, held, final);
    }
}


/*
 * As long as the shared budget was not short, it is taken to have a step more
 * for everybody.
 */

void
ngx_http_llm_lease_raise_locked(ngx_http_llm_zone_t *zone,
    const u_char *digest, ngx_http_llm_raise_t *raise, int64_t now_ns)
{
    int64_t                 costs[NGX_HTTP_LLM_BUDGETS], left;
    ngx_http_llm_lease_t  **slot;

    static const int64_t  nothing[NGX_HTTP_LLM_BUDGETS];

    raise->ahead = raise->least;
    raise->delay_ns = 0;

    slot = ngx_http_llm_lease_find_locked(zone, digest);

    if (slot == NULL || *slot == NULL) {
        return;
    }

    left = (*slot)->lease.left[NGX_HTTP_LLM_TOKENS] - raise->need;

    if ((*slot)->lease.retry_ns <= now_ns) {
        raise->ahead = ngx_max(raise->most, raise->least);

    } else if (left > 0) {
        raise->ahead = ngx_max(ngx_min(left, raise->most), raise->least);

    } else {
        raise->delay_ns = (*slot)->lease.retry_ns - now_ns;
    }

    costs[NGX_HTTP_LLM_TOKENS] = raise->need + raise->ahead;
    costs[NGX_HTTP_LLM_REQUESTS] = 0;

    ngx_llm_lease_settle(&(*slot)->lease, nothing, costs);
}


/* what the shared budget had, and what of it is here */

void
ngx_http_llm_lease_report_locked(ngx_http_llm_take_t *take, int64_t now_ns)
{
    int64_t                 level;
    ngx_uint_t              b;
    ngx_http_llm_lease_t   *lease, **slot;

    slot = ngx_http_llm_lease_find_locked(take->zone, take->digest);
    lease = slot ? *slot : NULL;

    if (lease == NULL) {
        return;
    }

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        level = lease->level[b] + lease->lease.left[b];

        take->level[b] = ngx_min(level, take->rates[b].burst);
        take->full_ns[b] = ngx_max(lease->full_ns[b] + lease->answered_ns
                                   - now_ns, 0);
    }
}


ngx_uint_t
ngx_http_llm_lease_poll(ngx_http_llm_zone_t *zone, const u_char *digest,
    ngx_uint_t percent, int64_t now_ns, ngx_http_llm_lease_news_t *news)
{
    ngx_uint_t              is;
    ngx_shmtx_t            *mutex;
    ngx_http_llm_lease_t  **slot;

    is = 0;
    mutex = ngx_http_llm_key_shard(zone, digest)->mutex;

    ngx_shmtx_lock(mutex);

    slot = ngx_http_llm_lease_find_locked(zone, digest);

    if (slot && *slot) {
        is = ngx_http_llm_lease_news_locked(*slot, percent, now_ns, news);
    }

    ngx_shmtx_unlock(mutex);

    return is;
}


static ngx_uint_t
ngx_http_llm_lease_news_locked(ngx_http_llm_lease_t *lease,
    ngx_uint_t percent, int64_t now_ns, ngx_http_llm_lease_news_t *news)
{
    ngx_llm_lease_size_t  size;

    ngx_http_llm_lease_size(lease, percent, &size);
    ngx_http_llm_lease_name(lease, news);

    if (!ngx_llm_lease_give(&lease->lease, &size, now_ns, &news->call)) {

        if (!ngx_llm_lease_want(&lease->lease, &size, now_ns, &news->call)) {
            return 0;
        }

        news->asks = 1;
    }

    return 1;
}


static void
ngx_http_llm_lease_name(ngx_http_llm_lease_t *lease,
    ngx_http_llm_lease_news_t *news)
{
    ngx_uint_t  b;

    news->asks = 0;

    ngx_memcpy(news->digest, lease->digest, NGX_HTTP_LLM_KEY_DIGEST);

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        news->rates[b] = lease->rates[b];
    }
}


static void
ngx_http_llm_lease_size(ngx_http_llm_lease_t *lease, ngx_uint_t percent,
    ngx_llm_lease_size_t *size)
{
    ngx_uint_t  b;

    size->percent = percent;

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        size->burst[b] = lease->rates[b].tokens ? lease->rates[b].burst : 0;
    }
}


void
ngx_http_llm_lease_answer(ngx_http_llm_zone_t *zone, const u_char *digest,
    const ngx_http_llm_lease_answer_t *answer, int64_t now_ns)
{
    ngx_uint_t              b;
    ngx_shmtx_t            *mutex;
    ngx_http_llm_lease_t   *lease, **slot;

    mutex = ngx_http_llm_key_shard(zone, digest)->mutex;

    ngx_shmtx_lock(mutex);

    slot = ngx_http_llm_lease_find_locked(zone, digest);
    lease = slot ? *slot : NULL;

    if (lease && answer == NULL) {
        ngx_llm_lease_failed(&lease->lease, now_ns);

    } else if (lease
               && ngx_llm_lease_granted(&lease->lease, answer->granted,
                                        now_ns))
    {
        lease->answered_ns = now_ns;

        for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
            lease->level[b] = answer->level[b];
            lease->full_ns[b] = answer->full_ns[b];
        }
    }

    ngx_shmtx_unlock(mutex);
}


ngx_uint_t
ngx_http_llm_lease_sweep(ngx_http_llm_zone_t *zone, ngx_uint_t percent,
    ngx_uint_t all, int64_t now_ns, ngx_http_llm_lease_news_t *news,
    ngx_uint_t n)
{
    ngx_uint_t             found, i;
    ngx_http_llm_shard_t  *shard;

    static ngx_uint_t  turn;

    found = 0;

    /* each is the first one at times, for there may be more than n */

    turn++;

    for (i = 0; i < zone->nshards; i++) {
        shard = &zone->shards[(turn + i) & (zone->nshards - 1)];

        ngx_shmtx_lock(shard->mutex);

        if (shard->sh->leases) {
            found += ngx_http_llm_lease_sweep_locked(zone, shard->sh->leases,
                                                     percent, all, now_ns,
                                                     news + found, n - found);
        }

        ngx_shmtx_unlock(shard->mutex);
    }

    return found;
}


static ngx_uint_t
ngx_http_llm_lease_sweep_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_leases_t *leases, ngx_uint_t percent, ngx_uint_t all,
    int64_t now_ns, ngx_http_llm_lease_news_t *news, ngx_uint_t n)
{
    ngx_uint_t             found, i, is, most;
    ngx_queue_t           *q, *prev;
    ngx_http_llm_lease_t  *lease;

    found = 0;
    most = NGX_HTTP_LLM_LEASE_LOOK / zone->nshards;
    q = ngx_queue_last(&leases->queue);

    for (i = 0; q != ngx_queue_sentinel(&leases->queue); i++) {

        if (found == n || (i == most && !all)) {
            break;
        }

        prev = ngx_queue_prev(q);
        lease = ngx_queue_data(q, ngx_http_llm_lease_t, queue);

        if (all) {
            ngx_http_llm_lease_name(lease, &news[found]);
            is = ngx_llm_lease_drop(&lease->lease, &news[found].call);

        } else {
            is = ngx_http_llm_lease_news_locked(lease, percent, now_ns,
                                                &news[found]);
        }

        if (is) {
            found++;

        } else if (ngx_http_llm_lease_unused(zone, lease, now_ns)) {
            ngx_http_llm_lease_free_locked(zone, lease);
        }

        q = prev;
    }

    return found;
}


static void
ngx_http_llm_lease_free_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_lease_t *lease)
{
    ngx_http_llm_lease_t  **slot;

    slot = ngx_http_llm_lease_find_locked(zone, lease->digest);
    *slot = lease->next;

    ngx_queue_remove(&lease->queue);

    ngx_shmtx_lock(&zone->shpool->mutex);

    ngx_slab_free_locked(zone->shpool, lease);
    zone->sh->exhausted = 0;

    ngx_shmtx_unlock(&zone->shpool->mutex);
}


/* nothing of it is left, or out, and nothing will come back to it */

static ngx_uint_t
ngx_http_llm_lease_unused(ngx_http_llm_zone_t *zone,
    ngx_http_llm_lease_t *lease, int64_t now_ns)
{
    ngx_uint_t           b;
    ngx_http_llm_key_t  *key;

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        if (lease->lease.left[b]) {
            return 0;
        }
    }

    key = ngx_http_llm_key_find_locked(zone, lease->digest);

    return lease->lease.asked_ns == 0
           && now_ns - lease->lease.used_ns > NGX_LLM_LEASE_IDLE_NS
           && (key == NULL || key->holds == 0);
}
