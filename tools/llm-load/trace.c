
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#define _GNU_SOURCE

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "json.h"
#include "load.h"


/*
 * Traces of real traffic.  Azure's are CSV with a head line, "TIMESTAMP,
 * ContextTokens,GeneratedTokens"; Mooncake's have a JSON object a line:
 * timestamp (ms), input_length, output_length, and hash_ids: one for each
 * block of 512 prompt tokens, equal ones for equal prefixes.
 */

static int load_trace_line(load_trace_t *trace, char *line, double *first_ms);
static int load_trace_azure(load_job_t *job, const char *line);
static int load_trace_mooncake(load_job_t *job, const char *line);


int
load_trace_read(load_trace_t *trace, const char *file)
{
    int      rc;
    FILE    *f;
    char    *line;
    size_t   size, n;
    double   first_ms;

    f = fopen(file, "r");

    if (f == NULL) {
        perror(file);
        return -1;
    }

    rc = 0;
    line = NULL;
    size = 0;
    first_ms = -1;

    for (n = 1; trace->njobs < load_conf.limit; n++) {

        if (getline(&line, &size, f) == -1) {
            break;
        }

        rc = load_trace_line(trace, line, &first_ms);

        if (rc == -1 && n > 1) {
            fprintf(stderr, "llm-load: %s:%zu: not a line of a trace\n",
                    file, n);
            break;
        }

        rc = 0;
    }

    if (trace->njobs == 0 && rc == 0) {
        fprintf(stderr, "llm-load: %s: no requests\n", file);
        rc = -1;
    }

    free(line);
    fclose(f);

    return rc;
}


/* empty lines and the first line (a CSV's head) need not be a job */

static int
load_trace_line(load_trace_t *trace, char *line, double *first_ms)
{
    int          rc;
    load_job_t  *job;

    line[strcspn(line, "\r\n")] = '\0';

    if (line[0] == '\0') {
        return 0;
    }

    job = load_trace_add(trace);

    rc = (line[0] == '{') ? load_trace_mooncake(job, line)
                          : load_trace_azure(job, line);

    if (rc == -1) {
        trace->njobs--;
        return -1;
    }

    if (*first_ms < 0) {
        *first_ms = job->at_ms;
    }

    job->at_ms -= *first_ms;

    return 0;
}


static int
load_trace_azure(load_job_t *job, const char *line)
{
    double              sec;
    struct tm           tm;
    unsigned long long  prompt, output;

    memset(&tm, 0, sizeof(tm));

    if (sscanf(line, "%d-%d-%d %d:%d:%lf,%llu,%llu", &tm.tm_year, &tm.tm_mon,
               &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &sec, &prompt, &output)
        != 8)
    {
        return -1;
    }

    tm.tm_year -= 1900;
    tm.tm_mon--;

    job->at_ms = ((double) timegm(&tm) + sec) * 1000;
    job->prompt = prompt;
    job->output = output;

    return 0;
}


static int
load_trace_mooncake(load_job_t *job, const char *line)
{
    double    at_ms, prompt, output;
    size_t    i;
    yajl_val  v, ids;

    v = json_parse(line);

    if (v == NULL) {
        return -1;
    }

    at_ms = json_number(json_get(v, "timestamp"), -1);
    prompt = json_number(json_get(v, "input_length"), -1);
    output = json_number(json_get(v, "output_length"), -1);
    ids = json_get(v, "hash_ids");

    if (at_ms < 0 || prompt < 0 || output < 0) {
        yajl_tree_free(v);
        return -1;
    }

    job->at_ms = at_ms;
    job->prompt = (uint64_t) prompt;
    job->output = (uint64_t) output;

    if (YAJL_IS_ARRAY(ids)) {
        job->nblocks = ids->u.array.len;
        job->blocks = mem_zero_alloc((job->nblocks + 1) * sizeof(uint64_t));

        for (i = 0; i < job->nblocks; i++) {
            job->blocks[i] = (uint64_t) json_number(ids->u.array.values[i], 0);
        }
    }

    yajl_tree_free(v);

    return 0;
}


load_job_t *
load_trace_add(load_trace_t *trace)
{
    trace->jobs = mem_grow(trace->jobs, trace->njobs, sizeof(load_job_t));
    memset(&trace->jobs[trace->njobs], 0, sizeof(load_job_t));

    return &trace->jobs[trace->njobs++];
}


/* seconds are those of the trace, between its first and its last request */

void
load_trace_describe(const load_trace_t *trace)
{
    size_t             i;
    double             prompt, output, sec;
    const load_job_t  *job;

    prompt = 0;
    output = 0;
    sec = 0;

    for (i = 0; i < trace->njobs; i++) {
        job = &trace->jobs[i];

        prompt += job->prompt;
        output += job->output;
        sec = job->at_ms / 1000;
    }

    printf("{\"requests\":%zu,\"seconds\":%.3f,\"prompt_tokens\":%.0f,"
           "\"output_tokens\":%.0f}\n", trace->njobs, sec, prompt, output);
}
