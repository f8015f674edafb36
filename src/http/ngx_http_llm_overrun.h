
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * A stream that spends more than was reserved for it: further tokens are
 * taken in steps as they pass, and llm_limit's overrun says what happens
 * when there are none.
 *
 * finish: what passed is taken afterwards, 64 tokens at a time, into debt.
 * cut, pace: tokens are taken ahead of their use, an eighth of what the
 * bucket has left but 64 at most, and no more than the request's maximum lets
 * come, so that what streams have used together is never more than what was
 * taken but for one event of each.  A bucket that is empty then ends the
 * stream (cut); or tokens are taken into debt, those of a tenth of a second,
 * and the stream pauses until it is paid (pace): who comes first is served
 * first, and nobody polls.
 */


#ifndef _NGX_HTTP_LLM_OVERRUN_H_INCLUDED_
#define _NGX_HTTP_LLM_OVERRUN_H_INCLUDED_


#include "ngx_http_llm.h"


typedef enum {
    NGX_HTTP_LLM_OVERRUN_GO_ON = 0,

    /* the event that was looked at is the last one; ctx->end is set */
    NGX_HTTP_LLM_OVERRUN_STOP
} ngx_http_llm_overrun_rc_e;


typedef struct {
    /*
     * bytes of events that are sure not to use up what is held; below 0: it
     * is time to look.  All that is done for most events is to count it down.
     */
    int64_t                     quiet_bytes;

    /*
     * of content, and one for each event: behind so many more than what is
     * held may be used up
     */
    uint64_t                    look_bytes;

    ngx_llm_ratio_t             ratio;

    unsigned                    started:1;

    /* the log says so */
    unsigned                    paced:1;
} ngx_http_llm_overrun_t;


/* true when an event of so many bytes, that did bits, is to be looked at */

#define ngx_http_llm_overrun_is_due(overrun, bits, len)                       \
    (((overrun)->quiet_bytes -= (int64_t) (len)) < 0                          \
     || ((bits) & NGX_LLM_EV_USAGE))

/*
 * An event has been read, and will pass, unless relay->paused is set now.
 * Only an event with content pauses or ends a stream, as long as it does not
 * bring the finish itself: what is complete is not cut for its last usage.
 */

ngx_http_llm_overrun_rc_e ngx_http_llm_overrun_look(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, unsigned bits);

/*
 * overrun=pace: the stream pauses until its tokens are there.  The first time
 * the log says so, and from then on, as long as its request lives, it is among
 * those that the bell moves up.
 */

void ngx_http_llm_overrun_paced(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);

/* the bell: tokens came back, and streams that pause may go on earlier */

void ngx_http_llm_overrun_init_process(void);
void ngx_http_llm_overrun_hear(void);


#endif /* _NGX_HTTP_LLM_OVERRUN_H_INCLUDED_ */
