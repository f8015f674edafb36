
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <math.h>
#include <stdio.h>
#include <string.h>

#include "load.h"


/*
 * Workloads in place of a trace: percentiles of the lengths, number of
 * requests and mean time between them are those of the Azure LLM inference
 * trace of 2023 (conversation) and of Mooncake's synthetic trace (FAST'25).
 * Lengths are lognormal between two neighbouring percentiles, arrivals are
 * Poisson.  Mooncake's conversations go on: such a request repeats the
 * blocks of one of the last hundreds and adds a little.
 */

#define LOAD_QUANTILES  11
#define LOAD_RECENT     600

typedef struct {
    const char   *name;
    size_t        requests;
    double        gap_ms;
    double        continued;        /* share of requests that go on */
    double        prompt[LOAD_QUANTILES];
    double        output[LOAD_QUANTILES];
} load_model_t;


static double load_generate_length(const double *quantiles);
static void load_generate_fresh(load_job_t *job, const load_model_t *model);
static void load_generate_continue(load_trace_t *trace, load_job_t *job);
static const load_job_t *load_generate_past(load_trace_t *trace);


static const double  load_shares[LOAD_QUANTILES] = {
    0, .01, .05, .1, .25, .5, .75, .9, .95, .99, 1
};

static const load_model_t  load_models[] = {

    { "azure", 19366, 180.9, 0,
      { 2, 29, 181, 207, 396, 1020, 1189, 2735, 4083, 4142, 14050 },
      { 7, 16, 41, 54, 85, 129, 395, 424, 451, 601, 1000 } },

    /* the prompts: of the requests that begin a conversation */

    { "mooncake", 3993, 256, .446,
      { 13, 16, 20, 24, 42, 573, 16501, 26914, 37064, 55115, 191374 },
      { 1, 2, 2, 4, 11, 69, 250, 389, 519, 769, 893 } },

    { NULL, 0, 0, 0, { 0 }, { 0 } }
};


static uint64_t  load_generate_state;
static uint64_t  load_generate_block;


int
load_generate(load_trace_t *trace, const char *kind)
{
    double               at_ms;
    load_job_t          *job;
    const load_model_t  *model;

    for (model = load_models; model->name; model++) {
        if (strcmp(model->name, kind) == 0) {
            break;
        }
    }

    if (model->name == NULL) {
        fprintf(stderr, "llm-load: --generate: azure or mooncake\n");
        return -1;
    }

    load_generate_state = load_conf.seed;
    load_generate_block = load_random_mix(load_conf.seed, 1) >> 1;
    at_ms = 0;

    while (trace->njobs < model->requests && trace->njobs < load_conf.limit) {

        job = load_trace_add(trace);

        job->at_ms = at_ms;
        job->output = (uint64_t) load_generate_length(model->output);

        if (trace->njobs > 1
            && load_random_unit(&load_generate_state) <= model->continued)
        {
            load_generate_continue(trace, job);

        } else {
            load_generate_fresh(job, model);
        }

        at_ms -= log(load_random_unit(&load_generate_state)) * model->gap_ms;
    }

    return 0;
}


static double
load_generate_length(const double *quantiles)
{
    int     i;
    double  u, part;

    u = load_random_unit(&load_generate_state);

    for (i = 1; i < LOAD_QUANTILES - 1 && u > load_shares[i]; i++) {
        /* void */
    }

    part = (u - load_shares[i - 1]) / (load_shares[i] - load_shares[i - 1]);

    return quantiles[i - 1] * pow(quantiles[i] / quantiles[i - 1], part);
}


static void
load_generate_fresh(load_job_t *job, const load_model_t *model)
{
    size_t  i;

    job->prompt = (uint64_t) load_generate_length(model->prompt);

    /* without shared prefixes the text is made when the request is */

    if (model->continued == 0) {
        return;
    }

    job->nblocks = (job->prompt + LOAD_BLOCK_TOKENS - 1) / LOAD_BLOCK_TOKENS;
    job->blocks = mem_zero_alloc((job->nblocks + 1) * sizeof(uint64_t));

    for (i = 0; i < job->nblocks; i++) {
        job->blocks[i] = load_generate_block++;
    }
}


/* all whole blocks of the earlier request, and what is new */

static void
load_generate_continue(load_trace_t *trace, load_job_t *job)
{
    size_t             i, shared;
    const load_job_t  *past;

    past = load_generate_past(trace);

    shared = past->prompt / LOAD_BLOCK_TOKENS;

    job->prompt = past->prompt
                  + load_random(&load_generate_state) % (LOAD_BLOCK_TOKENS / 4);
    job->nblocks = (job->prompt + LOAD_BLOCK_TOKENS - 1) / LOAD_BLOCK_TOKENS;
    job->blocks = mem_zero_alloc((job->nblocks + 1) * sizeof(uint64_t));

    for (i = 0; i < job->nblocks; i++) {
        job->blocks[i] = i < shared ? past->blocks[i] : load_generate_block++;
    }
}


/* the longer ones of the conversations are more likely to go on */

static const load_job_t *
load_generate_past(load_trace_t *trace)
{
    size_t             i, n, k, picks;
    const load_job_t  *past, *other;

    n = trace->njobs - 1;
    past = NULL;
    picks = load_random(&load_generate_state) % 4 ? 2 : 1;

    for (i = 0; i < picks; i++) {
        k = load_random(&load_generate_state)
            % (n < LOAD_RECENT ? n : LOAD_RECENT);

        other = &trace->jobs[n - 1 - k];

        if (past == NULL || other->prompt > past->prompt) {
            past = other;
        }
    }

    return past;
}
