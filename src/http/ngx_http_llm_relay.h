
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The answer on its way to the client: the header and body filters.
 */


#ifndef _NGX_HTTP_LLM_RELAY_H_INCLUDED_
#define _NGX_HTTP_LLM_RELAY_H_INCLUDED_


#include "ngx_http_llm.h"
#include "ngx_http_llm_overrun.h"
#include "ngx_http_llm_pace.h"


struct ngx_http_llm_relay_s {
    ngx_llm_answer_t    answer;
    ngx_llm_frame_t     frame;

    /* that it said: a byte for the length, and the name; NULL: none */
    u_char             *served_model;
    u_char             *finish;

    /* bytes of an event (or JSON answer) whose end has not come yet */
    ngx_buf_t          *held;

    /*
     * upstream's buffers that wait until the client has read ours, or until
     * a pause ends
     */
    ngx_chain_t        *in;

    /* our own buffers: forwarded, and to be used again */
    ngx_chain_t        *busy;
    ngx_chain_t        *free;

    ngx_http_llm_overrun_t  overrun;

    /* llm_pace; NULL: as fast as it comes */
    ngx_http_llm_pace_t    *pace;

    /* the end of a pause; NULL: there was none */
    ngx_event_t            *pause;

    /* when something was sent last, as ngx_current_msec */
    ngx_msec_t          sent_ms;

    /* answer.events when one could not be read, as the latest that came */
    uint64_t            unread_events;

    /* a stream of events; otherwise one JSON answer */
    unsigned            stream:1;

    /* over the cap, compressed..: passed without being read */
    unsigned            blind:1;

    /* the current event was let go in pieces: no boundary before its end */
    unsigned            torn:1;

    /* nothing more of upstream is wanted: what comes is dropped */
    unsigned            cut:1;

    /* the client has left: what comes is read, and dropped */
    unsigned            drained:1;

    /* it is not time for more of it: that waits with upstream */
    unsigned            paused:1;

    /* heartbeats may be put into it */
    unsigned            beats:1;

    /* one was; bytes of upstream were, and the last of them is LF */
    unsigned            commented:1;
    unsigned            sent:1;
    unsigned            sent_lf:1;

    /* the last buffer has gone out */
    unsigned            ended:1;
};


/* the body filter of a stream of events */

ngx_int_t ngx_http_llm_relay_stream(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t *in);

/* reads one event; true when the client is not to see it */

ngx_uint_t ngx_http_llm_relay_event(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, const u_char *event, size_t len);

/* a part of an event that is too large to be read */

void ngx_http_llm_relay_unread(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    const u_char *p, size_t len);

/* an event that did bits is to be paid for, see _overrun_is_due() */

void ngx_http_llm_relay_spend(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    unsigned bits);

/*
 * To the client, unless that has left, in links of ours, which are used again;
 * what it does not take now is in relay->busy.  NULL: what waits already.
 * Returns what the next filter does.
 */

ngx_int_t ngx_http_llm_relay_output(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t *out);

/* the same without keeping anything */

ngx_int_t ngx_http_llm_relay_send(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t *out);

/* the next filter failed: the client may have left a stream that is drained */

ngx_int_t ngx_http_llm_relay_failed(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t *out);

/* sends a comment line now; the last byte sent is LF, or there was none */

ngx_int_t ngx_http_llm_relay_comment(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, const ngx_str_t *line);

/* what the end of the body puts into the output at *ll */

ngx_int_t ngx_http_llm_relay_last(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t ***ll);

/* the end of the body, with an error event if it needs one, can go out */

ngx_uint_t ngx_http_llm_relay_can_end(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);

/* a stream that is read has neither its terminal marker nor an error yet */

ngx_uint_t ngx_http_llm_relay_is_incomplete(
    const ngx_http_llm_relay_t *relay);

/*
 * .. but its last event could not be read, and may have been the marker: if
 * upstream ended properly, it is complete
 */

ngx_uint_t ngx_http_llm_relay_is_unread(const ngx_http_llm_relay_t *relay);

/* reads what is held of an unfinished last event: upstream has ended */

void ngx_http_llm_relay_finish(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);

/* forgets ctx->relay, and what it has in common with others */

void ngx_http_llm_relay_drop(ngx_http_llm_ctx_t *ctx);


#endif /* _NGX_HTTP_LLM_RELAY_H_INCLUDED_ */
