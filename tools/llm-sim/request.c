
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sim.h"


/* of the fields of an error */
#define SIM_REQ_FIELDS  512


static int64_t sim_req_length(sim_req_t *r);
static void sim_req_fields(const sim_req_t *r, char *fields);
static void sim_req_status(sim_req_t *r);
static void sim_req_resume(sim_req_t *r);
static void sim_req_respond(sim_req_t *r, int status, const char *fields,
    const buf_t *b);
static void sim_req_count(sim_req_t *r);
static void sim_req_free(sim_req_t *r);


sim_req_t *
sim_req_create(sim_conn_t *c, const http_head_t *h)
{
    sim_req_t        *r;
    static uint64_t   id;

    if (id == 0) {
        id = loop_now_us;
    }

    r = mem_zero_alloc(sizeof(sim_req_t));

    r->conn = c;
    r->server = c->server;
    r->id = ++id * 0x9e3779b97f4a7c15;
    r->created = time(NULL);
    r->start_us = loop_now_us;

    sim_order_init(&r->order);
    sim_route(r, h);

    if (r->refuse == 0 && r->dialect != NULL) {
        r->refusal = sim_order_parse(&r->order, h,
                                     r->server->port);
        r->refuse = r->refusal ? 400 : 0;
    }

    return r;
}


/* the request is complete */

void
sim_req_start(sim_req_t *r)
{
    buf_t         *b;
    sim_order_t   *o;
    sim_server_t  *s;

    if (r->refuse) {
        sim_req_reject(r, r->refuse, r->refusal);
        return;
    }

    if (r->local != NULL) {
        b = sim_json();
        r->local(r, b);
        sim_req_respond(r, 200, "", b);
        return;
    }

    if (r->body.len == 0 || sim_ask_parse(&r->ask, r->body.data) == -1) {
        sim_req_reject(r, 400, "the request's body is not valid JSON");
        return;
    }

    buf_free(&r->body);

    o = &r->order;
    s = r->server;

    if (r->dialect->embeddings) {
        r->ask.stream = 0;
    }

    if (!r->dialect->choices) {
        r->ask.choices = 1;
    }

    r->prompt = (r->ask.prompt_bytes + SIM_TOKEN_BYTES - 1) / SIM_TOKEN_BYTES;
    r->length = r->dialect->embeddings ? 1 : sim_req_length(r);
    r->conn->split = o->split > 0 ? o->split : 0;

    sim_req_count(r);

    /* at another port than the ordered one nothing goes wrong */

    if (o->only != SIM_NONE && o->only != s->port) {
        o->fault = SIM_FAULT_NONE;
        o->status = SIM_NONE;
        o->ttft_ms = SIM_NONE;
    }

    if (o->status != SIM_NONE
        && o->fault != SIM_FAULT_ERROR && o->fault != SIM_FAULT_ERROR_STAY)
    {
        sim_req_status(r);
        return;
    }

    sim_batch_add(r);
}


/* min(ordered or default, named by the client), for each choice */

static int64_t
sim_req_length(sim_req_t *r)
{
    int64_t  length;

    length = r->order.tokens;

    if (length == SIM_NONE) {
        length = sim_conf.tokens;
    }

    if (sim_text_is_tool(r)) {
        r->finish = SIM_TOOL;
    }

    if (r->ask.max_tokens != SIM_NONE && r->ask.max_tokens < length) {
        length = r->ask.max_tokens;
        r->finish = SIM_LENGTH;
    }

    return length * r->ask.choices;
}


static void
sim_req_count(sim_req_t *r)
{
    sim_stats_t  *st;

    r->counted = 1;

    st = &r->server->stats;

    st->requests++;
    st->inflight++;

    if (st->inflight > st->max_inflight) {
        st->max_inflight = st->inflight;
    }
}


/* the request has got its place in the batch */

void
sim_req_begin(sim_req_t *r)
{
    if (r->order.fault != SIM_FAULT_NONE && r->order.at == SIM_AT_HEADER) {
        sim_fault_fire(r);
        return;
    }

    if (!r->ask.stream) {
        return;
    }

    sim_req_head(r);
    r->dialect->begin(r);

    if (r->order.extra.len) {
        sim_wire_event(r, NULL, &r->order.extra);
    }
}


/*
 * One content event is due.  Returns 0 if the request has left the batch
 * thereby, finished or spoiled: it may be gone.
 */

int
sim_req_token(sim_req_t *r)
{
    if (sim_fault_due(r)) {
        sim_fault_fire(r);
        return 0;
    }

    if (r->first_us == 0) {
        r->first_us = loop_now_us;
    }

    if (r->made == 1 && r->ask.stream && sim_mass_next(r)) {
        return 1;
    }

    if (r->made < r->length) {

        if (r->ask.stream) {
            r->dialect->token(r, r->made);
        }

        r->made++;
        r->server->stats.made_tokens++;

        if (r->made < r->length || sim_fault_due(r)) {
            return 1;
        }
    }

    sim_req_finish(r);

    return 0;
}


