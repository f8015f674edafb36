
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_redis_link.h"


/* what one request runs into is said once in a while */
#define NGX_HTTP_LLM_REDIS_SAY_MS   60000

/* a command is sent on, or again, no more often than that */
#define NGX_HTTP_LLM_REDIS_HOPS     4


static void ngx_http_llm_redis_replied(ngx_http_llm_redis_call_t *call,
    redisReply *reply);
static ngx_uint_t ngx_http_llm_redis_absurd(
    const ngx_http_llm_redis_call_t *call,
    const ngx_http_llm_redis_answer_t *answer);
static void ngx_http_llm_redis_answer(ngx_http_llm_redis_call_t *call,
    const ngx_http_llm_redis_answer_t *answer);
static void ngx_http_llm_redis_lost(ngx_http_llm_redis_call_t *call);
static void ngx_http_llm_redis_error(ngx_http_llm_redis_call_t *call,
    redisReply *reply);
static ngx_uint_t ngx_http_llm_redis_unable(const redisReply *reply,
    ngx_uint_t policy);
static void ngx_http_llm_redis_say(ngx_http_llm_redis_link_t *link,
    const redisReply *reply, ngx_uint_t policy);
static ngx_int_t ngx_http_llm_redis_again(ngx_http_llm_redis_call_t *call,
    redisReply *reply);
static void ngx_http_llm_redis_ignore(ngx_http_llm_redis_call_t *call,
    redisReply *reply);


static const int64_t  ngx_http_llm_redis_nothing[NGX_HTTP_LLM_REDIS_BUDGETS];

static const ngx_http_llm_redis_answer_t  ngx_http_llm_redis_failed = {
    .status = NGX_HTTP_LLM_REDIS_FAILED
};


/*
 * What a server says that cannot decide for anybody now: the link is down
 * until a probe goes through, at the next server of the list if there is one.
 */

static const char  *ngx_http_llm_redis_words[] = {
    "READONLY", "LOADING", "MASTERDOWN", "OOM", "BUSY", "MISCONF",
    "NOREPLICAS", "NOAUTH", "WRONGPASS", "NOPERM", "UNKILLABLE", NULL
};


void
ngx_http_llm_redis_done(ngx_http_llm_redis_call_t *call, redisReply *reply)
{
    ngx_uint_t             njournal, resent;
    ngx_http_llm_redis_t  *redis;

    redis = call->charge.redis;
    njournal = redis->njournal;
    resent = call->resent;

    call->resent = 0;
    redis->nresent -= resent;

    ngx_http_llm_redis_replied(call, reply);

    /* what came back there waits for the next tick */

    if (resent && redis->nresent == 0 && redis->njournal <= njournal) {
        ngx_http_llm_redis_resume(redis);
    }
}


static void
ngx_http_llm_redis_replied(ngx_http_llm_redis_call_t *call, redisReply *reply)
{
    ngx_http_llm_redis_link_t    *link;
    ngx_http_llm_redis_answer_t   answer;

    if (reply == NULL) {
        ngx_http_llm_redis_lost(call);
        return;
    }

    if (reply->type == REDIS_REPLY_ERROR) {
        ngx_http_llm_redis_error(call, reply);
        return;
    }

    if (ngx_http_llm_redis_read(reply, call->script, &answer) != NGX_OK
        || ngx_http_llm_redis_absurd(call, &answer))
    {
        link = call->link;
        ngx_http_llm_redis_lost(call);
        ngx_http_llm_redis_link_drop(link, "wrong reply");
        return;
    }

    /* these write the time down whatever they answer */

    if (call->script == NGX_HTTP_LLM_REDIS_RESERVE
        || call->script == NGX_HTTP_LLM_REDIS_LEASE)
    {
        ngx_http_llm_redis_seen_answer(call->charge.redis, &call->visit);
    }

    ngx_http_llm_redis_answer(call, &answer);
}


/* no script takes what it was told not to wait for: a request would sleep */

static ngx_uint_t
ngx_http_llm_redis_absurd(const ngx_http_llm_redis_call_t *call,
    const ngx_http_llm_redis_answer_t *answer)
{
    ngx_uint_t  b;

    if (call->script != NGX_HTTP_LLM_REDIS_RESERVE
        || answer->status != NGX_HTTP_LLM_REDIS_TAKEN)
    {
        return 0;
    }

    for (b = 0; b < NGX_HTTP_LLM_REDIS_BUDGETS; b++) {
        if (answer->delay_ns[b] > call->wait_ns) {
            return 1;
        }
    }

    return 0;
}


static void
ngx_http_llm_redis_answer(ngx_http_llm_redis_call_t *call,
    const ngx_http_llm_redis_answer_t *answer)
{
    if (call->handler) {
        call->handler(call->data, answer);

    } else if (call->script == NGX_HTTP_LLM_REDIS_RESERVE
               && answer->status == NGX_HTTP_LLM_REDIS_TAKEN)
    {
        /* who asked has left meanwhile */

        ngx_http_llm_redis_settle(&call->charge, ngx_http_llm_redis_nothing);
    }

    ngx_http_llm_redis_call_free(call);
}


/* the link went down, ahead of the answer or of the command */

static void
ngx_http_llm_redis_lost(ngx_http_llm_redis_call_t *call)
{
    if (call->final) {
        ngx_http_llm_redis_store(call);
        return;
    }

    if (call->sent && ngx_http_llm_redis_takes(call)) {
        ngx_http_llm_redis_give_up(&call->charge);
    }

    ngx_http_llm_redis_answer(call, &ngx_http_llm_redis_failed);
}


