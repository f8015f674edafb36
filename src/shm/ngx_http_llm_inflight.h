
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Requests in flight at every server, counted over all workers.
 *
 * A table in shared memory: a slot for each server, a row of cells for each
 * process.  A cell is written by its process alone; a count is the sum of a
 * slot's cells over the rows of living processes.  So a killed worker takes
 * its counts with it, an old one that drains behind a reload keeps them, and
 * no lock is taken to count.
 *
 * A server is known by its upstream's name and its own address.  Reloads
 * keep the table, whatever they do to the configuration.
 *
 * Bounded: 1024 servers and 128 processes.  A server above that gets
 * NGX_HTTP_LLM_INFLIGHT_NONE: its caller counts by what it has.  A process
 * above that counts in a row of its own, which the others do not see.
 * One line in the log says so, and where the others' memory ends.
 */


#ifndef _NGX_HTTP_LLM_INFLIGHT_H_INCLUDED_
#define _NGX_HTTP_LLM_INFLIGHT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_http_llm_row.h"


/* the slot of a server that is not in the table */
#define NGX_HTTP_LLM_INFLIGHT_NONE  ((uint32_t) -1)

/* the share of a server's weight that counts, where all of it does */
#define NGX_HTTP_LLM_INFLIGHT_WHOLE  10

/* longest name of an upstream and its server's address together */
#define NGX_HTTP_LLM_INFLIGHT_NAME  512


typedef struct {
    /* requests in flight in all workers */
    uint32_t              inflight;

    /* prompt tokens that it has not read yet */
    uint32_t              pending;

    /* failures that still weigh, in requests */
    uint32_t              penalty;

    /* of NGX_HTTP_LLM_INFLIGHT_WHOLE: less for a while after a recovery */
    uint32_t              share;
} ngx_http_llm_load_t;


typedef struct {
    /* slices of the field below */
    ngx_str_t             upstream;
    ngx_str_t             address;

    ngx_http_llm_load_t   load;

    u_char                name[NGX_HTTP_LLM_INFLIGHT_NAME];
} ngx_http_llm_server_t;


/* adds the zone to the configuration, once; tag is the module; or NULL */

ngx_shm_zone_t *ngx_http_llm_inflight_zone(ngx_conf_t *cf, void *tag);

/*
 * A worker takes its row, and starts to look every second for rows whose
 * process is dead, of which it tells gone; and leaves it.  A worker that was
 * killed leaves nothing undone: its successor or any other worker frees its
 * row.
 */

ngx_int_t ngx_http_llm_inflight_attach(ngx_shm_zone_t *zone,
    ngx_http_llm_row_gone_pt gone, ngx_log_t *log);
void ngx_http_llm_inflight_detach(void);

/*
 * The slot of a server, new ones included; it belongs to this server until
 * this process, and every other, has released it.  A search: once for each
 * server and worker, not for each request.
 */

uint32_t ngx_http_llm_inflight_hold(ngx_shm_zone_t *zone,
    const ngx_str_t *upstream, const ngx_str_t *address, ngx_log_t *log);
void ngx_http_llm_inflight_release(uint32_t slot);

/*
 * What is in flight now at n servers; slots are held ones, or _NONE, which
 * gets zeroes.
 */

void ngx_http_llm_inflight_loads(ngx_shm_zone_t *zone, const uint32_t *slots,
    ngx_uint_t n, ngx_http_llm_load_t *loads);

/*
 * For a decision that must not race with another worker's, such as
 * max_conns: around loads and enter.
 */

void ngx_http_llm_inflight_lock(ngx_shm_zone_t *zone);
void ngx_http_llm_inflight_unlock(ngx_shm_zone_t *zone);

/*
 * One request more, one less, and in between: some of its prompt is read, so
 * many tokens.  What is pending of it is given up with it, by its caller.
 */

void ngx_http_llm_inflight_enter(uint32_t slot, uint32_t pending);
void ngx_http_llm_inflight_read(uint32_t slot, uint32_t tokens);
void ngx_http_llm_inflight_leave(uint32_t slot, uint32_t pending);

/*
 * A failure weighs as several requests in flight and is forgotten within half
 * a minute: a server that fails fast is never busy, and must not look idle for
 * that.  One that was taken out for its failures and is back would be given
 * all requests at once, as it has none: its share grows for ten seconds.
 */

void ngx_http_llm_inflight_failed(uint32_t slot);
void ngx_http_llm_inflight_recovered(uint32_t slot);

/*
 * The next server from *index (0 at first) that some process holds: NGX_OK,
 * or NGX_DONE after the last.  Names are copied.
 */

ngx_int_t ngx_http_llm_inflight_next(ngx_shm_zone_t *zone, ngx_uint_t *index,
    ngx_http_llm_server_t *server);


#endif /* _NGX_HTTP_LLM_INFLIGHT_H_INCLUDED_ */
