
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#ifndef TOOLS_BUF_H
#define TOOLS_BUF_H


#include <stddef.h>
#include <stdint.h>


/*
 * str_t is a slice: it owns nothing and is not terminated.
 *
 * buf_t is a growing byte buffer; all zero is an empty one.  Bytes from pos
 * to len are not yet taken.  One byte behind len is always allocated and
 * zero after any buf_add*(), so that the text can go to C string functions.
 * Out of memory ends the process: a test tool has nothing better to do.
 */

typedef struct {
    const char  *data;
    size_t       len;
} str_t;

typedef struct {
    char        *data;
    size_t       pos;
    size_t       len;
    size_t       cap;
} buf_t;


#define str(s)        (str_t) { s, sizeof(s) - 1 }
#define buf_size(b)   ((b)->len - (b)->pos)
#define buf_head(b)   ((b)->data + (b)->pos)


int str_eq(str_t s, const char *z);
int str_case_eq(str_t s, const char *z);
str_t str_trim(str_t s);

/* the next piece of *s before the separator; 0 when nothing is left */
int str_split(str_t *s, char sep, str_t *piece);

/* a decimal number that fills the slice; 0 is ok, -1 is not a number */
int str_number(str_t s, double *value);

/* room for n more bytes behind len; the caller advances len */
char *buf_reserve(buf_t *b, size_t n);
void buf_add(buf_t *b, const void *data, size_t n);
void buf_add_str(buf_t *b, const char *z);
void buf_add_u64(buf_t *b, uint64_t n);
void buf_add_fmt(buf_t *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* the inside of a JSON string, escaped, without its quotes */
void buf_add_json(buf_t *b, const char *data, size_t n);

/* takes n bytes off the front; an empty buffer starts over */
void buf_take(buf_t *b, size_t n);
void buf_clear(buf_t *b);
void buf_free(buf_t *b);

void *mem_zero_alloc(size_t n);

/* an array with room for one more than its n elements; it doubles */
void *mem_grow(void *p, size_t n, size_t size);
void mem_failed(void) __attribute__((noreturn));


#endif /* TOOLS_BUF_H */
