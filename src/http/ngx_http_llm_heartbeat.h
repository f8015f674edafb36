
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * llm_heartbeat: a comment line where nothing was sent for long.
 *
 * WHATWG HTML, 9.2.6: a line that starts with a colon is ignored.  It stands
 * between two events, without a blank line of its own, which some clients
 * take for an empty event.
 */


#ifndef _NGX_HTTP_LLM_HEARTBEAT_H_INCLUDED_
#define _NGX_HTTP_LLM_HEARTBEAT_H_INCLUDED_


#include "ngx_http_llm.h"


/* when it is time for one, as ngx_current_msec; 0: never, as it is now */

ngx_msec_t ngx_http_llm_heartbeat_deadline(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex);

/*
 * It is time.  Where llm_hold keeps the header back it is sent.  The request
 * may be gone behind it.
 */

void ngx_http_llm_heartbeat(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);

/* out is about to be sent */

void ngx_http_llm_heartbeat_sent(ngx_http_llm_relay_t *relay,
    ngx_chain_t *out);

/* llm_heartbeat */

char *ngx_http_llm_heartbeat_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


#endif /* _NGX_HTTP_LLM_HEARTBEAT_H_INCLUDED_ */
