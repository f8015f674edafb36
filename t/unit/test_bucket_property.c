
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Random lives of a bucket: requests reserve, some wait for what they take,
 * they settle to less or more or are abandoned, while the clock stands still,
 * runs, jumps back and stays away for days.
 *
 *     PROPERTY_SEQUENCES=50 PROPERTY_SEED=7 build/unit/test_bucket_...
 *
 * Every step is written into a ledger in exact arithmetic: what it took and
 * the time from which on that may be spent.  Two properties hold of it:
 *
 * Never too much.  From any step that took, an overrun too, to any admission
 * behind it, what was taken less what was given back is at most rate * window
 * + burst; only what streams overran since the last admission is not in this
 * sum.  The window is the difference of both times: where the clock went back
 * it is negative, and so much less is allowed.
 *
 * Never too little.  The bucket is at most 2 ns a step behind one that never
 * rounds: a request that has to wait longer, or is refused, had to be.
 */


#include "ngx_llm_bucket.h"
#include "tap.h"


#define SECOND     ((int64_t) 1000000000)
#define MINUTE     (60 * SECOND)
#define HOUR       (60 * MINUTE)
#define DAY        (24 * HOUR)

#define SEQUENCES  1000000
#define STEPS      32
#define HOLDS      6


typedef __int128  wide_t;


typedef enum {
    ADMIT,
    REFUSE,
    LESS,
    MORE,
    ABANDON,
    OPS
} op_e;


/* for those who have to read a sequence that failed */

typedef struct {
    op_e              op;
    int64_t           now_ns;
    int64_t           cost;
    int64_t           delay_ns;
} step_t;


/* tokens times the rate's period and nanoseconds times its tokens: "units" */

typedef struct {
    uint64_t          random;

    ngx_llm_rate_t    rate;
    ngx_llm_bucket_t  bucket;
    int64_t           now_ns;
    int64_t           wait_ns;

    /* what open requests have reserved */
    int64_t           holds[HOLDS];
    size_t            nholds;

    /* sum of all that was taken less what was given back, tokens */
    wide_t            sum;

    /* units: the least that sum was ahead of the time at a step that took */
    wide_t            least;
    int               any;

    /* units: the bucket that never rounds */
    wide_t            exact;

    step_t            steps[STEPS];
    size_t            nsteps;
    const char       *broken;
} life_t;


static uint64_t  seen[OPS];
static uint64_t  seen_waiting;
static uint64_t  seen_back;


/* splitmix64: any seed is a good one, 0 too */

static uint64_t
rnd(life_t *life)
{
    uint64_t  z;

    life->random += 0x9e3779b97f4a7c15;

    z = life->random;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;

    return z ^ (z >> 31);
}


static int64_t
rnd_to(life_t *life, int64_t max)
{
    return rnd(life) % ((uint64_t) max + 1);
}


static void
begin(life_t *life, uint64_t seed)
{
    static const int64_t  periods[] = { SECOND, MINUTE, HOUR, DAY };

    memset(life, 0, sizeof(life_t));

    life->random = seed;

    life->rate.tokens = 1 + rnd_to(life, (rnd(life) & 1) ? 20 : 1000000);
    life->rate.period_ns = periods[rnd(life) & 3];
    life->rate.burst = 1 + rnd_to(life, (rnd(life) & 1) ? 10
                                        : life->rate.tokens);

    if (rnd(life) & 1) {
        life->wait_ns = rnd_to(life, life->rate.period_ns);
    }

    life->now_ns = 1000 * DAY + rnd_to(life, DAY);
}


static void
clock_moves(life_t *life)
{
    uint64_t  kind;

    kind = rnd(life) % 32;

    if (kind == 0) {
        life->now_ns += rnd_to(life, 30 * DAY);
        return;
    }

    /* another worker's clock, and one that was set */

    if (kind <= 3) {
        life->now_ns -= rnd_to(life, (kind == 1) ? 10 * DAY : SECOND / 50);
        seen_back++;
        return;
    }

    if (kind <= 8) {
        return;
    }

    life->now_ns += rnd_to(life, life->rate.period_ns / 8);
}


/* a step is in the ledger: cost tokens, to be spent from at_ns on */

static void
enter(life_t *life, op_e op, int64_t cost, int64_t delay_ns)
{
    wide_t   ahead, at, behind, start;
    step_t  *step;

    step = &life->steps[life->nsteps++];

    step->op = op;
    step->now_ns = life->now_ns;
    step->cost = cost;
    step->delay_ns = delay_ns;

    seen[op]++;

    if (op == REFUSE) {
        return;
    }

    at = (wide_t) (life->now_ns + delay_ns) * life->rate.tokens;
    start = (wide_t) life->now_ns * life->rate.tokens;

    ahead = life->sum * life->rate.period_ns - at;

    if (cost > 0 && (!life->any || ahead < life->least)) {
        life->least = ahead;
        life->any = 1;
    }

    life->sum += cost;
    ahead += (wide_t) cost * life->rate.period_ns;

    if (op == ADMIT && cost > 0
        && ahead - life->least
           > (wide_t) life->rate.burst * life->rate.period_ns)
    {
        life->broken = "more was taken than rate * window + burst";
    }

    if (cost > 0 || life->exact > start) {
        life->exact = (life->exact > start) ? life->exact : start;
        life->exact += (wide_t) cost * life->rate.period_ns;
        life->exact = (life->exact > start) ? life->exact : start;
    }

    behind = (wide_t) life->bucket.tat_ns * life->rate.tokens - life->exact;

    if (behind < 0) {
        life->broken = "rounding gave tokens away";
    }

    if (behind > (wide_t) 2 * life->rate.tokens * life->nsteps) {
        life->broken = "tokens were lost";
    }
}


