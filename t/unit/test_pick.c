
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_pick.h"
#include "tap.h"


#define PICKS    10000
#define SERVERS  8

/* where requests in flight are all that counts */
#define BY_REQUESTS(index, inflight, weight, penalty)                         \
    { index, inflight, weight, penalty, 0, 0, 0, 0, 1, 0 }


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

    (void) ngx_llm_pick_end(&pick, 1250, rnd() >> 32);

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
        { "the only one", { BY_REQUESTS(7, 99, 1, 0) }, 1, 7, 1 },
        { "fewer in flight",
          { BY_REQUESTS(0, 2, 1, 0), BY_REQUESTS(1, 1, 1, 0),
            BY_REQUESTS(2, 3, 1, 0) }, 3, 1, 1 },
        { "the heavier of two idle ones",
          { BY_REQUESTS(0, 0, 1, 0), BY_REQUESTS(1, 0, 2, 0) }, 2, 1, 1 },
        { "weight 3 until it has three times as many",
          { BY_REQUESTS(0, 4, 3, 0), BY_REQUESTS(1, 1, 1, 0) }, 2, 0, 1 },
        { "then the other",
          { BY_REQUESTS(0, 6, 3, 0), BY_REQUESTS(1, 1, 1, 0) }, 2, 1, 1 },
        { "failures weigh like requests",
          { BY_REQUESTS(0, 0, 1, 5), BY_REQUESTS(1, 4, 1, 0) }, 2, 1, 1 },
        { "failing fast is not idle",
          { BY_REQUESTS(0, 0, 1, UINT32_MAX),
            BY_REQUESTS(1, 100000, 1, 0) }, 2, 1, 1 },
        { "a product of 65 bits does not wrap around",
          { BY_REQUESTS(0, UINT32_MAX, UINT32_MAX, UINT32_MAX),
            BY_REQUESTS(1, 7, 0x80000001, 0) }, 2, 1, 1 },
        { "the largest numbers are compared",
          { BY_REQUESTS(0, UINT32_MAX, 1, UINT32_MAX),
            BY_REQUESTS(1, UINT32_MAX, UINT32_MAX, UINT32_MAX),
            BY_REQUESTS(2, UINT32_MAX, UINT32_MAX - 1, UINT32_MAX) }, 3, 1, 1 }
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

    memset(candidates, 0, sizeof(candidates));

    for (n = 2; n <= SERVERS; n++) {
        memset(hits, 0, sizeof(hits));

        /* equal by cross multiplication, not by their numbers */

        for (i = 1; i <= n; i++) {
            candidates[i].index = i - 1;
            candidates[i].inflight = i * 3 - 1;
            candidates[i].weight = i;
            candidates[i].request_ns = 1;
        }

        /* and in front of them one that is worse */

        candidates[0].index = n;
        candidates[0].inflight = 1000;
        candidates[0].weight = 1;
        candidates[0].request_ns = 1;

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

    memset(candidates, 0, sizeof(candidates));
    sum = 0;

    for (i = 0; i < 4; i++) {
        candidates[i].index = i;
        candidates[i].inflight = 0;
        candidates[i].weight = i + 1;
        candidates[i].request_ns = 1;
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

    memset(candidates, 0, sizeof(candidates));
    failed = 0;

    for (i = 0; i < PICKS; i++) {
        n = 1 + rnd() % SERVERS;

        for (j = 0; j < n; j++) {
            candidates[j].index = j;
            candidates[j].inflight = rnd() % ((i & 1) ? 5 : 100000);
            candidates[j].weight = 1 + rnd() % ((i & 2) ? 3 : 1000);
            candidates[j].penalty = (rnd() & 3) ? 0 : rnd() % 50;
            candidates[j].request_ns = 1;
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


/*
 * By tokens: index, in flight, weight, penalty, pending, uncached, held,
 * token_ns, request_ns, warm.  A token takes 50 us here, a request weighs as
 * 256.
 */

#define TOKEN    50000
#define REQUEST  (256 * TOKEN)

static void
test_tokens(void)
{
    size_t          i;
    ngx_llm_pick_t  pick;

    static const struct {
        const char           *name;
        ngx_llm_candidate_t   candidates[3];
        size_t                n;
        uint32_t              want;
    } table[] = {
        { "one long prompt weighs more than ten answers under way",
          { { 0, 1, 1, 0, 9000, 100, 0, TOKEN, REQUEST, 0 },
            { 1, 10, 1, 0, 0, 100, 0, TOKEN, REQUEST, 0 } }, 2, 1 },
        { "without prompts to read it is the fewest in flight",
          { { 0, 4, 1, 0, 0, 100, 0, TOKEN, REQUEST, 0 },
            { 1, 3, 1, 0, 0, 100, 0, TOKEN, REQUEST, 0 } }, 2, 1 },
        { "the faster of two, though more is pending there",
          { { 0, 1, 1, 0, 4000, 1000, 0, 2 * TOKEN, REQUEST, 0 },
            { 1, 2, 1, 0, 6000, 1000, 0, TOKEN, REQUEST, 0 } }, 2, 1 },
        { "of two idle ones the faster, for a long prompt",
          { { 0, 0, 1, 0, 0, 1000, 0, 2 * TOKEN, REQUEST, 0 },
            { 1, 0, 1, 0, 0, 1000, 0, TOKEN, REQUEST, 0 } }, 2, 1 },
        { "twice the weight carries twice as much",
          { { 0, 1, 2, 0, 8000, 1000, 0, TOKEN, REQUEST, 0 },
            { 1, 1, 1, 0, 5000, 1000, 0, TOKEN, REQUEST, 0 } }, 2, 0 },
        { "a failure weighs as much as this request",
          { { 0, 0, 1, 4, 0, 9000, 0, TOKEN, REQUEST, 0 },
            { 1, 1, 1, 0, 30000, 9000, 0, TOKEN, REQUEST, 0 } }, 2, 1 },
        { "a warm server within the bound, though an idle one is there",
          { { 0, 1, 1, 0, 600, 5000, 0, TOKEN, REQUEST, 1 },
            { 1, 0, 1, 0, 0, 5000, 0, TOKEN, REQUEST, 0 },
            { 2, 9, 1, 0, 9000, 5000, 0, TOKEN, REQUEST, 0 } }, 3, 0 },
        { "a warm server over the bound, where another starts sooner",
          { { 0, 9, 1, 0, 9000, 0, 0, TOKEN, REQUEST, 1 },
            { 1, 0, 1, 0, 0, 5000, 0, TOKEN, REQUEST, 0 } }, 2, 1 },
        { "a warm server over the bound, where reading again takes longer",
          { { 0, 1, 1, 0, 4000, 0, 0, TOKEN, REQUEST, 1 },
            { 1, 0, 1, 0, 0, 5000, 0, TOKEN, REQUEST, 0 } }, 2, 0 },
        { "a warm server whose queue takes longer than reading it again",
          { { 0, 1, 1, 0, 9000, 0, 5000, TOKEN, REQUEST, 1 },
            { 1, 1, 1, 0, 0, 5000, 0, TOKEN, REQUEST, 0 } }, 2, 0 },
        { "a warm server whose queue takes longer than reading it twice",
          { { 0, 1, 1, 0, 11000, 0, 5000, TOKEN, REQUEST, 1 },
            { 1, 1, 1, 0, 0, 5000, 0, TOKEN, REQUEST, 0 } }, 2, 1 },
        { "failures weigh on a server that holds all of it, too",
          { { 0, 9, 1, 9, 0, 0, 5000, TOKEN, REQUEST, 1 },
            { 1, 0, 1, 0, 0, 1000, 0, TOKEN, REQUEST, 0 } }, 2, 1 },
        { "the idler of two warm ones",
          { { 0, 1, 1, 0, 600, 0, 0, TOKEN, REQUEST, 1 },
            { 1, 1, 1, 0, 300, 0, 0, TOKEN, REQUEST, 1 },
            { 2, 9, 1, 0, 9000, 5000, 0, TOKEN, REQUEST, 0 } }, 3, 1 },
        { "a warm server that fails",
          { { 0, 0, 1, 4, 0, 0, 0, TOKEN, REQUEST, 1 },
            { 1, 0, 1, 0, 0, 100, 0, TOKEN, REQUEST, 0 } }, 2, 1 },
        { "an idle warm server, among idle ones",
          { { 0, 0, 1, 0, 0, 5000, 0, TOKEN, REQUEST, 0 },
            { 1, 0, 1, 0, 0, 5000, 0, TOKEN, REQUEST, 1 },
            { 2, 0, 1, 0, 0, 5000, 0, TOKEN, REQUEST, 0 } }, 3, 1 },
        { "requests alone: warm within the bound",
          { { 0, 5, 1, 0, 0, 0, 0, 0, 1, 1 },
            { 1, 3, 1, 0, 0, 0, 0, 0, 1, 0 } }, 2, 0 },
        { "requests alone: warm over the bound",
          { { 0, 6, 1, 0, 0, 0, 0, 0, 1, 1 },
            { 1, 3, 1, 0, 0, 0, 0, 0, 1, 0 } },
          2, 1 },
        { "requests alone: warm, with more weight",
          { { 0, 9, 3, 0, 0, 0, 0, 0, 1, 1 },
            { 1, 3, 1, 0, 0, 0, 0, 0, 1, 0 } },
          2, 0 },
        { "the largest numbers of all",
          { { 0, UINT32_MAX, 1, UINT32_MAX, UINT32_MAX, UINT32_MAX, 0,
              UINT32_MAX, UINT32_MAX, 0 },
            { 1, UINT32_MAX, 2, UINT32_MAX, UINT32_MAX, UINT32_MAX, 0,
              UINT32_MAX, UINT32_MAX, 0 } }, 2, 1 }
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        pick = fold(table[i].candidates, table[i].n);

        tap_int(pick.best.index, table[i].want, "%s", table[i].name);
    }

    memset(&pick, 0, sizeof(pick));
    tap_ok(ngx_llm_pick_end(&pick, 1250, 0) == NULL, "nobody to be picked");
}


/*
 * Keys of very different demand: no server is above the bound by more than
 * one request, and all but what the bound cuts off stays where it was.
 */

static void
test_bound(void)
{
    size_t                      i, j, key, over, stayed;
    uint32_t                    sum;
    ngx_llm_pick_t              pick;
    const ngx_llm_candidate_t  *best;
    ngx_llm_candidate_t         candidates[SERVERS];
    uint32_t                    home[64];

    memset(candidates, 0, sizeof(candidates));
    memset(home, 0xff, sizeof(home));

    over = 0;
    stayed = 0;
    sum = 0;

    for (i = 0; i < PICKS; i++) {

        /* half of all requests have key 0; one in 100 leaves again */

        key = (rnd() & 1) ? 0 : rnd() % 64;

        memset(&pick, 0, sizeof(pick));

        for (j = 0; j < SERVERS; j++) {
            candidates[j].index = j;
            candidates[j].weight = 1;
            candidates[j].request_ns = 1;
            candidates[j].warm = (home[key] == j);

            ngx_llm_pick_fold(&pick, &candidates[j], rnd() >> 32);
        }

        best = ngx_llm_pick_end(&pick, 1250, rnd() >> 32);

        stayed += (best->index == home[key]);
        home[key] = best->index;

        candidates[best->index].inflight++;
        sum++;

        over += (candidates[best->index].inflight - 1) * SERVERS * 1000ULL
                > sum * 1250ULL;

        if (i % 4 == 3) {
            j = rnd() % SERVERS;

            if (candidates[j].inflight) {
                candidates[j].inflight--;
                sum--;
            }
        }
    }

    tap_int(over, 0, "no server goes above 1.25 times the mean");
    tap_ok(stayed > PICKS * 6 / 10, "most requests stay with their server: %d",
           (int) stayed);
}


int
main(void)
{
    test_table();
    test_tokens();
    test_bound();
    test_ties();
    test_weights();
    test_minimum();

    return tap_done();
}
