
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_line.h"


/* keys of a line that are remembered without having tickets */
#define NGX_HTTP_LLM_LINE_IDLE_MAX    4096

/* a completion before any was seen, in tokens */
#define NGX_HTTP_LLM_LINE_COMPLETION  256


/* with its place in the heap as the first member; takes 128 bytes */

struct ngx_http_llm_line_key_s {
    ngx_llm_fair_key_t         fair;

    /* by the hash */
    ngx_rbtree_node_t          node;

    /* its tickets that wait; or without tickets its place among such keys */
    ngx_queue_t                queue;
};


static ngx_http_llm_line_key_t *ngx_http_llm_line_key_locked(
    ngx_http_llm_line_t *line, uint64_t hash);
static void *ngx_http_llm_line_alloc_locked(ngx_http_llm_line_t *line,
    size_t size);
static void ngx_http_llm_line_rest_locked(ngx_http_llm_line_t *line,
    ngx_http_llm_line_key_t *key);
static void ngx_http_llm_line_forget_locked(ngx_http_llm_line_t *line,
    ngx_uint_t any);
static int64_t ngx_http_llm_line_cost(ngx_http_llm_line_t *line,
    const ngx_http_llm_line_want_t *want);
static void ngx_http_llm_line_learn_locked(ngx_http_llm_line_t *line,
    int64_t completion);
static void ngx_http_llm_line_pace_locked(ngx_http_llm_line_t *line,
    ngx_uint_t calls, ngx_msec_t now_ms);


ngx_http_llm_ticket_t *
ngx_http_llm_line_join_locked(ngx_http_llm_line_t *line,
    const ngx_http_llm_line_want_t *want)
{
    ngx_http_llm_ticket_t    *ticket;
    ngx_http_llm_line_key_t  *key;

    ngx_http_llm_line_forget_locked(line, 0);

    ticket = ngx_http_llm_line_alloc_locked(line,
                                            sizeof(ngx_http_llm_ticket_t));
    if (ticket == NULL) {
        return NULL;
    }

    key = ngx_http_llm_line_key_locked(line, want->hash);
    if (key == NULL) {
        ngx_slab_free_locked(line->zone->shpool, ticket);
        return NULL;
    }

    ticket->line = line;
    ticket->key = key;
    ticket->want = *want;
    ticket->pid = ngx_pid;
    ticket->slot = ngx_process_slot;

    ngx_queue_insert_tail(&line->zone->tickets, &ticket->queue);
    ngx_queue_insert_tail(&key->queue, &ticket->waiting);

    if (!key->fair.waiting) {
        ngx_llm_fair_join(&line->fair, &key->fair);
    }

    line->waiting++;

    return ticket;
}


/* with tickets or about to have one: its queue is that of who waits */

static ngx_http_llm_line_key_t *
ngx_http_llm_line_key_locked(ngx_http_llm_line_t *line, uint64_t hash)
{
    ngx_rbtree_key_t          wanted;
    ngx_rbtree_node_t        *node;
    ngx_http_llm_line_key_t  *key;

    wanted = (ngx_rbtree_key_t) hash;
    node = line->keys.root;

    while (node != &line->sentinel) {

        if (node->key == wanted) {
            key = ngx_rbtree_data(node, ngx_http_llm_line_key_t, node);

            if (!key->fair.waiting && key->fair.turns == 0) {
                ngx_queue_remove(&key->queue);
                ngx_queue_init(&key->queue);
                line->nidle--;
            }

            return key;
        }

        node = (wanted < node->key) ? node->left : node->right;
    }

    key = ngx_http_llm_line_alloc_locked(line,
                                         sizeof(ngx_http_llm_line_key_t));
    if (key == NULL) {
        return NULL;
    }

    key->node.key = wanted;

    ngx_queue_init(&key->queue);
    ngx_rbtree_insert(&line->keys, &key->node);

    return key;
}


/*
 * A ticket or a key, which are of one size: keys that are only remembered
 * make room for them.
 */

static void *
ngx_http_llm_line_alloc_locked(ngx_http_llm_line_t *line, size_t size)
{
    void  *p;

    p = ngx_slab_calloc_locked(line->zone->shpool, size);

    if (p == NULL && ngx_http_llm_line_make_room_locked(line->zone, line)) {
        p = ngx_slab_calloc_locked(line->zone->shpool, size);
    }

    return p;
}


ngx_uint_t
ngx_http_llm_line_make_room_locked(ngx_http_llm_line_zone_t *zone,
    ngx_http_llm_line_t *first)
{
    ngx_queue_t          *q;
    ngx_http_llm_line_t  *line;

    line = first;
    q = ngx_queue_head(&zone->lines);

    while (line == NULL || line->nidle == 0) {

        if (q == ngx_queue_sentinel(&zone->lines)) {
            return 0;
        }

        line = ngx_queue_data(q, ngx_http_llm_line_t, queue);
        q = ngx_queue_next(q);
    }

    ngx_http_llm_line_forget_locked(line, 1);

    return 1;
}


/* a key that has no tickets any more is remembered for what it was served */

static void
ngx_http_llm_line_rest_locked(ngx_http_llm_line_t *line,
    ngx_http_llm_line_key_t *key)
{
    ngx_queue_insert_head(&line->idle, &key->queue);

    line->nidle++;

    ngx_http_llm_line_forget_locked(line, 0);
}


/* two of those that were not used for longest, if that changes nothing */

