
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The answer is a stream of events: what upstream's functions do for it, and
 * what is over when it has begun.
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_buffer.h"
#include "ngx_http_llm_clock.h"
#include "ngx_http_llm_drain.h"
#include "ngx_http_llm_exchange.h"


static ngx_int_t ngx_http_llm_exchange_filter_init(void *data);
static void ngx_http_llm_exchange_share_conf(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex);
static ngx_uint_t ngx_http_llm_exchange_is_conf(ngx_http_request_t *r,
    ngx_http_upstream_conf_t *conf);
static ngx_int_t ngx_http_llm_exchange_filter(void *data, ssize_t bytes);


void
ngx_http_llm_exchange_start_stream(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx)
{
    ngx_event_t              *rev;
    ngx_http_upstream_t      *u;
    ngx_http_llm_exchange_t  *ex;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    ex = ctx->exchange;
    u = r->upstream;

    /* a cacheable answer is read to its end even when the client left */

    u->buffering = 0;

#if (NGX_HTTP_CACHE)
    u->cacheable = 0;
#endif

    u->store = 0;

    ex->prelude->input_filter_init = u->input_filter_init;
    ex->input_filter_ctx = u->input_filter_ctx;
    u->input_filter_init = ngx_http_llm_exchange_filter_init;

    u->input_filter_ctx = ex;

    ex->stream = 1;

    /*
     * nginx's timer was set when the request had been sent: what is left of
     * it is left of the first-token clock
     */

    if (llcf->first_token_timeout_ms) {
        rev = u->peer.connection->read;

        ex->stage_deadline_ms = rev->timer_set && ctx->stream
                                ? rev->timer.key
                                : ngx_current_msec
                                  + llcf->first_token_timeout_ms;
    }

    ex->prelude->conf.read_timeout = NGX_HTTP_LLM_NO_TIMEOUT_MS;

    ngx_http_llm_drain_start(r, ctx);
    ngx_http_llm_clock_arm(r, ex);
}


/*
 * The input filter is known only behind its init: there it is wrapped.  The
 * header is sent, and no other server is asked any more.
 */

static ngx_int_t
ngx_http_llm_exchange_filter_init(void *data)
{
    ngx_int_t                 rc;
    ngx_http_request_t       *r;
    ngx_http_upstream_t      *u;
    ngx_http_llm_exchange_t  *ex;

    ex = data;
    r = ex->ctx->request;
    u = r->upstream;

    u->input_filter_init = ex->prelude->input_filter_init;

    rc = u->input_filter_init(ex->input_filter_ctx);

    ex->input_filter = u->input_filter;
    u->input_filter = ngx_http_llm_exchange_filter;

    ngx_http_llm_exchange_share_conf(r, ex);
    ngx_http_llm_buffer_hook(r, ex);
    ngx_http_llm_drain_watch(r, ex->ctx);

    return rc;
}


/*
 * From here on u->conf is the same for all streams of the location, and the
 * prelude is over.
 */

static void
ngx_http_llm_exchange_share_conf(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex)
{
    ngx_http_upstream_t           *u;
    ngx_http_llm_prelude_t        *prelude;
    ngx_http_llm_loc_conf_t       *llcf;
    ngx_http_llm_exchange_conf_t  *shared;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    u = r->upstream;
    prelude = ex->prelude;
    shared = llcf->exchange;

    if (shared->original == NULL
        && ngx_http_llm_exchange_is_conf(r, prelude->original))
    {
        shared->original = prelude->original;
        shared->conf = *prelude->original;
        shared->conf.read_timeout = NGX_HTTP_LLM_NO_TIMEOUT_MS;
    }

    /* somebody makes it for each request: it lives as long as that */

    if (shared->original != prelude->original) {
        return;
    }

    u->conf = &shared->conf;
    u->create_request = prelude->create_request;

    if (prelude->process_header) {
        u->process_header = prelude->process_header;
        u->reinit_request = prelude->reinit_request;
    }

    ex->prelude = NULL;

    (void) ngx_pfree(r->pool, prelude);
}


/* it is the configuration of a location, whose first member it always is */

static ngx_uint_t
ngx_http_llm_exchange_is_conf(ngx_http_request_t *r,
    ngx_http_upstream_conf_t *conf)
{
    ngx_uint_t  i;

    for (i = 0; i < ngx_http_max_module; i++) {

        if (r->loc_conf[i] == conf) {
            return 1;
        }
    }

    return 0;
}


/*
 * A broken chunk would end the request at once and lose what a slow client
 * has not read yet.  As an error of upstream it ends behind that.
 */

static ngx_int_t
ngx_http_llm_exchange_filter(void *data, ssize_t bytes)
{
    ngx_http_upstream_t      *u;
    ngx_http_llm_exchange_t  *ex;

    ex = data;

    if (!ex->broken
        && ex->input_filter(ex->input_filter_ctx, bytes) != NGX_ERROR)
    {
        return NGX_OK;
    }

    ex->broken = 1;

    u = ex->ctx->request->upstream;

    u->error = 1;
    u->keepalive = 0;
    u->buffer.last = u->buffer.end;

    return NGX_OK;
}


void
ngx_http_llm_exchange_stop(ngx_http_request_t *r)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (u && u->peer.connection) {
        u->length = 0;
        u->keepalive = 0;
    }
}
