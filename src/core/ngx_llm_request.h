
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The facts of a request: what is asked for, and how large it is.
 */


#ifndef _NGX_LLM_REQUEST_H_INCLUDED_
#define _NGX_LLM_REQUEST_H_INCLUDED_


#include "ngx_llm_dialect.h"
#include "ngx_llm_estimate.h"


typedef struct {
    /*
     * model asked for, as much as fits; from the path where that names it
     * (the caller sets it then); empty when there is none
     */
    unsigned char         model[NGX_LLM_MAX_MODEL];
    size_t                model_len;

    /* 1, 0, or the dialect's default (Ollama streams by default) */
    int                   stream;

    /* largest completion asked for, n not multiplied in; -1: none named */
    int64_t               max_output;

    /* choices asked for, for all prompts together, at least 1 */
    int64_t               n;

    /* stream_options.include_usage: -1 absent, 0 false or null, 1 true */
    int                   include_usage;

    /*
     * offsets in the body for ngx_llm_request_ask_usage(); 0 is absent:
     * just behind stream_options' "{" (or its null), behind include_usage's
     * value (false or null), and behind the document's last "}"
     */
    size_t                options_end;
    size_t                include_end;
    size_t                root_end;
    unsigned              options_null:1;
    unsigned              include_null:1;

    /* text of the prompt: messages, system, input, tools' schemas.. */
    ngx_llm_text_t        text;

    /* parts that are not text; their bytes are not in the text */
    uint32_t              images;
    uint32_t              audios;

    /* messages, turns or input items: each costs some tokens of framing */
    uint32_t              messages;

    /* tokens of the prompt that are given by their ids */
    uint32_t              tokens;

    /*
     * hash of model (unless the path names it), system prompt, tools and
     * everything up to the first user turn, that turn included: the same for
     * all turns of one conversation; 0 when there is no prompt.  Messages
     * count by who says what in them, so that a client may move its cache
     * marks or write a text as a list of one part.
     */
    uint64_t              prefix_hash;
} ngx_llm_request_t;


/* bytes [start..end) of a body give way to others */

typedef struct {
    size_t                start;
    size_t                end;

    /* a constant */
    ngx_llm_str_t         with;
} ngx_llm_edit_t;


/*
 * Reads a request body.  api NULL: the union of all dialects' rows.
 * NGX_LLM_INVALID with *reason when it is no JSON object, has a duplicate of
 * a key that decides (model, stream, max_tokens and its kind, n,
 * stream_options), one of a wrong type or out of range; NGX_LLM_TOO_LARGE
 * when nested too deep.  *request is defined, but not to be used, then.
 * A null is "not named", and so is a num_predict below 0; of several maxima
 * the largest counts, 0 is one.
 */

ngx_llm_rc_e ngx_llm_request_parse(ngx_llm_request_t *request,
    const ngx_llm_api_t *api, const unsigned char *body, size_t len,
    ngx_llm_scratch_t *scratch, const char **reason);

/*
 * What makes stream_options.include_usage of the body true: merged into an
 * existing object, its other keys kept; false or null overridden; every
 * other byte as it was.  An edit of nothing if it is true.
 */

ngx_llm_edit_t ngx_llm_request_ask_usage(const ngx_llm_request_t *request,
    const unsigned char *body, size_t len);

/*
 * Writes the body with that edit.  out may be the body itself; it has room
 * for what is added.  Returns the new length.
 */

size_t ngx_llm_request_edit(const ngx_llm_edit_t *edit,
    const unsigned char *body, size_t len, unsigned char *out);

/*
 * Tokens that images and audio parts, the messages' framing and tokens given
 * by their ids stand for: what no ratio corrects.
 */

int64_t ngx_llm_request_part_tokens(const ngx_llm_request_t *request,
    const ngx_llm_media_t *media);


#endif /* _NGX_LLM_REQUEST_H_INCLUDED_ */
