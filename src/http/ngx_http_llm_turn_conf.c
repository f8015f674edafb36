
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"


#define NGX_HTTP_LLM_QUEUE_MAX         16384
#define NGX_HTTP_LLM_QUEUE_TIMEOUT_MS  60000
#define NGX_HTTP_LLM_QUEUE_WATCH_MS    1000


typedef struct {
    ngx_event_t        event;
    ngx_connection_t   dumb;

    /* requests of this process that wait */
    ngx_int_t          waiters;
} ngx_http_llm_turn_watch_t;


static char *ngx_http_llm_queue_parameter(ngx_conf_t *cf,
    ngx_http_llm_turn_conf_t *conf, ngx_str_t *value);
static char *ngx_http_llm_queue_invalid(ngx_conf_t *cf, ngx_str_t *value);
static ngx_http_llm_srv_conf_t *ngx_http_llm_turn_next(
    ngx_http_upstream_main_conf_t *umcf, ngx_uint_t *index);
static void ngx_http_llm_turn_check_seats(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf);
static void ngx_http_llm_turn_each(ngx_cycle_t *cycle,
    void (*handler)(ngx_http_llm_turn_conf_t *conf));
static void ngx_http_llm_turn_find_line(ngx_http_llm_turn_conf_t *conf);
static void ngx_http_llm_turn_reap(ngx_cycle_t *cycle, ngx_pid_t pid);
static void ngx_http_llm_turn_watch_handler(ngx_event_t *ev);


static ngx_http_llm_turn_watch_t  ngx_http_llm_watch_turns;


char *
ngx_http_llm_queue_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                       *rv;
    ngx_int_t                   n;
    ngx_str_t                  *value;
    ngx_uint_t                  i;
    ngx_http_llm_srv_conf_t    *lscf;
    ngx_http_llm_main_conf_t   *lmcf;
    ngx_http_llm_turn_conf_t   *turn;

    lscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_llm_stream_module);
    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_stream_module);

    turn = &lscf->turn;
    value = cf->args->elts;

    if (turn->max) {
        return "is duplicate";
    }

    n = ngx_atoi(value[1].data, value[1].len);

    if (n < 1 || n > NGX_HTTP_LLM_QUEUE_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid number of requests \"%V\" in "
                           "\"llm_queue\", allowed is 1 to %d",
                           &value[1], NGX_HTTP_LLM_QUEUE_MAX);
        return NGX_CONF_ERROR;
    }

    turn->max = n;
    turn->upstream = ngx_http_conf_get_module_srv_conf(cf,
                                                    ngx_http_upstream_module);

    for (i = 2; i < cf->args->nelts; i++) {
        rv = ngx_http_llm_queue_parameter(cf, turn, &value[i]);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (turn->timeout_ms == 0) {
        turn->timeout_ms = NGX_HTTP_LLM_QUEUE_TIMEOUT_MS;
    }

    if (lmcf->lines == NULL) {
        lmcf->lines = ngx_http_llm_line_zone(cf, &ngx_http_llm_stream_module);
    }

    turn->zone = lmcf->lines;

    return turn->zone ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_http_llm_queue_parameter(ngx_conf_t *cf, ngx_http_llm_turn_conf_t *conf,
    ngx_str_t *value)
{
    ngx_int_t                          ms;
    ngx_str_t                          s;
    ngx_http_compile_complex_value_t   ccv;

    if (ngx_strncmp(value->data, "timeout=", 8) == 0
        && conf->timeout_ms == 0)
    {
        s.data = value->data + 8;
        s.len = value->len - 8;

        ms = ngx_parse_time(&s, 0);

        if (ms < 1) {
            return ngx_http_llm_queue_invalid(cf, value);
        }

        conf->timeout_ms = ms;

        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value->data, "key=", 4) == 0
        && value->len > 4
        && conf->key == NULL)
    {
        s.data = value->data + 4;
        s.len = value->len - 4;

        conf->key = ngx_pcalloc(cf->pool, sizeof(ngx_http_complex_value_t));
        if (conf->key == NULL) {
            return NGX_CONF_ERROR;
        }

        ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

        ccv.cf = cf;
        ccv.value = &s;
        ccv.complex_value = conf->key;

        return (ngx_http_compile_complex_value(&ccv) == NGX_OK)
               ? NGX_CONF_OK : NGX_CONF_ERROR;
    }

    return ngx_http_llm_queue_invalid(cf, value);
}


static char *
ngx_http_llm_queue_invalid(ngx_conf_t *cf, ngx_str_t *value)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\" of \"llm_queue\", allowed "
                       "are \"timeout=time\", at least 1ms, and "
                       "\"key=$variable\", once each", value);

    return NGX_CONF_ERROR;
}


/* when all upstreams have been read */

