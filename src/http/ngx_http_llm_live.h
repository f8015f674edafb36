
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The exchanges that are alive in this worker, and their ends from outside:
 * by llm_cancel, in whichever worker that came, and by the worker's own
 * shutdown.
 */


#ifndef _NGX_HTTP_LLM_LIVE_H_INCLUDED_
#define _NGX_HTTP_LLM_LIVE_H_INCLUDED_


#include "ngx_http_llm.h"
#include "ngx_http_llm_ids.h"


/* from when upstream is asked to the end of the exchange; may be repeated */

ngx_int_t ngx_http_llm_live_add(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_live_remove(ngx_http_llm_exchange_t *ex);

/*
 * Ends an exchange now, wherever it stands: upstream is closed, and the
 * client is told, by an error event and a clean end or by an HTTP error.
 * The request may be gone behind it.
 */

void ngx_http_llm_live_end(ngx_http_llm_ctx_t *ctx, ngx_http_llm_end_e end);

/*
 * Makes ctx->id known to llm_cancel, in all workers, until it is taken out of
 * the ids of the main configuration.  NGX_OK without one: there is no
 * llm_cancel, or no room.
 */

ngx_int_t ngx_http_llm_id_open(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_id_t **id);

/* a worker begins; the bell has rung; and a process has ended, or this one */

void ngx_http_llm_live_init_process(void);
void ngx_http_llm_live_hear(void);
void ngx_http_llm_live_process_gone(ngx_cycle_t *cycle, ngx_pid_t pid);

/* llm_cancel */

char *ngx_http_llm_cancel_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


#endif /* _NGX_HTTP_LLM_LIVE_H_INCLUDED_ */
