/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/* the official OpenAI client: what it asks for and gets */

import assert from 'node:assert/strict';

import {
    bytesOf, drain, openai, sim, told, words,
} from './lib/calls.mjs';
import { startParts } from './lib/parts.mjs';
import { lastPromise, modulePromise, promise } from './lib/scene.mjs';

const CHAT = {
    model: 'sim-model',
    messages: [
        { role: 'system', content: 'You are terse.' },
        { role: 'user', content: 'Tell me a story of a proxy.' },
    ],
};

const TOOLS = [{
    type: 'function',
    function: {
        name: 'lookup',
        description: 'Looks something up.',
        parameters: {
            type: 'object',
            properties: { query: { type: 'string' } },
            required: ['query'],
        },
    },
}];

const STREAM = { ...CHAT, stream: true };
const USAGE = { ...STREAM, stream_options: { include_usage: true } };

/* of a line in the access log */
const DONE = { status: 200, end: 'done', dialect: 'openai', usage: 'upstream' };


await startParts();


function textOf(chunks) {
    return chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '')
        .join('');
}


/* chunks that say nothing but usage */

function usageChunks(chunks) {
    return chunks.filter((chunk) => chunk.choices.length === 0);
}


promise('a chat stream arrives whole and in its order', async (scene) => {
    const client = openai(scene);
    const stream = await client.chat.completions.create(STREAM,
                                                        sim('tokens=20'));
    const { events, error } = await drain(stream);

    assert.equal(error, null);
    assert.equal(events[0].choices[0].delta.role, 'assistant');
    assert.equal(textOf(events), words(20));
    assert.equal(events.at(-1).choices[0].finish_reason, 'stop');
    assert.ok(events.every((chunk) => chunk.model === 'sim-model'));

    const line = await scene.line({
        ...DONE, stream: 1, model: 'sim-model', served: 'sim-model',
        completion: 20, finish: 'stop',
    });

    if (line) {
        assert.equal(+line.total, +line.prompt + 20);
        assert.match(line.id, /^[0-9a-f]{32}$/);
        assert.ok(+line.first_token <= +line.time, 'first_token');
    }
});


promise('a chat answer that is not streamed is whole, and its usage logged',
        async (scene) => {
    const answer = await openai(scene).chat.completions
        .create(CHAT, sim('tokens=15'));

    assert.equal(answer.choices[0].message.content, words(15));
    assert.equal(answer.usage.completion_tokens, 15);

    await scene.line({ ...DONE, ...told(answer.usage), stream: 0,
                       finish: 'stop' });
});


promise('usage that was asked for arrives once, as the last chunk',
        async (scene) => {
    const stream = await openai(scene).chat.completions
        .create(USAGE, sim('tokens=9'));
    const { events, error } = await drain(stream);
    const found = usageChunks(events);

    assert.equal(error, null);
    assert.equal(found.length, 1);
    assert.equal(found[0], events.at(-1));
    assert.equal(found[0].usage.completion_tokens, 9);
    assert.equal(events.filter((chunk) => chunk.usage).length, 1);

    await scene.line({ ...DONE, ...told(found[0].usage) });
});


promise('usage that was not asked for is not seen, and yet logged',
        async (scene) => {
    const stream = await openai(scene).chat.completions
        .create(STREAM, sim('tokens=9'));
    const { events } = await drain(stream);
    const past = await drain(await openai(scene, 'sim').chat.completions
        .create(STREAM, sim('tokens=9')));

    assert.equal(usageChunks(events).length, 0);
    assert.ok(events.every((chunk) => !chunk.usage));
    assert.equal(events.length, past.events.length);
    assert.equal(textOf(events), textOf(past.events));

    await scene.line({ ...DONE, completion: 9 });
});


promise('the helper of the client makes the same of it', async (scene) => {
    const runner = openai(scene).chat.completions
        .stream(USAGE, sim('tokens=6'));
    const whole = await runner.finalChatCompletion();

    assert.equal(whole.choices[0].message.content, words(6));
    assert.equal(whole.choices[0].finish_reason, 'stop');

    await scene.line({ ...DONE, ...told(whole.usage) });
});


modulePromise('what was not stripped has the bytes that upstream sent',
              async (scene) => {
    const url = '/v1/chat/completions';
    const got = await bytesOf(scene.url() + url, scene.query, STREAM,
                              'tokens=30');
    const sent = await bytesOf(scene.simUrl + url, {}, USAGE, 'tokens=30');
    const events = sent.split(/(?<=\n\n)/);
    const rest = events.filter((event) => !/"choices":\[\]/.test(event));

    assert.equal(rest.length, events.length - 1);
    assert.equal(got, rest.join(''));

    await scene.line({ ...DONE, completion: 30 });
});


