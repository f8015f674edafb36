
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_test.h"

#include <sys/wait.h>


/*
 * Processes that share zones which are too small for them: memory goes from
 * shard to shard all the time, and each request takes of one zone or of both.
 * In the end they are gone as if they had been killed, with what they hold.
 */

#define NGX_LLM_TEST_PROCESSES  4
#define NGX_LLM_TEST_RUSH       120

/* a process that waits for a lock for so long waits for ever */
#define NGX_LLM_TEST_ALARM      60


typedef struct {
    ngx_http_llm_hold_t     *holds[2];
} ngx_llm_test_rush_t;


static void ngx_llm_test_fill(ngx_llm_test_life_t *life, ngx_uint_t z);
static void ngx_llm_test_rush(ngx_llm_test_life_t *life, ngx_uint_t steps);
static void ngx_llm_test_want(ngx_llm_test_life_t *life,
    ngx_http_llm_take_t *take, ngx_uint_t z);
static ngx_uint_t ngx_llm_test_held(ngx_http_llm_zone_t *zone);
static ngx_uint_t ngx_llm_test_listed(ngx_http_llm_zone_t *zone);
static ngx_uint_t ngx_llm_test_keys(ngx_http_llm_zone_t *zone,
    ngx_uint_t *holds);


static const ngx_llm_weights_t  ngx_llm_test_weights = {
    1000, 1000, 1000, 1000
};


void
ngx_llm_test_race(ngx_llm_test_life_t *life, ngx_uint_t steps)
{
    int          status;
    pid_t        pids[NGX_LLM_TEST_PROCESSES];
    ngx_uint_t   chunks[NGX_LLM_TEST_ZONES], holds, i, keys, z;

    life->now_ns = 3000 * NGX_LLM_TEST_DAY;

    for (z = 1; z < NGX_LLM_TEST_ZONES; z++) {
        ngx_llm_test_fill(life, z);

        chunks[z] = ngx_llm_test_keys(&life->zones[z], &holds)
                    + ngx_llm_test_free(&life->zones[z]);
    }

    for (i = 0; i < NGX_LLM_TEST_PROCESSES; i++) {
        pids[i] = fork();

        if (pids[i] == 0) {
            alarm(NGX_LLM_TEST_ALARM);

            ngx_pid = getpid();
            ngx_process_slot = i;
            life->random += i + 1;

            ngx_llm_test_rush(life, steps);
            _exit(0);
        }
    }

    for (i = 0; i < NGX_LLM_TEST_PROCESSES; i++) {
        if (pids[i] == -1 || waitpid(pids[i], &status, 0) == -1 || status) {
            life->broken = "a process has not come to its end";
            return;
        }
    }

    for (z = 1; z < NGX_LLM_TEST_ZONES; z++) {

        if (ngx_llm_test_held(&life->zones[z]) == 0) {
            life->broken = "the processes have left nothing behind";
        }

        for (i = 0; i < NGX_LLM_TEST_PROCESSES; i++) {
            (void) ngx_http_llm_zone_reap(&life->zones[z], pids[i],
                                          life->now_ns);
        }

        keys = ngx_llm_test_keys(&life->zones[z], &holds);

        if (holds || ngx_llm_test_held(&life->zones[z])) {
            life->broken = "what the dead have held is not back";
        }

        if (keys != ngx_llm_test_listed(&life->zones[z])) {
            life->broken = "a key is not in the LRU, or twice";
        }

        if (keys + ngx_llm_test_free(&life->zones[z]) != chunks[z]) {
            life->broken = "memory was lost, or is used twice";
        }
    }
}


/* from here on the slab has nothing, and what the zone has is known */

static void
ngx_llm_test_fill(ngx_llm_test_life_t *life, ngx_uint_t z)
{
    ngx_http_llm_take_t  take;

    while (!life->zones[z].sh->exhausted) {
        ngx_llm_test_want(life, &take, z);

        if (ngx_http_llm_zone_reserve(&take, 1, life->now_ns) == NGX_OK) {
            ngx_http_llm_zone_settle(&life->zones[z], take.hold, NULL, -1,
                                     life->now_ns);
        }
    }
}


