/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/*
 * Every fault of upstream, of the usage and of the client, in every dialect,
 * over each version of HTTP: the client sees exactly one of complete, status,
 * error in the stream and a broken transport; the log says how it ended;
 * what is logged is what is charged, and nothing stays in flight.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';

import { APIS, outcomeOf } from './lib/apis.mjs';
import { LEDGER_BURST } from './lib/conf.mjs';
import { hasHttp3, parts, startParts } from './lib/parts.mjs';
import { hasQuic } from './lib/quic.mjs';
import { lastPromise, modulePromise } from './lib/scene.mjs';
import { hold, idOf, until } from './lib/stage.mjs';
import { ask } from './lib/wire.mjs';

/* why there is no HTTP/3 */
const SKIP = !hasHttp3() ? 'this nginx was built without HTTP/3'
             : !hasQuic() ? 'no aioquic for python3, or $TEST_PYTHON'
             : null;

const VERSIONS = ['HTTP/1.1', 'HTTP/2.0', ...(SKIP ? [] : ['HTTP/3.0'])];

/* text that looks like a stream's own words, as it is in a JSON string */

const WORDS = [
    '\\"usage\\":{\\"completion_tokens\\":1,\\"output_tokens\\":1}',
    '\\n\\ndata: [DONE]\\n\\n', '\\nevent: error\\ndata: {\\"error\\":{}}',
    '\\"type\\":\\"message_stop\\" \\"done\\":true \\"is_end\\":true',
];

/*
 * order: what llm-sim is to do.  outcome, end: as above, and $llm_end.
 * usage: where it has the tokens from; "none" is not charged, and null not
 * the same in all APIs.  status: of
 * the response, 200 where it is not given.  server: of lib/conf.mjs.  not:
 * APIs that have no such thing: lines of JSON end with LF, and Ollama does
 * not tell what was filtered.
 */

const UPSTREAM = [

    /* nothing goes wrong, however it is framed */
    ...['', 'split=1', 'split=7', 'eol=crlf', 'eol=crlf; split=1', 'bom=1',
        'http=1.0', 'http=1.0; split=3'].map((order) => ({
        order: `tokens=6; ${order}`,
        outcome: 'complete', end: 'done', usage: 'upstream', completion: 6,
    })),
    { order: 'tokens=6; eol=cr', not: ['ollama'],
      outcome: 'complete', end: 'done', usage: 'upstream', completion: 6 },
    { order: 'tokens=6; usage=none',
      outcome: 'complete', end: 'done', usage: 'estimate' },
    { order: 'tokens=6; gzip=1', gzip: true,
      outcome: 'complete', end: 'done', usage: 'none', status: 200 },
    { order: 'tokens=6; gzip=lie',
      outcome: 'complete', end: 'done', usage: 'none', status: 200 },

    /* nothing can be put into it: it breaks off */
    ...['reset', 'close', 'midchunk'].map((fault) => ({
        order: `fault=${fault}; at=3; tokens=9; gzip=lie`,
        outcome: 'transport', end: 'upstream_truncated', usage: 'none',
    })),

    /* what is in the text is no matter of the stream's */
    ...WORDS.map((say) => ({
        order: `tokens=6; say=${encodeURIComponent(say)}`,
        outcome: 'complete', end: 'done', usage: 'upstream', completion: 6,
    })),
    ...['%ff%fe', '%c0%80', '%ed%a0%80', '%e4%b8'].map((say) => ({
        order: `tokens=6; say=${say}`,
        outcome: 'complete', end: 'done', usage: 'upstream', completion: 6,
    })),

    /* no JSON; the Responses API repeats it in the event with its usage */
    { order: 'tokens=6; say=%00', usage: null,
      outcome: 'complete', end: 'done' },
    { order: 'fault=filter; at=3; tokens=9', not: ['ollama'],
      outcome: 'complete', end: 'content_filter', usage: 'upstream' },

    /* before any content: a status */
    { order: 'tokens=1', server: 'ledgerDead', status: 502,
      outcome: 'status', end: 'upstream_error', usage: 'none' },
    ...[400, 401, 403, 404, 429, 500, 502, 503, 529].map((status) => ({
        order: `status=${status}`, status,
        outcome: 'status', end: 'upstream_error', usage: 'none',
    })),
    ...['reset', 'close'].map((fault) => ({
        order: `fault=${fault}; at=header`, status: 502,
        outcome: 'status', end: 'upstream_error', usage: 'none',
    })),
    { order: 'fault=stall; at=header', status: 504,
      outcome: 'status', end: 'first_token_timeout', usage: 'none' },
    ...['reset', 'close', 'midevent', 'midevent-reset', 'badchunk',
        'midchunk', 'midchunk-reset', 'end', 'reset; http=1.0',
        'close; http=1.0', 'midevent; http=1.0'].map((fault) => ({
        order: `fault=${fault}; at=first`, status: 502,
        outcome: 'status', end: 'upstream_error', usage: 'none',
    })),
    ...['stall', 'comments'].map((fault) => ({
        order: `fault=${fault}; at=first`, status: 504,
        outcome: 'status', end: 'first_token_timeout', usage: 'none',
    })),
    ...['error', 'error-stay'].map((fault) => ({
        order: `fault=${fault}; at=first`, status: null,
        outcome: 'status', end: 'upstream_error', usage: 'none',
    })),

    /* after some of it: an error in the stream */
    ...['reset', 'close', 'midevent', 'midevent-reset', 'badchunk',
        'midchunk', 'midchunk-reset', 'end', 'reset; http=1.0',
        'close; http=1.0', 'midevent; http=1.0'].map((fault) => ({
        order: `fault=${fault}; at=3; tokens=9`,
        outcome: 'error', end: 'upstream_truncated', usage: 'estimate',
    })),
    ...['stall', 'comments'].map((fault) => ({
        order: `fault=${fault}; at=3; tokens=9`,
        outcome: 'error', end: 'idle_timeout', usage: 'estimate',
    })),
    ...['error', 'error-stay'].map((fault) => ({
        order: `fault=${fault}; at=3; tokens=9`,
        outcome: 'error', end: 'upstream_error', usage: 'estimate',
    })),
    { order: 'itl=100; tokens=90',
      outcome: 'error', end: 'total_timeout', usage: 'estimate' },
];

