/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/*
 * The faults that are large: they pass whole, in time that grows with their
 * size and no faster, and in memory that does not grow with it.  Chat stands
 * for all APIs of events, Ollama for those of lines: what differs is framing,
 * and nothing of these events is read.
 */

import assert from 'node:assert/strict';
import http2 from 'node:http2';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import { APIS, outcomeOf } from './lib/apis.mjs';
import { words } from './lib/calls.mjs';
import { startParts } from './lib/parts.mjs';
import { lastPromise, modulePromise } from './lib/scene.mjs';
import { until } from './lib/stage.mjs';
import { ask } from './lib/wire.mjs';
import { measure } from './lib/workers.mjs';

const VERSIONS = ['HTTP/1.1', 'HTTP/2.0'];

const MB = 1000000;

/*
 * CPU time of both workers, for up to 100 MB: they need a tenth of it, with
 * TLS a fifth; work that grows with the square of the size takes minutes.
 */
const CPU_S = 4;

/*
 * Of one stream: an event of 1 MB that is held back before it is let go, what
 * it was copied from while it grew, and the buffers of nginx and OpenSSL.
 */
const GROWN = 6 * MB;

/* of an answer up to 8 MB are kept, and as much again while that grows */
const GROWN_JSON = 20 * MB;

/* as long as a client's window is closed: "make minutes" has a minute */
const WINDOW_MS = Number(process.env.ZERO_WINDOW_MS ?? 1500);

const SLOW_MS = 240000;


await startParts();


/*
 * What comes, but for the xs that fill it, and how many these are; besides,
 * only "index" has one.
 */

function withoutXs() {
    let rest = '';
    let xs = 0;

    return {
        sink: (text) => {
            const part = text.replace(/x+/g, '');

            xs += text.length - part.length;
            rest += part;
        },

        get text() {
            return rest.replaceAll('"inde"', '"index"');
        },

        get xs() {
            return xs - rest.split('"inde"').length + 1;
        },
    };
}


function send(scene, api, version, order, options = {}) {
    const { body, path } = APIS[api];

    scene.tls = version === 'HTTP/2.0';

    return ask(version, `${scene.url(options.server)}${path}`
                        + `?test=${scene.id}`, {
        body: JSON.stringify({ ...body, ...options.more }),
        headers: { 'content-type': 'application/json',
                   'x-ledger': scene.key, 'x-llm-sim': order },
        ...options,
    });
}


function checkUse({ cpu_s, grown }, most = GROWN) {
    assert.ok(cpu_s < CPU_S, `${cpu_s} s of CPU time`);
    assert.ok(grown < most, `${grown} bytes more`);
}


for (const [api, version] of [['chat', 'HTTP/1.1'], ['chat', 'HTTP/2.0'],
                              ['ollama', 'HTTP/1.1']])
{
    modulePromise(`upstream: one line of 100 MB, ${api}, ${version}`,
                  async (scene) => {
        const seen = withoutXs();
        let got;

        checkUse(await measure(async () => {
            got = await send(scene, api, version,
                             `tokens=4; itl=0; line=${100 * MB}`,
                             { sink: seen.sink });
        }));

        got.text = seen.text;

        assert.equal(outcomeOf(APIS[api], got), 'complete');
        assert.equal(seen.xs, 100 * MB);
        assert.match(seen.text, /\{"sim":""\}\n/);

        await scene.line({ end: 'done', usage: 'upstream', completion: 4 });
    }, SLOW_MS);
}


for (const version of VERSIONS) {

    modulePromise(`upstream: a million data lines without a blank, ${version}`,
                  async (scene) => {
        let got;

        checkUse(await measure(async () => {
            got = await send(scene, 'chat', version,
                             'tokens=4; itl=0; lines=1000000');
        }));

        assert.equal(outcomeOf(APIS.chat, got), 'complete');
        assert.ok(got.text.includes(`\n\n${'data: x\n'.repeat(MB)}\ndata: `));

        await scene.line({ end: 'done', usage: 'upstream', completion: 4 });
    }, SLOW_MS);


    /* 7 MB of an answer are read, 10 MB are over its cap */

    for (const [stream, mb, usage] of [[true, 10, 'upstream'],
                                       [false, 10, 'none'],
                                       [false, 7, 'upstream']])
    {
        const how = stream ? 'in a stream' : 'not streamed';

        modulePromise(`upstream: a string of ${mb} MB in pieces, ${how}, `
                      + version, async (scene) => {
            const seen = withoutXs();
            let got;

            checkUse(await measure(async () => {
                got = await send(scene, 'chat', version,
                    `tokens=1; itl=0; words=${mb * MB}; split=1448`,
                    { sink: seen.sink, more: { stream,
                                               stream_options: undefined } });
            }), stream ? GROWN : GROWN_JSON);

            got.text = seen.text;

            assert.equal(got.status, 200);
            assert.equal(got.broken, false);
            assert.equal(seen.xs, mb * MB - words(1).length);

            if (stream) {
                assert.equal(outcomeOf(APIS.chat, got), 'complete');

            } else {
                assert.equal(JSON.parse(seen.text).choices[0].message.content,
                             words(1));
            }

            await scene.line({ end: 'done', usage });
        }, SLOW_MS);
    }
}


