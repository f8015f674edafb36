
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Tells all workers, also those of an older cycle, that something in shared
 * memory has changed.  Needs eventfd and epoll, as Linux has them; elsewhere
 * only the worker itself hears it.
 */


#ifndef _NGX_HTTP_LLM_BELL_H_INCLUDED_
#define _NGX_HTTP_LLM_BELL_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>


/* in the master, ahead of the workers: init_module */

ngx_int_t ngx_http_llm_bell_init_module(ngx_cycle_t *cycle);

/*
 * handler is called behind rings: once for those of one turn of the loop; and
 * when the worker is told to leave gracefully, with ngx_exiting set
 */

ngx_int_t ngx_http_llm_bell_init_process(ngx_cycle_t *cycle,
    ngx_event_handler_pt handler);

/* not under a lock */

void ngx_http_llm_bell_ring(void);


#endif /* _NGX_HTTP_LLM_BELL_H_INCLUDED_ */
