
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * The API that the first byte of a request's seed names: a letter from "a".
 */


#ifndef _REQUEST_API_H_INCLUDED_
#define _REQUEST_API_H_INCLUDED_


#include "ngx_llm_api.h"


static inline const ngx_llm_api_t *
request_api(unsigned char letter)
{
    static const ngx_llm_api_t *const  apis[] = {
        NULL,                               /* a: nothing is known */
        &ngx_llm_api_openai_chat,           /* b */
        &ngx_llm_api_openai_completions,    /* c */
        &ngx_llm_api_openai_responses,      /* d */
        &ngx_llm_api_openai_embeddings,     /* e */
        &ngx_llm_api_anthropic_messages,    /* f */
        &ngx_llm_api_gemini_generate,       /* g */
        &ngx_llm_api_ollama_chat,           /* h */
        &ngx_llm_api_ollama_generate,       /* i */
        &ngx_llm_api_ollama_embed,          /* j */
        &ngx_llm_api_ernie_chat,            /* k */
        &ngx_llm_api_cohere_chat            /* l */
    };

    return apis[(unsigned char) (letter - 'a')
                % (sizeof(apis) / sizeof(apis[0]))];
}


#endif /* _REQUEST_API_H_INCLUDED_ */
