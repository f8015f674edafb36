/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/* Vercel's AI SDK, with its providers for three APIs */

import assert from 'node:assert/strict';

import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { APICallError, generateText, streamText } from 'ai';

import { checkRetry, words } from './lib/calls.mjs';
import { ENDS } from './lib/ends.mjs';
import { startParts } from './lib/parts.mjs';
import { lastPromise, modulePromise, promise } from './lib/scene.mjs';
import { staged } from './lib/stage.mjs';

/* by API: a model of a provider */
const APIS = {
    chat: (options) => createOpenAI(options).chat('sim-model'),
    responses: (options) => createOpenAI(options).responses('sim-model'),
    messages: (options) => createAnthropic(options)('sim-model'),
};

const PROMPT = 'Tell me a story of a proxy.';

/* it does not know llm-sim's models */
globalThis.AI_SDK_LOG_WARNINGS = false;


await startParts();


/* began: called when there is a response */

function call(scene, api, server, order, options = {}, began = () => {}) {
    return {
        model: APIS[api]({
            baseURL: `${scene.url(server)}/v1`,
            apiKey: scene.key,
            fetch: async (url, init) => {
                const response = await fetch(
                    `${url}?${new URLSearchParams(scene.query)}`, init);

                began();

                return response;
            },
        }),
        prompt: PROMPT,
        maxRetries: 0,
        headers: { 'X-LLM-Sim': order },
        ...options,
    };
}


/* what a stream comes to: its text, its errors and how it finished */

async function outcome(call) {
    const stream = streamText({ ...call, onError: () => {} });
    const seen = { text: '', errors: [], finish: null, usage: null };

    for await (const part of stream.fullStream) {

        switch (part.type) {

        case 'text-delta':
            seen.text += part.text;
            break;

        case 'error':
            seen.errors.push(part.error);
            break;

        case 'finish':
            seen.finish = part.finishReason;
            seen.usage = part.totalUsage;
            break;
        }
    }

    return seen;
}


for (const api of Object.keys(APIS)) {

    for (const want of ENDS) {

        modulePromise(`${api}: ${want.what}`, async (scene) => {
            const { text, errors, finish, usage }
                = await staged(scene, want, (began) => outcome(
                    call(scene, api, want.server, want.order, {}, began)));

            if (want.tokens !== undefined) {
                assert.equal(text, words(want.tokens));
            }

            if (want.message === null) {
                assert.deepEqual(errors, []);
                assert.equal(finish, want.finish);

                const line = await scene.line({ status: 200, end: want.end });

                assert.equal(usage.totalTokens, +line.total);
                return;
            }

            assert.equal(errors.length, 1);

            const [error] = errors;

            assert.match(error.message, want.message);

            if (want.status === 200) {
                assert.equal(finish, 'error');

            } else {
                assert.ok(APICallError.isInstance(error), String(error));
                assert.equal(error.statusCode, want.status);
                assert.equal(text, '');
            }

            if (want.retry_after) {
                assert.match(error.responseHeaders['retry-after'],
                             want.retry_after);
            }

            await scene.line({ status: want.status, end: want.end });
        });
    }


    promise(`${api}: an answer that is not streamed`, async (scene) => {
        const answer = await generateText(call(scene, api, 'main',
                                               'tokens=7'));

        assert.equal(answer.text, words(7));
        assert.equal(answer.finishReason, 'stop');

        await scene.line({ status: 200, end: 'done', stream: 0,
                           total: answer.usage.totalTokens });
    });


    modulePromise(`${api}: over the limit, and again when there is room`,
                  async (scene) => {
        const dear = { maxOutputTokens: 200 };
        const order = 'tokens=200; itl=0';

        await generateText(call(scene, api, 'limited', order, dear));
        await scene.line({ end: 'done', limit: 'PASSED' });

        const refused = await outcome(call(scene, api, 'limited', order,
                                           dear));

        assert.equal(refused.errors.length, 1);

        const [error] = refused.errors;

        assert.ok(APICallError.isInstance(error), String(error));
        assert.equal(error.statusCode, 429);
        assert.equal(error.isRetryable, true);
        checkRetry(new Headers(error.responseHeaders), 3000);
        await scene.line({ status: 429, end: 'rejected' });

        /* the SDK reads when to come again, and comes */

        const answer = await generateText(call(scene, api, 'limited', order,
                                               { ...dear, maxRetries: 2 }));

        assert.equal(answer.text, words(200));
        await scene.line({ status: 429, end: 'rejected' });
        await scene.line({ end: 'done', limit: 'PASSED' });
    });


    modulePromise(`${api}: a stream that the client leaves`,
                  async (scene) => {
        await scene.simReset();

        const leave = new AbortController();
        const stream = streamText(call(scene, api, 'main',
                                       'tokens=500; itl=20',
                                       { abortSignal: leave.signal }));
        let parts = 0;
        let aborted = false;

        for await (const part of stream.fullStream) {
            if (part.type === 'text-delta' && ++parts === 4) {
                leave.abort();
            }

            aborted ||= part.type === 'abort';
        }

        assert.ok(aborted);
        await scene.awaitAbort(1000);
        await scene.line({ end: 'client_abort', usage: 'estimate' });
    });
}


lastPromise();
