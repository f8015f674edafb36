
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


/* who decided: one budget of one zone */

typedef struct {
    ngx_http_llm_take_t  *take;
    ngx_uint_t            budget;
} ngx_http_llm_verdict_t;


static ngx_http_llm_charge_t *ngx_http_llm_limit_create_charge(
    ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx, ngx_uint_t n);
static void ngx_http_llm_limit_cleanup(void *data);
static ngx_http_llm_verdict_t ngx_http_llm_limit_record(
    ngx_http_llm_charge_t *charge, ngx_http_llm_take_t *takes, ngx_uint_t n);
static ngx_http_llm_take_t *ngx_http_llm_limit_tightest(
    ngx_http_llm_take_t *takes, ngx_uint_t n, ngx_uint_t b);
static double ngx_http_llm_limit_pressure(ngx_http_llm_take_t *take,
    ngx_uint_t b);
static ngx_msec_t ngx_http_llm_limit_ms(int64_t ns);
static ngx_int_t ngx_http_llm_limit_refuse(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_verdict_t *verdict);
static ngx_int_t ngx_http_llm_limit_delay(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_verdict_t *verdict);
static ngx_msec_int_t ngx_http_llm_limit_look(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_limit_wake(ngx_http_llm_charge_t *charge);
static void ngx_http_llm_limit_waited(ngx_http_llm_ctx_t *ctx,
    ngx_msec_t slept_ms, ngx_uint_t left);
static void ngx_http_llm_limit_log(ngx_http_request_t *r,
    ngx_http_llm_limit_conf_t *conf, ngx_http_llm_verdict_t *verdict,
    ngx_uint_t delayed);
static void ngx_http_llm_limit_note(ngx_http_request_t *r,
    ngx_http_llm_take_t *take);
static void ngx_http_llm_limit_end(ngx_http_llm_ctx_t *ctx,
    const ngx_llm_usage_t *usage);


ngx_int_t
ngx_http_llm_limit_admit(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t                rc;
    ngx_uint_t               i, n;
    ngx_http_llm_take_t      takes[NGX_HTTP_LLM_MAX_ZONES];
    ngx_http_llm_charge_t   *charge;
    ngx_http_llm_verdict_t   verdict;

    if (ngx_http_llm_limit_prepare(r, ctx, takes, &n) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (n == 0) {
        return NGX_DECLINED;
    }

    charge = ngx_http_llm_limit_create_charge(r, ctx, n);
    if (charge == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_llm_zone_reserve(takes, n, ngx_http_llm_zone_now());

    charge->open = (rc == NGX_OK);

    verdict = ngx_http_llm_limit_record(charge, takes, n);

    for (i = 0; i < n; i++) {
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
                   n, charge->reserved, &charge->zone->shm_zone->shm.name);

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
    ctx->charge = charge;

    return charge;
}


static void
ngx_http_llm_limit_cleanup(void *data)
{
    ngx_http_llm_limit_abandon(data);
}


/* keeps what is wanted later of the takes, and finds who decided */

static ngx_http_llm_verdict_t
ngx_http_llm_limit_record(ngx_http_llm_charge_t *charge,
    ngx_http_llm_take_t *takes, ngx_uint_t n)
{
    ngx_uint_t               b, i;
    ngx_http_llm_take_t     *take;
    ngx_http_llm_quota_t    *quota;
    ngx_http_llm_verdict_t   verdict;

    charge->nparts = n;

    for (i = 0; i < n; i++) {
        charge->parts[i].zone = (ngx_http_llm_limit_zone_t *) takes[i].zone;
        charge->parts[i].hold = takes[i].hold;
        charge->parts[i].start_ns = takes[i].start_ns;
        charge->parts[i].rate = takes[i].rates[NGX_HTTP_LLM_TOKENS];
        charge->parts[i].held = takes[i].costs[NGX_HTTP_LLM_TOKENS];

        if (charge->open) {
            charge->reserved = ngx_max(charge->reserved,
                                       takes[i].costs[NGX_HTTP_LLM_TOKENS]);
        }
    }

    verdict.take = takes;
    verdict.budget = NGX_HTTP_LLM_TOKENS;

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        take = ngx_http_llm_limit_tightest(takes, n, b);

        if (ngx_http_llm_limit_pressure(take, b)
            > ngx_http_llm_limit_pressure(verdict.take, verdict.budget))
        {
            verdict.take = take;
            verdict.budget = b;
        }

        if (take->refused || take->rates[b].tokens == 0) {
            continue;
        }

        quota = &charge->quotas[b];

        quota->limit = take->rates[b].burst;
        quota->remaining = ngx_max(take->level[b], 0);
        quota->reset_ms = ngx_http_llm_limit_ms(take->full_ns[b]);
    }

    charge->zone = verdict.take->zone;

    return verdict;
}


static ngx_http_llm_take_t *
ngx_http_llm_limit_tightest(ngx_http_llm_take_t *takes, ngx_uint_t n,
    ngx_uint_t b)
{
    ngx_uint_t            i;
    ngx_http_llm_take_t  *take;

    take = takes;

    for (i = 1; i < n; i++) {
        if (ngx_http_llm_limit_pressure(&takes[i], b)
            > ngx_http_llm_limit_pressure(take, b))
        {
            take = &takes[i];
        }
    }

    return take;
}


/*
 * The part of a budget that is used; above 1 by how long it must wait; more
 * than any of these where that is too long for it.
 */

static double
ngx_http_llm_limit_pressure(ngx_http_llm_take_t *take, ngx_uint_t b)
{
    if (take->rates[b].tokens == 0) {
        return -1;
    }

    if (take->refused) {
        return 4 * (double) NGX_LLM_NEVER;
    }

    if (take->delay_ns[b] > take->wait_ns) {
        return (double) NGX_LLM_NEVER + (double) take->delay_ns[b];
    }

    if (take->delay_ns[b] > 0) {
        return 1 + (double) take->delay_ns[b];
    }

    return 1 - (double) take->level[b] / take->rates[b].burst;
}


/* rounded up */

static ngx_msec_t
ngx_http_llm_limit_ms(int64_t ns)
{
    return ns / 1000000 + (ns % 1000000 != 0);
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

    ngx_http_llm_limit_log(r, &llcf->limit, verdict, 0);

    if (llcf->limit.dry_run) {
        charge->status = NGX_HTTP_LLM_LIMIT_REJECTED_DRY_RUN;
        return NGX_DECLINED;
    }

    charge->status = NGX_HTTP_LLM_LIMIT_REJECTED;
    charge->reject_status = llcf->limit.status;

    err = NGX_LLM_ERR_RATE_LIMIT;
    delay_ns = verdict->take->delay_ns[verdict->budget];

    if (verdict->take->refused) {
        message = "Rate limit reached. Please try again later.";
        charge->retry_ms = NGX_HTTP_LLM_LIMIT_FULL_MS;

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

    return ngx_http_llm_reject(r, ctx, err, llcf->limit.status, message);
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
                             ngx_http_llm_limit_waited);
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
    ngx_uint_t            i;
    ngx_http_llm_part_t  *part;

    for (i = 0; i < charge->nparts; i++) {
        part = &charge->parts[i];
        ngx_http_llm_zone_wake(&part->zone->zone, part->hold);
    }
}


static void
ngx_http_llm_limit_waited(ngx_http_llm_ctx_t *ctx, ngx_msec_t slept_ms,
    ngx_uint_t left)
{
    ngx_uint_t              b;
    ngx_http_llm_quota_t   *quota;
    ngx_http_llm_charge_t  *charge;

    charge = ctx->charge;
    charge->wait_ms = slept_ms;

    if (left) {
        ctx->end = NGX_HTTP_LLM_END_CLIENT_ABORT;
        ngx_http_llm_account_abandon(ctx);
        return;
    }

    ngx_http_llm_limit_wake(charge);

    /* the headers tell how it is when they are sent */

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        quota = &charge->quotas[b];
        quota->reset_ms -= ngx_min(quota->reset_ms, slept_ms);
    }
}


/* a key is known by the start of its digest: what it was is a secret */

static void
ngx_http_llm_limit_log(ngx_http_request_t *r, ngx_http_llm_limit_conf_t *conf,
    ngx_http_llm_verdict_t *verdict, ngx_uint_t delayed)
{
    u_char                *digest;
    int64_t                delay_ns, need;
    uint32_t               key;
    ngx_str_t             *name;
    ngx_uint_t             level;
    const char            *dry, *unit;
    ngx_http_llm_take_t   *take;

    take = verdict->take;
    name = &take->zone->shm_zone->shm.name;
    dry = conf->dry_run ? ", dry run" : "";

    digest = take->digest;
    key = (uint32_t) digest[0] << 24 | digest[1] << 16 | digest[2] << 8
          | digest[3];

    if (take->refused) {
        ngx_log_error(conf->log_level, r->connection->log, 0,
                      "llm limit: rejected%s, zone \"%V\" is full, key %08xD",
                      dry, name, key);
        return;
    }

    unit = (verdict->budget == NGX_HTTP_LLM_TOKENS) ? "tokens" : "request";
    need = take->costs[verdict->budget];
    delay_ns = take->delay_ns[verdict->budget];

    if (delay_ns == NGX_LLM_NEVER) {
        ngx_log_error(conf->log_level, r->connection->log, 0,
                      "llm limit: rejected%s, zone \"%V\", key %08xD, "
                      "need %L %s, more than its burst of %L",
                      dry, name, key, need, unit,
                      take->rates[verdict->budget].burst);
        return;
    }

    /* one level lower than a rejection, and info as the last one */

    level = conf->log_level + (delayed && conf->log_level < NGX_LOG_INFO);

    ngx_log_error(level, r->connection->log, 0,
                  "llm limit: %s%s, zone \"%V\", key %08xD, "
                  "need %L %s, %s %Mms",
                  delayed ? "delayed" : "rejected", dry, name, key,
                  need, unit, delayed ? "by" : "retry after",
                  ngx_http_llm_limit_ms(delay_ns));
}


static void
ngx_http_llm_limit_note(ngx_http_request_t *r, ngx_http_llm_take_t *take)
{
    ngx_str_t  *name;

    name = &take->zone->shm_zone->shm.name;

    switch (take->note) {

    case NGX_HTTP_LLM_ZONE_SILENT:
        break;

    case NGX_HTTP_LLM_ZONE_DROPPED:
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "llm limit: zone \"%V\" is too small: it dropped a key "
                      "whose budget was not full", name);
        break;

    case NGX_HTTP_LLM_ZONE_FULL:
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "llm limit: zone \"%V\" is too small for the requests "
                      "in flight: new ones are rejected", name);
        break;
    }
}


