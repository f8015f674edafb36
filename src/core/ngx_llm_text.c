
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_text.h"


/*
 * Two ways to count the same.  Long texts: sixteen bytes at a time by
 * comparisons, without a branch, in the compilers' own notation of a vector,
 * for any processor.  Short ones, such as a streamed token: byte by byte, in
 * the eight bytes of one integer.
 */

#define NGX_LLM_TEXT_VECTOR  16

/* rounds until a counter of one byte could overflow */
#define NGX_LLM_TEXT_ROUNDS  255

/* less than this is short */
#define NGX_LLM_TEXT_LONG    48


typedef unsigned char  ngx_llm_text_vector_t
    __attribute__((vector_size(NGX_LLM_TEXT_VECTOR)));


/* bytes that are not ASCII; their characters may lie across two vectors */

typedef struct {
    uint64_t  bytes;

    /* first bytes of two and of three among them */
    uint64_t  lead2;
    uint64_t  lead3;
} ngx_llm_text_wide_t;


static int ngx_llm_text_is_full(const ngx_llm_text_t *text);
static void ngx_llm_text_long(ngx_llm_text_t *text, const unsigned char *p,
    size_t len) __attribute__((noinline));
static size_t ngx_llm_text_vectors(ngx_llm_text_t *text,
    ngx_llm_text_wide_t *wide, const unsigned char *p, size_t len);
static uint64_t ngx_llm_text_sum(const ngx_llm_text_vector_t *counter);
static uint64_t ngx_llm_text_short(const unsigned char *p, size_t len);
static void ngx_llm_text_ascii(ngx_llm_text_t *text, uint64_t counts);
static void ngx_llm_text_wide(ngx_llm_text_t *text,
    const ngx_llm_text_wide_t *before, uint64_t counts)
    __attribute__((noinline));


/* counters of one byte each; the first four are the classes of ASCII */

#define NGX_LLM_TEXT_LEAD2  4
#define NGX_LLM_TEXT_LEAD3  5
#define NGX_LLM_TEXT_HIGH   6

#define ngx_llm_text_lane(n)             ((uint64_t) 1 << ((n) * 8))
#define ngx_llm_text_counted(n, counts)  (((counts) >> ((n) * 8)) & 0xff)

static const uint64_t  ngx_llm_text_lanes[256] = {
    [0 ... ' '] = ngx_llm_text_lane(NGX_LLM_TEXT_SPACE),
    ['!' ... '/'] = ngx_llm_text_lane(NGX_LLM_TEXT_PUNCT),
    ['0' ... '9'] = ngx_llm_text_lane(NGX_LLM_TEXT_DIGIT),
    [':' ... '@'] = ngx_llm_text_lane(NGX_LLM_TEXT_PUNCT),
    ['A' ... 'Z'] = ngx_llm_text_lane(NGX_LLM_TEXT_WORD),
    ['[' ... '`'] = ngx_llm_text_lane(NGX_LLM_TEXT_PUNCT),
    ['a' ... 'z'] = ngx_llm_text_lane(NGX_LLM_TEXT_WORD),
    ['{' ... 0x7f] = ngx_llm_text_lane(NGX_LLM_TEXT_PUNCT),
    [0x80 ... 0xc1] = ngx_llm_text_lane(NGX_LLM_TEXT_HIGH),
    [0xc2 ... 0xdf] = ngx_llm_text_lane(NGX_LLM_TEXT_LEAD2),
    [0xe0 ... 0xef] = ngx_llm_text_lane(NGX_LLM_TEXT_LEAD3),
    [0xf0 ... 0xff] = ngx_llm_text_lane(NGX_LLM_TEXT_HIGH)
};


/*
 * A token is mostly short and ASCII.  What others need besides is not inlined:
 * it would have its registers saved and its sums set up for each token.
 */

void
ngx_llm_text_add(ngx_llm_text_t *text, const unsigned char *p, size_t len)
{
    uint64_t                          counts;
    static const ngx_llm_text_wide_t  none;

    if (ngx_llm_text_is_full(text)) {
        return;
    }

    if (len >= NGX_LLM_TEXT_LONG) {
        ngx_llm_text_long(text, p, len);
        return;
    }

    counts = ngx_llm_text_short(p, len);

    ngx_llm_text_ascii(text, counts);

    if (counts >= ngx_llm_text_lane(NGX_LLM_TEXT_LEAD2)) {
        ngx_llm_text_wide(text, &none, counts);
    }
}


