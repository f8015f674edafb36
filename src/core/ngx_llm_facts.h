
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * What one event or body of an answer says, by the rows of its API.
 */


#ifndef _NGX_LLM_FACTS_H_INCLUDED_
#define _NGX_LLM_FACTS_H_INCLUDED_


#include "ngx_llm_answer.h"
#include "ngx_llm_api.h"


/* the place of a count in counts[] */

#define ngx_llm_facts_count(id)  ((id) - NGX_LLM_ANS_PROMPT)


/* a short word of the event; cut where it does not fit */

typedef struct {
    size_t                 len;
    unsigned char          data[NGX_LLM_MAX_ERROR];
} ngx_llm_facts_word_t;


typedef struct {
    const ngx_llm_api_t   *api;
    const unsigned char   *doc;
    size_t                 len;

    unsigned               bits;

    /* there is a usage object; an array of choices; a choice */
    unsigned               usage:1;
    unsigned               choices:1;
    unsigned               choice:1;

    /* no shape can be made of it */
    unsigned               shapeless:1;

    int64_t                counts[NGX_LLM_ANSWER_COUNTS];
    ngx_llm_text_t         content;

    /* where the raw content began that has not ended */
    size_t                 raw;

    ngx_llm_facts_word_t   model;
    ngx_llm_facts_word_t   finish;
    ngx_llm_facts_word_t   error_type;
    ngx_llm_facts_word_t   error_code;

    size_t                 nholes;
    ngx_llm_hole_t         holes[NGX_LLM_SHAPE_HOLES];
} ngx_llm_facts_t;


/*
 * Reads a document by the API's rows.  bits are added to those that are set;
 * everything else is set here.  What was read before an error is to be
 * ignored.
 */

ngx_llm_rc_e ngx_llm_facts_read(ngx_llm_facts_t *facts,
    const ngx_llm_api_t *api, ngx_llm_str_t doc, ngx_llm_scratch_t *scratch);


#endif /* _NGX_LLM_FACTS_H_INCLUDED_ */
