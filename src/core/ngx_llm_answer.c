
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stdlib.h>
#include <string.h>

#include "ngx_llm_facts.h"


static size_t ngx_llm_answer_fits(ngx_llm_answer_t *answer,
    const unsigned char *p, size_t len) __attribute__((noinline));
static unsigned ngx_llm_answer_read(ngx_llm_answer_t *answer,
    const unsigned char *event, size_t len, ngx_llm_scratch_t *scratch);
static unsigned ngx_llm_answer_data(ngx_llm_answer_t *answer,
    const unsigned char *event, size_t len, const ngx_llm_event_t *ev,
    ngx_llm_scratch_t *scratch);
static ngx_llm_rc_e ngx_llm_answer_parse(ngx_llm_answer_t *answer,
    ngx_llm_facts_t *facts, ngx_llm_str_t doc, ngx_llm_scratch_t *scratch);
static void ngx_llm_answer_apply(ngx_llm_answer_t *answer,
    ngx_llm_facts_t *facts);
static void ngx_llm_answer_names(ngx_llm_names_t *names,
    const ngx_llm_facts_t *facts);
static size_t ngx_llm_answer_copy(unsigned char *to, size_t size,
    const ngx_llm_facts_word_t *word);
static int64_t ngx_llm_answer_sum(int64_t a, int64_t b);
static void ngx_llm_answer_error(ngx_llm_answer_t *answer,
    const ngx_llm_facts_t *facts, ngx_llm_names_t *names);


void
ngx_llm_answer_init(ngx_llm_answer_t *answer, const ngx_llm_api_t *api)
{
    size_t  i;

    memset(answer, 0, sizeof(ngx_llm_answer_t));

    answer->api = api;

    for (i = 0; i < NGX_LLM_ANSWER_COUNTS; i++) {
        answer->counts[i] = -1;
    }
}


void
ngx_llm_answer_done(ngx_llm_answer_t *answer)
{
    ngx_llm_shape_leave(&answer->shape);
    ngx_llm_twin_leave(&answer->twin);
}


unsigned
ngx_llm_answer_event(ngx_llm_answer_t *answer, const unsigned char *event,
    size_t len, ngx_llm_scratch_t *scratch)
{
    unsigned       bits;
    ngx_llm_str_t  only;

    if (len > NGX_LLM_MAX_EVENT_BYTES) {
        bits = NGX_LLM_EV_DATA|NGX_LLM_EV_UNREAD;

    } else if (ngx_llm_shape_fits(answer->shape, event, len, 1,
                                  &answer->content, &only))
    {
        bits = NGX_LLM_EV_DATA|NGX_LLM_EV_CONTENT;

    } else {
        bits = ngx_llm_answer_read(answer, event, len, scratch);
    }

    answer->events += (bits & NGX_LLM_EV_DATA) != 0;
    answer->content_events += (bits & NGX_LLM_EV_CONTENT) != 0;
    answer->seen |= bits;

    return bits;
}


size_t
ngx_llm_answer_alike(ngx_llm_answer_t *answer, const unsigned char *p,
    size_t len)
{
    size_t  n;

    n = ngx_llm_twin_fits(&answer->twin, p, len, &answer->content);

    if (n == 0) {
        n = ngx_llm_answer_fits(answer, p, len);

        if (n == 0) {
            return 0;
        }
    }

    answer->events++;
    answer->content_events++;
    answer->seen |= NGX_LLM_EV_DATA|NGX_LLM_EV_CONTENT;

    return n;
}


/* not inline, so that an event that has a twin needs no room for this */

static size_t
ngx_llm_answer_fits(ngx_llm_answer_t *answer, const unsigned char *p,
    size_t len)
{
    size_t         n;
    ngx_llm_str_t  only;

    /* where an event ends with CR, an LF may or may not belong to it */

    if (answer->shape == NULL || !answer->shape->ends_with_lf) {
        return 0;
    }

    n = ngx_llm_shape_fits(answer->shape, p, len, 0, &answer->content, &only);

    if (n != 0 && only.len != 0) {
        ngx_llm_twin_learn(&answer->twin, p, n, &only, answer->events);
    }

    return n;
}


unsigned
ngx_llm_answer_body(ngx_llm_answer_t *answer, const unsigned char *body,
    size_t len, ngx_llm_scratch_t *scratch)
{
    unsigned         bits;
    ngx_llm_str_t    doc;
    ngx_llm_facts_t  facts;

    doc.data = body;
    doc.len = len;
    facts.bits = NGX_LLM_EV_DATA|NGX_LLM_EV_END;

    if (len > NGX_LLM_MAX_ANSWER_BYTES
        || ngx_llm_answer_parse(answer, &facts, doc, scratch) != NGX_LLM_OK)
    {
        bits = NGX_LLM_EV_DATA|NGX_LLM_EV_UNREAD;

    } else {
        bits = facts.bits;
    }

    answer->seen |= bits;

    return bits;
}


