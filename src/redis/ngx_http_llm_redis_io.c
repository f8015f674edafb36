
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_redis_link.h"


/* the type of an array's length has changed with hiredis 1.0 */

#if (HIREDIS_MAJOR >= 1)
typedef size_t  ngx_http_llm_redis_elements_t;
#else
typedef int     ngx_http_llm_redis_elements_t;
#endif


static ngx_int_t ngx_http_llm_redis_io_reader(
    ngx_http_llm_redis_link_t *link);
static void *ngx_http_llm_redis_io_array(const redisReadTask *task,
    ngx_http_llm_redis_elements_t elements);
#if (NGX_SSL)
static void ngx_http_llm_redis_io_handshake(ngx_connection_t *c);
static void ngx_http_llm_redis_io_shaken(ngx_connection_t *c);
#endif
static void ngx_http_llm_redis_io_greet(ngx_http_llm_redis_link_t *link);
static void ngx_http_llm_redis_io_read_handler(ngx_event_t *rev);
static void ngx_http_llm_redis_io_write_handler(ngx_event_t *wev);
static ngx_int_t ngx_http_llm_redis_io_replies(
    ngx_http_llm_redis_link_t *link);
static ngx_err_t ngx_http_llm_redis_io_error(ngx_connection_t *c);


static redisReplyObjectFunctions  ngx_http_llm_redis_io_functions;

static void *(*ngx_http_llm_redis_io_plain_array)(const redisReadTask *task,
    ngx_http_llm_redis_elements_t elements);

static u_char  ngx_http_llm_redis_io_buffer[16384];


