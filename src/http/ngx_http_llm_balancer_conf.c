
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_peer.h"


static ngx_int_t ngx_http_llm_balancer_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);
static void ngx_http_llm_balancer_cleanup(void *data);
static char *ngx_http_llm_balancer_arg(ngx_conf_t *cf,
    ngx_http_llm_balancer_conf_t *conf, ngx_str_t *arg);
static char *ngx_http_llm_balancer_affinity(ngx_conf_t *cf,
    ngx_http_llm_balancer_conf_t *conf, ngx_str_t *arg);
static char *ngx_http_llm_balancer_bound(ngx_conf_t *cf,
    ngx_http_llm_balancer_conf_t *conf, ngx_str_t *arg);


/* times the mean load, in thousandths */
#define NGX_HTTP_LLM_BALANCER_BOUND      1250
#define NGX_HTTP_LLM_BALANCER_BOUND_MAX  1000000


char *
ngx_http_llm_least_inflight_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    char                          *rv;
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
        rv = ngx_http_llm_balancer_arg(cf, &lscf->balancer, &value[i]);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (lscf->balancer.bound_1000 == 0) {
        lscf->balancer.bound_1000 = NGX_HTTP_LLM_BALANCER_BOUND;

    } else if (lscf->balancer.affinity == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"bound\" of \"llm_least_inflight\" has no "
                           "effect without \"affinity\"");
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


static char *
ngx_http_llm_balancer_arg(ngx_conf_t *cf, ngx_http_llm_balancer_conf_t *conf,
    ngx_str_t *arg)
{
    if (ngx_strcmp(arg->data, "cost=requests") == 0) {
        conf->cost = NGX_HTTP_LLM_COST_REQUESTS;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(arg->data, "cost=tokens") == 0) {
        conf->cost = NGX_HTTP_LLM_COST_TOKENS;
        return NGX_CONF_OK;
    }

    if (ngx_strncmp(arg->data, "affinity=", 9) == 0) {
        return ngx_http_llm_balancer_affinity(cf, conf, arg);
    }

    if (ngx_strncmp(arg->data, "bound=", 6) == 0) {
        return ngx_http_llm_balancer_bound(cf, conf, arg);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\" of \"llm_least_inflight\", "
                       "allowed are \"cost=requests\", \"cost=tokens\", "
                       "\"affinity=$variable\" and \"bound=number\"", arg);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_llm_balancer_affinity(ngx_conf_t *cf,
    ngx_http_llm_balancer_conf_t *conf, ngx_str_t *arg)
{
    ngx_str_t                          value;
    ngx_http_llm_main_conf_t          *lmcf;
    ngx_http_compile_complex_value_t   ccv;

    value.data = arg->data + 9;
    value.len = arg->len - 9;

    /* one key for all requests would be one server for all of them */

    if (ngx_http_script_variables_count(&value) == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" of "
                           "\"llm_least_inflight\", allowed is a value with "
                           "a variable", arg);
        return NGX_CONF_ERROR;
    }

    conf->affinity = ngx_palloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (conf->affinity == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = &value;
    ccv.complex_value = conf->affinity;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_stream_module);

    if (lmcf->places == NULL) {
        lmcf->places = ngx_http_llm_place_zone(cf,
                                               &ngx_http_llm_stream_module);
    }

    conf->places = lmcf->places;

    return conf->places ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_http_llm_balancer_bound(ngx_conf_t *cf,
    ngx_http_llm_balancer_conf_t *conf, ngx_str_t *arg)
{
    ngx_int_t  bound;

    bound = ngx_atofp(arg->data + 6, arg->len - 6, 3);

    if (bound < 1000 || bound > NGX_HTTP_LLM_BALANCER_BOUND_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" of "
                           "\"llm_least_inflight\", allowed is a number from "
                           "1 to %d, with up to 3 decimals", arg,
                           NGX_HTTP_LLM_BALANCER_BOUND_MAX / 1000);
        return NGX_CONF_ERROR;
    }

    conf->bound_1000 = (uint32_t) bound;

    return NGX_CONF_OK;
}
