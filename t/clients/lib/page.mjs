/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/*
 * What runs in the browser: each function goes there as its text, and so
 * knows nothing that is not in it or among its arguments.
 */

/*
 * A stream read by fetch() as a page does that has no library: complete only
 * with its terminal marker.  It leaves after so many tokens, if told so.
 */

export async function fetchStream(path, key, body, order, leaveAfter) {
    const leave = new AbortController();
    const seen = { status: 0, texts: [], done: false, error: null };
    let rest = '';
    let response;

    try {
        response = await fetch(path, {
            method: 'POST',
            headers: { 'Authorization': key, 'X-LLM-Sim': order,
                       'Content-Type': 'application/json' },
            body: JSON.stringify(body),
            signal: leave.signal,
        });

        seen.status = response.status;
        seen.retry_after = response.headers.get('retry-after');

        globalThis.began?.();

        if (response.status !== 200) {
            seen.error = (await response.json()).error;
            return seen;
        }

        const reader = response.body
            .pipeThrough(new TextDecoderStream()).getReader();

        for (;;) {
            const { value, done } = await reader.read();

            if (done) {
                break;
            }

            const events = (rest + value).split('\n\n');

            rest = events.pop();

            for (const event of events) {
                const found = /^data: (.*)$/m.exec(event);

                if (found === null) {
                    continue;
                }

                if (found[1] === '[DONE]') {
                    seen.done = true;
                    continue;
                }

                const data = JSON.parse(found[1]);

                if (data.error) {
                    seen.error = data.error;
                    continue;
                }

                const text = data.choices[0]?.delta.content;

                if (text) {
                    seen.texts.push(text);
                }

                if (seen.texts.length === leaveAfter) {
                    leave.abort();
                }
            }
        }

        seen.ended = true;

    } catch (error) {
        seen.thrown = error.name;
    }

    seen.rest = rest;

    return seen;
}


/* an EventSource, closed at the end of the stream */

export function readSource(path) {
    return new Promise((resolve) => {
        const seen = { texts: [], done: false, error: null, lost: 0 };
        const source = new EventSource(path);

        source.onopen = () => globalThis.began?.();

        function end() {
            source.close();
            resolve(seen);
        }

        source.onmessage = ({ data }) => {
            if (data === '[DONE]') {
                seen.done = true;
                return end();
            }

            const { choices, error } = JSON.parse(data);

            /* upstream's own error, passed as it is */

            if (error) {
                seen.error = error;
                return end();
            }

            seen.texts.push(choices[0].text);
        };

        /* the server's event of that name has data; a lost connection none */

        source.addEventListener('error', (event) => {
            if (event.data) {
                seen.error = JSON.parse(event.data).error;

            } else {
                seen.lost++;
            }

            end();
        });
    });
}


/*
 * A request and all the bytes of its answer, however it ends.  It is left
 * behind so many events, or milliseconds, if told so.
 */

export async function fetchBytes({ path, headers, body, leaveAfter, leaveMs }) {
    const leave = new AbortController();
    const got = { status: 0, headers: {}, text: '', broken: false,
                  left: false };

    const abort = () => {
        got.left = true;
        leave.abort();
    };

    if (leaveMs) {
        setTimeout(abort, leaveMs);
    }

    try {
        const response = await fetch(path, {
            method: 'POST', headers, body, signal: leave.signal,
        });

        got.status = response.status;
        got.headers = Object.fromEntries(response.headers);

        const keep = (bytes) => {
            got.text += bytes;

            const events = got.text.match(/^(data:|\{).*\n/gm) ?? [];

            if (leaveAfter && !got.left && events.length >= leaveAfter) {
                abort();
            }
        };

        await response.body.pipeThrough(new TextDecoderStream())
            .pipeTo(new WritableStream({ write: keep }));

    } catch (error) {
        got.thrown = String(error);
        got.broken = !got.left;
    }

    return got;
}
