/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/* the official OpenAI client: what it makes of all that goes wrong */

import assert from 'node:assert/strict';

import OpenAI from 'openai';

import {
    checkQuota, checkRetry, checkTook, drain, duplicatingFetch, failure, openai,
    recordingFetch, sim, told, words,
} from './lib/calls.mjs';
import { stopwatch } from './lib/clock.mjs';
import { BURST } from './lib/conf.mjs';
import { direct, startParts } from './lib/parts.mjs';
import { lastPromise, modulePromise, promise } from './lib/scene.mjs';
import { until } from './lib/stage.mjs';

const CHAT = {
    model: 'sim-model',
    messages: [{ role: 'user', content: 'Tell me a story of a proxy.' }],
};

const STREAM = { ...CHAT, stream: true };

/* costs most of the burst: a second one has to wait */
const DEAR = { ...CHAT, max_tokens: 200 };
const DEAR_ORDER = sim('tokens=200; itl=0');

/* upstream's statuses: the client's class of error, and what it says */
const STATUSES = [
    [401, OpenAI.AuthenticationError,
     { type: 'invalid_request_error', code: 'invalid_api_key' }],
    [429, OpenAI.RateLimitError,
     { type: 'requests', code: 'rate_limit_exceeded' }],
    [500, OpenAI.InternalServerError, { type: 'server_error', code: null }],
    [503, OpenAI.InternalServerError, { type: 'server_error', code: null }],
];

/* how upstream fails after 5 tokens: $llm_end, and the code in the event */
const DEATHS = [
    ['reset', 'upstream_truncated', 'upstream_error'],
    ['close', 'upstream_truncated', 'upstream_error'],
    ['end', 'upstream_truncated', 'upstream_error'],
    ['midevent', 'upstream_truncated', 'upstream_error'],
    ['badchunk', 'upstream_truncated', 'upstream_error'],
    ['stall', 'idle_timeout', 'timeout'],
    ['comments', 'idle_timeout', 'timeout'],
];


await startParts();


function create(scene, server, body, order, options = {}) {
    return openai(scene, server, options).chat.completions
        .create(body, order);
}


function textOf(chunks) {
    return chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '')
        .join('');
}


modulePromise('within the limit the client can read what is left',
              async (scene) => {
    const { data, response } = await create(scene, 'limited', DEAR,
                                            DEAR_ORDER).withResponse();

    checkQuota(response.headers);
    assert.equal(response.headers.get('retry-after'), null);

    const line = await scene.line({
        ...told(data.usage), status: 200, end: 'done', limit: 'PASSED',
        zone: 'tenant',
    });

    assert.ok(line.reserved >= 200 && line.reserved <= BURST,
              `reserved=${line.reserved}`);
});


modulePromise('over the limit is a RateLimitError with its headers',
              async (scene) => {
    await create(scene, 'limited', DEAR, DEAR_ORDER);
    await scene.line({ end: 'done' });

    const error = await failure(create(scene, 'limited', DEAR, DEAR_ORDER));

    assert.ok(error instanceof OpenAI.RateLimitError, String(error));
    assert.equal(error.code, 'rate_limit_exceeded');
    assert.equal(typeof error.error.message, 'string');
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

    const stream = await create(scene, 'limited', { ...DEAR, stream: true },
                                DEAR_ORDER, {
        maxRetries: 2, fetch: recordingFetch(calls),
    });
    const { events, error } = await drain(stream);

    assert.equal(error, null);
    assert.equal(textOf(events), words(200));
    assert.deepEqual(calls.map((call) => call.status), [429, 200]);

    const told_ms = +calls[0].headers.get('retry-after-ms');
    const waited_ms = calls[1].start - calls[0].end;

    assert.ok(waited_ms >= told_ms - 2 && waited_ms < told_ms + 3000,
              `told ${told_ms} ms, waited ${waited_ms} ms`);

    await scene.line({ end: 'rejected', limit: 'REJECTED' });
    await scene.line({ end: 'done', limit: 'PASSED', completion: 200 });
});


modulePromise('a stream that is over the limit is rejected before it starts',
              async (scene) => {
    await create(scene, 'limited', DEAR, DEAR_ORDER);
    await scene.line({ end: 'done' });

    const error = await failure(create(scene, 'limited',
                                       { ...DEAR, stream: true },
                                       DEAR_ORDER));

    assert.ok(error instanceof OpenAI.RateLimitError, String(error));
    assert.equal(error.headers.get('content-type'), 'application/json');

    await scene.line({ status: 429, end: 'rejected', stream: 1 });
});