ngx_int_t
ngx_http_llm_redis_io_open(ngx_http_llm_redis_link_t *link)
{
    ngx_int_t              rc;
    ngx_connection_t      *c;
    ngx_peer_connection_t  peer;

    if (ngx_http_llm_redis_io_reader(link) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_memzero(&peer, sizeof(ngx_peer_connection_t));

    peer.sockaddr = link->addr.sockaddr;
    peer.socklen = link->addr.socklen;
    peer.name = &link->addr.name;
    peer.get = ngx_event_get_peer;
    peer.log = &link->redis->quiet;
    peer.log_error = NGX_ERROR_ERR;
    peer.so_keepalive = 1;

    rc = ngx_event_connect_peer(&peer);

    if (rc == NGX_ERROR || rc == NGX_DECLINED || rc == NGX_BUSY) {
        return NGX_ERROR;
    }

    c = peer.connection;

    c->data = link;
    c->log = &link->redis->quiet;
    c->read->log = c->log;
    c->write->log = c->log;
    c->read->handler = ngx_http_llm_redis_io_read_handler;
    c->write->handler = ngx_http_llm_redis_io_write_handler;

    (void) ngx_tcp_nodelay(c);

    link->connection = c;
    link->state = NGX_HTTP_LLM_REDIS_CONNECTING;
    link->number++;

    return rc;
}


static ngx_int_t
ngx_http_llm_redis_io_reader(ngx_http_llm_redis_link_t *link)
{
    link->reader = redisReaderCreate();

    if (link->reader == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_llm_redis_io_plain_array == NULL) {
        ngx_http_llm_redis_io_functions = *link->reader->fn;
        ngx_http_llm_redis_io_plain_array =
                                  ngx_http_llm_redis_io_functions.createArray;
        ngx_http_llm_redis_io_functions.createArray =
                                                  ngx_http_llm_redis_io_array;
    }

    link->reader->fn = &ngx_http_llm_redis_io_functions;

    return NGX_OK;
}


/* its memory is taken when its length is said, before anything has come */

static void *
ngx_http_llm_redis_io_array(const redisReadTask *task,
    ngx_http_llm_redis_elements_t elements)
{
    if (elements > NGX_HTTP_LLM_REDIS_ELEMENTS

#if (HIREDIS_MAJOR < 1)
        || elements < 0
#endif
        )
    {
        return NULL;
    }

    return ngx_http_llm_redis_io_plain_array(task, elements);
}


void
ngx_http_llm_redis_io_shut(ngx_http_llm_redis_link_t *link)
{
    ngx_connection_t  *c;

    c = link->connection;

    if (c) {

#if (NGX_SSL)
        if (c->ssl) {
            c->ssl->no_wait_shutdown = 1;
            c->ssl->no_send_shutdown = 1;
            (void) ngx_ssl_shutdown(c);
        }
#endif

        if (c->pool) {
            ngx_destroy_pool(c->pool);
            c->pool = NULL;
        }

        ngx_close_connection(c);
        link->connection = NULL;
    }

    if (link->reader) {
        redisReaderFree(link->reader);
        link->reader = NULL;
    }

    if (link->out) {
        ngx_free(link->out);
        link->out = NULL;
    }

    link->out_bytes = 0;
    link->out_sent = 0;
    link->out_size = 0;
    link->greetings = 0;
    link->number++;
    link->state = NGX_HTTP_LLM_REDIS_DOWN;

    if (link->timer.timer_set) {
        ngx_del_timer(&link->timer);
    }
}


void
ngx_http_llm_redis_io_connected(ngx_http_llm_redis_link_t *link)
{
#if (NGX_SSL)

    if (link->redis->ssl) {
        ngx_http_llm_redis_io_handshake(link->connection);
        return;
    }

#endif

    ngx_http_llm_redis_io_greet(link);
}


#if (NGX_SSL)

static void
ngx_http_llm_redis_io_handshake(ngx_connection_t *c)
{
    ngx_int_t                   rc;
    ngx_http_llm_redis_link_t  *link;

    link = c->data;

    c->pool = ngx_create_pool(1024, link->redis->log);

    if (c->pool == NULL
        || ngx_ssl_create_connection(link->redis->ssl, c,
                                     NGX_SSL_BUFFER|NGX_SSL_CLIENT)
           != NGX_OK)
    {
        ngx_http_llm_redis_link_drop(link, "no memory for TLS");
        return;
    }

    /* what could not be sent yet may have moved until it is */

    SSL_set_mode(c->ssl->connection, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);

    link->state = NGX_HTTP_LLM_REDIS_GREETS;

    rc = ngx_ssl_handshake(c);

    if (rc == NGX_AGAIN) {
        c->ssl->handler = ngx_http_llm_redis_io_shaken;
        return;
    }

    ngx_http_llm_redis_io_shaken(c);
}


static void
ngx_http_llm_redis_io_shaken(ngx_connection_t *c)
{
    ngx_http_llm_redis_link_t  *link;

    link = c->data;

    if (!c->ssl->handshaked) {
        ngx_http_llm_redis_link_drop(link, "TLS handshake failed");
        return;
    }

    if (link->redis->verify && SSL_get_verify_result(c->ssl->connection)
                               != X509_V_OK)
    {
        ngx_http_llm_redis_link_drop(link, "certificate is not trusted");
        return;
    }

    c->read->handler = ngx_http_llm_redis_io_read_handler;
    c->write->handler = ngx_http_llm_redis_io_write_handler;

    ngx_http_llm_redis_io_greet(link);
}

#endif


static void
ngx_http_llm_redis_io_greet(ngx_http_llm_redis_link_t *link)
{
    link->state = NGX_HTTP_LLM_REDIS_GREETS;

    ngx_http_llm_redis_greet(link);
}


static ngx_err_t
ngx_http_llm_redis_io_error(ngx_connection_t *c)
{
    int        err;
    socklen_t  len;

    err = 0;
    len = sizeof(int);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, (void *) &err, &len) == -1) {
        err = ngx_socket_errno;
    }

    return err;
}


static void
ngx_http_llm_redis_io_write_handler(ngx_event_t *wev)
{
    ngx_err_t                   err;
    ngx_connection_t           *c;
    ngx_http_llm_redis_link_t  *link;

    c = wev->data;
    link = c->data;

    if (link->state == NGX_HTTP_LLM_REDIS_CONNECTING) {
        err = ngx_http_llm_redis_io_error(c);

        if (err) {
            ngx_http_llm_redis_link_drop(link, "connect() failed (%d: %s)",
                                         err, strerror(err));
            return;
        }

        ngx_http_llm_redis_io_connected(link);
        return;
    }

    if (ngx_http_llm_redis_io_send(link) == NGX_ERROR) {
        ngx_http_llm_redis_link_drop(link, "connection is broken");
        return;
    }

    if (ngx_handle_write_event(wev, 0) != NGX_OK) {
        ngx_http_llm_redis_link_drop(link, "cannot write");
    }
}


