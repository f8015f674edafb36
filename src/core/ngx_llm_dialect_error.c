
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Errors as each API writes them, by the templates of its table, and the HTTP
 * status that stands for one that an API wrote.
 */


#include <string.h>

#include "ngx_llm_api.h"


/* a message is cut there; the longest template has it twice */
#define NGX_LLM_ERROR_MESSAGE_BYTES  256


/* by ngx_llm_err_e: what stands in an event, which no status carries */

static const unsigned  ngx_llm_error_statuses[] = {
    400, 413, 429, 503, 502, 504, 499, 503
};


/*
 * Types and codes of OpenAI, Anthropic and who takes after them: of the same
 * name they mean the same.
 */

static const ngx_llm_status_t  ngx_llm_error_words[] = {
    { "invalid_request_error", 400 },
    { "invalid_prompt", 400 },
    { "context_length_exceeded", 400 },
    { "BadRequestError", 400 },
    { "authentication_error", 401 },
    { "invalid_api_key", 401 },
    { "AuthenticationError", 401 },
    { "billing_error", 402 },
    { "permission_error", 403 },
    { "PermissionDeniedError", 403 },
    { "not_found_error", 404 },
    { "model_not_found", 404 },
    { "NotFoundError", 404 },
    { "request_too_large", 413 },
    { "rate_limit_error", 429 },
    { "rate_limit_exceeded", 429 },
    { "insufficient_quota", 429 },
    { "tokens", 429 },
    { "requests", 429 },
    { "RateLimitError", 429 },
    { "server_error", 500 },
    { "api_error", 500 },
    { "internal_error", 500 },
    { "internal_server_error", 500 },
    { "InternalServerError", 500 },
    { "upstream_error", 502 },
    { "overloaded", 503 },
    { "service_unavailable", 503 },
    { "service_unavailable_error", 503 },
    { "ServiceUnavailableError", 503 },
    { "timeout", 504 },
    { "timeout_error", 504 },
    { "overloaded_error", 529 },
    { NULL, 0 }
};


typedef struct {
    unsigned char         *pos;
    unsigned char         *last;

    /* it did not fit */
    unsigned               full:1;
} ngx_llm_error_out_t;


/* what an error event says, cut where it does not fit */

typedef struct {
    size_t                 len;
    unsigned char          data[NGX_LLM_ERROR_MESSAGE_BYTES];
} ngx_llm_error_text_t;


typedef enum {
    NGX_LLM_ERROR_MESSAGE = 0,
    NGX_LLM_ERROR_TYPE,
    NGX_LLM_ERROR_CODE
} ngx_llm_error_text_e;


/* of the APIs that write an error event and an HTTP error differently */

static const ngx_llm_json_row_t  ngx_llm_error_rows[] = {
    { "message", NGX_LLM_ERROR_MESSAGE },
    { "code", NGX_LLM_ERROR_CODE },
    { "error", NGX_LLM_ERROR_MESSAGE },
    { "error.message", NGX_LLM_ERROR_MESSAGE },
    { "error.type", NGX_LLM_ERROR_TYPE },
    { "error.code", NGX_LLM_ERROR_CODE },
    { "delta.error", NGX_LLM_ERROR_MESSAGE },
    { "response.error.message", NGX_LLM_ERROR_MESSAGE },
    { "response.error.type", NGX_LLM_ERROR_TYPE },
    { "response.error.code", NGX_LLM_ERROR_CODE }
};

static const ngx_llm_json_table_t  ngx_llm_error_table =
    ngx_llm_json_table(ngx_llm_error_rows);


static size_t ngx_llm_error_data(const ngx_llm_api_t *api, ngx_llm_str_t data,
    unsigned status, ngx_llm_scratch_t *scratch, unsigned char *out,
    size_t size);
static ngx_llm_rc_e ngx_llm_error_value(void *data, unsigned id,
    const ngx_llm_json_value_t *value, const char **reason);
static ngx_llm_err_e ngx_llm_error_kind(unsigned status);
static ngx_llm_str_t ngx_llm_error_str(const char *text);
static size_t ngx_llm_error_write(const char *template, ngx_llm_str_t type,
    ngx_llm_str_t code, ngx_llm_str_t message, unsigned status,
    unsigned char *out, size_t size);
static void ngx_llm_error_escape(ngx_llm_error_text_t *to,
    ngx_llm_str_t text);
static void ngx_llm_error_put_text(ngx_llm_error_out_t *out,
    const ngx_llm_error_text_t *text);
static void ngx_llm_error_put(ngx_llm_error_out_t *out, const void *p,
    size_t len);
