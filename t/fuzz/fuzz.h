
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * What the fuzzers share.  An oracle that fails aborts: libFuzzer keeps the
 * input.
 */


#ifndef _FUZZ_H_INCLUDED_
#define _FUZZ_H_INCLUDED_


#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define fuzz_assert(cond)                                                     \
    do {                                                                      \
        if (!(cond)) {                                                        \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__,      \
                    #cond);                                                   \
            abort();                                                          \
        }                                                                     \
    } while (0)


int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);


/* memory of just this size: ASan sees a byte read behind it */

static inline unsigned char *
fuzz_copy(const void *p, size_t len)
{
    unsigned char  *copy;

    copy = malloc(len ? len : 1);
    fuzz_assert(copy != NULL);

    if (len != 0) {
        memcpy(copy, p, len);
    }

    return copy;
}


#endif /* _FUZZ_H_INCLUDED_ */
