
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_redis_link.h"


/* an error says what it is near its start */
#define NGX_HTTP_LLM_REDIS_ERROR_BYTES  256

/* what a double counts exactly; no script says more */
#define NGX_HTTP_LLM_REDIS_MOST         9007199254740992.


static ngx_int_t ngx_http_llm_redis_whole(const redisReply *reply,
    int64_t *numbers, size_t n);
static int64_t ngx_http_llm_redis_ns(int64_t us);


/* status, delays, levels, until full, and behind a denial the reason */

static ngx_int_t
ngx_http_llm_redis_read_reserve(const redisReply *reply,
    ngx_http_llm_redis_answer_t *answer)
{
    int64_t     n[7];
    ngx_uint_t  b;

    if (ngx_http_llm_redis_whole(reply, n, 7) != NGX_OK) {
        return NGX_ERROR;
    }

    switch (n[0]) {

    case 0:
        answer->status = NGX_HTTP_LLM_REDIS_REFUSED;
        break;

    case 1:
        answer->status = NGX_HTTP_LLM_REDIS_TAKEN;
        break;

    case 2:

        /* it was given up before it came */

        answer->status = NGX_HTTP_LLM_REDIS_FAILED;
        break;

    case 3:
        answer->status = NGX_HTTP_LLM_REDIS_DENIED;
        answer->reason.data = (u_char *) reply->str + sizeof(n);
        answer->reason.len = reply->len - sizeof(n);
        break;

    default:
        return NGX_ERROR;
    }

    for (b = 0; b < NGX_HTTP_LLM_REDIS_BUDGETS; b++) {
        answer->delay_ns[b] = ngx_http_llm_redis_ns(n[1 + b]);
        answer->level[b] = n[3 + b];
        answer->full_ns[b] = ngx_http_llm_redis_ns(n[5 + b]);
    }

    return NGX_OK;
}


/* 1, granted, levels, until full */

static ngx_int_t
ngx_http_llm_redis_read_lease(const redisReply *reply,
    ngx_http_llm_redis_answer_t *answer)
{
    int64_t     n[7];
    ngx_uint_t  b;

    if (ngx_http_llm_redis_whole(reply, n, 7) != NGX_OK || n[0] != 1) {
        return NGX_ERROR;
    }

    for (b = 0; b < NGX_HTTP_LLM_REDIS_BUDGETS; b++) {
        answer->granted[b] = n[1 + b];
        answer->level[b] = n[3 + b];
        answer->full_ns[b] = ngx_http_llm_redis_ns(n[5 + b]);
    }

    answer->status = NGX_HTTP_LLM_REDIS_TAKEN;

    return NGX_OK;
}


ngx_int_t
ngx_http_llm_redis_read(const redisReply *reply,
    ngx_http_llm_redis_script_e script, ngx_http_llm_redis_answer_t *answer)
{
    int64_t  n[3];

    ngx_memzero(answer, sizeof(ngx_http_llm_redis_answer_t));

    switch (script) {

    case NGX_HTTP_LLM_REDIS_RESERVE:
        return ngx_http_llm_redis_read_reserve(reply, answer);

    case NGX_HTTP_LLM_REDIS_LEASE:
        return ngx_http_llm_redis_read_lease(reply, answer);

    case NGX_HTTP_LLM_REDIS_SETTLE:

        if (ngx_http_llm_redis_whole(reply, n, 3) != NGX_OK) {
            return NGX_ERROR;
        }

        answer->level[0] = n[1];
        answer->level[1] = n[2];
        return NGX_OK;

    case NGX_HTTP_LLM_REDIS_RAISE:

        if (ngx_http_llm_redis_whole(reply, n, 3) != NGX_OK
            || n[1] < 0)
        {
            return NGX_ERROR;
        }

        answer->granted[0] = n[1];
        answer->delay_ns[0] = ngx_http_llm_redis_ns(n[2]);
        return NGX_OK;

    case NGX_HTTP_LLM_REDIS_SCRIPTS:
        break;
    }

    return NGX_ERROR;
}


/* a text of at least n numbers, the first n of them whole; see bucket.lua */

static ngx_int_t
ngx_http_llm_redis_whole(const redisReply *reply, int64_t *numbers, size_t n)
{
    size_t  i;
    double  value;

    if (reply->type != REDIS_REPLY_STRING || reply->len < n * sizeof(double)) {
        return NGX_ERROR;
    }

    for (i = 0; i < n; i++) {
        value = ngx_http_llm_redis_read_double((u_char *) reply->str
                                               + i * sizeof(double));

        /* NaN is not */

        if (!(value >= -NGX_HTTP_LLM_REDIS_MOST
              && value <= NGX_HTTP_LLM_REDIS_MOST))
        {
            return NGX_ERROR;
        }

        numbers[i] = (int64_t) value;

        if ((double) numbers[i] != value) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static int64_t
ngx_http_llm_redis_ns(int64_t us)
{
    if (us < 0 || us > INT64_MAX / 1000) {
        return NGX_LLM_NEVER;
    }

    return us * 1000;
}


/* Redis 6 puts words of its own ahead of what a command in a script says */

ngx_uint_t
ngx_http_llm_redis_says(const redisReply *reply, const char *word)
{
    size_t  i, len, text_len;

    len = ngx_strlen(word);
    text_len = ngx_min(reply->len, NGX_HTTP_LLM_REDIS_ERROR_BYTES);

    for (i = 0; i + len <= text_len; i++) {

        if (ngx_memcmp(reply->str + i, word, len) != 0) {
            continue;
        }

        if ((i == 0 || reply->str[i - 1] == ' ' || reply->str[i - 1] == '-')
            && (i + len == text_len || reply->str[i + len] == ' '))
        {
            return 1;
        }
    }

    return 0;
}


void
ngx_http_llm_redis_printable(u_char *text, size_t len)
{
    size_t  i;

    for (i = 0; i < len; i++) {
        if (text[i] < 0x20 || text[i] >= 0x7f) {
            text[i] = '.';
        }
    }
}
