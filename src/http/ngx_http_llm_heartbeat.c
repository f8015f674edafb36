
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_clock.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_heartbeat.h"
#include "ngx_http_llm_relay.h"


static ngx_str_t  ngx_http_llm_heartbeat_line = ngx_string(": waiting\n");

static u_char  ngx_http_llm_bom[] = { 0xef, 0xbb, 0xbf };


ngx_msec_t
ngx_http_llm_heartbeat_deadline(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex)
{
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_relay_t     *relay;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    if (llcf->heartbeat_ms == 0) {
        return 0;
    }

    ctx = ex->ctx;

    if (ex->gate) {
        return llcf->heartbeat_early && ngx_http_llm_gate_can_open(ex)
               ? ctx->start_ms + llcf->heartbeat_ms : 0;
    }

    relay = ctx->relay;

    if (relay == NULL
        || !relay->beats
        || relay->torn
        || relay->cut
        || relay->drained
        || relay->answer.seen & NGX_LLM_EV_END
        || (!llcf->heartbeat_early && ctx->first_content_ms == 0))
    {
        return 0;
    }

    return relay->sent_ms + llcf->heartbeat_ms;
}


void
ngx_http_llm_heartbeat(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t              rc;
    ngx_connection_t      *c;
    ngx_http_llm_relay_t  *relay;

    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    if (ctx->exchange->gate) {
        ngx_http_llm_gate_open(r, ctx->exchange);
        return;
    }

    relay = ctx->relay;
    relay->sent_ms = ngx_current_msec;

    ngx_http_llm_clock_arm(r, ctx->exchange);

    /* a client that is behind has no silence; a line's end may still come */

    if (c->buffered || relay->busy || (relay->sent && !relay->sent_lf)) {
        return;
    }

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, c->log, 0, "llm heartbeat");

    rc = ngx_http_llm_relay_comment(r, ctx, &ngx_http_llm_heartbeat_line);

    /* as if nginx had sent it: its timers, or its look at who has left */

    if (rc == NGX_ERROR) {
        r->read_event_handler(r);

    } else {
        r->write_event_handler(r);
    }

    ngx_http_run_posted_requests(c);
}


/*
 * Behind a heartbeat a BOM is none any more, but the start of a field's name:
 * it is left out.
 */

void
ngx_http_llm_heartbeat_sent(ngx_http_llm_relay_t *relay, ngx_chain_t *out)
{
    ngx_buf_t  *b;

    for ( /* void */ ; out; out = out->next) {
        b = out->buf;

        if (!ngx_buf_in_memory(b) || b->pos == b->last) {
            continue;
        }

        if (!relay->sent
            && relay->commented
            && b->last - b->pos >= (ssize_t) sizeof(ngx_http_llm_bom)
            && ngx_memcmp(b->pos, ngx_http_llm_bom, sizeof(ngx_http_llm_bom))
               == 0)
        {
            b->pos += sizeof(ngx_http_llm_bom);
        }

        relay->sent = 1;
        relay->sent_lf = (b->last[-1] == LF);
    }

    relay->sent_ms = ngx_current_msec;
}


char *
ngx_http_llm_heartbeat_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_str_t                *value;
    ngx_http_llm_loc_conf_t  *llcf = conf;

    if (llcf->heartbeat_ms != NGX_CONF_UNSET_MSEC) {
        return "is duplicate";
    }

    value = cf->args->elts;
    llcf->heartbeat_early = 0;

    if (ngx_strcmp(value[1].data, "off") == 0 && cf->args->nelts == 2) {
        llcf->heartbeat_ms = 0;
        return NGX_CONF_OK;
    }

    llcf->heartbeat_ms = ngx_parse_time(&value[1], 0);

    if (llcf->heartbeat_ms == (ngx_msec_t) NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"llm_heartbeat\" "
                           "directive: it must be a time or \"off\"",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    if (cf->args->nelts == 2) {
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[2].data, "early") != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"llm_heartbeat\" "
                           "directive: it must be \"early\" or nothing",
                           &value[2]);
        return NGX_CONF_ERROR;
    }

    llcf->heartbeat_early = 1;

    return NGX_CONF_OK;
}
