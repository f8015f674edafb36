/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/*
 * HTTP/3 for lib/wire.mjs, by lib/quic.py: Node has none.  $TEST_PYTHON is a
 * Python that has aioquic, if python3 has not.
 */

import { spawn, spawnSync } from 'node:child_process';
import { createInterface } from 'node:readline';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';

const PYTHON = process.env.TEST_PYTHON || 'python3';
const CLIENT = fileURLToPath(new URL('quic.py', import.meta.url));

/* by the number of their requests */
const listeners = new Map();

let child;
let count = 0;

after(() => child?.stdin.end());


export function hasQuic() {
    return spawnSync(PYTHON, ['-c', 'import aioquic']).status === 0;
}


/*
 * A request; on has functions for what lib/quic.py says of it: ready(),
 * header(status, headers), data(text), end(how).  The result's leave(how)
 * makes its client leave.
 */

export function request3(url, { headers, body }, on) {
    const id = ++count;

    child ??= start();
    listeners.set(id, on);
    say({ id, url, headers, body });

    return { leave: (how) => say({ id, leave: how }) };
}


function start() {
    const started = spawn(PYTHON, [CLIENT],
                          { stdio: ['pipe', 'pipe', 'inherit'] });

    createInterface({ input: started.stdout }).on('line', hear);
    started.on('exit', () => {
        listeners.forEach((on) => on.end('no client'));
        listeners.clear();
    });

    return started;
}


function say(order) {
    child.stdin.write(`${JSON.stringify(order)}\n`);
}


function hear(line) {
    const { id, ready, status, headers, data, end } = JSON.parse(line);
    const on = listeners.get(id);

    if (ready) {
        on.ready();

    } else if (status) {
        on.header(status, headers);

    } else if (data !== undefined) {
        on.data(data);

    } else if (end) {
        listeners.delete(id);
        on.end(end);
    }
}