/* what upstream says was used, and nobody can use */

const USAGES = ['-1', '1e308', '9223372036854775808', '1.5', '"12"', 'null',
                '[]', '{}', 'true'];

/* how a client leaves, by version, and after how many events */

const LEAVES = { 'HTTP/1.1': ['close', 'reset', 'half'],
                 'HTTP/2.0': ['close', 'reset'],
                 'HTTP/3.0': ['close', 'reset', 'stop'] };
const AFTER = Array.from({ length: 10 }, (_, i) => i);

/* by key: the tokens of all lines in the log */
const ledger = new Map();


await startParts({ quic: SKIP === null });

if (SKIP) {
    test('HTTP/3', { skip: SKIP }, () => {});
}


function each(run, not = []) {
    const runs = Object.entries(APIS)
        .filter(([name]) => !not.includes(name))
        .flatMap(([name, api]) =>
            VERSIONS.map((version) => run(name, api, version)));

    /* all of them end, also where one fails */

    return Promise.allSettled(runs).then(() => Promise.all(runs));
}


async function request(scene, name, version, order, options = {}) {
    const api = APIS[name];
    const join = api.path.includes('?') ? '&' : '?';
    const key = options.key ?? `${name} ${version}`;

    scene.tls = version !== 'HTTP/1.1';

    const got = await ask(version, `${scene.url(options.server ?? 'ledger')}`
                          + `${api.path}${join}test=${scene.id}`, {
        body: JSON.stringify({ ...api.body, ...options.more }),
        headers: { 'content-type': 'application/json', 'x-ledger': key,
                   'x-llm-sim': order },
        ...options,
    });

    if (options.gzip) {
        got.text = gunzipSync(Buffer.from(got.text, 'latin1')).toString();
    }

    /* the line ends of events are not what this is about */

    got.text = got.text.replace(/\r\n?/g, '\n');

    return got;
}


/*
 * The request's line in the log, entered in the ledger.  What cannot be read
 * is charged as it was reserved.
 */

async function book(scene, name, version, want) {
    const line = await scene.line({ ...want, protocol: version });
    const key = `${name} ${version}`;
    const blind = line.usage === 'none' && line.total !== '-';
    const total = blind ? Number(line.reserved)
                        : Number(line.total.replace('-', '0'));

    assert.ok(Number.isSafeInteger(total) && total >= 0,
              `total=${line.total}`);
    ledger.set(key, (ledger.get(key) ?? 0) + total);

    return line;
}


