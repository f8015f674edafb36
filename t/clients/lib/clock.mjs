/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/*
 * A clock that stands still while the machine does, or this process is too
 * busy to look: what has to happen within a time is measured by it.  So a
 * processor that ran nothing for a while is not taken for a slow nginx, and
 * a slow nginx not for such a processor.
 */

const LOOK_MS = 10;
const MOST_MS = 20;

let last = performance.now();
let ran = 0;

setInterval(ranMs, LOOK_MS).unref();


/* milliseconds, of which only differences mean something */

export function ranMs() {
    const now = performance.now();

    ran += Math.min(now - last, MOST_MS);
    last = now;

    return ran;
}


/* since its start: the time that has passed, and what of it the machine ran */

export function stopwatch() {
    const start = performance.now();
    const start_ran = ranMs();

    return () => ({
        passed_ms: performance.now() - start,
        ran_ms: ranMs() - start_ran,
    });
}
