
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_key.h"


/* a zone has as many locks as it has so many bytes */
#define NGX_HTTP_LLM_ZONE_SHARD  (512 * 1024)

/* of a lock: the slab's own structures, and a page that it does not use */
#define NGX_HTTP_LLM_ZONE_LOCK   (2 * ngx_pagesize)


static ngx_uint_t ngx_http_llm_zone_shards(size_t zone_bytes);
static ngx_int_t ngx_http_llm_zone_add_lock(ngx_conf_t *cf,
    ngx_http_llm_zone_t *zone, ngx_uint_t i);
static ngx_int_t ngx_http_llm_zone_init_lock(ngx_shm_zone_t *shm_zone,
    void *data);
static ngx_int_t ngx_http_llm_zone_init(ngx_shm_zone_t *shm_zone, void *data);
static ngx_http_llm_zone_sh_t *ngx_http_llm_zone_create(
    ngx_http_llm_zone_t *zone, ngx_slab_pool_t *shpool);
static ngx_int_t ngx_http_llm_zone_check(ngx_http_llm_zone_t *zone,
    ngx_http_llm_zone_t *old);


/* tell these zones, and their locks, from all others: by their addresses */

static ngx_uint_t  ngx_http_llm_zone_tag;
static ngx_uint_t  ngx_http_llm_zone_lock_tag;


ngx_shm_zone_t *
ngx_http_llm_zone_add(ngx_conf_t *cf, ngx_str_t *name, size_t size)
{
    return ngx_shared_memory_add(cf, name, size, &ngx_http_llm_zone_tag);
}


ngx_int_t
ngx_http_llm_zone_bind(ngx_conf_t *cf, ngx_shm_zone_t *shm_zone,
    ngx_http_llm_zone_t *zone)
{
    ngx_uint_t  i;

    zone->shm_zone = shm_zone;

    shm_zone->init = ngx_http_llm_zone_init;
    shm_zone->data = zone;

    if (zone->nshards == 0) {
        zone->nshards = ngx_http_llm_zone_shards(shm_zone->shm.size);
    }

    for (i = 0; i < zone->nshards; i++) {
        if (ngx_http_llm_zone_add_lock(cf, zone, i) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_llm_zone_shards(size_t zone_bytes)
{
    ngx_uint_t  n;

    n = 1;

    while (n < NGX_HTTP_LLM_MAX_SHARDS
           && n * 2 * NGX_HTTP_LLM_ZONE_SHARD <= zone_bytes)
    {
        n *= 2;
    }

    return n;
}


/*
 * A zone that a reload keeps has the size, and so the locks that it had: nginx
 * keeps them, too.  Those of another size may be kept, for nothing is in them.
 */

static ngx_int_t
ngx_http_llm_zone_add_lock(ngx_conf_t *cf, ngx_http_llm_zone_t *zone,
    ngx_uint_t i)
{
    u_char          *last;
    ngx_str_t       *of, name;
    ngx_shm_zone_t  *shm_zone;

    of = &zone->shm_zone->shm.name;

    /* nginx names it where a worker dies with the lock */

    name.data = ngx_pnalloc(cf->pool, of->len + sizeof(" lock ") - 1
                                      + NGX_INT_T_LEN);
    if (name.data == NULL) {
        return NGX_ERROR;
    }

    last = ngx_sprintf(name.data, "%V lock %ui", of, i + 1);
    name.len = last - name.data;

    shm_zone = ngx_shared_memory_add(cf, &name, NGX_HTTP_LLM_ZONE_LOCK,
                                     &ngx_http_llm_zone_lock_tag);
    if (shm_zone == NULL) {
        return NGX_ERROR;
    }

    shm_zone->init = ngx_http_llm_zone_init_lock;
    shm_zone->data = &zone->shards[i];

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_zone_init_lock(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_slab_pool_t       *shpool;
    ngx_http_llm_shard_t  *shard;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    shard = shm_zone->data;
    shard->mutex = &shpool->mutex;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_zone_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_http_llm_zone_t  *old = data;

    ngx_uint_t               i;
    ngx_http_llm_zone_t     *zone;
    ngx_http_llm_zone_sh_t  *sh;

    zone = shm_zone->data;
    zone->shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (old) {
        if (ngx_http_llm_zone_check(zone, old) != NGX_OK) {
            return NGX_ERROR;
        }

        sh = old->sh;

    } else {
        sh = ngx_http_llm_zone_create(zone, zone->shpool);

        if (sh == NULL) {
            return NGX_ERROR;
        }
    }

    zone->sh = sh;
    zone->nslots = sh->nslots;
    zone->slots = sh->slots;

    while (zone->nslots >> zone->shard_shift > zone->nshards) {
        zone->shard_shift++;
    }

    for (i = 0; i < zone->nshards; i++) {
        zone->shards[i].sh = &sh->shards[i];
        zone->shards[i].stocks = &sh->stocks[i * NGX_HTTP_LLM_ZONE_STOCKS];
    }

    return NGX_OK;
}


/* NULL: no memory, logged */

static ngx_http_llm_zone_sh_t *
ngx_http_llm_zone_create(ngx_http_llm_zone_t *zone, ngx_slab_pool_t *shpool)
{
    ngx_uint_t               i, nstocks;
    ngx_http_llm_zone_sh_t  *sh;

    sh = ngx_slab_calloc(shpool, sizeof(ngx_http_llm_zone_sh_t));
    if (sh == NULL) {
        return NULL;
    }

    sh->nslots = ngx_http_llm_key_slots(zone->shm_zone->shm.size);
    nstocks = zone->nshards * NGX_HTTP_LLM_ZONE_STOCKS;

    sh->slots = ngx_slab_calloc(shpool, sh->nslots * sizeof(uint32_t));
    sh->shards = ngx_slab_calloc(shpool, zone->nshards
                                         * sizeof(ngx_http_llm_shard_sh_t));
    sh->stocks = ngx_slab_calloc(shpool,
                                 nstocks * sizeof(ngx_http_llm_stock_t));

    if (sh->slots == NULL || sh->shards == NULL || sh->stocks == NULL) {
        return NULL;
    }

    for (i = 0; i < zone->nshards; i++) {
        ngx_queue_init(&sh->shards[i].lru);
    }

    for (i = 0; i < nstocks; i++) {
        ngx_queue_init(&sh->stocks[i].holds);
    }

    sh->version = NGX_HTTP_LLM_ZONE_VERSION;

    shpool->data = sh;

    /* from here on no log under a lock: who allocates says what it means */

    shpool->log_nomem = 0;

    return sh;
}


/* may it have the memory of an older cycle? */

static ngx_int_t
ngx_http_llm_zone_check(ngx_http_llm_zone_t *zone, ngx_http_llm_zone_t *old)
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

    return NGX_OK;
}
