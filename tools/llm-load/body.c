
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "load.h"


/*
 * Text that a block's number decides: equal numbers are equal text, 2 KB for
 * 512 tokens, three letters and a space a token.  Of a trace's job the first
 * block is the system prompt and the second the first turn of the user, so
 * that the turns of one conversation begin alike; the others take turns.
 */

#define LOAD_UNIQUE_BLOCK  ((uint64_t) 1 << 63)

typedef struct {
    const char         *most;           /* before the number, and behind it */
    const char         *most_close;
    const char         *system;         /* NULL: a message like the others */
    const char         *system_close;
    const char         *turns;
    const char         *open;           /* a turn's text, behind its role */
    const char         *close;
    const char         *assistant;
} load_shape_t;

typedef struct {
    const load_job_t   *job;
    uint64_t            number;         /* of the request */
    size_t              nblocks;
} load_prompt_t;


static void load_body_json(buf_t *b, const load_target_t *target,
    const load_prompt_t *prompt);
static void load_body_plain(buf_t *b, const load_prompt_t *prompt);
static void load_body_turns(buf_t *b, const load_prompt_t *prompt,
    const load_shape_t *shape);
static void load_body_block(buf_t *b, const load_prompt_t *prompt, size_t i);
static void load_body_text(buf_t *b, uint64_t seed, size_t tokens);
static int load_body_is(const load_target_t *target, const char *end);


#define LOAD_TEXT_OPEN   "\"content\":\""
#define LOAD_TEXT_CLOSE  "\"}"
#define LOAD_PART_OPEN   "\"parts\":[{\"text\":\""
#define LOAD_PART_CLOSE  "\"}]}"

/* by load_dialect_e */

static const load_shape_t  load_shapes[] = {

    { "\"max_tokens\":", ",", NULL, NULL, "\"messages\":[",
      LOAD_TEXT_OPEN, LOAD_TEXT_CLOSE, "assistant" },

    { "\"max_tokens\":", ",", "\"system\":\"", "\",", "\"messages\":[",
      LOAD_TEXT_OPEN, LOAD_TEXT_CLOSE, "assistant" },

    { "\"max_output_tokens\":", ",", NULL, NULL, "\"input\":[",
      LOAD_TEXT_OPEN, LOAD_TEXT_CLOSE, "assistant" },

    { "\"options\":{\"num_predict\":", "},", NULL, NULL, "\"messages\":[",
      LOAD_TEXT_OPEN, LOAD_TEXT_CLOSE, "assistant" },

    { "\"generationConfig\":{\"maxOutputTokens\":", "},",
      "\"systemInstruction\":{" LOAD_PART_OPEN, LOAD_PART_CLOSE ",",
      "\"contents\":[", LOAD_PART_OPEN, LOAD_PART_CLOSE, "model" }
};


void
load_body_write(buf_t *b, const load_target_t *target, const load_job_t *job,
    uint64_t number)
{
    load_prompt_t  prompt;
    static buf_t   json;

    prompt.job = job;
    prompt.number = number;
    prompt.nblocks = (job->prompt + LOAD_BLOCK_TOKENS - 1) / LOAD_BLOCK_TOKENS;

    buf_clear(&json);
    load_body_json(&json, target, &prompt);

    buf_add_str(b, "POST ");
    buf_add(b, target->path.data, target->path.len);
    buf_add_str(b, " HTTP/1.1\r\nHost: ");
    buf_add(b, target->host.data, target->host.len);
    buf_add_fmt(b, "\r\nContent-Type: application/json\r\n"
                "Content-Length: %zu\r\n", json.len);

    if (load_conf.dialect == LOAD_ANTHROPIC) {
        buf_add_str(b, "anthropic-version: 2023-06-01\r\n");
    }

    if (load_conf.keys) {
        buf_add_fmt(b, "Authorization: Bearer key-%llu\r\n",
                    (unsigned long long) (number % load_conf.keys));
    }

    /* a trace says how long its answers were: llm-sim makes them so */

    if (load_conf.trace.njobs) {
        buf_add_fmt(b, "X-LLM-Sim: tokens=%llu\r\n",
                    (unsigned long long) job->output);
    }

    buf_add(b, load_conf.headers.data, load_conf.headers.len);
    buf_add_str(b, "\r\n");
    buf_add(b, json.data, json.len);
}


