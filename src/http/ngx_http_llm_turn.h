
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * llm_queue: where every server of an upstream is at max_conns, requests wait
 * for their turn, fairly between keys, over all workers.
 *
 * A seat is reserved for a request before upstream is started, as nobody can
 * wait in peer.get; the balancer turns it into a request in flight, and back
 * between two servers of one request.  Nobody is given a server without a
 * seat, so that no newcomer gets ahead of those who wait.
 */


#ifndef _NGX_HTTP_LLM_TURN_H_INCLUDED_
#define _NGX_HTTP_LLM_TURN_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_llm_line.h"


/* part of the upstream's configuration */

typedef struct {
    /* requests that may wait; 0: there is no queue */
    ngx_uint_t                     max;
    ngx_msec_t                     timeout_ms;

    /* NULL: the key is that of llm_limit */
    ngx_http_complex_value_t      *key;

    ngx_http_upstream_srv_conf_t  *upstream;
    ngx_shm_zone_t                *zone;

    /* found by each worker; NULL: there is no memory for it */
    ngx_http_llm_line_t           *line;
} ngx_http_llm_turn_conf_t;


/* one request's, from the time it wants a seat until it left its server */

struct ngx_http_llm_turn_s {
    ngx_http_llm_turn_conf_t      *conf;
    ngx_http_request_t            *request;

    /* NULL where it cannot wait: a subrequest, a location without llm_stream */
    struct ngx_http_llm_ctx_s     *ctx;

    /* NULL: it has no seat, and waits for none */
    ngx_http_llm_ticket_t         *ticket;

    /* where it goes on */
    ngx_http_event_handler_pt      resume;

    /* ngx_current_msec when it came, and how long it waited */
    ngx_msec_t                     since_ms;
    ngx_msec_t                     wait_ms;

    /* of a rejection: when to try again */
    ngx_msec_t                     retry_ms;

    unsigned                       full:1;
    unsigned                       rejected:1;
};


/*
 * Before upstream is started, which r->upstream has: waits for a seat there
 * if there is a queue and nothing is free.  NGX_DECLINED: go on at once;
 * NGX_AGAIN: resume is called when it is to go on; an HTTP status: it is
 * rejected with it.
 */

ngx_int_t ngx_http_llm_turn_await(ngx_http_request_t *r,
    struct ngx_http_llm_ctx_s *ctx, ngx_http_event_handler_pt resume);

/* the exchange has ended, or asks no server: a seat that it has is free */

void ngx_http_llm_turn_end(struct ngx_http_llm_ctx_s *ctx);

/* Retry-After, if this response is a rejection by the queue */

ngx_int_t ngx_http_llm_turn_add_headers(ngx_http_request_t *r,
    struct ngx_http_llm_ctx_s *ctx);

/* one without a seat, that has its cleanup; or NULL */

struct ngx_http_llm_turn_s *ngx_http_llm_turn_create(ngx_http_request_t *r,
    ngx_http_llm_turn_conf_t *conf);

/*
 * For the balancer.  The turn of a request of this upstream; with NGX_OK and
 * NULL there is no queue.
 */

ngx_int_t ngx_http_llm_turn_find(ngx_http_request_t *r,
    ngx_http_llm_turn_conf_t *conf, struct ngx_http_llm_turn_s **turn);

/* before a server is chosen: NGX_BUSY where others have all seats */

ngx_int_t ngx_http_llm_turn_take(struct ngx_http_llm_turn_s *turn);

/* the request is in flight there */

void ngx_http_llm_turn_seat(struct ngx_http_llm_turn_s *turn);

/*
 * It is about to be so no more; again: it may go to the next server, and
 * keeps its seat.  And now it is not.
 */

void ngx_http_llm_turn_rise(struct ngx_http_llm_turn_s *turn,
    ngx_uint_t again);
void ngx_http_llm_turn_free(struct ngx_http_llm_turn_s *turn);

/* llm_queue; what the upstreams that have one need */

char *ngx_http_llm_queue_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
ngx_int_t ngx_http_llm_turn_check(ngx_conf_t *cf);

/* as for the limits: see ngx_http_llm_limit_init_process() */

ngx_int_t ngx_http_llm_turn_init_process(ngx_cycle_t *cycle);
void ngx_http_llm_turn_exit_process(ngx_cycle_t *cycle);
void ngx_http_llm_turn_process_gone(ngx_pid_t pid);

/* calls those who have a seat now, in all workers */

void ngx_http_llm_turn_call(ngx_http_llm_turn_conf_t *conf);

/* the same once a second from now on, as long as somebody waits here */

void ngx_http_llm_turn_watch(ngx_int_t waiters);


#endif /* _NGX_HTTP_LLM_TURN_H_INCLUDED_ */
