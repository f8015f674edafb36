
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * What spares an event its reading may never be seen: two events that differ
 * in what fills a hole, and streams that mislead, are read with it and
 * without it.
 */


#include "tap.h"

#include "ngx_llm_answer.h"


#define TEST_MAX_BYTES   4096
#define TEST_MAX_EVENTS  64
#define TEST_MUTATED     150


/* an event with a hole: "%s" is filled */

typedef struct {
    const char            *path;
    const char            *event;
} test_hole_t;


typedef struct {
    const char            *path;
    const char            *data;
    unsigned               bits;
} test_bits_t;


/* what reading a stream came to */

typedef struct {
    ngx_llm_answer_t       answer;
    size_t                 n;
    size_t                 ends[TEST_MAX_EVENTS];
    unsigned               bits[TEST_MAX_EVENTS];

    /* events that were spared */
    size_t                 spared;
} test_run_t;


static void test_pairs(const test_hole_t *hole);
static void test_bytes(const test_hole_t *hole, char usual);
static void test_pieces(void);
static void test_streams(void);
static void test_spared(void);
static void test_mutated(void);
static size_t test_random(uint64_t *seed, size_t n);
static void test_shared(void);
static void test_bits(void);
static size_t test_compare(const char *path, const unsigned char *p,
    size_t len, size_t step);
static void test_read(test_run_t *run, const char *path,
    const unsigned char *p, size_t len, size_t split, int spare);
static void test_fill(unsigned char *p, size_t *len, const char *event,
    const char *text);


#define TEST_CHAT       "/v1/chat/completions"
#define TEST_RESPONSES  "/v1/responses"
#define TEST_OLLAMA     "/api/chat"

#define TEST_CHUNK(s)                                                         \
    "data: {\"id\":\"1\",\"model\":\"m\",\"choices\":[{\"index\":0,"          \
    "\"delta\":{\"content\":\"" s "\"},\"finish_reason\":null}]}"


static const test_hole_t  test_holes[] = {
    { TEST_CHAT, TEST_CHUNK("%s") "\n\n" },
    { TEST_CHAT, TEST_CHUNK("%s") "\r\n\r\n" },
    { TEST_CHAT, TEST_CHUNK("%s") "\r\r" },
    { TEST_CHAT, "data: {\"model\":\"%s\",\"choices\":[{\"delta\":"
                 "{\"content\":\"x\"}}]}\n\n" },
    { TEST_CHAT, "data: {\"obfuscation\":\"%s\",\"choices\":[{\"delta\":"
                 "{\"content\":\"x\"}}]}\n\n" },
    { TEST_CHAT, "data: {\"obfuscation\":%s,\"choices\":[{\"delta\":"
                 "{\"content\":\"x\"}}]}\n\n" },
    { TEST_CHAT, "data: {\"choices\":[{\"delta\":{\"content\":\"x\","
                 "\"refusal\":\"%s\"}}]}\n\n" },
    { TEST_CHAT, "data: {\"choices\":[{\"delta\":{\"content\":\"x\"},"
                 "\"finish_reason\":\"%s\"}]}\n\n" },
    { TEST_CHAT, "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}],"
                 "\"usage\":{\"prompt_tokens\":%s}}\n\n" },
    { TEST_CHAT, "%sdata: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}"
                 "\n\n" },
    { TEST_CHAT, "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}%s"
                 "\n\n" },
    { TEST_RESPONSES, "event: response.output_text.delta\n"
                      "data: {\"type\":\"response.output_text.delta\","
                      "\"sequence_number\":%s,\"delta\":\"x\"}\n\n" },
    { TEST_OLLAMA, "{\"created_at\":\"%s\",\"message\":{\"content\":\"x\"},"
                   "\"done\":false}\n" },
    { TEST_OLLAMA, "{\"created_at\":\"%s\",\"message\":{\"tool_calls\":[{"
                   "\"function\":{\"arguments\":{\"a\":1}}}]}}\n" },
    { NULL, NULL }
};


