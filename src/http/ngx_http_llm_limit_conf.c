
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_conf.h"


static char *ngx_http_llm_limit_arg(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_http_llm_limit_t *limit, ngx_str_t *arg);
static char *ngx_http_llm_limit_set_reserve(ngx_conf_t *cf,
    ngx_command_t *cmd, ngx_http_llm_limit_t *limit, ngx_str_t *arg);
static char *ngx_http_llm_limit_set_wait(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_http_llm_limit_t *limit, ngx_str_t *arg);
static char *ngx_http_llm_limit_set_overrun(ngx_conf_t *cf,
    ngx_command_t *cmd, ngx_http_llm_limit_t *limit, ngx_str_t *arg);


ngx_conf_enum_t  ngx_http_llm_limit_log_levels[] = {
    { ngx_string("info"), NGX_LOG_INFO },
    { ngx_string("notice"), NGX_LOG_NOTICE },
    { ngx_string("warn"), NGX_LOG_WARN },
    { ngx_string("error"), NGX_LOG_ERR },
    { ngx_null_string, 0 }
};


char *
ngx_http_llm_limit_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t  *llcf = conf;

    ngx_str_t             *value;
    ngx_uint_t             i;
    ngx_http_llm_limit_t  *limit, *limits, read;

    value = cf->args->elts;

    ngx_memzero(&read, sizeof(ngx_http_llm_limit_t));

    if (ngx_http_llm_check_parameters(cf, cmd) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    for (i = 1; i < cf->args->nelts; i++) {
        if (ngx_http_llm_limit_arg(cf, cmd, &read, &value[i]) != NGX_CONF_OK) {
            return NGX_CONF_ERROR;
        }
    }

    if (read.shm_zone == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" must have \"zone\" parameter", &cmd->name);
        return NGX_CONF_ERROR;
    }

    if (llcf->limit.limits == NULL) {
        llcf->limit.limits = ngx_array_create(cf->pool, 2,
                                              sizeof(ngx_http_llm_limit_t));
        if (llcf->limit.limits == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    limits = llcf->limit.limits->elts;

    for (i = 0; i < llcf->limit.limits->nelts; i++) {
        if (limits[i].shm_zone == read.shm_zone) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" is duplicate for zone \"%V\"",
                               &cmd->name, &read.shm_zone->shm.name);
            return NGX_CONF_ERROR;
        }
    }

    if (i == NGX_HTTP_LLM_MAX_ZONES) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "more than %d \"%V\" in one place",
                           NGX_HTTP_LLM_MAX_ZONES, &cmd->name);
        return NGX_CONF_ERROR;
    }

    limit = ngx_array_push(llcf->limit.limits);
    if (limit == NULL) {
        return NGX_CONF_ERROR;
    }

    *limit = read;

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_limit_arg(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_http_llm_limit_t *limit, ngx_str_t *arg)
{
    ngx_str_t  name;

    if (arg->len > 5 && ngx_strncmp(arg->data, "zone=", 5) == 0) {
        name.data = arg->data + 5;
        name.len = arg->len - 5;

        limit->shm_zone = ngx_http_llm_zone_add(cf, &name, 0);

        return limit->shm_zone ? NGX_CONF_OK : NGX_CONF_ERROR;
    }

    if (ngx_strncmp(arg->data, "reserve=", 8) == 0) {
        return ngx_http_llm_limit_set_reserve(cf, cmd, limit, arg);
    }

    if (ngx_strncmp(arg->data, "wait=", 5) == 0) {
        return ngx_http_llm_limit_set_wait(cf, cmd, limit, arg);
    }

    if (ngx_strncmp(arg->data, "overrun=", 8) == 0) {
        return ngx_http_llm_limit_set_overrun(cf, cmd, limit, arg);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\" in %V", arg, &cmd->name);
    return NGX_CONF_ERROR;
}


