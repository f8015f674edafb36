
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "tap.h"

#include "ngx_llm_frame.h"


#define TEST_MAX_BYTES   512
#define TEST_MAX_EVENTS  64
#define TEST_ROUNDS      20000


/*
 * A stream and what its events carry: "name|data" each, "-" where an event
 * has no data field, events separated by ";".  What has no end is unfinished.
 */

typedef struct {
    const char            *name;
    const char            *stream;
    const char            *events;
} test_sse_t;


/* a stream cut into events */

typedef struct {
    size_t                 len;
    size_t                 n;
    size_t                 ends[TEST_MAX_EVENTS];
} test_cut_t;


static void test_carries(void);
static void test_reads(const test_sse_t *test);
static void test_pieces(const test_sse_t *test);
static void test_random(void);
static void test_lines(void);
static void test_fields(void);
static void test_large(void);
static void test_cut(test_cut_t *cut, ngx_llm_framing_e framing,
    const unsigned char *p, size_t len, size_t split);
static int test_same(const test_cut_t *a, const test_cut_t *b,
    const unsigned char *p);
static void test_naive(test_cut_t *cut, const unsigned char *p, size_t len);
static size_t test_show(char *out, size_t size, ngx_llm_framing_e framing,
    const unsigned char *p, const test_cut_t *cut);
static uint32_t test_next_random(uint32_t *state);


static const test_sse_t  test_streams[] = {
    { "LF", "data: a\n\ndata: b\n\n", "|a;|b" },
    { "CRLF", "data: a\r\n\r\ndata: b\r\n\r\n", "|a;|b" },
    { "CR", "data: a\r\rdata: b\r\r", "|a;|b" },
    { "mixed line ends", "data: a\n\rdata: b\r\n\ndata: c\r\r\n", "|a;|b;|c" },
    { "a name", "event: ping\ndata: {}\n\n", "ping|{}" },
    { "a name behind the data", "data: 1\nevent: x\n\n", "x|1" },
    { "two names", "event: a\nevent: b\ndata: 1\n\n", "b|1" },
    { "no space, two spaces", "data:a\n\ndata:  b\n\n", "|a;| b" },
    { "several data lines", "data: a\ndata: b\ndata:\ndata: c\n\n",
      "|a\nb\n\nc" },
    { "several data lines, CRLF", "data: a\r\ndata: b\r\n\r\n", "|a\nb" },
    { "empty data", "data\n\ndata:\n\n", "|;|" },
    { "a comment alone", ": ping\n\ndata: a\n\n", "-;|a" },
    { "a comment within", "data: a\n: ping\n\n", "|a" },
    { "blank lines", "\n\ndata: a\n\n\n", "-;-;|a;-" },
    { "other fields", "id: 1\nretry: 5\ndatas: x\ndat: y\nDATA: z\n\n", "-" },
    { "a leading space", " data: a\n\n", "-" },
    { "a BOM", "\xef\xbb\xbf" "data: a\n\n", "|a" },
    { "a BOM and a blank line", "\xef\xbb\xbf\ndata: a\n\n", "-;|a" },
    { "half a BOM", "\xef\xbb" "data: a\n\n", "-" },
    { "half a BOM at the end", "\xef\xbb", "-" },
    { "two BOMs", "\xef\xbb\xbf\xef\xbb\xbf" "data: a\n\n", "-" },
    { "unfinished", "data: a\n\ndata: b", "|a;|b" },
    { "unfinished behind a line", "data: a\n\ndata: b\n", "|a;|b" },
    { "unfinished field", "data: a\n\ndat", "|a;-" },
    { "empty", "", "" },
    { NULL, NULL, NULL }
};


/* room for a piece or an event, flush against a guard page */

static const unsigned char  test_zeros[TEST_MAX_BYTES];
static tap_guard_t          test_guard;


int
main(void)
{
    const test_sse_t  *test;

    test_guard = tap_guard(test_zeros, sizeof(test_zeros));

    for (test = test_streams; test->name != NULL; test++) {
        test_reads(test);
        test_pieces(test);
    }

    test_carries();
    test_random();
    test_lines();
    test_fields();
    test_large();

    return tap_done();
}


