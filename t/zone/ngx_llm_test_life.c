
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_test.h"


static void ngx_llm_test_begin(ngx_llm_test_life_t *life);
static void ngx_llm_test_clock(ngx_llm_test_life_t *life);
static void ngx_llm_test_wake(ngx_llm_test_life_t *life);
static void ngx_llm_test_admit(ngx_llm_test_life_t *life);
static ngx_uint_t ngx_llm_test_takes(ngx_llm_test_life_t *life,
    ngx_http_llm_take_t *takes, ngx_uint_t *numbers);
static void ngx_llm_test_raise(ngx_llm_test_life_t *life);
static void ngx_llm_test_end(ngx_llm_test_life_t *life, ngx_uint_t i);
static void ngx_llm_test_close(ngx_llm_test_life_t *life, ngx_uint_t i,
    const int64_t *costs, ngx_uint_t dead);
static void ngx_llm_test_crowd(ngx_llm_test_life_t *life);
static void ngx_llm_test_crowded(ngx_llm_test_life_t *life, ngx_uint_t z);


uint64_t  ngx_llm_test_seen[NGX_LLM_TEST_SEEN];

static const ngx_llm_weights_t  ngx_llm_test_weights = {
    1000, 1000, 1000, 1000
};


void
ngx_llm_test_live(ngx_llm_test_life_t *life)
{
    ngx_uint_t           b, z;
    ngx_http_llm_key_t  *key;

    ngx_llm_test_begin(life);

    while (life->step++ < NGX_LLM_TEST_STEPS && life->broken == NULL) {
        ngx_process_slot = ngx_llm_test_to(life, NGX_LLM_TEST_SLOTS);

        ngx_llm_test_clock(life);
        ngx_llm_test_wake(life);

        if (life->nrequests == 0 || ngx_llm_test_random(life) % 5 < 2) {
            ngx_llm_test_admit(life);

        } else if (ngx_llm_test_random(life) % 3 == 0) {
            ngx_llm_test_raise(life);

        } else {
            ngx_llm_test_end(life, ngx_llm_test_to(life, life->nrequests - 1));
        }

        ngx_llm_test_check(life);
    }

    if (life->broken == NULL && ngx_llm_test_random(life) % 200 == 0) {
        ngx_llm_test_crowd(life);
    }

    while (life->nrequests && life->broken == NULL) {
        ngx_llm_test_close(life, 0, ngx_http_llm_hold_nothing, 0);
        ngx_llm_test_check(life);
    }

    for (z = 0; z < NGX_LLM_TEST_ZONES; z++) {
        key = ngx_llm_test_key(life, z);

        for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
            if (life->broken == NULL && !life->back) {
                ngx_llm_test_windows(life, &life->budgets[z][b]);
            }

            /* it is idle now: the next lives need its memory */

            if (key) {
                key->buckets[b].tat_ns = 0;
            }
        }
    }
}


static void
ngx_llm_test_begin(ngx_llm_test_life_t *life)
{
    uint64_t         part;
    ngx_uint_t       b, i, z;
    ngx_llm_rate_t  *rate;

    static const int64_t  periods[] = { 1, 60, 3600, 86400 };

    for (z = 0; z < NGX_LLM_TEST_ZONES; z++) {

        for (i = 0; i + sizeof(part) <= NGX_HTTP_LLM_KEY_DIGEST;
             i += sizeof(part))
        {
            part = ngx_llm_test_random(life);
            ngx_memcpy(life->digests[z] + i, &part, sizeof(part));
        }

        for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
            rate = &life->budgets[z][b].rate;

            rate->tokens = 1 + ngx_llm_test_to(life,
                                 (ngx_llm_test_random(life) & 1) ? 20
                                                                 : 100000);
            rate->period_ns = periods[ngx_llm_test_random(life) & 3]
                              * NGX_LLM_TEST_SECOND;
            rate->burst = 1 + ngx_llm_test_to(life, rate->tokens);

            if (b == NGX_HTTP_LLM_REQUESTS) {
                rate->burst = 1 + ngx_llm_test_to(life, 6);

                if (ngx_llm_test_random(life) & 1) {
                    rate->tokens = 0;
                }
            }
        }
    }

    life->now_ns = 1000 * NGX_LLM_TEST_DAY;
    life->back = (ngx_llm_test_random(life) % 4 == 0);

    if (ngx_llm_test_random(life) % 4) {
        life->wait_ns = ngx_llm_test_to(life,
                                        life->budgets[0][0].rate.period_ns);
    }
}


