
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_level.h"
#include "tap.h"


#define UNKNOWN  1024

/* answers whose reserves are summed, behind so many that the level learns */
#define ANSWERS  20000
#define WARMUP   200


/* lengths of answers, and of the maxima that their requests name */

typedef int64_t (*most_pt)(int64_t completion);

typedef struct {
    const char  *name;
    most_pt      most;

    /* by so much the sums may differ, in thousandths */
    int64_t      off_1000;
} work_t;


static int64_t any(int64_t completion);
static int64_t exact(int64_t completion);
static int64_t twice(int64_t completion);
static int64_t far(int64_t completion);
static int64_t mixed(int64_t completion);
static int64_t half_exact(int64_t completion);


static const work_t  works[] = {
    { "no maximum is named", any, 10 },
    { "maxima are what comes", exact, 0 },
    { "maxima are twice what comes", twice, 10 },
    { "one maximum for all, far above", far, 10 },
    { "maxima of any kind", mixed, 10 },
    { "half of them get their maximum", half_exact, 10 }
};


static uint64_t  state;


/* splitmix64 */

static uint64_t
rnd(void)
{
    uint64_t  z;

    state += 0x9e3779b97f4a7c15;

    z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;

    return z ^ (z >> 31);
}


/* mostly short, some long: the mean is some 240, the longest 4,000 */

static int64_t
length(void)
{
    uint64_t  kind;

    kind = rnd() % 16;

    if (kind == 0) {
        return 500 + rnd() % 3500;
    }

    return 1 + rnd() % (kind * 20);
}


static int64_t
any(int64_t completion)
{
    return NGX_LLM_LEVEL_ANY;
}


static int64_t
exact(int64_t completion)
{
    return completion;
}


static int64_t
twice(int64_t completion)
{
    return 2 * completion;
}


static int64_t
far(int64_t completion)
{
    return 8192;
}


static int64_t
mixed(int64_t completion)
{
    return (rnd() % 3 == 0) ? any(0)
                            : completion + (int64_t) (rnd() % 5000);
}


static int64_t
half_exact(int64_t completion)
{
    return (rnd() % 2 == 0) ? completion : 4096;
}


static ngx_llm_level_t
learned(const int64_t *completions, size_t n, int64_t most)
{
    size_t           i;
    ngx_llm_level_t  level;

    memset(&level, 0, sizeof(ngx_llm_level_t));

    for (i = 0; i < n; i++) {
        ngx_llm_level_learn(&level, completions[i], most);
    }

    return level;
}


static void
test_begin(void)
{
    ngx_llm_level_t  level;

    static const int64_t  one[] = { 30 };
    static const int64_t  two[] = { 30, 50 };
    static const int64_t  zero[] = { 0 };
    static const int64_t  huge[] = { INT64_MAX };

    level = learned(NULL, 0, 0);

    tap_int(ngx_llm_level_reserve(level, 300, 300), 300,
            "nothing is learned: the maximum");
    tap_int(ngx_llm_level_reserve(level, NGX_LLM_LEVEL_ANY, UNKNOWN), UNKNOWN,
            "nothing is learned, and no maximum: a guess");

    level = learned(one, 1, 300);

    tap_int(ngx_llm_level_reserve(level, 300, 300), 30,
            "one answer below its maximum: as much as that");
    tap_int(ngx_llm_level_reserve(level, 20, 20), 20,
            "never more than the maximum");
    tap_int(ngx_llm_level_reserve(level, NGX_LLM_LEVEL_ANY, UNKNOWN), 30,
            "one answer: no guess any more");

    level = learned(two, 2, 300);

    tap_int(ngx_llm_level_reserve(level, 300, 300), 40,
            "two answers: their mean");

    level = learned(one, 1, 30);

    tap_int(ngx_llm_level_reserve(level, 300, 300), 300,
            "an answer that reached its maximum does not make less of it");

    level = learned(two, 2, 30);

    tap_int(ngx_llm_level_reserve(level, NGX_LLM_LEVEL_ANY, UNKNOWN), UNKNOWN,
            "nor one that is longer than that");

    level = learned(zero, 1, 300);

    tap_int(ngx_llm_level_reserve(level, 300, 300), 0,
            "no completion at all is an answer, too");

    level = learned(huge, 1, NGX_LLM_LEVEL_ANY);

    tap_int(ngx_llm_level_reserve(level, NGX_LLM_LEVEL_ANY, 1), 1,
            "an absurd count reached any maximum");

    ngx_llm_level_learn(&level, NGX_LLM_MAX_TOKENS - 1, NGX_LLM_LEVEL_ANY);

    tap_int(ngx_llm_level_reserve(level, NGX_LLM_LEVEL_ANY, 1), 16777214,
            "a level is bounded");
}


static void
test_change(void)
{
    size_t           n;
    ngx_llm_level_t  level;

    static const int64_t  few[] = { 100, 100, 100, 100, 100, 100, 100, 100 };

    level = learned(few, 8, 4096);

    for (n = 0; n < 40; n++) {
        ngx_llm_level_learn(&level, 900, 4096);
    }

    tap_ok(ngx_llm_level_reserve(level, 4096, 4096) > 890,
           "answers that get longer are believed after forty");

    for (n = 0; n < 1000; n++) {
        ngx_llm_level_learn(&level, 7, 4096);
    }

    tap_int(ngx_llm_level_reserve(level, 4096, 4096), 7,
            "small differences count, too");
}


/* what is reserved is what is used, be maxima named as they will */

static void
test_property(const work_t *work)
{
    size_t           i;
    int64_t          completion, longest, most, reserved, used;
    ngx_llm_level_t  level;

    memset(&level, 0, sizeof(ngx_llm_level_t));

    state = 7;
    longest = 0;
    reserved = 0;
    used = 0;

    for (i = 0; i < WARMUP + ANSWERS; i++) {
        completion = length();
        most = work->most(completion);

        if (i >= WARMUP) {
            reserved += ngx_llm_level_reserve(level, most, most);
            used += completion;
        }

        ngx_llm_level_learn(&level, completion, most);

        longest = (completion > longest) ? completion : longest;
    }

    tap_ok((reserved - used) * 1000 <= work->off_1000 * used
           && (used - reserved) * 1000 <= work->off_1000 * used,
           "%s: %jd reserved, %jd used", work->name, (intmax_t) reserved,
           (intmax_t) used);

    tap_ok(ngx_llm_level_reserve(level, NGX_LLM_LEVEL_ANY, 0) <= longest,
           "%s: the level is nowhere above all answers", work->name);
}


int
main(void)
{
    size_t  i;

    test_begin();
    test_change();

    for (i = 0; i < sizeof(works) / sizeof(works[0]); i++) {
        test_property(&works[i]);
    }

    return tap_done();
}