/* all that follows the last content event */

void
sim_req_finish(sim_req_t *r)
{
    buf_t  *b;

    if (r->ask.stream) {
        r->dialect->end(r);
        sim_wire_end(r);
        sim_req_done(r);
        return;
    }

    b = sim_json();
    r->dialect->answer(r, b);
    sim_req_respond(r, 200, "", b);
}


void
sim_req_reject(sim_req_t *r, int status, const char *message)
{
    buf_t                *b;
    const sim_dialect_t  *dialect;

    dialect = r->dialect ? r->dialect : &sim_openai_chat;

    b = sim_json();
    dialect->status(b, status, message);
    sim_req_respond(r, status, "", b);
}


/* the ordered status, at once */

static void
sim_req_status(sim_req_t *r)
{
    int     status;
    char    fields[SIM_REQ_FIELDS];
    buf_t  *b;

    status = (int) r->order.status;

    sim_req_fields(r, fields);

    b = sim_json();
    r->dialect->status(b, status, "llm-sim was told to answer this");

    r->order.fault = SIM_FAULT_ERROR;
    sim_req_respond(r, status, fields, b);
}


/* the head of a stream; an error in it may have its fields there, too */

void
sim_req_head(sim_req_t *r)
{
    char  fields[SIM_REQ_FIELDS];

    sim_req_fields(r, fields);
    sim_wire_stream(r, fields);
}


static void
sim_req_fields(const sim_req_t *r, char *fields)
{
    int  n;

    n = 0;
    fields[0] = '\0';

    if (r->order.retry_after >= 0) {
        n = snprintf(fields, SIM_REQ_FIELDS,
                     "Retry-After: %.0f\r\nretry-after-ms: %.0f\r\n",
                     ceil(r->order.retry_after), r->order.retry_after * 1000);
    }

    if (r->order.status == 429) {
        snprintf(fields + n, SIM_REQ_FIELDS - n,
                 "x-ratelimit-limit-requests: 100\r\n"
                 "x-ratelimit-remaining-requests: 0\r\n"
                 "x-ratelimit-reset-requests: 600ms\r\n"
                 "x-ratelimit-limit-tokens: 10000\r\n"
                 "x-ratelimit-remaining-tokens: 0\r\n"
                 "x-ratelimit-reset-tokens: 6s\r\n");
    }
}


static void
sim_req_respond(sim_req_t *r, int status, const char *fields, const buf_t *b)
{
    int64_t  length;

    length = (int64_t) b->len;

    if (r->order.length == 0 || r->order.gzip == SIM_GZIP_STORED) {
        length = SIM_NONE;
    }

    sim_wire_head(r, status, "application/json", length, fields);
    sim_wire_body(r, b->data, b->len);
    sim_wire_end(r);
    sim_req_done(r);
}


/* all is made; what is not sent yet may still be lost to an abort */

void
sim_req_done(sim_req_t *r)
{
    sim_batch_remove(r);

    r->state = SIM_REQ_FLUSH;

    if (buf_size(&r->conn->out) == 0 && !r->conn->broken) {
        sim_req_flushed(r);
    }
}


void
sim_req_flushed(sim_req_t *r)
{
    sim_conn_t  *c;

    if (r->state != SIM_REQ_FLUSH) {
        sim_req_resume(r);
        return;
    }

    if (r->order.fault == SIM_FAULT_NONE || r->order.fault == SIM_FAULT_FILTER)
    {
        r->server->stats.completed += r->counted;

    } else {
        r->server->stats.faulted += r->counted;
    }

    c = r->conn;

    sim_req_free(r);
    sim_conn_next(c);
}


/* ends the connection, as ordered */

void
sim_req_spoiled(sim_req_t *r, int reset)
{
    sim_conn_t  *c;

    if (!reset) {
        r->conn->close = 1;
        sim_req_done(r);
        return;
    }

    r->server->stats.faulted += r->counted;

    c = r->conn;

    sim_req_free(r);
    sim_conn_close(c, 1);
}


/* the client has left */

void
sim_req_abort(sim_req_t *r)
{
    r->server->stats.aborted += r->counted;
    sim_req_free(r);
}


/* the client reads again */

static void
sim_req_resume(sim_req_t *r)
{
    if (r->paused) {
        r->paused = 0;
        loop_timer_set(&r->timer, loop_now_us);
    }
}


static void
sim_req_free(sim_req_t *r)
{
    sim_stats_t  *st;

    sim_batch_remove(r);

    if (r->counted) {
        st = &r->server->stats;

        st->inflight--;
        st->prompt_tokens += r->prompt;
        st->cached_tokens += r->cached;
        st->completion_tokens += r->made;
    }

    sim_ask_free(&r->ask);
    sim_order_free(&r->order);
    buf_free(&r->body);
    free(r);
}
