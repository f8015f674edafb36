
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * What the rooms of src/http share: the configuration, and the context that
 * one request carries through them.
 *
 * inspect -> limit -> balance -> [nginx proxy] -> relay -> account
 */


#ifndef _NGX_HTTP_LLM_H_INCLUDED_
#define _NGX_HTTP_LLM_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_llm_compat.h"
#include "ngx_llm_answer.h"
#include "ngx_llm_estimate.h"
#include "ngx_llm_request.h"


typedef struct ngx_http_llm_ctx_s       ngx_http_llm_ctx_t;
typedef struct ngx_http_llm_charge_s    ngx_http_llm_charge_t;
typedef struct ngx_http_llm_exchange_s  ngx_http_llm_exchange_t;
typedef struct ngx_http_llm_exchange_conf_s  ngx_http_llm_exchange_conf_t;
typedef struct ngx_http_llm_gate_s      ngx_http_llm_gate_t;
typedef struct ngx_http_llm_prelude_s   ngx_http_llm_prelude_t;
typedef struct ngx_http_llm_relay_s     ngx_http_llm_relay_t;
typedef struct ngx_http_llm_turn_s      ngx_http_llm_turn_t;
typedef struct ngx_http_llm_wait_s      ngx_http_llm_wait_t;


#include "ngx_http_llm_balancer.h"
#include "ngx_http_llm_error.h"
#include "ngx_http_llm_limit.h"
#include "ngx_http_llm_pace.h"
#include "ngx_http_llm_turn.h"


/* how a request ended: $llm_end */

typedef enum {
    NGX_HTTP_LLM_END_NONE = 0,
    NGX_HTTP_LLM_END_DONE,
    NGX_HTTP_LLM_END_CLIENT_ABORT,
    NGX_HTTP_LLM_END_FIRST_TOKEN_TIMEOUT,
    NGX_HTTP_LLM_END_IDLE_TIMEOUT,
    NGX_HTTP_LLM_END_TOTAL_TIMEOUT,
    NGX_HTTP_LLM_END_UPSTREAM_ERROR,
    NGX_HTTP_LLM_END_UPSTREAM_TRUNCATED,
    NGX_HTTP_LLM_END_CONTENT_FILTER,
    NGX_HTTP_LLM_END_LIMIT_CUT,
    NGX_HTTP_LLM_END_CANCELLED,
    NGX_HTTP_LLM_END_REJECTED,
    NGX_HTTP_LLM_END_QUEUE_FULL,
    NGX_HTTP_LLM_END_QUEUE_TIMEOUT,
    NGX_HTTP_LLM_END_SHUTDOWN
} ngx_http_llm_end_e;


/* where the tokens of the bill come from: $llm_usage_source */

typedef enum {
    NGX_HTTP_LLM_USAGE_NONE = 0,
    NGX_HTTP_LLM_USAGE_ESTIMATE,
    NGX_HTTP_LLM_USAGE_UPSTREAM
} ngx_http_llm_source_e;


/* what a request has used, in tokens; -1 where nobody said */

typedef struct {
    ngx_llm_usage_t             usage;
    ngx_http_llm_source_e       source;
} ngx_http_llm_bill_t;


/* what is wanted of a request's body once it has been read */

typedef struct {
    /* of all turns of one conversation the same; 0: there is no prompt */
    uint64_t                    prefix_hash;

    /* largest completion asked for, n not multiplied in; -1: none named */
    int64_t                     max_output;

    /* tokens of the prompt that no ratio corrects */
    int64_t                     part_tokens;

    /* choices asked for, for all prompts together, at least 1 */
    uint32_t                    n;

    /* parts of the prompt are no text */
    unsigned                    media:1;
} ngx_http_llm_facts_t;

/* of all choices, where a maximum is named; the parser bounds both factors */

#define ngx_http_llm_all_output(facts)                                        \
    ((facts)->max_output * (facts)->n)


typedef struct {
    /* ngx_http_llm_zone_t *: the budgets of llm_limit_zone */
    ngx_array_t                 zones;

    /* ngx_http_llm_redis_t *: those of llm_redis */
    ngx_array_t                 redises;

    /* rows of processes; NULL where no upstream and no zone needs them */
    ngx_shm_zone_t             *inflight;

    /* where keys were served; NULL where no upstream has affinity */
    ngx_shm_zone_t             *places;

    /* of streams alive; NULL where no location has llm_cancel */
    ngx_shm_zone_t             *ids;

    /* learned ratios, by model */
    ngx_shm_zone_t             *models;

    /* the queues of llm_queue; NULL where no upstream has one */
    ngx_shm_zone_t             *lines;

    /* some location has llm_stream on: the filters are needed */
    ngx_uint_t                  enabled;
} ngx_http_llm_main_conf_t;


typedef struct {
    ngx_http_llm_balancer_conf_t  balancer;
    ngx_http_llm_turn_conf_t      turn;
} ngx_http_llm_srv_conf_t;


