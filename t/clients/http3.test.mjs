/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/*
 * A browser over HTTP/3, where nginx has it: how a stream ends, and how a
 * client leaves, which is another thing there than a closed connection.
 */

import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import {
    browserPromises, openPage, path, startBrowser,
} from './lib/browser.mjs';
import { words } from './lib/calls.mjs';
import { LEDGER_BURST } from './lib/conf.mjs';
import { fetchBytes } from './lib/page.mjs';
import { hasHttp3, parts, startParts } from './lib/parts.mjs';
import { lastPromise, modulePromise } from './lib/scene.mjs';

const PROTOCOL = 'HTTP/3.0';

const MAX_MS = 15000;

const ERROR_END = /\nevent: error\ndata: \{"type":"error",[^\n]*\}\n\n$/;


/* QUIC is for a certificate that is known: ours is made known by its key */

function quicArgs() {
    const { publicKey } = new X509Certificate(
        readFileSync(`${parts.dir}/tls.crt`));
    const key = publicKey.export({ type: 'spki', format: 'der' });
    const hash = createHash('sha256').update(key).digest('base64');
    const origins = Object.values(parts.tlsPorts)
        .map((port) => `127.0.0.1:${port}`);

    return [`--ignore-certificate-errors-spki-list=${hash}`,
            `--origin-to-force-quic-on=${origins.join(',')}`];
}


/*
 * A request of a page of its own.  Resolves to { status, headers, text,
 * broken, left }; options are those of fetchBytes().
 */

async function ask(scene, server, order, options = {}) {
    scene.tls = true;

    const page = await openPage(scene, server);

    try {
        return await page.evaluate(fetchBytes, request(scene, order, options));

    } finally {
        await page.close();
    }
}


function request(scene, order, { body = {}, key = 'http3', ...options }) {
    return {
        path: path(scene, 'chat/completions'),
        headers: { 'Content-Type': 'application/json', 'X-LLM-Sim': order,
                   'X-Ledger': key },
        body: JSON.stringify({
            model: 'sim-model', stream: true,
            messages: [{ role: 'user', content: 'Tell me a story.' }],
            ...body,
        }),
        ...options,
    };
}


function contentOf(text) {
    return [...text.matchAll(/"content":"([^"]+)"/g)]
        .map(([, content]) => content).join('');
}


async function until(what, look) {
    const deadline = Date.now() + MAX_MS;

    while (!await look()) {
        assert.ok(Date.now() < deadline, what);
        await sleep(10);
    }
}


/* the browser's page is closed while its request is on its way */

async function closePage(scene, server, order, isThere) {
    scene.tls = true;

    const page = await openPage(scene, server);
    const asked = page.evaluate(fetchBytes, request(scene, order, {}))
        .catch(() => {});

    await until('the request is there', isThere);
    await page.close();
    await asked;
}


/* all that is known of requests of the key "http3", tokens that were charged */

let charged = 0;

async function book(scene, want) {
    const line = await scene.line({ protocol: PROTOCOL, ...want });

    charged += Number(line.total.replace('-', '0'));

    return line;
}


