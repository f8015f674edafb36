
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "sim.h"


/*
 * Continuous batching, as inference servers with chunked prefill do it.  A
 * server works in steps.  In a step
 *
 *   - every request that is decoding gets one token:
 *     itl + itl_slope * (decoding - 1) ms, if any is decoding;
 *   - up to "chunk" prompt tokens (512) are computed, one prompt after the
 *     other: tokens / prefill seconds.  With the last of its prompt a request
 *     makes its first token.
 *
 * The step lasts the sum of both, divided by the server's speed and the time
 * scale.  So a prompt delays the tokens of the others by at most 512 /
 * prefill seconds a step, and is itself slowed by their decoding.  Between
 * two steps, waiting requests move into the batch, in their order, as long
 * as it has room and the prompts in it do not fill the next step: there the
 * prefix cache is asked and the header sent.  Nothing to do: the next request
 * starts a step at once.
 *
 * Requests that order their own times (ttft, itl) take a place in the batch
 * and their own clock instead; a prompt with its own ttft costs the others
 * nothing, and does not wait for their prompts.
 */

#define SIM_OWN_BURST  16


static void sim_batch_step(loop_timer_t *t);
static void sim_batch_late(sim_server_t *s, uint64_t due_us);
static void sim_batch_decode(sim_server_t *s);
static void sim_batch_prefill(sim_server_t *s);
static void sim_batch_admit(sim_server_t *s);
static void sim_batch_place(sim_req_t *r);
static void sim_batch_first(sim_req_t *r);
static uint64_t sim_batch_work(sim_server_t *s);
static void sim_batch_kick(sim_server_t *s);
static int sim_batch_own_clock(const sim_req_t *r);
static void sim_batch_own_timer(loop_timer_t *t);


void
sim_batch_init(sim_server_t *s)
{
    s->step.handler = sim_batch_step;

    link_init(&s->queue);
    link_init(&s->timed);
    link_init(&s->prefill);
    link_init(&s->decode);

    if (sim_conf.cache_tokens >= SIM_BLOCK_TOKENS) {
        s->cache = sim_cache_create(sim_conf.cache_tokens);
    }
}


void
sim_batch_add(sim_req_t *r)
{
    sim_server_t  *s;

    s = r->server;

    r->state = SIM_REQ_QUEUED;
    link_append(r->order.ttft_ms >= 0 ? &s->timed : &s->queue, &r->link);
    sim_batch_kick(s);
}


void
sim_batch_remove(sim_req_t *r)
{
    sim_server_t  *s;

    s = r->server;

    link_remove(&r->link);
    loop_timer_del(&r->timer);

    s->prefill_left -= r->prefill_left;
    r->prefill_left = 0;

    if (r->decoding) {
        r->decoding = 0;
        s->decoding--;
    }

    if (r->state == SIM_REQ_RUN) {
        r->state = SIM_REQ_FLUSH;
        s->running--;

        if (!link_empty(&s->queue) || !link_empty(&s->timed)) {
            sim_batch_kick(s);
        }
    }
}


/* starts a step, unless one is under way */

static void
sim_batch_kick(sim_server_t *s)
{
    if (s->step.slot == 0) {
        loop_timer_set(&s->step, loop_now_us);
    }
}


static void
sim_batch_step(loop_timer_t *t)
{
    uint64_t       us, at_us;
    sim_server_t  *s;

    s = loop_data(t, sim_server_t, step);

    sim_batch_late(s, t->at_us);
    sim_batch_decode(s);
    sim_batch_prefill(s);
    sim_batch_admit(s);

    us = sim_batch_work(s);

    if (us == 0) {
        return;
    }

    /* steps do not drift, but what could not be kept up with is lost */

    at_us = t->at_us + us;

    loop_timer_set(t, at_us > loop_now_us ? at_us : loop_now_us);
}


/* how late the process comes to what is modelled, since the machine is busy */

static void
sim_batch_late(sim_server_t *s, uint64_t due_us)
{
    uint64_t  late_us;

    late_us = loop_clock_us() - due_us;

    s->stats.steps++;
    s->stats.late_us += late_us;

    if (late_us > s->stats.late_max_us) {
        s->stats.late_max_us = late_us;
    }
}


static void
sim_batch_decode(sim_server_t *s)
{
    link_t     *x, *next;
    sim_req_t  *r;

    for (x = s->decode.next; x != &s->decode; x = next) {
        next = x->next;

        r = loop_data(x, sim_req_t, link);

        if (!sim_conn_congested(r->conn)) {
            sim_req_token(r);
        }
    }
}


