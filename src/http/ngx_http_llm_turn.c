
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_account.h"
#include "ngx_http_llm_bell.h"
#include "ngx_http_llm_wait.h"
#include "ngx_llm_hash.h"


/* Retry-After is between these, whatever the pace */
#define NGX_HTTP_LLM_TURN_RETRY_MIN_MS  1000
#define NGX_HTTP_LLM_TURN_RETRY_MAX_MS  60000


static ngx_http_llm_turn_conf_t *ngx_http_llm_turn_conf(
    ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_turn_want(ngx_http_llm_turn_t *turn,
    ngx_http_llm_line_want_t *want);
static ngx_uint_t ngx_http_llm_turn_join_locked(ngx_http_llm_turn_t *turn,
    const ngx_http_llm_line_want_t *want);
static ngx_int_t ngx_http_llm_turn_wait(ngx_http_llm_turn_t *turn);
static ngx_msec_int_t ngx_http_llm_turn_look(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_turn_waited(ngx_http_llm_ctx_t *ctx,
    ngx_msec_t slept_ms, ngx_uint_t over);
static void ngx_http_llm_turn_resume(ngx_http_request_t *r);
static ngx_uint_t ngx_http_llm_turn_look_again_locked(
    ngx_http_llm_turn_t *turn);
static ngx_int_t ngx_http_llm_turn_reject(ngx_http_llm_turn_t *turn,
    ngx_http_llm_end_e end);


ngx_int_t
ngx_http_llm_turn_await(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_event_handler_pt resume)
{
    ngx_uint_t                 calls;
    ngx_http_llm_turn_t       *turn;
    ngx_http_llm_line_want_t   want;
    ngx_http_llm_turn_conf_t  *conf;

    /* behind an error_page: that of another upstream is over */

    ctx->turn = NULL;

    conf = ngx_http_llm_turn_conf(r);

    if (conf == NULL) {
        return NGX_DECLINED;
    }

    turn = ngx_http_llm_turn_create(r, conf);
    if (turn == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    turn->ctx = ctx;
    turn->resume = resume;
    turn->since_ms = ngx_current_msec;

    ctx->turn = turn;

    if (ngx_http_llm_turn_want(turn, &want) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_llm_line_lock(conf->zone);

    calls = ngx_http_llm_turn_join_locked(turn, &want);

    ngx_http_llm_line_unlock(conf->zone);

    if (calls) {
        ngx_http_llm_bell_ring();
    }

    if (turn->full) {
        return ngx_http_llm_turn_reject(turn, NGX_HTTP_LLM_END_QUEUE_FULL);
    }

    if (turn->ticket == NULL
        || turn->ticket->state == NGX_HTTP_LLM_TICKET_CALLED)
    {
        return NGX_DECLINED;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm queue: waits, upstream \"%V\"", &conf->upstream->host);

    return ngx_http_llm_turn_wait(turn);
}


/* NULL: there is no queue in front of this upstream */

static ngx_http_llm_turn_conf_t *
ngx_http_llm_turn_conf(ngx_http_request_t *r)
{
    ngx_str_t                       *host;
    ngx_uint_t                       i;
    ngx_http_upstream_t             *u;
    ngx_http_llm_srv_conf_t         *lscf;
    ngx_http_llm_main_conf_t        *lmcf;
    ngx_http_upstream_srv_conf_t    *uscf, **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_stream_module);

    if (lmcf->lines == NULL) {
        return NULL;
    }

    u = r->upstream;
    uscf = u->conf->upstream;

    /* a variable in proxy_pass: looked for as nginx will do */

    if (u->resolved) {
        host = &u->resolved->host;
        uscf = NULL;

        umcf = ngx_http_get_module_main_conf(r, ngx_http_upstream_module);
        uscfp = umcf->upstreams.elts;

        for (i = 0; i < umcf->upstreams.nelts; i++) {

            if (uscfp[i]->host.len == host->len
                && ((uscfp[i]->port == 0 && u->resolved->no_port)
                    || uscfp[i]->port == u->resolved->port)
                && ngx_strncasecmp(uscfp[i]->host.data, host->data, host->len)
                   == 0)
            {
                uscf = uscfp[i];
                break;
            }
        }
    }

    if (uscf == NULL || uscf->srv_conf == NULL) {
        return NULL;
    }

    lscf = ngx_http_conf_upstream_srv_conf(uscf, ngx_http_llm_stream_module);

    return lscf->turn.line ? &lscf->turn : NULL;
}


/* who shares all budgets of llm_limit shares a key, unless one is named */

static ngx_int_t
ngx_http_llm_turn_want(ngx_http_llm_turn_t *turn,
    ngx_http_llm_line_want_t *want)
{
    uint64_t             seed;
    ngx_str_t            key;
    ngx_http_llm_ctx_t  *ctx;

    ctx = turn->ctx;

    want->hash = ngx_http_llm_limit_identity(ctx);
    want->prompt = ctx->facts ? ctx->estimated_tokens : 0;
    want->completion_max = ctx->facts ? ctx->facts->max_output : 0;

    if (turn->conf->key) {

        if (ngx_http_complex_value(turn->request, turn->conf->key, &key)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        seed = ngx_http_llm_line_seed(turn->conf->zone);
        want->hash = ngx_llm_hash(key.data, key.len, seed);
    }

    return NGX_OK;
}


/* how many were called, this one or others */

static ngx_uint_t
ngx_http_llm_turn_join_locked(ngx_http_llm_turn_t *turn,
    const ngx_http_llm_line_want_t *want)
{
    ngx_uint_t                 calls;
    ngx_http_llm_line_t       *line;
    ngx_http_llm_seats_t       seats;
    ngx_http_llm_turn_conf_t  *conf;

    conf = turn->conf;
    line = conf->line;

    ngx_http_llm_balancer_seats(conf->upstream, &seats);

    /* where no server is up none is busy: that is nginx's 502, and at once */

    if (!seats.live || (!seats.limited && line->waiting == 0)) {
        return 0;
    }

    turn->ticket = ngx_http_llm_line_join_locked(line, want);

    if (turn->ticket == NULL) {
        turn->full = 1;
        return 0;
    }

    calls = ngx_http_llm_line_call_locked(line, seats.free,
                                          ngx_current_msec);

    if (turn->ticket->state == NGX_HTTP_LLM_TICKET_CALLED) {
        return calls - 1;
    }

    if (line->waiting > conf->max) {
        ngx_http_llm_line_leave_locked(turn->ticket, NULL);

        turn->ticket = NULL;
        turn->full = 1;
    }

    turn->retry_ms = ngx_http_llm_line_drained_ms_locked(line);

    return calls;
}


static ngx_int_t
ngx_http_llm_turn_wait(ngx_http_llm_turn_t *turn)
{
    ngx_int_t  rc;

    rc = ngx_http_llm_wait(turn->ctx, turn->conf->timeout_ms - turn->wait_ms,
                           ngx_http_llm_turn_look, ngx_http_llm_turn_waited,
                           ngx_http_llm_turn_resume);

    if (rc == NGX_AGAIN) {
        ngx_http_llm_turn_watch(1);

    } else {
        ngx_http_llm_turn_end(turn->ctx);
    }

    return rc;
}


static ngx_msec_int_t
ngx_http_llm_turn_look(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_ticket_t  *ticket;

    ticket = ctx->turn->ticket;

    return (ticket->state == NGX_HTTP_LLM_TICKET_CALLED) ? 0 : -1;
}


static void
ngx_http_llm_turn_waited(ngx_http_llm_ctx_t *ctx, ngx_msec_t slept_ms,
    ngx_uint_t over)
{
    ngx_http_llm_turn_watch(-1);

    ctx->turn->wait_ms = ngx_current_msec - ctx->turn->since_ms;

    if (over) {
        ngx_http_llm_turn_end(ctx);
    }
}


/* it was called, or its time is over */

static void
ngx_http_llm_turn_resume(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_uint_t            calls;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_llm_turn_t  *turn;

    ctx = ngx_http_llm_find_ctx(r);
    turn = ctx->turn;

    r->write_event_handler = ngx_http_request_empty_handler;

    ngx_http_llm_line_lock(turn->conf->zone);

    calls = ngx_http_llm_turn_look_again_locked(turn);

    ngx_http_llm_line_unlock(turn->conf->zone);

    if (calls) {
        ngx_http_llm_bell_ring();
    }

    if (turn->ticket == NULL) {
        rc = ngx_http_llm_turn_reject(turn, NGX_HTTP_LLM_END_QUEUE_TIMEOUT);

    } else if (turn->ticket->state == NGX_HTTP_LLM_TICKET_CALLED) {

        ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                       "llm queue: called after %Mms, upstream \"%V\"",
                       turn->wait_ms, &turn->conf->upstream->host);

        turn->resume(r);
        return;

    } else {
        rc = ngx_http_llm_turn_wait(turn);
    }

    if (rc != NGX_AGAIN) {
        ngx_http_finalize_request(r, rc);
    }
}


/*
 * Whoever called it may see other servers than this process does: those of
 * an older configuration, or one that has failed here.  What is no seat for
 * it, it waits for again.
 */

static ngx_uint_t
ngx_http_llm_turn_look_again_locked(ngx_http_llm_turn_t *turn)
{
    ngx_uint_t              calls;
    ngx_http_llm_line_t    *line;
    ngx_http_llm_ticket_t  *ticket;
    ngx_http_llm_seats_t    seats;

    line = turn->conf->line;
    ticket = turn->ticket;

    ngx_http_llm_balancer_seats(turn->conf->upstream, &seats);

    if (ticket->state == NGX_HTTP_LLM_TICKET_CALLED) {

        if (line->called <= seats.free) {
            return 0;
        }

        ngx_http_llm_line_defer_locked(ticket);
    }

    calls = ngx_http_llm_line_call_locked(line, seats.free,
                                          ngx_current_msec);

    if (ticket->state == NGX_HTTP_LLM_TICKET_WAITING
        && turn->wait_ms >= turn->conf->timeout_ms)
    {
        ngx_http_llm_line_leave_locked(ticket, NULL);

        turn->ticket = NULL;
        turn->retry_ms = ngx_http_llm_line_drained_ms_locked(line);
    }

    return calls;
}


/* an error_page may yet send it to another upstream: so it has failed */

static ngx_int_t
ngx_http_llm_turn_reject(ngx_http_llm_turn_t *turn, ngx_http_llm_end_e end)
{
    ngx_int_t            rc;
    ngx_uint_t           full;
    ngx_http_llm_ctx_t  *ctx;

    ctx = turn->ctx;
    full = (end == NGX_HTTP_LLM_END_QUEUE_FULL);

    turn->retry_ms = ngx_max(turn->retry_ms, NGX_HTTP_LLM_TURN_RETRY_MIN_MS);
    turn->retry_ms = ngx_min(turn->retry_ms, NGX_HTTP_LLM_TURN_RETRY_MAX_MS);
    turn->rejected = 1;

    ngx_log_error(NGX_LOG_ERR, turn->request->connection->log, 0,
                  "llm queue: %s, upstream \"%V\", waited %Mms, "
                  "retry after %Mms", full ? "full" : "timed out",
                  &turn->conf->upstream->host, turn->wait_ms, turn->retry_ms);

    rc = ngx_http_llm_reject(turn->request, ctx, NGX_LLM_ERR_OVERLOADED,
                             NGX_HTTP_SERVICE_UNAVAILABLE,
                             full ? "The model servers are busy and the queue "
                                    "is full. Please try again later."
                                  : "The model servers are busy. Please try "
                                    "again later.");

    ctx->end = end;
    ctx->failed = 1;

    return rc;
}


ngx_int_t
ngx_http_llm_turn_add_headers(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    if (ctx->turn == NULL
        || !ctx->turn->rejected
        || r->headers_out.status != NGX_HTTP_SERVICE_UNAVAILABLE)
    {
        return NGX_OK;
    }

    return ngx_http_llm_error_retry(r, ctx->turn->retry_ms);
}
