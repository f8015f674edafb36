
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_account.h"
#include "ngx_http_llm_bell.h"
#include "ngx_http_llm_charge.h"
#include "ngx_http_llm_error.h"
#include "ngx_http_llm_wait.h"


/* when to come again to a zone that is full: a request may have ended */
#define NGX_HTTP_LLM_LIMIT_FULL_MS  1000


static ngx_uint_t ngx_http_llm_limit_is_decided(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_limit_conf_t *conf);
static ngx_http_llm_charge_t *ngx_http_llm_limit_create_charge(
    ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx, ngx_uint_t n);
static void ngx_http_llm_limit_cleanup(void *data);
static ngx_int_t ngx_http_llm_limit_decide(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_take_t *takes, ngx_int_t rc);
static ngx_int_t ngx_http_llm_limit_refuse(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_verdict_t *verdict);
static ngx_int_t ngx_http_llm_limit_delay(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_verdict_t *verdict);
static ngx_msec_int_t ngx_http_llm_limit_look(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_limit_wake(ngx_http_llm_charge_t *charge);
static void ngx_http_llm_limit_waited(ngx_http_llm_ctx_t *ctx,
    ngx_msec_t slept_ms, ngx_uint_t over);


ngx_int_t
ngx_http_llm_limit_admit(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t                 rc;
    ngx_uint_t                i, n;
    ngx_http_llm_take_t      *taken, takes[NGX_HTTP_LLM_MAX_ZONES];
    ngx_http_llm_charge_t    *charge;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    if (ngx_http_llm_limit_is_decided(ctx, &llcf->limit)) {
        return NGX_DECLINED;
    }

    if (ctx->charge && ctx->charge->asking) {
        ctx->admitted = 1;

        rc = ngx_http_llm_share_answered(r, ctx);

        return ngx_http_llm_limit_decide(r, ctx, ctx->charge->takes, rc);
    }

    if (ngx_http_llm_limit_prepare(r, ctx, takes, &n) != NGX_OK) {
        return llcf->limit.dry_run ? NGX_DECLINED
                                   : NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (n == 0) {
        return NGX_DECLINED;
    }

    charge = ngx_http_llm_limit_create_charge(r, ctx, n);
    if (charge == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_llm_share_begin(r, ctx, takes, n) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->admitted = 1;
    taken = charge->takes ? charge->takes : takes;

    rc = ngx_http_llm_zone_reserve(taken, n, ngx_http_llm_zone_now());

    charge->open = (rc == NGX_OK);

    if (charge->open && charge->takes) {

        for (i = 0; i < n; i++) {
            charge->parts[i].zone = (ngx_http_llm_limit_zone_t *)
                                                               taken[i].zone;
            charge->parts[i].hold = taken[i].hold;
            charge->parts[i].leased = taken[i].leased;
        }

        rc = ngx_http_llm_share_ask(r, ctx);

        if (rc != NGX_OK) {
            ctx->admitted = 0;
            return rc;
        }

        rc = ngx_http_llm_share_answered(r, ctx);
    }

    return ngx_http_llm_limit_decide(r, ctx, taken, rc);
}


/*
 * An internal redirect runs the phase again: tokens are charged once.  What
 * was rejected was charged nothing: where an error_page sends it to a place
 * with limits of its own, they apply.
 */

static ngx_uint_t
ngx_http_llm_limit_is_decided(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_limit_conf_t *conf)
{
    if (ctx->charge && ctx->charge->status == NGX_HTTP_LLM_LIMIT_REJECTED) {
        return ctx->charge->limits == conf->limits;
    }

    return ctx->admitted;
}


static ngx_int_t
ngx_http_llm_limit_decide(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_take_t *takes, ngx_int_t rc)
{
    ngx_uint_t               i;
    ngx_http_llm_charge_t   *charge;
    ngx_http_llm_verdict_t   verdict;

    charge = ctx->charge;

    verdict = ngx_http_llm_limit_record(charge, takes, charge->nparts);

    for (i = 0; i < charge->nparts; i++) {
        ngx_http_llm_limit_note(r, &takes[i]);

        if (takes[i].moved) {
            ngx_http_llm_bell_ring();
        }
    }

    if (rc != NGX_OK) {
        return ngx_http_llm_limit_refuse(r, ctx, &verdict);
    }

    if (verdict.take->delay_ns[verdict.budget] > 0) {
        return ngx_http_llm_limit_delay(r, ctx, &verdict);
    }

    charge->status = NGX_HTTP_LLM_LIMIT_PASSED;

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm limit: passed %ui zones, reserved:%L, least in \"%V\"",
                   charge->nparts, charge->reserved,
                   &charge->zone->shm_zone->shm.name);

    return NGX_DECLINED;
}


/* the cleanup comes before what it gives back is taken */

static ngx_http_llm_charge_t *
ngx_http_llm_limit_create_charge(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_uint_t n)
{
    ngx_pool_cleanup_t       *cln;
    ngx_http_llm_charge_t    *charge;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    charge = ngx_pcalloc(r->pool, sizeof(ngx_http_llm_charge_t)
                                  + (n - 1) * sizeof(ngx_http_llm_part_t));
    if (charge == NULL) {
        return NULL;
    }

    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_http_llm_limit_cleanup;
    cln->data = ctx;

    charge->limits = llcf->limit.limits;
    charge->nparts = n;
    ctx->charge = charge;

    return charge;
}


static void
ngx_http_llm_limit_cleanup(void *data)
{
    ngx_http_llm_limit_abandon(data);
}


static ngx_int_t
ngx_http_llm_limit_refuse(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_verdict_t *verdict)
{
    int64_t                   delay_ns;
    const char               *message;
    ngx_llm_err_e             err;
    ngx_http_llm_charge_t    *charge;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    charge = ctx->charge;

    charge->reject_status = llcf->limit.status;

    if (verdict->take->refused) {
        verdict->why = ngx_http_llm_share_refusal(charge, verdict->take,
                                                  &message);

        if (verdict->why == NULL) {
            verdict->why = "is full";
            message = "Rate limit reached. Please try again later.";
            charge->retry_ms = NGX_HTTP_LLM_LIMIT_FULL_MS;
        }
    }

    ngx_http_llm_limit_log(r, &llcf->limit, verdict, 0);

    if (llcf->limit.dry_run) {
        charge->status = NGX_HTTP_LLM_LIMIT_REJECTED_DRY_RUN;
        return NGX_DECLINED;
    }

    charge->status = NGX_HTTP_LLM_LIMIT_REJECTED;

    err = NGX_LLM_ERR_RATE_LIMIT;
    delay_ns = verdict->take->delay_ns[verdict->budget];

    if (charge->reject_status == NGX_HTTP_SERVICE_UNAVAILABLE) {
        err = NGX_LLM_ERR_OVERLOADED;
    }

    if (verdict->take->refused) {
        /* void */

    } else if (delay_ns == NGX_LLM_NEVER) {
        err = NGX_LLM_ERR_TOO_LARGE;
        message = "Request too large: it asks for more tokens than the rate "
                  "limit ever allows at once.";

    } else {
        message = (verdict->budget == NGX_HTTP_LLM_TOKENS)
                  ? "Rate limit reached for tokens. Please try again later."
                  : "Rate limit reached for requests. Please try again later.";
        charge->retry_ms = ngx_http_llm_limit_ms(delay_ns);
    }

    return ngx_http_llm_reject(r, ctx, err, charge->reject_status, message);
}


/* what is needed has been taken: nobody else gets it meanwhile */

static ngx_int_t
ngx_http_llm_limit_delay(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_verdict_t *verdict)
{
    int64_t                   delay_ns;
    ngx_http_llm_charge_t    *charge;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    charge = ctx->charge;

    ngx_http_llm_limit_log(r, &llcf->limit, verdict, 1);

    if (llcf->limit.dry_run) {
        charge->status = NGX_HTTP_LLM_LIMIT_DELAYED_DRY_RUN;
        ngx_http_llm_limit_wake(charge);
        return NGX_DECLINED;
    }

    charge->status = NGX_HTTP_LLM_LIMIT_DELAYED;

    delay_ns = verdict->take->delay_ns[verdict->budget];

    return ngx_http_llm_wait(ctx, ngx_http_llm_limit_ms(delay_ns),
                             ngx_http_llm_limit_look,
                             ngx_http_llm_limit_waited,
                             ngx_http_core_run_phases);
}


/* who was ahead left some of it: all zones have to let it go */

static ngx_msec_int_t
ngx_http_llm_limit_look(ngx_http_llm_ctx_t *ctx)
{
    int64_t                 now_ns, start_ns;
    ngx_uint_t              i, moved;
    ngx_http_llm_part_t    *part;
    ngx_http_llm_charge_t  *charge;

    charge = ctx->charge;
    moved = 0;
    start_ns = 0;

    for (i = 0; i < charge->nparts; i++) {
        part = &charge->parts[i];

        if (ngx_http_llm_zone_moved(&part->zone->zone, part->hold,
                                    &part->start_ns))
        {
            moved = 1;
        }

        start_ns = ngx_max(start_ns, part->start_ns);
    }

    if (!moved) {
        return -1;
    }

    now_ns = ngx_http_llm_zone_now();

    return (start_ns > now_ns) ? ngx_http_llm_limit_ms(start_ns - now_ns) : 0;
}


static void
ngx_http_llm_limit_wake(ngx_http_llm_charge_t *charge)
{
    int64_t                full_ns[NGX_HTTP_LLM_BUDGETS];
    int64_t                last_ns[NGX_HTTP_LLM_BUDGETS];
    ngx_uint_t             b, i;
    ngx_http_llm_part_t   *part;
    ngx_http_llm_quota_t  *quota;

    ngx_memzero(last_ns, sizeof(last_ns));

    for (i = 0; i < charge->nparts; i++) {
        part = &charge->parts[i];

        ngx_http_llm_zone_wake(&part->zone->zone, part->hold, full_ns,
                               ngx_http_llm_zone_now());

        for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {

            /* of a share nobody has told how it is now */

            last_ns[b] = part->share ? NGX_LLM_NEVER
                                     : ngx_max(last_ns[b], full_ns[b]);
        }
    }

    /* what came back meanwhile brings it forward */

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        quota = &charge->quotas[b];
        quota->reset_ms = ngx_min(quota->reset_ms,
                                  ngx_http_llm_limit_ms(last_ns[b]));
    }
}


static void
ngx_http_llm_limit_waited(ngx_http_llm_ctx_t *ctx, ngx_msec_t slept_ms,
    ngx_uint_t over)
{
    ngx_uint_t              b;
    ngx_http_llm_quota_t   *quota;
    ngx_http_llm_charge_t  *charge;

    charge = ctx->charge;
    charge->wait_ms = slept_ms;

    if (over) {
        return;
    }

    /* the headers tell how it is when they are sent */

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        quota = &charge->quotas[b];
        quota->reset_ms -= ngx_min(quota->reset_ms, slept_ms);
    }

    ngx_http_llm_limit_wake(charge);
}
