
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#define _GNU_SOURCE

#include <math.h>
#include <string.h>

#include "json.h"
#include "load.h"


/*
 * What an event is, by a search for its few keys: a key in quotes and a colon
 * cannot stand inside of a JSON string, where the quotes are escaped.  Only
 * events with usage are parsed.
 */

typedef struct {
    const char       *name;
    const char       *path;             /* of an URL without one */
    const char       *content[5];       /* strings or objects, not empty */
    int             (*event)(const char *name, str_t data);
} load_dialect_t;


static int load_openai_event(const char *name, str_t data);
static int load_anthropic_event(const char *name, str_t data);
static int load_responses_event(const char *name, str_t data);
static int load_ollama_event(const char *name, str_t data);
static int load_gemini_event(const char *name, str_t data);
static int load_has_content(str_t data);
static int load_is_type(const char *name, str_t data, const char *type);
static int load_has(str_t data, const char *key, const char *value);
static const char *load_value(str_t data, const char *key);
static int load_usage_object(yajl_val v, load_usage_t *usage);
static int load_usage_number(yajl_val v, const char *key, double *field);


static const load_dialect_t  load_dialects[] = {

    { "openai", "/v1/chat/completions",
      { "\"content\"", "\"text\"", "\"arguments\"", "\"reasoning_content\"",
        NULL },
      load_openai_event },

    { "anthropic", "/v1/messages",
      { "\"text\"", "\"partial_json\"", "\"thinking\"", NULL, NULL },
      load_anthropic_event },

    { "responses", "/v1/responses",
      { "\"delta\"", NULL, NULL, NULL, NULL },
      load_responses_event },

    { "ollama", "/api/chat",
      { "\"content\"", "\"response\"", "\"thinking\"", "\"tool_calls\"",
        NULL },
      load_ollama_event },

    { "gemini", "/v1beta/models/sim:streamGenerateContent?alt=sse",
      { "\"text\"", "\"functionCall\"", NULL, NULL, NULL },
      load_gemini_event },

    { NULL, NULL, { NULL, NULL, NULL, NULL, NULL }, NULL }
};


int
load_dialect_find(const char *name, load_dialect_e *dialect)
{
    int  i;

    for (i = 0; load_dialects[i].name != NULL; i++) {

        if (strcmp(load_dialects[i].name, name) == 0) {
            *dialect = (load_dialect_e) i;
            return 0;
        }
    }

    return -1;
}


const char *
load_dialect_path(load_dialect_e dialect)
{
    return load_dialects[dialect].path;
}


int
load_dialect_event(const char *name, str_t data)
{
    if (data.len == 0) {
        return 0;
    }

    return load_dialects[load_conf.dialect].event(name, data);
}


static int
load_openai_event(const char *name, str_t data)
{
    int  is;

    if (str_eq(data, "[DONE]")) {
        return LOAD_IS_END;
    }

    is = load_has_content(data) ? LOAD_IS_CONTENT : 0;

    if (strcmp(name, "error") == 0 || load_has(data, "\"error\"", "{\"")) {
        is |= LOAD_IS_ERROR;
    }

    if (load_has(data, "\"usage\"", "{")) {
        is |= LOAD_IS_USAGE;
    }

    return is;
}


static int
load_anthropic_event(const char *name, str_t data)
{
    if (load_is_type(name, data, "content_block_delta")) {
        return load_has_content(data) ? LOAD_IS_CONTENT : 0;
    }

    if (load_is_type(name, data, "message_start")
        || load_is_type(name, data, "message_delta"))
    {
        return LOAD_IS_USAGE;
    }

    if (load_is_type(name, data, "message_stop")) {
        return LOAD_IS_END;
    }

    return load_is_type(name, data, "error") ? LOAD_IS_ERROR : 0;
}


static int
load_responses_event(const char *name, str_t data)
{
    if (load_is_type(name, data, "response.completed")
        || load_is_type(name, data, "response.incomplete"))
    {
        return LOAD_IS_END|LOAD_IS_USAGE;
    }

    if (load_is_type(name, data, "response.failed")
        || load_is_type(name, data, "error"))
    {
        return LOAD_IS_ERROR;
    }

    return load_has_content(data) ? LOAD_IS_CONTENT : 0;
}


static int
load_ollama_event(const char *name, str_t data)
{
    int  is;

    (void) name;

    if (load_has(data, "\"error\"", "\"{")) {
        return LOAD_IS_ERROR;
    }

    is = load_has_content(data) ? LOAD_IS_CONTENT : 0;

    return load_has(data, "\"done\"", "t") ? is|LOAD_IS_END|LOAD_IS_USAGE : is;
}


static int
load_gemini_event(const char *name, str_t data)
{
    int  is;

    if (strcmp(name, "error") == 0 || load_has(data, "\"error\"", "{")) {
        return LOAD_IS_ERROR;
    }

    is = load_has_content(data) ? LOAD_IS_CONTENT : 0;

    return load_has(data, "\"finishReason\"", "\"")
           ? is|LOAD_IS_END|LOAD_IS_USAGE : is;
}


