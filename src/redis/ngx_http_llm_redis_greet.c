
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_redis_link.h"


static void ngx_http_llm_redis_greet_send(ngx_http_llm_redis_link_t *link,
    ngx_http_llm_redis_done_pt done, ngx_uint_t n, const char **args,
    const size_t *lens);
static void ngx_http_llm_redis_greet_word(ngx_http_llm_redis_link_t *link,
    ngx_http_llm_redis_done_pt done, const char *word, const ngx_str_t *one,
    const ngx_str_t *two);
static void ngx_http_llm_redis_greet_probe(ngx_http_llm_redis_link_t *link);
static ngx_http_llm_redis_link_t *ngx_http_llm_redis_greet_next(
    ngx_http_llm_redis_call_t *call, const redisReply *reply);
static void ngx_http_llm_redis_greeted(ngx_http_llm_redis_call_t *call,
    redisReply *reply);
static void ngx_http_llm_redis_greeted_map(ngx_http_llm_redis_call_t *call,
    redisReply *reply);
static void ngx_http_llm_redis_greeted_probe(ngx_http_llm_redis_call_t *call,
    redisReply *reply);
static void ngx_http_llm_redis_loaded(ngx_http_llm_redis_call_t *call,
    redisReply *reply);


/* all at once: a greeting takes one round trip */

void
ngx_http_llm_redis_greet(ngx_http_llm_redis_link_t *link)
{
    u_char                 db[NGX_INT_T_LEN];
    ngx_str_t              arg, load, slots;
    ngx_uint_t             i, number;
    ngx_http_llm_redis_t  *redis;

    redis = link->redis;
    number = link->number;

    if (redis->password.len) {
        ngx_http_llm_redis_greet_word(link, ngx_http_llm_redis_greeted,
                                      "AUTH", redis->user.len ? &redis->user
                                                              : NULL,
                                      &redis->password);
    }

    if (redis->db) {
        arg.data = db;
        arg.len = ngx_sprintf(db, "%ui", redis->db) - db;

        ngx_http_llm_redis_greet_word(link, ngx_http_llm_redis_greeted,
                                      "SELECT", NULL, &arg);

    } else if (!link->fixed) {
        ngx_str_set(&slots, "SLOTS");

        ngx_http_llm_redis_greet_word(link, ngx_http_llm_redis_greeted_map,
                                      "CLUSTER", NULL, &slots);
    }

    ngx_str_set(&load, "LOAD");

    for (i = 0; i < NGX_HTTP_LLM_REDIS_SCRIPTS; i++) {
        ngx_http_llm_redis_greet_word(link, ngx_http_llm_redis_greeted,
                                      "SCRIPT", &load,
                                      &redis->scripts[i].text);
    }

    if (link->number == number) {
        ngx_http_llm_redis_greet_probe(link);
    }
}


/* ends a charge that never was, which writes: what forbids that shows here */

static void
ngx_http_llm_redis_greet_probe(ngx_http_llm_redis_link_t *link)
{
    u_char                       key[NGX_HTTP_LLM_REDIS_KEY];
    u_char                       id[sizeof("probe-") + NGX_INT64_LEN];
    u_char                       numbers[NGX_HTTP_LLM_REDIS_NUMBERS];
    size_t                       lens[6];
    const char                  *args[6];
    ngx_http_llm_redis_t        *redis;
    ngx_http_llm_redis_charge_t  charge;

    static const int64_t  nothing[NGX_HTTP_LLM_REDIS_BUDGETS];

    redis = link->redis;

    ngx_memzero(&charge, sizeof(ngx_http_llm_redis_charge_t));
    charge.keep_ms = 1000;

    ngx_http_llm_redis_numbers(numbers, &charge, -1, nothing, 1, 0);

    args[0] = "EVALSHA";
    lens[0] = 7;

    args[1] = (char *) redis->scripts[NGX_HTTP_LLM_REDIS_SETTLE].sha;
    lens[1] = 40;

    args[2] = "1";
    lens[2] = 1;

    args[3] = (char *) key;
    lens[3] = ngx_snprintf(key, sizeof(key), "%V{:probe}", &redis->prefix)
              - key;

    args[4] = (char *) id;
    lens[4] = ngx_snprintf(id, sizeof(id), "probe-%P", ngx_pid) - id;

    args[5] = (char *) numbers;
    lens[5] = sizeof(numbers);

    ngx_http_llm_redis_greet_send(link, ngx_http_llm_redis_greeted_probe, 6,
                                  args, lens);
}


