
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_clock.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_filter.h"
#include "ngx_http_llm_gate.h"


static ngx_int_t ngx_http_llm_gate_process_header(ngx_http_request_t *r);
static ssize_t ngx_http_llm_gate_recv(ngx_connection_t *c, u_char *buf,
    size_t size);
static ngx_int_t ngx_http_llm_gate_reinit(ngx_http_request_t *r);
static ngx_uint_t ngx_http_llm_gate_applies(ngx_http_request_t *r,
    ngx_llm_framing_e *framing, ngx_uint_t *whole);
static ngx_uint_t ngx_http_llm_gate_is_refusal(ngx_http_request_t *r);
static ngx_uint_t ngx_http_llm_gate_is_encoded(ngx_http_upstream_t *u);
static void ngx_http_llm_gate_shut(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex, ngx_llm_framing_e framing);
static ngx_int_t ngx_http_llm_gate_look(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex);
static ngx_int_t ngx_http_llm_gate_wait(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex);
static void ngx_http_llm_gate_free(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex);


void
ngx_http_llm_gate_hook(ngx_http_request_t *r, ngx_http_llm_exchange_t *ex)
{
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_upstream_t      *u;
    ngx_http_llm_prelude_t   *prelude;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    ctx = ex->ctx;
    u = r->upstream;
    prelude = ex->prelude;

    if (llcf->hold_bytes == 0) {
        return;
    }

    prelude->process_header = u->process_header;
    u->process_header = ngx_http_llm_gate_process_header;

    prelude->reinit_request = u->reinit_request;
    u->reinit_request = ngx_http_llm_gate_reinit;

    /* a question to a model: as long as nothing was said it can be repeated */

    if (ctx->api && ctx->facts) {
        prelude->conf.next_upstream |= NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT;
    }

    prelude->next_upstream = prelude->conf.next_upstream;
}


/*
 * The proxy's parser is a state machine that replaces itself, and is done
 * for good when the header is complete: from then on the body is read here.
 */

static ngx_int_t
ngx_http_llm_gate_process_header(ngx_http_request_t *r)
{
    ngx_int_t                 rc;
    ngx_uint_t                whole;
    ngx_llm_framing_e         framing;
    ngx_http_upstream_t      *u;
    ngx_http_llm_prelude_t   *prelude;
    ngx_http_llm_exchange_t  *ex;

    u = r->upstream;
    ex = ngx_http_llm_get_exchange(r);
    prelude = ex->prelude;

    if (ex->gate) {

        if (ex->early) {
            ngx_http_llm_gate_free(r, ex);
            return NGX_OK;
        }

        return ngx_http_llm_gate_look(r, ex);
    }

    u->process_header = prelude->process_header;

    rc = u->process_header(r);

    prelude->process_header = u->process_header;
    u->process_header = ngx_http_llm_gate_process_header;

    if (rc != NGX_OK || ngx_http_llm_is_cached(r)) {
        return rc;
    }

    if (!ngx_http_llm_gate_applies(r, &framing, &whole)) {
        ngx_http_llm_gate_stand_in(r, ex);
        return NGX_OK;
    }

    ngx_http_llm_gate_shut(r, ex, framing);

    ex->gate->whole = whole;

    rc = ngx_http_llm_gate_look(r, ex);

    if (ex->gate) {
        ngx_http_llm_clock_arm(r, ex);
    }

    return rc;
}


ngx_uint_t
ngx_http_llm_gate_can_open(ngx_http_llm_exchange_t *ex)
{
    return ex->gate->frame.framing == NGX_LLM_FRAME_SSE && !ex->gate->whole;
}


/*
 * nginx looks at a header only behind bytes of it, and there are none to
 * come: it gets the last one, which is in its place already, once more.
 */

void
ngx_http_llm_gate_open(ngx_http_request_t *r, ngx_http_llm_exchange_t *ex)
{
    ngx_connection_t     *c;
    ngx_http_upstream_t  *u;

    u = r->upstream;
    c = u->peer.connection;

    ex->early = 1;
    ex->prelude->recv = c->recv;
    c->recv = ngx_http_llm_gate_recv;

    u->buffer.last--;
    u->state->bytes_received--;

    c->read->handler(c->read);
}


