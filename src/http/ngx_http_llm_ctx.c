
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_account.h"
#include "ngx_http_llm_buffer.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_live.h"
#include "ngx_http_llm_relay.h"


/*
 * yajl's handle, its stack, and a string that it unescapes, such as a prompt;
 * what has not been needed yet takes no memory, only addresses
 */
#define NGX_HTTP_LLM_SCRATCH_BYTES  1048576


static void ngx_http_llm_cleanup(void *data);


static u_char             ngx_http_llm_scratch_data[NGX_HTTP_LLM_SCRATCH_BYTES];
static ngx_llm_names_t    ngx_http_llm_scratch_names;
static ngx_llm_shapes_t   ngx_http_llm_scratch_shapes;
static ngx_llm_scratch_t  ngx_http_llm_scratch_memory = {
    ngx_http_llm_scratch_data,
    NGX_HTTP_LLM_SCRATCH_BYTES,
    &ngx_http_llm_scratch_names,
    &ngx_http_llm_scratch_shapes
};


ngx_http_llm_ctx_t *
ngx_http_llm_find_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t  *cln;
    ngx_http_llm_ctx_t  *ctx;

    r = r->main;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_stream_module);

    if (ctx) {
        return ctx;
    }

    /* an internal redirect wiped the contexts, but not the pool */

    for (cln = r->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_http_llm_cleanup) {
            ctx = cln->data;
            ngx_http_set_ctx(r, ctx, ngx_http_llm_stream_module);

            return ctx;
        }
    }

    return NULL;
}


ngx_http_llm_ctx_t *
ngx_http_llm_get_ctx(ngx_http_request_t *r)
{
    ngx_llm_str_t             path;
    ngx_pool_cleanup_t       *cln;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_loc_conf_t  *llcf;

    ctx = ngx_http_llm_find_ctx(r);

    if (ctx) {
        return ctx;
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_llm_ctx_t));
    if (cln == NULL) {
        return NULL;
    }

    ctx = cln->data;
    ngx_memzero(ctx, sizeof(ngx_http_llm_ctx_t));

    ctx->request = r;
    ctx->start_ms = ngx_current_msec;
    ctx->bill = &ngx_http_llm_account_unknown;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    path.data = r->uri.data;
    path.len = r->uri.len;

    ctx->api = ngx_llm_api_by_path(llcf->dialect, path);

    cln->handler = ngx_http_llm_cleanup;

    ngx_http_set_ctx(r, ctx, ngx_http_llm_stream_module);

    return ctx;
}


/*
 * The last way out of a request, for what no other one has closed.  It may
 * come seconds late, behind a lingering close.
 */

static void
ngx_http_llm_cleanup(void *data)
{
    ngx_http_llm_ctx_t  *ctx = data;

    if (ctx->exchange) {
        ngx_http_llm_live_remove(ctx->exchange);
        ngx_http_llm_buffer_cleanup(ctx->exchange);

        if (ctx->exchange->clock.timer_set) {
            ngx_del_timer(&ctx->exchange->clock);
        }
    }

    ngx_http_llm_relay_drop(ctx);
    ngx_http_llm_account_abandon(ctx);
}


ngx_llm_scratch_t *
ngx_http_llm_scratch(void)
{
    return &ngx_http_llm_scratch_memory;
}
