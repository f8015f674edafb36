
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_text.h"


/*
 * Eight counters of a byte each in one integer: a byte of text adds the one
 * of its class by a table, without a branch.  They are emptied before one of
 * them can overflow.
 */

#define NGX_LLM_TEXT_LANE(class)  ((uint64_t) 1 << ((class) * 8))

#define NGX_LLM_TEXT_LANE_MAX     255


/* the classes of ASCII */

#define W  NGX_LLM_TEXT_LANE(NGX_LLM_TEXT_WORD)
#define D  NGX_LLM_TEXT_LANE(NGX_LLM_TEXT_DIGIT)
#define P  NGX_LLM_TEXT_LANE(NGX_LLM_TEXT_PUNCT)
#define S  NGX_LLM_TEXT_LANE(NGX_LLM_TEXT_SPACE)

static const uint64_t  ngx_llm_text_lanes[128] = {

    /* control characters: white space is what matters of them */

    S, S, S, S, S, S, S, S, S, S, S, S, S, S, S, S,
    S, S, S, S, S, S, S, S, S, S, S, S, S, S, S, S,

    /*  !"#$%&' ()*+,-./ 01234567 89:;<=>? */

    S, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P,
    D, D, D, D, D, D, D, D, D, D, P, P, P, P, P, P,

    /* @ABCDEFG HIJKLMNO PQRSTUVW XYZ[\]^_ */

    P, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W,
    W, W, W, W, W, W, W, W, W, W, W, P, P, P, P, P,

    /* `abcdefg hijklmno pqrstuvw xyz{|}~ DEL */

    P, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W,
    W, W, W, W, W, W, W, W, W, W, W, P, P, P, P, S
};

#undef W
#undef D
#undef P
#undef S


static size_t ngx_llm_text_ascii(ngx_llm_text_t *text,
    const unsigned char *p, size_t len);
static size_t ngx_llm_text_wide(ngx_llm_text_t *text,
    const unsigned char *p, size_t len);


void
ngx_llm_text_add(ngx_llm_text_t *text, const unsigned char *p, size_t len)
{
    size_t  n;

    while (len != 0) {
        n = (*p < 0x80) ? ngx_llm_text_ascii(text, p, len)
                        : ngx_llm_text_wide(text, p, len);
        p += n;
        len -= n;
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


/* a run of ASCII, as far as the counters hold it */

static size_t
ngx_llm_text_ascii(ngx_llm_text_t *text, const unsigned char *p, size_t len)
{
    size_t    i, n;
    uint64_t  class, counts, joined;

    n = (len < NGX_LLM_TEXT_LANE_MAX) ? len : NGX_LLM_TEXT_LANE_MAX;

    counts = 0;
    joined = 0;

    for (i = 0; i < n && p[i] < 0x80; i++) {
        counts += ngx_llm_text_lanes[p[i]];

        /* a space that a word follows is a part of the word's token */

        joined += (p[i] == ' ' && i + 1 < len && p[i + 1] > ' ');
    }

    for (class = 0; class < NGX_LLM_TEXT_CLASSES; class++) {
        text->bytes[class] += (counts >> (class * 8)) & 0xff;
    }

    text->bytes[NGX_LLM_TEXT_SPACE] -= joined;
    text->bytes[NGX_LLM_TEXT_WORD] += joined;

    return i;
}


/* one character that is no ASCII, or one stray byte */

static size_t
ngx_llm_text_wide(ngx_llm_text_t *text, const unsigned char *p, size_t len)
{
    size_t                i, want;
    ngx_llm_text_class_e  class;

    if (*p >= 0xc2 && *p < 0xe0) {
        class = NGX_LLM_TEXT_LATIN;
        want = 2;

    } else if (*p >= 0xe0 && *p < 0xf0) {
        class = NGX_LLM_TEXT_CJK;
        want = 3;

    } else {
        class = NGX_LLM_TEXT_OTHER;
        want = (*p >= 0xf0 && *p < 0xf5) ? 4 : 1;
    }

    for (i = 1; i < want && i < len && (p[i] & 0xc0) == 0x80; i++) {
        /* void */
    }

    /* stray, unless it is only cut at the end */

    if (i < want && i < len) {
        class = NGX_LLM_TEXT_OTHER;
    }

    text->bytes[class] += i;

    return i;
}
