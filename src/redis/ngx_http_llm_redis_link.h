
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * One connection to one server.  For src/redis only.
 *
 * down -> connecting -> greeting (TLS, AUTH, SELECT, the scripts, the
 * cluster's slots, the end of no charge as a probe) -> up -> down, and again
 * after a pause that doubles, with jitter.  While it is down nothing is
 * sent: that is the circuit breaker.  A link that never was down yet takes
 * commands before it is up.
 *
 * The socket is nginx's, what it says is parsed by hiredis' reader.  Its
 * asynchronous layer is not used: it aborts the process on a reply that
 * nobody asked for, it has no timeouts in 0.14, and its TLS is in newer
 * packages only.
 */


#ifndef _NGX_HTTP_LLM_REDIS_LINK_H_INCLUDED_
#define _NGX_HTTP_LLM_REDIS_LINK_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include <stddef.h>
#include <sys/time.h>
#include <hiredis/hiredis.h>

#include "ngx_http_llm_redis.h"


/* limits of a link */

#define NGX_HTTP_LLM_REDIS_PENDING     4096
#define NGX_HTTP_LLM_REDIS_OUT_BYTES   (4 * 1024 * 1024)

/* a larger buffer goes when it is empty */
#define NGX_HTTP_LLM_REDIS_OUT_KEEP    65536

/* of a reply: what is not parsed yet; elements of an array */
#define NGX_HTTP_LLM_REDIS_IN_BYTES    (1024 * 1024)
#define NGX_HTTP_LLM_REDIS_ELEMENTS    32768

/* what is sent of the journal before the ones ahead of it are answered */
#define NGX_HTTP_LLM_REDIS_RESENT      16

/* between two attempts to connect */
#define NGX_HTTP_LLM_REDIS_BACKOFF_MS  100
#define NGX_HTTP_LLM_REDIS_BACKOFF_MAX_MS  5000

/* of cluster slots, and servers of a cluster that are known */
#define NGX_HTTP_LLM_REDIS_SLOTS       16384
#define NGX_HTTP_LLM_REDIS_LINKS       128

/* budgets of which a worker knows when it visited them */
#define NGX_HTTP_LLM_REDIS_SEEN        4096

/* bytes of what all scripts are given: see bucket.lua */
#define NGX_HTTP_LLM_REDIS_NUMBERS     (12 * sizeof(double))

#define NGX_HTTP_LLM_REDIS_REASON      192

/* longest key: its prefix and the zone's name are limited */
#define NGX_HTTP_LLM_REDIS_KEY         512
#define NGX_HTTP_LLM_REDIS_PREFIX      128


typedef enum {
    NGX_HTTP_LLM_REDIS_RESERVE = 0,
    NGX_HTTP_LLM_REDIS_SETTLE,
    NGX_HTTP_LLM_REDIS_RAISE,
    NGX_HTTP_LLM_REDIS_LEASE,
    NGX_HTTP_LLM_REDIS_SCRIPTS,

    /* of the links' own */
    NGX_HTTP_LLM_REDIS_GREETING = NGX_HTTP_LLM_REDIS_SCRIPTS
} ngx_http_llm_redis_script_e;


typedef struct {
    ngx_str_t                     text;

    /* SHA-1 in hex */
    u_char                        sha[40];
} ngx_http_llm_redis_script_t;


typedef enum {
    NGX_HTTP_LLM_REDIS_DOWN = 0,
    NGX_HTTP_LLM_REDIS_CONNECTING,
    NGX_HTTP_LLM_REDIS_GREETS,
    NGX_HTTP_LLM_REDIS_UP
} ngx_http_llm_redis_state_e;


typedef struct ngx_http_llm_redis_link_s  ngx_http_llm_redis_link_t;

/* reply is NULL when the link went down; the call is the handler's */

typedef void (*ngx_http_llm_redis_done_pt)(ngx_http_llm_redis_call_t *call,
    redisReply *reply);


/* a budget, and when a script was sent there; by a clock that nobody sets */

typedef struct {
    uint64_t                      key;
    int64_t                       at_us;
    int64_t                       since_us;
} ngx_http_llm_redis_visit_t;


struct ngx_http_llm_redis_call_s {
    /* of the link, in the order of the replies; or of the journal */
    ngx_queue_t                   queue;

    /* NULL: in no link's queue */
    ngx_http_llm_redis_link_t    *link;

    /* as it is sent; in the same memory */
    u_char                       *text;
    size_t                        text_bytes;

    ngx_http_llm_redis_script_e   script;
    ngx_http_llm_redis_done_pt    done;

    /* ngx_current_msec when it was made, and when it was sent */
    ngx_msec_t                    made_ms;
    ngx_msec_t                    sent_ms;

    /* of a reserve: the longest delay that it takes */
    int64_t                       wait_ns;

    /* of a cluster */
    ngx_uint_t                    slot;

    /* how often it was sent again: to another server, or behind its script */
    ngx_uint_t                    hops;

    unsigned                      sent:1;

    /* has been sent, be it before the last time */
    unsigned                      tried:1;

    /* the end of a charge, or of a lease: it is sent until it is answered */
    unsigned                      final:1;

    /* it was sent from the journal */
    unsigned                      resent:1;

    /* its slot is about to be that server's */
    unsigned                      asking:1;

    /* NULL: nobody waits for it */
    ngx_http_llm_redis_pt         handler;
    void                         *data;

    ngx_http_llm_redis_charge_t   charge;
    ngx_http_llm_redis_visit_t    visit;
};


struct ngx_http_llm_redis_link_s {
    ngx_http_llm_redis_t         *redis;
    ngx_http_llm_redis_state_e    state;

    /*
     * the server: one that the cluster named, with its address here, or the
     * configured ones in turn
     */
    ngx_uint_t                    fixed;
    ngx_addr_t                    addr;
    ngx_sockaddr_t                sockaddr;
    u_char                        addr_text[NGX_SOCKADDR_STRLEN];
    ngx_uint_t                    turn;

    /* NULL: down */
    ngx_connection_t             *connection;
    redisReader                  *reader;

    /* another connection has another number */
    ngx_uint_t                    number;

    /* calls that were sent, and those that wait for the link to be up */
    ngx_queue_t                   pending;
    ngx_queue_t                   waiting;
    ngx_uint_t                    npending;

    u_char                       *out;
    size_t                        out_bytes;
    size_t                        out_sent;
    size_t                        out_size;

    /* connect and greet, or the oldest command */
    ngx_event_t                   timer;

    ngx_event_t                   retry;
    ngx_msec_t                    backoff_ms;

    /* replies of the greeting that are missing */
    ngx_uint_t                    greetings;

    /* the log says that it is up or down; neither at first */
    unsigned                      said_up:1;
    unsigned                      said_down:1;

    /* some slot of the cluster is this server's */
    unsigned                      used:1;
};


typedef struct {
    ngx_http_llm_redis_link_t    *links[NGX_HTTP_LLM_REDIS_LINKS];
    ngx_uint_t                    nlinks;

    /* index of the link; of a plain server all are 0 */
    u_char                        slots[NGX_HTTP_LLM_REDIS_SLOTS];

    /* slots were learned; they are asked for */
    unsigned                      cluster:1;
    unsigned                      asking:1;

    /* something has moved since they were */
    unsigned                      stale:1;

    ngx_msec_t                    asked_ms;
} ngx_http_llm_redis_map_t;


struct ngx_http_llm_redis_s {
    ngx_str_t                     name;

    /* ngx_addr_t */
    ngx_array_t                   addrs;

    ngx_str_t                     user;
    ngx_str_t                     password;
    ngx_uint_t                    db;
    ngx_str_t                     prefix;

    ngx_msec_t                    timeout_ms;
    ngx_msec_t                    connect_timeout_ms;
    ngx_http_llm_redis_fallback_e fallback;

    /* NULL: no TLS */
    ngx_ssl_t                    *ssl;
    ngx_uint_t                    verify;

    ngx_uint_t                    policy;
    ngx_http_llm_redis_script_t   scripts[NGX_HTTP_LLM_REDIS_SCRIPTS];

    /* from here on: of this worker; NULL: it does not run */
    ngx_http_llm_redis_map_t     *map;

    /* errors only: what fails again and again is not said each time */
    ngx_log_t                     quiet;

    ngx_log_t                    *log;

    /* ends of charges that could not be sent, or were not answered */
    ngx_queue_t                   journal;
    ngx_uint_t                    njournal;

    /* those that were sent from there, and are not answered */
    ngx_uint_t                    nresent;

    ngx_event_t                   tick;

    /* by the budgets' hashes; NULL: nothing is known */
    ngx_http_llm_redis_visit_t   *seen;

    /* ngx_current_msec; 0: never */
    ngx_msec_t                    said_ms;
    ngx_uint_t                    stopping;
};


/* the configuration's part: the scripts' text and names; policy may be empty */

ngx_int_t ngx_http_llm_redis_scripts(ngx_conf_t *cf,
    ngx_http_llm_redis_t *redis, ngx_str_t *policy);

/* the address: NGX_CONF_OK, NGX_CONF_ERROR, logged, or what is allowed */

char *ngx_http_llm_redis_url(ngx_conf_t *cf, ngx_http_llm_redis_t *redis,
    ngx_str_t url);

/*
 * A visit of a budget begins: since_us says when the last one did, -1: not
 * known.  Its answer has come, and the script has written the time down.
 */

void ngx_http_llm_redis_seen_ask(ngx_http_llm_redis_t *redis,
    ngx_http_llm_redis_visit_t *visit, const u_char *key, size_t len);
void ngx_http_llm_redis_seen_answer(ngx_http_llm_redis_t *redis,
    const ngx_http_llm_redis_visit_t *visit);

/*
 * Links; addr NULL: the configured addresses in turn.  NULL: no memory.  One
 * that is closed, and nobody waits for, may become another server's.
 */

ngx_http_llm_redis_link_t *ngx_http_llm_redis_link_create(
    ngx_http_llm_redis_t *redis, const ngx_addr_t *addr);
void ngx_http_llm_redis_link_name(ngx_http_llm_redis_link_t *link,
    const ngx_addr_t *addr);
void ngx_http_llm_redis_link_connect(ngx_http_llm_redis_link_t *link);

/*
 * NGX_BUSY: it is not up, or too much is pending.  A greeting's command is
 * taken as soon as there is a connection.
 */

ngx_int_t ngx_http_llm_redis_link_send(ngx_http_llm_redis_link_t *link,
    ngx_http_llm_redis_call_t *call);

/* bytes that no call belongs to: ASKING has its own */

ngx_int_t ngx_http_llm_redis_link_write(ngx_http_llm_redis_link_t *link,
    const u_char *text, size_t bytes);

/* it is broken: all calls fail, and it is tried again later */

void ngx_http_llm_redis_link_drop(ngx_http_llm_redis_link_t *link,
    const char *fmt, ...);

/* what was written goes out as far as it can; then it is closed for ever */

void ngx_http_llm_redis_link_close(ngx_http_llm_redis_link_t *link);

/*
 * The socket.  As of ngx_event_connect_peer(), NGX_DECLINED included; what
 * follows a connection; the end of it.
 */

ngx_int_t ngx_http_llm_redis_io_open(ngx_http_llm_redis_link_t *link);
void ngx_http_llm_redis_io_connected(ngx_http_llm_redis_link_t *link);
void ngx_http_llm_redis_io_shut(ngx_http_llm_redis_link_t *link);

/* NGX_AGAIN: not all of it; NGX_ERROR: the connection is broken */

ngx_int_t ngx_http_llm_redis_io_send(ngx_http_llm_redis_link_t *link);

/* sends the greeting; its last reply puts the link up, others drop it */

void ngx_http_llm_redis_greet(ngx_http_llm_redis_link_t *link);
void ngx_http_llm_redis_link_up(ngx_http_llm_redis_link_t *link);

/* for the one command that follows */

ngx_int_t ngx_http_llm_redis_asking(ngx_http_llm_redis_link_t *link);

/* a script that the server has forgotten */

ngx_int_t ngx_http_llm_redis_load(ngx_http_llm_redis_link_t *link,
    ngx_http_llm_redis_script_e script);

/* calls: of n arguments; NULL: no memory */

ngx_http_llm_redis_call_t *ngx_http_llm_redis_call_create(
    ngx_http_llm_redis_script_e script, ngx_http_llm_redis_done_pt done,
    ngx_uint_t n, const char **args, const size_t *lens);
void ngx_http_llm_redis_call_free(ngx_http_llm_redis_call_t *call);

/*
 * calls of a charge's scripts, which are answered to done; first and second
 * are the script's own numbers
 */

ngx_http_llm_redis_call_t *ngx_http_llm_redis_command(
    ngx_http_llm_redis_script_e script,
    const ngx_http_llm_redis_charge_t *charge, const int64_t *costs,
    int64_t first, int64_t second, const ngx_http_llm_redis_facts_t *facts);

/* a number of a script's answer */

double ngx_http_llm_redis_read_double(const u_char *p);

/* what a script is given, NGX_HTTP_LLM_REDIS_NUMBERS bytes */

void ngx_http_llm_redis_numbers(u_char *p,
    const ngx_http_llm_redis_charge_t *charge, int64_t since_us,
    const int64_t *costs, int64_t first, int64_t second);

/* time goes on until it is sent; it is none of a policy */

void ngx_http_llm_redis_forget_since(ngx_http_llm_redis_call_t *call);

void ngx_http_llm_redis_done(ngx_http_llm_redis_call_t *call,
    redisReply *reply);

/* to the server of its slot; as of ngx_http_llm_redis_link_send() */

ngx_int_t ngx_http_llm_redis_send(ngx_http_llm_redis_call_t *call);

/* an end of a charge is kept until it can be sent */

void ngx_http_llm_redis_store(ngx_http_llm_redis_call_t *call);

/* what is not known to be taken is ended for the case that it is */

ngx_uint_t ngx_http_llm_redis_takes(const ngx_http_llm_redis_call_t *call);
void ngx_http_llm_redis_give_up(const ngx_http_llm_redis_charge_t *charge);

/* what a script says; NGX_ERROR: it is not what a script says */

ngx_int_t ngx_http_llm_redis_read(const redisReply *reply,
    ngx_http_llm_redis_script_e script, ngx_http_llm_redis_answer_t *answer);

/* does an error's text, as far as a word may stand in it, have this one? */

ngx_uint_t ngx_http_llm_redis_says(const redisReply *reply, const char *word);

/* what a server says is one line of a log */

void ngx_http_llm_redis_printable(u_char *text, size_t len);

/* the map */

ngx_uint_t ngx_http_llm_redis_slot(const u_char *key, size_t len);
ngx_int_t ngx_http_llm_redis_learn(ngx_http_llm_redis_link_t *link,
    const redisReply *reply);
void ngx_http_llm_redis_refresh(ngx_http_llm_redis_t *redis);

/* where "MOVED slot address" or "ASK slot address" points to, or NULL */

ngx_http_llm_redis_link_t *ngx_http_llm_redis_target(
    ngx_http_llm_redis_link_t *link, const redisReply *reply,
    ngx_uint_t moved);

/* a link is up: what waits in the journal is sent */

void ngx_http_llm_redis_resume(ngx_http_llm_redis_t *redis);


#endif /* _NGX_HTTP_LLM_REDIS_LINK_H_INCLUDED_ */
