
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_api.h"
#include "ngx_llm_estimate.h"
#include "ngx_llm_hash.h"
#include "ngx_llm_request_keys.h"


/* what chat templates put around a message, and in front of the answer */
#define NGX_LLM_REQUEST_MESSAGE_TOKENS  4
#define NGX_LLM_REQUEST_ANSWER_TOKENS   3

/* ids of which a value may be an object or array, from its begin to its end */
#define NGX_LLM_REQUEST_SPANS  (NGX_LLM_REQ_ROLE - NGX_LLM_REQ_TEXT)


typedef struct {
    ngx_llm_request_t       *request;
    const unsigned char     *body;

    /* a bit for each deciding key that was there */
    uint32_t                 seen;

    /* of a list of prompts, each of which has its own choices */
    int64_t                  prompts;

    /* open objects and arrays of each id, and where the outermost began */
    uint32_t                 depths[NGX_LLM_REQUEST_SPANS];
    size_t                   starts[NGX_LLM_REQUEST_SPANS];

    /* the hash of the prefix so far, and whether it has anything in it */
    uint64_t                 hash;
    unsigned                 hashed:1;

    /* the first user turn is complete: messages are hashed no more */
    unsigned                 turned:1;

    /* the current message says that somebody else than the user says it */
    unsigned                 other:1;
} ngx_llm_request_walk_t;


static ngx_llm_rc_e ngx_llm_request_value(void *data, unsigned id,
    const ngx_llm_json_value_t *value, const char **reason);
static ngx_llm_rc_e ngx_llm_request_root(ngx_llm_request_walk_t *walk,
    const ngx_llm_json_value_t *value, const char **reason);
static void ngx_llm_request_message(ngx_llm_request_walk_t *walk,
    const ngx_llm_json_value_t *value);
static int ngx_llm_request_whole(ngx_llm_request_walk_t *walk, unsigned id,
    const ngx_llm_json_value_t *value, ngx_llm_str_t *whole);
static void ngx_llm_request_part(ngx_llm_request_t *request, unsigned id,
    ngx_llm_str_t part);
static void ngx_llm_request_prefix(ngx_llm_request_walk_t *walk, unsigned id,
    ngx_llm_str_t piece);


ngx_llm_rc_e
ngx_llm_request_parse(ngx_llm_request_t *request, const ngx_llm_api_t *api,
    const unsigned char *body, size_t len, ngx_llm_scratch_t *scratch,
    const char **reason)
{
    ngx_llm_rc_e            rc;
    ngx_llm_request_walk_t  walk;

    if (api == NULL) {
        api = &ngx_llm_api_any;
    }

    memset(request, 0, sizeof(ngx_llm_request_t));

    request->stream = api->default_stream;
    request->max_output = -1;
    request->n = 1;
    request->include_usage = -1;

    memset(&walk, 0, sizeof(ngx_llm_request_walk_t));

    walk.request = request;
    walk.body = body;

    rc = ngx_llm_json_parse(&api->request, body, len, scratch,
                            ngx_llm_request_value, &walk, reason);

    if (walk.prompts > 1) {
        request->n *= walk.prompts;

        if (request->n > NGX_LLM_MAX_TOKENS) {
            request->n = NGX_LLM_MAX_TOKENS;
        }
    }

    if (rc == NGX_LLM_OK && walk.hashed) {
        walk.hash = ngx_llm_hash(request->model, request->model_len,
                                 walk.hash);
        request->prefix_hash = walk.hash ? walk.hash : 1;
    }

    return rc;
}


