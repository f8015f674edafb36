
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "sim.h"


/*
 * OpenAI Responses, https://platform.openai.com/docs/api-reference/responses-
 * streaming: every event has a name, a type and a sequence number; the whole
 * response stands in the first events and in the last one.  There is no
 * "[DONE]".  An answer that ends early ends in response.incomplete.
 */

static void sim_responses_begin(sim_req_t *r);
static void sim_responses_token(sim_req_t *r, uint64_t k);
static void sim_responses_end(sim_req_t *r);
static void sim_responses_error(sim_req_t *r);
static void sim_responses_answer(sim_req_t *r, buf_t *b);
static void sim_responses_object(sim_req_t *r, buf_t *b, const char *status);
static void sim_responses_item(sim_req_t *r, buf_t *b, int done);
static void sim_responses_part(sim_req_t *r, buf_t *b, int done);
static void sim_responses_usage(sim_req_t *r, buf_t *b);
static void sim_responses_life(sim_req_t *r, const char *type,
    const char *status);
static void sim_responses_item_event(sim_req_t *r, const char *type, int done);
static void sim_responses_part_event(sim_req_t *r, const char *type,
    int done);
static void sim_responses_whole_event(sim_req_t *r);
static buf_t *sim_responses_open(sim_req_t *r, const char *type);
static void sim_responses_place(sim_req_t *r, buf_t *b);
static int sim_responses_cut(const sim_req_t *r);


const sim_dialect_t  sim_openai_responses = {
    .content_type = "text/event-stream; charset=utf-8",
    .begin = sim_responses_begin,
    .token = sim_responses_token,
    .end = sim_responses_end,
    .error = sim_responses_error,
    .answer = sim_responses_answer,
    .status = sim_openai_status
};


#define SIM_FAILED      "The model failed to generate a response."
#define SIM_CALL_DELTA  "response.function_call_arguments.delta"
#define SIM_CALL_DONE   "response.function_call_arguments.done"
#define SIM_TEXT_DELTA  "response.output_text.delta"
#define SIM_TEXT_DONE   "response.output_text.done"


static void
sim_responses_begin(sim_req_t *r)
{
    sim_responses_life(r, "response.created", "in_progress");
    sim_responses_life(r, "response.in_progress", "in_progress");
    sim_responses_item_event(r, "response.output_item.added", 0);

    if (!sim_text_is_tool(r)) {
        sim_responses_part_event(r, "response.content_part.added", 0);
    }
}


static void
sim_responses_token(sim_req_t *r, uint64_t k)
{
    int          tool;
    buf_t       *b;
    const char  *type;

    tool = sim_text_is_tool(r);
    type = tool ? SIM_CALL_DELTA : SIM_TEXT_DELTA;

    b = sim_responses_open(r, type);
    sim_responses_place(r, b);

    buf_add_str(b, ",\"delta\":\"");
    sim_text_token(r, k, b);
    buf_add_str(b, tool ? "\"}" : "\",\"logprobs\":[]}");

    sim_wire_event(r, type, b);
}


static void
sim_responses_end(sim_req_t *r)
{
    sim_responses_whole_event(r);

    if (!sim_text_is_tool(r)) {
        sim_responses_part_event(r, "response.content_part.done", 1);
    }

    sim_responses_item_event(r, "response.output_item.done", 1);

    if (sim_responses_cut(r)) {
        sim_responses_life(r, "response.incomplete", "incomplete");

    } else {
        sim_responses_life(r, "response.completed", "completed");
    }
}


static void
sim_responses_answer(sim_req_t *r, buf_t *b)
{
    sim_responses_object(r, b,
                         sim_responses_cut(r) ? "incomplete" : "completed");
}


static int
sim_responses_cut(const sim_req_t *r)
{
    return r->finish == SIM_LENGTH || r->finish == SIM_FILTER;
}


/* status "in_progress": as it stands before any output */

static void
sim_responses_object(sim_req_t *r, buf_t *b, const char *status)
{
    int  done;

    done = (status[0] != 'i' || status[2] == 'c');

    buf_add_fmt(b, "{\"id\":\"resp_%016llx\",\"object\":\"response\","
                "\"created_at\":%lld,\"status\":\"%s\",",
                (unsigned long long) r->id, (long long) r->created, status);

    if (status[0] == 'f') {
        buf_add_str(b, "\"error\":{\"code\":\"server_error\",\"message\":\""
                       SIM_FAILED "\"},");

    } else {
        buf_add_str(b, "\"error\":null,");
    }

    if (done && sim_responses_cut(r)) {
        buf_add_fmt(b, "\"incomplete_details\":{\"reason\":\"%s\"},",
                    r->finish == SIM_LENGTH ? "max_output_tokens"
                                            : "content_filter");

    } else {
        buf_add_str(b, "\"incomplete_details\":null,");
    }

    buf_add_str(b, "\"instructions\":null,\"max_output_tokens\":");

    if (r->ask.max_tokens == SIM_NONE) {
        buf_add_str(b, "null");

    } else {
        buf_add_u64(b, r->ask.max_tokens);
    }

    buf_add_str(b, ",\"model\":\"");
    sim_text_model(r, b);
    buf_add_str(b, "\",\"output\":[");

    if (done && status[0] != 'f') {
        sim_responses_item(r, b, 1);
    }

    buf_add_str(b, "],\"parallel_tool_calls\":true,"
                   "\"previous_response_id\":null,\"reasoning\":"
                   "{\"effort\":null,\"summary\":null},\"store\":true,"
                   "\"temperature\":1.0,\"text\":{\"format\":"
                   "{\"type\":\"text\"}},\"tool_choice\":\"auto\","
                   "\"tools\":[],\"top_p\":1.0,\"truncation\":\"disabled\"");

    if (done && status[0] != 'f') {
        sim_responses_usage(r, b);

    } else {
        buf_add_str(b, ",\"usage\":null");
    }

    buf_add_str(b, ",\"user\":null,\"metadata\":{}}");
}


