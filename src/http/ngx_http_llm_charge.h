
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


/*
 * A charge that is kept in Redis.  It lives as long as its request; what is
 * asked of Redis has a life of its own.
 */

typedef struct {
    /* of this worker's open ones, as long as it is open */
    ngx_queue_t                  queue;

    ngx_http_llm_redis_charge_t  charge;
    ngx_http_llm_ctx_t          *ctx;
    ngx_http_llm_take_t         *take;

    /* the question that is not answered; NULL: there is none */
    ngx_http_llm_redis_call_t   *call;

    /* the same for more tokens, which a stream asks for as it goes */
    ngx_http_llm_redis_call_t   *raise;
    int64_t                     *held;

    ngx_http_llm_redis_status_e  status;

    /* of a denial, in the request's memory */
    ngx_str_t                    reason;

    /* it is taken, and has to be ended */
    unsigned                     open:1;

    /* there was nothing that a stream could have taken ahead */
    unsigned                     empty:1;

    /* the stream waits until what it took is there */
    unsigned                     paced:1;
} ngx_http_llm_share_t;


typedef struct {
    ngx_http_llm_limit_zone_t   *zone;
    ngx_http_llm_hold_t         *hold;

    /* NULL: this machine's zone keeps the budgets */
    ngx_http_llm_share_t        *share;

    /* of tokens, when they were taken; tokens of 0: the zone counts none */
    ngx_llm_rate_t               rate;

    /* when it lets the request go that sleeps */
    int64_t                      start_ns;

    /* its costs are those of a lease */
    ngx_uint_t                   leased;

    /* weighted tokens that the hold has: a stream may take more */
    int64_t                      held;

    /* what the overrun does, and how far it may go before that; set by it */
    ngx_http_llm_overrun_e       overrun;
    int64_t                      slack;

    /* of a paced stream: what its last step was told, and when it goes on */
    ngx_http_llm_raise_t         raise;
    int64_t                      ready_ns;
} ngx_http_llm_part_t;


struct ngx_http_llm_charge_s {
    ngx_http_llm_limit_status_e  status;

    /* parts are held */
    ngx_uint_t                   open;

    /* Redis is asked, or has been: the answer decides */
    ngx_uint_t                   asking;

    /* in the request's memory where Redis is asked */
    ngx_http_llm_take_t         *takes;

    /* the zone that decided: it rejected, or it has least left */
    ngx_http_llm_zone_t         *zone;

    /* weighted tokens, the most that any zone took */
    int64_t                      reserved;

    /* a hash of the keys of all parts */
    uint64_t                     identity;

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

    /* of a take that is refused: what its zone is */
    const char                  *why;
} ngx_http_llm_verdict_t;


/*
 * Fills a take for each zone that applies here: those whose key is not empty
 * and that have a rate.  takes has NGX_HTTP_LLM_MAX_ZONES.  NGX_OK, or
 * NGX_ERROR, logged.
 */

ngx_int_t ngx_http_llm_limit_prepare(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_take_t *takes, ngx_uint_t *n);

/*
 * Budgets that Redis keeps.  begin: marks their takes, makes their shares;
 * ask: NGX_AGAIN, the request sleeps until they are answered, NGX_OK: they
 * are already, or an error; answered: what came of them, where Redis did not
 * decide the fallback does.  NGX_OK: all is taken; NGX_BUSY: the takes say
 * why not, and nothing is.
 */

ngx_int_t ngx_http_llm_share_begin(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_take_t *takes, ngx_uint_t n);
ngx_int_t ngx_http_llm_share_ask(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_share_answered(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);

/*
 * Of a take that is refused: what its zone is, for the log, and a message for
 * the client; sets the rejection's status and retry where they are of its
 * own.  NULL: it is not Redis' refusal.
 */

const char *ngx_http_llm_share_refusal(ngx_http_llm_charge_t *charge,
    const ngx_http_llm_take_t *take, const char **message);

/* Redis says that it is taken: from here on it has to be ended */

void ngx_http_llm_share_open(ngx_http_llm_share_t *share);

/*
 * More tokens for a stream, taken as of ngx_http_llm_raise_t; *held is raised
 * by what is taken ahead when that is known, and a pause of the answer ends,
 * or lasts until the tokens are there.  0: Redis cannot be asked.
 */

ngx_uint_t ngx_http_llm_share_raise(ngx_http_llm_share_t *share,
    const ngx_http_llm_raise_t *raise, int64_t *held);

/* ends a share: by costs, or, NULL, by what was taken; any number of times */

void ngx_http_llm_share_end(ngx_http_llm_share_t *share,
    const int64_t *costs);

/* all of this worker, as if their requests had not happened */

void ngx_http_llm_share_end_all(void);

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