static const char *const  test_fills[] = {
    "x", "", " word", "0", "7", "01", "-1", "1.5", "1e3", "12 ",
    "123456789012345678", "1234567890123456789", "99999999999999999999999999",
    "a \\\"b\\\" \\\\ \\/ \\n", "\\u0041", "\\u00zz", "\\x", "\\", "\\\\",
    "a\",\"b\":\"c", "\"", "\"}", "}", "null", "\"y\"",
    "\xc3\xa9", "\xe4\xb8\xad\xe6\x96\x87", "\xf0\x9f\x98\x80", "\xff",
    "\xc0\xaf", "\xe4\xb8", "\xed\xa0\x80", "abcdefg\xff", "abcdefgh\xff",
    "a\x01", "abcdefg\x1f", "\x7f", "a\tb", "a\nb", "a\rb", "a\n\nb", "\n",
    "\r", "\ndata: ", ": c\n", "eight..\"", "a text that is rather long, "
    "longer than a word, but has no escape in it at all",
    "12345678\\n12345678\\t12345678\\\"12345678\\\\12345678\\b12345678\\f"
    "12345678\\r12345678\\/1234567812345678123456781234567812345678123456"
    "78123456781234567812345678123456781234567812345678123456781234567812"
    "34567812345678123456781234567812345678123456781234567812345678123456"
    "34567812345678123456781234567812345678123456781234567812345678123456",
    NULL
};


/* streams in which a boundary is easily missed */

static const char *const  test_misleading[] = {
    TEST_CHUNK("a") "\n\n" ": hi " TEST_CHUNK("b") "\n\n" TEST_CHUNK("c")
    "\n\n",

    TEST_CHUNK("a") "\n\n" "data: {}\r\r" TEST_CHUNK("b") "\n\n\n"
    TEST_CHUNK("c") "\n\n",

    TEST_CHUNK("a") "\r\r" TEST_CHUNK("b") "\r\r\n" TEST_CHUNK("c") "\r\r",

    "data: {}\r\r\n" TEST_CHUNK("a") "\n\n\n" TEST_CHUNK("b") "\n\n",

    TEST_CHUNK("a") "\n\n" TEST_CHUNK("b") "\n" TEST_CHUNK("c") "\n\n",

    TEST_CHUNK("a") "\n\n" TEST_CHUNK("b") "\r\n\r\n" TEST_CHUNK("c") "\n\n",

    "\xef\xbb\xbf" TEST_CHUNK("a") "\n\n\xef\xbb\xbf" TEST_CHUNK("b") "\n\n",

    "event: error\n" TEST_CHUNK("a") "\n\nevent: error\n" TEST_CHUNK("b")
    "\n\n",

    TEST_CHUNK("a") "\n\n" TEST_CHUNK("b"),

    "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"
    "data: {\"model\":\"m\"}\n\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",

    TEST_CHUNK("a") "\n\n" "data: {\"model\":\"n\"}\n\n" TEST_CHUNK("b")
    "\n\n",

    NULL
};


#define TEST_DATA     NGX_LLM_EV_DATA
#define TEST_CONTENT  NGX_LLM_EV_DATA|NGX_LLM_EV_CONTENT
#define TEST_USAGE    NGX_LLM_EV_DATA|NGX_LLM_EV_USAGE

