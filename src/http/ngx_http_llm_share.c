
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_account.h"
#include "ngx_http_llm_block.h"
#include "ngx_http_llm_charge.h"
#include "ngx_http_llm_wait.h"


/* a charge outlives its request by so much in Redis, if nobody ends it */
#define NGX_HTTP_LLM_SHARE_SLACK_MS  (60 * 1000)
#define NGX_HTTP_LLM_SHARE_MAX_MS    (24 * 60 * 60 * 1000)

/* when to come again where nobody could decide */
#define NGX_HTTP_LLM_SHARE_RETRY_MS  1000


static ngx_http_llm_share_t *ngx_http_llm_share_create(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_take_t *take);
static void ngx_http_llm_share_handler(void *data,
    const ngx_http_llm_redis_answer_t *answer);
static ngx_msec_int_t ngx_http_llm_share_look(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_share_asked(ngx_http_llm_ctx_t *ctx,
    ngx_msec_t slept_ms, ngx_uint_t over);
static ngx_int_t ngx_http_llm_share_decided(ngx_http_request_t *r,
    ngx_http_llm_charge_t *charge, ngx_http_llm_part_t *part);
static ngx_int_t ngx_http_llm_share_fall_back(ngx_http_request_t *r,
    ngx_http_llm_charge_t *charge, ngx_http_llm_part_t *part);


ngx_int_t
ngx_http_llm_share_begin(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_take_t *takes, ngx_uint_t n)
{
    ngx_uint_t                  i;
    ngx_http_llm_part_t        *part;
    ngx_http_llm_charge_t      *charge;
    ngx_http_llm_limit_zone_t  *lz;

    charge = ctx->charge;

    for (i = 0; i < n; i++) {
        lz = (ngx_http_llm_limit_zone_t *) takes[i].zone;

        if (lz->redis == NULL) {
            continue;
        }

        /* they are needed until the answer is there */

        if (charge->takes == NULL) {
            charge->takes = ngx_pnalloc(r->pool,
                                        n * sizeof(ngx_http_llm_take_t));
            if (charge->takes == NULL) {
                return NGX_ERROR;
            }

            ngx_memcpy(charge->takes, takes, n * sizeof(ngx_http_llm_take_t));
        }

        charge->takes[i].elsewhere = 1;
        charge->takes[i].lease = lz->lease_percent;

        part = &charge->parts[i];

        part->share = ngx_http_llm_share_create(r, ctx, &charge->takes[i]);
        if (part->share == NULL) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_http_llm_share_t *
ngx_http_llm_share_create(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_take_t *take)
{
    ngx_msec_t                    keep_ms;
    ngx_uint_t                    b;
    ngx_http_llm_share_t         *share;
    ngx_http_llm_loc_conf_t      *llcf;
    ngx_http_llm_limit_zone_t    *lz;
    ngx_http_llm_redis_charge_t  *charge;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    lz = (ngx_http_llm_limit_zone_t *) take->zone;

    share = ngx_pcalloc(r->pool, sizeof(ngx_http_llm_share_t));
    if (share == NULL) {
        return NULL;
    }

    share->ctx = ctx;
    share->take = take;
    share->status = NGX_HTTP_LLM_REDIS_FAILED;

    charge = &share->charge;

    charge->redis = lz->redis;
    charge->zone = lz->zone.shm_zone->shm.name;

    ngx_memcpy(charge->digest, take->digest, NGX_HTTP_LLM_REDIS_DIGEST);

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        charge->rates[b] = take->rates[b];
    }

    keep_ms = NGX_HTTP_LLM_SHARE_MAX_MS;

    if (llcf->total_timeout_ms) {
        keep_ms = ngx_min(keep_ms, llcf->total_timeout_ms
                                   + (ngx_msec_t) (take->wait_ns / 1000000)
                                   + NGX_HTTP_LLM_SHARE_SLACK_MS);
    }

    charge->keep_ms = keep_ms;

    ngx_http_llm_redis_name_charge(charge);

    return share;
}


ngx_int_t
ngx_http_llm_share_ask(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t                   i;
    ngx_msec_t                   timeout_ms, wait_ms;
    ngx_http_llm_take_t         *take;
    ngx_http_llm_share_t        *share;
    ngx_http_llm_charge_t       *charge;
    ngx_http_llm_redis_facts_t   facts;

    charge = ctx->charge;
    charge->asking = 1;
    wait_ms = 0;

    facts.model = ctx->model;
    facts.estimated = ctx->estimated_tokens;

    for (i = 0; i < charge->nparts; i++) {
        share = charge->parts[i].share;

        if (share == NULL) {
            continue;
        }

        take = share->take;

        if (take->lease) {
            ngx_http_llm_block_look(charge->parts[i].zone, take->digest);
        }

        /* from here on it is the zone's, as the budgets of others are */

        if (take->leased) {
            charge->parts[i].share = NULL;
            continue;
        }

        share->call = ngx_http_llm_redis_reserve(&share->charge, take->costs,
                                                 take->wait_ns, &facts,
                                                 ngx_http_llm_share_handler,
                                                 share);
        if (share->call) {
            timeout_ms = ngx_http_llm_redis_timeout_ms(share->charge.redis);
            wait_ms = ngx_max(wait_ms, timeout_ms);
        }
    }

    if (wait_ms == 0) {
        return NGX_OK;
    }

    return ngx_http_llm_wait(ctx, wait_ms, ngx_http_llm_share_look,
                             ngx_http_llm_share_asked,
                             ngx_http_core_run_phases);
}


static void
ngx_http_llm_share_handler(void *data,
    const ngx_http_llm_redis_answer_t *answer)
{
    ngx_http_llm_share_t *share = data;

    int64_t                 delay_ns;
    ngx_uint_t              b, i;
    ngx_http_llm_ctx_t     *ctx;
    ngx_http_llm_take_t    *take;
    ngx_http_llm_charge_t  *charge;

    ctx = share->ctx;
    take = share->take;
    charge = ctx->charge;

    share->call = NULL;
    share->status = answer->status;

    if (answer->status == NGX_HTTP_LLM_REDIS_TAKEN) {
        ngx_http_llm_share_open(share);
    }

    if (answer->status != NGX_HTTP_LLM_REDIS_FAILED) {
        delay_ns = 0;

        for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
            take->delay_ns[b] = answer->delay_ns[b];
            take->level[b] = answer->level[b];
            take->full_ns[b] = answer->full_ns[b];

            delay_ns = ngx_max(delay_ns, answer->delay_ns[b]);
        }

        if (share->open && delay_ns > 0) {
            take->start_ns = ngx_http_llm_zone_now() + delay_ns;
        }
    }

    if (answer->reason.len) {
        share->reason.data = ngx_pnalloc(ctx->request->pool,
                                         answer->reason.len + 1);

        if (share->reason.data) {
            share->reason.len = answer->reason.len;
            ngx_cpystrn(share->reason.data, answer->reason.data,
                        answer->reason.len + 1);
        }
    }

    for (i = 0; i < charge->nparts; i++) {
        if (charge->parts[i].share && charge->parts[i].share->call) {
            return;
        }
    }

    ngx_http_llm_wait_end(ctx);
}


/* nothing in this machine's zones ends it */

static ngx_msec_int_t
ngx_http_llm_share_look(ngx_http_llm_ctx_t *ctx)
{
    return -1;
}


static void
ngx_http_llm_share_asked(ngx_http_llm_ctx_t *ctx, ngx_msec_t slept_ms,
    ngx_uint_t over)
{
    /* void */
}


ngx_int_t
ngx_http_llm_share_answered(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    int64_t                 now_ns;
    ngx_int_t               rc;
    ngx_uint_t              b, i;
    ngx_http_llm_part_t    *part;
    ngx_http_llm_take_t    *take;
    ngx_http_llm_charge_t  *charge;

    charge = ctx->charge;
    charge->asking = 0;

    now_ns = ngx_http_llm_zone_now();
    rc = NGX_OK;

    for (i = 0; i < charge->nparts; i++) {
        part = &charge->parts[i];
        take = &charge->takes[i];

        if (part->share) {
            if (ngx_http_llm_share_decided(r, charge, part) != NGX_OK) {
                rc = NGX_BUSY;
            }

            continue;
        }

        /* meanwhile a part of it is over */

        for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
            take->delay_ns[b] = ngx_min(take->delay_ns[b],
                                        ngx_max(take->start_ns - now_ns, 0));
        }
    }

    if (rc != NGX_OK) {
        ngx_http_llm_limit_abandon(ctx);
    }

    return rc;
}


