
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Pauses of a stream, and llm_pace, which makes them: what upstream sends
 * faster than the client is to have it waits with upstream.
 */


#ifndef _NGX_HTTP_LLM_PACE_H_INCLUDED_
#define _NGX_HTTP_LLM_PACE_H_INCLUDED_


#include "ngx_http_llm.h"
#include "ngx_llm_bucket.h"


/* llm_pace: a fixed rate, or a variable that has one */

typedef struct {
    ngx_llm_rate_t              fixed;
    ngx_http_complex_value_t   *rate;
} ngx_http_llm_pace_conf_t;


typedef struct {
    ngx_llm_rate_t              rate;
    ngx_llm_ratio_t             ratio;

    /* tokens of the completion that have passed */
    int64_t                     tokens;

    /* when they would have, had each taken its time; as ngx_current_msec */
    int64_t                     due_ns;
} ngx_http_llm_pace_t;


/*
 * Nothing more passes for so long, or longer where it pauses longer already.
 * The idle clock stands still.  NGX_DECLINED: nobody is there to wait.
 */

ngx_int_t ngx_http_llm_pause(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_msec_t pause_ms);

/* no pause ends any more; called on every way out of the exchange */

void ngx_http_llm_pause_stop(ngx_http_llm_ctx_t *ctx);

/*
 * A pause that lasts now ends in so long, or when llm_pace lets it; where
 * there is none, nothing.
 */

void ngx_http_llm_pause_end(ngx_http_llm_ctx_t *ctx, ngx_msec_t left_ms);

/* a stream begins: sets relay->pace where its rate is bounded */

ngx_int_t ngx_http_llm_pace_start(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);

/*
 * An event has been read, and will pass: nothing more does until its tokens
 * have had their time.
 */

void ngx_http_llm_pace_look(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    unsigned bits);

/* llm_pace */

char *ngx_http_llm_pace_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


#endif /* _NGX_HTTP_LLM_PACE_H_INCLUDED_ */
