
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm_charge.h"


/* the longest value: a duration of 2^64 ms */
#define NGX_HTTP_LLM_LIMIT_VALUE  32


static ngx_uint_t ngx_http_llm_limit_is_refusal(ngx_http_request_t *r,
    ngx_http_llm_charge_t *charge);
static void ngx_http_llm_limit_drop_headers(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_limit_quota(ngx_http_request_t *r,
    ngx_http_llm_quota_t *quota, ngx_str_t *names);
static u_char *ngx_http_llm_limit_duration(u_char *p, ngx_msec_t ms);


/* limit, remaining and reset of each budget */

static ngx_str_t  ngx_http_llm_limit_names[3 * NGX_HTTP_LLM_BUDGETS] = {
    ngx_string("x-ratelimit-limit-tokens"),
    ngx_string("x-ratelimit-remaining-tokens"),
    ngx_string("x-ratelimit-reset-tokens"),
    ngx_string("x-ratelimit-limit-requests"),
    ngx_string("x-ratelimit-remaining-requests"),
    ngx_string("x-ratelimit-reset-requests")
};


ngx_int_t
ngx_http_llm_limit_add_headers(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t                b, refusal;
    ngx_http_llm_quota_t     *quota;
    ngx_http_llm_charge_t    *charge;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_stream_module);
    charge = ctx->charge;

    if (charge == NULL || !llcf->limit.headers) {
        return NGX_OK;
    }

    refusal = ngx_http_llm_limit_is_refusal(r, charge);

    /* upstream's own limit refuses: its headers say when to come again */

    if (r->headers_out.status == NGX_HTTP_TOO_MANY_REQUESTS && !refusal) {
        return NGX_OK;
    }

    ngx_http_llm_limit_drop_headers(r);

    for (b = 0; b < NGX_HTTP_LLM_BUDGETS; b++) {
        quota = &charge->quotas[b];

        if (quota->limit == 0) {
            continue;
        }

        if (ngx_http_llm_limit_quota(r, quota,
                                     &ngx_http_llm_limit_names[3 * b])
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    /* an error_page may have put another answer in the place of ours */

    if (charge->retry_ms == 0
        || !refusal
        || r->headers_out.status != charge->reject_status)
    {
        return NGX_OK;
    }

    return ngx_http_llm_error_retry(r, charge->retry_ms);
}


/* an error_page may have had an upstream answer, which may refuse as well */

static ngx_uint_t
ngx_http_llm_limit_is_refusal(ngx_http_request_t *r,
    ngx_http_llm_charge_t *charge)
{
    return charge->status == NGX_HTTP_LLM_LIMIT_REJECTED
           && (r->upstream == NULL || r->upstream->peer.connection == NULL);
}


/* upstream's own limits are not this client's: ours take their place */

static void
ngx_http_llm_limit_drop_headers(ngx_http_request_t *r)
{
    ngx_str_t        *name;
    ngx_uint_t        i, k;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    for (part = &r->headers_out.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            for (k = 0; k < 3 * NGX_HTTP_LLM_BUDGETS; k++) {
                name = &ngx_http_llm_limit_names[k];

                if (h[i].key.len == name->len
                    && ngx_strncasecmp(h[i].key.data, name->data, name->len)
                       == 0)
                {
                    h[i].hash = 0;
                }
            }
        }
    }
}


static ngx_int_t
ngx_http_llm_limit_quota(ngx_http_request_t *r, ngx_http_llm_quota_t *quota,
    ngx_str_t *names)
{
    u_char  *last, *p;

    p = ngx_pnalloc(r->pool, 3 * NGX_HTTP_LLM_LIMIT_VALUE);
    if (p == NULL) {
        return NGX_ERROR;
    }

    last = ngx_sprintf(p, "%L", quota->limit);

    if (ngx_http_llm_error_add_header(r, &names[0], p, last) != NGX_OK) {
        return NGX_ERROR;
    }

    p = last;
    last = ngx_sprintf(p, "%L", quota->remaining);

    if (ngx_http_llm_error_add_header(r, &names[1], p, last) != NGX_OK) {
        return NGX_ERROR;
    }

    p = last;
    last = ngx_http_llm_limit_duration(p, quota->reset_ms);

    return ngx_http_llm_error_add_header(r, &names[2], p, last);
}


/* as OpenAI writes it: "12ms", "8.64s", "6m0s", "1h30m0s" */

static u_char *
ngx_http_llm_limit_duration(u_char *p, ngx_msec_t ms)
{
    ngx_msec_t  s;

    if (ms > 0 && ms < 1000) {
        return ngx_sprintf(p, "%Mms", ms);
    }

    s = ms / 1000;
    ms %= 1000;

    if (s >= 3600) {
        p = ngx_sprintf(p, "%Mh", s / 3600);
    }

    if (s >= 60) {
        p = ngx_sprintf(p, "%Mm", s / 60 % 60);
    }

    p = ngx_sprintf(p, "%M", s % 60);

    if (ms) {
        p = ngx_sprintf(p, ".%03M", ms);

        while (p[-1] == '0') {
            p--;
        }
    }

    *p++ = 's';

    return p;
}
