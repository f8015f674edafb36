
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "tap.h"

#include "ngx_llm_answer.h"
#include "ngx_llm_api.h"


typedef struct {
    ngx_llm_dialect_e      dialect;
    const char            *path;

    /* "dialect name", or "auto" for none */
    const char            *api;
    const char            *model;
    int                    streams;
} test_path_t;


typedef struct {
    const char            *data;
    const char            *api;
} test_content_t;


typedef struct {
    const ngx_llm_api_t   *api;
    ngx_llm_err_e          err;
    unsigned               status;
    const char            *event;
    const char            *body;
} test_error_t;


typedef struct {
    const ngx_llm_api_t   *api;
    const char            *type;
    const char            *code;
    unsigned               status;
} test_status_t;


static ngx_llm_str_t test_text(const char *s);
static void test_name(const ngx_llm_api_t *api, char *out, size_t size);
static void test_paths(void);
static void test_contents(void);
static void test_tables(void);
static void test_rows(const ngx_llm_api_t *api,
    const ngx_llm_json_table_t *table, unsigned last, const char *what);
static void test_errors(void);
static void test_read_back(const ngx_llm_api_t *api, ngx_llm_err_e err);
static void test_messages(void);
static void test_statuses(void);


static const test_path_t  test_path_table[] = {
    { NGX_LLM_DIALECT_AUTO, "/v1/chat/completions", "openai chat", "", -1 },
    { NGX_LLM_DIALECT_AUTO, "/v1/completions", "openai completions", "", -1 },
    { NGX_LLM_DIALECT_AUTO, "/v1/responses", "openai responses", "", -1 },
    { NGX_LLM_DIALECT_AUTO, "/v1/embeddings", "openai embeddings", "", 0 },
    { NGX_LLM_DIALECT_AUTO, "/chat/completions/", "openai chat", "", -1 },
    { NGX_LLM_DIALECT_AUTO,
      "/openai/deployments/x/chat/completions?api-version=1", "openai chat",
      "", -1 },
    { NGX_LLM_DIALECT_AUTO, "/v1/messages", "anthropic messages", "", -1 },
    { NGX_LLM_DIALECT_AUTO, "/v1/messages?beta=true", "anthropic messages",
      "", -1 },
    { NGX_LLM_DIALECT_AUTO,
      "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse&key=a/b",
      "gemini generate", "gemini-2.5-flash", 1 },
    { NGX_LLM_DIALECT_AUTO, "/v1/models/tuned:v2:generateContent",
      "gemini generate", "tuned:v2", 0 },
    { NGX_LLM_DIALECT_AUTO, ":generateContent", "gemini generate", "", 0 },
    { NGX_LLM_DIALECT_AUTO, "/api/chat", "ollama chat", "", -1 },
    { NGX_LLM_DIALECT_AUTO, "/api/generate", "ollama generate", "", -1 },
    { NGX_LLM_DIALECT_AUTO, "/api/embed", "ollama embed", "", 0 },
    { NGX_LLM_DIALECT_AUTO, "/api/embeddings", "ollama embed", "", 0 },
    { NGX_LLM_DIALECT_AUTO,
      "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/ernie-4.0-8k", "ernie chat",
      "ernie-4.0-8k", -1 },
    { NGX_LLM_DIALECT_AUTO,
      "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/completions?access_token=1",
      "ernie chat", "completions", -1 },
    { NGX_LLM_DIALECT_AUTO, "/v2/chat", "cohere chat", "", -1 },
    { NGX_LLM_DIALECT_AUTO, "/", "auto", "", -1 },
    { NGX_LLM_DIALECT_AUTO, "", "auto", "", -1 },
    { NGX_LLM_DIALECT_AUTO, "/v1/models", "auto", "", -1 },
    { NGX_LLM_DIALECT_AUTO, "/v1/chat/completions/x", "auto", "", -1 },
    { NGX_LLM_DIALECT_AUTO, "/wenxinworkshop/chat/", "auto", "", -1 },
    { NGX_LLM_DIALECT_AUTO, "/x?path=/v1/chat/completions", "auto", "", -1 },

    { NGX_LLM_DIALECT_OPENAI, "/any", "openai chat", "", -1 },
    { NGX_LLM_DIALECT_OPENAI, "/v1/messages", "openai chat", "", -1 },
    { NGX_LLM_DIALECT_OPENAI, "/x/responses", "openai responses", "", -1 },
    { NGX_LLM_DIALECT_ANTHROPIC, "/v1/chat/completions",
      "anthropic messages", "", -1 },
    { NGX_LLM_DIALECT_GEMINI, "/any", "gemini generate", "", -1 },
    { NGX_LLM_DIALECT_OLLAMA, "/any", "ollama chat", "", -1 },
    { NGX_LLM_DIALECT_ERNIE, "/any/path", "ernie chat", "", -1 },
    { NGX_LLM_DIALECT_COHERE, "", "cohere chat", "", -1 },
    { 0, NULL, NULL, NULL, 0 }
};


