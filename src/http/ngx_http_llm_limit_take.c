
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include <ngx_sha1.h>

#include "ngx_http_llm_charge.h"


/*
 * completion tokens of a request that names no maximum, for each choice, as
 * long as nothing was learned: rather too many, what is left comes back
 */
#define NGX_HTTP_LLM_LIMIT_UNKNOWN   1024

/* .. but no more than this part of the burst, which may be in use */
#define NGX_HTTP_LLM_LIMIT_PART      4

/* what nanoseconds can express */
#define NGX_HTTP_LLM_LIMIT_WAIT_MS   ((ngx_msec_t) (INT64_MAX / 1000000))

/* nginx' clock is that of the turn, in milliseconds: it is later by now */
#define NGX_HTTP_LLM_LIMIT_LATE_NS   1000


static ngx_int_t ngx_http_llm_limit_rates(ngx_http_request_t *r,
    ngx_http_llm_limit_zone_t *lz, ngx_llm_rate_t *rates);
static ngx_int_t ngx_http_llm_limit_burst(ngx_http_request_t *r,
    ngx_http_llm_limit_zone_t *lz, ngx_uint_t b, ngx_llm_rate_t *rate);
static void ngx_http_llm_limit_digest(u_char *digest, ngx_str_t *key);
static void ngx_http_llm_limit_need(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_limit_t *limit, ngx_http_llm_take_t *take);
static int64_t ngx_http_llm_limit_unknown(ngx_http_llm_take_t *take,
    int64_t n);


ngx_int_t
ngx_http_llm_limit_prepare(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_take_t *takes, ngx_uint_t *n)
{
    ngx_str_t                   key;
    ngx_uint_t                  i;
    ngx_http_llm_take_t        *take;
    ngx_http_llm_limit_t       *limits;
    ngx_http_llm_loc_conf_t    *llcf;
    ngx_http_llm_limit_zone_t  *lz;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    limits = llcf->limit.limits->elts;

    *n = 0;

    for (i = 0; i < llcf->limit.limits->nelts; i++) {
        lz = limits[i].shm_zone->data;
        take = &takes[*n];

        if (ngx_http_complex_value(r, &lz->key, &key) != NGX_OK) {
            return NGX_ERROR;
        }

        if (key.len == 0) {
            continue;
        }

        if (ngx_http_llm_limit_rates(r, lz, take->rates) != NGX_OK) {
            return NGX_ERROR;
        }

        if (take->rates[NGX_HTTP_LLM_TOKENS].tokens == 0
            && take->rates[NGX_HTTP_LLM_REQUESTS].tokens == 0)
        {
            continue;
        }

        take->zone = &lz->zone;
        take->elsewhere = 0;
        take->weights = &lz->weights;
        take->wait_ns = (int64_t) ngx_min(limits[i].wait_ms,
                                          NGX_HTTP_LLM_LIMIT_WAIT_MS)
                        * 1000000;
        take->late_ns = NGX_HTTP_LLM_LIMIT_LATE_NS;

        ngx_http_llm_limit_digest(take->digest, &key);
        ngx_http_llm_limit_need(ctx, &limits[i], take);

        (*n)++;
    }

    return NGX_OK;
}


/* a value that is no rate fails the request: it would be unlimited else */

