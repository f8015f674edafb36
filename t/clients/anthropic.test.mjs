/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/* the official Anthropic client, in good times and in bad */

import assert from 'node:assert/strict';

import Anthropic from '@anthropic-ai/sdk';

import {
    anthropic, checkQuota, checkRetry, drain, duplicatingFetch, failure,
    recordingFetch, sim, words,
} from './lib/calls.mjs';
import { direct, startParts } from './lib/parts.mjs';
import { lastPromise, modulePromise, promise } from './lib/scene.mjs';

const MESSAGE = {
    model: 'sim-model',
    max_tokens: 1000,
    system: 'You are terse.',
    messages: [{ role: 'user', content: 'Tell me a story of a proxy.' }],
};

const STREAM = { ...MESSAGE, stream: true };

/* costs most of the burst: a second one has to wait */
const DEAR = { ...MESSAGE, max_tokens: 200 };
const DEAR_ORDER = sim('tokens=200; itl=0');

const TOOLS = [{
    name: 'lookup',
    description: 'Looks something up.',
    input_schema: {
        type: 'object',
        properties: { query: { type: 'string' } },
        required: ['query'],
    },
}];

/* of a line in the access log */
const DONE = {
    status: 200, end: 'done', dialect: 'anthropic', usage: 'upstream',
};

/* upstream's statuses: the client's class of error, and its type */
const STATUSES = [
    [401, Anthropic.AuthenticationError, 'authentication_error'],
    [429, Anthropic.RateLimitError, 'rate_limit_error'],
    [500, Anthropic.InternalServerError, 'api_error'],
    [529, Anthropic.OverloadedError, 'overloaded_error'],
];

/* how upstream fails after 5 tokens: $llm_end, and the type in the event */
const DEATHS = [
    ['reset', 'upstream_truncated', 'api_error'],
    ['close', 'upstream_truncated', 'api_error'],
    ['end', 'upstream_truncated', 'api_error'],
    ['midevent', 'upstream_truncated', 'api_error'],
    ['stall', 'idle_timeout', 'timeout_error'],
];


await startParts();


function create(scene, server, body, order, options = {}) {
    return anthropic(scene, server, options).messages.create(body, order);
}


function textOf(events) {
    return events.filter((event) => event.type === 'content_block_delta')
        .map((event) => event.delta.text).join('');
}


/* all input is the prompt, whatever the cache had to do with it */

function told(usage) {
    const prompt = usage.input_tokens
                   + (usage.cache_creation_input_tokens ?? 0)
                   + (usage.cache_read_input_tokens ?? 0);

    return {
        usage: 'upstream',
        prompt,
        cached: usage.cache_read_input_tokens ?? 0,
        completion: usage.output_tokens,
        total: prompt + usage.output_tokens,
    };
}


/* the error object of a body or an event */

function typeOf(error) {
    assert.equal(error.error.type, 'error');
    assert.equal(typeof error.error.error.message, 'string');

    return error.error.error.type;
}


promise('a raw stream arrives whole and in its order', async (scene) => {
    const { events, error } = await drain(await create(scene, 'main', STREAM,
                                                       sim('tokens=12')));

    assert.equal(error, null);
    assert.deepEqual(events.slice(0, 2).map((event) => event.type),
                     ['message_start', 'content_block_start']);
    assert.deepEqual(events.slice(-3).map((event) => event.type),
                     ['content_block_stop', 'message_delta', 'message_stop']);
    assert.equal(events.length, 17);
    assert.equal(textOf(events), words(12));

    await scene.line({
        ...DONE,
        ...told({ ...events[0].message.usage, ...events.at(-2).usage }),
        stream: 1, model: 'sim-model', served: 'sim-model',
        finish: 'end_turn', completion: 12,
    });
});


promise('the helper of the client makes a message of it', async (scene) => {
    const texts = [];
    const runner = anthropic(scene).messages.stream(MESSAGE,
                                                    sim('tokens=12'));

    runner.on('text', (text) => texts.push(text));

    const whole = await runner.finalMessage();

    assert.equal(whole.content[0].text, words(12));
    assert.equal(texts.length, 12);
    assert.equal(whole.stop_reason, 'end_turn');
    assert.equal(whole.usage.output_tokens, 12);

    await scene.line({ ...DONE, ...told(whole.usage) });
});


promise('a message that is not streamed is whole, and its usage logged',
        async (scene) => {
    const message = await create(scene, 'main', MESSAGE, sim('tokens=9'));

    assert.equal(message.content[0].text, words(9));

    await scene.line({ ...DONE, ...told(message.usage), stream: 0,
                       finish: 'end_turn', completion: 9 });
});


