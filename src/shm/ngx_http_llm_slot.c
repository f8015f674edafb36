
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_table.h"


static uint32_t ngx_http_llm_inflight_find_locked(ngx_http_llm_table_t *table,
    const ngx_http_llm_slot_t *wanted);
static uint32_t ngx_http_llm_inflight_add_locked(ngx_http_llm_table_t *table,
    const ngx_http_llm_slot_t *wanted);


/* this process has said so */

static ngx_uint_t  ngx_http_llm_inflight_full;


uint32_t
ngx_http_llm_inflight_hold(ngx_shm_zone_t *zone, const ngx_str_t *upstream,
    const ngx_str_t *address, ngx_log_t *log)
{
    u_char                *p;
    uint32_t               slot;
    ngx_http_llm_slot_t    wanted;
    ngx_http_llm_table_t  *table;
    u_char                 name[NGX_HTTP_LLM_INFLIGHT_NAME];

    table = zone->data;

    if (ngx_http_llm_counts == NULL) {
        return NGX_HTTP_LLM_INFLIGHT_NONE;
    }

    slot = NGX_HTTP_LLM_INFLIGHT_NONE;

    if (upstream->len + address->len <= NGX_HTTP_LLM_INFLIGHT_NAME) {
        p = ngx_cpymem(name, upstream->data, upstream->len);
        p = ngx_cpymem(p, address->data, address->len);

        wanted.hash = ngx_crc32_long(name, p - name);
        wanted.upstream_len = (uint16_t) upstream->len;
        wanted.address_len = (uint16_t) address->len;
        wanted.name = name;

        ngx_shmtx_lock(&table->shpool->mutex);

        slot = ngx_http_llm_inflight_find_locked(table, &wanted);

        if (slot == NGX_HTTP_LLM_INFLIGHT_NONE) {
            slot = ngx_http_llm_inflight_add_locked(table, &wanted);
        }

        if (slot != NGX_HTTP_LLM_INFLIGHT_NONE) {
            ngx_http_llm_counts->cells[slot].held++;
        }

        ngx_shmtx_unlock(&table->shpool->mutex);
    }

    if (slot == NGX_HTTP_LLM_INFLIGHT_NONE && !ngx_http_llm_inflight_full) {
        ngx_http_llm_inflight_full = 1;

        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "no slot is left in zone \"%V\" for server %V of "
                      "upstream \"%V\", and maybe others: each worker sees "
                      "only its own requests in flight there",
                      &zone->shm.name, address, upstream);
    }

    return slot;
}


void
ngx_http_llm_inflight_release(uint32_t slot)
{
    volatile ngx_http_llm_cell_t  *cell;

    if (slot == NGX_HTTP_LLM_INFLIGHT_NONE || ngx_http_llm_counts == NULL) {
        return;
    }

    cell = &ngx_http_llm_counts->cells[slot];

    /* the slot's next server starts without these failures */

    if (cell->held == 1) {
        cell->failures = 0;
        cell->recovered_s = 0;
        ngx_memory_barrier();
    }

    if (cell->held) {
        cell->held--;
    }
}


static uint32_t
ngx_http_llm_inflight_find_locked(ngx_http_llm_table_t *table,
    const ngx_http_llm_slot_t *wanted)
{
    uint32_t              i;
    ngx_http_llm_slot_t  *slot;

    for (i = 0; i < table->nslots; i++) {
        slot = &table->slots[i];

        if (slot->hash == wanted->hash
            && slot->upstream_len == wanted->upstream_len
            && slot->address_len == wanted->address_len
            && ngx_memcmp(slot->name, wanted->name,
                          wanted->upstream_len + wanted->address_len)
               == 0)
        {
            return i;
        }
    }

    return NGX_HTTP_LLM_INFLIGHT_NONE;
}


/* a slot that was never used, or one that nobody uses any more */

static uint32_t
ngx_http_llm_inflight_add_locked(ngx_http_llm_table_t *table,
    const ngx_http_llm_slot_t *wanted)
{
    size_t                len;
    u_char               *name;
    uint32_t              i;
    ngx_http_llm_slot_t  *slot;

    i = table->nslots;

    if (i == NGX_HTTP_LLM_INFLIGHT_SERVERS) {
        for (i = 0; i < NGX_HTTP_LLM_INFLIGHT_SERVERS; i++) {
            if (!ngx_http_llm_inflight_held(table, i)) {
                break;
            }
        }
    }

    if (i == NGX_HTTP_LLM_INFLIGHT_SERVERS) {
        return NGX_HTTP_LLM_INFLIGHT_NONE;
    }

    len = wanted->upstream_len + wanted->address_len;

    name = ngx_slab_alloc_locked(table->shpool, len);
    if (name == NULL) {
        return NGX_HTTP_LLM_INFLIGHT_NONE;
    }

    ngx_memcpy(name, wanted->name, len);

    slot = &table->slots[i];

    if (slot->name) {
        ngx_slab_free_locked(table->shpool, slot->name);
    }

    slot->hash = wanted->hash;
    slot->upstream_len = wanted->upstream_len;
    slot->address_len = wanted->address_len;
    slot->name = name;

    ngx_memzero((void *) &slot->learned, sizeof(ngx_http_llm_learned_t));

    if (i == table->nslots) {
        table->nslots = i + 1;
    }

    return i;
}


ngx_uint_t
ngx_http_llm_inflight_held(ngx_http_llm_table_t *table, uint32_t slot)
{
    ngx_uint_t                       i;
    volatile ngx_http_llm_counts_t  *counts;

    for (i = 0; i < table->rows.n; i++) {
        counts = ngx_http_llm_row_data(&table->rows.elts[i]);

        if (counts
            && (counts->cells[slot].held || counts->work[slot].inflight))
        {
            return 1;
        }
    }

    counts = ngx_http_llm_counts;

    return counts
           && (counts->cells[slot].held || counts->work[slot].inflight);
}


ngx_int_t
ngx_http_llm_inflight_next(ngx_shm_zone_t *zone, ngx_uint_t *index,
    ngx_http_llm_server_t *server)
{
    uint32_t               i;
    ngx_http_llm_slot_t   *slot;
    ngx_http_llm_table_t  *table;

    table = zone->data;

    ngx_shmtx_lock(&table->shpool->mutex);

    for (i = *index; i < table->nslots; i++) {
        if (ngx_http_llm_inflight_held(table, i)) {
            break;
        }
    }

    if (i >= table->nslots) {
        ngx_shmtx_unlock(&table->shpool->mutex);
        return NGX_DONE;
    }

    slot = &table->slots[i];

    ngx_memcpy(server->name, slot->name,
               slot->upstream_len + slot->address_len);

    server->upstream.data = server->name;
    server->upstream.len = slot->upstream_len;
    server->address.data = server->name + slot->upstream_len;
    server->address.len = slot->address_len;

    ngx_http_llm_inflight_loads(zone, &i, 1, &server->load);

    ngx_shmtx_unlock(&table->shpool->mutex);

    *index = i + 1;

    return NGX_OK;
}
