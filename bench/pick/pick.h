
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#ifndef BENCH_PICK_H
#define BENCH_PICK_H


#include <stddef.h>
#include <stdint.h>


/*
 * The choice of a server alone, against modelled servers and without a
 * network: milliseconds for what bench/balance takes minutes for, and the
 * same every time.  server.c is the model, that of tools/llm-sim; choose.c
 * has the balancers, the module's by its own code in src/core; run.c is the
 * clock and measures; pick.c reads the workload and prints.
 */

#define PICK_SERVERS      512
#define PICK_BLOCK        512           /* tokens of a block of the cache */
#define PICK_PLACES       4             /* servers remembered for a key */
#define PICK_NEVER        1e300

/* the load that is carried is that with this goodput */
#define PICK_GOOD         0.9


typedef struct {
    double              at_ms;          /* in the trace, and in this run */
    double              due_ms;
    uint32_t            prompt;         /* tokens */
    uint32_t            output;
    uint32_t            key;            /* of the first two blocks */
    uint32_t           *blocks;
    uint32_t            nblocks;        /* whole ones */

    /* what became of it */
    double              first_ms;
    double              last_ms;
    uint32_t            made;
    uint32_t            cached;
    uint32_t            left;           /* of the prompt, to be read */

    /* what the balancer keeps of it */
    uint32_t            server;
    uint32_t            uncached;       /* pending until the first token */
    uint32_t            ahead;          /* and what was pending before it */
    uint32_t            held;
    uint32_t            distance;
} pick_request_t;

typedef struct pick_cache_s  pick_cache_t;

typedef struct {
    double              speed;
    double              busy_ms;
    double              next_ms;        /* end of the step, PICK_NEVER: idle */
    pick_cache_t       *cache;

    /* first in, first out: numbers of requests */
    uint32_t           *queue;
    size_t              queue_head;
    size_t              queue_tail;
    uint32_t           *prefill;
    size_t              prefill_head;
    size_t              prefill_tail;

    uint32_t           *decode;
    size_t              decoding;
    size_t              running;
    uint64_t            left;           /* tokens of those in prefill */
    uint32_t            step;           /* of them in this step */
} pick_server_t;

typedef struct {
    /* the servers: as llm-sim's options of these names */
    double              prefill;
    double              itl_ms;
    double              slope_ms;
    double              slow;           /* speed of the slow ones */
    uint64_t            batch;
    uint64_t            chunk;
    uint64_t            cache;
    uint64_t            servers;
    uint64_t            nslow;

    double              load;
    uint64_t            seed;

    /* the module's constants, and what they are multiplied by */
    double              bound;
    double              request;
    double              forget;
    double              window;         /* of what speeds are learned from */
    double              prior;
    double              band;           /* in which speeds are equal */
    double              wrong;          /* of the estimate: sigma */
} pick_conf_t;


extern pick_conf_t      pick_conf;
extern pick_server_t    pick_servers[PICK_SERVERS];
extern pick_request_t  *pick_requests;
extern size_t           pick_nrequests;
extern uint32_t         pick_nblocks;   /* different ones */
extern uint32_t         pick_nkeys;

/* the time of the model */
extern double           pick_now_ms;


/* means of the runs with some seeds */
typedef struct {
    double              p50;            /* to the first token, ms */
    double              p99;
    double              good;
    double              hits;
    double              busy;
    double              busiest;
} pick_result_t;


/* server.c */
void pick_server_init(pick_server_t *s, double speed);
void pick_server_free(pick_server_t *s);
void pick_server_add(pick_server_t *s, uint32_t request);
void pick_server_step(pick_server_t *s);

/* run.c */
struct pick_balancer_s;

pick_result_t pick_run(const struct pick_balancer_s *balancer);
double pick_run_carried(const struct pick_balancer_s *balancer);

/* choose.c: a balancer by name, NULL: none of that name */
typedef struct pick_balancer_s {
    const char         *name;
    uint32_t          (*choose)(pick_request_t *r);
    unsigned            tokens:1;       /* counts them, not requests */
    unsigned            affinity:1;
} pick_balancer_t;

extern const pick_balancer_t  pick_balancers[];

void pick_choose_start(const pick_balancer_t *balancer);
void pick_choose_end(void);
void pick_choose(pick_request_t *r);
void pick_choose_first(pick_request_t *r);
void pick_choose_done(pick_request_t *r);


#endif /* BENCH_PICK_H */
