
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * What asking for usage makes of requests.  Run from the project's root: the
 * seeds of the fuzzer are read as well.
 */


#include <glob.h>

#include "../fuzz/request_api.h"
#include "request.h"


#define TEST_SEEDS  "t/fuzz/seeds/request/*"


static void
test_ask_usage(void)
{
    char                got[512];
    size_t              i, n;
    const char         *reason;
    ngx_llm_edit_t      edit;
    ngx_llm_request_t   request;

    static const struct {
        const char  *body;
        const char  *want;
    } table[] = {
        { "{}", "{\"stream_options\":{\"include_usage\":true}}" },
        { " {\n} \n", " {\n\"stream_options\":{\"include_usage\":true}} \n" },
        { "{\"n\":1}",
          "{\"n\":1,\"stream_options\":{\"include_usage\":true}}" },
        { "{\"n\":1 }\n",
          "{\"n\":1 ,\"stream_options\":{\"include_usage\":true}}\n" },
        { "{\"a\":{}}",
          "{\"a\":{},\"stream_options\":{\"include_usage\":true}}" },
        { "{\"stream_options\":null,\"n\":1}",
          "{\"stream_options\":{\"include_usage\":true},\"n\":1}" },
        { "{\"stream_options\" :\tnull }",
          "{\"stream_options\" :\t{\"include_usage\":true} }" },
        { "{\"stream_options\":{}}",
          "{\"stream_options\":{\"include_usage\":true}}" },
        { "{\"stream_options\": { \n } }",
          "{\"stream_options\": {\"include_usage\":true \n } }" },
        { "{\"stream_options\":{\"x\":1}}",
          "{\"stream_options\":{\"include_usage\":true,\"x\":1}}" },
        { "{\"stream_options\":{\"x\":{\"include_usage\":false}}}",
          "{\"stream_options\":{\"include_usage\":true,"
          "\"x\":{\"include_usage\":false}}}" },
        { "{\"stream_options\":{\"include_usage\":false}}",
          "{\"stream_options\":{\"include_usage\":true}}" },
        { "{\"stream_options\":{\"x\":1,\"include_usage\" : false ,\"y\":2}}",
          "{\"stream_options\":{\"x\":1,\"include_usage\" : true ,\"y\":2}}" },
        { "{\"stream_options\":{\"include_usage\":null}}",
          "{\"stream_options\":{\"include_usage\":true}}" },
        { "{\"stream_options\":{\"include_usage\":true}}",
          "{\"stream_options\":{\"include_usage\":true}}" },
        { "{\"stream\\u005foptions\":{\"include\\u005fusage\":false}}",
          "{\"stream\\u005foptions\":{\"include\\u005fusage\":true}}" },
        { "{\"messages\":[{\"stream_options\":{\"include_usage\":false}}]}",
          "{\"messages\":[{\"stream_options\":{\"include_usage\":false}}],"
          "\"stream_options\":{\"include_usage\":true}}" },
        { "{\"metadata\":{\"stream_options\":null}}",
          "{\"metadata\":{\"stream_options\":null},"
          "\"stream_options\":{\"include_usage\":true}}" },
        { "{\"user\":\"{\"}",
          "{\"user\":\"{\",\"stream_options\":{\"include_usage\":true}}" }
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        n = strlen(table[i].body);

        if (parse(&request, CHAT, table[i].body, n, &reason) != NGX_LLM_OK) {
            tap_bail(reason);
        }

        edit = ngx_llm_request_ask_usage(
                            &request, (const unsigned char *) table[i].body, n);

        n = ngx_llm_request_edit(&edit,
                                 (const unsigned char *) table[i].body, n,
                                 (unsigned char *) got);

        tap_str(got, n, table[i].want, "usage is asked for in %s",
                shown(table[i].body));

        /* where it stands, if there is room behind it */

        n = strlen(table[i].body);
        memcpy(got, table[i].body, n);

        n = ngx_llm_request_edit(&edit, (unsigned char *) got, n,
                                 (unsigned char *) got);

        tap_str(got, n, table[i].want, ".. in its place");
    }
}


/*
 * Every seed: no cut of it is a request, and with usage asked for it is the
 * same request but for that.
 */

static int
check_cuts(const ngx_llm_api_t *api, const unsigned char *body, size_t len)
{
    size_t              i;
    const char         *reason;
    ngx_llm_request_t   request;

    while (len != 0 && body[len - 1] <= ' ') {
        len--;
    }

    for (i = 0; i < len; i++) {
        if (parse(&request, api, body, i, &reason) == NGX_LLM_OK) {
            return 0;
        }
    }

    return 1;
}


static int
check_usage(const ngx_llm_api_t *api, const unsigned char *body, size_t len)
{
    int                 same;
    char                before[512];
    size_t              n;
    const char         *reason;
    unsigned char      *out;
    ngx_llm_rc_e        rc;
    ngx_llm_edit_t      edit;
    ngx_llm_request_t   asking, request;

    if (parse(&request, api, body, len, &reason) != NGX_LLM_OK) {
        return 0;
    }

    edit = ngx_llm_request_ask_usage(&request, body, len);

    out = malloc(len + edit.with.len);
    if (out == NULL) {
        return 0;
    }

    n = ngx_llm_request_edit(&edit, body, len, out);
    rc = parse(&asking, api, out, n, &reason);

    free(out);

    if (rc != NGX_LLM_OK || asking.include_usage != 1) {
        return 0;
    }

    asking.include_usage = request.include_usage;
    strcpy(before, facts(&request));

    same = strcmp(before, facts(&asking)) == 0
           && asking.prefix_hash == request.prefix_hash;

    return same;
}


static unsigned char *
read_file(const char *name, size_t *len)
{
    long            size;
    FILE           *f;
    unsigned char  *data;

    size = 0;
    data = NULL;
    f = fopen(name, "rb");

    if (f == NULL || fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) <= 0
        || fseek(f, 0, SEEK_SET) != 0 || (data = malloc(size)) == NULL
        || fread(data, 1, size, f) != (size_t) size)
    {
        tap_bail(name);
    }

    fclose(f);

    *len = size;

    return data;
}


static void
test_seed(const char *name)
{
    size_t                len;
    const char           *reason;
    unsigned char        *data;
    ngx_llm_request_t     request;
    const ngx_llm_api_t  *api;

    data = read_file(name, &len);

    /* the first byte names the API */

    api = request_api(data[0]);
    name = strrchr(name, '/') + 1;

    if (parse(&request, api, data + 1, len - 1, &reason) != NGX_LLM_OK) {
        tap_ok(reason != NULL, "%s: %s", name, reason ? reason : "");

    } else {
        tap_ok(check_cuts(api, data + 1, len - 1), "%s: a cut is no request",
               name);

        if (api == NULL || ngx_llm_api_asks_usage(api)) {
            tap_ok(check_usage(api, data + 1, len - 1),
                   "%s: the same request but for its usage", name);
        }
    }

    free(data);
}


int
main(void)
{
    size_t  i;
    glob_t  names;

    test_ask_usage();

    if (glob(TEST_SEEDS, 0, NULL, &names) != 0) {
        tap_bail("no seeds in " TEST_SEEDS);
    }

    for (i = 0; i < names.gl_pathc; i++) {
        test_seed(names.gl_pathv[i]);
    }

    globfree(&names);

    return tap_done();
}
