
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The twin of an event: all of it but its text.  What other streams have in
 * the other holes of a shape mostly stays the same within a stream; two
 * pieces are compared faster than a shape with its holes.
 */


#ifndef _NGX_LLM_TWIN_H_INCLUDED_
#define _NGX_LLM_TWIN_H_INCLUDED_


#include "ngx_llm_bytes.h"
#include "ngx_llm_text.h"


/* an event with more than this outside of its text has no twin */
#define NGX_LLM_TWIN_BYTES  512

/* a twin that fits fewer events is in vain; after so many none is taken */
#define NGX_LLM_TWIN_WORTH  8
#define NGX_LLM_TWIN_VAIN   4


/* zero-initialised by the caller, and at its end ngx_llm_twin_leave() */

typedef struct {
    /* what is before the text, then what is behind it; NULL: none */
    unsigned char        *bytes;

    uint16_t              before;
    uint16_t              behind;

    /* how many in a row were in vain */
    uint16_t              vain;

    /* the number of the event that it was taken from */
    uint32_t              event;
} ngx_llm_twin_t;


/*
 * Takes the twin of an event that has one text, which is not empty, and that
 * fits a shape; nth is its number in the stream.  Where twins are in vain, or
 * memory is short, there may be none.
 */

void ngx_llm_twin_learn(ngx_llm_twin_t *twin, const unsigned char *event,
    size_t len, const ngx_llm_str_t *text, uint32_t nth);

/* there is none any more; may be called again */

void ngx_llm_twin_leave(ngx_llm_twin_t *twin);


/*
 * Adds p[0..len), which is not empty, and has behind more bytes behind it.
 * Most tokens are a word, with a space in front or none.
 */

static inline void
ngx_llm_twin_text(ngx_llm_text_t *sizes, const unsigned char *p, size_t len,
    size_t behind)
{
    size_t  space;

    space = (*p == ' ');

    if (behind >= 16
        && len > space
        && ngx_llm_bytes_letters(p + space) + space == len
        && sizes->bytes[NGX_LLM_TEXT_WORD] < NGX_LLM_TEXT_MAX_BYTES)
    {
        sizes->bytes[NGX_LLM_TEXT_WORD] += len;
        return;
    }

    ngx_llm_text_add(sizes, p, len);
}


/*
 * The length of the event at the start of p[0..len) if it is the same but for
 * its text, which has no escape: that is added to the sizes then.  Otherwise
 * 0, and nothing is changed.
 */

static inline size_t
ngx_llm_twin_fits(const ngx_llm_twin_t *twin, const unsigned char *p,
    size_t len, ngx_llm_text_t *sizes)
{
    size_t                before, behind;
    const unsigned char  *start, *end, *last;

    before = twin->before;
    behind = twin->behind;

    if (twin->bytes == NULL
        || len <= before + behind
        || len > NGX_LLM_MAX_EVENT_BYTES)
    {
        return 0;
    }

    last = p + len;
    start = p + before;
    end = ngx_llm_bytes_plain(start, last);

    /* a quote is the first byte behind the text: where it ends is no doubt */

    if (end == start
        || (size_t) (last - end) < behind
        || ngx_llm_bytes_differ(end, twin->bytes + before, behind)
        || memcmp(p, twin->bytes, before) != 0)
    {
        return 0;
    }

    ngx_llm_twin_text(sizes, start, end - start, behind);

    return end + behind - p;
}


#endif /* _NGX_LLM_TWIN_H_INCLUDED_ */
