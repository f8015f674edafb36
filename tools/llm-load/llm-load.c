
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"
#include "opt.h"


#define LOAD_NO_LIMIT  (1 << 30)


static int load_set_url(const char *value);
static int load_set_dialect(const char *value);
static int load_set_header(const char *value);
static int load_complete_targets(void);
static int load_complete_workload(void);


load_conf_t  load_conf = {
    .concurrency = 1,
    .drain_sec = 10,
    .time_scale = 1,
    .limit = LOAD_NO_LIMIT,
    .model = "sim",
    .prompt_tokens = 32,
    .max_tokens = 64,
    .timeout_sec = 300,
    .seed = 1
};

load_stats_t  load_stats;


static const char  load_help[] =
"llm-load: puts LLM servers under a load of streamed requests\n"
"\n"
"  --url URL            http://HOST[:PORT][/PATH], HOST an IPv4 address or\n"
"                       localhost; repeatable: round robin\n"
"  --dialect D          openai, anthropic, responses, ollama or gemini: the\n"
"                       request's shape, the answer's events, the path of an\n"
"                       URL without one (default openai; with paths\n"
"                       /v1/completions and /api/generate a plain prompt)\n"
"\n"
"when requests start:\n"
"  --concurrency N      so many at a time, the default: 1 (closed loop)\n"
"  --rate R             R a second, at random (Poisson), independently of\n"
"                       what became of those before (open loop)\n"
"  --trace FILE         when the trace says so, of its lengths: CSV of Azure\n"
"                       (TIMESTAMP,ContextTokens,GeneratedTokens) or JSON\n"
"                       lines of Mooncake (equal hash_ids: equal text)\n"
"  --generate azure|mooncake  a workload of the same statistics, without\n"
"                       the file\n"
"  --time-scale X       the trace's times are divided by X (default 1)\n"
"  --limit N            only the first N requests of the trace\n"
"  --describe           only says what the trace asks for, as JSON; no --url\n"
"  --requests N         ends after N requests (default: --concurrency, or\n"
"                       the whole trace, unless there is a --duration)\n"
"  --duration S         no new requests after S seconds\n"
"  --drain S            then those in flight have S seconds to end, before\n"
"                       they are cut off as \"unfinished\" (default 10)\n"
"\n"
"what they ask for:\n"
"  --model M            (default sim)\n"
"  --prompt-tokens N    of four bytes (default 32); all prompts of a run are\n"
"                       different, the next run with the same --seed sends\n"
"                       them again\n"
"  --max-tokens N       (default 64)\n"
"  --header 'K: V'      repeatable\n"
"  --keys N             \"Authorization: Bearer key-I\", I = request mod N\n"
"  --include-usage      asks for the usage event (openai)\n"
"  --no-stream          the answer in one piece\n"
"  --abort-after N      closes the connection after N content events\n"
"  --timeout S          of one request, from connecting on (default 300)\n"
"  --seed N             of all that is random (default 1)\n"
"\n"
"  --log FILE           a line for each request that has ended: its number,\n"
"                       when it was due, first token, mean time between two\n"
"                       tokens, whole answer (ms of this run), tokens of the\n"
"                       prompt and of the answer asked for and made, outcome\n"
"  --json               the results as JSON\n"
"  --quiet              no progress on stderr\n"
"  --help\n"
"\n"
"Outcomes, exactly one a request:\n"
"  complete      200, the dialect's terminal marker came (not streamed: a\n"
"                whole JSON object without error)\n"
"  http_errors   another status\n"
"  error_events  200, an error event came\n"
"  truncated     200, a proper end, but neither marker nor error: silent loss\n"
"  aborted       by --abort-after\n"
"  unfinished    cut off at the end of the run\n"
"  refused, reset, closed (the connection, in the middle of the answer),\n"
"  malformed (not HTTP), timeout, local (no descriptor...): transport errors\n"
"Connections are kept alive; one that the peer closes between two requests\n"
"counts for nothing.  A stream that stays open for a second after its marker\n"
"or error event is closed, and counted as left open besides.\n"
"An event's time is that of the read that completed it; percentiles are\n"
"within 1%.  In an open loop latencies count from when a request was due;\n"
"late_ms of the JSON is by how much it was started later than that.\n"
"\n"
"Traces name the length of each answer: it is sent as the maximum, and as\n"
"\"X-LLM-Sim: tokens=N\" for llm-sim.  Faults that llm-sim makes on order, by\n"
"--header 'X-LLM-Sim: key=value; ...' (llm-sim --help says what they mean):\n"
"  fault=reset|close|stall|comments|error|error-stay|filter|midevent|badchunk\n"
"  |end  at=header|first|N  only=PORT  status=CODE  retry_after=S  tokens=N\n"
"  itl=MS  ttft=MS  words=N  tool=1  usage=none|JSON  extra=JSON  split=N\n"
"  eol=lf|crlf|cr  bom=1  http=1.0  length=0  gzip=1|lie\n"
"\n"
"Exit code: 0 if at least one request was complete (with --abort-after: or\n"
"aborted) and none truncated or lost to a transport error, 1 otherwise, 2 for\n"
"wrong options.\n";