static const test_bits_t  test_single[] = {
    { TEST_CHAT, "{\"choices\":[{\"delta\":{\"role\":\"assistant\","
                 "\"content\":\"\"}}]}", TEST_DATA },
    { TEST_CHAT, "{\"choices\":[],\"usage\":{\"prompt_tokens\":1}}",
      TEST_USAGE|NGX_LLM_EV_ONLY_USAGE },
    { TEST_CHAT, "{\"choices\":[],\"usage\":{}}",
      TEST_DATA|NGX_LLM_EV_ONLY_USAGE },
    { TEST_CHAT, "{\"choices\":[],\"usage\":null}", TEST_DATA },
    { TEST_CHAT, "{\"choices\":[]}", TEST_DATA },
    { TEST_CHAT, "{\"usage\":{\"prompt_tokens\":1}}", TEST_USAGE },
    { TEST_CHAT, "{\"choices\":null,\"usage\":{\"prompt_tokens\":1}}",
      TEST_USAGE },
    { TEST_CHAT, "{\"choices\":[{\"delta\":{}}],"
                 "\"usage\":{\"prompt_tokens\":1}}", TEST_USAGE },
    { TEST_CHAT, "{\"choices\":[{}],\"usage\":{\"prompt_tokens\":1}}",
      TEST_USAGE },
    { TEST_CHAT, "{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],"
                 "\"usage\":{\"prompt_tokens\":1}}",
      TEST_USAGE|NGX_LLM_EV_FINISH },
    { TEST_CHAT, "{\"choices\":[],\"usage\":{\"prompt_tokens\":1},"
                 "\"error\":{}}", TEST_USAGE|NGX_LLM_EV_ERROR },
    { TEST_CHAT, "{\"choices\":[],\"usage\":{\"prompt_tokens\":-1}}",
      TEST_DATA|NGX_LLM_EV_ONLY_USAGE },
    { TEST_CHAT, "{\"error\":null}", TEST_DATA },
    { TEST_CHAT, "{\"error\":\"\"}", TEST_DATA },
    { TEST_CHAT, "{\"error\":0}", TEST_DATA },
    { TEST_CHAT, "{\"error\":\"x\"}", TEST_DATA|NGX_LLM_EV_ERROR },
    { TEST_CHAT, "{\"choices\":[{\"delta\":{\"audio\":{\"data\":\"UklG\"}}}]}",
      TEST_CONTENT },
    { TEST_CHAT, "{\"choices\":[{\"delta\":{\"content\":[]},"
                 "\"logprobs\":{\"content\":[{\"token\":\"a\"}]}}]}",
      TEST_DATA },
    { TEST_CHAT, "[DONE]", TEST_DATA|NGX_LLM_EV_END },
    { TEST_CHAT, "[DONE] ", TEST_DATA|NGX_LLM_EV_UNREAD },
    { TEST_CHAT, "", 0 },
    { "/v1/messages", "{\"type\":\"ping\"}", TEST_DATA },
    { "/v1/messages", "{\"type\":\"message_stop\"}",
      TEST_DATA|NGX_LLM_EV_END },
    { "/v1/messages", "[DONE]", TEST_DATA|NGX_LLM_EV_END },
    { TEST_RESPONSES, "{\"type\":\"response.completed\",\"response\":"
                      "{\"error\":null,\"status\":\"completed\"}}",
      TEST_DATA|NGX_LLM_EV_FINISH|NGX_LLM_EV_END },
    { NULL, NULL, 0 }
};


/* the current piece or event, flush against a guard page */

static unsigned char     test_held[TEST_MAX_BYTES];
static tap_guard_t       test_guard;
static unsigned char     test_memory[4096];
static ngx_llm_shapes_t  test_shapes;


int
main(void)
{
    const test_hole_t  *hole;

    test_guard = tap_guard(test_held, sizeof(test_held));

    for (hole = test_holes; hole->path != NULL; hole++) {
        test_pairs(hole);
    }

    test_bytes(&test_holes[0], 'a');
    test_bytes(&test_holes[11], '1');
    test_pieces();
    test_streams();
    test_spared();
    test_mutated();
    test_shared();
    test_bits();

    return tap_done();
}


