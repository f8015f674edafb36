
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_limit_param.h"


static char *ngx_http_llm_limit_zone_check(ngx_conf_t *cf,
    ngx_command_t *cmd, ngx_http_llm_limit_args_t *args);
static char *ngx_http_llm_limit_zone_bursts(ngx_conf_t *cf,
    ngx_command_t *cmd, ngx_http_llm_limit_args_t *args);
static void ngx_http_llm_limit_zone_weights(ngx_http_llm_limit_args_t *args);


char *
ngx_http_llm_limit_zone_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_llm_main_conf_t  *lmcf = conf;

    ngx_str_t                          *value;
    ngx_uint_t                          i;
    ngx_shm_zone_t                     *shm_zone;
    ngx_http_llm_zone_t               **zone;
    ngx_http_llm_limit_args_t           args;
    ngx_http_llm_limit_zone_t          *lz;
    ngx_http_compile_complex_value_t    ccv;

    value = cf->args->elts;

    lz = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_limit_zone_t));
    if (lz == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = &value[1];
    ccv.complex_value = &lz->key;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    lz->zone.key = lz->key.value;

    ngx_memzero(&args, sizeof(ngx_http_llm_limit_args_t));

    args.lz = lz;

    if (ngx_http_llm_check_parameters(cf, cmd) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {
        if (ngx_http_llm_limit_param(cf, cmd, &args, &value[i])
            != NGX_CONF_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    if (ngx_http_llm_limit_zone_check(cf, cmd, &args) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    ngx_http_llm_limit_zone_weights(&args);

    shm_zone = ngx_http_llm_zone_add(cf, &args.name, args.size_bytes);
    if (shm_zone == NULL) {
        return NGX_CONF_ERROR;
    }

    if (shm_zone->data) {
        lz = shm_zone->data;

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V \"%V\" is already bound to key \"%V\"",
                           &cmd->name, &args.name, &lz->zone.key);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_llm_zone_bind(cf, shm_zone, &lz->zone) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    zone = ngx_array_push(&lmcf->zones);
    if (zone == NULL) {
        return NGX_CONF_ERROR;
    }

    *zone = &lz->zone;

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_limit_zone_check(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_http_llm_limit_args_t *args)
{
    char        *needs;
    ngx_uint_t   given;

    given = args->given;
    needs = NULL;

    if (!(given & NGX_HTTP_LLM_PARAM_ZONE)) {
        needs = "must have \"zone\" parameter";

    } else if (!(given & (NGX_HTTP_LLM_PARAM_TOKENS
                          |NGX_HTTP_LLM_PARAM_REQUESTS)))
    {
        needs = "must have \"tokens\" or \"requests\" parameter";

    } else if ((given & NGX_HTTP_LLM_PARAM_BURST)
               && !(given & NGX_HTTP_LLM_PARAM_TOKENS))
    {
        needs = "has \"burst\" parameter without \"tokens\"";

    } else if ((given & NGX_HTTP_LLM_PARAM_REQUESTS_BURST)
               && !(given & NGX_HTTP_LLM_PARAM_REQUESTS))
    {
        needs = "has \"requests_burst\" parameter without \"requests\"";

    } else if ((given & NGX_HTTP_LLM_PARAM_LEASE)
               && !(given & NGX_HTTP_LLM_PARAM_REDIS))
    {
        needs = "has \"lease\" parameter without \"redis\"";

    } else if (args->count == NGX_HTTP_LLM_COUNT_PROMPT
               && (given & (NGX_HTTP_LLM_PARAM_COMPLETION
                            |NGX_HTTP_LLM_PARAM_REASONING)))
    {
        needs = "counts prompt tokens only, a weight of others has no effect";

    } else if (args->count == NGX_HTTP_LLM_COUNT_COMPLETION
               && (given & (NGX_HTTP_LLM_PARAM_PROMPT
                            |NGX_HTTP_LLM_PARAM_CACHED)))
    {
        needs = "counts completion tokens only, a weight of others has no "
                "effect";
    }

    if (needs) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\" %s",
                           &cmd->name, needs);
        return NGX_CONF_ERROR;
    }

    return ngx_http_llm_limit_zone_bursts(cf, cmd, args);
}


/* those that come from variables are looked at when they come */

static char *
ngx_http_llm_limit_zone_bursts(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_http_llm_limit_args_t *args)
{
    int64_t          most;
    ngx_uint_t       b;
    ngx_llm_rate_t  *rate;

    static char  *names[NGX_HTTP_LLM_BUDGETS] = { "burst", "requests_burst" };

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        rate = &args->lz->budgets[b].fixed;

        if (rate->tokens == 0 || rate->burst == 0) {
            continue;
        }

        most = ngx_llm_rate_most(rate);

        if (rate->burst > most) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid value \"%s=%L\" in %V, allowed is "
                               "what the rate gives in 146 years, %L",
                               names[b], rate->burst, &cmd->name, most);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


/* a part that has no weight of its own has that of its whole */

static void
ngx_http_llm_limit_zone_weights(ngx_http_llm_limit_args_t *args)
{
    ngx_llm_weights_t  *weights;

    weights = &args->lz->weights;

    if (!(args->given & NGX_HTTP_LLM_PARAM_PROMPT)) {
        weights->prompt_1000 =
                    (args->count == NGX_HTTP_LLM_COUNT_COMPLETION) ? 0 : 1000;
    }

    if (!(args->given & NGX_HTTP_LLM_PARAM_CACHED)) {
        weights->cached_1000 = weights->prompt_1000;
    }

    if (!(args->given & NGX_HTTP_LLM_PARAM_COMPLETION)) {
        weights->completion_1000 =
                    (args->count == NGX_HTTP_LLM_COUNT_PROMPT) ? 0 : 1000;
    }

    if (!(args->given & NGX_HTTP_LLM_PARAM_REASONING)) {
        weights->reasoning_1000 = weights->completion_1000;
    }
}
