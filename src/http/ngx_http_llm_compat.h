
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * What differs between the versions of nginx that are supported, 1.22.1 and
 * later: nothing else in this project asks for a version.
 */


#ifndef _NGX_HTTP_LLM_COMPAT_H_INCLUDED_
#define _NGX_HTTP_LLM_COMPAT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


#if (nginx_version < 1022001)
#error "nginx 1.22.1 or later is required"
#endif


/* 1.23.0 linked the headers of one name */

#if (nginx_version >= 1023000)
#define ngx_http_llm_header_last(h)  (h)->next = NULL
#else
#define ngx_http_llm_header_last(h)
#endif


/* an answer from the cache, which nginx may be built without */

#if (NGX_HTTP_CACHE)
#define ngx_http_llm_is_cached(r)  (r)->cached
#else
#define ngx_http_llm_is_cached(r)  0
#endif


/* what versions before "resolve" and "sticky" do not have */

#ifndef NGX_HTTP_UPSTREAM_MODIFY
#define NGX_HTTP_UPSTREAM_MODIFY  0
#endif

#if (NGX_HTTP_UPSTREAM_ZONE && defined ngx_http_upstream_rr_peer_ref)
#define ngx_http_llm_peers_generation(peers)                                  \
    ((peers)->config ? *(peers)->config : 0)
#else
#define ngx_http_llm_peers_generation(peers)  0
#endif

#ifndef ngx_http_upstream_rr_peer_ref
#define ngx_http_upstream_rr_peer_ref(peers, peer)
#endif

#if (NGX_HTTP_UPSTREAM_STICKY)
#define NGX_HTTP_LLM_DRAINING     NGX_HTTP_UPSTREAM_DRAINING
#else
#define NGX_HTTP_LLM_DRAINING     0
#endif


/*
 * Who leaves a stream of HTTP/3 stops to take it: nginx marks its write event
 * and calls the request's write handler, not the one for reading.  Before
 * 1.25.0 there are no such connections.
 */

#if (nginx_version >= 1025000 && (NGX_QUIC || NGX_COMPAT))
#define ngx_http_llm_is_quic(c)     ((c)->quic != NULL)
#else
#define ngx_http_llm_is_quic(c)     0
#endif

#define ngx_http_llm_is_stopped(c)                                            \
    (ngx_http_llm_is_quic(c) && (c)->write->error)


/* 1.27.2 can keep trailers */

#if (nginx_version >= 1027002)
#define ngx_http_llm_parse_chunked(r, b, ctx)                                 \
    ngx_http_parse_chunked(r, b, ctx, 0)
#else
#define ngx_http_llm_parse_chunked  ngx_http_parse_chunked
#endif


#endif /* _NGX_HTTP_LLM_COMPAT_H_INCLUDED_ */
