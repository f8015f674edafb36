
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_block.h"
#include "ngx_http_llm_lease.h"


/* an answer that is lost is undone within a second, as a rule */
#define NGX_HTTP_LLM_BLOCK_KEEP_MS  10000

/* what was given back, and may be said again, is known for so long */
#define NGX_HTTP_LLM_BLOCK_BACK_MS  600000

#define NGX_HTTP_LLM_BLOCK_TICK_MS  1000

/* what is given back in one turn */
#define NGX_HTTP_LLM_BLOCK_NEWS     32


typedef struct {
    ngx_http_llm_limit_zone_t    *lz;
    u_char                        digest[NGX_HTTP_LLM_KEY_DIGEST];
} ngx_http_llm_block_t;


static void ngx_http_llm_block_tell(ngx_http_llm_limit_zone_t *lz,
    const ngx_http_llm_lease_news_t *news);
static void ngx_http_llm_block_handler(void *data,
    const ngx_http_llm_redis_answer_t *answer);
static void ngx_http_llm_block_tick(ngx_event_t *ev);
static ngx_uint_t ngx_http_llm_block_sweep(ngx_http_llm_limit_zone_t *lz,
    ngx_uint_t all);


static ngx_event_t  ngx_http_llm_block_event;


void
ngx_http_llm_block_look(ngx_http_llm_limit_zone_t *lz, const u_char *digest)
{
    ngx_http_llm_lease_news_t  news;

    if (ngx_http_llm_lease_poll(&lz->zone, digest, lz->lease_percent,
                                ngx_http_llm_zone_now(), &news))
    {
        ngx_http_llm_block_tell(lz, &news);
    }
}


static void
ngx_http_llm_block_tell(ngx_http_llm_limit_zone_t *lz,
    const ngx_http_llm_lease_news_t *news)
{
    ngx_uint_t                    b;
    ngx_http_llm_block_t         *block;
    ngx_http_llm_redis_charge_t   charge;

    charge.redis = lz->redis;
    charge.zone = lz->zone.shm_zone->shm.name;
    charge.keep_ms = news->asks ? NGX_HTTP_LLM_BLOCK_KEEP_MS
                                : NGX_HTTP_LLM_BLOCK_BACK_MS;

    ngx_memcpy(charge.digest, news->digest, NGX_HTTP_LLM_KEY_DIGEST);

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        charge.rates[b] = news->rates[b];
    }

    ngx_http_llm_redis_name_charge(&charge);

    if (!news->asks) {
        ngx_http_llm_redis_return(&charge, news->call.want, news->call.debt);
        return;
    }

    block = ngx_alloc(sizeof(ngx_http_llm_block_t), ngx_cycle->log);

    if (block) {
        block->lz = lz;
        ngx_memcpy(block->digest, news->digest, NGX_HTTP_LLM_KEY_DIGEST);

        if (ngx_http_llm_redis_lease(&charge, news->call.want,
                                     news->call.debt,
                                     ngx_http_llm_block_handler, block))
        {
            return;
        }

        ngx_free(block);
    }

    ngx_http_llm_lease_answer(&lz->zone, news->digest, NULL,
                              ngx_http_llm_zone_now());
}


static void
ngx_http_llm_block_handler(void *data,
    const ngx_http_llm_redis_answer_t *answer)
{
    ngx_http_llm_block_t *block = data;

    ngx_uint_t                   b, failed;
    ngx_http_llm_lease_answer_t  shared;

    failed = (answer->status != NGX_HTTP_LLM_REDIS_TAKEN);

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        shared.granted[b] = answer->granted[b];
        shared.level[b] = answer->level[b];
        shared.full_ns[b] = answer->full_ns[b];
    }

    ngx_http_llm_lease_answer(&block->lz->zone, block->digest,
                              failed ? NULL : &shared,
                              ngx_http_llm_zone_now());
    if (!failed) {
        ngx_http_llm_block_look(block->lz, block->digest);
    }

    ngx_free(block);
}


void
ngx_http_llm_block_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                  i;
    ngx_http_llm_zone_t       **zones;
    ngx_http_llm_main_conf_t   *lmcf;
    ngx_http_llm_limit_zone_t  *lz;

    lmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_llm_stream_module);
    zones = lmcf->zones.elts;

    for (i = 0; i < lmcf->zones.nelts; i++) {
        lz = (ngx_http_llm_limit_zone_t *) zones[i];

        if (lz->lease_percent && !ngx_http_llm_block_event.timer_set) {
            ngx_http_llm_block_event.handler = ngx_http_llm_block_tick;
            ngx_http_llm_block_event.data = lmcf;
            ngx_http_llm_block_event.log = cycle->log;
            ngx_http_llm_block_event.cancelable = 1;

            ngx_add_timer(&ngx_http_llm_block_event,
                          NGX_HTTP_LLM_BLOCK_TICK_MS);
        }
    }
}


static void
ngx_http_llm_block_tick(ngx_event_t *ev)
{
    ngx_uint_t                  i;
    ngx_http_llm_zone_t       **zones;
    ngx_http_llm_main_conf_t   *lmcf;
    ngx_http_llm_limit_zone_t  *lz;

    lmcf = ev->data;
    zones = lmcf->zones.elts;

    for (i = 0; i < lmcf->zones.nelts; i++) {
        lz = (ngx_http_llm_limit_zone_t *) zones[i];

        if (lz->lease_percent) {
            (void) ngx_http_llm_block_sweep(lz, 0);
        }
    }

    ngx_add_timer(ev, NGX_HTTP_LLM_BLOCK_TICK_MS);
}


void
ngx_http_llm_block_exit_process(ngx_http_llm_main_conf_t *lmcf)
{
    ngx_uint_t                  i;
    ngx_http_llm_zone_t       **zones;
    ngx_http_llm_limit_zone_t  *lz;

    zones = lmcf->zones.elts;

    for (i = 0; i < lmcf->zones.nelts; i++) {
        lz = (ngx_http_llm_limit_zone_t *) zones[i];

        while (lz->lease_percent && ngx_http_llm_block_sweep(lz, 1)) {
            /* void */
        }
    }

    if (ngx_http_llm_block_event.timer_set) {
        ngx_del_timer(&ngx_http_llm_block_event);
    }
}


static ngx_uint_t
ngx_http_llm_block_sweep(ngx_http_llm_limit_zone_t *lz, ngx_uint_t all)
{
    ngx_uint_t                 i, n;
    ngx_http_llm_lease_news_t  news[NGX_HTTP_LLM_BLOCK_NEWS];

    n = ngx_http_llm_lease_sweep(&lz->zone, lz->lease_percent, all,
                                 ngx_http_llm_zone_now(), news,
                                 NGX_HTTP_LLM_BLOCK_NEWS);

    for (i = 0; i < n; i++) {
        ngx_http_llm_block_tell(lz, &news[i]);
    }

    return n;
}
