
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * A request body: its first byte names the API.  What parses is in range, and
 * with usage asked for it is the same request but for that.
 */


#include <stdlib.h>
#include <string.h>

#include "ngx_llm_estimate.h"
#include "ngx_llm_request.h"
#include "request_api.h"


#define must(cond)  if (!(cond)) { abort(); }


static unsigned char  memory[4096];

static const ngx_llm_media_t  media = {
    NGX_LLM_IMAGE_TOKENS, NGX_LLM_AUDIO_TOKENS
};


static ngx_llm_rc_e
parse(ngx_llm_request_t *request, const ngx_llm_api_t *api,
    const unsigned char *body, size_t len)
{
    const char         *reason;
    ngx_llm_rc_e        rc;
    ngx_llm_scratch_t   scratch;

    scratch.data = memory;
    scratch.size_bytes = sizeof(memory);
    reason = NULL;

    rc = ngx_llm_request_parse(request, api, body, len, &scratch, &reason);

    must((rc == NGX_LLM_OK) == (reason == NULL));

    return rc;
}


static void
check_facts(const ngx_llm_request_t *request, size_t len)
{
    int64_t  tokens;

    must(request->model_len <= NGX_LLM_MAX_MODEL);
    must(request->stream == 0 || request->stream == 1);
    must(request->max_output >= -1
         && request->max_output <= NGX_LLM_MAX_TOKENS);
    must(request->n >= 1 && request->n <= NGX_LLM_MAX_CHOICES);
    must(request->include_usage >= -1 && request->include_usage <= 1);
    must(request->options_end < len && request->include_end < len);
    must(request->root_end >= 2 && request->root_end <= len);
    must(request->messages <= len && request->tokens <= len
         && request->images <= len && request->audios <= len);

    tokens = ngx_llm_estimate_raw(&request->text);
    must(tokens >= 0 && tokens <= NGX_LLM_MAX_TOKENS);
    must(ngx_llm_request_part_tokens(request, &media) >= 0);
}


static void
check_usage(const ngx_llm_request_t *request, const ngx_llm_api_t *api,
    const unsigned char *body, size_t len)
{
    size_t              n;
    unsigned char      *out;
    ngx_llm_edit_t      edit;
    ngx_llm_request_t   asking;

    edit = ngx_llm_request_ask_usage(request, body, len);
    must(edit.start <= edit.end && edit.end <= len);

    out = malloc(len + edit.with.len);
    must(out != NULL);

    n = ngx_llm_request_edit(&edit, body, len, out);
    must(n == len - (edit.end - edit.start) + edit.with.len);

    must(parse(&asking, api, out, n) == NGX_LLM_OK);

    must(asking.include_usage == 1);
    must(asking.model_len == request->model_len
         && memcmp(asking.model, request->model, asking.model_len) == 0);
    must(asking.stream == request->stream);
    must(asking.max_output == request->max_output);
    must(asking.n == request->n);
    must(asking.images == request->images);
    must(asking.audios == request->audios);
    must(asking.messages == request->messages);
    must(asking.tokens == request->tokens);
    must(asking.prefix_hash == request->prefix_hash);
    must(memcmp(&asking.text, &request->text, sizeof(asking.text)) == 0);

    free(out);
}


int
LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    ngx_llm_request_t     request;
    const ngx_llm_api_t  *api;

    if (size == 0) {
        return 0;
    }

    api = request_api(data[0]);

    if (parse(&request, api, data + 1, size - 1) != NGX_LLM_OK) {
        return 0;
    }

    check_facts(&request, size - 1);

    if (api == NULL || ngx_llm_api_asks_usage(api)) {
        check_usage(&request, api, data + 1, size - 1);
    }

    return 0;
}