static void ngx_llm_error_put_number(ngx_llm_error_out_t *out,
    unsigned number);
static unsigned ngx_llm_error_lookup(const ngx_llm_status_t *words,
    ngx_llm_str_t text);


size_t
ngx_llm_error_event(const ngx_llm_api_t *api, ngx_llm_err_e err,
    const char *message, unsigned char *out, size_t size)
{
    if (api == NULL) {
        api = &ngx_llm_api_any;
    }

    return ngx_llm_error_write(api->error_event,
                               ngx_llm_error_str(api->faults[err].type),
                               ngx_llm_error_str(api->faults[err].code),
                               ngx_llm_error_str(message),
                               ngx_llm_error_statuses[err], out, size);
}


size_t
ngx_llm_error_body(const ngx_llm_api_t *api, ngx_llm_err_e err,
    unsigned status, const char *message, unsigned char *out, size_t size)
{
    if (api == NULL) {
        api = &ngx_llm_api_any;
    }

    /* more than a burst: a limit that was exceeded, not a body */

    if (err == NGX_LLM_ERR_TOO_LARGE && status == 429) {
        err = NGX_LLM_ERR_RATE_LIMIT;
    }

    return ngx_llm_error_write(api->error_body,
                               ngx_llm_error_str(api->faults[err].type),
                               ngx_llm_error_str(api->faults[err].code),
                               ngx_llm_error_str(message), status, out, size);
}


size_t
ngx_llm_error_of_event(const ngx_llm_api_t *api, const unsigned char *event,
    size_t len, unsigned status, ngx_llm_scratch_t *scratch,
    unsigned char *out, size_t size)
{
    ngx_llm_event_t  ev;

    if (api == NULL) {
        api = &ngx_llm_api_any;
    }

    /* several data lines are joined where the body is going to be */

    if (ngx_llm_frame_event(api->framing, event, len, out, size, &ev)
        != NGX_LLM_OK)
    {
        return 0;
    }

    return ngx_llm_error_data(api, ev.data, status, scratch, out, size);
}


static size_t
ngx_llm_error_data(const ngx_llm_api_t *api, ngx_llm_str_t data,
    unsigned status, ngx_llm_scratch_t *scratch, unsigned char *out,
    size_t size)
{
    size_t                  i;
    const char             *reason;
    ngx_llm_rc_e            rc;
    ngx_llm_str_t           words[3];
    ngx_llm_error_text_t    texts[3];
    const ngx_llm_fault_t  *fault;

    for (i = 0; i < 3; i++) {
        texts[i].len = 0;
    }

    rc = ngx_llm_json_parse_answer(&ngx_llm_error_table, data.data, data.len,
                                   scratch, ngx_llm_error_value, texts,
                                   &reason);

    if (rc == NGX_LLM_OK && api->error_alike && data.data[0] == '{') {

        if (data.len > size) {
            return 0;
        }

        memmove(out, data.data, data.len);

        return data.len;
    }

    for (i = 0; i < 3; i++) {
        words[i].data = texts[i].data;
        words[i].len = texts[i].len;
    }

    /* no JSON at all: that is the message */

    if (rc != NGX_LLM_OK) {
        words[NGX_LLM_ERROR_MESSAGE] = data;
        words[NGX_LLM_ERROR_TYPE].len = 0;
        words[NGX_LLM_ERROR_CODE].len = 0;
    }

    fault = &api->faults[ngx_llm_error_kind(status)];

    if (words[NGX_LLM_ERROR_TYPE].len == 0) {
        words[NGX_LLM_ERROR_TYPE] = ngx_llm_error_str(fault->type);
    }

    if (words[NGX_LLM_ERROR_CODE].len == 0) {
        words[NGX_LLM_ERROR_CODE] = ngx_llm_error_str(fault->code);
    }

    return ngx_llm_error_write(api->error_body, words[NGX_LLM_ERROR_TYPE],
                               words[NGX_LLM_ERROR_CODE],
                               words[NGX_LLM_ERROR_MESSAGE], status, out,
                               size);
}


/* the last one of a kind wins: the innermost of "error" comes last */

static ngx_llm_rc_e
ngx_llm_error_value(void *data, unsigned id,
    const ngx_llm_json_value_t *value, const char **reason)
{
    ngx_llm_error_text_t  *text;

    text = data;
    text += id;

    if ((value->type == NGX_LLM_JSON_STRING
         || (value->type == NGX_LLM_JSON_NUMBER && id == NGX_LLM_ERROR_CODE))
        && value->text.len != 0)
    {
        text->len = (value->text.len < sizeof(text->data))
                    ? value->text.len : sizeof(text->data);
        memcpy(text->data, value->text.data, text->len);
    }

    return NGX_LLM_OK;
}


