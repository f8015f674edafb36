
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The module's configuration as a whole: making, merging, installing.
 */


#ifndef _NGX_HTTP_LLM_CONF_H_INCLUDED_
#define _NGX_HTTP_LLM_CONF_H_INCLUDED_


#include "ngx_http_llm.h"


void *ngx_http_llm_create_main_conf(ngx_conf_t *cf);
void *ngx_http_llm_create_srv_conf(ngx_conf_t *cf);
void *ngx_http_llm_create_loc_conf(ngx_conf_t *cf);
char *ngx_http_llm_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child);

/* llm_stream: a flag, which the filters are installed for */

char *ngx_http_llm_stream_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* NGX_ERROR, which is logged: a parameter, name=value, is given twice */

ngx_int_t ngx_http_llm_check_parameters(ngx_conf_t *cf, ngx_command_t *cmd);

/*
 * Values of one kind: cmd->post has the names of an enumeration, all of which
 * a wrong one is told.
 */

char *ngx_http_llm_enum_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_time_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_size_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* llm_hold: a size, or 0 for "off" */

char *ngx_http_llm_hold_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* llm_media_tokens: what one image and one audio part count as */

char *ngx_http_llm_media_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* postconfiguration */

ngx_int_t ngx_http_llm_install(ngx_conf_t *cf);

/* a worker takes its places in shared memory, and leaves them */

ngx_int_t ngx_http_llm_init_module(ngx_cycle_t *cycle);
ngx_int_t ngx_http_llm_init_process(ngx_cycle_t *cycle);
void ngx_http_llm_exit_process(ngx_cycle_t *cycle);

extern ngx_conf_enum_t  ngx_http_llm_dialects[];


#endif /* _NGX_HTTP_LLM_CONF_H_INCLUDED_ */
