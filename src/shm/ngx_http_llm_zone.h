
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The budgets of llm_limit_zone in shared memory: for each key two buckets,
 * tokens and requests, what its models' answers taught, and the holds of its
 * requests in flight.
 *
 * A key is known by the SHA-1 of its value and takes 128 bytes; a hold takes
 * 128 more as long as its request lasts: some 7,700 of them in a megabyte.
 * A key with holds is never dropped.  When the zone is full, a key whose
 * budgets are full again goes first, then the least recently used one, to the
 * second; when every key has holds, new keys and more holds are refused until
 * a request ends.
 *
 * A zone that is not small has several locks.  Which one a key is behind its
 * digest says, and the keys of one lock, a shard, have an LRU of their own;
 * memory goes where it is needed.  Each lock is the mutex of a shared memory
 * zone that has nothing else: when a worker dies nginx unlocks those, and no
 * others.
 */


#ifndef _NGX_HTTP_LLM_ZONE_H_INCLUDED_
#define _NGX_HTTP_LLM_ZONE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_llm_bucket.h"


/* most zones that apply to one request */
#define NGX_HTTP_LLM_MAX_ZONES   8

/* most locks of a zone; a power of two */
#define NGX_HTTP_LLM_MAX_SHARDS  8

#define NGX_HTTP_LLM_KEY_DIGEST  20


/* the budgets of a key: indices */

#define NGX_HTTP_LLM_TOKENS      0
#define NGX_HTTP_LLM_REQUESTS    1
#define NGX_HTTP_LLM_BUDGETS     2


typedef struct ngx_http_llm_zone_sh_s   ngx_http_llm_zone_sh_t;
typedef struct ngx_http_llm_shard_sh_s  ngx_http_llm_shard_sh_t;
typedef struct ngx_http_llm_stock_s     ngx_http_llm_stock_t;
typedef struct ngx_http_llm_key_s       ngx_http_llm_key_t;
typedef struct ngx_http_llm_hold_s      ngx_http_llm_hold_t;
typedef struct ngx_http_llm_leases_s    ngx_http_llm_leases_t;


/* the keys of a zone that have a lock in common */

typedef struct {
    ngx_shmtx_t                *mutex;
    ngx_http_llm_shard_sh_t    *sh;

    /* one for each process */
    ngx_http_llm_stock_t       *stocks;
} ngx_http_llm_shard_t;


/* a zone as one cycle sees it; the first member of shm_zone->data */

typedef struct {
    ngx_http_llm_zone_sh_t     *sh;
    ngx_slab_pool_t            *shpool;
    ngx_shm_zone_t             *shm_zone;

    /* of sh, from where they would be fetched each time */
    ngx_uint_t                  nslots;
    uint32_t                   *slots;

    /* a power of two; 0 before it is bound: as many as its size has */
    ngx_uint_t                  nshards;

    /* the number of a slot without so many bits is that of its shard */
    ngx_uint_t                  shard_shift;

    ngx_http_llm_shard_t        shards[NGX_HTTP_LLM_MAX_SHARDS];

    /* the key's expression: a reload may not change it */
    ngx_str_t                   key;
} ngx_http_llm_zone_t;


/* what a zone that runs out of memory has to say, once a minute at most */

typedef enum {
    NGX_HTTP_LLM_ZONE_SILENT = 0,

    /* a key was dropped before its budgets were full again */
    NGX_HTTP_LLM_ZONE_DROPPED,

    /* nothing could be dropped */
    NGX_HTTP_LLM_ZONE_FULL
} ngx_http_llm_zone_note_e;


/* what one request wants of one zone, and what it gets; costs are weighted */

typedef struct {
    ngx_http_llm_zone_t        *zone;
    u_char                      digest[NGX_HTTP_LLM_KEY_DIGEST];

    /* hash of the model's name, not 0 */
    uint32_t                    model;

    /* tokens of 0: this budget does not apply */
    ngx_llm_rate_t              rates[NGX_HTTP_LLM_BUDGETS];

    const ngx_llm_weights_t    *weights;

    /* prompt tokens */
    int64_t                     prompt;

    /*
     * completion tokens to reserve; with use_level only as long as this key
     * has no level of this model: see ngx_llm_level_reserve()
     */
    int64_t                     completion;

    /* the most that the request may get; from 0 to NGX_LLM_MAX_TOKENS */
    int64_t                     completion_max;

    /*
     * weighted tokens that are asked for in so many words: if they exceed
     * the burst nothing is taken; any other reserve is cut to the burst
     */
    int64_t                     need;

    ngx_uint_t                  use_level;

    /* the longest delay that the request puts up with, < NGX_LLM_NEVER */
    int64_t                     wait_ns;

    /*
     * how late it is already, as now_ns is that of a coarse clock: what is
     * refilled by then is there, such as all that the rounding of what others
     * took at the same now_ns comes to
     */
    int64_t                     late_ns;

    /*
     * the budget is kept by somebody else: costs are found, and a hold
     * remembers what is to be learned, but nothing is taken here
     */
    ngx_uint_t                  elsewhere;

    /* of those: may be taken from a lease that this machine has */
    ngx_uint_t                  lease;

    /* results: what is, or would have to be, taken of each budget */
    int64_t                     costs[NGX_HTTP_LLM_BUDGETS];

    /* nanoseconds until it is there, NGX_LLM_NEVER: it never is */
    int64_t                     delay_ns[NGX_HTTP_LLM_BUDGETS];

    /* when it is, 0: it is already; only of what was taken */
    int64_t                     start_ns;

    /* afterwards: what is left, and nanoseconds until all is back */
    int64_t                     level[NGX_HTTP_LLM_BUDGETS];
    int64_t                     full_ns[NGX_HTTP_LLM_BUDGETS];

    /* NULL: nothing was taken */
    ngx_http_llm_hold_t        *hold;

    /* valid as long as it is locked, and its lock */
    ngx_http_llm_key_t         *key;
    ngx_http_llm_shard_t       *shard;

    ngx_http_llm_zone_note_e    note;

    /* the zone is full: there is no other result then */
    unsigned                    refused:1;

    /* a new rate: somebody who sleeps has another time */
    unsigned                    moved:1;

    /* it has been */
    unsigned                    leased:1;
} ngx_http_llm_take_t;


