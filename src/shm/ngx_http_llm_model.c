
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_model.h"
#include "ngx_http_llm_shm.h"


#define NGX_HTTP_LLM_MODEL_VERSION  3

/*
 * A name's hash says which row it may stand in; within a row the slot that
 * was not used for longest makes room.
 */

#define NGX_HTTP_LLM_MODEL_ROWS     64
#define NGX_HTTP_LLM_MODEL_SLOTS    8

/* the table needs nine pages in one piece, the slab some for itself */
#define NGX_HTTP_LLM_MODEL_PAGES    16


typedef struct {
    /* hash of the model's name; 0: free */
    uint64_t                      hash;

    ngx_msec_t                    used_ms;

    ngx_llm_ratio_t               ratios[NGX_HTTP_LLM_MODEL_TEXTS];
} ngx_http_llm_model_slot_t;


typedef struct {
    ngx_uint_t                    version;
    ngx_http_llm_model_slot_t     slots[NGX_HTTP_LLM_MODEL_ROWS]
                                       [NGX_HTTP_LLM_MODEL_SLOTS];
} ngx_http_llm_models_t;


static ngx_int_t ngx_http_llm_model_init_zone(ngx_shm_zone_t *shm_zone,
    void *data);
static uint64_t ngx_http_llm_model_hash(const ngx_str_t *model);
static ngx_http_llm_model_slot_t *ngx_http_llm_model_find_locked(
    ngx_shm_zone_t *zone, uint64_t hash);


static ngx_str_t  ngx_http_llm_model_zone_name =
    ngx_string("ngx_http_llm_models");


ngx_shm_zone_t *
ngx_http_llm_model_zone(ngx_conf_t *cf, void *tag)
{
    ngx_shm_zone_t  *zone;

    zone = ngx_shared_memory_add(cf, &ngx_http_llm_model_zone_name,
                                 NGX_HTTP_LLM_MODEL_PAGES * ngx_pagesize, tag);
    if (zone == NULL) {
        return NULL;
    }

    zone->init = ngx_http_llm_model_init_zone;

    return zone;
}


/* data of a zone is its slab pool, whose data is the table */

static ngx_int_t
ngx_http_llm_model_init_zone(ngx_shm_zone_t *zone, void *data)
{
    ngx_uint_t  is_new;

    zone->data = zone->shm.addr;

    return ngx_http_llm_shm_root(zone, sizeof(ngx_http_llm_models_t),
                                 NGX_HTTP_LLM_MODEL_VERSION, &is_new)
           ? NGX_OK : NGX_ERROR;
}


ngx_llm_ratio_t
ngx_http_llm_model_ratio(ngx_shm_zone_t *zone, const ngx_str_t *model,
    ngx_http_llm_model_text_e text)
{
    uint64_t                    hash;
    ngx_llm_ratio_t             ratio;
    ngx_slab_pool_t            *shpool;
    ngx_http_llm_model_slot_t  *slot;

    hash = ngx_http_llm_model_hash(model);
    shpool = zone->data;

    ngx_memzero(&ratio, sizeof(ngx_llm_ratio_t));

    ngx_shmtx_lock(&shpool->mutex);

    slot = ngx_http_llm_model_find_locked(zone, hash);

    if (slot->hash == hash) {
        slot->used_ms = ngx_current_msec;

        if (slot->ratios[text].samples == 0) {
            text = NGX_HTTP_LLM_MODEL_PROMPT;
        }

        ratio = slot->ratios[text];
    }

    ngx_shmtx_unlock(&shpool->mutex);

    return ratio;
}


/* names come from clients, but only what upstream answered takes a slot */

void
ngx_http_llm_model_learn(ngx_shm_zone_t *zone, const ngx_str_t *model,
    ngx_http_llm_model_text_e text, int64_t raw_tokens,
    int64_t reported_tokens)
{
    uint64_t                    hash;
    ngx_slab_pool_t            *shpool;
    ngx_http_llm_model_slot_t  *slot;

    hash = ngx_http_llm_model_hash(model);
    shpool = zone->data;

    ngx_shmtx_lock(&shpool->mutex);

    slot = ngx_http_llm_model_find_locked(zone, hash);

    if (slot->hash != hash) {
        ngx_memzero(slot, sizeof(ngx_http_llm_model_slot_t));
        slot->hash = hash;
    }

    slot->used_ms = ngx_current_msec;

    ngx_llm_ratio_learn(&slot->ratios[text], raw_tokens, reported_tokens);

    ngx_shmtx_unlock(&shpool->mutex);
}


static uint64_t
ngx_http_llm_model_hash(const ngx_str_t *model)
{
    uint64_t  hash;

    hash = (uint64_t) ngx_crc32_long(model->data, model->len) << 32
           | ngx_murmur_hash2(model->data, model->len);

    return hash ? hash : 1;
}


/* the slot of this hash; otherwise the one that it may take */

static ngx_http_llm_model_slot_t *
ngx_http_llm_model_find_locked(ngx_shm_zone_t *zone, uint64_t hash)
{
    ngx_uint_t                  i;
    ngx_slab_pool_t            *shpool;
    ngx_http_llm_models_t      *models;
    ngx_http_llm_model_slot_t  *row, *slot;

    shpool = zone->data;
    models = shpool->data;

    row = models->slots[hash % NGX_HTTP_LLM_MODEL_ROWS];
    slot = row;

    for (i = 0; i < NGX_HTTP_LLM_MODEL_SLOTS; i++) {

        if (row[i].hash == hash) {
            return &row[i];
        }

        if (slot->hash != 0
            && (row[i].hash == 0
                || (ngx_msec_int_t) (row[i].used_ms - slot->used_ms) < 0))
        {
            slot = &row[i];
        }
    }

    return slot;
}
