
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * What one API's table holds.  For src/core only: others use the functions
 * of ngx_llm_dialect.h.
 */


#ifndef _NGX_LLM_API_H_INCLUDED_
#define _NGX_LLM_API_H_INCLUDED_


#include "ngx_llm_dialect.h"


/*
 * What stands in a request.  Each key that decides has an id of its own, so
 * that one key given twice (ambiguous) differs from two keys.
 */

typedef enum {
    /* the document itself: an object */
    NGX_LLM_REQ_ROOT = 0,

    /* keys that decide: twice is ambiguous */

    NGX_LLM_REQ_MODEL,              /* string */
    NGX_LLM_REQ_STREAM,             /* boolean */
    NGX_LLM_REQ_STREAM_OPTIONS,     /* object or null */
    NGX_LLM_REQ_INCLUDE_USAGE,      /* boolean or null */
    NGX_LLM_REQ_N,                  /* choices asked for */
    NGX_LLM_REQ_N_SNAKE,            /* the same in Gemini's other spelling */
    NGX_LLM_REQ_BEST_OF,            /* completions: the largest of it and n */

    /*
     * The largest completion.  MAX_COMPLETION_TOKENS supersedes MAX_TOKENS,
     * which it replaced; a NUM_PREDICT below 0 names no maximum (Ollama: -1
     * without end, -2 until the context is full).
     */

    NGX_LLM_REQ_MAX_TOKENS,
    NGX_LLM_REQ_MAX_COMPLETION_TOKENS,
    NGX_LLM_REQ_MAX_OUTPUT_TOKENS,
    NGX_LLM_REQ_NUM_PREDICT,
    NGX_LLM_REQ_MAX_OUTPUT_CAMEL,   /* Gemini, *.maxOutputTokens */
    NGX_LLM_REQ_MAX_OUTPUT_SNAKE,   /* Gemini, *.max_output_tokens */

    NGX_LLM_REQ_DECIDING,           /* ids below and > ROOT decide */

    /*
     * Sizes.  A value may be told under several of these ids; one whose type
     * is not named here is to be ignored.
     */

    /* string: text of the prompt; number: one token given by its id */
    NGX_LLM_REQ_TEXT,

    /* object or array: its raw bytes are text of the prompt */
    NGX_LLM_REQ_RAW,

    /*
     * String or object: one part that holds or names it; nothing of it is
     * text.  An object {"mimeType":"audio/.."} is an audio whatever its id.
     */
    NGX_LLM_REQ_IMAGE,
    NGX_LLM_REQ_AUDIO,

    /* the prefix: these values' raw bytes or text, in the document's order */

    /* anything: system prompt, tools; all of it belongs to the prefix */
    NGX_LLM_REQ_PREFIX,

    /* object: one message, turn or input item; string: its text alone */
    NGX_LLM_REQ_MESSAGE,

    /* string: who says the message that it stands in */
    NGX_LLM_REQ_ROLE,

    /* string or array (tokens by their ids): one of several prompts */
    NGX_LLM_REQ_PROMPT
} ngx_llm_req_e;


/* what stands in an answer's event or body */

typedef enum {
    /* string: the model that served */
    NGX_LLM_ANS_MODEL = 0,

    /* string: text, reasoning, a tool's name or arguments; not when empty */
    NGX_LLM_ANS_CONTENT,

    /* anything but null or "": content that is no text, as an image is */
    NGX_LLM_ANS_PAYLOAD,

    /* object: a tool's arguments, its raw bytes are content */
    NGX_LLM_ANS_CONTENT_RAW,

    /* array of choices, and one of them: none is an event of usage only */
    NGX_LLM_ANS_CHOICES,
    NGX_LLM_ANS_CHOICE,

    /* string or number that changes from event to event, meaning nothing */
    NGX_LLM_ANS_VARIES,

    /* object: there is usage */
    NGX_LLM_ANS_USAGE,

    /*
     * Counts, in the order of ngx_llm_answer_t.counts.  PROMPT_MORE is a
     * part that the API keeps apart from PROMPT; TOTAL is the sum of all.
     */
    NGX_LLM_ANS_PROMPT,
    NGX_LLM_ANS_PROMPT_MORE,
    NGX_LLM_ANS_CACHED,
    NGX_LLM_ANS_COMPLETION,
    NGX_LLM_ANS_REASONING,
    NGX_LLM_ANS_TOTAL,

    /* string: why it ended, looked up in the table's finishes */
    NGX_LLM_ANS_FINISH,

    /* string or true: a content filter ended it */
    NGX_LLM_ANS_BLOCK,

    /* string: the event's type, looked up in the table's types */
    NGX_LLM_ANS_TYPE,

    /* true: the terminal marker */
    NGX_LLM_ANS_DONE,

    /* object, string or number but 0: an in-band error */
    NGX_LLM_ANS_ERROR,

    /* the error's words and numbers; they alone make no error */
    NGX_LLM_ANS_ERROR_TYPE,
    NGX_LLM_ANS_ERROR_CODE
} ngx_llm_ans_e;


