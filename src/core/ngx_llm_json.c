
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include <yajl/yajl_parse.h>

#include "ngx_llm_json.h"
#include "ngx_llm_memory.h"
#include "ngx_llm_utf8.h"


/* rows are sorted into so many groups by the first byte of their next key */
#define NGX_LLM_JSON_GROUPS  16

#define ngx_llm_json_group(ch)  ((unsigned char) (ch) % NGX_LLM_JSON_GROUPS)


/* one open container; only the entries of at[] whose row is live are set */

typedef struct {
    /* rows that may match a value in this container */
    uint64_t              live;

    /* those of them that reached their "**": they match whatever comes */
    uint64_t              deep;

    /* rows that match the container itself: they are told of its end */
    uint64_t              hit;

    /* those whose next key is "*", and the others in groups; no array */
    uint64_t              star;
    uint64_t              groups[NGX_LLM_JSON_GROUPS];

    unsigned              array:1;

    /* offset in each row's path of what a value in here has to match */
    unsigned char         at[NGX_LLM_JSON_MAX_ROWS];
} ngx_llm_json_level_t;


typedef struct {
    const ngx_llm_json_row_t  *rows;
    ngx_llm_json_pt            handler;
    void                      *data;
    const char               **reason;

    const unsigned char       *doc;
    size_t                     len;
    yajl_handle                yajl;
    ngx_llm_rc_e               rc;

    /* all input was given; only a number at the very end can still come */
    unsigned                   finishing:1;

    /* rows that match up to the value that comes next, and how far */
    uint64_t                   live;
    uint64_t                   deep;
    unsigned char              at[NGX_LLM_JSON_MAX_ROWS];

    size_t                     depth;
    ngx_llm_json_level_t       levels[NGX_LLM_MAX_DEPTH];
    ngx_llm_memory_t           memory;
} ngx_llm_json_walk_t;


static int ngx_llm_json_null(void *ctx);
static int ngx_llm_json_boolean(void *ctx, int value);
static int ngx_llm_json_number(void *ctx, const char *p, size_t len);
static int ngx_llm_json_string(void *ctx, const unsigned char *p, size_t len);
static int ngx_llm_json_key(void *ctx, const unsigned char *p, size_t len);
static int ngx_llm_json_start_map(void *ctx);
static int ngx_llm_json_end_map(void *ctx);
static int ngx_llm_json_start_array(void *ctx);
static int ngx_llm_json_end_array(void *ctx);
static ngx_llm_rc_e ngx_llm_json_run(ngx_llm_json_walk_t *walk);
static int ngx_llm_json_open(ngx_llm_json_walk_t *walk, unsigned array);
static int ngx_llm_json_close(ngx_llm_json_walk_t *walk,
    ngx_llm_json_type_e type);
static int ngx_llm_json_scalar(ngx_llm_json_walk_t *walk,
    ngx_llm_json_type_e type, const unsigned char *p, size_t len);
static int ngx_llm_json_tell(ngx_llm_json_walk_t *walk, uint64_t hit,
    ngx_llm_json_type_e type, const unsigned char *p, size_t len);
static uint64_t ngx_llm_json_hits(const ngx_llm_json_walk_t *walk);
static void ngx_llm_json_enter(ngx_llm_json_walk_t *walk, unsigned row,
    ngx_llm_json_level_t *level);
static void ngx_llm_json_expect(ngx_llm_json_walk_t *walk);
static int ngx_llm_json_plain(const unsigned char *key, size_t len);


static const yajl_callbacks  ngx_llm_json_callbacks = {
    ngx_llm_json_null,
    ngx_llm_json_boolean,
    NULL,
    NULL,
    ngx_llm_json_number,
    ngx_llm_json_string,
    ngx_llm_json_start_map,
    ngx_llm_json_key,
    ngx_llm_json_end_map,
    ngx_llm_json_start_array,
    ngx_llm_json_end_array
};


ngx_llm_rc_e
ngx_llm_json_parse(const ngx_llm_json_table_t *table,
    const unsigned char *doc, size_t len, ngx_llm_scratch_t *scratch,
    ngx_llm_json_pt handler, void *data, const char **reason)
{
    /* yajl lets overlong forms and surrogates pass */

    if (!ngx_llm_utf8_valid(doc, len)) {
        *reason = "invalid UTF-8";
        return NGX_LLM_INVALID;
    }

    return ngx_llm_json_parse_answer(table, doc, len, scratch, handler, data,
                                     reason);
}


