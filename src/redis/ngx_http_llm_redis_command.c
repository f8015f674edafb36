
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_redis_link.h"


/* EVALSHA, its script and keys, and what the scripts are given at most */
#define NGX_HTTP_LLM_REDIS_ARGS     24
#define NGX_HTTP_LLM_REDIS_NUMBERS  16


/* a command as it is put together */

typedef struct {
    ngx_uint_t    n;
    const char   *args[NGX_HTTP_LLM_REDIS_ARGS];
    size_t        lens[NGX_HTTP_LLM_REDIS_ARGS];

    ngx_uint_t    nnumbers;
    u_char        numbers[NGX_HTTP_LLM_REDIS_NUMBERS][NGX_INT64_LEN + 1];

    u_char        key[NGX_HTTP_LLM_REDIS_KEY];
    u_char        policy[NGX_HTTP_LLM_REDIS_KEY];
    u_char        id[2 * NGX_HTTP_LLM_REDIS_ID];

    ngx_http_llm_redis_visit_t  visit;
} ngx_http_llm_redis_line_t;


static void ngx_http_llm_redis_line_start(ngx_http_llm_redis_line_t *line,
    const ngx_http_llm_redis_charge_t *charge,
    ngx_http_llm_redis_script_e script);
static void ngx_http_llm_redis_line_text(ngx_http_llm_redis_line_t *line,
    const u_char *text, size_t len);
static void ngx_http_llm_redis_line_number(ngx_http_llm_redis_line_t *line,
    int64_t number);
static void ngx_http_llm_redis_line_since(ngx_http_llm_redis_line_t *line);
static void ngx_http_llm_redis_line_budget(ngx_http_llm_redis_line_t *line,
    const ngx_llm_rate_t *rate, int64_t cost);
static ngx_http_llm_redis_call_t *ngx_http_llm_redis_line_end(
    ngx_http_llm_redis_line_t *line,
    const ngx_http_llm_redis_charge_t *charge,
    ngx_http_llm_redis_script_e script);


ngx_http_llm_redis_call_t *
ngx_http_llm_redis_command(ngx_http_llm_redis_script_e script,
    const ngx_http_llm_redis_charge_t *charge, int64_t second,
    const int64_t *costs, const int64_t *debts,
    const ngx_http_llm_redis_facts_t *facts)
{
    u_char                     digest[2 * NGX_HTTP_LLM_REDIS_DIGEST];
    ngx_uint_t                 b;
    ngx_http_llm_redis_line_t  line;

    ngx_http_llm_redis_line_start(&line, charge, script);

    ngx_http_llm_redis_line_number(&line, charge->keep_ms);
    ngx_http_llm_redis_line_number(&line, second);

    for (b = 0; b < NGX_HTTP_LLM_REDIS_BUDGETS; b++) {
        ngx_http_llm_redis_line_budget(&line, &charge->rates[b], costs[b]);
    }

    ngx_http_llm_redis_line_since(&line);

    for (b = 0; debts && b < NGX_HTTP_LLM_REDIS_BUDGETS; b++) {
        ngx_http_llm_redis_line_number(&line, debts[b]);
    }

    if (script == NGX_HTTP_LLM_REDIS_RESERVE && charge->redis->policy) {
        ngx_hex_dump(digest, (u_char *) charge->digest,
                     NGX_HTTP_LLM_REDIS_DIGEST);

        ngx_http_llm_redis_line_text(&line, digest, sizeof(digest));
        ngx_http_llm_redis_line_text(&line, facts->model.data,
                                     facts->model.len);
        ngx_http_llm_redis_line_number(&line, facts->estimated);
        ngx_http_llm_redis_line_text(&line, charge->zone.data,
                                     charge->zone.len);
    }

    return ngx_http_llm_redis_line_end(&line, charge, script);
}


ngx_http_llm_redis_call_t *
ngx_http_llm_redis_command_raise(const ngx_http_llm_redis_charge_t *charge,
    int64_t need, int64_t least, int64_t most)
{
    ngx_http_llm_redis_line_t  line;

    ngx_http_llm_redis_line_start(&line, charge, NGX_HTTP_LLM_REDIS_RAISE);

    ngx_http_llm_redis_line_number(&line, charge->keep_ms);
    ngx_http_llm_redis_line_number(&line, least);
    ngx_http_llm_redis_line_budget(&line, &charge->rates[0], need);
    ngx_http_llm_redis_line_number(&line, most);
    ngx_http_llm_redis_line_since(&line);

    return ngx_http_llm_redis_line_end(&line, charge,
                                       NGX_HTTP_LLM_REDIS_RAISE);
}


