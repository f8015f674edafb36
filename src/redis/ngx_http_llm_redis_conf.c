
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_redis_link.h"


#define NGX_HTTP_LLM_REDIS_TIMEOUT_MS          50
#define NGX_HTTP_LLM_REDIS_CONNECT_TIMEOUT_MS  500

/* of an operator's script */
#define NGX_HTTP_LLM_REDIS_POLICY_BYTES        65536


static void ngx_http_llm_redis_hide(ngx_str_t *value);
static char *ngx_http_llm_redis_param(ngx_conf_t *cf,
    ngx_http_llm_redis_t *redis, ngx_str_t *arg, ngx_str_t *policy);
static char *ngx_http_llm_redis_time(ngx_str_t *text, ngx_msec_t *ms);
static char *ngx_http_llm_redis_prefix(ngx_http_llm_redis_t *redis,
    ngx_str_t *text);
static char *ngx_http_llm_redis_policy(ngx_conf_t *cf,
    ngx_http_llm_redis_t *redis, ngx_str_t *path, ngx_str_t *policy);


ngx_http_llm_redis_t *
ngx_http_llm_redis_create(ngx_conf_t *cf, ngx_command_t *cmd)
{
    char                  *rv;
    ngx_str_t             *value, policy;
    ngx_uint_t             i;
    ngx_http_llm_redis_t  *redis;

    value = cf->args->elts;

    redis = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_redis_t));
    if (redis == NULL) {
        return NULL;
    }

    redis->name = value[1];
    redis->timeout_ms = NGX_HTTP_LLM_REDIS_TIMEOUT_MS;
    redis->connect_timeout_ms = NGX_HTTP_LLM_REDIS_CONNECT_TIMEOUT_MS;
    redis->fallback = NGX_HTTP_LLM_REDIS_LOCAL;

    ngx_str_set(&redis->prefix, "llm:");
    ngx_str_null(&policy);

    rv = ngx_http_llm_redis_url(cf, redis, value[2]);

    if (rv != NGX_CONF_OK) {

        /* the address has a password in it */

        if (rv != NGX_CONF_ERROR) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid address of \"%V\" in %V, allowed is "
                               "%s", &value[1], &cmd->name, rv);
        }

        return NULL;
    }

    for (i = 3; i < cf->args->nelts; i++) {
        rv = ngx_http_llm_redis_param(cf, redis, &value[i], &policy);

        if (rv == NGX_CONF_OK) {
            continue;
        }

        if (rv != NGX_CONF_ERROR) {
            ngx_http_llm_redis_hide(&value[i]);
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid value \"%V\" in %V, allowed is %s",
                               &value[i], &cmd->name, rv);
        }

        return NULL;
    }

    if (ngx_http_llm_redis_scripts(cf, redis, &policy) != NGX_OK) {
        return NULL;
    }

    return redis;
}


/* an address where none is expected may have a password in it */

static void
ngx_http_llm_redis_hide(ngx_str_t *value)
{
    u_char  *p;

    p = ngx_strnstr(value->data, "://", value->len);
    if (p) {
        value->len = p + 3 - value->data;
    }
}


static char *
ngx_http_llm_redis_param(ngx_conf_t *cf, ngx_http_llm_redis_t *redis,
    ngx_str_t *arg, ngx_str_t *policy)
{
    ngx_str_t  text;

#define ngx_http_llm_redis_is(name)                                           \
    (arg->len >= sizeof(name) - 1                                             \
     && ngx_strncmp(arg->data, name, sizeof(name) - 1) == 0                   \
     && (text.data = arg->data + sizeof(name) - 1,                            \
         text.len = arg->len - (sizeof(name) - 1), 1))

    if (ngx_http_llm_redis_is("timeout=")) {
        return ngx_http_llm_redis_time(&text, &redis->timeout_ms);
    }

    if (ngx_http_llm_redis_is("connect_timeout=")) {
        return ngx_http_llm_redis_time(&text, &redis->connect_timeout_ms);
    }

    if (ngx_http_llm_redis_is("prefix=")) {
        return ngx_http_llm_redis_prefix(redis, &text);
    }

    if (ngx_http_llm_redis_is("script=")) {
        return ngx_http_llm_redis_policy(cf, redis, &text, policy);
    }

    if (ngx_strcmp(arg->data, "fallback=local") == 0) {
        redis->fallback = NGX_HTTP_LLM_REDIS_LOCAL;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(arg->data, "fallback=open") == 0) {
        redis->fallback = NGX_HTTP_LLM_REDIS_OPEN;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(arg->data, "fallback=closed") == 0) {
        redis->fallback = NGX_HTTP_LLM_REDIS_CLOSED;
        return NGX_CONF_OK;
    }

    return "timeout=, connect_timeout=, fallback=local, fallback=open, "
           "fallback=closed, prefix= or script=";
}


static char *
ngx_http_llm_redis_time(ngx_str_t *text, ngx_msec_t *ms)
{
    ngx_int_t  value;

    value = ngx_parse_time(text, 0);

    if (text->len == 0 || value == NGX_ERROR || value == 0) {
        return "a time above 0, such as 50ms or 1s";
    }

    *ms = value;

    return NGX_CONF_OK;
}


/* braces say what of a key tells its slot in a cluster */

static char *
ngx_http_llm_redis_prefix(ngx_http_llm_redis_t *redis, ngx_str_t *text)
{
    u_char  *last;

    last = text->data + text->len;

    if (text->len > NGX_HTTP_LLM_REDIS_PREFIX
        || ngx_strlchr(text->data, last, '{')
        || ngx_strlchr(text->data, last, '}'))
    {
        return "up to 128 bytes without braces";
    }

    redis->prefix = *text;

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_redis_policy(ngx_conf_t *cf, ngx_http_llm_redis_t *redis,
    ngx_str_t *path, ngx_str_t *policy)
{
    char        *rv;
    ssize_t      n;
    ngx_file_t   file;

    if (path->len == 0
        || ngx_conf_full_name(cf->cycle, path, 1) != NGX_OK)
    {
        return "a file with the policy";
    }

    ngx_memzero(&file, sizeof(ngx_file_t));

    file.name = *path;
    file.log = cf->log;

    file.fd = ngx_open_file(path->data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (file.fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_open_file_n " \"%V\" failed", path);
        return NGX_CONF_ERROR;
    }

    rv = "a file with the policy, of 1 to 65536 bytes";
    n = NGX_ERROR;

    policy->data = ngx_pnalloc(cf->pool, NGX_HTTP_LLM_REDIS_POLICY_BYTES + 1);

    if (policy->data) {
        n = ngx_read_file(&file, policy->data,
                          NGX_HTTP_LLM_REDIS_POLICY_BYTES + 1, 0);
    }

    if (n > 0 && n <= NGX_HTTP_LLM_REDIS_POLICY_BYTES) {
        policy->len = n;
        redis->policy = 1;
        rv = NGX_CONF_OK;
    }

    (void) ngx_close_file(file.fd);

    return rv;
}


ngx_str_t *
ngx_http_llm_redis_name(ngx_http_llm_redis_t *redis)
{
    return &redis->name;
}


ngx_http_llm_redis_fallback_e
ngx_http_llm_redis_fallback(const ngx_http_llm_redis_t *redis)
{
    return redis->fallback;
}


ngx_uint_t
ngx_http_llm_redis_has_policy(const ngx_http_llm_redis_t *redis)
{
    return redis->policy;
}


ngx_msec_t
ngx_http_llm_redis_timeout_ms(const ngx_http_llm_redis_t *redis)
{
    return redis->timeout_ms;
}
