/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/* what clients take for granted: HTTP/2, and connections that are used again */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import { setTimeout as sleep } from 'node:timers/promises';

import { words } from './lib/calls.mjs';
import { stopwatch } from './lib/clock.mjs';
import { startParts } from './lib/parts.mjs';
import { lastPromise, modulePromise, promise } from './lib/scene.mjs';

const PATH = '/v1/chat/completions';

const BODY = JSON.stringify({
    model: 'sim-model', stream: true,
    messages: [{ role: 'user', content: 'Tell me a story of a proxy.' }],
});


await startParts();


/* one request; its connection is the agent's */

function post(scene, server, agent, order) {
    return new Promise((resolve, reject) => {
        const request = http.request(`${scene.url(server)}${PATH}`
                                     + `?test=${scene.id}`, {
            method: 'POST', agent,
            headers: {
                'Content-Type': 'application/json',
                'Content-Length': Buffer.byteLength(BODY),
                'X-LLM-Sim': order,
            },
        });

        request.on('error', reject);
        request.on('response', async (response) => {
            const port = response.socket.localPort;

            try {
                resolve({ status: response.statusCode, port,
                          text: await readAll(response),
                          complete: response.complete });

            } catch (error) {
                reject(error);
            }
        });
        request.end(BODY);
    });
}


async function readAll(stream) {
    let text = '';

    stream.setEncoding('utf8');

    for await (const part of stream) {
        text += part;
    }

    return text;
}


async function post2(scene, session, order) {
    const stream = session.request({
        ':method': 'POST', ':path': `${PATH}?test=${scene.id}`,
        'content-type': 'application/json', 'x-llm-sim': order,
    });
    const response = once(stream, 'response');

    stream.end(BODY);

    const [headers] = await response;
    const text = await readAll(stream);

    return { status: headers[':status'], text, code: stream.rstCode,
             type: headers['content-type'] };
}


/* runs with a session of HTTP/2, without TLS */

async function withSession(scene, run) {
    const session = http2.connect(scene.url('h2'));

    try {
        await once(session, 'connect');
        await run(session);

    } finally {
        session.destroy();
    }
}


function contentOf(text) {
    return [...text.matchAll(/"content":"([^"]+)"/g)]
        .map(([, content]) => content).join('');
}


/* an event of ours, and nothing behind it */

function endsWithError(text) {
    const found = /\nevent: error\ndata: ({.*})\n\n$/.exec(text);

    assert.ok(found, `the end is: ${text.slice(-200)}`);
    assert.equal(JSON.parse(found[1]).type, 'error');
    assert.ok(!text.includes('[DONE]'), 'a terminal marker');
}


modulePromise('a stream passes over HTTP/2', async (scene) => {
    await withSession(scene, async (session) => {
        const got = await post2(scene, session, 'tokens=50');

        assert.equal(got.status, 200);
        assert.match(got.type, /^text\/event-stream/);
        assert.equal(contentOf(got.text), words(50));
        assert.match(got.text, /\ndata: \[DONE\]\n\n$/);
        assert.equal(got.code, http2.constants.NGHTTP2_NO_ERROR);

        await scene.line({ status: 200, end: 'done', completion: 50 });
    });
});


modulePromise('over HTTP/2 a stream that dies ends in an error event, cleanly',
              async (scene) => {
    await withSession(scene, async (session) => {
        const got = await post2(scene, session, 'tokens=50; fault=reset; at=5');

        assert.equal(got.status, 200);
        assert.equal(contentOf(got.text), words(5));
        endsWithError(got.text);
        assert.equal(got.code, http2.constants.NGHTTP2_NO_ERROR);

        /* the other streams of the connection do not mind */

        const next = await post2(scene, session, 'tokens=4');

        assert.equal(contentOf(next.text), words(4));

        await scene.line({ status: 200, end: 'upstream_truncated' });
        await scene.line({ status: 200, end: 'done' });
    });
});


