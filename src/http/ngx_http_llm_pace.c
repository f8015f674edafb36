
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_model.h"
#include "ngx_http_llm_relay.h"


/* so far ahead of its time a token may pass: no timer for each of them */
#define NGX_HTTP_LLM_PACE_AHEAD_NS  (20 * 1000000)

/* a timer's key must stay comparable */
#define NGX_HTTP_LLM_PAUSE_MAX_MS   (24 * 60 * 60 * 1000)
#define NGX_HTTP_LLM_PAUSE_MAX_NS   (NGX_HTTP_LLM_PAUSE_MAX_MS * 1e6)


static void ngx_http_llm_pause_handler(ngx_event_t *ev);


ngx_int_t
ngx_http_llm_pause(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_msec_t pause_ms)
{
    ngx_event_t           *ev;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    if (relay->drained) {
        return NGX_DECLINED;
    }

    ev = relay->pause;

    if (ev == NULL) {
        ev = ngx_pcalloc(r->pool, sizeof(ngx_event_t));
        if (ev == NULL) {
            return NGX_ERROR;
        }

        ev->handler = ngx_http_llm_pause_handler;
        ev->data = r;
        ev->log = r->connection->log;

        relay->pause = ev;
    }

    pause_ms = ngx_min(pause_ms, NGX_HTTP_LLM_PAUSE_MAX_MS);

    if (ev->timer_set) {

        if ((ngx_msec_int_t) (ngx_current_msec + pause_ms - ev->timer.key)
            <= 0)
        {
            return NGX_OK;
        }

        ngx_del_timer(ev);
    }

    ngx_add_timer(ev, pause_ms);
    relay->paused = 1;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm answer pauses for %Mms", pause_ms);

    return NGX_OK;
}


void
ngx_http_llm_pause_end(ngx_http_llm_ctx_t *ctx, ngx_msec_t left_ms)
{
    ngx_event_t           *ev;
    ngx_msec_int_t         due_ms;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;
    ev = relay ? relay->pause : NULL;

    if (ev == NULL || !ev->timer_set) {
        return;
    }

    left_ms = ngx_min(left_ms, NGX_HTTP_LLM_PAUSE_MAX_MS);

    if (relay->pace) {
        due_ms = relay->pace->due_ns / 1000000 - ngx_current_msec;

        if (due_ms > (ngx_msec_int_t) left_ms) {
            left_ms = ngx_min(due_ms, NGX_HTTP_LLM_PAUSE_MAX_MS);
        }
    }

    ngx_del_timer(ev);
    ngx_add_timer(ev, left_ms);
}


/* the filters are called again for what upstream's buffers still hold */

static void
ngx_http_llm_pause_handler(ngx_event_t *ev)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;
    ngx_http_llm_ctx_t  *ctx;

    r = ev->data;
    c = r->connection;
    ctx = ngx_http_llm_find_ctx(r);

    ngx_http_set_log_request(c->log, r);

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, c->log, 0, "llm answer goes on");

    ctx->relay->paused = 0;

    /* upstream was not silent: it was not asked */

    ctx->last_content_ms = ngx_current_msec;

    r->write_event_handler(r);
    ngx_http_run_posted_requests(c);
}


void
ngx_http_llm_pause_stop(ngx_http_llm_ctx_t *ctx)
{
    if (ctx->relay && ctx->relay->pause && ctx->relay->pause->timer_set) {
        ngx_del_timer(ctx->relay->pause);
    }
}


ngx_int_t
ngx_http_llm_pace_start(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_str_t                  value;
    const char                *reason;
    ngx_llm_str_t              text;
    ngx_llm_rate_t             rate;
    ngx_http_llm_pace_t       *pace;
    ngx_http_llm_loc_conf_t   *llcf;
    ngx_http_llm_main_conf_t  *lmcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    if (llcf->pace == NULL) {
        return NGX_OK;
    }

    rate = llcf->pace->fixed;

    if (llcf->pace->rate) {

        if (ngx_http_complex_value(r, llcf->pace->rate, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        text.data = value.data;
        text.len = value.len;

        /* no budget depends on it: the answer is worth more than its pace */

        if (ngx_llm_rate_parse(&rate, text, &reason) != NGX_LLM_OK) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "llm_pace: invalid rate \"%V\" from \"%V\": %s, "
                          "the answer is not paced",
                          &value, &llcf->pace->rate->value, reason);
            return NGX_OK;
        }
    }

    if (rate.tokens == 0) {
        return NGX_OK;
    }

    pace = ngx_pcalloc(r->pool, sizeof(ngx_http_llm_pace_t));
    if (pace == NULL) {
        return NGX_ERROR;
    }

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_stream_module);

    pace->rate = rate;
    pace->ratio = ngx_http_llm_model_ratio(lmcf->models, &ctx->model,
                                           NGX_HTTP_LLM_MODEL_COMPLETION);
    ctx->relay->pace = pace;

    return NGX_OK;
}


/*
 * Each token takes its time from when the one before has had its own, or from
 * now: what upstream did not send in time is not made up for.
 */

void
ngx_http_llm_pace_look(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    unsigned bits)
{
    double                cost_ns;
    int64_t               now_ns, tokens;
    ngx_llm_answer_t     *answer;
    ngx_http_llm_pace_t  *pace;

    pace = ctx->relay->pace;
    answer = &ctx->relay->answer;

    /* the next event is to be looked at, too */

    ctx->relay->overrun.quiet_bytes = 0;

    /* what is complete does not wait for its end */

    if ((bits & (NGX_LLM_EV_CONTENT|NGX_LLM_EV_FINISH)) != NGX_LLM_EV_CONTENT)
    {
        return;
    }

    tokens = ngx_llm_estimate(&pace->ratio,
                              ngx_llm_estimate_raw(&answer->content), 0);
    tokens = ngx_max(tokens, ngx_llm_answer_usage(answer).completion);

    if (tokens <= pace->tokens) {
        return;
    }

    now_ns = (int64_t) ngx_current_msec * 1000000;

    cost_ns = (double) pace->rate.period_ns * (tokens - pace->tokens)
              / pace->rate.tokens;

    pace->due_ns = ngx_max(pace->due_ns, now_ns)
                   + (int64_t) ngx_min(cost_ns, NGX_HTTP_LLM_PAUSE_MAX_NS);
    pace->tokens = tokens;

    if (pace->due_ns - now_ns > NGX_HTTP_LLM_PACE_AHEAD_NS) {
        (void) ngx_http_llm_pause(r, ctx, (pace->due_ns - now_ns) / 1000000);
    }
}


char *
ngx_http_llm_pace_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t                 *value;
    const char                *reason;
    ngx_llm_str_t              text;
    ngx_http_llm_loc_conf_t   *llcf = conf;
    ngx_http_llm_pace_conf_t  *pace;

    if (llcf->pace != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    pace = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_pace_conf_t));
    if (pace == NULL) {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;

    if (ngx_http_script_variables_count(&value[1])) {
        llcf->pace = pace;

        return ngx_http_set_complex_value_slot(cf, cmd, pace);
    }

    text.data = value[1].data;
    text.len = value[1].len;

    if (ngx_llm_rate_parse(&pace->fixed, text, &reason) != NGX_LLM_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"llm_pace\" directive: "
                           "%s", &value[1], reason);
        return NGX_CONF_ERROR;
    }

    llcf->pace = (pace->fixed.tokens != 0) ? pace : NULL;

    return NGX_CONF_OK;
}
