
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stdio.h>
#include <string.h>

#include "load.h"
#include "opt.h"
#include "pick.h"


/* a constant, and what it is multiplied by in the table */
typedef struct {
    const char         *name;
    double             *field;
    double              factors[7];
} pick_knob_t;


static int pick_prepare(void);
static void pick_take_job(pick_request_t *r, const load_job_t *job);
static uint32_t pick_number(uint64_t name, int key);
static void pick_table(void);
static void pick_carried(void);
static void pick_sensitivity(void);
static void pick_row(const char *name, const pick_balancer_t *balancer);


pick_conf_t  pick_conf = {
    .prefill = 20000,
    .itl_ms = 20,
    .slope_ms = 0.3,
    .slow = 0.5,
    .batch = 64,
    .chunk = PICK_BLOCK,
    .cache = 1000000,
    .servers = 8,
    .load = 0.5,
    .seed = 1,
    .bound = 1.25,
    .request = 1,
    .forget = 1,
    .window = 1,
    .prior = 1,
    .band = 1
};

pick_request_t  *pick_requests;
size_t           pick_nrequests;
uint32_t         pick_nblocks;
uint32_t         pick_nkeys;

/* of tools/llm-load, whose traces are read */
load_conf_t      load_conf = { .limit = 1 << 30, .seed = 1 };


static int       pick_do_carried;
static int       pick_do_sensitivity;


static const char  pick_help[] =
"pick: chooses servers for a workload, against modelled ones\n"
"\n"
"  --trace FILE  --generate azure|mooncake  --limit N   as llm-load\n"
"  --servers N   --slow N        so many of them at half speed\n"
"  --load X                      as in bench/balance (default 0.5)\n"
"  --prefill N --itl MS --itl-slope MS --batch N --chunk N\n"
"  --prefix-cache N              as llm-sim; the cache: default 1000000\n"
"  --bound X                     the directive's (default 1.25)\n"
"  --request X                   times what a request in flight costs\n"
"  --forget X                    times the learned size of a cache\n"
"  --window X  --prior X         times what speeds are learned from, and what\n"
"                                is believed of a server before\n"
"  --band X                      times the band in which speeds are equal\n"
"  --wrong X                     sigma of the estimate's lognormal error\n"
"  --seed N\n"
"  --carried                     the load at 90% goodput, too\n"
"  --sensitivity                 the module's constants, each changed alone\n"
"\n"
"Figures are means of three seeds.\n";


static const opt_t  pick_opts[] = {
    { "trace", OPT_TEXT, &load_conf.trace_file, 0, NULL },
    { "generate", OPT_TEXT, &load_conf.generate, 0, NULL },
    { "limit", OPT_COUNT, &load_conf.limit, 1, NULL },
    { "servers", OPT_COUNT, &pick_conf.servers, 1, NULL },
    { "slow", OPT_COUNT, &pick_conf.nslow, 0, NULL },
    { "load", OPT_NUMBER, &pick_conf.load, 0.001, NULL },
    { "prefill", OPT_NUMBER, &pick_conf.prefill, 1, NULL },
    { "itl", OPT_NUMBER, &pick_conf.itl_ms, 0, NULL },
    { "itl-slope", OPT_NUMBER, &pick_conf.slope_ms, 0, NULL },
    { "batch", OPT_COUNT, &pick_conf.batch, 1, NULL },
    { "chunk", OPT_COUNT, &pick_conf.chunk, 1, NULL },
    { "prefix-cache", OPT_COUNT, &pick_conf.cache, PICK_BLOCK, NULL },
    { "bound", OPT_NUMBER, &pick_conf.bound, 0, NULL },
    { "request", OPT_NUMBER, &pick_conf.request, 0, NULL },
    { "forget", OPT_NUMBER, &pick_conf.forget, 0, NULL },
    { "window", OPT_NUMBER, &pick_conf.window, 0.001, NULL },
    { "prior", OPT_NUMBER, &pick_conf.prior, 0, NULL },
    { "band", OPT_NUMBER, &pick_conf.band, 0, NULL },
    { "wrong", OPT_NUMBER, &pick_conf.wrong, 0, NULL },
    { "seed", OPT_COUNT, &pick_conf.seed, 0, NULL },
    { "carried", OPT_FLAG, &pick_do_carried, 0, NULL },
    { "sensitivity", OPT_FLAG, &pick_do_sensitivity, 0, NULL },
    { NULL, OPT_FLAG, NULL, 0, NULL }
};


int
main(int argc, char *argv[])
{
    int  rc;

    rc = opt_parse(pick_opts, pick_help, argc, argv);

    if (rc != -1) {
        return rc;
    }

    if (pick_conf.servers > PICK_SERVERS || pick_conf.nslow > pick_conf.servers)
    {
        fprintf(stderr, "pick: up to %d --servers, --slow of them\n",
                PICK_SERVERS);
        return 2;
    }

    if (pick_prepare() == -1) {
        return 2;
    }

    if (pick_do_sensitivity) {
        pick_sensitivity();
        return 0;
    }

    pick_table();

    if (pick_do_carried) {
        pick_carried();
    }

    return 0;
}


