
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_speed.h"
#include "tap.h"


#define MEAN_NS  50000


static const ngx_llm_speed_t  none;


/* as often, with so much work at so many ns a token */

static ngx_llm_speed_t
learn(ngx_llm_speed_t speed, size_t times, uint32_t work, uint32_t ns)
{
    while (times--) {
        speed = ngx_llm_speed_learn(speed, &ngx_llm_speed_prefill, work,
                                    (uint32_t) ((uint64_t) work * ns
                                                / 1000000));
    }

    return speed;
}


/* beside others that have done a million tokens in 50 us each */

static double
ns(ngx_llm_speed_t speed)
{
    double  mean_ns;

    mean_ns = ngx_llm_speed_mean_ns(&ngx_llm_speed_prefill,
                                    1000000 + (uint64_t) speed.work,
                                    50000 + (uint64_t) speed.time_ms);

    return ngx_llm_speed_ns(speed, &ngx_llm_speed_prefill, mean_ns);
}


static int
near(double got, double want)
{
    return got > want * 0.9 && got < want * 1.1;
}


static void
test_speed(void)
{
    ngx_llm_speed_t  speed;

    tap_int(ngx_llm_speed_mean_ns(&ngx_llm_speed_prefill, 0, 0),
            ngx_llm_speed_prefill.default_ns, "nothing is known of anybody");
    tap_int(ns(none), MEAN_NS, "nothing is known of one: it is as the others");

    tap_ok(near(ns(learn(none, 1, 100, 200000)), MEAN_NS),
           "one short prompt says little");
    tap_ok(near(ns(learn(none, 50, 10000, 100000)), 100000),
           "many long ones say how slow it is");

    tap_int(ngx_llm_speed_ns(learn(none, 50, 10000, MEAN_NS * 4 / 3),
                             &ngx_llm_speed_prefill, MEAN_NS),
            MEAN_NS, "a little slower is as fast");
    tap_int(ngx_llm_speed_ns(learn(none, 50, 10000, MEAN_NS * 3 / 4),
                             &ngx_llm_speed_prefill, MEAN_NS),
            MEAN_NS, "a little faster, too");
    tap_ok(near(ngx_llm_speed_ns(learn(none, 50, 10000, MEAN_NS * 3 / 2),
                                 &ngx_llm_speed_prefill, MEAN_NS),
                MEAN_NS * 3 / 2), "much slower is slower");

    speed = learn(none, 500, 10000, 100000);
    speed = learn(speed, 200, 10000, 25000);
    tap_ok(near(ns(speed), 25000), "a server that became faster");

    tap_int(ngx_llm_speed_ns(learn(none, 90, 1000, 40000000),
                             &ngx_llm_speed_prefill, MEAN_NS),
            MEAN_NS * NGX_LLM_SPEED_RANGE, "no slower than the range");
    tap_int(ngx_llm_speed_ns(learn(none, 90, 250000, 100),
                             &ngx_llm_speed_prefill, MEAN_NS),
            MEAN_NS / NGX_LLM_SPEED_RANGE, "no faster than the range");

    speed = learn(none, 50, 10000, 100000);
    tap_ok(near(ns(ngx_llm_speed_faded(speed, 600)), MEAN_NS),
           "ten minutes later it is as the others, and gets its chance");
    tap_ok(near(ns(ngx_llm_speed_faded(speed, 60)), 100000),
           "a minute later it is not");
    tap_int(ngx_llm_speed_faded(speed, UINT32_MAX).work, 0, "years later");

    speed = ngx_llm_speed_learn(none, &ngx_llm_speed_prefill, 0, 100);
    tap_int(speed.time_ms, 0, "no work is no sample");
    speed = ngx_llm_speed_learn(none, &ngx_llm_speed_prefill, 100, 0);
    tap_int(speed.work, 0, "no time is no sample");

    speed = learn(none, 100, 1000, 50000);
    speed = ngx_llm_speed_learn(speed, &ngx_llm_speed_prefill, UINT32_MAX,
                                UINT32_MAX);
    tap_ok(speed.work <= 2 * ngx_llm_speed_prefill.window
           && ns(speed) >= 1, "the largest numbers");

    tap_int(ngx_llm_speed_mean_ns(&ngx_llm_speed_prefill, UINT64_MAX, 1),
            1000, "the mean is 1 us at least");
    tap_ok(ngx_llm_speed_mean_ns(&ngx_llm_speed_prefill, 1, UINT64_MAX)
           <= UINT32_MAX, "and fits in 32 bits");

    tap_int(ngx_llm_speed_cost(0.3), 1, "a cost is never 0");
    tap_int(ngx_llm_speed_cost(1234.5), 1234, "a cost in between");
    tap_int(ngx_llm_speed_cost(1e20), UINT32_MAX, "nor above 32 bits");
}


/* a cache of 100,000 tokens is found, from above and from below */

static void
test_cache(void)
{
    size_t    i;
    uint32_t  capacity, distance;
    uint64_t  state;

    state = 1;
    capacity = 0;

    tap_int(ngx_llm_cache_learn(0, 500, 1), 0, "hits alone say nothing");
    tap_int(ngx_llm_cache_learn(0, 500000, 0), 500000, "the first miss");
    tap_int(ngx_llm_cache_learn(0, 500, 0), 65536, "a miss by chance");
    tap_int(ngx_llm_cache_learn(1000, 500, 1), 1000, "a hit within");
    tap_int(ngx_llm_cache_learn(1000, 5000, 1), 3000, "a hit beyond");
    tap_int(ngx_llm_cache_learn(1000, 5000, 0), 1000, "a miss beyond");
    tap_int(ngx_llm_cache_learn(1000, 200, 0), 900, "a miss within");

    for (i = 0; i < 100; i++) {
        capacity = ngx_llm_cache_learn(capacity, 100, 0);
    }

    tap_ok(capacity < 200, "a server that caches nothing");

    for (i = 0; i < 10000; i++) {
        state = state * 6364136223846793005 + 1442695040888963407;
        distance = (uint32_t) (state >> 33) % 300000;
        capacity = ngx_llm_cache_learn(capacity, distance, distance < 100000);
    }

    tap_ok(capacity > 90000 && capacity < 110000, "a cache's size is found");

    tap_int(ngx_llm_cache_tokens(0, 1 << 30, 700, 900), 700,
            "nothing was ever lost: all that was held");
    tap_int(ngx_llm_cache_tokens(0, 0, 900, 700), 700,
            "never more than the prompt");
    tap_int(ngx_llm_cache_tokens(1000, 999, 700, 900), 700, "still there");
    tap_int(ngx_llm_cache_tokens(1000, 1000, 700, 900), 0, "gone");
}


int
main(void)
{
    test_speed();
    test_cache();

    return tap_done();
}
