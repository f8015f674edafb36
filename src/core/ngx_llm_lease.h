
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * A lease: tokens and requests that a node has taken from a shared bucket
 * ahead of their use, for one key, and gives out without asking again.
 *
 * Its size is a part of the burst.  It is asked for when less than half of it
 * is left, filled to three quarters, so that what requests give back finds
 * room, and what they give back beyond its size goes back to the bucket at
 * once; so does all that is left when nobody has come for some seconds.
 *
 * The bucket fills up meanwhile: a node may be over by what it holds unused.
 * After each call of ngx_llm_lease_give() that is at most the size; N nodes
 * are over by at most N sizes.
 *
 * Time is an argument: nanoseconds of a monotonic clock, > 0.  All zero is
 * a node that has no lease.
 */


#ifndef _NGX_LLM_LEASE_H_INCLUDED_
#define _NGX_LLM_LEASE_H_INCLUDED_


#include "ngx_llm.h"


/* tokens and requests */
#define NGX_LLM_LEASE_BUDGETS   2

/* nobody has come for so long: what is left goes back */
#define NGX_LLM_LEASE_IDLE_NS   ((int64_t) 5 * 1000 * 1000 * 1000)

/* an answer that has not come by then never will */
#define NGX_LLM_LEASE_LOST_NS   ((int64_t) 5 * 1000 * 1000 * 1000)

/* the bucket had less than half of what was asked for: not at once again */
#define NGX_LLM_LEASE_RETRY_NS  ((int64_t) 20 * 1000 * 1000)


/* plain integers, so that it can live in shared memory */

typedef struct {
    /* taken ahead and not used; below 0: used and not taken yet */
    int64_t               left[NGX_LLM_LEASE_BUDGETS];

    /* of the question that is not answered yet: what it pays */
    int64_t               owed[NGX_LLM_LEASE_BUDGETS];
    int64_t               asked[NGX_LLM_LEASE_BUDGETS];

    /* when that was; 0: there is none */
    int64_t               asked_ns;

    /* no question before */
    int64_t               retry_ns;

    /* when somebody came for it last; 0: never */
    int64_t               used_ns;

    /* somebody has come again soon: one request is no reason for a lease */
    int64_t               busy;
} ngx_llm_lease_t;


/* how large it may be: a burst of 0 is a budget that does not apply */

typedef struct {
    int64_t               burst[NGX_LLM_LEASE_BUDGETS];

    /* of the burst, 1 to 100 */
    int64_t               percent;
} ngx_llm_lease_size_t;


/* what to tell the bucket */

typedef struct {
    /* at most so many, as far as they are there; below 0: given back */
    int64_t               want[NGX_LLM_LEASE_BUDGETS];

    /* has been used: is taken in any case, into debt if need be; >= 0 */
    int64_t               debt[NGX_LLM_LEASE_BUDGETS];
} ngx_llm_lease_call_t;


/* the most that a node holds of one budget; 0: it does not apply */

int64_t ngx_llm_lease_most(const ngx_llm_lease_size_t *size,
    unsigned budget);

/*
 * Takes all costs from what is left, or nothing: 0, the bucket is to be
 * asked.  A cost of 0 is no exception: who is in debt is asked to wait.
 */

int ngx_llm_lease_take(ngx_llm_lease_t *lease, const int64_t *costs,
    int64_t now_ns);

/* of costs that were taken from here, final is what it came to */

void ngx_llm_lease_settle(ngx_llm_lease_t *lease, const int64_t *held,
    const int64_t *final);

/*
 * True: the bucket is to be asked for *call now, and asked_ns says so until
 * one of the two below.  One question at a time.
 */

int ngx_llm_lease_want(ngx_llm_lease_t *lease,
    const ngx_llm_lease_size_t *size, int64_t now_ns,
    ngx_llm_lease_call_t *call);

/*
 * The answer.  0: it is none, and nothing is taken from it: nothing is asked
 * any more, or it grants more than that, or less than nothing.
 */

int ngx_llm_lease_granted(ngx_llm_lease_t *lease, const int64_t *granted,
    int64_t now_ns);

/* no answer, or an error: nothing was taken, or it is given back */

void ngx_llm_lease_failed(ngx_llm_lease_t *lease, int64_t now_ns);

/*
 * True: *call gives back what is too much, or what nobody comes for.  It has
 * left the lease, whether the bucket hears of it or not.
 */

int ngx_llm_lease_give(ngx_llm_lease_t *lease,
    const ngx_llm_lease_size_t *size, int64_t now_ns,
    ngx_llm_lease_call_t *call);

/* at exit: all of it, debts too.  True: there is something to tell */

int ngx_llm_lease_drop(ngx_llm_lease_t *lease, ngx_llm_lease_call_t *call);


#endif /* _NGX_LLM_LEASE_H_INCLUDED_ */