promise('a streamed tool call can be put together', async (scene) => {
    const whole = await anthropic(scene).messages
        .stream({ ...MESSAGE, tools: TOOLS }, sim('tokens=8; tool=1'))
        .finalMessage();
    const [block] = whole.content;

    assert.equal(whole.stop_reason, 'tool_use');
    assert.equal(block.name, 'lookup');
    assert.deepEqual(block.input, { query: words(8) });

    await scene.line({ ...DONE, ...told(whole.usage), finish: 'tool_use' });
});


promise('a tool call that is not streamed is whole', async (scene) => {
    const message = await create(scene, 'main', { ...MESSAGE, tools: TOOLS },
                                 sim('tokens=8; tool=1'));

    assert.deepEqual(message.content[0].input, { query: words(8) });

    await scene.line({ ...DONE, ...told(message.usage),
                       finish: 'tool_use' });
});


promise('max_tokens ends a message by its length', async (scene) => {
    const whole = await anthropic(scene).messages
        .stream({ ...MESSAGE, max_tokens: 4 }, sim('tokens=50'))
        .finalMessage();

    assert.equal(whole.stop_reason, 'max_tokens');
    assert.equal(whole.content[0].text, words(4));

    await scene.line({ ...DONE, ...told(whole.usage), completion: 4 });
});


promise('what the cache read is told and logged', async (scene) => {
    const body = {
        ...MESSAGE,
        messages: [{ role: 'user', content: `${scene.key} `.repeat(500) }],
    };

    for (const cached of [false, true]) {
        const whole = await anthropic(scene, 'clocks').messages
            .stream(body, sim('tokens=3')).finalMessage();

        assert.equal(whole.usage.cache_read_input_tokens >= 512, cached);

        await scene.line({ ...DONE, ...told(whole.usage) });
    }
});


promise('all three counts of input are the prompt', async (scene) => {
    const usage = {
        input_tokens: 100, cache_creation_input_tokens: 30,
        cache_read_input_tokens: 50, output_tokens: 7,
    };

    for (const stream of [false, true]) {
        const answer = await create(scene, 'main', { ...MESSAGE, stream },
                                    sim(`usage=${JSON.stringify(usage)}`));

        if (stream) {
            await drain(answer);
        }

        await scene.line({ ...DONE, prompt: 180, cached: 50, completion: 7,
                           total: 187 });
    }
});


promise('a refusal is seen as such', async (scene) => {
    const { events, error } = await drain(
        await create(scene, 'main', STREAM, sim('fault=filter; at=4')));

    assert.equal(error, null);
    assert.equal(events.at(-2).delta.stop_reason, 'refusal');
    assert.equal(textOf(events), words(4));

    await scene.line({ ...DONE, end: 'content_filter', finish: 'refusal',
                       completion: 4 });
});


modulePromise('over the limit is a RateLimitError with its headers',
              async (scene) => {
    await create(scene, 'limited', DEAR, DEAR_ORDER);
    await scene.line({ end: 'done', limit: 'PASSED' });

    const error = await failure(create(scene, 'limited', DEAR, DEAR_ORDER));

    assert.ok(error instanceof Anthropic.RateLimitError, String(error));
    assert.equal(typeOf(error), 'rate_limit_error');
    checkQuota(error.headers);
    checkRetry(error.headers, 3000);

    await scene.line({ status: 429, end: 'rejected', usage: 'none',
                       limit: 'REJECTED', zone: 'tenant', upstream: '-' });
});


modulePromise('the client waits as it is told, and then succeeds',
              async (scene) => {
    const calls = [];

    await create(scene, 'limited', DEAR, DEAR_ORDER);
    await scene.line({ end: 'done' });

    const whole = await anthropic(scene, 'limited', {
        maxRetries: 2, fetch: recordingFetch(calls),
    }).messages.stream(DEAR, DEAR_ORDER).finalMessage();

    assert.equal(whole.content[0].text, words(200));
    assert.deepEqual(calls.map((call) => call.status), [429, 200]);

    const told_ms = +calls[0].headers.get('retry-after-ms');
    const waited_ms = calls[1].start - calls[0].end;

    assert.ok(waited_ms >= told_ms - 2 && waited_ms < told_ms + 3000,
              `told ${told_ms} ms, waited ${waited_ms} ms`);

    await scene.line({ end: 'rejected', limit: 'REJECTED' });
    await scene.line({ end: 'done', limit: 'PASSED', completion: 200 });
});


