
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "sim.h"


/*
 * Gemini, https://ai.google.dev/api/generate-content: every event is a whole
 * answer of its own, with the usage so far; the last has a finishReason, and
 * that is all that marks the end.  Without alt=sse the stream is one array.
 */

static void sim_gemini_begin(sim_req_t *r);
static void sim_gemini_token(sim_req_t *r, uint64_t k);
static void sim_gemini_end(sim_req_t *r);
static void sim_gemini_error(sim_req_t *r);
static void sim_gemini_answer(sim_req_t *r, buf_t *b);
static void sim_gemini_status(buf_t *b, int status, const char *message);
static void sim_gemini_call(sim_req_t *r, buf_t *b);
static void sim_gemini_close(sim_req_t *r, buf_t *b, uint64_t made,
    const char *finish);
static const char *sim_gemini_finish(const sim_req_t *r);


const sim_dialect_t  sim_gemini = {
    .content_type = "text/event-stream",
    .begin = sim_gemini_begin,
    .token = sim_gemini_token,
    .end = sim_gemini_end,
    .error = sim_gemini_error,
    .answer = sim_gemini_answer,
    .status = sim_gemini_status
};


#define SIM_GEMINI_OPEN  "{\"candidates\":[{\"content\":{\"parts\":[{"


static void
sim_gemini_begin(sim_req_t *r)
{
    /* the first event is content */

    (void) r;
}


/* a tool call is never in pieces: its event comes with the last token */

static void
sim_gemini_token(sim_req_t *r, uint64_t k)
{
    buf_t  *b;

    if (sim_text_is_tool(r) && k + 1 < r->length) {
        return;
    }

    b = sim_json();
    buf_add_str(b, SIM_GEMINI_OPEN);

    if (sim_text_is_tool(r)) {
        sim_gemini_call(r, b);

    } else {
        buf_add_str(b, "\"text\":\"");
        sim_text_token(r, k, b);
        buf_add_str(b, "\"");
    }

    sim_gemini_close(r, b, k + 1, NULL);
    sim_wire_event(r, NULL, b);
}


static void
sim_gemini_end(sim_req_t *r)
{
    buf_t  *b;

    b = sim_json();
    buf_add_str(b, SIM_GEMINI_OPEN "\"text\":\"\"");
    sim_gemini_close(r, b, r->made, sim_gemini_finish(r));
    sim_wire_event(r, NULL, b);
}


static void
sim_gemini_answer(sim_req_t *r, buf_t *b)
{
    buf_add_str(b, SIM_GEMINI_OPEN);

    if (sim_text_is_tool(r)) {
        sim_gemini_call(r, b);

    } else {
        buf_add_str(b, "\"text\":\"");
        sim_text_words(r, b);
        buf_add_str(b, "\"");
    }

    sim_gemini_close(r, b, r->made, sim_gemini_finish(r));
}


static void
sim_gemini_call(sim_req_t *r, buf_t *b)
{
    buf_add_str(b, "\"functionCall\":{\"name\":\"lookup\",\"args\":"
                   "{\"query\":\"");
    sim_text_words(r, b);
    buf_add_str(b, "\"}}");
}


static void
sim_gemini_close(sim_req_t *r, buf_t *b, uint64_t made, const char *finish)
{
    buf_add_str(b, "}],\"role\":\"model\"}");

    if (finish != NULL) {
        buf_add_fmt(b, ",\"finishReason\":\"%s\"", finish);
    }

    buf_add_str(b, ",\"index\":0}]");

    if (!sim_text_usage(r, b, "usageMetadata")) {
        buf_add_fmt(b, ",\"usageMetadata\":{\"promptTokenCount\":%llu,"
                    "\"candidatesTokenCount\":%llu,\"totalTokenCount\":%llu",
                    (unsigned long long) r->prompt,
                    (unsigned long long) made,
                    (unsigned long long) (r->prompt + made));

        if (r->cached) {
            buf_add_fmt(b, ",\"cachedContentTokenCount\":%llu",
                        (unsigned long long) r->cached);
        }

        buf_add_fmt(b, ",\"promptTokensDetails\":[{\"modality\":\"TEXT\","
                    "\"tokenCount\":%llu}]}", (unsigned long long) r->prompt);
    }

    buf_add_str(b, ",\"modelVersion\":\"");
    sim_text_model(r, b);
    buf_add_fmt(b, "\",\"responseId\":\"%016llx\"}",
                (unsigned long long) r->id);
}


/* a function call ends in STOP, too */

static const char *
sim_gemini_finish(const sim_req_t *r)
{
    static const char  *names[] = { "STOP", "MAX_TOKENS", "STOP", "SAFETY" };

    return names[r->finish];
}


static void
sim_gemini_error(sim_req_t *r)
{
    buf_t  *b;

    b = sim_json();
    sim_gemini_status(b, sim_fault_status(r, 503), "The model is overloaded."
                      " Please try again later.");
    sim_wire_event(r, NULL, b);
}


static void
sim_gemini_status(buf_t *b, int status, const char *message)
{
    const char  *name;

    switch (status) {

    case 401:
        name = "UNAUTHENTICATED";
        break;

    case 403:
        name = "PERMISSION_DENIED";
        break;

    case 404:
        name = "NOT_FOUND";
        break;

    case 429:
        name = "RESOURCE_EXHAUSTED";
        break;

    case 503:
        name = "UNAVAILABLE";
        break;

    case 504:
        name = "DEADLINE_EXCEEDED";
        break;

    default:
        name = status < 500 ? "INVALID_ARGUMENT" : "INTERNAL";
    }

    buf_add_fmt(b, "{\"error\":{\"code\":%d,\"message\":\"%s\","
                "\"status\":\"%s\"}}", status, message, name);
}