static void
ngx_llm_test_clock(ngx_llm_test_life_t *life)
{
    uint64_t  kind;

    kind = ngx_llm_test_random(life) % 32;

    if (kind == 0) {
        life->now_ns += ngx_llm_test_to(life, 3 * NGX_LLM_TEST_DAY);

    } else if (kind < 4) {

        /* another worker's clock, and one that was set */

        if (life->back) {
            life->now_ns -= ngx_llm_test_to(life, (kind == 1)
                                                  ? NGX_LLM_TEST_DAY
                                                  : 20 * NGX_LLM_TEST_MS);
        }

    } else if (kind > 12) {
        life->now_ns += ngx_llm_test_to(life,
                                        life->budgets[0][0].rate.period_ns
                                        / 8);
    }
}


/* those whose time has come go on, each at its own */

static void
ngx_llm_test_wake(ngx_llm_test_life_t *life)
{
    int64_t                  full_ns[NGX_HTTP_LLM_BUDGETS], start_ns;
    ngx_uint_t               b, i, z;
    ngx_http_llm_hold_t     *hold;
    ngx_llm_test_request_t  *request;

    for (i = 0; i < life->nrequests; i++) {
        request = &life->requests[i];

        if (!request->asleep) {
            continue;
        }

        start_ns = 0;

        for (z = 0; z < NGX_LLM_TEST_ZONES; z++) {
            hold = request->holds[z];

            if (hold && hold->asleep) {
                start_ns = ngx_max(start_ns, ngx_http_llm_queue_start(hold));
            }
        }

        if (start_ns > life->now_ns) {
            continue;
        }

        request->asleep = 0;

        for (z = 0; z < NGX_LLM_TEST_ZONES; z++) {
            hold = request->holds[z];

            if (hold == NULL) {
                continue;
            }

            for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
                if (hold->asleep) {
                    ngx_llm_test_enter(life, z, b, NGX_LLM_TEST_ADMIT,
                                       hold->start_ns[b],
                                       request->costs[z][b], request->step);
                }
            }

            ngx_http_llm_zone_wake(&life->zones[z], hold, full_ns,
                                   life->now_ns);
        }
    }
}


static void
ngx_llm_test_admit(ngx_llm_test_life_t *life)
{
    int64_t                  before[NGX_LLM_TEST_ZONES][NGX_HTTP_LLM_BUDGETS];
    ngx_int_t                rc;
    ngx_uint_t               b, i, n, z;
    ngx_http_llm_key_t      *key;
    ngx_http_llm_take_t      takes[NGX_LLM_TEST_ZONES];
    ngx_uint_t               numbers[NGX_LLM_TEST_ZONES];
    ngx_llm_test_request_t  *request;

    if (life->nrequests == NGX_LLM_TEST_HOLDS) {
        return;
    }

    ngx_memzero(before, sizeof(before));

    for (z = 0; z < NGX_LLM_TEST_ZONES; z++) {
        key = ngx_llm_test_key(life, z);

        for (b = 0; key && b < NGX_HTTP_LLM_BUDGETS; b++) {
            before[z][b] = key->buckets[b].tat_ns;
        }
    }

    n = ngx_llm_test_takes(life, takes, numbers);

    rc = ngx_http_llm_zone_reserve(takes, n, life->now_ns);

    if (rc != NGX_OK) {
        ngx_llm_test_seen[NGX_LLM_TEST_SEEN_REFUSE]++;

        for (i = 0; i < n; i++) {
            key = ngx_llm_test_key(life, numbers[i]);

            for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
                if (takes[i].hold || takes[i].refused
                    || key->buckets[b].tat_ns != before[numbers[i]][b])
                {
                    life->broken = "a refused request has taken something";
                }
            }
        }

        return;
    }

    ngx_llm_test_seen[NGX_LLM_TEST_SEEN_ADMIT]++;

    request = &life->requests[life->nrequests++];
    ngx_memzero(request, sizeof(ngx_llm_test_request_t));
    request->step = life->step;

    for (i = 0; i < n; i++) {
        z = numbers[i];
        request->holds[z] = takes[i].hold;
        request->asleep |= (takes[i].start_ns != 0);

        for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
            request->costs[z][b] = takes[i].costs[b];
            ngx_llm_test_charge(life, z, b, takes[i].costs[b]);

            if (takes[i].start_ns == 0) {
                ngx_llm_test_enter(life, z, b, NGX_LLM_TEST_ADMIT,
                                   life->now_ns, takes[i].costs[b],
                                   life->step);
            }
        }
    }

    ngx_llm_test_seen[NGX_LLM_TEST_SEEN_SLEEP] += request->asleep;
}


