
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The keys of a zone: finding them, making room for them, and what is
 * learned of them.  For the files of the zone only.
 */


#ifndef _NGX_HTTP_LLM_KEY_H_INCLUDED_
#define _NGX_HTTP_LLM_KEY_H_INCLUDED_


#include "ngx_http_llm_zone.h"
#include "ngx_llm_level.h"


/* of all that lies in a zone: keys, holds, and what holds them */
#define NGX_HTTP_LLM_ZONE_VERSION  10

/* models whose answers a key remembers */
#define NGX_HTTP_LLM_KEY_MODELS    4

/* of a key, and of a hold: one makes room for one */
#define NGX_HTTP_LLM_KEY_CHUNK     128

/* processes of the same slot modulo this have one */
#define NGX_HTTP_LLM_ZONE_STOCKS   16

#define NGX_HTTP_LLM_CACHE_LINE    64

#define NGX_HTTP_LLM_KEY_NS        ((int64_t) 1000 * 1000 * 1000)

/* of the LRU; never 0 */
#define ngx_http_llm_key_second(now_ns)                                       \
    ((uint32_t) ((now_ns) / NGX_HTTP_LLM_KEY_NS) + 1)


typedef struct {
    /* hash of a model's name; 0: free */
    uint32_t                model;

    /* of its completions */
    ngx_llm_level_t         level;
} ngx_http_llm_lesson_t;


/* two cache lines: what finds it and what is counted, what is looked up */

struct ngx_http_llm_key_s {
    /* the next one in the same slot of the table */
    ngx_http_llm_key_t     *next;

    /* in the LRU, where listed_s says so; otherwise holds that sleep */
    ngx_queue_t             queue;

    u_char                  digest[NGX_HTTP_LLM_KEY_DIGEST];

    /* the second in which it came to the head of the LRU; 0: is not there */
    uint32_t                listed_s;

    /*
     * buckets count time: what that is in tokens is said by the speed, a rate
     * without its burst
     */
    ngx_llm_bucket_t        buckets[NGX_HTTP_LLM_BUDGETS];
    int64_t                 tokens[NGX_HTTP_LLM_BUDGETS];
    uint32_t                period_s[NGX_HTTP_LLM_BUDGETS];

    uint32_t                holds;

    /* streams pause for it; counts, in a circle, what was given back since */
    uint32_t                paced:1;
    uint32_t                refunds:31;

    /* the one learned last comes first */
    ngx_http_llm_lesson_t   lessons[NGX_HTTP_LLM_KEY_MODELS];
};


/* memory that nobody uses */

typedef struct ngx_http_llm_chunk_s  ngx_http_llm_chunk_t;

struct ngx_http_llm_chunk_s {
    ngx_http_llm_chunk_t   *next;

    /* of the first one of a run: the next run */
    ngx_http_llm_chunk_t   *run;
};


/*
 * What belongs to a process: on a line of its own, and so are the chunks that
 * it uses again and again, for what another core has written last takes longer
 * to come than all the work on it.
 */

struct ngx_http_llm_stock_s {
    ngx_queue_t             holds;

    /* chunks of former holds, for new ones and for keys */
    ngx_http_llm_chunk_t   *free;
    ngx_uint_t              nfree;
} __attribute__((aligned(NGX_HTTP_LLM_CACHE_LINE)));


/* what all processes write who have the lock */

struct ngx_http_llm_shard_sh_s {
    /*
     * keys without holds, the most recently used one first, to the second;
     * and some with holds, which are taken off when they are found there
     */
    ngx_queue_t             lru;

    /* NULL: there has been none */
    ngx_http_llm_leases_t  *leases;
} __attribute__((aligned(NGX_HTTP_LLM_CACHE_LINE)));


struct ngx_http_llm_zone_sh_s {
    ngx_uint_t                version;

    /*
     * keys by the start of their digests: the numbers of their chunks, half
     * as long as pointers, so that more of them are in a cache; 0: none.
     * Those of one shard lie together.
     */
    ngx_uint_t                nslots;
    uint32_t                 *slots;

