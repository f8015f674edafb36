
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_frame.h"


/*
 * A line's end is looked for in windows: LF first, then CR before it.  So a
 * stream with LF costs two fast scans a line, and one with CR only, where the
 * first scan is in vain, stays linear.
 */

#define NGX_LLM_FRAME_WINDOW  4096

#define NGX_LLM_FRAME_CR      '\r'
#define NGX_LLM_FRAME_LF      '\n'


static const unsigned char  ngx_llm_frame_bom[] = { 0xef, 0xbb, 0xbf };


static const unsigned char *ngx_llm_frame_begin(ngx_llm_frame_t *frame,
    const unsigned char *p, const unsigned char *last);
static const unsigned char *ngx_llm_frame_sse(ngx_llm_frame_t *frame,
    const unsigned char *p, const unsigned char *last, int *complete);
static const unsigned char *ngx_llm_frame_lines(const unsigned char *p,
    const unsigned char *last, int *complete);
static const unsigned char *ngx_llm_frame_eol(const unsigned char *p,
    const unsigned char *last);
static ngx_llm_rc_e ngx_llm_frame_field(const unsigned char *p, size_t len,
    unsigned char *join, ngx_llm_event_t *ev);
static size_t ngx_llm_frame_name(const unsigned char *p, size_t len,
    const char *name, size_t name_len);


size_t
ngx_llm_frame_next(ngx_llm_frame_t *frame, const unsigned char *p,
    size_t len, int *complete)
{
    size_t                n;
    const unsigned char  *pos, *last;

    *complete = 0;

    if (len == 0) {
        return 0;
    }

    pos = p;
    last = p + len;

    if (frame->framing == NGX_LLM_FRAME_LINES) {
        pos = ngx_llm_frame_lines(pos, last, complete);

    } else {
        if (!frame->started) {
            pos = ngx_llm_frame_begin(frame, pos, last);
        }

        pos = ngx_llm_frame_sse(frame, pos, last, complete);
    }

    n = pos - p;

    if (*complete) {
        frame->event_bytes = 0;

    } else {
        frame->event_bytes += n;
    }

    return n;
}


/* matches the stream's BOM, which may come in pieces: the line stays empty */

static const unsigned char *
ngx_llm_frame_begin(ngx_llm_frame_t *frame, const unsigned char *p,
    const unsigned char *last)
{
    while (p < last) {

        if (*p != ngx_llm_frame_bom[frame->bom]) {
            frame->line = (frame->bom != 0);
            frame->started = 1;
            break;
        }

        p++;
        frame->bom++;

        if (frame->bom == sizeof(ngx_llm_frame_bom)) {
            frame->started = 1;
            break;
        }
    }

    return p;
}


static const unsigned char *
ngx_llm_frame_sse(ngx_llm_frame_t *frame, const unsigned char *p,
    const unsigned char *last, int *complete)
{
    unsigned              blank;
    const unsigned char  *eol;

    while (p < last) {

        if (frame->cr) {
            frame->cr = 0;

            if (*p == NGX_LLM_FRAME_LF) {
                p++;
                continue;
            }
        }

        /* the blank line behind an event needs no scan */

        eol = (*p == NGX_LLM_FRAME_LF) ? p : ngx_llm_frame_eol(p, last);

        if (eol == last) {
            frame->line = 1;
            return last;
        }

        blank = (eol == p && !frame->line);
        frame->line = 0;

        p = eol + 1;

        if (*eol == NGX_LLM_FRAME_CR) {

            if (p == last) {
                frame->cr = 1;

            } else if (*p == NGX_LLM_FRAME_LF) {
                p++;
            }
        }

        if (blank) {
            *complete = 1;
            return p;
        }
    }

    return p;
}


static const unsigned char *
ngx_llm_frame_lines(const unsigned char *p, const unsigned char *last,
    int *complete)
{
    p = memchr(p, NGX_LLM_FRAME_LF, last - p);

    if (p == NULL) {
        return last;
    }

    *complete = 1;

    return p + 1;
}