modulePromise('with llm_include_usage off all bytes are those of upstream',
              async (scene) => {
    const url = '/v1/chat/completions';
    const got = await bytesOf(scene.url('plain') + url, scene.query, STREAM,
                              'tokens=30');
    const sent = await bytesOf(scene.simUrl + url, {}, STREAM, 'tokens=30');

    assert.equal(got, sent);

    const line = await scene.line({ ...DONE, usage: 'estimate' });

    assert.ok(line.completion > 0, 'completion tokens');
});


promise('a streamed tool call can be put together', async (scene) => {
    const stream = await openai(scene).chat.completions
        .create({ ...USAGE, tools: TOOLS }, sim('tokens=12; tool=1'));
    const { events, error } = await drain(stream);
    const calls = events
        .flatMap((chunk) => chunk.choices[0]?.delta.tool_calls ?? []);
    const text = calls.map((call) => call.function.arguments ?? '').join('');

    assert.equal(error, null);
    assert.equal(calls[0].function.name, 'lookup');
    assert.ok(calls.length > 12, 'in pieces');
    assert.deepEqual(JSON.parse(text), { query: words(12) });

    await scene.line({ ...DONE, ...told(events.at(-1).usage),
                       finish: 'tool_calls' });
});


promise('a tool call that is not streamed is whole', async (scene) => {
    const answer = await openai(scene).chat.completions
        .create({ ...CHAT, tools: TOOLS }, sim('tokens=12; tool=1'));
    const [call] = answer.choices[0].message.tool_calls;

    assert.equal(call.function.name, 'lookup');
    assert.deepEqual(JSON.parse(call.function.arguments),
                     { query: words(12) });

    await scene.line({ ...DONE, ...told(answer.usage),
                       finish: 'tool_calls' });
});


promise('two choices take turns, and both are counted', async (scene) => {
    const stream = await openai(scene).chat.completions
        .create({ ...USAGE, n: 2 }, sim('tokens=7'));
    const { events } = await drain(stream);

    for (const index of [0, 1]) {
        assert.equal(events.flatMap((chunk) => chunk.choices)
            .filter((choice) => choice.index === index)
            .map((choice) => choice.delta.content ?? '').join(''), words(7));
    }

    assert.equal(events.at(-1).usage.completion_tokens, 14);

    await scene.line({ ...DONE, ...told(events.at(-1).usage) });
});


promise('max_tokens ends an answer by its length', async (scene) => {
    const stream = await openai(scene).chat.completions
        .create({ ...USAGE, max_completion_tokens: 4 }, sim('tokens=50'));
    const { events } = await drain(stream);

    assert.equal(textOf(events), words(4));

    await scene.line({ ...DONE, ...told(events.at(-1).usage),
                       finish: 'length', completion: 4 });
});


promise('a prompt that upstream has cached is told and logged as such',
        async (scene) => {
    const client = openai(scene, 'clocks');
    const long = {
        ...CHAT,
        messages: [{ role: 'user', content: `${scene.key} `.repeat(500) }],
    };

    for (const cached of [false, true]) {
        const { usage } = await client.chat.completions
            .create(long, sim('tokens=3'));

        assert.equal(usage.prompt_tokens_details.cached_tokens >= 512,
                     cached);

        await scene.line({
            ...DONE, ...told(usage),
            cached: usage.prompt_tokens_details.cached_tokens,
        });
    }
});


promise('a completions stream arrives whole, without usage', async (scene) => {
    const stream = await openai(scene).completions.create({
        model: 'sim-model', prompt: 'Once upon a time', stream: true,
    }, sim('tokens=11'));
    const { events, error } = await drain(stream);

    assert.equal(error, null);
    assert.equal(events.map((chunk) => chunk.choices[0].text).join(''),
                 words(11));
    assert.equal(events.at(-1).choices[0].finish_reason, 'stop');

    await scene.line({ ...DONE, completion: 11, finish: 'stop', stream: 1 });
});


promise('a completions stream has the usage that was asked for',
        async (scene) => {
    const stream = await openai(scene).completions.create({
        model: 'sim-model', prompt: 'Once upon a time', stream: true,
        stream_options: { include_usage: true },
    }, sim('tokens=11'));
    const { events } = await drain(stream);

    assert.equal(usageChunks(events).length, 1);

    await scene.line({ ...DONE, ...told(events.at(-1).usage) });
});


