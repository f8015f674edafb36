
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>
#include <strings.h>

#include "load.h"


#define LOAD_MAX_LINE   (64 << 20)

#define LOAD_BOM        "\xef\xbb\xbf"


static int load_reply_head(load_reply_t *reply, str_t *in);
static load_body_e load_reply_kind(str_t type);
static void load_reply_end(load_reply_t *reply, uint64_t now_us);
static int load_reply_piece(load_reply_t *reply, str_t in, uint64_t now_us);
static int load_reply_lines(load_reply_t *reply, str_t in, uint64_t now_us);
static void load_reply_line(load_reply_t *reply, str_t line,
    uint64_t now_us);
static void load_reply_field(load_reply_t *reply, str_t line);
static void load_reply_event(load_reply_t *reply, uint64_t now_us);


void
load_reply_init(load_reply_t *reply)
{
    memset(reply, 0, sizeof(load_reply_t));

    reply->usage.prompt = -1;
    reply->usage.cached = -1;
    reply->usage.completion = -1;
}


int
load_reply_read(load_reply_t *reply, str_t in, uint64_t now_us)
{
    int    rc;
    str_t  piece;

    if (reply->status == 0) {

        rc = load_reply_head(reply, &in);
        if (rc != HTTP_OK) {
            return rc;
        }
    }

    for ( ;; ) {
        rc = http_parse_body(&reply->body, &in, &piece);

        if (rc == HTTP_DONE) {
            load_reply_end(reply, now_us);
        }

        if (rc != HTTP_OK) {
            return rc;
        }

        if (load_reply_piece(reply, piece, now_us) != HTTP_OK) {
            return HTTP_ERROR;
        }
    }
}


/* *in is what comes behind the head */

static int
load_reply_head(load_reply_t *reply, str_t *in)
{
    int          rc;
    size_t       before;
    http_head_t  head;

    before = reply->head.len;

    buf_add(&reply->head, in->data, in->len);

    rc = http_parse_head(&head, reply->head.data, reply->head.len, 1);
    if (rc != HTTP_OK) {
        return rc;
    }

    reply->status = head.status;
    reply->keepalive = head.keepalive;
    reply->kind = load_reply_kind(http_field(&head, "content-type"));

    http_body_init(&reply->body, &head);

    in->data += head.size - before;
    in->len -= head.size - before;

    buf_free(&reply->head);

    return HTTP_OK;
}


static load_body_e
load_reply_kind(str_t type)
{
    str_t  name;

    if (!str_split(&type, ';', &name)) {
        return LOAD_BODY_JSON;
    }

    name = str_trim(name);

    if (str_case_eq(name, "text/event-stream")) {
        return LOAD_BODY_SSE;
    }

    return str_case_eq(name, "application/x-ndjson") ? LOAD_BODY_LINES
                                                     : LOAD_BODY_JSON;
}


/* the connection has ended: is that the proper end of the body? */

int
load_reply_eof(load_reply_t *reply, uint64_t now_us)
{
    if (reply->status == 0 || reply->body.state != http_body_close) {
        return HTTP_ERROR;
    }

    load_reply_end(reply, now_us);

    return HTTP_DONE;
}


/* an answer of one JSON document is looked at when it is whole */

static void
load_reply_end(load_reply_t *reply, uint64_t now_us)
{
    if (reply->kind == LOAD_BODY_JSON && reply->data.len) {
        load_reply_event(reply, now_us);
    }
}


static int
load_reply_piece(load_reply_t *reply, str_t in, uint64_t now_us)
{
    load_stats.bytes += in.len;

    if (reply->status != 200) {
        return HTTP_OK;
    }

    if (reply->kind != LOAD_BODY_JSON) {
        return load_reply_lines(reply, in, now_us);
    }

    buf_add(&reply->data, in.data, in.len);

    return reply->data.len > LOAD_MAX_LINE ? HTTP_ERROR : HTTP_OK;
}