static unsigned
ngx_llm_answer_read(ngx_llm_answer_t *answer, const unsigned char *event,
    size_t len, ngx_llm_scratch_t *scratch)
{
    unsigned            bits;
    unsigned char      *join;
    ngx_llm_event_t     ev;
    ngx_llm_framing_e   framing;
    ngx_llm_scratch_t   rest;

    framing = ngx_llm_api_framing(answer->api);

    /* no field's name starts with a brace */

    if (answer->api == NULL && len != 0 && event[0] == '{') {
        framing = NGX_LLM_FRAME_LINES;
    }

    if (ngx_llm_frame_event(framing, event, len, NULL, 0, &ev) == NGX_LLM_OK) {
        return ngx_llm_answer_data(answer, event, len, &ev, scratch);
    }

    /* several data lines: joined in front of what the parser may use */

    rest = *scratch;
    join = NULL;

    if (scratch->size_bytes >= len) {
        rest.data += len;
        rest.size_bytes -= len;

    } else {
        join = malloc(len);
        if (join == NULL) {
            return NGX_LLM_EV_DATA|NGX_LLM_EV_UNREAD;
        }
    }

    (void) ngx_llm_frame_event(framing, event, len,
                               join ? join : scratch->data, len, &ev);

    bits = ngx_llm_answer_data(answer, NULL, len, &ev, &rest);

    free(join);

    return bits;
}


/* event is NULL where the data is no slice of it */

static unsigned
ngx_llm_answer_data(ngx_llm_answer_t *answer, const unsigned char *event,
    size_t len, const ngx_llm_event_t *ev, ngx_llm_scratch_t *scratch)
{
    size_t           i, offset;
    ngx_llm_facts_t  facts;

    if (ev->data.len == 0) {
        return 0;
    }

    if (ngx_llm_word_is("[DONE]", ev->data)) {
        return NGX_LLM_EV_DATA|NGX_LLM_EV_END;
    }

    facts.bits = NGX_LLM_EV_DATA;

    if (ngx_llm_word_is("error", ev->name)) {
        facts.bits |= NGX_LLM_EV_ERROR;
    }

    if (ngx_llm_answer_parse(answer, &facts, ev->data, scratch)
        != NGX_LLM_OK)
    {
        if (ngx_llm_word_is("error", ev->name)) {
            ngx_llm_answer_error(answer, &facts, scratch->names);
            return NGX_LLM_EV_DATA|NGX_LLM_EV_UNREAD|NGX_LLM_EV_ERROR;
        }

        return NGX_LLM_EV_DATA|NGX_LLM_EV_UNREAD;
    }

    if (facts.bits == (NGX_LLM_EV_DATA|NGX_LLM_EV_CONTENT)
        && !facts.shapeless && answer->api != NULL && event != NULL
        && scratch->shapes != NULL)
    {
        offset = ev->data.data - event;

        for (i = 0; i < facts.nholes; i++) {
            facts.holes[i].start += offset;
            facts.holes[i].end += offset;
        }

        ngx_llm_shape_learn(&answer->shape, scratch->shapes, event,
                            facts.holes, facts.nholes, len);
    }

    return facts.bits;
}


static ngx_llm_rc_e
ngx_llm_answer_parse(ngx_llm_answer_t *answer, ngx_llm_facts_t *facts,
    ngx_llm_str_t doc, ngx_llm_scratch_t *scratch)
{
    ngx_llm_rc_e          rc;
    const ngx_llm_api_t  *api;

    if (answer->api == NULL) {
        answer->api = ngx_llm_api_by_content(doc, scratch);
    }

    api = answer->api ? answer->api : &ngx_llm_api_any;

    rc = ngx_llm_facts_read(facts, api, doc, scratch);

    if (rc != NGX_LLM_OK) {
        return rc;
    }

    ngx_llm_answer_apply(answer, facts);

    if (scratch->names != NULL) {
        ngx_llm_answer_names(scratch->names, facts);
    }

    if (facts->bits & NGX_LLM_EV_ERROR) {
        ngx_llm_answer_error(answer, facts, scratch->names);
    }

    return NGX_LLM_OK;
}


