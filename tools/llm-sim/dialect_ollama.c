
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stdio.h>
#include <time.h>

#include "sim.h"


/*
 * Ollama, https://github.com/ollama/ollama/blob/main/docs/api.md: a JSON
 * object a line; the last has "done": true and the counts, which an ordered
 * usage replaces (the members of its object).  Times are nanoseconds.
 */

static void sim_ollama_begin(sim_req_t *r);
static void sim_ollama_token(sim_req_t *r, uint64_t k);
static void sim_ollama_end(sim_req_t *r);
static void sim_ollama_error(sim_req_t *r);
static void sim_ollama_answer(sim_req_t *r, buf_t *b);
static void sim_ollama_status(buf_t *b, int status, const char *message);
static void sim_ollama_open(sim_req_t *r, buf_t *b);
static void sim_ollama_tool(sim_req_t *r, buf_t *b);
static void sim_ollama_close(sim_req_t *r, buf_t *b);
static void sim_ollama_usage(sim_req_t *r, buf_t *b);
static int sim_ollama_is_chat(const sim_req_t *r);


const sim_dialect_t  sim_ollama_chat = {
    .content_type = "application/x-ndjson",
    .frame = SIM_FRAME_LINES,
    .stream_default = 1,
    .begin = sim_ollama_begin,
    .token = sim_ollama_token,
    .end = sim_ollama_end,
    .error = sim_ollama_error,
    .answer = sim_ollama_answer,
    .status = sim_ollama_status
};


const sim_dialect_t  sim_ollama_generate = {
    .content_type = "application/x-ndjson",
    .frame = SIM_FRAME_LINES,
    .stream_default = 1,
    .begin = sim_ollama_begin,
    .token = sim_ollama_token,
    .end = sim_ollama_end,
    .error = sim_ollama_error,
    .answer = sim_ollama_answer,
    .status = sim_ollama_status
};


static void
sim_ollama_begin(sim_req_t *r)
{
    /* the first line is content */

    (void) r;
}


/* a tool call is never in pieces: its line comes with the last token */

static void
sim_ollama_token(sim_req_t *r, uint64_t k)
{
    buf_t  *b;

    if (sim_text_is_tool(r) && k + 1 < r->length) {
        return;
    }

    b = sim_json();
    sim_ollama_open(r, b);

    if (sim_text_is_tool(r)) {
        sim_ollama_tool(r, b);

    } else {
        sim_text_token(r, k, b);
        buf_add_str(b, sim_ollama_is_chat(r) ? "\"}" : "\"");
    }

    buf_add_str(b, ",\"done\":false}");
    sim_wire_event(r, NULL, b);
}


static void
sim_ollama_end(sim_req_t *r)
{
    buf_t  *b;

    b = sim_json();

    sim_ollama_open(r, b);
    buf_add_str(b, sim_ollama_is_chat(r) ? "\"}" : "\"");
    sim_ollama_close(r, b);

    sim_wire_event(r, NULL, b);
}


static void
sim_ollama_answer(sim_req_t *r, buf_t *b)
{
    sim_ollama_open(r, b);

    if (sim_text_is_tool(r)) {
        sim_ollama_tool(r, b);

    } else {
        sim_text_words(r, b);
        buf_add_str(b, sim_ollama_is_chat(r) ? "\"}" : "\"");
    }

    sim_ollama_close(r, b);
}


/* up to the inside of the content */

static void
sim_ollama_open(sim_req_t *r, buf_t *b)
{
    char             text[32];
    time_t           now;
    struct tm        tm;
    struct timespec  ts;

    clock_gettime(CLOCK_REALTIME, &ts);

    now = ts.tv_sec;
    gmtime_r(&now, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);

    buf_add_str(b, "{\"model\":\"");
    sim_text_model(r, b);
    buf_add_fmt(b, "\",\"created_at\":\"%s.%09ldZ\",%s", text, ts.tv_nsec,
                sim_ollama_is_chat(r)
                ? "\"message\":{\"role\":\"assistant\",\"content\":\""
                : "\"response\":\"");
}


static void
sim_ollama_tool(sim_req_t *r, buf_t *b)
{
    if (!sim_ollama_is_chat(r)) {
        buf_add_str(b, "\"");
        return;
    }

    buf_add_str(b, "\",\"tool_calls\":[{\"function\":{\"name\":\"lookup\","
                   "\"arguments\":{\"query\":\"");
    sim_text_words(r, b);
    buf_add_str(b, "\"}}}]}");
}


static void
sim_ollama_close(sim_req_t *r, buf_t *b)
{
    /* Ollama knows no other reasons */

    buf_add_fmt(b, ",\"done\":true,\"done_reason\":\"%s\"",
                r->finish == SIM_LENGTH ? "length" : "stop");

    if (!sim_ollama_is_chat(r)) {
        buf_add_str(b, ",\"context\":[1,2,3]");
    }

    sim_ollama_usage(r, b);
    buf_add_str(b, "}");
}


static void
sim_ollama_usage(sim_req_t *r, buf_t *b)
{
    buf_t     *usage;
    uint64_t   total_us, first_us;

    usage = &r->order.usage;

    if (sim_text_no_usage(r)) {
        return;
    }

    if (usage->len > 2) {
        buf_add_str(b, ",");
        buf_add(b, usage->data + 1, usage->len - 2);
        return;
    }

    total_us = loop_now_us - r->start_us;
    first_us = r->first_us ? r->first_us - r->start_us : total_us;

    buf_add_fmt(b, ",\"total_duration\":%llu,\"load_duration\":1000000,"
                "\"prompt_eval_count\":%llu,\"prompt_eval_duration\":%llu,"
                "\"eval_count\":%llu,\"eval_duration\":%llu",
                (unsigned long long) total_us * 1000,
                (unsigned long long) r->prompt,
                (unsigned long long) first_us * 1000,
                (unsigned long long) r->made,
                (unsigned long long) (total_us - first_us) * 1000);
}


static void
sim_ollama_error(sim_req_t *r)
{
    buf_t  *b;

    b = sim_json();
    sim_ollama_status(b, sim_fault_status(r, 500), "an error was encountered"
                      " while running the model: unexpected EOF");
    sim_wire_event(r, NULL, b);
}


static void
sim_ollama_status(buf_t *b, int status, const char *message)
{
    (void) status;

    buf_add_fmt(b, "{\"error\":\"%s\"}", message);
}


static int
sim_ollama_is_chat(const sim_req_t *r)
{
    return r->dialect == &sim_ollama_chat;
}
