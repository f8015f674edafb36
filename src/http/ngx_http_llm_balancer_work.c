
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_peer.h"
#include "ngx_http_llm_relay.h"


/* a prompt that was held before says something about the cache from here on */
#define NGX_HTTP_LLM_BALANCER_HELD  1024


static void ngx_http_llm_balancer_learn(ngx_http_llm_peer_data_t *lp);


void
ngx_http_llm_balancer_enter(ngx_http_llm_peer_data_t *lp,
    ngx_http_llm_choice_t *choice)
{
    lp->slot = choice->slot;
    lp->server = lp->list->servers[choice->index];
    lp->pending = choice->uncached;
    lp->ahead = choice->pending + choice->uncached;
    lp->held = choice->held;
    lp->distance = choice->distance;
    lp->start_ms = ngx_current_msec;

    if (lp->slot != NGX_HTTP_LLM_INFLIGHT_NONE) {
        ngx_http_llm_inflight_enter(lp->slot, lp->pending);
    }
}


/* the next request of this key is to find it here */

void
ngx_http_llm_balancer_keep_place(ngx_http_llm_peer_data_t *lp,
    ngx_http_llm_choice_t *choice)
{
    ngx_http_llm_place_t  place;

    if (lp->slot == NGX_HTTP_LLM_INFLIGHT_NONE) {
        return;
    }

    place.server = lp->server;
    place.tokens = lp->prompt;
    place.clock = ngx_http_llm_learn_clock(lp->conf->zone, lp->slot,
                                           choice->uncached);

    ngx_http_llm_place_put(lp->conf->places, lp->key, &place);
}


void
ngx_http_llm_balancer_first_token(ngx_http_llm_peer_data_t *lp)
{
    if (lp->slot == NGX_HTTP_LLM_INFLIGHT_NONE || lp->pending == 0) {
        return;
    }

    ngx_http_llm_inflight_read(lp->slot, lp->pending);
    lp->pending = 0;

    ngx_http_llm_learn_prefill(lp->conf->zone, lp->slot, lp->ahead,
                               ngx_current_msec - lp->start_ms);
}


void
ngx_http_llm_balancer_leave(ngx_http_llm_peer_data_t *lp, ngx_uint_t failed)
{
    if (lp->ctx) {
        lp->ctx->peer = NULL;
    }

    if (lp->key && failed) {
        ngx_http_llm_place_forget(lp->conf->places, lp->key, lp->server);
    }

    if (lp->slot == NGX_HTTP_LLM_INFLIGHT_NONE) {
        return;
    }

    if (failed) {
        ngx_http_llm_inflight_failed(lp->slot);

    } else if (lp->ctx && lp->conf->cost == NGX_HTTP_LLM_COST_TOKENS) {
        ngx_http_llm_balancer_learn(lp);
    }

    ngx_http_llm_inflight_leave(lp->slot, lp->pending);

    lp->slot = NGX_HTTP_LLM_INFLIGHT_NONE;
    lp->pending = 0;
}


/* how fast its tokens came, and whether it still had the prompt */

static void
ngx_http_llm_balancer_learn(ngx_http_llm_peer_data_t *lp)
{
    double                  cached, held;
    uint64_t                events;
    ngx_http_llm_ctx_t     *ctx;
    const ngx_llm_usage_t  *usage;

    ctx = lp->ctx;

    events = ctx->relay ? ctx->relay->answer.content_events : 0;

    if (events > 1 && ctx->first_content_ms) {
        ngx_http_llm_learn_decode(lp->conf->zone, lp->slot,
                                  (uint32_t) ngx_min(events, UINT32_MAX) - 1,
                                  ctx->last_content_ms
                                  - ctx->first_content_ms);
    }

    usage = &ctx->bill->usage;

    if (lp->key == 0
        || usage->prompt <= 0
        || ctx->bill->source != NGX_HTTP_LLM_USAGE_UPSTREAM)
    {
        return;
    }

    if (usage->prompt != lp->prompt) {
        ngx_http_llm_place_correct(lp->conf->places, lp->key, lp->server,
                            (uint32_t) ngx_min(usage->prompt,
                                               NGX_HTTP_LLM_BALANCER_PROMPT));
    }

    if (usage->cached < 0
        || ngx_min(lp->held, lp->prompt) < NGX_HTTP_LLM_BALANCER_HELD)
    {
        return;
    }

    /* as shares of the prompt: upstream's tokens are not the estimate's */

    cached = (double) usage->cached / usage->prompt;
    held = (double) ngx_min(lp->held, lp->prompt) / lp->prompt;

    ngx_http_llm_learn_cache(lp->conf->zone, lp->slot, lp->distance,
                             cached >= held / 2);
}
