
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_body.h"


static void ngx_http_llm_body_join(ngx_http_request_body_t *rb);
static ngx_int_t ngx_http_llm_body_copy(ngx_http_request_t *r, ngx_buf_t *b,
    u_char *p);
static ngx_buf_t *ngx_http_llm_body_room(ngx_http_request_t *r,
    const ngx_str_t *body, size_t len);
static ngx_chain_t *ngx_http_llm_body_link(ngx_http_request_t *r,
    const ngx_str_t *piece);
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

    body->len = size;

    if (size == 0) {
        body->data = (u_char *) "";
        return NGX_OK;
    }

    ngx_http_llm_body_join(r->request_body);

    cl = r->request_body->bufs;

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


/*
 * A large body mostly is what came with the header, and behind it what was
 * read several times into one buffer.  That one has room for the first part
 * (request_body_in_single_buf is no more than this): moving is cheaper than
 * new memory.
 */

static void
ngx_http_llm_body_join(ngx_http_request_body_t *rb)
{
    size_t        n;
    ngx_buf_t    *b, *first, *memory;
    ngx_chain_t  *cl;

    for (cl = rb->bufs; cl->next; /* void */ ) {
        b = cl->buf;

        if (b->in_file || b->last != cl->next->buf->pos) {
            cl = cl->next;
            continue;
        }

        b->last = cl->next->buf->last;
        b->end = cl->next->buf->end;
        b->last_buf = cl->next->buf->last_buf;

        cl->next = cl->next->next;
    }

    cl = rb->bufs->next;
    memory = rb->buf;

    if (cl == NULL || cl->next || memory == NULL) {
        return;
    }

    first = rb->bufs->buf;
    b = cl->buf;
    n = first->last - first->pos;

    if (first->in_file
        || b->pos != memory->start
        || b->last != memory->last
        || (size_t) (memory->end - memory->last) < n)
    {
        return;
    }

    ngx_memmove(b->pos + n, b->pos, b->last - b->pos);
    ngx_memcpy(b->pos, first->pos, n);

    memory->last += n;
    b->last = memory->last;

    rb->bufs = cl;
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


ngx_int_t
ngx_http_llm_body_edit(ngx_http_request_t *r, const ngx_str_t *body,
    const ngx_llm_edit_t *edit)
{
    size_t                    len;
    ngx_buf_t                *b;
    ngx_uint_t                i;
    ngx_chain_t              *cl, *edited, **ll;
    ngx_http_request_body_t  *rb;

    ngx_str_t  pieces[3] = {
        { edit->start, body->data },
        { edit->with.len, (u_char *) edit->with.data },
        { body->len - edit->end, body->data + edit->end }
    };

    len = pieces[0].len + pieces[1].len + pieces[2].len;
    b = ngx_http_llm_body_room(r, body, len);

    if (b) {
        (void) ngx_llm_request_edit(edit, body->data, body->len, body->data);

        b->start = b->pos;
        b->last = b->pos + len;

        return ngx_http_llm_body_length(r, len);
    }

    edited = NULL;
    ll = &edited;

    for (i = 0; i < 3; i++) {
        cl = ngx_http_llm_body_link(r, &pieces[i]);
        if (cl == NULL) {
            return NGX_ERROR;
        }

        cl->buf->last_buf = (i == 2);
        *ll = cl;
        ll = &cl->next;
    }

    rb = r->request_body;
    rb->bufs = edited;
    rb->buf = NULL;

    if (rb->temp_file) {
        ngx_pool_run_cleanup_file(r->pool, rb->temp_file->file.fd);
        rb->temp_file = NULL;
    }

    return ngx_http_llm_body_length(r, len);
}


/*
 * The body's buffer, if it is one and may be so long: nobody's bytes follow
 * it.  What was read with the header is the last of what was, or the client
 * has sent its next request already.  Nobody reads into it before this one
 * has ended.
 */

static ngx_buf_t *
ngx_http_llm_body_room(ngx_http_request_t *r, const ngx_str_t *body,
    size_t len)
{
    ngx_buf_t    *b, *memory;
    ngx_chain_t  *cl;

    cl = r->request_body->bufs;
    b = cl->buf;

    if (cl->next || b->in_file) {
        return NULL;
    }

    if (len <= body->len) {
        return b;
    }

    memory = r->request_body->buf ? r->request_body->buf : r->header_in;

    if (memory
        && b->pos >= memory->start
        && b->last == memory->last
        && (size_t) (memory->end - b->pos) >= len)
    {
        return b;
    }

    return NULL;
}


/* one temporary buffer whose start is its pos: a retry sets pos to start */

static ngx_chain_t *
ngx_http_llm_body_link(ngx_http_request_t *r, const ngx_str_t *piece)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    cl = ngx_alloc_chain_link(r->pool);
    b = ngx_calloc_buf(r->pool);

    if (cl == NULL || b == NULL) {
        return NULL;
    }

    b->start = piece->data;
    b->pos = b->start;
    b->last = b->pos + piece->len;
    b->end = b->last;
    b->temporary = 1;

    cl->buf = b;
    cl->next = NULL;

    return cl;
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
