
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_ids.h"
#include "ngx_http_llm_shm.h"


#define NGX_HTTP_LLM_IDS_VERSION  1

#define NGX_HTTP_LLM_IDS_BYTES    (4 * 1024 * 1024)


/* 64 bytes: the size of a slab chunk */

struct ngx_http_llm_id_s {
    /* its key is the first part of the id */
    ngx_rbtree_node_t     node;

    u_char                id[NGX_HTTP_LLM_ID_BYTES];
    ngx_pid_t             pid;
    volatile uint32_t     cancelled;
};


typedef struct {
    ngx_uint_t            version;
    ngx_rbtree_t          tree;
    ngx_rbtree_node_t     sentinel;
    volatile ngx_uint_t   cancels;

    /* the log says that there is no room */
    ngx_uint_t            full;
} ngx_http_llm_ids_t;


static ngx_int_t ngx_http_llm_ids_init_zone(ngx_shm_zone_t *shm_zone,
    void *data);
static ngx_rbtree_key_t ngx_http_llm_ids_key(const u_char *id);
static ngx_http_llm_id_t *ngx_http_llm_ids_find_locked(
    ngx_http_llm_ids_t *ids, const u_char *id);


static ngx_str_t  ngx_http_llm_ids_name = ngx_string("ngx_http_llm_ids");


ngx_shm_zone_t *
ngx_http_llm_ids_zone(ngx_conf_t *cf, void *tag)
{
    ngx_shm_zone_t  *zone;

    zone = ngx_shared_memory_add(cf, &ngx_http_llm_ids_name,
                                 NGX_HTTP_LLM_IDS_BYTES, tag);
    if (zone == NULL) {
        return NULL;
    }

    zone->init = ngx_http_llm_ids_init_zone;

    return zone;
}


/* data of a zone is its slab pool, whose data is the table */

static ngx_int_t
ngx_http_llm_ids_init_zone(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_uint_t           is_new;
    ngx_slab_pool_t     *shpool;
    ngx_http_llm_ids_t  *ids;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    shm_zone->data = shpool;

    ids = ngx_http_llm_shm_root(shm_zone, sizeof(ngx_http_llm_ids_t),
                                NGX_HTTP_LLM_IDS_VERSION, &is_new);
    if (ids == NULL) {
        return NGX_ERROR;
    }

    if (is_new) {
        ngx_rbtree_init(&ids->tree, &ids->sentinel, ngx_rbtree_insert_value);
        shpool->log_nomem = 0;
    }

    return NGX_OK;
}


static ngx_rbtree_key_t
ngx_http_llm_ids_key(const u_char *id)
{
    ngx_rbtree_key_t  key;

    ngx_memcpy(&key, id, sizeof(ngx_rbtree_key_t));

    return key;
}


ngx_http_llm_id_t *
ngx_http_llm_ids_add(ngx_shm_zone_t *zone, const u_char *id, ngx_log_t *log)
{
    ngx_uint_t           full;
    ngx_slab_pool_t     *shpool;
    ngx_http_llm_id_t   *row;
    ngx_http_llm_ids_t  *ids;

    shpool = zone->data;
    ids = shpool->data;
    full = 0;

    ngx_shmtx_lock(&shpool->mutex);

    row = ngx_slab_alloc_locked(shpool, sizeof(ngx_http_llm_id_t));

    if (row) {
        ngx_memcpy(row->id, id, NGX_HTTP_LLM_ID_BYTES);
        row->pid = ngx_pid;
        row->cancelled = 0;
        row->node.key = ngx_http_llm_ids_key(id);

        ngx_rbtree_insert(&ids->tree, &row->node);

        ids->full = 0;

    } else {
        full = !ids->full;
        ids->full = 1;
    }

    ngx_shmtx_unlock(&shpool->mutex);

    if (full) {
        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "zone \"%V\" is full: further streams cannot be ended "
                      "by llm_cancel", &zone->shm.name);
    }

    return row;
}


void
ngx_http_llm_ids_remove(ngx_shm_zone_t *zone, ngx_http_llm_id_t *row)
{
    ngx_slab_pool_t     *shpool;
    ngx_http_llm_ids_t  *ids;

    shpool = zone->data;
    ids = shpool->data;

    ngx_shmtx_lock(&shpool->mutex);

    ngx_rbtree_delete(&ids->tree, &row->node);
    ngx_slab_free_locked(shpool, row);

    ngx_shmtx_unlock(&shpool->mutex);
}


ngx_int_t
ngx_http_llm_ids_cancel(ngx_shm_zone_t *zone, const u_char *id)
{
    ngx_slab_pool_t     *shpool;
    ngx_http_llm_id_t   *row;
    ngx_http_llm_ids_t  *ids;

    shpool = zone->data;
    ids = shpool->data;

    ngx_shmtx_lock(&shpool->mutex);

    row = ngx_http_llm_ids_find_locked(ids, id);

    if (row) {
        row->cancelled = 1;
        ids->cancels++;
    }

    ngx_shmtx_unlock(&shpool->mutex);

    return row ? NGX_OK : NGX_DECLINED;
}


static ngx_http_llm_id_t *
ngx_http_llm_ids_find_locked(ngx_http_llm_ids_t *ids, const u_char *id)
{
    ngx_rbtree_key_t    key;
    ngx_rbtree_node_t  *node;
    ngx_http_llm_id_t  *row;

    key = ngx_http_llm_ids_key(id);
    node = ids->tree.root;

    while (node != &ids->sentinel) {
        row = (ngx_http_llm_id_t *) node;

        if (key == node->key
            && ngx_memcmp(row->id, id, NGX_HTTP_LLM_ID_BYTES) == 0)
        {
            return row;
        }

        /* equal keys are inserted to the right */

        node = (key < node->key) ? node->left : node->right;
    }

    return NULL;
}


ngx_uint_t
ngx_http_llm_ids_cancels(ngx_shm_zone_t *zone)
{
    ngx_slab_pool_t     *shpool;
    ngx_http_llm_ids_t  *ids;

    shpool = zone->data;
    ids = shpool->data;

    return ids->cancels;
}


ngx_uint_t
ngx_http_llm_ids_is_cancelled(ngx_http_llm_id_t *row)
{
    return row->cancelled;
}


void
ngx_http_llm_ids_reap(ngx_shm_zone_t *zone, ngx_pid_t pid)
{
    ngx_slab_pool_t     *shpool;
    ngx_rbtree_node_t   *next, *node;
    ngx_http_llm_id_t   *row;
    ngx_http_llm_ids_t  *ids;

    shpool = zone->data;
    ids = shpool->data;

    ngx_shmtx_lock(&shpool->mutex);

    node = (ids->tree.root != &ids->sentinel)
           ? ngx_rbtree_min(ids->tree.root, &ids->sentinel) : NULL;

    for ( /* void */ ; node; node = next) {
        next = ngx_rbtree_next(&ids->tree, node);
        row = (ngx_http_llm_id_t *) node;

        if (row->pid == pid) {
            ngx_rbtree_delete(&ids->tree, node);
            ngx_slab_free_locked(shpool, row);
        }
    }

    ngx_shmtx_unlock(&shpool->mutex);
}