void
ngx_llm_text_merge(ngx_llm_text_t *text, const ngx_llm_text_t *more)
{
    size_t  i;

    if (ngx_llm_text_is_full(text)) {
        return;
    }

    for (i = 0; i < NGX_LLM_TEXT_CLASSES; i++) {
        text->bytes[i] += more->bytes[i];
    }

    text->flips += more->flips;
}


_Static_assert(NGX_LLM_TEXT_CLASSES == 7, "all of them are looked at");


/* two of what is not, and a text, still fit into each counter */

static int
ngx_llm_text_is_full(const ngx_llm_text_t *text)
{
    uint32_t  any;

    any = text->bytes[NGX_LLM_TEXT_WORD]
          | text->bytes[NGX_LLM_TEXT_DIGIT]
          | text->bytes[NGX_LLM_TEXT_PUNCT]
          | text->bytes[NGX_LLM_TEXT_SPACE]
          | text->bytes[NGX_LLM_TEXT_LATIN]
          | text->bytes[NGX_LLM_TEXT_CJK]
          | text->bytes[NGX_LLM_TEXT_OTHER];

    return any >= NGX_LLM_TEXT_MAX_BYTES;
}


uint64_t
ngx_llm_text_bytes(const ngx_llm_text_t *text)
{
    size_t    i;
    uint64_t  bytes;

    bytes = 0;

    for (i = 0; i < NGX_LLM_TEXT_CLASSES; i++) {
        bytes += text->bytes[i];
    }

    return bytes;
}


/* all but its end by vectors */

static void
ngx_llm_text_long(ngx_llm_text_t *text, const unsigned char *p, size_t len)
{
    size_t               n;
    uint64_t             counts;
    ngx_llm_text_wide_t  wide;

    if (len > NGX_LLM_TEXT_MAX_BYTES) {
        len = NGX_LLM_TEXT_MAX_BYTES;
    }

    wide.bytes = 0;
    wide.lead2 = 0;
    wide.lead3 = 0;

    while (len >= NGX_LLM_TEXT_LONG) {
        n = ngx_llm_text_vectors(text, &wide, p, len);
        p += n;
        len -= n;
    }

    counts = ngx_llm_text_short(p, len);

    ngx_llm_text_ascii(text, counts);
    ngx_llm_text_wide(text, &wide, counts);
}


/* counts whole vectors that another byte follows; the bytes counted */

static size_t
ngx_llm_text_vectors(ngx_llm_text_t *text, ngx_llm_text_wide_t *wide,
    const unsigned char *p, size_t len)
{
    size_t                 done, rounds;
    uint64_t               ascii, spaces, words;
    ngx_llm_text_vector_t  c, next;
    ngx_llm_text_vector_t  control, digit, flip, high, joined, lead2, lead3,
                           letter;

    letter = (ngx_llm_text_vector_t) { 0 };
    digit = letter;
    control = letter;
    high = letter;
    lead2 = letter;
    lead3 = letter;
    joined = letter;
    flip = letter;

    done = 0;

    /* a comparison that holds is -1; a difference below 0 is a large number */

    for (rounds = 0; rounds < NGX_LLM_TEXT_ROUNDS; rounds++) {

        if (len - done <= NGX_LLM_TEXT_VECTOR) {
            break;
        }

        memcpy(&c, p + done, NGX_LLM_TEXT_VECTOR);
        memcpy(&next, p + done + 1, NGX_LLM_TEXT_VECTOR);

        letter -= (c | 0x20) - 'a' < 26;
        digit -= c - '0' < 10;
        control -= c <= ' ';
        high -= c >= 0x80;
        lead2 -= c - 0xc2 < 30;
        lead3 -= (c & 0xf0) == 0xe0;
        joined -= (c == ' ') & (next > ' ');
        flip -= (c - 'a' < 26) & (next - 'A' < 26);

        done += NGX_LLM_TEXT_VECTOR;
    }

    ascii = done - ngx_llm_text_sum(&high);
    words = ngx_llm_text_sum(&letter);
    spaces = ngx_llm_text_sum(&control);

    text->bytes[NGX_LLM_TEXT_WORD] += words + ngx_llm_text_sum(&joined);
    text->bytes[NGX_LLM_TEXT_DIGIT] += ngx_llm_text_sum(&digit);
    text->bytes[NGX_LLM_TEXT_PUNCT] += ascii - words - spaces
                                       - ngx_llm_text_sum(&digit);
    text->bytes[NGX_LLM_TEXT_SPACE] += spaces - ngx_llm_text_sum(&joined);

    text->flips += ngx_llm_text_sum(&flip);

    wide->bytes += done - ascii;
    wide->lead2 += ngx_llm_text_sum(&lead2);
    wide->lead3 += ngx_llm_text_sum(&lead3);

    return done;
}