static char *
ngx_http_llm_limit_set_reserve(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_http_llm_limit_t *limit, ngx_str_t *arg)
{
    const char     *reason;
    ngx_llm_str_t   text;

    text.data = arg->data + 8;
    text.len = arg->len - 8;

    if (ngx_strcmp(text.data, "auto") == 0) {
        limit->reserve = NGX_HTTP_LLM_RESERVE_AUTO;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(text.data, "max") == 0) {
        limit->reserve = NGX_HTTP_LLM_RESERVE_MAX;
        return NGX_CONF_OK;
    }

    limit->reserve = NGX_HTTP_LLM_RESERVE_FIXED;

    if (ngx_llm_count_parse(&limit->reserve_tokens, text, &reason)
        != NGX_LLM_OK)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in %V, allowed is max, auto "
                           "or %s", arg, &cmd->name, reason);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_limit_set_wait(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_http_llm_limit_t *limit, ngx_str_t *arg)
{
    ngx_str_t  text;

    text.data = arg->data + 5;
    text.len = arg->len - 5;

    limit->wait_ms = ngx_parse_time(&text, 0);

    if (text.len == 0 || limit->wait_ms == (ngx_msec_t) NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in %V, allowed is a time, "
                           "such as 500ms, 20s or 2m", arg, &cmd->name);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_limit_set_overrun(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_http_llm_limit_t *limit, ngx_str_t *arg)
{
    u_char  *text;

    text = arg->data + 8;

    if (ngx_strcmp(text, "finish") == 0) {
        limit->overrun = NGX_HTTP_LLM_OVERRUN_FINISH;

    } else if (ngx_strcmp(text, "cut") == 0) {
        limit->overrun = NGX_HTTP_LLM_OVERRUN_CUT;

    } else if (ngx_strcmp(text, "pace") == 0) {
        limit->overrun = NGX_HTTP_LLM_OVERRUN_PACE;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in %V, allowed is finish, "
                           "cut or pace", arg, &cmd->name);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


char *
ngx_http_llm_limit_status_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_llm_loc_conf_t  *llcf = conf;

    ngx_int_t   status;
    ngx_str_t  *value;

    if (llcf->limit.status != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;
    status = ngx_atoi(value[1].data, value[1].len);

    if (status < 400 || status > 599) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in %V, allowed is 400 to 599",
                           &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    llcf->limit.status = status;

    return NGX_CONF_OK;
}


void
ngx_http_llm_limit_create_conf(ngx_http_llm_limit_conf_t *conf)
{
    conf->limits = NULL;
    conf->status = NGX_CONF_UNSET_UINT;
    conf->log_level = NGX_CONF_UNSET_UINT;
    conf->dry_run = NGX_CONF_UNSET;
    conf->headers = NGX_CONF_UNSET;
}


/* all of http{} was read: a zone that nobody declared stays unknown */

char *
ngx_http_llm_limit_merge_conf(ngx_conf_t *cf, ngx_http_llm_limit_conf_t *prev,
    ngx_http_llm_limit_conf_t *conf)
{
    ngx_uint_t             i;
    ngx_http_llm_limit_t  *limits;

    if (conf->limits == NULL) {
        conf->limits = prev->limits;
    }

    if (conf->limits != NULL) {
        limits = conf->limits->elts;

        for (i = 0; i < conf->limits->nelts; i++) {
            if (limits[i].shm_zone->data == NULL) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "unknown zone \"%V\" in llm_limit, "
                                   "there is no llm_limit_zone of this name",
                                   &limits[i].shm_zone->shm.name);
                return NGX_CONF_ERROR;
            }
        }
    }

    ngx_conf_merge_uint_value(conf->status, prev->status,
                              NGX_HTTP_TOO_MANY_REQUESTS);
    ngx_conf_merge_uint_value(conf->log_level, prev->log_level, NGX_LOG_ERR);
    ngx_conf_merge_value(conf->dry_run, prev->dry_run, 0);
    ngx_conf_merge_value(conf->headers, prev->headers, 1);

    return NGX_CONF_OK;
}
