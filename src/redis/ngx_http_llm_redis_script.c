
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <ngx_sha1.h>

#include "ngx_http_llm_redis_link.h"
#include "llm_redis_lua.h"


static ngx_int_t ngx_http_llm_redis_script(ngx_conf_t *cf,
    ngx_http_llm_redis_script_t *script, ngx_str_t *policy,
    const char *text);
static u_char *ngx_http_llm_redis_length(u_char *p, u_char type,
    size_t length);


/* made of the scripts in this folder when the module is built */

static const char  *ngx_http_llm_redis_texts[] = {
    ngx_http_llm_redis_lua_reserve,
    ngx_http_llm_redis_lua_settle,
    ngx_http_llm_redis_lua_raise,
    ngx_http_llm_redis_lua_lease
};


ngx_int_t
ngx_http_llm_redis_scripts(ngx_conf_t *cf, ngx_http_llm_redis_t *redis,
    ngx_str_t *policy)
{
    ngx_str_t   none;
    ngx_uint_t  i;

    ngx_str_null(&none);

    for (i = 0; i < NGX_HTTP_LLM_REDIS_SCRIPTS; i++) {
        if (ngx_http_llm_redis_script(cf, &redis->scripts[i],
                                      (i == NGX_HTTP_LLM_REDIS_RESERVE)
                                      ? policy : &none,
                                      ngx_http_llm_redis_texts[i])
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/*
 * The policy stands on the first line, so that the lines in Redis' messages
 * are those of the operator's file.
 */

static ngx_int_t
ngx_http_llm_redis_script(ngx_conf_t *cf, ngx_http_llm_redis_script_t *script,
    ngx_str_t *policy, const char *text)
{
    u_char      *p, sha[20];
    size_t       len;
    ngx_sha1_t   sha1;

    len = sizeof("local policy = (function() \nend)()\n") - 1 + policy->len
          + sizeof(ngx_http_llm_redis_lua_bucket) - 1 + ngx_strlen(text)
          + sizeof(ngx_http_llm_redis_lua_save) - 1;

    script->text.data = ngx_pnalloc(cf->pool, len);
    if (script->text.data == NULL) {
        return NGX_ERROR;
    }

    if (policy->len) {
        p = ngx_sprintf(script->text.data,
                        "local policy = (function() %V\nend)()\n", policy);

    } else {
        p = ngx_sprintf(script->text.data, "local policy\n");
    }

    p = ngx_sprintf(p, "%s%s%s", ngx_http_llm_redis_lua_bucket, text,
                    ngx_http_llm_redis_lua_save);

    script->text.len = p - script->text.data;

    ngx_sha1_init(&sha1);
    ngx_sha1_update(&sha1, script->text.data, script->text.len);
    ngx_sha1_final(sha, &sha1);

    ngx_hex_dump(script->sha, sha, sizeof(sha));

    return NGX_OK;
}


/* hiredis' formatter takes more than all else that asking takes */

ngx_http_llm_redis_call_t *
ngx_http_llm_redis_call_create(ngx_http_llm_redis_script_e script,
    ngx_http_llm_redis_done_pt done, ngx_uint_t n, const char **args,
    const size_t *lens)
{
    u_char                     *p;
    size_t                      bytes;
    ngx_uint_t                  i;
    ngx_http_llm_redis_call_t  *call;

    bytes = sizeof("*\r\n") - 1 + NGX_INT_T_LEN;

    for (i = 0; i < n; i++) {
        bytes += sizeof("$\r\n\r\n") - 1 + NGX_SIZE_T_LEN + lens[i];
    }

    call = ngx_alloc(sizeof(ngx_http_llm_redis_call_t) + bytes,
                     ngx_cycle->log);
    if (call == NULL) {
        return NULL;
    }

    ngx_memzero(call, sizeof(ngx_http_llm_redis_call_t));

    call->script = script;
    call->done = done;
    call->made_ms = ngx_current_msec;
    call->text = (u_char *) call + sizeof(ngx_http_llm_redis_call_t);

    p = ngx_http_llm_redis_length(call->text, '*', n);

    for (i = 0; i < n; i++) {
        p = ngx_http_llm_redis_length(p, '$', lens[i]);

        if (lens[i]) {
            p = ngx_cpymem(p, args[i], lens[i]);
        }

        *p++ = CR;
        *p++ = LF;
    }

    call->text_bytes = p - call->text;

    return call;
}


static u_char *
ngx_http_llm_redis_length(u_char *p, u_char type, size_t length)
{
    u_char  *digit, digits[NGX_SIZE_T_LEN];

    digit = digits + NGX_SIZE_T_LEN;

    do {
        *--digit = (u_char) ('0' + length % 10);
        length /= 10;
    } while (length);

    *p++ = type;
    p = ngx_cpymem(p, digit, digits + NGX_SIZE_T_LEN - digit);
    *p++ = CR;
    *p++ = LF;

    return p;
}


void
ngx_http_llm_redis_call_free(ngx_http_llm_redis_call_t *call)
{
    ngx_free(call);
}
