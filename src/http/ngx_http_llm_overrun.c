
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_charge.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_model.h"
#include "ngx_http_llm_relay.h"


/* weighted tokens of a step, at most */
#define NGX_HTTP_LLM_OVERRUN_STEP      64

/* of a paced stream that has to wait for each of its steps */
#define NGX_HTTP_LLM_OVERRUN_STEP_MS   100

/*
 * No text has more tokens to a byte, as ngx_llm_estimate_raw() counts them:
 * aBaBa.. has 1.74.
 */
#define NGX_HTTP_LLM_OVERRUN_PER_BYTE  2

/* no budget is looked at less often, be it in bytes or in tokens */
#define NGX_HTTP_LLM_OVERRUN_FAR       1000000


static void ngx_http_llm_overrun_start(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_overrun_usage(ngx_http_llm_ctx_t *ctx,
    unsigned bits, ngx_llm_usage_t *usage);
static int64_t ngx_http_llm_overrun_step(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_part_t *part, const ngx_llm_usage_t *usage);
static ngx_uint_t ngx_http_llm_overrun_raise(ngx_http_llm_part_t *part,
    int64_t used, int64_t step, ngx_msec_t *pause_ms);
static ngx_uint_t ngx_http_llm_overrun_ask(ngx_http_llm_part_t *part,
    int64_t used, ngx_http_llm_raise_t *raise);
static int64_t ngx_http_llm_overrun_least(const ngx_llm_rate_t *rate);
static uint64_t ngx_http_llm_overrun_bytes(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_part_t *part, int64_t tokens);
static void ngx_http_llm_overrun_cut(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_part_t *part, int64_t used);


ngx_http_llm_overrun_rc_e
ngx_http_llm_overrun_look(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    unsigned bits)
{
    int64_t                  step, used;
    uint64_t                 bytes, seen_bytes;
    ngx_uint_t               i;
    ngx_msec_t               pause_ms;
    ngx_llm_usage_t          usage;
    ngx_http_llm_part_t     *part;
    ngx_http_llm_charge_t   *charge;
    ngx_http_llm_overrun_t  *overrun;

    charge = ctx->charge;
    overrun = &ctx->relay->overrun;

    if (charge == NULL || !charge->open || ctx->exchange->finalized) {
        overrun->quiet_bytes = INT64_MAX;
        return NGX_HTTP_LLM_OVERRUN_GO_ON;
    }

    overrun->quiet_bytes = 0;

    if (bits & NGX_LLM_EV_USAGE) {
        overrun->look_bytes = 0;
    }

    if ((bits & (NGX_LLM_EV_CONTENT|NGX_LLM_EV_FINISH)) != NGX_LLM_EV_CONTENT)
    {
        return NGX_HTTP_LLM_OVERRUN_GO_ON;
    }

    seen_bytes = ngx_llm_text_bytes(&ctx->relay->answer.content)
                 + ctx->relay->answer.content_events;

    if (seen_bytes < overrun->look_bytes) {

        /* an event is always larger than its content */

        overrun->quiet_bytes = overrun->look_bytes - seen_bytes;
        return NGX_HTTP_LLM_OVERRUN_GO_ON;
    }

    ngx_http_llm_overrun_start(r, ctx);
    ngx_http_llm_overrun_usage(ctx, bits, &usage);

    bytes = NGX_HTTP_LLM_OVERRUN_FAR;
    pause_ms = 0;

    for (i = 0; i < charge->nparts; i++) {
        part = &charge->parts[i];

        if (part->rate.tokens == 0) {
            continue;
        }

        used = ngx_llm_weigh(&part->zone->weights, usage.prompt,
                             usage.cached, usage.completion, usage.reasoning);

        if (used > part->held + part->slack) {
            step = ngx_http_llm_overrun_step(ctx, part, &usage);

            if (ngx_http_llm_overrun_raise(part, used, step, &pause_ms)) {
                ngx_http_llm_overrun_cut(r, ctx, part, used);
                return NGX_HTTP_LLM_OVERRUN_STOP;
            }
        }

        bytes = ngx_min(bytes, ngx_http_llm_overrun_bytes(ctx, part,
                                         part->held + part->slack - used));
    }

    overrun->look_bytes = seen_bytes + bytes;
    overrun->quiet_bytes = bytes;

    if (pause_ms && ngx_http_llm_pause(r, ctx, pause_ms) == NGX_OK) {
        ngx_http_llm_overrun_paced(r, ctx);
    }

    return NGX_HTTP_LLM_OVERRUN_GO_ON;
}


/* for a dry run nothing is cut, and nothing pauses */

static void
ngx_http_llm_overrun_start(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t                 i, k;
    ngx_http_llm_part_t       *part;
    ngx_http_llm_limit_t      *limits;
    ngx_http_llm_charge_t     *charge;
    ngx_http_llm_overrun_t    *overrun;
    ngx_http_llm_loc_conf_t   *llcf;
    ngx_http_llm_main_conf_t  *lmcf;

    overrun = &ctx->relay->overrun;

    if (overrun->started) {
        return;
    }

    overrun->started = 1;

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_stream_module);
    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    overrun->ratio = ngx_http_llm_model_ratio(lmcf->models, &ctx->model,
                                              NGX_HTTP_LLM_MODEL_COMPLETION);
    charge = ctx->charge;
    limits = charge->limits->elts;

    for (i = 0; i < charge->nparts; i++) {
        part = &charge->parts[i];

        for (k = 0; limits[k].shm_zone->data != part->zone; k++) { /* void */ }

        part->overrun = llcf->limit.dry_run ? NGX_HTTP_LLM_OVERRUN_FINISH
                                            : limits[k].overrun;

        part->slack = (part->overrun == NGX_HTTP_LLM_OVERRUN_FINISH)
                      ? NGX_HTTP_LLM_OVERRUN_STEP : 0;
    }
}