static void
test_reads(const test_sse_t *test)
{
    size_t                len, n;
    char                  got[1024];
    test_cut_t            cut;
    const unsigned char  *p;

    p = (const unsigned char *) test->stream;
    len = strlen(test->stream);

    test_cut(&cut, NGX_LLM_FRAME_SSE, p, len, len);

    n = test_show(got, sizeof(got), NGX_LLM_FRAME_SSE, p, &cut);

    tap_str(got, n, test->events, "%s", test->name);
}


/* in two pieces, and in many: the same events */

static void
test_pieces(const test_sse_t *test)
{
    size_t                i, len, wrong;
    test_cut_t            whole, cut;
    const unsigned char  *p;

    p = (const unsigned char *) test->stream;
    len = strlen(test->stream);
    wrong = 0;

    test_cut(&whole, NGX_LLM_FRAME_SSE, p, len, len);

    for (i = 1; i < len; i++) {
        test_cut(&cut, NGX_LLM_FRAME_SSE, p, len, i);
        wrong += !test_same(&whole, &cut, p);
    }

    tap_int(wrong, 0, "%s: at every split point", test->name);

    test_cut(&cut, NGX_LLM_FRAME_SSE, p, len, 0);
    tap_ok(test_same(&whole, &cut, p), "%s: byte by byte", test->name);
}


/* state between calls: an event leaves as soon as its last byte came */

static void
test_carries(void)
{
    int              complete;
    size_t           n;
    ngx_llm_frame_t  frame;

    memset(&frame, 0, sizeof(frame));

    n = ngx_llm_frame_next(&frame, (const unsigned char *) "data: a\r", 8,
                           &complete);
    tap_int(n, 8, "a line is taken");
    tap_int(complete, 0, "a line is no event");
    tap_int(frame.event_bytes, 8, "its bytes are counted");

    n = ngx_llm_frame_next(&frame, (const unsigned char *) "\n\r", 2,
                           &complete);
    tap_int(n, 2, "the line's LF and a blank line");
    tap_int(complete, 1, "a CR ends an event: nothing is waited for");
    tap_int(frame.event_bytes, 0, "nothing is left of it");

    n = ngx_llm_frame_next(&frame, (const unsigned char *) "\ndata: b\n\n", 10,
                           &complete);
    tap_int(n, 10, "a late LF belongs to what follows");
    tap_int(complete, 1, ".. and is no blank line");

    n = ngx_llm_frame_next(&frame, (const unsigned char *) "\n", 1, &complete);
    tap_int(complete, 1, "a blank line alone is an event");

    n = ngx_llm_frame_next(&frame, NULL, 0, &complete);
    tap_int(n, 0, "no bytes: none taken");
    tap_int(complete, 0, ".. and no event");

    n = ngx_llm_frame_next(&frame, (const unsigned char *) "\n\n\ndata", 7,
                           &complete);
    tap_int(n, 1, "one event is taken at a time");
}


/* any bytes, in any pieces, against a reader that is plain and slow */

static void
test_random(void)
{
    char           got[2048];
    size_t         i, len, round, split, wrong[3];
    uint32_t       seed;
    test_cut_t     naive, whole, cut;
    unsigned char  buf[40];

    static const char  letters[] = "\r\r\n\n\n:d a\xef\xbb\xbf";

    seed = 20251112;
    memset(wrong, 0, sizeof(wrong));

    for (round = 0; round < TEST_ROUNDS; round++) {
        len = test_next_random(&seed) % sizeof(buf);

        for (i = 0; i < len; i++) {
            buf[i] = letters[test_next_random(&seed) % (sizeof(letters) - 1)];
        }

        split = test_next_random(&seed) % (len + 1);

        test_naive(&naive, buf, len);
        test_cut(&whole, NGX_LLM_FRAME_SSE, buf, len, len);
        test_cut(&cut, NGX_LLM_FRAME_SSE, buf, len, split);

        wrong[0] += !test_same(&naive, &whole, buf);
        wrong[1] += !test_same(&naive, &cut, buf);

        test_cut(&cut, NGX_LLM_FRAME_SSE, buf, len, 0);
        wrong[2] += !test_same(&naive, &cut, buf);

        /* that no read leaves the event is what the guard says */

        if (round % 16 == 0) {
            test_show(got, sizeof(got), NGX_LLM_FRAME_SSE, buf, &cut);
        }
    }

    tap_int(wrong[0], 0, "random bytes: as the plain reader");
    tap_int(wrong[1], 0, "random bytes in two pieces");
    tap_int(wrong[2], 0, "random bytes, byte by byte");
}


