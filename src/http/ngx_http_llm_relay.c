
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_chain.h"
#include "ngx_http_llm_clock.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_filter.h"
#include "ngx_http_llm_relay.h"


static ngx_int_t ngx_http_llm_relay_late(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t *in);
static ngx_inline ngx_int_t ngx_http_llm_relay_forward(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_relay_t *relay, ngx_chain_t *in);
static ngx_int_t ngx_http_llm_relay_look(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t *in, ngx_chain_t *left,
    u_char *from, ngx_uint_t waited);
static ngx_int_t ngx_http_llm_relay_wait(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t *in);
static ngx_inline u_char *ngx_http_llm_relay_alike(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_relay_t *relay, u_char *p,
    u_char *last);
static ngx_int_t ngx_http_llm_relay_pass(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_buf_t *b, u_char *from, ngx_chain_t ***ll);
static ngx_int_t ngx_http_llm_relay_buf(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_buf_t *b, u_char *p, ngx_chain_t ***ll);
static ngx_int_t ngx_http_llm_relay_piece(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, const u_char *p, size_t len,
    ngx_uint_t complete, ngx_chain_t ***ll);
static ngx_int_t ngx_http_llm_relay_front(ngx_http_request_t *r,
    ngx_http_llm_relay_t *relay, ngx_buf_t *b, u_char *p, ngx_chain_t ***ll);


ngx_int_t
ngx_http_llm_relay_stream(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *in)
{
    u_char                *from, *last;
    ngx_buf_t             *b;
    ngx_chain_t           *left;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    if (in == NULL
        || relay->ended || relay->paused || relay->cut
        || relay->in || relay->busy)
    {
        return ngx_http_llm_relay_late(r, ctx, in);
    }

    /*
     * Mostly upstream's buffers hold whole events that are like those before
     * them but for their text, and all of them may go on as they are.
     */

    for (left = in; left; left = left->next) {
        b = left->buf;

        if (b->last_buf) {
            return ngx_http_llm_relay_look(r, ctx, in, left, NULL, 0);
        }

        if (!ngx_buf_in_memory(b)) {
            continue;
        }

        last = b->last;
        from = ngx_http_llm_relay_alike(r, ctx, relay, b->pos, last);

        if (from != last || relay->paused || relay->cut) {
            return ngx_http_llm_relay_look(r, ctx, in, left, from, 0);
        }
    }

    return ngx_http_llm_relay_forward(r, ctx, relay, in);
}


/* there is nothing, it is the end, or something waits already */

static ngx_int_t
ngx_http_llm_relay_late(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *in)
{
    ngx_int_t              rc;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    if (relay->ended) {

        /*
         * nginx's flush behind a failed upstream: the body is complete, and
         * the connection may be used again
         */

        ngx_http_llm_chain_drop(in);

        if (ctx->exchange->keepalive) {
            r->keepalive = 1;
        }

        return ngx_http_llm_relay_output(r, ctx, NULL);
    }

    if (relay->in
        || relay->paused
        || (relay->busy && r->connection->buffered && !relay->drained))
    {
        rc = ngx_http_llm_relay_wait(r, ctx, in);

        if (rc != NGX_OK) {
            return rc;
        }

        in = relay->in;
        relay->in = NULL;

        return ngx_http_llm_relay_look(r, ctx, in, in, NULL, 1);
    }

    return ngx_http_llm_relay_look(r, ctx, in, in, NULL, 0);
}


/*
 * Upstream's buffers as they are, in links that stay upstream's; what a slow
 * client does not take now is in relay->busy.  Inline, as events go through
 * it.
 */

