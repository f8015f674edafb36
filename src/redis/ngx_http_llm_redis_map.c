
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_redis_link.h"


/* the slots are not asked for more often, whatever goes wrong */
#define NGX_HTTP_LLM_REDIS_REFRESH_MS  200


static ngx_int_t ngx_http_llm_redis_ranges(ngx_http_llm_redis_link_t *link,
    const redisReply *reply);
static ngx_http_llm_redis_link_t *ngx_http_llm_redis_find(
    ngx_http_llm_redis_t *redis, const ngx_addr_t *addr, ngx_uint_t *index);
static ngx_http_llm_redis_link_t *ngx_http_llm_redis_left(
    ngx_http_llm_redis_map_t *map, ngx_uint_t *index);
static ngx_uint_t ngx_http_llm_redis_is_idle(
    const ngx_http_llm_redis_link_t *link);
static ngx_int_t ngx_http_llm_redis_address(ngx_addr_t *addr,
    ngx_sockaddr_t *sockaddr, ngx_http_llm_redis_link_t *link,
    u_char *host, size_t len, ngx_int_t port);
static ngx_int_t ngx_http_llm_redis_range(ngx_http_llm_redis_link_t *link,
    const redisReply *range);
static void ngx_http_llm_redis_refreshed(ngx_http_llm_redis_call_t *call,
    redisReply *reply);


/* CRC-16/XMODEM of what stands between the first braces */

ngx_uint_t
ngx_http_llm_redis_slot(const u_char *key, size_t len)
{
    u_char         *open, *close, *end;
    uint32_t        crc, x;

    end = (u_char *) key + len;
    open = ngx_strlchr((u_char *) key, end, '{');

    if (open) {
        close = ngx_strlchr(open + 1, end, '}');

        if (close && close != open + 1) {
            key = open + 1;
            end = close;
        }
    }

    crc = 0;

    /* eight steps of x^16 + x^12 + x^5 + 1 at a time */

    while (key < end) {
        x = (crc >> 8 ^ *key++) & 0xff;
        x ^= x >> 4;
        crc = crc << 8 ^ x << 12 ^ x << 5 ^ x;
    }

    return crc & (NGX_HTTP_LLM_REDIS_SLOTS - 1);
}


/*
 * CLUSTER SLOTS: an array of {first slot, last slot, {host, port, ...}, ...},
 * the master first.  What else it may be is no error: then nothing changes.
 */

ngx_int_t
ngx_http_llm_redis_learn(ngx_http_llm_redis_link_t *link,
    const redisReply *reply)
{
    ngx_int_t                  rc;
    ngx_uint_t                 i;
    ngx_http_llm_redis_map_t  *map;

    map = link->redis->map;

    if (reply->type != REDIS_REPLY_ARRAY || reply->elements == 0) {
        return NGX_DECLINED;
    }

    for (i = 1; i < map->nlinks; i++) {
        map->links[i]->used = 0;
    }

    map->cluster = 1;

    rc = ngx_http_llm_redis_ranges(link, reply);

    for (i = 1; i < map->nlinks; i++) {
        if (ngx_http_llm_redis_is_idle(map->links[i])) {
            ngx_http_llm_redis_link_close(map->links[i]);
        }
    }

    /* now there is the room of those that have left */

    if (rc == NGX_BUSY) {
        (void) ngx_http_llm_redis_ranges(link, reply);
    }

    return NGX_OK;
}


/* NGX_BUSY: there was no room for a server */

static ngx_int_t
ngx_http_llm_redis_ranges(ngx_http_llm_redis_link_t *link,
    const redisReply *reply)
{
    ngx_int_t   rc;
    ngx_uint_t  i;

    rc = NGX_OK;

    for (i = 0; i < reply->elements; i++) {
        if (ngx_http_llm_redis_range(link, reply->element[i]) == NGX_BUSY) {
            rc = NGX_BUSY;
        }
    }

    return rc;
}