static void
sim_batch_prefill(sim_server_t *s)
{
    link_t     *x, *next;
    uint64_t    n;
    sim_req_t  *r;

    for (x = s->prefill.next; x != &s->prefill && s->step_tokens; x = next) {
        next = x->next;

        r = loop_data(x, sim_req_t, link);

        n = r->prefill_left < s->step_tokens ? r->prefill_left
                                             : s->step_tokens;
        s->step_tokens -= n;
        s->prefill_left -= n;
        r->prefill_left -= n;

        if (r->prefill_left) {
            break;
        }

        link_remove(x);
        sim_batch_first(r);
    }

    s->step_tokens = 0;
}


static void
sim_batch_admit(sim_server_t *s)
{
    link_t  *x;

    while (s->running < sim_conf.batch) {

        x = s->timed.next;

        if (x == &s->timed) {
            x = s->queue.next;

            if (x == &s->queue || s->prefill_left >= sim_conf.chunk) {
                return;
            }
        }

        link_remove(x);
        s->running++;

        sim_batch_place(loop_data(x, sim_req_t, link));
    }
}


static void
sim_batch_place(sim_req_t *r)
{
    sim_server_t  *s;

    s = r->server;

    r->state = SIM_REQ_RUN;
    r->timer.handler = sim_batch_own_timer;

    if (s->cache != NULL) {
        r->cached = sim_cache_find(s->cache, &r->ask);
    }

    if (r->order.ttft_ms >= 0) {
        loop_timer_set(&r->timer, loop_now_us
                       + (uint64_t) (r->order.ttft_ms * 1000
                                     / sim_conf.time_scale));

    } else {
        /* the last token is computed even if all of the prompt is cached */

        r->prefill_left = r->cached < r->prompt ? r->prompt - r->cached : 1;
        s->prefill_left += r->prefill_left;
        link_append(&s->prefill, &r->link);
    }

    sim_req_begin(r);
}


/* the prompt is computed: the first token, and those that follow */

static void
sim_batch_first(sim_req_t *r)
{
    sim_server_t  *s;

    s = r->server;

    if (s->cache != NULL) {
        sim_cache_insert(s->cache, &r->ask);
    }

    if (!sim_req_token(r)) {
        return;
    }

    if (sim_batch_own_clock(r)) {
        loop_timer_set(&r->timer, loop_now_us
                       + (uint64_t) (r->order.itl_ms * 1000
                                     / sim_conf.time_scale));
        return;
    }

    r->decoding = 1;
    s->decoding++;
    link_append(&s->decode, &r->link);
    sim_batch_kick(s);
}


/* chooses the work of the next step; its time, 0 if there is none */

static uint64_t
sim_batch_work(sim_server_t *s)
{
    double    ms;
    uint64_t  us;

    ms = 0;

    if (s->decoding) {
        ms = sim_conf.itl_ms + sim_conf.itl_slope_ms * (s->decoding - 1);

    } else if (s->prefill_left == 0) {
        return 0;
    }

    s->step_tokens = s->prefill_left < sim_conf.chunk ? s->prefill_left
                                                      : sim_conf.chunk;
    ms += s->step_tokens * 1000.0 / sim_conf.prefill_per_sec;

    ms /= s->speed;
    s->stats.busy_us += ms * 1000;

    us = (uint64_t) (ms * 1000 / sim_conf.time_scale);

    return us ? us : 1;
}


static int
sim_batch_own_clock(const sim_req_t *r)
{
    return r->order.itl_ms >= 0;
}


static void
sim_batch_own_timer(loop_timer_t *t)
{
    int         n;
    uint64_t    us, at_us;
    sim_req_t  *r;

    r = loop_data(t, sim_req_t, timer);

    if (r->made == 0) {
        sim_batch_first(r);
        return;
    }

    us = (uint64_t) (r->order.itl_ms * 1000 / sim_conf.time_scale);

    for (n = us ? 1 : SIM_OWN_BURST; n; n--) {

        if (sim_conn_congested(r->conn)) {
            r->paused = 1;
            return;
        }

        if (!sim_req_token(r)) {
            return;
        }
    }

    at_us = t->at_us + us;

    loop_timer_set(t, at_us > loop_now_us ? at_us : loop_now_us);
}
