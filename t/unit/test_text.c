
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_text.h"
#include "tap.h"


#define ROUNDS  20000
#define LONGEST 9000


static uint64_t
rnd(void)
{
    static uint64_t  state = 0x2545f4914f6cdd1d;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;

    return state;
}


/* the definition, character by character, of valid UTF-8 */

static void
reference(ngx_llm_text_t *text, const unsigned char *p, size_t len)
{
    size_t         i;
    unsigned char  c, next;

    memset(text, 0, sizeof(ngx_llm_text_t));

    for (i = 0; i < len; i++) {
        c = p[i];
        next = (i + 1 < len) ? p[i + 1] : 0;

        if (c >= 0xf0) {
            text->bytes[NGX_LLM_TEXT_OTHER] += 4;
            i += 3;

        } else if (c >= 0xe0) {
            text->bytes[NGX_LLM_TEXT_CJK] += 3;
            i += 2;

        } else if (c >= 0xc2) {
            text->bytes[NGX_LLM_TEXT_LATIN] += 2;
            i += 1;

        } else if (c == ' ' && next > ' ') {
            text->bytes[NGX_LLM_TEXT_WORD]++;

        } else if (c <= ' ') {
            text->bytes[NGX_LLM_TEXT_SPACE]++;

        } else if (strchr("0123456789", c)) {
            text->bytes[NGX_LLM_TEXT_DIGIT]++;

        } else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
            text->bytes[NGX_LLM_TEXT_WORD]++;

        } else {
            text->bytes[NGX_LLM_TEXT_PUNCT]++;
        }
    }
}


static void
test_table(void)
{
    size_t          i;
    ngx_llm_text_t  text;

    static const struct {
        const char  *text;
        uint32_t     bytes[NGX_LLM_TEXT_CLASSES];
    } table[] = {
        /*            word digit punct space latin cjk other */
        { "",       { 0, 0, 0, 0, 0, 0, 0 } },
        { "word",   { 4, 0, 0, 0, 0, 0, 0 } },
        { " word",  { 5, 0, 0, 0, 0, 0, 0 } },
        { "  word", { 5, 0, 0, 1, 0, 0, 0 } },
        { "a b c",  { 5, 0, 0, 0, 0, 0, 0 } },
        { "end ",   { 3, 0, 0, 1, 0, 0, 0 } },
        { "a \n",   { 1, 0, 0, 2, 0, 0, 0 } },
        { "\t\tx",  { 1, 0, 0, 2, 0, 0, 0 } },
        { "a=12;",  { 1, 2, 2, 0, 0, 0, 0 } },
        { "[\\]^_`{|}~@/:", { 0, 0, 13, 0, 0, 0, 0 } },
        { "\xc3\xbc", { 0, 0, 0, 0, 2, 0, 0 } },
        { "gr\xc3\xbc\xc3\x9f", { 2, 0, 0, 0, 4, 0, 0 } },
        { " \xd0\xb4\xd0\xb0", { 1, 0, 0, 0, 4, 0, 0 } },
        { "\xe4\xbd\xa0\xe5\xa5\xbd", { 0, 0, 0, 0, 0, 6, 0 } },
        { "\xf0\x9f\x98\x80", { 0, 0, 0, 0, 0, 0, 4 } },
        { "\x80\xbf\xc0\xff", { 0, 0, 0, 0, 0, 0, 4 } },
        { "\xc3", { 0, 0, 0, 0, 1, 0, 0 } },
        { "\xe4\xbd", { 0, 0, 0, 0, 0, 2, 0 } }
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        memset(&text, 0, sizeof(text));

        ngx_llm_text_add(&text, (const unsigned char *) table[i].text,
                         strlen(table[i].text));

        tap_ok(memcmp(text.bytes, table[i].bytes, sizeof(text.bytes)) == 0,
               "classes of text %d", (int) i);
    }
}


/* long and short texts take two ways: both are as the definition */

static void
test_reference(void)
{
    size_t          i, len, n, failed;
    tap_guard_t     guard;
    unsigned char  *p;
    ngx_llm_text_t  text, want;

    static unsigned char  buf[LONGEST + 4];

    failed = 0;

    for (i = 0; i < ROUNDS; i++) {
        len = rnd() % ((i % 100 == 0) ? LONGEST : 200);

        for (p = buf; p < buf + len; p += n) {

            switch (rnd() % 8) {

            case 0:
                n = 2;
                p[0] = 0xc2 + rnd() % 30;
                break;

            case 1:
                n = 3;
                p[0] = 0xe0 + rnd() % 16;
                break;

            case 2:
                n = 4;
                p[0] = 0xf0 + rnd() % 5;
                break;

            case 3:
                n = 1;
                p[0] = ' ';
                break;

            default:
                n = 1;
                p[0] = rnd() % 0x80;
            }

            p[1] = p[2] = p[3] = 0x80 + rnd() % 64;
        }

        len = p - buf;
        guard = tap_guard(buf, len);

        memset(&text, 0, sizeof(text));
        ngx_llm_text_add(&text, guard.data, len);

        reference(&want, buf, len);

        failed += memcmp(text.bytes, want.bytes, sizeof(text.bytes)) != 0
                  || ngx_llm_text_bytes(&text) != len;

        tap_unguard(&guard);
    }

    tap_int(failed, 0, "%d random texts are classed by the definition",
            ROUNDS);
}


