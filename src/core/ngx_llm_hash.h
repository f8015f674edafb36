
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * XXH64, after its specification (github.com/Cyan4973/xxHash,
 * doc/xxhash_spec.md): fast over hundreds of kilobytes, well mixed, not
 * cryptographic.  On big-endian machines the words are read as they lie, so
 * hashes differ from little-endian ones: they are not for exchange.
 */


#ifndef _NGX_LLM_HASH_H_INCLUDED_
#define _NGX_LLM_HASH_H_INCLUDED_


#include "ngx_llm.h"


/* hashes of several pieces are chained by giving the last one as seed */

uint64_t ngx_llm_hash(const unsigned char *p, size_t len, uint64_t seed);


#endif /* _NGX_LLM_HASH_H_INCLUDED_ */
