
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <math.h>

#include "load.h"


/*
 * When requests start.  Closed loop: so many at a time, the next as soon as
 * one has ended.  Open loop: at their own times, whatever became of those
 * before; their latencies count from the time at which they were due.  The
 * end of all is the end of the loop.
 */

/* no flood of connects: so many in a millisecond */
#define LOAD_BURST      64
#define LOAD_PAUSE_US   1000

/* after a transport error, the next try waits */
#define LOAD_BACKOFF_US 10000


static void load_arrive_timer(loop_timer_t *t);
static void load_arrive_stop_timer(loop_timer_t *t);
static int load_arrive_more(void);
static int load_arrive_due(uint64_t *due_us);
static void load_arrive_one(uint64_t due_us);


static loop_timer_t  load_next = { load_arrive_timer, 0, 0 };
static loop_timer_t  load_stop = { load_arrive_stop_timer, 0, 0 };

static uint64_t      load_number;
static uint64_t      load_random_state;
static uint64_t      load_poisson_us;
static int           load_over;


void
load_arrive_start(void)
{
    load_stats.start_us = loop_now_us;
    load_poisson_us = loop_now_us;
    load_random_state = load_random_mix(load_conf.seed, 0);

    loop_timer_set(&load_next, loop_now_us);

    if (load_conf.duration_sec > 0) {
        loop_timer_set(&load_stop, loop_now_us
                       + (uint64_t) (load_conf.duration_sec * 1e6));
    }
}


/* a request has ended */

void
load_arrive_again(int failed)
{
    uint64_t  at_us;

    if (!load_arrive_more()) {

        if (load_stats.inflight == 0) {
            loop_stop();
        }

        return;
    }

    if (load_next.slot == 0) {
        at_us = loop_now_us + (failed ? LOAD_BACKOFF_US : 0);
        loop_timer_set(&load_next, at_us);
    }
}


/* the duration is over: no more requests; then, what is left is cut off */

static void
load_arrive_stop_timer(loop_timer_t *t)
{
    if (load_over || load_stats.inflight == 0) {
        loop_stop();
        return;
    }

    load_over = 1;

    loop_timer_del(&load_next);
    loop_timer_set(t, loop_now_us + (uint64_t) (load_conf.drain_sec * 1e6));
}


static int
load_arrive_more(void)
{
    return !load_over
           && (load_conf.requests == 0 || load_number < load_conf.requests);
}


static void
load_arrive_timer(loop_timer_t *t)
{
    int       n;
    uint64_t  due_us;

    for (n = 0; n < LOAD_BURST; n++) {

        if (!load_arrive_more() || !load_arrive_due(&due_us)) {
            return;
        }

        if (due_us > loop_now_us) {
            loop_timer_set(t, due_us);
            return;
        }

        load_arrive_one(due_us);
    }

    loop_timer_set(t, loop_now_us + LOAD_PAUSE_US);
}


/* when the next request starts; 0: when another one has ended */

static int
load_arrive_due(uint64_t *due_us)
{
    load_trace_t  *trace;

    trace = &load_conf.trace;

    if (trace->njobs) {
        *due_us = load_stats.start_us
                  + (uint64_t) (trace->jobs[load_number].at_ms * 1000
                                / load_conf.time_scale);
        return 1;
    }

    if (load_conf.rate_per_sec > 0) {
        *due_us = load_poisson_us;
        return 1;
    }

    *due_us = loop_now_us;

    return load_stats.inflight < load_conf.concurrency;
}


static void
load_arrive_one(uint64_t due_us)
{
    load_job_t      job;
    load_target_t  *target;

    if (load_conf.rate_per_sec > 0) {
        load_poisson_us += (uint64_t) (-log(load_random_unit(
                                                &load_random_state))
                                       * 1e6 / load_conf.rate_per_sec);
    }

    target = &load_conf.targets[load_number % load_conf.ntargets];

    if (load_conf.trace.njobs) {
        job = load_conf.trace.jobs[load_number];

    } else {
        job = (load_job_t) { 0, load_conf.prompt_tokens, load_conf.max_tokens,
                             NULL, 0 };
    }

    load_conn_start(target, &job, load_number++, due_us);
}
