
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_gate.h"


static ngx_http_llm_gate_rc_e ngx_http_llm_gate_whole(ngx_http_request_t *r,
    ngx_http_llm_gate_t *gate);
static ngx_http_llm_gate_rc_e ngx_http_llm_gate_chunks(ngx_http_request_t *r,
    ngx_http_llm_gate_t *gate);
static ngx_http_llm_gate_rc_e ngx_http_llm_gate_events(ngx_http_request_t *r,
    ngx_http_llm_gate_t *gate, u_char *p, size_t len);
static ngx_int_t ngx_http_llm_gate_keep(ngx_http_request_t *r,
    ngx_http_llm_gate_t *gate, const u_char *p, size_t len);
static ngx_http_llm_gate_rc_e ngx_http_llm_gate_event(
    ngx_http_llm_gate_t *gate, u_char *event, size_t len);


ngx_http_llm_gate_rc_e
ngx_http_llm_gate_scan(ngx_http_request_t *r, ngx_http_llm_gate_t *gate)
{
    off_t                    len;
    u_char                  *p;
    ngx_http_upstream_t     *u;
    ngx_http_llm_gate_rc_e   verdict;

    u = r->upstream;

    if (gate->whole) {
        return ngx_http_llm_gate_whole(r, gate);
    }

    if (u->headers_in.chunked) {
        verdict = ngx_http_llm_gate_chunks(r, gate);

    } else {
        p = u->buffer.start + gate->scanned;
        len = u->buffer.last - p;

        if (gate->rest >= 0) {
            len = ngx_min(len, gate->rest);
            gate->rest -= len;
        }

        gate->scanned += len;

        verdict = ngx_http_llm_gate_events(r, gate, p, len);

        if (verdict == NGX_HTTP_LLM_GATE_SHUT && gate->rest == 0) {
            verdict = NGX_HTTP_LLM_GATE_ENDED;
        }
    }

    /* some servers end without the blank line */

    if (verdict == NGX_HTTP_LLM_GATE_ENDED && gate->pieces_bytes) {
        verdict = ngx_http_llm_gate_event(gate, gate->pieces,
                                          gate->pieces_bytes);

        return (verdict == NGX_HTTP_LLM_GATE_SHUT) ? NGX_HTTP_LLM_GATE_ENDED
                                                   : verdict;
    }

    return verdict;
}


/* JSON in the place of a stream: mostly it says why there is none */

static ngx_http_llm_gate_rc_e
ngx_http_llm_gate_whole(ngx_http_request_t *r, ngx_http_llm_gate_t *gate)
{
    u_char     *body;
    unsigned    bits;
    ngx_buf_t  *b;

    b = &r->upstream->buffer;
    body = b->start + gate->scanned;

    if (b->last - body < gate->rest) {
        return NGX_HTTP_LLM_GATE_SHUT;
    }

    bits = ngx_llm_answer_body(&gate->answer, body, gate->rest,
                               ngx_http_llm_scratch());

    if (!(bits & NGX_LLM_EV_ERROR) || (bits & NGX_LLM_EV_CONTENT)) {
        return NGX_HTTP_LLM_GATE_OPEN;
    }

    gate->event = body;
    gate->event_bytes = gate->rest;

    return NGX_HTTP_LLM_GATE_ERROR;
}


static ngx_http_llm_gate_rc_e
ngx_http_llm_gate_chunks(ngx_http_request_t *r, ngx_http_llm_gate_t *gate)
{
    off_t                    len;
    ngx_buf_t                b;
    ngx_int_t                rc;
    ngx_http_upstream_t     *u;
    ngx_http_llm_gate_rc_e   verdict;

    u = r->upstream;

    b = u->buffer;
    b.pos = b.start + gate->scanned;

    do {
        verdict = NGX_HTTP_LLM_GATE_SHUT;

        rc = ngx_http_llm_parse_chunked(r, &b, &gate->chunked);

        if (rc == NGX_OK) {
            len = ngx_min(b.last - b.pos, gate->chunked.size);

            verdict = ngx_http_llm_gate_events(r, gate, b.pos, len);

            b.pos += len;
            gate->chunked.size -= len;
        }

    } while (rc == NGX_OK && verdict == NGX_HTTP_LLM_GATE_SHUT);

    gate->scanned = b.pos - b.start;

    return (rc == NGX_DONE || rc == NGX_ERROR) ? NGX_HTTP_LLM_GATE_ENDED
                                               : verdict;
}


static ngx_http_llm_gate_rc_e
ngx_http_llm_gate_events(ngx_http_request_t *r, ngx_http_llm_gate_t *gate,
    u_char *p, size_t len)
{
    int                      complete;
    size_t                   n;
    u_char                  *event;
    ngx_http_llm_gate_rc_e   verdict;

    while (len) {
        n = ngx_llm_frame_next(&gate->frame, p, len, &complete);
        event = p;

        p += n;
        len -= n;

        if (!complete || gate->pieces_bytes) {
            if (ngx_http_llm_gate_keep(r, gate, event, n) != NGX_OK) {
                return NGX_HTTP_LLM_GATE_OPEN;
            }

            if (!complete) {
                break;
            }

            event = gate->pieces;
            n = gate->pieces_bytes;
            gate->pieces_bytes = 0;
        }

        verdict = ngx_http_llm_gate_event(gate, event, n);

        if (verdict != NGX_HTTP_LLM_GATE_SHUT) {
            return verdict;
        }
    }

    return NGX_HTTP_LLM_GATE_SHUT;
}


/* it grows as u->buffer does, which has room for all of it */

static ngx_int_t
ngx_http_llm_gate_keep(ngx_http_request_t *r, ngx_http_llm_gate_t *gate,
    const u_char *p, size_t len)
{
    size_t   size;
    u_char  *pieces;

    size = gate->pieces_bytes + len;

    if (size > gate->pieces_size) {
        size = ngx_max(size, NGX_MAX_ALLOC_FROM_POOL + 1);
        size = ngx_max(size, 2 * gate->pieces_size);

        pieces = ngx_palloc(r->pool, size);
        if (pieces == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(pieces, gate->pieces, gate->pieces_bytes);

        if (gate->pieces_alone) {
            (void) ngx_pfree(r->pool, gate->pieces);
        }

        gate->pieces = pieces;
        gate->pieces_size = size;
        gate->pieces_alone = 1;
    }

    ngx_memcpy(gate->pieces + gate->pieces_bytes, p, len);
    gate->pieces_bytes += len;

    return NGX_OK;
}


static ngx_http_llm_gate_rc_e
ngx_http_llm_gate_event(ngx_http_llm_gate_t *gate, u_char *event, size_t len)
{
    unsigned  bits;

    bits = ngx_llm_answer_event(&gate->answer, event, len,
                                ngx_http_llm_scratch());

    if (bits & NGX_LLM_EV_CONTENT) {
        return NGX_HTTP_LLM_GATE_OPEN;
    }

    if (bits & NGX_LLM_EV_ERROR) {
        gate->event = event;
        gate->event_bytes = len;

        return NGX_HTTP_LLM_GATE_ERROR;
    }

    /* of an API that is not known any data is content */

    if ((bits & (NGX_LLM_EV_FINISH|NGX_LLM_EV_FILTER|NGX_LLM_EV_END
                 |NGX_LLM_EV_UNREAD))
        || (gate->answer.api == NULL && (bits & NGX_LLM_EV_DATA)))
    {
        return NGX_HTTP_LLM_GATE_OPEN;
    }

    return NGX_HTTP_LLM_GATE_SHUT;
}
