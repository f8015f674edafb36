
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "tap.h"

#include "ngx_llm_json.h"


#define TEST_LOG_BYTES  4096


/* what the handler was told, "id type text" each, separated by "|" */

typedef struct {
    size_t                 n;
    char                   text[TEST_LOG_BYTES];

    const unsigned char   *doc;
    size_t                 end;

    /* values whose end is not where they end */
    unsigned               misplaced;

    /* the call that is refused; 0: none */
    unsigned               stop_at;
    unsigned               calls;
} test_log_t;


typedef struct {
    const char            *doc;
    const char            *told;
} test_walk_t;


typedef struct {
    const char            *doc;
    ngx_llm_rc_e           rc;
} test_syntax_t;


static ngx_llm_rc_e test_parse(const ngx_llm_json_table_t *table,
    const char *doc, size_t len, size_t scratch_bytes, test_log_t *log,
    const char **reason);
static int test_ends(const test_log_t *log, const ngx_llm_json_value_t *value);
static ngx_llm_rc_e test_handler(void *data, unsigned id,
    const ngx_llm_json_value_t *value, const char **reason);
static void test_walks(void);
static void test_syntax(void);
static void test_depth(void);
static void test_cuts(void);
static void test_memory(void);
static void test_stop(void);
static void test_wide_table(void);


static const char *const  test_types[] = {
    "null", "false", "true", "number", "string", "{", "}", "[", "]"
};


static const ngx_llm_json_row_t  test_rows[] = {
    { "", 0 },
    { "model", 1 },
    { "a.b[].c", 2 },
    { "tools[].**", 3 },
    { "*.x", 4 },
    { "m[][]", 5 },
    { "m[]", 6 },
    { "[].y", 7 },
    { "all.**", 8 },
    { "model", 9 }
};

static const ngx_llm_json_table_t  test_table = {
    test_rows, sizeof(test_rows) / sizeof(test_rows[0])
};


static const test_walk_t  test_docs[] = {
    { "1", "0 number 1" },
    { " -1.5e+3 ", "0 number -1.5e+3" },
    { "12345678901234567890123", "0 number 12345678901234567890123" },
    { "\"s\"", "0 string s" },
    { "null", "0 null " },
    { "{}", "0 { |0 } " },
    { "{\"model\":\"m\"}",
      "0 { |1 string m|9 string m|0 } " },
    { "{\"mod\\u0065l\":\"\\u0041\\n\\\"\"}",
      "0 { |1 string A\n\"|9 string A\n\"|0 } " },
    { "{\"model\":1,\"model\":true}",
      "0 { |1 number 1|9 number 1|1 true |9 true "
      "|0 } " },
    { "{\"modelx\":1,\"mode\":1,\"\":1,\"model\\u0000\":1,\"Model\":1}",
      "0 { |0 } " },
    { "{\"a\":{\"b\":[{\"c\":1,\"d\":2},{\"e\":{\"c\":3}},[{\"c\":4}],"
      "{\"c\":{}}]},\"a.b[].c\":5}",
      "0 { |2 number 1|2 { |2 } |0 } " },
    { "{\"a\":[{\"b\":[{\"c\":1}]}],\"b\":[{\"c\":1}]}",
      "0 { |0 } " },
    { "{\"tools\":[1,{\"f\":[2,{\"g\":\"h\"}]},[3]],\"tool\":[{\"f\":4}]}",
      "0 { |3 [ |3 number 2|3 { |3 string h|3 } "
      "|3 ] |3 number 3|0 } " },
    { "{\"p\":{\"x\":1},\"q\":{\"x\":{\"x\":2}},\"x\":3,\"r\":[{\"x\":4}]}",
      "0 { |4 number 1|4 { |4 } |0 } " },
    { "{\"m\":[1,[2,[3]],{\"m\":4}]}",
      "0 { |6 number 1|6 [ |5 number 2|5 [ |5 ] "
      "|6 ] |6 { |6 } |0 } " },
    { "[{\"y\":1},{\"model\":2,\"y\":[3]},4]",
      "0 [ |7 number 1|7 [ |7 ] |0 ] " },
    { "{\"all\":[[1],{\"k\":2}]}",
      "0 { |8 [ |8 number 1|8 ] |8 { |8 number 2"
      "|8 } |0 } " },
    { NULL, NULL }
};


