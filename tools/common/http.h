
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#ifndef TOOLS_HTTP_H
#define TOOLS_HTTP_H


#include <stddef.h>
#include <stdint.h>

#include "buf.h"


/*
 * HTTP/1.x messages, RFC 9112: just what the two tools need of each other
 * and of a proxy between them.  Slices of a head live as long as the bytes
 * that it was parsed from.
 */

#define HTTP_MAX_HEAD     65536
#define HTTP_MAX_FIELDS   64

#define HTTP_OK           0
#define HTTP_DONE         1
#define HTTP_AGAIN       -1
#define HTTP_ERROR       -2

typedef struct {
    str_t               name;
    str_t               value;
} http_field_t;

typedef struct {
    str_t               method;
    str_t               path;           /* of a request, with its query */
    int                 status;         /* of a response */
    int                 minor;          /* of the version: 0 or 1 */
    int64_t             body_bytes;     /* Content-Length; -1: none */
    unsigned            response:1;
    unsigned            chunked:1;
    unsigned            keepalive:1;
    size_t              size;           /* of the head itself */
    size_t              nfields;
    http_field_t        fields[HTTP_MAX_FIELDS];
} http_head_t;

typedef enum {
    http_body_length = 0,
    http_body_close,
    http_body_chunk_size,
    http_body_chunk_extension,
    http_body_chunk_data,
    http_body_chunk_end,
    http_body_trailer,
    http_body_done
} http_body_state_e;

typedef struct {
    http_body_state_e   state;
    uint64_t            left;           /* bytes of the body or chunk */
    unsigned            digits;         /* of a chunk size; of a trailer line */
} http_body_t;


/* HTTP_OK, HTTP_AGAIN: the head is not complete, HTTP_ERROR */
int http_parse_head(http_head_t *h, const char *data, size_t len,
    int response);

/* the slice is { NULL, 0 } where the field is missing */
str_t http_field(const http_head_t *h, const char *name);

/*
 * Takes bytes off *in.  HTTP_OK: *piece is a part of the body; call again.
 * HTTP_AGAIN: *in is used up.  HTTP_DONE: the body is complete, *in is what
 * comes after it.  A body that is ended by closing never gets done.
 */
void http_body_init(http_body_t *b, const http_head_t *h);
int http_parse_body(http_body_t *b, str_t *in, str_t *piece);


#endif /* TOOLS_HTTP_H */
