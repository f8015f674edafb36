
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#define _GNU_SOURCE

#include <string.h>

#include "sim.h"


typedef struct {
    const char            *path;
    const sim_dialect_t   *dialect;
} sim_route_t;


static void sim_route_gemini(sim_req_t *r, str_t path, str_t query);
static void sim_route_model(sim_req_t *r, const char *data, size_t len);
static void sim_route_models(sim_req_t *r, buf_t *b);
static void sim_route_stats(sim_req_t *r, buf_t *b);
static void sim_route_zero(sim_req_t *r, buf_t *b);
static int sim_route_below(str_t path, const char *folder);


static const sim_route_t  sim_routes[] = {
    { "/v1/chat/completions", &sim_openai_chat },
    { "/v1/completions",      &sim_openai_completions },
    { "/v1/embeddings",       &sim_openai_embeddings },
    { "/v1/responses",        &sim_openai_responses },
    { "/v1/messages",         &sim_anthropic_messages },
    { "/api/chat",            &sim_ollama_chat },
    { "/api/generate",        &sim_ollama_generate },
    { NULL, NULL }
};

#define SIM_GEMINI  "/v1beta/models/"
#define SIM_ERNIE   "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/"


void
sim_route(sim_req_t *r, const http_head_t *h)
{
    str_t               path, query;
    const sim_route_t  *route;

    query = h->path;
    str_split(&query, '?', &path);

    if (str_eq(path, "/sim/stats")) {
        r->local = str_eq(h->method, "DELETE") ? sim_route_zero
                                               : sim_route_stats;
        return;
    }

    if (str_eq(path, "/v1/models")) {
        r->local = sim_route_models;
        return;
    }

    for (route = sim_routes; route->path != NULL; route++) {
        if (str_eq(path, route->path)) {
            r->dialect = route->dialect;
            r->frame = route->dialect->frame;
            r->ask.stream = route->dialect->stream_default;
        }
    }

    if (sim_route_below(path, SIM_GEMINI)) {
        sim_route_gemini(r, path, query);

    } else if (sim_route_below(path, SIM_ERNIE)) {
        r->dialect = &sim_ernie;
        sim_route_model(r, path.data + strlen(SIM_ERNIE),
                        path.len - strlen(SIM_ERNIE));
    }

    if (r->dialect == NULL) {
        r->refuse = 404;
        r->refusal = "there is nothing at this path";

    } else if (!str_eq(h->method, "POST")) {
        r->refuse = 405;
        r->refusal = "only POST is allowed here";
    }
}


/* MODEL:generateContent, MODEL:streamGenerateContent */

static void
sim_route_gemini(sim_req_t *r, str_t path, str_t query)
{
    str_t  model, rest;

    rest.data = path.data + strlen(SIM_GEMINI);
    rest.len = path.len - strlen(SIM_GEMINI);

    str_split(&rest, ':', &model);

    if (str_eq(rest, "streamGenerateContent")) {
        r->ask.stream = 1;

        if (query.len == 0
            || memmem(query.data, query.len, "alt=sse", 7) == NULL)
        {
            r->frame = SIM_FRAME_ARRAY;
        }

    } else if (!str_eq(rest, "generateContent")) {
        return;
    }

    r->dialect = &sim_gemini;
    sim_route_model(r, model.data, model.len);
}


static void
sim_route_model(sim_req_t *r, const char *data, size_t len)
{
    r->ask.model = strndup(data, len);
}


static int
sim_route_below(str_t path, const char *folder)
{
    size_t  n;

    n = strlen(folder);

    return path.len > n && memcmp(path.data, folder, n) == 0;
}


static void
sim_route_models(sim_req_t *r, buf_t *b)
{
    buf_add_fmt(b, "{\"object\":\"list\",\"data\":[{\"id\":\"sim\","
                   "\"object\":\"model\",\"created\":%lld,"
                   "\"owned_by\":\"llm-sim\"}]}", (long long) r->created);
}


static void
sim_route_stats(sim_req_t *r, buf_t *b)
{
    (void) r;

    sim_stats_json(b);
}


static void
sim_route_zero(sim_req_t *r, buf_t *b)
{
    (void) r;

    sim_stats_zero();
    sim_stats_json(b);
}
