
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Which servers have served a key: affinity.  A table of fixed size in shared
 * memory, 65,536 keys of 64 bytes in sets of eight: in a full set the key
 * that was not used for longest makes room.  A key has up to four servers,
 * the one that served it last first.
 *
 * Servers are known by a hash of their address: reloads keep the table, and
 * of a server that went away nothing is left as soon as nobody asks for it.
 */


#ifndef _NGX_HTTP_LLM_PLACE_H_INCLUDED_
#define _NGX_HTTP_LLM_PLACE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_llm_pick.h"


#define NGX_HTTP_LLM_PLACES  NGX_LLM_PICK_WARM


typedef struct {
    /* hash of the server's address; 0: none, and none behind it */
    uint32_t              server;

    /* prompt tokens that it was sent for this key last */
    uint32_t              tokens;

    /* of the server, then: see ngx_http_llm_learn_clock() */
    uint32_t              clock;
} ngx_http_llm_place_t;


/* adds the zone to the configuration, once; tag is the module; or NULL */

ngx_shm_zone_t *ngx_http_llm_place_zone(ngx_conf_t *cf, void *tag);

/* the servers of a key, zeroes where there are none; the key is in use */

void ngx_http_llm_place_find(ngx_shm_zone_t *zone, uint64_t key,
    ngx_http_llm_place_t places[NGX_HTTP_LLM_PLACES]);

/* this server is the key's last one now; of five the oldest is forgotten */

void ngx_http_llm_place_put(ngx_shm_zone_t *zone, uint64_t key,
    const ngx_http_llm_place_t *place);

/* so many tokens were really sent to this server for the key */

void ngx_http_llm_place_correct(ngx_shm_zone_t *zone, uint64_t key,
    uint32_t server, uint32_t tokens);

/* this server failed: nothing of the key is there */

void ngx_http_llm_place_forget(ngx_shm_zone_t *zone, uint64_t key,
    uint32_t server);


#endif /* _NGX_HTTP_LLM_PLACE_H_INCLUDED_ */
