
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_hash.h"


#define NGX_LLM_HASH_P1      UINT64_C(0x9e3779b185ebca87)
#define NGX_LLM_HASH_P2      UINT64_C(0xc2b2ae3d27d4eb4f)
#define NGX_LLM_HASH_P3      UINT64_C(0x165667b19e3779f9)
#define NGX_LLM_HASH_P4      UINT64_C(0x85ebca77c2b2ae63)
#define NGX_LLM_HASH_P5      UINT64_C(0x27d4eb2f165667c5)

/* bytes of a stripe: a word for each of four lanes */
#define NGX_LLM_HASH_STRIPE  32

#define ngx_llm_hash_rotate(n, bits)  (((n) << (bits)) | ((n) >> (64 - (bits))))


static uint64_t ngx_llm_hash_stripes(const unsigned char *p, size_t n,
    uint64_t seed);
static uint64_t ngx_llm_hash_tail(const unsigned char *p, size_t len,
    uint64_t hash);
static uint64_t ngx_llm_hash_round(uint64_t lane, uint64_t word);
static uint64_t ngx_llm_hash_word(const unsigned char *p);


uint64_t
ngx_llm_hash(const unsigned char *p, size_t len, uint64_t seed)
{
    size_t    n;
    uint64_t  hash;

    n = len / NGX_LLM_HASH_STRIPE;

    hash = n ? ngx_llm_hash_stripes(p, n, seed) : seed + NGX_LLM_HASH_P5;

    hash = ngx_llm_hash_tail(p + n * NGX_LLM_HASH_STRIPE,
                             len % NGX_LLM_HASH_STRIPE, hash + len);

    hash ^= hash >> 33;
    hash *= NGX_LLM_HASH_P2;
    hash ^= hash >> 29;
    hash *= NGX_LLM_HASH_P3;
    hash ^= hash >> 32;

    return hash;
}


static uint64_t
ngx_llm_hash_stripes(const unsigned char *p, size_t n, uint64_t seed)
{
    size_t    i;
    uint64_t  hash, lanes[4];

    lanes[0] = seed + NGX_LLM_HASH_P1 + NGX_LLM_HASH_P2;
    lanes[1] = seed + NGX_LLM_HASH_P2;
    lanes[2] = seed;
    lanes[3] = seed - NGX_LLM_HASH_P1;

    for (i = 0; i < n; i++) {
        lanes[0] = ngx_llm_hash_round(lanes[0], ngx_llm_hash_word(p));
        lanes[1] = ngx_llm_hash_round(lanes[1], ngx_llm_hash_word(p + 8));
        lanes[2] = ngx_llm_hash_round(lanes[2], ngx_llm_hash_word(p + 16));
        lanes[3] = ngx_llm_hash_round(lanes[3], ngx_llm_hash_word(p + 24));

        p += NGX_LLM_HASH_STRIPE;
    }

    hash = ngx_llm_hash_rotate(lanes[0], 1) + ngx_llm_hash_rotate(lanes[1], 7)
           + ngx_llm_hash_rotate(lanes[2], 12)
           + ngx_llm_hash_rotate(lanes[3], 18);

    for (i = 0; i < 4; i++) {
        hash ^= ngx_llm_hash_round(0, lanes[i]);
        hash = hash * NGX_LLM_HASH_P1 + NGX_LLM_HASH_P4;
    }

    return hash;
}


/* what is left, less than a stripe */

static uint64_t
ngx_llm_hash_tail(const unsigned char *p, size_t len, uint64_t hash)
{
    uint32_t  half;

    while (len >= 8) {
        hash ^= ngx_llm_hash_round(0, ngx_llm_hash_word(p));
        hash = ngx_llm_hash_rotate(hash, 27) * NGX_LLM_HASH_P1
               + NGX_LLM_HASH_P4;
        p += 8;
        len -= 8;
    }

    if (len >= 4) {
        memcpy(&half, p, 4);
        hash ^= half * NGX_LLM_HASH_P1;
        hash = ngx_llm_hash_rotate(hash, 23) * NGX_LLM_HASH_P2
               + NGX_LLM_HASH_P3;
        p += 4;
        len -= 4;
    }

    while (len) {
        hash ^= *p * NGX_LLM_HASH_P5;
        hash = ngx_llm_hash_rotate(hash, 11) * NGX_LLM_HASH_P1;
        p++;
        len--;
    }

    return hash;
}


static uint64_t
ngx_llm_hash_round(uint64_t lane, uint64_t word)
{
    lane += word * NGX_LLM_HASH_P2;

    return ngx_llm_hash_rotate(lane, 31) * NGX_LLM_HASH_P1;
}


static uint64_t
ngx_llm_hash_word(const unsigned char *p)
{
    uint64_t  word;

    memcpy(&word, p, 8);

    return word;
}