void
ngx_http_llm_limit_settle(ngx_http_llm_ctx_t *ctx,
    const ngx_llm_usage_t *usage)
{
    ngx_http_llm_limit_end(ctx, usage);
}


/* the request is given back, too: it did not happen */

void
ngx_http_llm_limit_abandon(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_limit_end(ctx, NULL);
}


void
ngx_http_llm_limit_keep(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t              i;
    ngx_http_llm_part_t    *part;
    ngx_http_llm_charge_t  *charge;

    charge = ctx->charge;

    if (charge == NULL || !charge->open) {
        return;
    }

    charge->open = 0;

    for (i = 0; i < charge->nparts; i++) {
        part = &charge->parts[i];

        ngx_http_llm_zone_settle(&part->zone->zone, part->hold, NULL, -1,
                                 ngx_http_llm_zone_now());
    }
}


static void
ngx_http_llm_limit_end(ngx_http_llm_ctx_t *ctx, const ngx_llm_usage_t *usage)
{
    int64_t                  completion, costs[NGX_HTTP_LLM_BUDGETS], learned;
    ngx_uint_t               i, moved;
    ngx_http_llm_part_t     *part;
    ngx_http_llm_charge_t   *charge;

    charge = ctx->charge;

    if (charge == NULL || !charge->open) {
        return;
    }

    charge->open = 0;
    moved = 0;

    costs[NGX_HTTP_LLM_TOKENS] = 0;
    costs[NGX_HTTP_LLM_REQUESTS] = (usage != NULL);
    completion = usage ? usage->completion : -1;

    /* had it not been cut it would have been longer */

    learned = (ctx->end == NGX_HTTP_LLM_END_LIMIT_CUT) ? -1 : completion;

    for (i = 0; i < charge->nparts; i++) {
        part = &charge->parts[i];

        if (usage) {
            costs[NGX_HTTP_LLM_TOKENS] = ngx_llm_weigh(&part->zone->weights,
                                             usage->prompt, usage->cached,
                                             completion, usage->reasoning);
        }

        ngx_log_debug3(NGX_LOG_DEBUG_HTTP, ctx->request->connection->log, 0,
                       "llm limit: zone \"%V\" settled:%L requests:%L",
                       &part->zone->zone.shm_zone->shm.name,
                       costs[NGX_HTTP_LLM_TOKENS],
                       costs[NGX_HTTP_LLM_REQUESTS]);

        moved |= ngx_http_llm_zone_settle(&part->zone->zone, part->hold,
                                          costs, learned,
                                          ngx_http_llm_zone_now());
    }

    if (moved) {
        ngx_http_llm_bell_ring();
    }
}


ngx_http_llm_limit_status_e
ngx_http_llm_limit_status(const ngx_http_llm_ctx_t *ctx)
{
    return ctx->charge ? ctx->charge->status : NGX_HTTP_LLM_LIMIT_NONE;
}


int64_t
ngx_http_llm_limit_reserved(const ngx_http_llm_ctx_t *ctx)
{
    return ctx->charge ? ctx->charge->reserved : 0;
}


ngx_str_t
ngx_http_llm_limit_zone_name(const ngx_http_llm_ctx_t *ctx)
{
    ngx_str_t  none = ngx_null_string;

    return ctx->charge ? ctx->charge->zone->shm_zone->shm.name : none;
}


ngx_msec_t
ngx_http_llm_limit_wait_ms(const ngx_http_llm_ctx_t *ctx)
{
    return ctx->charge ? ctx->charge->wait_ms : 0;
}
