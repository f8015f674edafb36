
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Sleeping in a phase handler, behind the client's body and ahead of
 * upstream: by a timer, without polling.  A client that leaves meanwhile is
 * noticed at once, also one that only closes its half or resets its HTTP/2
 * stream.
 */


#ifndef _NGX_HTTP_LLM_WAIT_H_INCLUDED_
#define _NGX_HTTP_LLM_WAIT_H_INCLUDED_


#include "ngx_http_llm.h"


/*
 * Called once, behind slept_ms.  With over the request ends here, its charge
 * is given back, and it is logged next; else it goes on.
 */

typedef void (*ngx_http_llm_wait_pt)(ngx_http_llm_ctx_t *ctx,
    ngx_msec_t slept_ms, ngx_uint_t over);

/* milliseconds from now on, never more than were left; -1: just as many */

typedef ngx_msec_int_t (*ngx_http_llm_wait_look_pt)(ngx_http_llm_ctx_t *ctx);

/*
 * Sleeps for wait_ms, or what look makes of it when the bell rings, and goes
 * on with resume (ngx_http_core_run_phases in a phase handler), without
 * keeping back what else the worker does; a worker that is to leave
 * gracefully stays as long.  The body has to be read before: a client that
 * leaves is not seen behind unread bytes.  llm_cancel finds who sleeps.  The
 * result is the phase handler's: NGX_AGAIN, or NGX_HTTP_INTERNAL_SERVER_ERROR,
 * and then ended is not called.
 */

ngx_int_t ngx_http_llm_wait(ngx_http_llm_ctx_t *ctx, ngx_msec_t wait_ms,
    ngx_http_llm_wait_look_pt look, ngx_http_llm_wait_pt ended,
    ngx_http_event_handler_pt resume);

/* it has slept enough: behind this turn of the loop it goes on */

void ngx_http_llm_wait_end(ngx_http_llm_ctx_t *ctx);

/* those who sleep in this worker, in the order in which they came */

void ngx_http_llm_wait_init_process(void);

/* the bell has rung */

void ngx_http_llm_wait_hear(void);

/* ends those whom llm_cancel has marked, with 410; and all, with 503 */

void ngx_http_llm_wait_cancel(void);
void ngx_http_llm_wait_shutdown(void);


#endif /* _NGX_HTTP_LLM_WAIT_H_INCLUDED_ */
