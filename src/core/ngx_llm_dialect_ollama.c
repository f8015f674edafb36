
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Ollama's own API: lines of JSON, streamed unless the request says no.
 * Source: github.com/ollama/ollama, docs/api.md
 */


#include "ngx_llm_answer.h"
#include "ngx_llm_api.h"


#define NGX_LLM_OLLAMA_REQUEST_ROWS                                           \
    NGX_LLM_REQ_HEAD_ROWS,                                                    \
    { "options.num_predict", NGX_LLM_REQ_NUM_PREDICT },                       \
    { "format", NGX_LLM_REQ_RAW }

#define NGX_LLM_OLLAMA_ANSWER_ROWS                                            \
    { "model", NGX_LLM_ANS_MODEL },                                           \
    { "created_at", NGX_LLM_ANS_VARIES },                                     \
    { "done", NGX_LLM_ANS_DONE },                                             \
    { "done_reason", NGX_LLM_ANS_FINISH },                                    \
    { "prompt_eval_count", NGX_LLM_ANS_PROMPT },                              \
    { "eval_count", NGX_LLM_ANS_COMPLETION },                                 \
    { "error", NGX_LLM_ANS_ERROR }

#define NGX_LLM_OLLAMA_ERROR  "{\"error\":\"%m\"}"

/* what the three APIs share; the message says it all: no type, no code */

#define ngx_llm_ollama_api(_name, _streams)                                   \
    .dialect = NGX_LLM_DIALECT_OLLAMA,                                        \
    .name = #_name,                                                           \
    .framing = NGX_LLM_FRAME_LINES,                                           \
    .default_stream = _streams,                                               \
    .error_alike = 1,                                                         \
    .paths = ngx_llm_ollama_##_name##_paths,                                  \
    .tells = ngx_llm_ollama_##_name##_tells,                                  \
    .request = ngx_llm_json_table(ngx_llm_ollama_##_name##_request),          \
    .answer = ngx_llm_json_table(ngx_llm_ollama_##_name##_answer),            \
    .error_event = NGX_LLM_OLLAMA_ERROR "\n",                                 \
    .error_body = NGX_LLM_OLLAMA_ERROR,                                       \
    .faults = ngx_llm_openai_faults


/* chat */

static const ngx_llm_path_t  ngx_llm_ollama_chat_paths[] = {
    { "/api/chat", -1 },
    { NULL, 0 }
};


static const ngx_llm_tell_t  ngx_llm_ollama_chat_tells[] = {
    { "message.role", NULL },
    { NULL, NULL }
};


static const ngx_llm_json_row_t  ngx_llm_ollama_chat_request[] = {
    NGX_LLM_OLLAMA_REQUEST_ROWS,
    NGX_LLM_REQ_MESSAGES_ROWS,
    NGX_LLM_REQ_CALLS_ROWS,
    { "messages[].thinking", NGX_LLM_REQ_TEXT },
    { "messages[].images[]", NGX_LLM_REQ_IMAGE },
    NGX_LLM_REQ_TOOLS_ROWS
};


static const ngx_llm_json_row_t  ngx_llm_ollama_chat_answer[] = {
    NGX_LLM_OLLAMA_ANSWER_ROWS,
    { "message.content", NGX_LLM_ANS_CONTENT },
    { "message.thinking", NGX_LLM_ANS_CONTENT },
    { "message.tool_calls[].function.name", NGX_LLM_ANS_CONTENT },
    { "message.tool_calls[].function.arguments", NGX_LLM_ANS_CONTENT_RAW }
};


const ngx_llm_api_t  ngx_llm_api_ollama_chat = {
    ngx_llm_ollama_api(chat, 1)
};


/* generate */

static const ngx_llm_path_t  ngx_llm_ollama_generate_paths[] = {
    { "/api/generate", -1 },
    { NULL, 0 }
};


static const ngx_llm_tell_t  ngx_llm_ollama_generate_tells[] = {
    { "done", NULL },
    { NULL, NULL }
};


static const ngx_llm_json_row_t  ngx_llm_ollama_generate_request[] = {
    NGX_LLM_OLLAMA_REQUEST_ROWS,
    { "system", NGX_LLM_REQ_TEXT },
    { "system", NGX_LLM_REQ_PREFIX },
    { "template", NGX_LLM_REQ_TEXT },
    { "prompt", NGX_LLM_REQ_TEXT },
    { "prompt", NGX_LLM_REQ_MESSAGE },
    { "suffix", NGX_LLM_REQ_TEXT },
    { "context[]", NGX_LLM_REQ_TEXT },
    { "images[]", NGX_LLM_REQ_IMAGE }
};


static const ngx_llm_json_row_t  ngx_llm_ollama_generate_answer[] = {
    NGX_LLM_OLLAMA_ANSWER_ROWS,
    { "response", NGX_LLM_ANS_CONTENT },
    { "thinking", NGX_LLM_ANS_CONTENT }
};


const ngx_llm_api_t  ngx_llm_api_ollama_generate = {
    ngx_llm_ollama_api(generate, 1)
};


/* embed: never a stream */

static const ngx_llm_path_t  ngx_llm_ollama_embed_paths[] = {
    { "/api/embed", 0 },
    { "/api/embeddings", 0 },
    { NULL, 0 }
};


static const ngx_llm_tell_t  ngx_llm_ollama_embed_tells[] = {
    { "embeddings", NULL },
    { NULL, NULL }
};


static const ngx_llm_json_row_t  ngx_llm_ollama_embed_request[] = {
    NGX_LLM_OLLAMA_REQUEST_ROWS,
    { "input", NGX_LLM_REQ_TEXT },
    { "input[]", NGX_LLM_REQ_TEXT },
    { "prompt", NGX_LLM_REQ_TEXT }
};


static const ngx_llm_json_row_t  ngx_llm_ollama_embed_answer[] = {
    NGX_LLM_OLLAMA_ANSWER_ROWS,
    { "embeddings", NGX_LLM_ANS_PAYLOAD },
    { "embedding", NGX_LLM_ANS_PAYLOAD }
};


const ngx_llm_api_t  ngx_llm_api_ollama_embed = {
    ngx_llm_ollama_api(embed, 0),
    .prompt_only = 1
};