modulePromise('what never fits is rejected without a time to retry',
              async (scene) => {
    const content = 'So many words that no budget has them. '.repeat(60);
    const error = await failure(create(scene, 'limited', {
        ...CHAT, messages: [{ role: 'user', content }],
    }, DEAR_ORDER));

    assert.ok(error instanceof OpenAI.RateLimitError, String(error));
    assert.equal(error.headers.get('retry-after'), null);
    assert.equal(error.headers.get('retry-after-ms'), null);

    await scene.line({ status: 429, end: 'rejected', limit: 'REJECTED' });
});


modulePromise('an ambiguous request is a BadRequestError where limits apply',
              async (scene) => {
    const error = await failure(create(scene, 'limited', STREAM,
                                       sim('tokens=3'),
                                       { fetch: duplicatingFetch }));

    assert.ok(error instanceof OpenAI.BadRequestError, String(error));
    assert.equal(error.type, 'invalid_request_error');
    assert.equal(typeof error.error.message, 'string');

    await scene.line({ status: 400, end: 'rejected', upstream: '-' });
});


modulePromise('an ambiguous request passes where no limits apply',
              async (scene) => {
    const stream = await create(scene, 'main', STREAM, sim('tokens=3'),
                                { fetch: duplicatingFetch });
    const { events, error } = await drain(stream);

    assert.equal(error, null);
    assert.equal(textOf(events), words(3));

    await scene.line({ status: 200, end: 'done' });
});


for (const stream of [false, true]) {
    const how = stream ? 'a stream' : 'an answer';

    for (const [status, type, want] of STATUSES) {

        promise(`upstream's ${status} to ${how} passes as it is`,
                async (scene) => {
            const error = await failure(create(scene, 'main',
                { ...CHAT, stream }, sim(`status=${status}; retry_after=7`)));

            assert.ok(error instanceof type, String(error));
            assert.equal(error.status, status);
            assert.equal(error.type, want.type);
            assert.equal(error.code, want.code);
            assert.match(error.message, /llm-sim was told/);
            assert.equal(error.headers.get('retry-after'), '7');

            if (status === 429) {
                assert.equal(error.headers.get('x-ratelimit-limit-tokens'),
                             '10000');
            }

            await scene.line({ status, end: 'upstream_error',
                               usage: 'none' });
        });
    }
}


/*
 * All that is logged as used is taken from the budget, and no more: what was
 * reserved for the rest has come back.
 */

modulePromise('whatever a request comes to, it is charged as it is logged',
              async (scene) => {
    const body = { ...STREAM, max_tokens: 100 };
    const start = Date.now();
    let spent = 0;

    for (const [order, end] of [
        ['tokens=5', 'done'],
        ['tokens=5; usage=none', 'done'],
        ['fault=reset; at=4', 'upstream_truncated'],
        ['fault=error; at=4', 'upstream_error'],
        ['fault=error; at=first', 'upstream_error'],
        ['status=503', 'upstream_error'],
        ['tokens=100; itl=20', 'client_abort'],
    ]) {
        try {
            const stream = await create(scene, 'slow', body, sim(order));
            let count = 0;

            for await (const chunk of stream) {
                if (++count === 4 && end === 'client_abort') {
                    stream.controller.abort();
                }
            }

        } catch (error) {
            assert.ok(error instanceof OpenAI.APIError, String(error));
        }

        const line = await scene.line({ end });

        spent += line.usage === 'none' ? 0 : +line.total;
    }

    const { response } = await create(scene, 'slow', CHAT, sim('tokens=1'))
        .withResponse();
    const { reserved } = await scene.line({ end: 'done' });
    const left = +response.headers.get('x-ratelimit-remaining-tokens');
    const want = BURST - spent - reserved;
    const seconds = (Date.now() - start) / 1000;

    assert.ok(spent > 30, `${spent} tokens spent`);
    assert.ok(left >= want - 1 && left <= want + seconds + 1,
              `${left} tokens left, not ${want} and a few`);
});


