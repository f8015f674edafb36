
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stddef.h>
#include <string.h>

#include "sim.h"


/*
 * X-LLM-Sim: key=value; key="value; with semicolons"; ...  A key that is not
 * known or a value that is not allowed is an error of the test, and is
 * answered with a 400.  The field may come several times.  Keys behind on=PORT
 * are for that server alone, until the next one.
 */

typedef enum {
    SIM_ORDER_COUNT = 0,
    SIM_ORDER_MS,
    SIM_ORDER_CHOICE,
    SIM_ORDER_POSITION,
    SIM_ORDER_TEXT,
    SIM_ORDER_BYTES                         /* %XX is one of them */
} sim_order_type_e;

typedef struct {
    const char             *word;
    int                     value;
} sim_order_word_t;

typedef struct {
    const char             *key;
    sim_order_type_e        type;
    size_t                  offset;
    const sim_order_word_t *words;
} sim_order_key_t;


static const char *sim_order_field(sim_order_t *o, str_t value,
    int64_t port);
static const char *sim_order_set(sim_order_t *o, str_t key, str_t value);
static int sim_order_next(str_t *in, str_t *key, str_t *value);
static size_t sim_order_value(str_t in, size_t i);
static const char *sim_order_word(int *field, str_t value,
    const sim_order_word_t *word);
static void sim_order_bytes(buf_t *b, str_t value);
static int sim_order_hex(char c);


static const sim_order_word_t  sim_order_faults[] = {
    { "reset",      SIM_FAULT_RESET },
    { "close",      SIM_FAULT_CLOSE },
    { "stall",      SIM_FAULT_STALL },
    { "comments",   SIM_FAULT_COMMENTS },
    { "error",      SIM_FAULT_ERROR },
    { "error-stay", SIM_FAULT_ERROR_STAY },
    { "filter",     SIM_FAULT_FILTER },
    { "midevent",   SIM_FAULT_MIDEVENT },
    { "midevent-reset", SIM_FAULT_MIDEVENT_RESET },
    { "badchunk",   SIM_FAULT_BADCHUNK },
    { "midchunk",   SIM_FAULT_MIDCHUNK },
    { "midchunk-reset", SIM_FAULT_MIDCHUNK_RESET },
    { "end",        SIM_FAULT_END },
    { NULL, 0 }
};


static const sim_order_word_t  sim_order_gzips[] = {
    { "0",          SIM_GZIP_NONE },
    { "1",          SIM_GZIP_STORED },
    { "lie",        SIM_GZIP_LIE },
    { NULL, 0 }
};


static const sim_order_word_t  sim_order_eols[] = {
    { "lf",         SIM_EOL_LF },
    { "crlf",       SIM_EOL_CRLF },
    { "cr",         SIM_EOL_CR },
    { NULL, 0 }
};


static const sim_order_word_t  sim_order_https[] = {
    { "1.0",        0 },
    { "1.1",        1 },
    { NULL, 0 }
};


#define sim_order_offset(field)  offsetof(sim_order_t, field)

static const sim_order_key_t  sim_order_keys[] = {

    { "fault", SIM_ORDER_CHOICE, sim_order_offset(fault), sim_order_faults },
    { "at", SIM_ORDER_POSITION, sim_order_offset(at), NULL },
    { "only", SIM_ORDER_COUNT, sim_order_offset(only), NULL },
    { "on", SIM_ORDER_COUNT, sim_order_offset(on), NULL },
    { "status", SIM_ORDER_COUNT, sim_order_offset(status), NULL },
    { "retry_after", SIM_ORDER_MS, sim_order_offset(retry_after), NULL },
    { "tokens", SIM_ORDER_COUNT, sim_order_offset(tokens), NULL },
    { "words", SIM_ORDER_COUNT, sim_order_offset(words), NULL },
    { "say", SIM_ORDER_BYTES, sim_order_offset(say), NULL },
    { "line", SIM_ORDER_COUNT, sim_order_offset(line), NULL },
    { "lines", SIM_ORDER_COUNT, sim_order_offset(lines), NULL },
    { "itl", SIM_ORDER_MS, sim_order_offset(itl_ms), NULL },
    { "ttft", SIM_ORDER_MS, sim_order_offset(ttft_ms), NULL },
    { "split", SIM_ORDER_COUNT, sim_order_offset(split), NULL },
    { "eol", SIM_ORDER_CHOICE, sim_order_offset(eol), sim_order_eols },
    { "bom", SIM_ORDER_COUNT, sim_order_offset(bom), NULL },
    { "http", SIM_ORDER_CHOICE, sim_order_offset(minor), sim_order_https },
    { "length", SIM_ORDER_COUNT, sim_order_offset(length), NULL },
    { "gzip", SIM_ORDER_CHOICE, sim_order_offset(gzip), sim_order_gzips },
    { "tool", SIM_ORDER_COUNT, sim_order_offset(tool), NULL },
    { "usage", SIM_ORDER_TEXT, sim_order_offset(usage), NULL },
    { "extra", SIM_ORDER_TEXT, sim_order_offset(extra), NULL },
    { NULL, SIM_ORDER_COUNT, 0, NULL }
};


void
sim_order_init(sim_order_t *o)
{
    memset(o, 0, sizeof(sim_order_t));

    o->only = SIM_NONE;
    o->status = SIM_NONE;
    o->tokens = SIM_NONE;
    o->words = SIM_NONE;
    o->split = SIM_NONE;
    o->length = SIM_NONE;
    o->itl_ms = SIM_NONE;
    o->ttft_ms = SIM_NONE;
    o->retry_after = SIM_NONE;
    o->minor = 1;
}


