
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * What the relay sends to the client, and what it keeps until the client has
 * read it.
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_chain.h"
#include "ngx_http_llm_drain.h"
#include "ngx_http_llm_filter.h"
#include "ngx_http_llm_heartbeat.h"
#include "ngx_http_llm_relay.h"


ngx_int_t
ngx_http_llm_relay_output(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *out)
{
    ngx_int_t              rc;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    /* everything is held back, and nothing waits to be sent */

    if (out == NULL && !relay->drained && r->out == NULL
        && !r->connection->buffered)
    {
        return NGX_OK;
    }

    rc = ngx_http_llm_relay_send(r, ctx, out);

    if (relay->drained) {
        ngx_http_llm_chain_drop(relay->busy);
    }

    ngx_chain_update_chains(r->pool, &relay->free, &relay->busy, &out,
                            (ngx_buf_tag_t) &ngx_http_llm_stream_module);

    return rc;
}


ngx_int_t
ngx_http_llm_relay_comment(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    const ngx_str_t *line)
{
    ngx_int_t              rc;
    ngx_buf_t             *b;
    ngx_uint_t             sent;
    ngx_chain_t           *out, **ll;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;
    ll = &out;

    b = ngx_http_llm_chain_take(r, relay, line->len);
    if (b == NULL) {
        return NGX_OK;
    }

    b->last = ngx_cpymem(b->last, line->data, line->len);

    if (ngx_http_llm_chain_push(r, &ll, b) != NGX_OK) {
        return NGX_OK;
    }

    *ll = NULL;

    /* nothing of upstream was sent by that */

    sent = relay->sent;
    rc = ngx_http_llm_relay_output(r, ctx, out);
    relay->sent = sent;
    relay->commented = 1;

    return rc;
}


ngx_int_t
ngx_http_llm_relay_send(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *out)
{
    ngx_int_t              rc;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    if (relay->drained) {
        ngx_http_llm_chain_drop(out);
        return NGX_OK;
    }

    if (relay->beats && out) {
        ngx_http_llm_heartbeat_sent(relay, out);
    }

    rc = ngx_http_llm_filter_next(r, out);

    return (rc == NGX_ERROR) ? ngx_http_llm_relay_failed(r, ctx, out) : rc;
}


ngx_int_t
ngx_http_llm_relay_failed(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *out)
{
    if (ngx_http_llm_drain_begin(r, ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_llm_chain_drop(out);

    return NGX_OK;
}
