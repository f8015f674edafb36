
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


/* what is counted; the classes follow from it */

typedef enum {
    NGX_LLM_TEXT_N_LETTER = 0,
    NGX_LLM_TEXT_N_DIGIT,
    NGX_LLM_TEXT_N_PUNCT,
    NGX_LLM_TEXT_N_CONTROL,     /* white space and control characters */
    NGX_LLM_TEXT_N_LEAD2,       /* the first byte of two .. */
    NGX_LLM_TEXT_N_LEAD3,       /* .. and of three */
    NGX_LLM_TEXT_N_HIGH,        /* any other byte that is not ASCII */
    NGX_LLM_TEXT_N_JOINED,      /* a space that something else follows */
    NGX_LLM_TEXT_NS
} ngx_llm_text_n_e;


/* bytes that are not ASCII; their characters may lie across two vectors */

typedef struct {
    uint64_t  lead2;
    uint64_t  lead3;
    uint64_t  rest;
} ngx_llm_text_wide_t;


static size_t ngx_llm_text_vectors(ngx_llm_text_t *text,
    ngx_llm_text_wide_t *wide, const unsigned char *p, size_t len);
static uint64_t ngx_llm_text_sum(const ngx_llm_text_vector_t *counter);
static void ngx_llm_text_short(ngx_llm_text_t *text, ngx_llm_text_wide_t *wide,
    const unsigned char *p, size_t len);
static void ngx_llm_text_wide(ngx_llm_text_t *text,
    const ngx_llm_text_wide_t *wide);


#define ngx_llm_text_lane(n)             ((uint64_t) 1 << ((n) * 8))
#define ngx_llm_text_counted(n, counts)  (((counts) >> ((n) * 8)) & 0xff)

static const uint64_t  ngx_llm_text_lanes[256] = {
    [0 ... ' '] = ngx_llm_text_lane(NGX_LLM_TEXT_N_CONTROL),
    ['!' ... '/'] = ngx_llm_text_lane(NGX_LLM_TEXT_N_PUNCT),
    ['0' ... '9'] = ngx_llm_text_lane(NGX_LLM_TEXT_N_DIGIT),
    [':' ... '@'] = ngx_llm_text_lane(NGX_LLM_TEXT_N_PUNCT),
    ['A' ... 'Z'] = ngx_llm_text_lane(NGX_LLM_TEXT_N_LETTER),
    ['[' ... '`'] = ngx_llm_text_lane(NGX_LLM_TEXT_N_PUNCT),
    ['a' ... 'z'] = ngx_llm_text_lane(NGX_LLM_TEXT_N_LETTER),
    ['{' ... '~'] = ngx_llm_text_lane(NGX_LLM_TEXT_N_PUNCT),
    [0x7f] = ngx_llm_text_lane(NGX_LLM_TEXT_N_CONTROL),
    [0x80 ... 0xc1] = ngx_llm_text_lane(NGX_LLM_TEXT_N_HIGH),
    [0xc2 ... 0xdf] = ngx_llm_text_lane(NGX_LLM_TEXT_N_LEAD2),
    [0xe0 ... 0xef] = ngx_llm_text_lane(NGX_LLM_TEXT_N_LEAD3),
    [0xf0 ... 0xff] = ngx_llm_text_lane(NGX_LLM_TEXT_N_HIGH)
};


