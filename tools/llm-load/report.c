
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "load.h"


#define LOAD_TTY_US    1000000
#define LOAD_PLAIN_US  5000000


static void load_report_timer(loop_timer_t *t);
static double load_report_seconds(void);
static uint64_t load_report_transport(void);
static void load_report_text(buf_t *b);
static void load_report_text_hist(buf_t *b, const char *name,
    const load_hist_t *h);
static void load_report_json(buf_t *b);
static void load_report_json_hist(buf_t *b, const char *name,
    const load_hist_t *h);
static void load_report_status(buf_t *b, int json);


static const char  *load_outcome_names[LOAD_OUTCOMES] = {
    "complete", "http_errors", "error_events", "truncated", "aborted",
    "unfinished", "refused", "reset", "closed", "malformed", "timeout",
    "local"
};


static loop_timer_t  load_progress = { load_report_timer, 0, 0 };
static uint64_t      load_progress_us;
static uint64_t      load_progress_tokens;


void
load_report_start(void)
{
    if (load_conf.quiet) {
        return;
    }

    load_progress_us = isatty(STDERR_FILENO) ? LOAD_TTY_US : LOAD_PLAIN_US;
    loop_timer_set(&load_progress, loop_now_us + load_progress_us);
}


static void
load_report_timer(loop_timer_t *t)
{
    uint64_t  *o, tokens, failed;

    o = load_stats.outcomes;

    tokens = load_stats.tokens - load_progress_tokens;
    load_progress_tokens = load_stats.tokens;

    failed = o[LOAD_HTTP_ERROR] + o[LOAD_ERROR_EVENT] + o[LOAD_TRUNCATED]
             + load_report_transport();

    fprintf(stderr, "%s%5.0f s  %llu started  %llu in flight  %llu complete"
            "  %llu failed  %.0f tokens/s  first token p50 %.1f ms%s",
            load_progress_us == LOAD_TTY_US ? "\r" : "", load_report_seconds(),
            (unsigned long long) load_stats.started,
            (unsigned long long) load_stats.inflight,
            (unsigned long long) o[LOAD_COMPLETE],
            (unsigned long long) failed, tokens * 1e6 / load_progress_us,
            load_hist_percentile(&load_stats.first, 50) / 1000.0,
            load_progress_us == LOAD_TTY_US ? "\033[K" : "\n");

    loop_timer_set(t, t->at_us + load_progress_us);
}


static double
load_report_seconds(void)
{
    return (loop_clock_us() - load_stats.start_us) / 1e6;
}


static uint64_t
load_report_transport(void)
{
    int       i;
    uint64_t  n;

    n = 0;

    for (i = LOAD_REFUSED; i < LOAD_OUTCOMES; i++) {
        n += load_stats.outcomes[i];
    }

    return n;
}


const char *
load_report_outcome(load_outcome_e outcome)
{
    return load_outcome_names[outcome];
}


/* the exit code */

int
load_report_end(void)
{
    buf_t      b;
    uint64_t  *o;

    memset(&b, 0, sizeof(b));

    o = load_stats.outcomes;

    if (load_progress_us == LOAD_TTY_US) {
        fputs("\r\033[K", stderr);
    }

    if (load_conf.json) {
        load_report_json(&b);

    } else {
        load_report_text(&b);
    }

    fwrite(b.data, 1, b.len, stdout);
    buf_free(&b);

    if (o[LOAD_TRUNCATED] || load_report_transport()) {
        return 1;
    }

    if (load_conf.abort_after) {
        return o[LOAD_COMPLETE] + o[LOAD_ABORTED] ? 0 : 1;
    }

    return o[LOAD_COMPLETE] ? 0 : 1;
}


static void
load_report_text(buf_t *b)
{
    int            i;
    double         sec;
    load_stats_t  *st;

    st = &load_stats;
    sec = load_report_seconds();

    if (load_conf.generate != NULL) {
        buf_add_fmt(b, "workload generated with the statistics of the %s"
                    " trace\n", load_conf.generate);
    }

    buf_add_fmt(b, "%llu requests in %.2f s, at most %llu at once\n",
                (unsigned long long) st->started, sec,
                (unsigned long long) st->max_inflight);

    for (i = 0; i < LOAD_OUTCOMES; i++) {

        if (st->outcomes[i] || i == LOAD_COMPLETE || i == LOAD_TRUNCATED) {
            buf_add_fmt(b, "  %-14s %llu\n", load_outcome_names[i],
                        (unsigned long long) st->outcomes[i]);
        }
    }

    load_report_status(b, 0);

    if (st->left_open) {
        buf_add_fmt(b, "  left open past their end: %llu\n",
                    (unsigned long long) st->left_open);
    }

    buf_add_fmt(b, "%llu events, %llu of them content; %llu bytes\n",
                (unsigned long long) st->events,
                (unsigned long long) st->tokens,
                (unsigned long long) st->bytes);
    buf_add_fmt(b, "%.1f requests/s, %.1f content events/s\n",
                st->outcomes[LOAD_COMPLETE] / sec, st->tokens / sec);

    if (st->usages) {
        buf_add_fmt(b, "usage of %llu answers: %.0f prompt (%.0f cached),"
                    " %.0f completion tokens\n",
                    (unsigned long long) st->usages, st->usage.prompt,
                    st->usage.cached, st->usage.completion);
    }

    buf_add_fmt(b, "%-22s %10s %10s %10s %10s  (ms)\n", "", "p50", "p90",
                "p99", "max");
    load_report_text_hist(b, "first token", &st->first);
    load_report_text_hist(b, "between tokens", &st->gap);
    load_report_text_hist(b, "whole answer", &st->total);
}


