
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
    const load_job_t   *job;
    uint64_t            number;         /* of the request */
    size_t              nblocks;
    const char         *open;           /* between a turn's role and text */
    const char         *close;
    const char         *assistant;
} load_turns_t;


static void load_body_json(buf_t *b, const load_target_t *target,
    const load_job_t *job, uint64_t number);
static void load_body_prompt(buf_t *b, const load_turns_t *turns);
static void load_body_system(buf_t *b, const load_turns_t *turns,
    const char *open, const char *close);
static void load_body_turns(buf_t *b, const load_turns_t *turns,
    size_t first);
static void load_body_block(buf_t *b, const load_turns_t *turns, size_t i);
static void load_body_text(buf_t *b, uint64_t seed, size_t tokens);
static int load_body_is(const load_target_t *target, const char *end);


void
load_body_write(buf_t *b, const load_target_t *target, const load_job_t *job,
    uint64_t number)
{
    static buf_t  json;

    buf_clear(&json);

    load_body_json(&json, target, job, number);

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
load_body_json(buf_t *b, const load_target_t *target, const load_job_t *job,
    uint64_t number)
{
    const char          *stream;
    load_turns_t         turns;
    unsigned long long   most;

    turns.job = job;
    turns.number = number;
    turns.nblocks = (job->prompt + LOAD_BLOCK_TOKENS - 1) / LOAD_BLOCK_TOKENS;
    turns.open = "\"content\":\"";
    turns.close = "\"}";
    turns.assistant = "assistant";

    most = job->output;
    stream = load_conf.no_stream ? "false" : "true";

    buf_add_str(b, "{");

    if (load_conf.dialect != LOAD_GEMINI) {
        buf_add_str(b, "\"model\":\"");
        buf_add_json(b, load_conf.model, strlen(load_conf.model));
        buf_add_fmt(b, "\",\"stream\":%s,", stream);
    }

    switch (load_conf.dialect) {

    case LOAD_OPENAI:
        buf_add_fmt(b, "\"max_tokens\":%llu,", most);

        if (load_conf.include_usage && !load_conf.no_stream) {
            buf_add_str(b, "\"stream_options\":{\"include_usage\":true},");
        }

        if (load_body_is(target, "/v1/completions")) {
            load_body_prompt(b, &turns);
            break;
        }

        buf_add_str(b, "\"messages\":[");
        load_body_turns(b, &turns, 0);
        buf_add_str(b, "]");
        break;

    case LOAD_ANTHROPIC:
        buf_add_fmt(b, "\"max_tokens\":%llu,", most);
        load_body_system(b, &turns, "\"system\":\"", "\",");
        buf_add_str(b, "\"messages\":[");
        load_body_turns(b, &turns, turns.nblocks > 1);
        buf_add_str(b, "]");
        break;

    case LOAD_RESPONSES:
        buf_add_fmt(b, "\"max_output_tokens\":%llu,\"input\":[", most);
        load_body_turns(b, &turns, 0);
        buf_add_str(b, "]");
        break;

    case LOAD_OLLAMA:
        buf_add_fmt(b, "\"options\":{\"num_predict\":%llu},", most);

        if (load_body_is(target, "/api/generate")) {
            load_body_prompt(b, &turns);
            break;
        }

        buf_add_str(b, "\"messages\":[");
        load_body_turns(b, &turns, 0);
        buf_add_str(b, "]");
        break;

    case LOAD_GEMINI:
        turns.open = "\"parts\":[{\"text\":\"";
        turns.close = "\"}]}";
        turns.assistant = "model";

        buf_add_fmt(b, "\"generationConfig\":{\"maxOutputTokens\":%llu},",
                    most);
        load_body_system(b, &turns,
                         "\"systemInstruction\":{\"parts\":[{\"text\":\"",
                         "\"}]},");
        buf_add_str(b, "\"contents\":[");
        load_body_turns(b, &turns, turns.nblocks > 1);
        buf_add_str(b, "]");
        break;
    }

    buf_add_str(b, "}");
}


static void
load_body_prompt(buf_t *b, const load_turns_t *turns)
{
    size_t  i;

    buf_add_str(b, "\"prompt\":\"");

    for (i = 0; i < turns->nblocks; i++) {
        load_body_block(b, turns, i);
    }

    buf_add_str(b, "\"");
}


/* where the system prompt is not a message */

static void
load_body_system(buf_t *b, const load_turns_t *turns, const char *open,
    const char *close)
{
    if (turns->nblocks > 1) {
        buf_add_str(b, open);
        load_body_block(b, turns, 0);
        buf_add_str(b, close);
    }
}


static void
load_body_turns(buf_t *b, const load_turns_t *turns, size_t first)
{
    size_t       i;
    const char  *role;

    for (i = first; i < turns->nblocks; i++) {

        if (i == 0 && turns->nblocks > 1) {
            role = "system";

        } else if (i % 2 || i + 1 == turns->nblocks) {
            role = "user";

        } else {
            role = turns->assistant;
        }

        buf_add_fmt(b, "%s{\"role\":\"%s\",%s", i > first ? "," : "", role,
                    turns->open);
        load_body_block(b, turns, i);
        buf_add_str(b, turns->close);
    }
}


static void
load_body_block(buf_t *b, const load_turns_t *turns, size_t i)
{
    size_t             tokens;
    uint64_t           seed;
    const load_job_t  *job;

    job = turns->job;

    tokens = job->prompt - i * LOAD_BLOCK_TOKENS;

    if (i < job->nblocks) {
        seed = job->blocks[i];

    } else {
        seed = load_random_mix(load_conf.seed, turns->number);
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
