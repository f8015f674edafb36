
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Leases: what they hold, ask for and give back, and random lives of three
 * nodes that share one bucket by them.
 *
 *     PROPERTY_SEQUENCES=50 PROPERTY_SEED=7 build/unit/test_lease
 */


#include "ngx_llm_bucket.h"
#include "ngx_llm_lease.h"
#include "tap.h"


#define SECOND     ((int64_t) 1000000000)
#define NODES      3
#define HOLDS      8
#define STEPS      200
#define SEQUENCES  100000


typedef __int128  wide_t;


static void
test_size(void)
{
    size_t                i;
    ngx_llm_lease_size_t  size;

    static const struct {
        int64_t  burst;
        int64_t  percent;
        int64_t  want;
    } table[] = {
        { 0, 5, 0 },
        { -1, 5, 0 },
        { 1, 1, 1 },
        { 99, 1, 1 },
        { 100, 1, 1 },
        { 199, 1, 1 },
        { 200, 1, 2 },
        { 50000, 5, 2500 },
        { 12345, 100, 12345 },
        { INT64_MAX, 100, INT64_MAX }
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        size.burst[0] = table[i].burst;
        size.percent = table[i].percent;

        tap_int(ngx_llm_lease_most(&size, 0), table[i].want,
                "%jd%% of a burst of %jd", (intmax_t) size.percent,
                (intmax_t) size.burst[0]);
    }
}


/* burst 1000 tokens and 100 requests, 10%: 100 and 10 at most */

static const ngx_llm_lease_size_t  tenth = { { 1000, 100 }, 10 };


static int
take(ngx_llm_lease_t *lease, int64_t tokens, int64_t requests, int64_t now_ns)
{
    int64_t  costs[NGX_LLM_LEASE_BUDGETS] = { tokens, requests };

    return ngx_llm_lease_take(lease, costs, now_ns);
}


static void
settle(ngx_llm_lease_t *lease, int64_t held, int64_t final)
{
    int64_t  before[NGX_LLM_LEASE_BUDGETS] = { held, 1 };
    int64_t  after[NGX_LLM_LEASE_BUDGETS] = { final, 1 };

    ngx_llm_lease_settle(lease, before, after);
}


static int
granted(ngx_llm_lease_t *lease, int64_t tokens, int64_t requests,
    int64_t now_ns)
{
    int64_t  grants[NGX_LLM_LEASE_BUDGETS] = { tokens, requests };

    return ngx_llm_lease_granted(lease, grants, now_ns);
}


static void
test_life(void)
{
    int64_t               now;
    ngx_llm_lease_t       lease;
    ngx_llm_lease_call_t  call;

    now = SECOND;
    memset(&lease, 0, sizeof(lease));

    tap_ok(!take(&lease, 10, 1, now), "who has no lease asks the bucket");
    tap_ok(!ngx_llm_lease_want(&lease, &tenth, now, &call),
           "one request is no reason for a lease");

    tap_ok(!take(&lease, 10, 1, now + 1), "the second one has none either");
    tap_ok(ngx_llm_lease_want(&lease, &tenth, now + 1, &call),
           "but is a reason");
    tap_int(call.want[0], 75, "three quarters of 100 tokens are asked for");
    tap_int(call.want[1], 8, "and of 10 requests, rounded up");
    tap_int(call.debt[0] + call.debt[1], 0, "nothing is owed");

    tap_ok(!ngx_llm_lease_want(&lease, &tenth, now + 2, &call),
           "nothing more is asked before the answer");

    tap_ok(granted(&lease, 75, 8, now + 3), "the answer");
    tap_ok(!granted(&lease, 75, 8, now + 3), "the same once more is none");
    tap_int(lease.left[0], 75, "it counts once");

    tap_ok(!take(&lease, 76, 1, now + 4), "not more than there is");
    tap_ok(take(&lease, 25, 1, now + 4), "some of it, without a question");
    tap_ok(!ngx_llm_lease_want(&lease, &tenth, now + 4, &call),
           "half is left: nothing is asked");
    tap_ok(take(&lease, 1, 1, now + 4), "one more");
    tap_ok(ngx_llm_lease_want(&lease, &tenth, now + 4, &call),
           "less than half is left: it is asked before there is nothing");
    tap_int(call.want[0], 26, "as much as it lacks");

    ngx_llm_lease_failed(&lease, now + 5);
    tap_ok(!ngx_llm_lease_want(&lease, &tenth, now + 6, &call),
           "after a failure not at once");
    tap_ok(ngx_llm_lease_want(&lease, &tenth,
                              now + 5 + NGX_LLM_LEASE_RETRY_NS, &call),
           "but soon");
    tap_ok(!granted(&lease, 27, 2, now + 7),
           "more than was asked is no answer");
    tap_ok(!granted(&lease, -1, 2, now + 7), "nor is less than nothing");
    tap_int(lease.left[0], 49, "and gives nothing");
}


