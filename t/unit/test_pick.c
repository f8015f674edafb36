
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_pick.h"
#include "tap.h"


#define PICKS    10000
#define SERVERS  8


static uint64_t
rnd(void)
{
    static uint64_t  state = 0x853c49e6748fea9b;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;

    return state;
}


static ngx_llm_pick_t
fold(const ngx_llm_candidate_t *candidates, size_t n)
{
    size_t          i;
    ngx_llm_pick_t  pick;

    memset(&pick, 0, sizeof(pick));

    for (i = 0; i < n; i++) {
        ngx_llm_pick_fold(&pick, &candidates[i], rnd() >> 32);
    }

    return pick;
}


static void
test_table(void)
{
    size_t          i;
    ngx_llm_pick_t  pick;

    static const struct {
        const char           *name;
        ngx_llm_candidate_t   candidates[3];
        size_t                n;
        uint32_t              want;
        uint32_t              ties;
    } table[] = {
        { "the only one", { { 7, 99, 1, 0 } }, 1, 7, 1 },
        { "fewer in flight",
          { { 0, 2, 1, 0 }, { 1, 1, 1, 0 }, { 2, 3, 1, 0 } }, 3, 1, 1 },
        { "the heavier of two idle ones",
          { { 0, 0, 1, 0 }, { 1, 0, 2, 0 } }, 2, 1, 1 },
        { "weight 3 until it has three times as many",
          { { 0, 4, 3, 0 }, { 1, 1, 1, 0 } }, 2, 0, 1 },
        { "then the other",
          { { 0, 6, 3, 0 }, { 1, 1, 1, 0 } }, 2, 1, 1 },
        { "failures weigh like requests",
          { { 0, 0, 1, 5 }, { 1, 4, 1, 0 } }, 2, 1, 1 },
        { "failing fast is not idle",
          { { 0, 0, 1, UINT32_MAX }, { 1, 100000, 1, 0 } }, 2, 1, 1 },
        { "a product of 65 bits does not wrap around",
          { { 0, UINT32_MAX, UINT32_MAX, UINT32_MAX },
            { 1, 7, 0x80000001, 0 } }, 2, 1, 1 },
        { "the largest numbers are compared",
          { { 0, UINT32_MAX, 1, UINT32_MAX },
            { 1, UINT32_MAX, UINT32_MAX, UINT32_MAX },
            { 2, UINT32_MAX, UINT32_MAX - 1, UINT32_MAX } }, 3, 1, 1 }
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        pick = fold(table[i].candidates, table[i].n);

        tap_ok(pick.best.index == table[i].want
               && pick.ties == table[i].ties,
               "%s", table[i].name);
    }

    memset(&pick, 0, sizeof(pick));
    tap_int(pick.ties, 0, "nothing folded in is nobody picked");
}


/* each of n equals gets its share, wherever it stands; five deviations */

static void
test_ties(void)
{
    size_t               i, n;
    int64_t              off;
    uint32_t             hits[SERVERS];
    ngx_llm_pick_t       pick;
    ngx_llm_candidate_t  candidates[SERVERS + 1];

    for (n = 2; n <= SERVERS; n++) {
        memset(hits, 0, sizeof(hits));

        /* equal by cross multiplication, not by their numbers */

        for (i = 1; i <= n; i++) {
            candidates[i].index = i - 1;
            candidates[i].inflight = i * 3 - 1;
            candidates[i].weight = i;
            candidates[i].penalty = 0;
        }

        /* and in front of them one that is worse */

        candidates[0].index = n;
        candidates[0].inflight = 1000;
        candidates[0].weight = 1;
        candidates[0].penalty = 0;

        for (i = 0; i < PICKS; i++) {
            pick = fold(candidates, n + 1);

            if (pick.best.index >= n || pick.ties != n) {
                tap_bail("no tie");
            }

            hits[pick.best.index]++;
        }

        off = 0;

        for (i = 0; i < n; i++) {
            if (((int64_t) hits[i] * (int64_t) n - PICKS)
                * ((int64_t) hits[i] * (int64_t) n - PICKS)
                > 25 * (int64_t) PICKS * ((int64_t) n - 1))
            {
                off++;
            }
        }

        tap_int(off, 0, "%d equals are picked evenly, %d times", (int) n,
                PICKS);
    }
}


/* requests that never end spread by weight */

static void
test_weights(void)
{
    size_t               i, sum;
    ngx_llm_pick_t       pick;
    ngx_llm_candidate_t  candidates[4];

    sum = 0;

    for (i = 0; i < 4; i++) {
        candidates[i].index = i;
        candidates[i].inflight = 0;
        candidates[i].weight = i + 1;
        candidates[i].penalty = 0;
        sum += i + 1;
    }

    for (i = 0; i < PICKS; i++) {
        pick = fold(candidates, 4);
        candidates[pick.best.index].inflight++;
    }

    for (i = 0; i < 4; i++) {
        tap_ok(candidates[i].inflight >= PICKS * (i + 1) / sum - 1
               && candidates[i].inflight <= PICKS * (i + 1) / sum + 1,
               "weight %d has its share of %d: %u", (int) i + 1, PICKS,
               candidates[i].inflight);
    }
}


/* the pick is a minimum, compared as fractions */

static void
test_minimum(void)
{
    size_t               i, j, n, failed;
    long double          best, load;
    ngx_llm_pick_t       pick;
    ngx_llm_candidate_t  candidates[SERVERS];

    failed = 0;

    for (i = 0; i < PICKS; i++) {
        n = 1 + rnd() % SERVERS;

        for (j = 0; j < n; j++) {
            candidates[j].index = j;
            candidates[j].inflight = rnd() % ((i & 1) ? 5 : 100000);
            candidates[j].weight = 1 + rnd() % ((i & 2) ? 3 : 1000);
            candidates[j].penalty = (rnd() & 3) ? 0 : rnd() % 50;
        }

        pick = fold(candidates, n);

        best = (pick.best.inflight + pick.best.penalty + 1.0L)
               / pick.best.weight;

        for (j = 0; j < n; j++) {
            load = (candidates[j].inflight + candidates[j].penalty + 1.0L)
                   / candidates[j].weight;

            failed += load < best - best * 1e-15L;
        }
    }

    tap_int(failed, 0, "nobody has less work than who is picked, %d times",
            PICKS);
}


int
main(void)
{
    test_table();
    test_ties();
    test_weights();
    test_minimum();

    return tap_done();
}
