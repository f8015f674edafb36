
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_bell.h"
#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_drain.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_filter.h"
#include "ngx_http_llm_inspect.h"
#include "ngx_http_llm_live.h"
#include "ngx_http_llm_model.h"
#include "ngx_http_llm_overrun.h"
#include "ngx_http_llm_share.h"
#include "ngx_http_llm_wait.h"


#define NGX_HTTP_LLM_FIRST_TOKEN_TIMEOUT_MS  (2 * 60 * 1000)
#define NGX_HTTP_LLM_IDLE_TIMEOUT_MS         (60 * 1000)
#define NGX_HTTP_LLM_TOTAL_TIMEOUT_MS        (30 * 60 * 1000)
#define NGX_HTTP_LLM_HOLD_BYTES              8192
#define NGX_HTTP_LLM_BODY_MAX_BYTES          (16 * 1024 * 1024)


static ngx_int_t ngx_http_llm_media_tokens(ngx_str_t *value,
    const char *name, int64_t *tokens);
static void ngx_http_llm_hear(ngx_event_t *ev);


ngx_conf_enum_t  ngx_http_llm_dialects[] = {
    { ngx_string("auto"), NGX_LLM_DIALECT_AUTO },
    { ngx_string("openai"), NGX_LLM_DIALECT_OPENAI },
    { ngx_string("anthropic"), NGX_LLM_DIALECT_ANTHROPIC },
    { ngx_string("gemini"), NGX_LLM_DIALECT_GEMINI },
    { ngx_string("ollama"), NGX_LLM_DIALECT_OLLAMA },
    { ngx_string("ernie"), NGX_LLM_DIALECT_ERNIE },
    { ngx_string("cohere"), NGX_LLM_DIALECT_COHERE },
    { ngx_null_string, 0 }
};


char *
ngx_http_llm_stream_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                      *rv;
    ngx_http_llm_loc_conf_t   *llcf = conf;
    ngx_http_llm_main_conf_t  *lmcf;

    rv = ngx_conf_set_flag_slot(cf, cmd, conf);

    if (rv != NGX_CONF_OK || !llcf->enable) {
        return rv;
    }

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_stream_module);
    lmcf->enabled = 1;

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_llm_check_parameters(ngx_conf_t *cf, ngx_command_t *cmd)
{
    size_t       len;
    u_char      *equals;
    ngx_str_t   *value;
    ngx_uint_t   i, k;

    value = cf->args->elts;

    for (i = 2; i < cf->args->nelts; i++) {
        equals = (u_char *) ngx_strchr(value[i].data, '=');

        if (equals == NULL) {
            continue;
        }

        len = equals + 1 - value[i].data;

        for (k = 1; k < i; k++) {
            if (ngx_strncmp(value[k].data, value[i].data, len) == 0) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "duplicate parameter \"%V\" in %V",
                                   &value[i], &cmd->name);
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


/* as nginx's slots, but with a line that says what is allowed */

char *
ngx_http_llm_enum_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char  *p = conf;

    u_char           *last, *names;
    size_t            size;
    ngx_str_t        *value;
    ngx_uint_t       *to;
    ngx_conf_enum_t  *e;

    to = (ngx_uint_t *) (p + cmd->offset);

    if (*to != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;
    size = 0;

    for (e = cmd->post; e->name.len != 0; e++) {
        if (e->name.len == value[1].len
            && ngx_strcasecmp(e->name.data, value[1].data) == 0)
        {
            *to = e->value;
            return NGX_CONF_OK;
        }

        size += 2 + e->name.len;
    }

    names = ngx_pnalloc(cf->temp_pool, size);
    if (names == NULL) {
        return NGX_CONF_ERROR;
    }

    last = names;

    for (e = cmd->post; e->name.len != 0; e++) {
        last = ngx_sprintf(last, "%s%V", last == names ? "" : ", ", &e->name);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" in \"%V\", allowed are %*s",
                       &value[1], &cmd->name, (size_t) (last - names), names);
    return NGX_CONF_ERROR;
}


char *
ngx_http_llm_time_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    if (ngx_parse_time(&value[1], 0) == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"%V\", allowed is "
                           "a time, such as 500ms, 20s or 2m",
                           &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    return ngx_conf_set_msec_slot(cf, cmd, conf);
}


char *
ngx_http_llm_size_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    if (ngx_parse_size(&value[1]) == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"%V\", allowed is "
                           "a size, such as 512k or 16m",
                           &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    return ngx_conf_set_size_slot(cf, cmd, conf);
}


char *
ngx_http_llm_hold_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ssize_t                   size;
    ngx_str_t                *value;
    ngx_http_llm_loc_conf_t  *llcf = conf;

    if (llcf->hold_bytes != NGX_CONF_UNSET_SIZE) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        llcf->hold_bytes = 0;
        return NGX_CONF_OK;
    }

    size = ngx_parse_size(&value[1]);

    if (size == NGX_ERROR || size == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"%V\": "
                           "a size, or \"off\"", &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    llcf->hold_bytes = size;

    return NGX_CONF_OK;
}


char *
ngx_http_llm_media_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t                *value;
    ngx_uint_t                i;
    ngx_llm_media_t           media;
    ngx_http_llm_loc_conf_t  *llcf = conf;

    if (llcf->media.image != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    value = cf->args->elts;

    media.image = NGX_CONF_UNSET;
    media.audio = NGX_CONF_UNSET;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_http_llm_media_tokens(&value[i], "image=", &media.image)
               == NGX_OK
            || ngx_http_llm_media_tokens(&value[i], "audio=", &media.audio)
               == NGX_OK)
        {
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"%V\", allowed are "
                           "image=number and audio=number, once each, "
                           "of 0 to %d tokens",
                           &value[i], &cmd->name, NGX_LLM_MEDIA_TOKENS_MAX);
        return NGX_CONF_ERROR;
    }

    if (media.image == NGX_CONF_UNSET) {
        media.image = NGX_LLM_IMAGE_TOKENS;
    }

    if (media.audio == NGX_CONF_UNSET) {
        media.audio = NGX_LLM_AUDIO_TOKENS;
    }

    llcf->media = media;

    return NGX_CONF_OK;
}


