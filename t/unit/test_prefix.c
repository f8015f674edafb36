
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_hash.h"
#include "request.h"


/* of all lengths up to 101, by the reference implementation */
#define CHAIN_OF_101  UINT64_C(0x008169a919c64452)


static uint64_t
prefix(const ngx_llm_api_t *api, const char *body)
{
    const char         *reason;
    ngx_llm_request_t   request;

    if (parse(&request, api, body, strlen(body), &reason) != NGX_LLM_OK) {
        tap_bail(reason);
    }

    return request.prefix_hash;
}


#define SAY(role, what)  "{\"role\":\"" role "\",\"content\":\"" what "\"}"
#define TALK(model, messages)                                                 \
    "{\"model\":\"" model "\",\"messages\":[" messages "]}"

static void
test_prefix(void)
{
    uint64_t  first;

    first = prefix(CHAT, TALK("m", SAY("system", "s") "," SAY("user", "u")));

    tap_ok(first != 0, "a conversation has a prefix");
    tap_ok(first == prefix(CHAT,
           TALK("m", SAY("system", "s") "," SAY("user", "u") ","
                SAY("assistant", "a") "," SAY("user", "v"))),
           "it is the same in the next turn");
    tap_ok(first == prefix(CHAT,
           "{ \"model\" : \"m\", \"stream\":true, \"temperature\":0.5,\n"
           "\"messages\" : [ {\"role\": \"system\", \"content\": \"s\"}, "
           "{\"role\": \"user\", \"content\": \"\\u0075\"} ], \"n\":1 }"),
           "white space, escapes and other keys do not matter");
    tap_ok(first == prefix(CHAT,
           TALK("m", SAY("system", "s") "," "{\"role\":\"user\",\"content\":["
                "{\"type\":\"text\",\"text\":\"u\","
                "\"cache_control\":{\"type\":\"ephemeral\"}}]}")),
           "nor that the text is one part with a cache mark");

    tap_ok(first != prefix(CHAT,
           TALK("n", SAY("system", "s") "," SAY("user", "u"))),
           "another model");
    tap_ok(first != prefix(CHAT,
           TALK("m", SAY("system", "t") "," SAY("user", "u"))),
           "another system prompt");
    tap_ok(first != prefix(CHAT,
           TALK("m", SAY("system", "s") "," SAY("user", "v"))),
           "another question");
    tap_ok(first != prefix(CHAT,
           TALK("m", SAY("user", "s") "," SAY("user", "u"))),
           "somebody else said it");
    tap_ok(prefix(CHAT, TALK("m", SAY("system", "su") "," SAY("user", "")))
           != prefix(CHAT, TALK("m", SAY("system", "s") "," SAY("user", "u"))),
           "another place to cut");
    tap_ok(prefix(CHAT, TALK("m", SAY("system", "s") "," SAY("system", "t")))
           != prefix(CHAT,
                     TALK("m", SAY("system", "t") "," SAY("system", "s"))),
           "another order");
    tap_ok(prefix(CHAT, "{\"tools\":[1],\"messages\":[" SAY("user", "u") "]}")
           != prefix(CHAT,
                     "{\"tools\":[2],\"messages\":[" SAY("user", "u") "]}"),
           "other tools");
    tap_ok(prefix(CHAT, "{\"messages\":[" SAY("user", "u") "],\"tools\":[1]}")
           == prefix(CHAT, "{\"messages\":[" SAY("user", "u") ","
                     SAY("assistant", "a") "],\"tools\":[1]}"),
           "tools behind the messages");
    tap_ok(prefix(ANTHROPIC, "{\"system\":\"s\",\"messages\":["
                  SAY("user", "u") "]}")
           == prefix(ANTHROPIC, "{\"system\":\"s\",\"messages\":["
                     SAY("user", "u") "," SAY("assistant", "a") ","
                     SAY("user", "b") "]}"),
           "an Anthropic conversation");
    tap_ok(prefix(GEMINI, "{\"contents\":[{\"parts\":[{\"text\":\"u\"}]}]}")
           == prefix(GEMINI, "{\"contents\":[{\"parts\":[{\"text\":\"u\"}]},"
                     "{\"role\":\"model\",\"parts\":[{\"text\":\"a\"}]},"
                     "{\"parts\":[{\"text\":\"v\"}]}]}"),
           "a Gemini conversation that names no roles");
    tap_ok(prefix(RESPONSES, "{\"instructions\":\"s\",\"input\":\"u\"}") != 0
           && prefix(RESPONSES, "{\"instructions\":\"s\",\"input\":\"u\"}")
              != prefix(RESPONSES, "{\"instructions\":\"s\",\"input\":\"v\"}"),
           "a Responses input that is a string");
    tap_ok(prefix(GENERATE, "{\"model\":\"m\",\"prompt\":\"u\"}")
           != prefix(GENERATE, "{\"model\":\"m\",\"prompt\":\"v\"}"),
           "a prompt");
    tap_ok(prefix(CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{"
                  "\"image_url\":{\"url\":\"a\"}}]}]}")
           != prefix(CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{"
                     "\"image_url\":{\"url\":\"b\"}}]}]}"),
           "another image");
    tap_ok(prefix(EMBED, "{\"model\":\"m\",\"input\":\"x\"}") == 0
           && prefix(CHAT, "{}") == 0, "without a prompt there is none");
}


static void
test_hash(void)
{
    size_t         i;
    uint64_t       last, one;
    unsigned char  buf[101];

    /* the specification's own values, and a chain over all lengths */

    tap_ok(ngx_llm_hash((const unsigned char *) "", 0, 0)
           == UINT64_C(0xef46db3751d8e999),
           "hash of nothing");
    tap_ok(ngx_llm_hash((const unsigned char *) "abc", 3, 0)
           == UINT64_C(0x44bc2cf5ad770999), "hash of abc");

    for (i = 0; i < sizeof(buf); i++) {
        buf[i] = i * 7 + 3;
    }

    last = 0;

    for (i = 0; i <= sizeof(buf); i++) {
        last = ngx_llm_hash(buf, i, last);
    }

    tap_ok(last == CHAIN_OF_101, "hashes of 0 to 101 bytes, chained: %jx",
           (uintmax_t) last);

    one = ngx_llm_hash(buf, sizeof(buf), 1);
    buf[50] ^= 1;
    tap_ok(__builtin_popcountll(one ^ ngx_llm_hash(buf, sizeof(buf), 1)) > 16,
           "a bit changes half of the bits");
}


int
main(void)
{
    test_prefix();
    test_hash();

    return tap_done();
}
