
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Bytes of events, looked at as many at a time as fit in a register or a
 * word.  Inline: each event of a stream goes through it.
 */


#ifndef _NGX_LLM_BYTES_H_INCLUDED_
#define _NGX_LLM_BYTES_H_INCLUDED_


#include <string.h>

#if (__SSE2__)
#include <emmintrin.h>
#endif

#include "ngx_llm.h"


/* more than this is left to memcmp() */
#define NGX_LLM_BYTES_SHORT     64

/* a byte in each byte of a word */
#define NGX_LLM_BYTES_EACH(ch)  ((ch) * (uint64_t) 0x0101010101010101)

#if (__SSE2__)

#define ngx_llm_bytes_load(p)                                                 \
    _mm_loadu_si128((const __m128i *) (const void *) (p))

#define ngx_llm_bytes_same(a, b)                                              \
    _mm_cmpeq_epi8(ngx_llm_bytes_load(a), ngx_llm_bytes_load(b))

#endif


/* eight bytes, the first one lowest */

static inline uint64_t
ngx_llm_bytes_word(const unsigned char *p)
{
    uint64_t  word;

    memcpy(&word, p, sizeof(word));

#if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)
    word = __builtin_bswap64(word);
#endif

    return word;
}


/*
 * Whether a[0..n) and b[0..n) differ.  For what is short a call of memcmp()
 * would cost more than what it does.  The last two words, or registers, may
 * overlap.
 */

static inline int
ngx_llm_bytes_differ(const unsigned char *a, const unsigned char *b, size_t n)
{
    uint64_t  differ;

#if (__SSE2__)

    size_t   i;
    __m128i  same;

    if (n >= 16 && n <= NGX_LLM_BYTES_SHORT) {
        n -= 16;
        same = _mm_and_si128(ngx_llm_bytes_same(a, b),
                             ngx_llm_bytes_same(a + n, b + n));

        for (i = 16; i < n; i += 16) {
            same = _mm_and_si128(same, ngx_llm_bytes_same(a + i, b + i));
        }

        return _mm_movemask_epi8(same) != 0xffff;
    }

#endif

    if (n < 8 || n > 16) {
        return memcmp(a, b, n);
    }

    differ = (ngx_llm_bytes_word(a) ^ ngx_llm_bytes_word(b))
             | (ngx_llm_bytes_word(a + n - 8) ^ ngx_llm_bytes_word(b + n - 8));

    return differ != 0;
}


/*
 * The first byte in a JSON string that does not stand for itself: a quote, a
 * backslash or a control byte; last without one.  In a word bit 7 of each
 * byte of mask is set for such a byte; a borrow may set more, but only above
 * the first.
 */

static inline const unsigned char *
ngx_llm_bytes_plain(const unsigned char *p, const unsigned char *last)
{
#if (__SSE2__)

    unsigned  found;
    __m128i   bytes, odd;

    while (last - p >= 16) {
        bytes = ngx_llm_bytes_load(p);

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
        word = ngx_llm_bytes_word(p);

        quote = word ^ NGX_LLM_BYTES_EACH('"');
        slash = word ^ NGX_LLM_BYTES_EACH('\\');

        mask = ((quote - NGX_LLM_BYTES_EACH(1))
                | (slash - NGX_LLM_BYTES_EACH(1))
                | (word - NGX_LLM_BYTES_EACH(0x20)))
               & ~word
               & NGX_LLM_BYTES_EACH(0x80);

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


/*
 * How many ASCII letters p[0..16) starts with; where it does with more than
 * eight, it may be eight.
 */

static inline size_t
ngx_llm_bytes_letters(const unsigned char *p)
{
#if (__SSE2__)

    __m128i  small;

    /* small letters become the largest of the signed numbers */

    small = _mm_or_si128(ngx_llm_bytes_load(p), _mm_set1_epi8(0x20));
    small = _mm_add_epi8(small, _mm_set1_epi8(127 - 'z'));
    small = _mm_cmpgt_epi8(small, _mm_set1_epi8(127 - 26));

    return (unsigned) __builtin_ctz(~_mm_movemask_epi8(small));

#else

    uint64_t  other, small, word;

    /* bit 7 is set from 'a' on, and not from behind 'z' on */

    word = ngx_llm_bytes_word(p);
    small = (word | NGX_LLM_BYTES_EACH(0x20)) & NGX_LLM_BYTES_EACH(0x7f);

    other = ~((small + NGX_LLM_BYTES_EACH(0x80 - 'a'))
              & ~(small + NGX_LLM_BYTES_EACH(0x7f - 'z')) & ~word)
            & NGX_LLM_BYTES_EACH(0x80);

    return other ? (size_t) __builtin_ctzll(other) / 8 : 8;

#endif
}


#endif /* _NGX_LLM_BYTES_H_INCLUDED_ */