static const test_syntax_t  test_syntaxes[] = {
    { "", NGX_LLM_INVALID },
    { " ", NGX_LLM_INVALID },
    { "{", NGX_LLM_INVALID },
    { "{}}", NGX_LLM_INVALID },
    { "{} {}", NGX_LLM_INVALID },
    { "{}1", NGX_LLM_INVALID },
    { "{} tru", NGX_LLM_INVALID },
    { "1 2", NGX_LLM_INVALID },
    { "[1,]", NGX_LLM_INVALID },
    { "[,1]", NGX_LLM_INVALID },
    { "{\"a\":1,}", NGX_LLM_INVALID },
    { "{\"a\"}", NGX_LLM_INVALID },
    { "{a:1}", NGX_LLM_INVALID },
    { "{1:1}", NGX_LLM_INVALID },
    { "{\"a\":1]", NGX_LLM_INVALID },
    { "01", NGX_LLM_INVALID },
    { "-", NGX_LLM_INVALID },
    { "+1", NGX_LLM_INVALID },
    { "1.", NGX_LLM_INVALID },
    { ".5", NGX_LLM_INVALID },
    { "1e", NGX_LLM_INVALID },
    { "NaN", NGX_LLM_INVALID },
    { "Infinity", NGX_LLM_INVALID },
    { "0x10", NGX_LLM_INVALID },
    { "tru", NGX_LLM_INVALID },
    { "True", NGX_LLM_INVALID },
    { "'a'", NGX_LLM_INVALID },
    { "\"a", NGX_LLM_INVALID },
    { "\"\\x\"", NGX_LLM_INVALID },
    { "\"\\u12g4\"", NGX_LLM_INVALID },
    { "\"a\nb\"", NGX_LLM_INVALID },
    { "\"a\tb\"", NGX_LLM_INVALID },
    { "/* c */ 1", NGX_LLM_INVALID },
    { "1 // c", NGX_LLM_INVALID },
    { "\xef\xbb\xbf{}", NGX_LLM_INVALID },
    { "\"\xff\"", NGX_LLM_INVALID },
    { "\"\xc0\xaf\"", NGX_LLM_INVALID },
    { "{\"\xc1\xadodel\":1}", NGX_LLM_INVALID },
    { "\"\xed\xa0\x80\"", NGX_LLM_INVALID },
    { "\"\xf4\x90\x80\x80\"", NGX_LLM_INVALID },
    { "\"\xe2\x82\"", NGX_LLM_INVALID },
    { "\xa0", NGX_LLM_INVALID },

    { "\"\\ud83d\\ude00\"", NGX_LLM_OK },
    { "\"\\ud83d\"", NGX_LLM_OK },
    { "\"\\ud83d\\u0041\"", NGX_LLM_OK },
    { "\"\xe2\x82\xac\xf0\x9f\x98\x80\"", NGX_LLM_OK },
    { "\"\x7f\"", NGX_LLM_OK },
    { "-0", NGX_LLM_OK },
    { "[1e9999,-1E-9999,0.0]", NGX_LLM_OK },
    { "\t\r\n [] \n", NGX_LLM_OK },
    { NULL, NGX_LLM_OK }
};


static unsigned char  test_scratch[8192];


int
main(void)
{
    test_walks();
    test_syntax();
    test_depth();
    test_cuts();
    test_memory();
    test_stop();
    test_wide_table();

    return tap_done();
}


/* the document stands flush against a guard page */

static ngx_llm_rc_e
test_parse(const ngx_llm_json_table_t *table, const char *doc, size_t len,
    size_t scratch_bytes, test_log_t *log, const char **reason)
{
    unsigned           stop_at;
    tap_guard_t        guard;
    ngx_llm_rc_e       rc;
    ngx_llm_scratch_t  scratch;

    stop_at = log->stop_at;
    memset(log, 0, sizeof(test_log_t));
    log->stop_at = stop_at;

    guard = tap_guard(doc, len);
    log->doc = guard.data;
    scratch.data = test_scratch + sizeof(test_scratch) - scratch_bytes;
    scratch.size_bytes = scratch_bytes;

    rc = ngx_llm_json_parse(table, guard.data, len, &scratch, test_handler,
                            log, reason);

    tap_unguard(&guard);

    return rc;
}