static void
load_report_text_hist(buf_t *b, const char *name, const load_hist_t *h)
{
    buf_add_fmt(b, "%-22s %10.3f %10.3f %10.3f %10.3f\n", name,
                load_hist_percentile(h, 50) / 1000.0,
                load_hist_percentile(h, 90) / 1000.0,
                load_hist_percentile(h, 99) / 1000.0, h->max / 1000.0);
}


static void
load_report_json(buf_t *b)
{
    int            i;
    double         sec;
    load_stats_t  *st;

    st = &load_stats;
    sec = load_report_seconds();

    if (load_conf.generate != NULL) {
        buf_add_fmt(b, "{\"workload\":\"generated: %s\"", load_conf.generate);

    } else {
        buf_add_fmt(b, "{\"workload\":\"%s\"",
                    load_conf.trace.njobs ? "trace" : "uniform");
    }

    buf_add_fmt(b, ",\"seconds\":%.3f,\"requests\":%llu,\"max_inflight\":%llu",
                sec, (unsigned long long) st->started,
                (unsigned long long) st->max_inflight);

    for (i = 0; i < LOAD_REFUSED; i++) {
        buf_add_fmt(b, ",\"%s\":%llu", load_outcome_names[i],
                    (unsigned long long) st->outcomes[i]);
    }

    buf_add_fmt(b, ",\"transport_errors\":%llu,\"transport\":{",
                (unsigned long long) load_report_transport());

    for (i = LOAD_REFUSED; i < LOAD_OUTCOMES; i++) {
        buf_add_fmt(b, "%s\"%s\":%llu", i > LOAD_REFUSED ? "," : "",
                    load_outcome_names[i],
                    (unsigned long long) st->outcomes[i]);
    }

    buf_add_str(b, "},\"http_status\":{");
    load_report_status(b, 1);

    buf_add_fmt(b, "},\"left_open\":%llu,\"events\":%llu,\"tokens\":%llu,"
                "\"bytes\":%llu,\"requests_per_sec\":%.3f,"
                "\"tokens_per_sec\":%.3f",
                (unsigned long long) st->left_open,
                (unsigned long long) st->events,
                (unsigned long long) st->tokens,
                (unsigned long long) st->bytes,
                st->outcomes[LOAD_COMPLETE] / sec, st->tokens / sec);

    buf_add_fmt(b, ",\"usage\":{\"answers\":%llu,\"prompt_tokens\":%.0f,"
                "\"cached_tokens\":%.0f,\"completion_tokens\":%.0f}",
                (unsigned long long) st->usages, st->usage.prompt,
                st->usage.cached, st->usage.completion);

    load_report_json_hist(b, "late_ms", &st->late);
    load_report_json_hist(b, "first_token_ms", &st->first);
    load_report_json_hist(b, "gap_ms", &st->gap);
    load_report_json_hist(b, "total_ms", &st->total);

    buf_add_str(b, "}\n");
}


static void
load_report_json_hist(buf_t *b, const char *name, const load_hist_t *h)
{
    buf_add_fmt(b, ",\"%s\":{\"count\":%llu,\"mean\":%.3f,\"p50\":%.3f,"
                "\"p90\":%.3f,\"p99\":%.3f,\"max\":%.3f}", name,
                (unsigned long long) h->count,
                h->count ? h->sum / h->count / 1000 : 0.0,
                load_hist_percentile(h, 50) / 1000.0,
                load_hist_percentile(h, 90) / 1000.0,
                load_hist_percentile(h, 99) / 1000.0, h->max / 1000.0);
}


/* as members of a JSON object, or as lines */

static void
load_report_status(buf_t *b, int json)
{
    int          i;
    const char  *comma;

    comma = "";

    for (i = 0; i < LOAD_STATUS_SIZE; i++) {

        if (load_stats.status[i] == 0) {
            continue;
        }

        if (json) {
            buf_add_fmt(b, "%s\"%d\":%llu", comma, i,
                        (unsigned long long) load_stats.status[i]);

        } else {
            buf_add_fmt(b, "    status %-5d %llu\n", i,
                        (unsigned long long) load_stats.status[i]);
        }

        comma = ",";
    }
}
