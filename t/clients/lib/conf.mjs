/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/*
 * The configuration of nginx under test: one server for each way to use the
 * module, by name.  The log format is the one that conf.example recommends.
 */

import { readFileSync } from 'node:fs';

/* tokens and requests that the limited servers give to each key at once */
export const BURST = 300;
export const REQUESTS_BURST = 20;

export const LEDGER_BURST = 1000000;

export const WORKERS = 2;

/* nobody listens on it */
const CLOSED_PORT = 1;

/*
 * A browser's EventSource can neither post nor set a header: what it asks
 * for, and llm-sim's order, are in the query.
 */
const SOURCE = `proxy_method POST;
               proxy_set_header Content-Type application/json;
               proxy_set_header X-LLM-Sim $arg_order;
               proxy_set_body '{"model":"sim-model","prompt":"Hi",
                                "stream":true}';`;

const SERVERS = {

    /* two inference servers */
    main: { to: 'llm' },

    /* usage is not asked for where the client does not */
    plain: { to: 'llm', more: 'llm_include_usage off;' },

    /* short clocks, and one inference server */
    clocks: {
        to: 'one',
        more: `llm_first_token_timeout 700ms;
               llm_idle_timeout 1s;`,
    },

    /* the client has a second to read something, or one minute and more */
    impatient: {
        to: 'one',
        more: 'send_timeout 1s; llm_limit zone=ledger;',
    },

    patient: {
        to: 'one',
        more: `send_timeout 2m;
               llm_idle_timeout 1s;
               llm_limit zone=ledger;`,
    },

    total: { to: 'one', more: 'llm_total_timeout 1s;' },

    limited: {
        to: 'llm',
        more: `llm_limit zone=tenant;
               llm_body_max 64k;`,
    },

    /* what a test serves by itself */
    own: { to: 'own' },

    /* what is spent does not come back soon */
    slow: { to: 'llm', more: 'llm_limit zone=slow;' },

    /* what a stream spends beyond its reserve is cut off */
    cut: { to: 'llm', more: 'llm_limit zone=cut reserve=50 overrun=cut;' },

    events: {
        to: 'one',
        more: `mirror /llm/began;
               llm_first_token_timeout 700ms;
               llm_idle_timeout 1s;
               llm_total_timeout 4s;
               ${SOURCE}`,
    },

    /* a GET is no request to a model, and so not limited before it is a POST */
    eventsCut: {
        to: 'cut',
        more: `llm_stream off;
               access_log off;
               proxy_buffering off;
               proxy_set_header Authorization $arg_test;
               ${SOURCE}`,
    },

    /* every token that is charged is known */
    ledger: {
        to: 'llm',
        more: `llm_limit zone=ledger;
               llm_first_token_timeout 1500ms;
               llm_idle_timeout 1500ms;
               llm_total_timeout 5s;`,
    },

    ledgerDead: {
        to: `127.0.0.1:${CLOSED_PORT}`,
        more: 'llm_limit zone=ledger;',
    },

    ledgerLong: {
        to: 'llm',
        more: 'llm_limit zone=ledger; mirror /llm/began;',
    },

    /* and one that has room for one at a time */
    ledgerQueue: {
        to: 'line',
        more: 'llm_limit zone=ledger; mirror /llm/began;',
    },

    /* one request at a time, more or less */
    waiting: { to: 'llm', more: 'llm_limit zone=waiting wait=1m;' },

    /* not even for a greeting */
    tiny: { to: 'llm', more: 'llm_limit zone=tiny;' },

    dead: { to: `127.0.0.1:${CLOSED_PORT}` },

    /* what is ended from outside; its id is told as lib/stage.mjs wants it */
    live: { to: 'llm', more: 'mirror /llm/began;' },

    /* one seat, and a place to wait for it */
    full: { to: 'full', more: 'mirror /llm/began;' },
    late: { to: 'late', more: 'mirror /llm/began;' },

    /* what fails before its first token is asked for elsewhere */
    over: { to: 'llm', more: 'proxy_next_upstream error timeout http_500;' },

    /* no error event: who is left behind hears it from the transport */
    torn: { to: 'one', more: 'llm_error_events off;' },

    beating: { to: 'one', more: 'llm_heartbeat 200ms;' },

    /* who leaves is charged for what upstream has said in the end */
    drained: { to: 'one', more: 'llm_on_abort drain;' },

    /* HTTP/2 without TLS */
    h2: { to: 'llm', listen: 'http2' },
};