static void
test_back(void)
{
    int64_t               now;
    ngx_llm_lease_t       lease;
    ngx_llm_lease_call_t  call;

    now = SECOND;
    memset(&lease, 0, sizeof(lease));
    lease.left[0] = 75;
    lease.left[1] = 8;

    tap_ok(take(&lease, 60, 1, now), "a request takes 60");
    tap_ok(take(&lease, 10, 1, now), "another one 10");
    tap_ok(ngx_llm_lease_want(&lease, &tenth, now, &call)
           && granted(&lease, call.want[0], call.want[1], now),
           "they are replaced");

    settle(&lease, 60, 40);
    tap_int(lease.left[0], 95, "what was not used comes back");
    tap_ok(!ngx_llm_lease_give(&lease, &tenth, now, &call),
           "and stays, up to the lease's size");

    settle(&lease, 10, 0);
    tap_ok(ngx_llm_lease_give(&lease, &tenth, now, &call),
           "what is beyond its size goes back");
    tap_int(call.want[0], -30, "down to three quarters");
    tap_int(call.want[1], 0, "only of the budget that has too much");
    tap_int(lease.left[0], 75, "and is not there any more");

    tap_ok(!ngx_llm_lease_give(&lease, &tenth,
                               now + NGX_LLM_LEASE_IDLE_NS - 1, &call),
           "nothing more as long as requests come");
    tap_ok(ngx_llm_lease_give(&lease, &tenth, now + NGX_LLM_LEASE_IDLE_NS,
                              &call),
           "when none came for some seconds");
    tap_int(call.want[0], -75, "all tokens go back");
    tap_int(call.want[1], -8, "and all requests");
    tap_ok(!ngx_llm_lease_give(&lease, &tenth,
                               now + 2 * NGX_LLM_LEASE_IDLE_NS, &call),
           "once");
    tap_ok(!ngx_llm_lease_want(&lease, &tenth,
                               now + 2 * NGX_LLM_LEASE_IDLE_NS, &call),
           "and nothing is asked for");
}


static void
test_debt(void)
{
    int64_t               now;
    ngx_llm_lease_t       lease;
    ngx_llm_lease_call_t  call;

    now = SECOND;
    memset(&lease, 0, sizeof(lease));
    lease.left[0] = 75;
    lease.left[1] = 8;

    tap_ok(take(&lease, 70, 1, now), "a request takes 70");
    settle(&lease, 70, 500);
    tap_int(lease.left[0], -425, "and uses 500");
    tap_ok(!take(&lease, 0, 1, now), "in debt not even nothing is given");

    tap_ok(ngx_llm_lease_want(&lease, &tenth, now, &call),
           "the bucket is told");
    tap_int(call.debt[0], 425, "of all of it");
    tap_int(call.want[0], 75, "and asked for a lease besides");
    tap_ok(call.debt[1] == 0 && call.want[1] == 1, "of requests only for one");

    settle(&lease, 10, 13);
    tap_ok(granted(&lease, 0, 0, now), "the debt is paid, nothing is there");
    tap_int(lease.left[0], -3, "what was used meanwhile is owed");
    tap_ok(!ngx_llm_lease_want(&lease, &tenth, now + 1, &call),
           "who got nothing does not ask at once");

    tap_ok(ngx_llm_lease_drop(&lease, &call), "at exit");
    tap_int(call.debt[0], 3, "the rest of the debt is told");
    tap_int(call.want[1], -7, "with the requests that are left");
    tap_ok(!ngx_llm_lease_drop(&lease, &call), "once");

    /* owed by a key that nobody comes for any more */

    memset(&lease, 0, sizeof(lease));
    settle(&lease, 0, 9);
    tap_ok(ngx_llm_lease_want(&lease, &tenth, now, &call), "a late debt");
    tap_ok(call.debt[0] == 9 && call.want[0] == 0, "is paid without a lease");
    tap_ok(!ngx_llm_lease_want(&lease, &tenth,
                               now + NGX_LLM_LEASE_LOST_NS - 1, &call),
           "the answer is awaited");
    tap_ok(!ngx_llm_lease_want(&lease, &tenth, now + NGX_LLM_LEASE_LOST_NS,
                               &call),
           "one that never comes is a failure");
    tap_ok(ngx_llm_lease_want(&lease, &tenth,
                              now + NGX_LLM_LEASE_LOST_NS
                              + NGX_LLM_LEASE_RETRY_NS, &call)
           && call.debt[0] == 9, "and the debt is told once more");

    memset(&lease, 0, sizeof(lease));
    settle(&lease, 0, INT64_MAX / 4);
    settle(&lease, 0, INT64_MAX / 4);
    settle(&lease, 0, INT64_MAX / 4);
    settle(&lease, 0, INT64_MAX / 4);
    settle(&lease, 0, INT64_MAX / 4);
    tap_ok(lease.left[0] < 0, "no debt overflows");
}