static const test_content_t  test_content_table[] = {
    { "{\"choices\":[{\"delta\":{}}]}", "openai chat" },
    { "{\"choices\":[{\"text\":\"a\"}]}", "openai completions" },
    { "{\"type\":\"response.created\"}", "openai responses" },
    { "{\"type\":\"message_start\",\"message\":{\"role\":\"assistant\"}}",
      "anthropic messages" },
    { "{\"type\":\"content_block_delta\"}", "anthropic messages" },
    { "{\"type\":\"message-start\"}", "cohere chat" },
    { "{\"type\":\"content-delta\"}", "cohere chat" },
    { "{\"candidates\":[]}", "gemini generate" },
    { "[{\"candidates\":[]}]", "gemini generate" },
    { "{\"message\":{\"role\":\"assistant\"},\"done\":false}", "ollama chat" },
    { "{\"response\":\"a\",\"done\":false}", "ollama generate" },
    { "{\"object\":\"chat.completion\",\"is_end\":false}", "ernie chat" },
    { "{\"type\":\"ping\"}", "auto" },
    { "{\"type\":\"error\",\"error\":{}}", "auto" },
    { "{\"type\":\"content\"}", "auto" },
    { "{\"type\":5}", "auto" },
    { "{\"candidates\":null}", "auto" },
    { "{\"candidates\":[]", "auto" },
    { "{}", "auto" },
    { "", "auto" },
    { NULL, NULL }
};


#define TEST_EVENT(type, code)                                                \
    "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"" type     \
    "\",\"message\":\"Oh \\\"no\\\"\",\"code\":\"" code "\"}}\n\n"

