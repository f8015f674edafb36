/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/*
 * Prints requests of several kinds of text with the count of their prompt
 * tokens by a real tokenizer, one a line: KIND TOKENS BODY.  The count is the
 * one that OpenAI documents for chat requests: three tokens a message and
 * three for the answer beside role and content; a tool is its JSON.  Where
 * images and audio are in it, TOKENS is that of the text alone.
 *
 *     node requests.mjs o200k_base|cl100k_base
 */

import { readFileSync, readdirSync } from 'node:fs';

import { TOOLS } from './texts/tools.mjs';

const REQUESTS = 100;

const MESSAGE_TOKENS = 3;
const ANSWER_TOKENS = 3;

const { encode } = await import(`gpt-tokenizer/encoding/${process.argv[2]}`);

const here = new URL('.', import.meta.url).pathname;
const root = `${here}/../..`;

let state = 1;


/* mulberry32: the same requests in every run */

function random(n) {
    state = (state + 0x6d2b79f5) | 0;

    let z = Math.imul(state ^ (state >>> 15), 1 | state);

    z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;

    return ((z ^ (z >>> 14)) >>> 0) % n;
}


function read(...paths) {
    return paths.map((path) => readFileSync(path, 'utf8')).join('\n');
}


function folder(path, ending) {
    return readdirSync(path).filter((name) => name.endsWith(ending)).sort()
        .map((name) => `${path}/${name}`);
}


/* some sentences, lines or paragraphs out of the middle of a text */

function piece(text, least, most) {
    const length = least + random(most - least);
    const start = random(Math.max(1, text.length - length));

    return Array.from(text.slice(start, start + length))
        .filter((c) => c < '\ud800' || c > '\udfff').join('');
}


function chat(text, least, most) {
    return () => {
        const messages = [];

        if (random(2)) {
            messages.push({
                role: 'system', content: piece(text, least / 4, least),
            });
        }

        messages.push({ role: 'user', content: piece(text, least, most) });

        return { messages };
    };
}


/* a short question beside a choice of tools */

function withTools() {
    const tools = TOOLS.filter(() => random(2));
    const content = piece(english, 40, 200);

    return {
        messages: [{ role: 'user', content }],
        tools: tools.length > 0 ? tools : TOOLS.slice(0, 1),
    };
}


/* records as an API returns them, under a line that says what to do */

function json(indent) {
    const rows = Array.from({ length: 4 + random(30) }, () => ({
        id: random(1e6),
        uuid: [8, 4, 4, 12].map((n) => hex(n)).join('-'),
        name: piece(words, 6, 20).trim(),
        price: random(100000) / 100,
        active: random(2) === 1,
        tags: words.split(' ').slice(random(500)).slice(0, random(5)),
        updated_at: new Date(1.7e12 + random(1e9) * 50).toISOString(),
        address: { street: piece(words, 8, 24), zip: String(random(99999)) },
    }));

    const content = `Which of these are out of date?\n\n${
        JSON.stringify(rows, null, indent)}`;

    return { messages: [{ role: 'user', content }] };
}


function hex(n) {
    return Array.from({ length: n }, () => random(16).toString(16)).join('');
}


function count(body) {
    let tokens = ANSWER_TOKENS;

    for (const { role, content } of body.messages) {
        tokens += MESSAGE_TOKENS + encode(role).length
                  + encode(content).length;
    }

    if (body.tools) {
        tokens += encode(JSON.stringify(body.tools)).length;
    }

    return tokens;
}


const licenses = '/usr/share/common-licenses';
const english = read(`${licenses}/GPL-3`, `${licenses}/Apache-2.0`,
                     `${licenses}/Artistic`, `${root}/README.md`,
                     `${root}/CONTRIBUTING.md`);
const words = english.toLowerCase().replace(/[^a-z]+/g, ' ');

const KINDS = {
    'English': chat(english, 400, 4000),
    'Chinese': chat(read(`${here}/texts/chinese.md`), 100, 900),
    'German': chat(read(`${here}/texts/german.md`), 200, 1500),
    'Japanese': chat(read(`${here}/texts/japanese.md`), 100, 600),
    'code-C': chat(read(...folder(`${root}/src/core`, '.c'),
                        ...folder(`${root}/src/http`, '.c')), 500, 6000),
    'code-JS': chat(read(...folder(`${root}/t/clients/lib`, '.mjs'),
                         ...folder(`${root}/t/clients`, '.mjs')), 500, 5000),
    'JSON-dense': () => json(0),
    'JSON-indent': () => json(2),
    'tools': withTools,
};

/* not one kind of text: one model is asked for all of them in turn */

const makers = Object.values(KINDS);

KINDS['mix-JSON'] = () => json(random(2) ? 2 : 0);
KINDS['mix-all'] = () => makers[random(makers.length)]();

for (const [kind, make] of Object.entries(KINDS)) {
    for (let i = 0; i < REQUESTS; i++) {
        const body = { model: 'sim', ...make() };

        console.log(`${kind} ${count(body)} ${JSON.stringify(body)}`);
    }
}