/* one ending of the API's path; a last "*" is any one segment */

typedef struct {
    const char            *path;

    /* what ngx_llm_api_path_streams() returns */
    int                    streams;
} ngx_llm_path_t;


/*
 * A word of the answer and the NGX_LLM_EV_* bits that it means: for a type
 * that is not listed none, for a finish reason NGX_LLM_EV_FINISH.
 */

typedef struct {
    const char            *word;
    unsigned               bits;
} ngx_llm_word_t;


/* an error's type or code and the HTTP status that it implies */

typedef struct {
    const char            *word;
    uint16_t               status;
} ngx_llm_status_t;


/*
 * What tells this API's answers from others': a value at the path, and the
 * word that it is (a last "*" is any rest) where there is one.
 */

typedef struct {
    const char            *path;
    const char            *word;
} ngx_llm_tell_t;


/* how the API calls what went wrong */

typedef struct {
    const char            *type;
    const char            *code;
} ngx_llm_fault_t;


/* where the path names the model */

typedef enum {
    NGX_LLM_PATH_MODEL_NONE = 0,
    NGX_LLM_PATH_MODEL_METHOD,      /* ../models/NAME:method */
    NGX_LLM_PATH_MODEL_LAST         /* the last segment */
} ngx_llm_path_model_e;


struct ngx_llm_api_s {
    ngx_llm_dialect_e        dialect;
    const char              *name;
    ngx_llm_framing_e        framing;
    ngx_llm_path_model_e     path_model;

    /* usage of a stream has to be asked for */
    unsigned                 asks_usage:1;

    /* there is no completion: the prompt is all that is paid for */
    unsigned                 prompt_only:1;

    /* it streams where the request does not say */
    unsigned                 default_stream:1;

    /* cached tokens are no part of the prompt's count */
    unsigned                 cached_apart:1;

    /* reasoning tokens are no part of the completion's count */
    unsigned                 reasoning_apart:1;

    /* a finish reason counts in the last event only: it stands in each */
    unsigned                 finish_at_end:1;

    /* a finish reason is the terminal marker */
    unsigned                 finish_is_end:1;

    /* the data of an error event is what an HTTP error has for its body */
    unsigned                 error_alike:1;

    /* lists end with NULL; a list that is NULL is empty */
    const ngx_llm_path_t    *paths;
    const ngx_llm_tell_t    *tells;
    ngx_llm_json_table_t     request;
    ngx_llm_json_table_t     answer;
    const ngx_llm_word_t    *finishes;
    const ngx_llm_word_t    *types;

    /* besides those that all APIs share */
    const ngx_llm_status_t  *statuses;

    /*
     * What is written: %m is the message, %t the type, %c the code, %s the
     * HTTP status; faults is indexed by ngx_llm_err_e.
     */
    const char              *error_event;
    const char              *error_body;
    const ngx_llm_fault_t   *faults;
};


#define ngx_llm_json_table(rows)  { rows, sizeof(rows) / sizeof(rows[0]) }


/* rows that several APIs share */

#define NGX_LLM_REQ_HEAD_ROWS                                                 \
    { "", NGX_LLM_REQ_ROOT },                                                 \
    { "model", NGX_LLM_REQ_MODEL },                                           \
    { "stream", NGX_LLM_REQ_STREAM }

#define NGX_LLM_REQ_OPTIONS_ROWS                                              \
    { "stream_options", NGX_LLM_REQ_STREAM_OPTIONS },                         \
    { "stream_options.include_usage", NGX_LLM_REQ_INCLUDE_USAGE }

