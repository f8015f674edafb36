
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_http.h>

#include <sys/wait.h>

#include "ngx_http_llm.h"
#include "ngx_http_llm_peer.h"
#include "ngx_llm_hash.h"


/*
 * Never installed: measures what llm_least_inflight does for a request, by
 * its own files, inside of a real nginx whose slab and mutexes they use.
 *
 *     llm_bench_choice SERVERS PROCESSES tokens|requests;
 *
 * So many servers have requests in flight in so many processes, each of
 * which has its row; then the last process gives requests of random keys to
 * them, with affinity, prints one line and nginx is gone: servers,
 * processes, cost, and ns for a choice with all that is written down for it
 * (median and 99% of batches), and for its first token and its end.
 *
 *     llm_bench_choice 0 BYTES hash;
 *
 * takes the hash of a prompt of so many bytes.
 */


#define NGX_LLM_BENCH_BATCH    64
#define NGX_LLM_BENCH_BATCHES  500
#define NGX_LLM_BENCH_WARMUP   100
#define NGX_LLM_BENCH_KEYS     20000


typedef struct {
    ngx_uint_t                      servers;
    ngx_uint_t                      processes;
    ngx_str_t                       what;

    ngx_http_llm_balancer_conf_t    balancer;
} ngx_llm_bench_conf_t;