static ngx_llm_rc_e
ngx_llm_request_value(void *data, unsigned id,
    const ngx_llm_json_value_t *value, const char **reason)
{
    ngx_llm_str_t            whole;
    ngx_llm_request_walk_t  *walk;

    walk = data;

    if (id == NGX_LLM_REQ_ROOT) {
        return ngx_llm_request_root(walk, value, reason);
    }

    if (id < NGX_LLM_REQ_DECIDING) {
        return ngx_llm_request_decide(walk->request, &walk->seen, id, value,
                                      reason);
    }

    if (id == NGX_LLM_REQ_MESSAGE) {
        ngx_llm_request_message(walk, value);
        return NGX_LLM_OK;
    }

    if (id == NGX_LLM_REQ_PROMPT) {
        walk->prompts += (value->type == NGX_LLM_JSON_STRING
                          || value->type == NGX_LLM_JSON_ARRAY);
        return NGX_LLM_OK;
    }

    if (id == NGX_LLM_REQ_TEXT && value->type == NGX_LLM_JSON_NUMBER) {
        walk->request->tokens++;
        return NGX_LLM_OK;
    }

    if (id == NGX_LLM_REQ_TEXT || id == NGX_LLM_REQ_ROLE) {

        if (value->type != NGX_LLM_JSON_STRING) {
            return NGX_LLM_OK;
        }

        whole = value->text;

    } else if (!ngx_llm_request_whole(walk, id, value, &whole)) {
        return NGX_LLM_OK;
    }

    ngx_llm_request_prefix(walk, id, whole);

    switch (id) {

    case NGX_LLM_REQ_TEXT:
        ngx_llm_text_add(&walk->request->text, whole.data, whole.len);
        break;

    case NGX_LLM_REQ_RAW:

        /* a string is told as text, where it is text */

        if (value->type != NGX_LLM_JSON_STRING) {
            ngx_llm_text_add(&walk->request->text, whole.data, whole.len);
        }

        break;

    case NGX_LLM_REQ_IMAGE:
    case NGX_LLM_REQ_AUDIO:
        ngx_llm_request_part(walk->request, id, whole);
        break;

    case NGX_LLM_REQ_ROLE:
        walk->other = (whole.len != sizeof("user") - 1
                       || memcmp(whole.data, "user", whole.len) != 0);
        break;
    }

    return NGX_LLM_OK;
}


static ngx_llm_rc_e
ngx_llm_request_root(ngx_llm_request_walk_t *walk,
    const ngx_llm_json_value_t *value, const char **reason)
{
    if (value->type == NGX_LLM_JSON_OBJECT) {
        return NGX_LLM_OK;
    }

    if (value->type == NGX_LLM_JSON_OBJECT_END) {
        walk->request->root_end = value->end;
        return NGX_LLM_OK;
    }

    *reason = "the request must be a JSON object";

    return NGX_LLM_INVALID;
}


/* a list of messages is told as well: its elements follow */

static void
ngx_llm_request_message(ngx_llm_request_walk_t *walk,
    const ngx_llm_json_value_t *value)
{
    ngx_llm_str_t  whole;

    if (value->type == NGX_LLM_JSON_STRING) {
        walk->request->messages++;
        ngx_llm_request_prefix(walk, NGX_LLM_REQ_MESSAGE, value->text);
        walk->turned = 1;
        return;
    }

    if (value->type == NGX_LLM_JSON_OBJECT) {
        walk->other = 0;
    }

    if ((value->type == NGX_LLM_JSON_OBJECT
         || value->type == NGX_LLM_JSON_OBJECT_END)
        && ngx_llm_request_whole(walk, NGX_LLM_REQ_MESSAGE, value, &whole))
    {
        walk->request->messages++;
        walk->turned |= !walk->other;
    }
}


/*
 * Whether the value is complete now: a string, or the end of an object or
 * array, whose raw bytes are whole then.
 */

static int
ngx_llm_request_whole(ngx_llm_request_walk_t *walk, unsigned id,
    const ngx_llm_json_value_t *value, ngx_llm_str_t *whole)
{
    id -= NGX_LLM_REQ_TEXT;

    switch (value->type) {

    case NGX_LLM_JSON_OBJECT:
    case NGX_LLM_JSON_ARRAY:

        if (walk->depths[id]++ == 0) {
            walk->starts[id] = value->end - 1;
        }

        return 0;

    case NGX_LLM_JSON_OBJECT_END:
    case NGX_LLM_JSON_ARRAY_END:

        if (--walk->depths[id] != 0) {
            return 0;
        }

        whole->data = walk->body + walk->starts[id];
        whole->len = value->end - walk->starts[id];

        return 1;

    case NGX_LLM_JSON_STRING:
        *whole = value->text;
        return walk->depths[id] == 0;

    case NGX_LLM_JSON_NULL:
    case NGX_LLM_JSON_FALSE:
    case NGX_LLM_JSON_TRUE:
    case NGX_LLM_JSON_NUMBER:
        break;
    }

    return 0;
}


