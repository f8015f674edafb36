
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "sim.h"


/*
 * OpenAI chat completions and legacy completions,
 * https://platform.openai.com/docs/api-reference/chat-streaming: the role
 * comes first and alone, the usage (if asked for) after the finish reason and
 * without choices, "[DONE]" last.  With n > 1 the choices take turns.
 */

static void sim_chat_begin(sim_req_t *r);
static void sim_chat_token(sim_req_t *r, uint64_t k);
static void sim_chat_end(sim_req_t *r);
static void sim_chat_answer(sim_req_t *r, buf_t *b);
static void sim_chat_delta_open(sim_req_t *r, buf_t *b, uint64_t choice);
static void sim_chat_tool_call(sim_req_t *r, buf_t *b, uint64_t choice);
static void sim_completions_begin(sim_req_t *r);
static void sim_completions_token(sim_req_t *r, uint64_t k);
static void sim_completions_end(sim_req_t *r);
static void sim_completions_answer(sim_req_t *r, buf_t *b);
static void sim_completions_event(sim_req_t *r, uint64_t choice, int64_t token,
    const char *finish);
static void sim_openai_open(sim_req_t *r, buf_t *b, const char *prefix,
    const char *object);
static void sim_openai_close(sim_req_t *r, buf_t *b);
static void sim_openai_last(sim_req_t *r, const char *prefix,
    const char *object);
static void sim_openai_usage(sim_req_t *r, buf_t *b);
static void sim_openai_error(sim_req_t *r);
static const char *sim_openai_finish(const sim_req_t *r);


const sim_dialect_t  sim_openai_chat = {
    .choices = 1,
    .content_type = "text/event-stream; charset=utf-8",
    .begin = sim_chat_begin,
    .token = sim_chat_token,
    .end = sim_chat_end,
    .error = sim_openai_error,
    .answer = sim_chat_answer,
    .status = sim_openai_status
};


const sim_dialect_t  sim_openai_completions = {
    .choices = 1,
    .content_type = "text/event-stream; charset=utf-8",
    .begin = sim_completions_begin,
    .token = sim_completions_token,
    .end = sim_completions_end,
    .error = sim_openai_error,
    .answer = sim_completions_answer,
    .status = sim_openai_status
};


#define SIM_CHAT_ID            "chatcmpl"
#define SIM_CHAT_CHUNK         "chat.completion.chunk"
#define SIM_COMPLETIONS_ID     "cmpl"
#define SIM_COMPLETIONS_CHUNK  "text_completion"


static void
sim_chat_begin(sim_req_t *r)
{
    buf_t     *b;
    uint64_t   i;

    for (i = 0; i < r->ask.choices; i++) {
        b = sim_json();

        sim_chat_delta_open(r, b, i);
        buf_add_str(b, "\"role\":\"assistant\",\"content\":");

        if (sim_text_is_tool(r)) {
            buf_add_str(b, "null,");
            sim_chat_tool_call(r, b, i);

        } else {
            buf_add_str(b, "\"\",\"refusal\":null");
        }

        buf_add_str(b, "},\"logprobs\":null,\"finish_reason\":null}");
        sim_openai_close(r, b);
        sim_wire_event(r, NULL, b);
    }
}


static void
sim_chat_token(sim_req_t *r, uint64_t k)
{
    int     tool;
    buf_t  *b;

    b = sim_json();
    tool = sim_text_is_tool(r);

    sim_chat_delta_open(r, b, k % r->ask.choices);

    buf_add_str(b, tool ? "\"tool_calls\":[{\"index\":0,\"function\":"
                          "{\"arguments\":\""
                        : "\"content\":\"");

    sim_text_token(r, k / r->ask.choices, b);

    buf_add_str(b, tool ? "\"}}]" : "\"");
    buf_add_str(b, "},\"logprobs\":null,\"finish_reason\":null}");
    sim_openai_close(r, b);

    sim_wire_event(r, NULL, b);
}


