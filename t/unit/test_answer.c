
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Every transcript of t/data is read whole, at every split point, byte by
 * byte, with other line ends, and with and without what spares reading: the
 * facts are always those of the .expect file beside it.
 */


#include "tap.h"

#include <glob.h>

#include "ngx_llm_answer.h"


#define TEST_DATA           "t/data/*.expect"
#define TEST_MAX_BYTES      65536
#define TEST_SCRATCH_BYTES  4096


typedef struct {
    const char            *name;
    unsigned               bit;
} test_bit_t;


typedef struct {
    char                   name[64];
    unsigned char          data[TEST_MAX_BYTES];
    size_t                 len;

    /* the expectations' text; values point into it */
    char                   text[2048];
    const char            *path;
    const char            *api;
    const char            *model;
    const char            *finish;
    const char            *error;
    const char            *seen;
    int64_t                prompt;
    int64_t                cached;
    int64_t                completion;
    int64_t                reasoning;
    int64_t                events;
    int64_t                content_events;
    int64_t                error_status;
    int64_t                text_bytes;
    unsigned               untold;
} test_case_t;


/* how a stream is read */

typedef struct {
    /* the first piece ends there; 0: pieces of one byte */
    size_t                 split;

    /* no event is spared its reading */
    unsigned               shapeless:1;

    /* events that fit are not even looked for */
    unsigned               next:1;

    /* the API is not told */
    unsigned               untold:1;
} test_way_t;


/* what reading an answer came to */

typedef struct {
    ngx_llm_answer_t       answer;
    ngx_llm_names_t        names;
} test_answer_t;


typedef struct {
    const char            *key;
    size_t                 offset;
    unsigned               string:1;
} test_key_t;


static int test_load(const char *expect, test_case_t *tc);
static int test_key(test_case_t *tc, char *line);
static size_t test_slurp(const char *name, void *buf, size_t size);
static void test_case(test_case_t *tc);
static void test_expect(const test_case_t *tc, const test_answer_t *got);
static void test_stream(test_case_t *tc, const test_answer_t *want);
static void test_line_ends(test_case_t *tc, const test_answer_t *want);
static void test_read(test_answer_t *answer, const test_case_t *tc,
    const test_way_t *way);
static size_t test_piece(test_answer_t *answer, ngx_llm_frame_t *frame,
    const test_way_t *way, const unsigned char *p, size_t len, size_t held);
static void test_event(test_answer_t *answer, const test_way_t *way,
    size_t len);
static int test_same(const test_answer_t *a, const test_answer_t *b);
static void test_limits(void);
static void test_bits(const ngx_llm_answer_t *answer, char *out, size_t size);


static const test_bit_t  test_bit_names[] = {
    { "DATA", NGX_LLM_EV_DATA },
    { "CONTENT", NGX_LLM_EV_CONTENT },
    { "USAGE", NGX_LLM_EV_USAGE },
    { "ONLY_USAGE", NGX_LLM_EV_ONLY_USAGE },
    { "FINISH", NGX_LLM_EV_FINISH },
    { "FILTER", NGX_LLM_EV_FILTER },
    { "ERROR", NGX_LLM_EV_ERROR },
    { "END", NGX_LLM_EV_END },
    { "UNREAD", NGX_LLM_EV_UNREAD },
    { NULL, 0 }
};


#define test_number(name)  { #name, offsetof(test_case_t, name), 0 }
#define test_string(name)  { #name, offsetof(test_case_t, name), 1 }

static const test_key_t  test_keys[] = {
    test_string(path),
    test_string(api),
    test_string(model),
    test_string(finish),
    test_string(error),
    test_string(seen),
    test_number(prompt),
    test_number(cached),
    test_number(completion),
    test_number(reasoning),
    test_number(events),
    test_number(content_events),
    test_number(error_status),
    test_number(text_bytes),
    { NULL, 0, 0 }
};


