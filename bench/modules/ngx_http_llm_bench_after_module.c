
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_llm_bucket.h"


/*
 * Never installed: what the limits are compared with.
 *
 *     llm_bench_after RATE BURST;
 *
 * admits every request as long as there is a token left, and charges when it
 * ended, as gateways do that look at a counter first and add the usage
 * afterwards.  Bucket, clock and usage are those of the module; there is one
 * key, for all of the server.
 */


typedef struct {
    ngx_llm_rate_t     rate;

    /* its data is an ngx_llm_bucket_t; NULL: off */
    ngx_shm_zone_t    *shm_zone;

    /* of $llm_total_tokens */
    ngx_int_t          index;
} ngx_http_llm_bench_conf_t;


static ngx_int_t ngx_http_llm_bench_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_bench_charge(ngx_http_request_t *r);
static int64_t ngx_http_llm_bench_now(void);
static ngx_int_t ngx_http_llm_bench_init_zone(ngx_shm_zone_t *shm_zone,
    void *data);
static void *ngx_http_llm_bench_create_conf(ngx_conf_t *cf);
static char *ngx_http_llm_bench_after(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_llm_bench_init(ngx_conf_t *cf);


static ngx_command_t  ngx_http_llm_bench_commands[] = {

    { ngx_string("llm_bench_after"),
      NGX_HTTP_SRV_CONF|NGX_CONF_TAKE2,
      ngx_http_llm_bench_after,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_llm_bench_after_module_ctx = {
    NULL,                              /* preconfiguration */
    ngx_http_llm_bench_init,           /* postconfiguration */

    NULL,                              /* create main configuration */
    NULL,                              /* init main configuration */

    ngx_http_llm_bench_create_conf,    /* create server configuration */
    NULL,                              /* merge server configuration */

    NULL,                              /* create location configuration */
    NULL                               /* merge location configuration */
};


ngx_module_t  ngx_http_llm_bench_after_module = {
    NGX_MODULE_V1,
    &ngx_http_llm_bench_after_module_ctx,  /* module context */
    ngx_http_llm_bench_commands,       /* module directives */
    NGX_HTTP_MODULE,                   /* module type */
    NULL,                              /* init master */
    NULL,                              /* init module */
    NULL,                              /* init process */
    NULL,                              /* init thread */
    NULL,                              /* exit thread */
    NULL,                              /* exit process */
    NULL,                              /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_llm_bench_handler(ngx_http_request_t *r)
{
    int64_t                     level;
    ngx_slab_pool_t            *shpool;
    ngx_http_llm_bench_conf_t  *conf;

    conf = ngx_http_get_module_srv_conf(r, ngx_http_llm_bench_after_module);

    if (conf->shm_zone == NULL || r != r->main) {
        return NGX_DECLINED;
    }

    shpool = (ngx_slab_pool_t *) conf->shm_zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    level = ngx_llm_bucket_level(conf->shm_zone->data, &conf->rate,
                                 ngx_http_llm_bench_now());

    ngx_shmtx_unlock(&shpool->mutex);

    return (level > 0) ? NGX_DECLINED : NGX_HTTP_TOO_MANY_REQUESTS;
}


static ngx_int_t
ngx_http_llm_bench_charge(ngx_http_request_t *r)
{
    ngx_int_t                   tokens;
    ngx_slab_pool_t            *shpool;
    ngx_http_variable_value_t  *vv;
    ngx_http_llm_bench_conf_t  *conf;

    conf = ngx_http_get_module_srv_conf(r, ngx_http_llm_bench_after_module);

    if (conf->shm_zone == NULL) {
        return NGX_OK;
    }

    vv = ngx_http_get_indexed_variable(r, conf->index);

    if (vv == NULL || vv->not_found) {
        return NGX_OK;
    }

    tokens = ngx_atoi(vv->data, vv->len);

    if (tokens <= 0) {
        return NGX_OK;
    }

    shpool = (ngx_slab_pool_t *) conf->shm_zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    ngx_llm_bucket_take(conf->shm_zone->data, &conf->rate, tokens,
                        ngx_http_llm_bench_now());

    ngx_shmtx_unlock(&shpool->mutex);

    return NGX_OK;
}


static int64_t
ngx_http_llm_bench_now(void)
{
    return (int64_t) ngx_current_msec * 1000000 + 1;
}


static ngx_int_t
ngx_http_llm_bench_init_zone(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    shm_zone->data = data ? data
                          : ngx_slab_calloc(shpool, sizeof(ngx_llm_bucket_t));

    return shm_zone->data ? NGX_OK : NGX_ERROR;
}


static void *
ngx_http_llm_bench_create_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_bench_conf_t));
}


static char *
ngx_http_llm_bench_after(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t                  *value, name, total;
    const char                 *reason;
    ngx_llm_str_t               burst, rate;
    ngx_http_llm_bench_conf_t  *bcf = conf;

    value = cf->args->elts;

    rate.data = value[1].data;
    rate.len = value[1].len;
    burst.data = value[2].data;
    burst.len = value[2].len;

    if (ngx_llm_rate_parse(&bcf->rate, rate, &reason) != NGX_LLM_OK
        || ngx_llm_count_parse(&bcf->rate.burst, burst, &reason)
           != NGX_LLM_OK)
    {
        return "has an invalid RATE or BURST";
    }

    ngx_str_set(&name, "llm_bench_after");
    ngx_str_set(&total, "llm_total_tokens");

    bcf->index = ngx_http_get_variable_index(cf, &total);
    if (bcf->index == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    bcf->shm_zone = ngx_shared_memory_add(cf, &name, 8 * ngx_pagesize,
                                          &ngx_http_llm_bench_after_module);
    if (bcf->shm_zone == NULL) {
        return NGX_CONF_ERROR;
    }

    bcf->shm_zone->init = ngx_http_llm_bench_init_zone;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_llm_bench_init(ngx_conf_t *cf)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PREACCESS_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_llm_bench_handler;

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_LOG_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_llm_bench_charge;

    return NGX_OK;
}
