
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * What is read where neither path nor configuration tell the API.
 */


#include "ngx_llm_answer.h"
#include "ngx_llm_api.h"


/*
 * The rows of all dialects but the images of Gemini's contents: whoever
 * proxies Gemini under a path of its own names the dialect.
 */

static const ngx_llm_json_row_t  ngx_llm_any_request[] = {
    NGX_LLM_REQ_HEAD_ROWS,
    NGX_LLM_REQ_OPTIONS_ROWS,
    { "n", NGX_LLM_REQ_N },
    { "best_of", NGX_LLM_REQ_BEST_OF },
    { "max_tokens", NGX_LLM_REQ_MAX_TOKENS },
    { "max_completion_tokens", NGX_LLM_REQ_MAX_COMPLETION_TOKENS },
    { "max_output_tokens", NGX_LLM_REQ_MAX_OUTPUT_TOKENS },
    { "options.num_predict", NGX_LLM_REQ_NUM_PREDICT },
    { "*.maxOutputTokens", NGX_LLM_REQ_MAX_OUTPUT_CAMEL },

    NGX_LLM_REQ_MESSAGES_ROWS,
    NGX_LLM_REQ_CALLS_ROWS,
    NGX_LLM_REQ_PARTS_ROWS,
    { "messages[].images[]", NGX_LLM_REQ_IMAGE },
    { "messages[].content[].source", NGX_LLM_REQ_IMAGE },
    { "messages[].content[].thinking", NGX_LLM_REQ_TEXT },
    { "messages[].content[].input", NGX_LLM_REQ_RAW },
    { "messages[].content[].content", NGX_LLM_REQ_TEXT },
    { "messages[].content[].content[].text", NGX_LLM_REQ_TEXT },

    { "system", NGX_LLM_REQ_TEXT },
    { "system", NGX_LLM_REQ_PREFIX },
    { "system[].text", NGX_LLM_REQ_TEXT },
    { "instructions", NGX_LLM_REQ_TEXT },
    { "instructions", NGX_LLM_REQ_PREFIX },

    { "prompt", NGX_LLM_REQ_TEXT },
    { "prompt", NGX_LLM_REQ_MESSAGE },
    { "prompt[]", NGX_LLM_REQ_TEXT },
    { "prompt[]", NGX_LLM_REQ_PROMPT },
    { "prompt[][]", NGX_LLM_REQ_TEXT },
    { "suffix", NGX_LLM_REQ_TEXT },
    { "images[]", NGX_LLM_REQ_IMAGE },

    { "input", NGX_LLM_REQ_TEXT },
    { "input", NGX_LLM_REQ_MESSAGE },
    { "input[]", NGX_LLM_REQ_TEXT },
    { "input[]", NGX_LLM_REQ_MESSAGE },
    { "input[][]", NGX_LLM_REQ_TEXT },
    { "input[].role", NGX_LLM_REQ_ROLE },
    { "input[].content", NGX_LLM_REQ_TEXT },
    { "input[].content[].text", NGX_LLM_REQ_TEXT },
    { "input[].content[].image_url", NGX_LLM_REQ_IMAGE },
    { "input[].content[].file_data", NGX_LLM_REQ_IMAGE },
    { "input[].arguments", NGX_LLM_REQ_TEXT },
    { "input[].output", NGX_LLM_REQ_TEXT },

    { "systemInstruction.parts[].text", NGX_LLM_REQ_TEXT },
    { "contents[]", NGX_LLM_REQ_MESSAGE },
    { "contents[].role", NGX_LLM_REQ_ROLE },
    { "contents[].parts[].text", NGX_LLM_REQ_TEXT },

    NGX_LLM_REQ_TOOLS_ROWS,
    { "functions", NGX_LLM_REQ_RAW },
    { "response_format", NGX_LLM_REQ_RAW }
};


static const ngx_llm_json_row_t  ngx_llm_any_answer[] = {
    NGX_LLM_ANS_ERROR_ROWS
};


/* an error in a form that each of the usual clients finds its keys in */

const ngx_llm_api_t  ngx_llm_api_any = {
    .dialect = NGX_LLM_DIALECT_AUTO,
    .name = "",
    .framing = NGX_LLM_FRAME_SSE,
    .error_alike = 1,
    .request = ngx_llm_json_table(ngx_llm_any_request),
    .answer = ngx_llm_json_table(ngx_llm_any_answer),
    .error_event = NGX_LLM_ERROR_EVENT,
    .error_body = "{\"type\":\"error\",\"error\":{\"message\":\"%m\","
                  "\"type\":\"%t\",\"param\":null,\"code\":\"%c\"}}",
    .faults = ngx_llm_openai_faults
};