static ssize_t
ngx_http_llm_gate_recv(ngx_connection_t *c, u_char *buf, size_t size)
{
    ngx_http_request_t       *r;
    ngx_http_llm_exchange_t  *ex;

    r = c->data;
    ex = ngx_http_llm_get_exchange(r);

    c->recv = ex->prelude->recv;

    return 1;
}


/* the next attempt begins: what the one before it left is forgotten */

static ngx_int_t
ngx_http_llm_gate_reinit(ngx_http_request_t *r)
{
    ngx_int_t                 rc;
    ngx_http_upstream_t      *u;
    ngx_http_llm_prelude_t   *prelude;
    ngx_http_llm_exchange_t  *ex;

    u = r->upstream;
    ex = ngx_http_llm_get_exchange(r);
    prelude = ex->prelude;

    rc = prelude->reinit_request(r);

    prelude->process_header = u->process_header;
    u->process_header = ngx_http_llm_gate_process_header;

    ngx_http_llm_gate_free(r, ex);

    prelude->conf.next_upstream = prelude->next_upstream;
    ex->first_error = 0;
    ex->early = 0;
    ex->ctx->error_body.len = 0;

    return rc;
}


/* a stream that can be read, and whose bytes are in u->buffer as they came */

static ngx_uint_t
ngx_http_llm_gate_applies(ngx_http_request_t *r, ngx_llm_framing_e *framing,
    ngx_uint_t *whole)
{
    u_char               *p;
    ngx_http_upstream_t  *u;

    static u_char  head[] = "HEAD";
    static u_char  http[] = "http";
    static u_char  http_1[] = "HTTP/1.";

    u = r->upstream;

    if (u->headers_in.status_n != NGX_HTTP_OK
        || u->headers_in.content_type == NULL
        || u->headers_in.x_accel_redirect
        || u->upgrade
        || r->method == NGX_HTTP_HEAD
        || (u->method.len == sizeof(head) - 1
            && ngx_strncmp(u->method.data, head, sizeof(head) - 1) == 0))
    {
        return 0;
    }

    /* neither FastCGI's records nor the frames of HTTP/2 */

    p = u->buffer.start;

#if (NGX_HTTP_CACHE)

    if (r->cache) {
        p += r->cache->header_start;
    }

#endif

    if (u->schema.len < sizeof(http) - 1
        || ngx_strncasecmp(u->schema.data, http, sizeof(http) - 1) != 0
        || u->buffer.pos - p < (ssize_t) sizeof(http_1) - 1
        || ngx_strncmp(p, http_1, sizeof(http_1) - 1) != 0)
    {
        return 0;
    }

    *whole = !ngx_http_llm_filter_framing(&u->headers_in.content_type->value,
                                          framing);

    return !ngx_http_llm_gate_is_encoded(u)
           && (!*whole || ngx_http_llm_gate_is_refusal(r));
}


/* a stream was asked for, and a short JSON document comes: ERNIE's errors */

static ngx_uint_t
ngx_http_llm_gate_is_refusal(ngx_http_request_t *r)
{
    off_t                     len;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_upstream_t      *u;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    ctx = ngx_http_llm_find_ctx(r);
    u = r->upstream;

    len = u->headers_in.content_length_n;

    return ctx->stream
           && ctx->api != NULL
           && ngx_http_llm_filter_type(&u->headers_in.content_type->value,
                                       "application/json")
           && len > 0
           && u->buffer.pos - u->buffer.start + len
              <= (off_t) llcf->hold_bytes;
}


/* nginx's own pointer to that header is not there in all of its versions */

static ngx_uint_t
ngx_http_llm_gate_is_encoded(ngx_http_upstream_t *u)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    static u_char  name[] = "content-encoding";

    for (part = &u->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].key.len == sizeof(name) - 1
                && ngx_strncmp(h[i].lowcase_key, name, sizeof(name) - 1) == 0
                && h[i].value.len)
            {
                return 1;
            }
        }
    }

    return 0;
}


