
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "pick.h"


/* goodput, and what is not measured, as in bench/balance */
#define PICK_FIRST_MS    5000
#define PICK_TOKEN_MS    50
#define PICK_WARM_UP     10             /* one in so many */

#define PICK_SEEDS       3
#define PICK_BISECTIONS  8


static void pick_run_once(const pick_balancer_t *balancer);
static double pick_run_pace(void);
static pick_server_t *pick_run_next(void);
static void pick_run_measure(pick_result_t *sum);
static double pick_percentile(const double *sorted, size_t n, double percent);
static int pick_compare(const void *a, const void *b);


pick_server_t  pick_servers[PICK_SERVERS];
double         pick_now_ms;


pick_result_t
pick_run(const pick_balancer_t *balancer)
{
    int            i;
    pick_result_t  result;

    memset(&result, 0, sizeof(pick_result_t));

    for (i = 0; i < PICK_SEEDS; i++) {
        pick_conf.seed++;
        pick_run_once(balancer);
        pick_run_measure(&result);

    }

    pick_conf.seed -= PICK_SEEDS;

    result.p50 /= PICK_SEEDS;
    result.p99 /= PICK_SEEDS;
    result.good /= PICK_SEEDS;
    result.hits /= PICK_SEEDS;
    result.busy /= PICK_SEEDS;
    result.busiest /= PICK_SEEDS;

    return result;
}


double
pick_run_carried(const pick_balancer_t *balancer)
{
    int     i;
    double  low, high;

    low = 0;
    high = 2;

    for (i = 0; i < PICK_BISECTIONS; i++) {
        pick_conf.load = (low + high) / 2;

        if (pick_run(balancer).good >= PICK_GOOD) {
            low = pick_conf.load;

        } else {
            high = pick_conf.load;
        }
    }

    return low;
}


static void
pick_run_once(const pick_balancer_t *balancer)
{
    size_t           i;
    double           pace;
    pick_server_t   *s;
    pick_request_t  *r, *end;

    memset(pick_servers, 0, sizeof(pick_servers));

    for (i = 0; i < pick_conf.servers; i++) {
        pick_server_init(&pick_servers[i],
                         i < pick_conf.servers - pick_conf.nslow
                         ? 1 : pick_conf.slow);
    }

    pick_choose_start(balancer);

    pace = pick_run_pace();
    end = pick_requests + pick_nrequests;

    for (r = pick_requests, s = pick_run_next();
         r < end || s->next_ms < PICK_NEVER;
         s = pick_run_next())
    {
        if (r < end && r->at_ms / pace <= s->next_ms) {
            pick_now_ms = r->at_ms / pace;

            r->due_ms = pick_now_ms;
            r->made = 0;
            r->held = 0;

            pick_choose(r);
            pick_server_add(&pick_servers[r->server],
                            (uint32_t) (r - pick_requests));
            r++;
            continue;
        }

        pick_now_ms = s->next_ms;
        pick_server_step(s);
    }

    pick_choose_end();

    for (i = 0; i < pick_conf.servers; i++) {
        pick_server_free(&pick_servers[i]);
    }
}


/*
 * How much faster than the trace requests come.  Load 1 is that of
 * bench/balance: every prompt in full, every step with a full batch.
 */

static double
pick_run_pace(void)
{
    size_t  i;
    double  step_ms, work_ms, speed;

    step_ms = pick_conf.itl_ms + pick_conf.slope_ms * (pick_conf.batch - 1.0);
    speed = pick_conf.servers - pick_conf.nslow * (1 - pick_conf.slow);
    work_ms = 0;

    for (i = 0; i < pick_nrequests; i++) {
        work_ms += pick_requests[i].prompt * 1000 / pick_conf.prefill
                   + pick_requests[i].output * step_ms / pick_conf.batch;
    }

    return pick_conf.load * speed * pick_requests[pick_nrequests - 1].at_ms
           / work_ms;
}


static pick_server_t *
pick_run_next(void)
{
    size_t          i;
    pick_server_t  *next;

    next = &pick_servers[0];

    for (i = 1; i < pick_conf.servers; i++) {
        if (pick_servers[i].next_ms < next->next_ms) {
            next = &pick_servers[i];
        }
    }

    return next;
}


static void
pick_run_measure(pick_result_t *sum)
{
    size_t           i, n;
    double          *first, token_ms, prompt, cached, busy_ms, busiest_ms;
    pick_request_t  *r;

    first = mem_zero_alloc(pick_nrequests * sizeof(double));
    n = 0;
    prompt = 0;
    cached = 0;

    for (i = 0; i < pick_nrequests; i++) {
        r = &pick_requests[i];

        prompt += r->prompt;
        cached += r->cached < r->prompt ? r->cached : r->prompt;

        if (i < pick_nrequests / PICK_WARM_UP) {
            continue;
        }

        first[n] = r->first_ms - r->due_ms;
        token_ms = r->made > 1 ? (r->last_ms - r->first_ms) / (r->made - 1)
                               : 0;

        sum->good += (first[n] <= PICK_FIRST_MS && token_ms <= PICK_TOKEN_MS)
                     / (pick_nrequests - pick_nrequests / PICK_WARM_UP + 0.0);
        n++;
    }

    busy_ms = 0;
    busiest_ms = 0;

    for (i = 0; i < pick_conf.servers; i++) {
        busy_ms += pick_servers[i].busy_ms;
        busiest_ms = fmax(busiest_ms, pick_servers[i].busy_ms);
    }

    qsort(first, n, sizeof(double), pick_compare);

    sum->p50 += pick_percentile(first, n, 50);
    sum->p99 += pick_percentile(first, n, 99);
    sum->hits += cached / prompt;
    sum->busy += busy_ms / pick_conf.servers / pick_now_ms;
    sum->busiest += busiest_ms * pick_conf.servers / busy_ms;

    free(first);
}


static double
pick_percentile(const double *sorted, size_t n, double percent)
{
    return n ? sorted[(size_t) ceil(n * percent / 100) - 1] : 0;
}


static int
pick_compare(const void *a, const void *b)
{
    const double  *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}
