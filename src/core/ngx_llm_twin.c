
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <stdlib.h>
#include <string.h>

#include "ngx_llm_twin.h"


static int ngx_llm_twin_is(const ngx_llm_twin_t *twin,
    const unsigned char *event, size_t before, const unsigned char *rest,
    size_t behind);


void
ngx_llm_twin_learn(ngx_llm_twin_t *twin, const unsigned char *event,
    size_t len, const ngx_llm_str_t *text, uint32_t nth)
{
    size_t                before, behind;
    unsigned char        *bytes;
    const unsigned char  *rest;

    rest = text->data + text->len;
    before = text->data - event;
    behind = len - before - text->len;

    if (twin->vain == NGX_LLM_TWIN_VAIN
        || before + behind > NGX_LLM_TWIN_BYTES)
    {
        return;
    }

    if (twin->bytes != NULL) {

        /* a text with escapes is not what makes it another one */

        if (ngx_llm_twin_is(twin, event, before, rest, behind)) {
            return;
        }

        twin->vain = (nth - twin->event <= NGX_LLM_TWIN_WORTH)
                     ? twin->vain + 1 : 0;

        if (twin->vain == NGX_LLM_TWIN_VAIN) {
            ngx_llm_twin_leave(twin);
            return;
        }
    }

    bytes = realloc(twin->bytes, before + behind);
    if (bytes == NULL) {
        return;
    }

    memcpy(bytes, event, before);
    memcpy(bytes + before, rest, behind);

    twin->bytes = bytes;
    twin->before = before;
    twin->behind = behind;
    twin->event = nth;
}


void
ngx_llm_twin_leave(ngx_llm_twin_t *twin)
{
    free(twin->bytes);
    twin->bytes = NULL;
}


static int
ngx_llm_twin_is(const ngx_llm_twin_t *twin, const unsigned char *event,
    size_t before, const unsigned char *rest, size_t behind)
{
    return twin->before == before
           && twin->behind == behind
           && memcmp(twin->bytes, event, before) == 0
           && memcmp(twin->bytes + before, rest, behind) == 0;
}
