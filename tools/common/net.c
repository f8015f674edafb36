
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net.h"


#define NET_BACKLOG  16384


static void net_nodelay(int fd);


int
net_parse_addr(str_t text, struct sockaddr_in *sin)
{
    char    host[INET_ADDRSTRLEN];
    str_t   addr, port;
    double  number;

    port = text;

    str_split(&port, ':', &addr);

    if (port.data == NULL || str_number(port, &number) == -1
        || !(number >= 1 && number <= 65535))
    {
        return -1;
    }

    memset(sin, 0, sizeof(struct sockaddr_in));

    sin->sin_family = AF_INET;
    sin->sin_port = htons((uint16_t) number);

    if (str_eq(addr, "localhost")) {
        sin->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return 0;
    }

    if (str_eq(addr, "*")) {
        sin->sin_addr.s_addr = htonl(INADDR_ANY);
        return 0;
    }

    if (addr.len >= sizeof(host)) {
        return -1;
    }

    memcpy(host, addr.data, addr.len);
    host[addr.len] = '\0';

    return inet_pton(AF_INET, host, &sin->sin_addr) == 1 ? 0 : -1;
}


int
net_listen(const struct sockaddr_in *sin)
{
    int  fd, one;

    fd = socket(AF_INET, SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return -1;
    }

    one = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == -1
        || bind(fd, (const struct sockaddr *) sin, sizeof(*sin)) == -1
        || listen(fd, NET_BACKLOG) == -1)
    {
        close(fd);
        return -1;
    }

    return fd;
}


int
net_accept(int fd)
{
    int  conn;

    do {
        conn = accept4(fd, NULL, NULL, SOCK_NONBLOCK|SOCK_CLOEXEC);
    } while (conn == -1 && (errno == EINTR || errno == ECONNABORTED));

    if (conn != -1) {
        net_nodelay(conn);
    }

    return conn;
}


int
net_connect(const struct sockaddr_in *sin)
{
    int  fd;

    fd = socket(AF_INET, SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return -1;
    }

    net_nodelay(fd);

    if (connect(fd, (const struct sockaddr *) sin, sizeof(*sin)) == -1
        && errno != EINPROGRESS)
    {
        close(fd);
        return -1;
    }

    return fd;
}


static void
net_nodelay(int fd)
{
    int  one;

    one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}


void
net_reset(int fd)
{
    struct linger  linger;

    linger.l_onoff = 1;
    linger.l_linger = 0;

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(fd);
}


size_t
net_raise_files(void)
{
    struct rlimit  limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == -1) {
        return 0;
    }

    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);

    return limit.rlim_cur;
}
