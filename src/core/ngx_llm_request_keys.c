
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_api.h"
#include "ngx_llm_request_keys.h"


/* NGX_LLM_INVALID when the value is none that the key may have */

typedef ngx_llm_rc_e (*ngx_llm_request_key_pt)(ngx_llm_request_t *request,
    const ngx_llm_json_value_t *value);


typedef struct {
    ngx_llm_request_key_pt   set;
    const char              *invalid;
    const char              *duplicate;
} ngx_llm_request_key_t;


static ngx_llm_rc_e ngx_llm_request_model(ngx_llm_request_t *request,
    const ngx_llm_json_value_t *value);
static ngx_llm_rc_e ngx_llm_request_stream(ngx_llm_request_t *request,
    const ngx_llm_json_value_t *value);
static ngx_llm_rc_e ngx_llm_request_options(ngx_llm_request_t *request,
    const ngx_llm_json_value_t *value);
static ngx_llm_rc_e ngx_llm_request_include(ngx_llm_request_t *request,
    const ngx_llm_json_value_t *value);
static ngx_llm_rc_e ngx_llm_request_choices(ngx_llm_request_t *request,
    const ngx_llm_json_value_t *value);
static ngx_llm_rc_e ngx_llm_request_maximum(ngx_llm_request_t *request,
    const ngx_llm_json_value_t *value);
static ngx_llm_rc_e ngx_llm_request_predict(ngx_llm_request_t *request,
    const ngx_llm_json_value_t *value);


#define ngx_llm_request_key(name, what)                                       \
    "\"" name "\" must be " what, "duplicate \"" name "\""

#define ngx_llm_request_key_n(name)                                           \
    { ngx_llm_request_choices,                                                \
      ngx_llm_request_key(name, "an integer from 1 to 1024") }

#define ngx_llm_request_key_max(name)                                         \
    { ngx_llm_request_maximum,                                                \
      ngx_llm_request_key(name, "an integer from 0 to 1000000000") }

static const ngx_llm_request_key_t
    ngx_llm_request_keys[NGX_LLM_REQ_DECIDING] =
{
    [NGX_LLM_REQ_MODEL] = { ngx_llm_request_model,
        ngx_llm_request_key("model", "a string") },

    [NGX_LLM_REQ_STREAM] = { ngx_llm_request_stream,
        ngx_llm_request_key("stream", "true or false") },

    [NGX_LLM_REQ_STREAM_OPTIONS] = { ngx_llm_request_options,
        ngx_llm_request_key("stream_options", "an object") },

    [NGX_LLM_REQ_INCLUDE_USAGE] = { ngx_llm_request_include,
        ngx_llm_request_key("include_usage", "true or false") },

    [NGX_LLM_REQ_N] = ngx_llm_request_key_n("n"),
    [NGX_LLM_REQ_N_SNAKE] = ngx_llm_request_key_n("candidate_count"),
    [NGX_LLM_REQ_BEST_OF] = ngx_llm_request_key_n("best_of"),

    [NGX_LLM_REQ_MAX_TOKENS] = ngx_llm_request_key_max("max_tokens"),

    [NGX_LLM_REQ_MAX_COMPLETION_TOKENS] =
        ngx_llm_request_key_max("max_completion_tokens"),

    [NGX_LLM_REQ_MAX_OUTPUT_TOKENS] =
        ngx_llm_request_key_max("max_output_tokens"),

    [NGX_LLM_REQ_NUM_PREDICT] = { ngx_llm_request_predict,
        ngx_llm_request_key("num_predict", "an integer up to 1000000000") },

    [NGX_LLM_REQ_MAX_OUTPUT_CAMEL] =
        ngx_llm_request_key_max("maxOutputTokens"),

    [NGX_LLM_REQ_MAX_OUTPUT_SNAKE] =
        ngx_llm_request_key_max("max_output_tokens")
};


ngx_llm_rc_e
ngx_llm_request_decide(ngx_llm_request_t *request, uint32_t *seen,
    unsigned id, const ngx_llm_json_value_t *value, const char **reason)
{
    const ngx_llm_request_key_t  *key;

    if (value->type == NGX_LLM_JSON_OBJECT_END) {
        return NGX_LLM_OK;
    }

    key = &ngx_llm_request_keys[id];

    if (*seen & (uint32_t) 1 << id) {
        *reason = key->duplicate;
        return NGX_LLM_INVALID;
    }

    *seen |= (uint32_t) 1 << id;

    if (key->set(request, value) != NGX_LLM_OK) {
        *reason = key->invalid;
        return NGX_LLM_INVALID;
    }

    return NGX_LLM_OK;
}


