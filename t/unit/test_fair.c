
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_fair.h"
#include "tap.h"


#define KEYS   64
#define TURNS  20000


static uint64_t
rnd(void)
{
    static uint64_t  state = 0x2545f4914f6cdd1d;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;

    return state;
}


static uint64_t
total(const ngx_llm_fair_key_t *key)
{
    return key->served + key->taken;
}


/* keys that wait for ever, one after the other; tokens by key */

static void
turns(ngx_llm_fair_t *fair, ngx_llm_fair_key_t *keys, size_t n,
    const int64_t *costs, uint64_t *tokens, size_t count)
{
    size_t               i;
    ngx_llm_fair_key_t  *key;

    for (i = 0; i < count; i++) {
        key = ngx_llm_fair_next(fair);

        if (key < keys || key >= keys + n) {
            tap_bail("nobody's turn");
        }

        tokens[key - keys] += costs[key - keys];
        ngx_llm_fair_serve(fair, key, costs[key - keys]);
        ngx_llm_fair_settle(fair, key, costs[key - keys], costs[key - keys]);
    }
}


static void
test_cost(void)
{
    tap_int(ngx_llm_fair_cost(100, 50), 200, "a completion counts twice");
    tap_int(ngx_llm_fair_cost(0, 0), 1, "no turn is free");
    tap_int(ngx_llm_fair_cost(-1, -1), 1, "what is not known is nothing");
    tap_int(ngx_llm_fair_cost(-1, 7), 14, "only a completion");
    tap_int(ngx_llm_fair_cost(INT64_MAX, INT64_MAX), 3 * NGX_LLM_MAX_TOKENS,
            "absurd numbers are cut");
}


static void
test_order(void)
{
    size_t              i, wrong;
    ngx_llm_fair_t      fair;
    ngx_llm_fair_key_t  keys[8];

    memset(&fair, 0, sizeof(fair));
    memset(keys, 0, sizeof(keys));

    tap_ok(ngx_llm_fair_next(&fair) == NULL, "nobody waits");

    for (i = 0; i < 8; i++) {
        ngx_llm_fair_join(&fair, &keys[i]);
    }

    wrong = 0;

    for (i = 0; i < 80; i++) {
        wrong += ngx_llm_fair_next(&fair) != &keys[i % 8];
        ngx_llm_fair_serve(&fair, ngx_llm_fair_next(&fair), 5);
    }

    tap_int(wrong, 0, "equals have their turns in the order of their coming");

    for (i = 0; i < 8; i++) {
        ngx_llm_fair_leave(&fair, &keys[(i * 5) % 8]);
    }

    tap_ok(ngx_llm_fair_next(&fair) == NULL, "all have left");
}


/* one asks for ten times as much in each turn: it has a tenth of the turns */

static void
test_halves(void)
{
    uint64_t            tokens[2], most;
    ngx_llm_fair_t      fair;
    ngx_llm_fair_key_t  keys[2];

    static const int64_t  costs[2] = { 1000, 100 };

    memset(&fair, 0, sizeof(fair));
    memset(keys, 0, sizeof(keys));
    memset(tokens, 0, sizeof(tokens));

    ngx_llm_fair_join(&fair, &keys[0]);
    ngx_llm_fair_join(&fair, &keys[1]);

    turns(&fair, keys, 2, costs, tokens, TURNS);

    most = tokens[0] > tokens[1] ? tokens[0] - tokens[1]
                                 : tokens[1] - tokens[0];

    tap_ok(most <= 1000, "two keys, one greedy: both get half (%ju and %ju)",
           (uintmax_t) tokens[0], (uintmax_t) tokens[1]);
}


/* any number of keys, any costs: apart by one turn at most */

static void
test_shares(void)
{
    size_t              i, n, round, wrong;
    int64_t             costs[KEYS], top;
    uint64_t            least, most, tokens[KEYS];
    ngx_llm_fair_t      fair;
    ngx_llm_fair_key_t  keys[KEYS];

    wrong = 0;

    for (round = 0; round < 50; round++) {
        n = 2 + rnd() % (KEYS - 1);
        top = 0;

        memset(&fair, 0, sizeof(fair));
        memset(keys, 0, sizeof(keys));
        memset(tokens, 0, sizeof(tokens));

        for (i = 0; i < n; i++) {
            costs[i] = 1 + (int64_t) (rnd() % ((round & 1) ? 3 : 5000));
            top = costs[i] > top ? costs[i] : top;
            ngx_llm_fair_join(&fair, &keys[i]);
        }

        turns(&fair, keys, n, costs, tokens, TURNS);

        least = UINT64_MAX;
        most = 0;

        for (i = 0; i < n; i++) {
            least = tokens[i] < least ? tokens[i] : least;
            most = tokens[i] > most ? tokens[i] : most;
        }

        wrong += most - least > (uint64_t) top;
    }

    tap_int(wrong, 0, "keys that always wait are apart by one turn at most");
}


