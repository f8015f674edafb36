
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The part of a charge that Redis keeps: asked while the request sleeps,
 * decided by the fallback where there is no answer in time, ended with the
 * rest of the charge.  Its functions for admission: ngx_http_llm_charge.h.
 */


#ifndef _NGX_HTTP_LLM_SHARE_H_INCLUDED_
#define _NGX_HTTP_LLM_SHARE_H_INCLUDED_


#include "ngx_http_llm.h"


/* llm_redis; and the zones that name one are given it */

char *ngx_http_llm_redis_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
ngx_int_t ngx_http_llm_share_bind(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *lmcf);

/* connects, and leaves: what is open is ended as if it had not happened */

ngx_int_t ngx_http_llm_share_init_process(ngx_cycle_t *cycle);
void ngx_http_llm_share_exit_process(ngx_cycle_t *cycle);


#endif /* _NGX_HTTP_LLM_SHARE_H_INCLUDED_ */
