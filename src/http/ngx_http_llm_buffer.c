
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_buffer.h"
#include "ngx_http_llm_exchange.h"


/* spare ones of a worker; more go back to the system */
#define NGX_HTTP_LLM_BUFFER_SPARES  64


typedef struct ngx_http_llm_spare_s  ngx_http_llm_spare_t;

struct ngx_http_llm_spare_s {
    ngx_http_llm_spare_t     *next;
};


typedef struct {
    /* all of them are of this size, that of the first one */
    size_t                    size;

    ngx_http_llm_spare_t     *spares;
    ngx_uint_t                nspares;

    /* whose upstream was read last: it keeps its buffer; NULL: it has ended */
    ngx_http_llm_exchange_t  *reader;
} ngx_http_llm_buffers_t;


static void ngx_http_llm_buffer_read_handler(ngx_http_request_t *r,
    ngx_http_upstream_t *u);
static void ngx_http_llm_buffer_turn(ngx_http_request_t *r,
    ngx_http_upstream_t *u, ngx_http_llm_exchange_t *ex)
    __attribute__((noinline));
static void ngx_http_llm_buffer_idle(ngx_http_llm_exchange_t *ex);
static ngx_int_t ngx_http_llm_buffer_take(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex);
static void ngx_http_llm_buffer_give(ngx_http_request_t *r,
    ngx_http_llm_exchange_t *ex);
static void ngx_http_llm_buffer_spare(void *buffer, size_t size);


static ngx_http_llm_buffers_t  ngx_http_llm_buffers;


void
ngx_http_llm_buffer_hook(ngx_http_request_t *r, ngx_http_llm_exchange_t *ex)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    ex->upstream_handler = u->read_event_handler;
    u->read_event_handler = ngx_http_llm_buffer_read_handler;
}


static void
ngx_http_llm_buffer_read_handler(ngx_http_request_t *r,
    ngx_http_upstream_t *u)
{
    ngx_http_llm_exchange_t  *ex;

    ex = ngx_http_llm_get_exchange(r);

    /* mostly it is the same one again, or there are many of them */

    if (ngx_http_llm_buffers.reader != ex || u->buffer.start == NULL) {
        ngx_http_llm_buffer_turn(r, u, ex);
        return;
    }

    ex->upstream_handler(r, u);
}


/* the buffer of who was read last is given back now, and may be used again */

static void
ngx_http_llm_buffer_turn(ngx_http_request_t *r, ngx_http_upstream_t *u,
    ngx_http_llm_exchange_t *ex)
{
    if (ngx_http_llm_buffers.reader && ngx_http_llm_buffers.reader != ex) {
        ngx_http_llm_buffer_idle(ngx_http_llm_buffers.reader);
    }

    ngx_http_llm_buffers.reader = ex;

    if (u->buffer.start == NULL
        && ngx_http_llm_buffer_take(r, ex) != NGX_OK)
    {
        /* what upstream's failing is, nginx looks at when it writes */

        u->peer.connection->read->error = 1;
        r->write_event_handler(r);
        return;
    }

    ex->upstream_handler(r, u);
}


/* nginx would begin at its start again: nothing points into it any more */

static void
ngx_http_llm_buffer_idle(ngx_http_llm_exchange_t *ex)
{
    ngx_http_request_t   *r;
    ngx_http_upstream_t  *u;

    r = ex->ctx->request;
    u = r->upstream;

    if (u->busy_bufs == NULL
        && u->out_bufs == NULL
        && u->buffer.last == u->buffer.start)
    {
        ngx_http_llm_buffer_give(r, ex);
    }
}


static ngx_int_t
ngx_http_llm_buffer_take(ngx_http_request_t *r, ngx_http_llm_exchange_t *ex)
{
    size_t                 size;
    ngx_buf_t             *b;
    ngx_http_llm_spare_t  *spare;

    size = r->upstream->conf->buffer_size;
    spare = ngx_http_llm_buffers.spares;

    if (spare && ngx_http_llm_buffers.size == size) {
        ngx_http_llm_buffers.spares = spare->next;
        ngx_http_llm_buffers.nspares--;

    } else {
        spare = ngx_alloc(size, r->connection->log);
        if (spare == NULL) {
            return NGX_ERROR;
        }
    }

    ex->buffer = (u_char *) spare;

    b = &r->upstream->buffer;

    b->start = ex->buffer;
    b->pos = ex->buffer;
    b->last = ex->buffer;
    b->end = ex->buffer + size;

    return NGX_OK;
}


/* the first one is the pool's, which keeps it if it is small */

static void
ngx_http_llm_buffer_give(ngx_http_request_t *r, ngx_http_llm_exchange_t *ex)
{
    ngx_buf_t  *b;

    b = &r->upstream->buffer;

    if (ex->buffer) {
        ngx_http_llm_buffer_spare(ex->buffer, b->end - b->start);
        ex->buffer = NULL;

    } else if (b->start == NULL || ngx_pfree(r->pool, b->start) != NGX_OK) {
        return;
    }

    b->start = NULL;
    b->pos = NULL;
    b->last = NULL;
    b->end = NULL;
}


static void
ngx_http_llm_buffer_spare(void *buffer, size_t size)
{
    ngx_http_llm_spare_t  *spare;

    if (ngx_http_llm_buffers.nspares == 0) {
        ngx_http_llm_buffers.size = size;
    }

    if (ngx_http_llm_buffers.size != size
        || ngx_http_llm_buffers.nspares == NGX_HTTP_LLM_BUFFER_SPARES)
    {
        ngx_free(buffer);
        return;
    }

    spare = buffer;
    spare->next = ngx_http_llm_buffers.spares;

    ngx_http_llm_buffers.spares = spare;
    ngx_http_llm_buffers.nspares++;
}


void
ngx_http_llm_buffer_end(ngx_http_llm_exchange_t *ex)
{
    if (ngx_http_llm_buffers.reader == ex) {
        ngx_http_llm_buffers.reader = NULL;
    }
}


/* what a slow client has not read yet lay in it until now */

void
ngx_http_llm_buffer_cleanup(ngx_http_llm_exchange_t *ex)
{
    ngx_http_llm_buffer_end(ex);

    if (ex->buffer) {
        ngx_free(ex->buffer);
        ex->buffer = NULL;
    }
}