modulePromise("upstream's failures cost nothing", async (scene) => {
    const { response } = await create(scene, 'limited', CHAT,
                                      sim('tokens=1')).withResponse();
    const before = +response.headers.get('x-ratelimit-remaining-tokens');

    await scene.line({ end: 'done' });

    for (let i = 0; i < 5; i++) {
        await failure(create(scene, 'limited', DEAR, sim('status=500')));
        await scene.line({ status: 500, end: 'upstream_error',
                           usage: 'none' });
    }

    const last = await create(scene, 'limited', CHAT,
                              sim('tokens=1')).withResponse();
    const left = +last.response.headers.get('x-ratelimit-remaining-tokens');

    assert.ok(left >= before, `${before} tokens left, then ${left}`);

    await scene.line({ end: 'done' });
});


for (const [fault, end, code] of DEATHS) {

    modulePromise(`an error is raised in a stream that upstream ends `
                  + `by ${fault}`, async (scene) => {
        const took = stopwatch();
        const stream = await create(scene, 'clocks', STREAM,
                                    sim(`fault=${fault}; at=5; tokens=50`));
        const { events, error } = await drain(stream);
        const time = took();

        assert.ok(error instanceof OpenAI.APIError, String(error));
        assert.equal(error.type, 'server_error');
        assert.equal(error.code, code);
        assert.equal(textOf(events), words(5));
        assert.equal(events.length, 6);

        if (end === 'idle_timeout') {
            checkTook(time, 950, 2500);
        }

        const line = await scene.line({ status: 200, end, finish: '-',
                                        usage: 'estimate' });

        assert.ok(line.prompt > 0 && line.completion > 0, 'tokens');
        assert.equal(+line.total, +line.prompt + +line.completion);
    });
}


promise('an answer cut off in its middle is an error', async (scene) => {
    const error = await failure(create(scene, 'main', CHAT,
                                       sim('fault=close; at=2')));

    assert.ok(error instanceof Error);

    await scene.line({ status: 200, end: 'upstream_truncated' });
});


promise('an error event of upstream is raised as it is', async (scene) => {
    const stream = await create(scene, 'main', STREAM,
                                sim('fault=error; at=3'));
    const { events, error } = await drain(stream);

    assert.ok(error instanceof OpenAI.APIError, String(error));
    assert.equal(error.type, 'server_error');
    assert.match(error.message, /had an error while processing/);
    assert.equal(textOf(events), words(3));

    const line = await scene.line({ end: 'upstream_error',
                                    usage: 'estimate' });

    assert.ok(direct || line.completion > 0, 'completion tokens');
});


modulePromise('an error event in place of content is a status, and costs '
              + 'nothing', async (scene) => {
    const error = await failure(create(scene, 'main', STREAM,
                                       sim('fault=error; at=first')));

    assert.ok(error instanceof OpenAI.InternalServerError, String(error));
    assert.equal(error.type, 'server_error');

    await scene.line({ status: 500, end: 'upstream_error', usage: 'none' });
});


promise('a content filter is seen as such', async (scene) => {
    const stream = await create(scene, 'main', STREAM,
                                sim('fault=filter; at=4'));
    const { events, error } = await drain(stream);

    assert.equal(error, null);
    assert.equal(events.at(-1).choices[0].finish_reason, 'content_filter');
    assert.equal(textOf(events), words(4));

    await scene.line({ end: 'content_filter', finish: 'content_filter',
                       usage: 'upstream', completion: 4 });
});


modulePromise('a refused connection is a 502 in JSON', async (scene) => {
    for (const stream of [false, true]) {
        const error = await failure(create(scene, 'dead',
                                           { ...CHAT, stream }));

        assert.ok(error instanceof OpenAI.InternalServerError, String(error));
        assert.equal(error.status, 502);
        assert.equal(error.type, 'server_error');
        assert.equal(error.code, 'upstream_error');
        assert.equal(error.headers.get('content-type'), 'application/json');

        await scene.line({ status: 502, end: 'upstream_error',
                           usage: 'none' });
    }
});


modulePromise('silence before the header is a 504 in JSON', async (scene) => {
    const took = stopwatch();
    const error = await failure(create(scene, 'clocks', STREAM,
                                       sim('fault=stall; at=header')));
    const time = took();

    assert.ok(error instanceof OpenAI.InternalServerError, String(error));
    assert.equal(error.status, 504);
    assert.equal(error.code, 'timeout');
    checkTook(time, 650, 2500);

    await scene.line({ status: 504, end: 'first_token_timeout',
                       usage: 'none' });
});


