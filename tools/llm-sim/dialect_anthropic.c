
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "sim.h"


/*
 * Anthropic messages, https://docs.anthropic.com/en/api/messages-streaming.
 * input_tokens are those that were not read from the cache.
 */

static void sim_anthropic_begin(sim_req_t *r);
static void sim_anthropic_token(sim_req_t *r, uint64_t k);
static void sim_anthropic_end(sim_req_t *r);
static void sim_anthropic_error(sim_req_t *r);
static void sim_anthropic_answer(sim_req_t *r, buf_t *b);
static void sim_anthropic_status(buf_t *b, int status, const char *message);
static void sim_anthropic_open(sim_req_t *r, buf_t *b);
static void sim_anthropic_tool(sim_req_t *r, buf_t *b);
static void sim_anthropic_usage(sim_req_t *r, buf_t *b, uint64_t output);
static const char *sim_anthropic_stop(const sim_req_t *r);


const sim_dialect_t  sim_anthropic_messages = {
    .content_type = "text/event-stream; charset=utf-8",
    .begin = sim_anthropic_begin,
    .token = sim_anthropic_token,
    .end = sim_anthropic_end,
    .error = sim_anthropic_error,
    .answer = sim_anthropic_answer,
    .status = sim_anthropic_status
};


static void
sim_anthropic_begin(sim_req_t *r)
{
    buf_t  *b;

    b = sim_json();
    buf_add_str(b, "{\"type\":\"message_start\",\"message\":{");
    sim_anthropic_open(r, b);
    buf_add_str(b, "\"content\":[],\"stop_reason\":null,"
                   "\"stop_sequence\":null");
    sim_anthropic_usage(r, b, 1);
    buf_add_str(b, "}}");
    sim_wire_event(r, "message_start", b);

    b = sim_json();
    buf_add_str(b, "{\"type\":\"content_block_start\",\"index\":0,"
                   "\"content_block\":{");

    if (sim_text_is_tool(r)) {
        sim_anthropic_tool(r, b);
        buf_add_str(b, "{}}}");

    } else {
        buf_add_str(b, "\"type\":\"text\",\"text\":\"\"}}");
    }

    sim_wire_event(r, "content_block_start", b);

    b = sim_json();
    buf_add_str(b, "{\"type\":\"ping\"}");
    sim_wire_event(r, "ping", b);
}


static void
sim_anthropic_token(sim_req_t *r, uint64_t k)
{
    buf_t  *b;

    b = sim_json();

    buf_add_str(b, "{\"type\":\"content_block_delta\",\"index\":0,"
                   "\"delta\":{\"type\":");
    buf_add_str(b, sim_text_is_tool(r)
                   ? "\"input_json_delta\",\"partial_json\":\""
                   : "\"text_delta\",\"text\":\"");
    sim_text_token(r, k, b);
    buf_add_str(b, "\"}}");

    sim_wire_event(r, "content_block_delta", b);
}


static void
sim_anthropic_end(sim_req_t *r)
{
    buf_t  *b;

    b = sim_json();
    buf_add_str(b, "{\"type\":\"content_block_stop\",\"index\":0}");
    sim_wire_event(r, "content_block_stop", b);

    b = sim_json();
    buf_add_fmt(b, "{\"type\":\"message_delta\",\"delta\":"
                "{\"stop_reason\":\"%s\",\"stop_sequence\":null}",
                sim_anthropic_stop(r));
    sim_anthropic_usage(r, b, r->made);
    buf_add_str(b, "}");
    sim_wire_event(r, "message_delta", b);

    b = sim_json();
    buf_add_str(b, "{\"type\":\"message_stop\"}");
    sim_wire_event(r, "message_stop", b);
}


static void
sim_anthropic_answer(sim_req_t *r, buf_t *b)
{
    buf_add_str(b, "{");
    sim_anthropic_open(r, b);
    buf_add_str(b, "\"content\":[{");

    if (sim_text_is_tool(r)) {
        sim_anthropic_tool(r, b);
        buf_add_str(b, "{\"query\":\"");
        sim_text_words(r, b);
        buf_add_str(b, "\"}");

    } else {
        buf_add_str(b, "\"type\":\"text\",\"text\":\"");
        sim_text_words(r, b);
        buf_add_str(b, "\"");
    }

    buf_add_fmt(b, "}],\"stop_reason\":\"%s\",\"stop_sequence\":null",
                sim_anthropic_stop(r));
    sim_anthropic_usage(r, b, r->made);
    buf_add_str(b, "}");
}


static void
sim_anthropic_open(sim_req_t *r, buf_t *b)
{
    buf_add_fmt(b, "\"id\":\"msg_%016llx\",\"type\":\"message\","
                "\"role\":\"assistant\",\"model\":\"",
                (unsigned long long) r->id);
    sim_text_model(r, b);
    buf_add_str(b, "\",");
}


/* up to the value of the input */

static void
sim_anthropic_tool(sim_req_t *r, buf_t *b)
{
    buf_add_fmt(b, "\"type\":\"tool_use\",\"id\":\"toolu_%016llx\","
                "\"name\":\"lookup\",\"input\":", (unsigned long long) r->id);
}


static void
sim_anthropic_usage(sim_req_t *r, buf_t *b, uint64_t output)
{
    if (sim_text_usage(r, b, "usage")) {
        return;
    }

    buf_add_fmt(b, ",\"usage\":{\"input_tokens\":%llu,"
                "\"cache_creation_input_tokens\":0,"
                "\"cache_read_input_tokens\":%llu,\"output_tokens\":%llu}",
                (unsigned long long) (r->prompt - r->cached),
                (unsigned long long) r->cached,
                (unsigned long long) output);
}


static const char *
sim_anthropic_stop(const sim_req_t *r)
{
    static const char  *names[] = {
        "end_turn", "max_tokens", "tool_use", "refusal"
    };

    return names[r->finish];
}


static void
sim_anthropic_error(sim_req_t *r)
{
    buf_t  *b;

    b = sim_json();
    sim_anthropic_status(b, sim_fault_status(r, 529), "Overloaded");
    sim_wire_event(r, "error", b);
}


static void
sim_anthropic_status(buf_t *b, int status, const char *message)
{
    const char  *type;

    switch (status) {

    case 401:
        type = "authentication_error";
        break;

    case 403:
        type = "permission_error";
        break;

    case 404:
        type = "not_found_error";
        break;

    case 413:
        type = "request_too_large";
        break;

    case 429:
        type = "rate_limit_error";
        break;

    case 529:
        type = "overloaded_error";
        break;

    default:
        type = status < 500 ? "invalid_request_error" : "api_error";
    }

    buf_add_fmt(b, "{\"type\":\"error\",\"error\":{\"type\":\"%s\","
                "\"message\":\"%s\"},\"request_id\":null}", type, message);
}
