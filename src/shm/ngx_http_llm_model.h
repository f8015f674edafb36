
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

/*
 * What people ask and what a model writes differ: code against prose, one
 * language against another.
 */

typedef enum {
    NGX_HTTP_LLM_MODEL_PROMPT = 0,
    NGX_HTTP_LLM_MODEL_COMPLETION,
    NGX_HTTP_LLM_MODEL_TEXTS
} ngx_http_llm_model_text_e;


/*
 * What is known of a model, of its prompts where its completions have taught
 * nothing; all zero when nothing is.
 */

ngx_llm_ratio_t ngx_http_llm_model_ratio(ngx_shm_zone_t *zone,
    const ngx_str_t *model, ngx_http_llm_model_text_e text);

/* one answer more: see ngx_llm_ratio_learn() */

void ngx_http_llm_model_learn(ngx_shm_zone_t *zone, const ngx_str_t *model,
    ngx_http_llm_model_text_e text, int64_t raw_tokens,
    int64_t reported_tokens);


#endif /* _NGX_HTTP_LLM_MODEL_H_INCLUDED_ */
