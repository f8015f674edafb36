
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_relay.h"


/* the first size of a buffer for an event that came in pieces */
#define NGX_HTTP_LLM_HELD_BYTES   1024

/* an error event: see ngx_llm_error_event() */
#define NGX_HTTP_LLM_EVENT_BYTES  1024


static ngx_int_t ngx_http_llm_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_llm_relay_start(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_uint_t ngx_http_llm_relay_type(ngx_http_request_t *r,
    const char *type);
static ngx_int_t ngx_http_llm_relay_answer(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t *in);
static ngx_int_t ngx_http_llm_relay_stream(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t *in);
static ngx_uint_t ngx_http_llm_relay_has_last(ngx_chain_t *in);
static ngx_int_t ngx_http_llm_relay_buf(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_buf_t *b, ngx_chain_t ***ll);
static ngx_uint_t ngx_http_llm_relay_event(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, const u_char *event, size_t len);
static ngx_int_t ngx_http_llm_relay_hold(ngx_http_request_t *r,
    ngx_http_llm_relay_t *relay, const u_char *p, size_t len);
static ngx_int_t ngx_http_llm_relay_last(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t ***ll);
static ngx_int_t ngx_http_llm_relay_error(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t ***ll);
static ngx_int_t ngx_http_llm_relay_push(ngx_http_request_t *r,
    ngx_chain_t ***ll, ngx_buf_t *b);
static ngx_buf_t *ngx_http_llm_relay_take(ngx_http_request_t *r,
    ngx_http_llm_relay_t *relay, size_t size);
static ngx_int_t ngx_http_llm_relay_next(ngx_http_request_t *r,
    ngx_http_llm_relay_t *relay, ngx_chain_t *out);
static ngx_int_t ngx_http_llm_relay_give(ngx_http_request_t *r,
    ngx_http_llm_relay_t *relay, ngx_buf_t *b);
static void ngx_http_llm_relay_drop(ngx_chain_t *in);


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


void
ngx_http_llm_relay_install(void)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_llm_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_llm_body_filter;
}


static ngx_int_t
ngx_http_llm_header_filter(ngx_http_request_t *r)
{
    ngx_int_t                 rc;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    if (r != r->main || !llcf->enable) {
        return ngx_http_next_header_filter(r);
    }

    ctx = ngx_http_llm_find_ctx(r);
    if (ctx == NULL) {
        return ngx_http_next_header_filter(r);
    }

    /* a content handler that needs no upstream is not to be held back */

    if (ctx->hooking) {
        ctx->hooking = 0;
        r->aio = 0;
    }

    rc = ngx_http_llm_limit_add_headers(r, ctx);

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_llm_error_header(r, ctx) == NGX_OK) {
        return ngx_http_next_header_filter(r);
    }

    if (ctx->exchange
        && ctx->relay == NULL
        && r->upstream
        && r->upstream->conf == &ctx->exchange->conf
        && r->upstream->peer.connection
        && ngx_http_llm_relay_start(r, ctx) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_next_header_filter(r);
}


/*
 * What kind of answer is this?  A stream of events is passed event by event;
 * of a JSON answer a copy is kept, to be read at its end; anything else
 * passes.
 */

