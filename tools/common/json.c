
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stdlib.h>
#include <string.h>

#include "json.h"


yajl_val
json_parse(const char *text)
{
    char  error[64];

    return yajl_tree_parse(text, error, sizeof(error));
}


yajl_val
json_get(yajl_val v, const char *key)
{
    size_t  i;

    if (!YAJL_IS_OBJECT(v)) {
        return NULL;
    }

    for (i = 0; i < v->u.object.len; i++) {
        if (strcmp(v->u.object.keys[i], key) == 0) {
            return v->u.object.values[i];
        }
    }

    return NULL;
}


str_t
json_text(yajl_val v)
{
    if (!YAJL_IS_STRING(v)) {
        return (str_t) { NULL, 0 };
    }

    return (str_t) { v->u.string, strlen(v->u.string) };
}


int
json_true(yajl_val v)
{
    return YAJL_IS_TRUE(v);
}


double
json_number(yajl_val v, double missing)
{
    if (!YAJL_IS_NUMBER(v)) {
        return missing;
    }

    return strtod(v->u.number.r, NULL);
}
