
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_redis_link.h"


#define NGX_HTTP_LLM_REDIS_PORT  6379


static char *ngx_http_llm_redis_credentials(ngx_conf_t *cf,
    ngx_http_llm_redis_t *redis, ngx_str_t *rest);
static char *ngx_http_llm_redis_decode(ngx_conf_t *cf, ngx_str_t *to,
    u_char *from, u_char *last);
static char *ngx_http_llm_redis_query(ngx_conf_t *cf,
    ngx_http_llm_redis_t *redis, ngx_str_t *rest, ngx_str_t *ca);
static char *ngx_http_llm_redis_path(ngx_http_llm_redis_t *redis,
    ngx_str_t *rest);
static char *ngx_http_llm_redis_addrs(ngx_conf_t *cf,
    ngx_http_llm_redis_t *redis, ngx_str_t *rest);
static char *ngx_http_llm_redis_unix(ngx_conf_t *cf,
    ngx_http_llm_redis_t *redis, ngx_str_t *path);
static char *ngx_http_llm_redis_tls(ngx_conf_t *cf,
    ngx_http_llm_redis_t *redis, ngx_str_t *ca);


/* redis://[user:password@]address[,address...][/db], rediss://, unix:path */

char *
ngx_http_llm_redis_url(ngx_conf_t *cf, ngx_http_llm_redis_t *redis,
    ngx_str_t url)
{
    char       *rv;
    ngx_str_t   ca, rest;
    ngx_uint_t  tls, local;

    static char  allowed[] =
        "redis://[user:password@]address[,address...][/db], the same with "
        "rediss://, or unix:path; an address is numeric, ip:port";

    ngx_str_null(&ca);

    tls = 0;
    local = 0;

    if (ngx_strncmp(url.data, "redis://", 8) == 0) {
        rest.data = url.data + 8;

    } else if (ngx_strncmp(url.data, "rediss://", 9) == 0) {
        rest.data = url.data + 9;
        tls = 1;

    } else if (ngx_strncmp(url.data, "unix:", 5) == 0) {
        rest.data = url.data + 5;
        local = 1;

    } else {
        return allowed;
    }

    rest.len = url.data + url.len - rest.data;

    if (ngx_array_init(&redis->addrs, cf->pool, 2, sizeof(ngx_addr_t))
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    rv = ngx_http_llm_redis_credentials(cf, redis, &rest);

    if (rv == NGX_CONF_OK) {
        rv = ngx_http_llm_redis_query(cf, redis, &rest, &ca);
    }

    /* who gives a certificate means TLS */

    if (rv == NGX_CONF_OK && ca.len && !tls) {
        return "?ca=file with rediss:// only";
    }

    if (rv == NGX_CONF_OK && local) {
        return ngx_http_llm_redis_unix(cf, redis, &rest);
    }

    if (rv == NGX_CONF_OK) {
        rv = ngx_http_llm_redis_path(redis, &rest);
    }

    if (rv == NGX_CONF_OK) {
        rv = ngx_http_llm_redis_addrs(cf, redis, &rest);
    }

    if (rv == NGX_CONF_OK && tls) {
        return ngx_http_llm_redis_tls(cf, redis, &ca);
    }

    return rv;
}


/* what stands ahead of the last "@", percent-encoded */

static char *
ngx_http_llm_redis_credentials(ngx_conf_t *cf, ngx_http_llm_redis_t *redis,
    ngx_str_t *rest)
{
    u_char  *at, *colon, *start;

    start = rest->data;

    for (at = start + rest->len; at > start && at[-1] != '@'; at--) {
        /* void */
    }

    if (at == start) {
        return NGX_CONF_OK;
    }

    rest->len -= at - start;
    rest->data = at--;

    colon = ngx_strlchr(start, at, ':');

    if (colon == NULL) {
        return "user:password or :password ahead of the @";
    }

    if (ngx_http_llm_redis_decode(cf, &redis->user, start, colon)
        != NGX_CONF_OK)
    {
        return NGX_CONF_ERROR;
    }

    return ngx_http_llm_redis_decode(cf, &redis->password, colon + 1, at);
}


static char *
ngx_http_llm_redis_decode(ngx_conf_t *cf, ngx_str_t *to, u_char *from,
    u_char *last)
{
    u_char  *p;

    if (from == last) {
        return NGX_CONF_OK;
    }

    to->data = ngx_pnalloc(cf->pool, last - from);
    if (to->data == NULL) {
        return NGX_CONF_ERROR;
    }

    p = to->data;
    ngx_unescape_uri(&p, &from, last - from, 0);
    to->len = p - to->data;

    return NGX_CONF_OK;
}


/* ?db=N, and of a connection with TLS ?ca=file */

static char *
ngx_http_llm_redis_query(ngx_conf_t *cf, ngx_http_llm_redis_t *redis,
    ngx_str_t *rest, ngx_str_t *ca)
{
    u_char     *mark, *last;
    ngx_int_t   n;

    last = rest->data + rest->len;
    mark = ngx_strlchr(rest->data, last, '?');

    if (mark == NULL) {
        return NGX_CONF_OK;
    }

    rest->len = mark++ - rest->data;

    if (last - mark > 3 && ngx_strncmp(mark, "ca=", 3) == 0) {
        ca->data = mark + 3;
        ca->len = last - ca->data;
        return NGX_CONF_OK;
    }

    if (last - mark > 3 && ngx_strncmp(mark, "db=", 3) == 0) {
        n = ngx_atoi(mark + 3, last - (mark + 3));

        if (n != NGX_ERROR) {
            redis->db = n;
            return NGX_CONF_OK;
        }
    }

    return "?db=number or ?ca=file behind it";
}


static char *
ngx_http_llm_redis_path(ngx_http_llm_redis_t *redis, ngx_str_t *rest)
{
    u_char     *slash, *last;
    ngx_int_t   n;

    last = rest->data + rest->len;
    slash = ngx_strlchr(rest->data, last, '/');

    if (slash == NULL) {
        return NGX_CONF_OK;
    }

    rest->len = slash++ - rest->data;

    if (slash == last) {
        return NGX_CONF_OK;
    }

    n = ngx_atoi(slash, last - slash);

    if (n == NGX_ERROR) {
        return "a number of a database behind the slash";
    }

    redis->db = n;

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_redis_addrs(ngx_conf_t *cf, ngx_http_llm_redis_t *redis,
    ngx_str_t *rest)
{
    u_char      *p, *comma, *last;
    size_t       len;
    ngx_addr_t  *addr;

    p = rest->data;
    last = p + rest->len;

    for ( ;; ) {
        comma = ngx_strlchr(p, last, ',');
        len = (comma ? comma : last) - p;

        addr = ngx_array_push(&redis->addrs);
        if (addr == NULL) {
            return NGX_CONF_ERROR;
        }

        if (ngx_parse_addr_port(cf->pool, addr, p, len) != NGX_OK) {
            return "numeric addresses, such as 127.0.0.1:6379 or "
                   "[::1]:6379: names are not resolved";
        }

        if (ngx_inet_get_port(addr->sockaddr) == 0) {
            ngx_inet_set_port(addr->sockaddr, NGX_HTTP_LLM_REDIS_PORT);
        }

        addr->name.data = ngx_pnalloc(cf->pool, NGX_SOCKADDR_STRLEN);
        if (addr->name.data == NULL) {
            return NGX_CONF_ERROR;
        }

        addr->name.len = ngx_sock_ntop(addr->sockaddr, addr->socklen,
                                       addr->name.data, NGX_SOCKADDR_STRLEN,
                                       1);

        if (comma == NULL) {
            return NGX_CONF_OK;
        }

        p = comma + 1;
    }
}


static char *
ngx_http_llm_redis_unix(ngx_conf_t *cf, ngx_http_llm_redis_t *redis,
    ngx_str_t *path)
{
    ngx_addr_t          *addr;
    struct sockaddr_un  *sun;

    addr = ngx_array_push(&redis->addrs);
    sun = ngx_pcalloc(cf->pool, sizeof(struct sockaddr_un));

    if (addr == NULL || sun == NULL) {
        return NGX_CONF_ERROR;
    }

    if (path->len == 0 || path->len >= sizeof(sun->sun_path)) {
        return "unix:path, with a path of up to 107 bytes";
    }

    sun->sun_family = AF_UNIX;
    ngx_memcpy(sun->sun_path, path->data, path->len);

    addr->sockaddr = (struct sockaddr *) sun;
    addr->socklen = sizeof(struct sockaddr_un);

    addr->name.len = path->len + 5;
    addr->name.data = ngx_pnalloc(cf->pool, addr->name.len);
    if (addr->name.data == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_sprintf(addr->name.data, "unix:%V", path);

    return NGX_CONF_OK;
}


/* nginx's own TLS: what hiredis was built with does not matter */

static char *
ngx_http_llm_redis_tls(ngx_conf_t *cf, ngx_http_llm_redis_t *redis,
    ngx_str_t *ca)
{
#if (NGX_SSL)

    ngx_pool_cleanup_t  *cln;

    redis->ssl = ngx_pcalloc(cf->pool, sizeof(ngx_ssl_t));
    if (redis->ssl == NULL) {
        return NGX_CONF_ERROR;
    }

    redis->ssl->log = cf->log;

    if (ngx_ssl_create(redis->ssl, NGX_SSL_TLSv1_2|NGX_SSL_TLSv1_3, NULL)
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        ngx_ssl_cleanup_ctx(redis->ssl);
        return NGX_CONF_ERROR;
    }

    cln->handler = ngx_ssl_cleanup_ctx;
    cln->data = redis->ssl;

    if (ca->len == 0) {
        return NGX_CONF_OK;
    }

    redis->verify = 1;

    if (ngx_ssl_trusted_certificate(cf, redis->ssl, ca, 3) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;

#else
    return "redis:// or unix:path: this nginx was built without TLS";
#endif
}
