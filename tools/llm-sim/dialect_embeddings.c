
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "sim.h"


/*
 * OpenAI embeddings: one answer as soon as the prompt is computed.  The
 * vectors are of unit length and differ by input; base64 is what the
 * official clients ask for: little-endian 32-bit floats.
 */

static void sim_embeddings_answer(sim_req_t *r, buf_t *b);
static float sim_embeddings_value(const sim_req_t *r, uint64_t input,
    uint64_t i);
static void sim_embeddings_base64(const sim_req_t *r, buf_t *b,
    uint64_t input);


const sim_dialect_t  sim_openai_embeddings = {
    .embeddings = 1,
    .answer = sim_embeddings_answer,
    .status = sim_openai_status
};


static void
sim_embeddings_answer(sim_req_t *r, buf_t *b)
{
    uint64_t  i, input;

    buf_add_str(b, "{\"object\":\"list\",\"data\":[");

    for (input = 0; input < r->ask.inputs; input++) {

        buf_add_fmt(b, "%s{\"object\":\"embedding\",\"index\":%llu,"
                    "\"embedding\":", input ? "," : "",
                    (unsigned long long) input);

        if (r->ask.base64) {
            sim_embeddings_base64(r, b, input);

        } else {

            for (i = 0; i < r->ask.dimensions; i++) {
                buf_add_fmt(b, "%s%.8f", i ? "," : "[",
                            sim_embeddings_value(r, input, i));
            }

            buf_add_str(b, "]");
        }

        buf_add_str(b, "}");
    }

    buf_add_str(b, "],\"model\":\"");
    sim_text_model(r, b);
    buf_add_str(b, "\"");

    if (!sim_text_usage(r, b, "usage")) {
        buf_add_fmt(b, ",\"usage\":{\"prompt_tokens\":%llu,"
                    "\"total_tokens\":%llu}",
                    (unsigned long long) r->prompt,
                    (unsigned long long) r->prompt);
    }

    buf_add_str(b, "}");
}


/* 1 at one place, 0 at the others */

static float
sim_embeddings_value(const sim_req_t *r, uint64_t input, uint64_t i)
{
    return (r->ask.hash + input) % r->ask.dimensions == i;
}


static void
sim_embeddings_base64(const sim_req_t *r, buf_t *b, uint64_t input)
{
    int       bits, byte;
    float     value;
    uint32_t  raw, acc;
    uint64_t  i;

    static const char  digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    acc = 0;
    bits = 0;

    buf_add_str(b, "\"");

    for (i = 0; i < r->ask.dimensions; i++) {

        value = sim_embeddings_value(r, input, i);
        memcpy(&raw, &value, sizeof(raw));

        for (byte = 0; byte < 4; byte++) {
            acc = (acc << 8) | ((raw >> (8 * byte)) & 0xff);

            for (bits += 8; bits >= 6; bits -= 6) {
                buf_add(b, &digits[(acc >> (bits - 6)) & 63], 1);
            }
        }
    }

    if (bits) {
        buf_add(b, &digits[(acc << (6 - bits)) & 63], 1);
        buf_add_str(b, bits == 2 ? "==" : "=");
    }

    buf_add_str(b, "\"");
}