static ngx_llm_rc_e
test_handler(void *data, unsigned id, const ngx_llm_json_value_t *value,
    const char **reason)
{
    test_log_t  *log;

    log = data;

    if (log->n < sizeof(log->text)) {
        log->n += snprintf(log->text + log->n, sizeof(log->text) - log->n,
                           "%s%u %s %.*s", log->n ? "|" : "", id,
                           test_types[value->type], (int) value->text.len,
                           (const char *) value->text.data);
    }

    log->misplaced += !test_ends(log, value);
    log->end = value->end;

    if (++log->calls == log->stop_at) {
        *reason = "stopped";
        return NGX_LLM_BUSY;
    }

    return NGX_LLM_OK;
}


/* the bytes before the end are the value's last ones */

static int
test_ends(const test_log_t *log, const ngx_llm_json_value_t *value)
{
    const char           *word;
    const unsigned char  *end;

    end = log->doc + value->end;

    if (value->end < log->end) {
        return 0;
    }

    switch (value->type) {

    case NGX_LLM_JSON_NUMBER:
        return value->text.data + value->text.len == end;

    case NGX_LLM_JSON_STRING:
        return end[-1] == '"'
               && (value->text.data + value->text.len == end - 1
                   || memchr(log->doc, '\\', value->end) != NULL);

    default:
        word = test_types[value->type];
        return memcmp(end - strlen(word), word, strlen(word)) == 0;
    }
}


static void
test_walks(void)
{
    size_t              i;
    const char         *reason;
    test_log_t          log;
    const test_walk_t  *test;

    log.stop_at = 0;

    for (test = test_docs; test->doc != NULL; test++) {

        for (i = 0; i <= sizeof(test_scratch); i += sizeof(test_scratch) / 2) {
            tap_int(test_parse(&test_table, test->doc, strlen(test->doc), i,
                               &log, &reason),
                    NGX_LLM_OK, "%s: scratch of %zu", test->doc, i);
            tap_str(log.text, log.n, test->told, "%s: told", test->doc);
            tap_int(log.misplaced, 0, "%s: ends", test->doc);
        }
    }
}


static void
test_syntax(void)
{
    const char           *reason;
    test_log_t            log;
    const test_syntax_t  *test;

    log.stop_at = 0;

    for (test = test_syntaxes; test->doc != NULL; test++) {
        tap_int(test_parse(&test_table, test->doc, strlen(test->doc),
                           sizeof(test_scratch), &log, &reason),
                test->rc, "syntax %td", test - test_syntaxes);
        tap_ok((reason == NULL) == (test->rc == NGX_LLM_OK),
               "syntax %td: a reason", test - test_syntaxes);
    }

    tap_int(test_parse(&test_table, "{}\0", 3, sizeof(test_scratch), &log,
                       &reason),
            NGX_LLM_INVALID, "a NUL behind the document");
    tap_int(test_parse(&test_table, "{\0\"\0", 4, sizeof(test_scratch), &log,
                       &reason),
            NGX_LLM_INVALID, "UTF-16");
}


static void
test_depth(void)
{
    char        *doc;
    size_t       n;
    const char  *reason;
    test_log_t   log;

    doc = malloc(200000);
    if (doc == NULL) {
        tap_bail("no memory");
    }

    log.stop_at = 0;

    for (n = NGX_LLM_MAX_DEPTH - 1; n <= NGX_LLM_MAX_DEPTH + 1; n++) {
        memset(doc, '[', n);
        memset(doc + n, ']', n);

        tap_int(test_parse(&test_table, doc, 2 * n, 1024, &log, &reason),
                n <= NGX_LLM_MAX_DEPTH ? NGX_LLM_OK : NGX_LLM_TOO_LARGE,
                "%zu arrays", n);
    }

    memset(doc, '[', 100000);
    memset(doc + 100000, ']', 100000);

    tap_int(test_parse(&test_table, doc, 200000, 1024, &log, &reason),
            NGX_LLM_TOO_LARGE, "100,000 arrays");

    for (n = 0; n < 100000; n += 5) {
        memcpy(doc + n, "{\"m\":", 5);
    }

    tap_int(test_parse(&test_table, doc, 100000, 1024, &log, &reason),
            NGX_LLM_TOO_LARGE, "20,000 objects");

    free(doc);
}


