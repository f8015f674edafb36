/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/* requests and answers that look otherwise, and still have to work */

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

import {
    anthropic, drain, failure, openai, sim, told, words,
} from './lib/calls.mjs';
import { REQUESTS_BURST } from './lib/conf.mjs';
import { startParts } from './lib/parts.mjs';
import { lastPromise, modulePromise, promise } from './lib/scene.mjs';

const CHAT = {
    model: 'sim-model',
    messages: [{ role: 'user', content: 'Tell me a story of a proxy.' }],
};

const STREAM = { ...CHAT, stream: true };

const MESSAGE = { ...STREAM, max_tokens: 1000 };

const LONG = [{ role: 'user', content: 'A word or two. '.repeat(20000) }];

/* of an answer that ends with its connection */
const OWN_HEAD = 'HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n';

/* as servers frame their streams */
const FRAMINGS = ['split=1', 'split=7', 'eol=crlf', 'eol=cr',
                  'eol=crlf; split=1', 'http=1.0', 'http=1.0; split=3'];


await startParts();


function textOf(chunks) {
    return chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '')
        .join('');
}


for (const framing of FRAMINGS) {

    promise(`a stream with ${framing} is read and passed`, async (scene) => {
        const stream = await openai(scene).chat.completions
            .create(STREAM, sim(`tokens=9; ${framing}`));
        const { events, error } = await drain(stream);

        assert.equal(error, null);
        assert.equal(textOf(events), words(9));
        assert.ok(events.every((chunk) => chunk.choices.length === 1));

        await scene.line({ status: 200, end: 'done', usage: 'upstream',
                           completion: 9, finish: 'stop' });
    });

    promise(`a message's stream with ${framing} is read and passed`,
            async (scene) => {
        const whole = await anthropic(scene).messages
            .stream(MESSAGE, sim(`tokens=9; ${framing}`)).finalMessage();

        assert.equal(whole.content[0].text, words(9));

        await scene.line({ status: 200, end: 'done', usage: 'upstream',
                           completion: 9, finish: 'end_turn' });
    });
}


modulePromise('a stream of HTTP/1.0 that is cut off is an error',
              async (scene) => {
    const stream = await openai(scene).chat.completions
        .create(STREAM, sim('fault=close; at=4; http=1.0'));
    const { events, error } = await drain(stream);

    assert.ok(error instanceof OpenAI.APIError, String(error));
    assert.equal(textOf(events), words(4));

    await scene.line({ status: 200, end: 'upstream_truncated' });
});


/*
 * The rest of such a stream is looked at when all is over; what that may have
 * started by mistake shows a second later.
 */

modulePromise('a stream whose last event has no blank line is whole',
              async (scene) => {
    const first = 'data: {"id":"1","object":"chat.completion.chunk",'
                  + '"created":1,"model":"own","choices":[{"index":0,'
                  + '"delta":{"content":"Hi"},"finish_reason":null}]}\n';

    for (const body of [`${first}\ndata: [DONE]\n`,
                        `${first}\ndata: [DONE]`, `${first}\n`])
    {
        await scene.withAnswer(`${OWN_HEAD}\r\n${body}`, async () => {
            const stream = await openai(scene, 'own').chat.completions
                .create(STREAM);
            const { events, error } = await drain(stream);
            const whole = body.includes('[DONE]');

            assert.equal(error instanceof OpenAI.APIError, !whole,
                         String(error));

            if (whole) {
                assert.equal(textOf(events), 'Hi');
            }

            await scene.line({ status: 200,
                               end: whole ? 'done' : 'upstream_truncated' });
        });
    }

    /* half an event is no content yet */

    await scene.withAnswer(`${OWN_HEAD}\r\n${first}`, async () => {
        const error = await failure(openai(scene, 'own').chat.completions
            .create(STREAM));

        assert.equal(error.status, 502);
        await scene.line({ status: 502, end: 'upstream_error' });
    });

    await sleep(1500);
});


promise('an answer without a length is whole', async (scene) => {
    for (const order of ['length=0', 'http=1.0; length=0']) {
        const answer = await openai(scene).chat.completions
            .create(CHAT, sim(`tokens=9; ${order}`));

        assert.equal(answer.choices[0].message.content, words(9));

        await scene.line({ ...told(answer.usage), status: 200, end: 'done' });
    }
});


promise('what upstream compresses is passed, and nothing claimed of it',
        async (scene) => {
    const answer = await openai(scene).chat.completions
        .create(CHAT, sim('tokens=9; gzip=1'));

    assert.equal(answer.choices[0].message.content, words(9));

    await scene.line({ status: 200, end: 'done', usage: 'none' });
});