static void
load_body_json(buf_t *b, const load_target_t *target,
    const load_prompt_t *prompt)
{
    const load_shape_t  *shape;

    shape = &load_shapes[load_conf.dialect];

    buf_add_str(b, "{");

    /* Gemini has both in the path */

    if (load_conf.dialect != LOAD_GEMINI) {
        buf_add_str(b, "\"model\":\"");
        buf_add_json(b, load_conf.model, strlen(load_conf.model));
        buf_add_fmt(b, "\",\"stream\":%s,",
                    load_conf.no_stream ? "false" : "true");
    }

    if (load_conf.dialect == LOAD_OPENAI && load_conf.include_usage
        && !load_conf.no_stream)
    {
        buf_add_str(b, "\"stream_options\":{\"include_usage\":true},");
    }

    buf_add_str(b, shape->most);
    buf_add_u64(b, prompt->job->output);
    buf_add_str(b, shape->most_close);

    if (load_body_is(target, "/v1/completions")
        || load_body_is(target, "/api/generate"))
    {
        load_body_plain(b, prompt);

    } else {
        load_body_turns(b, prompt, shape);
    }

    buf_add_str(b, "}");
}


static void
load_body_plain(buf_t *b, const load_prompt_t *prompt)
{
    size_t  i;

    buf_add_str(b, "\"prompt\":\"");

    for (i = 0; i < prompt->nblocks; i++) {
        load_body_block(b, prompt, i);
    }

    buf_add_str(b, "\"");
}


static void
load_body_turns(buf_t *b, const load_prompt_t *prompt,
    const load_shape_t *shape)
{
    size_t       i, first;
    const char  *role;

    first = 0;

    if (shape->system != NULL && prompt->nblocks > 1) {
        buf_add_str(b, shape->system);
        load_body_block(b, prompt, 0);
        buf_add_str(b, shape->system_close);

        first = 1;
    }

    buf_add_str(b, shape->turns);

    for (i = first; i < prompt->nblocks; i++) {

        if (i == 0 && prompt->nblocks > 1) {
            role = "system";

        } else if (i % 2 || i + 1 == prompt->nblocks) {
            role = "user";

        } else {
            role = shape->assistant;
        }

        buf_add_fmt(b, "%s{\"role\":\"%s\",%s", i > first ? "," : "", role,
                    shape->open);
        load_body_block(b, prompt, i);
        buf_add_str(b, shape->close);
    }

    buf_add_str(b, "]");
}


static void
load_body_block(buf_t *b, const load_prompt_t *prompt, size_t i)
{
    size_t             tokens;
    uint64_t           seed;
    const load_job_t  *job;

    job = prompt->job;

    tokens = job->prompt - i * LOAD_BLOCK_TOKENS;

    if (i < job->nblocks) {
        seed = job->blocks[i];

    } else {
        seed = load_random_mix(load_conf.seed, prompt->number);
        seed = load_random_mix(seed, i) | LOAD_UNIQUE_BLOCK;
    }

    load_body_text(b, seed, tokens < LOAD_BLOCK_TOKENS ? tokens
                                                       : LOAD_BLOCK_TOKENS);
}


static void
load_body_text(buf_t *b, uint64_t seed, size_t tokens)
{
    char      *p;
    size_t     i;
    uint64_t   bits;

    p = buf_reserve(b, tokens * LOAD_TOKEN_BYTES);
    bits = 0;

    for (i = 0; i < tokens; i++) {

        /* 12 bits a word, and 60 are enough for five */

        if (i % 5 == 0) {
            bits = load_random(&seed);
        }

        *p++ = "bdfgklmnprstvzhj"[bits & 15];
        *p++ = "aeiouaeioyaeiouo"[(bits >> 4) & 15];
        *p++ = "lmnrstxkdpgnrslt"[(bits >> 8) & 15];
        *p++ = ' ';

        bits >>= 12;
    }

    b->len += tokens * LOAD_TOKEN_BYTES;
    *p = '\0';
}


static int
load_body_is(const load_target_t *target, const char *end)
{
    size_t  n;

    n = strlen(end);

    return target->path.len >= n
           && memcmp(target->path.data + target->path.len - n, end, n) == 0;
}
