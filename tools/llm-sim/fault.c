
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "sim.h"


#define SIM_COMMENT_US  100000


static void sim_fault_head(sim_req_t *r);
static void sim_fault_stream(sim_req_t *r);
static void sim_fault_answer(sim_req_t *r);
static void sim_fault_half_answer(sim_req_t *r);
static void sim_fault_hold(sim_req_t *r, int comments);
static void sim_fault_timer(loop_timer_t *t);


int
sim_fault_due(const sim_req_t *r)
{
    return r->order.fault != SIM_FAULT_NONE
           && r->order.at == (int64_t) r->made;
}


/* of the error that an error event tells */

int
sim_fault_status(const sim_req_t *r, int usual)
{
    return r->order.status == SIM_NONE ? usual : (int) r->order.status;
}


void
sim_fault_fire(sim_req_t *r)
{
    switch (r->order.fault) {

    case SIM_FAULT_RESET:
    case SIM_FAULT_CLOSE:
    case SIM_FAULT_STALL:
        break;

    default:
        sim_fault_head(r);
    }

    if (r->ask.stream) {
        sim_fault_stream(r);

    } else {
        sim_fault_answer(r);
    }
}


/*
 * A fault that needs a body, ordered before the header: the header goes out,
 * but no life-cycle event does, so that the fault is the first thing in the
 * body.
 */

static void
sim_fault_head(sim_req_t *r)
{
    if (!r->ask.stream || r->header_sent) {
        return;
    }

    sim_req_head(r);

    if (r->order.fault == SIM_FAULT_FILTER) {
        r->dialect->begin(r);
    }
}


static void
sim_fault_stream(sim_req_t *r)
{
    switch (r->order.fault) {

    case SIM_FAULT_NONE:
        break;

    case SIM_FAULT_RESET:
        sim_req_spoiled(r, 1);
        break;

    case SIM_FAULT_CLOSE:
        sim_req_spoiled(r, 0);
        break;

    case SIM_FAULT_STALL:
        sim_fault_hold(r, 0);
        break;

    case SIM_FAULT_COMMENTS:
        sim_fault_hold(r, 1);
        break;

    case SIM_FAULT_ERROR:
        r->dialect->error(r);
        sim_wire_end(r);
        sim_req_done(r);
        break;

    case SIM_FAULT_ERROR_STAY:
        r->dialect->error(r);
        sim_fault_hold(r, 0);
        break;

    case SIM_FAULT_FILTER:
        r->finish = SIM_FILTER;
        sim_req_finish(r);
        break;

    case SIM_FAULT_MIDEVENT:
    case SIM_FAULT_MIDEVENT_RESET:
        r->half = 1;
        r->dialect->token(r, r->made);
        sim_req_spoiled(r, r->order.fault == SIM_FAULT_MIDEVENT_RESET);
        break;

    case SIM_FAULT_BADCHUNK:
        sim_wire_raw(r, "zz\r\n", 4);
        sim_req_spoiled(r, 0);
        break;

    case SIM_FAULT_MIDCHUNK:
    case SIM_FAULT_MIDCHUNK_RESET:
        sim_wire_raw(r, "1f\r", 3);
        sim_req_spoiled(r, r->order.fault == SIM_FAULT_MIDCHUNK_RESET);
        break;

    case SIM_FAULT_END:
        sim_wire_end(r);
        sim_req_done(r);
        break;
    }
}


/* the same for an answer that is one JSON document */

static void
sim_fault_answer(sim_req_t *r)
{
    switch (r->order.fault) {

    case SIM_FAULT_NONE:
        break;

    case SIM_FAULT_RESET:
    case SIM_FAULT_CLOSE:
    case SIM_FAULT_STALL:

        if (r->order.at != SIM_AT_HEADER) {
            sim_fault_half_answer(r);
        }

        sim_fault_stream(r);
        break;

    case SIM_FAULT_BADCHUNK:
    case SIM_FAULT_MIDCHUNK:
    case SIM_FAULT_MIDCHUNK_RESET:
    case SIM_FAULT_END:
        sim_fault_half_answer(r);
        sim_fault_stream(r);
        break;

    case SIM_FAULT_MIDEVENT:
    case SIM_FAULT_MIDEVENT_RESET:
        sim_fault_half_answer(r);
        sim_req_spoiled(r, r->order.fault == SIM_FAULT_MIDEVENT_RESET);
        break;

    case SIM_FAULT_COMMENTS:
        sim_wire_head(r, 200, "application/json", SIM_NONE, "");
        sim_fault_hold(r, 1);
        break;

    case SIM_FAULT_ERROR:
    case SIM_FAULT_ERROR_STAY:
        sim_req_reject(r, 500, "llm-sim was told to fail");
        break;

    case SIM_FAULT_FILTER:
        r->finish = SIM_FILTER;
        sim_req_finish(r);
        break;
    }
}


static void
sim_fault_half_answer(sim_req_t *r)
{
    int64_t   length;
    buf_t    *b;

    b = sim_json();
    r->dialect->answer(r, b);

    length = (int64_t) b->len;

    if (r->order.fault == SIM_FAULT_BADCHUNK
        || r->order.fault == SIM_FAULT_MIDCHUNK
        || r->order.fault == SIM_FAULT_MIDCHUNK_RESET
        || r->order.fault == SIM_FAULT_END)
    {
        length = SIM_NONE;
    }

    sim_wire_head(r, 200, "application/json", length, "");
    sim_wire_body(r, b->data, b->len / 2);
}


/* out of the batch, but in flight until the client leaves */

static void
sim_fault_hold(sim_req_t *r, int comments)
{
    sim_batch_remove(r);

    r->state = SIM_REQ_HELD;

    if (comments) {
        r->timer.handler = sim_fault_timer;
        loop_timer_set(&r->timer, loop_now_us);
    }
}


static void
sim_fault_timer(loop_timer_t *t)
{
    sim_req_t  *r;

    r = loop_data(t, sim_req_t, timer);

    if (!sim_conn_congested(r->conn)) {

        if (r->ask.stream && r->frame == SIM_FRAME_SSE) {
            sim_wire_event(r, NULL, NULL);

        } else {
            sim_wire_body(r, "\n", 1);
        }
    }

    loop_timer_set(t, t->at_us + SIM_COMMENT_US);
}
