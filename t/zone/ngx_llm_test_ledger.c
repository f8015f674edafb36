
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_test.h"


static void ngx_llm_test_tell(ngx_llm_test_budget_t *budget,
    ngx_uint_t first, ngx_uint_t last);


void
ngx_llm_test_charge(ngx_llm_test_life_t *life, ngx_uint_t z, ngx_uint_t b,
    int64_t tokens)
{
    ngx_uint_t              i;
    ngx_llm_test_wide_t     least, now;
    ngx_http_llm_hold_t    *hold;
    ngx_llm_test_budget_t  *budget;

    budget = &life->budgets[z][b];

    if (budget->rate.tokens == 0 || tokens == 0) {
        return;
    }

    now = (ngx_llm_test_wide_t) life->now_ns * budget->rate.tokens;

    if (tokens > 0) {
        budget->exact = ngx_max(budget->exact, now);
        budget->exact += (ngx_llm_test_wide_t) tokens * budget->rate.period_ns;
        return;
    }

    /* full is full, but for those who sleep: from there they take theirs */

    least = now;

    for (i = 0; i < life->nrequests; i++) {
        hold = life->requests[i].holds[z];

        if (hold && hold->asleep && hold->start_ns[b] > life->now_ns) {
            least += (ngx_llm_test_wide_t) life->requests[i].costs[z][b]
                     * budget->rate.period_ns;
        }
    }

    least = ngx_min(least, budget->exact);

    budget->exact += (ngx_llm_test_wide_t) tokens * budget->rate.period_ns;
    budget->exact = ngx_max(budget->exact, least);
}


void
ngx_llm_test_enter(ngx_llm_test_life_t *life, ngx_uint_t z, ngx_uint_t b,
    ngx_llm_test_entry_e kind, int64_t at_ns, int64_t tokens, ngx_uint_t step)
{
    ngx_uint_t              i;
    ngx_llm_test_entry_t   *entry;
    ngx_llm_test_budget_t  *budget;

    budget = &life->budgets[z][b];

    if (budget->rate.tokens == 0 || tokens == 0) {
        return;
    }

    if (budget->nentries == NGX_LLM_TEST_ENTRIES) {
        life->broken = "the ledger is too small";
        return;
    }

    /* in the order of time; at one time what is given back comes first */

    for (i = budget->nentries++; i > 0; i--) {
        entry = &budget->entries[i - 1];

        if (entry->at_ns < at_ns
            || (entry->at_ns == at_ns && entry->kind <= kind))
        {
            break;
        }

        budget->entries[i] = *entry;
    }

    entry = &budget->entries[i];

    entry->at_ns = at_ns;
    entry->tokens = tokens;
    entry->kind = kind;
    entry->step = step;
}


void
ngx_llm_test_check(ngx_llm_test_life_t *life)
{
    ngx_uint_t              b, holds, i, z;
    ngx_http_llm_key_t     *key;
    ngx_llm_test_wide_t     behind, now;
    ngx_llm_test_budget_t  *budget;

    for (z = 0; z < NGX_LLM_TEST_ZONES && life->broken == NULL; z++) {
        key = ngx_llm_test_key(life, z);

        if (key == NULL) {
            continue;
        }

        holds = 0;

        for (i = 0; i < life->nrequests; i++) {
            holds += (life->requests[i].holds[z] != NULL);
        }

        if (key->holds != holds) {
            life->broken = "a key has other holds than requests";
        }

        for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
            budget = &life->budgets[z][b];

            if (budget->rate.tokens == 0) {
                continue;
            }

            /* full is full, since whenever */

            now = (ngx_llm_test_wide_t) life->now_ns * budget->rate.tokens;
            behind = (ngx_llm_test_wide_t) key->buckets[b].tat_ns
                     * budget->rate.tokens;
            behind = ngx_max(behind, now) - ngx_max(budget->exact, now);

            if (behind < 0) {
                life->broken = "tokens were given away";
            }

            if (behind > (ngx_llm_test_wide_t) 4 * (life->step + 20)
                         * budget->rate.tokens)
            {
                life->broken = "tokens were lost";
            }
        }
    }
}


void
ngx_llm_test_windows(ngx_llm_test_life_t *life, ngx_llm_test_budget_t *budget)
{
    ngx_uint_t             i, k;
    ngx_llm_test_entry_t  *first, *last;
    ngx_llm_test_wide_t    most, sum;

    for (k = 0; k < budget->nentries; k++) {
        last = &budget->entries[k];

        if (last->kind != NGX_LLM_TEST_ADMIT) {
            continue;
        }

        sum = 0;

        for (i = k + 1; i-- > 0; /* void */ ) {
            first = &budget->entries[i];

            /* who slept already keeps its time */

            if (first->kind == NGX_LLM_TEST_OVERRUN
                && first->step > last->step)
            {
                continue;
            }

            sum += first->tokens;

            /* the times of those who moved up are rounded up, by below 1 ns */

            most = (ngx_llm_test_wide_t) (last->at_ns - first->at_ns + k - i
                                          + 1)
                   * budget->rate.tokens
                   + (ngx_llm_test_wide_t) budget->rate.burst
                     * budget->rate.period_ns;

            /* what is given back at the same time is a part of the window */

            if (i > 0 && (first - 1)->at_ns == first->at_ns) {
                continue;
            }

            if (first->tokens > 0 && sum * budget->rate.period_ns > most) {
                ngx_llm_test_tell(budget, i, k);
                life->broken = "more was admitted than rate * window + burst";
            }
        }
    }
}


static void
ngx_llm_test_tell(ngx_llm_test_budget_t *budget, ngx_uint_t first,
    ngx_uint_t last)
{
    ngx_uint_t             i;
    ngx_llm_test_entry_t  *entry;

    static const char  *kinds[] = { "give", "overrun", "admit" };

    printf("# tokens %ld, period %ld ns, burst %ld\n",
           (long) budget->rate.tokens, (long) budget->rate.period_ns,
           (long) budget->rate.burst);

    for (i = first; i <= last; i++) {
        entry = &budget->entries[i];

        printf("# +%ld ns: step %d, %s %ld\n",
               (long) (entry->at_ns - budget->entries[first].at_ns),
               (int) entry->step, kinds[entry->kind], (long) entry->tokens);
    }
}


ngx_http_llm_key_t *
ngx_llm_test_key(ngx_llm_test_life_t *life, ngx_uint_t z)
{
    return ngx_http_llm_key_find_locked(&life->zones[z], life->digests[z]);
}


uint64_t
ngx_llm_test_random(ngx_llm_test_life_t *life)
{
    uint64_t  z;

    life->random += 0x9e3779b97f4a7c15;

    z = life->random;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;

    return z ^ (z >> 31);
}


int64_t
ngx_llm_test_to(ngx_llm_test_life_t *life, int64_t max)
{
    return ngx_llm_test_random(life) % ((uint64_t) max + 1);
}
