
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_fair.h"


static void ngx_llm_fair_insert(ngx_llm_fair_t *fair,
    ngx_llm_fair_key_t *key);
static void ngx_llm_fair_remove(ngx_llm_fair_t *fair,
    ngx_llm_fair_key_t *key);
static ngx_llm_fair_key_t *ngx_llm_fair_meld(ngx_llm_fair_key_t *a,
    ngx_llm_fair_key_t *b);
static ngx_llm_fair_key_t *ngx_llm_fair_meld_all(ngx_llm_fair_key_t *key);


int64_t
ngx_llm_fair_cost(int64_t prompt, int64_t completion)
{
    int64_t  cost;

    cost = 0;

    if (prompt > 0) {
        cost += (prompt < NGX_LLM_MAX_TOKENS ? prompt : NGX_LLM_MAX_TOKENS)
                * NGX_LLM_FAIR_PROMPT;
    }

    if (completion > 0) {
        cost += (completion < NGX_LLM_MAX_TOKENS ? completion
                                                 : NGX_LLM_MAX_TOKENS)
                * NGX_LLM_FAIR_COMPLETION;
    }

    return cost ? cost : 1;
}


void
ngx_llm_fair_join(ngx_llm_fair_t *fair, ngx_llm_fair_key_t *key)
{
    uint64_t  least;

    least = fair->root ? fair->root->served : fair->floor;

    if (key->served < least) {
        key->served = least;
    }

    key->waiting = 1;
    key->order = ++fair->order;

    ngx_llm_fair_insert(fair, key);
}


void
ngx_llm_fair_leave(ngx_llm_fair_t *fair, ngx_llm_fair_key_t *key)
{
    ngx_llm_fair_remove(fair, key);

    key->waiting = 0;
}


ngx_llm_fair_key_t *
ngx_llm_fair_next(const ngx_llm_fair_t *fair)
{
    return fair->root;
}


/* behind its equals, who have waited since their own last turn */

void
ngx_llm_fair_serve(ngx_llm_fair_t *fair, ngx_llm_fair_key_t *key,
    int64_t taken)
{
    if (fair->floor < key->served) {
        fair->floor = key->served;
    }

    ngx_llm_fair_remove(fair, key);

    key->turns++;
    key->taken += taken;
    key->order = ++fair->order;

    ngx_llm_fair_insert(fair, key);
}


void
ngx_llm_fair_settle(ngx_llm_fair_t *fair, ngx_llm_fair_key_t *key,
    int64_t taken, int64_t cost)
{
    if (key->waiting) {
        ngx_llm_fair_remove(fair, key);
    }

    key->turns--;
    key->taken -= taken;
    key->served += cost;

    if (key->waiting) {
        ngx_llm_fair_insert(fair, key);
    }
}


int
ngx_llm_fair_is_new(const ngx_llm_fair_t *fair, const ngx_llm_fair_key_t *key)
{
    return !key->waiting && key->turns == 0 && key->served <= fair->floor;
}


static void
ngx_llm_fair_insert(ngx_llm_fair_t *fair, ngx_llm_fair_key_t *key)
{
    key->child = NULL;
    key->next = NULL;
    key->prev = NULL;

    fair->root = fair->root ? ngx_llm_fair_meld(fair->root, key) : key;
}


static void
ngx_llm_fair_remove(ngx_llm_fair_t *fair, ngx_llm_fair_key_t *key)
{
    ngx_llm_fair_key_t  *below;

    below = ngx_llm_fair_meld_all(key->child);

    if (key->prev == NULL) {
        fair->root = below;
        return;
    }

    if (key->prev->child == key) {
        key->prev->child = key->next;

    } else {
        key->prev->next = key->next;
    }

    if (key->next) {
        key->next->prev = key->prev;
    }

    if (below) {
        fair->root = ngx_llm_fair_meld(fair->root, below);
    }
}


/* two roots, neither with anybody beside it */

static ngx_llm_fair_key_t *
ngx_llm_fair_meld(ngx_llm_fair_key_t *a, ngx_llm_fair_key_t *b)
{
    uint64_t             a_total, b_total;
    ngx_llm_fair_key_t  *tmp;

    a_total = a->served + a->taken;
    b_total = b->served + b->taken;

    if (b_total < a_total || (b_total == a_total && b->order < a->order)) {
        tmp = a;
        a = b;
        b = tmp;
    }

    b->prev = a;
    b->next = a->child;

    if (b->next) {
        b->next->prev = b;
    }

    a->child = b;

    return a;
}


/* in pairs from the left, and these from the right: the amortised bound */

static ngx_llm_fair_key_t *
ngx_llm_fair_meld_all(ngx_llm_fair_key_t *key)
{
    ngx_llm_fair_key_t  *a, *b, *pairs;

    pairs = NULL;

    while (key) {
        a = key;
        b = a->next;
        key = b ? b->next : NULL;

        a->next = NULL;
        a->prev = NULL;

        if (b) {
            b->next = NULL;
            b->prev = NULL;
            a = ngx_llm_fair_meld(a, b);
        }

        a->next = pairs;
        pairs = a;
    }

    key = NULL;

    while (pairs) {
        a = pairs;
        pairs = a->next;
        a->next = NULL;

        key = key ? ngx_llm_fair_meld(key, a) : a;
    }

    return key;
}
