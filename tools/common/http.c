
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#define _GNU_SOURCE

#include <string.h>

#include "http.h"


#define HTTP_CHUNK_DIGITS  15


static int http_parse_line(http_head_t *h, str_t line);
static int http_parse_version(http_head_t *h, str_t version);
static int http_parse_field(http_head_t *h, str_t line);
static int http_parse_chunk(http_body_t *b, int c);
static int http_hex(int c);


int
http_parse_head(http_head_t *h, const char *data, size_t len, int response)
{
    str_t        rest, line;
    const char  *end;

    end = memmem(data, len, "\r\n\r\n", 4);
    if (end == NULL) {
        return len > HTTP_MAX_HEAD ? HTTP_ERROR : HTTP_AGAIN;
    }

    memset(h, 0, offsetof(http_head_t, fields));

    h->response = response;
    h->body_bytes = -1;
    h->size = end + 4 - data;

    rest.data = data;
    rest.len = end + 1 - data;

    str_split(&rest, '\n', &line);

    if (line.len == 0 || line.data[line.len - 1] != '\r') {
        return HTTP_ERROR;
    }

    line.len--;

    if (http_parse_line(h, line) != HTTP_OK) {
        return HTTP_ERROR;
    }

    while (str_split(&rest, '\n', &line)) {

        if (line.len && line.data[line.len - 1] == '\r') {
            line.len--;
        }

        if (line.len && http_parse_field(h, line) != HTTP_OK) {
            return HTTP_ERROR;
        }
    }

    return HTTP_OK;
}


static int
http_parse_line(http_head_t *h, str_t line)
{
    str_t   version, status;
    double  number;

    if (h->response) {
        str_split(&line, ' ', &version);

        if (!str_split(&line, ' ', &status)
            || str_number(status, &number) == -1)
        {
            return HTTP_ERROR;
        }

        h->status = (int) number;

        return http_parse_version(h, version);
    }

    str_split(&line, ' ', &h->method);

    if (!str_split(&line, ' ', &h->path)) {
        return HTTP_ERROR;
    }

    return http_parse_version(h, line);
}


static int
http_parse_version(http_head_t *h, str_t version)
{
    if (str_eq(version, "HTTP/1.1")) {
        h->minor = 1;
        h->keepalive = 1;
        return HTTP_OK;
    }

    return str_eq(version, "HTTP/1.0") ? HTTP_OK : HTTP_ERROR;
}


static int
http_parse_field(http_head_t *h, str_t line)
{
    double         number;
    http_field_t  *f;

    if (h->nfields == HTTP_MAX_FIELDS) {
        return HTTP_ERROR;
    }

    f = &h->fields[h->nfields++];

    str_split(&line, ':', &f->name);

    if (line.data == NULL || f->name.len == 0) {
        return HTTP_ERROR;
    }

    f->value = str_trim(line);

    if (str_case_eq(f->name, "content-length")) {

        if (str_number(f->value, &number) == -1
            || !(number >= 0 && number < 1e15))
        {
            return HTTP_ERROR;
        }

        h->body_bytes = (int64_t) number;

    } else if (str_case_eq(f->name, "transfer-encoding")) {
        h->chunked = str_case_eq(f->value, "chunked");

    } else if (str_case_eq(f->name, "connection")) {

        if (str_case_eq(f->value, "close")) {
            h->keepalive = 0;

        } else if (str_case_eq(f->value, "keep-alive")) {
            h->keepalive = 1;
        }
    }

    return HTTP_OK;
}


str_t
http_field(const http_head_t *h, const char *name)
{
    size_t  i;

    for (i = 0; i < h->nfields; i++) {
        if (str_case_eq(h->fields[i].name, name)) {
            return h->fields[i].value;
        }
    }

    return (str_t) { NULL, 0 };
}


void
http_body_init(http_body_t *b, const http_head_t *h)
{
    memset(b, 0, sizeof(http_body_t));

    if (h->status == 204 || h->status == 304) {
        b->state = http_body_done;

    } else if (h->chunked) {
        b->state = http_body_chunk_size;

    } else if (h->body_bytes >= 0) {
        b->state = http_body_length;
        b->left = h->body_bytes;

    } else {
        b->state = h->response ? http_body_close : http_body_done;
    }
}


int
http_parse_body(http_body_t *b, str_t *in, str_t *piece)
{
    for ( ;; ) {

        switch (b->state) {

        case http_body_done:
            return HTTP_DONE;

        case http_body_length:

            if (b->left == 0) {
                return HTTP_DONE;
            }

            break;

        case http_body_close:
            b->left = in->len;
            break;

        case http_body_chunk_data:

            if (b->left == 0) {
                b->state = http_body_chunk_end;
                continue;
            }

            break;

        case http_body_chunk_size:
        case http_body_chunk_extension:
        case http_body_chunk_end:
        case http_body_trailer:

            if (in->len == 0) {
                return HTTP_AGAIN;
            }

            if (http_parse_chunk(b, in->data[0]) != HTTP_OK) {
                return HTTP_ERROR;
            }

            in->data++;
            in->len--;
            continue;
        }

        if (in->len == 0) {
            return HTTP_AGAIN;
        }

        piece->data = in->data;
        piece->len = in->len < b->left ? in->len : b->left;

        in->data += piece->len;
        in->len -= piece->len;
        b->left -= piece->len;

        return HTTP_OK;
    }
}


/* one byte of what is around the data of a chunk */

static int
http_parse_chunk(http_body_t *b, int c)
{
    int  digit;

    switch (b->state) {

    case http_body_chunk_size:

        digit = http_hex(c);

        if (digit >= 0 && b->digits < HTTP_CHUNK_DIGITS) {
            b->left = b->left * 16 + digit;
            b->digits++;
            return HTTP_OK;
        }

        if (b->digits == 0 || (c != ';' && c != '\r' && c != ' ')) {
            return HTTP_ERROR;
        }

        b->state = http_body_chunk_extension;
        return HTTP_OK;

    case http_body_chunk_extension:

        if (c == '\n') {
            b->state = b->left ? http_body_chunk_data : http_body_trailer;
            b->digits = 0;
        }

        return HTTP_OK;

    case http_body_chunk_end:

        if (c == '\n') {
            b->state = http_body_chunk_size;
            return HTTP_OK;
        }

        return c == '\r' ? HTTP_OK : HTTP_ERROR;

    default: /* http_body_trailer */

        if (c == '\n') {
            if (b->digits == 0) {
                b->state = http_body_done;
            }

            b->digits = 0;

        } else if (c != '\r') {
            b->digits = 1;
        }

        return HTTP_OK;
    }
}


static int
http_hex(int c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }

    c |= 0x20;

    return (c >= 'a' && c <= 'f') ? c - 'a' + 10 : -1;
}