/* the current event, flush against a guard page */

static tap_guard_t  test_guard;

static unsigned char  test_held[TEST_MAX_BYTES];
static unsigned char  test_memory[TEST_SCRATCH_BYTES];
static ngx_llm_shapes_t  test_shapes;


int
main(void)
{
    size_t              i;
    glob_t              files;
    static test_case_t  tc;

    test_guard = tap_guard(test_held, sizeof(test_held));

    if (glob(TEST_DATA, 0, NULL, &files) != 0) {
        tap_bail("no transcripts: run it in the project's folder");
    }

    for (i = 0; i < files.gl_pathc; i++) {

        if (test_load(files.gl_pathv[i], &tc)) {
            test_case(&tc);
        }
    }

    tap_ok(files.gl_pathc >= 60, "all transcripts are there");

    globfree(&files);

    test_limits();

    return tap_done();
}


static int
test_load(const char *expect, test_case_t *tc)
{
    char    *line, *rest;
    size_t   i, len;
    char     name[256];

    memset(tc, 0, sizeof(test_case_t));

    snprintf(name, sizeof(name), "%.*s",
             (int) (strlen(expect) - strlen(".expect")), expect);
    snprintf(tc->name, sizeof(tc->name), "%s", strrchr(name, '/') + 1);

    tc->len = test_slurp(name, tc->data, sizeof(tc->data));
    len = test_slurp(expect, tc->text, sizeof(tc->text) - 1);

    if (!tap_ok(tc->len != 0 && len != 0, "%s is there", tc->name)) {
        return 0;
    }

    for (i = 0, line = tc->text; line != NULL; i++, line = rest) {
        rest = strchr(line, '\n');

        if (rest != NULL) {
            *rest++ = '\0';
        }

        if (*line != '\0' && *line != '#'
            && !tap_ok(test_key(tc, line), "%s: line %zu is known", tc->name,
                       i + 1))
        {
            return 0;
        }
    }

    return tap_ok(tc->path && tc->api && tc->seen && tc->model && tc->finish
                  && tc->error, "%s: all is expected", tc->name);
}


static int
test_key(test_case_t *tc, char *line)
{
    char              *value, *end;
    int64_t            number;
    const test_key_t  *key;

    value = strchr(line, '=');
    if (value == NULL) {
        return 0;
    }

    *value++ = '\0';

    if (strcmp(line, "auto") == 0) {
        tc->untold = 1;
        return strcmp(value, "no") == 0;
    }

    for (key = test_keys; key->key != NULL; key++) {

        if (strcmp(line, key->key) != 0) {
            continue;
        }

        if (key->string) {
            memcpy((char *) tc + key->offset, &value, sizeof(value));
            return 1;
        }

        number = strtoll(value, &end, 10);
        memcpy((char *) tc + key->offset, &number, sizeof(number));

        return *value != '\0' && *end == '\0';
    }

    return 0;
}


static size_t
test_slurp(const char *name, void *buf, size_t size)
{
    FILE    *f;
    size_t   len;

    f = fopen(name, "rb");
    if (f == NULL) {
        return 0;
    }

    len = fread(buf, 1, size, f);
    fclose(f);

    return len < size ? len : 0;
}


static void
test_case(test_case_t *tc)
{
    test_answer_t      answer, untold;
    ngx_llm_scratch_t  scratch;
    const test_way_t   whole = { .split = tc->len };
    const test_way_t   told_not = { .split = tc->len, .untold = 1 };

    test_read(&answer, tc, &whole);
    test_expect(tc, &answer);

    if (!tc->untold) {
        test_read(&untold, tc, &told_not);
        tap_ok(test_same(&answer, &untold), "%s: the API is told by content",
               tc->name);
    }

    if (strcmp(strrchr(tc->name, '.'), ".json") != 0) {
        test_stream(tc, &answer);
        return;
    }

    /* the parser's memory may come from anywhere */

    scratch.data = NULL;
    scratch.size_bytes = 0;

    memset(&untold, 0, sizeof(untold));
    scratch.names = &untold.names;
    scratch.shapes = NULL;

    ngx_llm_answer_init(&untold.answer, answer.answer.api);
    ngx_llm_answer_body(&untold.answer, tc->data, tc->len, &scratch);

    tap_ok(test_same(&answer, &untold), "%s: the same without a scratch",
           tc->name);
}


