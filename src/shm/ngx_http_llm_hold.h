
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */



/*
 * The holds of a zone: what its requests in flight have taken, from the
 * reserve to the settlement.  For the files of the zone only.
 */


#ifndef _NGX_HTTP_LLM_HOLD_H_INCLUDED_
#define _NGX_HTTP_LLM_HOLD_H_INCLUDED_


#include "ngx_http_llm_queue.h"


/* besides the bits of its budgets: they are a lease's */
#define NGX_HTTP_LLM_HOLD_LEASED  0x8000


/* costs of a request that did not happen */

extern const int64_t  ngx_http_llm_hold_nothing[NGX_HTTP_LLM_BUDGETS];


/* a hold of the take's costs, which it does not take; NULL: no memory */

ngx_http_llm_hold_t *ngx_http_llm_hold_begin_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);

/* as ngx_http_llm_zone_settle(), but learns nothing */

ngx_uint_t ngx_http_llm_hold_end_locked(ngx_http_llm_zone_t *zone,
    ngx_http_llm_hold_t *hold, const int64_t *costs, int64_t now_ns);


#endif /* _NGX_HTTP_LLM_HOLD_H_INCLUDED_ */