static ngx_int_t
ngx_http_llm_redis_range(ngx_http_llm_redis_link_t *link,
    const redisReply *range)
{
    ngx_addr_t                  addr;
    ngx_uint_t                  index;
    ngx_sockaddr_t              sockaddr;
    const redisReply           *first, *last, *master;
    ngx_http_llm_redis_map_t   *map;
    ngx_http_llm_redis_link_t  *node;

    map = link->redis->map;

    if (range == NULL || range->type != REDIS_REPLY_ARRAY
        || range->elements < 3)
    {
        return NGX_ERROR;
    }

    first = range->element[0];
    last = range->element[1];
    master = range->element[2];

    if (first->type != REDIS_REPLY_INTEGER
        || last->type != REDIS_REPLY_INTEGER
        || first->integer < 0
        || last->integer >= NGX_HTTP_LLM_REDIS_SLOTS
        || first->integer > last->integer
        || master->type != REDIS_REPLY_ARRAY
        || master->elements < 2
        || master->element[1]->type != REDIS_REPLY_INTEGER)
    {
        return NGX_ERROR;
    }

    /* a host that is empty or nil is the one that was asked */

    if (ngx_http_llm_redis_address(&addr, &sockaddr, link,
                                   (u_char *) master->element[0]->str,
                                   (master->element[0]->type
                                    == REDIS_REPLY_STRING)
                                   ? master->element[0]->len : 0,
                                   master->element[1]->integer)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    node = ngx_http_llm_redis_find(link->redis, &addr, &index);
    if (node == NULL) {
        return NGX_BUSY;
    }

    node->used = 1;

    ngx_memset(&map->slots[first->integer], (int) index,
               last->integer - first->integer + 1);

    if (!node->retry.timer_set) {
        ngx_http_llm_redis_link_connect(node);
    }

    return NGX_OK;
}


/* the link to an address, a new one if need be; NULL: too many servers */

static ngx_http_llm_redis_link_t *
ngx_http_llm_redis_find(ngx_http_llm_redis_t *redis, const ngx_addr_t *addr,
    ngx_uint_t *index)
{
    ngx_uint_t                  i;
    ngx_http_llm_redis_map_t   *map;
    ngx_http_llm_redis_link_t  *link;

    map = redis->map;

    for (i = 1; i < map->nlinks; i++) {
        link = map->links[i];

        if (ngx_cmp_sockaddr(link->addr.sockaddr, link->addr.socklen,
                             addr->sockaddr, addr->socklen, 1)
            == NGX_OK)
        {
            *index = i;
            return link;
        }
    }

    link = ngx_http_llm_redis_left(map, index);

    if (link) {
        ngx_http_llm_redis_link_name(link, addr);
        return link;
    }

    if (map->nlinks == NGX_HTTP_LLM_REDIS_LINKS) {
        return NULL;
    }

    link = ngx_http_llm_redis_link_create(redis, addr);
    if (link == NULL) {
        return NULL;
    }

    *index = map->nlinks;
    map->links[map->nlinks++] = link;

    return link;
}


/*
 * The link of a server that has left: one that is the cluster's is connected,
 * or tries to be.  A slot that is said to be there still is moved by whoever
 * takes its place.
 */

static ngx_http_llm_redis_link_t *
ngx_http_llm_redis_left(ngx_http_llm_redis_map_t *map, ngx_uint_t *index)
{
    ngx_uint_t                  i;
    ngx_http_llm_redis_link_t  *link;

    for (i = 1; i < map->nlinks; i++) {
        link = map->links[i];

        if (ngx_http_llm_redis_is_idle(link)
            && link->connection == NULL
            && !link->retry.timer_set)
        {
            *index = i;
            return link;
        }
    }

    return NULL;
}


/* no slot is its server's, and nobody waits for it */

static ngx_uint_t
ngx_http_llm_redis_is_idle(const ngx_http_llm_redis_link_t *link)
{
    return !link->used
           && ngx_queue_empty(&link->pending)
           && ngx_queue_empty(&link->waiting);
}


/* only numbers: a name would have to be resolved */

static ngx_int_t
ngx_http_llm_redis_address(ngx_addr_t *addr, ngx_sockaddr_t *sockaddr,
    ngx_http_llm_redis_link_t *link, u_char *host, size_t len, ngx_int_t port)
{
    in_addr_t             inaddr;
    struct sockaddr_in   *sin;
#if (NGX_HAVE_INET6)
    struct sockaddr_in6  *sin6;
#endif

    if (port < 1 || port > 65535) {
        return NGX_ERROR;
    }

    ngx_memzero(sockaddr, sizeof(ngx_sockaddr_t));

    addr->sockaddr = &sockaddr->sockaddr;

    if (len == 0) {
        if (link->addr.sockaddr->sa_family == AF_UNIX) {
            return NGX_ERROR;
        }

        ngx_memcpy(sockaddr, link->addr.sockaddr, link->addr.socklen);
        addr->socklen = link->addr.socklen;

        ngx_inet_set_port(addr->sockaddr, (in_port_t) port);
        return NGX_OK;
    }

    inaddr = ngx_inet_addr(host, len);

    if (inaddr != INADDR_NONE) {
        sin = &sockaddr->sockaddr_in;
        sin->sin_family = AF_INET;
        sin->sin_addr.s_addr = inaddr;
        sin->sin_port = htons((in_port_t) port);
        addr->socklen = sizeof(struct sockaddr_in);
        return NGX_OK;
    }

#if (NGX_HAVE_INET6)

    sin6 = &sockaddr->sockaddr_in6;

    if (ngx_inet6_addr(host, len, sin6->sin6_addr.s6_addr) == NGX_OK) {
        sin6->sin6_family = AF_INET6;
        sin6->sin6_port = htons((in_port_t) port);
        addr->socklen = sizeof(struct sockaddr_in6);
        return NGX_OK;
    }

#endif

    return NGX_ERROR;
}


ngx_http_llm_redis_link_t *
ngx_http_llm_redis_target(ngx_http_llm_redis_link_t *link,
    const redisReply *reply, ngx_uint_t moved)
{
    u_char                     *p, *colon, *host, *last;
    ngx_addr_t                  addr;
    ngx_int_t                   port, slot;
    ngx_uint_t                  index;
    ngx_sockaddr_t              sockaddr;
    ngx_http_llm_redis_map_t   *map;
    ngx_http_llm_redis_link_t  *node;

    map = link->redis->map;

    /* MOVED 3999 127.0.0.1:6381 */

    p = (u_char *) reply->str;
    last = p + reply->len;

    p = ngx_strlchr(p, last, ' ');
    host = p ? ngx_strlchr(p + 1, last, ' ') : NULL;

    if (host == NULL) {
        return NULL;
    }

    slot = ngx_atoi(p + 1, host - (p + 1));
    host++;

    for (colon = last; colon > host && *colon != ':'; colon--) { /* void */ }

    port = ngx_atoi(colon + 1, last - (colon + 1));

    if (colon == last || slot < 0 || slot >= NGX_HTTP_LLM_REDIS_SLOTS
        || ngx_http_llm_redis_address(&addr, &sockaddr, link, host,
                                      colon - host, port)
           != NGX_OK)
    {
        return NULL;
    }

    node = ngx_http_llm_redis_find(link->redis, &addr, &index);
    if (node == NULL) {
        return NULL;
    }

    if (moved) {
        map->cluster = 1;
        map->stale = 1;
        map->slots[slot] = (u_char) index;
        node->used = 1;
    }

    if (!node->retry.timer_set) {
        ngx_http_llm_redis_link_connect(node);
    }

    return node;
}


/* any server that is there knows the others */

void
ngx_http_llm_redis_refresh(ngx_http_llm_redis_t *redis)
{
    size_t                      lens[2];
    const char                 *args[2];
    ngx_uint_t                  i;
    ngx_http_llm_redis_map_t   *map;
    ngx_http_llm_redis_call_t  *call;

    map = redis->map;

    if (!map->cluster || map->asking || redis->stopping) {
        return;
    }

    map->stale = 1;

    if (ngx_current_msec - map->asked_ms < NGX_HTTP_LLM_REDIS_REFRESH_MS) {
        return;
    }

    args[0] = "CLUSTER";
    lens[0] = 7;
    args[1] = "SLOTS";
    lens[1] = 5;

    call = ngx_http_llm_redis_call_create(NGX_HTTP_LLM_REDIS_GREETING,
                                          ngx_http_llm_redis_refreshed, 2,
                                          args, lens);
    if (call == NULL) {
        return;
    }

    call->charge.redis = redis;

    for (i = 0; i < map->nlinks; i++) {
        if (map->links[i]->state == NGX_HTTP_LLM_REDIS_UP
            && ngx_http_llm_redis_link_send(map->links[i], call) == NGX_OK)
        {
            map->asking = 1;
            map->asked_ms = ngx_current_msec;
            return;
        }
    }

    ngx_http_llm_redis_call_free(call);
}


static void
ngx_http_llm_redis_refreshed(ngx_http_llm_redis_call_t *call,
    redisReply *reply)
{
    ngx_http_llm_redis_link_t  *link;
    ngx_http_llm_redis_map_t   *map;

    link = call->link;
    map = call->charge.redis->map;

    ngx_http_llm_redis_call_free(call);

    map->asking = 0;

    if (reply && ngx_http_llm_redis_learn(link, reply) == NGX_OK) {
        map->stale = 0;
    }
}
