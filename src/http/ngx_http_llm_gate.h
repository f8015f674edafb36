
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The commit gate (llm_hold).  nginx takes the header of a stream for
 * complete only when the first event with content is there: until then all
 * of it stays in u->buffer, unread by anybody but us, and an error, an end or
 * silence is what an HTTP error or a broken connection would have been.  The
 * next server may be asked then, and the client knows nothing of it.
 */


#ifndef _NGX_HTTP_LLM_GATE_H_INCLUDED_
#define _NGX_HTTP_LLM_GATE_H_INCLUDED_


#include "ngx_http_llm.h"


typedef enum {
    /* nothing but life-cycle events so far */
    NGX_HTTP_LLM_GATE_SHUT = 0,

    /* content, a finish reason, or what cannot be told */
    NGX_HTTP_LLM_GATE_OPEN,

    /* an error, before any content */
    NGX_HTTP_LLM_GATE_ERROR,

    /* the body has ended without either, or its framing is broken */
    NGX_HTTP_LLM_GATE_ENDED
} ngx_http_llm_gate_rc_e;


/* of one attempt, as long as the gate is shut */

struct ngx_http_llm_gate_s {
    ngx_llm_answer_t     answer;
    ngx_llm_frame_t      frame;
    ngx_http_chunked_t   chunked;

    /* bytes of u->buffer, which may move, that have been read */
    size_t               scanned;

    /* of the body, still to come; -1: nobody said */
    off_t                rest;

    /* the error event */
    u_char              *event;
    size_t               event_bytes;

    /* an event that comes in pieces */
    u_char              *pieces;
    size_t               pieces_bytes;
    size_t               pieces_size;

    /* the pieces have memory of their own */
    unsigned             pieces_alone:1;

    /* no stream, but one JSON document instead of it */
    unsigned             whole:1;
};


/* puts it between nginx and the proxy's parser of the header */

void ngx_http_llm_gate_hook(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex);

/*
 * Opens it before there is content: no other server is asked any more, and
 * what goes wrong is told in the stream.  The request may be gone behind it.
 * It cannot be opened where the stream would be of a kind without comments.
 */

ngx_uint_t ngx_http_llm_gate_can_open(ngx_http_llm_exchange_t *ex);
void ngx_http_llm_gate_open(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex);

/*
 * nginx wanted to ask the next server, and there was none to be had: its 502
 * is going to be the error that was made of the first event, with the headers
 * of upstream that say when to come again.
 */

void ngx_http_llm_gate_last(ngx_http_request_t *r);
void ngx_http_llm_gate_last_status(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);

/*
 * The header of an HTTP error made of upstream's first event is being sent:
 * nothing more of upstream is wanted, and no cache keeps it.
 */

void ngx_http_llm_gate_header(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);


/* between the files of the gate */

/* reads on from where it stopped; u->buffer itself is left as it is */

ngx_http_llm_gate_rc_e ngx_http_llm_gate_scan(ngx_http_request_t *r,
    ngx_http_llm_gate_t *gate);

/*
 * The first event is an error: nginx gets the HTTP status that it stands
 * for, with an empty body, and the JSON waits for the header to be sent.
 */

ngx_int_t ngx_http_llm_gate_error(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex);

/*
 * A status that nginx would not ask the next server for, where one that is
 * like it would do: that one is put in its place, under nginx's own
 * conditions, so that nobody else sees it.
 */

void ngx_http_llm_gate_stand_in(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex);


#endif /* _NGX_HTTP_LLM_GATE_H_INCLUDED_ */