const char *
sim_order_parse(sim_order_t *o, const http_head_t *h, int64_t port)
{
    size_t       i;
    const char  *error;

    for (i = 0; i < h->nfields; i++) {

        if (!str_case_eq(h->fields[i].name, "x-llm-sim")) {
            continue;
        }

        error = sim_order_field(o, h->fields[i].value, port);
        if (error != NULL) {
            return error;
        }
    }

    return NULL;
}


static const char *
sim_order_field(sim_order_t *o, str_t in, int64_t port)
{
    str_t        key, value;
    const char  *error;
    sim_order_t  others;

    sim_order_init(&others);
    o->on = 0;

    error = NULL;

    while (sim_order_next(&in, &key, &value)) {

        if (key.len == 0 && value.len == 0) {
            continue;
        }

        /* what another server is to do is checked, and not done */

        error = sim_order_set(o->on == 0 || o->on == port || str_eq(key, "on")
                              ? o : &others, key, value);
        if (error != NULL) {
            break;
        }
    }

    sim_order_free(&others);

    return error;
}


/* cuts the next key=value off */

static int
sim_order_next(str_t *in, str_t *key, str_t *value)
{
    size_t  i, start;

    if (in->len == 0) {
        return 0;
    }

    for (i = 0; i < in->len && in->data[i] != '=' && in->data[i] != ';'; i++) {
        /* void */
    }

    *key = str_trim((str_t) { in->data, i });

    start = i + (i < in->len && in->data[i] == '=');

    i = sim_order_value(*in, start);

    *value = str_trim((str_t) { in->data + start, i - start });

    if (value->len > 1 && value->data[0] == '"') {
        value->data++;
        value->len -= 2;
    }

    i += (i < in->len);

    in->data += i;
    in->len -= i;

    return 1;
}


/*
 * The place of the semicolon that ends the value, which is not one inside of
 * quotes, nor of JSON: quotes there are JSON's own.
 */

static size_t
sim_order_value(str_t in, size_t i)
{
    int  depth, quoted, string;

    depth = 0;
    quoted = 0;
    string = 0;

    for ( /* void */ ; i < in.len; i++) {

        switch (in.data[i]) {

        case '\\':
            i += string;
            break;

        case '"':

            if (depth) {
                string = !string;

            } else {
                quoted = !quoted;
            }

            break;

        case '{':
        case '[':
            depth += !string;
            break;

        case '}':
        case ']':
            depth -= !string;
            break;

        case ';':

            if (depth <= 0 && !quoted) {
                return i;
            }

            break;
        }
    }

    return in.len;
}


static const char *
sim_order_set(sim_order_t *o, str_t key, str_t value)
{
    char                   *field;
    double                  number;
    const sim_order_key_t  *k;

    for (k = sim_order_keys; k->key && !str_eq(key, k->key); k++) {
        /* void */
    }

    if (k->key == NULL) {
        return "X-LLM-Sim: unknown key";
    }

    field = (char *) o + k->offset;

    switch (k->type) {

    case SIM_ORDER_TEXT:
        buf_clear((buf_t *) field);
        buf_add((buf_t *) field, value.data, value.len);
        return NULL;

    case SIM_ORDER_BYTES:
        buf_clear((buf_t *) field);
        sim_order_bytes((buf_t *) field, value);
        return NULL;

    case SIM_ORDER_CHOICE:
        return sim_order_word((int *) field, value, k->words);

    case SIM_ORDER_POSITION:

        if (str_eq(value, "header")) {
            *(int64_t *) field = SIM_AT_HEADER;
            return NULL;
        }

        if (str_eq(value, "first")) {
            *(int64_t *) field = SIM_AT_FIRST;
            return NULL;
        }

        break;

    case SIM_ORDER_COUNT:
    case SIM_ORDER_MS:
        break;
    }

    if (str_number(value, &number) == -1 || !(number >= 0 && number < 1e12)) {
        return "X-LLM-Sim: the value is not a number";
    }

    if (k->type == SIM_ORDER_MS) {
        *(double *) field = number;

    } else {
        *(int64_t *) field = (int64_t) number;
    }

    return NULL;
}


static const char *
sim_order_word(int *field, str_t value, const sim_order_word_t *word)
{
    for ( /* void */ ; word->word; word++) {

        if (str_eq(value, word->word)) {
            *field = word->value;
            return NULL;
        }
    }

    return "X-LLM-Sim: the value is not one of those allowed";
}


static void
sim_order_bytes(buf_t *b, str_t value)
{
    int     high, low;
    char    c;
    size_t  i;

    for (i = 0; i < value.len; i++) {
        c = value.data[i];

        if (c == '%' && value.len - i > 2) {
            high = sim_order_hex(value.data[i + 1]);
            low = sim_order_hex(value.data[i + 2]);

            if (high >= 0 && low >= 0) {
                c = (char) (high << 4 | low);
                i += 2;
            }
        }

        buf_add(b, &c, 1);
    }
}


static int
sim_order_hex(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }

    c |= 0x20;

    return (c >= 'a' && c <= 'f') ? c - 'a' + 10 : -1;
}


void
sim_order_free(sim_order_t *o)
{
    buf_free(&o->say);
    buf_free(&o->usage);
    buf_free(&o->extra);
}
