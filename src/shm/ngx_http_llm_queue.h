
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
 * Shared, so that what a dead process took can be given back.  It takes a
 * chunk as a key does, so that a key that is dropped makes room for it: two
 * cache lines, of which most holds never use the second one.
 */

struct ngx_http_llm_hold_s {
    ngx_queue_t             queue;
    ngx_http_llm_key_t     *key;
    int64_t                 costs[NGX_HTTP_LLM_BUDGETS];

    /* what its answer teaches of: a model, and the most tokens it may get */
    uint32_t                model;
    uint32_t                most;

    /* the process that holds it */
    int32_t                 pid;
    int32_t                 slot;

    /* bits: the budgets that apply */
    uint16_t                budgets;

    uint16_t                asleep;

    /* in the key's queue, as long as asleep */
    ngx_queue_t             sleeper;

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
 * True: somebody has, or may have, another time.  Takes some 20 ns for each
 * who sleeps for this key: their number is the only bound.
 */

ngx_uint_t ngx_http_llm_queue_refund_locked(ngx_http_llm_key_t *key,
    ngx_uint_t budget, int64_t tokens, int64_t now_ns);

/* the same, where a bucket was changed by other means */

ngx_uint_t ngx_http_llm_queue_move_locked(ngx_http_llm_key_t *key,
    ngx_uint_t budget, int64_t now_ns);


#endif /* _NGX_HTTP_LLM_QUEUE_H_INCLUDED_ */
