
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_table.h"
#include "ngx_http_llm_shm.h"


/* the rows and names of a full table, and the slab's own; touched when used */
#define NGX_HTTP_LLM_INFLIGHT_SIZE       (6 * 1024 * 1024)

/*
 * One failure keeps a server behind its idle peers for 15 s and behind busy
 * ones for less; a row of failures for at most 35 s.
 */
#define NGX_HTTP_LLM_FAILURE_REQUESTS    4
#define NGX_HTTP_LLM_FAILURES_MAX        64
#define NGX_HTTP_LLM_FAILURE_HALF_S      5
#define NGX_HTTP_LLM_FAILURE_WEIGHS_S    35

/* behind a recovery the share grows by one each so many seconds */
#define NGX_HTTP_LLM_RECOVERY_STEP_S     1


static ngx_int_t ngx_http_llm_inflight_init_zone(ngx_shm_zone_t *zone,
    void *data);
static void ngx_http_llm_inflight_add_row(
    volatile ngx_http_llm_counts_t *counts, const uint32_t *slots,
    ngx_uint_t n, ngx_http_llm_load_t *loads);
static uint32_t ngx_http_llm_inflight_penalty(
    volatile ngx_http_llm_cell_t *cell, uint32_t now_s);
static uint32_t ngx_http_llm_inflight_share(
    volatile ngx_http_llm_cell_t *cell, uint32_t now_s);
static ngx_uint_t ngx_http_llm_inflight_mark(uint32_t slot, uint32_t now_s);


volatile ngx_http_llm_counts_t  *ngx_http_llm_counts;

/* NULL where nobody else sees the counts */

static ngx_http_llm_row_t       *ngx_http_llm_row;


#define ngx_http_llm_inflight_now_s()  ((uint32_t) (ngx_current_msec / 1000))


ngx_int_t
ngx_http_llm_inflight_attach(ngx_shm_zone_t *zone,
    ngx_http_llm_row_gone_pt gone, ngx_log_t *log)
{
    size_t                 size;
    ngx_http_llm_table_t  *table;

    table = zone->data;
    size = sizeof(ngx_http_llm_counts_t);

    /* a single process counts for itself, and has nobody to look after */

    if (ngx_process == NGX_PROCESS_WORKER) {

        ngx_http_llm_rows_watch(&table->rows, table->shpool, gone, log);

        ngx_http_llm_row = ngx_http_llm_row_take(&table->rows, table->shpool,
                                                 size, log);
        if (ngx_http_llm_row == NULL) {
            ngx_log_error(NGX_LOG_WARN, log, 0,
                          "no row is left in zone \"%V\" for this process, "
                          "others do not see its requests in flight",
                          &zone->shm.name);
        }
    }

    if (ngx_http_llm_row) {
        ngx_http_llm_counts = ngx_http_llm_row->data;

    } else {
        ngx_http_llm_counts = ngx_calloc(size, log);
    }

    return ngx_http_llm_counts ? NGX_OK : NGX_ERROR;
}


void
ngx_http_llm_inflight_detach(void)
{
    if (ngx_http_llm_row) {
        ngx_http_llm_row_leave(ngx_http_llm_row);

    } else if (ngx_http_llm_counts) {
        ngx_free((void *) ngx_http_llm_counts);
    }

    ngx_http_llm_row = NULL;
    ngx_http_llm_counts = NULL;
}


void
ngx_http_llm_inflight_lock(ngx_shm_zone_t *zone)
{
    ngx_http_llm_table_t  *table;

    table = zone->data;

    ngx_shmtx_lock(&table->shpool->mutex);
}


void
ngx_http_llm_inflight_unlock(ngx_shm_zone_t *zone)
{
    ngx_http_llm_table_t  *table;

    table = zone->data;

    ngx_shmtx_unlock(&table->shpool->mutex);
}


void
ngx_http_llm_inflight_loads(ngx_shm_zone_t *zone, const uint32_t *slots,
    ngx_uint_t n, ngx_http_llm_load_t *loads)
{
    ngx_uint_t                       i, rows;
    ngx_http_llm_table_t            *table;
    volatile ngx_http_llm_counts_t  *counts;

    table = zone->data;

    for (i = 0; i < n; i++) {
        loads[i].inflight = 0;
        loads[i].pending = 0;
        loads[i].penalty = 0;
        loads[i].share = NGX_HTTP_LLM_INFLIGHT_WHOLE;
    }

    rows = table->rows.n;

    for (i = 0; i < rows; i++) {
        counts = ngx_http_llm_row_data(&table->rows.elts[i]);

        if (counts) {
            ngx_http_llm_inflight_add_row(counts, slots, n, loads);
        }
    }

    if (ngx_http_llm_row == NULL && ngx_http_llm_counts) {
        ngx_http_llm_inflight_add_row(ngx_http_llm_counts, slots, n, loads);
    }
}


