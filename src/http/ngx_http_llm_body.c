
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_body.h"


static ngx_int_t ngx_http_llm_body_copy(ngx_http_request_t *r, ngx_buf_t *b,
    u_char *p);
static ngx_int_t ngx_http_llm_body_replace(ngx_http_request_t *r, u_char *p,
    size_t len);
static ngx_int_t ngx_http_llm_body_length(ngx_http_request_t *r, size_t len);


ngx_int_t
ngx_http_llm_body_gather(ngx_http_request_t *r, size_t max_bytes,
    ngx_str_t *body)
{
    off_t         size;
    u_char       *p;
    ngx_chain_t  *cl;

    size = 0;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        size += ngx_buf_size(cl->buf);
    }

    if (size > (off_t) max_bytes) {
        return NGX_DECLINED;
    }

    cl = r->request_body->bufs;
    body->len = size;

    if (size == 0) {
        body->data = (u_char *) "";
        return NGX_OK;
    }

    if (cl->next == NULL && !cl->buf->in_file) {
        body->data = cl->buf->pos;
        return NGX_OK;
    }

    p = ngx_palloc(r->pool, body->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    body->data = p;

    for ( /* void */ ; cl; cl = cl->next) {

        if (ngx_http_llm_body_copy(r, cl->buf, p) != NGX_OK) {
            return NGX_ERROR;
        }

        p += ngx_buf_size(cl->buf);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_body_copy(ngx_http_request_t *r, ngx_buf_t *b, u_char *p)
{
    off_t    size;
    ssize_t  n;

    size = ngx_buf_size(b);

    /* the last buffer of a body in pieces may have no memory at all */

    if (size == 0) {
        return NGX_OK;
    }

    if (!b->in_file) {
        ngx_memcpy(p, b->pos, size);
        return NGX_OK;
    }

    n = ngx_read_file(b->file, p, size, b->file_pos);

    if (n != (ssize_t) size) {
        ngx_log_error(NGX_LOG_CRIT, r->connection->log, 0,
                      ngx_read_file_n " returned only %z bytes of %O "
                      "from \"%V\"", n, size, &b->file->name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/*
 * In place there is room where the body is one buffer and nobody's bytes
 * follow it: what was read with the header is the last of what was, or the
 * client has sent its next request already.  Nobody reads into it before this
 * one has ended.
 */

u_char *
ngx_http_llm_body_room(ngx_http_request_t *r, const ngx_str_t *body,
    size_t more)
{
    ngx_buf_t    *b, *memory;
    ngx_chain_t  *cl;

    cl = r->request_body->bufs;
    b = cl->buf;
    memory = r->request_body->buf ? r->request_body->buf : r->header_in;

    if (cl->next == NULL
        && !b->in_file
        && memory
        && b->pos >= memory->start
        && b->last == memory->last
        && (size_t) (memory->end - b->last) >= more)
    {
        return b->pos;
    }

    return ngx_palloc(r->pool, body->len + more);
}


ngx_int_t
ngx_http_llm_body_set(ngx_http_request_t *r, u_char *p, size_t len)
{
    ngx_buf_t  *b;

    b = r->request_body->bufs->buf;

    /* a retry sets pos to start */

    if (b->pos == p) {
        b->start = p;
        b->last = p + len;

    } else if (ngx_http_llm_body_replace(r, p, len) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_llm_body_length(r, len);
}


static ngx_int_t
ngx_http_llm_body_replace(ngx_http_request_t *r, u_char *p, size_t len)
{
    ngx_buf_t                *b;
    ngx_chain_t              *cl;
    ngx_http_request_body_t  *rb;

    b = ngx_calloc_buf(r->pool);
    cl = ngx_alloc_chain_link(r->pool);

    if (b == NULL || cl == NULL) {
        return NGX_ERROR;
    }

    b->start = p;
    b->pos = p;
    b->last = p + len;
    b->end = b->last;
    b->temporary = 1;
    b->last_buf = 1;

    cl->buf = b;
    cl->next = NULL;

    rb = r->request_body;

    if (rb->temp_file) {
        ngx_pool_run_cleanup_file(r->pool, rb->temp_file->file.fd);
        rb->temp_file = NULL;
    }

    rb->bufs = cl;
    rb->buf = NULL;

    return NGX_OK;
}


/*
 * What proxy_pass sends as Content-Length comes from content_length_n, the
 * header's value serves $content_length.
 */

static ngx_int_t
ngx_http_llm_body_length(ngx_http_request_t *r, size_t len)
{
    size_t            n;
    u_char            digits[NGX_OFF_T_LEN];
    ngx_table_elt_t  *h;

    r->headers_in.content_length_n = len;

    h = r->headers_in.content_length;

    if (h == NULL) {
        return NGX_OK;
    }

    n = ngx_sprintf(digits, "%uz", len) - digits;

    h->value.data = ngx_pnalloc(r->pool, n);
    if (h->value.data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(h->value.data, digits, n);
    h->value.len = n;

    return NGX_OK;
}
