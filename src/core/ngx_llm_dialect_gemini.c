
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Google's Gemini, generateContent and streamGenerateContent.  Requests may
 * be spelled in camel case or with underscores, answers are in camel case.
 * Source: ai.google.dev/api/generate-content
 */


#include "ngx_llm_answer.h"
#include "ngx_llm_api.h"


static const ngx_llm_path_t  ngx_llm_gemini_paths[] = {
    { ":generateContent", 0 },
    { ":streamGenerateContent", 1 },
    { NULL, 0 }
};


static const ngx_llm_tell_t  ngx_llm_gemini_tells[] = {
    { "candidates", NULL },
    { "usageMetadata", NULL },
    { "promptFeedback", NULL },
    { "[].candidates", NULL },
    { NULL, NULL }
};


#define NGX_LLM_GEMINI_PART_ROWS(camel, snake)                                \
    { "contents[].parts[]." camel, NGX_LLM_REQ_IMAGE },                       \
    { "contents[].parts[]." snake, NGX_LLM_REQ_IMAGE }

#define NGX_LLM_GEMINI_RAW_ROWS(camel, snake)                                 \
    { "contents[].parts[]." camel, NGX_LLM_REQ_RAW },                         \
    { "contents[].parts[]." snake, NGX_LLM_REQ_RAW }


static const ngx_llm_json_row_t  ngx_llm_gemini_request[] = {
    { "", NGX_LLM_REQ_ROOT },
    { "*.maxOutputTokens", NGX_LLM_REQ_MAX_OUTPUT_CAMEL },
    { "*.max_output_tokens", NGX_LLM_REQ_MAX_OUTPUT_SNAKE },
    { "*.candidateCount", NGX_LLM_REQ_N },
    { "*.candidate_count", NGX_LLM_REQ_N_SNAKE },
    { "systemInstruction", NGX_LLM_REQ_PREFIX },
    { "system_instruction", NGX_LLM_REQ_PREFIX },
    { "systemInstruction.parts[].text", NGX_LLM_REQ_TEXT },
    { "system_instruction.parts[].text", NGX_LLM_REQ_TEXT },
    { "contents[]", NGX_LLM_REQ_MESSAGE },
    { "contents[].role", NGX_LLM_REQ_ROLE },
    { "contents[].parts[].text", NGX_LLM_REQ_TEXT },
    NGX_LLM_GEMINI_PART_ROWS("inlineData", "inline_data"),
    NGX_LLM_GEMINI_PART_ROWS("fileData", "file_data"),
    NGX_LLM_GEMINI_RAW_ROWS("functionCall", "function_call"),
    NGX_LLM_GEMINI_RAW_ROWS("functionResponse", "function_response"),
    { "*.responseSchema", NGX_LLM_REQ_RAW },
    { "*.response_schema", NGX_LLM_REQ_RAW },
    NGX_LLM_REQ_TOOLS_ROWS
};


/*
 * Without alt=sse a stream is one array of what are events otherwise.  What
 * tools added to the prompt is counted apart, and so are the thoughts.
 */

#define NGX_LLM_GEMINI_ANSWER_ROWS(at)                                        \
    { at "modelVersion", NGX_LLM_ANS_MODEL },                                 \
    { at "candidates[].content.parts[].text", NGX_LLM_ANS_CONTENT },          \
    { at "candidates[].content.parts[].functionCall.name",                    \
      NGX_LLM_ANS_CONTENT },                                                  \
    { at "candidates[].content.parts[].functionCall.args",                    \
      NGX_LLM_ANS_CONTENT_RAW },                                              \
    { at "candidates[].content.parts[].executableCode.code",                  \
      NGX_LLM_ANS_CONTENT },                                                  \
    { at "candidates[].content.parts[].inlineData", NGX_LLM_ANS_PAYLOAD },    \
    { at "candidates[].finishReason", NGX_LLM_ANS_FINISH },                   \
    { at "promptFeedback.blockReason", NGX_LLM_ANS_BLOCK },                   \
    { at "usageMetadata", NGX_LLM_ANS_USAGE },                                \
    { at "usageMetadata.promptTokenCount", NGX_LLM_ANS_PROMPT },              \
    { at "usageMetadata.toolUsePromptTokenCount", NGX_LLM_ANS_PROMPT_MORE },  \
    { at "usageMetadata.cachedContentTokenCount", NGX_LLM_ANS_CACHED },       \
    { at "usageMetadata.candidatesTokenCount", NGX_LLM_ANS_COMPLETION },      \
    { at "usageMetadata.thoughtsTokenCount", NGX_LLM_ANS_REASONING },         \
    { at "error", NGX_LLM_ANS_ERROR },                                        \
    { at "error.status", NGX_LLM_ANS_ERROR_TYPE },                            \
    { at "error.code", NGX_LLM_ANS_ERROR_CODE }