ngx_uint_t
ngx_http_llm_redis_takes(const ngx_http_llm_redis_call_t *call)
{
    return !call->final
           && (call->script == NGX_HTTP_LLM_REDIS_RESERVE
               || call->script == NGX_HTTP_LLM_REDIS_LEASE);
}


static void
ngx_http_llm_redis_error(ngx_http_llm_redis_call_t *call, redisReply *reply)
{
    ngx_int_t                   rc;
    ngx_uint_t                  policy, unable;
    ngx_http_llm_redis_link_t  *link;

    link = call->link;

    rc = ngx_http_llm_redis_again(call, reply);

    if (rc == NGX_OK) {
        return;
    }

    policy = (ngx_strnstr((u_char *) reply->str, "LLMPOLICY", reply->len)
              != NULL);
    unable = ngx_http_llm_redis_unable(reply, policy);

    if ((unable || rc == NGX_BUSY) && call->final) {
        ngx_http_llm_redis_store(call);

    } else {
        ngx_http_llm_redis_answer(call, &ngx_http_llm_redis_failed);
    }

    if (unable) {
        ngx_http_llm_redis_link_drop(link, "%s", reply->str);
        return;
    }

    ngx_http_llm_redis_say(link, reply, policy);
}


/*
 * A policy may say what it likes; what its commands say of the server counts,
 * but not that a user may do less than it asks for.
 */

static ngx_uint_t
ngx_http_llm_redis_unable(const redisReply *reply, ngx_uint_t policy)
{
    ngx_uint_t  i;

    if (policy
        && (ngx_strnstr((u_char *) reply->str, "LLMPOLICY redis: ",
                        reply->len) == NULL
            || ngx_http_llm_redis_says(reply, "NOPERM")))
    {
        return 0;
    }

    for (i = 0; ngx_http_llm_redis_words[i]; i++) {
        if (ngx_http_llm_redis_says(reply, ngx_http_llm_redis_words[i])) {
            return 1;
        }
    }

    return 0;
}


static void
ngx_http_llm_redis_say(ngx_http_llm_redis_link_t *link,
    const redisReply *reply, ngx_uint_t policy)
{
    ngx_http_llm_redis_t  *redis;

    redis = link->redis;

    if (redis->said_ms
        && ngx_current_msec - redis->said_ms < NGX_HTTP_LLM_REDIS_SAY_MS)
    {
        return;
    }

    redis->said_ms = ngx_current_msec;

    ngx_http_llm_redis_printable((u_char *) reply->str, reply->len);

    ngx_log_error(NGX_LOG_ERR, redis->log, 0,
                  "llm redis: %s\"%V\" cannot decide, %V: %s",
                  policy ? "script of " : "", &redis->name,
                  &link->addr.name, reply->str);
}


/*
 * NGX_OK: it was sent once more, to where it belongs; NGX_BUSY: there is no
 * such place now; NGX_DECLINED: it is not about that.
 */

static ngx_int_t
ngx_http_llm_redis_again(ngx_http_llm_redis_call_t *call, redisReply *reply)
{
    ngx_uint_t                  ask, moved;
    ngx_http_llm_redis_link_t  *link, *target;

    link = call->link;

    if (ngx_http_llm_redis_says(reply, "NOSCRIPT")) {
        if (call->hops++ >= NGX_HTTP_LLM_REDIS_HOPS
            || ngx_http_llm_redis_load(link, call->script) != NGX_OK)
        {
            return NGX_BUSY;
        }

        return ngx_http_llm_redis_link_send(link, call);
    }

    if (ngx_http_llm_redis_says(reply, "CLUSTERDOWN")
        || ngx_http_llm_redis_says(reply, "TRYAGAIN"))
    {
        ngx_http_llm_redis_refresh(link->redis);
        return NGX_BUSY;
    }

    moved = (ngx_strncmp(reply->str, "MOVED ", 6) == 0);
    ask = (ngx_strncmp(reply->str, "ASK ", 4) == 0);

    if (!moved && !ask) {
        return NGX_DECLINED;
    }

    target = ngx_http_llm_redis_target(link, reply, moved);

    if (moved) {
        ngx_http_llm_redis_refresh(link->redis);
    }

    if (target == NULL || call->hops++ >= NGX_HTTP_LLM_REDIS_HOPS) {
        return NGX_BUSY;
    }

    call->asking = ask;

    return ngx_http_llm_redis_link_send(target, call);
}


ngx_int_t
ngx_http_llm_redis_asking(ngx_http_llm_redis_link_t *link)
{
    size_t                      len;
    const char                 *arg;
    ngx_http_llm_redis_call_t  *call;

    arg = "ASKING";
    len = 6;

    call = ngx_http_llm_redis_call_create(NGX_HTTP_LLM_REDIS_GREETING,
                                          ngx_http_llm_redis_ignore, 1,
                                          &arg, &len);
    if (call == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_llm_redis_link_send(link, call) != NGX_OK) {
        ngx_http_llm_redis_call_free(call);
        return NGX_BUSY;
    }

    return NGX_OK;
}


static void
ngx_http_llm_redis_ignore(ngx_http_llm_redis_call_t *call, redisReply *reply)
{
    ngx_http_llm_redis_call_free(call);
}
