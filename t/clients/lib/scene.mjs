/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/*
 * A test is a promise, and has a scene of its own: a key that has no history
 * at the limits, and a number that its requests carry in their query, by
 * which it finds its lines in the access log.
 */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { ranMs } from './clock.mjs';
import { direct, parts, readText, stopParts } from './parts.mjs';

/* a machine that stalls takes long; what hangs takes for ever */
const TEST_MS = 60000;

/* nginx writes a request's line when all of it is over */
const LINE_MS = 30000;

const ALARMING = /\[alert\]|\[emerg\]|Sanitizer|runtime error:/;

let count = 0;
let failed = false;


/* a test; whatever it asked of nginx, it has to have looked at the lines of */

export function promise(name, run, timeout = TEST_MS) {
    const id = ++count;

    test(name, { timeout }, async () => {
        const scene = new Scene(id);

        try {
            await run(scene);
            scene.checkRead();

        } catch (error) {
            failed = true;
            error.message += `\n${scene.report()}`;
            throw error;
        }
    });
}


/* one that cannot be kept without the module */

export function modulePromise(name, run, timeout) {
    if (!direct) {
        promise(name, run, timeout);
    }
}


/*
 * The last promise of every file.  What the parts have left is kept where
 * any other was broken.
 */

export function lastPromise() {
    test('nginx ends cleanly and has logged nothing alarming', async () => {
        await stopParts();

        const log = readText(`${parts.dir}/error.log`)
                    + readText(`${parts.dir}/nginx.log`);

        assert.deepEqual(log.split('\n')
                             .filter((line) => ALARMING.test(line)), []);

        if (!failed) {
            rmSync(parts.dir, { recursive: true });
        }
    });
}


/* the stage of one test */

class Scene {
    constructor(id) {
        this.id = String(id);
        this.read = 0;
        this.tls = false;
        this.parts = [];

        /* nobody else's, and so without a history at the limits */
        this.key = `key-${process.pid}-${id}`;
        this.query = { test: this.id };
    }

    url(server = 'main') {
        return this.tls ? `https://127.0.0.1:${parts.tlsPorts[server]}`
                        : `http://127.0.0.1:${parts.ports[server]}`;
    }

    port(server = 'main') {
        return parts.ports[server];
    }

    /* past nginx */

    get simUrl() {
        return `http://127.0.0.1:${parts.sims[0]}`;
    }

    /* a scene in this one, for a request that runs beside others */

    part(n) {
        const part = new Scene(`${this.id}.${n}`);

        part.key = this.key;
        this.parts.push(part);

        return part;
    }

    /* the query of a request of ours, in a line of a log */

    get mark() {
        return new RegExp(`[?&]test=${this.id.replace('.', '\\.')} `);
    }

    lines() {
        return readText(`${parts.dir}/access.log`).split('\n').slice(0, -1)
            .filter((line) => this.mark.test(line.split('"')[1]));
    }

    /*
     * The next line of the access log: an object of its fields.  Those that
     * are named in want have to be as they are there.
     */

    async line(want) {
        const deadline = Date.now() + LINE_MS;

        if (direct) {
            return null;
        }

        while (this.lines().length <= this.read) {
            assert.ok(Date.now() < deadline, 'no line in the access log');
            await sleep(5);
        }

        const got = parseLine(this.lines()[this.read++]);
        const part = {};
        const text = {};

        for (const [name, value] of Object.entries(want)) {
            part[name] = got[name];
            text[name] = String(value);
        }

        assert.deepEqual(part, text);

        return got;
    }

    checkRead() {
        this.parts.forEach((part) => part.checkRead());

        assert.equal(direct ? 0 : this.lines().length, this.read,
                     'requests in the access log');
    }

    /* what helps to understand a failure */

    report() {
        const errors = readText(`${parts.dir}/error.log`).split('\n')
            .filter((line) => this.mark.test(line));

        return [`kept: ${parts.dir}`, ...this.lines(), ...errors,
                ...this.parts.map((part) => part.report())].join('\n');
    }

    /* sums over the simulated inference servers */

    async simStats() {
        const response = await fetch(`${this.simUrl}/sim/stats`);
        const sums = {};

        for (const server of (await response.json()).servers) {
            for (const [name, value] of Object.entries(server)) {
                sums[name] = (sums[name] ?? 0) + value;
            }
        }

        return sums;
    }

    /*
     * Runs while the server "own" answers every request with these bytes and
     * then closes the connection.
     */

    async withAnswer(bytes, run) {
        const server = createServer((socket) => {
            socket.on('error', () => {});
            socket.once('data', () => socket.end(bytes));
        });

        server.listen(parts.own, '127.0.0.1');
        await once(server, 'listening');

        try {
            await run();

        } finally {
            server.close();
        }
    }

    async simReset() {
        await fetch(`${this.simUrl}/sim/stats`, { method: 'DELETE' });
    }

    /*
     * One request was left, and nothing else is on its way: so soon, by the
     * clock that knows of stalls.
     */

    async awaitAbort(max_ms) {
        const deadline = ranMs() + max_ms;

        for (;;) {
            const stats = await this.simStats();

            if (stats.aborted === 1 && stats.inflight === 0) {
                return stats;
            }

            assert.ok(ranMs() < deadline, JSON.stringify(stats));
            await sleep(10);
        }
    }
}


function parseLine(text) {
    const found = /^\S+ \[[^\]]*\] "[^"]* (\S+)" (\d+) (.*)$/.exec(text);
    const fields = { protocol: found[1], status: found[2] };

    for (const [, name, quoted, bare]
         of found[3].matchAll(/(\w+)=(?:"([^"]*)"|(\S*))/g))
    {
        fields[name] = quoted ?? bare;
    }

    return fields;
}
