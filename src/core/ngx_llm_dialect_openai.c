
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * OpenAI's APIs, and what speaks them: vLLM, SGLang, TGI, llama.cpp, DeepSeek,
 * Mistral and others.
 * Source: platform.openai.com/docs/api-reference
 */


#include "ngx_llm_answer.h"
#include "ngx_llm_api.h"


#define NGX_LLM_OPENAI_ERROR_BODY                                             \
    "{\"error\":{\"message\":\"%m\",\"type\":\"%t\",\"param\":null,"          \
    "\"code\":\"%c\"}}"

/*
 * The official clients raise what has an "error" on its top level, and pass
 * on a response.failed like any event: this one is both.
 */

#define NGX_LLM_OPENAI_FAILED_EVENT                                           \
    "event: response.failed\n"                                                \
    "data: {\"type\":\"response.failed\",\"sequence_number\":0,"              \
    "\"response\":{\"id\":\"\",\"object\":\"response\",\"created_at\":0,"     \
    "\"status\":\"failed\",\"error\":{\"code\":\"%c\",\"message\":\"%m\"},"   \
    "\"incomplete_details\":null,\"output\":[],\"usage\":null},"              \
    "\"error\":{\"type\":\"%t\",\"message\":\"%m\",\"code\":\"%c\"}}\n\n"


/* old vLLM: {"object":"error","type":..,"code":..} */

#define NGX_LLM_OPENAI_CHOICES_ROWS                                           \
    { "id", NGX_LLM_ANS_VARIES },                                             \
    { "object", NGX_LLM_ANS_TYPE },                                           \
    { "created", NGX_LLM_ANS_VARIES },                                        \
    { "model", NGX_LLM_ANS_MODEL },                                           \
    { "choices", NGX_LLM_ANS_CHOICES },                                       \
    { "choices[]", NGX_LLM_ANS_CHOICE },                                      \
    { "choices[].finish_reason", NGX_LLM_ANS_FINISH },                        \
    { "obfuscation", NGX_LLM_ANS_VARIES },                                    \
    { "type", NGX_LLM_ANS_ERROR_TYPE },                                       \
    { "code", NGX_LLM_ANS_ERROR_CODE }


const ngx_llm_fault_t  ngx_llm_openai_faults[] = {
    { "invalid_request_error", "invalid_request" },
    { "invalid_request_error", "request_too_large" },
    { "rate_limit_error", "rate_limit_exceeded" },
    { "server_error", "overloaded" },
    { "server_error", "upstream_error" },
    { "server_error", "timeout" },
    { "server_error", "cancelled" },
    { "server_error", "shutdown" }
};


static const ngx_llm_word_t  ngx_llm_openai_finishes[] = {
    { "content_filter", NGX_LLM_EV_FINISH|NGX_LLM_EV_FILTER },
    { NULL, 0 }
};


static const ngx_llm_word_t  ngx_llm_openai_types[] = {
    { "error", NGX_LLM_EV_ERROR },
    { NULL, 0 }
};


/* chat */

static const ngx_llm_path_t  ngx_llm_openai_chat_paths[] = {
    { "/chat/completions", -1 },
    { NULL, 0 }
};


static const ngx_llm_tell_t  ngx_llm_openai_chat_tells[] = {
    { "object", "chat.completion*" },
    { "choices[].delta", NULL },
    { "choices[].message", NULL },
    { NULL, NULL }
};


static const ngx_llm_json_row_t  ngx_llm_openai_chat_request[] = {
    NGX_LLM_REQ_HEAD_ROWS,
    NGX_LLM_REQ_OPTIONS_ROWS,
    { "n", NGX_LLM_REQ_N },
    { "max_tokens", NGX_LLM_REQ_MAX_TOKENS },
    { "max_completion_tokens", NGX_LLM_REQ_MAX_COMPLETION_TOKENS },
    NGX_LLM_REQ_MESSAGES_ROWS,
    NGX_LLM_REQ_CALLS_ROWS,
    NGX_LLM_REQ_PARTS_ROWS,
    { "messages[].content[].refusal", NGX_LLM_REQ_TEXT },
    { "messages[].refusal", NGX_LLM_REQ_TEXT },
    { "messages[].name", NGX_LLM_REQ_TEXT },
    { "messages[].function_call", NGX_LLM_REQ_RAW },
    { "messages[].tool_calls[].custom", NGX_LLM_REQ_RAW },
    NGX_LLM_REQ_TOOLS_ROWS,
    { "functions", NGX_LLM_REQ_RAW },
    { "functions", NGX_LLM_REQ_PREFIX },
    { "response_format", NGX_LLM_REQ_RAW }
};


