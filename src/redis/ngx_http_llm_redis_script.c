
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
          + sizeof(ngx_http_llm_redis_lua_bucket) - 1 + ngx_strlen(text);

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

    p = ngx_sprintf(p, "%s%s", ngx_http_llm_redis_lua_bucket, text);

    script->text.len = p - script->text.data;

    ngx_sha1_init(&sha1);
    ngx_sha1_update(&sha1, script->text.data, script->text.len);
    ngx_sha1_final(sha, &sha1);

    ngx_hex_dump(script->sha, sha, sizeof(sha));

    return NGX_OK;
}


ngx_http_llm_redis_call_t *
ngx_http_llm_redis_call_create(ngx_http_llm_redis_script_e script,
    ngx_http_llm_redis_done_pt done, ngx_uint_t n, const char **args,
    const size_t *lens)
{
    ngx_http_llm_redis_call_t  *call;

    call = ngx_calloc(sizeof(ngx_http_llm_redis_call_t), ngx_cycle->log);
    if (call == NULL) {
        return NULL;
    }

    call->script = script;
    call->done = done;

    call->text_bytes = redisFormatCommandArgv(&call->text, n, args, lens);

    if ((ssize_t) call->text_bytes <= 0) {
        ngx_free(call);
        return NULL;
    }

    return call;
}


void
ngx_http_llm_redis_call_free(ngx_http_llm_redis_call_t *call)
{
    redisFreeCommand(call->text);
    ngx_free(call);
}