/* the first CR or LF, last without one */

static const unsigned char *
ngx_llm_frame_eol(const unsigned char *p, const unsigned char *last)
{
    size_t                n;
    const unsigned char  *cr, *lf;

    while (p < last) {
        n = last - p;

        if (n > NGX_LLM_FRAME_WINDOW) {
            n = NGX_LLM_FRAME_WINDOW;
        }

        lf = memchr(p, NGX_LLM_FRAME_LF, n);

        if (lf != NULL) {
            n = lf - p;
        }

        cr = memchr(p, NGX_LLM_FRAME_CR, n);

        if (cr != NULL) {
            return cr;
        }

        if (lf != NULL) {
            return lf;
        }

        p += n;
    }

    return last;
}


ngx_llm_rc_e
ngx_llm_frame_event(ngx_llm_framing_e framing, const unsigned char *event,
    size_t len, unsigned char *join, size_t join_bytes, ngx_llm_event_t *ev)
{
    ngx_llm_rc_e          rc;
    const unsigned char  *p, *last, *eol;

    memset(ev, 0, sizeof(ngx_llm_event_t));

    p = event;
    last = event + len;

    if (len >= sizeof(ngx_llm_frame_bom)
        && memcmp(p, ngx_llm_frame_bom, sizeof(ngx_llm_frame_bom)) == 0)
    {
        p += sizeof(ngx_llm_frame_bom);
    }

    if (framing == NGX_LLM_FRAME_LINES) {

        while (last > p && (last[-1] == NGX_LLM_FRAME_LF
                            || last[-1] == NGX_LLM_FRAME_CR))
        {
            last--;
        }

        ev->data.data = p;
        ev->data.len = last - p;
        ev->has_data = (ev->data.len != 0);

        return NGX_LLM_OK;
    }

    if (join_bytes < len) {
        join = NULL;
    }

    while (p < last) {
        eol = ngx_llm_frame_eol(p, last);

        /* CRLF is a line end and an empty line here: that does no harm */

        rc = ngx_llm_frame_field(p, eol - p, join, ev);
        if (rc != NGX_LLM_OK) {
            return rc;
        }

        p = (eol < last) ? eol + 1 : last;
    }

    return NGX_LLM_OK;
}


static ngx_llm_rc_e
ngx_llm_frame_field(const unsigned char *p, size_t len, unsigned char *join,
    ngx_llm_event_t *ev)
{
    size_t  skip;

    skip = ngx_llm_frame_name(p, len, "data", sizeof("data") - 1);

    if (skip != 0) {
        p += skip;
        len -= skip;

        if (!ev->has_data) {
            ev->has_data = 1;
            ev->data.data = p;
            ev->data.len = len;

            return NGX_LLM_OK;
        }

        if (join == NULL) {
            return NGX_LLM_NO_MEMORY;
        }

        /* a joined piece and its LF replace "data" and a line end */

        if (ev->data.data != join) {
            memcpy(join, ev->data.data, ev->data.len);
            ev->data.data = join;
        }

        join[ev->data.len++] = NGX_LLM_FRAME_LF;
        memcpy(join + ev->data.len, p, len);
        ev->data.len += len;

        return NGX_LLM_OK;
    }

    skip = ngx_llm_frame_name(p, len, "event", sizeof("event") - 1);

    if (skip != 0) {
        ev->name.data = p + skip;
        ev->name.len = len - skip;
    }

    return NGX_LLM_OK;
}


/*
 * The bytes before the value of the field of this name, 0 if it is another.
 * "data:x", "data: x" and "data" alone are fields.
 */

static size_t
ngx_llm_frame_name(const unsigned char *p, size_t len, const char *name,
    size_t name_len)
{
    if (len < name_len || memcmp(p, name, name_len) != 0) {
        return 0;
    }

    if (len == name_len) {
        return name_len;
    }

    if (p[name_len] != ':') {
        return 0;
    }

    name_len++;

    return (len > name_len && p[name_len] == ' ') ? name_len + 1 : name_len;
}