/* after a million tokens of the other, a new key has every second turn */

static void
test_new_key(void)
{
    uint64_t            tokens[2];
    ngx_llm_fair_t      fair;
    ngx_llm_fair_key_t  keys[2];

    static const int64_t  costs[2] = { 100, 100 };

    memset(&fair, 0, sizeof(fair));
    memset(keys, 0, sizeof(keys));
    memset(tokens, 0, sizeof(tokens));

    ngx_llm_fair_join(&fair, &keys[0]);
    turns(&fair, keys, 2, costs, tokens, 10000);

    ngx_llm_fair_join(&fair, &keys[1]);
    memset(tokens, 0, sizeof(tokens));
    turns(&fair, keys, 2, costs, tokens, 2);

    tap_int(tokens[1], 100, "a new key is not starved");

    turns(&fair, keys, 2, costs, tokens, 98);

    tap_int(tokens[1], 5000, "nor has it a credit");

    /* idle for as long again */

    ngx_llm_fair_leave(&fair, &keys[1]);
    turns(&fair, keys, 2, costs, tokens, 10000);

    ngx_llm_fair_join(&fair, &keys[1]);
    memset(tokens, 0, sizeof(tokens));
    turns(&fair, keys, 2, costs, tokens, 100);

    tap_int(tokens[1], 5000, "nor has one that comes back");
}


/* coming and going between its turns is not rewarded either */

static void
test_flapping(void)
{
    size_t              i;
    uint64_t            tokens[2];
    ngx_llm_fair_t      fair;
    ngx_llm_fair_key_t  keys[2];

    static const int64_t  costs[2] = { 100, 100 };

    memset(&fair, 0, sizeof(fair));
    memset(keys, 0, sizeof(keys));
    memset(tokens, 0, sizeof(tokens));

    ngx_llm_fair_join(&fair, &keys[0]);

    for (i = 0; i < TURNS; i++) {
        if (!keys[1].waiting) {
            ngx_llm_fair_join(&fair, &keys[1]);
        }

        turns(&fair, keys, 2, costs, tokens, 1);

        if (i & 1) {
            ngx_llm_fair_leave(&fair, &keys[1]);
        }
    }

    tap_ok(tokens[1] <= tokens[0] + 200,
           "a key that comes and goes gets no more than its half (%ju of %ju)",
           (uintmax_t) tokens[1], (uintmax_t) (tokens[0] + tokens[1]));
    tap_ok(tokens[1] >= tokens[0] / 2, "nor is it starved");
}


/* a turn is taken for 500 tokens; those of one key cost a tenth of it */

static void
test_settle(void)
{
    size_t               i;
    uint64_t             tokens[2];
    ngx_llm_fair_t       fair;
    ngx_llm_fair_key_t   keys[2], *key, *out[4];

    static const int64_t  costs[2] = { 50, 500 };

    memset(&fair, 0, sizeof(fair));
    memset(keys, 0, sizeof(keys));
    memset(tokens, 0, sizeof(tokens));

    ngx_llm_fair_join(&fair, &keys[0]);
    ngx_llm_fair_join(&fair, &keys[1]);

    /* four places */

    for (i = 0; i < TURNS; i++) {
        if (i >= 4) {
            key = out[i % 4];
            tokens[key - keys] += costs[key - keys];
            ngx_llm_fair_settle(&fair, key, 500, costs[key - keys]);
        }

        out[i % 4] = ngx_llm_fair_next(&fair);
        ngx_llm_fair_serve(&fair, out[i % 4], 500);
    }

    tap_ok(tokens[0] + 2000 >= tokens[1] && tokens[1] + 2000 >= tokens[0],
           "what counts is what turns cost, not what they were taken for "
           "(%ju and %ju)", (uintmax_t) tokens[0], (uintmax_t) tokens[1]);
}


