/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/*
 * Requests without a client library, over each version of HTTP, that may
 * leave in mid-stream: each way in which a client can.
 */

import http from 'node:http';
import http2 from 'node:http2';

import { request3 } from './quic.mjs';

const MAX_MS = 60000;


/*
 * ask(url, { body, headers, leave, after, when }): all of the answer, as it
 * came.  The client leaves in the way that leave says, as soon as it has so
 * many events, or a text that after() finds enough; or, before any, when the
 * promise of when() is kept.  Where there is a sink() it is given the text,
 * which is not kept.  Resolves to { status, headers, text, broken, left }.
 */

export async function ask(version, url, options) {
    const run = { 'HTTP/1.1': ask1, 'HTTP/2.0': ask2,
                  'HTTP/3.0': ask3 }[version];
    let timer;

    const late = new Promise((resolve, reject) => {
        timer = setTimeout(() => reject(new Error(`no end of ${url}`)),
                           MAX_MS);
    });

    try {
        return await Promise.race([run(url, options), late]);

    } finally {
        clearTimeout(timer);
    }
}


/* how an HTTP/1.1 client leaves */

const LEAVE1 = {
    close: (request) => request.destroy(),
    reset: (request) => request.socket.resetAndDestroy(),
    half: (request) => request.socket.end(),
};


function ask1(url, options) {
    return new Promise((resolve, reject) => {
        const got = answer();
        const request = http.request(url, {
            method: 'POST', agent: false, headers: options.headers,
        });

        const end = (broken) => {
            got.broken = broken;
            resolve(got);
        };

        request.on('error', (error) => {
            if (got.status || got.left) {
                return end(!got.left);
            }

            reject(error);
        });

        request.on('response', (response) => {
            got.status = response.statusCode;
            got.headers = response.headers;

            response.setEncoding('latin1');
            response.on('data', (text) => {
                leaveAfter(got, text, options, () =>
                    LEAVE1[options.leave](request));
            });
            response.on('end', () => end(!response.complete));
            response.on('error', () => end(!got.left));
        });

        request.on('socket', (socket) => {
            socket.on('connect', () => {
                leaveWhen(got, options, reject, () =>
                    LEAVE1[options.leave](request));
            });
        });

        request.end(options.body);
    });
}


/* and of HTTP/2: its stream, or its connection */

const LEAVE2 = {
    close: (session) => session.destroy(),
    reset: (session, stream) =>
        stream.close(http2.constants.NGHTTP2_CANCEL),
};


function ask2(url, options) {
    return new Promise((resolve, reject) => {
        const { origin, pathname, search } = new URL(url);
        const session = http2.connect(origin, { rejectUnauthorized: false });
        const got = answer();

        session.on('error', (error) => {
            if (!got.status && !got.left) {
                reject(error);
            }
        });

        const stream = session.request({
            ':method': 'POST', ':path': `${pathname}${search}`,
            ...options.headers,
        });

        stream.setEncoding('latin1');

        stream.on('response', (headers) => {
            got.status = headers[':status'];
            got.headers = headers;
        });

        stream.on('ready', () => {
            leaveWhen(got, options, reject, () =>
                LEAVE2[options.leave](session, stream));
        });

        stream.on('data', (text) => {
            leaveAfter(got, text, options, () =>
                LEAVE2[options.leave](session, stream));
        });

        stream.on('error', () => {});

        stream.on('close', () => {
            got.broken = stream.rstCode !== http2.constants.NGHTTP2_NO_ERROR
                         && !got.left;
            session.destroy();
            resolve(got);
        });

        stream.end(options.body);
    });
}


/* lib/quic.py says how one of HTTP/3 leaves */

function ask3(url, options) {
    return new Promise((resolve, reject) => {
        const got = answer();
        const leave = () => request.leave(options.leave);
        const request = request3(url, options, {
            ready: () => leaveWhen(got, options, reject, leave),

            header: (status, headers) => {
                got.status = status;
                got.headers = headers;
            },

            data: (text) => leaveAfter(got, text, options, leave),

            end: (how) => {
                got.broken = how !== 'fin' && !got.left;
                got.how = how;
                resolve(got);
            },
        });
    });
}


function answer() {
    return { status: 0, headers: {}, text: '', broken: false, left: false };
}


function leaveAfter(got, text, { leave, after, when, sink }, run) {
    if (sink) {
        sink(text);
        return;
    }

    got.text += text;

    if (leave && !when && !got.left
        && (typeof after === 'function' ? after(got.text)
                                        : eventsIn(got.text) >= after))
    {
        got.left = true;
        run();
    }
}


function leaveWhen(got, { leave, when }, reject, run) {
    if (!leave || !when) {
        return;
    }

    when().then(() => {
        got.left = true;
        run();
    }).catch(reject);
}


function eventsIn(text) {
    return [...text.matchAll(/^(data:|\{).*\n/gm)].length;
}
