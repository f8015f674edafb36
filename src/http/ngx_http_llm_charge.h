
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Between the files of the limits room: what is wanted of the zones, and
 * what was taken for a request.
 */


#ifndef _NGX_HTTP_LLM_CHARGE_H_INCLUDED_
#define _NGX_HTTP_LLM_CHARGE_H_INCLUDED_


#include "ngx_http_llm.h"


/* one budget of the headers: that of the most constrained zone */

typedef struct {
    /* 0: no zone has such a budget */
    int64_t                      limit;
    int64_t                      remaining;
    ngx_msec_t                   reset_ms;
} ngx_http_llm_quota_t;


typedef struct {
    ngx_http_llm_limit_zone_t   *zone;
    ngx_http_llm_hold_t         *hold;

    /* of tokens, when they were taken; tokens of 0: the zone counts none */
    ngx_llm_rate_t               rate;

    /* when it lets the request go that sleeps */
    int64_t                      start_ns;

    /* weighted tokens that the hold has: a stream may take more */
    int64_t                      held;

    /* what the overrun does, and how far it may go before that; set by it */
    ngx_http_llm_overrun_e       overrun;
    int64_t                      slack;
} ngx_http_llm_part_t;


struct ngx_http_llm_charge_s {
    ngx_http_llm_limit_status_e  status;

    /* parts are held */
    ngx_uint_t                   open;

    /* the zone that decided: it rejected, or it has least left */
    ngx_http_llm_zone_t         *zone;

    /* weighted tokens, the most that any zone took */
    int64_t                      reserved;

    /* slept before the request was sent on */
    ngx_msec_t                   wait_ms;

    /* of a rejection: its status, and when to try again; 0: never */
    ngx_uint_t                   reject_status;
    ngx_msec_t                   retry_ms;

    ngx_http_llm_quota_t         quotas[NGX_HTTP_LLM_BUDGETS];

    /* ngx_http_llm_limit_t: those that the parts come from are among them */
    ngx_array_t                 *limits;

    ngx_uint_t                   nparts;
    ngx_http_llm_part_t          parts[1];
};


/* who decided: one budget of one zone */

typedef struct {
    ngx_http_llm_take_t         *take;
    ngx_uint_t                   budget;
} ngx_http_llm_verdict_t;


/*
 * Fills a take for each zone that applies here: those whose key is not empty
 * and that have a rate.  takes has NGX_HTTP_LLM_MAX_ZONES.  NGX_OK, or
 * NGX_ERROR, logged.
 */

ngx_int_t ngx_http_llm_limit_prepare(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_take_t *takes, ngx_uint_t *n);

/* keeps what is wanted later of the takes, and finds who decided */

ngx_http_llm_verdict_t ngx_http_llm_limit_record(
    ngx_http_llm_charge_t *charge, ngx_http_llm_take_t *takes, ngx_uint_t n);

/* what becomes of the request, and what its zones have to say */

void ngx_http_llm_limit_log(ngx_http_request_t *r,
    ngx_http_llm_limit_conf_t *conf, ngx_http_llm_verdict_t *verdict,
    ngx_uint_t delayed);
void ngx_http_llm_limit_note(ngx_http_request_t *r,
    ngx_http_llm_take_t *take);

/* rounded up */

ngx_msec_t ngx_http_llm_limit_ms(int64_t ns);


#endif /* _NGX_HTTP_LLM_CHARGE_H_INCLUDED_ */