static void
ngx_llm_answer_apply(ngx_llm_answer_t *answer, ngx_llm_facts_t *facts)
{
    size_t                n;
    const ngx_llm_api_t  *api;

    api = facts->api;

    if (api->finish_at_end && !(facts->bits & NGX_LLM_EV_END)) {
        facts->bits &= ~NGX_LLM_EV_FINISH;
    }

    if (api->finish_is_end && (facts->bits & NGX_LLM_EV_FINISH)) {
        facts->bits |= NGX_LLM_EV_END;
    }

    if (facts->usage && facts->choices && !facts->choice
        && !(facts->bits & ~(NGX_LLM_EV_DATA|NGX_LLM_EV_USAGE)))
    {
        facts->bits |= NGX_LLM_EV_ONLY_USAGE;
    }

    if (facts->bits & NGX_LLM_EV_USAGE) {

        for (n = 0; n < NGX_LLM_ANSWER_COUNTS; n++) {

            if (facts->counts[n] >= 0) {
                answer->counts[n] = facts->counts[n];
            }
        }
    }

    if (facts->bits & NGX_LLM_EV_CONTENT) {
        ngx_llm_text_merge(&answer->content, &facts->content);
    }
}


static void
ngx_llm_answer_names(ngx_llm_names_t *names, const ngx_llm_facts_t *facts)
{
    /* the first model stays, so that a known shape changes nothing */

    if (names->model_len == 0) {
        names->model_len = ngx_llm_answer_copy(names->model,
                                               sizeof(names->model),
                                               &facts->model);
    }

    if ((facts->bits & NGX_LLM_EV_FINISH) && facts->finish.len != 0) {
        names->finish_len = ngx_llm_answer_copy(names->finish,
                                                sizeof(names->finish),
                                                &facts->finish);
    }
}


/* what does not fit is cut */

static size_t
ngx_llm_answer_copy(unsigned char *to, size_t size,
    const ngx_llm_facts_word_t *word)
{
    size_t  n;

    n = (word->len < size) ? word->len : size;

    memcpy(to, word->data, n);

    return n;
}


ngx_llm_usage_t
ngx_llm_answer_usage(const ngx_llm_answer_t *answer)
{
    int64_t               prompt, more, cached, completion, reasoning, total;
    ngx_llm_usage_t       usage;
    const ngx_llm_api_t  *api;

    api = answer->api ? answer->api : &ngx_llm_api_any;

    prompt = answer->counts[ngx_llm_facts_count(NGX_LLM_ANS_PROMPT)];
    more = answer->counts[ngx_llm_facts_count(NGX_LLM_ANS_PROMPT_MORE)];
    cached = answer->counts[ngx_llm_facts_count(NGX_LLM_ANS_CACHED)];
    completion = answer->counts[ngx_llm_facts_count(NGX_LLM_ANS_COMPLETION)];
    reasoning = answer->counts[ngx_llm_facts_count(NGX_LLM_ANS_REASONING)];
    total = answer->counts[ngx_llm_facts_count(NGX_LLM_ANS_TOTAL)];

    usage.cached = cached;
    usage.reasoning = reasoning;

    /*
     * Some of OpenAI's kind (xAI) keep reasoning apart, too: the total says
     * so, where all three are given.
     */

    if (api->reasoning_apart
        || (prompt >= 0 && completion >= 0 && reasoning > 0
            && total == prompt + completion + reasoning))
    {
        completion = ngx_llm_answer_sum(completion, reasoning);
    }

    prompt = ngx_llm_answer_sum(prompt, more);

    if (api->cached_apart) {
        prompt = ngx_llm_answer_sum(prompt, cached);
    }

    usage.prompt = prompt;
    usage.completion = completion;

    return usage;
}


/* of what was reported */

static int64_t
ngx_llm_answer_sum(int64_t a, int64_t b)
{
    if (a < 0) {
        return b;
    }

    return (b < 0) ? a : a + b;
}


static void
ngx_llm_answer_error(ngx_llm_answer_t *answer,
    const ngx_llm_facts_t *facts, ngx_llm_names_t *names)
{
    ngx_llm_str_t  code, type, word;

    static const ngx_llm_str_t  unnamed = ngx_llm_string("error");

    type.data = facts->error_type.data;
    type.len = facts->error_type.len;
    code.data = facts->error_code.data;
    code.len = facts->error_code.len;

    answer->error_status = ngx_llm_api_status(facts->api, type, code);

    if (names != NULL) {
        word = type.len ? type : (code.len ? code : unnamed);

        memcpy(names->error, word.data, word.len);
        names->error_len = word.len;
    }
}
