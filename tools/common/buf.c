
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "buf.h"


#define BUF_MIN_SIZE    256

#define STR_NUMBER_MAX  64


int
str_eq(str_t s, const char *z)
{
    return s.len == strlen(z) && memcmp(s.data, z, s.len) == 0;
}


int
str_case_eq(str_t s, const char *z)
{
    return s.len == strlen(z) && strncasecmp(s.data, z, s.len) == 0;
}


str_t
str_trim(str_t s)
{
    while (s.len && (s.data[0] == ' ' || s.data[0] == '\t')) {
        s.data++;
        s.len--;
    }

    while (s.len && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t')) {
        s.len--;
    }

    return s;
}


int
str_split(str_t *s, char sep, str_t *piece)
{
    const char  *p;

    if (s->data == NULL) {
        return 0;
    }

    piece->data = s->data;

    p = memchr(s->data, sep, s->len);
    if (p == NULL) {
        piece->len = s->len;
        s->data = NULL;
        s->len = 0;
        return 1;
    }

    piece->len = p - s->data;
    s->len -= piece->len + 1;
    s->data = p + 1;

    return 1;
}


int
str_number(str_t s, double *value)
{
    char  *end, text[STR_NUMBER_MAX];

    if (s.len == 0 || s.len >= sizeof(text)) {
        return -1;
    }

    memcpy(text, s.data, s.len);
    text[s.len] = '\0';

    *value = strtod(text, &end);

    return (end == text + s.len) ? 0 : -1;
}


char *
buf_reserve(buf_t *b, size_t n)
{
    char    *data;
    size_t   cap;

    if (b->len + n + 1 > b->cap) {

        cap = b->cap ? b->cap : BUF_MIN_SIZE;

        while (b->len + n + 1 > cap) {
            cap *= 2;
        }

        data = realloc(b->data, cap);
        if (data == NULL) {
            mem_failed();
        }

        b->data = data;
        b->cap = cap;
    }

    return b->data + b->len;
}


void
buf_add(buf_t *b, const void *data, size_t n)
{
    char  *p;

    p = buf_reserve(b, n);

    if (n) {
        memcpy(p, data, n);
    }

    b->len += n;
    b->data[b->len] = '\0';
}


void
buf_add_str(buf_t *b, const char *z)
{
    buf_add(b, z, strlen(z));
}


void
buf_add_u64(buf_t *b, uint64_t n)
{
    char  *p, text[24];

    p = text + sizeof(text);

    do {
        *--p = (char) ('0' + n % 10);
        n /= 10;
    } while (n);

    buf_add(b, p, text + sizeof(text) - p);
}


void
buf_add_fmt(buf_t *b, const char *fmt, ...)
{
    int      n;
    va_list  args;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);

    if (n <= 0) {
        return;
    }

    buf_reserve(b, n);

    va_start(args, fmt);
    vsnprintf(b->data + b->len, (size_t) n + 1, fmt, args);
    va_end(args);

    b->len += n;
}


void
buf_add_json(buf_t *b, const char *data, size_t n)
{
    size_t  i, start;

    start = 0;

    for (i = 0; i < n; i++) {

        if ((unsigned char) data[i] >= 0x20 && data[i] != '"'
            && data[i] != '\\')
        {
            continue;
        }

        buf_add(b, data + start, i - start);
        start = i + 1;

        switch (data[i]) {

        case '"':
            buf_add_str(b, "\\\"");
            break;

        case '\\':
            buf_add_str(b, "\\\\");
            break;

        case '\n':
            buf_add_str(b, "\\n");
            break;

        default:
            buf_add_fmt(b, "\\u%04x", (unsigned) data[i] & 0xff);
        }
    }

    buf_add(b, data + start, n - start);
}


void
buf_take(buf_t *b, size_t n)
{
    b->pos += n;

    if (b->pos == b->len) {
        b->pos = 0;
        b->len = 0;
    }
}


void
buf_clear(buf_t *b)
{
    b->pos = 0;
    b->len = 0;
}


void
buf_free(buf_t *b)
{
    free(b->data);
    memset(b, 0, sizeof(buf_t));
}


void *
mem_zero_alloc(size_t n)
{
    void  *p;

    p = calloc(1, n);
    if (p == NULL) {
        mem_failed();
    }

    return p;
}


void *
mem_grow(void *p, size_t n, size_t size)
{
    /* it was filled if the count is a power of two */

    if (n & (n - 1)) {
        return p;
    }

    p = realloc(p, (n ? n * 2 : 1) * size);
    if (p == NULL) {
        mem_failed();
    }

    return p;
}


void
mem_failed(void)
{
    fputs("out of memory\n", stderr);
    exit(1);
}