static const test_error_t  test_error_table[] = {
    { &ngx_llm_api_openai_chat, NGX_LLM_ERR_RATE_LIMIT, 429,
      TEST_EVENT("rate_limit_error", "rate_limit_exceeded"),
      "{\"error\":{\"message\":\"Oh \\\"no\\\"\",\"type\":\"rate_limit_error\""
      ",\"param\":null,\"code\":\"rate_limit_exceeded\"}}" },
    { &ngx_llm_api_openai_chat, NGX_LLM_ERR_TOO_LARGE, 429,
      TEST_EVENT("invalid_request_error", "request_too_large"),
      "{\"error\":{\"message\":\"Oh \\\"no\\\"\",\"type\":\"rate_limit_error\""
      ",\"param\":null,\"code\":\"rate_limit_exceeded\"}}" },
    { &ngx_llm_api_openai_responses, NGX_LLM_ERR_UPSTREAM, 502,
      "event: response.failed\n"
      "data: {\"type\":\"response.failed\",\"sequence_number\":0,"
      "\"response\":{\"id\":\"\",\"object\":\"response\",\"created_at\":0,"
      "\"status\":\"failed\",\"error\":{\"code\":\"upstream_error\","
      "\"message\":\"Oh \\\"no\\\"\"},\"incomplete_details\":null,"
      "\"output\":[],\"usage\":null},\"error\":{\"type\":\"server_error\","
      "\"message\":\"Oh \\\"no\\\"\",\"code\":\"upstream_error\"}}\n\n",
      "{\"error\":{\"message\":\"Oh \\\"no\\\"\",\"type\":\"server_error\","
      "\"param\":null,\"code\":\"upstream_error\"}}" },
    { &ngx_llm_api_anthropic_messages, NGX_LLM_ERR_OVERLOADED, 503,
      TEST_EVENT("overloaded_error", "overloaded"),
      "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\","
      "\"message\":\"Oh \\\"no\\\"\"}}" },
    { &ngx_llm_api_anthropic_messages, NGX_LLM_ERR_TOO_LARGE, 413,
      TEST_EVENT("request_too_large", "request_too_large"),
      "{\"type\":\"error\",\"error\":{\"type\":\"request_too_large\","
      "\"message\":\"Oh \\\"no\\\"\"}}" },
    { &ngx_llm_api_gemini_generate, NGX_LLM_ERR_TIMEOUT, 504,
      "data: {\"error\":{\"code\":504,\"message\":\"Oh \\\"no\\\"\","
      "\"status\":\"DEADLINE_EXCEEDED\"}}\n\n",
      "{\"error\":{\"code\":504,\"message\":\"Oh \\\"no\\\"\","
      "\"status\":\"DEADLINE_EXCEEDED\"}}" },
    { &ngx_llm_api_ollama_chat, NGX_LLM_ERR_UPSTREAM, 502,
      "{\"error\":\"Oh \\\"no\\\"\"}\n", "{\"error\":\"Oh \\\"no\\\"\"}" },
    { &ngx_llm_api_ernie_chat, NGX_LLM_ERR_RATE_LIMIT, 429,
      "data: {\"error_code\":336502,\"error_msg\":\"Oh \\\"no\\\"\"}\n\n",
      "{\"error_code\":336502,\"error_msg\":\"Oh \\\"no\\\"\"}" },
    { &ngx_llm_api_cohere_chat, NGX_LLM_ERR_INVALID, 400,
      TEST_EVENT("invalid_request_error", "invalid_request"),
      "{\"message\":\"Oh \\\"no\\\"\"}" },
    { NULL, NGX_LLM_ERR_SHUTDOWN, 503,
      TEST_EVENT("server_error", "shutdown"),
      "{\"type\":\"error\",\"error\":{\"message\":\"Oh \\\"no\\\"\","
      "\"type\":\"server_error\",\"param\":null,\"code\":\"shutdown\"}}" },
    { NULL, 0, 0, NULL, NULL }
};


static const test_status_t  test_status_table[] = {
    { &ngx_llm_api_openai_chat, "", "", 0 },
    { &ngx_llm_api_openai_chat, "unheard_of", "of", 0 },
    { &ngx_llm_api_openai_chat, "server_error", "429", 429 },
    { &ngx_llm_api_openai_chat, "server_error", "599", 599 },
    { &ngx_llm_api_openai_chat, "server_error", "600", 500 },
    { &ngx_llm_api_openai_chat, "server_error", "399", 500 },
    { &ngx_llm_api_openai_chat, "invalid_request_error", "", 400 },
    { &ngx_llm_api_openai_chat, "invalid_request_error", "model_not_found",
      404 },
    { &ngx_llm_api_openai_chat, "requests", "rate_limit_exceeded", 429 },
    { &ngx_llm_api_anthropic_messages, "authentication_error", "", 401 },
    { &ngx_llm_api_anthropic_messages, "permission_error", "", 403 },
    { &ngx_llm_api_anthropic_messages, "overloaded_error", "", 529 },
    { &ngx_llm_api_gemini_generate, "UNAVAILABLE", "", 503 },
    { &ngx_llm_api_gemini_generate, "UNAVAILABLE", "500", 500 },
    { &ngx_llm_api_openai_chat, "UNAVAILABLE", "", 0 },
    { &ngx_llm_api_ernie_chat, "", "18", 429 },
    { &ngx_llm_api_ernie_chat, "", "336000", 500 },
    { NULL, NULL, NULL, 0 }
};


static const ngx_llm_api_t *const  test_apis[] = {
    &ngx_llm_api_any,
    &ngx_llm_api_openai_chat,
    &ngx_llm_api_openai_completions,
    &ngx_llm_api_openai_responses,
    &ngx_llm_api_openai_embeddings,
    &ngx_llm_api_anthropic_messages,
    &ngx_llm_api_gemini_generate,
    &ngx_llm_api_ollama_chat,
    &ngx_llm_api_ollama_generate,
    &ngx_llm_api_ollama_embed,
    &ngx_llm_api_ernie_chat,
    &ngx_llm_api_cohere_chat,
    NULL
};


int
main(void)
{
    test_paths();
    test_contents();
    test_tables();
    test_errors();
    test_messages();
    test_statuses();

    return tap_done();
}


