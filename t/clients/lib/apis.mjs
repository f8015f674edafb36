/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/*
 * The APIs of the dialects as they are on the wire, for tests that need no
 * client library: where a stream is asked for, how its end, an error and an
 * early usage in it look, and what that is called.  The end of a stream is
 * its terminal marker, which vendors document each for themselves.
 */

const TEXT = 'Tell me a story of a proxy.';

const MESSAGES = [{ role: 'user', content: TEXT }];

const ERROR_EVENT = /(^|\n)event: error\ndata: \{"type":"error",/;

export const APIS = {
    chat: {
        dialect: 'openai',
        path: '/v1/chat/completions',
        body: { model: 'sim-model', stream: true, messages: MESSAGES,
                stream_options: { include_usage: true } },
        terminal: /\ndata: \[DONE\]\n\n$/,
        error: /\ndata: \{("type":"error",)?"error":\{/,
        early: (usage) => ({ choices: [], usage }),
        usage: (prompt, completion) => ({
            prompt_tokens: prompt, completion_tokens: completion,
        }),
    },
    completions: {
        dialect: 'openai',
        path: '/v1/completions',
        body: { model: 'sim-model', stream: true, prompt: TEXT,
                stream_options: { include_usage: true } },
        terminal: /\ndata: \[DONE\]\n\n$/,
        error: /\ndata: \{("type":"error",)?"error":\{/,
        early: (usage) => ({ choices: [], usage }),
        usage: (prompt, completion) => ({
            prompt_tokens: prompt, completion_tokens: completion,
        }),
    },
    responses: {
        dialect: 'openai',
        path: '/v1/responses',
        body: { model: 'sim-model', stream: true, input: TEXT },
        terminal: /\ndata: \{"type":"response\.(completed|incomplete)".*\n\n$/,
        error: /\ndata: \{"type":"(response\.failed|error)"/,
        early: (usage) => ({
            type: 'response.in_progress', response: { usage },
        }),
        usage: (prompt, completion) => ({
            input_tokens: prompt, output_tokens: completion,
        }),
    },
    messages: {
        dialect: 'anthropic',
        path: '/v1/messages',
        body: { model: 'sim-model', stream: true, max_tokens: 1000,
                messages: MESSAGES },
        terminal: /\ndata: \{"type":"message_stop"\}\n\n$/,
        error: ERROR_EVENT,
        early: (usage) => ({ type: 'message_delta', delta: {}, usage }),
        usage: (prompt, completion) => ({
            input_tokens: prompt, output_tokens: completion,
        }),
    },
    ollama: {
        dialect: 'ollama',
        path: '/api/chat',
        body: { model: 'sim-model', messages: MESSAGES },
        terminal: /"done":true[^\n]*\}\n$/,
        error: /\n\{"error":/,
        early: (usage) => ({ done: false, ...usage }),
        usage: (prompt, completion) => ({
            prompt_eval_count: prompt, eval_count: completion,
        }),
    },
    gemini: {
        dialect: 'gemini',
        path: '/v1beta/models/sim-model:streamGenerateContent?alt=sse',
        body: { contents: [{ role: 'user', parts: [{ text: TEXT }] }] },
        terminal: /"finishReason":"[A-Z_]+"[^\n]*\r?\n\r?\n$/,
        error: /\ndata: \{("type":"error",)?"error":\{/,
        early: (usageMetadata) => ({ usageMetadata }),
        usage: (prompt, completion) => ({
            promptTokenCount: prompt, candidatesTokenCount: completion,
        }),
    },
    ernie: {
        dialect: 'ernie',
        path: '/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/sim-model',
        body: { stream: true, messages: MESSAGES },
        terminal: /"is_end":true[^\n]*\n\n$/,
        error: /("error_code":|\ndata: \{"type":"error",)/,
        early: (usage) => ({ is_end: false, result: '', usage }),
        usage: (prompt, completion) => ({
            prompt_tokens: prompt, completion_tokens: completion,
        }),
    },
};


/*
 * What a client has at the end, exactly one of: "complete", "status",
 * "error" (in the stream) and "transport"; anything else is told as it is.
 */

export function outcomeOf(api, { status, text, broken }) {
    const terminal = api.terminal.test(text);
    const error = api.error.test(`\n${text}`);

    if (broken) {
        return terminal ? 'complete, but the transport broke' : 'transport';
    }

    if (status >= 400) {
        return 'status';
    }

    if (terminal && error) {
        return 'a terminal marker and an error';
    }

    if (terminal) {
        return 'complete';
    }

    return error ? 'error' : `a clean end without marker or error: `
                             + text.slice(-300);
}
