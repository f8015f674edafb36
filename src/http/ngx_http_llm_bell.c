
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_bell.h"

#if (NGX_HAVE_SYS_EVENTFD_H)
#include <sys/eventfd.h>
#endif


/* one for all cycles: their workers share the zones */

static ngx_fd_t      ngx_http_llm_bell_fd = -1;

static ngx_event_t   ngx_http_llm_bell_event;


ngx_int_t
ngx_http_llm_bell_init_module(ngx_cycle_t *cycle)
{
#if (NGX_HAVE_SYS_EVENTFD_H)

    if (ngx_http_llm_bell_fd != -1 || ngx_test_config) {
        return NGX_OK;
    }

    ngx_http_llm_bell_fd = eventfd(0, EFD_NONBLOCK|EFD_CLOEXEC);

    if (ngx_http_llm_bell_fd == -1) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                      "eventfd() failed");
        return NGX_ERROR;
    }

#endif

    return NGX_OK;
}


/*
 * Edge-triggered and never read: each write is heard by everybody once.  As
 * a channel it does not count as a connection that is left open.
 */

ngx_int_t
ngx_http_llm_bell_init_process(ngx_cycle_t *cycle,
    ngx_event_handler_pt handler)
{
    ngx_connection_t  *c;

    ngx_http_llm_bell_event.handler = handler;
    ngx_http_llm_bell_event.log = cycle->log;

    if (ngx_http_llm_bell_fd == -1 || !(ngx_event_flags & NGX_USE_EPOLL_EVENT)
        || (ngx_process != NGX_PROCESS_WORKER
            && ngx_process != NGX_PROCESS_SINGLE))
    {
        return NGX_OK;
    }

    c = ngx_get_connection(ngx_http_llm_bell_fd, cycle->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    c->read->log = cycle->log;
    c->write->log = cycle->log;
    c->read->channel = 1;
    c->read->handler = handler;

    /* nginx calls the handlers of such when the worker is to leave */

    c->idle = 1;

    return ngx_add_event(c->read, NGX_READ_EVENT, NGX_CLEAR_EVENT);
}


void
ngx_http_llm_bell_ring(void)
{
#if (NGX_HAVE_SYS_EVENTFD_H)

    uint64_t  one;

    if (ngx_http_llm_bell_fd != -1) {
        one = 1;

        /* it fails when it counted to 2^64 */

        (void) !write(ngx_http_llm_bell_fd, &one, sizeof(uint64_t));
    }

    if (ngx_event_flags & NGX_USE_EPOLL_EVENT) {
        return;
    }

#endif

    ngx_post_event(&ngx_http_llm_bell_event, &ngx_posted_events);
}