static ngx_int_t
ngx_http_llm_relay_start(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t             sse, lines;
    ngx_http_upstream_t   *u;
    ngx_http_llm_relay_t  *relay;

    u = r->upstream;

    if (r->headers_out.status == NGX_HTTP_SWITCHING_PROTOCOLS) {
        return NGX_OK;
    }

    sse = ngx_http_llm_relay_type(r, "text/event-stream");
    lines = ngx_http_llm_relay_type(r, "application/x-ndjson")
            || ngx_http_llm_relay_type(r, "application/ndjson");

    if (!sse && !lines && !ngx_http_llm_relay_type(r, "application/json")) {
        return NGX_OK;
    }

    relay = ngx_pcalloc(r->pool, sizeof(ngx_http_llm_relay_t));
    if (relay == NULL) {
        return NGX_ERROR;
    }

    ngx_llm_answer_init(&relay->answer, ctx->api);
    ctx->relay = relay;

    if (r->headers_out.content_encoding
        && r->headers_out.content_encoding->value.len)
    {
        relay->blind = 1;

        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "llm answer is compressed (\"%V\") and passes unread",
                      &r->headers_out.content_encoding->value);
    }

    if (!sse && !lines) {
        r->main_filter_need_in_memory = 1;
        return NGX_OK;
    }

    relay->stream = 1;
    relay->frame.framing = sse ? NGX_LLM_FRAME_SSE : NGX_LLM_FRAME_LINES;

    ngx_http_llm_exchange_start_stream(r, ctx);

    if (u->headers_in.status_n != NGX_HTTP_OK) {
        relay->blind = 1;
    }

    /* bytes may be added or left out */

    ngx_http_clear_content_length(r);
    ngx_http_clear_accept_ranges(r);

    /* an event would wait in the compressor for the next one */

#if (NGX_HTTP_GZIP)
    r->gzip_tested = 1;
    r->gzip_ok = 0;
#endif

    r->main_filter_need_in_memory = 1;

    return NGX_OK;
}


static ngx_uint_t
ngx_http_llm_relay_type(ngx_http_request_t *r, const char *type)
{
    size_t      len;
    ngx_str_t  *value;

    len = ngx_strlen(type);
    value = &r->headers_out.content_type;

    return value->len >= len
           && ngx_strncasecmp(value->data, (u_char *) type, len) == 0
           && (value->len == len
               || value->data[len] == ';'
               || value->data[len] == ' ');
}


static ngx_int_t
ngx_http_llm_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_http_llm_ctx_t    *ctx;
    ngx_http_llm_relay_t  *relay;

    /* behind a redirect the header filter has found the context again */

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_stream_module);

    if (ctx == NULL || r != r->main) {
        return ngx_http_next_body_filter(r, in);
    }

    if (ctx->error_body.len) {

        if (in == NULL) {
            return ngx_http_next_body_filter(r, NULL);
        }

        return ngx_http_next_body_filter(r,
                                     ngx_http_llm_error_chain(r, ctx, in));
    }

    relay = ctx->relay;

    if (relay == NULL || (relay->blind && !relay->ended)) {
        return ngx_http_next_body_filter(r, in);
    }

    if (relay->stream) {
        return ngx_http_llm_relay_stream(r, ctx, in);
    }

    return ngx_http_llm_relay_answer(r, ctx, in);
}


/*
 * A JSON answer passes as it comes; a copy is read when it is complete, if
 * it is not too large for that.
 */