static int
pick_prepare(void)
{
    size_t        i;
    load_trace_t  trace;

    memset(&trace, 0, sizeof(load_trace_t));

    if (load_conf.trace_file ? load_trace_read(&trace, load_conf.trace_file)
                             : load_generate(&trace, load_conf.generate
                                                     ? load_conf.generate
                                                     : "mooncake"))
    {
        return -1;
    }

    pick_nrequests = trace.njobs;
    pick_requests = mem_zero_alloc(trace.njobs * sizeof(pick_request_t));

    for (i = 0; i < trace.njobs; i++) {
        pick_take_job(&pick_requests[i], &trace.jobs[i]);
    }

    pick_nblocks = pick_number(0, -1);
    pick_nkeys = pick_number(0, -2);

    return 0;
}


/* blocks and keys get numbers from 0; without blocks each has a key */

static void
pick_take_job(pick_request_t *r, const load_job_t *job)
{
    uint32_t  i;
    uint64_t  key;

    r->at_ms = job->at_ms;
    r->prompt = job->prompt ? (uint32_t) job->prompt : 1;
    r->output = job->output ? (uint32_t) job->output : 1;

    r->nblocks = r->prompt / LOAD_BLOCK_TOKENS;
    r->nblocks = r->nblocks < job->nblocks ? r->nblocks
                                           : (uint32_t) job->nblocks;
    r->blocks = mem_zero_alloc((r->nblocks + 1) * sizeof(uint32_t));

    for (i = 0; i < r->nblocks; i++) {
        r->blocks[i] = pick_number(job->blocks[i], 0);
    }

    key = (uint64_t) (r - pick_requests) | (uint64_t) 1 << 62;

    if (job->nblocks > 1) {
        key = load_random_mix(job->blocks[0], job->blocks[1]);
    }

    r->key = pick_number(key, 1);
}


/* of a block's or key's name; -1, -2: how many blocks and keys there are */

static uint32_t
pick_number(uint64_t name, int key)
{
    size_t           i;
    static uint32_t  counts[2];

    static struct {
        uint64_t     name;
        uint32_t     number;            /* from 1 */
    } *table[2];

    if (key < 0) {
        return counts[-1 - key];
    }

    if (table[key] == NULL) {
        table[key] = mem_zero_alloc(sizeof(*table[key]) << 23);
    }

    i = load_random_mix(name, 3) >> 41;

    while (table[key][i].number && table[key][i].name != name) {
        i = (i + 1) & ((1 << 23) - 1);
    }

    if (table[key][i].number == 0) {
        table[key][i].name = name;
        table[key][i].number = ++counts[key];
    }

    return table[key][i].number - 1;
}


static void
pick_table(void)
{
    const pick_balancer_t  *balancer;

    printf("load %.2f %22s\n", pick_conf.load, "first token, s");
    printf("%-17s %7s %7s %8s %6s %6s %8s\n", "", "p50", "p99", "goodput",
           "hits", "busy", "busiest");

    for (balancer = pick_balancers; balancer->name; balancer++) {
        pick_row(balancer->name, balancer);
    }
}


static void
pick_row(const char *name, const pick_balancer_t *balancer)
{
    pick_result_t  result;

    result = pick_run(balancer);

    printf("%-17s %7.2f %7.2f %7.1f%% %5.1f%% %5.0f%% %7.2fx\n", name,
           result.p50 / 1000, result.p99 / 1000, result.good * 100,
           result.hits * 100, result.busy * 100, result.busiest);
}


static void
pick_carried(void)
{
    const pick_balancer_t  *balancer;

    printf("\nload carried at %.0f%% goodput\n", PICK_GOOD * 100.0);

    for (balancer = pick_balancers; balancer->name; balancer++) {
        printf("%-17s %7.2f\n", balancer->name, pick_run_carried(balancer));
    }
}


static void
pick_sensitivity(void)
{
    int                     i;
    char                    name[32];
    double                  usual;
    pick_knob_t            *knob;
    const pick_balancer_t  *balancer;

    static pick_knob_t  knobs[] = {
        { "request cost", &pick_conf.request, { .05, .2, .5, 1, 2, 5, 20 } },
        { "cache size", &pick_conf.forget, { .05, .2, .5, 1, 2, 5, 20 } },
        { "speed window", &pick_conf.window, { .05, .2, .5, 1, 2, 5, 20 } },
        { "speed prior", &pick_conf.prior, { .05, .2, .5, 1, 2, 5, 20 } },
        { "speed band", &pick_conf.band, { .05, .2, .5, 1, 2, 5, 20 } },
        { "bound", &pick_conf.bound, { .05, .2, .5, 1, 2, 5, 20 } },
        { NULL, NULL, { 0 } }
    };

    for (balancer = pick_balancers; !balancer->affinity; balancer++) {
        /* void */
    }

    printf("%-17s %7s %7s %8s %6s %6s %8s   at load %.2f\n", balancer->name,
           "p50", "p99", "goodput", "hits", "busy", "busiest",
           pick_conf.load);

    for (knob = knobs; knob->name; knob++) {
        usual = *knob->field;

        for (i = 0; i < 7; i++) {
            *knob->field = usual * knob->factors[i];
            snprintf(name, sizeof(name), "%s x%g", knob->name,
                     knob->factors[i]);
            pick_row(name, balancer);
        }

        *knob->field = usual;
    }

    for (i = 0; i < 4; i++) {
        pick_conf.wrong = i * 0.3;
        snprintf(name, sizeof(name), "estimate e^%.1f", pick_conf.wrong);
        pick_row(name, balancer);
    }
}