ngx_int_t
ngx_http_llm_redis_io_send(ngx_http_llm_redis_link_t *link)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = link->connection;

    while (link->out_sent < link->out_bytes) {

        n = c->send(c, link->out + link->out_sent,
                    link->out_bytes - link->out_sent);

        if (n == NGX_AGAIN) {
            return NGX_AGAIN;
        }

        if (n <= 0) {
            return NGX_ERROR;
        }

        link->out_sent += n;
    }

    link->out_sent = 0;
    link->out_bytes = 0;

    /* what a burst has needed is not kept */

    if (link->out_size > NGX_HTTP_LLM_REDIS_OUT_KEEP) {
        ngx_free(link->out);
        link->out = NULL;
        link->out_size = 0;
    }

    return NGX_OK;
}


static void
ngx_http_llm_redis_io_read_handler(ngx_event_t *rev)
{
    ssize_t                     n;
    ngx_connection_t           *c;
    ngx_http_llm_redis_link_t  *link;

    c = rev->data;
    link = c->data;

    if (link->state == NGX_HTTP_LLM_REDIS_CONNECTING) {
        ngx_http_llm_redis_io_write_handler(c->write);
        return;
    }

    for ( ;; ) {
        n = c->recv(c, ngx_http_llm_redis_io_buffer,
                    sizeof(ngx_http_llm_redis_io_buffer));

        if (n == NGX_AGAIN) {
            break;
        }

        if (n <= 0) {
            ngx_http_llm_redis_link_drop(link, "connection was closed");
            return;
        }

        if (ngx_queue_empty(&link->pending)) {
            ngx_http_llm_redis_link_drop(link, "reply to no command");
            return;
        }

        if (redisReaderFeed(link->reader,
                            (char *) ngx_http_llm_redis_io_buffer, n)
            != REDIS_OK)
        {
            ngx_http_llm_redis_link_drop(link, "no memory for a reply");
            return;
        }

        if (ngx_http_llm_redis_io_replies(link) != NGX_OK) {
            return;
        }
    }

    if (ngx_handle_read_event(rev, 0) != NGX_OK) {
        ngx_http_llm_redis_link_drop(link, "cannot read");
    }
}


/* anything but NGX_OK: this connection is gone */

static ngx_int_t
ngx_http_llm_redis_io_replies(ngx_http_llm_redis_link_t *link)
{
    void                       *reply;
    ngx_uint_t                  number;
    ngx_queue_t                *q;
    redisReader                *reader;
    ngx_http_llm_redis_call_t  *call;

    reader = link->reader;
    number = link->number;

    for ( ;; ) {
        reply = NULL;

        if (redisReaderGetReply(reader, &reply) != REDIS_OK) {
            ngx_http_llm_redis_link_drop(link, "wrong reply: %s",
                                         reader->errstr);
            return NGX_DECLINED;
        }

        if (reply == NULL) {
            break;
        }

        q = ngx_queue_head(&link->pending);
        ngx_queue_remove(q);

        link->npending--;

        call = ngx_queue_data(q, ngx_http_llm_redis_call_t, queue);
        call->done(call, reply);

        freeReplyObject(reply);

        if (link->number != number) {
            return NGX_DECLINED;
        }

        if (ngx_queue_empty(&link->pending)) {

            if (reader->len > reader->pos) {
                ngx_http_llm_redis_link_drop(link, "reply to no command");
                return NGX_DECLINED;
            }

            if (link->timer.timer_set
                && link->state == NGX_HTTP_LLM_REDIS_UP)
            {
                ngx_del_timer(&link->timer);
            }

            return NGX_OK;
        }
    }

    if (reader->len - reader->pos > NGX_HTTP_LLM_REDIS_IN_BYTES) {
        ngx_http_llm_redis_link_drop(link, "reply is too large");
        return NGX_DECLINED;
    }

    return NGX_OK;
}