static ngx_int_t
ngx_http_llm_share_decided(ngx_http_request_t *r,
    ngx_http_llm_charge_t *charge, ngx_http_llm_part_t *part)
{
    ngx_http_llm_share_t  *share;

    share = part->share;

    if (share->call) {
        ngx_http_llm_redis_forget(share->call);
        share->call = NULL;
    }

    switch (share->status) {

    case NGX_HTTP_LLM_REDIS_TAKEN:
        return NGX_OK;

    case NGX_HTTP_LLM_REDIS_REFUSED:
        return NGX_BUSY;

    case NGX_HTTP_LLM_REDIS_DENIED:
        share->take->refused = 1;
        return NGX_BUSY;

    case NGX_HTTP_LLM_REDIS_FAILED:
        return ngx_http_llm_share_fall_back(r, charge, part);
    }

    return NGX_BUSY;
}


static ngx_int_t
ngx_http_llm_share_fall_back(ngx_http_request_t *r,
    ngx_http_llm_charge_t *charge, ngx_http_llm_part_t *part)
{
    ngx_int_t              rc;
    ngx_http_llm_zone_t   *zone;
    ngx_http_llm_take_t   *take;
    ngx_http_llm_share_t  *share;

    share = part->share;
    take = share->take;
    zone = take->zone;

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "llm limit: zone \"%V\", no answer of \"%V\": its fallback "
                  "decides", &zone->shm_zone->shm.name,
                  ngx_http_llm_redis_name(share->charge.redis));

    switch (ngx_http_llm_redis_fallback(share->charge.redis)) {

    case NGX_HTTP_LLM_REDIS_LOCAL:

        ngx_http_llm_zone_settle(zone, part->hold, NULL, -1,
                                 ngx_http_llm_zone_now());

        take->elsewhere = 0;

        rc = ngx_http_llm_zone_reserve(take, 1, ngx_http_llm_zone_now());

        part->hold = take->hold;
        part->share = NULL;

        return rc;

    case NGX_HTTP_LLM_REDIS_OPEN:

        /* the hold stays, for what the answer teaches */

        part->share = NULL;

        return NGX_OK;

    case NGX_HTTP_LLM_REDIS_CLOSED:
        break;
    }

    take->refused = 1;

    return NGX_BUSY;
}


const char *
ngx_http_llm_share_refusal(ngx_http_llm_charge_t *charge,
    const ngx_http_llm_take_t *take, const char **message)
{
    ngx_http_llm_share_t  *share;

    if (charge->takes == NULL) {
        return NULL;
    }

    share = charge->parts[take - charge->takes].share;

    /* without a hold, for which the zone had no room, nobody was asked */

    if (share == NULL || take->hold == NULL) {
        return NULL;
    }

    if (share->status == NGX_HTTP_LLM_REDIS_DENIED) {
        *message = share->reason.len ? (char *) share->reason.data
                                     : "Request denied by policy.";
        return "denied by its script";
    }

    charge->reject_status = NGX_HTTP_SERVICE_UNAVAILABLE;
    charge->retry_ms = NGX_HTTP_LLM_SHARE_RETRY_MS;
    *message = "Rate limits cannot be checked now. Please try again later.";

    return "has no answer from Redis";
}
