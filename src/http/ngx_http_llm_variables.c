
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_relay.h"
#include "ngx_http_llm_variables.h"


/* which count: the data of ngx_http_llm_count_variable() */

typedef enum {
    NGX_HTTP_LLM_VAR_PROMPT = 0,
    NGX_HTTP_LLM_VAR_CACHED,
    NGX_HTTP_LLM_VAR_COMPLETION,
    NGX_HTTP_LLM_VAR_REASONING,
    NGX_HTTP_LLM_VAR_TOTAL,
    NGX_HTTP_LLM_VAR_ESTIMATED,
    NGX_HTTP_LLM_VAR_RESERVED,
    NGX_HTTP_LLM_VAR_EVENTS,
    NGX_HTTP_LLM_VAR_INFLIGHT
} ngx_http_llm_count_e;


/* which text: the data of ngx_http_llm_text_variable() */

typedef enum {
    NGX_HTTP_LLM_VAR_DIALECT = 0,
    NGX_HTTP_LLM_VAR_MODEL,
    NGX_HTTP_LLM_VAR_SERVED_MODEL,
    NGX_HTTP_LLM_VAR_IS_STREAM,
    NGX_HTTP_LLM_VAR_SOURCE,
    NGX_HTTP_LLM_VAR_FINISH,
    NGX_HTTP_LLM_VAR_END,
    NGX_HTTP_LLM_VAR_LIMIT_STATUS,
    NGX_HTTP_LLM_VAR_LIMIT_ZONE
} ngx_http_llm_text_e;


/* which duration: the data of ngx_http_llm_time_variable() */

typedef enum {
    NGX_HTTP_LLM_VAR_FIRST_TOKEN = 0,
    NGX_HTTP_LLM_VAR_TOKEN,
    NGX_HTTP_LLM_VAR_LIMIT_WAIT,
    NGX_HTTP_LLM_VAR_QUEUE_WAIT
} ngx_http_llm_time_e;


static void ngx_http_llm_set_variable(ngx_http_variable_value_t *v,
    u_char *data, size_t len);
static ngx_int_t ngx_http_llm_id_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_prefix_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_text_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_name(u_char *name, ngx_str_t *text);
static ngx_int_t ngx_http_llm_text(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_text_e which, ngx_str_t *text);
static ngx_int_t ngx_http_llm_count_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static int64_t ngx_http_llm_count(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_count_e which);
static ngx_int_t ngx_http_llm_time_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_time(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_time_e which, ngx_msec_t *time_ms);


