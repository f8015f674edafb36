
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_chain.h"
#include "ngx_http_llm_relay.h"


/* the first size of a buffer for an event that came in pieces */
#define NGX_HTTP_LLM_HELD_BYTES  1024


/* appends b to the output; an empty one is left out, and consumed */

ngx_int_t
ngx_http_llm_chain_push(ngx_http_request_t *r, ngx_chain_t ***ll,
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


/* appends to what is held; the buffer grows by doubling */

ngx_int_t
ngx_http_llm_chain_hold(ngx_http_request_t *r, ngx_http_llm_relay_t *relay,
    const u_char *p, size_t len)
{
    size_t      used, size;
    ngx_buf_t  *b, *held;

    held = relay->held;
    used = held ? held->last - held->pos : 0;

    if (held == NULL || (size_t) (held->end - held->last) < len) {

        size = ngx_max(NGX_HTTP_LLM_HELD_BYTES, 2 * used);

        b = ngx_http_llm_chain_take(r, relay, ngx_max(size, used + len));
        if (b == NULL) {
            return NGX_ERROR;
        }

        if (held) {
            b->last = ngx_cpymem(b->last, held->pos, used);

            if (ngx_http_llm_chain_give(r, relay, held) != NGX_OK) {
                return NGX_ERROR;
            }
        }

        relay->held = b;
        held = b;
    }

    held->last = ngx_cpymem(held->last, p, len);

    return NGX_OK;
}


/* an empty buffer of ours for at least size bytes, used before or new */

ngx_buf_t *
ngx_http_llm_chain_take(ngx_http_request_t *r, ngx_http_llm_relay_t *relay,
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

ngx_int_t
ngx_http_llm_chain_give(ngx_http_request_t *r, ngx_http_llm_relay_t *relay,
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


void
ngx_http_llm_chain_drop(ngx_chain_t *in)
{
    for ( /* void */ ; in; in = in->next) {
        in->buf->pos = in->buf->last;
    }
}


ngx_uint_t
ngx_http_llm_chain_has(ngx_chain_t *in, const ngx_buf_t *b)
{
    for ( /* void */ ; in; in = in->next) {
        if (in->buf == b) {
            return 1;
        }
    }

    return 0;
}


ngx_uint_t
ngx_http_llm_chain_has_last(ngx_chain_t *in)
{
    for ( /* void */ ; in; in = in->next) {
        if (in->buf->last_buf) {
            return 1;
        }
    }

    return 0;
}
