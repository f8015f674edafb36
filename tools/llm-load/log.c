
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stdio.h>

#include "load.h"


/*
 * A line for each request when it has ended, for who wants to know more than
 * percentiles: when it was due, counted from the start, and its times from
 * then on, all in milliseconds of this run; a time that is missing is "-".
 */

static void load_log_ms(double ms, int known);


static FILE  *load_log_file;


int
load_log_open(const char *name)
{
    load_log_file = fopen(name, "w");

    if (load_log_file == NULL) {
        perror(name);
        return -1;
    }

    fputs("# number due first token total prompt output made outcome\n",
          load_log_file);

    return 0;
}


void
load_log_write(const load_conn_t *c, const char *outcome, uint64_t now_us)
{
    const load_reply_t  *reply;

    if (load_log_file == NULL) {
        return;
    }

    reply = &c->reply;

    fprintf(load_log_file, "%llu %.3f", (unsigned long long) c->number,
            (c->start_us - load_stats.start_us) / 1000.0);

    load_log_ms((reply->first_us - (double) c->start_us) / 1000,
                reply->first_us != 0);
    load_log_ms((reply->last_us - reply->first_us) / 1000.0
                / (reply->tokens - 1.0), reply->tokens > 1);
    load_log_ms((now_us - c->start_us) / 1000.0, 1);

    fprintf(load_log_file, " %llu %llu %llu %s\n",
            (unsigned long long) c->prompt, (unsigned long long) c->output,
            (unsigned long long) reply->tokens, outcome);
}


static void
load_log_ms(double ms, int known)
{
    if (known) {
        fprintf(load_log_file, " %.3f", ms);

    } else {
        fputs(" -", load_log_file);
    }
}


/* -1 if it could not be written */

int
load_log_close(void)
{
    if (load_log_file == NULL) {
        return 0;
    }

    if (fclose(load_log_file) != 0) {
        perror("--log");
        return -1;
    }

    return 0;
}
