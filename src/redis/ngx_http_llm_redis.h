
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Budgets that machines share: a charge is decided by a script in Redis or
 * Valkey, atomically, by the server's clock.
 *
 * Nothing here waits: an answer comes by a handler, which is called from the
 * event loop, or from inside of the call that made it impossible.  Where
 * there is no link nothing is asked, and the caller decides by itself.
 *
 * A charge is known by its id, so that it is taken once and ended once, also
 * where answers are late or lost.  What may have been taken without anybody
 * knowing is given back as soon as the server is there again: up to
 * NGX_HTTP_LLM_REDIS_JOURNAL ends of charges wait for that in a worker; of
 * more, the ones that wait longest stay taken.
 */


#ifndef _NGX_HTTP_LLM_REDIS_H_INCLUDED_
#define _NGX_HTTP_LLM_REDIS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_llm_bucket.h"


#define NGX_HTTP_LLM_REDIS_JOURNAL  4096

/* tokens and requests, in the order of ngx_http_llm_zone.h */
#define NGX_HTTP_LLM_REDIS_BUDGETS  2

#define NGX_HTTP_LLM_REDIS_ID       16
#define NGX_HTTP_LLM_REDIS_DIGEST   20


/* one llm_redis */
typedef struct ngx_http_llm_redis_s       ngx_http_llm_redis_t;

/* what was asked and is not answered */
typedef struct ngx_http_llm_redis_call_s  ngx_http_llm_redis_call_t;


/* who decides where Redis does not */

typedef enum {
    NGX_HTTP_LLM_REDIS_LOCAL = 0,
    NGX_HTTP_LLM_REDIS_OPEN,
    NGX_HTTP_LLM_REDIS_CLOSED
} ngx_http_llm_redis_fallback_e;


typedef struct {
    ngx_http_llm_redis_t         *redis;

    /* the zone's name, in the configuration's memory, and the key */
    ngx_str_t                     zone;
    u_char                        digest[NGX_HTTP_LLM_REDIS_DIGEST];

    u_char                        id[NGX_HTTP_LLM_REDIS_ID];

    /* tokens of 0: this budget does not apply */
    ngx_llm_rate_t                rates[NGX_HTTP_LLM_REDIS_BUDGETS];

    /* Redis forgets a charge that nobody ended after so long */
    ngx_msec_t                    keep_ms;
} ngx_http_llm_redis_charge_t;


/* what an operator's policy is told of a request; see script= */

typedef struct {
    ngx_str_t                     model;
    int64_t                       estimated;
} ngx_http_llm_redis_facts_t;


typedef enum {
    NGX_HTTP_LLM_REDIS_TAKEN = 0,
    NGX_HTTP_LLM_REDIS_REFUSED,

    /* by the operator's policy */
    NGX_HTTP_LLM_REDIS_DENIED,

    /* no answer, or none that can be used */
    NGX_HTTP_LLM_REDIS_FAILED
} ngx_http_llm_redis_status_e;


typedef struct {
    ngx_http_llm_redis_status_e   status;

    /* nanoseconds until it is there, NGX_LLM_NEVER: it never is */
    int64_t                       delay_ns[NGX_HTTP_LLM_REDIS_BUDGETS];

    /* what is left, and nanoseconds until all is back */
    int64_t                       level[NGX_HTTP_LLM_REDIS_BUDGETS];
    int64_t                       full_ns[NGX_HTTP_LLM_REDIS_BUDGETS];

    /* of a lease: what was taken; of a raise: [0] what was taken ahead */
    int64_t                       granted[NGX_HTTP_LLM_REDIS_BUDGETS];

    /* of a denial; in the reply's memory */
    ngx_str_t                     reason;
} ngx_http_llm_redis_answer_t;


typedef void (*ngx_http_llm_redis_pt)(void *data,
    const ngx_http_llm_redis_answer_t *answer);


/* llm_redis: reads all of its arguments; NULL: logged */

ngx_http_llm_redis_t *ngx_http_llm_redis_create(ngx_conf_t *cf,
    ngx_command_t *cmd);

ngx_str_t *ngx_http_llm_redis_name(ngx_http_llm_redis_t *redis);
ngx_http_llm_redis_fallback_e ngx_http_llm_redis_fallback(
    const ngx_http_llm_redis_t *redis);
ngx_uint_t ngx_http_llm_redis_has_policy(const ngx_http_llm_redis_t *redis);

/* the longest that an answer is waited for */

ngx_msec_t ngx_http_llm_redis_timeout_ms(const ngx_http_llm_redis_t *redis);

/*
 * Starts to connect, at the first call; and leaves: nothing is answered any
 * more, and then what is to be ended, and was not sent yet, is sent as far as
 * the socket takes it at once.
 */

ngx_int_t ngx_http_llm_redis_start(ngx_http_llm_redis_t *redis,
    ngx_cycle_t *cycle);
void ngx_http_llm_redis_hush(ngx_http_llm_redis_t *redis);
void ngx_http_llm_redis_stop(ngx_http_llm_redis_t *redis);

/* a new id for the charge */

void ngx_http_llm_redis_name_charge(ngx_http_llm_redis_charge_t *charge);

/*
 * Takes costs if they are there within wait_ns.  NULL: there is no link to
 * ask, or too much is asked already, and handler is not called.  Else it is
 * called once, unless forgotten before.  facts: for a policy only.
 */

ngx_http_llm_redis_call_t *ngx_http_llm_redis_reserve(
    const ngx_http_llm_redis_charge_t *charge, const int64_t *costs,
    int64_t wait_ns, const ngx_http_llm_redis_facts_t *facts,
    ngx_http_llm_redis_pt handler, void *data);

/*
 * A block of tokens: of wants as much as is there, of debts all; no wait, no
 * policy.
 */

ngx_http_llm_redis_call_t *ngx_http_llm_redis_lease(
    const ngx_http_llm_redis_charge_t *charge, const int64_t *wants,
    const int64_t *debts, ngx_http_llm_redis_pt handler, void *data);

/* more tokens for a charge, as ngx_http_llm_zone_raise() */

ngx_http_llm_redis_call_t *ngx_http_llm_redis_raise(
    const ngx_http_llm_redis_charge_t *charge, int64_t need, int64_t least,
    int64_t most, ngx_http_llm_redis_pt handler, void *data);

/* nobody wants the answer any more: what it says is taken is given back */

void ngx_http_llm_redis_forget(ngx_http_llm_redis_call_t *call);

/* ends a charge that was taken: costs is what it comes to */

void ngx_http_llm_redis_settle(const ngx_http_llm_redis_charge_t *charge,
    const int64_t *costs);

/*
 * Gives back what is left of a lease: wants are below 0.  It is said again
 * as long as it is not answered, for half of keep_ms.
 */

void ngx_http_llm_redis_return(const ngx_http_llm_redis_charge_t *charge,
    const int64_t *wants, const int64_t *debts);


#endif /* _NGX_HTTP_LLM_REDIS_H_INCLUDED_ */
