
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_line.h"
#include "ngx_http_llm_shm.h"


/* changes with every change of the layout */
#define NGX_HTTP_LLM_LINE_VERSION     1

/* touched when used; always the same, or a reload would start anew */
#define NGX_HTTP_LLM_LINE_BYTES       (8 * 1024 * 1024)


static ngx_int_t ngx_http_llm_line_init_zone(ngx_shm_zone_t *shm_zone,
    void *data);
static ngx_http_llm_line_t *ngx_http_llm_line_create_locked(
    ngx_http_llm_line_zone_t *zone, const ngx_str_t *name);


static ngx_str_t  ngx_http_llm_line_zone_name = ngx_string("llm_queue");


ngx_shm_zone_t *
ngx_http_llm_line_zone(ngx_conf_t *cf, void *tag)
{
    ngx_shm_zone_t  *zone;

    zone = ngx_shared_memory_add(cf, &ngx_http_llm_line_zone_name,
                                 NGX_HTTP_LLM_LINE_BYTES, tag);
    if (zone) {
        zone->init = ngx_http_llm_line_init_zone;
    }

    return zone;
}


static ngx_int_t
ngx_http_llm_line_init_zone(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_uint_t                 is_new;
    ngx_slab_pool_t           *shpool;
    ngx_http_llm_line_zone_t  *zone;

    zone = ngx_http_llm_shm_root(shm_zone, sizeof(ngx_http_llm_line_zone_t),
                                 NGX_HTTP_LLM_LINE_VERSION, &is_new);
    if (zone == NULL) {
        return NGX_ERROR;
    }

    if (is_new) {
        shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

        zone->shpool = shpool;
        zone->seed = (uint64_t) ngx_random() << 32 ^ ngx_random();

        ngx_queue_init(&zone->tickets);
        ngx_queue_init(&zone->lines);

        /* a full zone is a full queue, and that is logged */

        shpool->log_nomem = 0;
    }

    shm_zone->data = zone;

    return NGX_OK;
}


ngx_http_llm_line_t *
ngx_http_llm_line_get(ngx_shm_zone_t *shm_zone, const ngx_str_t *name,
    ngx_log_t *log)
{
    ngx_queue_t               *q;
    ngx_http_llm_line_t       *line, *found;
    ngx_http_llm_line_zone_t  *zone;

    zone = shm_zone->data;
    found = NULL;

    ngx_shmtx_lock(&zone->shpool->mutex);

    for (q = ngx_queue_head(&zone->lines);
         q != ngx_queue_sentinel(&zone->lines);
         q = ngx_queue_next(q))
    {
        line = ngx_queue_data(q, ngx_http_llm_line_t, queue);

        if (line->name_len == name->len
            && ngx_memcmp(line->name, name->data, name->len) == 0)
        {
            found = line;
            break;
        }
    }

    if (found == NULL) {
        found = ngx_http_llm_line_create_locked(zone, name);
    }

    ngx_shmtx_unlock(&zone->shpool->mutex);

    if (found == NULL) {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "zone \"%V\" is full, upstream \"%V\" has no queue",
                      &shm_zone->shm.name, name);
    }

    return found;
}


static ngx_http_llm_line_t *
ngx_http_llm_line_create_locked(ngx_http_llm_line_zone_t *zone,
    const ngx_str_t *name)
{
    ngx_http_llm_line_t  *line;

    /* only when workers start: until all keys are forgotten, if need be */

    do {
        line = ngx_slab_calloc_locked(zone->shpool,
                                    sizeof(ngx_http_llm_line_t) + name->len);

    } while (line == NULL && ngx_http_llm_line_make_room_locked(zone, NULL));

    if (line == NULL) {
        return NULL;
    }

    line->zone = zone;
    line->name_len = name->len;
    ngx_memcpy(line->name, name->data, name->len);

    ngx_rbtree_init(&line->keys, &line->sentinel, ngx_rbtree_insert_value);
    ngx_queue_init(&line->idle);

    ngx_queue_insert_tail(&zone->lines, &line->queue);

    return line;
}


uint64_t
ngx_http_llm_line_seed(ngx_shm_zone_t *shm_zone)
{
    ngx_http_llm_line_zone_t  *zone;

    zone = shm_zone->data;

    return zone->seed;
}


void
ngx_http_llm_line_lock(ngx_shm_zone_t *shm_zone)
{
    ngx_http_llm_line_zone_t  *zone;

    zone = shm_zone->data;

    ngx_shmtx_lock(&zone->shpool->mutex);
}


void
ngx_http_llm_line_unlock(ngx_shm_zone_t *shm_zone)
{
    ngx_http_llm_line_zone_t  *zone;

    zone = shm_zone->data;

    ngx_shmtx_unlock(&zone->shpool->mutex);
}


void
ngx_http_llm_line_reap(ngx_shm_zone_t *shm_zone, ngx_pid_t pid)
{
    ngx_uint_t                 dead;
    ngx_queue_t               *q, *next;
    ngx_http_llm_ticket_t     *ticket;
    ngx_http_llm_line_zone_t  *zone;

    zone = shm_zone->data;

    ngx_shmtx_lock(&zone->shpool->mutex);

    for (q = ngx_queue_head(&zone->tickets);
         q != ngx_queue_sentinel(&zone->tickets);
         q = next)
    {
        next = ngx_queue_next(q);
        ticket = ngx_queue_data(q, ngx_http_llm_ticket_t, queue);

        dead = (pid == NGX_INVALID_PID)
               ? (ticket->slot == ngx_process_slot && ticket->pid != ngx_pid)
               : (ticket->pid == pid);

        if (dead) {
            ngx_http_llm_line_leave_locked(ticket, NULL);
        }
    }

    ngx_shmtx_unlock(&zone->shpool->mutex);
}