ngx_llm_rc_e
ngx_llm_json_parse_answer(const ngx_llm_json_table_t *table,
    const unsigned char *doc, size_t len, ngx_llm_scratch_t *scratch,
    ngx_llm_json_pt handler, void *data, const char **reason)
{
    ngx_llm_rc_e          rc;
    ngx_llm_json_walk_t   walk;

    *reason = NULL;

    if (len == 0) {
        *reason = "empty document";
        return NGX_LLM_INVALID;
    }

    walk.rows = table->rows;
    walk.handler = handler;
    walk.data = data;
    walk.reason = reason;
    walk.doc = doc;
    walk.len = len;
    walk.yajl = NULL;
    walk.rc = NGX_LLM_OK;
    walk.finishing = 0;
    walk.depth = 0;
    walk.live = table->nrows < 64 ? ((uint64_t) 1 << table->nrows) - 1
                                  : UINT64_MAX;
    walk.deep = 0;
    memset(walk.at, 0, sizeof(walk.at));

    ngx_llm_memory_init(&walk.memory, scratch);

    rc = ngx_llm_json_run(&walk);

    ngx_llm_memory_done(&walk.memory);

    return rc;
}


/*
 * yajl does not look at what its allocator returns, so an allocation that
 * fails comes back here by longjmp(); no local variable lives across it.
 */

static ngx_llm_rc_e
ngx_llm_json_run(ngx_llm_json_walk_t *walk)
{
    yajl_status        status;
    yajl_alloc_funcs   funcs;

    if (setjmp(walk->memory.failed) != 0) {
        *walk->reason = "no memory";
        return NGX_LLM_NO_MEMORY;
    }

    funcs.malloc = ngx_llm_memory_malloc;
    funcs.realloc = ngx_llm_memory_realloc;
    funcs.free = ngx_llm_memory_free;
    funcs.ctx = &walk->memory;

    walk->yajl = yajl_alloc(&ngx_llm_json_callbacks, &funcs, walk);

    /* of a request it is done above, and stricter */

    yajl_config(walk->yajl, yajl_dont_validate_strings, 1);

    status = yajl_parse(walk->yajl, walk->doc, walk->len);

    if (status == yajl_status_ok) {
        walk->finishing = 1;
        status = yajl_complete_parse(walk->yajl);
    }

    if (walk->rc != NGX_LLM_OK) {
        return walk->rc;
    }

    if (status != yajl_status_ok) {
        *walk->reason = "JSON syntax error";
        return NGX_LLM_INVALID;
    }

    return NGX_LLM_OK;
}


static int
ngx_llm_json_null(void *ctx)
{
    return ngx_llm_json_scalar(ctx, NGX_LLM_JSON_NULL, NULL, 0);
}


static int
ngx_llm_json_boolean(void *ctx, int value)
{
    return ngx_llm_json_scalar(ctx,
                               value ? NGX_LLM_JSON_TRUE : NGX_LLM_JSON_FALSE,
                               NULL, 0);
}


static int
ngx_llm_json_number(void *ctx, const char *p, size_t len)
{
    const unsigned char  *text;
    ngx_llm_json_walk_t  *walk;

    walk = ctx;

    /* a number at the very end is in yajl's buffer: it might have gone on */

    text = walk->finishing ? walk->doc + walk->len - len
                           : (const unsigned char *) p;

    return ngx_llm_json_scalar(walk, NGX_LLM_JSON_NUMBER, text, len);
}


static int
ngx_llm_json_string(void *ctx, const unsigned char *p, size_t len)
{
    return ngx_llm_json_scalar(ctx, NGX_LLM_JSON_STRING, p, len);
}


static int
ngx_llm_json_key(void *ctx, const unsigned char *p, size_t len)
{
    unsigned               at, row;
    uint64_t               mask;
    const char            *rest;
    ngx_llm_json_walk_t   *walk;
    ngx_llm_json_level_t  *level;

    walk = ctx;
    level = &walk->levels[walk->depth - 1];

    walk->live = level->deep|level->star;
    walk->deep = level->deep;

    for (mask = level->star; mask; mask &= mask - 1) {
        row = __builtin_ctzll(mask);
        walk->at[row] = level->at[row] + 1;
    }

    mask = len ? level->groups[ngx_llm_json_group(p[0])] : 0;

    if (mask == 0 || !ngx_llm_json_plain(p, len)) {
        return 1;
    }

    do {
        row = __builtin_ctzll(mask);
        mask &= mask - 1;

        at = level->at[row];
        rest = walk->rows[row].path + at;

        if (strncmp(rest, (const char *) p, len) == 0
            && (rest[len] == '\0' || rest[len] == '.' || rest[len] == '['))
        {
            walk->live |= (uint64_t) 1 << row;
            walk->at[row] = at + len;
        }

    } while (mask);

    return 1;
}


static int
ngx_llm_json_start_map(void *ctx)
{
    return ngx_llm_json_open(ctx, 0);
}


static int
ngx_llm_json_end_map(void *ctx)
{
    return ngx_llm_json_close(ctx, NGX_LLM_JSON_OBJECT_END);
}


static int
ngx_llm_json_start_array(void *ctx)
{
    return ngx_llm_json_open(ctx, 1);
}


static int
ngx_llm_json_end_array(void *ctx)
{
    return ngx_llm_json_close(ctx, NGX_LLM_JSON_ARRAY_END);
}


