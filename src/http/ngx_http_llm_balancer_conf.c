
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_peer.h"


static ngx_int_t ngx_http_llm_balancer_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);
static void ngx_http_llm_balancer_cleanup(void *data);


char *
ngx_http_llm_least_inflight_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_str_t                     *value;
    ngx_uint_t                     i;
    ngx_http_llm_srv_conf_t       *lscf;
    ngx_http_llm_main_conf_t      *lmcf;
    ngx_http_upstream_srv_conf_t  *uscf;

    lscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_llm_stream_module);

    if (lscf->balancer.enabled) {
        return "is duplicate";
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strcmp(value[i].data, "cost=requests") == 0) {
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" of "
                           "\"llm_least_inflight\", allowed is "
                           "\"cost=requests\"", &value[i]);
        return NGX_CONF_ERROR;
    }

    uscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);

    if (uscf->peer.init_upstream) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "load balancing method redefined");
    }

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_stream_module);

    if (lmcf->inflight == NULL) {
        lmcf->inflight = ngx_http_llm_inflight_zone(cf,
                                                  &ngx_http_llm_stream_module);
        if (lmcf->inflight == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    lscf->balancer.zone = lmcf->inflight;
    lscf->balancer.enabled = 1;

    uscf->peer.init_upstream = ngx_http_llm_balancer_init_upstream;

    uscf->flags = NGX_HTTP_UPSTREAM_CREATE
                  |NGX_HTTP_UPSTREAM_MODIFY
                  |NGX_HTTP_UPSTREAM_WEIGHT
                  |NGX_HTTP_UPSTREAM_MAX_CONNS
                  |NGX_HTTP_UPSTREAM_MAX_FAILS
                  |NGX_HTTP_UPSTREAM_FAIL_TIMEOUT
                  |NGX_HTTP_UPSTREAM_DOWN
                  |NGX_HTTP_UPSTREAM_BACKUP;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_llm_balancer_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us)
{
    ngx_pool_cleanup_t       *cln;
    ngx_http_llm_srv_conf_t  *lscf;

    if (ngx_http_upstream_init_round_robin(cf, us) != NGX_OK) {
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    lscf = ngx_http_conf_upstream_srv_conf(us, ngx_http_llm_stream_module);

    cln->handler = ngx_http_llm_balancer_cleanup;
    cln->data = &lscf->balancer;

    us->peer.init = ngx_http_llm_balancer_init_peer;

    return NGX_OK;
}


static void
ngx_http_llm_balancer_cleanup(void *data)
{
    ngx_http_llm_balancer_conf_t  *conf = data;

    ngx_http_llm_balancer_drop_list(&conf->primary);
    ngx_http_llm_balancer_drop_list(&conf->backup);
}