typedef struct {
    uint64_t              random;
    int64_t               now_ns;

    ngx_llm_rate_t        rate;
    ngx_llm_bucket_t      bucket;
    ngx_llm_lease_size_t  size;
    ngx_llm_lease_t       nodes[NODES];

    /* questions on their way */
    ngx_llm_lease_call_t  calls[NODES];

    /* of a node; below 0: none, as a hold takes at least 0 */
    int64_t               holds[NODES][HOLDS];

    /* tokens that requests took, and the least of that less what time gave */
    wide_t                sum;
    wide_t                least;
    int                   any;

    const char           *broken;
} life_t;


static uint64_t  seen_local;
static uint64_t  seen_asked;
static uint64_t  seen_given;
static uint64_t  seen_debt;
static uint64_t  seen_refused;


/* splitmix64 */

static int64_t
rnd_to(life_t *life, int64_t max)
{
    uint64_t  z;

    life->random += 0x9e3779b97f4a7c15;

    z = life->random;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;

    return (z ^ (z >> 31)) % ((uint64_t) max + 1);
}


/*
 * Over by no more than a lease a node, and what streams overran: that is
 * owed by their node, or put the bucket in debt.
 */

static void
enter(life_t *life, int64_t cost, int admitted)
{
    int      n;
    wide_t   ahead, more;
    int64_t  level;

    ahead = life->sum * life->rate.period_ns
            - (wide_t) life->now_ns * life->rate.tokens;

    if (cost > 0 && (!life->any || ahead < life->least)) {
        life->least = ahead;
        life->any = 1;
    }

    life->sum += cost;
    ahead += (wide_t) cost * life->rate.period_ns;

    more = life->rate.burst + NODES * ngx_llm_lease_most(&life->size, 0);

    level = ngx_llm_bucket_level(&life->bucket, &life->rate, life->now_ns);
    more += (level < 0) ? -level : 0;

    for (n = 0; n < NODES; n++) {
        more += (life->nodes[n].left[0] < 0) ? -life->nodes[n].left[0] : 0;
    }

    if (admitted && ahead - life->least > more * life->rate.period_ns) {
        life->broken = "more was taken than a lease a node explains";
    }
}


static void
tell(life_t *life, ngx_llm_lease_call_t *call)
{
    ngx_llm_bucket_take(&life->bucket, &life->rate, call->debt[0],
                        life->now_ns);

    if (call->want[0] < 0) {
        ngx_llm_bucket_take(&life->bucket, &life->rate, call->want[0],
                            life->now_ns);
    }
}


static void
housekeep(life_t *life, int n)
{
    ngx_llm_lease_t       *lease;
    ngx_llm_lease_call_t   call;

    lease = &life->nodes[n];

    if (ngx_llm_lease_give(lease, &life->size, life->now_ns, &call)) {
        tell(life, &call);
        seen_given++;
    }

    if (lease->left[0] > ngx_llm_lease_most(&life->size, 0)) {
        life->broken = "a node holds more than its lease";
    }

    if (ngx_llm_lease_want(lease, &life->size, life->now_ns, &call)) {
        life->calls[n] = call;
        seen_debt += (call.debt[0] > 0);
    }
}


/* some answers are lost: what they took is given back by whoever asked */

static void
answer(life_t *life, int n)
{
    int64_t           grants[NGX_LLM_LEASE_BUDGETS], level;
    ngx_llm_lease_t  *lease;

    lease = &life->nodes[n];

    if (lease->asked_ns == 0) {
        return;
    }

    if (rnd_to(life, 15) == 0) {
        ngx_llm_lease_failed(lease, life->now_ns);
        return;
    }

    tell(life, &life->calls[n]);

    level = ngx_llm_bucket_level(&life->bucket, &life->rate, life->now_ns);
    level = (level > 0) ? level : 0;

    grants[0] = (level < life->calls[n].want[0]) ? level
                                                 : life->calls[n].want[0];
    grants[1] = 0;

    ngx_llm_bucket_take(&life->bucket, &life->rate, grants[0], life->now_ns);

    if (!ngx_llm_lease_granted(lease, grants, life->now_ns)) {
        life->broken = "an answer was not taken";
    }
}