promise('an answer without usage is charged by an estimate',
        async (scene) => {
    for (const stream of [false, true]) {
        const answer = await openai(scene).chat.completions
            .create({ ...CHAT, stream }, sim('tokens=30; usage=none'));

        if (stream) {
            assert.equal(textOf((await drain(answer)).events), words(30));
        }

        const line = await scene.line({ status: 200, end: 'done',
                                        usage: 'estimate' });

        if (line) {
            assert.ok(line.prompt > 0, 'prompt tokens');
            assert.ok(line.completion >= 15 && line.completion <= 120,
                      `completion=${line.completion}`);
        }
    }
});


promise('a usage of zero is a value', async (scene) => {
    const usage = {
        prompt_tokens: 12, completion_tokens: 0, total_tokens: 12,
    };

    for (const stream of [false, true]) {
        const answer = await openai(scene).chat.completions
            .create({ ...CHAT, stream },
                    sim(`tokens=3; usage=${JSON.stringify(usage)}`));

        if (stream) {
            await drain(answer);
        }

        await scene.line({ status: 200, end: 'done', usage: 'upstream',
                           prompt: 12, completion: 0, total: 12 });
    }
});


promise('include_usage: false is as good as nothing', async (scene) => {
    const stream = await openai(scene).chat.completions.create({
        ...STREAM, stream_options: { include_usage: false },
    }, sim('tokens=5'));
    const { events } = await drain(stream);

    assert.equal(textOf(events), words(5));
    assert.ok(events.every((chunk) => chunk.choices.length === 1));

    await scene.line({ status: 200, end: 'done', usage: 'upstream',
                       completion: 5 });
});


promise('a prompt of 300 KB arrives as it was sent', async (scene) => {
    const body = {
        ...STREAM, messages: LONG, stream_options: { include_usage: true },
    };
    const past = await drain(await openai(scene, 'sim').chat.completions
        .create(body, sim('tokens=3')));
    const sent = past.events.at(-1).usage.prompt_tokens;

    assert.ok(sent > 60000, `${sent} tokens`);

    const { events, error } = await drain(await openai(scene)
        .chat.completions.create(body, sim('tokens=3')));

    assert.equal(error, null);
    assert.equal(events.at(-1).usage.prompt_tokens, sent);

    await scene.line({ ...told(events.at(-1).usage), end: 'done' });

    /* and where the body had to be changed */

    await drain(await openai(scene).chat.completions
        .create({ ...STREAM, messages: LONG }, sim('tokens=3')));

    await scene.line({ end: 'done', prompt: sent, completion: 3 });
});


promise('any name of a model is passed and logged', async (scene) => {
    const model = 'org/\u043c\u043e\u0434\u0435\u043b\u044c "7B" \\ \u{1f980}';
    const { events } = await drain(await openai(scene).chat.completions
        .create({ ...STREAM, model }, sim('tokens=3')));

    assert.ok(events.every((chunk) => chunk.model === model));

    const line = await scene.line({ end: 'done', completion: 3 });

    if (line) {
        assert.match(line.model, /^org\//);
        assert.equal(line.served, line.model);
    }
});


modulePromise('a body over llm_body_max is a 413 in JSON', async (scene) => {
    const error = await failure(openai(scene, 'limited').chat.completions
        .create({ ...STREAM, messages: LONG }));

    assert.ok(error instanceof OpenAI.APIError, String(error));
    assert.equal(error.status, 413);
    assert.equal(error.type, 'invalid_request_error');
    assert.equal(error.code, 'request_too_large');

    await scene.line({ status: 413, end: 'rejected', upstream: '-' });

    const other = await failure(anthropic(scene, 'limited').messages
        .create({ ...MESSAGE, messages: LONG }));

    assert.ok(other instanceof Anthropic.APIError, String(other));
    assert.equal(other.status, 413);
    assert.equal(other.error.error.type, 'request_too_large');

    await scene.line({ status: 413, end: 'rejected', upstream: '-' });
});


modulePromise('requests are limited as well as tokens', async (scene) => {
    const start = Date.now();
    const count = REQUESTS_BURST + 40;
    const results = await Promise.allSettled(
        Array.from({ length: count }, () => openai(scene, 'limited')
            .completions.create({ model: 'm', prompt: 'Hi', max_tokens: 1 })));
    const errors = results.filter((result) => result.status === 'rejected')
        .map((result) => result.reason);
    const seconds = (Date.now() - start) / 1000;
    const passed = count - errors.length;

    assert.ok(passed >= REQUESTS_BURST
              && passed <= REQUESTS_BURST + 10 * seconds + 1,
              `${passed} passed in ${seconds} s`);
    assert.ok(errors.length > 0, 'errors');

    for (const error of errors) {
        assert.ok(error instanceof OpenAI.RateLimitError, String(error));
        assert.equal(error.headers.get('x-ratelimit-remaining-requests'),
                     '0');
        assert.ok(error.headers.get('x-ratelimit-remaining-tokens') > 0);
        assert.ok(error.headers.get('retry-after-ms') <= 1000);
    }

    let rejected = 0;

    for (let i = 0; i < count; i++) {
        rejected += (await scene.line({})).limit === 'REJECTED';
    }

    assert.equal(rejected, errors.length);
});


lastPromise();
