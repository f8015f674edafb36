
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_redis_link.h"


/* EVALSHA, its script and keys, the charge, its numbers, a policy's facts */
#define NGX_HTTP_LLM_REDIS_ARGS  12


/* a command as it is put together */

typedef struct {
    ngx_uint_t    n;
    const char   *args[NGX_HTTP_LLM_REDIS_ARGS];
    size_t        lens[NGX_HTTP_LLM_REDIS_ARGS];

    u_char        key[NGX_HTTP_LLM_REDIS_KEY];
    u_char        policy[NGX_HTTP_LLM_REDIS_KEY];
    u_char        id[2 * NGX_HTTP_LLM_REDIS_ID];
    u_char        digest[2 * NGX_HTTP_LLM_REDIS_DIGEST];
    u_char        estimated[NGX_INT64_LEN + 1];
    u_char        numbers[NGX_HTTP_LLM_REDIS_NUMBERS];

    ngx_http_llm_redis_visit_t  visit;
} ngx_http_llm_redis_line_t;


static void ngx_http_llm_redis_line_start(ngx_http_llm_redis_line_t *line,
    const ngx_http_llm_redis_charge_t *charge,
    ngx_http_llm_redis_script_e script);
static void ngx_http_llm_redis_line_text(ngx_http_llm_redis_line_t *line,
    const void *text, size_t len);
static void ngx_http_llm_redis_line_policy(ngx_http_llm_redis_line_t *line,
    const ngx_http_llm_redis_charge_t *charge,
    const ngx_http_llm_redis_facts_t *facts);
static u_char *ngx_http_llm_redis_double(u_char *p, int64_t number);


ngx_http_llm_redis_call_t *
ngx_http_llm_redis_command(ngx_http_llm_redis_script_e script,
    const ngx_http_llm_redis_charge_t *charge, const int64_t *costs,
    int64_t first, int64_t second, const ngx_http_llm_redis_facts_t *facts)
{
    ngx_http_llm_redis_call_t  *call;
    ngx_http_llm_redis_line_t   line;

    ngx_http_llm_redis_line_start(&line, charge, script);

    ngx_http_llm_redis_numbers(line.numbers, charge, line.visit.since_us,
                               costs, first, second);
    ngx_http_llm_redis_line_text(&line, line.numbers, sizeof(line.numbers));

    if (script == NGX_HTTP_LLM_REDIS_RESERVE && charge->redis->policy) {
        ngx_http_llm_redis_line_policy(&line, charge, facts);
    }

    call = ngx_http_llm_redis_call_create(script, ngx_http_llm_redis_done,
                                          line.n, line.args, line.lens);
    if (call == NULL) {
        return NULL;
    }

    call->charge = *charge;
    call->visit = line.visit;
    call->slot = ngx_http_llm_redis_slot(line.key, line.lens[3]);

    return call;
}


void
ngx_http_llm_redis_numbers(u_char *p,
    const ngx_http_llm_redis_charge_t *charge, int64_t since_us,
    const int64_t *costs, int64_t first, int64_t second)
{
    ngx_uint_t             b;
    const ngx_llm_rate_t  *rate;

    p = ngx_http_llm_redis_double(p, charge->keep_ms);
    p = ngx_http_llm_redis_double(p, since_us);

    for (b = 0; b < NGX_HTTP_LLM_REDIS_BUDGETS; b++) {
        rate = &charge->rates[b];

        p = ngx_http_llm_redis_double(p, rate->tokens);
        p = ngx_http_llm_redis_double(p, rate->period_ns / 1000000000);
        p = ngx_http_llm_redis_double(p, rate->burst);
        p = ngx_http_llm_redis_double(p, costs[b]);
    }

    p = ngx_http_llm_redis_double(p, first);
    (void) ngx_http_llm_redis_double(p, second);
}


void
ngx_http_llm_redis_forget_since(ngx_http_llm_redis_call_t *call)
{
    u_char  *numbers;

    numbers = call->text + call->text_bytes - (sizeof("\r\n") - 1)
              - NGX_HTTP_LLM_REDIS_NUMBERS;

    (void) ngx_http_llm_redis_double(numbers + sizeof(double), -1);
}


/* as Lua's struct reads it, whatever machine this is */

static u_char *
ngx_http_llm_redis_double(u_char *p, int64_t number)
{
    double      value;
    uint64_t    bits;
    ngx_uint_t  i;

    value = (double) number;
    ngx_memcpy(&bits, &value, sizeof(double));

    for (i = 0; i < sizeof(double); i++) {
        *p++ = (u_char) (bits >> (8 * i));
    }

    return p;
}


double
ngx_http_llm_redis_read_double(const u_char *p)
{
    double      value;
    uint64_t    bits;
    ngx_uint_t  i;

    bits = 0;

    for (i = 0; i < sizeof(double); i++) {
        bits |= (uint64_t) p[i] << (8 * i);
    }

    ngx_memcpy(&value, &bits, sizeof(double));

    return value;
}


static void
ngx_http_llm_redis_line_start(ngx_http_llm_redis_line_t *line,
    const ngx_http_llm_redis_charge_t *charge,
    ngx_http_llm_redis_script_e script)
{
    u_char                *p, *last;
    ngx_uint_t             policy;
    ngx_http_llm_redis_t  *redis;

    redis = charge->redis;
    policy = (script == NGX_HTTP_LLM_REDIS_RESERVE && redis->policy);

    line->n = 0;

    ngx_hex_dump(line->digest, (u_char *) charge->digest,
                 sizeof(line->digest) / 2);

    ngx_http_llm_redis_line_text(line, "EVALSHA", 7);
    ngx_http_llm_redis_line_text(line, redis->scripts[script].sha, 40);
    ngx_http_llm_redis_line_text(line, policy ? "2" : "1", 1);

    /*
     * One key: a slot that is being moved refuses commands of several.  The
     * braces keep the policy's key, if there is one, in the same slot.
     */

    last = line->key + sizeof(line->key);
    p = ngx_slprintf(line->key, last, "%V{%V:%*s}", &redis->prefix,
                     &charge->zone, sizeof(line->digest), line->digest);
    ngx_http_llm_redis_line_text(line, line->key, p - line->key);
    ngx_http_llm_redis_seen_ask(redis, &line->visit, line->key,
                                p - line->key);

    if (policy) {
        last = line->policy + sizeof(line->policy);
        p = ngx_slprintf(line->policy, last, "%*s:policy", p - line->key,
                         line->key);
        ngx_http_llm_redis_line_text(line, line->policy, p - line->policy);
    }

    ngx_hex_dump(line->id, (u_char *) charge->id, NGX_HTTP_LLM_REDIS_ID);
    ngx_http_llm_redis_line_text(line, line->id, sizeof(line->id));
}


static void
ngx_http_llm_redis_line_policy(ngx_http_llm_redis_line_t *line,
    const ngx_http_llm_redis_charge_t *charge,
    const ngx_http_llm_redis_facts_t *facts)
{
    u_char  *p;

    p = ngx_sprintf(line->estimated, "%L", facts->estimated);

    ngx_http_llm_redis_line_text(line, line->digest, sizeof(line->digest));
    ngx_http_llm_redis_line_text(line, facts->model.data, facts->model.len);
    ngx_http_llm_redis_line_text(line, line->estimated, p - line->estimated);
    ngx_http_llm_redis_line_text(line, charge->zone.data, charge->zone.len);
}


static void
ngx_http_llm_redis_line_text(ngx_http_llm_redis_line_t *line,
    const void *text, size_t len)
{
    line->args[line->n] = text;
    line->lens[line->n] = len;
    line->n++;
}
