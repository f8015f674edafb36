
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ngx_llm_pick.h"
#include "ngx_llm_speed.h"

#include "buf.h"
#include "load.h"
#include "pick.h"


/*
 * The balancers.  The module's choice is made by its own code: candidates
 * are folded, speeds and the cache's size are learned as src/http does from
 * what passes there, and the places of a key are kept as src/shm does.
 */

/* a hit says something about the cache above this: as in src/http */
#define PICK_HELD_TOKENS  1024

#define PICK_PI           3.14159265358979


/* what the proxy knows of a server */
typedef struct {
    uint32_t            inflight;
    uint32_t            pending;
    uint32_t            clock;          /* prompt tokens that it read */
    uint32_t            capacity;
    ngx_llm_speed_t     prefill;
    ngx_llm_speed_t     decode;
} pick_known_t;

typedef struct {
    uint32_t            server;         /* from 1; 0: none */
    uint32_t            tokens;
    uint32_t            clock;
} pick_place_t;

/* what a choice compares with */
typedef struct {
    double              read_ns;
    double              write_ns;
} pick_scale_t;


static uint32_t pick_round_robin(pick_request_t *r);
static uint32_t pick_least_conn(pick_request_t *r);
static uint32_t pick_random_two(pick_request_t *r);
static uint32_t pick_hash(pick_request_t *r);
static uint32_t pick_module(pick_request_t *r);
static void pick_scale(pick_scale_t *scale);
static void pick_candidate(ngx_llm_candidate_t *candidate,
    const pick_scale_t *scale, const pick_request_t *r, uint32_t prompt,
    uint32_t server);
static pick_place_t *pick_place(const pick_request_t *r, uint32_t server);
static void pick_place_put(const pick_request_t *r);
static uint32_t pick_estimate(const pick_request_t *r);
static uint32_t pick_random(void);


const pick_balancer_t  pick_balancers[] = {
    { "round robin", pick_round_robin, 0, 0 },
    { "least_conn", pick_least_conn, 0, 0 },
    { "random two", pick_random_two, 0, 0 },
    { "hash prefix", pick_hash, 0, 0 },
    { "requests", pick_module, 0, 0 },
    { "tokens", pick_module, 1, 0 },
    { "tokens+affinity", pick_module, 1, 1 },
    { NULL, NULL, 0, 0 }
};


static const pick_balancer_t  *pick_balancer;

static pick_known_t            pick_known[PICK_SERVERS];
static pick_place_t          (*pick_places)[PICK_PLACES];
static uint64_t                pick_state;

/* those of the module, with the window and the prior multiplied */
static ngx_llm_speed_kind_t    pick_prefill;
static ngx_llm_speed_kind_t    pick_decode;


void
pick_choose_start(const pick_balancer_t *balancer)
{
    pick_balancer = balancer;
    pick_state = pick_conf.seed * 0x9e3779b97f4a7c15 + 1;

    memset(pick_known, 0, sizeof(pick_known));
    pick_places = mem_zero_alloc(pick_nkeys * sizeof(*pick_places));

    pick_prefill = ngx_llm_speed_prefill;
    pick_prefill.window *= pick_conf.window;
    pick_prefill.prior *= pick_conf.prior;
    pick_prefill.band *= pick_conf.band;

    pick_decode = ngx_llm_speed_decode;
    pick_decode.window *= pick_conf.window;
    pick_decode.prior *= pick_conf.prior;
}


void
pick_choose_end(void)
{
    free(pick_places);
}


void
pick_choose(pick_request_t *r)
{
    pick_known_t  *known;

    r->uncached = r->prompt;
    r->server = pick_balancer->choose(r);

    known = &pick_known[r->server];

    r->ahead = known->pending + r->uncached;

    known->inflight++;
    known->pending += r->uncached;
    known->clock += r->uncached;

    pick_place_put(r);
}


/* as ngx_http_llm_balancer_first_token() */

void
pick_choose_first(pick_request_t *r)
{
    pick_known_t  *known;

    known = &pick_known[r->server];

    known->pending -= r->uncached;
    known->prefill = ngx_llm_speed_learn(known->prefill,
                                         &pick_prefill, r->ahead,
                                         (uint32_t) (r->first_ms - r->due_ms));
}


/* as ngx_http_llm_balancer_learn() */

void
pick_choose_done(pick_request_t *r)
{
    uint32_t       held;
    pick_known_t  *known;

    known = &pick_known[r->server];
    known->inflight--;

    if (r->made > 1) {
        known->decode = ngx_llm_speed_learn(known->decode,
                                            &pick_decode,
                                            r->made - 1,
                                            (uint32_t) (r->last_ms
                                                        - r->first_ms));
    }

    held = r->held < r->prompt ? r->held : r->prompt;

    if (held >= PICK_HELD_TOKENS) {
        known->capacity = ngx_llm_cache_learn(known->capacity, r->distance,
                                              r->cached >= held / 2);
    }
}


static uint32_t
pick_round_robin(pick_request_t *r)
{
    return (uint32_t) ((r - pick_requests) % pick_conf.servers);
}


static uint32_t
pick_least_conn(pick_request_t *r)
{
    uint32_t  i, best, ties;

    (void) r;

    best = 0;
    ties = 1;

    for (i = 1; i < pick_conf.servers; i++) {

        if (pick_known[i].inflight < pick_known[best].inflight) {
            best = i;
            ties = 1;

        } else if (pick_known[i].inflight == pick_known[best].inflight
                   && pick_random() % ++ties == 0)
        {
            best = i;
        }
    }

    return best;
}