/* NGX_DECLINED: it is another parameter, a second one, or not a number */

static ngx_int_t
ngx_http_llm_media_tokens(ngx_str_t *value, const char *name, int64_t *tokens)
{
    size_t     len;
    ngx_int_t  n;

    len = ngx_strlen(name);

    if (ngx_strncmp(value->data, name, len) != 0
        || *tokens != NGX_CONF_UNSET)
    {
        return NGX_DECLINED;
    }

    n = ngx_atoi(value->data + len, value->len - len);

    if (n < 0 || n > NGX_LLM_MEDIA_TOKENS_MAX) {
        return NGX_DECLINED;
    }

    *tokens = n;

    return NGX_OK;
}


void *
ngx_http_llm_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_main_conf_t));
    if (lmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&lmcf->zones, cf->pool, 4, sizeof(void *)) != NGX_OK
        || ngx_array_init(&lmcf->redises, cf->pool, 4, sizeof(void *))
           != NGX_OK)
    {
        return NULL;
    }

    return lmcf;
}


void *
ngx_http_llm_create_srv_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_srv_conf_t));
}


void *
ngx_http_llm_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_loc_conf_t));
    if (llcf == NULL) {
        return NULL;
    }

    llcf->enable = NGX_CONF_UNSET;
    llcf->dialect = NGX_CONF_UNSET_UINT;
    llcf->include_usage = NGX_CONF_UNSET;
    llcf->first_token_timeout_ms = NGX_CONF_UNSET_MSEC;
    llcf->idle_timeout_ms = NGX_CONF_UNSET_MSEC;
    llcf->total_timeout_ms = NGX_CONF_UNSET_MSEC;
    llcf->hold_bytes = NGX_CONF_UNSET_SIZE;
    llcf->error_events = NGX_CONF_UNSET;
    llcf->body_max_bytes = NGX_CONF_UNSET_SIZE;
    llcf->media.image = NGX_CONF_UNSET;
    llcf->heartbeat_ms = NGX_CONF_UNSET_MSEC;
    llcf->heartbeat_early = NGX_CONF_UNSET;
    llcf->on_abort = NGX_CONF_UNSET_UINT;
    llcf->pace = NGX_CONF_UNSET_PTR;

    ngx_http_llm_limit_create_conf(&llcf->limit);

    return llcf;
}


