
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_limit_param.h"


/* as nginx's own zones: a smaller one has no pages left for keys */
#define NGX_HTTP_LLM_LIMIT_PAGES  8


/* NGX_CONF_OK, NGX_CONF_ERROR that was logged, or what is allowed */

typedef char *(*ngx_http_llm_limit_set_pt)(ngx_conf_t *cf,
    ngx_http_llm_limit_args_t *args, ngx_str_t *value, void *slot);

typedef struct {
    ngx_str_t                   name;
    ngx_uint_t                  bit;
    ngx_http_llm_limit_set_pt   set;

    /* of the slot in ngx_http_llm_limit_zone_t */
    size_t                      offset;
} ngx_http_llm_limit_param_t;


static char *ngx_http_llm_limit_set_zone(ngx_conf_t *cf,
    ngx_http_llm_limit_args_t *args, ngx_str_t *value, void *slot);
static char *ngx_http_llm_limit_set_rate(ngx_conf_t *cf,
    ngx_http_llm_limit_args_t *args, ngx_str_t *value, void *slot);
static char *ngx_http_llm_limit_set_burst(ngx_conf_t *cf,
    ngx_http_llm_limit_args_t *args, ngx_str_t *value, void *slot);
static char *ngx_http_llm_limit_set_count(ngx_conf_t *cf,
    ngx_http_llm_limit_args_t *args, ngx_str_t *value, void *slot);
static char *ngx_http_llm_limit_set_weight(ngx_conf_t *cf,
    ngx_http_llm_limit_args_t *args, ngx_str_t *value, void *slot);
static char *ngx_http_llm_limit_set_redis(ngx_conf_t *cf,
    ngx_http_llm_limit_args_t *args, ngx_str_t *value, void *slot);
static char *ngx_http_llm_limit_set_lease(ngx_conf_t *cf,
    ngx_http_llm_limit_args_t *args, ngx_str_t *value, void *slot);
static char *ngx_http_llm_limit_variable(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_complex_value_t **cv);


static ngx_conf_enum_t  ngx_http_llm_limit_counts[] = {
    { ngx_string("total"), NGX_HTTP_LLM_COUNT_TOTAL },
    { ngx_string("prompt"), NGX_HTTP_LLM_COUNT_PROMPT },
    { ngx_string("completion"), NGX_HTTP_LLM_COUNT_COMPLETION },
    { ngx_null_string, 0 }
};


#define ngx_http_llm_limit_budget(b)                                          \
    (offsetof(ngx_http_llm_limit_zone_t, budgets)                             \
     + (b) * sizeof(ngx_http_llm_budget_t))

#define ngx_http_llm_limit_weight(field)                                      \
    offsetof(ngx_http_llm_limit_zone_t, weights.field)


static ngx_http_llm_limit_param_t  ngx_http_llm_limit_params[] = {

    { ngx_string("zone="),
      NGX_HTTP_LLM_PARAM_ZONE,
      ngx_http_llm_limit_set_zone, 0 },

    { ngx_string("tokens="),
      NGX_HTTP_LLM_PARAM_TOKENS,
      ngx_http_llm_limit_set_rate,
      ngx_http_llm_limit_budget(NGX_HTTP_LLM_TOKENS) },

    { ngx_string("requests="),
      NGX_HTTP_LLM_PARAM_REQUESTS,
      ngx_http_llm_limit_set_rate,
      ngx_http_llm_limit_budget(NGX_HTTP_LLM_REQUESTS) },

    { ngx_string("burst="),
      NGX_HTTP_LLM_PARAM_BURST,
      ngx_http_llm_limit_set_burst,
      ngx_http_llm_limit_budget(NGX_HTTP_LLM_TOKENS) },

    { ngx_string("requests_burst="),
      NGX_HTTP_LLM_PARAM_REQUESTS_BURST,
      ngx_http_llm_limit_set_burst,
      ngx_http_llm_limit_budget(NGX_HTTP_LLM_REQUESTS) },

    { ngx_string("count="),
      NGX_HTTP_LLM_PARAM_COUNT,
      ngx_http_llm_limit_set_count, 0 },

    { ngx_string("prompt="),
      NGX_HTTP_LLM_PARAM_PROMPT,
      ngx_http_llm_limit_set_weight,
      ngx_http_llm_limit_weight(prompt_1000) },

    { ngx_string("cached="),
      NGX_HTTP_LLM_PARAM_CACHED,
      ngx_http_llm_limit_set_weight,
      ngx_http_llm_limit_weight(cached_1000) },

    { ngx_string("completion="),
      NGX_HTTP_LLM_PARAM_COMPLETION,
      ngx_http_llm_limit_set_weight,
      ngx_http_llm_limit_weight(completion_1000) },

    { ngx_string("reasoning="),
      NGX_HTTP_LLM_PARAM_REASONING,
      ngx_http_llm_limit_set_weight,
      ngx_http_llm_limit_weight(reasoning_1000) },

    { ngx_string("redis="),
      NGX_HTTP_LLM_PARAM_REDIS,
      ngx_http_llm_limit_set_redis,
      offsetof(ngx_http_llm_limit_zone_t, redis_name) },

    { ngx_string("lease="),
      NGX_HTTP_LLM_PARAM_LEASE,
      ngx_http_llm_limit_set_lease,
      offsetof(ngx_http_llm_limit_zone_t, lease_percent) },

    { ngx_null_string, 0, NULL, 0 }
};