static ngx_http_variable_t  ngx_http_llm_vars[] = {

    { ngx_string("llm_id"), NULL, ngx_http_llm_id_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_prefix"), NULL, ngx_http_llm_prefix_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_dialect"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_VAR_DIALECT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_model"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_VAR_MODEL, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_served_model"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_VAR_SERVED_MODEL, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_is_stream"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_VAR_IS_STREAM, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_usage_source"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_VAR_SOURCE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_finish_reason"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_VAR_FINISH, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_end"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_VAR_END, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_limit_status"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_VAR_LIMIT_STATUS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_limit_zone"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_VAR_LIMIT_ZONE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_prompt_tokens"), NULL, ngx_http_llm_count_variable,
      NGX_HTTP_LLM_VAR_PROMPT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_cached_tokens"), NULL, ngx_http_llm_count_variable,
      NGX_HTTP_LLM_VAR_CACHED, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_completion_tokens"), NULL, ngx_http_llm_count_variable,
      NGX_HTTP_LLM_VAR_COMPLETION, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_reasoning_tokens"), NULL, ngx_http_llm_count_variable,
      NGX_HTTP_LLM_VAR_REASONING, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_total_tokens"), NULL, ngx_http_llm_count_variable,
      NGX_HTTP_LLM_VAR_TOTAL, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_estimated_tokens"), NULL, ngx_http_llm_count_variable,
      NGX_HTTP_LLM_VAR_ESTIMATED, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_reserved_tokens"), NULL, ngx_http_llm_count_variable,
      NGX_HTTP_LLM_VAR_RESERVED, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_events"), NULL, ngx_http_llm_count_variable,
      NGX_HTTP_LLM_VAR_EVENTS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_inflight"), NULL, ngx_http_llm_count_variable,
      NGX_HTTP_LLM_VAR_INFLIGHT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_first_token_time"), NULL, ngx_http_llm_time_variable,
      NGX_HTTP_LLM_VAR_FIRST_TOKEN, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_token_time"), NULL, ngx_http_llm_time_variable,
      NGX_HTTP_LLM_VAR_TOKEN, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_limit_wait"), NULL, ngx_http_llm_time_variable,
      NGX_HTTP_LLM_VAR_LIMIT_WAIT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_queue_wait"), NULL, ngx_http_llm_time_variable,
      NGX_HTTP_LLM_VAR_QUEUE_WAIT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


/* by ngx_http_llm_end_e */

static ngx_str_t  ngx_http_llm_ends[] = {
    ngx_null_string,
    ngx_string("done"),
    ngx_string("client_abort"),
    ngx_string("first_token_timeout"),
    ngx_string("idle_timeout"),
    ngx_string("total_timeout"),
    ngx_string("upstream_error"),
    ngx_string("upstream_truncated"),
    ngx_string("content_filter"),
    ngx_string("limit_cut"),
    ngx_string("cancelled"),
    ngx_string("rejected"),
    ngx_string("queue_full"),
    ngx_string("queue_timeout"),
    ngx_string("shutdown")
};


/* by ngx_http_llm_source_e */

static ngx_str_t  ngx_http_llm_sources[] = {
    ngx_string("none"),
    ngx_string("estimate"),
    ngx_string("upstream")
};


/* by ngx_http_llm_limit_status_e */

static ngx_str_t  ngx_http_llm_limit_statuses[] = {
    ngx_null_string,
    ngx_string("PASSED"),
    ngx_string("DELAYED"),
    ngx_string("REJECTED"),
    ngx_string("REJECTED_DRY_RUN"),
    ngx_string("DELAYED_DRY_RUN")
};


ngx_int_t
ngx_http_llm_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_http_llm_vars; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


static void
ngx_http_llm_set_variable(ngx_http_variable_value_t *v, u_char *data,
    size_t len)
{
    v->data = data;
    v->len = len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
}


static ngx_int_t
ngx_http_llm_id_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_find_ctx(r);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    if (ngx_http_llm_make_id(ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_llm_set_variable(v, ctx->id.data, ctx->id.len);

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_prefix_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char              *p, *last;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_find_ctx(r);

    if (ctx == NULL || ctx->facts == NULL || ctx->facts->prefix_hash == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, 16);
    if (p == NULL) {
        return NGX_ERROR;
    }

    last = ngx_sprintf(p, "%016xL", ctx->facts->prefix_hash);

    ngx_http_llm_set_variable(v, p, last - p);

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_text_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t            text;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_find_ctx(r);

    if (ctx == NULL
        || ngx_http_llm_text(ctx, (ngx_http_llm_text_e) data, &text) != NGX_OK
        || text.len == 0)
    {
        v->not_found = 1;
        return NGX_OK;
    }

    ngx_http_llm_set_variable(v, text.data, text.len);

    return NGX_OK;
}


/* see ngx_http_llm_relay_t */

static ngx_int_t
ngx_http_llm_name(u_char *name, ngx_str_t *text)
{
    if (name == NULL) {
        return NGX_DECLINED;
    }

    text->data = name + 1;
    text->len = name[0];

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_text(ngx_http_llm_ctx_t *ctx, ngx_http_llm_text_e which,
    ngx_str_t *text)
{
    ngx_llm_answer_t     *answer;
    const ngx_llm_api_t  *api;

    answer = ctx->relay ? &ctx->relay->answer : NULL;

    switch (which) {

    case NGX_HTTP_LLM_VAR_DIALECT:
        api = answer && answer->api ? answer->api : ctx->api;

        if (api == NULL) {
            return NGX_DECLINED;
        }

        text->data = (u_char *) ngx_llm_api_dialect(api);
        text->len = ngx_strlen(text->data);
        return NGX_OK;

    case NGX_HTTP_LLM_VAR_MODEL:
        *text = ctx->model;
        return NGX_OK;

    case NGX_HTTP_LLM_VAR_SERVED_MODEL:
        if (answer == NULL) {
            return NGX_DECLINED;
        }

        return ngx_http_llm_name(ctx->relay->served_model, text);

    case NGX_HTTP_LLM_VAR_IS_STREAM:
        if (ctx->facts == NULL && ctx->api == NULL) {
            return NGX_DECLINED;
        }

        text->data = (u_char *) (ctx->stream ? "1" : "0");
        text->len = 1;
        return NGX_OK;

    case NGX_HTTP_LLM_VAR_SOURCE:
        *text = ngx_http_llm_sources[ctx->bill->source];
        return NGX_OK;

    case NGX_HTTP_LLM_VAR_FINISH:
        if (answer == NULL) {
            return NGX_DECLINED;
        }

        return ngx_http_llm_name(ctx->relay->finish, text);

    case NGX_HTTP_LLM_VAR_END:
        *text = ngx_http_llm_ends[ctx->end];
        return NGX_OK;

    case NGX_HTTP_LLM_VAR_LIMIT_STATUS:
        *text = ngx_http_llm_limit_statuses[ngx_http_llm_limit_status(ctx)];
        return NGX_OK;

    case NGX_HTTP_LLM_VAR_LIMIT_ZONE:
        *text = ngx_http_llm_limit_zone_name(ctx);
        return NGX_OK;
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_llm_count_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char              *p, *last;
    int64_t              count;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_find_ctx(r);

    count = ctx ? ngx_http_llm_count(ctx, (ngx_http_llm_count_e) data) : -1;

    if (count < 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    last = ngx_sprintf(p, "%L", count);

    ngx_http_llm_set_variable(v, p, last - p);

    return NGX_OK;
}


/* -1: not known, or not to be told */

static int64_t
ngx_http_llm_count(ngx_http_llm_ctx_t *ctx, ngx_http_llm_count_e which)
{
    const ngx_llm_usage_t  *usage;

    usage = &ctx->bill->usage;

    switch (which) {

    case NGX_HTTP_LLM_VAR_PROMPT:
        return usage->prompt;

    case NGX_HTTP_LLM_VAR_CACHED:
        return usage->cached;

    case NGX_HTTP_LLM_VAR_COMPLETION:
        return usage->completion;

    case NGX_HTTP_LLM_VAR_REASONING:
        return usage->reasoning;

    case NGX_HTTP_LLM_VAR_TOTAL:
        if (usage->prompt < 0 && usage->completion < 0) {
            return -1;
        }

        return ngx_max(usage->prompt, 0) + ngx_max(usage->completion, 0);

    case NGX_HTTP_LLM_VAR_ESTIMATED:
        return ctx->facts ? ctx->estimated_tokens : -1;

    case NGX_HTTP_LLM_VAR_RESERVED:
        return ctx->charge ? ngx_http_llm_limit_reserved(ctx) : -1;

    case NGX_HTTP_LLM_VAR_EVENTS:
        return ctx->relay && ctx->relay->stream
               ? (int64_t) ctx->relay->answer.events : -1;

    case NGX_HTTP_LLM_VAR_INFLIGHT:
        return ctx->inflight ? (int64_t) ctx->inflight : -1;
    }

    return -1;
}


/* seconds with milliseconds, as $request_time has it */

static ngx_int_t
ngx_http_llm_time_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char              *p, *last;
    ngx_msec_t           time_ms;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_find_ctx(r);

    if (ctx == NULL
        || ngx_http_llm_time(ctx, (ngx_http_llm_time_e) data, &time_ms)
           != NGX_OK)
    {
        v->not_found = 1;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, NGX_TIME_T_LEN + 4);
    if (p == NULL) {
        return NGX_ERROR;
    }

    last = ngx_sprintf(p, "%T.%03M", (time_t) (time_ms / 1000),
                       time_ms % 1000);

    ngx_http_llm_set_variable(v, p, last - p);

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_time(ngx_http_llm_ctx_t *ctx, ngx_http_llm_time_e which,
    ngx_msec_t *time_ms)
{
    uint64_t  gaps;

    switch (which) {

    case NGX_HTTP_LLM_VAR_FIRST_TOKEN:
        if (ctx->first_content_ms == 0) {
            return NGX_DECLINED;
        }

        *time_ms = ctx->first_content_ms - ctx->start_ms;
        return NGX_OK;

    case NGX_HTTP_LLM_VAR_TOKEN:
        if (ctx->first_content_ms == 0
            || ctx->relay->answer.content_events < 2)
        {
            return NGX_DECLINED;
        }

        gaps = ctx->relay->answer.content_events - 1;
        *time_ms = (ctx->last_content_ms - ctx->first_content_ms) / gaps;
        return NGX_OK;

    case NGX_HTTP_LLM_VAR_LIMIT_WAIT:
        if (ctx->charge == NULL) {
            return NGX_DECLINED;
        }

        *time_ms = ngx_http_llm_limit_wait_ms(ctx);
        return NGX_OK;

    case NGX_HTTP_LLM_VAR_QUEUE_WAIT:
        if (ctx->turn == NULL) {
            return NGX_DECLINED;
        }

        *time_ms = ctx->turn->wait_ms;
        return NGX_OK;
    }

    return NGX_DECLINED;
}
