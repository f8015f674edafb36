
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Baidu's ERNIE, the wenxinworkshop API; its second version speaks OpenAI's.
 * Source: cloud.baidu.com/doc/WENXINWORKSHOP
 */


#include "ngx_llm_answer.h"
#include "ngx_llm_api.h"


static const ngx_llm_path_t  ngx_llm_ernie_paths[] = {
    { "/wenxinworkshop/chat/*", -1 },
    { "/wenxinworkshop/completions/*", -1 },
    { NULL, 0 }
};


static const ngx_llm_tell_t  ngx_llm_ernie_tells[] = {
    { "need_clear_history", NULL },
    { "is_end", NULL },
    { "error_code", NULL },
    { NULL, NULL }
};


static const ngx_llm_json_row_t  ngx_llm_ernie_request[] = {
    { "", NGX_LLM_REQ_ROOT },
    { "stream", NGX_LLM_REQ_STREAM },
    { "max_output_tokens", NGX_LLM_REQ_MAX_OUTPUT_TOKENS },
    { "system", NGX_LLM_REQ_TEXT },
    { "system", NGX_LLM_REQ_PREFIX },
    NGX_LLM_REQ_MESSAGES_ROWS,
    { "messages[].function_call", NGX_LLM_REQ_RAW },
    { "prompt", NGX_LLM_REQ_TEXT },
    { "prompt", NGX_LLM_REQ_MESSAGE },
    { "functions", NGX_LLM_REQ_RAW },
    { "functions", NGX_LLM_REQ_PREFIX }
};


/* usage stands in each event, growing, and so does a finish_reason */

static const ngx_llm_json_row_t  ngx_llm_ernie_answer[] = {
    { "result", NGX_LLM_ANS_CONTENT },
    { "function_call.name", NGX_LLM_ANS_CONTENT },
    { "function_call.arguments", NGX_LLM_ANS_CONTENT },
    { "function_call.thoughts", NGX_LLM_ANS_CONTENT },
    { "finish_reason", NGX_LLM_ANS_FINISH },
    { "need_clear_history", NGX_LLM_ANS_BLOCK },
    { "is_end", NGX_LLM_ANS_DONE },
    NGX_LLM_ANS_OPENAI_USAGE_ROWS,
    { "error_code", NGX_LLM_ANS_ERROR },
    { "error_code", NGX_LLM_ANS_ERROR_CODE },
    NGX_LLM_ANS_ERROR_ROWS
};


static const ngx_llm_word_t  ngx_llm_ernie_finishes[] = {
    { "content_filter", NGX_LLM_EV_FINISH|NGX_LLM_EV_FILTER },
    { NULL, 0 }
};


/* the public error codes of Baidu's gateway, then the model's own */

static const ngx_llm_status_t  ngx_llm_ernie_statuses[] = {
    { "1", 500 },
    { "2", 503 },
    { "3", 404 },
    { "4", 429 },
    { "6", 403 },
    { "13", 401 },
    { "14", 401 },
    { "15", 401 },
    { "17", 429 },
    { "18", 429 },
    { "19", 429 },
    { "100", 400 },
    { "110", 401 },
    { "111", 401 },
    { "336000", 500 },
    { "336001", 400 },
    { "336002", 400 },
    { "336003", 400 },
    { "336004", 401 },
    { "336005", 400 },
    { "336006", 400 },
    { "336007", 400 },
    { "336100", 503 },
    { "336103", 400 },
    { "336104", 400 },
    { "336200", 500 },
    { "336303", 500 },
    { "336501", 429 },
    { "336502", 429 },
    { "336503", 429 },
    { "336504", 429 },
    { "336505", 429 },
    { NULL, 0 }
};


static const ngx_llm_fault_t  ngx_llm_ernie_faults[] = {
    { "", "336002" },
    { "", "336103" },
    { "", "336502" },
    { "", "336100" },
    { "", "336000" },
    { "", "336000" },
    { "", "336000" },
    { "", "336100" }
};


#define NGX_LLM_ERNIE_ERROR  "{\"error_code\":%c,\"error_msg\":\"%m\"}"


const ngx_llm_api_t  ngx_llm_api_ernie_chat = {
    .dialect = NGX_LLM_DIALECT_ERNIE,
    .name = "chat",
    .framing = NGX_LLM_FRAME_SSE,
    .path_model = NGX_LLM_PATH_MODEL_LAST,
    .finish_at_end = 1,
    .error_alike = 1,
    .paths = ngx_llm_ernie_paths,
    .tells = ngx_llm_ernie_tells,
    .request = ngx_llm_json_table(ngx_llm_ernie_request),
    .answer = ngx_llm_json_table(ngx_llm_ernie_answer),
    .finishes = ngx_llm_ernie_finishes,
    .statuses = ngx_llm_ernie_statuses,
    .error_event = "data: " NGX_LLM_ERNIE_ERROR "\n\n",
    .error_body = NGX_LLM_ERNIE_ERROR,
    .faults = ngx_llm_ernie_faults
};