static void
sim_responses_usage(sim_req_t *r, buf_t *b)
{
    if (sim_text_usage(r, b, "usage")) {
        return;
    }

    buf_add_fmt(b, ",\"usage\":{\"input_tokens\":%llu,"
                "\"input_tokens_details\":{\"cached_tokens\":%llu},"
                "\"output_tokens\":%llu,\"output_tokens_details\":"
                "{\"reasoning_tokens\":0},\"total_tokens\":%llu}",
                (unsigned long long) r->prompt,
                (unsigned long long) r->cached,
                (unsigned long long) r->made,
                (unsigned long long) (r->prompt + r->made));
}


static void
sim_responses_item(sim_req_t *r, buf_t *b, int done)
{
    const char  *status;

    status = !done ? "in_progress"
                   : sim_responses_cut(r) ? "incomplete" : "completed";

    if (sim_text_is_tool(r)) {
        buf_add_fmt(b, "{\"id\":\"fc_%016llx\",\"type\":\"function_call\","
                    "\"status\":\"%s\",\"arguments\":\"",
                    (unsigned long long) r->id, status);

        if (done) {
            sim_text_all(r, b);
        }

        buf_add_fmt(b, "\",\"call_id\":\"call_%016llx\",\"name\":\"lookup\"}",
                    (unsigned long long) r->id);
        return;
    }

    buf_add_fmt(b, "{\"id\":\"msg_%016llx\",\"type\":\"message\","
                "\"status\":\"%s\",\"content\":[",
                (unsigned long long) r->id, status);

    if (done) {
        sim_responses_part(r, b, 1);
    }

    buf_add_str(b, "],\"role\":\"assistant\"}");
}


static void
sim_responses_part(sim_req_t *r, buf_t *b, int done)
{
    buf_add_str(b, "{\"type\":\"output_text\",\"annotations\":[],"
                   "\"logprobs\":[],\"text\":\"");

    if (done) {
        sim_text_all(r, b);
    }

    buf_add_str(b, "\"}");
}


/* created, in_progress, completed, incomplete, failed */

static void
sim_responses_life(sim_req_t *r, const char *type, const char *status)
{
    buf_t  *b;

    b = sim_responses_open(r, type);

    buf_add_str(b, ",\"response\":");
    sim_responses_object(r, b, status);
    buf_add_str(b, "}");

    sim_wire_event(r, type, b);
}


static void
sim_responses_item_event(sim_req_t *r, const char *type, int done)
{
    buf_t  *b;

    b = sim_responses_open(r, type);

    buf_add_str(b, ",\"output_index\":0,\"item\":");
    sim_responses_item(r, b, done);
    buf_add_str(b, "}");

    sim_wire_event(r, type, b);
}


static void
sim_responses_part_event(sim_req_t *r, const char *type, int done)
{
    buf_t  *b;

    b = sim_responses_open(r, type);
    sim_responses_place(r, b);

    buf_add_str(b, ",\"part\":");
    sim_responses_part(r, b, done);
    buf_add_str(b, "}");

    sim_wire_event(r, type, b);
}


/* the whole of what the deltas were pieces of */

static void
sim_responses_whole_event(sim_req_t *r)
{
    int          tool;
    buf_t       *b;
    const char  *type;

    tool = sim_text_is_tool(r);
    type = tool ? SIM_CALL_DONE : SIM_TEXT_DONE;

    b = sim_responses_open(r, type);
    sim_responses_place(r, b);

    buf_add_str(b, tool ? ",\"name\":\"lookup\",\"arguments\":\""
                        : ",\"text\":\"");
    sim_text_all(r, b);
    buf_add_str(b, tool ? "\"}" : "\",\"logprobs\":[]}");

    sim_wire_event(r, type, b);
}


static buf_t *
sim_responses_open(sim_req_t *r, const char *type)
{
    buf_t  *b;

    b = sim_json();

    buf_add_fmt(b, "{\"type\":\"%s\",\"sequence_number\":%llu", type,
                (unsigned long long) r->sequence++);

    return b;
}


static void
sim_responses_place(sim_req_t *r, buf_t *b)
{
    int  tool;

    tool = sim_text_is_tool(r);

    buf_add_fmt(b, ",\"item_id\":\"%s_%016llx\",\"output_index\":0%s",
                tool ? "fc" : "msg", (unsigned long long) r->id,
                tool ? "" : ",\"content_index\":0");
}


/* two events, as the service sends them */

static void
sim_responses_error(sim_req_t *r)
{
    buf_t  *b;

    b = sim_responses_open(r, "error");

    buf_add_fmt(b, ",\"error\":{\"type\":\"server_error\","
                   "\"code\":\"%s\",\"message\":\""
                   SIM_FAILED "\",\"param\":null}}",
                sim_fault_status(r, 500) == 429 ? "rate_limit_exceeded"
                                                : "server_error");
    sim_wire_event(r, "error", b);

    sim_responses_life(r, "response.failed", "failed");
}