modulePromise('a request that comes in pieces over HTTP/2 is put together',
              async (scene) => {
    await withSession(scene, async (session) => {
        const stream = session.request({
            ':method': 'POST', ':path': `${PATH}?test=${scene.id}`,
            'content-type': 'application/json', 'x-llm-sim': 'tokens=3',
        });

        for (const piece of [BODY.slice(0, 30), BODY.slice(30)]) {
            stream.write(piece);
            await sleep(30);
        }

        stream.end();

        assert.equal(contentOf(await readAll(stream)), words(3));

        await scene.line({ status: 200, end: 'done', usage: 'upstream',
                           completion: 3 });
    });
});


promise('so is one in chunks', async (scene) => {
    const request = http.request(`${scene.url()}${PATH}?test=${scene.id}`, {
        method: 'POST',
        headers: {
            'Content-Type': 'application/json', 'X-LLM-Sim': 'tokens=3',
        },
    });
    const response = once(request, 'response');

    for (const piece of [BODY.slice(0, 30), BODY.slice(30)]) {
        request.write(piece);
        await sleep(30);
    }

    request.end();

    const [answer] = await response;

    assert.equal(contentOf(await readAll(answer)), words(3));

    await scene.line({ status: 200, end: 'done', usage: 'upstream',
                       completion: 3 });
});


modulePromise('an abort over HTTP/2 reaches upstream at once',
              async (scene) => {
    await scene.simReset();

    await withSession(scene, async (session) => {
        const stream = session.request({
            ':method': 'POST', ':path': `${PATH}?test=${scene.id}`,
            'content-type': 'application/json',
            'x-llm-sim': 'tokens=1000; itl=10',
        });

        stream.on('error', () => {});
        stream.end(BODY);
        await once(stream, 'data');
        stream.close(http2.constants.NGHTTP2_CANCEL);

        await scene.awaitAbort(1000);
    });

    await scene.line({ status: 200, end: 'client_abort', usage: 'estimate' });
});


promise('streams follow each other on one connection', async (scene) => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const got = [];

    for (const order of ['tokens=5', 'tokens=0', 'tokens=6']) {
        got.push(await post(scene, 'main', agent, order));
        await scene.line({ status: 200, end: 'done' });
    }

    agent.destroy();

    assert.deepEqual(got.map((answer) => contentOf(answer.text)),
                     [words(5), '', words(6)]);
    assert.equal(new Set(got.map((answer) => answer.port)).size, 1);
});


for (const [fault, end] of [['reset', 'upstream_truncated'],
                            ['midevent', 'upstream_truncated'],
                            ['badchunk', 'upstream_truncated'],
                            ['stall', 'idle_timeout']])
{
    modulePromise(`after an error event for ${fault} the connection goes on`,
                  async (scene) => {
        const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
        const bad = await post(scene, 'clocks', agent,
                               `tokens=50; fault=${fault}; at=5`);
        const good = await post(scene, 'clocks', agent, 'tokens=7');

        agent.destroy();

        assert.equal(contentOf(bad.text), words(5));
        endsWithError(bad.text);
        assert.ok(bad.complete, 'the body has its end');
        assert.match(good.text, /\ndata: \[DONE\]\n\n$/);
        assert.equal(contentOf(good.text), words(7));
        assert.equal(good.port, bad.port);

        await scene.line({ status: 200, end });
        await scene.line({ status: 200, end: 'done', completion: 7 });
    });
}


modulePromise("after upstream's error event the stream ends at once",
              async (scene) => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const took = stopwatch();
    const bad = await post(scene, 'main', agent,
                           'tokens=50; fault=error-stay; at=3');
    const { ran_ms } = took();
    const good = await post(scene, 'main', agent, 'tokens=4');

    agent.destroy();

    assert.equal(contentOf(bad.text), words(3));
    assert.equal(bad.text.match(/"error":/g).length, 1);
    assert.ok(bad.complete, 'the body has its end');
    assert.ok(ran_ms < 1000, `${ran_ms} ms`);
    assert.equal(contentOf(good.text), words(4));
    assert.equal(good.port, bad.port);

    await scene.line({ status: 200, end: 'upstream_error',
                       usage: 'estimate' });
    await scene.line({ status: 200, end: 'done' });
});


lastPromise();