static void
test_expect(const test_case_t *tc, const test_answer_t *got)
{
    char                     api[64], bits[128];
    ngx_llm_usage_t          usage;
    const ngx_llm_answer_t  *answer;

    answer = &got->answer;
    usage = ngx_llm_answer_usage(answer);

    snprintf(api, sizeof(api), "%s %s", ngx_llm_api_dialect(answer->api),
             ngx_llm_api_name(answer->api));

    tap_str(api, strlen(api), tc->api, "%s: api", tc->name);
    tap_int(usage.prompt, tc->prompt, "%s: prompt", tc->name);
    tap_int(usage.cached, tc->cached, "%s: cached", tc->name);
    tap_int(usage.completion, tc->completion, "%s: completion",
            tc->name);
    tap_int(usage.reasoning, tc->reasoning, "%s: reasoning",
            tc->name);
    tap_int(answer->events, tc->events, "%s: events", tc->name);
    tap_int(answer->content_events, tc->content_events, "%s: content events",
            tc->name);
    tap_str(got->names.model, got->names.model_len, tc->model, "%s: model",
            tc->name);
    tap_str(got->names.finish, got->names.finish_len, tc->finish, "%s: finish",
            tc->name);
    tap_str(got->names.error, got->names.error_len, tc->error, "%s: error",
            tc->name);
    tap_int(answer->error_status, tc->error_status, "%s: error status",
            tc->name);
    tap_int(ngx_llm_text_bytes(&answer->content), tc->text_bytes,
            "%s: bytes of content", tc->name);

    test_bits(answer, bits, sizeof(bits));
    tap_str(bits, strlen(bits), tc->seen, "%s: seen", tc->name);
}


static void
test_stream(test_case_t *tc, const test_answer_t *want)
{
    size_t            i, wrong;
    test_way_t        way;
    test_answer_t     answer;

    memset(&way, 0, sizeof(way));

    test_read(&answer, tc, &way);
    tap_ok(test_same(want, &answer), "%s: byte by byte", tc->name);

    wrong = 0;

    for (i = 1; i < tc->len; i++) {
        way.split = i;
        way.next = i & 1;

        test_read(&answer, tc, &way);
        wrong += !test_same(want, &answer);
    }

    tap_int(wrong, 0, "%s: at every split point", tc->name);

    way.split = tc->len;
    way.next = 1;

    test_read(&answer, tc, &way);
    tap_ok(test_same(want, &answer), "%s: the short way", tc->name);

    way.next = 0;
    way.shapeless = 1;

    test_read(&answer, tc, &way);
    tap_ok(test_same(want, &answer), "%s: the long way", tc->name);

    test_line_ends(tc, want);
}


/* no line end stands in a value: other ones change nothing */

static void
test_line_ends(test_case_t *tc, const test_answer_t *want)
{
    size_t              i, n, kind;
    test_way_t          way;
    test_answer_t       answer;
    static test_case_t  other;

    static const char *const  kinds[] = { "\n", "\r\n", "\r" };
    static const char         bom[] = "\xef\xbb\xbf";

    if (want->answer.api != NULL
        && ngx_llm_api_framing(want->answer.api) == NGX_LLM_FRAME_LINES)
    {
        return;
    }

    for (kind = 0; kind < 3; kind++) {
        other = *tc;

        n = strlen(bom);
        memcpy(other.data, bom, n);

        for (i = 0; i < tc->len; i++) {

            if (tc->data[i] != '\n') {
                other.data[n++] = tc->data[i];
                continue;
            }

            memcpy(other.data + n, kinds[kind], strlen(kinds[kind]));
            n += strlen(kinds[kind]);
        }

        other.len = n;

        memset(&way, 0, sizeof(way));

        test_read(&answer, &other, &way);
        tap_ok(test_same(want, &answer), "%s: BOM, line ends %zu, in bytes",
               tc->name, kind);

        way.split = n;
        way.next = 1;

        test_read(&answer, &other, &way);
        tap_ok(test_same(want, &answer), "%s: BOM, line ends %zu, whole",
               tc->name, kind);
    }
}


