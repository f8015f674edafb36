
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stdio.h>
#include <string.h>

#include "sim.h"


#define SIM_BOM       "\xef\xbb\xbf"
#define SIM_BOM_SIZE  3

static const char *sim_wire_reason(int status);
static void sim_wire_chunk(sim_req_t *r, const char *data, size_t len);


static const char  *sim_wire_eols[] = { "\n", "\r\n", "\r" };

/* scratch space of the one request that is being written to */
static buf_t  sim_wire_frame;
static buf_t  sim_wire_packed;
static buf_t  sim_wire_out;


/* length SIM_NONE: chunks, or the end of the connection ends the body */

void
sim_wire_head(sim_req_t *r, int status, const char *type, int64_t length,
    const char *fields)
{
    buf_t       *b;
    sim_conn_t  *c;

    c = r->conn;
    b = &sim_wire_out;

    if (c->minor == 0 || r->order.minor == 0) {
        c->close = 1;
    }

    r->header_sent = 1;
    r->chunked = (length == SIM_NONE && c->minor && r->order.minor);

    if (length == SIM_NONE && !r->chunked) {
        c->close = 1;
    }

    buf_clear(b);
    buf_add_fmt(b, "HTTP/1.%d %d %s\r\n", r->order.minor, status,
                sim_wire_reason(status));
    buf_add_fmt(b, "Server: llm-sim\r\nContent-Type: %s\r\n", type);
    buf_add_fmt(b, "%sRequest-Id: req_%016llx\r\nX-LLM-Sim-Port: %u\r\n",
                r->dialect == &sim_anthropic_messages ? "" : "X-",
                (unsigned long long) r->id, r->server->port);

    if (r->ask.stream) {
        buf_add_str(b, "Cache-Control: no-cache\r\n");
    }

    if (r->order.gzip != SIM_GZIP_NONE) {
        buf_add_str(b, "Content-Encoding: gzip\r\n");
    }

    if (length != SIM_NONE) {
        buf_add_fmt(b, "Content-Length: %lld\r\n", (long long) length);

    } else if (r->chunked) {
        buf_add_str(b, "Transfer-Encoding: chunked\r\n");
    }

    buf_add_str(b, c->close ? "Connection: close\r\n" : "");
    buf_add_str(b, fields);
    buf_add_str(b, "\r\n");

    sim_conn_send(c, b->data, b->len);
}


/* the head of a stream */

void
sim_wire_stream(sim_req_t *r, const char *fields)
{
    sim_wire_head(r, 200, r->frame == SIM_FRAME_ARRAY
                          ? "application/json" : r->dialect->content_type,
                  SIM_NONE, fields);
}


static const char *
sim_wire_reason(int status)
{
    switch (status) {

    case 200:
        return "OK";

    case 400:
        return "Bad Request";

    case 401:
        return "Unauthorized";

    case 403:
        return "Forbidden";

    case 404:
        return "Not Found";

    case 405:
        return "Method Not Allowed";

    case 413:
        return "Content Too Large";

    case 429:
        return "Too Many Requests";

    case 500:
        return "Internal Server Error";

    case 502:
        return "Bad Gateway";

    case 503:
        return "Service Unavailable";

    case 504:
        return "Gateway Timeout";

    default:
        return "Unknown";
    }
}


/* json NULL: a comment instead of an event */

void
sim_wire_event(sim_req_t *r, const char *name, const buf_t *json)
{
    buf_t       *b;
    size_t       size;
    const char  *eol;

    b = &sim_wire_frame;
    eol = sim_wire_eols[r->order.eol];

    buf_clear(b);

    if (json == NULL) {
        buf_add_fmt(b, ": ping%s%s", eol, eol);

    } else if (r->frame == SIM_FRAME_LINES) {
        buf_add(b, json->data, json->len);
        buf_add_str(b, eol);

    } else if (r->frame == SIM_FRAME_ARRAY) {
        buf_add_str(b, r->body_bytes ? ",\r\n" : "[");
        buf_add(b, json->data, json->len);

    } else {

        if (name != NULL) {
            buf_add_fmt(b, "event: %s%s", name, eol);
        }

        buf_add_str(b, "data: ");
        buf_add(b, json->data, json->len);
        buf_add_str(b, eol);
        buf_add_str(b, eol);
    }

    size = r->half ? b->len / 2 : b->len;

    sim_wire_body(r, b->data, size);
}


/* bytes of the body, before any coding: one chunk, one write */

void
sim_wire_body(sim_req_t *r, const char *data, size_t len)
{
    buf_t  *b;

    if (r->body_bytes == 0 && r->order.bom == 1) {
        r->body_bytes = SIM_BOM_SIZE;
        sim_wire_body(r, SIM_BOM, SIM_BOM_SIZE);
    }

    if (r->order.gzip != SIM_GZIP_STORED) {
        r->body_bytes += len;
        sim_wire_chunk(r, data, len);
        return;
    }

    b = &sim_wire_packed;

    buf_clear(b);

    if (r->gzip_bytes == 0) {
        sim_gzip_head(b);
    }

    sim_gzip_stored(b, data, len);

    r->crc = sim_gzip_crc(r->crc, data, len);
    r->gzip_bytes += len;
    r->body_bytes += len;

    sim_wire_chunk(r, b->data, b->len);
}


/* the proper end of the body; without chunks the connection says it */

void
sim_wire_end(sim_req_t *r)
{
    buf_t  *b;

    if (r->ask.stream && r->frame == SIM_FRAME_ARRAY) {
        sim_wire_body(r, r->body_bytes ? "]" : "[]", r->body_bytes ? 1 : 2);
    }

    if (r->order.gzip == SIM_GZIP_STORED) {
        b = &sim_wire_packed;

        buf_clear(b);
        sim_gzip_end(b, r->crc, (uint32_t) r->gzip_bytes);
        sim_wire_chunk(r, b->data, b->len);
    }

    if (r->chunked) {
        sim_conn_send(r->conn, "0\r\n\r\n", 5);
    }
}


/* past all framing */

void
sim_wire_raw(sim_req_t *r, const char *data, size_t len)
{
    sim_conn_send(r->conn, data, len);
}


static void
sim_wire_chunk(sim_req_t *r, const char *data, size_t len)
{
    buf_t  *b;

    if (len == 0) {
        return;
    }

    if (!r->chunked) {
        sim_conn_send(r->conn, data, len);
        return;
    }

    b = &sim_wire_out;

    buf_clear(b);
    buf_add_fmt(b, "%zx\r\n", len);
    buf_add(b, data, len);
    buf_add_str(b, "\r\n");

    sim_conn_send(r->conn, b->data, b->len);
}
