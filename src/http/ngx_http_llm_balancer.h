
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * llm_least_inflight: the server with the least work in flight, counted over
 * all workers.
 */


#ifndef _NGX_HTTP_LLM_BALANCER_H_INCLUDED_
#define _NGX_HTTP_LLM_BALANCER_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


/* part of the upstream's configuration */

typedef struct {
    /* what round robin set up, called first */
    ngx_http_upstream_init_pt       init_upstream;
    ngx_http_upstream_init_peer_pt  init_peer;

    /* the balancer's own: what it remembers of each server */
    void                           *data;

    ngx_uint_t                      enabled;
} ngx_http_llm_balancer_conf_t;


/* llm_least_inflight [cost=requests] */

char *ngx_http_llm_least_inflight_directive(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);

/* a worker takes its row, and leaves it: init_process, exit_process */

ngx_int_t ngx_http_llm_balancer_init_process(ngx_cycle_t *cycle);
void ngx_http_llm_balancer_exit_process(ngx_cycle_t *cycle);


#endif /* _NGX_HTTP_LLM_BALANCER_H_INCLUDED_ */
