
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Sizes of text by class: what the estimate is made of.
 */


#ifndef _NGX_LLM_TEXT_H_INCLUDED_
#define _NGX_LLM_TEXT_H_INCLUDED_


#include "ngx_llm.h"


typedef enum {
    NGX_LLM_TEXT_WORD = 0,     /* ASCII letters and the space before a word */
    NGX_LLM_TEXT_DIGIT,        /* ASCII digits */
    NGX_LLM_TEXT_PUNCT,        /* ASCII punctuation */
    NGX_LLM_TEXT_SPACE,        /* runs of white space beyond one space */
    NGX_LLM_TEXT_LATIN,        /* two-byte UTF-8: Latin, Greek, Cyrillic.. */
    NGX_LLM_TEXT_CJK,          /* three-byte UTF-8 */
    NGX_LLM_TEXT_OTHER,        /* four-byte UTF-8 and stray bytes */
    NGX_LLM_TEXT_CLASSES
} ngx_llm_text_class_e;


/* what is added behind so many bytes of one class is not counted any more */
#define NGX_LLM_TEXT_MAX_BYTES  ((uint32_t) 1 << 30)


typedef struct {
    /* bytes seen of each class */
    uint32_t              bytes[NGX_LLM_TEXT_CLASSES];

    /*
     * capitals right behind a small letter, in texts that are long enough to
     * tell (48 bytes): rare in words, not in base64
     */
    uint32_t              flips;
} ngx_llm_text_t;


/*
 * Adds the UTF-8 text p[0..len) to the sizes.  Any bytes are accepted, and
 * all are counted, as long as there is room: the classes add up to len.  A
 * class is told from a byte and the one behind it; a sequence that is cut or
 * stray may end up in another class.  Linear, a fraction of a nanosecond a
 * byte.
 */

void ngx_llm_text_add(ngx_llm_text_t *text, const unsigned char *p,
    size_t len);

/* adds the sizes of another text */

void ngx_llm_text_merge(ngx_llm_text_t *text, const ngx_llm_text_t *more);

/* all bytes of all classes */

uint64_t ngx_llm_text_bytes(const ngx_llm_text_t *text);


#endif /* _NGX_LLM_TEXT_H_INCLUDED_ */