static const ngx_llm_json_row_t  ngx_llm_gemini_answer[] = {
    NGX_LLM_GEMINI_ANSWER_ROWS(""),
    NGX_LLM_GEMINI_ANSWER_ROWS("[].")
};


#define NGX_LLM_GEMINI_FILTER  NGX_LLM_EV_FINISH|NGX_LLM_EV_FILTER

static const ngx_llm_word_t  ngx_llm_gemini_finishes[] = {
    { "SAFETY", NGX_LLM_GEMINI_FILTER },
    { "RECITATION", NGX_LLM_GEMINI_FILTER },
    { "BLOCKLIST", NGX_LLM_GEMINI_FILTER },
    { "PROHIBITED_CONTENT", NGX_LLM_GEMINI_FILTER },
    { "SPII", NGX_LLM_GEMINI_FILTER },
    { "IMAGE_SAFETY", NGX_LLM_GEMINI_FILTER },
    { "IMAGE_PROHIBITED_CONTENT", NGX_LLM_GEMINI_FILTER },
    { "IMAGE_RECITATION", NGX_LLM_GEMINI_FILTER },
    { "MODEL_ARMOR", NGX_LLM_GEMINI_FILTER },
    { "FINISH_REASON_UNSPECIFIED", 0 },
    { NULL, 0 }
};


/* google.rpc.Code */

static const ngx_llm_status_t  ngx_llm_gemini_statuses[] = {
    { "INVALID_ARGUMENT", 400 },
    { "FAILED_PRECONDITION", 400 },
    { "OUT_OF_RANGE", 400 },
    { "UNAUTHENTICATED", 401 },
    { "PERMISSION_DENIED", 403 },
    { "NOT_FOUND", 404 },
    { "RESOURCE_EXHAUSTED", 429 },
    { "CANCELLED", 499 },
    { "INTERNAL", 500 },
    { "UNKNOWN", 500 },
    { "DATA_LOSS", 500 },
    { "UNIMPLEMENTED", 501 },
    { "UNAVAILABLE", 503 },
    { "DEADLINE_EXCEEDED", 504 },
    { NULL, 0 }
};


static const ngx_llm_fault_t  ngx_llm_gemini_faults[] = {
    { "INVALID_ARGUMENT", "" },
    { "INVALID_ARGUMENT", "" },
    { "RESOURCE_EXHAUSTED", "" },
    { "UNAVAILABLE", "" },
    { "UNAVAILABLE", "" },
    { "DEADLINE_EXCEEDED", "" },
    { "CANCELLED", "" },
    { "UNAVAILABLE", "" }
};


#define NGX_LLM_GEMINI_ERROR                                                  \
    "{\"error\":{\"code\":%s,\"message\":\"%m\",\"status\":\"%t\"}}"


const ngx_llm_api_t  ngx_llm_api_gemini_generate = {
    .dialect = NGX_LLM_DIALECT_GEMINI,
    .name = "generate",
    .framing = NGX_LLM_FRAME_SSE,
    .path_model = NGX_LLM_PATH_MODEL_METHOD,
    .reasoning_apart = 1,
    .finish_is_end = 1,
    .error_alike = 1,
    .paths = ngx_llm_gemini_paths,
    .tells = ngx_llm_gemini_tells,
    .request = ngx_llm_json_table(ngx_llm_gemini_request),
    .answer = ngx_llm_json_table(ngx_llm_gemini_answer),
    .finishes = ngx_llm_gemini_finishes,
    .statuses = ngx_llm_gemini_statuses,
    .error_event = "data: " NGX_LLM_GEMINI_ERROR "\n\n",
    .error_body = NGX_LLM_GEMINI_ERROR,
    .faults = ngx_llm_gemini_faults
};
