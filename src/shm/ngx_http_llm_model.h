
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * What all workers learned of each model: the ratio that corrects the
 * estimate.  A table of bounded size in shared memory; the model that was
 * not used for longest makes room.
 */


#ifndef _NGX_HTTP_LLM_MODEL_H_INCLUDED_
#define _NGX_HTTP_LLM_MODEL_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_llm_estimate.h"


/* adds the zone to the configuration, once; tag is the module; or NULL */

ngx_shm_zone_t *ngx_http_llm_model_zone(ngx_conf_t *cf, void *tag);

/* what is known of a model; all zero when nothing is */

ngx_llm_ratio_t ngx_http_llm_model_ratio(ngx_shm_zone_t *zone,
    const u_char *model, size_t len);

/* one answer more: see ngx_llm_ratio_learn() */

void ngx_http_llm_model_learn(ngx_shm_zone_t *zone, const u_char *model,
    size_t len, int64_t raw_tokens, int64_t reported_tokens);


#endif /* _NGX_HTTP_LLM_MODEL_H_INCLUDED_ */