/* no beginning of a document is one */

static void
test_cuts(void)
{
    size_t              i, wrong;
    const char         *reason;
    test_log_t          log;
    const test_walk_t  *test;

    wrong = 0;
    log.stop_at = 0;

    for (test = test_docs; test->doc != NULL; test++) {

        if (test->doc[0] != '{' && test->doc[0] != '[') {
            continue;
        }

        for (i = 0; i < strlen(test->doc); i++) {
            wrong += (test_parse(&test_table, test->doc, i,
                                 sizeof(test_scratch), &log, &reason)
                      != NGX_LLM_INVALID);
        }
    }

    tap_int(wrong, 0, "documents that are cut off");
}


/* the same is told however much memory there is, wherever it begins */

static void
test_memory(void)
{
    size_t             i, len, wrong;
    char              *doc;
    test_log_t         log, want;
    const char        *reason;

    len = 600000;

    doc = malloc(len);
    if (doc == NULL) {
        tap_bail("no memory");
    }

    /* escapes make yajl decode, in memory that grows */

    memcpy(doc, "{\"model\":\"", 10);

    for (i = 10; i < len - 2; i += 2) {
        memcpy(doc + i, "\\n", 2);
    }

    memcpy(doc + len - 2, "\"}", 2);

    log.stop_at = 0;
    want.stop_at = 0;
    wrong = 0;

    test_parse(&test_table, doc, 2000, 0, &want, &reason);

    memcpy(doc + 1998, "\"}", 2);

    tap_int(test_parse(&test_table, doc, 2000, 0, &want, &reason),
            NGX_LLM_OK, "escapes without a scratch");

    for (i = 0; i < sizeof(test_scratch); i += 7) {
        wrong += (test_parse(&test_table, doc, 2000, i, &log, &reason)
                  != NGX_LLM_OK
                  || strcmp(log.text, want.text) != 0);
    }

    tap_int(wrong, 0, "any scratch: the same is told");

    memcpy(doc + 1998, "\\n", 2);

    tap_int(test_parse(&test_table, doc, len, sizeof(test_scratch), &log,
                       &reason),
            NGX_LLM_OK, "a string larger than the scratch");

    free(doc);
}


static void
test_stop(void)
{
    unsigned     i;
    const char  *reason;
    test_log_t   log;

    static const char  doc[] = "{\"model\":\"m\",\"a\":{\"b\":[{\"c\":1}]}}";

    for (i = 1; i <= 5; i++) {
        log.stop_at = i;

        tap_int(test_parse(&test_table, doc, sizeof(doc) - 1,
                           sizeof(test_scratch), &log, &reason),
                NGX_LLM_BUSY, "the handler ends the parse at call %u", i);
        tap_int(log.calls, i, "it is not called again after %u", i);
        tap_str(reason, strlen(reason), "stopped", "its reason is kept");
    }
}


/* all 64 rows, the last one's bit included */

static void
test_wide_table(void)
{
    size_t                i, n;
    const char           *reason;
    test_log_t            log;
    char                  names[NGX_LLM_JSON_MAX_ROWS][8], doc[1024];
    ngx_llm_json_row_t    rows[NGX_LLM_JSON_MAX_ROWS];
    ngx_llm_json_table_t  table;

    n = 0;

    for (i = 0; i < NGX_LLM_JSON_MAX_ROWS; i++) {
        snprintf(names[i], sizeof(names[i]), "k%zu", i);
        n += snprintf(doc + n, sizeof(doc) - n, "%s\"%s\":1", i ? "," : "{",
                      names[i]);

        rows[i].path = names[i];
        rows[i].id = i;
    }

    n += snprintf(doc + n, sizeof(doc) - n, "}");

    table.rows = rows;
    table.nrows = NGX_LLM_JSON_MAX_ROWS;
    log.stop_at = 0;

    tap_int(test_parse(&table, doc, n, sizeof(test_scratch), &log, &reason),
            NGX_LLM_OK, "a table of 64 rows");
    tap_int(log.calls, NGX_LLM_JSON_MAX_ROWS, "each matches once");

    table.nrows = 0;

    tap_int(test_parse(&table, doc, n, sizeof(test_scratch), &log, &reason),
            NGX_LLM_OK, "a table of no rows");
    tap_int(log.calls, 0, "nothing matches");
}
