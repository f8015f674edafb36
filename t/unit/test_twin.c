
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * An event fits a twin if it is the same but for its text, and only then; that
 * it reads the same, test_shape.c shows.
 */


#include "tap.h"

#include "ngx_llm_twin.h"


static void test_texts(void);
static void test_words(void);
static void test_differing(void);
static void test_cut(void);
static void test_again(void);
static void test_vain(void);
static void test_large(void);
static void test_learn(ngx_llm_twin_t *twin, const char *before,
    const char *text, const char *behind, uint32_t nth);
static size_t test_fits(const ngx_llm_twin_t *twin, const char *event,
    size_t len);


#define TEST_MAX_BYTES  2048

#define TEST_BEFORE     "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"text\":\""
#define TEST_BEHIND     "\",\"index\":0}]}\n\n"


/* the current event, flush against a guard page */
static unsigned char   test_held[TEST_MAX_BYTES];
static tap_guard_t     test_guard;

/* of the last text that was counted */
static ngx_llm_text_t  test_text;


int
main(void)
{
    test_guard = tap_guard(test_held, sizeof(test_held));

    test_texts();
    test_words();
    test_differing();
    test_cut();
    test_again();
    test_vain();
    test_large();

    return tap_done();
}


static void
test_texts(void)
{
    size_t          i;
    ngx_llm_text_t  want;
    ngx_llm_twin_t  twin;
    char            event[TEST_MAX_BYTES];

    static const struct {
        const char  *text;
        int          fits;
    } tests[] = {
        { "a", 1 },
        { " word", 1 },
        { "fifteen bytes..", 1 },
        { "sixteen bytes...", 1 },
        { "a text that takes more than one register or word", 1 },
        { "\xe4\xb8\xad\xe6\x96\x87", 1 },
        { "\xff", 1 },
        { "", 0 },
        { "a\\nb", 0 },
        { "a\\", 0 },
        { "a\nb", 0 },
        { "\x1f", 0 },
        { "a\"b", 0 },
        { "a\"", 0 },
        { NULL, 0 }
    };

    memset(&twin, 0, sizeof(twin));

    tap_int(test_fits(&twin, "x", 1), 0, "nothing fits none");

    test_learn(&twin, TEST_BEFORE, "\\n", TEST_BEHIND, 1);

    for (i = 0; tests[i].text != NULL; i++) {
        snprintf(event, sizeof(event), TEST_BEFORE "%s" TEST_BEHIND,
                 tests[i].text);

        tap_int(test_fits(&twin, event, strlen(event)),
                tests[i].fits ? (int) strlen(event) : 0, "text %zu", i);

        memset(&want, 0, sizeof(want));

        if (tests[i].fits) {
            ngx_llm_text_add(&want, (const unsigned char *) tests[i].text,
                             strlen(tests[i].text));
        }

        tap_ok(memcmp(&want, &test_text, sizeof(want)) == 0,
               "what is counted of text %zu", i);
    }

    tap_int(test_fits(&twin, TEST_BEFORE "a" TEST_BEHIND "data",
                      sizeof(TEST_BEFORE "a" TEST_BEHIND "data") - 1),
            sizeof(TEST_BEFORE "a" TEST_BEHIND) - 1, "there may be more");

    tap_int(test_fits(&twin, TEST_BEFORE TEST_BEHIND "data",
                      sizeof(TEST_BEFORE TEST_BEHIND "data") - 1),
            0, "no text, and more");

    ngx_llm_twin_leave(&twin);
    ngx_llm_twin_leave(&twin);
    tap_ok(twin.bytes == NULL, "it leaves once");
}


/* any byte anywhere in a word, which may have a space in front */

static void
test_words(void)
{
    int             ch;
    char            event[TEST_MAX_BYTES], word[32];
    size_t          at, i, len, n, wrong;
    ngx_llm_text_t  want;
    ngx_llm_twin_t  twin;

    static const char *const  behinds[] = {
        "\"}}]}\n\n", "\",\"abcdef\":0}\n\n", TEST_BEHIND
    };

    memset(&twin, 0, sizeof(twin));
    wrong = 0;

    for (i = 0; i < sizeof(behinds) / sizeof(behinds[0]); i++) {
        test_learn(&twin, TEST_BEFORE, "a", behinds[i], i * 100);

        for (n = 1; n < sizeof(word); n++) {

            for (at = 0; at < 2 * n; at++) {

                for (ch = 1; ch < 256; ch++) {
                    memset(word, 'z', n);
                    word[n] = '\0';
                    word[0] = (at < n) ? ' ' : 'A';
                    word[at % n] = ch;

                    len = snprintf(event, sizeof(event), TEST_BEFORE "%s%s",
                                   word, behinds[i]);

                    memset(&want, 0, sizeof(want));

                    if (ch >= ' ' && ch != '"' && ch != '\\') {
                        ngx_llm_text_add(&want, (unsigned char *) word, n);
                        wrong += (test_fits(&twin, event, len) != len);

                    } else {
                        wrong += (test_fits(&twin, event, len) != 0);
                    }

                    wrong += (memcmp(&want, &test_text, sizeof(want)) != 0);
                }
            }
        }
    }

    tap_int(wrong, 0, "what is counted of words");
    ngx_llm_twin_leave(&twin);
}


/* in any bit, whatever the lengths of both pieces */

