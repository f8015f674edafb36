
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "sim.h"


/* of one write; a client that does not read makes the next one wait */
#define SIM_MASS_BYTES  32768


static int sim_mass_line(sim_req_t *r);
static int sim_mass_lines(sim_req_t *r);
static void sim_mass_text(sim_req_t *r, const char *text);
static void sim_mass_fill(const char *piece);


static char  sim_mass_data[SIM_MASS_BYTES];


/*
 * One event more, larger than any client should keep in memory: made and sent
 * piece by piece, one for each call.
 */

int
sim_mass_next(sim_req_t *r)
{
    if (r->mass < (uint64_t) r->order.line) {
        return sim_mass_line(r);
    }

    if (r->mass < (uint64_t) r->order.lines) {
        return sim_mass_lines(r);
    }

    return 0;
}


/* one line of so many bytes: a JSON object with one long string */

static int
sim_mass_line(sim_req_t *r)
{
    size_t  n;

    sim_mass_fill("x");

    if (r->mass == 0) {
        sim_mass_text(r, r->frame == SIM_FRAME_SSE ? "data: {\"sim\":\""
                                                   : "{\"sim\":\"");
    }

    n = (size_t) r->order.line - r->mass;
    n = n < SIM_MASS_BYTES ? n : SIM_MASS_BYTES;

    sim_wire_body(r, sim_mass_data, n);

    r->mass += n;

    if (r->mass == (uint64_t) r->order.line) {
        sim_mass_text(r, r->frame == SIM_FRAME_SSE ? "\"}\n\n" : "\"}\n");
    }

    return 1;
}


/* so many lines of an event, with the blank one behind the last */

static int
sim_mass_lines(sim_req_t *r)
{
    size_t  n;

    static const char  line[] = "data: x\n";

    sim_mass_fill(line);

    n = (size_t) r->order.lines - r->mass;
    n = n < SIM_MASS_BYTES / (sizeof(line) - 1)
        ? n : SIM_MASS_BYTES / (sizeof(line) - 1);

    sim_wire_body(r, sim_mass_data, n * (sizeof(line) - 1));

    r->mass += n;

    if (r->mass == (uint64_t) r->order.lines) {
        sim_wire_body(r, "\n", 1);
    }

    return 1;
}


static void
sim_mass_text(sim_req_t *r, const char *text)
{
    sim_wire_body(r, text, strlen(text));
}


static void
sim_mass_fill(const char *piece)
{
    size_t  i, len;

    len = strlen(piece);

    for (i = 0; i + len <= SIM_MASS_BYTES; i += len) {
        memcpy(sim_mass_data + i, piece, len);
    }
}
