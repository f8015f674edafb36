
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "tap.h"

#include "ngx_llm_json.h"
#include "ngx_llm_memory.h"
#include "ngx_llm_utf8.h"


typedef struct {
    const char            *number;
    int64_t                count;
} test_count_t;


typedef struct {
    const char            *text;
    const char            *escaped;
} test_escape_t;


static void test_counts(void);
static void test_escapes(void);
static void test_malformed(void);
static void test_characters(void);
static void test_no_memory(void);


/* -1: not a count */

static const test_count_t  test_numbers[] = {
    { "0", 0 },
    { "1", 1 },
    { "10", 10 },
    { "4096", 4096 },
    { "1000000000", 1000000000 },
    { "1000000001", -1 },
    { "9999999999", -1 },
    { "9223372036854775808", -1 },
    { "18446744073709551617", -1 },
    { "100000000000000000000000000000000000000000000000000000", -1 },
    { "12.0", 12 },
    { "12.50", -1 },
    { "1e3", 1000 },
    { "1E+3", 1000 },
    { "1.5e1", 15 },
    { "1.5e0", -1 },
    { "1.50e1", 15 },
    { "15000e-3", 15 },
    { "15001e-3", -1 },
    { "0.0", 0 },
    { "0e99999999999999999999", 0 },
    { "0.000e-5", 0 },
    { "1e9", 1000000000 },
    { "1e10", -1 },
    { "1e308", -1 },
    { "1e99999999999999999999", -1 },
    { "1e-99999999999999999999", -1 },
    { "0.000000000000000000001e21", 1 },
    { "1000000000000000000000e-21", 1 },
    { "0.0000000001e19", 1000000000 },
    { "-1", -1 },
    { "-0", -1 },
    { "", -1 },
    { "1e", -1 },
    { "1e+", -1 },
    { "1.2.3", -1 },
    { "12a", -1 },
    { " 1", -1 },
    { NULL, 0 }
};


