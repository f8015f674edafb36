
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#ifndef TOOLS_NET_H
#define TOOLS_NET_H


#include <netinet/in.h>

#include "buf.h"


/*
 * IPv4, no name service: "ADDR:PORT", ADDR numeric, "localhost" or "*".
 * The port must be there; -1 for anything else.
 */
int net_parse_addr(str_t text, struct sockaddr_in *sin);

/* descriptors: non-blocking, TCP_NODELAY; -1 with errno */
int net_listen(const struct sockaddr_in *sin);
int net_accept(int fd);
int net_connect(const struct sockaddr_in *sin);

/* sends RST instead of FIN */
void net_reset(int fd);

/* raises the limit of open files as far as it goes; returns it */
size_t net_raise_files(void);


#endif /* TOOLS_NET_H */
