
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_block.h"
#include "ngx_http_llm_charge.h"
#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_share.h"


/* of a zone: its name is a part of its keys in Redis */
#define NGX_HTTP_LLM_SHARE_NAME  128


static ngx_http_llm_redis_t *ngx_http_llm_share_find(
    ngx_http_llm_main_conf_t *lmcf, ngx_str_t *name);


char *
ngx_http_llm_redis_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t  *lmcf = conf;

    ngx_str_t              *value;
    ngx_http_llm_redis_t  **redis;

    value = cf->args->elts;

    if (ngx_http_llm_share_find(lmcf, &value[1])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "duplicate %V \"%V\"",
                           &cmd->name, &value[1]);
        return NGX_CONF_ERROR;
    }

    redis = ngx_array_push(&lmcf->redises);
    if (redis == NULL) {
        return NGX_CONF_ERROR;
    }

    *redis = ngx_http_llm_redis_create(cf, cmd);

    if (*redis == NULL || ngx_http_llm_check_parameters(cf, cmd) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_http_llm_redis_t *
ngx_http_llm_share_find(ngx_http_llm_main_conf_t *lmcf, ngx_str_t *name)
{
    ngx_str_t              *other;
    ngx_uint_t              i;
    ngx_http_llm_redis_t  **redises;

    redises = lmcf->redises.elts;

    for (i = 0; i < lmcf->redises.nelts; i++) {
        other = ngx_http_llm_redis_name(redises[i]);

        if (other->len == name->len
            && ngx_strncmp(other->data, name->data, name->len) == 0)
        {
            return redises[i];
        }
    }

    return NULL;
}


ngx_int_t
ngx_http_llm_share_bind(ngx_conf_t *cf, ngx_http_llm_main_conf_t *lmcf)
{
    ngx_str_t                  *name;
    ngx_uint_t                  i;
    ngx_http_llm_zone_t       **zones;
    ngx_http_llm_limit_zone_t  *lz;

    zones = lmcf->zones.elts;

    for (i = 0; i < lmcf->zones.nelts; i++) {
        lz = (ngx_http_llm_limit_zone_t *) zones[i];

        if (lz->redis_name.len == 0) {
            continue;
        }

        lz->redis = ngx_http_llm_share_find(lmcf, &lz->redis_name);
        name = &zones[i]->shm_zone->shm.name;

        if (lz->redis == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "unknown \"redis=%V\" of llm_limit_zone \"%V\", "
                          "there is no llm_redis of this name",
                          &lz->redis_name, name);
            return NGX_ERROR;
        }

        if (lz->lease_percent && ngx_http_llm_redis_has_policy(lz->redis)) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"lease\" of llm_limit_zone \"%V\" does not go "
                          "with \"script\" of llm_redis \"%V\", which is "
                          "asked for each request", name, &lz->redis_name);
            return NGX_ERROR;
        }

        /* it is a part of keys, in which braces have a meaning */

        if (name->len > NGX_HTTP_LLM_SHARE_NAME
            || ngx_strlchr(name->data, name->data + name->len, '{')
            || ngx_strlchr(name->data, name->data + name->len, '}'))
        {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "invalid name \"%V\" of an llm_limit_zone with "
                          "\"redis\", allowed is up to %d bytes without "
                          "braces", name, NGX_HTTP_LLM_SHARE_NAME);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_llm_share_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                  i;
    ngx_http_llm_zone_t       **zones;
    ngx_http_llm_main_conf_t   *lmcf;
    ngx_http_llm_limit_zone_t  *lz;

    lmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_llm_stream_module);

    if (lmcf == NULL
        || (ngx_process != NGX_PROCESS_WORKER
            && ngx_process != NGX_PROCESS_SINGLE))
    {
        return NGX_OK;
    }

    /* one that no zone names is not asked for anything */

    zones = lmcf->zones.elts;

    for (i = 0; i < lmcf->zones.nelts; i++) {
        lz = (ngx_http_llm_limit_zone_t *) zones[i];

        if (lz->redis
            && ngx_http_llm_redis_start(lz->redis, cycle) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    ngx_http_llm_block_init_process(cycle);

    return NGX_OK;
}


void
ngx_http_llm_share_exit_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                  i;
    ngx_http_llm_redis_t      **redises;
    ngx_http_llm_main_conf_t   *lmcf;

    lmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_llm_stream_module);
    if (lmcf == NULL) {
        return;
    }

    redises = lmcf->redises.elts;

    for (i = 0; i < lmcf->redises.nelts; i++) {
        ngx_http_llm_redis_hush(redises[i]);
    }

    ngx_http_llm_share_end_all();
    ngx_http_llm_block_exit_process(lmcf);

    for (i = 0; i < lmcf->redises.nelts; i++) {
        ngx_http_llm_redis_stop(redises[i]);
    }
}
