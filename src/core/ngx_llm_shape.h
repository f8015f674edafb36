
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The shape of an event: its bytes but for a few holes.  The events of a
 * stream mostly differ in nothing but their text; one that fits the shape of
 * an event that was read needs no reading.  Streams of one model differ in
 * what stands in other holes: they have one shape together.
 *
 * What fits is what reads the same: the bytes between the holes are equal,
 * and a hole is filled by what a JSON parser takes for the same kind of value
 * as the one that was there.  No hole holds a line end, so the event's lines
 * are the same, too.  Whatever is in doubt does not fit.
 */


#ifndef _NGX_LLM_SHAPE_H_INCLUDED_
#define _NGX_LLM_SHAPE_H_INCLUDED_


#include "ngx_llm_text.h"


#define NGX_LLM_SHAPE_HOLES    6
#define NGX_LLM_SHAPE_BYTES    384

#define NGX_LLM_SHAPE_BUCKETS  64


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


typedef struct ngx_llm_shape_s  ngx_llm_shape_t;


/*
 * From libc, one for all streams whose events are alike, which those of one
 * model mostly are; freed with the last of them.
 */

struct ngx_llm_shape_s {
    /* among those with the same place in the table */
    ngx_llm_shape_t      *next;
    ngx_llm_shape_t     **link;

    uint64_t              hash;
    uint32_t              users;

    unsigned char         nholes;

    /* the event's last byte was LF */
    unsigned char         ends_with_lf;

    /* ngx_llm_hole_e of each */
    unsigned char         kinds[NGX_LLM_SHAPE_HOLES];

    /* lengths of what is before, between and behind the holes */
    uint16_t              pieces[NGX_LLM_SHAPE_HOLES + 1];

    /* the pieces, one behind the other: as many bytes as they have */
    unsigned char         bytes[];
};


/* zero-initialised by the caller; outlives all shapes that are in it */

struct ngx_llm_shapes_s {
    ngx_llm_shape_t      *buckets[NGX_LLM_SHAPE_BUCKETS];
};


/*
 * Takes the shape of an event that was read, which replaces *shape.  The
 * holes are in the order of the event and do not touch; at least one is a
 * text without escapes.  An event that is too large, has too many holes or
 * starts with LF leaves the shape alone, and so does a lack of memory.
 */

void ngx_llm_shape_learn(ngx_llm_shape_t **shape, ngx_llm_shapes_t *shapes,
    const unsigned char *event, const ngx_llm_hole_t *holes, size_t nholes,
    size_t len);

/* there is none any more; NULL there: there was none */

void ngx_llm_shape_leave(ngx_llm_shape_t **shape);

/*
 * The length of the event at the start of p[0..len) if that fits, and with
 * whole if it is all of it: its text is added to the sizes then, and *only is
 * that text where the event has no other one; otherwise that is empty.  0
 * where it does not fit, and nothing is changed.
 */

size_t ngx_llm_shape_fits(const ngx_llm_shape_t *shape,
    const unsigned char *p, size_t len, int whole, ngx_llm_text_t *text,
    ngx_llm_str_t *only);


#endif /* _NGX_LLM_SHAPE_H_INCLUDED_ */