/* {"mimeType":"audio/wav","data":..}: only a media type stands in quotes so */

static void
ngx_llm_request_part(ngx_llm_request_t *request, unsigned id,
    ngx_llm_str_t part)
{
    static const char     audio[] = "\"audio/";
    const unsigned char  *end, *p;

    end = part.data + part.len;

    if (id == NGX_LLM_REQ_IMAGE && part.len != 0 && part.data[0] == '{') {

        for (p = part.data; p != NULL; p = memchr(p, '"', end - p)) {

            if ((size_t) (end - p) < sizeof(audio) - 1) {
                break;
            }

            if (memcmp(p, audio, sizeof(audio) - 1) == 0) {
                id = NGX_LLM_REQ_AUDIO;
                break;
            }

            p++;
        }
    }

    if (id == NGX_LLM_REQ_AUDIO) {
        request->audios++;

    } else {
        request->images++;
    }
}


/*
 * Adds a piece to the prefix's hash: what stands in a message until the first
 * user turn is complete, what belongs to the prefix wherever it stands.
 */

static void
ngx_llm_request_prefix(ngx_llm_request_walk_t *walk, unsigned id,
    ngx_llm_str_t piece)
{
    uint32_t  inside;

    inside = walk->depths[NGX_LLM_REQ_MESSAGE - NGX_LLM_REQ_TEXT];

    if (id != NGX_LLM_REQ_PREFIX
        && (walk->turned || (inside == 0 && id != NGX_LLM_REQ_MESSAGE)))
    {
        return;
    }

    walk->hash = ngx_llm_hash(piece.data, piece.len, walk->hash + id);
    walk->hashed = 1;
}


ngx_llm_edit_t
ngx_llm_request_ask_usage(const ngx_llm_request_t *request,
    const unsigned char *body, size_t len)
{
    size_t          i;
    const char     *with;
    ngx_llm_edit_t  edit;

    if (request->include_usage == 1) {
        edit.start = len;
        edit.end = len;
        with = "";

    } else if (request->include_end != 0) {
        edit.end = request->include_end;
        edit.start = edit.end - (request->include_null ? sizeof("null") - 1
                                                       : sizeof("false") - 1);
        with = "true";

    } else if (request->options_null) {
        edit.end = request->options_end;
        edit.start = edit.end - (sizeof("null") - 1);
        with = "{\"include_usage\":true}";

    } else if (request->options_end != 0) {
        edit.end = request->options_end;
        edit.start = edit.end;

        for (i = edit.end; body[i] <= ' '; i++) { /* void */ }

        with = (body[i] == '}') ? "\"include_usage\":true"
                                : "\"include_usage\":true,";

    } else {
        edit.end = request->root_end - 1;
        edit.start = edit.end;

        for (i = edit.end - 1; body[i] <= ' '; i--) { /* void */ }

        with = (body[i] == '{') ? "\"stream_options\":{\"include_usage\":true}"
                                : ",\"stream_options\":"
                                  "{\"include_usage\":true}";
    }

    edit.with.data = (const unsigned char *) with;
    edit.with.len = strlen(with);

    return edit;
}


size_t
ngx_llm_request_edit(const ngx_llm_edit_t *edit, const unsigned char *body,
    size_t len, unsigned char *out)
{
    size_t  behind;

    behind = edit->start + edit->with.len;

    /* where out is the body, the rest of it is out of the way first */

    memmove(out + behind, body + edit->end, len - edit->end);
    memcpy(out + edit->start, edit->with.data, edit->with.len);

    if (out != body) {
        memcpy(out, body, edit->start);
    }

    return behind + len - edit->end;
}


int64_t
ngx_llm_request_part_tokens(const ngx_llm_request_t *request,
    const ngx_llm_media_t *media)
{
    int64_t  tokens;

    tokens = request->images * media->image
             + request->audios * media->audio
             + (int64_t) request->messages * NGX_LLM_REQUEST_MESSAGE_TOKENS
             + request->tokens;

    if (request->messages != 0) {
        tokens += NGX_LLM_REQUEST_ANSWER_TOKENS;
    }

    return tokens;
}
