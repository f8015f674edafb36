
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The input is a document.  Whatever it is: memory changes nothing, values
 * stand where they are said to, and an escaped string reads as what it was.
 */


#include "fuzz.h"

#include "ngx_llm_json.h"
#include "ngx_llm_utf8.h"


/* what the handler was told, as a hash */

typedef struct {
    uint64_t               hash;
    const unsigned char   *doc;
    size_t                 len;
    size_t                 end;
    int64_t                depth;
} fuzz_log_t;


static ngx_llm_rc_e fuzz_handler(void *data, unsigned id,
    const ngx_llm_json_value_t *value, const char **reason);
static void fuzz_hash(fuzz_log_t *log, const void *p, size_t len);
static ngx_llm_rc_e fuzz_parse(fuzz_log_t *log, const uint8_t *p, size_t len,
    size_t scratch_bytes);
static void fuzz_string(const uint8_t *p, size_t len);
static ngx_llm_rc_e fuzz_same(void *data, unsigned id,
    const ngx_llm_json_value_t *value, const char **reason);


static const ngx_llm_json_row_t  fuzz_rows[] = {
    { "**", 0 },
    { "", 1 },
    { "model", 2 },
    { "a.b[].c", 3 },
    { "*.x", 4 },
    { "m[][]", 5 },
    { "[].a", 6 },
    { "choices[].*.content", 7 }
};


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    fuzz_log_t    with, without;
    ngx_llm_rc_e  rc;

    rc = fuzz_parse(&with, p, len, 4096);

    fuzz_assert(fuzz_parse(&without, p, len, len % 512) == rc);
    fuzz_assert(without.hash == with.hash);

    if (rc == NGX_LLM_OK) {
        fuzz_assert(with.depth == 0);
        fuzz_assert(ngx_llm_utf8_valid(p, len));
    }

    fuzz_string(p, len);

    return 0;
}


static ngx_llm_rc_e
fuzz_parse(fuzz_log_t *log, const uint8_t *p, size_t len,
    size_t scratch_bytes)
{
    const char            *reason;
    ngx_llm_rc_e           rc;
    unsigned char         *doc, *memory;
    ngx_llm_scratch_t      scratch;
    ngx_llm_json_table_t   table;

    doc = fuzz_copy(p, len);
    memory = malloc(scratch_bytes + 1);
    fuzz_assert(memory != NULL);

    scratch.data = memory;
    scratch.size_bytes = scratch_bytes;

    memset(log, 0, sizeof(fuzz_log_t));
    log->doc = doc;
    log->len = len;

    table.rows = fuzz_rows;
    table.nrows = sizeof(fuzz_rows) / sizeof(fuzz_rows[0]);

    rc = ngx_llm_json_parse(&table, doc, len, &scratch, fuzz_handler, log,
                            &reason);

    fuzz_assert((reason == NULL) == (rc == NGX_LLM_OK));
    fuzz_assert(rc == NGX_LLM_OK || rc == NGX_LLM_INVALID
                || rc == NGX_LLM_TOO_LARGE);

    free(memory);
    free(doc);

    return rc;
}


static ngx_llm_rc_e
fuzz_handler(void *data, unsigned id, const ngx_llm_json_value_t *value,
    const char **reason)
{
    int64_t      count;
    fuzz_log_t  *log;

    log = data;

    fuzz_assert(value->end > 0 && value->end <= log->len);
    fuzz_assert(value->end >= log->end);
    log->end = value->end;

    switch (value->type) {

    case NGX_LLM_JSON_OBJECT:
    case NGX_LLM_JSON_ARRAY:
        log->depth += (id == 1);
        fuzz_assert(strchr("{[", log->doc[value->end - 1]) != NULL);
        break;

    case NGX_LLM_JSON_OBJECT_END:
    case NGX_LLM_JSON_ARRAY_END:
        log->depth -= (id == 1);
        fuzz_assert(strchr("}]", log->doc[value->end - 1]) != NULL);
        break;

    case NGX_LLM_JSON_STRING:
        fuzz_assert(log->doc[value->end - 1] == '"');
        break;

    case NGX_LLM_JSON_NUMBER:
        fuzz_assert(value->text.data + value->text.len
                    == log->doc + value->end);

        if (ngx_llm_json_count(value->text, &count) == NGX_LLM_OK) {
            fuzz_assert(count >= 0 && count <= NGX_LLM_MAX_TOKENS);
            fuzz_hash(log, &count, sizeof(count));
        }

        break;

    case NGX_LLM_JSON_NULL:
    case NGX_LLM_JSON_TRUE:
    case NGX_LLM_JSON_FALSE:
        break;
    }

    fuzz_hash(log, &id, sizeof(id));
    fuzz_hash(log, &value->type, sizeof(value->type));
    fuzz_hash(log, &value->end, sizeof(value->end));
    fuzz_hash(log, value->text.data, value->text.len);

    return NGX_LLM_OK;
}


static void
fuzz_hash(fuzz_log_t *log, const void *p, size_t len)
{
    const unsigned char  *byte;

    for (byte = p; len != 0; len--) {
        log->hash = (log->hash ^ *byte++) * 0x100000001b3;
    }
}


/* escaped in any room: valid, and where the text was, read as it was */

static void
fuzz_string(const uint8_t *p, size_t len)
{
    size_t                 n, size;
    const char            *reason;
    unsigned char         *out;
    ngx_llm_str_t          text;
    ngx_llm_scratch_t      scratch;
    ngx_llm_json_row_t     row;
    ngx_llm_json_table_t   table;

    size = (len & 1) ? len : 6 * len;

    out = malloc(size + 2);
    fuzz_assert(out != NULL);

    text.data = p;
    text.len = len;

    n = ngx_llm_json_escape(out + 1, size, text);
    fuzz_assert(n <= size);

    out[0] = '"';
    out[n + 1] = '"';

    row.path = "";
    row.id = (n <= len || size == 6 * len) && ngx_llm_utf8_valid(p, len);

    table.rows = &row;
    table.nrows = 1;
    scratch.data = NULL;
    scratch.size_bytes = 0;

    fuzz_assert(ngx_llm_json_parse(&table, out, n + 2, &scratch, fuzz_same,
                                   &text, &reason)
                == NGX_LLM_OK);

    free(out);
}


/* id: the text was valid; it may have been cut */

static ngx_llm_rc_e
fuzz_same(void *data, unsigned id, const ngx_llm_json_value_t *value,
    const char **reason)
{
    ngx_llm_str_t  *text;

    text = data;

    if (id) {
        fuzz_assert(value->text.len <= text->len);
        fuzz_assert(value->text.len == 0
                    || memcmp(value->text.data, text->data, value->text.len)
                       == 0);
    }

    return NGX_LLM_OK;
}
