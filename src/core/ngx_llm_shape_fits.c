
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Whether an event fits a shape: what is done for each event of a stream,
 * a register or a word at a time.
 */


#include <string.h>

#if (__SSE2__)
#include <emmintrin.h>
#endif

#include "ngx_llm_shape.h"


/* a text with escapes that is longer than this does not fit */
#define NGX_LLM_SHAPE_ESCAPED_BYTES  256

/* a longer piece is left to memcmp() */
#define NGX_LLM_SHAPE_SHORT          64

#if (__SSE2__)

#define ngx_llm_shape_load(p)                                                 \
    _mm_loadu_si128((const __m128i *) (const void *) (p))

#define ngx_llm_shape_same(a, b)                                              \
    _mm_cmpeq_epi8(ngx_llm_shape_load(a), ngx_llm_shape_load(b))

#endif

/* a byte in each byte of a word */
#define NGX_LLM_SHAPE_EACH(ch)       ((ch) * (uint64_t) 0x0101010101010101)


static int ngx_llm_shape_differ(const unsigned char *a,
    const unsigned char *b, size_t n);
static int ngx_llm_shape_short(const ngx_llm_str_t *texts,
    const ngx_llm_str_t *end);
static const unsigned char *ngx_llm_shape_string(const unsigned char *p,
    const unsigned char *last, unsigned *escaped);
static const unsigned char *ngx_llm_shape_plain(const unsigned char *p,
    const unsigned char *last);
static uint64_t ngx_llm_shape_word(const unsigned char *p);
static const unsigned char *ngx_llm_shape_number(const unsigned char *p,
    const unsigned char *last);
static void ngx_llm_shape_unescape(const ngx_llm_str_t *fill,
    ngx_llm_text_t *text);
static int ngx_llm_shape_escape(unsigned char ch);


size_t
ngx_llm_shape_fits(const ngx_llm_shape_t *shape, const unsigned char *p,
    size_t len, int whole, ngx_llm_text_t *text)
{
    size_t                i, n;
    unsigned              escaped;
    ngx_llm_str_t         texts[NGX_LLM_SHAPE_HOLES], *fill, *end;
    const unsigned char  *start, *last, *piece, *hole;

    if (shape == NULL) {
        return 0;
    }

    if (len > NGX_LLM_MAX_EVENT_BYTES) {
        len = NGX_LLM_MAX_EVENT_BYTES;
    }

    start = p;
    last = p + len;
    piece = shape->bytes;
    escaped = 0;
    end = texts;

    for (i = 0; /* void */ ; i++) {
        n = shape->pieces[i];

        if ((size_t) (last - p) < n || ngx_llm_shape_differ(p, piece, n)) {
            return 0;
        }

        p += n;
        piece += n;

        if (i == shape->nholes) {
            break;
        }

        /* where a fill ends too early, the next piece differs */

        hole = p;

        if (shape->kinds[i] == NGX_LLM_HOLE_NUMBER) {
            p = ngx_llm_shape_number(p, last);

            if (p == hole) {
                return 0;
            }

            continue;
        }

        p = ngx_llm_shape_string(p, last, &escaped);

        if (shape->kinds[i] == NGX_LLM_HOLE_TEXT) {

            if (p == hole) {
                return 0;
            }

            end->data = hole;
            end->len = p - hole;
            end++;
        }
    }

    if ((whole && p != last)
        || (escaped && !ngx_llm_shape_short(texts, end)))
    {
        return 0;
    }

    for (fill = texts; fill != end; fill++) {

        if (escaped) {
            ngx_llm_shape_unescape(fill, text);

        } else {
            ngx_llm_text_add(text, fill->data, fill->len);
        }
    }

    return p - start;
}


/*
 * Pieces between holes are short: a call of memcmp() would cost more than
 * what it does.  The last two words, or registers, may overlap.  0: equal.
 */

static int
ngx_llm_shape_differ(const unsigned char *a, const unsigned char *b, size_t n)
{
    uint64_t  differ;

#if (__SSE2__)

    size_t   i;
    __m128i  same;

    if (n >= 16 && n <= NGX_LLM_SHAPE_SHORT) {
        n -= 16;
        same = ngx_llm_shape_same(a + n, b + n);

        for (i = 0; i < n; i += 16) {
            same = _mm_and_si128(same, ngx_llm_shape_same(a + i, b + i));
        }

        return _mm_movemask_epi8(same) ^ 0xffff;
    }

#endif

    if (n < 8 || n > 16) {
        return memcmp(a, b, n);
    }

    differ = (ngx_llm_shape_word(a) ^ ngx_llm_shape_word(b))
             | (ngx_llm_shape_word(a + n - 8) ^ ngx_llm_shape_word(b + n - 8));

    return differ != 0;
}


/* texts with escapes are copied, as far as there is room for it */

static int
ngx_llm_shape_short(const ngx_llm_str_t *texts, const ngx_llm_str_t *end)
{
    for ( /* void */ ; texts != end; texts++) {

        if (texts->len > NGX_LLM_SHAPE_ESCAPED_BYTES) {
            return 0;
        }
    }

    return 1;
}


