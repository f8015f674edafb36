
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "sim.h"


/* a tool call's arguments are one JSON object, whose string is the tokens */
#define SIM_ARGUMENT_OPEN   "{\\\"query\\\":\\\""
#define SIM_ARGUMENT_CLOSE  "\\\"}"


typedef void (*sim_text_pt)(const sim_req_t *r, uint64_t token, buf_t *b);


static void sim_text_word(const sim_req_t *r, uint64_t token, buf_t *b);
static void sim_text_each(const sim_req_t *r, buf_t *b, sim_text_pt text);


/* the document under construction: there is one at a time */

buf_t *
sim_json(void)
{
    static buf_t  json;

    buf_clear(&json);

    return &json;
}


/*
 * "tok0", " tok1", ...; words=N cuts or fills each to N bytes; say=TEXT stands
 * in the JSON as it is
 */

static void
sim_text_word(const sim_req_t *r, uint64_t token, buf_t *b)
{
    size_t  start, words;

    if (r->order.say.len) {
        buf_add(b, r->order.say.data, r->order.say.len);
        return;
    }

    start = b->len;

    buf_add_str(b, token ? " tok" : "tok");
    buf_add_u64(b, token);

    if (r->order.words <= 0) {
        return;
    }

    words = (size_t) r->order.words;

    if (b->len - start < words) {
        buf_reserve(b, words);
        memset(b->data + b->len, 'x', start + words - b->len);
    }

    b->len = start + words;
    b->data[b->len] = '\0';
}


int
sim_text_is_tool(const sim_req_t *r)
{
    return r->ask.tools && r->order.tool == 1;
}


/* token: its number within its choice */

void
sim_text_token(const sim_req_t *r, uint64_t token, buf_t *b)
{
    if (!sim_text_is_tool(r)) {
        sim_text_word(r, token, b);
        return;
    }

    if (token == 0) {
        buf_add_str(b, SIM_ARGUMENT_OPEN);
    }

    sim_text_word(r, token, b);

    if (token + 1 == r->length / r->ask.choices) {
        buf_add_str(b, SIM_ARGUMENT_CLOSE);
    }
}


/* all tokens of one choice that have been made, as they were streamed */

void
sim_text_all(const sim_req_t *r, buf_t *b)
{
    sim_text_each(r, b, sim_text_token);
}


/* the same without the JSON around a tool call's */

void
sim_text_words(const sim_req_t *r, buf_t *b)
{
    sim_text_each(r, b, sim_text_word);
}


static void
sim_text_each(const sim_req_t *r, buf_t *b, sim_text_pt text)
{
    uint64_t  i, n;

    n = r->made / r->ask.choices;

    for (i = 0; i < n; i++) {
        text(r, i, b);
    }
}


void
sim_text_model(const sim_req_t *r, buf_t *b)
{
    buf_add_json(b, r->ask.model, strlen(r->ask.model));
}


int
sim_text_no_usage(const sim_req_t *r)
{
    return str_eq((str_t) { r->order.usage.data, r->order.usage.len }, "none");
}


/*
 * The usage that is ordered, as the next member; 0: none is, and the dialect
 * writes its own.
 */

int
sim_text_usage(const sim_req_t *r, buf_t *b, const char *name)
{
    if (r->order.usage.len == 0) {
        return 0;
    }

    if (!sim_text_no_usage(r)) {
        buf_add_fmt(b, ",\"%s\":%s", name, r->order.usage.data);
    }

    return 1;
}