export const SERVER_NAMES = Object.keys(SERVERS);


/*
 * ports, tlsPorts: by server name; sims: of the simulated inference servers;
 * own: of the test's own one.  The certificate is in dir.  quic: HTTP/3 too,
 * on tlsPorts.
 */

export function nginxConf({ root, dir, module, ports, tlsPorts, sims, own,
                            quic })
{
    const asRoot = process.getuid() === 0;

    /* workers of root become nobody, who may not be let in here */

    return `
${asRoot ? 'user root;' : ''}
load_module ${module};

daemon off;
worker_processes ${WORKERS};
pid ${dir}/nginx.pid;
worker_shutdown_timeout 1s;
error_log ${dir}/error.log info;

events {
    worker_connections 512;
}

http {
    client_body_temp_path ${dir}/client_body;
    proxy_temp_path ${dir}/proxy;
    fastcgi_temp_path ${dir}/fastcgi;
    uwsgi_temp_path ${dir}/uwsgi;
    scgi_temp_path ${dir}/scgi;

    ${exampleLogFormat(root)}
    access_log ${dir}/access.log llm;

    log_format id '$llm_id "$request"';

    llm_limit_zone $http_authorization$http_x_api_key zone=tenant:1m
                   tokens=3k/m burst=${BURST}
                   requests=600/m requests_burst=${REQUESTS_BURST};

    # what one test makes fail must not be missing in the next
    llm_limit_zone $http_authorization zone=slow:1m
                   tokens=60/m burst=${BURST};

    llm_limit_zone $http_authorization$http_x_api_key zone=cut:1m
                   tokens=60/m burst=${BURST};

    # it is not to fill up while the tests run
    llm_limit_zone $http_x_ledger zone=ledger:1m tokens=100/d
                   burst=${LEDGER_BURST};

    llm_limit_zone all zone=tiny:1m tokens=1/s burst=1;

    llm_limit_zone $http_x_ledger zone=waiting:1m tokens=1k/m burst=100;

    upstream llm {
        server 127.0.0.1:${sims[0]} max_fails=0;
        server 127.0.0.1:${sims[1]} max_fails=0;
        llm_least_inflight cost=requests;
        keepalive 16;
    }

    upstream one {
        server 127.0.0.1:${sims[0]};
        keepalive 16;
    }

    upstream full {
        server 127.0.0.1:${sims[0]} max_conns=1 max_fails=0;
        llm_least_inflight;
        llm_queue 1 timeout=1m;
    }

    upstream line {
        server 127.0.0.1:${sims[0]} max_conns=1 max_fails=0;
        llm_least_inflight;
        llm_queue 100 timeout=1m;
    }

    upstream late {
        server 127.0.0.1:${sims[1]} max_conns=1 max_fails=0;
        llm_least_inflight;
        llm_queue 1 timeout=400ms;
    }

    upstream cut {
        server 127.0.0.1:${ports.cut};
    }

    upstream own {
        server 127.0.0.1:${own};
    }

    ssl_certificate ${dir}/tls.crt;
    ssl_certificate_key ${dir}/tls.key;

    llm_stream on;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
${SERVER_NAMES.map((name) => serverBlock(dir, ports[name], tlsPorts[name],
                                         quic, SERVERS[name])).join('')}
}
`;
}


function serverBlock(dir, port, tlsPort, quic,
                     { to, listen = '', more = '' })
{
    const udp = quic ? `listen 127.0.0.1:${tlsPort} quic reuseport;` : '';

    return `
    server {
        listen 127.0.0.1:${port} ${listen};
        listen 127.0.0.1:${tlsPort} ssl http2;
        ${udp}

        location / {
            ${more}
            proxy_pass http://${to};
        }

        # of the same origin, for a browser, which asks for a picture, too
        location ~ ^/(llm/blank|favicon.ico)$ {
            access_log off;
            default_type text/html;
            return 200 "";
        }

        location = /llm/began {
            internal;
            log_subrequest on;
            access_log ${dir}/ids.log id;
            return 204;
        }

        location /llm/cancel/ {
            access_log off;
            llm_cancel;
        }
    }
`;
}


function exampleLogFormat(root) {
    const text = readFileSync(`${root}/conf.example`, 'utf8');
    const found = /^ *log_format llm [^;]*;/m.exec(text);

    if (found === null) {
        throw new Error('conf.example has no "log_format llm"');
    }

    return found[0];
}