static const opt_t  load_opts[] = {
    { "url", OPT_CALL, NULL, 0, load_set_url },
    { "dialect", OPT_CALL, NULL, 0, load_set_dialect },
    { "concurrency", OPT_COUNT, &load_conf.concurrency, 1, NULL },
    { "rate", OPT_NUMBER, &load_conf.rate_per_sec, 0.001, NULL },
    { "trace", OPT_TEXT, &load_conf.trace_file, 0, NULL },
    { "generate", OPT_TEXT, &load_conf.generate, 0, NULL },
    { "time-scale", OPT_NUMBER, &load_conf.time_scale, 0.001, NULL },
    { "limit", OPT_COUNT, &load_conf.limit, 1, NULL },
    { "requests", OPT_COUNT, &load_conf.requests, 1, NULL },
    { "duration", OPT_NUMBER, &load_conf.duration_sec, 0.001, NULL },
    { "drain", OPT_NUMBER, &load_conf.drain_sec, 0, NULL },
    { "model", OPT_TEXT, &load_conf.model, 0, NULL },
    { "prompt-tokens", OPT_COUNT, &load_conf.prompt_tokens, 1, NULL },
    { "max-tokens", OPT_COUNT, &load_conf.max_tokens, 1, NULL },
    { "header", OPT_CALL, NULL, 0, load_set_header },
    { "keys", OPT_COUNT, &load_conf.keys, 1, NULL },
    { "include-usage", OPT_FLAG, &load_conf.include_usage, 0, NULL },
    { "no-stream", OPT_FLAG, &load_conf.no_stream, 0, NULL },
    { "abort-after", OPT_COUNT, &load_conf.abort_after, 1, NULL },
    { "timeout", OPT_NUMBER, &load_conf.timeout_sec, 0.001, NULL },
    { "seed", OPT_COUNT, &load_conf.seed, 0, NULL },
    { "log", OPT_TEXT, &load_conf.log_file, 0, NULL },
    { "describe", OPT_FLAG, &load_conf.describe, 0, NULL },
    { "json", OPT_FLAG, &load_conf.json, 0, NULL },
    { "quiet", OPT_FLAG, &load_conf.quiet, 0, NULL },
    { NULL, OPT_FLAG, NULL, 0, NULL }
};


int
main(int argc, char *argv[])
{
    int  rc, lost;

    rc = opt_parse(load_opts, load_help, argc, argv);

    if (rc != -1) {
        return rc;
    }

    if ((!load_conf.describe && load_complete_targets() == -1)
        || load_complete_workload() == -1)
    {
        return 2;
    }

    if (load_conf.describe) {
        load_trace_describe(&load_conf.trace);
        return 0;
    }

    net_raise_files();

    if (loop_init() == -1
        || (load_conf.log_file != NULL
            && load_log_open(load_conf.log_file) == -1))
    {
        return 1;
    }

    load_report_start();
    load_arrive_start();

    loop_run();

    load_conn_stop_all();

    lost = load_log_close();
    rc = load_report_end();

    return lost == -1 ? 1 : rc;
}


static int
load_set_url(const char *value)
{
    int             rc;
    str_t           rest;
    buf_t           addr;
    load_target_t  *target;

    if (strncmp(value, "http://", 7) != 0) {
        return -1;
    }

    load_conf.targets = mem_grow(load_conf.targets, load_conf.ntargets,
                                 sizeof(load_target_t));

    target = &load_conf.targets[load_conf.ntargets++];

    rest = (str_t) { value + 7, strlen(value + 7) };

    str_split(&rest, '/', &target->host);

    target->path = (str_t) { NULL, 0 };

    if (rest.len) {
        target->path = (str_t) { rest.data - 1, rest.len + 1 };
    }

    memset(&addr, 0, sizeof(addr));
    buf_add(&addr, target->host.data, target->host.len);

    if (memchr(target->host.data, ':', target->host.len) == NULL) {
        buf_add_str(&addr, ":80");
    }

    rc = net_parse_addr((str_t) { addr.data, addr.len }, &target->addr);

    buf_free(&addr);

    return rc;
}


static int
load_set_dialect(const char *value)
{
    return load_dialect_find(value, &load_conf.dialect);
}


static int
load_set_header(const char *value)
{
    if (strchr(value, ':') == NULL || strpbrk(value, "\r\n") != NULL) {
        return -1;
    }

    buf_add_str(&load_conf.headers, value);
    buf_add_str(&load_conf.headers, "\r\n");

    return 0;
}


/* the array does not grow any more: lists may start in it */

static int
load_complete_targets(void)
{
    size_t          i;
    const char     *path;
    load_target_t  *target;

    if (load_conf.ntargets == 0) {
        fprintf(stderr, "llm-load: no --url, see --help\n");
        return -1;
    }

    path = load_dialect_path(load_conf.dialect);

    for (i = 0; i < load_conf.ntargets; i++) {
        target = &load_conf.targets[i];

        link_init(&target->idle);

        if (target->path.len == 0) {
            target->path = (str_t) { path, strlen(path) };
        }
    }

    return 0;
}


static int
load_complete_workload(void)
{
    int  ways;

    ways = (load_conf.trace_file != NULL) + (load_conf.generate != NULL)
           + (load_conf.rate_per_sec > 0);

    if (ways > 1) {
        fprintf(stderr, "llm-load: one of --rate, --trace, --generate\n");
        return -1;
    }

    if (load_conf.trace_file != NULL
        && load_trace_read(&load_conf.trace, load_conf.trace_file) == -1)
    {
        return -1;
    }

    if (load_conf.generate != NULL
        && load_generate(&load_conf.trace, load_conf.generate) == -1)
    {
        return -1;
    }

    if (load_conf.trace.njobs
        && (load_conf.requests == 0
            || load_conf.requests > load_conf.trace.njobs))
    {
        load_conf.requests = load_conf.trace.njobs;
    }

    if (load_conf.requests || load_conf.duration_sec > 0) {
        return 0;
    }

    if (load_conf.rate_per_sec > 0) {
        fprintf(stderr, "llm-load: --rate needs --requests or --duration\n");
        return -1;
    }

    load_conf.requests = load_conf.concurrency;

    return 0;
}
