# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# What else nginx does with a request: redirects, error pages, a cache.  It is
# read and charged once, and what another location answers is not touched.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;

our $Zone = "llm_limit_zone \$host zone=t:64k tokens=1k/d requests=9/d;\n";
our $Json = "Content-Type: application/json\n";

run_tests();

__DATA__

=== TEST 1: an error page of a location without llm_stream is sent as it is
--- config
llm_stream on;
location /dead/ {
    proxy_pass http://127.0.0.1:$TEST_NGINX_CLOSED_PORT;
    error_page 502 =200 /static.txt;
}
location = /static.txt {
    llm_stream off;
    add_header X-Id $llm_id always;
}
--- user_files
>>> static.txt
static
--- request eval
"POST /dead/v1/chat/completions\n$LlmBlock::Body"
--- more_headers eval: $::Json
--- response_body
static
--- error_log
Connection refused



=== TEST 2: an error page may lead to another upstream, whose end counts
--- config
location @other {
    llm_stream on;
    access_log logs/llm.log llm;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_2;
}
--- location
error_page 502 = @other;
--- sim eval
"fault=reset; at=header; tokens=3; only=" . main::sim_port(1)
--- response_body_like: \[DONE\]
--- error_log
reset by peer
--- log
end: done
status: 200
completion_tokens: 3
usage_source: upstream



=== TEST 3: unreadable JSON is refused by the location that limits, behind try_files too
--- http_config eval: $::Zone
--- config
location /tf/ {
    llm_stream on;
    try_files /nonexistent @limited;
}
location @limited {
    llm_stream on;
    llm_limit zone=t;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_1;
}
--- request
POST /tf/v1/chat/completions
{"model":"m",
--- more_headers eval: $::Json
--- error_code: 400
--- response_body_like: "error"



=== TEST 4: behind try_files a request is charged once
--- http_config eval: $::Zone
--- config
location /tf/ {
    llm_stream on;
    llm_limit zone=t;
    try_files /nonexistent @limited;
}
location @limited {
    llm_stream on;
    llm_limit zone=t;
    rewrite ^/tf(/.*) $1 break;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_1;
}
--- request eval
"POST /tf/v1/chat/completions\n$LlmBlock::Body"
--- more_headers eval: $::Json
--- response_headers
x-ratelimit-remaining-requests: 8
--- response_body_like: \[DONE\]



=== TEST 5: an error status gives back, whatever type its body has
--- http_config eval
$::Zone . 'server {
    listen 127.0.0.1:$TEST_NGINX_CLOSED_PORT;
    location / {
        default_type text/event-stream;
        return 500 "data: {\"error\":{\"message\":\"no\"}}\n\n";
    }
}'
--- config
location /v1/ {
    llm_stream on;
    llm_limit zone=t reserve=600;
    proxy_pass http://127.0.0.1:$TEST_NGINX_CLOSED_PORT;
}
--- request eval
["POST /v1/chat/completions\n$LlmBlock::Body",
 "POST /v1/chat/completions\n$LlmBlock::Body"]
--- more_headers eval: $::Json
--- error_code eval
[500, 500]
--- response_body_like eval
["no", "no"]



=== TEST 6: .. which ended with an error, also if its JSON does not say so
--- http_config eval
$::Zone . 'server {
    listen 127.0.0.1:$TEST_NGINX_CLOSED_PORT;
    location / {
        default_type application/json;
        return 422 "{\"detail\":\"no\"}";
    }
}'
--- upstream
server 127.0.0.1:$TEST_NGINX_CLOSED_PORT;
--- location
llm_limit zone=t reserve=600;
--- error_code: 422
--- response_body_like: detail
--- log
end: upstream_error
usage_source: none



=== TEST 7: an upstream that refuses in place of our refusal says when to come
--- http_config eval
$::Zone . 'server {
    listen 127.0.0.1:$TEST_NGINX_CLOSED_PORT;
    location / {
        add_header Retry-After 33 always;
        add_header x-ratelimit-limit-tokens 777 always;
        return 429;
    }
}'
--- config
location @other {
    llm_stream on;
    proxy_pass http://127.0.0.1:$TEST_NGINX_CLOSED_PORT;
}
--- location
llm_limit zone=t reserve=600;
error_page 429 = @other;
--- request eval
["POST /v1/chat/completions\n$LlmBlock::Body",
 "POST /v1/chat/completions\n$LlmBlock::Body"]
