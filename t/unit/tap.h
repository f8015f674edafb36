
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The Test Anything Protocol for the unit tests, and memory that ends at a
 * page that nobody may touch.  A program is one test file: it counts as it
 * goes, and ends with "return tap_done();".
 */


#ifndef _TAP_H_INCLUDED_
#define _TAP_H_INCLUDED_


#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>


static int  tap_count;
static int  tap_failures;


/* "ok 3 - name", and where the check stands when it failed; returns cond */

#define tap_ok(cond, ...)                                                     \
    tap_check((cond) != 0, __FILE__, __LINE__, #cond, __VA_ARGS__)

/* integers of any kind, as far as they fit into 64 bits */

#define tap_int(got, want, ...)                                               \
    tap_check_int((intmax_t) (got), (intmax_t) (want), __FILE__, __LINE__,    \
                  #got, __VA_ARGS__)

/* bytes; want is a string literal or any NUL-terminated string */

#define tap_str(got, got_len, want, ...)                                      \
    tap_check_str((const char *) (got), got_len, want, strlen(want),          \
                  __FILE__, __LINE__, #got, __VA_ARGS__)


static inline void tap_line(int ok, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
static inline int tap_check(int ok, const char *file, int line,
    const char *what, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
static inline int tap_check_int(intmax_t got, intmax_t want, const char *file,
    int line, const char *what, const char *format, ...)
    __attribute__((format(printf, 6, 7)));
static inline int tap_check_str(const char *got, size_t got_len,
    const char *want, size_t want_len, const char *file, int line,
    const char *what, const char *format, ...)
    __attribute__((format(printf, 8, 9)));


static inline void
tap_line(int ok, const char *format, va_list args)
{
    printf("%sok %d - ", ok ? "" : "not ", ++tap_count);
    vprintf(format, args);
    printf("\n");

    tap_failures += !ok;
}


static inline int
tap_check(int ok, const char *file, int line, const char *what,
    const char *format, ...)
{
    va_list  args;

    va_start(args, format);
    tap_line(ok, format, args);
    va_end(args);

    if (!ok) {
        printf("# %s:%d: not true: %s\n", file, line, what);
    }

    return ok;
}


static inline int
tap_check_int(intmax_t got, intmax_t want, const char *file, int line,
    const char *what, const char *format, ...)
{
    va_list  args;

    va_start(args, format);
    tap_line(got == want, format, args);
    va_end(args);

    if (got != want) {
        printf("# %s:%d: %s is %jd, not %jd\n", file, line, what, got, want);
    }

    return got == want;
}


static inline int
tap_check_str(const char *got, size_t got_len, const char *want,
    size_t want_len, const char *file, int line, const char *what,
    const char *format, ...)
{
    int      ok;
    va_list  args;

    ok = (got_len == want_len
          && (want_len == 0 || memcmp(got, want, want_len) == 0));

    va_start(args, format);
    tap_line(ok, format, args);
    va_end(args);

    if (!ok) {
        printf("# %s:%d: %s is \"%.*s\", not \"%.*s\"\n", file, line, what,
               (int) got_len, got ? got : "", (int) want_len, want);
    }

    return ok;
}


/* the exit code of the program */

static inline int
tap_done(void)
{
    printf("1..%d\n", tap_count);

    if (tap_failures) {
        printf("# %d of %d failed\n", tap_failures, tap_count);
    }

    return tap_failures != 0;
}


/* nothing after this makes sense */

static inline void
tap_bail(const char *why)
{
    printf("Bail out! %s\n", why);
    exit(2);
}


/*
 * A copy of p[0..len) whose last byte is followed by a page that traps.  It
 * lives until tap_unguard().
 */

typedef struct {
    unsigned char         *data;
    void                  *map;
    size_t                 map_bytes;
} tap_guard_t;


static inline tap_guard_t
tap_guard(const void *p, size_t len)
{
    size_t       page, body;
    tap_guard_t  guard;

    page = sysconf(_SC_PAGESIZE);
    body = (len + page - 1) / page * page;

    guard.map_bytes = body + page;
    guard.map = mmap(NULL, guard.map_bytes, PROT_READ|PROT_WRITE,
                     MAP_PRIVATE|MAP_ANONYMOUS, -1, 0);

    if (guard.map == MAP_FAILED
        || mprotect((char *) guard.map + body, page, PROT_NONE) != 0)
    {
        tap_bail("no memory for a guard page");
    }

    guard.data = (unsigned char *) guard.map + body - len;

    if (len != 0) {
        memcpy(guard.data, p, len);
    }

    return guard;
}


static inline void
tap_unguard(tap_guard_t *guard)
{
    munmap(guard->map, guard->map_bytes);
}


#endif /* _TAP_H_INCLUDED_ */
