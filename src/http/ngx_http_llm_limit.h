
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Admission: tokens are reserved before a request is sent, and settled to
 * the truth when it ended.
 */


#ifndef _NGX_HTTP_LLM_LIMIT_H_INCLUDED_
#define _NGX_HTTP_LLM_LIMIT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_llm_redis.h"
#include "ngx_http_llm_zone.h"


/* a budget as llm_limit_zone names it */

typedef struct {
    /* NULL: given without variables, or not at all: what fixed says */
    ngx_http_complex_value_t   *rate;
    ngx_http_complex_value_t   *burst;

    /* a burst of 0 is the rate's own number */
    ngx_llm_rate_t              fixed;
} ngx_http_llm_budget_t;


/* llm_limit_zone */

typedef struct {
    /* the first member: see there */
    ngx_http_llm_zone_t         zone;

    ngx_http_complex_value_t    key;
    ngx_llm_weights_t           weights;

    ngx_http_llm_budget_t       budgets[NGX_HTTP_LLM_BUDGETS];

    /* who keeps the budgets for all machines; NULL: this one does */
    ngx_http_llm_redis_t       *redis;
    ngx_str_t                   redis_name;

    /* of the burst, that this machine takes ahead; 0: nothing */
    ngx_int_t                   lease_percent;
} ngx_http_llm_limit_zone_t;


typedef enum {
    NGX_HTTP_LLM_RESERVE_AUTO = 0,
    NGX_HTTP_LLM_RESERVE_MAX,
    NGX_HTTP_LLM_RESERVE_FIXED
} ngx_http_llm_reserve_e;


/* a stream that spends more than it reserved */

typedef enum {
    NGX_HTTP_LLM_OVERRUN_FINISH = 0,
    NGX_HTTP_LLM_OVERRUN_CUT,
    NGX_HTTP_LLM_OVERRUN_PACE
} ngx_http_llm_overrun_e;


/* llm_limit; shm_zone->data is the ngx_http_llm_limit_zone_t */

typedef struct {
    ngx_shm_zone_t             *shm_zone;
    ngx_http_llm_reserve_e      reserve;

    /* completion tokens of NGX_HTTP_LLM_RESERVE_FIXED */
    int64_t                     reserve_tokens;

    /* the longest that a request may be delayed */
    ngx_msec_t                  wait_ms;

    ngx_http_llm_overrun_e      overrun;
} ngx_http_llm_limit_t;


/* part of the location's configuration */

typedef struct {
    /* ngx_http_llm_limit_t: the zones that apply here; NULL or none */
    ngx_array_t                *limits;

    ngx_uint_t                  status;
    ngx_uint_t                  log_level;
    ngx_flag_t                  dry_run;
    ngx_flag_t                  headers;
} ngx_http_llm_limit_conf_t;


typedef enum {
    NGX_HTTP_LLM_LIMIT_NONE = 0,
    NGX_HTTP_LLM_LIMIT_PASSED,
    NGX_HTTP_LLM_LIMIT_DELAYED,
    NGX_HTTP_LLM_LIMIT_REJECTED,
    NGX_HTTP_LLM_LIMIT_REJECTED_DRY_RUN,
    NGX_HTTP_LLM_LIMIT_DELAYED_DRY_RUN
} ngx_http_llm_limit_status_e;


/*
 * Takes all that the request needs from all of its zones, or nothing.  Main
 * requests with facts only; ctx->charge is set from here on, also where the
 * answer is no; where no zone applies (all keys are empty) it stays NULL.
 * NGX_AGAIN: it sleeps, and where Redis is asked this is called again.  What
 * has been decided stays so, except that a place with other limits decides
 * anew about a request that was rejected.  NGX_DECLINED: go on; NGX_ERROR or
 * an HTTP status, made by ngx_http_llm_reject(): the phase handler's result.
 */

ngx_int_t ngx_http_llm_limit_admit(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);

/*
 * Ends the charge: by what was used, or by giving everything back.  The
 * first call wins, later ones and calls without a charge do nothing.  Safe
 * from a pool cleanup.
 */

void ngx_http_llm_limit_settle(ngx_http_llm_ctx_t *ctx,
    const ngx_llm_usage_t *usage);
void ngx_http_llm_limit_abandon(ngx_http_llm_ctx_t *ctx);

/* the same for an answer that could not be read: what was taken stays */

void ngx_http_llm_limit_keep(ngx_http_llm_ctx_t *ctx);

/*
 * What is still held is given back: of the process that had this one's slot
 * and died, of this process when it leaves its requests unfinished, and of
 * one that died without a successor.
 */

ngx_int_t ngx_http_llm_limit_init_process(ngx_cycle_t *cycle);
void ngx_http_llm_limit_exit_process(ngx_cycle_t *cycle);
void ngx_http_llm_limit_process_gone(ngx_pid_t pid);

/* adds x-ratelimit-* (and Retry-After of a rejection) to the response */

ngx_int_t ngx_http_llm_limit_add_headers(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);

/* for variables; zeroes and an empty name where there is no charge */

ngx_http_llm_limit_status_e ngx_http_llm_limit_status(
    const ngx_http_llm_ctx_t *ctx);
int64_t ngx_http_llm_limit_reserved(const ngx_http_llm_ctx_t *ctx);
ngx_str_t ngx_http_llm_limit_zone_name(const ngx_http_llm_ctx_t *ctx);
ngx_msec_t ngx_http_llm_limit_wait_ms(const ngx_http_llm_ctx_t *ctx);

/* a hash of all its keys: who shares all budgets; 0 where there is no charge */

uint64_t ngx_http_llm_limit_identity(const ngx_http_llm_ctx_t *ctx);

/* llm_limit_zone, llm_limit, what other directives' tables name; merging */

char *ngx_http_llm_limit_zone_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_limit_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_limit_status_directive(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);

extern ngx_conf_enum_t  ngx_http_llm_limit_log_levels[];

void ngx_http_llm_limit_create_conf(ngx_http_llm_limit_conf_t *conf);
char *ngx_http_llm_limit_merge_conf(ngx_conf_t *cf,
    ngx_http_llm_limit_conf_t *prev, ngx_http_llm_limit_conf_t *conf);


#endif /* _NGX_HTTP_LLM_LIMIT_H_INCLUDED_ */
