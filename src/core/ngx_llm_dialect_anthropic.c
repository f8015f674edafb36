
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Anthropic's messages.
 * Source: docs.anthropic.com/en/api/messages-streaming
 */


#include "ngx_llm_answer.h"
#include "ngx_llm_api.h"


/* input_tokens are those that no cache had a part in */

#define NGX_LLM_ANTHROPIC_PROMPT_ROWS(at)                                     \
    { at, NGX_LLM_ANS_USAGE },                                                \
    { at ".input_tokens", NGX_LLM_ANS_PROMPT },                               \
    { at ".cache_creation_input_tokens", NGX_LLM_ANS_PROMPT_MORE },           \
    { at ".cache_read_input_tokens", NGX_LLM_ANS_CACHED }


static const ngx_llm_path_t  ngx_llm_anthropic_paths[] = {
    { "/messages", -1 },
    { NULL, 0 }
};


static const ngx_llm_tell_t  ngx_llm_anthropic_tells[] = {
    { "type", "message" },
    { "type", "message_*" },
    { "type", "content_block_*" },
    { NULL, NULL }
};


static const ngx_llm_json_row_t  ngx_llm_anthropic_request[] = {
    NGX_LLM_REQ_HEAD_ROWS,
    { "max_tokens", NGX_LLM_REQ_MAX_TOKENS },
    { "system", NGX_LLM_REQ_TEXT },
    { "system", NGX_LLM_REQ_PREFIX },
    { "system[].text", NGX_LLM_REQ_TEXT },
    NGX_LLM_REQ_MESSAGES_ROWS,
    { "messages[].content[].source", NGX_LLM_REQ_IMAGE },
    { "messages[].content[].thinking", NGX_LLM_REQ_TEXT },
    { "messages[].content[].name", NGX_LLM_REQ_TEXT },
    { "messages[].content[].input", NGX_LLM_REQ_RAW },
    { "messages[].content[].content", NGX_LLM_REQ_TEXT },
    { "messages[].content[].content[].text", NGX_LLM_REQ_TEXT },
    { "messages[].content[].content[].source", NGX_LLM_REQ_IMAGE },
    NGX_LLM_REQ_TOOLS_ROWS,
    { "output_format", NGX_LLM_REQ_RAW }
};


/*
 * message_start has an output_tokens too, of a message just begun: with it,
 * an answer that breaks off would look as if it had reported its end.
 */

static const ngx_llm_json_row_t  ngx_llm_anthropic_answer[] = {
    { "type", NGX_LLM_ANS_TYPE },
    { "model", NGX_LLM_ANS_MODEL },
    { "message.model", NGX_LLM_ANS_MODEL },

    { "delta.text", NGX_LLM_ANS_CONTENT },
    { "delta.thinking", NGX_LLM_ANS_CONTENT },
    { "delta.partial_json", NGX_LLM_ANS_CONTENT },
    { "content_block.text", NGX_LLM_ANS_CONTENT },
    { "content_block.thinking", NGX_LLM_ANS_CONTENT },
    { "content_block.name", NGX_LLM_ANS_CONTENT },
    { "content_block.data", NGX_LLM_ANS_PAYLOAD },

    { "content[].text", NGX_LLM_ANS_CONTENT },
    { "content[].thinking", NGX_LLM_ANS_CONTENT },
    { "content[].name", NGX_LLM_ANS_CONTENT },
    { "content[].input", NGX_LLM_ANS_CONTENT_RAW },
    { "content[].data", NGX_LLM_ANS_PAYLOAD },

    { "delta.stop_reason", NGX_LLM_ANS_FINISH },
    { "stop_reason", NGX_LLM_ANS_FINISH },

    NGX_LLM_ANTHROPIC_PROMPT_ROWS("message.usage"),
    NGX_LLM_ANTHROPIC_PROMPT_ROWS("usage"),
    { "usage.output_tokens", NGX_LLM_ANS_COMPLETION },

    NGX_LLM_ANS_ERROR_ROWS
};


static const ngx_llm_word_t  ngx_llm_anthropic_finishes[] = {
    { "refusal", NGX_LLM_EV_FINISH|NGX_LLM_EV_FILTER },
    { NULL, 0 }
};


static const ngx_llm_word_t  ngx_llm_anthropic_types[] = {
    { "message_stop", NGX_LLM_EV_END },
    { "error", NGX_LLM_EV_ERROR },
    { NULL, 0 }
};


static const ngx_llm_fault_t  ngx_llm_anthropic_faults[] = {
    { "invalid_request_error", "invalid_request" },
    { "request_too_large", "request_too_large" },
    { "rate_limit_error", "rate_limit_exceeded" },
    { "overloaded_error", "overloaded" },
    { "api_error", "upstream_error" },
    { "timeout_error", "timeout" },
    { "api_error", "cancelled" },
    { "overloaded_error", "shutdown" }
};


const ngx_llm_api_t  ngx_llm_api_anthropic_messages = {
    .dialect = NGX_LLM_DIALECT_ANTHROPIC,
    .name = "messages",
    .framing = NGX_LLM_FRAME_SSE,
    .cached_apart = 1,
    .error_alike = 1,
    .paths = ngx_llm_anthropic_paths,
    .tells = ngx_llm_anthropic_tells,
    .request = ngx_llm_json_table(ngx_llm_anthropic_request),
    .answer = ngx_llm_json_table(ngx_llm_anthropic_answer),
    .finishes = ngx_llm_anthropic_finishes,
    .types = ngx_llm_anthropic_types,
    .error_event = NGX_LLM_ERROR_EVENT,
    .error_body = "{\"type\":\"error\",\"error\":{\"type\":\"%t\","
                  "\"message\":\"%m\"}}",
    .faults = ngx_llm_anthropic_faults
};
