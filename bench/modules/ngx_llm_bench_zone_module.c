
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_sha1.h>

#include <sys/mman.h>
#include <sys/wait.h>

#include "ngx_http_llm_zone.h"


/*
 * Never installed: measures the zones of the module inside of a real nginx,
 * whose slab and mutexes they use.
 *
 *     llm_bench_zone KEYS PROCESSES BATCHES [SHARDS];
 *
 * makes a zone with so many keys, and with as many locks as are given, or as
 * its size has, and that many processes at once reserve and settle there; then
 * nginx prints one line and is gone.  Each process reserves for a batch of
 * requests of random keys, and settles those of the batch that is INFLIGHT
 * batches old, which has left the nearest caches.  The mean of a batch is one
 * sample, so that reading the clock does not count.
 */


#define NGX_LLM_BENCH_BATCH      64
#define NGX_LLM_BENCH_INFLIGHT   16
#define NGX_LLM_BENCH_WARMUP     200
#define NGX_LLM_BENCH_PROCESSES  64


typedef struct {
    ngx_http_llm_zone_t   zone;
    ngx_uint_t            keys;
    ngx_uint_t            processes;
    ngx_uint_t            batches;
} ngx_llm_bench_conf_t;


/* shared by all processes; the samples of each follow */

typedef struct {
    volatile ngx_uint_t   ready;
    volatile ngx_uint_t   failed;
} ngx_llm_bench_shared_t;


/* ns of one operation, in a batch */

typedef struct {
    int32_t               reserve_ns;
    int32_t               settle_ns;
} ngx_llm_bench_sample_t;


static void *ngx_llm_bench_create_conf(ngx_cycle_t *cycle);
static char *ngx_llm_bench_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_llm_bench_init_module(ngx_cycle_t *cycle);
static void ngx_llm_bench_digests(u_char *digests, ngx_uint_t keys);
static ngx_uint_t ngx_llm_bench_fill(ngx_llm_bench_conf_t *bcf,
    u_char *digests);
static ngx_uint_t ngx_llm_bench_process(ngx_llm_bench_conf_t *bcf,
    u_char *digests, ngx_llm_bench_sample_t *samples, ngx_uint_t number);
static void ngx_llm_bench_take(ngx_llm_bench_conf_t *bcf,
    ngx_http_llm_take_t *take, u_char *digest);
static int64_t ngx_llm_bench_now(void);
static ngx_uint_t ngx_llm_bench_random(uint64_t *state);
static void ngx_llm_bench_print(ngx_llm_bench_conf_t *bcf,
    ngx_llm_bench_sample_t *samples);
static int ngx_llm_bench_compare(const void *one, const void *two);


static const ngx_llm_weights_t  ngx_llm_bench_weights = {
    1000, 1000, 1000, 1000
};


static ngx_command_t  ngx_llm_bench_commands[] = {

    { ngx_string("llm_bench_zone"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_TAKE3|NGX_CONF_TAKE4,
      ngx_llm_bench_zone,
      0,
      0,
      NULL },

      ngx_null_command
};


static ngx_core_module_t  ngx_llm_bench_zone_module_ctx = {
    ngx_string("llm_bench_zone"),
    ngx_llm_bench_create_conf,
    NULL
};


ngx_module_t  ngx_llm_bench_zone_module = {
    NGX_MODULE_V1,
    &ngx_llm_bench_zone_module_ctx,    /* module context */
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
    int                      status;
    size_t                   size;
    pid_t                    pid;
    u_char                  *digests;
    ngx_uint_t               i;
    ngx_llm_bench_conf_t    *bcf;
    ngx_llm_bench_shared_t  *shared;
    ngx_llm_bench_sample_t  *samples;

    bcf = (ngx_llm_bench_conf_t *) ngx_get_conf(cycle->conf_ctx,
                                                ngx_llm_bench_zone_module);
    if (bcf->keys == 0 || ngx_test_config) {
        return NGX_OK;
    }

    size = bcf->processes * bcf->batches * sizeof(ngx_llm_bench_sample_t);

    shared = mmap(NULL, sizeof(ngx_llm_bench_shared_t) + size,
                  PROT_READ|PROT_WRITE, MAP_ANON|MAP_SHARED, -1, 0);
    digests = malloc(bcf->keys * NGX_HTTP_LLM_KEY_DIGEST);

    if (shared == MAP_FAILED || digests == NULL) {
        return NGX_ERROR;
    }

    samples = (ngx_llm_bench_sample_t *) (shared + 1);

    ngx_llm_bench_digests(digests, bcf->keys);
    shared->failed = ngx_llm_bench_fill(bcf, digests);

    for (i = 0; i < bcf->processes; i++) {
        pid = fork();

        if (pid == -1) {
            return NGX_ERROR;
        }

        if (pid == 0) {

            /* the mutexes are known by it */

            ngx_pid = getpid();
            ngx_process_slot = i;

            (void) ngx_atomic_fetch_add(&shared->ready, 1);

            while (shared->ready < bcf->processes) {
                ngx_sched_yield();
            }

            if (ngx_llm_bench_process(bcf, digests,
                                      samples + i * bcf->batches, i))
            {
                (void) ngx_atomic_fetch_add(&shared->failed, 1);
            }

            _exit(0);
        }
    }

    for (i = 0; i < bcf->processes; i++) {
        if (wait(&status) == -1 || status != 0) {
            shared->failed++;
        }
    }

    if (shared->failed) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "llm_bench_zone: a request was refused");
        exit(2);
    }

    ngx_llm_bench_print(bcf, samples);
    exit(0);
}


