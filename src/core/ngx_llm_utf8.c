
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_utf8.h"


/* set in a byte that is no ASCII */
#define NGX_LLM_UTF8_WIDE  0x8080808080808080


int
ngx_llm_utf8_valid(const unsigned char *p, size_t len)
{
    size_t    n;
    uint64_t  words[4];

    while (len != 0) {

        if (len >= sizeof(words)) {
            memcpy(words, p, sizeof(words));

            if (((words[0] | words[1] | words[2] | words[3])
                 & NGX_LLM_UTF8_WIDE) == 0)
            {
                p += sizeof(words);
                len -= sizeof(words);
                continue;
            }
        }

        if (len >= sizeof(words[0])) {
            memcpy(words, p, sizeof(words[0]));

            if ((words[0] & NGX_LLM_UTF8_WIDE) == 0) {
                p += sizeof(words[0]);
                len -= sizeof(words[0]);
                continue;
            }
        }

        do {
            n = ngx_llm_utf8_char(p, len);
            if (n == 0) {
                return 0;
            }

            p += n;
            len -= n;

        } while (len != 0 && *p >= 0x80);
    }

    return 1;
}


size_t
ngx_llm_utf8_char(const unsigned char *p, size_t len)
{
    size_t         i, n;
    unsigned char  low, high;

    if (p[0] < 0x80) {
        return 1;
    }

    low = 0x80;
    high = 0xbf;

    if (p[0] < 0xc2 || p[0] > 0xf4) {
        return 0;

    } else if (p[0] < 0xe0) {
        n = 2;

    } else if (p[0] < 0xf0) {
        n = 3;
        low = (p[0] == 0xe0) ? 0xa0 : 0x80;
        high = (p[0] == 0xed) ? 0x9f : 0xbf;

    } else {
        n = 4;
        low = (p[0] == 0xf0) ? 0x90 : 0x80;
        high = (p[0] == 0xf4) ? 0x8f : 0xbf;
    }

    if (len < n || p[1] < low || p[1] > high) {
        return 0;
    }

    for (i = 2; i < n; i++) {
        if (p[i] < 0x80 || p[i] > 0xbf) {
            return 0;
        }
    }

    return n;
}
