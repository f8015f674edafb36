
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stdlib.h>
#include <string.h>

#include "ngx_llm_hash.h"
#include "ngx_llm_shape.h"


static void ngx_llm_shape_take(ngx_llm_shape_t *shape,
    const unsigned char *event, const ngx_llm_hole_t *holes, size_t nholes,
    size_t len);
static ngx_llm_shape_t *ngx_llm_shape_find(ngx_llm_shapes_t *shapes,
    const ngx_llm_shape_t *like, size_t bytes);


void
ngx_llm_shape_learn(ngx_llm_shape_t **shape, ngx_llm_shapes_t *shapes,
    const unsigned char *event, const ngx_llm_hole_t *holes, size_t nholes,
    size_t len)
{
    size_t            i, bytes;
    ngx_llm_shape_t  *found;

    union {
        ngx_llm_shape_t  shape;
        unsigned char    room[sizeof(ngx_llm_shape_t) + NGX_LLM_SHAPE_BYTES];
    } like;

    /* an LF in front belongs to the CR that ended what was before */

    if (nholes == 0 || nholes > NGX_LLM_SHAPE_HOLES || event[0] == '\n') {
        return;
    }

    bytes = len;

    for (i = 0; i < nholes; i++) {
        bytes -= holes[i].end - holes[i].start;
    }

    if (bytes > NGX_LLM_SHAPE_BYTES) {
        return;
    }

    ngx_llm_shape_take(&like.shape, event, holes, nholes, len);

    found = ngx_llm_shape_find(shapes, &like.shape, bytes);

    if (found != NULL) {
        found->users++;

        ngx_llm_shape_leave(shape);
        *shape = found;
    }
}


void
ngx_llm_shape_leave(ngx_llm_shape_t **shape)
{
    ngx_llm_shape_t  *left;

    left = *shape;
    *shape = NULL;

    if (left == NULL || --left->users != 0) {
        return;
    }

    *left->link = left->next;

    if (left->next != NULL) {
        left->next->link = left->link;
    }

    free(left);
}


/* all but its links */

static void
ngx_llm_shape_take(ngx_llm_shape_t *shape, const unsigned char *event,
    const ngx_llm_hole_t *holes, size_t nholes, size_t len)
{
    size_t          i, n, start;
    unsigned char  *p;

    /* compared as a whole, what is not used of it included */

    memset(shape, 0, offsetof(ngx_llm_shape_t, bytes));

    p = shape->bytes;
    start = 0;

    for (i = 0; i < nholes; i++) {
        n = holes[i].start - start;

        memcpy(p, event + start, n);
        p += n;

        shape->pieces[i] = n;
        shape->kinds[i] = holes[i].kind;

        start = holes[i].end;
    }

    memcpy(p, event + start, len - start);

    shape->pieces[nholes] = len - start;
    shape->nholes = nholes;
    shape->ends_with_lf = (event[len - 1] == '\n');
}


/*
 * The one that is there already, or a new one; NULL: no memory.  What is
 * compared begins with nholes.
 */

static ngx_llm_shape_t *
ngx_llm_shape_find(ngx_llm_shapes_t *shapes, const ngx_llm_shape_t *like,
    size_t bytes)
{
    size_t                 len, skip;
    uint64_t               hash;
    ngx_llm_shape_t       *shape, **bucket;
    const unsigned char   *key;

    skip = offsetof(ngx_llm_shape_t, nholes);
    len = offsetof(ngx_llm_shape_t, bytes) - skip + bytes;
    key = (const unsigned char *) like + skip;

    hash = ngx_llm_hash(key, len, 0);
    bucket = &shapes->buckets[hash % NGX_LLM_SHAPE_BUCKETS];

    for (shape = *bucket; shape != NULL; shape = shape->next) {

        if (shape->hash == hash
            && memcmp((unsigned char *) shape + skip, key, len) == 0)
        {
            return shape;
        }
    }

    shape = malloc(offsetof(ngx_llm_shape_t, bytes) + bytes);
    if (shape == NULL) {
        return NULL;
    }

    memcpy((unsigned char *) shape + skip, key, len);

    shape->hash = hash;
    shape->users = 0;
    shape->next = *bucket;
    shape->link = bucket;

    if (*bucket != NULL) {
        (*bucket)->link = &shape->next;
    }

    *bucket = shape;

    return shape;
}