--- more_headers eval
"X-LLM-Sim: tokens=600\n" . $::Json
--- error_code eval
[200, 429]
--- raw_response_headers_unlike eval
["nothing", qr/Retry-After.*Retry-After|x-ratelimit-remaining/s]
--- response_headers eval
["x-ratelimit-limit-tokens: 1000",
 "x-ratelimit-limit-tokens: 777
Retry-After: 33"]



=== TEST 8: the operator's own page of 413 goes before ours
--- config
llm_stream on;
location /v1/ {
    client_max_body_size 100;
    error_page 413 /413.html;
}
location = /413.html { }
--- user_files
>>> 413.html
mine
--- request eval
"POST /v1/chat/completions\n" . ('x' x 200)
--- error_code: 413
--- response_body
mine
--- error_log
too large body



=== TEST 9: without one it is JSON
--- config
location /v1/ {
    client_max_body_size 100;
    llm_stream on;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_1;
}
--- request eval
"POST /v1/messages\n" . ('x' x 200)
--- error_code: 413
--- response_headers
Content-Type: application/json
--- response_body_like: ^\{"type":"error"
--- error_log
too large body



=== TEST 10: an answer from nginx's cache leaves no clock behind
--- http_config
proxy_cache_path cache keys_zone=c:1m;
--- config
location /v1/ {
    llm_stream on;
    llm_total_timeout 700ms;
    proxy_cache c;
    proxy_cache_methods POST;
    proxy_cache_valid 200 1m;
    proxy_cache_key $uri;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_1;
}
--- request eval
["POST /v1/embeddings\n{\"model\":\"m\",\"input\":\"hello\"}",
 "POST /v1/embeddings\n{\"model\":\"m\",\"input\":\"hello\"}",
 "GET /v1/models"]
--- more_headers eval: $::Json
--- response_body_like eval
["embedding", "embedding", "data"]
--- wait: 0.8
--- no_error_log
exited on signal
--- sim_stats
requests: 1



=== TEST 11: an error_page of something else does not change that
--- config
location /v1/ {
    client_max_body_size 100;
    error_page 500 504 /50x.html;
    llm_stream on;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_1;
}
--- request eval
"POST /v1/chat/completions\n" . ('x' x 200)
--- error_code: 413
--- response_headers
Content-Type: application/json
--- response_body_like: "error"
--- error_log
too large body



=== TEST 12: the operator's page of an unreadable request is not refused again
--- http_config eval: $::Zone
--- config
llm_stream on;
llm_limit zone=t;
error_page 400 /400.html;
recursive_error_pages on;
location /v1/ {
    proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_1;
}
location = /400.html { }
--- user_files
>>> 400.html
mine
--- request
POST /v1/chat/completions
{
--- error_code: 400
--- response_body
mine



=== TEST 13: a server behind grpc_pass speaks HTTP/2, and streams
--- http_config
server {
    listen 127.0.0.1:$TEST_NGINX_CLOSED_PORT http2;
    default_type text/event-stream;
    location / {
        return 200 'data: {"choices":[{"delta":{"content":"a"}}]}

data: [DONE]

';
    }
}
--- config
location /v1/ {
    llm_stream on;
    add_header X-Dialect $llm_dialect;
    grpc_pass grpc://127.0.0.1:$TEST_NGINX_CLOSED_PORT;
}
--- request eval
"POST /v1/chat/completions\n$LlmBlock::Body"
--- more_headers eval: $::Json
--- response_headers
X-Dialect: openai
--- response_body_like: \[DONE\]
--- no_error_log
exited on signal



=== TEST 14: a post_action takes no tokens
--- http_config
llm_limit_zone $host zone=t:1m tokens=1k/d;
--- location
post_action /behind;
--- config
location = /behind {
    llm_stream on;
    llm_limit zone=t reserve=700;
    access_log $TEST_NGINX_SERVROOT/logs/llm.log llm;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_1/v1/chat/completions;
}
--- log
end: done
limit_status: -
reserved_tokens: -



=== TEST 15: whoever is denied gets the operator's page of that, and takes nothing
--- http_config eval: $::Zone
--- config
llm_stream on;
llm_limit zone=t;
error_page 403 /403.html;
location /v1/ {
    deny all;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_1;
}
location = /403.html { }
--- user_files
>>> 403.html
mine
--- request eval
["POST /v1/chat/completions\n{",
 "POST /v1/chat/completions\n$LlmBlock::Body"]
--- error_code eval: [403, 403]
--- response_headers eval
["x-ratelimit-remaining-tokens:", "x-ratelimit-remaining-tokens:"]
--- response_body eval
["mine\n", "mine\n"]
--- error_log
access forbidden by rule