static void
ngx_http_llm_gate_shut(ngx_http_request_t *r, ngx_http_llm_exchange_t *ex,
    ngx_llm_framing_e framing)
{
    ngx_http_upstream_t      *u;
    ngx_http_llm_gate_t      *gate;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    u = r->upstream;

    gate = &ex->prelude->gate;

    ngx_memzero(gate, sizeof(ngx_http_llm_gate_t));

    gate->pieces = (u_char *) ex->prelude + sizeof(ngx_http_llm_prelude_t);
    gate->pieces_size = NGX_HTTP_LLM_PRELUDE_BYTES
                        - sizeof(ngx_http_llm_prelude_t);

    ngx_llm_answer_init(&gate->answer, ex->ctx->api);
    gate->frame.framing = framing;
    gate->scanned = u->buffer.pos - u->buffer.start;
    gate->rest = u->headers_in.content_length_n;

    ex->gate = gate;

    /* nobody asked for a stream, but it is one: its clock starts now */

    if (!ex->ctx->stream && llcf->first_token_timeout_ms) {
        ngx_add_timer(u->peer.connection->read, llcf->first_token_timeout_ms);
    }
}


/* what process_header returns: nginx acts on it */

static ngx_int_t
ngx_http_llm_gate_look(ngx_http_request_t *r, ngx_http_llm_exchange_t *ex)
{
    ngx_int_t                  rc;
    ngx_http_llm_gate_rc_e     verdict;
    ngx_http_upstream_conf_t  *conf;

    rc = NGX_OK;
    conf = &ex->prelude->conf;
    verdict = ngx_http_llm_gate_scan(r, ex->gate);

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm gate: %ui, %uz bytes", (ngx_uint_t) verdict,
                   ex->gate->scanned);

    switch (verdict) {

    case NGX_HTTP_LLM_GATE_SHUT:
        rc = ngx_http_llm_gate_wait(r, ex);
        break;

    case NGX_HTTP_LLM_GATE_OPEN:
        break;

    case NGX_HTTP_LLM_GATE_ERROR:
        rc = ngx_http_llm_gate_error(r, ex);
        break;

    case NGX_HTTP_LLM_GATE_ENDED:

        /* no other than a connection that was closed too early */

        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "upstream ended its stream before any content");

        if (conf->next_upstream & NGX_HTTP_UPSTREAM_FT_ERROR) {
            conf->next_upstream |= NGX_HTTP_UPSTREAM_FT_INVALID_HEADER;
        }

        rc = NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }

    if (rc != NGX_AGAIN) {
        ngx_http_llm_gate_free(r, ex);
    }

    return rc;
}


/*
 * More is needed, and there must be room for it.  The buffer is the proxy's
 * and mostly suffices: who needs more gets it, up to llm_hold.
 */

static ngx_int_t
ngx_http_llm_gate_wait(ngx_http_request_t *r, ngx_http_llm_exchange_t *ex)
{
    size_t                     size, used;
    u_char                    *start;
    ngx_buf_t                 *b;
    ngx_http_llm_loc_conf_t   *llcf;
    ngx_http_upstream_conf_t  *conf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    conf = &ex->prelude->conf;
    b = &r->upstream->buffer;

    used = b->last - b->start;

    if (used >= llcf->hold_bytes) {
        return NGX_OK;
    }

    size = b->end - b->start;

    if (used < size) {
        return NGX_AGAIN;
    }

    size = ngx_min(2 * size, llcf->hold_bytes);

    start = ngx_palloc(r->pool, size);
    if (start == NULL) {
        return NGX_OK;
    }

    ngx_memcpy(start, b->start, used);

    (void) ngx_pfree(r->pool, b->start);

    b->pos = start + (b->pos - b->start);
    b->last = start + used;
    b->start = start;
    b->end = start + size;

    /* a JSON answer to a later attempt would stall with less */

    conf->busy_buffers_size = ngx_max(conf->busy_buffers_size,
                                      size + conf->bufs.size);

    return NGX_AGAIN;
}


static void
ngx_http_llm_gate_free(ngx_http_request_t *r, ngx_http_llm_exchange_t *ex)
{
    if (ex->gate == NULL) {
        return;
    }

    if (ex->gate->pieces_alone) {
        (void) ngx_pfree(r->pool, ex->gate->pieces);
    }

    ngx_llm_answer_done(&ex->gate->answer);

    ex->gate = NULL;
}


void
ngx_http_llm_gate_header(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (ctx->exchange == NULL
        || !ctx->exchange->first_error
        || u == NULL
        || !ngx_http_llm_exchange_is_of(u))
    {
        return;
    }

    u->buffering = 0;

#if (NGX_HTTP_CACHE)
    u->cacheable = 0;
#endif

    u->store = 0;
}
