
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_facts.h"


static ngx_llm_rc_e ngx_llm_facts_value(void *data, unsigned id,
    const ngx_llm_json_value_t *value, const char **reason);
static void ngx_llm_facts_string(ngx_llm_facts_t *facts, unsigned id,
    const ngx_llm_json_value_t *value);
static void ngx_llm_facts_number(ngx_llm_facts_t *facts, unsigned id,
    const ngx_llm_json_value_t *value);
static void ngx_llm_facts_other(ngx_llm_facts_t *facts, unsigned id,
    const ngx_llm_json_value_t *value);
static void ngx_llm_facts_hole(ngx_llm_facts_t *facts,
    const ngx_llm_json_value_t *value, ngx_llm_hole_e kind);
static void ngx_llm_facts_word(ngx_llm_facts_word_t *word,
    ngx_llm_str_t text);
static unsigned ngx_llm_facts_bits(const ngx_llm_word_t *words,
    ngx_llm_str_t text, unsigned otherwise);


ngx_llm_rc_e
ngx_llm_facts_read(ngx_llm_facts_t *facts, const ngx_llm_api_t *api,
    ngx_llm_str_t doc, ngx_llm_scratch_t *scratch)
{
    size_t       i;
    const char  *reason;

    facts->api = api;
    facts->doc = doc.data;
    facts->len = doc.len;
    facts->usage = 0;
    facts->choices = 0;
    facts->choice = 0;
    facts->shapeless = 0;
    facts->raw = 0;
    facts->model.len = 0;
    facts->finish.len = 0;
    facts->error_type.len = 0;
    facts->error_code.len = 0;
    facts->nholes = 0;

    memset(&facts->content, 0, sizeof(ngx_llm_text_t));

    for (i = 0; i < NGX_LLM_ANSWER_COUNTS; i++) {
        facts->counts[i] = -1;
    }

    return ngx_llm_json_parse_answer(&api->answer, doc.data, doc.len, scratch,
                                     ngx_llm_facts_value, facts, &reason);
}


static ngx_llm_rc_e
ngx_llm_facts_value(void *data, unsigned id,
    const ngx_llm_json_value_t *value, const char **reason)
{
    switch (value->type) {

    case NGX_LLM_JSON_NULL:
    case NGX_LLM_JSON_FALSE:
        break;

    case NGX_LLM_JSON_STRING:
        if (value->text.len != 0 || id == NGX_LLM_ANS_VARIES) {
            ngx_llm_facts_string(data, id, value);
        }

        break;

    case NGX_LLM_JSON_NUMBER:
        ngx_llm_facts_number(data, id, value);
        break;

    case NGX_LLM_JSON_TRUE:
    case NGX_LLM_JSON_OBJECT:
    case NGX_LLM_JSON_OBJECT_END:
    case NGX_LLM_JSON_ARRAY:
    case NGX_LLM_JSON_ARRAY_END:
        ngx_llm_facts_other(data, id, value);
        break;
    }

    return NGX_LLM_OK;
}


static void
ngx_llm_facts_string(ngx_llm_facts_t *facts, unsigned id,
    const ngx_llm_json_value_t *value)
{
    unsigned  bits;

    switch (id) {

    case NGX_LLM_ANS_CONTENT:
        facts->bits |= NGX_LLM_EV_CONTENT;
        ngx_llm_text_add(&facts->content, value->text.data, value->text.len);
        ngx_llm_facts_hole(facts, value, NGX_LLM_HOLE_TEXT);
        break;

    case NGX_LLM_ANS_VARIES:
        ngx_llm_facts_hole(facts, value, NGX_LLM_HOLE_STRING);
        break;

    case NGX_LLM_ANS_PAYLOAD:
        facts->bits |= NGX_LLM_EV_CONTENT;
        facts->shapeless = 1;
        break;

    case NGX_LLM_ANS_MODEL:
        ngx_llm_facts_word(&facts->model, value->text);
        break;

    case NGX_LLM_ANS_TYPE:
        facts->bits |= ngx_llm_facts_bits(facts->api->types, value->text, 0);
        break;

    case NGX_LLM_ANS_FINISH:
        bits = ngx_llm_facts_bits(facts->api->finishes, value->text,
                                   NGX_LLM_EV_FINISH);
        if (bits != 0) {
            facts->bits |= bits;
            ngx_llm_facts_word(&facts->finish, value->text);
        }

        break;

    case NGX_LLM_ANS_BLOCK:
        facts->bits |= NGX_LLM_EV_FINISH|NGX_LLM_EV_FILTER;
        ngx_llm_facts_word(&facts->finish, value->text);
        break;

    case NGX_LLM_ANS_ERROR:
        facts->bits |= NGX_LLM_EV_ERROR;
        break;

    case NGX_LLM_ANS_ERROR_TYPE:
        ngx_llm_facts_word(&facts->error_type, value->text);
        break;

    case NGX_LLM_ANS_ERROR_CODE:
        ngx_llm_facts_word(&facts->error_code, value->text);
        break;
    }
}