static void
test_pairs(const test_hole_t *hole)
{
    size_t         i, j, len, wrong;
    unsigned char  stream[TEST_MAX_BYTES];

    wrong = 0;

    for (i = 0; test_fills[i] != NULL; i++) {

        for (j = 0; test_fills[j] != NULL; j++) {
            len = 0;

            test_fill(stream, &len, hole->event, test_fills[i]);
            test_fill(stream, &len, hole->event, test_fills[i]);
            test_fill(stream, &len, hole->event, test_fills[j]);
            test_fill(stream, &len, hole->event, test_fills[i]);

            wrong += test_compare(hole->path, stream, len, len / 2 + 1);
        }
    }

    tap_int(wrong, 0, "pairs of hole %td", hole - test_holes);
}


/* one that is not the usual one, anywhere in what fills a hole */

static void
test_bytes(const test_hole_t *hole, char usual)
{
    int            ch;
    char           fill[64], odd[64];
    size_t         at, i, len, n, wrong;
    unsigned char  stream[TEST_MAX_BYTES];

    static const size_t  lens[] = { 1, 8, 16, 17, 33 };

    wrong = 0;

    for (i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        n = lens[i];

        memset(fill, usual, n);
        fill[n] = '\0';

        for (at = 0; at < n; at++) {

            for (ch = 1; ch < 256; ch++) {
                memcpy(odd, fill, n + 1);
                odd[at] = ch;
                len = 0;

                test_fill(stream, &len, hole->event, fill);
                test_fill(stream, &len, hole->event, fill);
                test_fill(stream, &len, hole->event, odd);

                wrong += test_compare(hole->path, stream, len, len + 1);
            }
        }
    }

    tap_int(wrong, 0, "any byte anywhere in hole %td", hole - test_holes);
}


/* events that differ in a byte between the holes, which are any size apart */

static void
test_pieces(void)
{
    char           event[256], key[128];
    size_t         at, first, len, n, wrong;
    unsigned char  stream[TEST_MAX_BYTES];

    wrong = 0;

    for (n = 1; n < 100; n++) {
        memset(key, 'k', n);
        key[n] = '\0';

        snprintf(event, sizeof(event), "data: {\"id\":\"1\",\"%s\":{},"
                 "\"choices\":[{\"delta\":{\"content\":\"%%s\"}}]}\n\n",
                 key);

        first = 0;
        test_fill(stream, &first, event, "x");

        for (at = 0; at < first; at++) {
            len = first;

            test_fill(stream, &len, event, "x");
            test_fill(stream, &len, event, "x");
            stream[2 * first + at] ^= 1;

            wrong += test_compare(TEST_CHAT, stream, len, len + 1);
        }
    }

    tap_int(wrong, 0, "any byte anywhere outside of the holes");
}


static void
test_streams(void)
{
    size_t  i;

    for (i = 0; test_misleading[i] != NULL; i++) {
        tap_int(test_compare(TEST_CHAT,
                             (const unsigned char *) test_misleading[i],
                             strlen(test_misleading[i]), 1),
                0, "misleading stream %zu", i);
    }
}


/* that anything is spared at all */

static void
test_spared(void)
{
    size_t             i, len;
    test_run_t         run;
    unsigned char      stream[TEST_MAX_BYTES];
    ngx_llm_scratch_t  scratch;

    static const char         more[] = TEST_CHUNK("a") "\n\ndata: [";
    static const char *const  texts[] = {
        "a", " b", "\\n", "\xe4\xb8\xad", "\\\"", "c\\td", NULL
    };

    len = 0;

    for (i = 0; texts[i] != NULL; i++) {
        test_fill(stream, &len, test_holes[0].event, texts[i]);
    }

    test_read(&run, TEST_CHAT, stream, len, len, 1);
    tap_int(run.spared, i - 1, "all but the first event are spared");
    ngx_llm_answer_done(&run.answer);

    len = 0;

    for (i = 8; i < 12; i++) {
        char  number[8];

        snprintf(number, sizeof(number), "%zu", i);
        test_fill(stream, &len, test_holes[11].event, number);
    }

    test_read(&run, TEST_RESPONSES, stream, len, len, 1);
    tap_int(run.spared, 3, "a number that counts spares all the same");
    ngx_llm_answer_done(&run.answer);

    /* what is behind an event that fits is not overlooked */

    scratch.data = test_memory;
    scratch.size_bytes = sizeof(test_memory);
    scratch.names = NULL;
    scratch.shapes = &test_shapes;

    test_read(&run, TEST_CHAT, (const unsigned char *) more,
              strstr(more, "data: [") - more, sizeof(more), 1);
    tap_int(run.answer.shape ? run.answer.shape->nholes : 0, 2,
            "a shape was learned");

    tap_int(ngx_llm_answer_event(&run.answer, (const unsigned char *) more,
                                 sizeof(more) - 1, &scratch),
            NGX_LLM_EV_DATA|NGX_LLM_EV_UNREAD, "more than what fits");

    ngx_llm_answer_done(&run.answer);
}


