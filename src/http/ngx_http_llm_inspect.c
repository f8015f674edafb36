
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_body.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_inspect.h"
#include "ngx_http_llm_model.h"


static ngx_int_t ngx_http_llm_refuse_unread(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_loc_conf_t *llcf);
static ngx_int_t ngx_http_llm_read_body(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_loc_conf_t *llcf);
static void ngx_http_llm_body_handler(ngx_http_request_t *r);
static void ngx_http_llm_body_cleanup(void *data);
static ngx_int_t ngx_http_llm_inspect(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_loc_conf_t *llcf);
static ngx_int_t ngx_http_llm_keep_facts(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, const ngx_llm_request_t *asked);
static ngx_int_t ngx_http_llm_name_model(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, const ngx_llm_request_t *asked);
static void ngx_http_llm_estimate(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, const ngx_llm_request_t *asked);
static ngx_int_t ngx_http_llm_ask_usage(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, const ngx_llm_request_t *asked,
    ngx_str_t *body);


ngx_int_t
ngx_http_llm_handler(ngx_http_request_t *r)
{
    ngx_int_t                 rc;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    /* a post_action comes behind the answer: it takes no tokens */

    if (!llcf->enable || r != r->main || r->post_action) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_llm_get_ctx(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    /* an error_page that is a file costs no tokens, whoever refused */

    if (r->content_handler == NULL
        && (ctx->refused || r->err_status || r->error_page))
    {
        return NGX_DECLINED;
    }

    if (!ctx->body_read) {
        rc = ngx_http_llm_read_body(r, ctx, llcf);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    /* an internal redirect runs the phase again: once is enough */

    if (!ctx->inspected) {
        ctx->inspected = 1;

        rc = ngx_http_llm_inspect(r, ctx, llcf);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (ctx->unread_reason && llcf->limit.limits) {
        rc = ngx_http_llm_refuse_unread(r, ctx, llcf);

        if (rc != NGX_DECLINED) {
            return rc;
        }
    }

    if (ctx->facts && llcf->limit.limits) {
        rc = ngx_http_llm_limit_admit(r, ctx);

        if (rc != NGX_DECLINED) {
            return rc;
        }
    }

    ngx_http_llm_exchange_prepare(r, ctx);

    return NGX_DECLINED;
}


/* what could not be read is never free where there is a limit */

static ngx_int_t
ngx_http_llm_refuse_unread(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_loc_conf_t *llcf)
{
    if (llcf->limit.dry_run) {
        ngx_log_error(llcf->limit.log_level, r->connection->log, 0,
                      "llm limit: rejected, dry run, the body is not read: "
                      "%s", ctx->unread_reason);
        return NGX_DECLINED;
    }

    if (ctx->too_large) {
        return ngx_http_llm_reject(r, ctx, NGX_LLM_ERR_TOO_LARGE,
                                   NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                   ctx->unread_reason);
    }

    return ngx_http_llm_reject(r, ctx, NGX_LLM_ERR_INVALID,
                               NGX_HTTP_BAD_REQUEST, ctx->unread_reason);
}


/*
 * The body is read as mirror reads it, but not preserved: that would keep a
 * temporary file open for the whole stream.
 */

static ngx_int_t
ngx_http_llm_read_body(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_loc_conf_t *llcf)
{
    ngx_int_t            rc;
    ngx_http_cleanup_t  *cln;

    if (r->headers_in.content_length_n > (off_t) llcf->body_max_bytes
        && llcf->limit.limits
        && !llcf->limit.dry_run)
    {
        return ngx_http_llm_reject(r, ctx, NGX_LLM_ERR_TOO_LARGE,
                                   NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                   "The request body is larger than this "
                                   "server accepts.");
    }

    if (!(r->method & (NGX_HTTP_POST|NGX_HTTP_PUT|NGX_HTTP_PATCH))
        && r->headers_in.content_length_n <= 0
        && !r->headers_in.chunked)
    {
        ctx->body_read = 1;
        return NGX_OK;
    }

    /* room to make it one piece, see ngx_http_llm_body_gather() */

    r->request_body_in_single_buf = 1;

    rc = ngx_http_read_client_request_body(r, ngx_http_llm_body_handler);

    /* mostly it came with the header, and no client can leave before it */

    if (!ctx->body_read) {

        /* not the pool's: that runs behind the log */

        cln = ngx_http_cleanup_add(r, 0);

        if (cln) {
            cln->handler = ngx_http_llm_body_cleanup;
            cln->data = ctx;
        }
    }

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    ngx_http_finalize_request(r, NGX_DONE);

    return NGX_DONE;
}


static void
ngx_http_llm_body_handler(ngx_http_request_t *r)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_find_ctx(r);
    ctx->body_read = 1;

    r->write_event_handler = ngx_http_core_run_phases;
    ngx_http_core_run_phases(r);
}


/* the client left, or fell silent, before all of its request was there */

static void
ngx_http_llm_body_cleanup(void *data)
{
    ngx_http_llm_ctx_t  *ctx = data;

    ngx_connection_t  *c;

    c = ctx->request->connection;

    if (!ctx->body_read && (c->error || c->timedout || c->close)) {
        ctx->end = NGX_HTTP_LLM_END_CLIENT_ABORT;
    }
}


static ngx_int_t
ngx_http_llm_inspect(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_loc_conf_t *llcf)
{
    int                streams;
    ngx_int_t          rc;
    ngx_str_t          body;
    const char        *reason;
    ngx_llm_rc_e       parsed;
    ngx_llm_str_t      path;
    ngx_llm_request_t  asked;

    path.data = r->uri.data;
    path.len = r->uri.len;

    streams = ngx_llm_api_path_streams(ctx->api, path);
    ctx->stream = (streams == 1);

    if (r->request_body == NULL) {
        return NGX_OK;
    }

    rc = ngx_http_llm_body_gather(r, llcf->body_max_bytes, &body);

    if (rc == NGX_DECLINED) {
        ctx->too_large = 1;
        ctx->unread_reason = "The request body is larger than this server "
                             "accepts.";
        return NGX_OK;
    }

    if (rc != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    parsed = ngx_llm_request_parse(&asked, ctx->api, body.data, body.len,
                                   ngx_http_llm_scratch(), &reason);

    if (parsed != NGX_LLM_OK) {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                      "llm request body cannot be read: %s", reason);

        ctx->unread_reason = reason;

        return NGX_OK;
    }

    if (streams == -1) {
        ctx->stream = asked.stream;
    }

    if (ngx_http_llm_keep_facts(r, ctx, &asked) != NGX_OK
        || ngx_http_llm_name_model(r, ctx, &asked) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_llm_estimate(r, ctx, &asked);

    ngx_log_debug5(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm request: api:%s model:\"%V\" stream:%d "
                   "max_output:%L estimate:%L",
                   ngx_llm_api_name(ctx->api), &ctx->model, ctx->stream,
                   asked.max_output, (int64_t) ctx->estimated_tokens);

    if (llcf->include_usage
        && ctx->stream
        && ctx->api
        && ngx_llm_api_asks_usage(ctx->api)
        && asked.include_usage != 1)
    {
        return ngx_http_llm_ask_usage(r, ctx, &asked, &body);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_keep_facts(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    const ngx_llm_request_t *asked)
{
    ngx_http_llm_facts_t     *facts;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    facts = ngx_palloc(r->pool, sizeof(ngx_http_llm_facts_t));
    if (facts == NULL) {
        return NGX_ERROR;
    }

    facts->prefix_hash = asked->prefix_hash;
    facts->max_output = asked->max_output;
    facts->part_tokens = ngx_llm_request_part_tokens(asked, &llcf->media);
    facts->n = asked->n;
    facts->media = (asked->images || asked->audios);

    ctx->facts = facts;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_name_model(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    const ngx_llm_request_t *asked)
{
    ngx_llm_str_t  path, name;

    name.data = asked->model;
    name.len = asked->model_len;

    if (name.len == 0 && ctx->api) {
        path.data = r->uri.data;
        path.len = r->uri.len;

        name = ngx_llm_api_path_model(ctx->api, path);
    }

    name.len = ngx_min(name.len, NGX_LLM_MAX_MODEL);

    if (name.len == 0) {
        return NGX_OK;
    }

    ctx->model.data = ngx_pnalloc(r->pool, name.len);
    if (ctx->model.data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(ctx->model.data, name.data, name.len);
    ctx->model.len = name.len;

    return NGX_OK;
}


static void
ngx_http_llm_estimate(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    const ngx_llm_request_t *asked)
{
    int64_t                    raw;
    ngx_llm_ratio_t            ratio;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_stream_module);
    raw = ngx_llm_estimate_raw(&asked->text);

    ratio = ngx_http_llm_model_ratio(lmcf->models, &ctx->model,
                                     NGX_HTTP_LLM_MODEL_PROMPT);

    ctx->raw_tokens = raw;
    ctx->estimated_tokens = ngx_llm_estimate(&ratio, raw,
                                             ctx->facts->part_tokens);
    ctx->margin_tokens = ngx_llm_estimate_margin(&ratio, raw);
}


static ngx_int_t
ngx_http_llm_ask_usage(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    const ngx_llm_request_t *asked, ngx_str_t *body)
{
    ngx_llm_edit_t  edit;

    edit = ngx_llm_request_ask_usage(asked, body->data, body->len);

    if (ngx_http_llm_body_edit(r, body, &edit) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->strip_usage = 1;

    return NGX_OK;
}