/* whether it has a status depends on how long the header is kept back */

modulePromise('silence before the first token is an error', async (scene) => {
    const took = stopwatch();
    const seen = { events: [] };
    const error = await failure((async () => {
        const stream = await create(scene, 'clocks', STREAM,
                                    sim('fault=stall; at=first'));

        for await (const event of stream) {
            seen.events.push(event);
        }
    })());
    const time = took();

    assert.ok(error instanceof OpenAI.APIError, String(error));
    assert.equal(error.code, 'timeout');
    assert.equal(textOf(seen.events), '');
    checkTook(time, 650, 2500);

    await scene.line({ end: 'first_token_timeout', usage: 'none' });
});


modulePromise('a stream that takes too long in all is ended by an error',
              async (scene) => {
    const took = stopwatch();
    const stream = await create(scene, 'total', STREAM,
                                sim('tokens=1000; itl=20'));
    const { events, error } = await drain(stream);
    const time = took();

    assert.ok(error instanceof OpenAI.APIError, String(error));
    assert.equal(error.code, 'timeout');
    assert.ok(events.length > 5 && events.length < 60,
              `${events.length} chunks`);
    checkTook(time, 950, 2500);

    await scene.line({ status: 200, end: 'total_timeout',
                       usage: 'estimate' });
});


modulePromise('a Responses stream that dies is an error', async (scene) => {
    const stream = await openai(scene, 'main').responses.create({
        model: 'sim-model', input: 'Tell me a story.', stream: true,
    }, sim('fault=close; at=5'));
    const { events, error } = await drain(stream);

    assert.ok(error instanceof OpenAI.APIError, String(error));
    assert.equal(error.code, 'upstream_error');
    assert.equal(events
        .filter((event) => event.type === 'response.output_text.delta')
        .map((event) => event.delta).join(''), words(5));

    await scene.line({ status: 200, end: 'upstream_truncated',
                       usage: 'estimate' });
});


modulePromise('a completions stream that dies is an error', async (scene) => {
    const stream = await openai(scene, 'main').completions.create({
        model: 'sim-model', prompt: 'Once upon a time', stream: true,
    }, sim('fault=reset; at=5'));
    const { events, error } = await drain(stream);

    assert.ok(error instanceof OpenAI.APIError, String(error));
    assert.equal(error.code, 'upstream_error');
    assert.equal(events.map((chunk) => chunk.choices[0].text).join(''),
                 words(5));

    await scene.line({ status: 200, end: 'upstream_truncated',
                       usage: 'estimate' });
});


promise('an abort reaches upstream at once, and is charged', async (scene) => {
    await scene.simReset();

    const stream = await create(scene, 'main', STREAM,
                                sim('tokens=1000; itl=10'));
    let count = 0;

    for await (const chunk of stream) {
        if (chunk.choices[0].delta.content && ++count === 3) {
            stream.controller.abort();
        }
    }

    const stats = await scene.awaitAbort(1000);
    const line = await scene.line({ status: 200, end: 'client_abort',
                                    finish: '-', usage: 'estimate' });

    /* what had come together with the third one is seen, too */

    assert.ok(count >= 3 && count < 500, `${count} tokens`);

    /* never free, and of the order of what upstream has made */

    if (line) {
        assert.ok(line.prompt > 0, 'prompt tokens');
        assert.ok(line.completion >= 3
                  && line.completion <= 3 * stats.completion_tokens + 3,
                  `${line.completion} of ${stats.completion_tokens} tokens`);
    }
});


promise('an abort before the first byte reaches upstream, too',
        async (scene) => {
    await scene.simReset();

    const controller = new AbortController();
    const answer = failure(openai(scene).chat.completions.create(CHAT, {
        ...sim('ttft=30000'), signal: controller.signal,
    }));

    await until('a request upstream', async () =>
        (await scene.simStats()).inflight === 1);
    controller.abort();

    const error = await answer;

    assert.ok(error instanceof OpenAI.APIUserAbortError, String(error));

    await scene.awaitAbort(1000);

    const line = await scene.line({ status: 499, end: 'client_abort',
                                    usage: 'estimate' });

    assert.ok(direct || line.prompt > 0, 'prompt tokens');
});


lastPromise();
