
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_line.h"


/* changes with every change of the layout */
#define NGX_HTTP_LLM_LINE_VERSION     1

/* touched when used; always the same, or a reload would start anew */
#define NGX_HTTP_LLM_LINE_BYTES       (8 * 1024 * 1024)

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


struct ngx_http_llm_line_zone_s {
    ngx_uint_t                 version;
    ngx_slab_pool_t           *shpool;
    uint64_t                   seed;

    /* of all lines */
    ngx_queue_t                tickets;

    ngx_queue_t                lines;
};


static ngx_int_t ngx_http_llm_line_init_zone(ngx_shm_zone_t *shm_zone,
    void *data);
static ngx_http_llm_line_t *ngx_http_llm_line_create_locked(
    ngx_http_llm_line_zone_t *zone, const ngx_str_t *name);
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


static ngx_str_t  ngx_http_llm_line_zone_name = ngx_string("llm_queue");


ngx_shm_zone_t *
ngx_http_llm_line_zone(ngx_conf_t *cf, void *tag)
{
    ngx_shm_zone_t  *zone;

    zone = ngx_shared_memory_add(cf, &ngx_http_llm_line_zone_name,
                                 NGX_HTTP_LLM_LINE_BYTES, tag);
    if (zone) {
        zone->init = ngx_http_llm_line_init_zone;
    }

    return zone;
}


static ngx_int_t
ngx_http_llm_line_init_zone(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_slab_pool_t           *shpool;
    ngx_http_llm_line_zone_t  *zone;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (data || shm_zone->shm.exists) {
        zone = shpool->data;
        shm_zone->data = zone;

        if (zone->version == NGX_HTTP_LLM_LINE_VERSION) {
            return NGX_OK;
        }

        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "zone \"%V\" was laid out by another version of this "
                      "module: restart nginx", &shm_zone->shm.name);
        return NGX_ERROR;
    }

    zone = ngx_slab_calloc(shpool, sizeof(ngx_http_llm_line_zone_t));
    if (zone == NULL) {
        return NGX_ERROR;
    }

    zone->version = NGX_HTTP_LLM_LINE_VERSION;
    zone->shpool = shpool;
    zone->seed = (uint64_t) ngx_random() << 32 ^ ngx_random();

    ngx_queue_init(&zone->tickets);
    ngx_queue_init(&zone->lines);

    /* a full zone is a full queue, and that is logged */

    shpool->log_nomem = 0;
    shpool->data = zone;
    shm_zone->data = zone;

    return NGX_OK;
}


ngx_http_llm_line_t *
ngx_http_llm_line_get(ngx_shm_zone_t *shm_zone, const ngx_str_t *name,
    ngx_log_t *log)
{
    ngx_queue_t               *q;
    ngx_http_llm_line_t       *line, *found;
    ngx_http_llm_line_zone_t  *zone;

    zone = shm_zone->data;
    found = NULL;

    ngx_shmtx_lock(&zone->shpool->mutex);

    for (q = ngx_queue_head(&zone->lines);
         q != ngx_queue_sentinel(&zone->lines);
         q = ngx_queue_next(q))
    {
        line = ngx_queue_data(q, ngx_http_llm_line_t, queue);

        if (line->name_len == name->len
            && ngx_memcmp(line->name, name->data, name->len) == 0)
        {
            found = line;
            break;
        }
    }

    if (found == NULL) {
        found = ngx_http_llm_line_create_locked(zone, name);
    }

    ngx_shmtx_unlock(&zone->shpool->mutex);

    if (found == NULL) {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "zone \"%V\" is full, upstream \"%V\" has no queue",
                      &shm_zone->shm.name, name);
    }

    return found;
}


static ngx_http_llm_line_t *
ngx_http_llm_line_create_locked(ngx_http_llm_line_zone_t *zone,
    const ngx_str_t *name)
{
    ngx_http_llm_line_t  *line;

    line = ngx_slab_calloc_locked(zone->shpool,
                                  sizeof(ngx_http_llm_line_t) + name->len);
    if (line == NULL) {
        return NULL;
    }

    line->zone = zone;
    line->name_len = name->len;
    ngx_memcpy(line->name, name->data, name->len);

    ngx_rbtree_init(&line->keys, &line->sentinel, ngx_rbtree_insert_value);
    ngx_queue_init(&line->idle);

    ngx_queue_insert_tail(&zone->lines, &line->queue);

    return line;
}


uint64_t
ngx_http_llm_line_seed(ngx_shm_zone_t *shm_zone)
{
    ngx_http_llm_line_zone_t  *zone;

    zone = shm_zone->data;

    return zone->seed;
}


void
ngx_http_llm_line_lock(ngx_shm_zone_t *shm_zone)
{
    ngx_http_llm_line_zone_t  *zone;

    zone = shm_zone->data;

    ngx_shmtx_lock(&zone->shpool->mutex);
}


void
ngx_http_llm_line_unlock(ngx_shm_zone_t *shm_zone)
{
    ngx_http_llm_line_zone_t  *zone;

    zone = shm_zone->data;

    ngx_shmtx_unlock(&zone->shpool->mutex);
}


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


/* a ticket or a key: keys that are only remembered make room for them */

static void *
ngx_http_llm_line_alloc_locked(ngx_http_llm_line_t *line, size_t size)
{
    void  *p;

    p = ngx_slab_calloc_locked(line->zone->shpool, size);

    if (p == NULL) {
        ngx_http_llm_line_forget_locked(line, 1);
        p = ngx_slab_calloc_locked(line->zone->shpool, size);
    }

    return p;
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


void
ngx_http_llm_line_reap(ngx_shm_zone_t *shm_zone, ngx_pid_t pid)
{
    ngx_uint_t                 dead;
    ngx_queue_t               *q, *next;
    ngx_http_llm_ticket_t     *ticket;
    ngx_http_llm_line_zone_t  *zone;

    zone = shm_zone->data;

    ngx_shmtx_lock(&zone->shpool->mutex);

    for (q = ngx_queue_head(&zone->tickets);
         q != ngx_queue_sentinel(&zone->tickets);
         q = next)
    {
        next = ngx_queue_next(q);
        ticket = ngx_queue_data(q, ngx_http_llm_ticket_t, queue);

        dead = (pid == NGX_INVALID_PID)
               ? (ticket->slot == ngx_process_slot && ticket->pid != ngx_pid)
               : (ticket->pid == pid);

        if (dead) {
            ngx_http_llm_line_leave_locked(ticket, NULL);
        }
    }

    ngx_shmtx_unlock(&zone->shpool->mutex);
}