static const test_escape_t  test_texts[] = {
    { "", "" },
    { "plain", "plain" },
    { "a\"b\\c/", "a\\\"b\\\\c/" },
    { "\n\r\t\x01\x1f\x7f", "\\u000a\\u000d\\u0009\\u0001\\u001f\x7f" },
    { "\xe2\x82\xac\xf0\x9f\x98\x80\xc3\xa9",
      "\xe2\x82\xac\xf0\x9f\x98\x80\xc3\xa9" },
    { "\xff", "\xef\xbf\xbd" },
    { "a\xe2\x82", "a\xef\xbf\xbd\xef\xbf\xbd" },
    { "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd" },
    { "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
    { NULL, NULL }
};


static unsigned char  test_scratch[1024];


int
main(void)
{
    test_counts();
    test_escapes();
    test_malformed();
    test_characters();
    test_no_memory();

    return tap_done();
}


static void
test_counts(void)
{
    int64_t              count;
    tap_guard_t          guard;
    ngx_llm_rc_e         rc;
    ngx_llm_str_t        number;
    const test_count_t  *test;

    for (test = test_numbers; test->number != NULL; test++) {
        number.len = strlen(test->number);
        guard = tap_guard(test->number, number.len);
        number.data = guard.data;

        count = -1;
        rc = ngx_llm_json_count(number, &count);

        tap_int(rc, test->count < 0 ? NGX_LLM_INVALID : NGX_LLM_OK,
                "count \"%s\"", test->number);
        tap_int(count, test->count, "count \"%s\": value", test->number);

        tap_unguard(&guard);
    }
}


static void
test_escapes(void)
{
    size_t                n, size, whole, wrong;
    tap_guard_t           out, text;
    ngx_llm_str_t         str;
    const test_escape_t  *test;

    wrong = 0;

    for (test = test_texts; test->text != NULL; test++) {
        text = tap_guard(test->text, strlen(test->text));
        str.data = text.data;
        str.len = strlen(test->text);

        /* any room: a beginning of it all, cut at a character's start */

        for (size = 0; size <= strlen(test->escaped); size++) {
            out = tap_guard(test->escaped, size);
            memset(out.data, 'X', size);

            n = ngx_llm_json_escape(out.data, size, str);

            whole = strlen(test->escaped);
            wrong += (n > size || memcmp(out.data, test->escaped, n) != 0
                      || !ngx_llm_utf8_valid(out.data, n)
                      || (size == whole && n != whole));

            tap_unguard(&out);
        }

        tap_int(wrong, 0, "escape %td, in any room", test - test_texts);

        tap_unguard(&text);
    }
}


/* all sequences of up to three bytes */

static void
test_malformed(void)
{
    size_t         wrong;
    uint32_t       code, i;
    unsigned char  p[3];

    wrong = 0;

    for (i = 0; i < 0x1000000; i++) {
        p[0] = i >> 16;
        p[1] = i >> 8;
        p[2] = i;

        switch (ngx_llm_utf8_char(p, 3)) {

        case 0:
            continue;

        case 1:
            wrong += (p[0] >= 0x80);
            break;

        case 2:
            code = (p[0] & 0x1f) << 6 | (p[1] & 0x3f);
            wrong += (p[0] >> 5 != 6 || p[1] >> 6 != 2 || code < 0x80);
            break;

        case 3:
            code = (p[0] & 0xf) << 12 | (p[1] & 0x3f) << 6 | (p[2] & 0x3f);
            wrong += (p[0] >> 4 != 14 || p[1] >> 6 != 2 || p[2] >> 6 != 2
                      || code < 0x800 || (code >= 0xd800 && code < 0xe000));
            break;

        default:
            wrong++;
        }
    }

    tap_int(wrong, 0, "no malformed sequence of three bytes passes");

    tap_int(ngx_llm_utf8_valid((const unsigned char *) "\xf0\x8f\xbf\xbf", 4),
            0, "an overlong form of four bytes");
    tap_int(ngx_llm_utf8_valid((const unsigned char *) "\xf4\x90\x80\x80", 4),
            0, "a character above the last one");
    tap_int(ngx_llm_utf8_valid((const unsigned char *) "\xf5\x80\x80\x80", 4),
            0, "a byte that no character begins with");
    tap_int(ngx_llm_utf8_valid((const unsigned char *) "12345678\xe2\x82", 10),
            0, "a character cut off behind a word of ASCII");
}


static void
test_characters(void)
{
    size_t         len, want, wrong;
    uint32_t       code;
    unsigned char  p[4];

    wrong = 0;

    for (code = 0; code < 0x110000; code++) {

        if (code < 0x80) {
            p[0] = code;
            len = 1;

        } else if (code < 0x800) {
            p[0] = 0xc0 | code >> 6;
            p[1] = 0x80 | (code & 0x3f);
            len = 2;

        } else if (code < 0x10000) {
            p[0] = 0xe0 | code >> 12;
            p[1] = 0x80 | (code >> 6 & 0x3f);
            p[2] = 0x80 | (code & 0x3f);
            len = 3;

        } else {
            p[0] = 0xf0 | code >> 18;
            p[1] = 0x80 | (code >> 12 & 0x3f);
            p[2] = 0x80 | (code >> 6 & 0x3f);
            p[3] = 0x80 | (code & 0x3f);
            len = 4;
        }

        want = (code >= 0xd800 && code < 0xe000) ? 0 : len;

        wrong += (ngx_llm_utf8_char(p, len) != want);
        wrong += (ngx_llm_utf8_valid(p, len) != (want != 0));
        wrong += (len > 1 && ngx_llm_utf8_valid(p, len - 1));
    }

    tap_int(wrong, 0, "every character passes, but for the surrogates");
}


/* what libc cannot give is a jump; what it gave is given back (LSan sees) */

static void
test_no_memory(void)
{
    volatile int       jumped;
    unsigned char     *p;
    ngx_llm_memory_t   memory;
    ngx_llm_scratch_t  scratch;

    scratch.data = test_scratch + 1;
    scratch.size_bytes = 512;
    jumped = 0;

    ngx_llm_memory_init(&memory, &scratch);

    if (setjmp(memory.failed) == 0) {
        p = ngx_llm_memory_malloc(&memory, 100);
        tap_ok(p > test_scratch && p < test_scratch + 512
               && (uintptr_t) p % 16 == 0,
               "the first memory is the scratch's, and aligned");
        memset(p, 1, 100);

        p = ngx_llm_memory_realloc(&memory, p, 1000);
        tap_ok(p[99] == 1, "memory that grows keeps what is in it");

        ngx_llm_memory_free(&memory, ngx_llm_memory_malloc(&memory, 2000));
        ngx_llm_memory_malloc(&memory, 2000);
        ngx_llm_memory_malloc(&memory, SIZE_MAX);

        tap_ok(0, "too much memory is not given");

    } else {
        jumped = 1;
    }

    tap_int(jumped, 1, "memory that is not there is a jump");

    ngx_llm_memory_done(&memory);
}
