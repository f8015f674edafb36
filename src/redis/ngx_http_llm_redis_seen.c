
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * When this worker visited a budget last.  Redis has no clock that nobody
 * sets: a script is told how long ago that was at most, and refills no more,
 * however far the server's clock has been set forward.  A visit that is
 * forgotten, as another budget took its place, is only not known.
 *
 * What is sent now may be run later than the last one was: by what an answer
 * may take.  Without that each delay would cost what is refilled in it.
 */


#include "ngx_http_llm_redis_link.h"


static uint64_t ngx_http_llm_redis_seen_hash(const u_char *key, size_t len);
static int64_t ngx_http_llm_redis_seen_now(void);


void
ngx_http_llm_redis_seen_ask(ngx_http_llm_redis_t *redis,
    ngx_http_llm_redis_visit_t *visit, const u_char *key, size_t len)
{
    ngx_http_llm_redis_visit_t  *last;

    visit->key = ngx_http_llm_redis_seen_hash(key, len);
    visit->at_us = ngx_http_llm_redis_seen_now();
    visit->since_us = -1;

    if (redis->seen == NULL) {
        return;
    }

    last = &redis->seen[visit->key % NGX_HTTP_LLM_REDIS_SEEN];

    if (last->key == visit->key && last->at_us) {
        visit->since_us = visit->at_us - last->at_us
                          + (int64_t) redis->timeout_ms * 1000;
    }
}


void
ngx_http_llm_redis_seen_answer(ngx_http_llm_redis_t *redis,
    const ngx_http_llm_redis_visit_t *visit)
{
    ngx_http_llm_redis_visit_t  *last;

    if (redis->seen == NULL) {
        return;
    }

    last = &redis->seen[visit->key % NGX_HTTP_LLM_REDIS_SEEN];

    if (last->key != visit->key || last->at_us < visit->at_us) {
        *last = *visit;
    }
}


static uint64_t
ngx_http_llm_redis_seen_hash(const u_char *key, size_t len)
{
    return (uint64_t) ngx_murmur_hash2((u_char *) key, len) << 32
           | ngx_crc32_long((u_char *) key, len);
}


static int64_t
ngx_http_llm_redis_seen_now(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}