promise('a Responses stream ends in response.completed with its usage',
        async (scene) => {
    const stream = await openai(scene).responses.create({
        model: 'sim-model', input: 'Tell me a story.', stream: true,
    }, sim('tokens=10'));
    const { events, error } = await drain(stream);
    const last = events.at(-1);

    assert.equal(error, null);
    assert.equal(events[0].type, 'response.created');
    assert.deepEqual(events.map((event) => event.sequence_number),
                     events.map((event, i) => i));
    assert.equal(events
        .filter((event) => event.type === 'response.output_text.delta')
        .map((event) => event.delta).join(''), words(10));
    assert.equal(last.type, 'response.completed');
    assert.equal(last.response.output[0].content[0].text, words(10));
    assert.equal(last.response.usage.output_tokens, 10);

    await scene.line({ ...DONE, ...told(last.response.usage), stream: 1 });
});


promise('a Responses answer that is not streamed is whole', async (scene) => {
    const answer = await openai(scene).responses
        .create({ model: 'sim-model', input: 'Tell me a story.' },
                sim('tokens=10'));

    assert.equal(answer.status, 'completed');
    assert.equal(answer.output_text, words(10));

    await scene.line({ ...DONE, ...told(answer.usage), stream: 0 });
});


promise('a Responses tool call can be put together', async (scene) => {
    const runner = openai(scene).responses.stream({
        model: 'sim-model', input: 'Look it up.',
        tools: [{ type: 'function', strict: false, ...TOOLS[0].function }],
    }, sim('tokens=8; tool=1'));
    const answer = await runner.finalResponse();
    const [call] = answer.output;

    assert.equal(call.type, 'function_call');
    assert.deepEqual(JSON.parse(call.arguments), { query: words(8) });

    await scene.line({ ...DONE, ...told(answer.usage), stream: 1 });
});


promise('embeddings come back as numbers, and cost their prompt',
        async (scene) => {
    const answer = await openai(scene).embeddings.create({
        model: 'sim-embedding', input: ['one text', 'and another one'],
        dimensions: 8,
    });

    assert.equal(answer.data.length, 2);
    assert.equal(answer.data[1].embedding.length, 8);
    assert.ok(answer.data[1].embedding.every(Number.isFinite));

    await scene.line({ ...DONE, prompt: answer.usage.prompt_tokens,
                       total: answer.usage.total_tokens, stream: 0 });
});


promise('what is no inference passes by', async (scene) => {
    const list = await openai(scene).models.list();

    assert.equal(list.data[0].id, 'sim');

    await scene.line({ status: 200, usage: 'none' });
});


promise('a stream of 2,000 tokens is intact', async (scene) => {
    const stream = await openai(scene).chat.completions
        .create(STREAM, sim('tokens=2000; itl=0'));
    const { events, error } = await drain(stream);

    assert.equal(error, null);
    assert.equal(events.length, 2002);
    assert.equal(textOf(events), words(2000));

    /* of which usage and [DONE] are not the client's */

    await scene.line({ ...DONE, completion: 2000, events: 2004 });
});


promise('tokens come when they are made, not in the end', async (scene) => {
    const start = Date.now();
    const times = [];
    const stream = await openai(scene).chat.completions
        .create(STREAM, sim('tokens=20; itl=100'));

    for await (const chunk of stream) {
        if (chunk.choices[0].delta.content) {
            times.push(Date.now() - start);
        }
    }

    assert.equal(times.length, 20);
    assert.ok(times[19] - times[0] > 400, times.join(' '));

    for (const [i, time] of times.entries()) {
        assert.ok(time >= 100 * i, `number ${i} after ${time} ms`);
    }

    const took_ms = Date.now() - start;
    const line = await scene.line({ ...DONE, completion: 20 });

    if (line) {
        assert.ok(line.per_token >= 0.08
                  && 1000 * line.per_token * 19 <= took_ms + 19,
                  `per_token=${line.per_token} of ${took_ms} ms`);
    }
});


promise('twenty streams at once do not mix', async (scene) => {
    const client = openai(scene);
    const counts = Array.from({ length: 20 }, (_, i) => 21 + i);
    const texts = await Promise.all(counts.map(async (count) => {
        const stream = await client.chat.completions
            .create(STREAM, sim(`tokens=${count}`));

        return textOf((await drain(stream)).events);
    }));

    assert.deepEqual(texts, counts.map(words));

    const logged = [];

    for (const count of counts) {
        const line = await scene.line(DONE);

        logged.push(line ? +line.completion : count);
    }

    assert.deepEqual(logged.sort((a, b) => a - b), counts);
});


lastPromise();
