
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_lease.h"


/* no debt grows beyond it: sums of charges cannot overflow */
#define NGX_LLM_LEASE_MAX_DEBT  ((int64_t) 1 << 60)


static int64_t ngx_llm_lease_full(const ngx_llm_lease_size_t *size,
    unsigned budget);
static int64_t ngx_llm_lease_low(const ngx_llm_lease_size_t *size,
    unsigned budget);
static int ngx_llm_lease_empty(ngx_llm_lease_t *lease, unsigned budget,
    int64_t keep, ngx_llm_lease_call_t *call);


int64_t
ngx_llm_lease_most(const ngx_llm_lease_size_t *size, unsigned budget)
{
    int64_t  burst, most;

    burst = size->burst[budget];

    if (burst <= 0) {
        return 0;
    }

    most = burst / 100 * size->percent + burst % 100 * size->percent / 100;

    return most ? most : 1;
}


/* what is asked for: above it there is room for what comes back */

static int64_t
ngx_llm_lease_full(const ngx_llm_lease_size_t *size, unsigned budget)
{
    int64_t  most;

    most = ngx_llm_lease_most(size, budget);

    return most - most / 4;
}


/* below it is asked */

static int64_t
ngx_llm_lease_low(const ngx_llm_lease_size_t *size, unsigned budget)
{
    int64_t  most;

    most = ngx_llm_lease_most(size, budget);

    return (most == 1) ? 1 : most / 2;
}


int
ngx_llm_lease_take(ngx_llm_lease_t *lease, const int64_t *costs,
    int64_t now_ns)
{
    unsigned  b;

    if (lease->used_ns && now_ns - lease->used_ns < NGX_LLM_LEASE_IDLE_NS) {
        lease->busy = 1;
    }

    lease->used_ns = now_ns;

    for (b = 0; b < NGX_LLM_LEASE_BUDGETS; b++) {
        if (lease->left[b] < costs[b]) {
            return 0;
        }
    }

    for (b = 0; b < NGX_LLM_LEASE_BUDGETS; b++) {
        lease->left[b] -= costs[b];
    }

    return 1;
}


void
ngx_llm_lease_settle(ngx_llm_lease_t *lease, const int64_t *held,
    const int64_t *final)
{
    unsigned  b;

    for (b = 0; b < NGX_LLM_LEASE_BUDGETS; b++) {
        lease->left[b] += held[b] - final[b];

        if (lease->left[b] < -NGX_LLM_LEASE_MAX_DEBT) {
            lease->left[b] = -NGX_LLM_LEASE_MAX_DEBT;
        }
    }
}


int
ngx_llm_lease_want(ngx_llm_lease_t *lease, const ngx_llm_lease_size_t *size,
    int64_t now_ns, ngx_llm_lease_call_t *call)
{
    int       low;
    unsigned  b;
    int64_t   left, room;

    if (lease->asked_ns
        && now_ns - lease->asked_ns >= NGX_LLM_LEASE_LOST_NS)
    {
        ngx_llm_lease_failed(lease, now_ns);
    }

    if (lease->asked_ns || now_ns < lease->retry_ns) {
        return 0;
    }

    low = 0;

    for (b = 0; b < NGX_LLM_LEASE_BUDGETS; b++) {
        left = lease->left[b];

        if (left < 0
            || (lease->busy && left < ngx_llm_lease_low(size, b)))
        {
            low = 1;
        }
    }

    if (!low) {
        return 0;
    }

    for (b = 0; b < NGX_LLM_LEASE_BUDGETS; b++) {
        left = lease->left[b];
        room = ngx_llm_lease_full(size, b) - ((left > 0) ? left : 0);

        call->debt[b] = (left < 0) ? -left : 0;
        call->want[b] = (lease->busy && room > 0) ? room : 0;

        lease->owed[b] = call->debt[b];
        lease->asked[b] = call->want[b];
    }

    lease->asked_ns = now_ns;

    return 1;
}


int
ngx_llm_lease_granted(ngx_llm_lease_t *lease, const int64_t *granted,
    int64_t now_ns)
{
    int       scarce;
    unsigned  b;

    if (lease->asked_ns == 0) {
        return 0;
    }

    for (b = 0; b < NGX_LLM_LEASE_BUDGETS; b++) {
        if (granted[b] < 0 || granted[b] > lease->asked[b]) {
            ngx_llm_lease_failed(lease, now_ns);
            return 0;
        }
    }

    scarce = 0;

    for (b = 0; b < NGX_LLM_LEASE_BUDGETS; b++) {
        lease->left[b] += granted[b] + lease->owed[b];

        if (granted[b] < lease->asked[b] / 2 + lease->asked[b] % 2) {
            scarce = 1;
        }
    }

    lease->asked_ns = 0;
    lease->retry_ns = scarce ? now_ns + NGX_LLM_LEASE_RETRY_NS : 0;

    return 1;
}


void
ngx_llm_lease_failed(ngx_llm_lease_t *lease, int64_t now_ns)
{
    lease->asked_ns = 0;
    lease->retry_ns = now_ns + NGX_LLM_LEASE_RETRY_NS;
}


int
ngx_llm_lease_give(ngx_llm_lease_t *lease, const ngx_llm_lease_size_t *size,
    int64_t now_ns, ngx_llm_lease_call_t *call)
{
    int       gives, idle;
    int64_t   most;
    unsigned  b;

    gives = 0;
    idle = (now_ns - lease->used_ns >= NGX_LLM_LEASE_IDLE_NS
            && lease->asked_ns == 0);

    if (idle) {
        lease->busy = 0;
    }

    for (b = 0; b < NGX_LLM_LEASE_BUDGETS; b++) {
        most = ngx_llm_lease_most(size, b);

        if (idle) {
            gives |= ngx_llm_lease_empty(lease, b, 0, call);

        } else if (lease->left[b] > most) {
            gives |= ngx_llm_lease_empty(lease, b,
                                         ngx_llm_lease_full(size, b), call);

        } else {
            call->want[b] = 0;
            call->debt[b] = 0;
        }
    }

    return gives;
}


/* all above keep leaves the lease */

static int
ngx_llm_lease_empty(ngx_llm_lease_t *lease, unsigned budget, int64_t keep,
    ngx_llm_lease_call_t *call)
{
    int64_t  over;

    over = lease->left[budget] - keep;
    over = (over > 0) ? over : 0;

    lease->left[budget] -= over;

    call->want[budget] = -over;
    call->debt[budget] = 0;

    return over > 0;
}


int
ngx_llm_lease_drop(ngx_llm_lease_t *lease, ngx_llm_lease_call_t *call)
{
    int       tell;
    unsigned  b;

    tell = 0;

    for (b = 0; b < NGX_LLM_LEASE_BUDGETS; b++) {
        tell |= ngx_llm_lease_empty(lease, b, 0, call);

        if (lease->left[b] < 0) {
            call->debt[b] = -lease->left[b];
            lease->left[b] = 0;
            tell = 1;
        }
    }

    return tell;
}