static void *ngx_llm_bench_create_conf(ngx_cycle_t *cycle);
static char *ngx_llm_bench_choice(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_llm_bench_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_llm_bench_processes(ngx_llm_bench_conf_t *bcf,
    ngx_log_t *log);
static ngx_int_t ngx_llm_bench_process(ngx_llm_bench_conf_t *bcf,
    ngx_uint_t number, ngx_log_t *log);
static ngx_int_t ngx_llm_bench_peers(ngx_llm_bench_conf_t *bcf,
    ngx_http_upstream_rr_peers_t *peers);
static ngx_uint_t ngx_llm_bench_get(ngx_http_llm_peer_data_t *lp,
    uint64_t *random);
static void ngx_llm_bench_measure(ngx_llm_bench_conf_t *bcf,
    ngx_http_llm_peer_data_t *requests, uint64_t *random);
static void ngx_llm_bench_hash(ngx_llm_bench_conf_t *bcf);
static int32_t ngx_llm_bench_percent(int32_t *samples, ngx_uint_t percent);
static int ngx_llm_bench_compare(const void *one, const void *two);
static int64_t ngx_llm_bench_now(void);
static uint64_t ngx_llm_bench_random(uint64_t *state);


static ngx_command_t  ngx_llm_bench_commands[] = {

    { ngx_string("llm_bench_choice"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_TAKE3,
      ngx_llm_bench_choice,
      0,
      0,
      NULL },

      ngx_null_command
};


static ngx_core_module_t  ngx_llm_bench_choice_module_ctx = {
    ngx_string("llm_bench_choice"),
    ngx_llm_bench_create_conf,
    NULL
};


ngx_module_t  ngx_llm_bench_choice_module = {
    NGX_MODULE_V1,
    &ngx_llm_bench_choice_module_ctx,  /* module context */
    ngx_llm_bench_commands,            /* module directives */
    NGX_CORE_MODULE,                   /* module type */
    NULL,                              /* init master */
    ngx_llm_bench_init_module,         /* init module */
    NULL,                              /* init process */
    NULL,                              /* init thread */
    NULL,                              /* exit thread */
    NULL,                              /* exit process */
    NULL,                              /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_llm_bench_init_module(ngx_cycle_t *cycle)
{
    ngx_llm_bench_conf_t  *bcf;

    bcf = (ngx_llm_bench_conf_t *) ngx_get_conf(cycle->conf_ctx,
                                                ngx_llm_bench_choice_module);
    if (bcf->what.len == 0 || ngx_test_config) {
        return NGX_OK;
    }

    if (ngx_strcmp(bcf->what.data, "hash") == 0) {
        ngx_llm_bench_hash(bcf);
        exit(0);
    }

    if (ngx_llm_bench_processes(bcf, cycle->log) != NGX_OK) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "llm_bench_choice: no memory, or no server was chosen");
        exit(2);
    }

    exit(0);
}


/* all but the last one sleep once they have their requests in flight */

static ngx_int_t
ngx_llm_bench_processes(ngx_llm_bench_conf_t *bcf, ngx_log_t *log)
{
    int         fd[2], status;
    char        ready;
    pid_t      *pids;
    ngx_int_t   rc;
    ngx_uint_t  i;

    pids = malloc(bcf->processes * sizeof(pid_t));

    if (pids == NULL || pipe(fd) == -1) {
        return NGX_ERROR;
    }

    rc = NGX_OK;

    for (i = 0; i < bcf->processes; i++) {
        pids[i] = fork();

        if (pids[i] == -1) {
            return NGX_ERROR;
        }

        if (pids[i] == 0) {
            rc = ngx_llm_bench_process(bcf, i, log);

            (void) write(fd[1], "", 1);

            if (rc == NGX_OK && i + 1 < bcf->processes) {
                pause();
            }

            _exit(rc == NGX_OK ? 0 : 1);
        }

        if (read(fd[0], &ready, 1) != 1) {
            return NGX_ERROR;
        }
    }

    if (waitpid(pids[bcf->processes - 1], &status, 0) == -1 || status != 0) {
        rc = NGX_ERROR;
    }

    for (i = 0; i + 1 < bcf->processes; i++) {
        (void) kill(pids[i], SIGTERM);
        (void) waitpid(pids[i], &status, 0);
    }

    free(pids);

    return rc;
}


static ngx_int_t
ngx_llm_bench_process(ngx_llm_bench_conf_t *bcf, ngx_uint_t number,
    ngx_log_t *log)
{
    uint64_t                       random;
    ngx_uint_t                     i;
    ngx_http_llm_peer_data_t      *requests, *lp;
    ngx_http_upstream_rr_peers_t   peers;

    /* a worker, whose mutexes and rows are known by it */

    ngx_pid = getpid();
    ngx_process = NGX_PROCESS_WORKER;
    ngx_process_slot = number;

    ngx_time_update();

    if (ngx_event_timer_init(log) != NGX_OK
        || ngx_http_llm_inflight_attach(bcf->balancer.zone, NULL, log)
           != NGX_OK
        || ngx_llm_bench_peers(bcf, &peers) != NGX_OK)
    {
        return NGX_ERROR;
    }

    requests = calloc(NGX_LLM_BENCH_BATCH, sizeof(ngx_http_llm_peer_data_t));
    if (requests == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < NGX_LLM_BENCH_BATCH; i++) {
        lp = &requests[i];

        lp->conf = &bcf->balancer;
        lp->list = &bcf->balancer.primary;
        lp->rrp.peers = &peers;
        lp->rrp.tried = calloc(bcf->servers / (8 * sizeof(uintptr_t)) + 1,
                               sizeof(uintptr_t));
        lp->slot = NGX_HTTP_LLM_INFLIGHT_NONE;

        if (lp->rrp.tried == NULL) {
            return NGX_ERROR;
        }
    }

    if (ngx_http_llm_balancer_update_list(&requests[0], log) != NGX_OK) {
        return NGX_ERROR;
    }

    random = 0x9e3779b97f4a7c15 + number;

    if (number + 1 == bcf->processes) {
        ngx_llm_bench_measure(bcf, requests, &random);
        return NGX_OK;
    }

    for (i = 0; i < NGX_LLM_BENCH_BATCH; i++) {
        if (ngx_llm_bench_get(&requests[i], &random)) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_llm_bench_peers(ngx_llm_bench_conf_t *bcf,
    ngx_http_upstream_rr_peers_t *peers)
{
    ngx_uint_t                    i;
    ngx_http_upstream_rr_peer_t  *peer;
    static ngx_str_t              name = ngx_string("bench");

    ngx_memzero(peers, sizeof(ngx_http_upstream_rr_peers_t));

    peer = calloc(bcf->servers, sizeof(ngx_http_upstream_rr_peer_t));
    if (peer == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < bcf->servers; i++) {
        peer[i].next = (i + 1 < bcf->servers) ? &peer[i + 1] : NULL;
        peer[i].weight = 1;
        peer[i].max_fails = 1;
        peer[i].fail_timeout = 10;

        peer[i].name.data = malloc(NGX_SOCKADDR_STRLEN);
        if (peer[i].name.data == NULL) {
            return NGX_ERROR;
        }

        peer[i].name.len = ngx_sprintf(peer[i].name.data,
                                       "10.0.%ui.%ui:8000", i / 256, i % 256)
                           - peer[i].name.data;
    }

    peers->number = bcf->servers;
    peers->single = (bcf->servers == 1);
    peers->name = &name;
    peers->peer = peer;

    return NGX_OK;
}


/* true if there was no server */

static ngx_uint_t
ngx_llm_bench_get(ngx_http_llm_peer_data_t *lp, uint64_t *random)
{
    ngx_http_llm_choice_t  choice;
    ngx_peer_connection_t  pc;

    ngx_memzero(&pc, sizeof(ngx_peer_connection_t));

    lp->key = 1 + ngx_llm_bench_random(random) % NGX_LLM_BENCH_KEYS;
    lp->prompt = 100 + ngx_llm_bench_random(random) % 8192;

    if (ngx_http_llm_balancer_choose_locked(&pc, lp, &choice) != NGX_OK) {
        return 1;
    }

    ngx_http_llm_balancer_enter(lp, &choice);
    ngx_http_llm_balancer_keep_place(lp, &choice);

    return 0;
}


static void
ngx_llm_bench_measure(ngx_llm_bench_conf_t *bcf,
    ngx_http_llm_peer_data_t *requests, uint64_t *random)
{
    int64_t         begin_ns, mid_ns;
    ngx_uint_t      failed, i, n;
    static int32_t  get_ns[NGX_LLM_BENCH_BATCHES];
    static int32_t  free_ns[NGX_LLM_BENCH_BATCHES];

    failed = 0;

    for (n = 0; n < NGX_LLM_BENCH_BATCHES + NGX_LLM_BENCH_WARMUP; n++) {

        begin_ns = ngx_llm_bench_now();

        for (i = 0; i < NGX_LLM_BENCH_BATCH; i++) {
            failed += ngx_llm_bench_get(&requests[i], random);
        }

        mid_ns = ngx_llm_bench_now();

        /* it took some time, so that speeds are learned */

        ngx_current_msec += 50;

        for (i = 0; i < NGX_LLM_BENCH_BATCH; i++) {
            ngx_http_llm_balancer_first_token(&requests[i]);
            ngx_http_llm_balancer_leave(&requests[i], 0);
        }

        if (n >= NGX_LLM_BENCH_WARMUP) {
            get_ns[n - NGX_LLM_BENCH_WARMUP] =
                (mid_ns - begin_ns) / NGX_LLM_BENCH_BATCH;
            free_ns[n - NGX_LLM_BENCH_WARMUP] =
                (ngx_llm_bench_now() - mid_ns) / NGX_LLM_BENCH_BATCH;
        }
    }

    if (failed) {
        _exit(2);
    }

    printf("%d %d %s %d %d %d\n", (int) bcf->servers, (int) bcf->processes,
           bcf->what.data, ngx_llm_bench_percent(get_ns, 50),
           ngx_llm_bench_percent(get_ns, 99),
           ngx_llm_bench_percent(free_ns, 50));

    fflush(stdout);
}


static void
ngx_llm_bench_hash(ngx_llm_bench_conf_t *bcf)
{
    u_char             *text;
    int64_t             begin_ns;
    ngx_uint_t          i;
    static int32_t      ns[NGX_LLM_BENCH_BATCHES];
    volatile uint64_t   hash;

    text = malloc(bcf->processes);
    if (text == NULL) {
        exit(2);
    }

    for (i = 0; i < bcf->processes; i++) {
        text[i] = 'a' + i % 26;
    }

    hash = 0;

    for (i = 0; i < NGX_LLM_BENCH_BATCHES; i++) {
        begin_ns = ngx_llm_bench_now();
        hash = ngx_llm_hash(text, bcf->processes, hash);
        ns[i] = ngx_llm_bench_now() - begin_ns;
    }

    printf("0 %d hash %d %d 0\n", (int) bcf->processes,
           ngx_llm_bench_percent(ns, 50), ngx_llm_bench_percent(ns, 99));

    fflush(stdout);
}


static int32_t
ngx_llm_bench_percent(int32_t *samples, ngx_uint_t percent)
{
    qsort(samples, NGX_LLM_BENCH_BATCHES, sizeof(int32_t),
          ngx_llm_bench_compare);

    return samples[NGX_LLM_BENCH_BATCHES * percent / 100];
}


static int
ngx_llm_bench_compare(const void *one, const void *two)
{
    return *(const int32_t *) one - *(const int32_t *) two;
}


/* of this process: that others have the processor does not count */

static int64_t
ngx_llm_bench_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);

    return (int64_t) ts.tv_sec * 1000000000 + ts.tv_nsec;
}


/* xorshift64 */

static uint64_t
ngx_llm_bench_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;

    return *state >> 16;
}


static char *
ngx_llm_bench_choice(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t             *value;
    ngx_llm_bench_conf_t  *bcf;

    bcf = conf;
    value = cf->args->elts;

    bcf->servers = ngx_atoi(value[1].data, value[1].len);
    bcf->processes = ngx_atoi(value[2].data, value[2].len);
    bcf->what = value[3];

    bcf->balancer.bound_1000 = 1250;
    bcf->balancer.cost = (ngx_strcmp(value[3].data, "tokens") == 0)
                         ? NGX_HTTP_LLM_COST_TOKENS
                         : NGX_HTTP_LLM_COST_REQUESTS;

    bcf->balancer.zone = ngx_http_llm_inflight_zone(cf,
                                                &ngx_llm_bench_choice_module);
    bcf->balancer.places = ngx_http_llm_place_zone(cf,
                                                &ngx_llm_bench_choice_module);

    if (bcf->balancer.zone == NULL || bcf->balancer.places == NULL) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static void *
ngx_llm_bench_create_conf(ngx_cycle_t *cycle)
{
    return ngx_pcalloc(cycle->pool, sizeof(ngx_llm_bench_conf_t));
}
