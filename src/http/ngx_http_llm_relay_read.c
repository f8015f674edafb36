
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_clock.h"
#include "ngx_http_llm_exchange.h"
#include "ngx_http_llm_relay.h"


static unsigned ngx_http_llm_relay_read(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, const u_char *event, size_t len);
static ngx_llm_scratch_t *ngx_http_llm_relay_scratch(void);
static void ngx_http_llm_relay_names(ngx_http_request_t *r,
    ngx_http_llm_relay_t *relay, const ngx_llm_names_t *names);
static void ngx_http_llm_relay_name(ngx_http_request_t *r, u_char **kept,
    size_t size, const u_char *name, size_t len);


/*
 * An event that cannot be read, or a part of one that is too large: it is
 * content, and all of its bytes bound what that comes to, unless usage still
 * tells.
 */

void
ngx_http_llm_relay_unread(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    const u_char *p, size_t len)
{
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    relay->answer.seen |= NGX_LLM_EV_UNREAD;
    relay->unread_events = relay->answer.events;

    ngx_llm_text_add(&relay->answer.content, p, len);

    ngx_http_llm_clock_content(r, ctx);
}


ngx_uint_t
ngx_http_llm_relay_event(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    const u_char *event, size_t len)
{
    unsigned  bits;

    bits = ngx_http_llm_relay_read(r, ctx, event, len);

    if ((bits & (NGX_LLM_EV_UNREAD|NGX_LLM_EV_ERROR)) == NGX_LLM_EV_UNREAD) {
        ngx_http_llm_relay_unread(r, ctx, event, len);
    }

    return ctx->strip_usage && (bits & NGX_LLM_EV_ONLY_USAGE);
}


static unsigned
ngx_http_llm_relay_read(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    const u_char *event, size_t len)
{
    unsigned               bits;
    ngx_llm_scratch_t     *scratch;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;
    scratch = ngx_http_llm_relay_scratch();

    bits = ngx_llm_answer_event(&relay->answer, event, len, scratch);

    ngx_http_llm_relay_names(r, relay, scratch->names);

    /* of an API that is not known any data is content */

    if ((bits & NGX_LLM_EV_CONTENT)
        || (relay->answer.api == NULL && (bits & NGX_LLM_EV_DATA)))
    {
        ngx_http_llm_clock_content(r, ctx);
    }

    if (bits & NGX_LLM_EV_ERROR) {

        /* passed on, and the end: upstream may well stay silent now */

        relay->cut = 1;
        ngx_http_llm_exchange_stop(r);

    } else if (bits & NGX_LLM_EV_END) {
        ngx_http_llm_clock_linger(r, ctx);

    } else if (ngx_http_llm_overrun_is_due(&relay->overrun, bits, len)) {
        ngx_http_llm_relay_spend(r, ctx, bits);
    }

    return bits;
}


/* tokens that nobody reserved, or that come too fast */

void
ngx_http_llm_relay_spend(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    unsigned bits)
{
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    switch (ngx_http_llm_overrun_look(r, ctx, bits)) {

    case NGX_HTTP_LLM_OVERRUN_GO_ON:
        break;

    case NGX_HTTP_LLM_OVERRUN_STOP:
        relay->cut = 1;
        ngx_http_llm_exchange_stop(r);
        return;
    }

    if (relay->pace) {
        ngx_http_llm_pace_look(r, ctx, bits);
    }
}


void
ngx_http_llm_relay_finish(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    size_t                 len;
    unsigned               bits;
    ngx_buf_t             *held;
    ngx_llm_scratch_t     *scratch;
    ngx_http_llm_relay_t  *relay;

    relay = ctx->relay;

    if (relay == NULL || relay->blind || relay->held == NULL) {
        return;
    }

    held = relay->held;
    len = held->last - held->pos;

    if (!relay->stream) {
        scratch = ngx_http_llm_relay_scratch();

        bits = ngx_llm_answer_body(&relay->answer, held->pos, len, scratch);

        ngx_http_llm_relay_names(r, relay, scratch->names);

        /* a part of an answer: all of its bytes bound what it says */

        if ((bits & NGX_LLM_EV_UNREAD) && !ngx_llm_api_prompt_only(ctx->api)) {
            ngx_llm_text_add(&relay->answer.content, held->pos, len);
        }

    } else if (ngx_http_llm_relay_is_incomplete(ctx->relay)) {

        /*
         * some servers end without the blank line; what cannot be read is
         * half of an event
         */

        (void) ngx_http_llm_relay_read(r, ctx, held->pos, len);
    }
}


/* where the names are those of what is read next */

static ngx_llm_scratch_t *
ngx_http_llm_relay_scratch(void)
{
    ngx_llm_scratch_t  *scratch;

    scratch = ngx_http_llm_scratch();

    scratch->names->model_len = 0;
    scratch->names->finish_len = 0;

    return scratch;
}


static void
ngx_http_llm_relay_names(ngx_http_request_t *r, ngx_http_llm_relay_t *relay,
    const ngx_llm_names_t *names)
{
    /* the first model stays: an event that fits a shape is not asked */

    if (names->model_len && relay->served_model == NULL) {
        ngx_http_llm_relay_name(r, &relay->served_model, names->model_len,
                                names->model, names->model_len);
    }

    /* the last finish does, and each event may say one */

    if (names->finish_len) {
        ngx_http_llm_relay_name(r, &relay->finish, NGX_LLM_MAX_FINISH,
                                names->finish, names->finish_len);
    }
}


static void
ngx_http_llm_relay_name(ngx_http_request_t *r, u_char **kept, size_t size,
    const u_char *name, size_t len)
{
    if (*kept == NULL) {
        *kept = ngx_pnalloc(r->pool, 1 + size);
        if (*kept == NULL) {
            return;
        }
    }

    **kept = (u_char) len;
    ngx_memcpy(*kept + 1, name, len);
}


void
ngx_http_llm_relay_drop(ngx_http_llm_ctx_t *ctx)
{
    if (ctx->relay) {
        ngx_llm_answer_done(&ctx->relay->answer);
        ctx->relay = NULL;
    }
}