static void
test_read(test_answer_t *answer, const test_case_t *tc,
    const test_way_t *way)
{
    size_t                n, held;
    ngx_llm_str_t         path;
    ngx_llm_frame_t       frame;
    ngx_llm_scratch_t     scratch;
    const unsigned char  *p, *last;

    path.data = (const unsigned char *) tc->path;
    path.len = strlen(tc->path);

    memset(answer, 0, sizeof(test_answer_t));

    ngx_llm_answer_init(&answer->answer, way->untold ? NULL
                        : ngx_llm_api_by_path(NGX_LLM_DIALECT_AUTO, path));

    if (strcmp(strrchr(tc->name, '.'), ".json") == 0) {
        scratch.data = test_memory;
        scratch.size_bytes = sizeof(test_memory);
        scratch.names = &answer->names;
        scratch.shapes = &test_shapes;

        ngx_llm_answer_body(&answer->answer, tc->data, tc->len, &scratch);
        return;
    }

    memset(&frame, 0, sizeof(frame));

    frame.framing = (strcmp(strrchr(tc->name, '.'), ".ndjson") == 0)
                        ? NGX_LLM_FRAME_LINES
                        : NGX_LLM_FRAME_SSE;

    held = 0;
    last = tc->data + tc->len;

    for (p = tc->data; p < last; p += n) {
        n = (p == tc->data && way->split) ? way->split : (size_t) (last - p);

        if (way->split == 0) {
            n = 1;
        }

        held = test_piece(answer, &frame, way, p, n, held);
    }

    if (held != 0) {
        test_event(answer, way, held);
    }

    ngx_llm_answer_done(&answer->answer);
}


/* what the caller does with a piece of the stream: returns what is held */

static size_t
test_piece(test_answer_t *answer, ngx_llm_frame_t *frame,
    const test_way_t *way, const unsigned char *p, size_t len, size_t held)
{
    int     complete;
    size_t  n;

    while (len != 0) {
        n = 0;

        if (way->next) {
            n = ngx_llm_answer_next(&answer->answer, frame, p, len);
        }

        if (n == 0) {
            n = ngx_llm_frame_next(frame, p, len, &complete);

            memcpy(test_held + held, p, n);
            held += n;

            if (complete) {
                test_event(answer, way, held);
                held = 0;
            }
        }

        p += n;
        len -= n;
    }

    return held;
}


static void
test_event(test_answer_t *answer, const test_way_t *way, size_t len)
{
    unsigned char      *event;
    ngx_llm_scratch_t   scratch;

    event = test_guard.data + sizeof(test_held) - len;
    memcpy(event, test_held, len);

    scratch.data = test_memory;
    scratch.size_bytes = sizeof(test_memory);

    scratch.names = &answer->names;
    scratch.shapes = way->shapeless ? NULL : &test_shapes;

    ngx_llm_answer_event(&answer->answer, event, len, &scratch);
}


/* all but the shape, which depends on the way */

static int
test_same(const test_answer_t *a, const test_answer_t *b)
{
    return memcmp(&a->answer, &b->answer, offsetof(ngx_llm_answer_t, shape))
           == 0
           && memcmp(&a->names, &b->names, sizeof(ngx_llm_names_t)) == 0;
}


