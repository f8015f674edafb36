
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Never installed: random lives of the zones of the module, inside of a real
 * nginx, whose slab and mutexes they use.  What t/unit/test_bucket_property
 * shows of one bucket is shown here of holds: requests take from one to three
 * zones, of tokens and requests, all or nothing; some sleep for it and are
 * moved up; they take more, settle to less or more, keep what they took, are
 * abandoned, awake or asleep, or their process dies.
 *
 *     llm_test_zone LIVES SEED;
 *
 * runs so many lives, prints TAP, and nginx is gone.  Of each budget there is
 * a bucket beside it that never rounds, and a ledger:
 *
 * Never lost, never given away.  Behind each step the budget is at most 4 ns
 * a step behind the bucket that never rounds, and not ahead of it.
 *
 * Never too much.  From any entry of the ledger to any admission behind it
 * what was taken less what was given back is at most rate * window + burst,
 * where an overrun is behind those who slept already.  (Where the clock goes
 * back there are no windows: such lives have the first property only.)
 *
 * All or nothing.  A request that is refused has changed nothing.
 *
 * Behind that, many keys: the one that makes room is the one that was not
 * used for longest, or one of the oldest whose budgets are full.
 *
 * And many processes: the first zone has one lock, the others have two and
 * four, and what is taken of whichever is found again when all are dead.
 */


#include "ngx_llm_test.h"


typedef struct {
    ngx_http_llm_zone_t      zones[NGX_LLM_TEST_ZONES];
    ngx_int_t                lives;
    ngx_int_t                seed;
} ngx_llm_test_conf_t;


static void *ngx_llm_test_create_conf(ngx_cycle_t *cycle);
static char *ngx_llm_test_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_llm_test_init_module(ngx_cycle_t *cycle);


static ngx_command_t  ngx_llm_test_commands[] = {

    { ngx_string("llm_test_zone"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_TAKE2,
      ngx_llm_test_zone,
      0,
      0,
      NULL },

      ngx_null_command
};


static ngx_core_module_t  ngx_llm_test_zone_module_ctx = {
    ngx_string("llm_test_zone"),
    ngx_llm_test_create_conf,
    NULL
};


ngx_module_t  ngx_llm_test_zone_module = {
    NGX_MODULE_V1,
    &ngx_llm_test_zone_module_ctx,     /* module context */
    ngx_llm_test_commands,             /* module directives */
    NGX_CORE_MODULE,                   /* module type */
    NULL,                              /* init master */
    ngx_llm_test_init_module,          /* init module */
    NULL,                              /* init process */
    NULL,                              /* init thread */
    NULL,                              /* exit thread */
    NULL,                              /* exit process */
    NULL,                              /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_llm_test_init_module(ngx_cycle_t *cycle)
{
    ngx_int_t             failed, i;
    ngx_uint_t            rare;
    ngx_llm_test_conf_t  *tcf;
    ngx_llm_test_life_t   life;

    tcf = (ngx_llm_test_conf_t *) ngx_get_conf(cycle->conf_ctx,
                                               ngx_llm_test_zone_module);
    if (tcf->lives == 0 || ngx_test_config) {
        return NGX_OK;
    }

    failed = 0;

    for (i = 0; i < tcf->lives; i++) {
        ngx_memzero(&life, sizeof(ngx_llm_test_life_t));

        life.random = tcf->seed + i;
        life.zones = tcf->zones;

        ngx_llm_test_live(&life);

        if (life.broken && failed++ == 0) {
            printf("# life %d, step %d: %s\n", (int) (tcf->seed + i),
                   (int) life.step, life.broken);

            /* what it held is still there: the next lives would see it */

            break;
        }
    }

    printf("# %d lives:", (int) i);

    if (failed == 0) {
        ngx_memzero(&life, sizeof(ngx_llm_test_life_t));

        life.random = tcf->seed;
        life.zones = tcf->zones;

        ngx_llm_test_order(&life, tcf->lives / 4);
    }

    rare = 0;

    for (i = 0; i < NGX_LLM_TEST_SEEN; i++) {
        printf(" %lu", (unsigned long) ngx_llm_test_seen[i]);
        rare += ngx_llm_test_seen[i] < (uint64_t) tcf->lives / 1000;
    }

    printf(" (admitted, refused, slept, moved up, left asleep, raised,"
           " settled, kept, reaped, full, dropped idle, dropped)\n");

    printf("%sok 1 - zones keep their budgets in %d random lives\n",
           failed ? "not " : "", (int) tcf->lives);

    /* a test that never gets anywhere proves nothing */

    printf("%sok 2 - and all kinds of steps are among them\n",
           rare ? "not " : "");

    if (life.broken) {
        printf("# step %d: %s\n", (int) life.step, life.broken);
    }

    printf("%sok 3 - what was not used for longest makes room, to the second\n",
           life.broken ? "not " : "");

    rare += (life.broken != NULL);

    if (failed == 0) {
        life.broken = NULL;

        ngx_llm_test_race(&life, tcf->lives * 4);
    }

    if (life.broken) {
        printf("# %s\n", life.broken);
    }

    printf("%sok 4 - processes in zones that are full lose nothing\n"
           "1..4\n", life.broken ? "not " : "");

    exit(failed != 0 || rare != 0 || life.broken);
}


static void *
ngx_llm_test_create_conf(ngx_cycle_t *cycle)
{
    return ngx_pcalloc(cycle->pool, sizeof(ngx_llm_test_conf_t));
}


static char *
ngx_llm_test_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t            *value;
    ngx_uint_t            z;
    ngx_shm_zone_t       *shm_zone;
    ngx_llm_test_conf_t  *tcf = conf;

    static ngx_str_t  names[NGX_LLM_TEST_ZONES] = {
        ngx_string("llm_test_a"),
        ngx_string("llm_test_b"),
        ngx_string("llm_test_c")
    };

    value = cf->args->elts;

    tcf->lives = ngx_atoi(value[1].data, value[1].len);
    tcf->seed = ngx_atoi(value[2].data, value[2].len);

    if (tcf->lives < 1 || tcf->seed < 0) {
        return "is invalid: LIVES SEED";
    }

    /* small: keys of former lives are dropped all the time */

    for (z = 0; z < NGX_LLM_TEST_ZONES; z++) {
        ngx_str_set(&tcf->zones[z].key, "$llm_test");
        tcf->zones[z].nshards = 1 << z;

        shm_zone = ngx_http_llm_zone_add(cf, &names[z], 16 * ngx_pagesize);
        if (shm_zone == NULL) {
            return NGX_CONF_ERROR;
        }

        if (ngx_http_llm_zone_bind(cf, shm_zone, &tcf->zones[z]) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}
