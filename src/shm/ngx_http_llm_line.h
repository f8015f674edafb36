
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The queues of llm_queue in shared memory: a line for each upstream, known
 * by its name, in which requests of all workers wait for a seat: one request
 * in flight that a server's max_conns still allows.  Reloads keep the lines.
 *
 * A request has a ticket from the moment it wants a seat until it gave that
 * back.  A ticket waits; is called, which reserves a seat that nobody else
 * gets; is seated, when the seat is counted as a request in flight instead.
 * Whose turn it is is said by ngx_llm_fair.h; within a key it is first come,
 * first served.
 *
 * How many seats there are is an argument: who calls knows the servers.
 *
 * Bounded: a ticket takes 128 bytes, a key with tickets 128 more, and 4096
 * keys of a line are remembered that have none.  8 megabytes in all, which
 * hold some 30,000 tickets.
 */


#ifndef _NGX_HTTP_LLM_LINE_H_INCLUDED_
#define _NGX_HTTP_LLM_LINE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_llm_fair.h"


typedef struct ngx_http_llm_line_s        ngx_http_llm_line_t;
typedef struct ngx_http_llm_line_key_s    ngx_http_llm_line_key_t;
typedef struct ngx_http_llm_line_zone_s   ngx_http_llm_line_zone_t;


/* what a request says of its turn */

typedef struct {
    /* of the key: equal hashes are one key */
    uint64_t                   hash;

    /* tokens; of the completion the most that was asked for, 0: unknown */
    int64_t                    prompt;
    int64_t                    completion_max;
} ngx_http_llm_line_want_t;


typedef enum {
    NGX_HTTP_LLM_TICKET_WAITING = 0,
    NGX_HTTP_LLM_TICKET_CALLED,
    NGX_HTTP_LLM_TICKET_SEATED
} ngx_http_llm_ticket_e;


typedef struct {
    /* of the zone */
    ngx_queue_t                queue;

    /* of its key, as long as it waits */
    ngx_queue_t                waiting;

    ngx_http_llm_line_t       *line;
    ngx_http_llm_line_key_t   *key;

    /* ngx_http_llm_ticket_e; read without the lock by its own process */
    ngx_atomic_t               state;

    ngx_http_llm_line_want_t   want;

    /* weighted tokens that its turn is taken for, once it has been called */
    int64_t                    taken;

    /* the process that holds it */
    ngx_pid_t                  pid;
    ngx_int_t                  slot;
} ngx_http_llm_ticket_t;


struct ngx_http_llm_line_zone_s {
    ngx_uint_t                 version;
    ngx_slab_pool_t           *shpool;
    uint64_t                   seed;

    /* of all lines */
    ngx_queue_t                tickets;

    ngx_queue_t                lines;
};


struct ngx_http_llm_line_s {
    ngx_queue_t                queue;
    ngx_http_llm_line_zone_t  *zone;

    ngx_llm_fair_t             fair;

    ngx_rbtree_t               keys;
    ngx_rbtree_node_t          sentinel;

    /* keys without tickets, the last one used for longest */
    ngx_queue_t                idle;
    ngx_uint_t                 nidle;

    /* tickets; read without the lock, too */
    volatile ngx_uint_t        waiting;

    /* tickets that have a seat, and are in flight nowhere yet */
    ngx_uint_t                 called;

    /* mean completion of turns that have ended, in sixteenths of a token */
    int64_t                    mean;
    ngx_uint_t                 nmean;

    /* mean time between calls while others waited, in eighths of 1 ms */
    ngx_msec_t                 pace;
    ngx_msec_t                 called_ms;

    size_t                     name_len;
    u_char                     name[1];
};


/* adds the zone to the configuration, once; tag is the module; or NULL */

ngx_shm_zone_t *ngx_http_llm_line_zone(ngx_conf_t *cf, void *tag);

/* the line of this name, made at the first call; NULL, logged: no memory */

ngx_http_llm_line_t *ngx_http_llm_line_get(ngx_shm_zone_t *zone,
    const ngx_str_t *name, ngx_log_t *log);

/* different in each zone, so that nobody knows how keys are hashed */

uint64_t ngx_http_llm_line_seed(ngx_shm_zone_t *zone);

/* all lines of the zone; around what is called _locked */

void ngx_http_llm_line_lock(ngx_shm_zone_t *zone);
void ngx_http_llm_line_unlock(ngx_shm_zone_t *zone);

/* a new ticket that waits, last of its key; NULL: no memory */

ngx_http_llm_ticket_t *ngx_http_llm_line_join_locked(
    ngx_http_llm_line_t *line, const ngx_http_llm_line_want_t *want);

/*
 * Forgets keys without tickets, of this line rather than of others (NULL: of
 * any), where the zone has no memory left.  0: there are none.
 */

ngx_uint_t ngx_http_llm_line_make_room_locked(ngx_http_llm_line_zone_t *zone,
    ngx_http_llm_line_t *first);

/*
 * Calls those whose turn it is, as long as there are more free seats than
 * have been called for already.  How many they are: their processes are to
 * be told, not under the lock.
 */

ngx_uint_t ngx_http_llm_line_call_locked(ngx_http_llm_line_t *line,
    ngx_uint_t seats, ngx_msec_t now_ms);

/* one that was called waits again, as the first of its key */

void ngx_http_llm_line_defer_locked(ngx_http_llm_ticket_t *ticket);

/* the seat of one that was called is in flight; and is so no more */

void ngx_http_llm_line_seat_locked(ngx_http_llm_ticket_t *ticket);
void ngx_http_llm_line_rise_locked(ngx_http_llm_ticket_t *ticket);

/*
 * The end of a ticket in any state: usage is what its turn came to, as far
 * as tokens are known (-1: not); NULL: what it was taken for.
 */

typedef struct {
    int64_t                    prompt;
    int64_t                    completion;
} ngx_http_llm_line_usage_t;

void ngx_http_llm_line_leave_locked(ngx_http_llm_ticket_t *ticket,
    const ngx_http_llm_line_usage_t *usage);

/* when those who wait now will have been called, by the pace so far */

ngx_msec_t ngx_http_llm_line_drained_ms_locked(ngx_http_llm_line_t *line);

/*
 * Ends the tickets of the process pid, or with NGX_INVALID_PID those of the
 * processes that had this one's slot before: they died.
 */

void ngx_http_llm_line_reap(ngx_shm_zone_t *zone, ngx_pid_t pid);


#endif /* _NGX_HTTP_LLM_LINE_H_INCLUDED_ */
