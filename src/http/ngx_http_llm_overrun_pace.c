
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * overrun=pace: who pauses until its tokens are there.  Each pause has its
 * own time; tokens that come back before it make it shorter.
 */


#include "ngx_http_llm_charge.h"
#include "ngx_http_llm_relay.h"


/* a stream that has paused, as long as its request lives */

typedef struct {
    ngx_queue_t                 queue;
    ngx_http_llm_ctx_t         *ctx;
} ngx_http_llm_overrun_paced_t;


static void ngx_http_llm_overrun_cleanup(void *data);
static void ngx_http_llm_overrun_move(ngx_http_llm_ctx_t *ctx);


static ngx_queue_t  ngx_http_llm_overrun_queue;


void
ngx_http_llm_overrun_init_process(void)
{
    ngx_queue_init(&ngx_http_llm_overrun_queue);
}


void
ngx_http_llm_overrun_paced(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t                     level;
    ngx_pool_cleanup_t            *cln;
    ngx_http_llm_overrun_t        *overrun;
    ngx_http_llm_loc_conf_t       *llcf;
    ngx_http_llm_overrun_paced_t  *paced;

    overrun = &ctx->relay->overrun;

    if (overrun->paced) {
        return;
    }

    overrun->paced = 1;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_llm_overrun_paced_t));

    /* without it its own time wakes it */

    if (cln) {
        paced = cln->data;
        paced->ctx = ctx;

        ngx_queue_insert_tail(&ngx_http_llm_overrun_queue, &paced->queue);

        cln->handler = ngx_http_llm_overrun_cleanup;
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);

    /* one level lower than a rejection, and info as the last one */

    level = ngx_min(llcf->limit.log_level + 1, NGX_LOG_INFO);

    ngx_log_error(level, r->connection->log, 0,
                  "llm limit: answer paced, reserved %L",
                  ctx->charge->reserved);
}


/* the request ends: nobody moves it up any more */

static void
ngx_http_llm_overrun_cleanup(void *data)
{
    ngx_http_llm_overrun_paced_t  *paced = data;

    ngx_queue_remove(&paced->queue);
}


void
ngx_http_llm_overrun_hear(void)
{
    ngx_queue_t                   *q;
    ngx_http_llm_overrun_paced_t  *paced;

    for (q = ngx_queue_head(&ngx_http_llm_overrun_queue);
         q != ngx_queue_sentinel(&ngx_http_llm_overrun_queue);
         q = ngx_queue_next(q))
    {
        paced = ngx_queue_data(q, ngx_http_llm_overrun_paced_t, queue);

        if (paced->ctx->charge->open
            && paced->ctx->relay->pause
            && paced->ctx->relay->pause->timer_set)
        {
            ngx_http_llm_overrun_move(paced->ctx);
        }
    }
}


/* never later than it was: all zones have to let it go, and llm_pace */

static void
ngx_http_llm_overrun_move(ngx_http_llm_ctx_t *ctx)
{
    int64_t                 now_ns, ready_ns;
    ngx_uint_t              i, moved;
    ngx_msec_t              left_ms;
    ngx_event_t            *ev;
    ngx_http_llm_part_t    *part;
    ngx_http_llm_charge_t  *charge;

    charge = ctx->charge;
    ev = ctx->relay->pause;

    now_ns = ngx_http_llm_zone_now();
    ready_ns = ctx->relay->pace ? ctx->relay->pace->due_ns : 0;
    moved = 0;

    for (i = 0; i < charge->nparts; i++) {
        part = &charge->parts[i];

        /* it pauses for Redis, or has done */

        if (part->share) {
            return;
        }

        if (part->overrun != NGX_HTTP_LLM_OVERRUN_PACE) {
            continue;
        }

        if (part->ready_ns
            && ngx_http_llm_zone_refunded(&part->zone->zone, part->hold,
                                          &part->raise, now_ns))
        {
            part->ready_ns = now_ns + part->raise.delay_ns;
            moved = 1;
        }

        ready_ns = ngx_max(ready_ns, part->ready_ns);
    }

    if (!moved) {
        return;
    }

    left_ms = (ready_ns > now_ns) ? ngx_http_llm_limit_ms(ready_ns - now_ns)
                                  : 0;

    if (left_ms > NGX_MAX_INT32_VALUE
        || (ngx_msec_int_t) (ngx_current_msec + left_ms - ev->timer.key) >= 0)
    {
        return;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, ctx->request->connection->log, 0,
                   "llm limit: answer goes on earlier, in %Mms", left_ms);

    ngx_del_timer(ev);
    ngx_add_timer(ev, left_ms);
}
