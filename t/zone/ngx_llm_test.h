
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The parts of the test of zones: see ngx_llm_test_zone_module.c.
 */


#ifndef _NGX_LLM_TEST_H_INCLUDED_
#define _NGX_LLM_TEST_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_http_llm_hold.h"


#define NGX_LLM_TEST_ZONES     3
#define NGX_LLM_TEST_STEPS     40
#define NGX_LLM_TEST_HOLDS     8
#define NGX_LLM_TEST_ENTRIES   256

#define NGX_LLM_TEST_MS        ((int64_t) 1000000)
#define NGX_LLM_TEST_SECOND    (1000 * NGX_LLM_TEST_MS)
#define NGX_LLM_TEST_DAY       (86400 * NGX_LLM_TEST_SECOND)

/* of a process that is none */
#define NGX_LLM_TEST_DEAD      1

/* of processes that use the zones; more than have a stock of their own */
#define NGX_LLM_TEST_SLOTS     20


typedef __int128  ngx_llm_test_wide_t;


typedef enum {
    NGX_LLM_TEST_GIVE = 0,
    NGX_LLM_TEST_OVERRUN,
    NGX_LLM_TEST_ADMIT
} ngx_llm_test_entry_e;


typedef struct {
    int64_t                  at_ns;
    int64_t                  tokens;
    ngx_llm_test_entry_e     kind;

    /* the step that decided it */
    ngx_uint_t               step;
} ngx_llm_test_entry_t;


/* one budget of the one key that a life has in a zone */

typedef struct {
    ngx_llm_rate_t           rate;

    /* nanoseconds times the rate's tokens: the bucket that never rounds */
    ngx_llm_test_wide_t      exact;

    ngx_llm_test_entry_t     entries[NGX_LLM_TEST_ENTRIES];
    ngx_uint_t               nentries;
} ngx_llm_test_budget_t;


typedef struct {
    ngx_http_llm_hold_t     *holds[NGX_LLM_TEST_ZONES];
    int64_t                  costs[NGX_LLM_TEST_ZONES][NGX_HTTP_LLM_BUDGETS];
    ngx_uint_t               asleep;
    ngx_uint_t               step;
} ngx_llm_test_request_t;


typedef struct {
    uint64_t                 random;
    ngx_http_llm_zone_t     *zones;
    u_char                   digests[NGX_LLM_TEST_ZONES]
                                    [NGX_HTTP_LLM_KEY_DIGEST];
    ngx_llm_test_budget_t    budgets[NGX_LLM_TEST_ZONES][NGX_HTTP_LLM_BUDGETS];
    ngx_llm_test_request_t   requests[NGX_LLM_TEST_HOLDS];
    ngx_uint_t               nrequests;
    int64_t                  now_ns;
    int64_t                  wait_ns;
    ngx_uint_t               back;
    ngx_uint_t               step;
    const char              *broken;
} ngx_llm_test_life_t;


typedef enum {
    NGX_LLM_TEST_SEEN_ADMIT = 0,
    NGX_LLM_TEST_SEEN_REFUSE,
    NGX_LLM_TEST_SEEN_SLEEP,
    NGX_LLM_TEST_SEEN_MOVED,
    NGX_LLM_TEST_SEEN_LEFT,
    NGX_LLM_TEST_SEEN_RAISE,
    NGX_LLM_TEST_SEEN_SETTLE,
    NGX_LLM_TEST_SEEN_KEEP,
    NGX_LLM_TEST_SEEN_REAP,
    NGX_LLM_TEST_SEEN_FULL,
    NGX_LLM_TEST_SEEN_IDLE,
    NGX_LLM_TEST_SEEN_OLDEST,
    NGX_LLM_TEST_SEEN
} ngx_llm_test_seen_e;


extern uint64_t  ngx_llm_test_seen[];


/* one life: life->broken says what went wrong, and where */

void ngx_llm_test_live(ngx_llm_test_life_t *life);

/* a life of many keys, behind all others: who makes room for whom */

void ngx_llm_test_order(ngx_llm_test_life_t *life, ngx_uint_t steps);

/* many processes in the zones with shards, behind that */

void ngx_llm_test_race(ngx_llm_test_life_t *life, ngx_uint_t steps);

/* chunks of a zone that nobody uses */

ngx_uint_t ngx_llm_test_free(ngx_http_llm_zone_t *zone);

/* the same of the bucket that never rounds */

void ngx_llm_test_charge(ngx_llm_test_life_t *life, ngx_uint_t z,
    ngx_uint_t b, int64_t tokens);

/* into the ledger */

void ngx_llm_test_enter(ngx_llm_test_life_t *life, ngx_uint_t z,
    ngx_uint_t b, ngx_llm_test_entry_e kind, int64_t at_ns, int64_t tokens,
    ngx_uint_t step);

/* the buckets beside those that never round */

void ngx_llm_test_check(ngx_llm_test_life_t *life);

/* the ledger, when all is in it */

void ngx_llm_test_windows(ngx_llm_test_life_t *life,
    ngx_llm_test_budget_t *budget);

/* NULL: the zone has none */

ngx_http_llm_key_t *ngx_llm_test_key(ngx_llm_test_life_t *life,
    ngx_uint_t z);

/* splitmix64: any seed is a good one, 0 too */

uint64_t ngx_llm_test_random(ngx_llm_test_life_t *life);

/* from 0 to max */

int64_t ngx_llm_test_to(ngx_llm_test_life_t *life, int64_t max);


#endif /* _NGX_LLM_TEST_H_INCLUDED_ */
