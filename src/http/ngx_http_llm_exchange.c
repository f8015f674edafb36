
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_clock.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_live.h"
#include "ngx_http_llm_relay.h"


static ngx_int_t ngx_http_llm_exchange_handler(ngx_http_request_t *r);
static void ngx_http_llm_exchange_start(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_exchange_hook(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_http_llm_prelude_t *ngx_http_llm_exchange_prelude(
    ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_exchange_create(ngx_http_request_t *r);
static void ngx_http_llm_exchange_accept(ngx_http_request_t *r,
    ngx_str_t *saved, ngx_uint_t restore);


void
ngx_http_llm_exchange_prepare(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    if (r->content_handler == NULL
        || r->content_handler == ngx_http_llm_exchange_handler)
    {
        return;
    }

    /* post_action comes behind the answer: it is none of ours */

    if (r->post_action || ctx->closed) {
        return;
    }

    ctx->content_handler = r->content_handler;
    r->content_handler = ngx_http_llm_exchange_handler;
}


/*
 * The content handler makes r->upstream and starts it at once, since the
 * body has been read; r->aio holds the start back until our hooks are in.
 * Handlers without an upstream (stub_status..) are let go by the header
 * filter, as soon as they send something.
 */

static ngx_int_t
ngx_http_llm_exchange_handler(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_upstream_t  *u;

    ctx = ngx_http_llm_find_ctx(r);
    u = r->upstream;

    ctx->hooking = 1;
    r->aio = 1;

    rc = ctx->content_handler(r);

    if (!ctx->hooking) {
        return rc;
    }

    ctx->hooking = 0;
    r->aio = 0;

    if (rc != NGX_DONE || r->upstream == NULL || r->upstream == u) {
        return rc;
    }

    rc = ngx_http_llm_turn_await(r, ctx, ngx_http_llm_exchange_start);

    if (rc == NGX_DECLINED) {
        ngx_http_llm_exchange_start(r);

    } else if (rc != NGX_AGAIN) {
        ngx_http_finalize_request(r, rc);
    }

    return NGX_DONE;
}


static void
ngx_http_llm_exchange_start(ngx_http_request_t *r)
{
    if (ngx_http_llm_exchange_hook(r, ngx_http_llm_find_ctx(r)) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    ngx_http_upstream_init(r);
}


static ngx_int_t
ngx_http_llm_exchange_hook(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_upstream_t      *u;
    ngx_http_llm_exchange_t  *ex;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    u = r->upstream;

    if (ctx->exchange && ctx->exchange->clock.timer_set) {
        ngx_del_timer(&ctx->exchange->clock);
    }

    ex = ngx_pcalloc(r->pool, sizeof(ngx_http_llm_exchange_t));
    if (ex == NULL) {
        return NGX_ERROR;
    }

    ex->ctx = ctx;

    ex->prelude = ngx_http_llm_exchange_prelude(r, ctx);
    if (ex->prelude == NULL) {
        return NGX_ERROR;
    }

    ex->finalize_request = u->finalize_request;
    u->finalize_request = ngx_http_llm_exchange_finalize;

    ngx_http_llm_gate_hook(r, ex);

    ex->clock.handler = ngx_http_llm_clock_handler;
    ex->clock.data = r;
    ex->clock.log = r->connection->log;

    if (llcf->total_timeout_ms) {
        ex->total_deadline_ms = ngx_current_msec + llcf->total_timeout_ms;
    }

    ctx->exchange = ex;

    /* behind an error_page: what a first upstream did is forgotten */

    ngx_http_llm_relay_drop(ctx);
    ctx->failed = 0;
    ctx->end = NGX_HTTP_LLM_END_NONE;
    ctx->first_content_ms = 0;
    ctx->last_content_ms = 0;

    return NGX_OK;
}


static ngx_http_llm_prelude_t *
ngx_http_llm_exchange_prelude(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_upstream_t      *u;
    ngx_http_llm_loc_conf_t  *llcf;
    ngx_http_llm_prelude_t   *prelude;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    u = r->upstream;

    prelude = ngx_palloc(r->pool, NGX_HTTP_LLM_PRELUDE_BYTES);
    if (prelude == NULL) {
        return NULL;
    }

    ngx_memzero(prelude, offsetof(ngx_http_llm_prelude_t, gate));

    prelude->original = u->conf;
    prelude->conf = *u->conf;
    u->conf = &prelude->conf;

    /*
     * Before the header nginx's read timer is the first-token clock, for
     * each attempt anew.  An answer that is not streamed has no first token:
     * all of it comes at the end, and the total clock is its only one.
     */

    prelude->conf.read_timeout = ctx->stream && llcf->first_token_timeout_ms
                                 ? llcf->first_token_timeout_ms
                                 : NGX_HTTP_LLM_NO_TIMEOUT_MS;

    /* an answer on disk would pass the filters long after upstream ended */

    prelude->conf.max_temp_file_size = 0;
    prelude->conf.temp_file_write_size = 0;

    prelude->create_request = u->create_request;
    u->create_request = ngx_http_llm_exchange_create;

    return prelude;
}


/*
 * Upstream is asked, for a body that can be read: no compression.  Only here
 * the clock may start: an answer from nginx's cache has no end for us.
 */

static ngx_int_t
ngx_http_llm_exchange_create(ngx_http_request_t *r)
{
    ngx_int_t            rc;
    ngx_str_t            saved;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_find_ctx(r);

    ngx_str_null(&saved);
    ngx_http_llm_exchange_accept(r, &saved, 0);

    rc = ctx->exchange->prelude->create_request(r);

    ngx_http_llm_exchange_accept(r, &saved, 1);

    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_llm_clock_arm(r, ctx->exchange);

    return ngx_http_llm_live_add(r, ctx);
}


/*
 * The client's Accept-Encoding is "identity" while the request to upstream
 * is written, and itself again for nginx's gzip, which looks at the first
 * header of that name only: further ones stay silenced.
 */

static void
ngx_http_llm_exchange_accept(ngx_http_request_t *r, ngx_str_t *saved,
    ngx_uint_t restore)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    static ngx_str_t  name = ngx_string("accept-encoding");
    static ngx_str_t  identity = ngx_string("identity");

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len != name.len
            || ngx_strncmp(h[i].lowcase_key, name.data, name.len) != 0)
        {
            continue;
        }

        if (restore) {
            h[i].value = *saved;
            return;
        }

        if (saved->data == NULL) {
            *saved = h[i].value;
        }

        h[i].value = identity;
    }
}


void
ngx_http_llm_exchange_release(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_exchange_t  *ex;

    ex = ctx->exchange;

    r->upstream->conf = ex->prelude->original;

    ngx_http_llm_live_remove(ex);

    if (ex->clock.timer_set) {
        ngx_del_timer(&ex->clock);
    }
}
