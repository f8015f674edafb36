
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_api.h"


/*
 * A dialect's first one is what its unknown paths get.  Content is told by
 * the first that claims it: ERNIE's answers call themselves chat.completion.
 */

static const ngx_llm_api_t *const  ngx_llm_apis[] = {
    &ngx_llm_api_ernie_chat,
    &ngx_llm_api_openai_chat,
    &ngx_llm_api_openai_completions,
    &ngx_llm_api_openai_responses,
    &ngx_llm_api_openai_embeddings,
    &ngx_llm_api_anthropic_messages,
    &ngx_llm_api_gemini_generate,
    &ngx_llm_api_cohere_chat,
    &ngx_llm_api_ollama_chat,
    &ngx_llm_api_ollama_generate,
    &ngx_llm_api_ollama_embed
};

#define NGX_LLM_APIS  (sizeof(ngx_llm_apis) / sizeof(ngx_llm_apis[0]))


/* by ngx_llm_dialect_e */

static const char *const  ngx_llm_dialect_names[] = {
    "auto",
    "openai",
    "anthropic",
    "gemini",
    "ollama",
    "ernie",
    "cohere"
};


typedef struct {
    /* a row's id is its place here */
    const char            *words[NGX_LLM_JSON_MAX_ROWS];
    unsigned char          apis[NGX_LLM_JSON_MAX_ROWS];

    /* the first API so far that tells itself */
    size_t                 found;
} ngx_llm_dialect_tell_t;


static ngx_llm_str_t ngx_llm_dialect_path(ngx_llm_str_t path);
static size_t ngx_llm_dialect_last(ngx_llm_str_t path);
static const ngx_llm_path_t *ngx_llm_dialect_match(const ngx_llm_api_t *api,
    ngx_llm_str_t path);
static ngx_llm_rc_e ngx_llm_dialect_tell(void *data, unsigned id,
    const ngx_llm_json_value_t *value, const char **reason);


const ngx_llm_api_t *
ngx_llm_api_by_path(ngx_llm_dialect_e dialect, ngx_llm_str_t path)
{
    size_t                 i, len, longest;
    const ngx_llm_api_t   *api, *found;
    const ngx_llm_path_t  *match;

    found = NULL;
    longest = 0;
    path = ngx_llm_dialect_path(path);

    for (i = 0; i < NGX_LLM_APIS; i++) {
        api = ngx_llm_apis[i];

        if (dialect != NGX_LLM_DIALECT_AUTO) {

            if (api->dialect != dialect) {
                continue;
            }

            if (found == NULL) {
                found = api;
            }
        }

        /* ".../chat/completions" ends with "/completions", too */

        match = ngx_llm_dialect_match(api, path);
        len = match ? strlen(match->path) : 0;

        if (len > longest) {
            longest = len;
            found = api;
        }
    }

    return found;
}


const ngx_llm_api_t *
ngx_llm_api_by_content(ngx_llm_str_t data, ngx_llm_scratch_t *scratch)
{
    size_t                   i, n;
    const char              *reason;
    const ngx_llm_tell_t    *tell;
    ngx_llm_json_row_t       rows[NGX_LLM_JSON_MAX_ROWS];
    ngx_llm_json_table_t     table;
    ngx_llm_dialect_tell_t   ctx;

    n = 0;

    for (i = 0; i < NGX_LLM_APIS; i++) {

        for (tell = ngx_llm_apis[i]->tells;
             tell->path != NULL && n < NGX_LLM_JSON_MAX_ROWS;
             tell++)
        {
            rows[n].path = tell->path;
            rows[n].id = n;
            ctx.words[n] = tell->word;
            ctx.apis[n] = i;
            n++;
        }
    }

    table.rows = rows;
    table.nrows = n;
    ctx.found = NGX_LLM_APIS;

    if (ngx_llm_json_parse_answer(&table, data.data, data.len, scratch,
                                  ngx_llm_dialect_tell, &ctx, &reason)
        != NGX_LLM_OK)
    {
        return NULL;
    }

    return (ctx.found < NGX_LLM_APIS) ? ngx_llm_apis[ctx.found] : NULL;
}