function promises() {
    browserPromises(PROTOCOL);


    modulePromise('a stream passes byte by byte, as it is', async (scene) => {
        const got = await ask(scene, 'main', 'tokens=50; split=1');

        assert.equal(got.status, 200);
        assert.equal(contentOf(got.text), words(50));
        assert.match(got.text, /\ndata: \[DONE\]\n\n$/);

        await scene.line({ protocol: PROTOCOL, status: 200, end: 'done',
                           completion: 50 });
    });


    modulePromise('a transport that breaks off is no end of a stream',
                  async (scene) => {
        const got = await ask(scene, 'torn', 'tokens=9; fault=reset; at=3');

        assert.equal(got.status, 200);
        assert.deepEqual([got.broken, got.left], [true, false]);

        await scene.line({ protocol: PROTOCOL, end: 'upstream_truncated' });
    });


    modulePromise('an error before the first token goes to another server',
                  async (scene) => {
        const order = `tokens=5; fault=error; only=${parts.sims[0]}`;
        const part = [];

        for (let i = 0; i < 12; i++) {
            part.push(scene.part(i));
        }

        const got = await Promise.all(part.map((one) =>
            ask(one, 'over', order)));

        for (const [i, { status, text }] of got.entries()) {
            assert.equal(status, 200);
            assert.equal(contentOf(text), words(5));
            await part[i].line({ protocol: PROTOCOL, end: 'done',
                                 completion: 5 });
        }
    });


    modulePromise('a silence is filled with heartbeats', async (scene) => {
        const got = await ask(scene, 'beating', 'tokens=3; itl=700');

        assert.ok(got.text.match(/^: .*\n/gm)?.length >= 2, got.text);
        assert.equal(contentOf(got.text), words(3));
        await scene.line({ protocol: PROTOCOL, end: 'done' });
    });


    for (const [what, order, leave] of [
        ['a stream', 'tokens=500; itl=20', { leaveAfter: 3 }],
        ['a stalled stream', 'tokens=9; fault=stall; at=3',
         { leaveAfter: 3 }],
        ['a stream before its header', 'fault=stall; at=header',
         { leaveMs: 1000 }],
        ['one held for its first token', 'fault=stall; at=first',
         { leaveMs: 1000 }],
    ]) {
        modulePromise(`a client that leaves ${what} is seen at once`,
                      async (scene) => {
            await scene.simReset();

            const got = await ask(scene, 'ledgerLong', order, leave);

            assert.equal(got.left, true);
            await scene.awaitAbort(1000);

            const line = await book(scene, { end: 'client_abort',
                                             usage: 'estimate' });

            assert.ok(line.prompt > 0, 'prompt tokens');
        });
    }


    modulePromise('a page that is closed leaves a stalled stream',
                  async (scene) => {
        await scene.simReset();
        await closePage(scene, 'main', 'tokens=9; fault=stall; at=3',
                        async () => (await scene.simStats()).inflight > 0);
        await scene.awaitAbort(1000);
        await scene.line({ protocol: PROTOCOL, end: 'client_abort' });
    });


    /* charged is what upstream says at its end */

    modulePromise('a stream that is left is read to its end, if so told',
                  async (scene) => {
        const got = await ask(scene, 'drained', 'tokens=40; itl=20',
                              { leaveAfter: 3 });

        assert.equal(got.left, true);
        await scene.line({ protocol: PROTOCOL, end: 'client_abort',
                           usage: 'upstream', completion: 40 });
    });


    /* it has reserved what it waits for, and gives it back */

    modulePromise('a client that leaves while it waits for its tokens',
                  async (scene) => {
        const body = { max_tokens: 80 };
        const run = (order, options) => ask(scene, 'waiting', order,
            { key: 'waits', body, ...options });

        await run('tokens=60; itl=0', {});
        await scene.line({ end: 'done', limit: 'PASSED' });

        await run('tokens=80', { leaveMs: 1000 });
        await scene.line({ protocol: PROTOCOL, end: 'client_abort',
                           usage: 'none', total: '-', limit: 'DELAYED' });

        const got = await run('tokens=1', { body: { max_tokens: 1 } });

        assert.equal(got.status, 200);
        await scene.line({ protocol: PROTOCOL, end: 'done', limit: 'PASSED',
                           wait: '0.000' });
    });


    modulePromise('.. or in the queue, and the next one has its place',
                  async (scene) => {
        scene.tls = true;

        /* to open a page is a request, too */

        const [first, second, third] = [1, 2, 3].map((n) => scene.part(n));
        const pages = await Promise.all([1, 2, 3].map(() =>
            openPage(scene, 'full')));
        const run = (n, part, order, options = {}) =>
            pages[n].evaluate(fetchBytes, request(part, order, options));

        const running = run(0, first, 'tokens=200; itl=20');

        await until('the first one is served',
                    async () => (await scene.simStats()).inflight > 0);

        const left = await run(1, second, 'tokens=1', { leaveMs: 1000 });

        assert.equal(left.left, true);
        await second.line({ protocol: PROTOCOL, end: 'client_abort',
                            usage: 'none' });

        const next = await run(2, third, 'tokens=4');

        assert.equal(contentOf((await running).text), words(200));
        assert.equal(contentOf(next.text), words(4));
        await first.line({ protocol: PROTOCOL, end: 'done' });
        await third.line({ protocol: PROTOCOL, end: 'done' });
        await Promise.all(pages.map((page) => page.close()));
    });


    modulePromise('what is logged is what was charged', async (scene) => {
        for (const [order, end] of [
            ['tokens=7', 'done'],
            ['fault=error; at=3; tokens=9', 'upstream_error'],
            ['fault=reset; at=3; tokens=9', 'upstream_truncated'],
            ['fault=stall; at=3; tokens=9', 'idle_timeout'],
            ['fault=stall; at=first', 'first_token_timeout'],
            ['status=429', 'upstream_error'],
        ]) {
            await ask(scene, 'ledger', order);
            await book(scene, { end });
        }

        const { headers } = await ask(scene, 'ledger', 'tokens=1');
        const left = Number(headers['x-ratelimit-remaining-tokens']);
        const before = charged;
        const line = await book(scene, { end: 'done' });

        assert.ok(before > 50, `${before} tokens`);
        assert.equal(left, LEDGER_BURST - before - line.reserved);
    });


    /* with as many at both servers as both had before: none */

    modulePromise('nothing is left in flight', async (scene) => {
        let tries = 0;

        await until('two servers without a request', async () => {
            const pair = [2 * tries, 2 * tries + 1].map((n) => scene.part(n));

            tries++;

            await Promise.all(pair.map((part) =>
                ask(part, 'main', 'tokens=1; ttft=600')));

            const lines = await Promise.all(pair.map((part) =>
                part.line({ protocol: PROTOCOL, end: 'done' })));

            return lines.every((line) => line.inflight === '1')
                   && lines[0].upstream !== lines[1].upstream;
        });
    });
}


if (hasHttp3()) {
    await startParts({ quic: true });
    await startBrowser(quicArgs());
    promises();
    lastPromise();

} else {
    test('HTTP/3', { skip: 'this nginx was built without HTTP/3' }, () => {});
}