static void
ngx_llm_bench_digests(u_char *digests, ngx_uint_t keys)
{
    u_char      key[NGX_INT_T_LEN];
    u_char     *last;
    ngx_sha1_t  sha1;
    ngx_uint_t  i;

    for (i = 0; i < keys; i++) {
        last = ngx_sprintf(key, "%ui", i);

        ngx_sha1_init(&sha1);
        ngx_sha1_update(&sha1, key, last - key);
        ngx_sha1_final(digests + i * NGX_HTTP_LLM_KEY_DIGEST, &sha1);
    }
}


/* all keys are there before anything is measured; the number of failures */

static ngx_uint_t
ngx_llm_bench_fill(ngx_llm_bench_conf_t *bcf, u_char *digests)
{
    int64_t              costs[NGX_HTTP_LLM_BUDGETS];
    ngx_uint_t           failed, i;
    ngx_http_llm_take_t  take;

    failed = 0;

    for (i = 0; i < bcf->keys; i++) {
        ngx_llm_bench_take(bcf, &take, digests + i * NGX_HTTP_LLM_KEY_DIGEST);

        if (ngx_http_llm_zone_reserve(&take, 1, ngx_llm_bench_now())
            != NGX_OK || take.note != NGX_HTTP_LLM_ZONE_SILENT)
        {
            failed++;
            continue;
        }

        costs[NGX_HTTP_LLM_TOKENS] = 1;
        costs[NGX_HTTP_LLM_REQUESTS] = 1;

        ngx_http_llm_zone_settle(&bcf->zone, take.hold, costs, 1,
                                 ngx_llm_bench_now());
    }

    return failed;
}


/* the number of failures */

static ngx_uint_t
ngx_llm_bench_process(ngx_llm_bench_conf_t *bcf, u_char *digests,
    ngx_llm_bench_sample_t *samples, ngx_uint_t number)
{
    int64_t               begin_ns, costs[NGX_HTTP_LLM_BUDGETS], end_ns;
    uint64_t              random;
    ngx_uint_t            failed, i, key, n;
    ngx_http_llm_take_t   takes[NGX_LLM_BENCH_BATCH];
    ngx_http_llm_hold_t  *holds[NGX_LLM_BENCH_INFLIGHT][NGX_LLM_BENCH_BATCH];

    failed = 0;
    random = 0x9e3779b97f4a7c15 + number;

    for (n = 0; n < bcf->batches + NGX_LLM_BENCH_WARMUP; n++) {

        for (i = 0; i < NGX_LLM_BENCH_BATCH; i++) {
            key = ngx_llm_bench_random(&random) % bcf->keys;
            ngx_llm_bench_take(bcf, &takes[i],
                               digests + key * NGX_HTTP_LLM_KEY_DIGEST);
        }

        begin_ns = ngx_llm_bench_now();

        for (i = 0; i < NGX_LLM_BENCH_BATCH; i++) {
            failed += (ngx_http_llm_zone_reserve(&takes[i], 1, begin_ns)
                       != NGX_OK);
        }

        end_ns = ngx_llm_bench_now();

        if (failed) {
            break;
        }

        if (n >= NGX_LLM_BENCH_WARMUP) {
            samples->reserve_ns = (end_ns - begin_ns) / NGX_LLM_BENCH_BATCH;
        }

        /* some come to less than was reserved, some to more */

        costs[NGX_HTTP_LLM_TOKENS] = 11 + (n % 2) * 2;
        costs[NGX_HTTP_LLM_REQUESTS] = 1;

        begin_ns = ngx_llm_bench_now();

        for (i = 0; i < NGX_LLM_BENCH_BATCH; i++) {
            if (n >= NGX_LLM_BENCH_INFLIGHT) {
                ngx_http_llm_zone_settle(&bcf->zone,
                                         holds[n % NGX_LLM_BENCH_INFLIGHT][i],
                                         costs, 2, begin_ns);
            }
        }

        end_ns = ngx_llm_bench_now();

        if (n >= NGX_LLM_BENCH_WARMUP) {
            samples->settle_ns = (end_ns - begin_ns) / NGX_LLM_BENCH_BATCH;
            samples++;
        }

        for (i = 0; i < NGX_LLM_BENCH_BATCH; i++) {
            holds[n % NGX_LLM_BENCH_INFLIGHT][i] = takes[i].hold;
        }
    }

    return failed;
}