static void
test_lines(void)
{
    char          got[256];
    size_t        i, n, wrong;
    test_cut_t    whole, cut;

    static const unsigned char  lines[] =
        "{\"a\":1}\n{\"b\":\"\\r\"}\r\n\n \n\r\n{\"c\"";

    test_cut(&whole, NGX_LLM_FRAME_LINES, lines, sizeof(lines) - 1,
             sizeof(lines) - 1);
    n = test_show(got, sizeof(got), NGX_LLM_FRAME_LINES, lines, &whole);
    tap_str(got, n, "|{\"a\":1};|{\"b\":\"\\r\"};-;| ;-;|{\"c\"", "lines");

    wrong = 0;

    for (i = 0; i < sizeof(lines) - 1; i++) {
        test_cut(&cut, NGX_LLM_FRAME_LINES, lines, sizeof(lines) - 1, i);
        wrong += !test_same(&whole, &cut, lines);
    }

    tap_int(wrong, 0, "lines: at every split point, and byte by byte");

    test_cut(&cut, NGX_LLM_FRAME_LINES,
             (const unsigned char *) "a\rb\r\r\n", 6, 6);
    tap_int(cut.n, 1, "lines: CR alone ends none");
}


static void
test_fields(void)
{
    ngx_llm_event_t  ev;
    unsigned char    join[16];

    static const unsigned char  two[] = "data: a\ndata: b\n\n";

    tap_int(ngx_llm_frame_event(NGX_LLM_FRAME_SSE, two, sizeof(two) - 1,
                                NULL, 0, &ev),
            NGX_LLM_NO_MEMORY, "two data lines, nowhere to join them");

    tap_int(ngx_llm_frame_event(NGX_LLM_FRAME_SSE, two, sizeof(two) - 1,
                                join, sizeof(join), &ev),
            NGX_LLM_NO_MEMORY, "two data lines, not enough to join them");

    tap_int(ngx_llm_frame_event(NGX_LLM_FRAME_SSE, two, 8, NULL, 0, &ev),
            NGX_LLM_OK, "one data line needs no memory");
    tap_ok(ev.data.data == two + 6 && ev.data.len == 1,
           "one data line is a slice of the event");
    tap_int(ev.has_data, 1, "it has data");

    tap_int(ngx_llm_frame_event(NGX_LLM_FRAME_SSE, two, 0, NULL, 0, &ev),
            NGX_LLM_OK, "no bytes are an event, too");
    tap_int(ev.has_data, 0, "it has no data");
}


/* a line of many windows, and many lines in one call */

static void
test_large(void)
{
    int              complete;
    size_t           i, len, events;
    tap_guard_t      guard;
    unsigned char   *big;
    ngx_llm_frame_t  frame;

    len = 3 * 1024 * 1024;

    big = malloc(len);
    if (big == NULL) {
        tap_bail("no memory");
    }

    memset(big, 'x', len);

    for (i = 4090; i < 4102; i++) {
        big[i] = '\r';
        big[i + 1] = '\r';

        memset(&frame, 0, sizeof(frame));
        guard = tap_guard(big, i + 2);

        tap_int(ngx_llm_frame_next(&frame, guard.data, i + 2, &complete),
                i + 2, "an end at byte %zu", i);
        tap_int(complete, 1, "an end at byte %zu is one", i);

        tap_unguard(&guard);

        big[i] = 'x';
        big[i + 1] = 'x';
    }

    /* CR alone, with no LF to be found: linear all the same */

    memset(big, '\r', len);
    memset(&frame, 0, sizeof(frame));

    events = 0;

    for (i = 0; i < len; events += complete) {
        i += ngx_llm_frame_next(&frame, big + i, len - i, &complete);
    }

    tap_int(events, len, "three million blank lines");

    free(big);
}


