
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Strict UTF-8 (Unicode, table 3-7): no overlong form, no surrogate, nothing
 * above U+10FFFF.
 */


#ifndef _NGX_LLM_UTF8_H_INCLUDED_
#define _NGX_LLM_UTF8_H_INCLUDED_


#include "ngx_llm.h"


/* whether all of p[0..len) is well formed; linear */

int ngx_llm_utf8_valid(const unsigned char *p, size_t len);

/* the bytes of the character at p, 0 when it is malformed; len > 0 */

size_t ngx_llm_utf8_char(const unsigned char *p, size_t len);


#endif /* _NGX_LLM_UTF8_H_INCLUDED_ */
