
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The three clocks of an exchange: first token, idle, total.  They run on
 * content, not on bytes, and share one lazy timer: content only writes down
 * when it came.
 */


#ifndef _NGX_HTTP_LLM_CLOCK_H_INCLUDED_
#define _NGX_HTTP_LLM_CLOCK_H_INCLUDED_


#include "ngx_http_llm.h"


/* the handler of the exchange's timer, whose data is the request */

void ngx_http_llm_clock_handler(ngx_event_t *ev);

/* sets the timer to the nearest deadline; none: no timer */

void ngx_http_llm_clock_arm(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex);

/* content has come, just now; most is not the first, which stops a clock */

#define ngx_http_llm_clock_content(r, ctx)                                    \
    do {                                                                      \
        (ctx)->last_content_ms = ngx_current_msec;                            \
                                                                              \
        if ((ctx)->first_content_ms == 0) {                                   \
            ngx_http_llm_clock_first(r, ctx);                                 \
        }                                                                     \
    } while (0)

void ngx_http_llm_clock_first(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);

/*
 * The terminal marker has passed: upstream has a second to close its body,
 * then we do, and nobody waits for it.
 */

void ngx_http_llm_clock_linger(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);


#endif /* _NGX_HTTP_LLM_CLOCK_H_INCLUDED_ */