/* streams in which now and then a byte or a piece is not as it was */

static void
test_mutated(void)
{
    size_t              at, i, len, n, wrong;
    uint64_t            seed;
    unsigned char       stream[TEST_MAX_BYTES];
    const test_hole_t  *hole;

    static const char  odd[] = "\"\\\n\r{}:,0a \x01\xff";

    seed = 1;
    wrong = 0;

    for (n = 0; n < TEST_MUTATED; n++) {
        hole = &test_holes[n % (sizeof(test_holes) / sizeof(test_holes[0])
                                - 1)];
        len = 0;

        for (i = 0; i < 6; i++) {
            test_fill(stream, &len, hole->event,
                      test_fills[(i == 4) ? test_random(&seed, 32) : 0]);
        }

        for (i = test_random(&seed, 4); i != 0; i--) {
            at = test_random(&seed, len);

            switch (test_random(&seed, 3)) {

            case 0:
                stream[at] = odd[test_random(&seed, sizeof(odd))];
                break;

            case 1:
                len--;
                memmove(stream + at, stream + at + 1, len - at);
                break;

            case 2:
                memmove(stream + at + 1, stream + at, len - at);
                len++;
                break;
            }
        }

        wrong += test_compare(hole->path, stream, len, 1);
    }

    tap_int(wrong, 0, "mutated streams, split anywhere");
}


static size_t
test_random(uint64_t *seed, size_t n)
{
    *seed = *seed * 6364136223846793005 + 1442695040888963407;

    return (*seed >> 33) % n;
}


/* streams of one model have one shape, as long as there is one of them */

static void
test_shared(void)
{
    size_t            i, n;
    ngx_llm_shape_t  *shape;
    test_run_t        runs[3];

    static const char *const  events[] = {
        "data: {\"id\":\"chatcmpl-1\",\"created\":17,\"model\":\"m\","
        "\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
        "data: {\"id\":\"chatcmpl-two\",\"created\":1800,\"model\":\"m\","
        "\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n",
        "data: {\"id\":\"chatcmpl-3\",\"created\":19,\"model\":\"n\","
        "\"choices\":[{\"delta\":{\"content\":\"c\"}}]}\n\n"
    };

    for (i = 0; i < 3; i++) {
        test_read(&runs[i], TEST_CHAT, (const unsigned char *) events[i],
                  strlen(events[i]), 0, 1);
    }

    shape = runs[0].answer.shape;

    tap_ok(shape != NULL && shape == runs[1].answer.shape,
           "two streams of one model have one shape");
    tap_ok(runs[2].answer.shape != shape, "that of another one is another");
    tap_int(shape->users, 2, "it has two users");

    ngx_llm_answer_done(&runs[0].answer);
    ngx_llm_answer_done(&runs[0].answer);

    tap_int(shape->users, 1, "one has left, and leaves once");

    ngx_llm_answer_done(&runs[1].answer);
    ngx_llm_answer_done(&runs[2].answer);

    n = 0;

    for (i = 0; i < NGX_LLM_SHAPE_BUCKETS; i++) {
        n += (test_shapes.buckets[i] != NULL);
    }

    tap_int(n, 0, "nothing is left behind the last one");
}


