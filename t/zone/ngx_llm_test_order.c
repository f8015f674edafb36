
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_test.h"


/*
 * Which key makes room: more keys than fit a zone come and go, and each one
 * that is dropped is held against when all the others were used.
 */

#define NGX_LLM_TEST_KEYS      2000
#define NGX_LLM_TEST_FLIGHTS   64

/* as many are looked at for one with full budgets */
#define NGX_LLM_TEST_LOOK      8


typedef struct {
    ngx_uint_t               there;
    ngx_uint_t               holds;
    int64_t                  used_s;
    ngx_llm_bucket_t         buckets[NGX_HTTP_LLM_BUDGETS];
} ngx_llm_test_known_t;


typedef struct {
    ngx_http_llm_hold_t     *hold;
    ngx_uint_t               key;
} ngx_llm_test_flight_t;


static ngx_int_t ngx_llm_test_reserve(ngx_llm_test_life_t *life,
    ngx_uint_t key, ngx_http_llm_take_t *take);
static void ngx_llm_test_digest(u_char *digest, ngx_uint_t key);
static void ngx_llm_test_dropped(ngx_llm_test_life_t *life,
    ngx_llm_test_known_t *known, ngx_http_llm_take_t *take);
static ngx_uint_t ngx_llm_test_older(ngx_llm_test_known_t *known,
    int64_t used_s);
static ngx_uint_t ngx_llm_test_spared(ngx_llm_test_life_t *life,
    ngx_llm_test_known_t *known);
static ngx_uint_t ngx_llm_test_full(const ngx_llm_bucket_t *buckets,
    int64_t now_ns);
static void ngx_llm_test_land(ngx_llm_test_life_t *life,
    ngx_llm_test_known_t *known, ngx_llm_test_flight_t *flight);


static const ngx_llm_weights_t  ngx_llm_test_weights = {
    1000, 1000, 1000, 1000
};


void
ngx_llm_test_order(ngx_llm_test_life_t *life, ngx_uint_t steps)
{
    ngx_uint_t             i, key, n;
    ngx_http_llm_take_t    take;
    ngx_llm_test_known_t   known[NGX_LLM_TEST_KEYS];
    ngx_llm_test_flight_t  flights[NGX_LLM_TEST_FLIGHTS], *flight;

    ngx_memzero(known, sizeof(known));

    n = 0;
    life->now_ns = 2000 * NGX_LLM_TEST_DAY;

    for (life->step = 0; life->step < steps && life->broken == NULL;
         life->step++)
    {
        life->now_ns += ngx_llm_test_to(life, 300 * NGX_LLM_TEST_MS);
        ngx_process_slot = ngx_llm_test_to(life, NGX_LLM_TEST_SLOTS);

        if (n == NGX_LLM_TEST_FLIGHTS || (n && ngx_llm_test_to(life, 2) == 0))
        {
            i = ngx_llm_test_to(life, n - 1);
            ngx_llm_test_land(life, known, &flights[i]);
            flights[i] = flights[--n];
            continue;
        }

        /* a few are used all the time, most of them now and then */

        key = ngx_llm_test_to(life, ngx_llm_test_to(life, 3)
                                    ? NGX_LLM_TEST_KEYS - 1 : 100);

        if (ngx_llm_test_reserve(life, key, &take) != NGX_OK) {
            life->broken = "a request was refused beside keys without any";
            break;
        }

        known[key].there = 1;
        known[key].holds++;

        ngx_llm_test_dropped(life, known, &take);

        known[key].used_s = life->now_ns / NGX_LLM_TEST_SECOND;
        ngx_memcpy(known[key].buckets, take.key->buckets,
                   sizeof(known[key].buckets));

        flight = &flights[n++];
        flight->hold = take.hold;
        flight->key = key;
    }

    while (n) {
        ngx_llm_test_land(life, known, &flights[--n]);
    }
}


