
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The pure layer: what every file of src/core shares.
 *
 * Nothing here knows nginx, reads a clock or allocates memory that it was
 * not given.  State is a struct that the caller zeroes and embeds; a result
 * is a value or a slice into the caller's memory.
 */


#ifndef _NGX_LLM_H_INCLUDED_
#define _NGX_LLM_H_INCLUDED_


#include <stddef.h>
#include <stdint.h>


/* every limit of the pure layer, in one place */

/* deepest JSON nesting that is read; RFC 8259, 9 allows such a limit */
#define NGX_LLM_MAX_DEPTH         128

/* a larger event passes whole and uninspected */
#define NGX_LLM_MAX_EVENT_BYTES   (1024 * 1024)

/* a larger answer that is not streamed passes whole and uninspected */
#define NGX_LLM_MAX_ANSWER_BYTES  (8 * 1024 * 1024)

/* longest names that are kept, longer ones are cut; an error is longest */
#define NGX_LLM_MAX_MODEL         128
#define NGX_LLM_MAX_FINISH        32
#define NGX_LLM_MAX_ERROR         128

/* a count of tokens above this one is absurd: refused or ignored */
#define NGX_LLM_MAX_TOKENS        ((int64_t) 1000000000)

/* most choices that one request may ask for */
#define NGX_LLM_MAX_CHOICES       1024


typedef struct {
    const unsigned char  *data;
    size_t                len;
} ngx_llm_str_t;


typedef enum {
    NGX_LLM_OK = 0,        /* done */
    NGX_LLM_AGAIN,         /* more input is needed */
    NGX_LLM_DECLINED,      /* not mine, never an error */
    NGX_LLM_BUSY,          /* no capacity now */
    NGX_LLM_INVALID,       /* the input is malformed or ambiguous */
    NGX_LLM_TOO_LARGE,     /* over a limit of this header */
    NGX_LLM_NO_MEMORY      /* the caller's memory did not suffice */
} ngx_llm_rc_e;


typedef struct ngx_llm_names_s   ngx_llm_names_t;
typedef struct ngx_llm_shapes_s  ngx_llm_shapes_t;


/*
 * What the caller lends: one for all that it reads is enough.  Memory of one
 * parse is taken from here first, from libc when that is used up;
 * ngx_llm_json_parse() frees all of the latter itself.
 */

typedef struct {
    unsigned char        *data;
    size_t                size_bytes;

    /* where an answer's names go; NULL: nobody wants them */
    ngx_llm_names_t      *names;

    /* where shapes of events are found again; NULL: none are learned */
    ngx_llm_shapes_t     *shapes;
} ngx_llm_scratch_t;


#define ngx_llm_string(s)  { (const unsigned char *) s, sizeof(s) - 1 }


#endif /* _NGX_LLM_H_INCLUDED_ */
