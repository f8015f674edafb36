
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "sim.h"


/*
 * Baidu ERNIE (Qianfan V1): events without a name; sentences are numbered
 * and the last says "is_end".  Every event carries the usage so far.
 */

static void sim_ernie_begin(sim_req_t *r);
static void sim_ernie_token(sim_req_t *r, uint64_t k);
static void sim_ernie_end(sim_req_t *r);
static void sim_ernie_error(sim_req_t *r);
static void sim_ernie_answer(sim_req_t *r, buf_t *b);
static void sim_ernie_status(buf_t *b, int status, const char *message);
static void sim_ernie_open(sim_req_t *r, buf_t *b);
static void sim_ernie_sentence(sim_req_t *r, buf_t *b, uint64_t sentence,
    int end);
static void sim_ernie_close(sim_req_t *r, buf_t *b, uint64_t made, int end);


const sim_dialect_t  sim_ernie = {
    .content_type = "text/event-stream; charset=utf-8",
    .begin = sim_ernie_begin,
    .token = sim_ernie_token,
    .end = sim_ernie_end,
    .error = sim_ernie_error,
    .answer = sim_ernie_answer,
    .status = sim_ernie_status
};


static void
sim_ernie_begin(sim_req_t *r)
{
    /* the first event is content */

    (void) r;
}


static void
sim_ernie_token(sim_req_t *r, uint64_t k)
{
    buf_t  *b;

    b = sim_json();
    sim_ernie_open(r, b);
    sim_ernie_sentence(r, b, k, 0);
    sim_text_token(r, k, b);
    sim_ernie_close(r, b, k + 1, 0);
    sim_wire_event(r, NULL, b);
}


static void
sim_ernie_end(sim_req_t *r)
{
    buf_t  *b;

    b = sim_json();
    sim_ernie_open(r, b);
    sim_ernie_sentence(r, b, r->made, 1);
    sim_ernie_close(r, b, r->made, 1);
    sim_wire_event(r, NULL, b);
}


static void
sim_ernie_answer(sim_req_t *r, buf_t *b)
{
    sim_ernie_open(r, b);
    buf_add_fmt(b, "\"is_truncated\":%s,\"result\":\"",
                r->finish == SIM_LENGTH ? "true" : "false");
    sim_text_words(r, b);
    sim_ernie_close(r, b, r->made, 1);
}


static void
sim_ernie_open(sim_req_t *r, buf_t *b)
{
    buf_add_fmt(b, "{\"id\":\"as-%016llx\",\"object\":\"chat.completion\","
                "\"created\":%lld,", (unsigned long long) r->id,
                (long long) r->created);
}


static void
sim_ernie_sentence(sim_req_t *r, buf_t *b, uint64_t sentence, int end)
{
    buf_add_fmt(b, "\"sentence_id\":%llu,\"is_end\":%s,\"is_truncated\":%s,"
                "\"result\":\"", (unsigned long long) sentence,
                end ? "true" : "false",
                end && r->finish == SIM_LENGTH ? "true" : "false");
}


static void
sim_ernie_close(sim_req_t *r, buf_t *b, uint64_t made, int end)
{
    static const char  *names[] = {
        "normal", "length", "normal", "content_filter"
    };

    buf_add_fmt(b, "\",\"need_clear_history\":%s",
                end && r->finish == SIM_FILTER ? "true" : "false");

    if (end) {
        buf_add_fmt(b, ",\"finish_reason\":\"%s\"", names[r->finish]);
    }

    if (!sim_text_usage(r, b, "usage")) {
        buf_add_fmt(b, ",\"usage\":{\"prompt_tokens\":%llu,"
                    "\"completion_tokens\":%llu,\"total_tokens\":%llu}",
                    (unsigned long long) r->prompt,
                    (unsigned long long) made,
                    (unsigned long long) (r->prompt + made));
    }

    buf_add_str(b, "}");
}


static void
sim_ernie_error(sim_req_t *r)
{
    buf_t  *b;

    b = sim_json();
    sim_ernie_status(b, sim_fault_status(r, 500), "Internal error");
    sim_wire_event(r, NULL, b);
}


/* ERNIE itself answers 200 with such a body; the status is as ordered */

static void
sim_ernie_status(buf_t *b, int status, const char *message)
{
    int  code;

    switch (status) {

    case 401:
        code = 110;
        break;

    case 403:
        code = 6;
        break;

    case 429:
        code = 18;
        break;

    default:
        code = status < 500 ? 336003 : 336100;
    }

    buf_add_fmt(b, "{\"error_code\":%d,\"error_msg\":\"%s\"}", code, message);
}
