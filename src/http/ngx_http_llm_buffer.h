
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * u->buffer of streams: a stream has one while upstream has sent something,
 * and none while it is silent and another one is read, which is nearly always.
 * Buffers that nobody has wait in the worker for whoever is next.
 */


#ifndef _NGX_HTTP_LLM_BUFFER_H_INCLUDED_
#define _NGX_HTTP_LLM_BUFFER_H_INCLUDED_


#include "ngx_http_llm.h"


/*
 * From here on nginx's reading of upstream is in our hands: to be called when
 * it has set u->read_event_handler for a stream that is not buffered.
 */

void ngx_http_llm_buffer_hook(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex);

/* the exchange has ended, and its request may be gone soon */

void ngx_http_llm_buffer_end(ngx_http_llm_exchange_t *ex);

/* gives back what the exchange has; at the end of the request's memory */

void ngx_http_llm_buffer_cleanup(ngx_http_llm_exchange_t *ex);


#endif /* _NGX_HTTP_LLM_BUFFER_H_INCLUDED_ */