static void
ngx_http_llm_inflight_add_row(volatile ngx_http_llm_counts_t *counts,
    const uint32_t *slots, ngx_uint_t n, ngx_http_llm_load_t *loads)
{
    uint32_t                       now_s, share;
    ngx_uint_t                     i;
    volatile ngx_http_llm_cell_t  *cell;
    volatile ngx_http_llm_work_t  *work;

    for (i = 0; i < n; i++) {
        if (slots[i] != NGX_HTTP_LLM_INFLIGHT_NONE) {
            work = &counts->work[slots[i]];

            loads[i].inflight += work->inflight;
            loads[i].pending += work->pending;
        }
    }

    now_s = ngx_http_llm_inflight_now_s();

    if (now_s - counts->failed_s >= NGX_HTTP_LLM_FAILURE_WEIGHS_S) {
        return;
    }

    for (i = 0; i < n; i++) {
        if (slots[i] != NGX_HTTP_LLM_INFLIGHT_NONE) {
            cell = &counts->cells[slots[i]];
            share = ngx_http_llm_inflight_share(cell, now_s);

            loads[i].penalty += ngx_http_llm_inflight_penalty(cell, now_s);
            loads[i].share = ngx_min(loads[i].share, share);
        }
    }
}


static uint32_t
ngx_http_llm_inflight_penalty(volatile ngx_http_llm_cell_t *cell,
    uint32_t now_s)
{
    uint32_t  halves;

    halves = (now_s - cell->failed_s) / NGX_HTTP_LLM_FAILURE_HALF_S;

    return (halves < 32) ? cell->failures >> halves : 0;
}


static uint32_t
ngx_http_llm_inflight_share(volatile ngx_http_llm_cell_t *cell, uint32_t now_s)
{
    uint32_t  share;

    if (cell->recovered_s == 0) {
        return NGX_HTTP_LLM_INFLIGHT_WHOLE;
    }

    share = 1 + (now_s - cell->recovered_s) / NGX_HTTP_LLM_RECOVERY_STEP_S;

    return ngx_min(share, NGX_HTTP_LLM_INFLIGHT_WHOLE);
}


void
ngx_http_llm_inflight_enter(uint32_t slot, uint32_t pending)
{
    if (ngx_http_llm_counts) {
        ngx_http_llm_counts->work[slot].inflight++;
        ngx_http_llm_counts->work[slot].pending += pending;
    }
}


void
ngx_http_llm_inflight_read(uint32_t slot, uint32_t tokens)
{
    volatile ngx_http_llm_work_t  *work;

    if (ngx_http_llm_counts) {
        work = &ngx_http_llm_counts->work[slot];
        work->pending -= ngx_min(tokens, work->pending);
    }
}


void
ngx_http_llm_inflight_leave(uint32_t slot, uint32_t pending)
{
    ngx_http_llm_inflight_read(slot, pending);

    if (ngx_http_llm_counts && ngx_http_llm_counts->work[slot].inflight) {
        ngx_http_llm_counts->work[slot].inflight--;
    }
}


void
ngx_http_llm_inflight_failed(uint32_t slot)
{
    uint32_t                       failures, now_s;
    volatile ngx_http_llm_cell_t  *cell;

    now_s = ngx_http_llm_inflight_now_s();

    if (!ngx_http_llm_inflight_mark(slot, now_s)) {
        return;
    }

    cell = &ngx_http_llm_counts->cells[slot];

    failures = ngx_http_llm_inflight_penalty(cell, now_s)
               + NGX_HTTP_LLM_FAILURE_REQUESTS;

    cell->failed_s = now_s;
    cell->failures = ngx_min(failures, NGX_HTTP_LLM_FAILURES_MAX);
}


void
ngx_http_llm_inflight_recovered(uint32_t slot)
{
    uint32_t  now_s;

    now_s = ngx_http_llm_inflight_now_s();

    if (ngx_http_llm_inflight_mark(slot, now_s)) {
        ngx_http_llm_counts->cells[slot].recovered_s = now_s ? now_s : 1;
    }
}


/* others have to look at the cells; released ones are nobody's, soon others' */

static ngx_uint_t
ngx_http_llm_inflight_mark(uint32_t slot, uint32_t now_s)
{
    if (ngx_http_llm_counts == NULL
        || ngx_http_llm_counts->cells[slot].held == 0)
    {
        return 0;
    }

    ngx_http_llm_counts->failed_s = now_s;

    return 1;
}


ngx_shm_zone_t *
ngx_http_llm_inflight_zone(ngx_conf_t *cf, void *tag)
{
    ngx_shm_zone_t    *zone;
    static ngx_str_t   name = ngx_string("llm_inflight");

    zone = ngx_shared_memory_add(cf, &name, NGX_HTTP_LLM_INFLIGHT_SIZE, tag);
    if (zone == NULL) {
        return NULL;
    }

    zone->init = ngx_http_llm_inflight_init_zone;

    return zone;
}


static ngx_int_t
ngx_http_llm_inflight_init_zone(ngx_shm_zone_t *zone, void *data)
{
    ngx_uint_t             is_new;
    ngx_http_llm_table_t  *table;

    table = ngx_http_llm_shm_root(zone, sizeof(ngx_http_llm_table_t),
                                  NGX_HTTP_LLM_INFLIGHT_VERSION, &is_new);
    if (table == NULL) {
        return NGX_ERROR;
    }

    if (is_new) {
        table->shpool = (ngx_slab_pool_t *) zone->shm.addr;

        /* a table that is full is our own rule, logged once by us */

        table->shpool->log_nomem = 0;
    }

    zone->data = table;

    return NGX_OK;
}