static ngx_llm_rc_e
ngx_llm_dialect_tell(void *data, unsigned id,
    const ngx_llm_json_value_t *value, const char **reason)
{
    size_t                   len;
    const char              *word;
    ngx_llm_dialect_tell_t  *ctx;

    ctx = data;
    word = ctx->words[id];

    if (ctx->apis[id] >= ctx->found || value->type == NGX_LLM_JSON_NULL) {
        return NGX_LLM_OK;
    }

    if (word != NULL) {
        len = strlen(word);

        if (value->type != NGX_LLM_JSON_STRING) {
            return NGX_LLM_OK;
        }

        if (word[len - 1] == '*') {
            len--;

            if (value->text.len < len) {
                return NGX_LLM_OK;
            }

        } else if (value->text.len != len) {
            return NGX_LLM_OK;
        }

        if (memcmp(value->text.data, word, len) != 0) {
            return NGX_LLM_OK;
        }
    }

    ctx->found = ctx->apis[id];

    return NGX_LLM_OK;
}


const char *
ngx_llm_api_dialect(const ngx_llm_api_t *api)
{
    return ngx_llm_dialect_names[api ? api->dialect : NGX_LLM_DIALECT_AUTO];
}


const char *
ngx_llm_api_name(const ngx_llm_api_t *api)
{
    return api ? api->name : "";
}


ngx_llm_framing_e
ngx_llm_api_framing(const ngx_llm_api_t *api)
{
    return api ? api->framing : NGX_LLM_FRAME_SSE;
}


int
ngx_llm_api_asks_usage(const ngx_llm_api_t *api)
{
    return api ? api->asks_usage : 0;
}


int
ngx_llm_api_prompt_only(const ngx_llm_api_t *api)
{
    return api ? api->prompt_only : 0;
}


int
ngx_llm_api_path_streams(const ngx_llm_api_t *api, ngx_llm_str_t path)
{
    const ngx_llm_path_t  *match;

    if (api == NULL) {
        return -1;
    }

    match = ngx_llm_dialect_match(api, ngx_llm_dialect_path(path));

    return match ? match->streams : -1;
}


ngx_llm_str_t
ngx_llm_api_path_model(const ngx_llm_api_t *api, ngx_llm_str_t path)
{
    size_t         last;
    ngx_llm_str_t  model;

    model.data = path.data;
    model.len = 0;

    if (api == NULL || api->path_model == NGX_LLM_PATH_MODEL_NONE) {
        return model;
    }

    path = ngx_llm_dialect_path(path);

    if (ngx_llm_dialect_match(api, path) == NULL) {
        return model;
    }

    last = ngx_llm_dialect_last(path);

    model.data = path.data + last;
    model.len = path.len - last;

    if (api->path_model == NGX_LLM_PATH_MODEL_METHOD) {

        do {
            model.len--;
        } while (model.len != 0 && model.data[model.len] != ':');
    }

    return model;
}


/* without query and final slashes */

static ngx_llm_str_t
ngx_llm_dialect_path(ngx_llm_str_t path)
{
    const unsigned char  *query;

    query = path.len ? memchr(path.data, '?', path.len) : NULL;

    if (query != NULL) {
        path.len = query - path.data;
    }

    while (path.len != 0 && path.data[path.len - 1] == '/') {
        path.len--;
    }

    return path;
}


/* where the last segment starts */

static size_t
ngx_llm_dialect_last(ngx_llm_str_t path)
{
    size_t  n;

    for (n = path.len; n != 0 && path.data[n - 1] != '/'; n--) {
        /* void */
    }

    return n;
}


static const ngx_llm_path_t *
ngx_llm_dialect_match(const ngx_llm_api_t *api, ngx_llm_str_t path)
{
    size_t                 len, tail;
    const ngx_llm_path_t  *p;

    for (p = api->paths; p->path != NULL; p++) {
        len = strlen(p->path);
        tail = path.len;

        if (p->path[len - 1] == '*') {
            len--;
            tail = ngx_llm_dialect_last(path);

            if (tail == path.len) {
                continue;
            }
        }

        if (tail >= len
            && memcmp(path.data + tail - len, p->path, len) == 0)
        {
            return p;
        }
    }

    return NULL;
}


int
ngx_llm_word_is(const char *word, ngx_llm_str_t text)
{
    size_t  len;

    len = strlen(word);

    return text.len == len && memcmp(text.data, word, len) == 0;
}