static ngx_inline ngx_int_t
ngx_http_llm_relay_forward(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_relay_t *relay, ngx_chain_t *in)
{
    ngx_int_t  rc;

    if (relay->beats || relay->drained) {
        rc = ngx_http_llm_relay_send(r, ctx, in);

    } else {
        rc = ngx_http_llm_filter_next(r, in);

        if (rc == NGX_ERROR) {
            rc = ngx_http_llm_relay_failed(r, ctx, in);
        }
    }

    while (in && ngx_buf_size(in->buf) == 0) {
        in = in->next;
    }

    if (in && ngx_chain_add_copy(r->pool, &relay->busy, in) != NGX_OK) {
        return NGX_ERROR;
    }

    return rc;
}


/*
 * What is not only events that pass: buffers from left on, and in that one
 * bytes from that place on, are looked at closely.  The links of those that
 * waited are ours.
 */

static ngx_int_t
ngx_http_llm_relay_look(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *in, ngx_chain_t *left, u_char *from, ngx_uint_t waited)
{
    ngx_int_t              rc;
    ngx_uint_t             last;
    ngx_chain_t           *cl, *out, **ll;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;
    out = NULL;
    ll = &out;
    last = 0;

    for ( /* void */ ; in != left; in = in->next) {
        if (ngx_http_llm_chain_push(r, &ll, in->buf) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    while (in && (from || !relay->paused)) {
        rc = ngx_http_llm_relay_pass(r, ctx, in->buf, from, &ll);

        from = NULL;

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc == NGX_AGAIN) {
            break;
        }

        last |= in->buf->last_buf;

        cl = in;
        in = in->next;

        if (waited) {
            ngx_free_chain(r->pool, cl);
        }
    }

    /* what a pause has left */

    if (waited) {
        relay->in = in;

    } else if (ngx_chain_add_copy(r->pool, &relay->in, in) != NGX_OK) {
        return NGX_ERROR;
    }

    if (last && ngx_http_llm_relay_last(r, ctx, &ll) != NGX_OK) {
        return NGX_ERROR;
    }

    *ll = NULL;

    return ngx_http_llm_relay_output(r, ctx, out);
}


/*
 * Upstream's buffers are its backpressure: while a copy of ours waits for a
 * slow client, or in a pause, they are left alone, or reading would go on.
 */

static ngx_int_t
ngx_http_llm_relay_wait(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *in)
{
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    if (ngx_chain_add_copy(r->pool, &relay->in, in) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_llm_relay_output(r, ctx, NULL) == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (ngx_http_llm_chain_has_last(relay->in)) {

        /* the exchange ended in a pause: there is no time for the rest */

        if (relay->paused) {
            relay->paused = 0;
            relay->cut = 1;
        }

        return NGX_OK;
    }

    return (relay->paused || relay->busy) ? NGX_AGAIN : NGX_OK;
}


/*
 * Reads what mostly comes, as long as there is no cut or pause; returns where
 * it is that no more, or there is one.  Inline, as events go through it.
 */

static ngx_inline u_char *
ngx_http_llm_relay_alike(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_relay_t *relay, u_char *p, u_char *last)
{
    size_t  n;

    while (p < last) {
        n = ngx_llm_answer_next(&relay->answer, &relay->frame, p, last - p);

        if (n == 0) {
            break;
        }

        p += n;

        ngx_http_llm_clock_content(r, ctx);

        if (ngx_http_llm_overrun_is_due(&relay->overrun, NGX_LLM_EV_CONTENT,
                                        n))
        {
            ngx_http_llm_relay_spend(r, ctx, NGX_LLM_EV_CONTENT);

            if (relay->cut || relay->paused) {
                break;
            }
        }
    }

    return p;
}


/*
 * b has been looked at up to from, if that is not NULL.  NGX_AGAIN: a pause
 * has left some of it.
 */

static ngx_int_t
ngx_http_llm_relay_pass(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_buf_t *b, u_char *from, ngx_chain_t ***ll)
{
    if (!ngx_buf_in_memory(b)) {

        /* a flush; the last buffer will be made anew */

        return b->last_buf ? NGX_OK : ngx_http_llm_chain_push(r, ll, b);
    }

    if (ctx->relay->cut && from == NULL) {
        b->pos = b->last;
        return NGX_OK;
    }

    return ngx_http_llm_relay_buf(r, ctx, b, from ? from : b->pos, ll);
}


/*
 * One of upstream's buffers.  Whole events go on in it; an unfinished one
 * at its end is copied and held back until its end has come, and what stands
 * before a stripped event is copied too, as a buffer is one piece.  NGX_AGAIN:
 * what is left in it waits until a pause ends.
 */

static ngx_int_t
ngx_http_llm_relay_buf(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_buf_t *b, u_char *p, ngx_chain_t ***ll)
{
    int                    complete;
    size_t                 n;
    ngx_int_t              rc;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    for ( ;; ) {
        if (!relay->cut && !relay->paused) {
            p = ngx_http_llm_relay_alike(r, ctx, relay, p, b->last);
        }

        if (p == b->last || relay->cut || relay->paused) {
            break;
        }

        n = ngx_llm_frame_next(&relay->frame, p, b->last - p, &complete);

        /* an event that was let go has no boundary before its end */

        if (relay->torn || (!complete && n > NGX_LLM_MAX_EVENT_BYTES)) {
            ngx_http_llm_relay_unread(r, ctx, p, n);

            relay->torn = !complete;
            p += n;
            continue;
        }

        if (!complete || relay->held) {
            rc = ngx_http_llm_relay_piece(r, ctx, p, n, complete, ll);

            if (rc == NGX_ERROR) {
                return NGX_ERROR;
            }

            if (rc == NGX_AGAIN) {
                b->last = p;
                break;
            }

            p += n;
            b->pos = p;
            continue;
        }

        if (!ngx_http_llm_relay_event(r, ctx, p, n)) {
            p += n;
            continue;
        }

        /* strip it */

        if (ngx_http_llm_relay_front(r, relay, b, p, ll) != NGX_OK) {
            return NGX_ERROR;
        }

        p += n;
        b->pos = p;
    }

    if (relay->cut) {
        b->last = p;
    }

    if (relay->paused && p < b->last) {
        rc = ngx_http_llm_relay_front(r, relay, b, p, ll);

        return (rc == NGX_OK) ? NGX_AGAIN : rc;
    }

    return ngx_http_llm_chain_push(r, ll, b);
}


/*
 * A part of an event that came in several.  NGX_AGAIN: all of it is held
 * back; NGX_OK: the event went out, because it is complete, or because it is
 * too large to be held.
 */

static ngx_int_t
ngx_http_llm_relay_piece(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    const u_char *p, size_t len, ngx_uint_t complete, ngx_chain_t ***ll)
{
    ngx_buf_t             *held;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    if (ngx_http_llm_chain_hold(r, relay, p, len) != NGX_OK) {
        return NGX_ERROR;
    }

    held = relay->held;
    len = held->last - held->pos;

    if (!complete && len <= NGX_LLM_MAX_EVENT_BYTES) {
        return NGX_AGAIN;
    }

    relay->held = NULL;

    if (!complete) {
        ngx_http_llm_relay_unread(r, ctx, held->pos, len);
        relay->torn = 1;

    } else if (ngx_http_llm_relay_event(r, ctx, held->pos, len)) {
        return ngx_http_llm_chain_give(r, relay, held);
    }

    return ngx_http_llm_chain_push(r, ll, held);
}


/* sends what is in b before p: the buffer stays in use for the rest of it */

static ngx_int_t
ngx_http_llm_relay_front(ngx_http_request_t *r, ngx_http_llm_relay_t *relay,
    ngx_buf_t *b, u_char *p, ngx_chain_t ***ll)
{
    ngx_buf_t  *front;

    if (p == b->pos) {
        return NGX_OK;
    }

    front = ngx_http_llm_chain_take(r, relay, p - b->pos);
    if (front == NULL) {
        return NGX_ERROR;
    }

    front->last = ngx_cpymem(front->last, b->pos, p - b->pos);
    b->pos = p;

    return ngx_http_llm_chain_push(r, ll, front);
}
