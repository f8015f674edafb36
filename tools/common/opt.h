
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#ifndef TOOLS_OPT_H
#define TOOLS_OPT_H


/*
 * Long options, "--name value" or "--name=value", by a table that ends with
 * a NULL name.
 */

typedef enum {
    OPT_FLAG = 0,                   /* int: 1, without a value */
    OPT_COUNT,                      /* uint64_t */
    OPT_NUMBER,                     /* double */
    OPT_TEXT,                       /* const char * */
    OPT_CALL                        /* set() answers 0, or -1: not allowed */
} opt_type_e;

typedef struct {
    const char    *name;
    opt_type_e     type;
    void          *field;
    double         least;           /* of a count or number */
    int          (*set)(const char *value);
} opt_t;


/* -1: go on; else the exit code: 0 after --help, 2 after a message */
int opt_parse(const opt_t *opts, const char *help, int argc, char **argv);


#endif /* TOOLS_OPT_H */