/* split 0: byte by byte; each piece stands flush against a guard page */

static void
test_cut(test_cut_t *cut, ngx_llm_framing_e framing, const unsigned char *p,
    size_t len, size_t split)
{
    int              complete;
    size_t           i, n, piece;
    unsigned char   *flush;
    ngx_llm_frame_t  frame;

    memset(cut, 0, sizeof(test_cut_t));
    memset(&frame, 0, sizeof(frame));

    cut->len = len;
    frame.framing = framing;

    for (i = 0; i < len; i += piece) {
        piece = split ? split : 1;

        if (split != 0 && i != 0) {
            piece = len - i;
        }

        flush = test_guard.data + TEST_MAX_BYTES - piece;
        memcpy(flush, p + i, piece);

        for (n = 0; n < piece; /* void */ ) {
            n += ngx_llm_frame_next(&frame, flush + n, piece - n, &complete);

            if (complete) {
                cut->ends[cut->n++] = i + n;
            }
        }
    }

    if (frame.event_bytes != 0) {
        cut->ends[cut->n++] = len;
    }
}


/*
 * The same events, but for an LF that came too late for its CR: it is the
 * next one's first byte, and may be all of the last one.
 */

static int
test_same(const test_cut_t *a, const test_cut_t *b, const unsigned char *p)
{
    size_t  i, ends[2][TEST_MAX_EVENTS], n[2], which;

    const test_cut_t  *cuts[] = { a, b };

    for (which = 0; which < 2; which++) {
        n[which] = 0;

        for (i = 0; i < cuts[which]->n; i++) {
            size_t  end = cuts[which]->ends[i];

            if (end < cuts[which]->len && p[end - 1] == '\r' && p[end] == '\n')
            {
                end++;
            }

            if (n[which] == 0 || ends[which][n[which] - 1] != end) {
                ends[which][n[which]++] = end;
            }
        }
    }

    return n[0] == n[1] && memcmp(ends[0], ends[1], n[0] * sizeof(size_t)) == 0;
}


/* what the rules say, a byte at a time with all of it at hand */

static void
test_naive(test_cut_t *cut, const unsigned char *p, size_t len)
{
    size_t  i, line;

    memset(cut, 0, sizeof(test_cut_t));

    cut->len = len;
    i = 0;

    if (len >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) {
        i = 3;
    }

    for (line = i; i < len; i++) {

        if (p[i] != '\r' && p[i] != '\n') {
            continue;
        }

        if (p[i] == '\r' && i + 1 < len && p[i + 1] == '\n') {
            i++;

            if (line == i - 1) {
                cut->ends[cut->n++] = i + 1;
            }

        } else if (line == i) {
            cut->ends[cut->n++] = i + 1;
        }

        line = i + 1;
    }

    if (cut->n == 0 ? len != 0 : cut->ends[cut->n - 1] != len) {
        cut->ends[cut->n++] = len;
    }
}


static size_t
test_show(char *out, size_t size, ngx_llm_framing_e framing,
    const unsigned char *p, const test_cut_t *cut)
{
    size_t           i, n, start;
    tap_guard_t      join;
    unsigned char   *flush;
    ngx_llm_event_t  ev;

    n = 0;
    start = 0;
    join = tap_guard(test_zeros, TEST_MAX_BYTES);

    for (i = 0; i < cut->n; i++) {
        size_t  len = cut->ends[i] - start;

        flush = test_guard.data + TEST_MAX_BYTES - len;
        memcpy(flush, p + start, len);

        if (ngx_llm_frame_event(framing, flush, len,
                                join.data + TEST_MAX_BYTES - len, len, &ev)
            != NGX_LLM_OK)
        {
            tap_bail("an event cannot be read");
        }

        n += snprintf(out + n, size - n, "%s%.*s%s%.*s", i ? ";" : "",
                      (int) ev.name.len, (char *) ev.name.data,
                      ev.has_data ? "|" : "-",
                      (int) ev.data.len, (char *) ev.data.data);

        start = cut->ends[i];
    }

    tap_unguard(&join);

    return n;
}


static uint32_t
test_next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;

    return *state >> 8;
}