/*
 * A key has four turns, each taken for 5000 and come to 10: a new key need
 * not wait for the difference
 */

static void
test_new_key_now(void)
{
    size_t              i, first;
    ngx_llm_fair_t      fair;
    ngx_llm_fair_key_t  keys[2];

    memset(&fair, 0, sizeof(fair));
    memset(keys, 0, sizeof(keys));

    ngx_llm_fair_join(&fair, &keys[0]);

    for (i = 0; i < 4; i++) {
        ngx_llm_fair_serve(&fair, &keys[0], 5000);
    }

    ngx_llm_fair_join(&fair, &keys[1]);

    for (i = 0; i < 4; i++) {
        ngx_llm_fair_settle(&fair, &keys[0], 5000, 10);
    }

    first = 0;

    for (i = 0; i < 8; i++) {
        first += ngx_llm_fair_next(&fair) == &keys[1];
        ngx_llm_fair_serve(&fair, ngx_llm_fair_next(&fair), 10);
    }

    tap_int(first, 6, "a new key catches up with turns that have not ended");
}


/* while a turn lasts that comes to nothing, others have a thousand */

static void
test_idle(void)
{
    uint64_t            tokens[2];
    ngx_llm_fair_t      fair;
    ngx_llm_fair_key_t  keys[2];

    static const int64_t  costs[2] = { 100, 100 };

    memset(&fair, 0, sizeof(fair));
    memset(keys, 0, sizeof(keys));

    ngx_llm_fair_join(&fair, &keys[0]);
    ngx_llm_fair_serve(&fair, &keys[0], 5000);
    ngx_llm_fair_leave(&fair, &keys[0]);

    tap_ok(!ngx_llm_fair_is_new(&fair, &keys[0]), "a turn is remembered");

    ngx_llm_fair_join(&fair, &keys[1]);
    turns(&fair, keys, 2, costs, tokens, 1000);

    ngx_llm_fair_join(&fair, &keys[0]);
    ngx_llm_fair_settle(&fair, &keys[0], 5000, 0);
    tap_ok(keys[0].served == keys[1].served && keys[0].taken == 0,
           "a turn that cost nothing gives no credit");
    tap_ok(!ngx_llm_fair_is_new(&fair, &keys[0]), "who waits is remembered");

    ngx_llm_fair_leave(&fair, &keys[0]);
    turns(&fair, keys, 2, costs, tokens, 2);
    tap_ok(ngx_llm_fair_is_new(&fair, &keys[0]),
           "who was served less than all who wait is as good as new");

    ngx_llm_fair_leave(&fair, &keys[1]);
    tap_ok(!ngx_llm_fair_is_new(&fair, &keys[1]), "who was served more is not");
}


/* the heap against a search, through all that may happen to a key */

static void
test_model(void)
{
    size_t               i, steps, wrong;
    ngx_llm_fair_t       fair;
    ngx_llm_fair_key_t   keys[KEYS], *best, *key;

    memset(&fair, 0, sizeof(fair));
    memset(keys, 0, sizeof(keys));

    wrong = 0;

    for (steps = 0; steps < 200000; steps++) {
        key = &keys[rnd() % KEYS];

        switch (rnd() % 5) {

        case 0:
        case 1:
            if (!key->waiting) {
                ngx_llm_fair_join(&fair, key);
            }

            break;

        case 2:
            if (key->waiting) {
                ngx_llm_fair_leave(&fair, key);
            }

            break;

        case 3:
            if (key->turns) {
                ngx_llm_fair_settle(&fair, key, 500, rnd() % 1000);
            }

            break;

        default:
            if (fair.root) {
                ngx_llm_fair_serve(&fair, ngx_llm_fair_next(&fair), 500);
            }
        }

        best = NULL;

        for (i = 0; i < KEYS; i++) {
            if (keys[i].waiting
                && (best == NULL
                    || total(&keys[i]) < total(best)
                    || (total(&keys[i]) == total(best)
                        && keys[i].order < best->order)))
            {
                best = &keys[i];
            }
        }

        wrong += best != ngx_llm_fair_next(&fair);
    }

    tap_int(wrong, 0, "next is who has least, %d times", (int) steps);
}


int
main(void)
{
    test_cost();
    test_order();
    test_halves();
    test_shares();
    test_new_key();
    test_flapping();
    test_settle();
    test_new_key_now();
    test_idle();
    test_model();

    return tap_done();
}
