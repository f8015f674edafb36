
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Whether an event fits a shape: what is done for each event of a stream,
 * a register or a word at a time.
 */


#include "ngx_llm_bytes.h"
#include "ngx_llm_shape.h"


/* a text with escapes that is longer than this does not fit */
#define NGX_LLM_SHAPE_ESCAPED_BYTES  256


static int ngx_llm_shape_short(const ngx_llm_str_t *texts,
    const ngx_llm_str_t *end);
static const unsigned char *ngx_llm_shape_string(const unsigned char *p,
    const unsigned char *last, unsigned *escaped);
static const unsigned char *ngx_llm_shape_number(const unsigned char *p,
    const unsigned char *last);
static void ngx_llm_shape_unescape(const ngx_llm_str_t *fill,
    ngx_llm_text_t *text);
static int ngx_llm_shape_escape(unsigned char ch);


size_t
ngx_llm_shape_fits(const ngx_llm_shape_t *shape, const unsigned char *p,
    size_t len, int whole, ngx_llm_text_t *text, ngx_llm_str_t *only)
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

        if ((size_t) (last - p) < n || ngx_llm_bytes_differ(p, piece, n)) {
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

    *only = texts[0];

    if (end - texts != 1) {
        only->len = 0;
    }

    return p - start;
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
        p = ngx_llm_bytes_plain(p, last);

        if (last - p < 2 || *p != '\\' || !ngx_llm_shape_escape(p[1])) {
            return p;
        }

        *escaped = 1;
        p += 2;
    }
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
        bytes = _mm_add_epi8(ngx_llm_bytes_load(p), _mm_set1_epi8(0x80 - '0'));

        found = _mm_movemask_epi8(_mm_cmpgt_epi8(bytes,
                                                 _mm_set1_epi8(-128 + 9)));

        if (found) {
            return p + __builtin_ctz(found);
        }

        p += 16;
    }

#else

    while (last - p >= 8) {
        word = ngx_llm_bytes_word(p) ^ NGX_LLM_BYTES_EACH('0');

        mask = ((word + NGX_LLM_BYTES_EACH(0x80 - 10)) | word)
               & NGX_LLM_BYTES_EACH(0x80);

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