static void
test_differing(void)
{
    char            before[100], behind[100], event[TEST_MAX_BYTES];
    size_t          at, bit, len, n, wrong;
    ngx_llm_twin_t  twin;

    memset(&twin, 0, sizeof(twin));
    wrong = 0;

    for (n = 1; n < sizeof(before); n++) {
        memset(before, 'x', n);
        memset(behind, 'y', n);
        before[n - 1] = '\0';
        behind[0] = '"';
        behind[n] = '\0';

        /* far enough apart to be of use */

        test_learn(&twin, before, "text", behind, n * 100);

        len = snprintf(event, sizeof(event), "%stext%s", before, behind);
        wrong += (test_fits(&twin, event, len) != len);

        for (at = 0; at < len; at++) {

            if (at >= n - 1 && at < n - 1 + 4) {
                continue;
            }

            for (bit = 0; bit < 8; bit++) {
                event[at] ^= 1 << bit;
                wrong += (test_fits(&twin, event, len) != 0);
                event[at] ^= 1 << bit;
            }
        }
    }

    tap_int(wrong, 0, "any bit outside of the text");
    ngx_llm_twin_leave(&twin);
}


static void
test_cut(void)
{
    size_t          len, wrong;
    ngx_llm_twin_t  twin;

    static const char  event[] = TEST_BEFORE "some text" TEST_BEHIND;

    memset(&twin, 0, sizeof(twin));
    test_learn(&twin, TEST_BEFORE, "a", TEST_BEHIND, 1);
    wrong = 0;

    for (len = 0; len < sizeof(event) - 1; len++) {
        wrong += (test_fits(&twin, event, len) != 0);
    }

    tap_int(wrong, 0, "an event that is not all there does not fit");
    ngx_llm_twin_leave(&twin);
}


static void
test_again(void)
{
    ngx_llm_twin_t  twin;

    memset(&twin, 0, sizeof(twin));

    test_learn(&twin, TEST_BEFORE, "a", TEST_BEHIND, 3);
    test_learn(&twin, TEST_BEFORE, "\\t", TEST_BEHIND, 5);
    tap_int(twin.event, 3, "that a text has an escape makes no other twin");

    test_learn(&twin, TEST_BEFORE, "a", TEST_BEHIND "\n", 7);
    tap_int(twin.event, 7, "what is behind it does");
    tap_int(test_fits(&twin, TEST_BEFORE "a" TEST_BEHIND,
                      sizeof(TEST_BEFORE "a" TEST_BEHIND) - 1),
            0, "what fitted before does not any more");

    ngx_llm_twin_leave(&twin);
}


/* a stream in which something else changes with each event */

static void
test_vain(void)
{
    char            before[64];
    size_t          i, n;
    ngx_llm_twin_t  twin;

    memset(&twin, 0, sizeof(twin));

    for (n = 0; n < 40; n++) {
        snprintf(before, sizeof(before), "data: %zu \"", n);
        test_learn(&twin, before, "a", TEST_BEHIND,
                   n * (NGX_LLM_TWIN_WORTH + 1));
    }

    tap_ok(twin.bytes != NULL, "a twin of use is taken again and again");
    n = n * (NGX_LLM_TWIN_WORTH + 1);

    test_learn(&twin, "1 \"", "a", TEST_BEHIND, n++);
    test_learn(&twin, "2 \"", "a", TEST_BEHIND, n++);
    tap_int(twin.vain, 1, "one was in vain");

    test_learn(&twin, "3 \"", "a", TEST_BEHIND, n += 100);
    tap_int(twin.vain, 0, "one that is of use forgets it");

    for (i = 0; i < NGX_LLM_TWIN_VAIN; i++) {
        n++;
        snprintf(before, sizeof(before), "data: %zu \"", n);
        test_learn(&twin, before, "a", TEST_BEHIND, n);
    }

    tap_int(twin.vain, NGX_LLM_TWIN_VAIN, "some in a row were");
    tap_ok(twin.bytes == NULL, "none is left behind them");

    test_learn(&twin, "4 \"", "a", TEST_BEHIND, n + 1000);
    tap_ok(twin.bytes == NULL, "and none is taken any more");
}


static void
test_large(void)
{
    char            before[NGX_LLM_TWIN_BYTES + 1];
    ngx_llm_twin_t  twin;

    memset(&twin, 0, sizeof(twin));
    memset(before, 'x', sizeof(before));

    before[NGX_LLM_TWIN_BYTES] = '\0';
    test_learn(&twin, before, "a", "\"", 1);
    tap_ok(twin.bytes == NULL, "a large event has none");

    before[NGX_LLM_TWIN_BYTES - 1] = '\0';
    test_learn(&twin, before, "a", "\"", 2);
    tap_ok(twin.bytes != NULL, "one of a byte less has");

    ngx_llm_twin_leave(&twin);
}


static void
test_learn(ngx_llm_twin_t *twin, const char *before, const char *text,
    const char *behind, uint32_t nth)
{
    char           event[TEST_MAX_BYTES];
    size_t         len;
    ngx_llm_str_t  str;

    len = snprintf(event, sizeof(event), "%s%s%s", before, text, behind);

    str.data = (unsigned char *) event + strlen(before);
    str.len = strlen(text);

    ngx_llm_twin_learn(twin, (unsigned char *) event, len, &str, nth);
}


static size_t
test_fits(const ngx_llm_twin_t *twin, const char *event, size_t len)
{
    unsigned char  *flush;

    flush = test_guard.data + TEST_MAX_BYTES - len;
    memcpy(flush, event, len);

    memset(&test_text, 0, sizeof(test_text));

    return ngx_llm_twin_fits(twin, flush, len, &test_text);
}
