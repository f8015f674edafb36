
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Who sleeps until a key has tokens for it, in the order in which they came.
 * What is given back moves all forward who came behind it, so that nobody
 * gets ahead of them.  For the files of the zone only.
 */


#ifndef _NGX_HTTP_LLM_QUEUE_H_INCLUDED_
#define _NGX_HTTP_LLM_QUEUE_H_INCLUDED_


#include "ngx_http_llm_key.h"


/*
 * Shared, so that what a dead process took can be given back.  It is smaller
 * than a key, but takes a chunk of the same size, so that a key that is
 * dropped makes room for it.
 */

struct ngx_http_llm_hold_s {
    ngx_queue_t             queue;
    ngx_http_llm_key_t     *key;
    int64_t                 costs[NGX_HTTP_LLM_BUDGETS];

    /* bits: the budgets that apply */
    uint32_t                budgets;

    uint32_t                model;

    /* the process that holds it */
    ngx_pid_t               pid;
    ngx_int_t               slot;

    /* in the key's queue, as long as asleep */
    ngx_queue_t             sleeper;
    uint32_t                asleep;

    /* of a sleeper: when each budget lets it go, which only gets earlier */
    int64_t                 start_ns[NGX_HTTP_LLM_BUDGETS];

    /* tokens */
    int64_t                 bursts[NGX_HTTP_LLM_BUDGETS];

    /* its time has changed since its process looked; read without the lock */
    ngx_atomic_t            moved;
};


/* what was taken for it comes behind all who sleep */

void ngx_http_llm_queue_join_locked(ngx_http_llm_hold_t *hold,
    const ngx_http_llm_take_t *take, int64_t now_ns);

/* does nothing to a hold that does not sleep */

void ngx_http_llm_queue_leave_locked(ngx_http_llm_hold_t *hold);

/* when all its budgets let it go */

int64_t ngx_http_llm_queue_start(const ngx_http_llm_hold_t *hold);

/*
 * Gives tokens back that somebody held who is not, or no more, in the queue.
 * True: somebody has another time.  Takes some 20 ns for each who sleeps for
 * this key behind it: their number is the only bound.
 */

ngx_uint_t ngx_http_llm_queue_refund_locked(ngx_http_llm_key_t *key,
    ngx_uint_t budget, int64_t tokens, int64_t now_ns);

/* the same, where a bucket was changed by other means */

ngx_uint_t ngx_http_llm_queue_move_locked(ngx_http_llm_key_t *key,
    ngx_uint_t budget, int64_t now_ns);


#endif /* _NGX_HTTP_LLM_QUEUE_H_INCLUDED_ */
