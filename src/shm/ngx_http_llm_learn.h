
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * What all workers learned of each server of the table of requests in flight
 * (ngx_http_llm_inflight.h): by slots, without a lock.  Of two processes that
 * learn at once one may be in vain.
 */


#ifndef _NGX_HTTP_LLM_LEARN_H_INCLUDED_
#define _NGX_HTTP_LLM_LEARN_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_http_llm_inflight.h"
#include "ngx_llm_speed.h"


typedef struct {
    /* prompts read, tokens written; faded by their age */
    ngx_llm_speed_t       prefill;
    ngx_llm_speed_t       decode;

    /* prompt tokens that it was given to read; it wraps around */
    uint32_t              clock;

    /* of its prefix cache, in tokens; 0: not known */
    uint32_t              capacity;
} ngx_http_llm_known_t;


/* slots are held ones, or _NONE, of which nothing is known */

void ngx_http_llm_learn_look(ngx_shm_zone_t *zone, const uint32_t *slots,
    ngx_uint_t n, ngx_http_llm_known_t *known);

/* one sample each: see ngx_llm_speed_learn() and ngx_llm_cache_learn() */

void ngx_http_llm_learn_prefill(ngx_shm_zone_t *zone, uint32_t slot,
    uint32_t tokens, ngx_msec_t time_ms);
void ngx_http_llm_learn_decode(ngx_shm_zone_t *zone, uint32_t slot,
    uint32_t tokens, ngx_msec_t time_ms);
void ngx_http_llm_learn_cache(ngx_shm_zone_t *zone, uint32_t slot,
    uint32_t distance, ngx_uint_t hit);

/* so many prompt tokens more for the server to read; its clock behind them */

uint32_t ngx_http_llm_learn_clock(ngx_shm_zone_t *zone, uint32_t slot,
    uint32_t tokens);


#endif /* _NGX_HTTP_LLM_LEARN_H_INCLUDED_ */
