/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/*
 * The parts that a test file needs, llm-sim and nginx with the module: they
 * run on free ports as long as it does, and are stopped by their ids.
 *
 * LLM_DIRECT=1: no nginx.  The clients talk to llm-sim itself, to show that
 * it speaks as the vendors do.
 */

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
    closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync,
    realpathSync, writeFileSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { nginxConf, SERVER_NAMES, WORKERS } from './conf.mjs';

const ROOT = realpathSync(fileURLToPath(new URL('../../..', import.meta.url)));
const BUILD = process.env.TEST_LLM_BUILD || `${ROOT}/build`;
const SIM = process.env.TEST_LLM_SIM || `${BUILD}/llm-sim`;
const NGINX = process.env.TEST_NGINX_BINARY
              || `${BUILD}/nginx/usr/sbin/nginx`;
const MODULE = process.env.TEST_LLM_MODULE
               || `${BUILD}/ngx_http_llm_stream_module.so`;

const SIM_OPTIONS = ['--itl', '2', '--itl-slope', '0', '--prefill', '1000000',
                     '--prefix-cache', '100000', '--quiet'];

/* what a busy machine may take */
const START_MS = 30000;
const LEAVE_MS = 30000;
const STOP_MS = 30000;

/* below those that the kernel gives to outgoing connections and those of the
 * benchmarks, above those of the suites, whose locks are not known here */
const FIRST_PORT = 26000;
const LAST_PORT = 28999;

export const direct = Boolean(process.env.LLM_DIRECT);

/*
 * ports, tlsPorts: nginx's, by server name; sims: of the simulated inference
 * servers; own: free, for one that a test makes by itself
 */
export const parts = {
    dir: null, ports: {}, tlsPorts: {}, sims: [], own: 0,
};

const children = [];

let nginx;


/* whether nginx can do so at all */

export function hasHttp3() {
    const { stderr } = spawnSync(NGINX, ['-V'], { encoding: 'utf8' });

    return !direct && stderr.includes('--with-http_v3_module');
}


/*
 * Starts everything, once for a test file, and sees to its end.  quic: with
 * HTTP/3.
 */

export async function startParts({ quic = false } = {}) {
    mkdirSync(`${BUILD}/clients`, { recursive: true });
    parts.dir = realpathSync(mkdtempSync(`${BUILD}/clients/`));

    process.on('exit', killChildren);
    after(stopParts);

    const [sim1, sim2, own, ...rest]
        = await freePorts(3 + 2 * SERVER_NAMES.length);

    parts.sims = [sim1, sim2];
    parts.own = own;

    await startSim();

    if (direct) {
        SERVER_NAMES.forEach((name) => { parts.ports[name] = sim1; });
        return;
    }

    SERVER_NAMES.forEach((name, i) => {
        parts.ports[name] = rest[2 * i];
        parts.tlsPorts[name] = rest[2 * i + 1];
    });

    await startNginx(quic);
}


/* of a range that is our own, as far as other test files go by their ids */

async function freePorts(count) {
    const ranges = Math.floor((LAST_PORT - FIRST_PORT) / (2 * count));
    const ports = [];
    let port = FIRST_PORT + process.pid % ranges * 2 * count;

    for (; ports.length < count; port++) {
        if (port > LAST_PORT) {
            throw new Error(`only ${ports.length} free ports`);
        }

        if (await isFree(port)) {
            ports.push(port);
        }
    }

    return ports;
}


async function isFree(port) {
    const server = createServer();

    try {
        server.listen(port, '127.0.0.1');
        await once(server, 'listening');

    } catch {
        return false;
    }

    server.close();
    await once(server, 'close');

    return true;
}


async function startSim() {
    const listen = parts.sims.flatMap((port) => ['--listen',
                                                 `127.0.0.1:${port}`]);
    const log = `${parts.dir}/llm-sim.log`;
    const child = startChild(log, SIM, [...listen, ...SIM_OPTIONS]);

    await awaitChild(child, log, () => /^llm-sim ready:/m.test(readText(log)));
}


