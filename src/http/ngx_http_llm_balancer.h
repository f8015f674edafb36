
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

#include "ngx_http_llm_learn.h"
#include "ngx_http_llm_place.h"


typedef struct ngx_http_llm_peer_data_s  ngx_http_llm_peer_data_t;


/* what is compared */

typedef enum {
    NGX_HTTP_LLM_COST_REQUESTS = 0,
    NGX_HTTP_LLM_COST_TOKENS
} ngx_http_llm_cost_e;


/*
 * Where the servers of one list are counted, found once for each worker and
 * kept by the servers' place in the list.
 */

typedef struct {
    uint32_t                     *slots;
    ngx_uint_t                    nslots;

    /* hashes of the servers' addresses, by which a key's places name them */
    uint32_t                     *servers;

    /* room for what is known of the servers, for one choice at a time */
    ngx_http_llm_load_t          *loads;
    ngx_http_llm_known_t         *known;

    /* of the servers that slots was made from: "resolve" changes them */
    ngx_uint_t                    generation;

    /* some server has max_conns */
    unsigned                      limited:1;

    /* some server is named twice */
    unsigned                      doubled:1;
} ngx_http_llm_balancer_list_t;


/* part of the upstream's configuration */

typedef struct {
    ngx_shm_zone_t               *zone;

    ngx_http_llm_balancer_list_t  primary;
    ngx_http_llm_balancer_list_t  backup;

    ngx_http_llm_cost_e           cost;

    /* NULL: no affinity */
    ngx_http_complex_value_t     *affinity;
    ngx_shm_zone_t               *places;

    /* times the mean load, in thousandths */
    uint32_t                      bound_1000;

    ngx_uint_t                    enabled;
} ngx_http_llm_balancer_conf_t;


typedef struct {
    /* that are free now; as many as can be where some server has no limit */
    ngx_uint_t                    free;

    /*
     * Those of them that servers with failures, but without max_fails, might
     * have: they do not count as long as there is another server.  Who is
     * refused there cannot wait again: it would need a seat elsewhere.
     */
    ngx_uint_t                    doubtful;

    /* there is a server that is not down, nor out after failures */
    unsigned                      live:1;

    /* there is one that had no failures, or has max_fails */
    unsigned                      clean:1;

    /* all of those have max_conns */
    unsigned                      limited:1;
} ngx_http_llm_seats_t;


/*
 * What a new request would find at the servers of an upstream, backups too:
 * a seat is one request in flight that max_conns still allows.
 */

void ngx_http_llm_balancer_seats(ngx_http_upstream_srv_conf_t *us,
    ngx_http_llm_seats_t *seats);

/* llm_least_inflight [cost=requests|tokens] [affinity=$var] [bound=N] */

char *ngx_http_llm_least_inflight_directive(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);

/* the first content has come: the prompt is read */

void ngx_http_llm_balancer_first_token(ngx_http_llm_peer_data_t *lp);

/* a worker takes its row, and leaves it: init_process, exit_process */

ngx_int_t ngx_http_llm_balancer_init_process(ngx_cycle_t *cycle);
void ngx_http_llm_balancer_exit_process(ngx_cycle_t *cycle);


#endif /* _NGX_HTTP_LLM_BALANCER_H_INCLUDED_ */
