
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "tap.h"

#include "ngx_llm_answer.h"
#include "ngx_llm_api.h"


typedef struct {
    const ngx_llm_api_t   *api;
    const char            *event;
    unsigned               status;
    const char            *body;
} test_event_t;


static void test_events(void);
static void test_long(void);
static size_t test_write(const ngx_llm_api_t *api, const char *event,
    size_t len, unsigned char *out, size_t size, unsigned *status);


/* what upstream sent as its first event, and the HTTP error it becomes */

static const test_event_t  test_event_table[] = {

    /* most write the same into both: not a byte is changed */

    { &ngx_llm_api_openai_chat,
      "data: {\"error\": {\"message\":\"no\",\"type\":\"tokens\","
      "\"param\":\"x\",\"code\":\"rate_limit_exceeded\"}}\n\n", 429,
      "{\"error\": {\"message\":\"no\",\"type\":\"tokens\","
      "\"param\":\"x\",\"code\":\"rate_limit_exceeded\"}}" },
    { &ngx_llm_api_openai_chat,
      "data: {\"object\":\"error\",\"message\":\"no\",\"code\":500,"
      "\"type\":\"InternalServerError\"}\n\n", 500,
      "{\"object\":\"error\",\"message\":\"no\",\"code\":500,"
      "\"type\":\"InternalServerError\"}" },
    { &ngx_llm_api_anthropic_messages,
      "event: error\r\ndata: {\"type\":\"error\",\"error\":{\"type\":"
      "\"overloaded_error\",\"message\":\"no\"}}\r\n\r\n", 529,
      "{\"type\":\"error\",\"error\":{\"type\":"
      "\"overloaded_error\",\"message\":\"no\"}}" },
    { &ngx_llm_api_gemini_generate,
      "data: {\"error\":{\"code\":429,\"message\":\"no\","
      "\"status\":\"RESOURCE_EXHAUSTED\",\"details\":[{}]}}\n\n", 429,
      "{\"error\":{\"code\":429,\"message\":\"no\","
      "\"status\":\"RESOURCE_EXHAUSTED\",\"details\":[{}]}}" },
    { &ngx_llm_api_ollama_chat, "{\"error\":\"no\"}\n", 0,
      "{\"error\":\"no\"}" },
    { &ngx_llm_api_ernie_chat,
      "data: {\"error_code\":18,\"error_msg\":\"no\",\"id\":\"1\"}\n\n", 429,
      "{\"error_code\":18,\"error_msg\":\"no\",\"id\":\"1\"}" },

    /* several data lines are joined */

    { &ngx_llm_api_openai_chat,
      "data: {\"error\":\ndata: {\"code\":503}}\n\n", 503,
      "{\"error\":\n{\"code\":503}}" },

    /* some do not */

    { &ngx_llm_api_openai_responses,
      "event: error\ndata: {\"type\":\"error\",\"sequence_number\":1,"
      "\"code\":\"rate_limit_exceeded\",\"message\":\"Oh \\\"no\\\"\"}\n\n",
      429,
      "{\"error\":{\"message\":\"Oh \\\"no\\\"\",\"type\":"
      "\"rate_limit_error\",\"param\":null,\"code\":"
      "\"rate_limit_exceeded\"}}" },
    { &ngx_llm_api_openai_responses,
      "data: {\"type\":\"response.failed\",\"response\":{\"error\":"
      "{\"code\":\"server_error\",\"message\":\"no\"}}}\n\n", 500,
      "{\"error\":{\"message\":\"no\",\"type\":\"server_error\","
      "\"param\":null,\"code\":\"server_error\"}}" },
    { &ngx_llm_api_openai_responses,
      "data: {\"type\":\"error\",\"error\":{\"type\":\"server_error\","
      "\"message\":\"no\"}}\n\n", 500,
      "{\"error\":{\"message\":\"no\",\"type\":\"server_error\","
      "\"param\":null,\"code\":\"upstream_error\"}}" },
    { &ngx_llm_api_cohere_chat,
      "data: {\"type\":\"message-end\",\"delta\":{\"finish_reason\":"
      "\"ERROR\",\"error\":\"no\"}}\n\n", 0,
      "{\"message\":\"no\"}" },

    /* no JSON: the text is the message */

    { &ngx_llm_api_openai_chat,
      "event: error\ndata: upstream \"x\" reset\n\n", 0,
      "{\"error\":{\"message\":\"upstream \\\"x\\\" reset\",\"type\":"
      "\"server_error\",\"param\":null,\"code\":\"upstream_error\"}}" },
    { &ngx_llm_api_openai_chat,
      "event: error\ndata: one\ndata: two\n\n", 0,
      "{\"error\":{\"message\":\"one\\u000atwo\",\"type\":"
      "\"server_error\",\"param\":null,\"code\":\"upstream_error\"}}" },
    { &ngx_llm_api_ernie_chat, "event: error\ndata: no\n\n", 0,
      "{\"error_code\":336000,\"error_msg\":\"no\"}" },
    { NULL, "event: error\ndata: no\n\n", 0,
      "{\"type\":\"error\",\"error\":{\"message\":\"no\",\"type\":"
      "\"server_error\",\"param\":null,\"code\":\"upstream_error\"}}" },

    { NULL, NULL, 0, NULL }
};


static void
test_events(void)
{
    size_t               len, n;
    unsigned             status;
    unsigned char        out[NGX_LLM_ERROR_BYTES];
    const test_event_t  *test;

    for (test = test_event_table; test->event != NULL; test++) {
        len = test_write(test->api, test->event, strlen(test->event), out,
                         sizeof(out), &status);

        n = test - test_event_table;

        tap_str(out, len, test->body, "%s: body of event %zu",
                ngx_llm_api_dialect(test->api), n);
        tap_int(status, test->status, "%s: status of event %zu",
                ngx_llm_api_dialect(test->api), n);
    }
}


/* as long as an event is, a body is a body */

static void
test_long(void)
{
    size_t          len, n;
    unsigned        status;
    static char     event[65536];
    unsigned char   out[NGX_LLM_ERROR_BYTES];
    tap_guard_t     guard;

    len = strlen(strcpy(event, "data: {\"type\":\"error\",\"message\":\""));
    memset(event + len, '\x7f', 60000);
    len += 60000;
    memcpy(event + len, "\"}\n\n", 4);
    len += 4;

    guard = tap_guard(event, len);

    n = test_write(&ngx_llm_api_openai_responses, (char *) guard.data, len,
                   out, sizeof(out), &status);
    tap_ok(n > 100 && n < sizeof(out) && out[n - 1] == '}',
           "a long message is cut, its end is not");

    tap_unguard(&guard);
}


static size_t
test_write(const ngx_llm_api_t *api, const char *event, size_t len,
    unsigned char *out, size_t size, unsigned *status)
{
    unsigned           bits;
    unsigned char      memory[4096];
    ngx_llm_answer_t   answer;
    ngx_llm_scratch_t  scratch;

    scratch.data = memory;
    scratch.size_bytes = sizeof(memory);
    scratch.names = NULL;
    scratch.shapes = NULL;

    ngx_llm_answer_init(&answer, api);
    bits = ngx_llm_answer_event(&answer, (const unsigned char *) event, len,
                                &scratch);
    tap_ok(bits & NGX_LLM_EV_ERROR, "it is read as an error");

    *status = answer.error_status;

    return ngx_llm_error_of_event(api, (const unsigned char *) event, len,
                                  *status ? *status : 502, &scratch, out,
                                  size);
}


int
main(void)
{
    test_events();
    test_long();

    return tap_done();
}