static void
ngx_http_llm_redis_line_start(ngx_http_llm_redis_line_t *line,
    const ngx_http_llm_redis_charge_t *charge,
    ngx_http_llm_redis_script_e script)
{
    u_char                 digest[2 * NGX_HTTP_LLM_REDIS_DIGEST];
    u_char                *p, *last;
    ngx_uint_t             policy;
    ngx_http_llm_redis_t  *redis;

    redis = charge->redis;
    policy = (script == NGX_HTTP_LLM_REDIS_RESERVE && redis->policy);

    line->n = 0;
    line->nnumbers = 0;

    ngx_hex_dump(digest, (u_char *) charge->digest, sizeof(digest) / 2);

    ngx_http_llm_redis_line_text(line, (u_char *) "EVALSHA", 7);
    ngx_http_llm_redis_line_text(line, redis->scripts[script].sha, 40);
    ngx_http_llm_redis_line_number(line, policy ? 2 : 1);

    /*
     * One key: a slot that is being moved refuses commands of several.  The
     * braces keep the policy's key, if there is one, in the same slot.
     */

    last = line->key + sizeof(line->key);
    p = ngx_slprintf(line->key, last, "%V{%V:%*s}", &redis->prefix,
                     &charge->zone, sizeof(digest), digest);
    ngx_http_llm_redis_line_text(line, line->key, p - line->key);
    ngx_http_llm_redis_seen_ask(redis, &line->visit, line->key,
                                p - line->key);

    if (policy) {
        last = line->policy + sizeof(line->policy);
        p = ngx_slprintf(line->policy, last, "%V{%V:%*s}:policy",
                         &redis->prefix, &charge->zone, sizeof(digest),
                         digest);
        ngx_http_llm_redis_line_text(line, line->policy, p - line->policy);
    }

    ngx_hex_dump(line->id, (u_char *) charge->id, NGX_HTTP_LLM_REDIS_ID);
    ngx_http_llm_redis_line_text(line, line->id, sizeof(line->id));
}


static void
ngx_http_llm_redis_line_text(ngx_http_llm_redis_line_t *line,
    const u_char *text, size_t len)
{
    line->args[line->n] = (const char *) text;
    line->lens[line->n] = len;
    line->n++;
}


static void
ngx_http_llm_redis_line_number(ngx_http_llm_redis_line_t *line,
    int64_t number)
{
    u_char  *p, *text;

    text = line->numbers[line->nnumbers++];
    p = ngx_sprintf(text, "%L", number);

    ngx_http_llm_redis_line_text(line, text, p - text);
}


/* always as long: what is sent later does not know any more */

static void
ngx_http_llm_redis_line_since(ngx_http_llm_redis_line_t *line)
{
    u_char  *text;

    text = line->numbers[line->nnumbers++];

    if (line->visit.since_us < 0) {
        ngx_memcpy(text, NGX_HTTP_LLM_REDIS_UNKNOWN,
                   NGX_HTTP_LLM_REDIS_SINCE);

    } else {
        ngx_sprintf(text, "%016L", line->visit.since_us);
    }

    ngx_http_llm_redis_line_text(line, text, NGX_HTTP_LLM_REDIS_SINCE);
}


static void
ngx_http_llm_redis_line_budget(ngx_http_llm_redis_line_t *line,
    const ngx_llm_rate_t *rate, int64_t cost)
{
    ngx_http_llm_redis_line_number(line, rate->tokens);
    ngx_http_llm_redis_line_number(line, rate->period_ns / 1000000000);
    ngx_http_llm_redis_line_number(line, rate->burst);
    ngx_http_llm_redis_line_number(line, cost);
}


static ngx_http_llm_redis_call_t *
ngx_http_llm_redis_line_end(ngx_http_llm_redis_line_t *line,
    const ngx_http_llm_redis_charge_t *charge,
    ngx_http_llm_redis_script_e script)
{
    ngx_http_llm_redis_call_t  *call;

    call = ngx_http_llm_redis_call_create(script, ngx_http_llm_redis_done,
                                          line->n, line->args, line->lens);
    if (call == NULL) {
        return NULL;
    }

    call->charge = *charge;
    call->visit = line->visit;
    call->slot = ngx_http_llm_redis_slot(line->key, line->lens[3]);

    return call;
}