/*
 * The "*" is delta or message; no other object of a choice has strings of
 * these names.  tool_calls have function.name and .arguments, or custom.name
 * and .input; function_call is yesterday's form of them.  Audio is base64.
 */

static const ngx_llm_json_row_t  ngx_llm_openai_chat_answer[] = {
    NGX_LLM_OPENAI_CHOICES_ROWS,
    { "choices[].*.content", NGX_LLM_ANS_CONTENT },
    { "choices[].*.content[].text", NGX_LLM_ANS_CONTENT },
    { "choices[].*.reasoning_content", NGX_LLM_ANS_CONTENT },
    { "choices[].*.reasoning", NGX_LLM_ANS_CONTENT },
    { "choices[].*.refusal", NGX_LLM_ANS_CONTENT },
    { "choices[].*.tool_calls[].*.*", NGX_LLM_ANS_CONTENT },
    { "choices[].*.function_call.*", NGX_LLM_ANS_CONTENT },
    { "choices[].*.audio.transcript", NGX_LLM_ANS_CONTENT },
    { "choices[].*.audio.data", NGX_LLM_ANS_PAYLOAD },
    NGX_LLM_ANS_OPENAI_USAGE_ROWS,
    NGX_LLM_ANS_ERROR_ROWS
};


const ngx_llm_api_t  ngx_llm_api_openai_chat = {
    .dialect = NGX_LLM_DIALECT_OPENAI,
    .name = "chat",
    .framing = NGX_LLM_FRAME_SSE,
    .asks_usage = 1,
    .error_alike = 1,
    .paths = ngx_llm_openai_chat_paths,
    .tells = ngx_llm_openai_chat_tells,
    .request = ngx_llm_json_table(ngx_llm_openai_chat_request),
    .answer = ngx_llm_json_table(ngx_llm_openai_chat_answer),
    .finishes = ngx_llm_openai_finishes,
    .types = ngx_llm_openai_types,
    .error_event = NGX_LLM_ERROR_EVENT,
    .error_body = NGX_LLM_OPENAI_ERROR_BODY,
    .faults = ngx_llm_openai_faults
};


/* completions */

static const ngx_llm_path_t  ngx_llm_openai_completions_paths[] = {
    { "/completions", -1 },
    { NULL, 0 }
};


static const ngx_llm_tell_t  ngx_llm_openai_completions_tells[] = {
    { "object", "text_completion" },
    { "choices[].text", NULL },
    { NULL, NULL }
};


static const ngx_llm_json_row_t  ngx_llm_openai_completions_request[] = {
    NGX_LLM_REQ_HEAD_ROWS,
    NGX_LLM_REQ_OPTIONS_ROWS,
    { "n", NGX_LLM_REQ_N },
    { "best_of", NGX_LLM_REQ_BEST_OF },
    { "max_tokens", NGX_LLM_REQ_MAX_TOKENS },
    { "prompt", NGX_LLM_REQ_TEXT },
    { "prompt", NGX_LLM_REQ_MESSAGE },
    { "prompt[]", NGX_LLM_REQ_TEXT },
    { "prompt[]", NGX_LLM_REQ_MESSAGE },
    { "prompt[]", NGX_LLM_REQ_PROMPT },
    { "prompt[][]", NGX_LLM_REQ_TEXT },
    { "suffix", NGX_LLM_REQ_TEXT }
};


static const ngx_llm_json_row_t  ngx_llm_openai_completions_answer[] = {
    NGX_LLM_OPENAI_CHOICES_ROWS,
    { "choices[].text", NGX_LLM_ANS_CONTENT },
    { "choices[].reasoning", NGX_LLM_ANS_CONTENT },
    NGX_LLM_ANS_OPENAI_USAGE_ROWS,
    NGX_LLM_ANS_ERROR_ROWS
};