static ngx_llm_rc_e
ngx_llm_request_model(ngx_llm_request_t *request,
    const ngx_llm_json_value_t *value)
{
    size_t  len;

    if (value->type == NGX_LLM_JSON_NULL) {
        return NGX_LLM_OK;
    }

    if (value->type != NGX_LLM_JSON_STRING) {
        return NGX_LLM_INVALID;
    }

    len = value->text.len;
    len = (len < NGX_LLM_MAX_MODEL) ? len : NGX_LLM_MAX_MODEL;

    memcpy(request->model, value->text.data, len);
    request->model_len = len;

    return NGX_LLM_OK;
}


static ngx_llm_rc_e
ngx_llm_request_stream(ngx_llm_request_t *request,
    const ngx_llm_json_value_t *value)
{
    if (value->type == NGX_LLM_JSON_NULL) {
        return NGX_LLM_OK;
    }

    if (value->type != NGX_LLM_JSON_TRUE && value->type != NGX_LLM_JSON_FALSE)
    {
        return NGX_LLM_INVALID;
    }

    request->stream = (value->type == NGX_LLM_JSON_TRUE);

    return NGX_LLM_OK;
}


static ngx_llm_rc_e
ngx_llm_request_options(ngx_llm_request_t *request,
    const ngx_llm_json_value_t *value)
{
    if (value->type != NGX_LLM_JSON_OBJECT && value->type != NGX_LLM_JSON_NULL)
    {
        return NGX_LLM_INVALID;
    }

    request->options_end = value->end;
    request->options_null = (value->type == NGX_LLM_JSON_NULL);

    return NGX_LLM_OK;
}


static ngx_llm_rc_e
ngx_llm_request_include(ngx_llm_request_t *request,
    const ngx_llm_json_value_t *value)
{
    if (value->type != NGX_LLM_JSON_TRUE && value->type != NGX_LLM_JSON_FALSE
        && value->type != NGX_LLM_JSON_NULL)
    {
        return NGX_LLM_INVALID;
    }

    request->include_end = value->end;
    request->include_null = (value->type == NGX_LLM_JSON_NULL);
    request->include_usage = (value->type == NGX_LLM_JSON_TRUE);

    return NGX_LLM_OK;
}


static ngx_llm_rc_e
ngx_llm_request_choices(ngx_llm_request_t *request,
    const ngx_llm_json_value_t *value)
{
    int64_t  n;

    if (value->type == NGX_LLM_JSON_NULL) {
        return NGX_LLM_OK;
    }

    if (value->type != NGX_LLM_JSON_NUMBER
        || ngx_llm_json_count(value->text, &n) != NGX_LLM_OK
        || n == 0 || n > NGX_LLM_MAX_CHOICES)
    {
        return NGX_LLM_INVALID;
    }

    if (n > request->n) {
        request->n = n;
    }

    return NGX_LLM_OK;
}


/* the largest one counts: no budget is evaded by naming two */

static ngx_llm_rc_e
ngx_llm_request_maximum(ngx_llm_request_t *request,
    const ngx_llm_json_value_t *value)
{
    int64_t  max;

    if (value->type == NGX_LLM_JSON_NULL) {
        return NGX_LLM_OK;
    }

    if (value->type != NGX_LLM_JSON_NUMBER
        || ngx_llm_json_count(value->text, &max) != NGX_LLM_OK)
    {
        return NGX_LLM_INVALID;
    }

    if (max > request->max_output) {
        request->max_output = max;
    }

    return NGX_LLM_OK;
}


/* below 0 is no maximum */

static ngx_llm_rc_e
ngx_llm_request_predict(ngx_llm_request_t *request,
    const ngx_llm_json_value_t *value)
{
    int64_t        ignored;
    ngx_llm_str_t  number;

    if (value->type != NGX_LLM_JSON_NUMBER || value->text.data[0] != '-') {
        return ngx_llm_request_maximum(request, value);
    }

    number.data = value->text.data + 1;
    number.len = value->text.len - 1;

    return ngx_llm_json_count(number, &ignored);
}
