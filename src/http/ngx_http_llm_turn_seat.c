
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_bell.h"


static void ngx_http_llm_turn_cleanup(void *data);
static void ngx_http_llm_turn_leave(ngx_http_llm_turn_t *turn);
static ngx_uint_t ngx_http_llm_turn_call_locked(
    ngx_http_llm_turn_conf_t *conf);


/* the cleanup comes before what it gives back is taken */

ngx_http_llm_turn_t *
ngx_http_llm_turn_create(ngx_http_request_t *r,
    ngx_http_llm_turn_conf_t *conf)
{
    ngx_pool_cleanup_t   *cln;
    ngx_http_llm_turn_t  *turn;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_llm_turn_t));
    if (cln == NULL) {
        return NULL;
    }

    turn = cln->data;
    ngx_memzero(turn, sizeof(ngx_http_llm_turn_t));

    turn->conf = conf;
    turn->request = r;

    cln->handler = ngx_http_llm_turn_cleanup;

    return turn;
}


static void
ngx_http_llm_turn_cleanup(void *data)
{
    ngx_http_llm_turn_t  *turn = data;

    if (turn->ticket) {
        ngx_http_llm_turn_leave(turn);
    }
}


void
ngx_http_llm_turn_end(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_turn_t  *turn;

    turn = ctx->turn;

    /* of a request in flight it ends with that */

    if (turn
        && turn->ticket
        && turn->ticket->state != NGX_HTTP_LLM_TICKET_SEATED)
    {
        ngx_http_llm_turn_leave(turn);
    }
}


/*
 * What it came to is known, if at all, when the exchange has ended; who is at
 * no server had nothing.
 */

static void
ngx_http_llm_turn_leave(ngx_http_llm_turn_t *turn)
{
    ngx_uint_t                  calls, seated;
    const ngx_llm_usage_t      *bill;
    ngx_http_llm_line_usage_t   usage, *known;

    known = NULL;
    seated = (turn->ticket->state == NGX_HTTP_LLM_TICKET_SEATED);

    if (!seated) {
        usage.prompt = -1;
        usage.completion = -1;
        known = &usage;

    } else if (turn->ctx && (turn->ctx->closed || turn->ctx->failed)) {
        bill = &turn->ctx->bill->usage;

        usage.prompt = bill->prompt;
        usage.completion = bill->completion;
        known = &usage;
    }

    ngx_http_llm_line_lock(turn->conf->zone);

    ngx_http_llm_line_leave_locked(turn->ticket, known);
    calls = ngx_http_llm_turn_call_locked(turn->conf);

    ngx_http_llm_line_unlock(turn->conf->zone);

    turn->ticket = NULL;

    if (calls) {
        ngx_http_llm_bell_ring();
    }
}


ngx_int_t
ngx_http_llm_turn_find(ngx_http_request_t *r, ngx_http_llm_turn_conf_t *conf,
    ngx_http_llm_turn_t **turn)
{
    ngx_http_llm_ctx_t  *ctx;

    *turn = NULL;

    if (conf->line == NULL) {
        return NGX_OK;
    }

    ctx = (r == r->main) ? ngx_http_llm_find_ctx(r) : NULL;

    *turn = (ctx && ctx->turn && ctx->turn->conf == conf)
            ? ctx->turn : ngx_http_llm_turn_create(r, conf);

    return *turn ? NGX_OK : NGX_ERROR;
}


/* one that cannot wait has its seat at once, or not at all */

ngx_int_t
ngx_http_llm_turn_take(ngx_http_llm_turn_t *turn)
{
    ngx_uint_t                 calls;
    ngx_http_llm_line_t       *line;
    ngx_http_llm_seats_t       seats;
    ngx_http_llm_line_want_t   want;

    if (turn->ticket) {
        return NGX_OK;
    }

    line = turn->conf->line;
    calls = 0;

    ngx_memzero(&want, sizeof(ngx_http_llm_line_want_t));

    ngx_http_llm_line_lock(turn->conf->zone);

    ngx_http_llm_balancer_seats(turn->conf->upstream, &seats);

    if (!seats.limited && line->waiting == 0) {
        ngx_http_llm_line_unlock(turn->conf->zone);
        return NGX_OK;
    }

    turn->ticket = ngx_http_llm_line_join_locked(line, &want);

    if (turn->ticket) {
        calls = ngx_http_llm_line_call_locked(line, seats.free,
                                              ngx_current_msec);

        if (turn->ticket->state == NGX_HTTP_LLM_TICKET_CALLED) {
            calls--;

        } else {
            ngx_http_llm_line_leave_locked(turn->ticket, NULL);
            turn->ticket = NULL;
        }
    }

    ngx_http_llm_line_unlock(turn->conf->zone);

    if (calls) {
        ngx_http_llm_bell_ring();
    }

    return turn->ticket ? NGX_OK : NGX_BUSY;
}


/*
 * Who looked when both the request in flight and its reserved seat counted
 * saw one seat too few: those who wait are called again.
 */

void
ngx_http_llm_turn_seat(ngx_http_llm_turn_t *turn)
{
    ngx_uint_t  calls;

    if (turn->ticket == NULL) {
        return;
    }

    ngx_http_llm_line_lock(turn->conf->zone);

    ngx_http_llm_line_seat_locked(turn->ticket);
    calls = ngx_http_llm_turn_call_locked(turn->conf);

    ngx_http_llm_line_unlock(turn->conf->zone);

    if (calls) {
        ngx_http_llm_bell_ring();
    }
}


void
ngx_http_llm_turn_rise(ngx_http_llm_turn_t *turn, ngx_uint_t again)
{
    /* only an exchange of ours tells when there is no next server */

    if (turn->ticket == NULL || turn->ctx == NULL || !again) {
        return;
    }

    ngx_http_llm_line_lock(turn->conf->zone);

    ngx_http_llm_line_rise_locked(turn->ticket);

    ngx_http_llm_line_unlock(turn->conf->zone);
}


void
ngx_http_llm_turn_free(ngx_http_llm_turn_t *turn)
{
    if (turn->ticket
        && turn->ticket->state == NGX_HTTP_LLM_TICKET_SEATED)
    {
        ngx_http_llm_turn_leave(turn);
        return;
    }

    ngx_http_llm_turn_call(turn->conf);
}


void
ngx_http_llm_turn_call(ngx_http_llm_turn_conf_t *conf)
{
    ngx_uint_t  calls;

    if (conf->line == NULL || conf->line->waiting == 0) {
        return;
    }

    ngx_http_llm_line_lock(conf->zone);

    calls = ngx_http_llm_turn_call_locked(conf);

    ngx_http_llm_line_unlock(conf->zone);

    if (calls) {
        ngx_http_llm_bell_ring();
    }
}


static ngx_uint_t
ngx_http_llm_turn_call_locked(ngx_http_llm_turn_conf_t *conf)
{
    ngx_http_llm_seats_t  seats;

    if (conf->line->waiting == 0) {
        return 0;
    }

    ngx_http_llm_balancer_seats(conf->upstream, &seats);

    return ngx_http_llm_line_call_locked(conf->line, seats.free,
                                         ngx_current_msec);
}
