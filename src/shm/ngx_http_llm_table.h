
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The inside of ngx_http_llm_inflight.h: how the table lies in shared
 * memory, for the files that count in it and for those that hand out its
 * slots.
 */


#ifndef _NGX_HTTP_LLM_TABLE_H_INCLUDED_
#define _NGX_HTTP_LLM_TABLE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_http_llm_inflight.h"


/* changes with every change of the types below or of the limits */
#define NGX_HTTP_LLM_INFLIGHT_VERSION    2

#define NGX_HTTP_LLM_INFLIGHT_SERVERS    1024


/* what one process has in flight at one server */

typedef struct {
    uint32_t                       inflight;

    /* prompt tokens of these requests that the server has not read yet */
    uint32_t                       pending;
} ngx_http_llm_work_t;


typedef struct {
    /* how often the process holds the slot */
    uint32_t                       held;

    /* failures as they weighed when the last one came, in requests */
    uint32_t                       failures;

    /* of the monotonic clock, in seconds; recovered_s is 0 for never */
    uint32_t                       failed_s;
    uint32_t                       recovered_s;
} ngx_http_llm_cell_t;


/*
 * What one process writes and all read: 32 bits are never seen half written.
 * A choice reads the first array of each process, so it stands by itself.
 */

typedef struct {
    ngx_http_llm_work_t            work[NGX_HTTP_LLM_INFLIGHT_SERVERS];
    ngx_http_llm_cell_t            cells[NGX_HTTP_LLM_INFLIGHT_SERVERS];

    /* when any server last failed, or was tried again with success */
    uint32_t                       failed_s;
} ngx_http_llm_counts_t;


/*
 * What all processes learned of one server: a speed is one word, which is
 * swapped whole.
 */

typedef struct {
    uint64_t                       prefill;
    uint64_t                       decode;

    /* when they last changed */
    uint32_t                       prefill_s;
    uint32_t                       decode_s;

    /* prompt tokens that it was given to read; it wraps around */
    uint32_t                       clock;

    uint32_t                       capacity;
} ngx_http_llm_learned_t;


typedef struct {
    uint32_t                       hash;

    /* upstream's name, and the address right behind it */
    uint16_t                       upstream_len;
    uint16_t                       address_len;
    u_char                        *name;

    volatile ngx_http_llm_learned_t  learned;
} ngx_http_llm_slot_t;


typedef struct {
    ngx_uint_t                     version;

    /* the slab's own pool: structural changes are made under its mutex */
    ngx_slab_pool_t               *shpool;

    /* of ngx_http_llm_counts_t */
    ngx_http_llm_rows_t            rows;

    /* slots that were ever used: those above need no look */
    ngx_uint_t                     nslots;
    ngx_http_llm_slot_t            slots[NGX_HTTP_LLM_INFLIGHT_SERVERS];
} ngx_http_llm_table_t;


/* this process's own; NULL before it has attached */

extern volatile ngx_http_llm_counts_t  *ngx_http_llm_counts;

/* some process counts in this slot, or may yet */

ngx_uint_t ngx_http_llm_inflight_held(ngx_http_llm_table_t *table,
    uint32_t slot);


#endif /* _NGX_HTTP_LLM_TABLE_H_INCLUDED_ */
