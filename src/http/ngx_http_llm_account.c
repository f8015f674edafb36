
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_account.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_model.h"
#include "ngx_http_llm_relay.h"


static ngx_http_llm_end_e ngx_http_llm_account_why(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_int_t rc);
static ngx_uint_t ngx_http_llm_account_is_free(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_account_bill(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_bill_t *bill);
static void ngx_http_llm_account_learn(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);


const ngx_http_llm_bill_t  ngx_http_llm_account_unknown = {
    { -1, -1, -1, -1 },
    NGX_HTTP_LLM_USAGE_NONE
};


void
ngx_http_llm_account_end(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_int_t rc)
{
    ngx_http_llm_bill_t   bill;
    ngx_http_llm_bill_t  *kept;

    if (ctx->closed) {
        return;
    }

    bill = ngx_http_llm_account_unknown;

    ngx_http_llm_relay_finish(r, ctx);

    if (ctx->end == NGX_HTTP_LLM_END_NONE) {
        ctx->end = ngx_http_llm_account_why(r, ctx, rc);
    }

    if (!r->upstream->header_sent
        && rc >= NGX_HTTP_SPECIAL_RESPONSE
        && ctx->end != NGX_HTTP_LLM_END_CLIENT_ABORT)
    {
        ctx->failed = 1;
        return;
    }

    ctx->closed = 1;

    if (ngx_http_llm_account_is_free(r, ctx)) {
        ngx_http_llm_limit_abandon(ctx);

    } else if (ctx->relay && ctx->relay->blind) {

        /* nobody can say what it was: what was estimated for it stays */

        ngx_http_llm_limit_keep(ctx);

        bill.usage.prompt = ctx->facts ? ctx->estimated_tokens : -1;

    } else {
        ngx_http_llm_account_bill(r, ctx, &bill);
        ngx_http_llm_account_learn(r, ctx);
        ngx_http_llm_limit_settle(ctx, &bill.usage);
    }

    kept = ngx_palloc(r->pool, sizeof(ngx_http_llm_bill_t));

    if (kept) {
        *kept = bill;
        ctx->bill = kept;
    }

    ngx_log_debug4(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm account: end:%ui source:%ui prompt:%L completion:%L",
                   (ngx_uint_t) ctx->end, (ngx_uint_t) bill.source,
                   bill.usage.prompt, bill.usage.completion);
}


void
ngx_http_llm_account_abandon(ngx_http_llm_ctx_t *ctx)
{
    if (!ctx->closed) {
        ctx->closed = 1;
        ngx_http_llm_limit_abandon(ctx);
    }
}


static ngx_http_llm_end_e
ngx_http_llm_account_why(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_int_t rc)
{
    unsigned              seen;
    ngx_connection_t     *c;
    ngx_http_upstream_t  *u;

    c = r->connection;
    u = r->upstream;

    seen = ctx->relay ? ctx->relay->answer.seen : 0;

    if (seen & NGX_LLM_EV_ERROR) {
        return NGX_HTTP_LLM_END_UPSTREAM_ERROR;
    }

    /* an error's body is complete as well, whatever its form */

    if ((seen & NGX_LLM_EV_END)
        && u->headers_in.status_n < NGX_HTTP_BAD_REQUEST)
    {
        return (seen & NGX_LLM_EV_FILTER) ? NGX_HTTP_LLM_END_CONTENT_FILTER
                                          : NGX_HTTP_LLM_END_DONE;
    }

    if (c->error
        || c->timedout
        || rc == NGX_DONE
        || rc == NGX_HTTP_CLIENT_CLOSED_REQUEST
        || rc == NGX_HTTP_REQUEST_TIME_OUT)
    {
        return NGX_HTTP_LLM_END_CLIENT_ABORT;
    }

    if (!u->header_sent) {
        return rc == NGX_HTTP_GATEWAY_TIME_OUT && u->request_body_sent
               ? NGX_HTTP_LLM_END_FIRST_TOKEN_TIMEOUT
               : NGX_HTTP_LLM_END_UPSTREAM_ERROR;
    }

    if (u->headers_in.status_n >= NGX_HTTP_BAD_REQUEST) {
        return NGX_HTTP_LLM_END_UPSTREAM_ERROR;
    }

    if (rc != NGX_OK) {
        return NGX_HTTP_LLM_END_UPSTREAM_TRUNCATED;
    }

    if (ctx->relay
        && ctx->relay->stream
        && ngx_http_llm_relay_is_incomplete(ctx->relay)
        && !ngx_http_llm_relay_is_unread(ctx->relay))
    {
        return NGX_HTTP_LLM_END_UPSTREAM_TRUNCATED;
    }

    return (seen & NGX_LLM_EV_FILTER) ? NGX_HTTP_LLM_END_CONTENT_FILTER
                                      : NGX_HTTP_LLM_END_DONE;
}


/*
 * Nothing was sent, or upstream failed before any content: no charge.  A
 * client that leaves pays, from the moment the request was sent.
 */

static ngx_uint_t
ngx_http_llm_account_is_free(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_upstream_t  *u;
    ngx_http_llm_end_e    end;

    u = r->upstream;
    end = ctx->end;

    if (!u->request_sent
        || (u->header_sent
            && u->headers_in.status_n >= NGX_HTTP_BAD_REQUEST))
    {
        return 1;
    }

    /* a JSON error in a 200 */

    if (ctx->relay
        && !ctx->relay->stream
        && (ctx->relay->answer.seen & NGX_LLM_EV_ERROR)
        && !(ctx->relay->answer.seen & NGX_LLM_EV_CONTENT))
    {
        return 1;
    }

    if (ctx->first_content_ms
        || (ctx->relay && !ctx->relay->stream
            && (ctx->relay->held || ctx->relay->blind))
        || end == NGX_HTTP_LLM_END_CLIENT_ABORT
        || end == NGX_HTTP_LLM_END_CANCELLED)
    {
        return 0;
    }

    return end != NGX_HTTP_LLM_END_DONE
           && end != NGX_HTTP_LLM_END_CONTENT_FILTER;
}


/*
 * What upstream reported, field by field; what it did not, by the estimate.
 * The report of an answer that did not finish is not its last word: at least
 * what was seen is charged.
 */

static void
ngx_http_llm_account_bill(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_bill_t *bill)
{
    int64_t                    seen_tokens;
    ngx_llm_ratio_t            ratio;
    ngx_llm_answer_t          *answer;
    ngx_http_llm_main_conf_t  *lmcf;

    answer = ctx->relay ? &ctx->relay->answer : NULL;

    if (answer && (answer->seen & NGX_LLM_EV_USAGE)) {
        bill->usage = ngx_llm_answer_usage(answer);
        bill->source = NGX_HTTP_LLM_USAGE_UPSTREAM;
    }

    if (bill->usage.prompt < 0 && ctx->facts) {
        bill->usage.prompt = ctx->estimated_tokens;

        if (bill->source == NGX_HTTP_LLM_USAGE_NONE) {
            bill->source = NGX_HTTP_LLM_USAGE_ESTIMATE;
        }
    }

    if (answer == NULL) {
        return;
    }

    if (bill->source == NGX_HTTP_LLM_USAGE_UPSTREAM
        && (!ctx->relay->stream
            || (answer->seen & (NGX_LLM_EV_END|NGX_LLM_EV_FINISH))))
    {
        return;
    }

    if (ngx_llm_text_bytes(&answer->content) == 0) {
        return;
    }

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_stream_module);

    ratio = ngx_http_llm_model_ratio(lmcf->models, &ctx->model,
                                     NGX_HTTP_LLM_MODEL_COMPLETION);

    seen_tokens = ngx_llm_estimate(&ratio,
                                   ngx_llm_estimate_raw(&answer->content), 0);

    /* no vendor sends less than a token at a time */

    seen_tokens = ngx_max(seen_tokens, (int64_t) answer->content_events);

    if (seen_tokens > bill->usage.completion) {
        bill->usage.completion = seen_tokens;
        bill->source = NGX_HTTP_LLM_USAGE_ESTIMATE;
    }
}


