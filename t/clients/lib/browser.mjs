/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/* a browser: its fetch() and its EventSource, without any library */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import puppeteer from 'puppeteer-core';

import { words } from './calls.mjs';
import { ENDS } from './ends.mjs';
import { fetchStream, readSource } from './page.mjs';
import { modulePromise, promise } from './scene.mjs';
import { staged } from './stage.mjs';

const CHROMIUM = process.env.TEST_CHROMIUM || '/usr/bin/chromium';

const CHAT = {
    model: 'sim-model',
    messages: [{ role: 'user', content: 'Tell me a story of a proxy.' }],
    stream: true,
};

/*
 * What an EventSource sees: the order, $llm_end, tokens, the error, an act,
 * and where it asks, if not the server "events".
 */
const SOURCES = [
    ['an answer to its end', 'tokens=5', 'done', 5, null],
    ['an error in mid-stream', 'tokens=9;fault=error;at=3',
     'upstream_error', 3, /./],
    ['a connection reset in mid-stream', 'tokens=9;fault=reset;at=3',
     'upstream_truncated', 3, /before it was complete/],
    ['silence in mid-stream', 'tokens=9;fault=stall;at=3',
     'idle_timeout', 3, /stopped sending/],
    ['a stream that takes too long', 'tokens=90;itl=100',
     'total_timeout', undefined, /took longer/],
    ['a stream that spends more than its budget', 'tokens=400;itl=1',
     'limit_cut', undefined, /rate limit/i, undefined, 'eventsCut'],
    ['a stream that is cancelled', 'tokens=90;itl=100',
     'cancelled', undefined, /was cancelled/, 'cancel'],
    ['a stream whose worker has to leave', 'tokens=90;itl=100',
     'shutdown', undefined, /shutting down/, 'leave'],
];

/* on a machine that stalls */
const START_MS = 120000;

let browser;


/* once for a test file; closed at its end */

export async function startBrowser(args = []) {
    if (!existsSync(CHROMIUM)) {
        throw new Error(`no ${CHROMIUM}: run "tools/install-deps clients" `
                        + 'first');
    }

    browser = await puppeteer.launch({
        executablePath: CHROMIUM,
        headless: true,
        acceptInsecureCerts: true,
        timeout: START_MS,
        args: ['--no-proxy-server', ...args,
               ...(process.getuid() === 0 ? ['--no-sandbox'] : [])],
    });

    after(() => browser.close());

    return browser;
}


/* a page of nginx's own origin, in which something can run */

export async function openPage(scene, server) {
    const page = await browser.newPage();

    await page.goto(`${scene.url(server)}/llm/blank`);

    return page;
}


export async function inPage(scene, server, run, ...args) {
    return stagedInPage(scene, { server }, run, ...args);
}


/* what comes about as lib/ends.mjs says; the page tells when it has begun */

function stagedInPage(scene, want, run, ...args) {
    return staged(scene, want, (began) => runPage(scene, want.server, began,
                                                  run, ...args));
}


async function runPage(scene, server, began, run, ...args) {
    const page = await openPage(scene, server);

    await page.exposeFunction('began', began);

    try {
        return await page.evaluate(run, ...args);

    } finally {
        await page.close();
    }
}


/* with the scene's number, by which its line is found */

export function path(scene, api, more = {}) {
    const query = new URLSearchParams(scene.query).toString();
    const rest = Object.entries(more)
        .map(([name, value]) => `${name}=${value}`);

    return `/v1/${api}?${[...rest, query].join('&')}`;
}


/*
 * What a browser promises over each version of HTTP.  Workers that leave are
 * not for HTTP/3: a packet for the old one may be read by the new one, and
 * nginx's connections, with or without the module, then end as they like.
 */

export function browserPromises(protocol) {
    const leaves = protocol !== 'HTTP/3.0';

    for (const want of ENDS.filter(({ act }) => leaves || act !== 'leave')) {

        modulePromise(`fetch, ${protocol}: ${want.what}`, async (scene) => {
            scene.tls = protocol !== 'HTTP/1.1';

            const seen = await stagedInPage(scene, want, fetchStream,
                                            path(scene, 'chat/completions'),
                                            scene.key, CHAT, want.order);

            assert.equal(seen.status, want.status);
            assert.equal(seen.thrown, undefined);

            if (want.tokens !== undefined) {
                assert.equal(seen.texts.join(''), words(want.tokens));
            }

            if (want.message === null) {
                assert.deepEqual([seen.done, seen.error], [true, null]);

            } else {
                assert.match(seen.error.message, want.message);
                assert.equal(seen.done, false);
            }

            if (want.status === 200) {
                assert.deepEqual([seen.ended, seen.rest], [true, '']);
            }

            if (want.retry_after) {
                assert.match(seen.retry_after, want.retry_after);
            }

            await scene.line({ protocol, status: want.status,
                               end: want.end });
        });
    }


    promise(`fetch, ${protocol}: a stream that the page leaves`,
            async (scene) => {
        scene.tls = protocol !== 'HTTP/1.1';
        await scene.simReset();

        const seen = await inPage(scene, 'main', fetchStream,
                                  path(scene, 'chat/completions'), scene.key,
                                  CHAT, 'tokens=500; itl=20', 4);

        assert.equal(seen.thrown, 'AbortError');
        await scene.awaitAbort(1000);
        await scene.line({ protocol, end: 'client_abort',
                           usage: 'estimate' });
    });


    promise(`fetch, ${protocol}: a page that is closed`, async (scene) => {
        scene.tls = protocol !== 'HTTP/1.1';
        await scene.simReset();

        const page = await openPage(scene, 'main');
        const read = page
            .evaluate(fetchStream, path(scene, 'chat/completions'),
                      scene.key, CHAT, 'tokens=500; itl=20')
            .catch(() => {});

        while ((await scene.simStats()).inflight === 0) {
            await sleep(20);
        }

        await page.close();
        await read;
        await scene.awaitAbort(1000);
        await scene.line({ protocol, end: 'client_abort' });
    });


    for (const [what, order, end, tokens, message, act, server = 'events']
         of SOURCES)
    {

        if (act === 'leave' && !leaves) {
            continue;
        }

        modulePromise(`EventSource, ${protocol}: ${what}`, async (scene) => {
            scene.tls = protocol !== 'HTTP/1.1';

            const seen = await stagedInPage(scene,
                { server, act, when: 'header' }, readSource,
                path(scene, 'completions', { order }));

            if (tokens !== undefined) {
                assert.equal(seen.texts.join(''), words(tokens));
            }

            assert.equal(seen.lost, 0);

            if (message === null) {
                assert.deepEqual([seen.done, seen.error], [true, null]);

            } else {
                assert.match(seen.error.message, message);
                assert.equal(seen.done, false);
            }

            await scene.line({ status: 200, end,
                               ...server === 'events' && { protocol } });
        });
    }
}