static int
ngx_llm_json_open(ngx_llm_json_walk_t *walk, unsigned array)
{
    uint64_t               mask;
    ngx_llm_json_level_t  *level;

    if (walk->depth == NGX_LLM_MAX_DEPTH) {
        *walk->reason = "JSON nested too deep";
        walk->rc = NGX_LLM_TOO_LARGE;
        return 0;
    }

    level = &walk->levels[walk->depth];

    level->array = array;
    level->hit = walk->deep;
    level->live = walk->deep;
    level->deep = walk->deep;
    level->star = 0;

    if (!array) {
        memset(level->groups, 0, sizeof(level->groups));
    }

    for (mask = walk->live & ~walk->deep; mask; mask &= mask - 1) {
        ngx_llm_json_enter(walk, __builtin_ctzll(mask), level);
    }

    walk->depth++;

    if (!ngx_llm_json_tell(walk, level->hit,
                           array ? NGX_LLM_JSON_ARRAY : NGX_LLM_JSON_OBJECT,
                           NULL, 0))
    {
        return 0;
    }

    ngx_llm_json_expect(walk);

    return 1;
}


/* what a row that matches up to a container is in the container */

static void
ngx_llm_json_enter(ngx_llm_json_walk_t *walk, unsigned row,
    ngx_llm_json_level_t *level)
{
    uint64_t     bit;
    const char  *path, *rest;

    bit = (uint64_t) 1 << row;
    path = walk->rows[row].path;
    rest = path + walk->at[row];

    if (rest[0] == '\0') {
        level->hit |= bit;
        return;
    }

    if (rest[0] == '[') {

        if (level->array) {
            level->live |= bit;
            level->at[row] = rest - path + sizeof("[]") - 1;
        }

        return;
    }

    /* the document has no dot before its keys */

    rest += (rest[0] == '.');

    if (rest[0] == '*' && rest[1] == '*') {
        level->live |= bit;
        level->deep |= bit;
        return;
    }

    if (level->array) {
        return;
    }

    level->live |= bit;
    level->at[row] = rest - path;

    if (rest[0] == '*') {
        level->star |= bit;

    } else {
        level->groups[ngx_llm_json_group(rest[0])] |= bit;
    }
}


static int
ngx_llm_json_close(ngx_llm_json_walk_t *walk, ngx_llm_json_type_e type)
{
    uint64_t  hit;

    walk->depth--;
    hit = walk->levels[walk->depth].hit;

    if (!ngx_llm_json_tell(walk, hit, type, NULL, 0)) {
        return 0;
    }

    ngx_llm_json_expect(walk);

    return 1;
}


static int
ngx_llm_json_scalar(ngx_llm_json_walk_t *walk, ngx_llm_json_type_e type,
    const unsigned char *p, size_t len)
{
    /* nothing to restore: the next value of an array has the same rows */

    return ngx_llm_json_tell(walk, ngx_llm_json_hits(walk), type, p, len);
}


static int
ngx_llm_json_tell(ngx_llm_json_walk_t *walk, uint64_t hit,
    ngx_llm_json_type_e type, const unsigned char *p, size_t len)
{
    unsigned              row;
    ngx_llm_json_value_t  value;

    if (hit == 0) {
        return 1;
    }

    value.type = type;
    value.text.data = p;
    value.text.len = len;
    value.end = walk->finishing ? walk->len
                                : yajl_get_bytes_consumed(walk->yajl);

    do {
        row = __builtin_ctzll(hit);

        walk->rc = walk->handler(walk->data, walk->rows[row].id, &value,
                                 walk->reason);
        if (walk->rc != NGX_LLM_OK) {
            return 0;
        }

        hit &= hit - 1;

    } while (hit);

    return 1;
}


/* the rows that match a value without parts */

static uint64_t
ngx_llm_json_hits(const ngx_llm_json_walk_t *walk)
{
    unsigned  row;
    uint64_t  hit, mask;

    hit = walk->deep;

    for (mask = walk->live & ~walk->deep; mask; mask &= mask - 1) {
        row = __builtin_ctzll(mask);

        if (walk->rows[row].path[walk->at[row]] == '\0') {
            hit |= (uint64_t) 1 << row;
        }
    }

    return hit;
}


/* in an array the next value comes without a key */

static void
ngx_llm_json_expect(ngx_llm_json_walk_t *walk)
{
    unsigned               row;
    uint64_t               mask;
    ngx_llm_json_level_t  *level;

    if (walk->depth == 0) {
        return;
    }

    level = &walk->levels[walk->depth - 1];

    if (!level->array) {
        return;
    }

    walk->live = level->live;
    walk->deep = level->deep;

    for (mask = level->live & ~level->deep; mask; mask &= mask - 1) {
        row = __builtin_ctzll(mask);
        walk->at[row] = level->at[row];
    }
}


/* a "." or "[" of a key is none of a path, and a NUL is no path's end */

static int
ngx_llm_json_plain(const unsigned char *key, size_t len)
{
    size_t  i;

    for (i = 0; i < len; i++) {
        if (key[i] == '.' || key[i] == '[' || key[i] == '\0') {
            return 0;
        }
    }

    return 1;
}
