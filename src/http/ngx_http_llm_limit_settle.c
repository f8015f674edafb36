
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_bell.h"
#include "ngx_http_llm_block.h"
#include "ngx_http_llm_charge.h"


static void ngx_http_llm_limit_end(ngx_http_llm_ctx_t *ctx,
    const ngx_llm_usage_t *usage, ngx_uint_t keep);


void
ngx_http_llm_limit_settle(ngx_http_llm_ctx_t *ctx,
    const ngx_llm_usage_t *usage)
{
    ngx_http_llm_limit_end(ctx, usage, 0);
}


/* the request is given back, too: it did not happen */

void
ngx_http_llm_limit_abandon(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_limit_end(ctx, NULL, 0);
}


void
ngx_http_llm_limit_keep(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_limit_end(ctx, NULL, 1);
}


static void
ngx_http_llm_limit_end(ngx_http_llm_ctx_t *ctx, const ngx_llm_usage_t *usage,
    ngx_uint_t keep)
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

        ngx_log_debug4(NGX_LOG_DEBUG_HTTP, ctx->request->connection->log, 0,
                       "llm limit: zone \"%V\" settled:%L requests:%L keep:%ui",
                       &part->zone->zone.shm_zone->shm.name,
                       costs[NGX_HTTP_LLM_TOKENS],
                       costs[NGX_HTTP_LLM_REQUESTS], keep);

        if (part->share) {
            ngx_http_llm_share_end(part->share, keep ? NULL : costs);
        }

        /* a fallback that refused has left nothing */

        if (part->hold == NULL) {
            continue;
        }

        moved |= ngx_http_llm_zone_settle(&part->zone->zone, part->hold,
                                          keep ? NULL : costs, learned,
                                          ngx_http_llm_zone_now());

        if (part->leased) {
            ngx_http_llm_block_look(part->zone, charge->takes[i].digest);
        }
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

    /* while Redis is asked nobody has decided yet */

    return (ctx->charge && ctx->charge->zone)
           ? ctx->charge->zone->shm_zone->shm.name : none;
}


ngx_msec_t
ngx_http_llm_limit_wait_ms(const ngx_http_llm_ctx_t *ctx)
{
    return ctx->charge ? ctx->charge->wait_ms : 0;
}


uint64_t
ngx_http_llm_limit_identity(const ngx_http_llm_ctx_t *ctx)
{
    return ctx->charge ? ctx->charge->identity : 0;
}