/* what a chat request wants: two budgets, and the mean of what was learned */

static void
ngx_llm_bench_take(ngx_llm_bench_conf_t *bcf, ngx_http_llm_take_t *take,
    u_char *digest)
{
    ngx_uint_t  b;

    ngx_memzero(take, sizeof(ngx_http_llm_take_t));

    take->zone = &bcf->zone;
    take->model = 1;
    take->weights = &ngx_llm_bench_weights;
    take->prompt = 10;
    take->completion = 4;
    take->completion_max = 4;
    take->use_level = 1;

    ngx_memcpy(take->digest, digest, NGX_HTTP_LLM_KEY_DIGEST);

    /*
     * Never empty, because a refusal is less work, also of a process that
     * was not run for a second; but no larger than 64 bits reckon with, as
     * they do with any rate by the minute.
     */

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        take->rates[b].tokens = NGX_LLM_MAX_TOKENS;
        take->rates[b].period_ns = 1000000000;
        take->rates[b].burst = NGX_LLM_MAX_TOKENS;
    }
}


static int64_t
ngx_llm_bench_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (int64_t) ts.tv_sec * 1000000000 + ts.tv_nsec;
}


/* xorshift64 */

static ngx_uint_t
ngx_llm_bench_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;

    return *state >> 16;
}


static void
ngx_llm_bench_print(ngx_llm_bench_conf_t *bcf, ngx_llm_bench_sample_t *samples)
{
    size_t      b, i, n;
    int32_t    *sorted;
    ngx_uint_t  values[4];

    n = bcf->processes * bcf->batches;

    sorted = malloc(n * sizeof(int32_t));
    if (sorted == NULL) {
        exit(2);
    }

    for (b = 0; b < 2; b++) {

        for (i = 0; i < n; i++) {
            sorted[i] = b ? samples[i].settle_ns : samples[i].reserve_ns;
        }

        qsort(sorted, n, sizeof(int32_t), ngx_llm_bench_compare);

        values[b * 2] = sorted[n / 2];
        values[b * 2 + 1] = sorted[n * 99 / 100];
    }

    printf("%8lu  %9lu  %7lu  %7lu  %8lu  %8lu\n",
           (unsigned long) bcf->keys, (unsigned long) bcf->processes,
           (unsigned long) values[0], (unsigned long) values[2],
           (unsigned long) values[1], (unsigned long) values[3]);
}


static int
ngx_llm_bench_compare(const void *one, const void *two)
{
    return *(const int32_t *) one - *(const int32_t *) two;
}


static void *
ngx_llm_bench_create_conf(ngx_cycle_t *cycle)
{
    return ngx_pcalloc(cycle->pool, sizeof(ngx_llm_bench_conf_t));
}


static char *
ngx_llm_bench_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    size_t                 size;
    ngx_int_t              batches, keys, processes, shards;
    ngx_str_t             *value, name;
    ngx_shm_zone_t        *shm_zone;
    ngx_llm_bench_conf_t  *bcf = conf;

    value = cf->args->elts;

    keys = ngx_atoi(value[1].data, value[1].len);
    processes = ngx_atoi(value[2].data, value[2].len);
    batches = ngx_atoi(value[3].data, value[3].len);
    shards = 0;

    if (cf->args->nelts > 4) {
        shards = ngx_atoi(value[4].data, value[4].len);

        if (shards < 1 || shards > NGX_HTTP_LLM_MAX_SHARDS
            || (shards & (shards - 1)))
        {
            return "has invalid SHARDS: a power of two";
        }
    }

    if (keys < 1 || processes < 1 || processes > NGX_LLM_BENCH_PROCESSES
        || batches < 1)
    {
        return "is invalid: KEYS PROCESSES BATCHES, all above 0";
    }

    bcf->keys = keys;
    bcf->processes = processes;
    bcf->batches = batches;
    bcf->zone.nshards = shards;

    ngx_str_set(&name, "llm_bench");
    ngx_str_set(&bcf->zone.key, "$llm_bench");

    /* a chunk of 128 bytes for a key, as much again for tables and holds */

    size = (keys + 4096 * processes) * 256;

    shm_zone = ngx_http_llm_zone_add(cf, &name, size);
    if (shm_zone == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_llm_zone_bind(cf, shm_zone, &bcf->zone) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}