async function startNginx(quic) {
    const conf = `${parts.dir}/nginx.conf`;
    const log = `${parts.dir}/nginx.log`;

    makeCertificate();

    writeFileSync(conf, nginxConf({
        root: ROOT,
        dir: parts.dir,
        module: realpathSync(MODULE),
        ports: parts.ports,
        tlsPorts: parts.tlsPorts,
        sims: parts.sims,
        own: parts.own,
        quic,
    }));

    nginx = startChild(log, NGINX, ['-p', parts.dir, '-c', conf,
                                    '-e', `${parts.dir}/error.log`]);

    await awaitChild(nginx, log, async () =>
        await isOpen(parts.ports.main)
        && workers().filter(works).length === WORKERS);
}


/* other workers take over; resolves when those of now are gone */

export async function reloadNginx() {
    const deadline = Date.now() + LEAVE_MS;
    const old = workers();

    nginx.kill('SIGHUP');

    while (workers().some((pid) => old.includes(pid))) {

        if (Date.now() > deadline) {
            throw new Error(`workers ${old} did not leave`);
        }

        await sleep(20);
    }

    /* connections that they had kept open are known to be closed */

    await sleep(20);
}


/* it has its title, and so its own memory, too */

function works(pid) {
    return readText(`/proc/${pid}/cmdline`).startsWith('nginx: worker');
}


export function workers() {
    return readText(`/proc/${nginx.pid}/task/${nginx.pid}/children`)
        .trim().split(' ');
}


function makeCertificate() {
    execFileSync('openssl', [
        'req', '-x509', '-newkey', 'ec', '-pkeyopt',
        'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
        '-subj', '/CN=localhost', '-keyout', `${parts.dir}/tls.key`,
        '-out', `${parts.dir}/tls.crt`,
    ], { stdio: 'pipe' });
}


/* not to outlive a killed test */

function startChild(log, command, args) {
    if (!existsSync(command)) {
        throw new Error(`no ${command}: run "make build tools" first`);
    }

    const setpriv = '/usr/bin/setpriv';
    const argv = existsSync(setpriv)
                 ? [setpriv, '--pdeathsig', 'TERM', '--', command, ...args]
                 : [command, ...args];
    const out = openSync(log, 'a');
    const child = spawn(argv[0], argv.slice(1),
                        { stdio: ['ignore', out, out] });

    closeSync(out);
    child.unref();
    children.push(child);

    return child;
}


async function awaitChild(child, log, isReady) {
    const deadline = Date.now() + START_MS;

    while (!await isReady()) {

        if (child.exitCode !== null || Date.now() > deadline) {
            throw new Error(`${child.spawnargs.join(' ')} did not start:\n`
                            + [log, `${parts.dir}/error.log`]
                                  .map(lastLines).join(''));
        }

        await sleep(20);
    }
}


function lastLines(path) {
    return readText(path).split('\n').slice(-20).join('\n');
}


function isOpen(port) {
    return new Promise((resolve) => {
        const socket = connect(port, '127.0.0.1');

        socket.on('connect', () => { socket.destroy(); resolve(true); });
        socket.on('error', () => resolve(false));
    });
}


function killChildren() {
    for (const child of children) {
        if (child.exitCode === null && child.signalCode === null) {
            child.kill('SIGKILL');
        }
    }
}


/* nginx first; again and again is the same as once */

export async function stopParts() {
    for (const child of children.splice(0).reverse()) {
        await stopChild(child);
    }
}


async function stopChild(child) {
    const deadline = Date.now() + STOP_MS;

    child.kill('SIGTERM');

    while (child.exitCode === null && child.signalCode === null) {

        if (Date.now() > deadline) {
            child.kill('SIGKILL');
            throw new Error(`${child.spawnargs[0]} did not end on SIGTERM`);
        }

        await sleep(20);
    }
}


/* an empty text where there is no such file */

export function readText(path) {
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
}
