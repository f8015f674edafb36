
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


/* of all that lies in a zone: keys, holds, and what holds them */
#define NGX_HTTP_LLM_ZONE_VERSION  2

/* models whose mean a key remembers */
#define NGX_HTTP_LLM_KEY_MODELS    4

/* what the slab gives for a key, and for a hold: one makes room for one */
#define NGX_HTTP_LLM_KEY_CHUNK     128


typedef struct {
    /* hash of a model's name; 0: free */
    uint32_t                model;

    /* tokens of a completion scaled by 16 */
    uint32_t                mean_16;
} ngx_http_llm_mean_t;


/* a rate without its burst */

typedef struct {
    int64_t                 tokens;
    int64_t                 period_ns;
} ngx_http_llm_speed_t;


struct ngx_http_llm_key_s {
    /* the next one in the same slot of the table */
    ngx_http_llm_key_t     *next;

    /* in the LRU, as long as there are no holds; then holds that sleep */
    ngx_queue_t             queue;

    u_char                  digest[NGX_HTTP_LLM_KEY_DIGEST];

    uint32_t                holds;

    /* buckets count time: what that is in tokens is said by the speeds */
    ngx_llm_bucket_t        buckets[NGX_HTTP_LLM_BUDGETS];
    ngx_http_llm_speed_t    speeds[NGX_HTTP_LLM_BUDGETS];

    /* the one learned last comes first */
    ngx_http_llm_mean_t     means[NGX_HTTP_LLM_KEY_MODELS];
};


struct ngx_http_llm_zone_sh_s {
    ngx_uint_t              version;

    /* keys by the start of their digests; a power of two */
    ngx_uint_t              nslots;
    ngx_http_llm_key_t    **slots;

    /* keys without holds, the most recently used one first */
    ngx_queue_t             lru;

    ngx_queue_t             holds;

    /* when a note was given for the last time; 0: never */
    int64_t                 noted_ns;
};


/* slots for as many keys as fit a zone of this size, roughly */

ngx_uint_t ngx_http_llm_key_slots(size_t zone_bytes);

/* NULL: there is no such key */

ngx_http_llm_key_t *ngx_http_llm_key_find_locked(ngx_http_llm_zone_t *zone,
    const u_char *digest);

/* NULL: the zone is full */

ngx_http_llm_key_t *ngx_http_llm_key_create_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);

/*
 * The speed of a budget from here on.  Tokens that are not refilled yet stay
 * as many as they were: a client with a new plan has it at once.  True:
 * it is another one.
 */

ngx_uint_t ngx_http_llm_key_speed(ngx_http_llm_key_t *key, ngx_uint_t budget,
    const ngx_llm_rate_t *rate, int64_t now_ns);

/* takes tokens of a budget at its speed, or gives back: cost < 0 */

void ngx_http_llm_key_charge(ngx_http_llm_key_t *key, ngx_uint_t budget,
    int64_t cost, int64_t now_ns);

/* one chunk, if need be that of a key that is dropped */

void *ngx_http_llm_key_alloc_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);

/* is the most recently used one; a key with holds always is */

void ngx_http_llm_key_touch_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_key_t *key);

/* one hold more, one less: a key that has any is not dropped */

void ngx_http_llm_key_hold_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_key_t *key);
void ngx_http_llm_key_release_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_key_t *key);

/* mean completion of a model in tokens, rounded up; -1: nothing learned */

int64_t ngx_http_llm_key_mean(const ngx_http_llm_key_t *key, uint32_t model);

/* a new answer has a weight of 1/8; the model learned longest ago goes */

void ngx_http_llm_key_learn(ngx_http_llm_key_t *key, uint32_t model,
    int64_t completion);


#endif /* _NGX_HTTP_LLM_KEY_H_INCLUDED_ */