void
ngx_llm_text_add(ngx_llm_text_t *text, const unsigned char *p, size_t len)
{
    size_t               n;
    ngx_llm_text_wide_t  wide;

    wide.lead2 = 0;
    wide.lead3 = 0;
    wide.rest = 0;

    while (len >= NGX_LLM_TEXT_LONG) {
        n = ngx_llm_text_vectors(text, &wide, p, len);
        p += n;
        len -= n;
    }

    ngx_llm_text_short(text, &wide, p, len);

    if (wide.lead2 + wide.lead3 + wide.rest != 0) {
        ngx_llm_text_wide(text, &wide);
    }
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


/* counts whole vectors that another byte follows; the bytes counted */

static size_t
ngx_llm_text_vectors(ngx_llm_text_t *text, ngx_llm_text_wide_t *wide,
    const unsigned char *p, size_t len)
{
    size_t                 done, i, rounds;
    uint64_t               n[NGX_LLM_TEXT_NS];
    ngx_llm_text_vector_t  c, counters[NGX_LLM_TEXT_NS], flips, next;

    for (i = 0; i < NGX_LLM_TEXT_NS; i++) {
        counters[i] = (ngx_llm_text_vector_t) { 0 };
    }

    flips = (ngx_llm_text_vector_t) { 0 };
    done = 0;

    /* a comparison that holds is -1; a difference below 0 is a large number */

    for (rounds = 0; rounds < NGX_LLM_TEXT_ROUNDS; rounds++) {

        if (len - done <= NGX_LLM_TEXT_VECTOR) {
            break;
        }

        memcpy(&c, p + done, NGX_LLM_TEXT_VECTOR);
        memcpy(&next, p + done + 1, NGX_LLM_TEXT_VECTOR);

        counters[NGX_LLM_TEXT_N_LETTER] -= (c | 0x20) - 'a' < 26;
        counters[NGX_LLM_TEXT_N_DIGIT] -= c - '0' < 10;
        counters[NGX_LLM_TEXT_N_CONTROL] -= (c <= ' ') | (c == 0x7f);
        counters[NGX_LLM_TEXT_N_LEAD2] -= c - 0xc2 < 30;
        counters[NGX_LLM_TEXT_N_LEAD3] -= (c & 0xf0) == 0xe0;
        counters[NGX_LLM_TEXT_N_HIGH] -= (c - 0x80 < 66) | (c >= 0xf0);
        counters[NGX_LLM_TEXT_N_JOINED] -= (c == ' ') & (next > ' ');
        flips -= (c - 'a' < 26) & (next - 'A' < 26);

        done += NGX_LLM_TEXT_VECTOR;
    }

    for (i = 0; i < NGX_LLM_TEXT_NS; i++) {
        n[i] = ngx_llm_text_sum(&counters[i]);
    }

    text->bytes[NGX_LLM_TEXT_WORD] += n[NGX_LLM_TEXT_N_LETTER]
                                      + n[NGX_LLM_TEXT_N_JOINED];
    text->bytes[NGX_LLM_TEXT_DIGIT] += n[NGX_LLM_TEXT_N_DIGIT];
    text->bytes[NGX_LLM_TEXT_PUNCT] += done - n[NGX_LLM_TEXT_N_LETTER]
                                       - n[NGX_LLM_TEXT_N_DIGIT]
                                       - n[NGX_LLM_TEXT_N_CONTROL]
                                       - n[NGX_LLM_TEXT_N_LEAD2]
                                       - n[NGX_LLM_TEXT_N_LEAD3]
                                       - n[NGX_LLM_TEXT_N_HIGH];
    text->bytes[NGX_LLM_TEXT_SPACE] += n[NGX_LLM_TEXT_N_CONTROL]
                                       - n[NGX_LLM_TEXT_N_JOINED];

    text->flips += ngx_llm_text_sum(&flips);

    wide->lead2 += n[NGX_LLM_TEXT_N_LEAD2];
    wide->lead3 += n[NGX_LLM_TEXT_N_LEAD3];
    wide->rest += n[NGX_LLM_TEXT_N_HIGH];

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


static void
ngx_llm_text_short(ngx_llm_text_t *text, ngx_llm_text_wide_t *wide,
    const unsigned char *p, size_t len)
{
    size_t    i, joined;
    uint64_t  counts;

    counts = 0;
    joined = 0;

    for (i = 0; i < len; i++) {
        counts += ngx_llm_text_lanes[p[i]];

        if (p[i] == ' ' && i + 1 < len && p[i + 1] > ' ') {
            joined++;
        }
    }

    text->bytes[NGX_LLM_TEXT_WORD] +=
                  ngx_llm_text_counted(NGX_LLM_TEXT_N_LETTER, counts) + joined;
    text->bytes[NGX_LLM_TEXT_DIGIT] +=
                  ngx_llm_text_counted(NGX_LLM_TEXT_N_DIGIT, counts);
    text->bytes[NGX_LLM_TEXT_PUNCT] +=
                  ngx_llm_text_counted(NGX_LLM_TEXT_N_PUNCT, counts);
    text->bytes[NGX_LLM_TEXT_SPACE] +=
                  ngx_llm_text_counted(NGX_LLM_TEXT_N_CONTROL, counts)
                  - joined;

    wide->lead2 += ngx_llm_text_counted(NGX_LLM_TEXT_N_LEAD2, counts);
    wide->lead3 += ngx_llm_text_counted(NGX_LLM_TEXT_N_LEAD3, counts);
    wide->rest += ngx_llm_text_counted(NGX_LLM_TEXT_N_HIGH, counts);
}


/* whatever the bytes are, none is counted twice and none is lost */

static void
ngx_llm_text_wide(ngx_llm_text_t *text, const ngx_llm_text_wide_t *wide)
{
    uint64_t  bytes, cjk, latin;

    bytes = wide->lead2 + wide->lead3 + wide->rest;

    latin = (wide->lead2 * 2 < bytes) ? wide->lead2 * 2 : bytes;
    bytes -= latin;

    cjk = (wide->lead3 * 3 < bytes) ? wide->lead3 * 3 : bytes;
    bytes -= cjk;

    text->bytes[NGX_LLM_TEXT_LATIN] += latin;
    text->bytes[NGX_LLM_TEXT_CJK] += cjk;
    text->bytes[NGX_LLM_TEXT_OTHER] += bytes;
}
