
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#ifndef TOOLS_JSON_H
#define TOOLS_JSON_H


#include <yajl/yajl_tree.h>

#include "buf.h"


/*
 * Reading of a parsed document.  A value that is missing or of another type
 * is NULL, an empty slice, 0 or the default: never an error.
 */

/* the text must be terminated; NULL if it is not JSON */
yajl_val json_parse(const char *text);

yajl_val json_get(yajl_val v, const char *key);
str_t json_text(yajl_val v);
int json_true(yajl_val v);
double json_number(yajl_val v, double missing);


#endif /* TOOLS_JSON_H */