char *
ngx_http_llm_limit_param(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_http_llm_limit_args_t *args, ngx_str_t *arg)
{
    char                        *rv;
    ngx_str_t                    value;
    ngx_http_llm_limit_param_t  *param;

    for (param = ngx_http_llm_limit_params; param->name.len; param++) {

        if (arg->len < param->name.len
            || ngx_strncmp(arg->data, param->name.data, param->name.len) != 0)
        {
            continue;
        }

        args->given |= param->bit;

        value.data = arg->data + param->name.len;
        value.len = arg->len - param->name.len;

        rv = param->set(cf, args, &value, (char *) args->lz + param->offset);

        if (rv != NGX_CONF_OK && rv != NGX_CONF_ERROR) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid value \"%V\" in %V, allowed is %s",
                               arg, &cmd->name, rv);
            return NGX_CONF_ERROR;
        }

        return rv;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\" in %V", arg, &cmd->name);
    return NGX_CONF_ERROR;
}


static char *
ngx_http_llm_limit_set_zone(ngx_conf_t *cf, ngx_http_llm_limit_args_t *args,
    ngx_str_t *value, void *slot)
{
    u_char     *p;
    ngx_str_t   size;

    p = ngx_strlchr(value->data, value->data + value->len, ':');

    if (p == NULL || p == value->data) {
        return "name:size";
    }

    args->name.data = value->data;
    args->name.len = p - value->data;

    size.data = p + 1;
    size.len = value->data + value->len - size.data;

    args->size_bytes = ngx_parse_size(&size);

    if (args->size_bytes < (ssize_t) (NGX_HTTP_LLM_LIMIT_PAGES
                                      * ngx_pagesize))
    {
        return "name:size with a size of at least 32k";
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_limit_set_rate(ngx_conf_t *cf, ngx_http_llm_limit_args_t *args,
    ngx_str_t *value, void *slot)
{
    ngx_http_llm_budget_t  *budget = slot;

    const char     *reason;
    ngx_llm_str_t   text;

    if (ngx_http_script_variables_count(value)) {
        return ngx_http_llm_limit_variable(cf, value, &budget->rate);
    }

    text.data = value->data;
    text.len = value->len;

    if (ngx_llm_rate_parse(&budget->fixed, text, &reason) != NGX_LLM_OK) {
        return (char *) reason;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_limit_set_burst(ngx_conf_t *cf, ngx_http_llm_limit_args_t *args,
    ngx_str_t *value, void *slot)
{
    ngx_http_llm_budget_t  *budget = slot;

    const char     *reason;
    ngx_llm_str_t   text;

    if (ngx_http_script_variables_count(value)) {
        return ngx_http_llm_limit_variable(cf, value, &budget->burst);
    }

    text.data = value->data;
    text.len = value->len;

    if (ngx_llm_count_parse(&budget->fixed.burst, text, &reason)
        != NGX_LLM_OK)
    {
        return (char *) reason;
    }

    if (budget->fixed.burst == 0) {
        return "a number above 0";
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_limit_set_count(ngx_conf_t *cf, ngx_http_llm_limit_args_t *args,
    ngx_str_t *value, void *slot)
{
    ngx_conf_enum_t  *count;

    for (count = ngx_http_llm_limit_counts; count->name.len; count++) {
        if (value->len == count->name.len
            && ngx_strncmp(value->data, count->name.data, value->len) == 0)
        {
            args->count = count->value;
            return NGX_CONF_OK;
        }
    }

    return "total, prompt or completion";
}


static char *
ngx_http_llm_limit_set_weight(ngx_conf_t *cf, ngx_http_llm_limit_args_t *args,
    ngx_str_t *value, void *slot)
{
    const char     *reason;
    ngx_llm_str_t   text;

    text.data = value->data;
    text.len = value->len;

    if (ngx_llm_weight_parse(slot, text, &reason) != NGX_LLM_OK) {
        return (char *) reason;
    }

    return NGX_CONF_OK;
}


/* llm_redis may come later */

static char *
ngx_http_llm_limit_set_redis(ngx_conf_t *cf, ngx_http_llm_limit_args_t *args,
    ngx_str_t *value, void *slot)
{
    ngx_str_t  *name = slot;

    if (value->len == 0) {
        return "the name of an llm_redis";
    }

    *name = *value;

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_limit_set_lease(ngx_conf_t *cf, ngx_http_llm_limit_args_t *args,
    ngx_str_t *value, void *slot)
{
    ngx_int_t  *percent = slot;

    *percent = NGX_ERROR;

    if (value->len && value->data[value->len - 1] == '%') {
        *percent = ngx_atoi(value->data, value->len - 1);
    }

    if (*percent < 1 || *percent > 50) {
        return "1% to 50%";
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_limit_variable(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_complex_value_t **cv)
{
    ngx_http_compile_complex_value_t  ccv;

    *cv = ngx_palloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (*cv == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = value;
    ccv.complex_value = *cv;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}