static ngx_uint_t
ngx_llm_test_takes(ngx_llm_test_life_t *life, ngx_http_llm_take_t *takes,
    ngx_uint_t *numbers)
{
    ngx_uint_t            b, mask, n, z;
    ngx_http_llm_take_t  *take;

    mask = 1 + ngx_llm_test_random(life) % ((1 << NGX_LLM_TEST_ZONES) - 1);
    n = 0;

    for (z = 0; z < NGX_LLM_TEST_ZONES; z++) {

        if (!(mask & (1 << z))) {
            continue;
        }

        numbers[n] = z;
        take = &takes[n++];
        ngx_memzero(take, sizeof(ngx_http_llm_take_t));

        take->zone = &life->zones[z];
        take->model = 1;
        take->weights = &ngx_llm_test_weights;
        take->wait_ns = life->wait_ns;
        ngx_memcpy(take->digest, life->digests[z], NGX_HTTP_LLM_KEY_DIGEST);

        for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
            take->rates[b] = life->budgets[z][b].rate;
        }

        take->prompt = ngx_llm_test_to(life, take->rates[0].burst);
        take->completion = ngx_llm_test_to(life, take->rates[0].burst / 4);
        take->completion_max = take->completion;
        take->use_level = ngx_llm_test_random(life) & 1;

        if (ngx_llm_test_random(life) % 32 == 0) {
            take->need = take->rates[0].burst + 1;
        }
    }

    return n;
}


static void
ngx_llm_test_raise(ngx_llm_test_life_t *life)
{
    int64_t                  tokens;
    ngx_uint_t               z;
    ngx_http_llm_raise_t     raise;
    ngx_llm_test_request_t  *request;

    request = &life->requests[ngx_llm_test_to(life, life->nrequests - 1)];

    if (request->asleep) {
        return;
    }

    for (z = 0; z < NGX_LLM_TEST_ZONES; z++) {

        if (request->holds[z] == NULL) {
            continue;
        }

        ngx_memzero(&raise, sizeof(ngx_http_llm_raise_t));

        raise.burst = life->budgets[z][0].rate.burst;
        raise.need = ngx_llm_test_to(life, raise.burst);
        raise.most = ngx_llm_test_to(life, 64);
        raise.least = ngx_llm_test_to(life, raise.most);

        ngx_http_llm_zone_raise(&life->zones[z], request->holds[z], &raise,
                                life->now_ns);

        tokens = raise.need + raise.ahead;

        request->costs[z][NGX_HTTP_LLM_TOKENS] += tokens;

        ngx_llm_test_charge(life, z, NGX_HTTP_LLM_TOKENS, tokens);
        ngx_llm_test_enter(life, z, NGX_HTTP_LLM_TOKENS,
                           NGX_LLM_TEST_OVERRUN, life->now_ns, tokens,
                           life->step);

        ngx_llm_test_seen[NGX_LLM_TEST_SEEN_RAISE]++;

        if (raise.ahead < raise.least || raise.ahead > ngx_max(raise.most,
                                                               raise.least))
        {
            life->broken = "more was taken ahead than was asked for";
        }
    }
}