/* the Responses API says all of it again in its last event, the terminal one */

modulePromise('upstream: a last event over 1 MB is the end, where it is whole',
              async (scene) => {
    for (const [fault, outcome, end] of [['', 'complete', 'done'],
        ['; fault=midevent; at=2', 'transport', 'upstream_truncated']])
    {
        const seen = withoutXs();
        const got = await send(scene, 'responses', 'HTTP/1.1',
                               `tokens=3; itl=0; words=${3 * MB}${fault}`,
                               { sink: seen.sink });

        got.text = seen.text;

        assert.equal(outcomeOf(APIS.responses, got), outcome);

        const line = await scene.line({ end, usage: 'estimate' });

        assert.ok(line.completion > MB / 10, 'all of it is charged');
    }
}, SLOW_MS);


/*
 * Opens an answer of 100 MB that its client can read from as slowly as it
 * likes.  read() waits for the next so many bytes.
 */

const SLOW = {

    'HTTP/1.1': async (scene, order) => {
        const body = JSON.stringify(APIS.chat.body);
        const chunk = Buffer.alloc(1024);
        let more;

        const socket = net.connect({
            port: scene.port('ledgerLong'), host: '127.0.0.1',
            onread: {
                buffer: chunk,
                callback: () => { more(); return false; },
            },
        });

        socket.on('error', () => {});
        socket.write(`POST /v1/chat/completions?test=${scene.id} HTTP/1.1\r\n`
                     + `Host: localhost\r\nX-Ledger: ${scene.key}\r\n`
                     + `Content-Type: application/json\r\n`
                     + `Content-Length: ${body.length}\r\n`
                     + `X-LLM-Sim: ${order}\r\n\r\n${body}`);

        return {
            read: () => new Promise((resolve) => {
                more = resolve;
                socket.resume();
            }),
            close: () => socket.destroy(),
        };
    },

    'HTTP/2.0': async (scene, order) => {
        scene.tls = true;

        const session = http2.connect(scene.url('ledgerLong'), {
            rejectUnauthorized: false,
        });
        const stream = session.request({
            ':method': 'POST',
            ':path': `/v1/chat/completions?test=${scene.id}`,
            'content-type': 'application/json', 'x-ledger': scene.key,
            'x-llm-sim': order,
        });

        session.on('error', () => {});
        stream.on('error', () => {});
        stream.end(JSON.stringify(APIS.chat.body));

        return {
            read: async () => {
                while (stream.read(1024) === null) {
                    await sleep(5);
                }
            },
            close: () => session.destroy(),
        };
    },
};


modulePromise('client: reads 1 KB/s of 100 MB, HTTP/1.1 and HTTP/2',
              async (scene) => {
    const made = [];

    await scene.simReset();

    const used = await measure(async () => {
        const clients = await Promise.all(VERSIONS.map((version) =>
            SLOW[version](scene.part(version),
                          'tokens=5000; words=20000; itl=0')));

        for (let i = 0; i < 4; i++) {
            await Promise.all(clients.map((client) => client.read()));
            await sleep(1000);
            made.push((await scene.simStats()).made_tokens);
        }

        clients.forEach((client) => client.close());
        await until('two aborts', async () =>
            (await scene.simStats()).aborted === 2);
    });

    /* sockets have buffers of their own, up to some MB each */

    assert.ok(made[0] < 5000, `${made} of 10,000 tokens are made`);
    assert.ok(made[3] - made[0] < 1000, `${made}: upstream waits`);

    checkUse(used);

    for (const part of scene.parts) {
        const line = await part.line({ end: 'client_abort',
                                       usage: 'estimate' });

        assert.ok(line.prompt > 0 && line.completion > 0, 'is charged');
    }
}, SLOW_MS);


