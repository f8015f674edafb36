
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "sim.h"


static double sim_stats_ms(uint64_t us);


void
sim_stats_json(buf_t *b)
{
    size_t         i;
    sim_stats_t   *st;
    sim_server_t  *s;

    buf_add_str(b, "{\"servers\":[");

    for (i = 0; i < sim_conf.nservers; i++) {
        s = &sim_conf.servers[i];
        st = &s->stats;

        buf_add_fmt(b, "%s\n{\"port\":%u,\"requests\":%llu,\"completed\":%llu,"
                    "\"aborted\":%llu,\"faulted\":%llu,\"inflight\":%llu,"
                    "\"max_inflight\":%llu,\"prompt_tokens\":%llu,"
                    "\"cached_tokens\":%llu,\"completion_tokens\":%llu,"
                    "\"made_tokens\":%llu,"
                    "\"steps\":%llu,\"busy_ms\":%.3f,\"late_ms\":%.3f,"
                    "\"late_max_ms\":%.3f}",
                    i ? "," : "", s->port,
                    (unsigned long long) st->requests,
                    (unsigned long long) st->completed,
                    (unsigned long long) st->aborted,
                    (unsigned long long) st->faulted,
                    (unsigned long long) st->inflight,
                    (unsigned long long) st->max_inflight,
                    (unsigned long long) st->prompt_tokens,
                    (unsigned long long) st->cached_tokens,
                    (unsigned long long) st->completion_tokens,
                    (unsigned long long) st->made_tokens,
                    (unsigned long long) st->steps, st->busy_us / 1000,
                    sim_stats_ms(st->late_us), sim_stats_ms(st->late_max_us));
    }

    buf_add_str(b, "\n]}\n");
}


/* of the model: what has passed here lasts longer there */

static double
sim_stats_ms(uint64_t us)
{
    return us * sim_conf.time_scale / 1000;
}


/* what is in flight stays so */

void
sim_stats_zero(void)
{
    size_t        i;
    uint64_t      inflight;
    sim_stats_t  *st;

    for (i = 0; i < sim_conf.nservers; i++) {
        st = &sim_conf.servers[i].stats;

        inflight = st->inflight;

        memset(st, 0, sizeof(sim_stats_t));

        st->inflight = inflight;
        st->max_inflight = inflight;
    }
}