#define NGX_LLM_REQ_MESSAGES_ROWS                                             \
    { "messages[]", NGX_LLM_REQ_MESSAGE },                                    \
    { "messages[].role", NGX_LLM_REQ_ROLE },                                  \
    { "messages[].content", NGX_LLM_REQ_TEXT },                               \
    { "messages[].content[].text", NGX_LLM_REQ_TEXT }

#define NGX_LLM_REQ_CALLS_ROWS                                                \
    { "messages[].tool_calls[].function.name", NGX_LLM_REQ_TEXT },            \
    { "messages[].tool_calls[].function.arguments", NGX_LLM_REQ_TEXT },       \
    { "messages[].tool_calls[].function.arguments", NGX_LLM_REQ_RAW }

#define NGX_LLM_REQ_PARTS_ROWS                                                \
    { "messages[].content[].image_url", NGX_LLM_REQ_IMAGE },                  \
    { "messages[].content[].file", NGX_LLM_REQ_IMAGE },                       \
    { "messages[].content[].input_audio", NGX_LLM_REQ_AUDIO }

#define NGX_LLM_REQ_TOOLS_ROWS                                                \
    { "tools", NGX_LLM_REQ_RAW },                                             \
    { "tools", NGX_LLM_REQ_PREFIX }

#define NGX_LLM_ANS_ERROR_ROWS                                                \
    { "error", NGX_LLM_ANS_ERROR },                                           \
    { "error.type", NGX_LLM_ANS_ERROR_TYPE },                                 \
    { "error.status", NGX_LLM_ANS_ERROR_TYPE },                               \
    { "error.code", NGX_LLM_ANS_ERROR_CODE }

#define NGX_LLM_ANS_OPENAI_USAGE_ROWS                                         \
    { "usage", NGX_LLM_ANS_USAGE },                                           \
    { "usage.prompt_tokens", NGX_LLM_ANS_PROMPT },                            \
    { "usage.prompt_tokens_details.cached_tokens", NGX_LLM_ANS_CACHED },      \
    { "usage.prompt_cache_hit_tokens", NGX_LLM_ANS_CACHED },                  \
    { "usage.completion_tokens", NGX_LLM_ANS_COMPLETION },                    \
    { "usage.completion_tokens_details.reasoning_tokens",                     \
      NGX_LLM_ANS_REASONING },                                                \
    { "usage.total_tokens", NGX_LLM_ANS_TOTAL }


/*
 * What is read where the path told nothing: a request by the rows of the
 * usual APIs together, an answer, until its content tells, by the usual
 * errors alone.
 */

extern const ngx_llm_api_t  ngx_llm_api_any;

/* what OpenAI's faults are called, others' too */

extern const ngx_llm_fault_t  ngx_llm_openai_faults[];

/* whether text is that word */

int ngx_llm_word_is(const char *word, ngx_llm_str_t text);

/*
 * The HTTP status of an error: its code where that is one, otherwise what
 * code or type imply; 0 when they say nothing.
 */

unsigned ngx_llm_api_status(const ngx_llm_api_t *api, ngx_llm_str_t type,
    ngx_llm_str_t code);


/* the error event that OpenAI's, Anthropic's and Vercel's clients raise */

#define NGX_LLM_ERROR_EVENT                                                   \
    "event: error\n"                                                          \
    "data: {\"type\":\"error\",\"error\":{\"type\":\"%t\","                   \
    "\"message\":\"%m\",\"code\":\"%c\"}}\n\n"


extern const ngx_llm_api_t  ngx_llm_api_openai_chat;
extern const ngx_llm_api_t  ngx_llm_api_openai_completions;
extern const ngx_llm_api_t  ngx_llm_api_openai_responses;
extern const ngx_llm_api_t  ngx_llm_api_openai_embeddings;
extern const ngx_llm_api_t  ngx_llm_api_anthropic_messages;
extern const ngx_llm_api_t  ngx_llm_api_gemini_generate;
extern const ngx_llm_api_t  ngx_llm_api_ollama_chat;
extern const ngx_llm_api_t  ngx_llm_api_ollama_generate;
extern const ngx_llm_api_t  ngx_llm_api_ollama_embed;
extern const ngx_llm_api_t  ngx_llm_api_ernie_chat;
extern const ngx_llm_api_t  ngx_llm_api_cohere_chat;


#endif /* _NGX_LLM_API_H_INCLUDED_ */
