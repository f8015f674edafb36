
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


static size_t ngx_llm_error_write(const char *template,
    const ngx_llm_fault_t *fault, unsigned status, const char *message,
    unsigned char *out, size_t size);
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

    return ngx_llm_error_write(api->error_event, &api->faults[err],
                               ngx_llm_error_statuses[err], message, out,
                               size);
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

    return ngx_llm_error_write(api->error_body, &api->faults[err], status,
                               message, out, size);
}


/* all or nothing: half an event is worse than none */

static size_t
ngx_llm_error_write(const char *template, const ngx_llm_fault_t *fault,
    unsigned status, const char *message, unsigned char *out, size_t size)
{
    size_t                len;
    const char           *p;
    ngx_llm_str_t         text;
    unsigned char         escaped[NGX_LLM_ERROR_MESSAGE_BYTES];
    ngx_llm_error_out_t   to;

    text.data = (const unsigned char *) message;
    text.len = strlen(message);

    len = ngx_llm_json_escape(escaped, sizeof(escaped), text);

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
            ngx_llm_error_put(&to, escaped, len);
            break;

        case 't':
            ngx_llm_error_put(&to, fault->type, strlen(fault->type));
            break;

        case 'c':
            ngx_llm_error_put(&to, fault->code, strlen(fault->code));
            break;

        case 's':
            ngx_llm_error_put_number(&to, status);
            break;
        }
    }

    return to.full ? 0 : (size_t) (to.pos - out);
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