/* any of the dialect's keys with a string or something else not empty */

static int
load_has_content(str_t data)
{
    int          i;
    const char  *p, *key;

    for (i = 0; i < 4; i++) {

        key = load_dialects[load_conf.dialect].content[i];
        if (key == NULL) {
            return 0;
        }

        p = load_value(data, key);

        if (p != NULL
            && ((p[0] == '"' && p[1] != '"') || (p[0] == '{' && p[1] != '}')
                || (p[0] == '[' && p[1] != ']')))
        {
            return 1;
        }
    }

    return 0;
}


/* the event's name says it, or else its JSON */

static int
load_is_type(const char *name, str_t data, const char *type)
{
    size_t       n;
    const char  *p;

    if (name[0] != '\0') {
        return strcmp(name, type) == 0;
    }

    p = load_value(data, "\"type\"");
    n = strlen(type);

    return p != NULL && p[0] == '"'
           && (size_t) (data.data + data.len - p) > n + 1
           && memcmp(p + 1, type, n) == 0 && p[n + 1] == '"';
}


/* the key's value begins with one of these characters */

static int
load_has(str_t data, const char *key, const char *first)
{
    const char  *p;

    p = load_value(data, key);

    return p != NULL && *p != '\0' && strchr(first, *p) != NULL;
}


/* the value of the first such key; data is terminated */

static const char *
load_value(str_t data, const char *key)
{
    size_t       n;
    const char  *p, *end;

    n = strlen(key);
    p = data.data;
    end = data.data + data.len;

    while ((p = memmem(p, end - p, key, n)) != NULL) {

        for (p += n; *p == ' '; p++) {
            /* void */
        }

        if (*p == ':') {
            for (p++; *p == ' '; p++) {
                /* void */
            }

            return p;
        }
    }

    return NULL;
}


/* an answer that is one JSON document */

int
load_dialect_answer(const char *text, load_usage_t *usage)
{
    int       is;
    yajl_val  v, error;

    v = json_parse(text);

    if (v == NULL) {
        return 0;
    }

    error = json_get(v, "error");

    if (!YAJL_IS_OBJECT(v)) {
        is = 0;

    } else if (error != NULL && !YAJL_IS_NULL(error)) {
        is = LOAD_IS_ERROR;

    } else {
        is = LOAD_IS_END;
    }

    yajl_tree_free(v);

    if (is == LOAD_IS_END) {
        load_dialect_usage(text, usage);
    }

    return is;
}


/* later reports replace earlier ones, number by number */

int
load_dialect_usage(const char *text, load_usage_t *usage)
{
    int       found;
    yajl_val  v;

    v = json_parse(text);

    if (v == NULL) {
        return 0;
    }

    found = load_usage_object(json_get(v, "usage"), usage)
            | load_usage_object(json_get(json_get(v, "message"), "usage"),
                                usage)
            | load_usage_object(json_get(json_get(v, "response"), "usage"),
                                usage)
            | load_usage_object(json_get(v, "usageMetadata"), usage)
            | load_usage_object(v, usage);

    yajl_tree_free(v);

    return found;
}


/* prompt includes what was cached; Anthropic's input_tokens do not */

static int
load_usage_object(yajl_val v, load_usage_t *usage)
{
    int     found;
    double  read, created;

    if (!YAJL_IS_OBJECT(v)) {
        return 0;
    }

    found = load_usage_number(v, "prompt_tokens", &usage->prompt)
            | load_usage_number(v, "input_tokens", &usage->prompt)
            | load_usage_number(v, "promptTokenCount", &usage->prompt)
            | load_usage_number(v, "prompt_eval_count", &usage->prompt)
            | load_usage_number(v, "completion_tokens", &usage->completion)
            | load_usage_number(v, "output_tokens", &usage->completion)
            | load_usage_number(v, "candidatesTokenCount",
                                &usage->completion)
            | load_usage_number(v, "eval_count", &usage->completion);

    load_usage_number(json_get(v, "prompt_tokens_details"), "cached_tokens",
                      &usage->cached);
    load_usage_number(json_get(v, "input_tokens_details"), "cached_tokens",
                      &usage->cached);
    load_usage_number(v, "cachedContentTokenCount", &usage->cached);

    read = created = -1;

    load_usage_number(v, "cache_creation_input_tokens", &created);

    if (load_usage_number(v, "cache_read_input_tokens", &read)
        && json_get(v, "input_tokens") != NULL)
    {
        usage->cached = read;
        usage->prompt += read + fmax(created, 0);
    }

    return found;
}


static int
load_usage_number(yajl_val v, const char *key, double *field)
{
    double  n;

    n = json_number(json_get(v, key), -1);

    if (n < 0) {
        return 0;
    }

    *field = n;

    return 1;
}
