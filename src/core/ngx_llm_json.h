
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Reading JSON by a table of paths, on top of yajl.
 *
 * A path names keys separated by dots, "[]" any element of an array, "*" any
 * key, and a final "**" all at any depth below, of objects and of arrays:
 * "choices[].delta.content", "tools[].**".  "" is the document itself.  Up to
 * 64 rows a table, 255 bytes a path: the walk keeps one bit for each row that
 * still matches at each depth.
 */


#ifndef _NGX_LLM_JSON_H_INCLUDED_
#define _NGX_LLM_JSON_H_INCLUDED_


#include "ngx_llm.h"


#define NGX_LLM_JSON_MAX_ROWS  64


typedef enum {
    NGX_LLM_JSON_NULL = 0,
    NGX_LLM_JSON_FALSE,
    NGX_LLM_JSON_TRUE,
    NGX_LLM_JSON_NUMBER,
    NGX_LLM_JSON_STRING,
    NGX_LLM_JSON_OBJECT,        /* its "{" */
    NGX_LLM_JSON_OBJECT_END,    /* its "}" */
    NGX_LLM_JSON_ARRAY,
    NGX_LLM_JSON_ARRAY_END
} ngx_llm_json_type_e;


typedef struct {
    ngx_llm_json_type_e   type;

    /*
     * a string unescaped, a number as written; valid during the call only
     * where it had escapes, otherwise a slice of the document
     */
    ngx_llm_str_t         text;

    /* offset in the document just behind this token */
    size_t                end;
} ngx_llm_json_value_t;


typedef struct {
    const char           *path;

    /* the caller's number of what stands there */
    unsigned              id;
} ngx_llm_json_row_t;


/*
 * Called for each value that a row matches, in the document's order; a value
 * that several rows match is told once for each.  Anything but NGX_LLM_OK
 * ends the parse and is its result; reason may be set then.
 */

typedef ngx_llm_rc_e (*ngx_llm_json_pt)(void *data, unsigned id,
    const ngx_llm_json_value_t *value, const char **reason);


typedef struct {
    const ngx_llm_json_row_t  *rows;
    size_t                     nrows;
} ngx_llm_json_table_t;


/*
 * Parses one whole document in one call (yajl is quadratic in a token that
 * spans calls): strict RFC 8259, UTF-8, no BOM, nothing behind it.
 *
 * NGX_LLM_OK; NGX_LLM_INVALID (syntax, empty, UTF-8), NGX_LLM_TOO_LARGE
 * (depth over NGX_LLM_MAX_DEPTH), NGX_LLM_NO_MEMORY, or what the handler
 * returned; *reason is then a constant string.
 */

ngx_llm_rc_e ngx_llm_json_parse(const ngx_llm_json_table_t *table,
    const unsigned char *doc, size_t len, ngx_llm_scratch_t *scratch,
    ngx_llm_json_pt handler, void *data, const char **reason);

/*
 * The same for what a model server says: strings may hold bytes that are no
 * UTF-8, such as half of a character at the end of a token.  Clients read
 * them as U+FFFD.
 */

ngx_llm_rc_e ngx_llm_json_parse_answer(const ngx_llm_json_table_t *table,
    const unsigned char *doc, size_t len, ngx_llm_scratch_t *scratch,
    ngx_llm_json_pt handler, void *data, const char **reason);

/*
 * A number as a count of tokens: a non-negative integer, or one written with
 * a zero fraction or exponent ("1e3", "12.0").  NGX_LLM_INVALID otherwise
 * (negative, fraction, above NGX_LLM_MAX_TOKENS).
 */

ngx_llm_rc_e ngx_llm_json_count(ngx_llm_str_t number, int64_t *count);

/*
 * Writes a string's inner part escaped for JSON into out[0..size): control
 * bytes as \u00XX, invalid UTF-8 as U+FFFD.  Returns the bytes written; the
 * text is cut at a character's start where it does not fit.
 */

size_t ngx_llm_json_escape(unsigned char *out, size_t size,
    ngx_llm_str_t text);


#endif /* _NGX_LLM_JSON_H_INCLUDED_ */