static ngx_llm_err_e
ngx_llm_error_kind(unsigned status)
{
    switch (status) {

    case 413:
        return NGX_LLM_ERR_TOO_LARGE;

    case 429:
        return NGX_LLM_ERR_RATE_LIMIT;

    case 503:
    case 529:
        return NGX_LLM_ERR_OVERLOADED;

    case 408:
    case 504:
        return NGX_LLM_ERR_TIMEOUT;

    default:
        return (status < 500) ? NGX_LLM_ERR_INVALID : NGX_LLM_ERR_UPSTREAM;
    }
}


static ngx_llm_str_t
ngx_llm_error_str(const char *text)
{
    ngx_llm_str_t  str;

    str.data = (const unsigned char *) text;
    str.len = strlen(text);

    return str;
}


/* all or nothing: half an event is worse than none */

static size_t
ngx_llm_error_write(const char *template, ngx_llm_str_t type,
    ngx_llm_str_t code, ngx_llm_str_t message, unsigned status,
    unsigned char *out, size_t size)
{
    const char            *p;
    ngx_llm_error_out_t    to;
    ngx_llm_error_text_t   texts[3];

    /* what is written may be in out: before anything is put there */

    ngx_llm_error_escape(&texts[NGX_LLM_ERROR_MESSAGE], message);
    ngx_llm_error_escape(&texts[NGX_LLM_ERROR_TYPE], type);
    ngx_llm_error_escape(&texts[NGX_LLM_ERROR_CODE], code);

    to.pos = out;
    to.last = out + size;
    to.full = 0;

    for (p = template; *p != '\0'; p++) {

        if (*p != '%') {
            ngx_llm_error_put(&to, p, 1);
            continue;
        }

        switch (*++p) {

        case 'm':
            ngx_llm_error_put_text(&to, &texts[NGX_LLM_ERROR_MESSAGE]);
            break;

        case 't':
            ngx_llm_error_put_text(&to, &texts[NGX_LLM_ERROR_TYPE]);
            break;

        case 'c':
            ngx_llm_error_put_text(&to, &texts[NGX_LLM_ERROR_CODE]);
            break;

        case 's':
            ngx_llm_error_put_number(&to, status);
            break;
        }
    }

    return to.full ? 0 : (size_t) (to.pos - out);
}


static void
ngx_llm_error_escape(ngx_llm_error_text_t *to, ngx_llm_str_t text)
{
    to->len = ngx_llm_json_escape(to->data, sizeof(to->data), text);
}


static void
ngx_llm_error_put_text(ngx_llm_error_out_t *out,
    const ngx_llm_error_text_t *text)
{
    ngx_llm_error_put(out, text->data, text->len);
}


static void
ngx_llm_error_put(ngx_llm_error_out_t *out, const void *p, size_t len)
{
    if (len > (size_t) (out->last - out->pos)) {
        out->full = 1;
        return;
    }

    memcpy(out->pos, p, len);
    out->pos += len;
}


static void
ngx_llm_error_put_number(ngx_llm_error_out_t *out, unsigned number)
{
    unsigned char  *p, digits[sizeof("4294967295") - 1];

    p = digits + sizeof(digits);

    do {
        *--p = '0' + number % 10;
        number /= 10;
    } while (number != 0);

    ngx_llm_error_put(out, p, digits + sizeof(digits) - p);
}


unsigned
ngx_llm_api_status(const ngx_llm_api_t *api, ngx_llm_str_t type,
    ngx_llm_str_t code)
{
    int64_t   number;
    unsigned  status;

    if (ngx_llm_json_count(code, &number) == NGX_LLM_OK
        && number >= 400 && number <= 599)
    {
        return number;
    }

    /* the code says more: an invalid_request_error may be model_not_found */

    status = ngx_llm_error_lookup(api->statuses, code);

    if (status == 0) {
        status = ngx_llm_error_lookup(ngx_llm_error_words, code);
    }

    if (status == 0) {
        status = ngx_llm_error_lookup(api->statuses, type);
    }

    if (status == 0) {
        status = ngx_llm_error_lookup(ngx_llm_error_words, type);
    }

    return status;
}


static unsigned
ngx_llm_error_lookup(const ngx_llm_status_t *words, ngx_llm_str_t text)
{
    if (words == NULL) {
        return 0;
    }

    while (words->word != NULL) {

        if (ngx_llm_word_is(words->word, text)) {
            return words->status;
        }

        words++;
    }

    return 0;
}