/*
 * What has been used so far, as the bill has it: by the estimate, and at least
 * a token for each event.  Of that, what is above the maximum that the request
 * names is not believed, up to half of that: it is more likely that the
 * estimate is wrong than that upstream does not keep to it, and a reserve for
 * all that a request may use would not last else.
 */

static void
ngx_http_llm_overrun_usage(ngx_http_llm_ctx_t *ctx, unsigned bits,
    ngx_llm_usage_t *usage)
{
    int64_t                most, tokens;
    ngx_llm_answer_t      *answer;
    ngx_http_llm_facts_t  *facts;

    answer = &ctx->relay->answer;
    facts = ctx->facts;

    *usage = ngx_llm_answer_usage(answer);

    if (usage->prompt < 0) {
        usage->prompt = ctx->estimated_tokens;
    }

    /* upstream counts as it goes */

    if ((bits & NGX_LLM_EV_USAGE) && usage->completion > 0) {
        return;
    }

    tokens = ngx_llm_estimate(&ctx->relay->overrun.ratio,
                              ngx_llm_estimate_raw(&answer->content), 0);
    tokens = ngx_max(tokens, (int64_t) answer->content_events);

    if (facts->max_output >= 0) {
        most = ngx_http_llm_all_output(facts);

        if (tokens > most) {
            tokens = ngx_max(most, tokens - most / 2);
        }
    }

    usage->completion = ngx_max(usage->completion, tokens);
}


/* what may still come, where the request says so: others want the rest */

static int64_t
ngx_http_llm_overrun_step(ngx_http_llm_ctx_t *ctx, ngx_http_llm_part_t *part,
    const ngx_llm_usage_t *usage)
{
    int64_t                left, tokens;
    ngx_http_llm_facts_t  *facts;

    facts = ctx->facts;

    if (facts->max_output < 0) {
        return NGX_HTTP_LLM_OVERRUN_STEP;
    }

    left = ngx_http_llm_all_output(facts) - usage->completion;

    /* upstream does not keep to it, or the estimate is wrong */

    if (left <= 0) {
        return NGX_HTTP_LLM_OVERRUN_STEP;
    }

    tokens = ngx_max(ngx_llm_weigh(&part->zone->weights, 0, 0, left, 0),
                     ngx_llm_weigh(&part->zone->weights, 0, 0, left, left));

    return ngx_max(ngx_min(tokens, NGX_HTTP_LLM_OVERRUN_STEP), 1);
}


/* more tokens have been used than are held; true when that is the end */

