
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * What the tests of requests share: short names of APIs, the facts of a
 * request as words, and a parse of a body that ends at a guard page.
 */


#ifndef _REQUEST_H_INCLUDED_
#define _REQUEST_H_INCLUDED_


#include "ngx_llm_api.h"
#include "ngx_llm_request.h"
#include "tap.h"


#define CHAT        &ngx_llm_api_openai_chat
#define COMPLETE    &ngx_llm_api_openai_completions
#define RESPONSES   &ngx_llm_api_openai_responses
#define EMBED       &ngx_llm_api_openai_embeddings
#define ANTHROPIC   &ngx_llm_api_anthropic_messages
#define GEMINI      &ngx_llm_api_gemini_generate
#define OLLAMA      &ngx_llm_api_ollama_chat
#define GENERATE    &ngx_llm_api_ollama_generate
#define ERNIE       &ngx_llm_api_ernie_chat
#define COHERE      &ngx_llm_api_cohere_chat
#define ANY         NULL


static unsigned char  memory[16384];


/* the facts as words; nothing that depends on where they stood */

static inline const char *
facts(const ngx_llm_request_t *request)
{
    static char  out[512];

    snprintf(out, sizeof(out), "model=%.*s stream=%d max=%jd n=%jd usage=%d "
             "images=%u audios=%u messages=%u tokens=%u text=%ju",
             (int) request->model_len, request->model, request->stream,
             (intmax_t) request->max_output, (intmax_t) request->n,
             request->include_usage, request->images, request->audios,
             request->messages, request->tokens,
             (uintmax_t) ngx_llm_text_bytes(&request->text));

    return out;
}


/* the begin of a body, on one line */

static inline const char *
shown(const char *body)
{
    size_t       i;
    static char  out[72];

    snprintf(out, sizeof(out), "%s", body);

    for (i = 0; out[i] != '\0'; i++) {
        if ((unsigned char) out[i] < ' ') {
            out[i] = ' ';
        }
    }

    return out;
}


static inline ngx_llm_rc_e
parse(ngx_llm_request_t *request, const ngx_llm_api_t *api, const void *body,
    size_t len, const char **reason)
{
    tap_guard_t        guard;
    ngx_llm_rc_e       rc;
    ngx_llm_scratch_t  scratch;

    scratch.data = memory;
    scratch.size_bytes = sizeof(memory);

    guard = tap_guard(body, len);
    rc = ngx_llm_request_parse(request, api, guard.data, len, &scratch,
                               reason);
    tap_unguard(&guard);

    return rc;
}


#endif /* _REQUEST_H_INCLUDED_ */
