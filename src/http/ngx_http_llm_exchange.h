
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The exchange with upstream: nginx's own proxy does it, we stand at its
 * hooks.  It holds the three clocks and tells how it ended.
 */


#ifndef _NGX_HTTP_LLM_EXCHANGE_H_INCLUDED_
#define _NGX_HTTP_LLM_EXCHANGE_H_INCLUDED_


#include "ngx_http_llm.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_ids.h"


/*
 * nginx's own read timeout where one of our clocks runs instead: a day, as
 * a timer's key must stay comparable
 */
#define NGX_HTTP_LLM_NO_TIMEOUT_MS  (24 * 60 * 60 * 1000)

/*
 * What is over when a stream begins: given back then, as streams are many and
 * long.  Behind it is room for the pieces that the gate keeps of an event; so
 * large that the pool gives it back when it is freed.
 */

#define NGX_HTTP_LLM_PRELUDE_BYTES  (NGX_MAX_ALLOC_FROM_POOL + 1)

struct ngx_http_llm_prelude_s {
    /* u->conf points here: the location's is never to be written */
    ngx_http_upstream_conf_t      conf;
    ngx_http_upstream_conf_t     *original;

    /* what the hooks stand in for */
    ngx_int_t                   (*create_request)(ngx_http_request_t *r);
    ngx_int_t                   (*input_filter_init)(void *data);

    /* llm_hold's, which is off where process_header is NULL */
    ngx_int_t                   (*process_header)(ngx_http_request_t *r);
    ngx_int_t                   (*reinit_request)(ngx_http_request_t *r);

    /* of upstream's connection, while nginx is given a byte again */
    ngx_recv_pt                   recv;

    /* conf.next_upstream, as each attempt has it first */
    ngx_uint_t                    next_upstream;

    /* of the attempt, while ex->gate points here */
    ngx_http_llm_gate_t           gate;
};


struct ngx_http_llm_exchange_s {
    ngx_http_llm_ctx_t           *ctx;

    /* what the hooks stand in for */
    void                        (*finalize_request)(ngx_http_request_t *r,
                                                    ngx_int_t rc);
    ngx_int_t                   (*input_filter)(void *data, ssize_t bytes);
    void                         *input_filter_ctx;

    /* NULL: a stream has begun */
    ngx_http_llm_prelude_t       *prelude;

    /* NULL: nothing is held back */
    ngx_http_llm_gate_t          *gate;

    /* nginx's reading of a stream */
    void                        (*upstream_handler)(ngx_http_request_t *r,
                                                    ngx_http_upstream_t *u);

    /* u->buffer's memory, where it is not the pool's; NULL: none */
    u_char                       *buffer;

    /* nginx's looks whether the client is there */
    ngx_http_event_handler_pt     read_event_handler;
    ngx_http_event_handler_pt     write_event_handler;

    /* fires at the nearest of the deadlines below, and looks again */
    ngx_event_t                   clock;

    /* ngx_current_msec; 0 is none */
    ngx_msec_t                    total_deadline_ms;

    /* of the first token; once lingering is set, of upstream's end */
    ngx_msec_t                    stage_deadline_ms;

    /* among those alive in this worker; next is NULL: not */
    ngx_queue_t                   live;

    /* what llm_cancel finds it by; NULL: not at all */
    ngx_http_llm_id_t            *id;

    /* r->keepalive, which nginx clears when upstream fails in mid-stream */
    unsigned                      keepalive:1;

    /* the answer is a stream of events that is read */
    unsigned                      stream:1;

    /* its terminal marker has passed */
    unsigned                      lingering:1;

    /* the clocks have stopped for good */
    unsigned                      finalized:1;

    /* a heartbeat has opened the gate */
    unsigned                      early:1;

    /* it is ended from outside: llm_cancel, shutdown */
    unsigned                      ending:1;

    /* upstream broke its own framing */
    unsigned                      broken:1;

    /* the answer is an HTTP error that upstream's first event was made to */
    unsigned                      first_error:1;
};


/*
 * u->conf of all streams of a location, once there was one; part of its
 * configuration
 */

struct ngx_http_llm_exchange_conf_s {
    /* what conf is made of; NULL: there was no stream yet */
    ngx_http_upstream_conf_t     *original;
    ngx_http_upstream_conf_t      conf;
};


/* it is this request's, and the hooks are in it */

#define ngx_http_llm_exchange_is_of(u)                                        \
    ((u)->finalize_request == ngx_http_llm_exchange_finalize)

/* for the hooks: they are called for a main request that has its context */

#define ngx_http_llm_get_exchange(r)                                          \
    (((ngx_http_llm_ctx_t *)                                                  \
          ngx_http_get_module_ctx(r, ngx_http_llm_stream_module))->exchange)

/* puts the exchange in the place of the location's content handler */

void ngx_http_llm_exchange_prepare(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);

/*
 * The header is complete.  A stream of events: no buffering, and from here
 * on the clocks run on content, not on bytes.
 */

void ngx_http_llm_exchange_start_stream(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);

/* the connection was upgraded: no clock of ours runs on it */

void ngx_http_llm_exchange_release(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);

/*
 * Nothing more is wanted of upstream: the answer ends here, cleanly, as soon
 * as the client has what was sent.
 */

void ngx_http_llm_exchange_stop(ngx_http_request_t *r);

/*
 * u->finalize_request.  Runs once, whatever the way out, and before nginx
 * closes the connections: here the answer ends, the charge is settled and the
 * clocks stop.
 */

void ngx_http_llm_exchange_finalize(ngx_http_request_t *r, ngx_int_t rc);


#endif /* _NGX_HTTP_LLM_EXCHANGE_H_INCLUDED_ */
