
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The facts of an answer, event by event or as one JSON body: usage, content,
 * finish, error and end.
 */


#ifndef _NGX_LLM_ANSWER_H_INCLUDED_
#define _NGX_LLM_ANSWER_H_INCLUDED_


#include "ngx_llm_dialect.h"
#include "ngx_llm_shape.h"
#include "ngx_llm_twin.h"


/*
 * Counts as upstream reports them, -1 where it did not: missing is not zero.
 * Prompt tokens are all input tokens (cached ones included), completion
 * tokens include reasoning, in every dialect.  A later report replaces an
 * earlier one, field by field.  Anything that is no count (negative, a
 * fraction, a string, absurd) is ignored as if missing.
 */

typedef struct {
    int64_t               prompt;
    int64_t               cached;
    int64_t               completion;
    int64_t               reasoning;
} ngx_llm_usage_t;


/* what one event did; a bit set */

#define NGX_LLM_EV_DATA       0x0001  /* it carries data: it is counted */
#define NGX_LLM_EV_CONTENT    0x0002  /* text, reasoning, tool arguments.. */
#define NGX_LLM_EV_USAGE      0x0004  /* it reports usage */
#define NGX_LLM_EV_ONLY_USAGE 0x0008  /* the extra event of include_usage: a
                                         usage object, empty choices */
#define NGX_LLM_EV_FINISH     0x0010  /* a finish reason */
#define NGX_LLM_EV_FILTER     0x0020  /* .. that is a content filter's */
#define NGX_LLM_EV_ERROR      0x0040  /* an in-band error */
#define NGX_LLM_EV_END        0x0080  /* the terminal marker */
#define NGX_LLM_EV_UNREAD     0x0100  /* over the cap or no JSON: not read */


/* the counts as upstream names them, in the order of NGX_LLM_ANS_PROMPT.. */
#define NGX_LLM_ANSWER_COUNTS  6


/*
 * The names that an answer says.  Most events say none but the model's, again
 * and again: so they are apart from what is kept for each stream.  Whoever
 * wants those of one event zeroes the lengths before it.
 */

struct ngx_llm_names_s {
    /* in bytes; 0: was not said */
    uint16_t              model_len;
    uint16_t              finish_len;
    uint16_t              error_len;

    /* the first one that was said */
    unsigned char         model[NGX_LLM_MAX_MODEL];
    unsigned char         finish[NGX_LLM_MAX_FINISH];

    /* the error's type or code */
    unsigned char         error[NGX_LLM_MAX_ERROR];
};


/*
 * Zero-initialised by the caller, then ngx_llm_answer_init(), and at its end
 * ngx_llm_answer_done().  Small, as there is one for each stream.
 */

typedef struct {
    /* NULL: told from the content when it comes */
    const ngx_llm_api_t  *api;

    /* sizes of the content so far: what an estimate is made of */
    ngx_llm_text_t        content;

    /* what usage is made of; -1 where nothing was reported */
    int32_t               counts[NGX_LLM_ANSWER_COUNTS];

    /* events with data, and those of them with content */
    uint32_t              events;
    uint32_t              content_events;

    /* all NGX_LLM_EV_* bits seen so far */
    uint16_t              seen;

    /*
     * an error's own HTTP status as it states or its type implies, or 0;
     * upstream's own, 529 included
     */
    uint16_t              error_status;

    /* of the last event with content and nothing else; NULL: none */
    ngx_llm_shape_t      *shape;

    /* of the last event that fitted it */
    ngx_llm_twin_t        twin;
} ngx_llm_answer_t;


void ngx_llm_answer_init(ngx_llm_answer_t *answer, const ngx_llm_api_t *api);

/* what it has in common with others is given back; may be called again */

void ngx_llm_answer_done(ngx_llm_answer_t *answer);

/* what was reported so far */

ngx_llm_usage_t ngx_llm_answer_usage(const ngx_llm_answer_t *answer);

/*
 * Reads one whole event (as ngx_llm_frame_next() delimited it) and returns
 * its NGX_LLM_EV_* bits; 0 for one without data.  scratch is used for joined
 * data lines and by the parser, and gets the names; an event that is no valid
 * JSON or too large is NGX_LLM_EV_UNREAD: it is counted and passes.
 */

unsigned ngx_llm_answer_event(ngx_llm_answer_t *answer,
    const unsigned char *event, size_t len, ngx_llm_scratch_t *scratch);

/*
 * The short way for what a stream mostly consists of.  Where the frame stands
 * between two events and p[0..len) starts with one that differs from an
 * earlier one in nothing but its text: does what ngx_llm_frame_next() and
 * ngx_llm_answer_event() would do, which is NGX_LLM_EV_DATA and
 * NGX_LLM_EV_CONTENT, and returns its length.  Otherwise 0: nothing was done.
 * All events of the answer have to come from this frame.
 */

static inline size_t ngx_llm_answer_next(ngx_llm_answer_t *answer,
    const ngx_llm_frame_t *frame, const unsigned char *p, size_t len);

/* its part for a frame that stands between two events */

size_t ngx_llm_answer_alike(ngx_llm_answer_t *answer,
    const unsigned char *p, size_t len);

/*
 * As ngx_llm_answer_event() for a whole answer that is not streamed, or for
 * an error's body: NGX_LLM_EV_END says that it was read, and no events are
 * counted.
 */

unsigned ngx_llm_answer_body(ngx_llm_answer_t *answer,
    const unsigned char *body, size_t len, ngx_llm_scratch_t *scratch);


static inline size_t
ngx_llm_answer_next(ngx_llm_answer_t *answer, const ngx_llm_frame_t *frame,
    const unsigned char *p, size_t len)
{
    if (frame->event_bytes != 0 || frame->cr) {
        return 0;
    }

    return ngx_llm_answer_alike(answer, p, len);
}


#endif /* _NGX_LLM_ANSWER_H_INCLUDED_ */
