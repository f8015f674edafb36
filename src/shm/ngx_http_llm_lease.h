
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Tokens that this machine has taken from a shared budget ahead of their use,
 * for the keys of a zone: in its memory, for all workers.  A lease takes 256
 * bytes as long as somebody comes for it; where there is no memory there is
 * no lease, and the budget is asked each time.
 */


#ifndef _NGX_HTTP_LLM_LEASE_H_INCLUDED_
#define _NGX_HTTP_LLM_LEASE_H_INCLUDED_


#include "ngx_llm_lease.h"
#include "ngx_http_llm_zone.h"


/* what the shared budget is to be told for a key */

typedef struct {
    u_char                  digest[NGX_HTTP_LLM_KEY_DIGEST];
    ngx_llm_rate_t          rates[NGX_HTTP_LLM_BUDGETS];
    ngx_llm_lease_call_t    call;

    /* there will be an answer: it is asked for tokens, not given any */
    ngx_uint_t              asks;
} ngx_http_llm_lease_news_t;


/* what it has answered */

typedef struct {
    int64_t                 granted[NGX_HTTP_LLM_BUDGETS];
    int64_t                 level[NGX_HTTP_LLM_BUDGETS];
    int64_t                 full_ns[NGX_HTTP_LLM_BUDGETS];
} ngx_http_llm_lease_answer_t;


/* for the files of the zone: true, the take's costs are taken from a lease */

ngx_uint_t ngx_http_llm_lease_take_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);
void ngx_http_llm_lease_settle_locked(ngx_http_llm_zone_t *zone,
    const u_char *digest, const int64_t *held, const int64_t *final);
void ngx_http_llm_lease_raise_locked(ngx_http_llm_zone_t *zone,
    const u_char *digest, ngx_http_llm_raise_t *raise, int64_t now_ns);
void ngx_http_llm_lease_report_locked(ngx_http_llm_take_t *take,
    int64_t now_ns);

/* true: there is news of this key; percent as of ngx_llm_lease_size_t */

ngx_uint_t ngx_http_llm_lease_poll(ngx_http_llm_zone_t *zone,
    const u_char *digest, ngx_uint_t percent, int64_t now_ns,
    ngx_http_llm_lease_news_t *news);

/* of news that asks; answer NULL: there was none */

void ngx_http_llm_lease_answer(ngx_http_llm_zone_t *zone,
    const u_char *digest, const ngx_http_llm_lease_answer_t *answer,
    int64_t now_ns);

/*
 * News of any keys, at most n: those that nobody comes for, or with all set,
 * those that hold anything.  Returns their number.
 */

ngx_uint_t ngx_http_llm_lease_sweep(ngx_http_llm_zone_t *zone,
    ngx_uint_t percent, ngx_uint_t all, int64_t now_ns,
    ngx_http_llm_lease_news_t *news, ngx_uint_t n);


#endif /* _NGX_HTTP_LLM_LEASE_H_INCLUDED_ */