static ngx_uint_t
ngx_http_llm_overrun_raise(ngx_http_llm_part_t *part, int64_t used,
    int64_t step, ngx_msec_t *pause_ms)
{
    int64_t                now_ns;
    ngx_msec_t             delay_ms;
    ngx_http_llm_raise_t  *raise;

    raise = &part->raise;

    raise->burst = part->rate.burst;
    raise->need = used - part->held;
    raise->most = step;
    raise->least = 0;
    raise->pauses = (part->overrun == NGX_HTTP_LLM_OVERRUN_PACE);

    switch (part->overrun) {

    case NGX_HTTP_LLM_OVERRUN_FINISH:
        raise->most = 0;
        break;

    case NGX_HTTP_LLM_OVERRUN_CUT:
        break;

    case NGX_HTTP_LLM_OVERRUN_PACE:
        raise->least = ngx_min(ngx_http_llm_overrun_least(&part->rate), step);
        break;
    }

    if (part->share) {
        return ngx_http_llm_overrun_ask(part, used, raise);
    }

    now_ns = ngx_http_llm_zone_now();

    ngx_http_llm_zone_raise(&part->zone->zone, part->hold, raise, now_ns);

    part->held = used + raise->ahead;

    if (part->overrun == NGX_HTTP_LLM_OVERRUN_PACE) {
        delay_ms = ngx_http_llm_limit_ms(raise->delay_ns);
        *pause_ms = ngx_max(*pause_ms, delay_ms);
        part->ready_ns = now_ns + raise->delay_ns;
    }

    return part->overrun == NGX_HTTP_LLM_OVERRUN_CUT && raise->ahead == 0;
}


/*
 * The answer comes later: whoever goes by it pauses until then.  Without one
 * it goes on, as a stream does that finishes.
 */

static ngx_uint_t
ngx_http_llm_overrun_ask(ngx_http_llm_part_t *part, int64_t used,
    ngx_http_llm_raise_t *raise)
{
    ngx_msec_t             timeout_ms;
    ngx_http_llm_ctx_t    *ctx;
    ngx_http_llm_share_t  *share;

    share = part->share;
    ctx = share->ctx;

    share->paced = (part->overrun == NGX_HTTP_LLM_OVERRUN_PACE);

    if (share->empty && part->overrun == NGX_HTTP_LLM_OVERRUN_CUT) {
        return 1;
    }

    if (share->raise == NULL) {
        part->held = used;

        if (!ngx_http_llm_share_raise(share, raise, &part->held)) {
            return 0;
        }
    }

    if (part->overrun != NGX_HTTP_LLM_OVERRUN_FINISH) {
        timeout_ms = ngx_http_llm_redis_timeout_ms(share->charge.redis);
        (void) ngx_http_llm_pause(ctx->request, ctx, timeout_ms);
    }

    return 0;
}


/* what the rate gives in the time of a step */

static int64_t
ngx_http_llm_overrun_least(const ngx_llm_rate_t *rate)
{
    double  tokens;

    tokens = (double) rate->tokens / rate->period_ns
             * NGX_HTTP_LLM_OVERRUN_STEP_MS * 1000000;

    if (tokens >= NGX_HTTP_LLM_OVERRUN_STEP) {
        return NGX_HTTP_LLM_OVERRUN_STEP;
    }

    return ngx_max((int64_t) tokens, 1);
}


/*
 * Content of so many bytes, with one more for each event, costs no more than
 * these tokens.  They are below 0 as long as Redis has not told what it gives.
 */

static uint64_t
ngx_http_llm_overrun_bytes(ngx_http_llm_ctx_t *ctx, ngx_http_llm_part_t *part,
    int64_t tokens)
{
    int64_t  ratio_16, weight_1000;

    if (tokens < 0) {
        return 0;
    }

    weight_1000 = ngx_max(part->zone->weights.completion_1000,
                          part->zone->weights.reasoning_1000);

    if (weight_1000 == 0) {
        return NGX_HTTP_LLM_OVERRUN_FAR;
    }

    ratio_16 = ctx->relay->overrun.ratio.ratio_16;

    if (ratio_16 == 0) {
        ratio_16 = 65536;
    }

    ratio_16 = ngx_max(ratio_16, 65536 / NGX_HTTP_LLM_OVERRUN_PER_BYTE);
    tokens = ngx_min(tokens, NGX_HTTP_LLM_OVERRUN_FAR);

    return tokens * 65536 * 1000
           / (NGX_HTTP_LLM_OVERRUN_PER_BYTE * ratio_16 * weight_1000);
}


static void
ngx_http_llm_overrun_cut(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_part_t *part, int64_t used)
{
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    ctx->end = NGX_HTTP_LLM_END_LIMIT_CUT;
    ctx->charge->zone = &part->zone->zone;

    ngx_log_error(llcf->limit.log_level, r->connection->log, 0,
                  "llm limit: answer cut, zone \"%V\" is empty, "
                  "reserved %L, used %L",
                  &part->zone->zone.shm_zone->shm.name, ctx->charge->reserved,
                  used);
}
