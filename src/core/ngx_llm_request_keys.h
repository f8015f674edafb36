
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The keys of a request that decide what it costs.  For src/core only.
 */


#ifndef _NGX_LLM_REQUEST_KEYS_H_INCLUDED_
#define _NGX_LLM_REQUEST_KEYS_H_INCLUDED_


#include "ngx_llm_request.h"


/*
 * Sets the fact that the value of a deciding key (NGX_LLM_REQ_MODEL and the
 * like) states.  seen has a bit for each that was there before, zero at
 * first.  NGX_LLM_INVALID with *reason when it was, or when the value's type
 * or range is wrong.
 */

ngx_llm_rc_e ngx_llm_request_decide(ngx_llm_request_t *request,
    uint32_t *seen, unsigned id, const ngx_llm_json_value_t *value,
    const char **reason);


#endif /* _NGX_LLM_REQUEST_KEYS_H_INCLUDED_ */