    ngx_http_llm_shard_sh_t  *shards;

    /* NGX_HTTP_LLM_ZONE_STOCKS of each shard */
    ngx_http_llm_stock_t     *stocks;

    /*
     * With the slab's mutex, taken behind all others: chunks that stocks had
     * too many of, and whether the slab itself has none.
     */
    ngx_http_llm_chunk_t     *runs;
    ngx_uint_t                exhausted;

    /* the second of the last note; 0: there has been none */
    ngx_atomic_t              noted_s;
};


#define ngx_http_llm_shard_stock(shard)                                       \
    (&(shard)->stocks[(ngx_uint_t) ngx_process_slot                           \
                      % NGX_HTTP_LLM_ZONE_STOCKS])


/* slots for as many keys as fit a zone of this size, roughly */

ngx_uint_t ngx_http_llm_key_slots(size_t zone_bytes);

/* that of a key: what it is behind when it is changed, or looked for */

static ngx_inline ngx_http_llm_shard_t *ngx_http_llm_key_shard(
    ngx_http_llm_zone_t *zone, const u_char *digest);

/*
 * What finding a key and taking from it will touch is fetched, ahead of the
 * lock: of many keys none is in a cache.  A guess that changes nothing.
 */

void ngx_http_llm_key_prefetch(ngx_http_llm_zone_t *zone,
    const u_char *digest, int64_t now_ns);

/* the same of a key with a hold, but waits for it */

void ngx_http_llm_key_touch(ngx_http_llm_key_t *key, int64_t now_ns);

/* NULL: there is no such key */

static ngx_inline ngx_http_llm_key_t *ngx_http_llm_key_find_locked(
    ngx_http_llm_zone_t *zone, const u_char *digest);

/* NULL: its shard is full */

ngx_http_llm_key_t *ngx_http_llm_key_create_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);

/* it is not found any more; its memory is the caller's */

void ngx_http_llm_key_unlink_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_key_t *key);

/*
 * The speed of a budget from here on.  Tokens that are not refilled yet stay
 * as many as they were: a client with a new plan has it at once.  True: it is
 * another one.
 */

static ngx_inline ngx_uint_t ngx_http_llm_key_speed(ngx_http_llm_key_t *key,
    ngx_uint_t budget, const ngx_llm_rate_t *rate, int64_t now_ns);
void ngx_http_llm_key_change(ngx_http_llm_key_t *key, ngx_uint_t budget,
    const ngx_llm_rate_t *rate, int64_t now_ns);

/* takes tokens of a budget at its speed, or gives back: cost < 0 */

static ngx_inline void ngx_http_llm_key_charge(ngx_http_llm_key_t *key,
    ngx_uint_t budget, int64_t cost, int64_t now_ns);

/* the rate of a budget at its speed */

static ngx_inline ngx_llm_rate_t ngx_http_llm_key_rate(
    const ngx_http_llm_key_t *key, ngx_uint_t budget, int64_t burst);

/*
 * One chunk for the take's shard, if need be that of a key that it drops.
 * What is given back is kept for the next one: the slab takes longer than all
 * the rest.
 */

void *ngx_http_llm_key_alloc_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);
void ngx_http_llm_key_free_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_shard_t *shard, void *chunk);

/*
 * Where the take's shard is full: memory of another one, if need be that of
 * keys which that drops.  Nothing is locked by the caller.  False: the zone is
 * full.
 */

ngx_uint_t ngx_http_llm_key_room(ngx_http_llm_take_t *take, int64_t now_ns);

/* what the zone has to say, if it did not say anything lately */

void ngx_http_llm_key_note(ngx_http_llm_take_t *take,
    ngx_http_llm_zone_note_e note, int64_t now_ns);

/*
 * Is the most recently used one; a key with holds always is.  One that was
 * used in the same second stays where it is: its neighbours, which no cache
 * has, are left alone.
 */

