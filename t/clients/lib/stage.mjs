/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/*
 * The ends of lib/ends.mjs that do not come about by themselves: others are
 * in the way, or somebody ends the request from outside, by its id or by
 * having its worker leave.
 */

import assert from 'node:assert/strict';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

import { parts, readText, reloadNginx } from './parts.mjs';

const WAIT_MS = 30000;


/*
 * What call(began) comes to.  It makes the scene's request in its own way,
 * and calls began() when it has the response's header.
 */

export async function staged(scene, want, call) {
    const before = [];
    let begin;
    const header = new Promise((resolve) => { begin = resolve; });

    try {
        for (let i = 0; i < (want.hold ?? 0); i++) {
            before.push(await hold(scene.part(`hold-${i}`), want.server, i));
        }

        const [result] = await Promise.all([
            call(() => begin()), want.act && act(scene, want, header),
        ]);

        return result;

    } finally {
        for (const { part, request } of before) {
            request.destroy();
            await part.line({});
        }
    }
}


/* the first one has the seat, the next ones wait for it */

export async function hold(part, server, i, headers = {}) {
    const request = http.request(`${part.url(server)}/v1/chat/completions`
                                 + `?test=${part.id}`, {
        method: 'POST', agent: false,
        headers: { 'Content-Type': 'application/json',
                   'X-LLM-Sim': 'fault=stall; at=1', ...headers },
    });

    request.on('error', () => {});
    request.end(JSON.stringify({
        model: 'sim-model', stream: true,
        messages: [{ role: 'user', content: 'Hi.' }],
    }));

    if (i === 0) {
        await new Promise((resolve, reject) => {
            request.on('error', reject);
            request.on('response', (response) => {
                response.on('error', () => {});
                response.resume();
                resolve();
            });
        });

    } else {
        await idOf(part);
    }

    return { part, request };
}


async function act(scene, want, header) {
    const id = await idOf(scene);

    if (want.when === 'header') {
        await header;
    }

    if (want.when === 'sent') {
        await until('a request upstream', async () =>
            (await scene.simStats()).inflight > 0);
    }

    if (want.act === 'leave') {
        await reloadNginx();
        return;
    }

    const response = await fetch(`http://127.0.0.1:${scene.port(want.server)}`
                                 + `/llm/cancel/${id}`, { method: 'DELETE' });

    assert.equal(response.status, 202, 'DELETE of the id');
}


/* as nginx's mirror told it: behind the limits, and in the queue already */

export async function idOf(scene) {
    let id;

    await until('an id', () => {
        const line = readText(`${parts.dir}/ids.log`).split('\n')
            .find((text) => scene.mark.test(text));

        id = line?.split(' ')[0];
        return id;
    });

    return id;
}


export async function until(what, happened) {
    const deadline = Date.now() + WAIT_MS;

    while (!await happened()) {
        assert.ok(Date.now() < deadline, `no ${what}`);
        await sleep(5);
    }
}