/*
 * A client of HTTP/2 that takes no byte of data before it says.  With TLS
 * nginx keeps the header back as well.
 */

function closedWindow(scene, server, order) {
    scene.tls = true;

    const session = http2.connect(scene.url(server), {
        rejectUnauthorized: false, settings: { initialWindowSize: 0 },
    });
    const seen = withoutXs();

    session.on('error', () => {});

    const stream = session.request({
        ':method': 'POST', ':path': `/v1/chat/completions?test=${scene.id}`,
        'content-type': 'application/json', 'x-ledger': scene.key,
        'x-llm-sim': order,
    });

    stream.setEncoding('latin1');
    stream.on('data', seen.sink);
    stream.on('error', () => {});
    stream.end(JSON.stringify(APIS.chat.body));

    const closed = new Promise((resolve) => stream.on('close', () => {
        session.destroy();
        resolve(stream.rstCode);
    }));

    return { session, seen, closed };
}


function asked(scene) {
    return until('request upstream', async () =>
        (await scene.simStats()).requests === 1);
}


modulePromise('client: HTTP/2, no window for a while, then all of it',
              async (scene) => {
    const order = 'tokens=200; words=20000; itl=0';

    await scene.simReset();

    const client = closedWindow(scene, 'patient', order);
    let text;

    const used = await measure(async () => {
        await asked(scene);
        await sleep(WINDOW_MS);
        assert.equal(client.seen.text, '');

        client.session.setLocalWindowSize(10 * MB);
        client.session.settings({ initialWindowSize: 10 * MB });

        assert.equal(await client.closed, http2.constants.NGHTTP2_NO_ERROR);
        text = client.seen.text;
    });

    checkUse(used);
    assert.equal(outcomeOf(APIS.chat, { status: 200, text, broken: false }),
                 'complete');
    assert.equal(client.seen.xs, 200 * 20000 - words(200).length);

    await scene.line({ end: 'done', usage: 'upstream', completion: 200 });
}, SLOW_MS + WINDOW_MS);


modulePromise('client: HTTP/2, no window for longer than send_timeout',
              async (scene) => {
    await scene.simReset();

    const client = closedWindow(scene, 'impatient',
                                'tokens=5000; words=20000; itl=0');

    await asked(scene);
    await client.closed;
    await scene.awaitAbort(5000);
    assert.equal(client.seen.text, '');

    await scene.line({ end: 'client_abort', usage: 'estimate' });
}, SLOW_MS);


/*
 * Streams that are reset as soon as they are opened, on one connection, while
 * they are sent on and while they wait: nothing is left of them, and the
 * connection is as good as before.
 */

for (const server of ['ledgerLong', 'ledgerQueue']) {

    modulePromise(`client: HTTP/2, a storm of resets, ${server}`,
                  async (scene) => {
        scene.tls = true;

        const session = http2.connect(scene.url(server), {
            rejectUnauthorized: false,
        });
        let opened = 0;
        let lines = [];

        session.on('error', () => {});
        await scene.simReset();

        for (let round = 0; round < 5; round++) {
            const closed = Array.from({ length: 60 }, () => {
                const stream = session.request({
                    ':method': 'POST',
                    ':path': `/v1/chat/completions?test=${scene.id}`,
                    'content-type': 'application/json',
                    'x-ledger': scene.key, 'x-llm-sim': 'tokens=99; itl=50',
                });

                stream.on('error', () => {});
                stream.end(JSON.stringify(APIS.chat.body));

                setTimeout(() => stream.close(
                    http2.constants.NGHTTP2_CANCEL), 2 * round);

                return new Promise((resolve) => stream.on('close', () => {
                    opened += stream.id !== undefined;
                    resolve();
                }));
            });

            await Promise.all(closed);
        }

        await until('line for each', () => {
            lines = scene.lines();

            return lines.length >= opened;
        });
        await until('quiet upstream', async () =>
            (await scene.simStats()).inflight === 0);

        assert.ok(opened > 100, `${opened} streams`);

        for (let i = 0; i < lines.length; i++) {
            const line = await scene.line({});

            assert.ok(['client_abort', '-'].includes(line.end), lines[i]);
        }

        session.destroy();

        /* what is in flight still would keep it in the queue */

        const got = await send(scene, 'chat', 'HTTP/2.0', 'tokens=1',
                               { server });

        assert.equal(outcomeOf(APIS.chat, got), 'complete');
        await scene.line({ end: 'done', completion: 1 });
    }, SLOW_MS);
}


lastPromise();