char *
ngx_http_llm_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_llm_loc_conf_t  *prev = parent;
    ngx_http_llm_loc_conf_t  *conf = child;

    if (conf->cancel) {
        conf->enable = 0;
    }

    ngx_conf_merge_value(conf->enable, prev->enable, 0);
    ngx_conf_merge_uint_value(conf->dialect, prev->dialect,
                              NGX_LLM_DIALECT_AUTO);
    ngx_conf_merge_value(conf->include_usage, prev->include_usage, 1);
    ngx_conf_merge_msec_value(conf->first_token_timeout_ms,
                              prev->first_token_timeout_ms,
                              NGX_HTTP_LLM_FIRST_TOKEN_TIMEOUT_MS);
    ngx_conf_merge_msec_value(conf->idle_timeout_ms, prev->idle_timeout_ms,
                              NGX_HTTP_LLM_IDLE_TIMEOUT_MS);
    ngx_conf_merge_msec_value(conf->total_timeout_ms, prev->total_timeout_ms,
                              NGX_HTTP_LLM_TOTAL_TIMEOUT_MS);
    ngx_conf_merge_size_value(conf->hold_bytes, prev->hold_bytes,
                              NGX_HTTP_LLM_HOLD_BYTES);
    ngx_conf_merge_value(conf->error_events, prev->error_events, 1);
    ngx_conf_merge_msec_value(conf->heartbeat_ms, prev->heartbeat_ms, 0);
    ngx_conf_merge_value(conf->heartbeat_early, prev->heartbeat_early, 0);
    ngx_conf_merge_uint_value(conf->on_abort, prev->on_abort,
                              NGX_HTTP_LLM_ABORT_CLOSE);
    ngx_conf_merge_ptr_value(conf->pace, prev->pace, NULL);
    ngx_conf_merge_size_value(conf->body_max_bytes, prev->body_max_bytes,
                              NGX_HTTP_LLM_BODY_MAX_BYTES);

    if (conf->media.image == NGX_CONF_UNSET) {
        conf->media = prev->media;
    }

    if (conf->media.image == NGX_CONF_UNSET) {
        conf->media.image = NGX_LLM_IMAGE_TOKENS;
        conf->media.audio = NGX_LLM_AUDIO_TOKENS;
    }

    if (conf->enable) {
        conf->exchange = ngx_pcalloc(cf->pool,
                                     sizeof(ngx_http_llm_exchange_conf_t));
        if (conf->exchange == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    return ngx_http_llm_limit_merge_conf(cf, &prev->limit, &conf->limit);
}


ngx_int_t
ngx_http_llm_install(ngx_conf_t *cf)
{
    ngx_http_handler_pt        *h;
    ngx_http_llm_main_conf_t   *lmcf;
    ngx_http_core_main_conf_t  *cmcf;

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_stream_module);

    if (ngx_http_llm_share_bind(cf, lmcf) != NGX_OK
        || ngx_http_llm_turn_check(cf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!lmcf->enabled) {
        return NGX_OK;
    }

    lmcf->models = ngx_http_llm_model_zone(cf, &ngx_http_llm_stream_module);
    if (lmcf->models == NULL) {
        return NGX_ERROR;
    }

    /* what a dead process held is given back by those that watch the rows */

    if ((lmcf->zones.nelts || lmcf->ids) && lmcf->inflight == NULL) {
        lmcf->inflight = ngx_http_llm_inflight_zone(cf,
                                                &ngx_http_llm_stream_module);
        if (lmcf->inflight == NULL) {
            return NGX_ERROR;
        }
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PRECONTENT_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_llm_handler;

    ngx_http_llm_filter_install();

    return NGX_OK;
}


ngx_int_t
ngx_http_llm_init_module(ngx_cycle_t *cycle)
{
    return ngx_http_llm_bell_init_module(cycle);
}


ngx_int_t
ngx_http_llm_init_process(ngx_cycle_t *cycle)
{
    if (ngx_http_llm_balancer_init_process(cycle) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_llm_wait_init_process();
    ngx_http_llm_overrun_init_process();
    ngx_http_llm_live_init_process();

    if (ngx_http_llm_bell_init_process(cycle, ngx_http_llm_hear) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_llm_turn_init_process(cycle) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_llm_limit_init_process(cycle) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_llm_share_init_process(cycle);
}


/* the bell has rung, or the worker is to leave */

static void
ngx_http_llm_hear(ngx_event_t *ev)
{
    ngx_http_llm_wait_hear();
    ngx_http_llm_overrun_hear();
    ngx_http_llm_live_hear();
}


/* it may have served an older cycle: zones that still are have kept it */

void
ngx_http_llm_process_gone(ngx_pid_t pid)
{
    ngx_http_llm_limit_process_gone(pid);
    ngx_http_llm_live_process_gone((ngx_cycle_t *) ngx_cycle, pid);
    ngx_http_llm_turn_process_gone(pid);
}


void
ngx_http_llm_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_llm_live_process_gone(cycle, ngx_pid);
    ngx_http_llm_turn_exit_process(cycle);
    ngx_http_llm_limit_exit_process(cycle);
    ngx_http_llm_share_exit_process(cycle);
    ngx_http_llm_balancer_exit_process(cycle);
}
