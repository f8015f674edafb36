
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "opt.h"


#define OPT_MOST  1e15


static const opt_t *opt_find(const opt_t *opts, str_t name);
static int opt_set(const opt_t *opt, const char *value);


int
opt_parse(const opt_t *opts, const char *help, int argc, char **argv)
{
    int           i;
    str_t         rest, name;
    const char   *value;
    const opt_t  *opt;

    for (i = 1; i < argc; i++) {

        if (strcmp(argv[i], "--help") == 0) {
            fputs(help, stdout);
            return 0;
        }

        rest.data = argv[i];
        rest.len = strlen(argv[i]);

        str_split(&rest, '=', &name);

        opt = opt_find(opts, name);
        if (opt == NULL) {
            fprintf(stderr, "%s: unknown option \"%s\", see --help\n",
                    argv[0], argv[i]);
            return 2;
        }

        value = rest.data;

        if (opt->type != OPT_FLAG && value == NULL && i + 1 < argc) {
            value = argv[++i];
        }

        if ((opt->type == OPT_FLAG) != (value == NULL)
            || opt_set(opt, value) == -1)
        {
            fprintf(stderr, "%s: --%s: bad value \"%s\", see --help\n",
                    argv[0], opt->name, value ? value : "");
            return 2;
        }
    }

    return -1;
}


static const opt_t *
opt_find(const opt_t *opts, str_t name)
{
    if (name.len < 3 || memcmp(name.data, "--", 2) != 0) {
        return NULL;
    }

    name.data += 2;
    name.len -= 2;

    for ( /* void */ ; opts->name != NULL; opts++) {
        if (str_eq(name, opts->name)) {
            return opts;
        }
    }

    return NULL;
}


static int
opt_set(const opt_t *opt, const char *value)
{
    double  number;

    switch (opt->type) {

    case OPT_FLAG:
        *(int *) opt->field = 1;
        return 0;

    case OPT_TEXT:
        *(const char **) opt->field = value;
        return 0;

    case OPT_CALL:
        return opt->set(value);

    case OPT_COUNT:
    case OPT_NUMBER:
        break;
    }

    if (str_number((str_t) { value, strlen(value) }, &number) == -1
        || !(number >= opt->least && number <= OPT_MOST))
    {
        return -1;
    }

    if (opt->type == OPT_NUMBER) {
        *(double *) opt->field = number;
        return 0;
    }

    *(uint64_t *) opt->field = (uint64_t) number;

    return number == (double) (uint64_t) number ? 0 : -1;
}