static void
reserve(life_t *life)
{
    wide_t   exact, start;
    int64_t  cost, delay_ns, level;

    cost = rnd_to(life, life->rate.burst);
    cost += (rnd(life) % 16 == 0) ? life->rate.burst : 0;

    delay_ns = ngx_llm_bucket_delay(&life->bucket, &life->rate, cost,
                                    life->now_ns);
    level = ngx_llm_bucket_level(&life->bucket, &life->rate, life->now_ns);

    if ((delay_ns == 0) != (cost <= level)) {
        life->broken = "delay and level contradict";
    }

    if ((delay_ns == NGX_LLM_NEVER) != (cost > life->rate.burst)) {
        life->broken = "never is said to what waiting helps";
    }

    /* the delay is what the bucket that never rounds asks for */

    if (delay_ns > 0 && delay_ns != NGX_LLM_NEVER) {
        start = (wide_t) life->now_ns * life->rate.tokens;
        exact = life->exact - start
                - (wide_t) (life->rate.burst - cost) * life->rate.period_ns;

        if ((wide_t) delay_ns * life->rate.tokens - exact
            > (wide_t) (2 * (life->nsteps + 1)) * life->rate.tokens)
        {
            life->broken = "the wait is too long";
        }
    }

    if (delay_ns > life->wait_ns || life->nholds == HOLDS) {
        enter(life, REFUSE, cost, delay_ns);
        return;
    }

    ngx_llm_bucket_take(&life->bucket, &life->rate, cost, life->now_ns);

    life->holds[life->nholds++] = cost;
    seen_waiting += (delay_ns > 0);

    enter(life, ADMIT, cost, delay_ns);
}


/* one of the open requests comes to its end */

static void
end_one(life_t *life)
{
    op_e     op;
    size_t   i;
    int64_t  cost, held;

    i = rnd_to(life, life->nholds - 1);
    held = life->holds[i];
    life->holds[i] = life->holds[--life->nholds];

    switch (rnd(life) % 4) {

    case 0:
        op = ABANDON;
        cost = -held;
        break;

    case 1:
        op = MORE;
        cost = 1 + rnd_to(life, 2 * life->rate.burst);
        break;

    default:
        op = LESS;
        cost = -rnd_to(life, held);
        break;
    }

    ngx_llm_bucket_take(&life->bucket, &life->rate, cost, life->now_ns);

    enter(life, op, cost, 0);
}


static void
live(life_t *life, uint64_t seed)
{
    begin(life, seed);

    while (life->nsteps < STEPS && life->broken == NULL) {
        clock_moves(life);

        if (life->nholds > 0 && rnd(life) % 3 == 0) {
            end_one(life);

        } else {
            reserve(life);
        }
    }
}


static void
tell(const life_t *life, uint64_t seed)
{
    size_t         i;
    const step_t  *step;

    static const char  *names[OPS] = {
        "admit", "refuse", "settle to less", "settle to more", "abandon"
    };

    printf("# PROPERTY_SEED=%ju PROPERTY_SEQUENCES=1: %s\n",
           (uintmax_t) seed, life->broken);
    printf("# tokens=%jd period=%jd ns burst=%jd wait=%jd ns\n",
           (intmax_t) life->rate.tokens, (intmax_t) life->rate.period_ns,
           (intmax_t) life->rate.burst, (intmax_t) life->wait_ns);

    for (i = 0; i < life->nsteps; i++) {
        step = &life->steps[i];

        printf("# %+jd ns: %s, %jd tokens, delay %jd ns\n",
               (intmax_t) (step->now_ns - life->steps[0].now_ns),
               names[step->op], (intmax_t) step->cost,
               (intmax_t) step->delay_ns);
    }
}


static uint64_t
setting(const char *name, uint64_t otherwise)
{
    const char  *value;

    value = getenv(name);

    return value ? strtoull(value, NULL, 10) : otherwise;
}


int
main(void)
{
    life_t    life;
    uint64_t  failed, i, n, seed;

    n = setting("PROPERTY_SEQUENCES", SEQUENCES);
    seed = setting("PROPERTY_SEED", 1);
    failed = 0;

    for (i = 0; i < n; i++) {
        live(&life, seed + i);

        if (life.broken != NULL && failed++ == 0) {
            tell(&life, seed + i);
        }
    }

    printf("# from seed %ju on: %ju admitted (%ju of them waited), %ju "
           "refused, %ju settled to less, %ju to more, %ju abandoned; the "
           "clock went back %ju times\n", (uintmax_t) seed,
           (uintmax_t) seen[ADMIT], (uintmax_t) seen_waiting,
           (uintmax_t) seen[REFUSE], (uintmax_t) seen[LESS],
           (uintmax_t) seen[MORE], (uintmax_t) seen[ABANDON],
           (uintmax_t) seen_back);

    tap_int(failed, 0, "a bucket keeps its budget in %ju random lives",
            (uintmax_t) n);

    /* a test that never gets anywhere proves nothing */

    tap_ok(n < 1000
           || (seen[ADMIT] > n && seen[REFUSE] > n && seen[LESS] > n
               && seen[MORE] > n / 2 && seen[ABANDON] > n / 2
               && seen_waiting > n / 4 && seen_back > n),
           "and all kinds of steps are among them");

    return tap_done();
}
