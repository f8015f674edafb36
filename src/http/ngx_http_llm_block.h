
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Blocks of tokens that this machine takes from Redis ahead of their use, for
 * zones with lease=: asked for, put into the zone's leases when they come,
 * and given back when nobody wants them.
 */


#ifndef _NGX_HTTP_LLM_BLOCK_H_INCLUDED_
#define _NGX_HTTP_LLM_BLOCK_H_INCLUDED_


#include "ngx_http_llm.h"


/* a key's lease has changed: asks for more, or gives back */

void ngx_http_llm_block_look(ngx_http_llm_limit_zone_t *lz,
    const u_char *digest);

/* looks after leases that nobody comes for; gives back all that is left */

void ngx_http_llm_block_init_process(ngx_cycle_t *cycle);
void ngx_http_llm_block_exit_process(ngx_http_llm_main_conf_t *lmcf);


#endif /* _NGX_HTTP_LLM_BLOCK_H_INCLUDED_ */
