/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/* how the tests call, and what they make of the answers */

import assert from 'node:assert/strict';

import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

import { BURST, REQUESTS_BURST } from './conf.mjs';


/* what llm-sim is to do with a request: one more argument of a client's call */

export function sim(order) {
    return { headers: { 'X-LLM-Sim': order } };
}


/* what llm-sim says in so many tokens */

export function words(count) {
    return Array.from({ length: count }, (_, i) => `tok${i}`).join(' ');
}


/* the error that the promise, or the iteration of a stream, ends with */

export async function failure(promised) {
    try {
        await promised;

    } catch (error) {
        return error;
    }

    return assert.fail('there was no error');
}


/* all that a stream yields; with the error in place of a silent end */

export async function drain(stream) {
    const events = [];

    try {
        for await (const event of stream) {
            events.push(event);
        }

    } catch (error) {
        return { events, error };
    }

    return { events, error: null };
}


/* a fetch() for a client, which keeps what came back */

export function recordingFetch(calls) {
    return async (url, init) => {
        const call = { start: Date.now() };

        calls.push(call);

        const response = await fetch(url, init);

        call.end = Date.now();
        call.status = response.status;
        call.headers = response.headers;

        return response;
    };
}


/* one that sends the request's first member twice */

export async function duplicatingFetch(url, init) {
    const member = /^\{("\w+":"[^"]*",)/.exec(init.body);
    const headers = new Headers(init.headers);

    headers.delete('content-length');

    return fetch(url, {
        ...init,
        headers,
        body: `{${member[1]}${init.body.slice(1)}`,
    });
}


/* a client whose requests are the scene's */

export function openai(scene, server = 'main', options = {}) {
    return new OpenAI({
        baseURL: `${server === 'sim' ? scene.simUrl : scene.url(server)}/v1`,
        apiKey: scene.key,
        maxRetries: 0,
        defaultQuery: server === 'sim' ? {} : scene.query,
        ...options,
    });
}


export function anthropic(scene, server = 'main', options = {}) {
    return new Anthropic({
        baseURL: scene.url(server),
        apiKey: scene.key,
        maxRetries: 0,
        defaultQuery: scene.query,
        ...options,
    });
}


/* a usage, as OpenAI's APIs tell it, in the names of the access log */

export function told(usage) {
    return {
        usage: 'upstream',
        prompt: usage.prompt_tokens ?? usage.input_tokens,
        completion: usage.completion_tokens ?? usage.output_tokens,
        total: usage.total_tokens,
    };
}


/* a stream as it is on the wire, but for what is each answer's own */

export async function bytesOf(url, query, body, order) {
    const response = await fetch(`${url}?${new URLSearchParams(query)}`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', 'X-LLM-Sim': order },
        body: JSON.stringify(body),
    });

    assert.equal(response.status, 200);

    return (await response.text())
        .replace(/"id":"[\w-]+"/g, '"id":""')
        .replace(/"created":\d+/g, '"created":0');
}


/* the limited server's headers */

export function checkQuota(headers) {
    const duration = /^(\d+ms|(\d+h)?(\d+m)?\d+(\.\d+)?s)$/;
    const bursts = { tokens: BURST, requests: REQUESTS_BURST };

    assert.ok(headers.get('x-ratelimit-remaining-tokens') < BURST);

    for (const [name, burst] of Object.entries(bursts)) {
        const left = Number(headers.get(`x-ratelimit-remaining-${name}`));

        assert.equal(headers.get(`x-ratelimit-limit-${name}`), String(burst));
        assert.match(headers.get(`x-ratelimit-remaining-${name}`), /^\d+$/);
        assert.ok(left <= burst, `${left} of ${burst} ${name} left`);
        assert.match(headers.get(`x-ratelimit-reset-${name}`), duration);
    }
}


/* what a stopwatch() tells: not less, and not more but for stalls */

export function checkTook({ passed_ms, ran_ms }, least_ms, most_ms) {
    assert.ok(passed_ms >= least_ms && ran_ms < most_ms,
              `${passed_ms} ms, in which the machine ran ${ran_ms}`);
}


/* those of a rejection, in seconds and in milliseconds */

export function checkRetry(headers, max_ms) {
    const ms = Number(headers.get('retry-after-ms'));

    assert.ok(ms > 0 && ms <= max_ms, `retry-after-ms: ${ms}`);
    assert.equal(headers.get('retry-after'), String(Math.ceil(ms / 1000)));
}
