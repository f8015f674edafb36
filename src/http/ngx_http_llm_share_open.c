
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Of the part of a charge that Redis keeps what follows its being taken: it
 * is open, it may be raised, and it is ended.
 */


#include "ngx_http_llm_charge.h"
#include "ngx_http_llm_relay.h"


static void ngx_http_llm_share_raised(void *data,
    const ngx_http_llm_redis_answer_t *answer);


/* open shares of this worker, which it ends when it leaves its requests */

static ngx_queue_t  ngx_http_llm_shares = {
    &ngx_http_llm_shares, &ngx_http_llm_shares
};


void
ngx_http_llm_share_open(ngx_http_llm_share_t *share)
{
    share->open = 1;
    ngx_queue_insert_tail(&ngx_http_llm_shares, &share->queue);
}


ngx_uint_t
ngx_http_llm_share_raise(ngx_http_llm_share_t *share,
    const ngx_http_llm_raise_t *raise, int64_t *held)
{
    share->held = held;

    share->raise = ngx_http_llm_redis_raise(&share->charge, raise->need,
                                            raise->least, raise->most,
                                            ngx_http_llm_share_raised, share);
    return share->raise != NULL;
}


/* what is lost on its way is made up for when the charge is settled */

static void
ngx_http_llm_share_raised(void *data,
    const ngx_http_llm_redis_answer_t *answer)
{
    ngx_http_llm_share_t *share = data;

    int64_t  delay_ns;

    share->raise = NULL;

    delay_ns = 0;

    if (answer->status == NGX_HTTP_LLM_REDIS_TAKEN) {
        *share->held += answer->granted[NGX_HTTP_LLM_TOKENS];
        share->empty = (answer->granted[NGX_HTTP_LLM_TOKENS] == 0);

        delay_ns = answer->delay_ns[NGX_HTTP_LLM_TOKENS];
    }

    /* a stream that is cut when nothing is left waits for no refill */

    ngx_http_llm_pause_end(share->ctx,
                           share->paced ? ngx_http_llm_limit_ms(delay_ns) : 0);
}


void
ngx_http_llm_share_end(ngx_http_llm_share_t *share, const int64_t *costs)
{
    if (share->call) {
        ngx_http_llm_redis_forget(share->call);
        share->call = NULL;
    }

    if (share->raise) {
        ngx_http_llm_redis_forget(share->raise);
        share->raise = NULL;
    }

    if (!share->open) {
        return;
    }

    share->open = 0;
    ngx_queue_remove(&share->queue);

    if (costs) {
        ngx_http_llm_redis_settle(&share->charge, costs);
    }
}


void
ngx_http_llm_share_end_all(void)
{
    ngx_queue_t           *q;
    ngx_http_llm_share_t  *share;

    static const int64_t  nothing[NGX_HTTP_LLM_BUDGETS];

    while (!ngx_queue_empty(&ngx_http_llm_shares)) {
        q = ngx_queue_head(&ngx_http_llm_shares);
        share = ngx_queue_data(q, ngx_http_llm_share_t, queue);

        ngx_http_llm_share_end(share, nothing);
    }
}
