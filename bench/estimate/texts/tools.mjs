/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */

/* functions that a model may be offered: name, what for, its parameters */

const string = (description, more = {}) => ({
    type: 'string', description, ...more,
});
const number = (description, more = {}) => ({
    type: 'number', description, ...more,
});
const integer = (description, minimum, maximum) => ({
    type: 'integer', description, minimum, maximum,
});
const flag = (description) => ({ type: 'boolean', description });
const list = (description, items) => ({ type: 'array', description, items });

const FUNCTIONS = [
    ['get_weather', 'Current weather and a forecast for a place.', {
        location: string('City and country, for example "Oslo, Norway"'),
        unit: string('Unit of temperature', { enum: ['celsius', 'kelvin'] }),
        days: integer('Days of forecast', 0, 14),
    }, ['location']],
    ['search_documents', 'Full text search in the company\'s documents.', {
        query: string('What to look for, in natural language'),
        top_k: integer('How many results are wanted', 1, 50),
        filters: {
            type: 'object',
            properties: {
                author: string('E-mail address of the author'),
                created_after: string('ISO 8601 date', { format: 'date' }),
                tags: list('All of these tags', { type: 'string' }),
            },
            additionalProperties: false,
        },
    }, ['query']],
    ['create_ticket', 'Opens a ticket for the support team.', {
        title: string('One line that sums up the problem', { maxLength: 80 }),
        body: string('Everything the customer said, as Markdown'),
        priority: string('How urgent it is', {
            enum: ['low', 'normal', 'high', 'critical'],
        }),
        customer_id: string('Identifier of the customer', {
            pattern: '^C-[0-9]{6}$',
        }),
    }, ['title', 'body', 'customer_id']],
    ['transfer_money', 'Moves an amount between two accounts. Ask first.', {
        from_account: string('IBAN of the account to debit'),
        to_account: string('IBAN of the account to credit'),
        amount: number('Amount in the currency below', {
            exclusiveMinimum: 0,
        }),
        currency: string('ISO 4217 code', { enum: ['EUR', 'USD', 'CHF'] }),
        reference: string('Shown to the recipient', { maxLength: 140 }),
    }, ['from_account', 'to_account', 'amount', 'currency']],
    ['run_sql', 'Runs a read-only query and returns at most 200 rows.', {
        sql: string('One SELECT statement in PostgreSQL\'s dialect'),
        timeout_ms: integer('Gives up after this time', 100, 30000),
        explain: flag('Return the plan instead of the rows'),
    }, ['sql']],
    ['send_email', 'Sends a message in the name of the user.', {
        to: list('Recipients', { type: 'string', format: 'email' }),
        cc: list('Recipients of copies', { type: 'string', format: 'email' }),
        subject: string('Subject line'),
        html: flag('Whether the body is HTML'),
        body: string('The text of the message'),
    }, ['to', 'subject', 'body']],
    ['resize_image', 'Makes a smaller version of an uploaded image.', {
        file_id: string('As returned by the upload'),
        width: integer('Pixels', 16, 8192),
        height: integer('Pixels', 16, 8192),
        fit: string('What to do where the ratio differs', {
            enum: ['cover', 'contain', 'fill', 'inside', 'outside'],
        }),
        quality: number('From 0 to 1', { minimum: 0, maximum: 1 }),
    }, ['file_id', 'width']],
    ['plan_route', 'The fastest way between two or more stops.', {
        stops: list('In this order', {
            type: 'object',
            properties: {
                lat: number('Degrees north'),
                lon: number('Degrees east'),
                name: string('For the driver'),
            },
            required: ['lat', 'lon'],
        }),
        mode: string('Means of transport', {
            enum: ['car', 'truck', 'bicycle', 'walking', 'transit'],
        }),
        depart_at: string('Local time', { format: 'date-time' }),
        avoid_tolls: flag('Whatever it costs in time'),
    }, ['stops', 'mode']],
    ['read_file', 'Reads a part of a file in the working directory.', {
        path: string('Relative to the working directory'),
        offset: integer('Line to begin with, the first is 1', 1, 1000000),
        limit: integer('Lines to read', 1, 2000),
    }, ['path']],
    ['edit_file', 'Replaces one exact occurrence of a text in a file.', {
        path: string('Relative to the working directory'),
        old_text: string('Has to occur exactly once'),
        new_text: string('What it becomes; empty to delete it'),
        create_backup: flag('Keep the file under its name with a tilde'),
    }, ['path', 'old_text', 'new_text']],
    ['book_table', 'Books a table in a restaurant.', {
        restaurant_id: string('As returned by find_restaurants'),
        guests: integer('Number of persons', 1, 20),
        time: string('Local time', { format: 'date-time' }),
        name: string('On which name'),
        wishes: string('Allergies, a chair for a child, near the window'),
    }, ['restaurant_id', 'guests', 'time', 'name']],
    ['query_metrics', 'Time series of the monitoring system.', {
        expression: string('For example rate(http_requests_total[5m])'),
        start: string('RFC 3339 time or Unix time stamp'),
        end: string('RFC 3339 time or Unix time stamp'),
        step_seconds: integer('Resolution', 1, 86400),
    }, ['expression', 'start', 'end']],
];

function tool([name, description, properties, required]) {
    const parameters = { type: 'object', properties, required };

    return { type: 'function', function: { name, description, parameters } };
}


export const TOOLS = FUNCTIONS.map(tool);
