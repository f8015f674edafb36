
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The first two bytes choose the framing and where the rest, a stream, is
 * split.  Split or not, it has the same events, and they carry the same.
 */


#include "fuzz.h"

#include "ngx_llm_frame.h"


typedef struct {
    /* ends of the events, normalised: see fuzz_cut() */
    size_t                *ends;
    size_t                 n;
} fuzz_cut_t;


static void fuzz_cut(fuzz_cut_t *cut, ngx_llm_framing_e framing,
    const uint8_t *p, size_t len, size_t step);
static void fuzz_event(ngx_llm_framing_e framing, const uint8_t *p,
    size_t len);


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    size_t             i, start, step;
    fuzz_cut_t         whole, split;
    ngx_llm_framing_e  framing;

    if (len < 2) {
        return 0;
    }

    framing = (p[0] & 1) ? NGX_LLM_FRAME_LINES : NGX_LLM_FRAME_SSE;
    step = p[1] + 1;

    p += 2;
    len -= 2;

    fuzz_cut(&whole, framing, p, len, len);
    fuzz_cut(&split, framing, p, len, step);

    fuzz_assert(whole.n == split.n);
    fuzz_assert(memcmp(whole.ends, split.ends, whole.n * sizeof(size_t)) == 0);

    for (i = 0, start = 0; i < whole.n; i++) {
        fuzz_event(framing, p + start, whole.ends[i] - start);
        start = whole.ends[i];
    }

    fuzz_assert(start == len);

    free(whole.ends);
    free(split.ends);

    return 0;
}


/*
 * Pieces of step bytes, each in memory of its own.  An LF that came too late
 * for its CR is counted where it belongs; a last event of it alone is none.
 */

static void
fuzz_cut(fuzz_cut_t *cut, ngx_llm_framing_e framing, const uint8_t *p,
    size_t len, size_t step)
{
    int               complete;
    size_t            i, n, end, used, piece;
    unsigned char    *copy;
    ngx_llm_frame_t   frame;

    cut->n = 0;
    cut->ends = malloc((len + 1) * sizeof(size_t));
    fuzz_assert(cut->ends != NULL);

    memset(&frame, 0, sizeof(frame));
    frame.framing = framing;

    for (i = 0; i < len; i += piece) {
        piece = (len - i < step) ? len - i : step;
        copy = fuzz_copy(p + i, piece);

        for (n = 0; n < piece; n += used) {
            used = ngx_llm_frame_next(&frame, copy + n, piece - n, &complete);

            fuzz_assert(used > 0 && used <= piece - n);
            fuzz_assert(complete || used == piece - n);
            fuzz_assert(!complete == (frame.event_bytes != 0));

            if (!complete) {
                continue;
            }

            end = i + n + used;

            if (framing == NGX_LLM_FRAME_SSE && end < len
                && p[end - 1] == '\r' && p[end] == '\n')
            {
                end++;
            }

            cut->ends[cut->n++] = end;
        }

        free(copy);
    }

    if (len != 0 && (cut->n == 0 || cut->ends[cut->n - 1] != len)) {
        cut->ends[cut->n++] = len;
    }
}


static void
fuzz_event(ngx_llm_framing_e framing, const uint8_t *p, size_t len)
{
    ngx_llm_rc_e      rc;
    unsigned char    *copy, *join;
    ngx_llm_event_t   ev, again;

    copy = fuzz_copy(p, len);
    join = fuzz_copy(p, len);

    rc = ngx_llm_frame_event(framing, copy, len, NULL, 0, &ev);
    fuzz_assert(rc == NGX_LLM_OK || rc == NGX_LLM_NO_MEMORY);

    fuzz_assert(ngx_llm_frame_event(framing, copy, len, join, len, &again)
                == NGX_LLM_OK);
    fuzz_assert(again.data.len + again.name.len <= len);

    if (rc == NGX_LLM_OK) {
        fuzz_assert(ev.has_data == again.has_data);
        fuzz_assert(ev.data.data == again.data.data);
        fuzz_assert(ev.data.len == again.data.len);

    } else {
        fuzz_assert(again.data.data == join);
        fuzz_assert(again.has_data);
    }

    free(join);
    free(copy);
}
