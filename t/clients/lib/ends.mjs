/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/*
 * The ways in which an answer ends, as every client has to see them: whole,
 * as an HTTP error, or as an error in the stream.
 *
 * what        how it comes about
 * server      the server of lib/conf.mjs
 * order       what llm-sim is to do
 * end         $llm_end
 * status      of the response
 * tokens      seen by the client before the end
 * message     of the error, as far as it is known; null: the answer is whole
 * finish      of a whole answer
 * retry_after the header's value
 *
 * and what has to happen besides, see lib/stage.mjs:
 *
 * hold        so many requests came before, for the seats and for the queue
 * act         "cancel" or "leave", which has the workers leave
 * when        the request that it is done to has its "header", was "sent", or
 *             is "queued"
 */

export const ENDS = [
    {
        what: 'an answer to its end', server: 'main', order: 'tokens=5',
        end: 'done', status: 200, tokens: 5, message: null, finish: 'stop',
    },
    {
        what: 'an answer that upstream filters', server: 'main',
        order: 'fault=filter; at=3; tokens=9',
        end: 'content_filter', status: 200, tokens: 3, message: null,
        finish: 'content-filter',
    },
    {
        what: 'upstream that refuses the connection', server: 'dead',
        order: 'tokens=3',
        end: 'upstream_error', status: 502, message: /could not be reached/,
    },
    {
        what: 'upstream that knows no such key', server: 'main',
        order: 'status=401',
        end: 'upstream_error', status: 401, message: /llm-sim was told/,
    },
    {
        what: "upstream's own limit", server: 'main',
        order: 'status=429; retry_after=7',
        end: 'upstream_error', status: 429, message: /llm-sim was told/,
        retry_after: /^7$/,
    },
    {
        what: 'an overloaded upstream', server: 'main', order: 'status=503',
        end: 'upstream_error', status: 503, message: /llm-sim was told/,
    },
    {
        what: 'silence before the first token', server: 'clocks',
        order: 'fault=stall; at=first',
        end: 'first_token_timeout', status: 504,
        message: /did not answer in time/,
    },
    {
        what: 'a stream that is cut before its first token', server: 'main',
        order: 'fault=close; at=first',
        end: 'upstream_error', status: 502, message: /could not be reached/,
    },
    {
        what: 'a budget that never has so many tokens', server: 'tiny',
        order: 'tokens=3',
        end: 'rejected', status: 429, message: /too large/,
    },
    {
        what: 'an error in mid-stream', server: 'main',
        order: 'fault=error; at=3; tokens=9',
        end: 'upstream_error', status: 200, tokens: 3, message: /./,
    },
    {
        what: 'an error in mid-stream, and then silence', server: 'main',
        order: 'fault=error-stay; at=3; tokens=9',
        end: 'upstream_error', status: 200, tokens: 3, message: /./,
    },
    {
        what: 'a connection reset in mid-stream', server: 'main',
        order: 'fault=reset; at=3; tokens=9',
        end: 'upstream_truncated', status: 200, tokens: 3,
        message: /before it was complete/,
    },
    {
        what: 'a stream that is cut in mid-event', server: 'main',
        order: 'fault=midevent; at=3; tokens=9',
        end: 'upstream_truncated', status: 200, tokens: 3,
        message: /before it was complete/,
    },
    {
        what: 'a stream without its terminal marker', server: 'main',
        order: 'fault=end; at=3; tokens=9',
        end: 'upstream_truncated', status: 200, tokens: 3,
        message: /before it was complete/,
    },
    {
        what: 'silence in mid-stream', server: 'clocks',
        order: 'fault=stall; at=3; tokens=9',
        end: 'idle_timeout', status: 200, tokens: 3,
        message: /stopped sending/,
    },
    {
        what: 'nothing but comments in mid-stream', server: 'clocks',
        order: 'fault=comments; at=3; tokens=9',
        end: 'idle_timeout', status: 200, tokens: 3,
        message: /stopped sending/,
    },
    {
        what: 'a stream that takes too long', server: 'total',
        order: 'itl=100; tokens=50',
        end: 'total_timeout', status: 200, message: /took longer/,
    },
    {
        what: 'a stream that spends more than its budget', server: 'cut',
        order: 'itl=1; tokens=400',
        end: 'limit_cut', status: 200, message: /rate limit/i,
    },
    {
        what: 'a queue that is full', server: 'full', order: 'tokens=3',
        hold: 2,
        end: 'queue_full', status: 503, message: /queue is full/,
        retry_after: /^[1-9]\d*$/,
    },
    {
        what: 'a queue in which it takes too long', server: 'late',
        order: 'tokens=3', hold: 1,
        end: 'queue_timeout', status: 503, message: /servers are busy/,
        retry_after: /^[1-9]\d*$/,
    },
    {
        what: 'a stream that is cancelled', server: 'live',
        order: 'fault=stall; at=3; tokens=9', act: 'cancel', when: 'header',
        end: 'cancelled', status: 200, message: /was cancelled/,
    },
    {
        what: 'a request that is cancelled before its first token',
        server: 'live', order: 'fault=stall; at=header', act: 'cancel',
        when: 'sent',
        end: 'cancelled', status: 410, message: /was cancelled/,
    },
    {
        what: 'a request that is cancelled in a queue', server: 'full',
        order: 'tokens=3', hold: 1, act: 'cancel', when: 'queued',
        end: 'cancelled', status: 410, message: /was cancelled/,
    },
    {
        what: 'a stream whose worker has to leave', server: 'live',
        order: 'fault=stall; at=3; tokens=9', act: 'leave', when: 'header',
        end: 'shutdown', status: 200, message: /shutting down/,
    },
    {
        what: 'a request whose worker has to leave before its first token',
        server: 'live', order: 'fault=stall; at=header', act: 'leave',
        when: 'sent',
        end: 'shutdown', status: 503, message: /shutting down/,
        retry_after: /^1$/,
    },
    {
        what: 'a request in a queue whose worker has to leave',
        server: 'full', order: 'tokens=3', hold: 1, act: 'leave',
        when: 'queued',
        end: 'shutdown', status: 503, message: /shutting down/,
        retry_after: /^1$/,
    },
];