typedef struct {
    ngx_flag_t                  enable;
    ngx_uint_t                  dialect;
    ngx_flag_t                  include_usage;
    ngx_msec_t                  first_token_timeout_ms;
    ngx_msec_t                  idle_timeout_ms;
    ngx_msec_t                  total_timeout_ms;
    size_t                      hold_bytes;
    ngx_flag_t                  error_events;
    size_t                      body_max_bytes;
    ngx_llm_media_t             media;

    ngx_uint_t                  on_abort;

    /* 0: off */
    ngx_msec_t                  heartbeat_ms;
    ngx_flag_t                  heartbeat_early;

    /* NULL: off */
    ngx_http_llm_pace_conf_t   *pace;

    /* llm_cancel is its handler; not inherited */
    ngx_uint_t                  cancel;

    ngx_http_llm_limit_conf_t   limit;

    /* NULL where llm_stream is off */
    ngx_http_llm_exchange_conf_t  *exchange;
} ngx_http_llm_loc_conf_t;


/*
 * One for each main request of a location with llm_stream on.  It lives in
 * the request's pool and is found again after an internal redirect, which
 * wipes the modules' contexts: ngx_http_llm_find_ctx().
 */

struct ngx_http_llm_ctx_s {
    ngx_http_request_t         *request;

    /* NULL: not known, or not yet */
    const ngx_llm_api_t        *api;

    /* NULL: the body was not read (none, too large, not JSON) */
    ngx_http_llm_facts_t       *facts;

    /*
     * why the body was not read: what a limited location answers with; NULL:
     * it was read, or there is none
     */
    const char                 *unread_reason;

    /* the model asked for, in the request's memory; empty: not known */
    ngx_str_t                   model;

    /*
     * prompt tokens at admission, corrected by what the model taught; this
     * and the next two are NGX_LLM_MAX_TOKENS at most
     */
    int32_t                     estimated_tokens;

    /* the part of them that the ratio corrects, before it did */
    int32_t                     raw_tokens;

    /* reserved besides, as long as the model has taught little */
    int32_t                     margin_tokens;

    /* what llm_limit took for this request; NULL: nothing */
    ngx_http_llm_charge_t      *charge;

    /* it sleeps ahead of upstream; NULL: it does not */
    ngx_http_llm_wait_t        *wait;

    /* its seat at an upstream with a queue; NULL where there is none */
    ngx_http_llm_turn_t        *turn;

    /* the exchange with upstream; NULL before there is one */
    ngx_http_llm_exchange_t    *exchange;

    /* the answer on its way to the client; NULL before there is one */
    ngx_http_llm_relay_t       *relay;

    /* never NULL; nothing is known before the end */
    const ngx_http_llm_bill_t  *bill;

    /* ngx_current_msec when the request came, and at its content events */
    ngx_msec_t                  start_ms;
    ngx_msec_t                  first_content_ms;
    ngx_msec_t                  last_content_ms;

    /*
     * an HTTP error of our own: this JSON instead of nginx's page, as long
     * as no redirect (error_page) has taken the request elsewhere
     */
    ngx_str_t                   error_body;

    /* $llm_id, made when first asked for: 128 random bits in hex */
    ngx_str_t                   id;

    /* where it is in flight now; NULL: nowhere that is counted */
    ngx_http_llm_peer_data_t   *peer;

    /* the content handler that ours stands in for */
    ngx_http_handler_pt         content_handler;

    /* of the chosen server, this request included; 0: not counted */
    uint32_t                    inflight;

    ngx_http_llm_end_e          end;

    /* of the error above: its status, and r->uri_changes at that time */
    unsigned                    error_status:10;
    unsigned                    error_uri_changes:4;

    /* the request asked for a stream: by path, by body or by default */
    unsigned                    stream:1;

    unsigned                    body_read:1;

    /* it is why the body was not read */
    unsigned                    too_large:1;

    unsigned                    inspected:1;
    unsigned                    admitted:1;

    /* usage was asked for on the client's behalf: its event is stripped */
    unsigned                    strip_usage:1;

    /* the content handler is running, and must not start upstream yet */
    unsigned                    hooking:1;

    /* it was rejected: what follows is the error's page */
    unsigned                    refused:1;

    /* the error body has taken the place of nginx's page */
    unsigned                    error_sent:1;

    /*
     * upstream failed before its header: an error_page may still send the
     * request to another one, and the charge stays open until then
     */
    unsigned                    failed:1;

    /* end and bill are final, the charge is closed */
    unsigned                    closed:1;
};


extern ngx_module_t  ngx_http_llm_stream_module;


/* the context of the main request; NULL where llm_stream never was on */

ngx_http_llm_ctx_t *ngx_http_llm_find_ctx(ngx_http_request_t *r);

/* the same, made at the first call; NULL: no memory */

ngx_http_llm_ctx_t *ngx_http_llm_get_ctx(ngx_http_request_t *r);

/* gives back what a process held in shared memory, without a lock */

void ngx_http_llm_process_gone(ngx_pid_t pid);

/* ctx->id, at the first call; and the random bytes of any such id */

ngx_int_t ngx_http_llm_make_id(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_id_bytes(const ngx_str_t *id, u_char *bytes);

/* memory for one parse, shared by all requests of a worker */

ngx_llm_scratch_t *ngx_http_llm_scratch(void);


#endif /* _NGX_HTTP_LLM_H_INCLUDED_ */