/* more tokens for a hold, while its request goes on; all are weighted */

typedef struct {
    /* of the budget, as it was when the hold was taken */
    int64_t                     burst;

    /* used beyond what is held: taken, into debt if need be */
    int64_t                     need;

    /*
     * taken ahead of their use: an eighth of what is left then, so that it
     * is shared by streams that spend at the same time, but at most so many,
     * and, be it into debt, at least so many
     */
    int64_t                     most;
    int64_t                     least;

    /* where it is not there yet the stream pauses */
    ngx_uint_t                  pauses;

    /* results: what was taken ahead */
    int64_t                     ahead;

    /* nanoseconds until all that anybody took is there; 0: it is */
    int64_t                     delay_ns;

    /* for ngx_http_llm_zone_refunded() */
    uint32_t                    refunds;
} ngx_http_llm_raise_t;


/*
 * The shared memory zone of this name, declared with size or used (0), known
 * to be a zone of budgets; or NULL, logged.
 */

ngx_shm_zone_t *ngx_http_llm_zone_add(ngx_conf_t *cf, ngx_str_t *name,
    size_t size);

/*
 * Makes zone, which holds its key, what shm_zone stands for, and declares its
 * locks.  NGX_OK, or NGX_ERROR, logged.
 */

ngx_int_t ngx_http_llm_zone_bind(ngx_conf_t *cf, ngx_shm_zone_t *shm_zone,
    ngx_http_llm_zone_t *zone);

/* the time of all buckets: monotonic, the same in all workers */

int64_t ngx_http_llm_zone_now(void);

/*
 * Takes all costs of n different zones, or none: all keys are locked when it
 * looks, and until it took.  NGX_OK: all are taken, and are there behind
 * the longest of the delays; who comes later is behind that.  NGX_BUSY: some
 * take is refused, or has a delay that is longer than its wait.  A hold of a
 * take with a delay sleeps until it is woken.
 */

ngx_int_t ngx_http_llm_zone_reserve(ngx_http_llm_take_t *takes, ngx_uint_t n,
    int64_t now_ns);

/* takes more of the tokens: its part of them is settled with the rest */

void ngx_http_llm_zone_raise(ngx_http_llm_zone_t *zone,
    ngx_http_llm_hold_t *hold, ngx_http_llm_raise_t *raise, int64_t now_ns);

/*
 * What the raise of a stream that pauses said, as it is now.  False: nothing
 * has been given back since, and no lock was taken.
 */

ngx_uint_t ngx_http_llm_zone_refunded(ngx_http_llm_zone_t *zone,
    ngx_http_llm_hold_t *hold, ngx_http_llm_raise_t *raise, int64_t now_ns);

/*
 * Ends a hold: costs is what it comes to in the end, more or less than what
 * was taken; NULL: what was taken stays.  completion is learned from unless
 * negative.  True: those who sleep behind it, in any process, have another
 * time, and are to be told.
 */

ngx_uint_t ngx_http_llm_zone_settle(ngx_http_llm_zone_t *zone,
    ngx_http_llm_hold_t *hold, const int64_t *costs, int64_t completion,
    int64_t now_ns);

/*
 * When a hold that sleeps is to be woken, never later than it was before.
 * False: that has not changed since the last call, and no lock was taken.
 */

ngx_uint_t ngx_http_llm_zone_moved(ngx_http_llm_zone_t *zone,
    ngx_http_llm_hold_t *hold, int64_t *start_ns);

/*
 * Its request goes on: its place in the queue is behind it.  Returns
 * nanoseconds until each budget is full again, as of now.
 */

void ngx_http_llm_zone_wake(ngx_http_llm_zone_t *zone,
    ngx_http_llm_hold_t *hold, int64_t *full_ns, int64_t now_ns);

/*
 * Gives back the holds of the process pid, or with NGX_INVALID_PID those of
 * the processes that had this one's slot before: they died.  True: as of
 * ngx_http_llm_zone_settle().
 */

ngx_uint_t ngx_http_llm_zone_reap(ngx_http_llm_zone_t *zone, ngx_pid_t pid,
    int64_t now_ns);


#endif /* _NGX_HTTP_LLM_ZONE_H_INCLUDED_ */
