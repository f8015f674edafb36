
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Cohere's chat, version 2.
 * Source: docs.cohere.com/reference/chat-stream
 */


#include "ngx_llm_answer.h"
#include "ngx_llm_api.h"


static const ngx_llm_path_t  ngx_llm_cohere_paths[] = {
    { "/v2/chat", -1 },
    { NULL, 0 }
};


static const ngx_llm_tell_t  ngx_llm_cohere_tells[] = {
    { "type", "message-*" },
    { "type", "content-*" },
    { "type", "tool-*" },
    { "usage.billed_units", NULL },
    { NULL, NULL }
};


static const ngx_llm_json_row_t  ngx_llm_cohere_request[] = {
    NGX_LLM_REQ_HEAD_ROWS,
    { "max_tokens", NGX_LLM_REQ_MAX_TOKENS },
    NGX_LLM_REQ_MESSAGES_ROWS,
    NGX_LLM_REQ_CALLS_ROWS,
    NGX_LLM_REQ_PARTS_ROWS,
    { "messages[].tool_plan", NGX_LLM_REQ_TEXT },
    { "messages[].content[].document", NGX_LLM_REQ_RAW },
    { "documents", NGX_LLM_REQ_RAW },
    NGX_LLM_REQ_TOOLS_ROWS,
    { "response_format", NGX_LLM_REQ_RAW }
};


/* tokens are what the model saw; they stand behind the billed_units */

#define NGX_LLM_COHERE_USAGE_ROWS(at)                                         \
    { at "usage", NGX_LLM_ANS_USAGE },                                        \
    { at "usage.billed_units.input_tokens", NGX_LLM_ANS_PROMPT },             \
    { at "usage.billed_units.output_tokens", NGX_LLM_ANS_COMPLETION },        \
    { at "usage.tokens.input_tokens", NGX_LLM_ANS_PROMPT },                   \
    { at "usage.tokens.output_tokens", NGX_LLM_ANS_COMPLETION },              \
    { at "usage.cached_tokens", NGX_LLM_ANS_CACHED }


static const ngx_llm_json_row_t  ngx_llm_cohere_answer[] = {
    { "type", NGX_LLM_ANS_TYPE },

    { "delta.message.content.text", NGX_LLM_ANS_CONTENT },
    { "delta.message.content.thinking", NGX_LLM_ANS_CONTENT },
    { "delta.message.tool_plan", NGX_LLM_ANS_CONTENT },
    { "delta.message.tool_calls.function.name", NGX_LLM_ANS_CONTENT },
    { "delta.message.tool_calls.function.arguments", NGX_LLM_ANS_CONTENT },

    { "message.content[].text", NGX_LLM_ANS_CONTENT },
    { "message.content[].thinking", NGX_LLM_ANS_CONTENT },
    { "message.tool_plan", NGX_LLM_ANS_CONTENT },
    { "message.tool_calls[].function.name", NGX_LLM_ANS_CONTENT },
    { "message.tool_calls[].function.arguments", NGX_LLM_ANS_CONTENT },

    { "delta.finish_reason", NGX_LLM_ANS_FINISH },
    { "finish_reason", NGX_LLM_ANS_FINISH },
    NGX_LLM_COHERE_USAGE_ROWS("delta."),
    NGX_LLM_COHERE_USAGE_ROWS(""),

    { "delta.error", NGX_LLM_ANS_ERROR },
    NGX_LLM_ANS_ERROR_ROWS
};


/* version 1 has ERROR_TOXIC, behind gateways too */

static const ngx_llm_word_t  ngx_llm_cohere_finishes[] = {
    { "ERROR_TOXIC", NGX_LLM_EV_FINISH|NGX_LLM_EV_FILTER },
    { "ERROR", NGX_LLM_EV_FINISH|NGX_LLM_EV_ERROR },
    { "TIMEOUT", NGX_LLM_EV_FINISH|NGX_LLM_EV_ERROR },
    { NULL, 0 }
};


static const ngx_llm_word_t  ngx_llm_cohere_types[] = {
    { "message-end", NGX_LLM_EV_END },
    { "error", NGX_LLM_EV_ERROR },
    { NULL, 0 }
};


const ngx_llm_api_t  ngx_llm_api_cohere_chat = {
    .dialect = NGX_LLM_DIALECT_COHERE,
    .name = "chat",
    .framing = NGX_LLM_FRAME_SSE,
    .paths = ngx_llm_cohere_paths,
    .tells = ngx_llm_cohere_tells,
    .request = ngx_llm_json_table(ngx_llm_cohere_request),
    .answer = ngx_llm_json_table(ngx_llm_cohere_answer),
    .finishes = ngx_llm_cohere_finishes,
    .types = ngx_llm_cohere_types,
    .error_event = NGX_LLM_ERROR_EVENT,
    .error_body = "{\"message\":\"%m\"}",
    .faults = ngx_llm_openai_faults
};