const ngx_llm_api_t  ngx_llm_api_openai_completions = {
    .dialect = NGX_LLM_DIALECT_OPENAI,
    .name = "completions",
    .framing = NGX_LLM_FRAME_SSE,
    .asks_usage = 1,
    .error_alike = 1,
    .paths = ngx_llm_openai_completions_paths,
    .tells = ngx_llm_openai_completions_tells,
    .request = ngx_llm_json_table(ngx_llm_openai_completions_request),
    .answer = ngx_llm_json_table(ngx_llm_openai_completions_answer),
    .finishes = ngx_llm_openai_finishes,
    .types = ngx_llm_openai_types,
    .error_event = NGX_LLM_ERROR_EVENT,
    .error_body = NGX_LLM_OPENAI_ERROR_BODY,
    .faults = ngx_llm_openai_faults
};


/* responses: events of many types, the answer itself below "response" */

static const ngx_llm_path_t  ngx_llm_openai_responses_paths[] = {
    { "/responses", -1 },
    { NULL, 0 }
};


static const ngx_llm_tell_t  ngx_llm_openai_responses_tells[] = {
    { "object", "response" },
    { "type", "response.*" },
    { NULL, NULL }
};


static const ngx_llm_json_row_t  ngx_llm_openai_responses_request[] = {
    NGX_LLM_REQ_HEAD_ROWS,
    { "max_output_tokens", NGX_LLM_REQ_MAX_OUTPUT_TOKENS },
    { "instructions", NGX_LLM_REQ_TEXT },
    { "instructions", NGX_LLM_REQ_PREFIX },
    { "input", NGX_LLM_REQ_TEXT },
    { "input", NGX_LLM_REQ_MESSAGE },
    { "input[]", NGX_LLM_REQ_MESSAGE },
    { "input[].role", NGX_LLM_REQ_ROLE },
    { "input[].content", NGX_LLM_REQ_TEXT },
    { "input[].content[].text", NGX_LLM_REQ_TEXT },
    { "input[].content[].refusal", NGX_LLM_REQ_TEXT },
    { "input[].content[].image_url", NGX_LLM_REQ_IMAGE },
    { "input[].content[].file_id", NGX_LLM_REQ_IMAGE },
    { "input[].content[].file_url", NGX_LLM_REQ_IMAGE },
    { "input[].content[].file_data", NGX_LLM_REQ_IMAGE },
    { "input[].content[].input_audio", NGX_LLM_REQ_AUDIO },
    { "input[].name", NGX_LLM_REQ_TEXT },
    { "input[].arguments", NGX_LLM_REQ_TEXT },
    { "input[].input", NGX_LLM_REQ_TEXT },
    { "input[].output", NGX_LLM_REQ_TEXT },
    { "input[].output[].text", NGX_LLM_REQ_TEXT },
    { "input[].output[].image_url", NGX_LLM_REQ_IMAGE },
    { "input[].output[].file_data", NGX_LLM_REQ_IMAGE },
    { "input[].summary[].text", NGX_LLM_REQ_TEXT },
    NGX_LLM_REQ_TOOLS_ROWS,
    { "text.format", NGX_LLM_REQ_RAW }
};


#define NGX_LLM_RESPONSES_ROWS(at)                                            \
    { at "model", NGX_LLM_ANS_MODEL },                                        \
    { at "status", NGX_LLM_ANS_FINISH },                                      \
    { at "incomplete_details.reason", NGX_LLM_ANS_FINISH },                   \
    { at "error", NGX_LLM_ANS_ERROR },                                        \
    { at "error.type", NGX_LLM_ANS_ERROR_TYPE },                              \
    { at "error.code", NGX_LLM_ANS_ERROR_CODE },                              \
    { at "usage", NGX_LLM_ANS_USAGE },                                        \
    { at "usage.input_tokens", NGX_LLM_ANS_PROMPT },                          \
    { at "usage.input_tokens_details.cached_tokens", NGX_LLM_ANS_CACHED },    \
    { at "usage.output_tokens", NGX_LLM_ANS_COMPLETION },                     \
    { at "usage.output_tokens_details.reasoning_tokens",                      \
      NGX_LLM_ANS_REASONING },                                                \
    { at "usage.total_tokens", NGX_LLM_ANS_TOTAL }


