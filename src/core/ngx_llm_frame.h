
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Framing: where does an event of a stream end, and what does it carry?
 *
 * Two framings: server-sent events (WHATWG HTML, 9.2.6 "Interpreting an
 * event stream": lines end with CR, LF or CRLF, a leading BOM is skipped, a
 * blank line ends an event) and lines (NDJSON: an event is a line).
 *
 * Finding the end is incremental and copies nothing; reading an event wants
 * it whole and contiguous, which is the caller's part.
 */


#ifndef _NGX_LLM_FRAME_H_INCLUDED_
#define _NGX_LLM_FRAME_H_INCLUDED_


#include "ngx_llm.h"


typedef enum {
    NGX_LLM_FRAME_SSE = 0,
    NGX_LLM_FRAME_LINES
} ngx_llm_framing_e;


/* zero-initialised by the caller, framing set */

typedef struct {
    /* bytes of the current, unfinished event over all calls; 0 between two */
    size_t                event_bytes;

    ngx_llm_framing_e     framing;

    /* bytes of the BOM that were matched at the start of the stream */
    unsigned              bom:2;

    unsigned              started:1;

    /* the current line is not empty */
    unsigned              line:1;

    /* the last byte was CR: an LF now belongs to the same line end */
    unsigned              cr:1;
} ngx_llm_frame_t;


/* what one whole event carries; slices into the event or the scratch */

typedef struct {
    /* the last "event:" field, empty without one */
    ngx_llm_str_t         name;

    /* the "data:" fields, joined with LF where there are several */
    ngx_llm_str_t         data;

    /* there was a data field, though it may be empty */
    unsigned              has_data:1;
} ngx_llm_event_t;


/*
 * Looks for the end of the current event in p[0..len).  Returns the bytes
 * that belong to it: up to and including the line end of its blank line
 * (SSE; an LF that directly follows a CR in the same call is included, one
 * that comes with a later call is the first byte of the next event) or of
 * its line (lines).  *complete is 1 when the event ended there; otherwise
 * all of len is returned and the event goes on with the next call.
 * Linear; any length; empty events (blank lines alone) are events too.  The
 * LF of a CR that ended the call before may thus be all that an unfinished
 * event has.
 */

size_t ngx_llm_frame_next(ngx_llm_frame_t *frame, const unsigned char *p,
    size_t len, int *complete);

/*
 * Reads a whole event as ngx_llm_frame_next() delimited it (its BOM, line
 * ends and comments included; the end may be missing: a stream's unfinished
 * last event).  A BOM is skipped before any event, not the first one alone.
 * One data line is returned as a slice of the event; several are joined in
 * join[0..join_bytes), which must be as long as the event at least, or NULL:
 * then such an event returns NGX_LLM_NO_MEMORY.
 */

ngx_llm_rc_e ngx_llm_frame_event(ngx_llm_framing_e framing,
    const unsigned char *event, size_t len, unsigned char *join,
    size_t join_bytes, ngx_llm_event_t *ev);


#endif /* _NGX_LLM_FRAME_H_INCLUDED_ */
