
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "sim.h"


/*
 * One reader for all dialects: their field names do not collide.  The prompt
 * is the text of messages, system, prompt, suffix, input, instructions,
 * contents and systemInstruction, wherever it stands inside of these: every
 * string under the keys below.  Roles, tools and images do not count.  Four
 * bytes are a token; so 2 KB are one block of the prefix cache.
 */

#define SIM_BLOCK_BYTES      (SIM_BLOCK_TOKENS * SIM_TOKEN_BYTES)
#define SIM_MAX_DEPTH        16
#define SIM_DEFAULT_VECTOR   16
#define SIM_MAX_VECTOR       8192

#define SIM_HASH_START       0xcbf29ce484222325
#define SIM_HASH_PRIME       0x100000001b3


static void sim_ask_flags(sim_ask_t *ask, yajl_val v);
static void sim_ask_limits(sim_ask_t *ask, yajl_val v);
static void sim_ask_inputs(sim_ask_t *ask, yajl_val input);
static void sim_ask_walk(sim_ask_t *ask, yajl_val v, int depth);
static void sim_ask_text(sim_ask_t *ask, const char *text, size_t len);
static void sim_ask_block(sim_ask_t *ask);


static const char  *sim_ask_roots[] = {
    "system", "instructions", "systemInstruction", "system_instruction",
    "messages", "prompt", "suffix", "input", "contents", NULL
};

static const char  *sim_ask_keys[] = {
    "content", "text", "parts", "output", NULL
};


int
sim_ask_parse(sim_ask_t *ask, const char *text)
{
    size_t     i;
    str_t      model;
    yajl_val   v;

    v = json_parse(text);
    if (v == NULL) {
        return -1;
    }

    if (!YAJL_IS_OBJECT(v)) {
        yajl_tree_free(v);
        return -1;
    }

    /* Gemini and ERNIE name the model in the path: it is there already */

    model = json_text(json_get(v, "model"));

    if (ask->model == NULL) {
        ask->model = strndup(model.len ? model.data : "sim",
                             model.len ? model.len : 3);
    }

    sim_ask_flags(ask, v);
    sim_ask_limits(ask, v);
    sim_ask_inputs(ask, json_get(v, "input"));

    ask->hash = SIM_HASH_START;

    for (i = 0; sim_ask_roots[i] != NULL; i++) {
        sim_ask_walk(ask, json_get(v, sim_ask_roots[i]), 0);
    }

    yajl_tree_free(v);

    return 0;
}


static void
sim_ask_flags(sim_ask_t *ask, yajl_val v)
{
    str_t     format;
    yajl_val  stream, tools;

    stream = json_get(v, "stream");

    if (stream != NULL) {
        ask->stream = json_true(stream);
    }

    ask->include_usage = json_true(json_get(json_get(v, "stream_options"),
                                            "include_usage"));

    tools = json_get(v, "tools");

    if (tools == NULL) {
        tools = json_get(v, "functions");
    }

    ask->tools = YAJL_IS_ARRAY(tools) && tools->u.array.len;

    format = json_text(json_get(v, "encoding_format"));
    ask->base64 = str_eq(format, "base64");
}


static void
sim_ask_limits(sim_ask_t *ask, yajl_val v)
{
    double       n;
    size_t       i;
    yajl_val     gemini, values[6];

    gemini = json_get(v, "generationConfig");

    values[0] = json_get(v, "max_completion_tokens");
    values[1] = json_get(v, "max_tokens");
    values[2] = json_get(v, "max_output_tokens");
    values[3] = json_get(json_get(v, "options"), "num_predict");
    values[4] = json_get(gemini, "maxOutputTokens");
    values[5] = NULL;

    ask->max_tokens = SIM_NONE;

    for (i = 0; values[i] != NULL || i < 5; i++) {

        n = json_number(values[i], -1);

        if (n >= 0 && n < 1e12) {
            ask->max_tokens = (int64_t) n;
            break;
        }
    }

    n = json_number(json_get(v, "n"),
                    json_number(json_get(gemini, "candidateCount"), 1));

    ask->choices = (uint64_t) fmin(fmax(n, 1), SIM_MAX_CHOICES);

    n = json_number(json_get(v, "dimensions"), SIM_DEFAULT_VECTOR);

    ask->dimensions = (uint64_t) fmin(fmax(n, 1), SIM_MAX_VECTOR);
}


/* one vector for a string or an array of tokens, else one for each element */

static void
sim_ask_inputs(sim_ask_t *ask, yajl_val input)
{
    ask->inputs = 1;

    if (YAJL_IS_ARRAY(input) && input->u.array.len
        && !YAJL_IS_NUMBER(input->u.array.values[0]))
    {
        ask->inputs = input->u.array.len;
    }
}


static void
sim_ask_walk(sim_ask_t *ask, yajl_val v, int depth)
{
    size_t  i;
    str_t   text;

    if (depth == SIM_MAX_DEPTH) {
        return;
    }

    if (YAJL_IS_STRING(v)) {
        text = json_text(v);
        sim_ask_text(ask, text.data, text.len);
        return;
    }

    /* a prompt given as tokens */

    if (YAJL_IS_NUMBER(v)) {
        sim_ask_text(ask, "####", SIM_TOKEN_BYTES);
        return;
    }

    if (YAJL_IS_ARRAY(v)) {

        for (i = 0; i < v->u.array.len; i++) {
            sim_ask_walk(ask, v->u.array.values[i], depth + 1);
        }

        return;
    }

    for (i = 0; YAJL_IS_OBJECT(v) && sim_ask_keys[i] != NULL; i++) {
        sim_ask_walk(ask, json_get(v, sim_ask_keys[i]), depth + 1);
    }
}


/* FNV-1a; a block's hash goes on from that of the block before it */

static void
sim_ask_text(sim_ask_t *ask, const char *text, size_t len)
{
    size_t  i;

    for (i = 0; i < len; i++) {
        ask->hash = (ask->hash ^ (unsigned char) text[i]) * SIM_HASH_PRIME;
        ask->prompt_bytes++;

        if (ask->prompt_bytes % SIM_BLOCK_BYTES == 0
            && sim_conf.cache_tokens)
        {
            sim_ask_block(ask);
        }
    }
}


static void
sim_ask_block(sim_ask_t *ask)
{
    ask->blocks = mem_grow(ask->blocks, ask->nblocks, sizeof(uint64_t));
    ask->blocks[ask->nblocks++] = ask->hash;
}


void
sim_ask_free(sim_ask_t *ask)
{
    free(ask->model);
    free(ask->blocks);
}