void ngx_http_llm_key_used_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_key_t *key, int64_t now_ns);

/* one hold more, one less: a key that has any is not dropped */

void ngx_http_llm_key_hold_locked(ngx_http_llm_key_t *key, int64_t now_ns);
void ngx_http_llm_key_release_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_key_t *key, int64_t now_ns);

/* not in the LRU any more: its queue is for holds that sleep */

void ngx_http_llm_key_unlist_locked(ngx_http_llm_key_t *key);

/* what its answers taught of a model; zero: nothing */

ngx_llm_level_t ngx_http_llm_key_level(const ngx_http_llm_key_t *key,
    uint32_t model);

/* see ngx_llm_level_learn(); the model learned longest ago goes */

void ngx_http_llm_key_learn(ngx_http_llm_key_t *key, uint32_t model,
    int64_t completion, int64_t most);


/* what a request needs several times is here: calls cost more than it does */


/* digests are even: any part of them is a hash */

static ngx_inline ngx_uint_t
ngx_http_llm_key_slot(ngx_http_llm_zone_t *zone, const u_char *digest)
{
    uint32_t  start;

    ngx_memcpy(&start, digest, sizeof(uint32_t));

    return start & (zone->nslots - 1);
}


/* slots of a shard are neighbours: under two locks no line is written */

static ngx_inline ngx_http_llm_shard_t *
ngx_http_llm_key_shard(ngx_http_llm_zone_t *zone, const u_char *digest)
{
    return &zone->shards[ngx_http_llm_key_slot(zone, digest)
                         >> zone->shard_shift];
}


static ngx_inline ngx_http_llm_key_t *
ngx_http_llm_key_first(ngx_http_llm_zone_t *zone, const u_char *digest)
{
    size_t  number;

    number = *(volatile uint32_t *)
                 &zone->slots[ngx_http_llm_key_slot(zone, digest)];

    return number ? (ngx_http_llm_key_t *)
                    ((u_char *) zone->shpool + number * NGX_HTTP_LLM_KEY_CHUNK)
                  : NULL;
}


static ngx_inline ngx_http_llm_key_t *
ngx_http_llm_key_find_locked(ngx_http_llm_zone_t *zone, const u_char *digest)
{
    ngx_http_llm_key_t  *key;

    key = ngx_http_llm_key_first(zone, digest);

    while (key
           && ngx_memcmp(key->digest, digest, NGX_HTTP_LLM_KEY_DIGEST) != 0)
    {
        key = key->next;
    }

    return key;
}


static ngx_inline ngx_llm_rate_t
ngx_http_llm_key_rate(const ngx_http_llm_key_t *key, ngx_uint_t budget,
    int64_t burst)
{
    ngx_llm_rate_t  rate;

    rate.tokens = key->tokens[budget];
    rate.period_ns = key->period_s[budget] * NGX_HTTP_LLM_KEY_NS;
    rate.burst = burst;

    return rate;
}


static ngx_inline ngx_uint_t
ngx_http_llm_key_speed(ngx_http_llm_key_t *key, ngx_uint_t budget,
    const ngx_llm_rate_t *rate, int64_t now_ns)
{
    ngx_llm_rate_t  old;

    old = ngx_http_llm_key_rate(key, budget, 0);

    if (old.tokens == rate->tokens && old.period_ns == rate->period_ns) {
        return 0;
    }

    ngx_http_llm_key_change(key, budget, rate, now_ns);

    return 1;
}


static ngx_inline void
ngx_http_llm_key_charge(ngx_http_llm_key_t *key, ngx_uint_t budget,
    int64_t cost, int64_t now_ns)
{
    ngx_llm_rate_t  rate;

    rate = ngx_http_llm_key_rate(key, budget, 0);

    ngx_llm_bucket_take(&key->buckets[budget], &rate, cost, now_ns);
}


#endif /* _NGX_HTTP_LLM_KEY_H_INCLUDED_ */