static uint32_t
pick_random_two(pick_request_t *r)
{
    uint32_t  a, b;

    (void) r;

    a = pick_random() % (uint32_t) pick_conf.servers;
    b = pick_random() % (uint32_t) pick_conf.servers;

    return pick_known[b].inflight < pick_known[a].inflight ? b : a;
}


static uint32_t
pick_hash(pick_request_t *r)
{
    return (uint32_t) ((r->key + 1) * 0x9e3779b97f4a7c15 >> 33)
           % (uint32_t) pick_conf.servers;
}


/* as ngx_http_llm_balancer_choose_locked() */

static uint32_t
pick_module(pick_request_t *r)
{
    uint32_t                    i, prompt;
    pick_scale_t                scale;
    pick_place_t               *place;
    ngx_llm_pick_t              pick;
    ngx_llm_candidate_t         candidate;
    const ngx_llm_candidate_t  *best;

    memset(&pick, 0, sizeof(ngx_llm_pick_t));

    prompt = pick_estimate(r);
    pick_scale(&scale);

    for (i = 0; i < pick_conf.servers; i++) {
        pick_candidate(&candidate, &scale, r, prompt, i);
        ngx_llm_pick_fold(&pick, &candidate, pick_random());
    }

    best = ngx_llm_pick_end(&pick, (uint32_t) (pick_conf.bound * 1000),
                            pick_random());

    place = pick_place(r, best->index);

    r->uncached = best->uncached;
    r->held = place ? place->tokens : 0;
    r->distance = place ? pick_known[best->index].clock - place->clock : 0;

    return best->index;
}


static void
pick_scale(pick_scale_t *scale)
{
    uint32_t  i;
    uint64_t  prefill_work, prefill_ms, decode_work, decode_ms;

    prefill_work = 0;
    prefill_ms = 0;
    decode_work = 0;
    decode_ms = 0;

    for (i = 0; i < pick_conf.servers; i++) {
        prefill_work += pick_known[i].prefill.work;
        prefill_ms += pick_known[i].prefill.time_ms;
        decode_work += pick_known[i].decode.work;
        decode_ms += pick_known[i].decode.time_ms;
    }

    scale->read_ns = ngx_llm_speed_mean_ns(&pick_prefill, prefill_work,
                                           prefill_ms);
    scale->write_ns = ngx_llm_speed_mean_ns(&pick_decode, decode_work,
                                            decode_ms);
}


static void
pick_candidate(ngx_llm_candidate_t *candidate, const pick_scale_t *scale,
    const pick_request_t *r, uint32_t prompt, uint32_t server)
{
    double         ns, capacity;
    pick_known_t  *known;
    pick_place_t  *place;

    known = &pick_known[server];
    place = pick_balancer->affinity ? pick_place(r, server) : NULL;

    memset(candidate, 0, sizeof(ngx_llm_candidate_t));

    candidate->index = server;
    candidate->inflight = known->inflight;
    candidate->weight = 1;
    candidate->pending = known->pending;
    candidate->uncached = prompt;
    candidate->request_ns = 1;
    candidate->warm = (place != NULL);

    if (!pick_balancer->tokens) {
        return;
    }

    if (place) {
        capacity = known->capacity * pick_conf.forget;

        candidate->held = ngx_llm_cache_tokens(
                              capacity < UINT32_MAX ? (uint32_t) capacity
                                                    : UINT32_MAX,
                              known->clock - place->clock, place->tokens,
                              prompt);
        candidate->uncached -= candidate->held;
    }

    candidate->token_ns = ngx_llm_speed_cost(
        ngx_llm_speed_ns(known->prefill, &pick_prefill, scale->read_ns));

    ns = NGX_LLM_SPEED_REQUEST_TOKENS * scale->read_ns / scale->write_ns
         * ngx_llm_speed_ns(known->decode, &pick_decode, scale->write_ns);

    candidate->request_ns = ngx_llm_speed_cost(ns * pick_conf.request);
}


static pick_place_t *
pick_place(const pick_request_t *r, uint32_t server)
{
    int            i;
    pick_place_t  *places;

    places = pick_places[r->key];

    for (i = 0; i < PICK_PLACES; i++) {
        if (places[i].server == server + 1) {
            return &places[i];
        }
    }

    return NULL;
}


/* as ngx_http_llm_place_put(): the last one first */

static void
pick_place_put(const pick_request_t *r)
{
    size_t         i;
    pick_place_t  *places;

    places = pick_places[r->key];

    for (i = 0; i < PICK_PLACES - 1; i++) {
        if (places[i].server == r->server + 1 || places[i].server == 0) {
            break;
        }
    }

    memmove(&places[1], &places[0], i * sizeof(pick_place_t));

    places[0].server = r->server + 1;
    places[0].tokens = r->prompt;
    places[0].clock = pick_known[r->server].clock;
}


/* the prompt as the proxy sees it, wrong by a lognormal factor */

static uint32_t
pick_estimate(const pick_request_t *r)
{
    double  normal;

    if (pick_conf.wrong == 0) {
        return r->prompt;
    }

    normal = sqrt(-2 * log(load_random_unit(&pick_state)))
             * cos(2 * PICK_PI * load_random_unit(&pick_state));

    return (uint32_t) (r->prompt * exp(pick_conf.wrong * normal)) + 1;
}


static uint32_t
pick_random(void)
{
    return (uint32_t) (load_random(&pick_state) >> 32);
}