static void
ngx_http_llm_redis_greet_word(ngx_http_llm_redis_link_t *link,
    ngx_http_llm_redis_done_pt done, const char *word, const ngx_str_t *one,
    const ngx_str_t *two)
{
    size_t       lens[3];
    ngx_uint_t   n;
    const char  *args[3];

    args[0] = word;
    lens[0] = ngx_strlen(word);
    n = 1;

    if (one) {
        args[n] = (char *) one->data;
        lens[n++] = one->len;
    }

    args[n] = (char *) two->data;
    lens[n++] = two->len;

    ngx_http_llm_redis_greet_send(link, done, n, args, lens);
}


static void
ngx_http_llm_redis_greet_send(ngx_http_llm_redis_link_t *link,
    ngx_http_llm_redis_done_pt done, ngx_uint_t n, const char **args,
    const size_t *lens)
{
    ngx_http_llm_redis_call_t  *call;

    call = ngx_http_llm_redis_call_create(NGX_HTTP_LLM_REDIS_GREETING, done,
                                          n, args, lens);
    if (call == NULL) {
        return;
    }

    if (ngx_http_llm_redis_link_send(link, call) != NGX_OK) {
        ngx_http_llm_redis_call_free(call);
        return;
    }

    link->greetings++;
}


/* the link that one more reply of the greeting came by; NULL: none did */

static ngx_http_llm_redis_link_t *
ngx_http_llm_redis_greet_next(ngx_http_llm_redis_call_t *call,
    const redisReply *reply)
{
    ngx_http_llm_redis_link_t  *link;

    link = call->link;

    ngx_http_llm_redis_call_free(call);

    if (reply == NULL) {
        return NULL;
    }

    link->greetings--;

    return link;
}


static void
ngx_http_llm_redis_greeted(ngx_http_llm_redis_call_t *call, redisReply *reply)
{
    ngx_http_llm_redis_link_t  *link;

    link = ngx_http_llm_redis_greet_next(call, reply);

    if (link && reply->type == REDIS_REPLY_ERROR) {
        ngx_http_llm_redis_link_drop(link, "%s", reply->str);
    }
}


/* one that is no cluster, or says nothing of it, is a server by itself */

static void
ngx_http_llm_redis_greeted_map(ngx_http_llm_redis_call_t *call,
    redisReply *reply)
{
    ngx_http_llm_redis_link_t  *link;

    link = ngx_http_llm_redis_greet_next(call, reply);

    if (link) {
        (void) ngx_http_llm_redis_learn(link, reply);
    }
}


/* it is the last one */

static void
ngx_http_llm_redis_greeted_probe(ngx_http_llm_redis_call_t *call,
    redisReply *reply)
{
    ngx_http_llm_redis_link_t  *link;

    link = ngx_http_llm_redis_greet_next(call, reply);

    if (link == NULL) {
        return;
    }

    if (link->greetings) {
        ngx_http_llm_redis_link_drop(link, "wrong reply");
        return;
    }

    /* its slot is another server's, or is about to be */

    if (reply->type == REDIS_REPLY_STRING
        || (reply->type == REDIS_REPLY_ERROR
            && (ngx_http_llm_redis_says(reply, "MOVED")
                || ngx_http_llm_redis_says(reply, "ASK"))))
    {
        ngx_http_llm_redis_link_up(link);
        return;
    }

    ngx_http_llm_redis_link_drop(link, "%s",
                                 (reply->type == REDIS_REPLY_ERROR)
                                 ? reply->str : "wrong reply");
}


ngx_int_t
ngx_http_llm_redis_load(ngx_http_llm_redis_link_t *link,
    ngx_http_llm_redis_script_e script)
{
    size_t                      lens[3];
    const char                 *args[3];
    ngx_str_t                  *text;
    ngx_http_llm_redis_call_t  *call;

    text = &link->redis->scripts[script].text;

    args[0] = "SCRIPT";
    lens[0] = 6;
    args[1] = "LOAD";
    lens[1] = 4;
    args[2] = (char *) text->data;
    lens[2] = text->len;

    call = ngx_http_llm_redis_call_create(NGX_HTTP_LLM_REDIS_GREETING,
                                          ngx_http_llm_redis_loaded, 3,
                                          args, lens);
    if (call == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_llm_redis_link_send(link, call) != NGX_OK) {
        ngx_http_llm_redis_call_free(call);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_http_llm_redis_loaded(ngx_http_llm_redis_call_t *call, redisReply *reply)
{
    ngx_http_llm_redis_link_t  *link;

    link = call->link;

    ngx_http_llm_redis_call_free(call);

    if (reply && reply->type == REDIS_REPLY_ERROR) {
        ngx_http_llm_redis_link_drop(link, "%s", reply->str);
    }
}