static const ngx_llm_json_row_t  ngx_llm_openai_responses_answer[] = {
    { "type", NGX_LLM_ANS_TYPE },
    { "code", NGX_LLM_ANS_ERROR_CODE },
    { "delta", NGX_LLM_ANS_CONTENT },
    { "item.name", NGX_LLM_ANS_PAYLOAD },
    { "partial_image_b64", NGX_LLM_ANS_PAYLOAD },
    { "item_id", NGX_LLM_ANS_VARIES },
    { "sequence_number", NGX_LLM_ANS_VARIES },
    { "obfuscation", NGX_LLM_ANS_VARIES },
    NGX_LLM_RESPONSES_ROWS("response."),
    NGX_LLM_RESPONSES_ROWS(""),
    { "output[].content[].text", NGX_LLM_ANS_CONTENT },
    { "output[].content[].refusal", NGX_LLM_ANS_CONTENT },
    { "output[].summary[].text", NGX_LLM_ANS_CONTENT },
    { "output[].name", NGX_LLM_ANS_CONTENT },
    { "output[].arguments", NGX_LLM_ANS_CONTENT },
    { "output[].input", NGX_LLM_ANS_CONTENT },
    { "output[].result", NGX_LLM_ANS_PAYLOAD }
};


static const ngx_llm_word_t  ngx_llm_openai_responses_finishes[] = {
    { "queued", 0 },
    { "in_progress", 0 },
    { "incomplete", 0 },
    { "content_filter", NGX_LLM_EV_FINISH|NGX_LLM_EV_FILTER },
    { NULL, 0 }
};


static const ngx_llm_word_t  ngx_llm_openai_responses_types[] = {
    { "response.completed", NGX_LLM_EV_END },
    { "response.incomplete", NGX_LLM_EV_END },
    { "response.failed", NGX_LLM_EV_END|NGX_LLM_EV_ERROR },
    { "error", NGX_LLM_EV_ERROR },
    { NULL, 0 }
};


const ngx_llm_api_t  ngx_llm_api_openai_responses = {
    .dialect = NGX_LLM_DIALECT_OPENAI,
    .name = "responses",
    .framing = NGX_LLM_FRAME_SSE,
    .paths = ngx_llm_openai_responses_paths,
    .tells = ngx_llm_openai_responses_tells,
    .request = ngx_llm_json_table(ngx_llm_openai_responses_request),
    .answer = ngx_llm_json_table(ngx_llm_openai_responses_answer),
    .finishes = ngx_llm_openai_responses_finishes,
    .types = ngx_llm_openai_responses_types,
    .error_event = NGX_LLM_OPENAI_FAILED_EVENT,
    .error_body = NGX_LLM_OPENAI_ERROR_BODY,
    .faults = ngx_llm_openai_faults
};


/* embeddings: never a stream */

static const ngx_llm_path_t  ngx_llm_openai_embeddings_paths[] = {
    { "/embeddings", 0 },
    { NULL, 0 }
};


static const ngx_llm_tell_t  ngx_llm_openai_embeddings_tells[] = {
    { "data[].embedding", NULL },
    { NULL, NULL }
};


static const ngx_llm_json_row_t  ngx_llm_openai_embeddings_request[] = {
    NGX_LLM_REQ_HEAD_ROWS,
    { "input", NGX_LLM_REQ_TEXT },
    { "input[]", NGX_LLM_REQ_TEXT },
    { "input[][]", NGX_LLM_REQ_TEXT }
};


static const ngx_llm_json_row_t  ngx_llm_openai_embeddings_answer[] = {
    { "object", NGX_LLM_ANS_TYPE },
    { "model", NGX_LLM_ANS_MODEL },
    { "data[].embedding", NGX_LLM_ANS_PAYLOAD },
    { "type", NGX_LLM_ANS_ERROR_TYPE },
    { "code", NGX_LLM_ANS_ERROR_CODE },
    NGX_LLM_ANS_OPENAI_USAGE_ROWS,
    NGX_LLM_ANS_ERROR_ROWS
};


const ngx_llm_api_t  ngx_llm_api_openai_embeddings = {
    .dialect = NGX_LLM_DIALECT_OPENAI,
    .name = "embeddings",
    .framing = NGX_LLM_FRAME_SSE,
    .prompt_only = 1,
    .paths = ngx_llm_openai_embeddings_paths,
    .tells = ngx_llm_openai_embeddings_tells,
    .request = ngx_llm_json_table(ngx_llm_openai_embeddings_request),
    .answer = ngx_llm_json_table(ngx_llm_openai_embeddings_answer),
    .types = ngx_llm_openai_types,
    .error_event = NGX_LLM_ERROR_EVENT,
    .error_body = NGX_LLM_OPENAI_ERROR_BODY,
    .faults = ngx_llm_openai_faults
};