static void
ngx_http_llm_line_forget_locked(ngx_http_llm_line_t *line, ngx_uint_t any)
{
    ngx_uint_t                i;
    ngx_http_llm_line_key_t  *key;

    for (i = 0; i < 2 && line->nidle; i++) {
        key = ngx_queue_data(ngx_queue_last(&line->idle),
                             ngx_http_llm_line_key_t, queue);

        if (!any
            && line->nidle <= NGX_HTTP_LLM_LINE_IDLE_MAX
            && !ngx_llm_fair_is_new(&line->fair, &key->fair))
        {
            return;
        }

        ngx_queue_remove(&key->queue);
        ngx_rbtree_delete(&line->keys, &key->node);
        ngx_slab_free_locked(line->zone->shpool, key);

        line->nidle--;
    }
}


ngx_uint_t
ngx_http_llm_line_call_locked(ngx_http_llm_line_t *line, ngx_uint_t seats,
    ngx_msec_t now_ms)
{
    ngx_uint_t                calls;
    ngx_llm_fair_key_t       *next;
    ngx_http_llm_ticket_t    *ticket;
    ngx_http_llm_line_key_t  *key;

    for (calls = 0; line->called < seats; calls++) {

        next = ngx_llm_fair_next(&line->fair);
        if (next == NULL) {
            break;
        }

        key = (ngx_http_llm_line_key_t *) next;

        ticket = ngx_queue_data(ngx_queue_head(&key->queue),
                                ngx_http_llm_ticket_t, waiting);

        ngx_queue_remove(&ticket->waiting);

        ticket->taken = ngx_http_llm_line_cost(line, &ticket->want);
        ngx_llm_fair_serve(&line->fair, &key->fair, ticket->taken);

        if (ngx_queue_empty(&key->queue)) {
            ngx_llm_fair_leave(&line->fair, &key->fair);
        }

        ticket->state = NGX_HTTP_LLM_TICKET_CALLED;

        line->waiting--;
        line->called++;
    }

    ngx_http_llm_line_pace_locked(line, calls, now_ms);

    return calls;
}


/* by what turns of this upstream came to lately */

static int64_t
ngx_http_llm_line_cost(ngx_http_llm_line_t *line,
    const ngx_http_llm_line_want_t *want)
{
    int64_t  completion;

    completion = line->nmean ? line->mean / 16 : NGX_HTTP_LLM_LINE_COMPLETION;

    if (want->completion_max > 0) {
        completion = ngx_min(completion, want->completion_max);
    }

    return ngx_llm_fair_cost(want->prompt, completion);
}


/* only where there was a queue: who finds a seat at once has no pace */

static void
ngx_http_llm_line_pace_locked(ngx_http_llm_line_t *line, ngx_uint_t calls,
    ngx_msec_t now_ms)
{
    ngx_msec_t  each_ms;

    if (calls == 0) {
        return;
    }

    if (calls + line->waiting > 1) {
        each_ms = (now_ms - line->called_ms) / calls;
        line->pace = line->pace ? line->pace - line->pace / 8 + each_ms
                                : 8 * each_ms;
    }

    line->called_ms = now_ms;
}


void
ngx_http_llm_line_defer_locked(ngx_http_llm_ticket_t *ticket)
{
    ngx_http_llm_line_t      *line;
    ngx_http_llm_line_key_t  *key;

    line = ticket->line;
    key = ticket->key;

    ngx_llm_fair_settle(&line->fair, &key->fair, ticket->taken, 0);

    if (!key->fair.waiting) {
        ngx_llm_fair_join(&line->fair, &key->fair);
    }

    ngx_queue_insert_head(&key->queue, &ticket->waiting);

    ticket->state = NGX_HTTP_LLM_TICKET_WAITING;

    line->called--;
    line->waiting++;
}


void
ngx_http_llm_line_seat_locked(ngx_http_llm_ticket_t *ticket)
{
    ticket->state = NGX_HTTP_LLM_TICKET_SEATED;
    ticket->line->called--;
}


void
ngx_http_llm_line_rise_locked(ngx_http_llm_ticket_t *ticket)
{
    ticket->state = NGX_HTTP_LLM_TICKET_CALLED;
    ticket->line->called++;
}


void
ngx_http_llm_line_leave_locked(ngx_http_llm_ticket_t *ticket,
    const ngx_http_llm_line_usage_t *usage)
{
    int64_t                   cost;
    ngx_http_llm_line_t      *line;
    ngx_http_llm_line_key_t  *key;

    line = ticket->line;
    key = ticket->key;

    if (ticket->state == NGX_HTTP_LLM_TICKET_WAITING) {
        ngx_queue_remove(&ticket->waiting);

        if (ngx_queue_empty(&key->queue)) {
            ngx_llm_fair_leave(&line->fair, &key->fair);
        }

        line->waiting--;

    } else {
        cost = usage ? ngx_llm_fair_cost(usage->prompt, usage->completion)
                     : ticket->taken;

        ngx_llm_fair_settle(&line->fair, &key->fair, ticket->taken, cost);

        if (usage && usage->completion >= 0) {
            ngx_http_llm_line_learn_locked(line, usage->completion);
        }

        if (ticket->state == NGX_HTTP_LLM_TICKET_CALLED) {
            line->called--;
        }
    }

    if (!key->fair.waiting && key->fair.turns == 0) {
        ngx_http_llm_line_rest_locked(line, key);
    }

    ngx_queue_remove(&ticket->queue);
    ngx_slab_free_locked(line->zone->shpool, ticket);
}


/* the mean of all as long as they are few, then with less and less weight */

static void
ngx_http_llm_line_learn_locked(ngx_http_llm_line_t *line, int64_t completion)
{
    line->nmean += (line->nmean < 16);
    line->mean += (16 * ngx_min(completion, NGX_LLM_MAX_TOKENS) - line->mean)
                  / (int64_t) line->nmean;
}


ngx_msec_t
ngx_http_llm_line_drained_ms_locked(ngx_http_llm_line_t *line)
{
    return line->waiting * line->pace / 8;
}