/* our estimates, beside upstream's own counts */

static void
ngx_http_llm_account_learn(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    int64_t                    reported;
    ngx_llm_usage_t            usage;
    ngx_llm_answer_t          *answer;
    ngx_http_llm_facts_t      *facts;
    ngx_http_llm_main_conf_t  *lmcf;

    facts = ctx->facts;

    if (facts == NULL || ctx->relay == NULL) {
        return;
    }

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_stream_module);
    answer = &ctx->relay->answer;
    usage = ngx_llm_answer_usage(answer);

    if (!facts->media && usage.prompt > 0) {
        reported = usage.prompt - facts->part_tokens;

        ngx_http_llm_model_learn(lmcf->models, &ctx->model,
                                 NGX_HTTP_LLM_MODEL_PROMPT, ctx->raw_tokens,
                                 reported);
    }

    /* what a model thinks it may count, but not show */

    if (usage.completion > 0
        && usage.reasoning <= 0
        && !(answer->seen & NGX_LLM_EV_UNREAD)
        && (!ctx->relay->stream
            || (answer->seen & (NGX_LLM_EV_END|NGX_LLM_EV_FINISH))))
    {
        ngx_http_llm_model_learn(lmcf->models, &ctx->model,
                                 NGX_HTTP_LLM_MODEL_COMPLETION,
                                 ngx_llm_estimate_raw(&answer->content),
                                 usage.completion);
    }
}
