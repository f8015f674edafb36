/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/* a browser over HTTP/1.1, and over HTTP/2, as it speaks with TLS */

import assert from 'node:assert/strict';

import {
    browserPromises, inPage, path, startBrowser,
} from './lib/browser.mjs';
import { readSource } from './lib/page.mjs';
import { startParts } from './lib/parts.mjs';
import { lastPromise, modulePromise } from './lib/scene.mjs';


await startParts();
await startBrowser();


browserPromises('HTTP/1.1');
browserPromises('HTTP/2.0');


/* anything but a 200 closes it for good: it does not come again */

modulePromise('EventSource: an error before the stream', async (scene) => {
    const seen = await inPage(scene, 'events', readSource,
                              path(scene, 'completions',
                                   { order: 'status=429' }));

    assert.deepEqual([seen.lost, seen.done], [1, false]);
    await scene.line({ status: 429, end: 'upstream_error' });
});


lastPromise();