static ngx_int_t
ngx_http_llm_relay_answer(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *in)
{
    size_t                 held_bytes;
    ngx_buf_t             *b;
    ngx_chain_t           *cl;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    for (cl = in; cl; cl = cl->next) {
        b = cl->buf;

        if (relay->blind || !ngx_buf_in_memory(b) || b->pos == b->last) {
            continue;
        }

        held_bytes = relay->held ? relay->held->last - relay->held->pos : 0;

        if (held_bytes + (b->last - b->pos) > NGX_LLM_MAX_ANSWER_BYTES) {
            relay->blind = 1;
            continue;
        }

        if (ngx_http_llm_relay_hold(r, relay, b->pos, b->last - b->pos)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return ngx_http_next_body_filter(r, in);
}


static ngx_int_t
ngx_http_llm_relay_stream(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *in)
{
    ngx_buf_t             *b;
    ngx_uint_t             last;
    ngx_chain_t           *cl, *out, **ll;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    if (relay->ended) {

        /*
         * nginx's flush behind a failed upstream: the body is complete, and
         * the connection may be used again
         */

        ngx_http_llm_relay_drop(in);

        if (ctx->exchange->keepalive) {
            r->keepalive = 1;
        }

        return ngx_http_llm_relay_next(r, relay, NULL);
    }

    if (ngx_chain_add_copy(r->pool, &relay->in, in) != NGX_OK) {
        return NGX_ERROR;
    }

    /*
     * Upstream's buffers are its backpressure: while a copy of ours waits
     * for a slow client they are left alone, or reading would go on
     */

    if (relay->busy && r->connection->buffered) {

        if (ngx_http_llm_relay_next(r, relay, NULL) == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (relay->busy && !ngx_http_llm_relay_has_last(relay->in)) {
            return NGX_AGAIN;
        }
    }

    out = NULL;
    ll = &out;
    last = 0;

    while (relay->in) {
        cl = relay->in;
        relay->in = cl->next;

        b = cl->buf;
        ngx_free_chain(r->pool, cl);

        last |= b->last_buf;

        if (ngx_buf_in_memory(b)) {

            if (relay->cut) {
                b->pos = b->last;
                continue;
            }

            if (ngx_http_llm_relay_buf(r, ctx, b, &ll) != NGX_OK) {
                return NGX_ERROR;
            }

            continue;
        }

        /* a flush; the last buffer is made anew below */

        if (!b->last_buf && ngx_http_llm_relay_push(r, &ll, b) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (last && ngx_http_llm_relay_last(r, ctx, &ll) != NGX_OK) {
        return NGX_ERROR;
    }

    *ll = NULL;

    return ngx_http_llm_relay_next(r, relay, out);
}


static ngx_uint_t
ngx_http_llm_relay_has_last(ngx_chain_t *in)
{
    for ( /* void */ ; in; in = in->next) {
        if (in->buf->last_buf) {
            return 1;
        }
    }

    return 0;
}


/*
 * One of upstream's buffers.  Whole events go on in it; an unfinished one
 * at its end is copied and held back until its end has come, and what
 * follows a stripped event is copied too, as a buffer is one piece.
 */

static ngx_int_t
ngx_http_llm_relay_buf(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_buf_t *b, ngx_chain_t ***ll)
{
    int                    complete;
    size_t                 n;
    u_char                *p, *last;
    ngx_buf_t             *held;
    ngx_uint_t             strip;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;
    p = b->pos;
    last = b->last;

    while (p < last && !relay->cut) {

        n = ngx_llm_frame_next(&relay->frame, p, last - p, &complete);

        held = relay->held;

        if (relay->torn) {

            /* the rest of an event that was let go */

            relay->torn = !complete;
            p += n;
            continue;
        }

        if (!complete || held) {

            if (ngx_http_llm_relay_hold(r, relay, p, n) != NGX_OK) {
                return NGX_ERROR;
            }

            held = relay->held;

            if (!complete
                && held->last - held->pos <= NGX_LLM_MAX_EVENT_BYTES)
            {
                /* the whole rest of b is held */

                b->last = p;
                break;
            }

            strip = complete
                    && ngx_http_llm_relay_event(r, ctx, held->pos,
                                                held->last - held->pos);
            relay->torn = !complete;
            relay->held = NULL;

            p += n;
            b->pos = p;

            if ((strip ? ngx_http_llm_relay_give(r, relay, held)
                       : ngx_http_llm_relay_push(r, ll, held))
                != NGX_OK)
            {
                return NGX_ERROR;
            }

            continue;
        }

        strip = ngx_http_llm_relay_event(r, ctx, p, n);

        if (!strip) {
            p += n;
            continue;
        }

        if (p == b->pos) {
            p += n;
            b->pos = p;
            continue;
        }

        /* events before it in b, perhaps events behind it */

        b->last = p;
        p += n;

        if (ngx_http_llm_relay_push(r, ll, b) != NGX_OK) {
            return NGX_ERROR;
        }

        if (p == last) {
            return NGX_OK;
        }

        b = ngx_http_llm_relay_take(r, relay, last - p);
        if (b == NULL) {
            return NGX_ERROR;
        }

        b->last = ngx_cpymem(b->last, p, last - p);
        p = b->pos;
        last = b->last;
    }

    if (relay->cut) {
        b->last = p;
    }

    return ngx_http_llm_relay_push(r, ll, b);
}


/* reads one event; true when the client is not to see it */

static ngx_uint_t
ngx_http_llm_relay_event(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    const u_char *event, size_t len)
{
    unsigned               bits;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    if (relay->blind) {
        return 0;
    }

    bits = ngx_llm_answer_event(&relay->answer, event, len,
                                ngx_http_llm_scratch());

    if (bits & NGX_LLM_EV_CONTENT) {
        ctx->last_content_ms = ngx_current_msec;

        if (ctx->first_content_ms == 0) {
            ctx->first_content_ms = ngx_current_msec;
        }
    }

    if (bits & NGX_LLM_EV_ERROR) {

        /* passed on, and the end: upstream may well stay silent now */

        relay->cut = 1;
        ngx_http_llm_exchange_stop(r);

    } else if (bits & NGX_LLM_EV_END) {
        ngx_http_llm_exchange_linger(r, ctx);
    }

    return ctx->strip_usage && (bits & NGX_LLM_EV_ONLY_USAGE);
}


/* appends to what is held; the buffer grows by doubling */

static ngx_int_t
ngx_http_llm_relay_hold(ngx_http_request_t *r, ngx_http_llm_relay_t *relay,
    const u_char *p, size_t len)
{
    size_t      used, size;
    ngx_buf_t  *b, *held;

    held = relay->held;
    used = held ? held->last - held->pos : 0;

    if (held == NULL || (size_t) (held->end - held->last) < len) {

        size = ngx_max(NGX_HTTP_LLM_HELD_BYTES, 2 * used);

        b = ngx_http_llm_relay_take(r, relay, ngx_max(size, used + len));
        if (b == NULL) {
            return NGX_ERROR;
        }

        if (held) {
            b->last = ngx_cpymem(b->last, held->pos, used);

            if (ngx_http_llm_relay_give(r, relay, held) != NGX_OK) {
                return NGX_ERROR;
            }
        }

        relay->held = b;
        held = b;
    }

    held->last = ngx_cpymem(held->last, p, len);

    return NGX_OK;
}


/*
 * The end of the body.  What is held of an unfinished event goes out, unless
 * the answer was cut off: then it never was an event, and an error event
 * takes its place.
 */

static ngx_int_t
ngx_http_llm_relay_last(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t ***ll)
{
    ngx_buf_t                *b;
    ngx_http_llm_relay_t     *relay;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    relay = ctx->relay;

    ngx_http_llm_relay_finish(r, ctx);

    relay->ended = 1;

    if (ngx_http_llm_relay_is_incomplete(ctx->relay)) {

        if (relay->torn || !llcf->error_events) {

            /* never a clean end: the client must not take it for whole */

            ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                          "llm answer ended early, closing connection");

            r->keepalive = 0;
            r->connection->error = 1;

            return NGX_ERROR;
        }

        if (ngx_http_llm_relay_error(r, ctx, ll) != NGX_OK) {
            return NGX_ERROR;
        }

    } else if (relay->held) {

        if (ngx_http_llm_relay_push(r, ll, relay->held) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    relay->held = NULL;

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->last_buf = 1;

    return ngx_http_llm_relay_push(r, ll, b);
}


void
ngx_http_llm_relay_finish(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    size_t                 len;
    ngx_buf_t             *held;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    if (relay == NULL || relay->blind || relay->held == NULL) {
        return;
    }

    held = relay->held;
    len = held->last - held->pos;

    if (!relay->stream) {
        (void) ngx_llm_answer_body(&relay->answer, held->pos, len,
                                   ngx_http_llm_scratch());

    } else if (ngx_http_llm_relay_is_incomplete(ctx->relay)) {

        /* some servers end without the blank line */

        (void) ngx_http_llm_relay_event(r, ctx, held->pos, len);
    }
}


ngx_uint_t
ngx_http_llm_relay_is_incomplete(const ngx_http_llm_relay_t *relay)
{
    return !relay->blind
           && relay->answer.api != NULL
           && !(relay->answer.seen & (NGX_LLM_EV_END|NGX_LLM_EV_ERROR));
}


ngx_uint_t
ngx_http_llm_relay_can_end(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    return ctx->relay
           && ctx->relay->stream
           && !ctx->relay->ended
           && !ctx->relay->blind
           && ctx->relay->answer.api != NULL;
}


static ngx_int_t
ngx_http_llm_relay_error(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t ***ll)
{
    ngx_buf_t             *b;
    const char            *message;
    ngx_llm_err_e          err;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    switch (ctx->end) {

    case NGX_HTTP_LLM_END_FIRST_TOKEN_TIMEOUT:
        err = NGX_LLM_ERR_TIMEOUT;
        message = "The model server sent no token in time.";
        break;

    case NGX_HTTP_LLM_END_IDLE_TIMEOUT:
        err = NGX_LLM_ERR_TIMEOUT;
        message = "The model server stopped sending tokens.";
        break;

    case NGX_HTTP_LLM_END_TOTAL_TIMEOUT:
        err = NGX_LLM_ERR_TIMEOUT;
        message = "The answer took longer than this server allows.";
        break;

    default:
        err = NGX_LLM_ERR_UPSTREAM;
        message = "The model server ended the answer before it was complete.";
    }

    b = ngx_http_llm_relay_take(r, relay, NGX_HTTP_LLM_EVENT_BYTES);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->last += ngx_llm_error_event(relay->answer.api, err, message, b->last,
                                   NGX_HTTP_LLM_EVENT_BYTES);

    return ngx_http_llm_relay_push(r, ll, b);
}


/* appends b to the output; an empty one is left out, and consumed */

static ngx_int_t
ngx_http_llm_relay_push(ngx_http_request_t *r, ngx_chain_t ***ll,
    ngx_buf_t *b)
{
    ngx_chain_t  *cl;

    if (ngx_buf_in_memory(b) && b->pos == b->last) {
        return NGX_OK;
    }

    cl = ngx_alloc_chain_link(r->pool);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    cl->buf = b;
    **ll = cl;
    *ll = &cl->next;

    return NGX_OK;
}


/* an empty buffer of ours for at least size bytes, used before or new */

static ngx_buf_t *
ngx_http_llm_relay_take(ngx_http_request_t *r, ngx_http_llm_relay_t *relay,
    size_t size)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl, **ll;

    for (ll = &relay->free; *ll; ll = &(*ll)->next) {
        cl = *ll;
        b = cl->buf;

        if ((size_t) (b->end - b->start) >= size) {
            *ll = cl->next;
            ngx_free_chain(r->pool, cl);

            b->pos = b->start;
            b->last = b->start;

            return b;
        }
    }

    b = ngx_create_temp_buf(r->pool, size);
    if (b == NULL) {
        return NULL;
    }

    b->tag = (ngx_buf_tag_t) &ngx_http_llm_stream_module;
    b->flush = 1;

    return b;
}


/* back among those that can be used again */

static ngx_int_t
ngx_http_llm_relay_give(ngx_http_request_t *r, ngx_http_llm_relay_t *relay,
    ngx_buf_t *b)
{
    ngx_chain_t  *cl;

    cl = ngx_alloc_chain_link(r->pool);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    cl->buf = b;
    cl->next = relay->free;
    relay->free = cl;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_relay_next(ngx_http_request_t *r, ngx_http_llm_relay_t *relay,
    ngx_chain_t *out)
{
    ngx_int_t  rc;

    /* everything is held back, and nothing waits to be sent */

    if (out == NULL && r->out == NULL && !r->connection->buffered) {
        return NGX_OK;
    }

    rc = ngx_http_next_body_filter(r, out);

    ngx_chain_update_chains(r->pool, &relay->free, &relay->busy, &out,
                            (ngx_buf_tag_t) &ngx_http_llm_stream_module);

    return rc;
}


static void
ngx_http_llm_relay_drop(ngx_chain_t *in)
{
    for ( /* void */ ; in; in = in->next) {
        in->buf->pos = in->buf->last;
    }
}
