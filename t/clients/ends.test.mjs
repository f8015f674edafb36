/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/*
 * Every end of lib/ends.mjs, as the official clients of OpenAI and Anthropic
 * show it: an error of their own type, or all of the answer.
 */

import assert from 'node:assert/strict';

import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

import { anthropic, openai, sim, words } from './lib/calls.mjs';
import { ENDS } from './lib/ends.mjs';
import { startParts } from './lib/parts.mjs';
import { lastPromise, modulePromise } from './lib/scene.mjs';
import { staged } from './lib/stage.mjs';

const MESSAGES = [{ role: 'user', content: 'Tell me a story of a proxy.' }];

/*
 * ask: what the client is to stream.  text: of its event.  error: the type
 * of all that it raises from a response.
 */

const CLIENTS = {
    chat: {
        client: openai,
        error: OpenAI.APIError,
        ask: (client, order) => client.chat.completions.create({
            model: 'sim-model', stream: true, messages: MESSAGES,
        }, order),
        text: (chunk) => chunk.choices[0]?.delta.content,
    },
    responses: {
        client: openai,
        error: OpenAI.APIError,
        ask: (client, order) => client.responses.create({
            model: 'sim-model', stream: true, input: MESSAGES[0].content,
        }, order),
        text: (event) => event.type === 'response.output_text.delta'
                         && event.delta,
    },
    messages: {
        client: anthropic,
        error: Anthropic.APIError,
        ask: (client, order) => client.messages.create({
            model: 'sim-model', stream: true, max_tokens: 1000,
            messages: MESSAGES,
        }, order),
        text: (event) => event.type === 'content_block_delta'
                         && event.delta.text,
    },
};


await startParts();


/* what was read, and the error that ended it, if one did */

async function read(scene, api, want, began) {
    const { ask, client, text } = CLIENTS[api];
    const seen = { text: '', error: null };

    const recording = async (...args) => {
        const response = await fetch(...args);

        began();

        return response;
    };

    try {
        const stream = await ask(client(scene, want.server,
                                        { fetch: recording }),
                                 sim(want.order));

        for await (const event of stream) {
            seen.text += text(event) || '';
        }

    } catch (error) {
        seen.error = error;
    }

    return seen;
}


async function check(scene, api, want) {
    const { error, text } = await staged(scene, want,
        (began) => read(scene, api, want, began));

    if (want.tokens !== undefined) {
        assert.equal(text, words(want.tokens), api);
    }

    if (want.message === null) {
        assert.equal(error, null, api);

    } else {
        assert.ok(error instanceof CLIENTS[api].error, `${api}: ${error}`);
        assert.match(error.message, want.message, api);
    }

    if (want.status !== 200) {
        assert.equal(error.status, want.status, api);
        assert.equal(text, '', api);
    }

    if (want.retry_after) {
        assert.match(error.headers.get('retry-after'), want.retry_after, api);
    }

    await scene.line({ status: want.status, end: want.end });
}


/* side by side, but for those that need the stage for themselves */

for (const want of ENDS) {

    modulePromise(want.what, async (scene) => {
        const runs = Object.keys(CLIENTS).map((api) => () => {
            const part = scene.part(api);

            part.key = `${part.key}-${api}`;

            return check(part, api, want);
        });

        if (want.hold || want.act) {
            for (const run of runs) {
                await run();
            }

        } else {
            await Promise.all(runs.map((run) => run()));
        }
    });
}


lastPromise();
