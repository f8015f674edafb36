
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Reads lines of KIND TOKENS BODY: a chat request, and what a tokenizer
 * counted for its prompt.  Of each kind, one model of its own learns from the
 * first LEARN requests, as the module does from what upstream reports; how
 * far the estimates of the others are off is printed.  The goal holds for one
 * kind of text, not for a "mix-" of them.  Then the parts that are no text:
 * their bytes must not count.
 */


#define _GNU_SOURCE

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ngx_llm_api.h"
#include "ngx_llm_estimate.h"
#include "ngx_llm_request.h"


#define LEARN     50
#define MOST      1000
#define GOAL      10.0
#define MEGABYTE  (1024 * 1024)


typedef struct {
    char             name[32];
    ngx_llm_ratio_t  ratio;
    size_t           n;
    double           tokens;

    /* percent, of those behind LEARN */
    double           raw[MOST];
    double           learned[MOST];
    size_t           nerrors;
} kind_t;


static const ngx_llm_media_t  media = {
    NGX_LLM_IMAGE_TOKENS, NGX_LLM_AUDIO_TOKENS
};


static void
die(const char *why)
{
    fprintf(stderr, "estimate: %s\n", why);
    exit(2);
}


static void
parse(ngx_llm_request_t *request, const char *body, size_t len)
{
    const char            *reason;
    ngx_llm_scratch_t      scratch;
    static unsigned char   memory[16384];

    scratch.data = memory;
    scratch.size_bytes = sizeof(memory);

    if (ngx_llm_request_parse(request, &ngx_llm_api_openai_chat,
                              (const unsigned char *) body, len, &scratch,
                              &reason)
        != NGX_LLM_OK)
    {
        die(reason);
    }
}


static double
off(int64_t estimate, int64_t tokens)
{
    return fabs((double) (estimate - tokens)) * 100 / tokens;
}


static void
one(kind_t *kind, int64_t tokens, const char *body, size_t len)
{
    int64_t            parts, raw;
    ngx_llm_request_t  request;

    parse(&request, body, len);

    raw = ngx_llm_estimate_raw(&request.text);
    parts = ngx_llm_request_part_tokens(&request, &media);

    kind->tokens += tokens;

    if (kind->n++ < LEARN) {
        ngx_llm_ratio_learn(&kind->ratio, raw, tokens - parts);
        return;
    }

    if (kind->nerrors == MOST) {
        die("too many requests of one kind");
    }

    kind->raw[kind->nerrors] = off(ngx_llm_estimate(NULL, raw, parts),
                                   tokens);
    kind->learned[kind->nerrors] = off(ngx_llm_estimate(&kind->ratio, raw,
                                                        parts), tokens);
    kind->nerrors++;
}


static int
ascending(const void *one, const void *two)
{
    double  a, b;

    a = *(const double *) one;
    b = *(const double *) two;

    return (a > b) - (a < b);
}


/* sorts; the part (0 to 1) of the errors is at most this */

static double
quantile(double *errors, size_t n, double part)
{
    qsort(errors, n, sizeof(double), ascending);

    return errors[(size_t) ((n - 1) * part)];
}


/* 1: over the goal */

static int
print(kind_t *kind)
{
    int     over;
    double  median;

    if (kind->nerrors == 0) {
        die("too few requests of one kind");
    }

    median = quantile(kind->learned, kind->nerrors, .5);
    over = (median > GOAL && strncmp(kind->name, "mix-", 4) != 0);

    printf("%-12s %9.0f  %14.1f%%  %14.1f%%  %9.1f%%%s\n", kind->name,
           kind->tokens / kind->n,
           quantile(kind->raw, kind->nerrors, .5), median,
           quantile(kind->learned, kind->nerrors, .9),
           over ? "  over the goal" : "");

    return over;
}


static int64_t
part_estimate(const char *open, size_t bytes, const char *close)
{
    char               *body;
    size_t              len;
    int64_t             tokens;
    ngx_llm_request_t   request;

    len = strlen(open);
    body = malloc(len + bytes + strlen(close) + 1);

    if (body == NULL) {
        die("no memory");
    }

    memcpy(body, open, len);
    memset(body + len, 'A', bytes);
    strcpy(body + len + bytes, close);

    parse(&request, body, strlen(body));

    tokens = ngx_llm_estimate(NULL, ngx_llm_estimate_raw(&request.text),
                              ngx_llm_request_part_tokens(&request, &media));
    free(body);

    return tokens;
}


/* 1: the bytes of a part count */

static int
parts(void)
{
    size_t   i;
    int      failed;
    int64_t  large, none, small;

    static const char  text[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
        "\"text\":\"What is this?\"}";

    static const struct {
        const char  *name;
        const char  *open;
        const char  *close;
    } cases[] = {
        { "image", ",{\"type\":\"image_url\",\"image_url\":{\"url\":"
                   "\"data:image/png;base64,", "\"}}" },
        { "audio", ",{\"type\":\"input_audio\",\"input_audio\":{\"format\":"
                   "\"wav\",\"data\":\"", "\"}}" }
    };

    char  open[512], close[64];

    failed = 0;
    snprintf(open, sizeof(open), "%s]}]}", text);
    none = part_estimate(open, 0, "");

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(open, sizeof(open), "%s%s", text, cases[i].open);
        snprintf(close, sizeof(close), "%s]}]}", cases[i].close);

        small = part_estimate(open, 64, close);
        large = part_estimate(open, MEGABYTE, close);

        printf("%-12s adds %jd tokens with 64 bytes of base64, %jd with a "
               "megabyte\n", cases[i].name, (intmax_t) (small - none),
               (intmax_t) (large - none));

        failed |= (small != large || small == none);
    }

    return failed;
}


int
main(void)
{
    char            *body, *line, name[32];
    int              failed, used;
    size_t           i, n, size;
    ssize_t          len;
    intmax_t         tokens;
    static kind_t    kinds[32];

    line = NULL;
    size = 0;
    n = 0;
    failed = 0;

    while ((len = getline(&line, &size, stdin)) > 0) {

        if (sscanf(line, "%31s %jd %n", name, &tokens, &used) != 2) {
            die("not a line of KIND TOKENS BODY");
        }

        if (n == 0 || strcmp(kinds[n - 1].name, name) != 0) {

            if (n == sizeof(kinds) / sizeof(kinds[0])) {
                die("too many kinds");
            }

            strcpy(kinds[n++].name, name);
        }

        body = line + used;
        one(&kinds[n - 1], tokens, body, len - used);
    }

    free(line);

    if (n == 0) {
        die("no requests");
    }

    printf("%-12s %9s  %15s  %15s  %10s\n", "kind", "tokens",
           "median, at once", "median, learned", "90%");

    for (i = 0; i < n; i++) {
        failed |= print(&kinds[i]);
    }

    printf("\n");
    failed |= parts();

    return failed;
}