static void
ngx_llm_test_end(ngx_llm_test_life_t *life, ngx_uint_t i)
{
    int64_t                  costs[NGX_HTTP_LLM_BUDGETS], most;
    uint64_t                 kind;
    ngx_uint_t               z;
    ngx_llm_test_request_t  *request;

    request = &life->requests[i];
    kind = ngx_llm_test_random(life) % 8;

    if (request->asleep) {

        /* most of them sleep on */

        if (kind < 4) {
            ngx_llm_test_close(life, i, ngx_http_llm_hold_nothing, kind == 0);
        }

        return;
    }

    if (kind < 2) {
        ngx_llm_test_close(life, i, ngx_http_llm_hold_nothing, kind == 0);
        return;
    }

    if (kind == 2) {
        ngx_llm_test_seen[NGX_LLM_TEST_SEEN_KEEP]++;
        ngx_llm_test_close(life, i, NULL, 0);
        return;
    }

    ngx_llm_test_seen[NGX_LLM_TEST_SEEN_SETTLE]++;

    /* of the smallest one, or the time of its debt would be cut */

    most = life->budgets[0][NGX_HTTP_LLM_TOKENS].rate.burst;

    for (z = 1; z < NGX_LLM_TEST_ZONES; z++) {
        most = ngx_min(most,
                       life->budgets[z][NGX_HTTP_LLM_TOKENS].rate.burst);
    }

    costs[NGX_HTTP_LLM_TOKENS] = ngx_llm_test_to(life, 2 * most);
    costs[NGX_HTTP_LLM_REQUESTS] = 1;

    ngx_llm_test_close(life, i, costs, 0);
}


/* costs of NULL keeps what was taken; dead: its process is, too */

static void
ngx_llm_test_close(ngx_llm_test_life_t *life, ngx_uint_t i,
    const int64_t *costs, ngx_uint_t dead)
{
    int64_t                  change;
    ngx_uint_t               b, z;
    ngx_http_llm_hold_t     *hold;
    ngx_llm_test_request_t   request;

    request = life->requests[i];

    /* the order is that in which they came */

    life->nrequests--;
    ngx_memmove(&life->requests[i], &life->requests[i + 1],
                (life->nrequests - i) * sizeof(ngx_llm_test_request_t));

    ngx_llm_test_seen[NGX_LLM_TEST_SEEN_LEFT] += request.asleep;

    for (z = 0; z < NGX_LLM_TEST_ZONES; z++) {
        hold = request.holds[z];

        if (hold == NULL) {
            continue;
        }

        for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {

            change = costs ? costs[b] - request.costs[z][b] : 0;

            if (life->budgets[z][b].rate.tokens == 0) {
                continue;
            }

            if (hold->asleep) {

                /* it may have had what it needed here, and sleep for others */

                if (hold->start_ns[b] <= life->now_ns) {
                    ngx_llm_test_enter(life, z, b, NGX_LLM_TEST_ADMIT,
                                       hold->start_ns[b],
                                       request.costs[z][b], request.step);
                    ngx_llm_test_enter(life, z, b, NGX_LLM_TEST_GIVE,
                                       life->now_ns, change, life->step);
                }

            } else {
                ngx_llm_test_enter(life, z, b, (change > 0)
                                               ? NGX_LLM_TEST_OVERRUN
                                               : NGX_LLM_TEST_GIVE,
                                   life->now_ns, change, life->step);
            }

            ngx_llm_test_charge(life, z, b, change);
        }

        if (dead) {
            hold->pid = NGX_LLM_TEST_DEAD;
            ngx_llm_test_seen[NGX_LLM_TEST_SEEN_REAP]++;
            change = ngx_http_llm_zone_reap(&life->zones[z],
                                            NGX_LLM_TEST_DEAD, life->now_ns);

        } else {
            change = ngx_http_llm_zone_settle(&life->zones[z], hold, costs,
                                              costs ? costs[0] / 2 : -1,
                                              life->now_ns);
        }

        ngx_llm_test_seen[NGX_LLM_TEST_SEEN_MOVED] += change;
    }
}


