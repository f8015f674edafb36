
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The ids of the streams alive in all workers: who knows one may end it.
 *
 * A tree in shared memory.  Whoever ends a stream marks its id and has the
 * bell rung; the worker that the stream runs in finds the mark.  Ids of a
 * dead process are taken out as soon as its row is: see
 * ngx_http_llm_inflight_attach().
 *
 * Bounded: 4 MB, some 60,000 streams.  One above that has no id here, and one
 * line in the log says so.
 */


#ifndef _NGX_HTTP_LLM_IDS_H_INCLUDED_
#define _NGX_HTTP_LLM_IDS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/* random, and not to be guessed */
#define NGX_HTTP_LLM_ID_BYTES  16


typedef struct ngx_http_llm_id_s  ngx_http_llm_id_t;


/* adds the zone to the configuration, once; tag is the module; or NULL */

ngx_shm_zone_t *ngx_http_llm_ids_zone(ngx_conf_t *cf, void *tag);

/* a stream of this process comes alive, and ends; NULL: there is no room */

ngx_http_llm_id_t *ngx_http_llm_ids_add(ngx_shm_zone_t *zone,
    const u_char *id, ngx_log_t *log);
void ngx_http_llm_ids_remove(ngx_shm_zone_t *zone, ngx_http_llm_id_t *id);

/* marks a stream; NGX_DECLINED when none that is alive has this id */

ngx_int_t ngx_http_llm_ids_cancel(ngx_shm_zone_t *zone, const u_char *id);

/* how many were ever marked: as long as it is the same nobody has to look */

ngx_uint_t ngx_http_llm_ids_cancels(ngx_shm_zone_t *zone);
ngx_uint_t ngx_http_llm_ids_is_cancelled(ngx_http_llm_id_t *id);

/* takes out all ids of a process that has ended */

void ngx_http_llm_ids_reap(ngx_shm_zone_t *zone, ngx_pid_t pid);


#endif /* _NGX_HTTP_LLM_IDS_H_INCLUDED_ */
