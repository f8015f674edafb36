
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_http_llm.h"
#include "ngx_http_llm_bell.h"
#include "ngx_http_llm_live.h"

#include <sys/random.h>


static ngx_int_t ngx_http_llm_cancel_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_cancel_allow(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_cancel_find(ngx_http_request_t *r,
    ngx_shm_zone_t *ids);


/* not to be guessed: whoever knows it may end the stream */

ngx_int_t
ngx_http_llm_make_id(ngx_http_llm_ctx_t *ctx)
{
    u_char  random[NGX_HTTP_LLM_ID_BYTES];

    if (ctx->id.len) {
        return NGX_OK;
    }

    if (getrandom(random, sizeof(random), 0) != sizeof(random)) {
        ngx_log_error(NGX_LOG_CRIT, ctx->request->connection->log, ngx_errno,
                      "getrandom() failed");
        return NGX_ERROR;
    }

    ctx->id.data = ngx_pnalloc(ctx->request->pool, 2 * sizeof(random));
    if (ctx->id.data == NULL) {
        return NGX_ERROR;
    }

    ngx_hex_dump(ctx->id.data, random, sizeof(random));
    ctx->id.len = 2 * sizeof(random);

    return NGX_OK;
}


ngx_int_t
ngx_http_llm_id_bytes(const ngx_str_t *id, u_char *bytes)
{
    ngx_int_t   n;
    ngx_uint_t  i;

    if (id->len != 2 * NGX_HTTP_LLM_ID_BYTES) {
        return NGX_DECLINED;
    }

    for (i = 0; i < NGX_HTTP_LLM_ID_BYTES; i++) {
        n = ngx_hextoi(id->data + 2 * i, 2);

        if (n == NGX_ERROR) {
            return NGX_DECLINED;
        }

        bytes[i] = (u_char) n;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_llm_id_open(ngx_http_llm_ctx_t *ctx, ngx_http_llm_id_t **id)
{
    u_char                     raw[NGX_HTTP_LLM_ID_BYTES];
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_get_module_main_conf(ctx->request,
                                         ngx_http_llm_stream_module);

    if (lmcf->ids == NULL) {
        return NGX_OK;
    }

    if (ngx_http_llm_make_id(ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    (void) ngx_http_llm_id_bytes(&ctx->id, raw);

    *id = ngx_http_llm_ids_add(lmcf->ids, raw, ctx->request->connection->log);

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_cancel_handler(ngx_http_request_t *r)
{
    ngx_int_t                  rc;
    ngx_http_llm_main_conf_t  *lmcf;

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    if (r->method != NGX_HTTP_DELETE) {
        return ngx_http_llm_cancel_allow(r);
    }

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_stream_module);

    if (ngx_http_llm_cancel_find(r, lmcf->ids) != NGX_OK) {
        return NGX_HTTP_NOT_FOUND;
    }

    /* its own worker ends it: all of them look */

    ngx_http_llm_bell_ring();

    r->headers_out.status = NGX_HTTP_ACCEPTED;
    r->headers_out.content_length_n = 0;
    r->header_only = 1;

    return ngx_http_send_header(r);
}


/* RFC 9110, 15.5.6: a 405 names what is allowed */

static ngx_int_t
ngx_http_llm_cancel_allow(ngx_http_request_t *r)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    h->hash = 1;
    ngx_http_llm_header_last(h);
    ngx_str_set(&h->key, "Allow");
    ngx_str_set(&h->value, "DELETE");

    return NGX_HTTP_NOT_ALLOWED;
}


/* the last segment of the path is the id */

static ngx_int_t
ngx_http_llm_cancel_find(ngx_http_request_t *r, ngx_shm_zone_t *ids)
{
    u_char     *p, *last;
    u_char      raw[NGX_HTTP_LLM_ID_BYTES];
    ngx_str_t   id;

    last = r->uri.data + r->uri.len;

    for (p = last; p > r->uri.data && p[-1] != '/'; p--) { /* void */ }

    id.data = p;
    id.len = last - p;

    if (ngx_http_llm_id_bytes(&id, raw) != NGX_OK) {
        return NGX_DECLINED;
    }

    return ngx_http_llm_ids_cancel(ids, raw);
}


char *
ngx_http_llm_cancel_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t   *llcf = conf;
    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_llm_main_conf_t  *lmcf;

    if (llcf->cancel) {
        return "is duplicate";
    }

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_stream_module);

    if (lmcf->ids == NULL) {
        lmcf->ids = ngx_http_llm_ids_zone(cf, &ngx_http_llm_stream_module);
        if (lmcf->ids == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_llm_cancel_handler;

    llcf->cancel = 1;

    return NGX_CONF_OK;
}