static ngx_int_t
ngx_http_llm_limit_rates(ngx_http_request_t *r, ngx_http_llm_limit_zone_t *lz,
    ngx_llm_rate_t *rates)
{
    ngx_str_t               value;
    ngx_uint_t              b;
    const char             *reason;
    ngx_llm_str_t           text;
    ngx_llm_rate_t         *rate;
    ngx_http_llm_budget_t  *budget;

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        budget = &lz->budgets[b];
        rate = &rates[b];

        *rate = budget->fixed;

        if (budget->rate) {
            if (ngx_http_complex_value(r, budget->rate, &value) != NGX_OK) {
                return NGX_ERROR;
            }

            text.data = value.data;
            text.len = value.len;

            if (ngx_llm_rate_parse(rate, text, &reason) != NGX_LLM_OK) {
                ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                              "llm limit: invalid rate \"%V\" from \"%V\" "
                              "for zone \"%V\", allowed is %s",
                              &value, &budget->rate->value,
                              &lz->zone.shm_zone->shm.name, reason);
                return NGX_ERROR;
            }
        }

        if (rate->tokens > 0
            && ngx_http_llm_limit_burst(r, lz, b, rate) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_limit_burst(ngx_http_request_t *r, ngx_http_llm_limit_zone_t *lz,
    ngx_uint_t b, ngx_llm_rate_t *rate)
{
    int64_t                    most;
    ngx_str_t                  value;
    const char                *reason;
    ngx_llm_str_t              text;
    ngx_http_complex_value_t  *burst;

    burst = lz->budgets[b].burst;

    if (burst) {
        if (ngx_http_complex_value(r, burst, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        text.data = value.data;
        text.len = value.len;

        if (value.len != 0
            && !(value.len == 3 && ngx_strncmp(value.data, "off", 3) == 0)
            && ngx_llm_count_parse(&rate->burst, text, &reason)
               != NGX_LLM_OK)
        {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "llm limit: invalid burst \"%V\" from \"%V\" "
                          "for zone \"%V\", allowed is %s",
                          &value, &burst->value,
                          &lz->zone.shm_zone->shm.name, reason);
            return NGX_ERROR;
        }
    }

    if (rate->burst == 0) {
        rate->burst = rate->tokens;
    }

    if (lz->budgets[b].rate || burst) {
        most = ngx_llm_rate_most(rate);

        if (rate->burst > most) {
            ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                          "llm limit: burst %L for zone \"%V\" is more than "
                          "its rate gives in 146 years, %L is used",
                          rate->burst, &lz->zone.shm_zone->shm.name, most);
            rate->burst = most;
        }
    }

    return NGX_OK;
}


static void
ngx_http_llm_limit_digest(u_char *digest, ngx_str_t *key)
{
    ngx_sha1_t  sha1;

    ngx_sha1_init(&sha1);
    ngx_sha1_update(&sha1, key->data, key->len);
    ngx_sha1_final(digest, &sha1);
}


static void
ngx_http_llm_limit_need(ngx_http_llm_ctx_t *ctx, ngx_http_llm_limit_t *limit,
    ngx_http_llm_take_t *take)
{
    int64_t                most;
    ngx_uint_t             fixed, named;
    ngx_http_llm_facts_t  *facts;

    facts = ctx->facts;

    fixed = (limit->reserve == NGX_HTTP_LLM_RESERVE_FIXED);
    named = (facts->max_output >= 0);

    most = named ? ngx_http_llm_all_output(facts) : NGX_LLM_MAX_TOKENS;
    most = ngx_min(most, NGX_LLM_MAX_TOKENS);

    if (ngx_llm_api_prompt_only(ctx->api)) {
        named = 1;
        most = 0;
    }

    take->completion_max = most;

    if (fixed) {
        most = ngx_min(most, limit->reserve_tokens);
    }

    take->prompt = ctx->estimated_tokens + ctx->margin_tokens;

    take->completion = (named || fixed)
                       ? most : ngx_http_llm_limit_unknown(take, facts->n);

    take->use_level = (limit->reserve == NGX_HTTP_LLM_RESERVE_AUTO
                      || (limit->reserve == NGX_HTTP_LLM_RESERVE_MAX
                          && !named));

    /* the margin is not what the request asks for */

    take->need = ngx_llm_weigh(take->weights, ctx->estimated_tokens, 0,
                               named ? most : 0, 0);

    take->model = ngx_crc32_short(ctx->model.data, ctx->model.len);

    if (take->model == 0) {
        take->model = 1;
    }
}


/*
 * A key that is in use hardly ever has a full bucket: what is reserved for
 * no other reason than that nothing is known must not ask for one.
 */

static int64_t
ngx_http_llm_limit_unknown(ngx_http_llm_take_t *take, int64_t n)
{
    int64_t  burst, most, weight_1000;

    burst = take->rates[NGX_HTTP_LLM_TOKENS].burst;
    weight_1000 = take->weights->completion_1000;
    most = NGX_HTTP_LLM_LIMIT_UNKNOWN * n;

    /* in whole numbers: a burst may be 1e12, times 1000 it fits */

    if (weight_1000 > 0) {
        most = ngx_min(most, burst * 1000
                             / (NGX_HTTP_LLM_LIMIT_PART * weight_1000));
    }

    return most;
}