static ngx_llm_str_t
test_text(const char *s)
{
    ngx_llm_str_t  str;

    str.data = (const unsigned char *) s;
    str.len = strlen(s);

    return str;
}


static void
test_name(const ngx_llm_api_t *api, char *out, size_t size)
{
    snprintf(out, size, "%s%s%s", ngx_llm_api_dialect(api), api ? " " : "",
             ngx_llm_api_name(api));
}


static void
test_paths(void)
{
    char                  name[64];
    tap_guard_t           guard;
    ngx_llm_str_t         path, model;
    const test_path_t    *test;
    const ngx_llm_api_t  *api;

    for (test = test_path_table; test->path != NULL; test++) {
        path = test_text(test->path);
        guard = tap_guard(path.data, path.len);
        path.data = guard.data;

        api = ngx_llm_api_by_path(test->dialect, path);
        test_name(api, name, sizeof(name));
        tap_str(name, strlen(name), test->api, "%s", test->path);

        model = ngx_llm_api_path_model(api, path);
        tap_str(model.data, model.len, test->model, "%s: model", test->path);

        tap_int(ngx_llm_api_path_streams(api, path), test->streams,
                "%s: streams", test->path);

        tap_unguard(&guard);
    }

    tap_int(ngx_llm_api_framing(NULL), NGX_LLM_FRAME_SSE, "no API: framing");
    tap_int(ngx_llm_api_asks_usage(NULL), 0, "no API: asks for nothing");
    tap_int(ngx_llm_api_asks_usage(&ngx_llm_api_openai_completions), 1,
            "completions ask for usage");
    tap_int(ngx_llm_api_asks_usage(&ngx_llm_api_openai_responses), 0,
            "responses have it anyway");
}


static void
test_contents(void)
{
    char                   name[64];
    unsigned char          memory[2048];
    ngx_llm_scratch_t      scratch;
    const test_content_t  *test;

    scratch.data = memory;
    scratch.size_bytes = sizeof(memory);

    for (test = test_content_table; test->data != NULL; test++) {
        test_name(ngx_llm_api_by_content(test_text(test->data), &scratch),
                  name, sizeof(name));
        tap_str(name, strlen(name), test->api, "%s", test->data);
    }
}


/* what a table may hold, and that all of it can be reached */

static void
test_tables(void)
{
    size_t                 i, tells;
    char                   name[64];
    const ngx_llm_api_t   *api;
    const ngx_llm_path_t  *path;
    const ngx_llm_tell_t  *tell;

    tells = 0;

    for (i = 0; test_apis[i] != NULL; i++) {
        api = test_apis[i];
        test_name(api, name, sizeof(name));

        test_rows(api, &api->request, NGX_LLM_REQ_PROMPT, "request");
        test_rows(api, &api->answer, NGX_LLM_ANS_ERROR_CODE, "answer");

        tap_ok(api->request.rows[0].path[0] == '\0'
               && api->request.rows[0].id == NGX_LLM_REQ_ROOT,
               "%s: the request's root is told first", name);

        tap_ok(api->faults != NULL && api->error_event != NULL
               && api->error_body != NULL, "%s: errors can be written", name);

        for (path = api->paths; path != NULL && path->path != NULL; path++) {
            tap_ok(ngx_llm_api_by_path(NGX_LLM_DIALECT_AUTO,
                                       test_text(path->path))
                   == api, "%s: %s is its path", name, path->path);
        }

        for (tell = api->tells; tell != NULL && tell->path != NULL; tell++) {
            tells++;
        }
    }

    tap_ok(tells <= NGX_LLM_JSON_MAX_ROWS, "all tells fit in a table: %zu",
           tells);
    tap_ok(i - 2 <= NGX_LLM_MAX_APIS, "%zu APIs", i - 1);
}