static ngx_int_t
ngx_llm_test_reserve(ngx_llm_test_life_t *life, ngx_uint_t key,
    ngx_http_llm_take_t *take)
{
    ngx_memzero(take, sizeof(ngx_http_llm_take_t));

    take->zone = &life->zones[0];
    take->model = 1;
    take->weights = &ngx_llm_test_weights;
    take->prompt = 1 + ngx_llm_test_to(life, 200);
    take->rates[0].tokens = 1;
    take->rates[0].period_ns = NGX_LLM_TEST_SECOND;
    take->rates[0].burst = 1000000;

    ngx_llm_test_digest(take->digest, key);

    return ngx_http_llm_zone_reserve(take, 1, life->now_ns);
}


static void
ngx_llm_test_digest(u_char *digest, ngx_uint_t key)
{
    ngx_memset(digest, 0x5a, NGX_HTTP_LLM_KEY_DIGEST);
    ngx_memcpy(digest, &key, sizeof(ngx_uint_t));
}


/* a hold, and a key that is new, may have taken the place of one each */

static void
ngx_llm_test_dropped(ngx_llm_test_life_t *life, ngx_llm_test_known_t *known,
    ngx_http_llm_take_t *take)
{
    u_char      digest[NGX_HTTP_LLM_KEY_DIGEST];
    ngx_uint_t  dropped[2], i, idle, n;

    n = 0;

    for (i = 0; i < NGX_LLM_TEST_KEYS; i++) {
        ngx_llm_test_digest(digest, i);

        if (!known[i].there
            || ngx_http_llm_key_find_locked(take->zone, digest))
        {
            continue;
        }

        if (known[i].holds || n == 2) {
            life->broken = "a key with requests in flight was dropped";
            return;
        }

        known[i].there = 0;
        dropped[n++] = i;
    }

    while (n) {
        i = dropped[--n];
        idle = ngx_llm_test_full(known[i].buckets, life->now_ns);

        if (idle) {
            ngx_llm_test_seen[NGX_LLM_TEST_SEEN_IDLE]++;

        } else {
            ngx_llm_test_seen[NGX_LLM_TEST_SEEN_OLDEST]++;
        }

        if (ngx_llm_test_older(known, known[i].used_s - 1)
            >= (idle ? NGX_LLM_TEST_LOOK : 1))
        {
            life->broken = "a key was dropped before those not used for longer";
        }

        if (!idle && ngx_llm_test_spared(life, known)) {
            life->broken = "a key was dropped before one with full budgets";
        }
    }
}


/* keys that could be dropped and were not used since */

static ngx_uint_t
ngx_llm_test_older(ngx_llm_test_known_t *known, int64_t used_s)
{
    ngx_uint_t  i, n;

    n = 0;

    for (i = 0; i < NGX_LLM_TEST_KEYS; i++) {
        n += (known[i].there && known[i].holds == 0
              && known[i].used_s <= used_s);
    }

    return n;
}


/* is there one with full budgets among those that are looked at? */

static ngx_uint_t
ngx_llm_test_spared(ngx_llm_test_life_t *life, ngx_llm_test_known_t *known)
{
    ngx_uint_t             i;
    ngx_llm_test_known_t  *idle;

    idle = NULL;

    for (i = 0; i < NGX_LLM_TEST_KEYS; i++) {
        if (known[i].there && known[i].holds == 0
            && (idle == NULL || known[i].used_s < idle->used_s)
            && ngx_llm_test_full(known[i].buckets, life->now_ns))
        {
            idle = &known[i];
        }
    }

    return idle
           && ngx_llm_test_older(known, idle->used_s) < NGX_LLM_TEST_LOOK - 1;
}


static ngx_uint_t
ngx_llm_test_full(const ngx_llm_bucket_t *buckets, int64_t now_ns)
{
    ngx_uint_t  b;

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        if (ngx_llm_bucket_full_in(&buckets[b], now_ns) > 0) {
            return 0;
        }
    }

    return 1;
}


static void
ngx_llm_test_land(ngx_llm_test_life_t *life, ngx_llm_test_known_t *known,
    ngx_llm_test_flight_t *flight)
{
    ngx_http_llm_zone_settle(&life->zones[0], flight->hold, NULL, -1,
                             life->now_ns);

    known[flight->key].holds--;
    known[flight->key].used_s = life->now_ns / NGX_LLM_TEST_SECOND;
}