/* other keys' requests fill a zone: nothing is taken of any zone then */

static void
ngx_llm_test_crowd(ngx_llm_test_life_t *life)
{
    u_char                other[NGX_HTTP_LLM_KEY_DIGEST];
    ngx_uint_t            i, n, z;
    ngx_http_llm_take_t   takes[NGX_LLM_TEST_ZONES];
    ngx_http_llm_hold_t  *crowd[1024];
    ngx_uint_t            numbers[NGX_LLM_TEST_ZONES];

    z = ngx_llm_test_to(life, NGX_LLM_TEST_ZONES - 1);

    ngx_memcpy(other, life->digests[z], NGX_HTTP_LLM_KEY_DIGEST);
    other[NGX_HTTP_LLM_KEY_DIGEST - 5] ^= 1;

    for (n = 0; n < 1024; n++) {
        ngx_llm_test_takes(life, takes, numbers);

        takes[0].zone = &life->zones[z];
        takes[0].need = 0;
        takes[0].prompt = 1;
        takes[0].completion = 0;
        takes[0].rates[0].tokens = 100000;
        takes[0].rates[0].burst = 100000;
        takes[0].rates[1].tokens = 0;
        ngx_memcpy(takes[0].digest, other, NGX_HTTP_LLM_KEY_DIGEST);
        ngx_memcpy(takes[0].digest, &n, sizeof(ngx_uint_t));

        if (ngx_http_llm_zone_reserve(takes, 1, life->now_ns) != NGX_OK) {
            break;
        }

        crowd[n] = takes[0].hold;
        ngx_process_slot = ngx_llm_test_to(life, NGX_LLM_TEST_SLOTS);
    }

    /* a key that was made in vain makes room for one hold more */

    ngx_memzero(takes[0].digest, sizeof(ngx_uint_t));

    while (n < 1024
           && ngx_http_llm_zone_reserve(takes, 1, life->now_ns) == NGX_OK)
    {
        crowd[n++] = takes[0].hold;
    }

    if (n == 1024 || !takes[0].refused || n < 64) {
        life->broken = "a zone is never full, or soon";
        return;
    }

    if (ngx_llm_test_free(&life->zones[z])) {
        life->broken = "a zone is full beside memory that is free";
        return;
    }

    ngx_llm_test_seen[NGX_LLM_TEST_SEEN_FULL]++;

    ngx_llm_test_crowded(life, z);

    for (i = 0; i < n; i++) {
        ngx_http_llm_zone_settle(&life->zones[z], crowd[i],
                                 ngx_http_llm_hold_nothing, -1,
                                 life->now_ns);
    }
}


static void
ngx_llm_test_crowded(ngx_llm_test_life_t *life, ngx_uint_t z)
{
    ngx_uint_t           i, k, n;
    ngx_http_llm_take_t  last, takes[NGX_LLM_TEST_ZONES];
    ngx_uint_t           numbers[NGX_LLM_TEST_ZONES];

    /* without holds a key makes room, and is a new one later */

    if (ngx_llm_test_key(life, z) == NULL) {
        life->budgets[z][NGX_HTTP_LLM_TOKENS].exact = 0;
        life->budgets[z][NGX_HTTP_LLM_REQUESTS].exact = 0;
    }

    for (n = 0; n < 20; n++) {

        do {
            k = ngx_llm_test_takes(life, takes, numbers);

            for (i = 0; i < k && numbers[i] != z; i++) { /* void */ }

        } while (k < 2 || i == k);

        /* what has been taken of the others when that is seen comes back */

        last = takes[k - 1];
        takes[k - 1] = takes[i];
        takes[i] = last;

        if (ngx_http_llm_zone_reserve(takes, k, life->now_ns) == NGX_OK) {
            life->broken = "a full zone has let somebody in";
            return;
        }

        ngx_llm_test_check(life);
    }
}