static uint64_t
ngx_llm_text_sum(const ngx_llm_text_vector_t *counter)
{
    size_t    i;
    uint64_t  pairs, sum, words[NGX_LLM_TEXT_VECTOR / 8];

    memcpy(words, counter, NGX_LLM_TEXT_VECTOR);

    sum = 0;

    for (i = 0; i < NGX_LLM_TEXT_VECTOR / 8; i++) {
        pairs = (words[i] & 0x00ff00ff00ff00ff)
                + ((words[i] >> 8) & 0x00ff00ff00ff00ff);
        sum += (pairs * 0x0001000100010001) >> 48;
    }

    return sum;
}


/* the counters */

static uint64_t
ngx_llm_text_short(const unsigned char *p, size_t len)
{
    uint64_t              counts;
    unsigned char         ch;
    const unsigned char  *last;

    counts = 0;
    last = p + len;

    while (p < last) {
        ch = *p++;
        counts += ngx_llm_text_lanes[ch];

        if (ch == ' ' && p < last && *p > ' ') {
            counts += ngx_llm_text_lane(NGX_LLM_TEXT_WORD)
                      - ngx_llm_text_lane(NGX_LLM_TEXT_SPACE);
        }
    }

    return counts;
}


static void
ngx_llm_text_ascii(ngx_llm_text_t *text, uint64_t counts)
{
    text->bytes[NGX_LLM_TEXT_WORD]
        += ngx_llm_text_counted(NGX_LLM_TEXT_WORD, counts);
    text->bytes[NGX_LLM_TEXT_DIGIT]
        += ngx_llm_text_counted(NGX_LLM_TEXT_DIGIT, counts);
    text->bytes[NGX_LLM_TEXT_PUNCT]
        += ngx_llm_text_counted(NGX_LLM_TEXT_PUNCT, counts);
    text->bytes[NGX_LLM_TEXT_SPACE]
        += ngx_llm_text_counted(NGX_LLM_TEXT_SPACE, counts);
}


/*
 * What is not ASCII, and what was before it.  Whatever the bytes are, none is
 * counted twice and none is lost.
 */

static void
ngx_llm_text_wide(ngx_llm_text_t *text, const ngx_llm_text_wide_t *before,
    uint64_t counts)
{
    uint64_t  bytes, cjk, latin, lead2, lead3;

    lead2 = ngx_llm_text_counted(NGX_LLM_TEXT_LEAD2, counts);
    lead3 = ngx_llm_text_counted(NGX_LLM_TEXT_LEAD3, counts);

    bytes = before->bytes + lead2 + lead3
            + ngx_llm_text_counted(NGX_LLM_TEXT_HIGH, counts);

    lead2 += before->lead2;
    lead3 += before->lead3;

    latin = (lead2 * 2 < bytes) ? lead2 * 2 : bytes;
    bytes -= latin;

    cjk = (lead3 * 3 < bytes) ? lead3 * 3 : bytes;
    bytes -= cjk;

    text->bytes[NGX_LLM_TEXT_LATIN] += latin;
    text->bytes[NGX_LLM_TEXT_CJK] += cjk;
    text->bytes[NGX_LLM_TEXT_OTHER] += bytes;
}