static void
sim_chat_end(sim_req_t *r)
{
    buf_t     *b;
    uint64_t   i;

    for (i = 0; i < r->ask.choices; i++) {
        b = sim_json();

        sim_chat_delta_open(r, b, i);
        buf_add_fmt(b, "},\"logprobs\":null,\"finish_reason\":\"%s\"}",
                    sim_openai_finish(r));
        sim_openai_close(r, b);
        sim_wire_event(r, NULL, b);
    }

    sim_openai_last(r, SIM_CHAT_ID, SIM_CHAT_CHUNK);
}


static void
sim_chat_answer(sim_req_t *r, buf_t *b)
{
    uint64_t  i;

    sim_openai_open(r, b, SIM_CHAT_ID, "chat.completion");

    for (i = 0; i < r->ask.choices; i++) {

        buf_add_fmt(b, "%s{\"index\":%llu,\"message\":{\"role\":\"assistant\","
                    "\"content\":", i ? "," : "", (unsigned long long) i);

        if (sim_text_is_tool(r)) {
            buf_add_str(b, "null,");
            sim_chat_tool_call(r, b, i);

        } else {
            buf_add_str(b, "\"");
            sim_text_all(r, b);
            buf_add_str(b, "\"");
        }

        buf_add_fmt(b, ",\"refusal\":null,\"annotations\":[]},"
                    "\"logprobs\":null,\"finish_reason\":\"%s\"}",
                    sim_openai_finish(r));
    }

    buf_add_str(b, "]");
    sim_openai_usage(r, b);
    buf_add_str(b, "}");
}


static void
sim_chat_delta_open(sim_req_t *r, buf_t *b, uint64_t choice)
{
    sim_openai_open(r, b, SIM_CHAT_ID, SIM_CHAT_CHUNK);
    buf_add_str(b, "{\"index\":");
    buf_add_u64(b, choice);
    buf_add_str(b, ",\"delta\":{");
}


/* in a stream the arguments follow in pieces, and each call has its index */

static void
sim_chat_tool_call(sim_req_t *r, buf_t *b, uint64_t choice)
{
    buf_add_fmt(b, "\"tool_calls\":[{%s\"id\":\"call_%016llx\","
                "\"type\":\"function\",\"function\":{\"name\":\"lookup\","
                "\"arguments\":\"",
                r->ask.stream ? "\"index\":0," : "",
                (unsigned long long) (r->id + choice));

    if (!r->ask.stream) {
        sim_text_all(r, b);
    }

    buf_add_str(b, "\"}}]");
}


static void
sim_completions_begin(sim_req_t *r)
{
    /* there is no role: the first event is content */

    (void) r;
}


static void
sim_completions_token(sim_req_t *r, uint64_t k)
{
    sim_completions_event(r, k % r->ask.choices, k / r->ask.choices, NULL);
}


static void
sim_completions_end(sim_req_t *r)
{
    uint64_t  i;

    for (i = 0; i < r->ask.choices; i++) {
        sim_completions_event(r, i, SIM_NONE, sim_openai_finish(r));
    }

    sim_openai_last(r, SIM_COMPLETIONS_ID, SIM_COMPLETIONS_CHUNK);
}


static void
sim_completions_event(sim_req_t *r, uint64_t choice, int64_t token,
    const char *finish)
{
    buf_t  *b;

    b = sim_json();

    sim_openai_open(r, b, SIM_COMPLETIONS_ID, SIM_COMPLETIONS_CHUNK);
    buf_add_str(b, "{\"text\":\"");

    if (token != SIM_NONE) {
        sim_text_token(r, token, b);
    }

    buf_add_str(b, "\",\"index\":");
    buf_add_u64(b, choice);
    buf_add_str(b, ",\"logprobs\":null,\"finish_reason\":");

    if (finish != NULL) {
        buf_add_fmt(b, "\"%s\"}", finish);

    } else {
        buf_add_str(b, "null}");
    }

    sim_openai_close(r, b);
    sim_wire_event(r, NULL, b);
}


