
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "sim.h"


/* RFC 1951 and 1952, in blocks that are stored: really gzip, nothing packed */

#define SIM_STORED_MAX  65535


static void sim_gzip_le(buf_t *b, uint32_t n, int bytes);


uint32_t
sim_gzip_crc(uint32_t crc, const char *data, size_t len)
{
    int     bit;
    size_t  i;

    crc = ~crc;

    for (i = 0; i < len; i++) {
        crc ^= (unsigned char) data[i];

        for (bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (0xedb88320 & -(crc & 1));
        }
    }

    return ~crc;
}


void
sim_gzip_head(buf_t *b)
{
    buf_add(b, "\x1f\x8b\x08\0\0\0\0\0\0\xff", 10);
}


/* a block header is byte-aligned here, as all blocks are stored */

void
sim_gzip_stored(buf_t *b, const char *data, size_t len)
{
    size_t  n;

    for ( /* void */ ; len; len -= n, data += n) {

        n = len < SIM_STORED_MAX ? len : SIM_STORED_MAX;

        buf_add(b, "\0", 1);
        sim_gzip_le(b, (uint32_t) n, 2);
        sim_gzip_le(b, ~(uint32_t) n, 2);
        buf_add(b, data, n);
    }
}


void
sim_gzip_end(buf_t *b, uint32_t crc, uint32_t bytes)
{
    buf_add(b, "\x01\0\0\xff\xff", 5);
    sim_gzip_le(b, crc, 4);
    sim_gzip_le(b, bytes, 4);
}


static void
sim_gzip_le(buf_t *b, uint32_t n, int bytes)
{
    char  c;

    for ( /* void */ ; bytes; bytes--) {
        c = (char) n;
        buf_add(b, &c, 1);
        n >>= 8;
    }
}