static void
test_bits(void)
{
    char                event[512];
    unsigned            bits;
    ngx_llm_str_t       path;
    ngx_llm_answer_t    answer;
    ngx_llm_scratch_t   scratch;
    const test_bits_t  *test;

    scratch.data = test_memory;
    scratch.size_bytes = sizeof(test_memory);
    scratch.names = NULL;
    scratch.shapes = &test_shapes;

    for (test = test_single; test->path != NULL; test++) {
        path.data = (const unsigned char *) test->path;
        path.len = strlen(test->path);

        ngx_llm_answer_init(&answer,
                            ngx_llm_api_by_path(NGX_LLM_DIALECT_AUTO, path));

        snprintf(event, sizeof(event), "data: %s\n\n", test->data);

        bits = ngx_llm_answer_event(&answer, (unsigned char *) event,
                                    strlen(event), &scratch);

        ngx_llm_answer_done(&answer);

        tap_int(bits, test->bits, "%s", test->data);
    }
}


/* how often the short way differs, split at each step */

static size_t
test_compare(const char *path, const unsigned char *p, size_t len,
    size_t step)
{
    size_t      split, wrong;
    test_run_t  want, got;

    wrong = 0;

    for (split = 0; split <= len; split += step) {
        test_read(&want, path, p, len, split, 0);
        test_read(&got, path, p, len, split, 1);
        ngx_llm_answer_done(&got.answer);

        wrong += (memcmp(&want.answer, &got.answer,
                         offsetof(ngx_llm_answer_t, shape))
                  != 0
                  || want.n != got.n
                  || memcmp(want.ends, got.ends, sizeof(want.ends)) != 0
                  || memcmp(want.bits, got.bits, sizeof(want.bits)) != 0);
    }

    return wrong;
}


static void
test_read(test_run_t *run, const char *path, const unsigned char *p,
    size_t len, size_t split, int spare)
{
    int                 complete;
    size_t              i, n, piece, held;
    ngx_llm_str_t       str;
    unsigned char      *flush;
    ngx_llm_frame_t     frame;
    ngx_llm_scratch_t   scratch;

    memset(run, 0, sizeof(test_run_t));
    memset(&frame, 0, sizeof(frame));

    str.data = (const unsigned char *) path;
    str.len = strlen(path);

    ngx_llm_answer_init(&run->answer,
                        ngx_llm_api_by_path(NGX_LLM_DIALECT_AUTO, str));

    frame.framing = ngx_llm_api_framing(run->answer.api);
    scratch.data = test_memory;
    scratch.size_bytes = sizeof(test_memory);
    scratch.names = NULL;
    scratch.shapes = spare ? &test_shapes : NULL;
    held = 0;

    for (i = 0; i < len; i += n) {
        piece = (i < split) ? split - i : len - i;
        flush = test_guard.data + TEST_MAX_BYTES - piece;
        memcpy(flush, p + i, piece);

        n = ngx_llm_answer_next(&run->answer, &frame, flush, piece);

        if (n != 0) {
            run->spared++;
            run->bits[run->n] = NGX_LLM_EV_DATA|NGX_LLM_EV_CONTENT;
            run->ends[run->n++] = i + n;
            continue;
        }

        n = ngx_llm_frame_next(&frame, flush, piece, &complete);

        memcpy(test_held + held, p + i, n);
        held += n;

        if (complete || i + n == len) {
            flush = test_guard.data + TEST_MAX_BYTES - held;
            memcpy(flush, test_held, held);

            run->bits[run->n] = ngx_llm_answer_event(&run->answer, flush, held,
                                                     &scratch);
            run->ends[run->n++] = i + n;
            held = 0;
        }
    }
}


static void
test_fill(unsigned char *p, size_t *len, const char *event, const char *text)
{
    *len += snprintf((char *) p + *len, TEST_MAX_BYTES - *len, event, text);
}