static void
sim_completions_answer(sim_req_t *r, buf_t *b)
{
    uint64_t  i;

    sim_openai_open(r, b, SIM_COMPLETIONS_ID, SIM_COMPLETIONS_CHUNK);

    for (i = 0; i < r->ask.choices; i++) {
        buf_add_str(b, i ? ",{\"text\":\"" : "{\"text\":\"");
        sim_text_all(r, b);
        buf_add_fmt(b, "\",\"index\":%llu,\"logprobs\":null,"
                    "\"finish_reason\":\"%s\"}", (unsigned long long) i,
                    sim_openai_finish(r));
    }

    buf_add_str(b, "]");
    sim_openai_usage(r, b);
    buf_add_str(b, "}");
}


static void
sim_openai_open(sim_req_t *r, buf_t *b, const char *prefix,
    const char *object)
{
    buf_add_fmt(b, "{\"id\":\"%s-%016llx\",\"object\":\"%s\","
                "\"created\":%lld,\"model\":\"", prefix,
                (unsigned long long) r->id, object, (long long) r->created);
    sim_text_model(r, b);
    buf_add_str(b, "\",\"service_tier\":\"default\","
                   "\"system_fingerprint\":\"fp_sim\",\"choices\":[");
}


/* where usage was asked for, all chunks but the last carry a null */

static void
sim_openai_close(sim_req_t *r, buf_t *b)
{
    buf_add_str(b, r->ask.include_usage ? "],\"usage\":null}" : "]}");
}


static void
sim_openai_last(sim_req_t *r, const char *prefix, const char *object)
{
    buf_t  *b;

    if (r->ask.include_usage && !sim_text_no_usage(r)) {
        b = sim_json();

        sim_openai_open(r, b, prefix, object);
        buf_add_str(b, "]");
        sim_openai_usage(r, b);
        buf_add_str(b, "}");
        sim_wire_event(r, NULL, b);
    }

    b = sim_json();
    buf_add_str(b, "[DONE]");
    sim_wire_event(r, NULL, b);
}


static void
sim_openai_usage(sim_req_t *r, buf_t *b)
{
    if (sim_text_usage(r, b, "usage")) {
        return;
    }

    buf_add_fmt(b, ",\"usage\":{\"prompt_tokens\":%llu,"
                "\"completion_tokens\":%llu,\"total_tokens\":%llu,"
                "\"prompt_tokens_details\":{\"cached_tokens\":%llu,"
                "\"audio_tokens\":0},"
                "\"completion_tokens_details\":{\"reasoning_tokens\":0,"
                "\"audio_tokens\":0,\"accepted_prediction_tokens\":0,"
                "\"rejected_prediction_tokens\":0}}",
                (unsigned long long) r->prompt,
                (unsigned long long) r->made,
                (unsigned long long) (r->prompt + r->made),
                (unsigned long long) r->cached);
}


static const char *
sim_openai_finish(const sim_req_t *r)
{
    static const char  *names[] = {
        "stop", "length", "tool_calls", "content_filter"
    };

    return names[r->finish];
}


static void
sim_openai_error(sim_req_t *r)
{
    buf_t  *b;

    b = sim_json();

    sim_openai_status(b, sim_fault_status(r, 500), "The server had an error"
                      " while processing your request. Sorry about that!");
    sim_wire_event(r, NULL, b);
}


/* the error object is the same in a body and in a stream */

void
sim_openai_status(buf_t *b, int status, const char *message)
{
    const char  *type, *code;

    type = status < 500 ? "invalid_request_error" : "server_error";
    code = NULL;

    switch (status) {

    case 401:
        code = "invalid_api_key";
        break;

    case 404:
        code = "model_not_found";
        break;

    case 429:
        type = "requests";
        code = "rate_limit_exceeded";
        break;
    }

    buf_add_fmt(b, "{\"error\":{\"message\":\"%s\",\"type\":\"%s\","
                "\"param\":null,\"code\":", message, type);

    if (code != NULL) {
        buf_add_fmt(b, "\"%s\"}}", code);

    } else {
        buf_add_str(b, "null}}");
    }
}
