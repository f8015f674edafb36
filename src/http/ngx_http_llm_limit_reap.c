
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_bell.h"
#include "ngx_http_llm.h"


static void ngx_http_llm_limit_reap(ngx_cycle_t *cycle, ngx_pid_t pid);


/* nginx gives a slot to a new process only when the old one is gone */

ngx_int_t
ngx_http_llm_limit_init_process(ngx_cycle_t *cycle)
{
    ngx_http_llm_limit_reap(cycle, NGX_INVALID_PID);

    return NGX_OK;
}


void
ngx_http_llm_limit_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_llm_limit_reap(cycle, ngx_pid);
}


/* it may have served an older cycle: zones that still are have kept it */

void
ngx_http_llm_limit_process_gone(ngx_pid_t pid)
{
    ngx_http_llm_limit_reap((ngx_cycle_t *) ngx_cycle, pid);
}


static void
ngx_http_llm_limit_reap(ngx_cycle_t *cycle, ngx_pid_t pid)
{
    ngx_uint_t                  i, moved;
    ngx_http_llm_zone_t       **zones;
    ngx_http_llm_main_conf_t   *lmcf;

    lmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_llm_stream_module);
    if (lmcf == NULL) {
        return;
    }

    moved = 0;
    zones = lmcf->zones.elts;

    for (i = 0; i < lmcf->zones.nelts; i++) {
        moved |= ngx_http_llm_zone_reap(zones[i], pid,
                                        ngx_http_llm_zone_now());
    }

    if (moved) {
        ngx_http_llm_bell_ring();
    }
}
