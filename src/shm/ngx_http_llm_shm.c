
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_shm.h"


void *
ngx_http_llm_shm_root(ngx_shm_zone_t *shm_zone, size_t bytes,
    ngx_uint_t version, ngx_uint_t *is_new)
{
    ngx_uint_t       *root;
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    root = shpool->data;
    *is_new = (root == NULL);

    if (root == NULL) {
        root = ngx_slab_calloc(shpool, bytes);
        if (root == NULL) {
            return NULL;
        }

        *root = version;
        shpool->data = root;
    }

    if (*root != version) {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "zone \"%V\" was laid out by another version of this "
                      "module: %ui instead of %ui, restart nginx",
                      &shm_zone->shm.name, *root, version);
        return NULL;
    }

    return root;
}