modulePromise('an ambiguous request is a BadRequestError where limits apply',
              async (scene) => {
    const error = await failure(create(scene, 'limited', STREAM,
                                       sim('tokens=3'),
                                       { fetch: duplicatingFetch }));

    assert.ok(error instanceof Anthropic.BadRequestError, String(error));
    assert.equal(typeOf(error), 'invalid_request_error');

    await scene.line({ status: 400, end: 'rejected', upstream: '-' });
});


for (const [status, type, name] of STATUSES) {

    promise(`upstream's ${status} passes as it is`, async (scene) => {
        for (const stream of [false, true]) {
            const error = await failure(create(scene, 'main',
                { ...MESSAGE, stream },
                sim(`status=${status}; retry_after=7`)));

            assert.ok(error instanceof type, String(error));
            assert.equal(error.status, status);
            assert.equal(typeOf(error), name);
            assert.equal(error.headers.get('retry-after'), '7');

            await scene.line({ status, end: 'upstream_error',
                               usage: 'none' });
        }
    });
}


for (const [fault, end, type] of DEATHS) {

    modulePromise(`an error is raised in a stream that upstream ends `
                  + `by ${fault}`, async (scene) => {
        const { events, error } = await drain(await create(scene, 'clocks',
            STREAM, sim(`fault=${fault}; at=5; tokens=50`)));

        assert.ok(error instanceof Anthropic.APIError, String(error));
        assert.equal(typeOf(error), type);
        assert.equal(textOf(events), words(5));

        /* upstream has told the prompt in its first event */

        const line = await scene.line({
            status: 200, end, usage: 'estimate', finish: '-',
            prompt: events[0].message.usage.input_tokens,
        });

        assert.ok(line.completion > 0, 'completion tokens');
    });
}


modulePromise('the helper raises it, too', async (scene) => {
    const runner = anthropic(scene).messages.stream(MESSAGE,
        sim('fault=close; at=5'));
    const error = await failure(runner.finalMessage());

    assert.ok(error instanceof Anthropic.APIError, String(error));
    assert.equal(typeOf(error), 'api_error');

    await scene.line({ status: 200, end: 'upstream_truncated' });
});


promise('an error event of upstream is raised as it is', async (scene) => {
    const { events, error } = await drain(
        await create(scene, 'main', STREAM, sim('fault=error; at=3')));

    assert.ok(error instanceof Anthropic.APIError, String(error));
    assert.equal(typeOf(error), 'overloaded_error');
    assert.equal(error.error.error.message, 'Overloaded');
    assert.equal(textOf(events), words(3));

    const line = await scene.line({ end: 'upstream_error',
                                    usage: 'estimate' });

    assert.ok(direct || line.completion > 0, 'completion tokens');
});


modulePromise('a refused connection is a 502 in JSON', async (scene) => {
    const error = await failure(create(scene, 'dead', STREAM));

    assert.ok(error instanceof Anthropic.InternalServerError, String(error));
    assert.equal(error.status, 502);
    assert.equal(typeOf(error), 'api_error');

    await scene.line({ status: 502, end: 'upstream_error', usage: 'none' });
});


modulePromise('silence before the header is a 504 in JSON', async (scene) => {
    const error = await failure(create(scene, 'clocks', STREAM,
                                       sim('fault=stall; at=header')));

    assert.ok(error instanceof Anthropic.InternalServerError, String(error));
    assert.equal(error.status, 504);
    assert.equal(typeOf(error), 'timeout_error');

    await scene.line({ status: 504, end: 'first_token_timeout',
                       usage: 'none' });
});


promise('an abort reaches upstream at once, and is charged', async (scene) => {
    await scene.simReset();

    const stream = await create(scene, 'main', STREAM,
                                sim('tokens=1000; itl=10'));
    const events = [];

    for await (const event of stream) {
        events.push(event);

        if (textOf(events) === words(3)) {
            stream.controller.abort();
        }
    }

    const stats = await scene.awaitAbort(1000);

    /* what had come together with the third one is seen, too */

    assert.ok(textOf(events).startsWith(words(3)) && events.length < 500,
              textOf(events));

    const line = await scene.line({
        status: 200, end: 'client_abort', usage: 'estimate', finish: '-',
        prompt: events[0].message.usage.input_tokens,
    });

    if (line) {
        assert.ok(line.completion >= 3
                  && line.completion <= 3 * stats.completion_tokens + 3,
                  `${line.completion} of ${stats.completion_tokens} tokens`);
    }
});


lastPromise();