static void
test_limits(void)
{
    size_t              i, len;
    unsigned            bits;
    unsigned char      *big;
    ngx_llm_str_t       path = ngx_llm_string("/v1/chat/completions");
    ngx_llm_names_t     names;
    ngx_llm_answer_t    answer;
    ngx_llm_scratch_t   scratch;

    static const char  open[] =
        "data: {\"choices\":[{\"delta\":{\"content\":\"";
    static const char  close[] = "\"}}]}\n\n";
    static const char  filler[] = "data: {\"x\":[],\ndata: \"y\":\"";

    memset(&names, 0, sizeof(names));

    scratch.data = test_memory;
    scratch.size_bytes = sizeof(test_memory);
    scratch.names = &names;
    scratch.shapes = &test_shapes;

    len = NGX_LLM_MAX_EVENT_BYTES + 1;
    big = malloc(len);
    if (big == NULL) {
        tap_bail("no memory");
    }

    memset(big, 'x', len);

    /* one event that fits, one of a byte more; the shape is not asked */

    ngx_llm_answer_init(&answer,
                        ngx_llm_api_by_path(NGX_LLM_DIALECT_AUTO, path));

    for (i = 0; i < 2; i++) {
        len = NGX_LLM_MAX_EVENT_BYTES + i;

        memcpy(big, open, sizeof(open) - 1);
        memset(big + sizeof(open) - 1, 'x', len - (sizeof(open) - 1));
        memcpy(big + len - (sizeof(close) - 1), close, sizeof(close) - 1);

        bits = ngx_llm_answer_event(&answer, big, len, &scratch);

        tap_int(bits,
                NGX_LLM_EV_DATA
                | (i == 0 ? NGX_LLM_EV_CONTENT : NGX_LLM_EV_UNREAD),
                "an event of %zu bytes", len);
    }

    tap_int(answer.events, 2, "both are counted");
    tap_int(ngx_llm_text_bytes(&answer.content),
            NGX_LLM_MAX_EVENT_BYTES - (sizeof(open) + sizeof(close) - 2),
            "the content of one is");

    /* lines that are joined, in the scratch and where that is too small */

    for (i = 256; i <= 2 * TEST_SCRATCH_BYTES; i *= 2) {
        memset(big, 'x', i);
        memcpy(big, filler, sizeof(filler) - 1);
        memcpy(big + i - 5, "\"}\n\n\n", 5);

        bits = ngx_llm_answer_event(&answer, big, i, &scratch);
        tap_int(bits, NGX_LLM_EV_DATA, "joined lines of %zu bytes", i);
    }

    /* names that are longer than what is kept */

    len = snprintf((char *) big, 1024,
                   "data: {\"model\":\"%0200d\","
                   "\"choices\":[{\"finish_reason\":\"%0100d\"}],"
                   "\"error\":{\"type\":\"%0300d\"}}\n\n",
                   0, 0, 0);

    ngx_llm_answer_event(&answer, big, len, &scratch);

    tap_int(names.model_len, NGX_LLM_MAX_MODEL, "a long model is cut");
    tap_int(names.finish_len, NGX_LLM_MAX_FINISH, "a long finish is cut");
    tap_int(names.error_len, NGX_LLM_MAX_ERROR, "a long error is cut");

    tap_int(ngx_llm_answer_body(&answer, big, 0, &scratch),
            NGX_LLM_EV_DATA|NGX_LLM_EV_UNREAD, "an empty body is no answer");

    ngx_llm_answer_done(&answer);
    free(big);
}


static void
test_bits(const ngx_llm_answer_t *answer, char *out, size_t size)
{
    size_t             n;
    const test_bit_t  *bit;

    n = 0;
    out[0] = '\0';

    for (bit = test_bit_names; bit->name != NULL; bit++) {

        if (answer->seen & bit->bit) {
            n += snprintf(out + n, size - n, "%s%s", n ? " " : "", bit->name);
        }
    }
}
