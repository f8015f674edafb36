
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_place.h"
#include "ngx_http_llm_shm.h"


#define NGX_HTTP_LLM_PLACE_VERSION  1

#define NGX_HTTP_LLM_PLACE_SETS     8192
#define NGX_HTTP_LLM_PLACE_WAYS     8

/* the table is 4 MB in one piece, the slab needs some for itself */
#define NGX_HTTP_LLM_PLACE_SIZE     (4608 * 1024)


typedef struct {
    /* 0: free */
    uint64_t                    key;

    /* of the monotonic clock */
    uint32_t                    used_ms;

    ngx_http_llm_place_t        places[NGX_HTTP_LLM_PLACES];
} ngx_http_llm_place_entry_t;


typedef struct {
    ngx_uint_t                  version;
    ngx_http_llm_place_entry_t  sets[NGX_HTTP_LLM_PLACE_SETS]
                                    [NGX_HTTP_LLM_PLACE_WAYS];
} ngx_http_llm_place_table_t;


static ngx_int_t ngx_http_llm_place_init_zone(ngx_shm_zone_t *zone,
    void *data);
static ngx_http_llm_place_entry_t *ngx_http_llm_place_entry_locked(
    ngx_slab_pool_t *shpool, uint64_t key);


static ngx_str_t  ngx_http_llm_place_zone_name = ngx_string("llm_affinity");


ngx_shm_zone_t *
ngx_http_llm_place_zone(ngx_conf_t *cf, void *tag)
{
    ngx_shm_zone_t  *zone;

    zone = ngx_shared_memory_add(cf, &ngx_http_llm_place_zone_name,
                                 NGX_HTTP_LLM_PLACE_SIZE, tag);
    if (zone == NULL) {
        return NULL;
    }

    zone->init = ngx_http_llm_place_init_zone;

    return zone;
}


/* data of the zone is its slab pool, whose data is the table */

static ngx_int_t
ngx_http_llm_place_init_zone(ngx_shm_zone_t *zone, void *data)
{
    ngx_uint_t  is_new;

    zone->data = zone->shm.addr;

    return ngx_http_llm_shm_root(zone, sizeof(ngx_http_llm_place_table_t),
                                 NGX_HTTP_LLM_PLACE_VERSION, &is_new)
           ? NGX_OK : NGX_ERROR;
}


void
ngx_http_llm_place_find(ngx_shm_zone_t *zone, uint64_t key,
    ngx_http_llm_place_t places[NGX_HTTP_LLM_PLACES])
{
    ngx_slab_pool_t             *shpool;
    ngx_http_llm_place_entry_t  *entry;

    shpool = zone->data;

    ngx_memzero(places, NGX_HTTP_LLM_PLACES * sizeof(ngx_http_llm_place_t));

    ngx_shmtx_lock(&shpool->mutex);

    entry = ngx_http_llm_place_entry_locked(shpool, key);

    if (entry->key == key) {
        entry->used_ms = (uint32_t) ngx_current_msec;
        ngx_memcpy(places, entry->places, sizeof(entry->places));
    }

    ngx_shmtx_unlock(&shpool->mutex);
}


void
ngx_http_llm_place_put(ngx_shm_zone_t *zone, uint64_t key,
    const ngx_http_llm_place_t *place)
{
    ngx_uint_t                   i;
    ngx_slab_pool_t             *shpool;
    ngx_http_llm_place_t        *places;
    ngx_http_llm_place_entry_t  *entry;

    shpool = zone->data;

    ngx_shmtx_lock(&shpool->mutex);

    entry = ngx_http_llm_place_entry_locked(shpool, key);

    if (entry->key != key) {
        ngx_memzero(entry, sizeof(ngx_http_llm_place_entry_t));
        entry->key = key;
    }

    entry->used_ms = (uint32_t) ngx_current_msec;
    places = entry->places;

    for (i = 0; i < NGX_HTTP_LLM_PLACES - 1; i++) {
        if (places[i].server == place->server || places[i].server == 0) {
            break;
        }
    }

    ngx_memmove(&places[1], &places[0], i * sizeof(ngx_http_llm_place_t));
    places[0] = *place;

    ngx_shmtx_unlock(&shpool->mutex);
}


void
ngx_http_llm_place_correct(ngx_shm_zone_t *zone, uint64_t key,
    uint32_t server, uint32_t tokens)
{
    ngx_uint_t                   i;
    ngx_slab_pool_t             *shpool;
    ngx_http_llm_place_entry_t  *entry;

    shpool = zone->data;

    ngx_shmtx_lock(&shpool->mutex);

    entry = ngx_http_llm_place_entry_locked(shpool, key);

    for (i = 0; entry->key == key && i < NGX_HTTP_LLM_PLACES; i++) {
        if (entry->places[i].server == server) {
            entry->places[i].tokens = tokens;
            break;
        }
    }

    ngx_shmtx_unlock(&shpool->mutex);
}


void
ngx_http_llm_place_forget(ngx_shm_zone_t *zone, uint64_t key, uint32_t server)
{
    ngx_uint_t                   i, n;
    ngx_slab_pool_t             *shpool;
    ngx_http_llm_place_entry_t  *entry;

    shpool = zone->data;

    ngx_shmtx_lock(&shpool->mutex);

    entry = ngx_http_llm_place_entry_locked(shpool, key);

    for (i = 0, n = 0; entry->key == key && i < NGX_HTTP_LLM_PLACES; i++) {
        if (entry->places[i].server != server) {
            entry->places[n++] = entry->places[i];
        }
    }

    if (n < i) {
        ngx_memzero(&entry->places[n],
                    (i - n) * sizeof(ngx_http_llm_place_t));
    }

    ngx_shmtx_unlock(&shpool->mutex);
}


/* the entry of this key; otherwise the one that it may take */

static ngx_http_llm_place_entry_t *
ngx_http_llm_place_entry_locked(ngx_slab_pool_t *shpool, uint64_t key)
{
    ngx_uint_t                   i;
    ngx_http_llm_place_entry_t  *entry, *set;
    ngx_http_llm_place_table_t  *table;

    table = shpool->data;

    set = table->sets[key % NGX_HTTP_LLM_PLACE_SETS];
    entry = set;

    for (i = 0; i < NGX_HTTP_LLM_PLACE_WAYS; i++) {

        if (set[i].key == key) {
            return &set[i];
        }

        if (entry->key != 0
            && (set[i].key == 0
                || (int32_t) (set[i].used_ms - entry->used_ms) < 0))
        {
            entry = &set[i];
        }
    }

    return entry;
}