/*
 * The end of a string, its closing quote, or what is in doubt: a control
 * byte, \u, a malformed escape.  There the next piece, which starts with a
 * quote, does not fit.  *escaped is set for an escape.  That characters are
 * well-formed is not asked of an answer that is read, either.
 */

static const unsigned char *
ngx_llm_shape_string(const unsigned char *p, const unsigned char *last,
    unsigned *escaped)
{
    for ( ;; ) {
        p = ngx_llm_shape_plain(p, last);

        if (last - p < 2 || *p != '\\' || !ngx_llm_shape_escape(p[1])) {
            return p;
        }

        *escaped = 1;
        p += 2;
    }
}


/*
 * The first byte that does not stand for itself, as many as fit in a register
 * at a time.  In a word bit 7 of each byte of mask is set for such a byte; a
 * borrow may set more, but only above the first.
 */

static const unsigned char *
ngx_llm_shape_plain(const unsigned char *p, const unsigned char *last)
{
#if (__SSE2__)

    unsigned  found;
    __m128i   bytes, odd;

    while (last - p >= 16) {
        bytes = ngx_llm_shape_load(p);

        odd = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
        odd = _mm_or_si128(odd, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')));
        odd = _mm_or_si128(odd, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));

        found = _mm_movemask_epi8(odd);

        if (found) {
            return p + __builtin_ctz(found);
        }

        p += 16;
    }

#else

    uint64_t  mask, quote, slash, word;

    while (last - p >= 8) {
        word = ngx_llm_shape_word(p);

        quote = word ^ NGX_LLM_SHAPE_EACH('"');
        slash = word ^ NGX_LLM_SHAPE_EACH('\\');

        mask = ((quote - NGX_LLM_SHAPE_EACH(1))
                | (slash - NGX_LLM_SHAPE_EACH(1))
                | (word - NGX_LLM_SHAPE_EACH(0x20)))
               & ~word
               & NGX_LLM_SHAPE_EACH(0x80);

        if (mask) {
            return p + __builtin_ctzll(mask) / 8;
        }

        p += 8;
    }

#endif

    while (p < last && *p >= 0x20 && *p != '"' && *p != '\\') {
        p++;
    }

    return p;
}


/* eight bytes, the first one lowest */

static uint64_t
ngx_llm_shape_word(const unsigned char *p)
{
    uint64_t  word;

    memcpy(&word, p, sizeof(word));

#if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)
    word = __builtin_bswap64(word);
#endif

    return word;
}


/*
 * The end of a number.  No digit follows a zero in front: the next piece does
 * not start with one.  In a word bit 7 of each byte of mask is set for what
 * is no digit; a carry may set more, but only above the first.
 */

static const unsigned char *
ngx_llm_shape_number(const unsigned char *p, const unsigned char *last)
{
#if (__SSE2__)

    unsigned  found;
    __m128i   bytes;

#else

    uint64_t  mask, word;

#endif

    if (p < last && *p == '0') {
        return p + 1;
    }

#if (__SSE2__)

    /* digits become the ten smallest of the signed numbers */

    while (last - p >= 16) {
        bytes = _mm_add_epi8(ngx_llm_shape_load(p), _mm_set1_epi8(0x80 - '0'));

        found = _mm_movemask_epi8(_mm_cmpgt_epi8(bytes,
                                                 _mm_set1_epi8(-128 + 9)));

        if (found) {
            return p + __builtin_ctz(found);
        }

        p += 16;
    }

#else

    while (last - p >= 8) {
        word = ngx_llm_shape_word(p) ^ NGX_LLM_SHAPE_EACH('0');

        mask = ((word + NGX_LLM_SHAPE_EACH(0x80 - 10)) | word)
               & NGX_LLM_SHAPE_EACH(0x80);

        if (mask) {
            return p + __builtin_ctzll(mask) / 8;
        }

        p += 8;
    }

#endif

    while (p < last && *p >= '0' && *p <= '9') {
        p++;
    }

    return p;
}


/* the escapes were checked when the text was found; it never grows */

static void
ngx_llm_shape_unescape(const ngx_llm_str_t *fill, ngx_llm_text_t *text)
{
    size_t                n;
    unsigned char         buf[NGX_LLM_SHAPE_ESCAPED_BYTES];
    const unsigned char  *p, *last;

    n = 0;
    p = fill->data;
    last = p + fill->len;

    while (p < last) {

        if (*p == '\\') {
            p++;
            buf[n++] = ngx_llm_shape_escape(*p++);
            continue;
        }

        buf[n++] = *p++;
    }

    ngx_llm_text_add(text, buf, n);
}


/* what a backslash and this byte stand for; 0: for more than one byte */

static int
ngx_llm_shape_escape(unsigned char ch)
{
    switch (ch) {

    case '"':
    case '\\':
    case '/':
        return ch;

    case 'b':
        return '\b';

    case 'f':
        return '\f';

    case 'n':
        return '\n';

    case 'r':
        return '\r';

    case 't':
        return '\t';
    }

    return 0;
}
