
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_key.h"


static ngx_int_t ngx_http_llm_zone_init(ngx_shm_zone_t *shm_zone, void *data);
static ngx_int_t ngx_http_llm_zone_reuse(ngx_http_llm_zone_t *zone,
    ngx_http_llm_zone_t *old);


/* tells these zones from all others: its address is their tag */

static ngx_uint_t  ngx_http_llm_zone_tag;


ngx_shm_zone_t *
ngx_http_llm_zone_add(ngx_conf_t *cf, ngx_str_t *name, size_t size)
{
    return ngx_shared_memory_add(cf, name, size, &ngx_http_llm_zone_tag);
}


void
ngx_http_llm_zone_bind(ngx_shm_zone_t *shm_zone, ngx_http_llm_zone_t *zone)
{
    zone->shm_zone = shm_zone;

    shm_zone->init = ngx_http_llm_zone_init;
    shm_zone->data = zone;
}


static ngx_int_t
ngx_http_llm_zone_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_http_llm_zone_t  *old = data;

    ngx_uint_t               i;
    ngx_slab_pool_t         *shpool;
    ngx_http_llm_zone_t     *zone;
    ngx_http_llm_zone_sh_t  *sh;

    zone = shm_zone->data;

    if (old) {
        return ngx_http_llm_zone_reuse(zone, old);
    }

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    /* no log under the lock: who allocates says what it means */

    shpool->log_nomem = 0;

    sh = ngx_slab_calloc(shpool, sizeof(ngx_http_llm_zone_sh_t));
    if (sh == NULL) {
        return NGX_ERROR;
    }

    sh->nslots = ngx_http_llm_key_slots(shm_zone->shm.size);

    sh->slots = ngx_slab_calloc(shpool, sh->nslots * sizeof(uint32_t));
    if (sh->slots == NULL) {
        return NGX_ERROR;
    }

    sh->stocks = ngx_slab_calloc(shpool, NGX_HTTP_LLM_ZONE_STOCKS
                                         * sizeof(ngx_http_llm_stock_t));
    if (sh->stocks == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < NGX_HTTP_LLM_ZONE_STOCKS; i++) {
        ngx_queue_init(&sh->stocks[i].holds);
    }

    ngx_queue_init(&sh->lru);

    sh->version = NGX_HTTP_LLM_ZONE_VERSION;

    shpool->data = sh;

    zone->sh = sh;
    zone->shpool = shpool;
    zone->nslots = sh->nslots;
    zone->slots = sh->slots;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_zone_reuse(ngx_http_llm_zone_t *zone, ngx_http_llm_zone_t *old)
{
    if (zone->key.len != old->key.len
        || ngx_strncmp(zone->key.data, old->key.data, zone->key.len) != 0)
    {
        ngx_log_error(NGX_LOG_EMERG, zone->shm_zone->shm.log, 0,
                      "llm_limit_zone \"%V\" uses the \"%V\" key "
                      "while previously it used the \"%V\" key",
                      &zone->shm_zone->shm.name, &zone->key, &old->key);
        return NGX_ERROR;
    }

    /*
     * The memory cannot be cleared: workers of the old cycle use it.  Another
     * build of the module never gets here, for its tag differs, and nginx
     * makes a new zone.
     */

    if (old->sh->version != NGX_HTTP_LLM_ZONE_VERSION) {
        ngx_log_error(NGX_LOG_EMERG, zone->shm_zone->shm.log, 0,
                      "llm_limit_zone \"%V\" has layout %ui of another "
                      "version of the module, this one needs layout %d: "
                      "restart nginx or rename the zone",
                      &zone->shm_zone->shm.name, old->sh->version,
                      NGX_HTTP_LLM_ZONE_VERSION);
        return NGX_ERROR;
    }

    zone->sh = old->sh;
    zone->shpool = old->shpool;
    zone->nslots = old->nslots;
    zone->slots = old->slots;

    return NGX_OK;
}