function check(got, api, want, what) {
    assert.equal(outcomeOf(api, got), want.outcome, what);

    if (want.status !== null) {
        assert.equal(got.status, want.status ?? 200, what);
    }

    if (want.outcome === 'status') {
        assert.match(got.headers['content-type'], /^application\/json/, what);
        assert.match(got.text, /"error/, what);
        JSON.parse(got.text);
    }
}


for (const want of UPSTREAM) {

    modulePromise(`upstream: ${want.order} is: ${want.outcome}, ${want.end}`,
                  async (scene) => {
        await each(async (name, api, version) => {
            const part = scene.part(`${name}-${version}`);
            const what = `${name}, ${version}`;
            const got = await request(part, name, version, want.order,
                                      want);

            check(got, api, want, what);

            const line = await book(part, name, version, {
                end: want.end, ...want.usage && { usage: want.usage },
            });

            if (want.completion !== undefined) {
                assert.equal(+line.completion, want.completion, what);
            }

            if (want.usage === 'estimate') {
                assert.ok(line.prompt > 0, `${what}: prompt tokens`);
                assert.ok(line.completion > 0, `${what}: completion tokens`);
            }
        }, want.not);
    });
}


for (const value of USAGES) {

    modulePromise(`usage: ${value} is no usage, and gives nothing back`,
                  async (scene) => {
        await each(async (name, api, version) => {
            const part = scene.part(`${name}-${version}`);
            const usage = JSON.stringify(api.usage('@', '@'))
                .replaceAll('"@"', value);
            const got = await request(part, name, version,
                                      `tokens=6; usage=${usage}`);

            check(got, api, { outcome: 'complete' }, `${name}, ${version}`);

            const line = await book(part, name, version, { end: 'done' });

            assert.ok(line.prompt > 0 && line.completion > 0,
                      `${name}, ${version}: prompt=${line.prompt} `
                      + `completion=${line.completion}`);
        });
    });
}


/*
 * A usage that is told again takes the place of the one before, also where it
 * is less; the budget is charged once.
 */

for (const [what, early] of [['again', [7, 6]], ['and less at last', [90, 80]],
                             ['and more at last', [1, 1]]])
{
    modulePromise(`usage: told early, ${what}`, async (scene) => {
        await each(async (name, api, version) => {
            const part = scene.part(`${name}-${version}`);
            const extra = JSON.stringify(api.early(api.usage(...early)));
            const got = await request(part, name, version,
                                      `tokens=6; extra=${extra}`);

            check(got, api, { outcome: 'complete' }, `${name}, ${version}`);
            await book(part, name, version, {
                end: 'done', usage: 'upstream', prompt: 7, completion: 6,
            });
        });
    });
}


/*
 * A client that has left sees nothing more; what it is charged for depends on
 * what it was in time for.  The answer is so long that also a client that is
 * slow to leave does so in its middle.
 */

for (const after of AFTER) {

    modulePromise(`client: leaves after ${after} events, in every way`,
                  async (scene) => {
        await scene.simReset();

        await each((name, api, version) => Promise.all(
            LEAVES[version].map(async (leave) => {
                const part = scene.part(`${name}-${version}-${leave}`);
                const got = await request(part, name, version,
                                          'tokens=400; itl=40', {
                    server: 'ledgerLong', leave, after,
                    when: after === 0 ? () => idOf(part) : null,
                });
                const what = `${name}, ${version}, ${leave}`;

                assert.ok(got.left, what);

                const line = await book(part, name, version,
                                        { end: 'client_abort' });

                assert.equal(line.usage, 'estimate', what);
                assert.ok(line.prompt > 0, `${what}: prompt tokens`);
            })));

        await until('end of answers that nobody reads', async () =>
            (await scene.simStats()).inflight === 0);
    });
}


/* all of the text is there, and the line with the usage is about to come */

modulePromise('client: leaves just before the usage', async (scene) => {
    await each((name, api, version) => Promise.all(
        LEAVES[version].map(async (leave) => {
            const part = scene.part(`${name}-${version}-${leave}`);
            const what = `${name}, ${version}, ${leave}`;
            const got = await request(part, name, version,
                                      'tokens=6; fault=stall; at=6', {
                server: 'ledgerLong', leave,
                after: (text) => /tok5[^\n]*\n/.test(text),
            });

            assert.ok(got.left, what);

            const line = await book(part, name, version,
                                    { end: 'client_abort',
                                      usage: 'estimate' });

            assert.ok(line.completion >= 6, `${what}: all that came`);
        })));
});


modulePromise('client: leaves in the queue, and costs nothing',
              async (scene) => {
    const seat = await hold(scene.part('seat'), 'ledgerQueue', 0,
                            { 'x-ledger': 'seat' });

    await each((name, api, version) => Promise.all(
        LEAVES[version].map(async (leave) => {
            const part = scene.part(`${name}-${version}-${leave}`);

            await request(part, name, version, 'tokens=6', {
                server: 'ledgerQueue', leave, when: () => idOf(part),
            });
            await book(part, name, version, { end: 'client_abort',
                                              usage: 'none', total: '-' });
        })));

    seat.request.destroy();
    await seat.part.line({ end: 'client_abort' });

    /* nobody else was sent on, and the seat is free */

    const part = scene.part('next');
    const got = await request(part, 'chat', 'HTTP/1.1', 'tokens=1',
                              { server: 'ledgerQueue' });

    assert.equal(got.status, 200);
    await book(part, 'chat', 'HTTP/1.1', { end: 'done', queue: '0.000' });
});


/* one after the other, so that each is seen to have its own second */

modulePromise('client: upstream is closed within a second',
              async (scene) => {
    for (const version of VERSIONS) {
        for (const leave of LEAVES[version]) {
            const part = scene.part(`${version}-${leave}`);

            await scene.simReset();
            await request(part, 'chat', version, 'tokens=400; itl=40',
                          { server: 'ledgerLong', leave, after: 3 });
            await scene.awaitAbort(1000);
            await book(part, 'chat', version, { end: 'client_abort' });
        }
    }
});


/* it has reserved what it waits for, and gives it back */

modulePromise('client: leaves while it waits for its tokens',
              async (scene) => {
    const more = { max_tokens: 80, max_completion_tokens: 80 };

    await Promise.all(VERSIONS.flatMap((version) =>
        LEAVES[version].map(async (leave) => {
            const key = `${version} ${leave}`;
            const part = scene.part(`${version}-${leave}`);
            const run = (order, options) => request(part, 'chat', version,
                order, { server: 'waiting', key, more, ...options });

            await run('tokens=60; itl=0', {});
            await part.line({ end: 'done', limit: 'PASSED' });

            await run('tokens=80', {
                leave, when: () => until('delay', () =>
                    /llm limit: delayed/.test(part.report())),
            });
            await part.line({ end: 'client_abort', usage: 'none',
                              total: '-', limit: 'DELAYED' });

            const got = await run('tokens=1', { more: { max_tokens: 1 } });

            assert.equal(got.status, 200, key);
            await part.line({ end: 'done', limit: 'PASSED', wait: '0.000' });
        })));
});


modulePromise('what is logged is what was charged', async (scene) => {
    await each(async (name, api, version) => {
        const part = scene.part(`${name}-${version}`);
        const got = await request(part, name, version, 'tokens=1');
        const key = `${name} ${version}`;
        const before = ledger.get(key);
        const line = await book(part, name, version, { end: 'done' });
        const left = Number(got.headers['x-ratelimit-remaining-tokens']);

        assert.ok(before > 100, `${key}: ${before} tokens`);
        assert.equal(left, LEDGER_BURST - before - line.reserved, key);
    });
});


/*
 * $llm_inflight counts the request itself and those before it: of so many at
 * once each server has a first, a second and so on, if it began with none.
 * They are more than what keeps a server back that has failed a moment ago.
 */

modulePromise('nothing is left in flight', async (scene) => {
    const seen = new Map();

    await Promise.all(Array.from({ length: 80 }, async (_, i) => {
        const part = scene.part(i);

        await request(part, 'chat', 'HTTP/1.1', 'tokens=1; ttft=2000',
                      { server: 'ledgerLong' });

        const line = await book(part, 'chat', 'HTTP/1.1', { end: 'done' });

        seen.set(line.upstream, [...(seen.get(line.upstream) ?? []),
                                 Number(line.inflight)]);
    }));

    assert.equal(seen.size, parts.sims.length);

    for (const counts of seen.values()) {
        assert.deepEqual(counts.sort((a, b) => a - b),
                         counts.map((_, i) => i + 1));
    }
});


lastPromise();
