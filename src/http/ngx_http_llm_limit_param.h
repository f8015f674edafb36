
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */



/*
 * The parameters of llm_limit_zone, each read by a function of its own.  For
 * the files of the directive only.
 */


#ifndef _NGX_HTTP_LLM_LIMIT_PARAM_H_INCLUDED_
#define _NGX_HTTP_LLM_LIMIT_PARAM_H_INCLUDED_


#include "ngx_http_llm.h"


typedef enum {
    NGX_HTTP_LLM_COUNT_TOTAL = 0,
    NGX_HTTP_LLM_COUNT_PROMPT,
    NGX_HTTP_LLM_COUNT_COMPLETION
} ngx_http_llm_count_e;


/* parameters of llm_limit_zone; a bit says that one was given */

#define NGX_HTTP_LLM_PARAM_ZONE            0x0001
#define NGX_HTTP_LLM_PARAM_TOKENS          0x0002
#define NGX_HTTP_LLM_PARAM_REQUESTS        0x0004
#define NGX_HTTP_LLM_PARAM_BURST           0x0008
#define NGX_HTTP_LLM_PARAM_REQUESTS_BURST  0x0010
#define NGX_HTTP_LLM_PARAM_COUNT           0x0020
#define NGX_HTTP_LLM_PARAM_PROMPT          0x0040
#define NGX_HTTP_LLM_PARAM_CACHED          0x0080
#define NGX_HTTP_LLM_PARAM_COMPLETION      0x0100
#define NGX_HTTP_LLM_PARAM_REASONING       0x0200
#define NGX_HTTP_LLM_PARAM_REDIS           0x0400
#define NGX_HTTP_LLM_PARAM_LEASE           0x0800


/* one llm_limit_zone as it is read */

typedef struct {
    ngx_http_llm_limit_zone_t  *lz;
    ngx_str_t                   name;
    ssize_t                     size_bytes;
    ngx_http_llm_count_e        count;
    ngx_uint_t                  given;
} ngx_http_llm_limit_args_t;


/* reads one into args; a value that is not allowed is logged */

char *ngx_http_llm_limit_param(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_http_llm_limit_args_t *args, ngx_str_t *arg);


#endif /* _NGX_HTTP_LLM_LIMIT_PARAM_H_INCLUDED_ */
