
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_charge.h"
#include "ngx_llm_hash.h"


static ngx_http_llm_take_t *ngx_http_llm_limit_tightest(
    ngx_http_llm_take_t *takes, ngx_uint_t n, ngx_uint_t b);
static double ngx_http_llm_limit_pressure(ngx_http_llm_take_t *take,
    ngx_uint_t b);


ngx_http_llm_verdict_t
ngx_http_llm_limit_record(ngx_http_llm_charge_t *charge,
    ngx_http_llm_take_t *takes, ngx_uint_t n)
{
    ngx_uint_t               b, i;
    ngx_http_llm_take_t     *take;
    ngx_http_llm_quota_t    *quota;
    ngx_http_llm_verdict_t   verdict;

    charge->nparts = n;

    for (i = 0; i < n; i++) {
        charge->identity = ngx_llm_hash(takes[i].digest,
                                        NGX_HTTP_LLM_KEY_DIGEST,
                                        charge->identity);

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


ngx_msec_t
ngx_http_llm_limit_ms(int64_t ns)
{
    return ns / 1000000 + (ns % 1000000 != 0);
}


/* a key is known by the start of its digest: what it was is a secret */

void
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
                      "llm limit: rejected%s, zone \"%V\" %s, key %08xD",
                      dry, name, verdict->why, key);
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


void
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