/* any bytes: their classes add up, and nothing behind them is read */

static void
test_any(void)
{
    size_t          i, j, len, failed, total;
    tap_guard_t     guard;
    unsigned char   buf[700];
    ngx_llm_text_t  text;

    failed = 0;
    total = 0;

    memset(&text, 0, sizeof(text));

    for (i = 0; i < ROUNDS; i++) {
        len = rnd() % sizeof(buf);

        for (j = 0; j < len; j++) {
            buf[j] = rnd();
        }

        guard = tap_guard(buf, len);
        ngx_llm_text_add(&text, guard.data, len);
        tap_unguard(&guard);

        total += len;
        failed += ngx_llm_text_bytes(&text) != total;
    }

    tap_int(failed, 0, "of any bytes none is lost or counted twice");
}


/* one character, so often that each counter of the loop is full */

static void
test_same(void)
{
    size_t          i, j, n;
    ngx_llm_text_t  text;

    static unsigned char  buf[4 * LONGEST];

    static const struct {
        const char            *text;
        ngx_llm_text_class_e   class;
    } table[] = {
        { "a", NGX_LLM_TEXT_WORD },
        { "7", NGX_LLM_TEXT_DIGIT },
        { "#", NGX_LLM_TEXT_PUNCT },
        { "\n", NGX_LLM_TEXT_SPACE },
        { "\xd0\xb6", NGX_LLM_TEXT_LATIN },
        { "\xe4\xbd\xa0", NGX_LLM_TEXT_CJK },
        { "\xf0\x9f\x98\x80", NGX_LLM_TEXT_OTHER },
        { "\x80", NGX_LLM_TEXT_OTHER }
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        n = strlen(table[i].text);

        for (j = 0; j < LONGEST; j++) {
            memcpy(buf + j * n, table[i].text, n);
        }

        memset(&text, 0, sizeof(text));
        ngx_llm_text_add(&text, buf, LONGEST * n);

        tap_int(text.bytes[table[i].class], LONGEST * n,
                "%d times the same character of class %d", LONGEST,
                (int) table[i].class);
    }
}


/* capitals in base64 and in words */

static void
test_flips(void)
{
    ngx_llm_text_t  more, text;

    static const char  words[] = "The capitals of a Sentence In Title Case "
                                 "are behind a space, SHOUTING has none.";
    static const char  camel[] = "getElementById(document, innerHTML) and "
                                 "then addEventListener(something)";
    static const char  token[] = "aBcD";

    memset(&text, 0, sizeof(text));
    ngx_llm_text_add(&text, (const unsigned char *) words, sizeof(words) - 1);
    tap_int(text.flips, 0, "words have no capital behind a small letter");

    ngx_llm_text_add(&text, (const unsigned char *) camel, sizeof(camel) - 1);
    tap_ok(text.flips >= 4 && text.flips <= 6, "camel case has some");

    memset(&more, 0, sizeof(more));
    ngx_llm_text_merge(&more, &text);
    ngx_llm_text_merge(&more, &text);
    tap_ok(more.flips == 2 * text.flips
           && ngx_llm_text_bytes(&more) == 2 * ngx_llm_text_bytes(&text),
           "a text and itself are twice that text");

    memset(&text, 0, sizeof(text));
    ngx_llm_text_add(&text, (const unsigned char *) token, sizeof(token) - 1);
    tap_int(text.flips, 0, "a short text tells nothing");

    /* one that is full stays as it is */

    memset(&text, 0, sizeof(text));
    text.bytes[NGX_LLM_TEXT_DIGIT] = NGX_LLM_TEXT_MAX_BYTES - 1;

    ngx_llm_text_add(&text, (const unsigned char *) "12a", 3);
    ngx_llm_text_add(&text, (const unsigned char *) "34b", 3);
    ngx_llm_text_merge(&text, &more);

    tap_ok(text.bytes[NGX_LLM_TEXT_DIGIT] == NGX_LLM_TEXT_MAX_BYTES + 1
           && text.bytes[NGX_LLM_TEXT_WORD] == 1,
           "what is behind the most that is counted is not");
}


int
main(void)
{
    test_table();
    test_reference();
    test_any();
    test_same();
    test_flips();

    return tap_done();
}
