
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "load.h"


/* splitmix64: all there is to it, and a run can be repeated */

uint64_t
load_random(uint64_t *state)
{
    uint64_t  z;

    *state += 0x9e3779b97f4a7c15;

    z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;

    return z ^ (z >> 31);
}


/* above 0, up to 1 */

double
load_random_unit(uint64_t *state)
{
    return ((double) (load_random(state) >> 11) + 1) / 9007199254740992.0;
}


uint64_t
load_random_mix(uint64_t a, uint64_t b)
{
    uint64_t  state;

    state = a ^ (b * 0xff51afd7ed558ccd);

    return load_random(&state);
}
