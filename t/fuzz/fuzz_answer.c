
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The first two bytes choose the API and where the rest, an answer, is split.
 * Whatever spares reading changes nothing, nor do pieces or memory.
 */


#include "fuzz.h"

#include "ngx_llm_answer.h"
#include "ngx_llm_api.h"


/* what reading an answer came to */

typedef struct {
    ngx_llm_answer_t       answer;
    ngx_llm_names_t        names;
} fuzz_answer_t;


typedef struct {
    /* a piece has so many bytes */
    size_t                 step;
    size_t                 scratch_bytes;

    /* events that fit a shape are not read */
    unsigned               spare:1;
} fuzz_way_t;


static void fuzz_read(fuzz_answer_t *got, const ngx_llm_api_t *api,
    const uint8_t *p, size_t len, const fuzz_way_t *way);
static void fuzz_event(fuzz_answer_t *got, const uint8_t *p, size_t len,
    const fuzz_way_t *way);
static void fuzz_body(const ngx_llm_api_t *api, const uint8_t *p, size_t len);
static int fuzz_same(const fuzz_answer_t *a, const fuzz_answer_t *b);
static void fuzz_sane(const fuzz_answer_t *got);


static ngx_llm_shapes_t  fuzz_shapes;

static const ngx_llm_api_t *const  fuzz_apis[] = {
    NULL,
    &ngx_llm_api_openai_chat,
    &ngx_llm_api_openai_completions,
    &ngx_llm_api_openai_responses,
    &ngx_llm_api_openai_embeddings,
    &ngx_llm_api_anthropic_messages,
    &ngx_llm_api_gemini_generate,
    &ngx_llm_api_ollama_chat,
    &ngx_llm_api_ollama_generate,
    &ngx_llm_api_ernie_chat,
    &ngx_llm_api_cohere_chat
};


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    fuzz_answer_t         plain, spared, split;
    const ngx_llm_api_t  *api;

    const fuzz_way_t  whole = { .step = len, .scratch_bytes = 4096 };
    const fuzz_way_t  spare = { .step = len, .scratch_bytes = 0, .spare = 1 };
    fuzz_way_t        pieces = { .scratch_bytes = 100, .spare = 1 };

    if (len < 2) {
        return 0;
    }

    api = fuzz_apis[p[0] % (sizeof(fuzz_apis) / sizeof(fuzz_apis[0]))];
    pieces.step = p[1] + 1;

    p += 2;
    len -= 2;

    fuzz_read(&plain, api, p, len, &whole);
    fuzz_read(&spared, api, p, len, &spare);
    fuzz_read(&split, api, p, len, &pieces);

    fuzz_assert(fuzz_same(&plain, &spared));
    fuzz_assert(fuzz_same(&plain, &split));

    ngx_llm_answer_done(&spared.answer);
    ngx_llm_answer_done(&split.answer);

    fuzz_sane(&plain);
    fuzz_body(api, p, len);

    return 0;
}


static void
fuzz_read(fuzz_answer_t *got, const ngx_llm_api_t *api,
    const uint8_t *p, size_t len, const fuzz_way_t *way)
{
    int              complete;
    size_t           i, n, start, piece;
    unsigned char   *copy;
    ngx_llm_frame_t  frame;

    memset(&frame, 0, sizeof(frame));
    frame.framing = ngx_llm_api_framing(api);

    memset(got, 0, sizeof(fuzz_answer_t));

    ngx_llm_answer_init(&got->answer, api);

    start = 0;

    for (i = 0; i < len; i += n) {
        piece = (len - i < way->step) ? len - i : way->step;
        copy = fuzz_copy(p + i, piece);

        n = 0;

        if (way->spare) {
            n = ngx_llm_answer_next(&got->answer, &frame, copy, piece);
        }

        if (n != 0) {
            start = i + n;
            free(copy);
            continue;
        }

        n = ngx_llm_frame_next(&frame, copy, piece, &complete);

        if (complete) {
            fuzz_event(got, p + start, i + n - start, way);
            start = i + n;
        }

        free(copy);
    }

    if (start != len) {
        fuzz_event(got, p + start, len - start, way);
    }
}


static void
fuzz_event(fuzz_answer_t *got, const uint8_t *p, size_t len,
    const fuzz_way_t *way)
{
    unsigned            bits;
    unsigned char      *copy, *memory;
    ngx_llm_scratch_t   scratch;

    copy = fuzz_copy(p, len);
    memory = malloc(way->scratch_bytes + 1);
    fuzz_assert(memory != NULL);

    scratch.data = memory;
    scratch.size_bytes = way->scratch_bytes;
    scratch.names = &got->names;
    scratch.shapes = way->spare ? &fuzz_shapes : NULL;

    bits = ngx_llm_answer_event(&got->answer, copy, len, &scratch);

    fuzz_assert((bits & NGX_LLM_EV_DATA) || bits == 0);
    fuzz_assert(!(bits & NGX_LLM_EV_UNREAD)
                || !(bits & (NGX_LLM_EV_CONTENT|NGX_LLM_EV_USAGE)));
    fuzz_assert(!(bits & NGX_LLM_EV_ONLY_USAGE)
                || !(bits & ~(NGX_LLM_EV_DATA|NGX_LLM_EV_USAGE
                              |NGX_LLM_EV_ONLY_USAGE)));

    free(memory);
    free(copy);
}


static void
fuzz_body(const ngx_llm_api_t *api, const uint8_t *p, size_t len)
{
    unsigned            bits;
    unsigned char      *copy;
    fuzz_answer_t       got;
    ngx_llm_scratch_t   scratch;

    memset(&got, 0, sizeof(fuzz_answer_t));

    copy = fuzz_copy(p, len);
    scratch.data = NULL;
    scratch.size_bytes = 0;
    scratch.names = &got.names;
    scratch.shapes = NULL;

    ngx_llm_answer_init(&got.answer, api);

    bits = ngx_llm_answer_body(&got.answer, copy, len, &scratch);

    fuzz_assert(!(bits & NGX_LLM_EV_UNREAD) == !!(bits & NGX_LLM_EV_END));
    fuzz_assert(got.answer.events == 0 && got.answer.content_events == 0);
    fuzz_sane(&got);

    free(copy);
}


/* all but the shape, which depends on the way */

static int
fuzz_same(const fuzz_answer_t *a, const fuzz_answer_t *b)
{
    return memcmp(&a->answer, &b->answer, offsetof(ngx_llm_answer_t, shape))
           == 0
           && memcmp(&a->names, &b->names, sizeof(ngx_llm_names_t)) == 0;
}


/* a budget cannot be talked out of what was used, nor into absurd sums */

static void
fuzz_sane(const fuzz_answer_t *got)
{
    size_t                   i;
    const ngx_llm_answer_t  *answer = &got->answer;
    const ngx_llm_usage_t    usage = ngx_llm_answer_usage(answer);

    const int64_t  counts[] = {
        usage.prompt, usage.cached, usage.completion, usage.reasoning
    };

    for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        fuzz_assert(counts[i] >= -1 && counts[i] <= 3 * NGX_LLM_MAX_TOKENS);
    }

    fuzz_assert(answer->content_events <= answer->events);
    fuzz_assert(got->names.model_len <= sizeof(got->names.model));
    fuzz_assert(got->names.finish_len <= sizeof(got->names.finish));
    fuzz_assert(got->names.error_len <= sizeof(got->names.error));
    fuzz_assert(answer->error_status == 0
                || (answer->error_status >= 400
                    && answer->error_status <= 599));
}