ngx_int_t
ngx_http_llm_turn_check(ngx_conf_t *cf)
{
    ngx_uint_t                      i;
    ngx_http_llm_srv_conf_t        *lscf;
    ngx_http_upstream_srv_conf_t   *uscf;
    ngx_http_upstream_main_conf_t  *umcf;

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);
    i = 0;

    while ((lscf = ngx_http_llm_turn_next(umcf, &i)) != NULL) {
        uscf = lscf->turn.upstream;

        if (!lscf->balancer.enabled) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"llm_queue\" needs \"llm_least_inflight\" in "
                          "upstream \"%V\" in %s:%ui", &uscf->host,
                          uscf->file_name, uscf->line);
            return NGX_ERROR;
        }

        ngx_http_llm_turn_check_seats(cf, uscf);
    }

    return NGX_OK;
}


/* the next upstream that has a queue, from *index on; NULL: no more */

static ngx_http_llm_srv_conf_t *
ngx_http_llm_turn_next(ngx_http_upstream_main_conf_t *umcf,
    ngx_uint_t *index)
{
    ngx_http_llm_srv_conf_t       *lscf;
    ngx_http_upstream_srv_conf_t  *uscf;

    while (*index < umcf->upstreams.nelts) {
        uscf = ((ngx_http_upstream_srv_conf_t **) umcf->upstreams.elts)
                                                                  [(*index)++];

        if (uscf->srv_conf == NULL) {
            continue;
        }

        lscf = ngx_http_conf_upstream_srv_conf(uscf,
                                               ngx_http_llm_stream_module);
        if (lscf->turn.max) {
            return lscf;
        }
    }

    return NULL;
}


static void
ngx_http_llm_turn_check_seats(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_uint_t                   i;
    ngx_http_upstream_server_t  *server;

    server = uscf->servers->elts;

    for (i = 0; i < uscf->servers->nelts; i++) {

        if (server[i].down || server[i].max_conns) {
            continue;
        }

        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "nobody ever waits in the \"llm_queue\" of upstream "
                      "\"%V\" in %s:%ui: its server \"%V\" has no "
                      "\"max_conns\"", &uscf->host, uscf->file_name,
                      uscf->line, &server[i].name);
        return;
    }
}


static void
ngx_http_llm_turn_each(ngx_cycle_t *cycle,
    void (*handler)(ngx_http_llm_turn_conf_t *conf))
{
    ngx_uint_t                      i;
    ngx_http_llm_srv_conf_t        *lscf;
    ngx_http_upstream_main_conf_t  *umcf;

    umcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_upstream_module);
    i = 0;

    while (umcf && (lscf = ngx_http_llm_turn_next(umcf, &i)) != NULL) {
        handler(&lscf->turn);
    }
}


ngx_int_t
ngx_http_llm_turn_init_process(ngx_cycle_t *cycle)
{
    ngx_http_llm_turn_watch_t  *watch;

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    watch = &ngx_http_llm_watch_turns;

    /* the event module logs the descriptor */

    watch->dumb.fd = (ngx_socket_t) -1;

    watch->event.data = &watch->dumb;
    watch->event.handler = ngx_http_llm_turn_watch_handler;
    watch->event.log = cycle->log;
    watch->event.cancelable = 1;

    ngx_http_llm_turn_reap(cycle, NGX_INVALID_PID);

    ngx_http_llm_turn_each(cycle, ngx_http_llm_turn_find_line);
    ngx_http_llm_turn_each(cycle, ngx_http_llm_turn_call);

    return NGX_OK;
}


static void
ngx_http_llm_turn_find_line(ngx_http_llm_turn_conf_t *conf)
{
    conf->line = ngx_http_llm_line_get(conf->zone, &conf->upstream->host,
                                       ngx_cycle->log);
}


/* its seats are free when its row is: who looks next calls for them */

void
ngx_http_llm_turn_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_llm_turn_reap(cycle, ngx_pid);
}


void
ngx_http_llm_turn_process_gone(ngx_pid_t pid)
{
    ngx_http_llm_turn_reap((ngx_cycle_t *) ngx_cycle, pid);
    ngx_http_llm_turn_each((ngx_cycle_t *) ngx_cycle, ngx_http_llm_turn_call);
}


static void
ngx_http_llm_turn_reap(ngx_cycle_t *cycle, ngx_pid_t pid)
{
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_llm_stream_module);

    if (lmcf && lmcf->lines) {
        ngx_http_llm_line_reap(lmcf->lines, pid);
    }
}


/*
 * Seats that come without anybody leaving: a server that is tried again
 * behind its fail_timeout, one that a reload or a resolver brings.
 */

void
ngx_http_llm_turn_watch(ngx_int_t waiters)
{
    ngx_http_llm_turn_watch_t  *watch;

    watch = &ngx_http_llm_watch_turns;
    watch->waiters += waiters;

    if (watch->waiters && !watch->event.timer_set) {
        ngx_add_timer(&watch->event, NGX_HTTP_LLM_QUEUE_WATCH_MS);
    }
}


static void
ngx_http_llm_turn_watch_handler(ngx_event_t *ev)
{
    ngx_http_llm_turn_each((ngx_cycle_t *) ngx_cycle, ngx_http_llm_turn_call);

    ngx_http_llm_turn_watch(0);
}