static void
request(life_t *life, int n)
{
    int      i;
    int64_t  cost, costs[NGX_LLM_LEASE_BUDGETS];

    i = rnd_to(life, HOLDS - 1);

    if (life->holds[n][i] >= 0) {
        return;
    }

    cost = rnd_to(life, ngx_llm_lease_most(&life->size, 0));
    costs[0] = cost;
    costs[1] = 0;

    if (ngx_llm_lease_take(&life->nodes[n], costs, life->now_ns)) {
        seen_local++;

    } else if (ngx_llm_bucket_delay(&life->bucket, &life->rate, cost,
                                    life->now_ns) == 0)
    {
        ngx_llm_bucket_take(&life->bucket, &life->rate, cost, life->now_ns);
        seen_asked++;

    } else {
        seen_refused++;
        return;
    }

    life->holds[n][i] = cost;
    enter(life, cost, 1);
}


static void
finish(life_t *life, int n)
{
    int      i;
    int64_t  held[NGX_LLM_LEASE_BUDGETS], final[NGX_LLM_LEASE_BUDGETS];

    i = rnd_to(life, HOLDS - 1);

    if (life->holds[n][i] < 0) {
        return;
    }

    held[0] = life->holds[n][i];
    final[0] = rnd_to(life, held[0]);
    final[0] += (rnd_to(life, 7) == 0) ? 2 * held[0] : 0;
    held[1] = 0;
    final[1] = 0;

    ngx_llm_lease_settle(&life->nodes[n], held, final);

    life->holds[n][i] = -1;
    enter(life, final[0] - held[0], 0);
}


static void
live(life_t *life, uint64_t seed)
{
    int  i, n;

    memset(life, 0, sizeof(life_t));
    memset(life->holds, 0xff, sizeof(life->holds));

    life->random = seed;
    life->now_ns = 1000 * SECOND;
    life->rate.tokens = 1 + rnd_to(life, 100000);
    life->rate.period_ns = SECOND * (rnd_to(life, 1) ? 1 : 60);
    life->rate.burst = 1 + rnd_to(life, 2 * life->rate.tokens);
    life->size.burst[0] = life->rate.burst;
    life->size.percent = 1 + rnd_to(life, 49);

    for (i = 0; i < STEPS && life->broken == NULL; i++) {
        life->now_ns += (rnd_to(life, 63) == 0) ? rnd_to(life, 10 * SECOND)
                        : rnd_to(life, life->rate.period_ns / 64);
        n = rnd_to(life, NODES - 1);

        switch (rnd_to(life, 3)) {

        case 0:
            answer(life, n);
            break;

        case 1:
            finish(life, n);
            break;

        default:
            request(life, n);
            break;
        }

        housekeep(life, n);
    }
}


static uint64_t
setting(const char *name, uint64_t otherwise)
{
    const char  *value;

    value = getenv(name);

    return value ? strtoull(value, NULL, 10) : otherwise;
}


static void
test_property(void)
{
    life_t    life;
    uint64_t  failed, i, n, seed;

    n = setting("PROPERTY_SEQUENCES", SEQUENCES);
    seed = setting("PROPERTY_SEED", 1);
    failed = 0;

    for (i = 0; i < n; i++) {
        live(&life, seed + i);

        if (life.broken && failed++ == 0) {
            printf("# PROPERTY_SEED=%ju PROPERTY_SEQUENCES=1: %s\n",
                   (uintmax_t) (seed + i), life.broken);
        }
    }

    printf("# %ju admitted from leases, %ju by asking, %ju refused; %ju times "
           "given back, %ju debts\n", (uintmax_t) seen_local,
           (uintmax_t) seen_asked, (uintmax_t) seen_refused,
           (uintmax_t) seen_given, (uintmax_t) seen_debt);

    tap_int(failed, 0, "three nodes are over by a lease each at most, in %ju "
            "random lives", (uintmax_t) n);

    tap_ok(n < 1000
           || (seen_local > n && seen_asked > n && seen_refused > n
               && seen_given > n && seen_debt > n / 8),
           "and all kinds of steps are among them");
}


int
main(void)
{
    test_size();
    test_life();
    test_back();
    test_debt();
    test_property();

    return tap_done();
}