/* lines end in LF, CRLF or CR, and may be split anywhere */

static int
load_reply_lines(load_reply_t *reply, str_t in, uint64_t now_us)
{
    str_t        line;
    const char  *lf, *cr, *end;

    while (in.len) {

        if (reply->skip_lf) {
            reply->skip_lf = 0;

            if (in.data[0] == '\n') {
                in.data++;
                in.len--;
                continue;
            }
        }

        lf = memchr(in.data, '\n', in.len);
        cr = memchr(in.data, '\r', lf ? (size_t) (lf - in.data) : in.len);
        end = cr ? cr : lf;

        if (end == NULL) {
            buf_add(&reply->line, in.data, in.len);
            return reply->line.len > LOAD_MAX_LINE ? HTTP_ERROR : HTTP_OK;
        }

        line.data = in.data;
        line.len = end - in.data;

        in.data += line.len + 1;
        in.len -= line.len + 1;

        reply->skip_lf = (end == cr);

        if (reply->line.len) {
            buf_add(&reply->line, line.data, line.len);
            line.data = reply->line.data;
            line.len = reply->line.len;
        }

        load_reply_line(reply, line, now_us);

        buf_clear(&reply->line);
    }

    return HTTP_OK;
}


static void
load_reply_line(load_reply_t *reply, str_t line, uint64_t now_us)
{
    if (!reply->begun) {
        reply->begun = 1;

        if (line.len >= strlen(LOAD_BOM)
            && memcmp(line.data, LOAD_BOM, strlen(LOAD_BOM)) == 0)
        {
            line.data += strlen(LOAD_BOM);
            line.len -= strlen(LOAD_BOM);
        }
    }

    if (line.len && reply->kind == LOAD_BODY_SSE) {
        load_reply_field(reply, line);
        return;
    }

    if (line.len) {
        buf_add(&reply->data, line.data, line.len);
    }

    if (reply->data.len) {
        load_reply_event(reply, now_us);
    }

    buf_clear(&reply->name);
    buf_clear(&reply->data);
}


static void
load_reply_field(load_reply_t *reply, str_t line)
{
    str_t   name, value;
    buf_t  *b;

    value = line;
    str_split(&value, ':', &name);

    if (value.len && value.data[0] == ' ') {
        value.data++;
        value.len--;
    }

    if (str_eq(name, "event")) {
        b = &reply->name;
        buf_clear(b);

    } else if (str_eq(name, "data")) {
        b = &reply->data;

        if (b->len) {
            buf_add(b, "\n", 1);
        }

    } else {
        return;
    }

    buf_add(b, value.data, value.len);
}


static void
load_reply_event(load_reply_t *reply, uint64_t now_us)
{
    int          is;
    str_t        data;
    const char  *text;

    text = reply->data.data;

    load_stats.events++;

    if (reply->kind == LOAD_BODY_JSON) {
        is = load_dialect_answer(text, &reply->usage);

    } else {
        data.data = text;
        data.len = reply->data.len;

        is = load_dialect_event(reply->name.len ? reply->name.data : "", data);
    }

    reply->ended |= (is & LOAD_IS_END) != 0;
    reply->failed |= (is & LOAD_IS_ERROR) != 0;

    if (is & LOAD_IS_USAGE) {
        load_dialect_usage(text, &reply->usage);
    }

    if ((is & LOAD_IS_CONTENT) == 0) {
        return;
    }

    load_stats.tokens++;
    reply->tokens++;

    if (reply->first_us == 0) {
        reply->first_us = now_us;

    } else {
        load_hist_add(&load_stats.gap, now_us - reply->last_us);
    }

    reply->last_us = now_us;
}


void
load_reply_free(load_reply_t *reply)
{
    buf_free(&reply->head);
    buf_free(&reply->line);
    buf_free(&reply->name);
    buf_free(&reply->data);
}