static void
test_rows(const ngx_llm_api_t *api, const ngx_llm_json_table_t *table,
    unsigned last, const char *what)
{
    char         name[64];
    size_t       i, j, twice, wrong;
    const char  *p;

    test_name(api, name, sizeof(name));
    tap_ok(table->nrows <= NGX_LLM_JSON_MAX_ROWS, "%s: %s: %zu rows", name,
           what, table->nrows);

    twice = 0;
    wrong = 0;

    for (i = 0; i < table->nrows; i++) {
        p = table->rows[i].path;

        wrong += (table->rows[i].id > last || strlen(p) > 255
                  || strstr(p, "..") != NULL || *p == '.'
                  || (*p != '\0' && p[strlen(p) - 1] == '.'));

        for (j = 0; j < i; j++) {
            twice += (table->rows[i].id == table->rows[j].id
                      && strcmp(p, table->rows[j].path) == 0);
        }
    }

    tap_int(wrong, 0, "%s: %s: rows are well formed", name, what);
    tap_int(twice, 0, "%s: %s: no row stands twice", name, what);
}


static void
test_errors(void)
{
    char                 name[64];
    size_t               i, len, err, size;
    unsigned char        out[1024];
    const test_error_t  *test;

    for (test = test_error_table; test->event != NULL; test++) {
        test_name(test->api, name, sizeof(name));

        len = ngx_llm_error_event(test->api, test->err, "Oh \"no\"", out,
                                  sizeof(out));
        tap_str(out, len, test->event, "%s: event", name);

        len = ngx_llm_error_body(test->api, test->err, test->status,
                                 "Oh \"no\"", out, sizeof(out));
        tap_str(out, len, test->body, "%s: body", name);

        /* not a byte less */

        for (size = 0; size < len; size++) {

            if (ngx_llm_error_body(test->api, test->err, test->status,
                                   "Oh \"no\"", out, size)
                != 0)
            {
                break;
            }
        }

        tap_int(size, len, "%s: all or nothing", name);
    }

    for (i = 0; test_apis[i] != NULL; i++) {

        for (err = 0; err <= NGX_LLM_ERR_SHUTDOWN; err++) {
            test_read_back(test_apis[i], err);
        }
    }
}


/* what is written is an error to whoever reads it by the same table */

static void
test_read_back(const ngx_llm_api_t *api, ngx_llm_err_e err)
{
    char               name[64];
    size_t             len, n;
    int                complete;
    tap_guard_t        guard;
    unsigned char      out[1024], memory[2048];
    ngx_llm_frame_t    frame;
    ngx_llm_answer_t   answer;
    ngx_llm_scratch_t  scratch;

    test_name(api, name, sizeof(name));

    scratch.data = memory;
    scratch.size_bytes = sizeof(memory);
    scratch.names = NULL;
    scratch.shapes = NULL;

    len = ngx_llm_error_event(api, err, "it\nfailed", out, sizeof(out));
    guard = tap_guard(out, len);

    memset(&frame, 0, sizeof(frame));
    frame.framing = api->framing;

    n = ngx_llm_frame_next(&frame, guard.data, len, &complete);
    tap_ok(complete && n == len && len != 0, "%s: error %d is one event",
           name, err);

    ngx_llm_answer_init(&answer, api == &ngx_llm_api_any ? NULL : api);
    n = ngx_llm_answer_event(&answer, guard.data, len, &scratch);

    tap_ok((n & (NGX_LLM_EV_ERROR|NGX_LLM_EV_UNREAD|NGX_LLM_EV_CONTENT))
           == NGX_LLM_EV_ERROR, "%s: error %d is read as one", name, err);

    tap_unguard(&guard);
}


static void
test_messages(void)
{
    size_t         i, len;
    char           message[4096];
    unsigned char  out[1024];

    memset(message, '\x01', sizeof(message) - 1);
    message[sizeof(message) - 1] = '\0';

    for (i = 0; test_apis[i] != NULL; i++) {
        len = ngx_llm_error_event(test_apis[i], NGX_LLM_ERR_CANCELLED,
                                  message, out, sizeof(out));
        tap_ok(len != 0 && memchr(out, '\x01', len) == NULL,
               "%s: 1024 bytes suffice for a long message",
               ngx_llm_api_dialect(test_apis[i]));

        test_read_back(test_apis[i], NGX_LLM_ERR_CANCELLED);
    }
}


static void
test_statuses(void)
{
    const test_status_t  *test;

    for (test = test_status_table; test->api != NULL; test++) {
        tap_int(ngx_llm_api_status(test->api, test_text(test->type),
                                   test_text(test->code)),
                test->status, "status of \"%s\" \"%s\"", test->type,
                test->code);
    }
}
