
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The shape of an event: its bytes but for a few holes.  The events of a
 * stream mostly differ in nothing but their text; one that fits the shape of
 * an event that was read needs no reading.
 *
 * What fits is what reads the same: the bytes between the holes are equal,
 * and a hole is filled by what a JSON parser takes for the same kind of value
 * as the one that was there.  No hole holds a line end, so the event's lines
 * are the same, too.  Whatever is in doubt does not fit.
 */


#ifndef _NGX_LLM_SHAPE_H_INCLUDED_
#define _NGX_LLM_SHAPE_H_INCLUDED_


#include "ngx_llm_text.h"


#define NGX_LLM_SHAPE_HOLES  4
#define NGX_LLM_SHAPE_BYTES  384


typedef enum {
    /* inside of a string: its text is what counts; empty does not fit */
    NGX_LLM_HOLE_TEXT = 0,

    /* inside of a string that means nothing */
    NGX_LLM_HOLE_STRING,

    /* a number that means nothing; digits alone fit */
    NGX_LLM_HOLE_NUMBER
} ngx_llm_hole_e;


/* where a hole is in an event, [start..end) */

typedef struct {
    size_t                start;
    size_t                end;
    ngx_llm_hole_e        kind;
} ngx_llm_hole_t;


/* all zero: no shape yet, nothing fits */

typedef struct {
    unsigned char         nholes;

    /* the event's last byte was LF */
    unsigned char         ends_with_lf;

    /* ngx_llm_hole_e of each */
    unsigned char         kinds[NGX_LLM_SHAPE_HOLES];

    /* lengths of what is before, between and behind the holes */
    uint16_t              pieces[NGX_LLM_SHAPE_HOLES + 1];

    /* the pieces, one behind the other */
    unsigned char         bytes[NGX_LLM_SHAPE_BYTES];
} ngx_llm_shape_t;


/*
 * Takes the shape of an event that was read.  The holes are in the order of
 * the event and do not touch; at least one is a text without escapes.  An
 * event that is too large, has too many holes or starts with LF leaves the
 * shape alone.
 */

void ngx_llm_shape_learn(ngx_llm_shape_t *shape, const unsigned char *event,
    const ngx_llm_hole_t *holes, size_t nholes, size_t len);

/*
 * The length of the event at the start of p[0..len) if that fits, and with
 * whole if it is all of it: its text is added to the sizes then.  Otherwise
 * 0, and nothing is changed.
 */

size_t ngx_llm_shape_fits(const ngx_llm_shape_t *shape,
    const unsigned char *p, size_t len, int whole, ngx_llm_text_t *text);


#endif /* _NGX_LLM_SHAPE_H_INCLUDED_ */