static void
ngx_llm_facts_number(ngx_llm_facts_t *facts, unsigned id,
    const ngx_llm_json_value_t *value)
{
    int64_t  count;

    switch (id) {

    case NGX_LLM_ANS_PROMPT:
    case NGX_LLM_ANS_PROMPT_MORE:
    case NGX_LLM_ANS_CACHED:
    case NGX_LLM_ANS_COMPLETION:
    case NGX_LLM_ANS_REASONING:
    case NGX_LLM_ANS_TOTAL:

        if (ngx_llm_json_count(value->text, &count) == NGX_LLM_OK) {
            facts->bits |= NGX_LLM_EV_USAGE;
            facts->counts[ngx_llm_facts_count(id)] = count;
        }

        break;

    case NGX_LLM_ANS_VARIES:
        ngx_llm_facts_hole(facts, value, NGX_LLM_HOLE_NUMBER);
        break;

    case NGX_LLM_ANS_ERROR:
        if (!ngx_llm_word_is("0", value->text)) {
            facts->bits |= NGX_LLM_EV_ERROR;
        }

        break;

    case NGX_LLM_ANS_ERROR_CODE:
        ngx_llm_facts_word(&facts->error_code, value->text);
        break;
    }
}


/* true, and what has parts */

static void
ngx_llm_facts_other(ngx_llm_facts_t *facts, unsigned id,
    const ngx_llm_json_value_t *value)
{
    switch (id) {

    case NGX_LLM_ANS_USAGE:
        facts->usage |= (value->type == NGX_LLM_JSON_OBJECT);
        break;

    case NGX_LLM_ANS_CHOICES:
        facts->choices |= (value->type == NGX_LLM_JSON_ARRAY);
        break;

    case NGX_LLM_ANS_CHOICE:
        facts->choice = 1;
        break;

    case NGX_LLM_ANS_CONTENT_RAW:
        facts->bits |= NGX_LLM_EV_CONTENT;
        facts->shapeless = 1;

        if (value->type == NGX_LLM_JSON_OBJECT) {
            facts->raw = value->end;

        } else if (value->type == NGX_LLM_JSON_OBJECT_END) {
            ngx_llm_text_add(&facts->content, facts->doc + facts->raw,
                             value->end - 1 - facts->raw);
        }

        break;

    case NGX_LLM_ANS_PAYLOAD:
        facts->bits |= NGX_LLM_EV_CONTENT;
        facts->shapeless = 1;
        break;

    case NGX_LLM_ANS_BLOCK:
        if (value->type == NGX_LLM_JSON_TRUE) {
            facts->bits |= NGX_LLM_EV_FILTER;
        }

        break;

    case NGX_LLM_ANS_DONE:
        if (value->type == NGX_LLM_JSON_TRUE) {
            facts->bits |= NGX_LLM_EV_END;
        }

        break;

    case NGX_LLM_ANS_ERROR:
        facts->bits |= NGX_LLM_EV_ERROR;
        break;
    }
}


static void
ngx_llm_facts_hole(ngx_llm_facts_t *facts,
    const ngx_llm_json_value_t *value, ngx_llm_hole_e kind)
{
    uintptr_t        doc, text;
    ngx_llm_hole_t  *hole;

    doc = (uintptr_t) facts->doc;
    text = (uintptr_t) value->text.data;

    /* a string that had escapes is no slice of the document */

    if (facts->nholes == NGX_LLM_SHAPE_HOLES || text < doc
        || text - doc >= facts->len)
    {
        facts->shapeless = 1;
        return;
    }

    hole = &facts->holes[facts->nholes++];

    hole->start = text - doc;
    hole->end = hole->start + value->text.len;
    hole->kind = kind;
}


static void
ngx_llm_facts_word(ngx_llm_facts_word_t *word, ngx_llm_str_t text)
{
    word->len = (text.len < sizeof(word->data)) ? text.len
                                                : sizeof(word->data);
    memcpy(word->data, text.data, word->len);
}


static unsigned
ngx_llm_facts_bits(const ngx_llm_word_t *words, ngx_llm_str_t text,
    unsigned otherwise)
{
    if (words == NULL) {
        return otherwise;
    }

    while (words->word != NULL) {

        if (ngx_llm_word_is(words->word, text)) {
            return words->bits;
        }

        words++;
    }

    return otherwise;
}
