/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/* what nginx's workers have used: Linux tells it in /proc */

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';

import { workers } from './parts.mjs';

const TICKS = Number(execFileSync('getconf', ['CLK_TCK']));


/*
 * Resolves to what run() needs of them: seconds of CPU time in all, and the
 * bytes by which one's own memory was larger at its peak than before, of the
 * one where that is most.  Pages of files are not its own: OpenSSL's code is
 * 4 MB, and comes with a worker's first connection with TLS.
 */

export async function measure(run) {
    const pids = workers();
    const before = new Map();

    for (const pid of pids) {

        /* the peak is from now on */

        writeFileSync(`/proc/${pid}/clear_refs`, '5');
        before.set(pid, { cpu_s: cpuSeconds(pid), peak: ownPeakBytes(pid) });
    }

    await run();

    return {
        cpu_s: pids.reduce((sum, pid) =>
            sum + cpuSeconds(pid) - before.get(pid).cpu_s, 0),
        grown: Math.max(...pids.map((pid) =>
            ownPeakBytes(pid) - before.get(pid).peak)),
    };
}


function cpuSeconds(pid) {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');

    return (Number(fields[11]) + Number(fields[12])) / TICKS;
}


/* pages of files only become more, so those of now are those of the peak */

function ownPeakBytes(pid) {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const [peak, files] = ['VmHWM', 'RssFile'].map((name) =>
        Number(new RegExp(`^${name}:\\s*(\\d+) kB$`, 'm').exec(status)[1]));

    return (peak - files) * 1024;
}