static void
ngx_llm_test_rush(ngx_llm_test_life_t *life, ngx_uint_t steps)
{
    ngx_uint_t            ebb, i, n, number, z;
    ngx_http_llm_take_t   takes[2];
    ngx_llm_test_rush_t   rush[NGX_LLM_TEST_RUSH];

    n = 0;
    ebb = 0;

    while (steps--) {
        life->now_ns += ngx_llm_test_to(life, 10 * NGX_LLM_TEST_MS);

        /* many come, and many go: a stock has none, or more than it keeps */

        if (n == 0 || n == NGX_LLM_TEST_RUSH) {
            ebb = (n != 0);
        }

        if (n < NGX_LLM_TEST_RUSH && (ngx_llm_test_to(life, 4) == 0) == ebb) {

            /* one zone, or both, in any order */

            z = 1 + ngx_llm_test_to(life, 1);
            number = 1 + ngx_llm_test_to(life, 1);

            ngx_llm_test_want(life, &takes[0], z);
            ngx_llm_test_want(life, &takes[1], 3 - z);

            if (ngx_http_llm_zone_reserve(takes, number, life->now_ns)
                == NGX_OK)
            {
                rush[n].holds[z - 1] = takes[0].hold;
                rush[n].holds[2 - z] = (number == 2) ? takes[1].hold : NULL;
                n++;
                continue;
            }
        }

        if (n == 0) {
            continue;
        }

        i = ngx_llm_test_to(life, n - 1);

        for (z = 1; z < NGX_LLM_TEST_ZONES; z++) {
            if (rush[i].holds[z - 1]) {
                (void) ngx_http_llm_zone_settle(&life->zones[z],
                                                rush[i].holds[z - 1],
                                                ngx_http_llm_hold_nothing, 1,
                                                life->now_ns);
            }
        }

        rush[i] = rush[--n];
    }
}


/* many keys, and one that is used all the time: its shard needs most */

static void
ngx_llm_test_want(ngx_llm_test_life_t *life, ngx_http_llm_take_t *take,
    ngx_uint_t z)
{
    uint64_t  key;

    ngx_memzero(take, sizeof(ngx_http_llm_take_t));

    take->zone = &life->zones[z];
    take->model = 1;
    take->weights = &ngx_llm_test_weights;
    take->prompt = 1;
    take->rates[0].tokens = 1000000;
    take->rates[0].period_ns = NGX_LLM_TEST_SECOND;
    take->rates[0].burst = 1000000;

    key = ngx_llm_test_to(life, 1) ? ngx_llm_test_to(life, 2000) : 0;

    ngx_memset(take->digest, 0x3c, NGX_HTTP_LLM_KEY_DIGEST);
    ngx_memcpy(take->digest, &key, sizeof(key));
}


ngx_uint_t
ngx_llm_test_free(ngx_http_llm_zone_t *zone)
{
    ngx_uint_t             i, n;
    ngx_http_llm_chunk_t  *chunk, *run;

    n = 0;

    for (i = 0; i < zone->nshards * NGX_HTTP_LLM_ZONE_STOCKS; i++) {
        for (chunk = zone->sh->stocks[i].free; chunk; chunk = chunk->next) {
            n++;
        }
    }

    for (run = zone->sh->runs; run; run = run->run) {
        for (chunk = run; chunk; chunk = chunk->next) {
            n++;
        }
    }

    return n;
}


static ngx_uint_t
ngx_llm_test_held(ngx_http_llm_zone_t *zone)
{
    ngx_uint_t    i, n;
    ngx_queue_t  *q;

    n = 0;

    for (i = 0; i < zone->nshards * NGX_HTTP_LLM_ZONE_STOCKS; i++) {
        for (q = ngx_queue_head(&zone->sh->stocks[i].holds);
             q != ngx_queue_sentinel(&zone->sh->stocks[i].holds);
             q = ngx_queue_next(q))
        {
            n++;
        }
    }

    return n;
}


static ngx_uint_t
ngx_llm_test_listed(ngx_http_llm_zone_t *zone)
{
    ngx_uint_t           i, n;
    ngx_queue_t         *q;
    ngx_http_llm_key_t  *key;

    n = 0;

    for (i = 0; i < zone->nshards; i++) {
        for (q = ngx_queue_head(&zone->shards[i].sh->lru);
             q != ngx_queue_sentinel(&zone->shards[i].sh->lru);
             q = ngx_queue_next(q))
        {
            key = ngx_queue_data(q, ngx_http_llm_key_t, queue);
            n += (ngx_http_llm_key_shard(zone, key->digest)
                  == &zone->shards[i]);
        }
    }

    return n;
}


/* and the sum of their holds */

static ngx_uint_t
ngx_llm_test_keys(ngx_http_llm_zone_t *zone, ngx_uint_t *holds)
{
    ngx_uint_t           i, n;
    ngx_http_llm_key_t  *key;

    n = 0;
    *holds = 0;

    for (i = 0; i < zone->nslots; i++) {

        key = zone->slots[i] ? (ngx_http_llm_key_t *)
                               ((u_char *) zone->shpool
                                + (size_t) zone->slots[i]
                                  * NGX_HTTP_LLM_KEY_CHUNK)
                             : NULL;

        for ( /* void */ ; key; key = key->next) {
            *holds += key->holds;
            n++;
        }
    }

    return n;
}
