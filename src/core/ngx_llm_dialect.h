
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Dialects: one table for each API that says how its path, its request, its
 * content, usage, errors and end look.  Adding one is adding one file with
 * its transcripts, and a line in ngx_llm_dialect.c.
 */


#ifndef _NGX_LLM_DIALECT_H_INCLUDED_
#define _NGX_LLM_DIALECT_H_INCLUDED_


#include "ngx_llm_frame.h"
#include "ngx_llm_json.h"


typedef enum {
    NGX_LLM_DIALECT_AUTO = 0,
    NGX_LLM_DIALECT_OPENAI,
    NGX_LLM_DIALECT_ANTHROPIC,
    NGX_LLM_DIALECT_GEMINI,
    NGX_LLM_DIALECT_OLLAMA,
    NGX_LLM_DIALECT_ERNIE,
    NGX_LLM_DIALECT_COHERE
} ngx_llm_dialect_e;


/* what went wrong, in words that each dialect has a type and a code for */

typedef enum {
    NGX_LLM_ERR_INVALID = 0,      /* 400: the request cannot be read */
    NGX_LLM_ERR_TOO_LARGE,        /* 413: the body; 429: more than a burst */
    NGX_LLM_ERR_RATE_LIMIT,       /* 429, or in mid-stream */
    NGX_LLM_ERR_OVERLOADED,       /* 503 */
    NGX_LLM_ERR_UPSTREAM,         /* 502: refused, reset, cut off */
    NGX_LLM_ERR_TIMEOUT,          /* 504, or a clock in mid-stream */
    NGX_LLM_ERR_CANCELLED,
    NGX_LLM_ERR_SHUTDOWN
} ngx_llm_err_e;


typedef struct ngx_llm_api_s  ngx_llm_api_t;

/* the table's fields are for src/core; others use the functions below */

#define NGX_LLM_MAX_APIS  16

/* the longest error that is written here */
#define NGX_LLM_ERROR_BYTES  1024


/*
 * The API of a request by its path (a query may follow): "auto" among all,
 * otherwise among the given dialect's.  An unknown path gets the dialect's
 * first API, and NULL for auto.
 */

const ngx_llm_api_t *ngx_llm_api_by_path(ngx_llm_dialect_e dialect,
    ngx_llm_str_t path);

/*
 * The API of an answer whose path told nothing, by one event's data (or one
 * NDJSON line, or a whole JSON answer): by the keys that stand on its top
 * level.  NULL when it cannot be told yet.
 */

const ngx_llm_api_t *ngx_llm_api_by_content(ngx_llm_str_t data,
    ngx_llm_scratch_t *scratch);

/* "openai" and the like; "auto" when api is NULL */

const char *ngx_llm_api_dialect(const ngx_llm_api_t *api);

/* "chat", "completions", "responses", ..; "" when api is NULL */

const char *ngx_llm_api_name(const ngx_llm_api_t *api);

ngx_llm_framing_e ngx_llm_api_framing(const ngx_llm_api_t *api);

/* usage of a stream must be asked for by stream_options.include_usage */

int ngx_llm_api_asks_usage(const ngx_llm_api_t *api);

/* the prompt is all that is paid for: embeddings */

int ngx_llm_api_prompt_only(const ngx_llm_api_t *api);

/*
 * The path itself says that the answer is a stream, or that it is not: 1, 0;
 * -1 when the body's "stream" does (or its default: see default_stream of
 * the request facts).
 */

int ngx_llm_api_path_streams(const ngx_llm_api_t *api, ngx_llm_str_t path);

/*
 * The model where the path names it (Gemini: models/NAME:method, ERNIE:
 * the last segment), a slice of path; empty otherwise.
 */

ngx_llm_str_t ngx_llm_api_path_model(const ngx_llm_api_t *api,
    ngx_llm_str_t path);

/*
 * Writes the in-band error event of a stream into out[0..size), framing
 * included, no terminal marker.  api may be NULL: the event that the OpenAI,
 * Anthropic and Vercel clients all raise.  message is plain text, escaped and
 * cut here.  NGX_LLM_ERROR_BYTES always suffice.  Returns the bytes written,
 * 0 when they do not fit.
 */

size_t ngx_llm_error_event(const ngx_llm_api_t *api, ngx_llm_err_e err,
    const char *message, unsigned char *out, size_t size);

/*
 * The same as the JSON body of an HTTP error.  status is the HTTP status
 * that carries it (some dialects repeat it).
 */

size_t ngx_llm_error_body(const ngx_llm_api_t *api, ngx_llm_err_e err,
    unsigned status, const char *message, unsigned char *out, size_t size);

/*
 * The JSON body of the HTTP error that one whole error event of upstream
 * stands for: its data as it is, where the API writes the same into both,
 * otherwise its message, type and code by the API's template.  size is
 * NGX_LLM_ERROR_BYTES and len at least.  Returns the bytes written.
 */

size_t ngx_llm_error_of_event(const ngx_llm_api_t *api,
    const unsigned char *event, size_t len, unsigned status,
    ngx_llm_scratch_t *scratch, unsigned char *out, size_t size);


#endif /* _NGX_LLM_DIALECT_H_INCLUDED_ */
