# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# The commit gate: what goes wrong before the first content is an HTTP error,
# or another server's business.
# long: a block for each way to fail before it

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;
use LlmClient;
use LlmPair;

use Time::HiRes qw( sleep );

our $Zone = "llm_limit_zone \$host zone=t:64k tokens=1k/d requests=9/d;\n";

our $Servers = join '', map { "server 127.0.0.1:\$TEST_NGINX_SIM_PORT_$_ "
                              . "max_fails=0;\n" } 1 .. 3;

our $Next = "proxy_next_upstream error timeout http_429 http_500 http_502 "
            . "http_503 http_504;\n";

# the first server gets it wrong, the second too or not

our ($One, $Two) = map { "on=" . sim_port($_) . '; ' } 1, 2;

# a life-cycle event, longer than nginx's usual buffer

our $Long = '{"object":"chat.completion.chunk","choices":[],"pad":"'
            . 'x' x 5000 . '"}';

# for an upstream that is none but for one block

our $Raw = free_port(1);

# an upstream with an answer of its own

sub static_server {
    my ($type, $body) = @_;

    return "server {\n listen 127.0.0.1:\$TEST_NGINX_CLOSED_PORT;\n"
           . " location / {\n default_type $type;\n return 200 '$body';\n"
           . " }\n}\n";
}

run_tests();

__DATA__

=== TEST 1: an error that comes first is an HTTP error, with upstream's JSON
--- location
--- sim: fault=error
--- error_code: 500
--- response_headers
Content-Type: application/json
--- response_body_like eval
qr/\A\{"error":\{"message":"The server had an error.*"type":"server_error".*\}\}\z/
--- log
end: upstream_error
usage_source: none
total_tokens: -
status: 500



=== TEST 2: a provider's rate limit: its headers reach the client, not ours
--- http_config eval: $::Zone
--- location
llm_limit zone=t;
--- sim: fault=error; status=429; retry_after=7
--- error_code: 429
--- response_headers
Retry-After: 7
retry-after-ms: 7000
x-ratelimit-remaining-tokens: 0
x-ratelimit-limit-requests: 100
--- response_body_like: "code":"rate_limit_exceeded"
--- log
end: upstream_error
limit_status: PASSED



=== TEST 3: .. also where it is an HTTP status in the first place
--- http_config eval: $::Zone
--- location
llm_limit zone=t;
--- sim: status=429; retry_after=7
--- error_code: 429
--- response_headers
Retry-After: 7
x-ratelimit-remaining-tokens: 0
x-ratelimit-limit-requests: 100
--- log
end: upstream_error



=== TEST 4: what failed before any content costs nothing, and counts once
--- http_config eval: $::Zone
--- upstream eval: $::Servers
--- location eval
"llm_limit zone=t reserve=600;\n" . $::Next
--- request eval
[("POST /v1/chat/completions\n$LlmBlock::Body") x 3]
--- more_headers eval
"Content-Type: application/json\nX-LLM-Sim: "
. "tokens=9; fault=error; usage={\"prompt_tokens\":5,\"completion_tokens\":9}"
--- error_code eval
[500, 500, 500]



=== TEST 5: anthropic: its own status, which nginx has no name for
--- location
--- path: /v1/messages
--- body: {"model":"m","stream":true,"max_tokens":5,"messages":[{"role":"user","content":"x"}]}
--- sim: fault=error
--- error_code: 529
--- response_headers
Content-Type: application/json
--- response_body_like: ^\{"type":"error","error":\{"type":"overloaded_error"
--- log
end: upstream_error



=== TEST 6: responses: the body of an HTTP error, not the event
--- location
--- path: /v1/responses
--- body: {"model":"m","stream":true,"input":"x"}
--- sim: fault=error; status=429; retry_after=1
--- error_code: 429
--- response_headers
Retry-After: 1
--- response_body_like eval
qr/\A\{"error":\{"message":"The model failed.*,"code":"rate_limit_exceeded"\}\}\z/
--- log
end: upstream_error



=== TEST 7: gemini
--- location
--- path: /v1beta/models/m:streamGenerateContent?alt=sse
--- body: {"contents":[{"role":"user","parts":[{"text":"x"}]}]}
--- sim: fault=error
--- error_code: 503
--- response_body_like: ^\{"error":\{"code":503,
--- log
end: upstream_error



=== TEST 8: ollama: a line
--- location
--- path: /api/chat
--- body: {"model":"m","messages":[{"role":"user","content":"x"}]}
--- sim: fault=error; at=header
--- error_code: 502
--- response_body_like: ^\{"error":"an error was encountered
--- log
end: upstream_error



=== TEST 9: ernie
--- location
--- path: /rpc/2.0/ai_custom/v1/wenxinworkshop/chat/ernie
--- body: {"stream":true,"messages":[{"role":"user","content":"x"}]}
--- sim: fault=error; status=429
--- error_code: 429
--- response_body_like: ^\{"error_code":18,
--- log
end: upstream_error



=== TEST 10: in any framing
--- location
--- sim: fault=error; split=1; eol=cr; bom=1
--- error_code: 500
--- response_body_like: ^\{"error"
--- log
end: upstream_error



=== TEST 11: .. without chunks
--- location
--- sim: fault=error-stay; http=1.0; split=7
--- error_code: 500
--- response_body_like: ^\{"error"
--- sim_stats
aborted: 1
inflight: 0



=== TEST 12: the client's connection is used again
--- location
--- pipelined_requests eval
["POST /v1/chat/completions\n$LlmBlock::Body", "GET /v1/models"]
--- more_headers
X-LLM-Sim: fault=error-stay
Content-Type: application/json
--- error_code eval
[500, 200]
--- response_body_like eval
["server_error", "data"]



=== TEST 13: an error first: the next server answers, and nobody knows
--- upstream eval: $::Servers
--- location eval: $::Next
--- sim eval: "tokens=4; ${main::One}fault=error-stay; ${main::Two}words=9"
--- error_code: 200
--- response_body_like: \[DONE\]
--- response_body_unlike: error
--- log
end: done
completion_tokens: 4
usage_source: upstream
status: 200
--- sim_stats
requests: 2
aborted: 1
completed: 1
inflight: 0



=== TEST 14: silence first: the same, by the clock, which each attempt has anew
--- upstream eval: $::Servers
--- location
llm_first_token_timeout 600ms;
--- sim eval
"tokens=4; ${main::One}fault=stall; ${main::Two}fault=comments"
--- response_body_like: \[DONE\]
--- response_body_unlike: ping
--- error_log
upstream timed out
--- log
end: done
first_token_time: /1\.[2-7]\d\d/
--- sim_stats
requests: 3
aborted: 2
completed: 1
inflight: 0



=== TEST 15: .. and an end, in whatever way
--- upstream eval: $::Servers
--- location
--- sim eval: "tokens=4; ${main::One}fault=close; ${main::Two}fault=end"
--- response_body_like: \[DONE\]
--- error_log
upstream prematurely closed connection
upstream ended its stream before any content
--- log
end: done



=== TEST 16: .. and broken chunks, and half an event
--- upstream eval: $::Servers
--- location
--- sim eval
"tokens=4; ${main::One}fault=badchunk; ${main::Two}fault=midevent; split=9"
--- response_body_like: \[DONE\]
--- error_log
upstream ended its stream before any content
--- log
end: done



=== TEST 17: .. of an HTTP/1.0 server, too
--- upstream eval: $::Servers
--- location eval: $::Next
--- sim eval
"tokens=4; http=1.0; ${main::One}fault=error; ${main::Two}fault=end"
--- response_body_like: \[DONE\]
--- error_log
upstream prematurely closed connection
--- log
end: done



=== TEST 18: when no server is left, the client gets the last one's error
--- upstream eval: $::Servers
--- location eval: $::Next
--- sim eval
"fault=error; status=429; retry_after=9; on=" . main::sim_port(1)
. "; status=500; on=" . main::sim_port(2) . "; status=500"
--- error_code: 429
--- response_headers
Retry-After: 9
--- log
end: upstream_error
status: 429
--- sim_stats
requests: 3



=== TEST 19: .. also where nginx knew of no other server before it looked
--- http_config eval: $::Zone
--- upstream
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1 max_fails=0;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2 down;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_3 max_conns=1;
--- location eval: "llm_limit zone=t reserve=1;\n" . $::Next
--- request
GET /v1/models
--- live eval
sub {
    my ($name) = @_;
    my ($client, @held);

    # takes the place of the only other server, then asks the first one

    for (1 .. 2) {
        push @held, LlmClient->open($ENV{TEST_NGINX_SERVER_PORT},
                                    sim => 'tokens=4000; itl=50');
        last if $held[-1]->header('X-LLM-Sim-Port') == main::sim_port(3);
    }

    $client = LlmClient->open($ENV{TEST_NGINX_SERVER_PORT},
                              sim => 'fault=error; status=429; retry_after=9');
    main::is($client->status, 429, "$name - status");
    main::is($client->header('Retry-After'), 9, "$name - Retry-After");
    main::is($client->header('x-ratelimit-limit-tokens'), 10000,
             "$name - upstream's limit");
    main::like($client->finish->body, qr/"code":"rate_limit_exceeded"/,
               "$name - upstream's JSON");

    $_->close for @held;
}
--- error_log
no live upstreams



=== TEST 20: only what proxy_next_upstream lists is asked elsewhere
--- upstream eval: $::Servers
--- location
--- sim: fault=error; status=429
--- error_code: 429
--- sim_stats
requests: 1



=== TEST 21: overloaded_error is like a 503 to nginx
--- upstream eval: $::Servers
--- location
proxy_next_upstream http_503;
--- path: /v1/messages
--- body: {"model":"m","stream":true,"max_tokens":5,"messages":[{"role":"user","content":"x"}]}
--- sim eval: "tokens=3; ${main::One}fault=error; ${main::Two}status=529"
--- error_code: 200
--- response_body_like: message_stop
--- sim_stats
requests: 3



=== TEST 22: a POST that was sent is asked again elsewhere: nothing was said yet
--- upstream eval: $::Servers
--- location eval: $::Next
--- sim eval: "tokens=4; ${main::One}status=503; ${main::Two}fault=reset"
--- error_code: 200
--- response_body_like: \[DONE\]
--- error_log
reset by peer
--- sim_stats
requests: 3



=== TEST 23: llm_hold off: nginx's rule for a POST, and an error event in a 200
--- upstream eval: $::Servers
--- location eval: "llm_hold off;\n" . $::Next
--- sim: fault=error
--- error_code: 200
--- response_body_like eval
qr/"role".*\n\ndata: \{"error":\{[^\n]*\n\n\z/
--- log
end: upstream_error
--- sim_stats
requests: 1



=== TEST 24: .. and an HTTP error is not asked again
--- upstream eval: $::Servers
--- location eval: "llm_hold off;\n" . $::Next
--- sim: status=503
--- error_code: 503
--- sim_stats
requests: 1



=== TEST 25: what is no question to a model is not asked again either
--- upstream eval: $::Servers
--- location
proxy_next_upstream http_404;
add_header X-Tried $upstream_status always;
--- request
POST /v1/files
{"model":"m"}
--- more_headers
Content-Type: application/json
--- error_code: 404
--- response_headers
X-Tried: 404



=== TEST 26: a content filter that says nothing is an answer
--- location
--- sim: fault=filter
--- response_body_like eval
qr/"finish_reason":"content_filter".*\[DONE\]/s
--- log
end: content_filter



=== TEST 27: more than nginx's buffer is held, up to llm_hold
--- location
--- sim eval: "extra=$::Long; fault=error"
--- error_code: 500
--- response_body_like: ^\{"error"
--- log
end: upstream_error



=== TEST 28: .. in pieces
--- location
--- sim eval: "extra=$::Long; fault=error; split=100"
--- error_code: 500
--- response_body_like: ^\{"error"



=== TEST 29: what is held passes byte for byte
--- location
--- sim eval: "extra=$::Long; tokens=3; split=1000"
--- response_body_like eval
qr/\Adata: \{[^\n]*"role"[^\n]*\n\ndata: \{[^\n]*x{5000}"\}\n\n(data: [^\n]*\n\n){4}data: \[DONE\]\n\n\z/



=== TEST 30: over llm_hold the stream begins, and the clock goes on
--- location
llm_hold 2k;
llm_first_token_timeout 500ms;
--- sim eval: "extra=$::Long; fault=stall"
--- error_code: 200
--- response_body_like eval
qr/"pad":"x*"\}\n\nevent: error\ndata: \{"type":"error".*\n\n\z/
--- error_log
upstream timed out
--- log
end: first_token_timeout
usage_source: none



=== TEST 31: a JSON answer of the next server does not stall in a grown buffer
--- upstream
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1 max_fails=0;
server 127.0.0.1:$TEST_NGINX_CLOSED_PORT backup;
--- http_config
server {
    listen 127.0.0.1:$TEST_NGINX_CLOSED_PORT;
    location / {
        default_type application/json;
        error_page 404 =200 /json.txt;
    }
    location = /json.txt {
        types { }
        default_type application/json;
    }
}
--- user_files eval
">>> json.txt\n" . '{"choices":[{"message":{"content":"' . 'y' x 200000
. '"}}]}'
--- location eval: "llm_hold 32k;\n" . $::Next
--- sim eval: "extra=$::Long; fault=error"
--- error_code: 200
--- response_body_like: (y{50000}){4}



=== TEST 32: a stream with a length: all there
--- http_config eval
main::static_server('text/event-stream',
    'data: {"choices":[{"delta":{"content":"a"}}]}'
    . "\n\ndata: [DONE]\n\n")
--- config
location /v1/ {
    llm_stream on;
    proxy_pass http://127.0.0.1:$TEST_NGINX_CLOSED_PORT;
}
--- request eval
"POST /v1/chat/completions\n$LlmBlock::Body"
--- more_headers
Content-Type: application/json
--- response_body_like: \[DONE\]



=== TEST 33: .. and nothing in it
--- http_config eval
main::static_server('text/event-stream',
    'data: {"choices":[{"delta":{"role":"assistant"}}]}' . "\n\n")
--- config
location /v1/ {
    llm_stream on;
    proxy_pass http://127.0.0.1:$TEST_NGINX_CLOSED_PORT;
}
--- request eval
"POST /v1/chat/completions\n$LlmBlock::Body"
--- more_headers
Content-Type: application/json
--- error_code: 502
--- response_headers
Content-Type: application/json
--- error_log
upstream ended its stream before any content



=== TEST 34: .. and an error without a blank line behind it
--- http_config eval
main::static_server('text/event-stream', 'data: {"error":{"code":404}}')
--- config
location /v1/ {
    llm_stream on;
    proxy_pass http://127.0.0.1:$TEST_NGINX_CLOSED_PORT;
}
--- request eval
"POST /v1/chat/completions\n$LlmBlock::Body"
--- more_headers
Content-Type: application/json
--- error_code: 404
--- response_body chomp
{"error":{"code":404}}



=== TEST 35: a stream was asked for: a JSON error in a 200 is the same
--- http_config eval
main::static_server('application/json',
                    '{"error_code":18,"error_msg":"Open api qps limit"}')
--- config
location /rpc/ {
    llm_stream on;
    proxy_pass http://127.0.0.1:$TEST_NGINX_CLOSED_PORT;
}
--- request
POST /rpc/2.0/ai_custom/v1/wenxinworkshop/chat/ernie
{"stream":true,"messages":[{"role":"user","content":"x"}]}
--- more_headers
Content-Type: application/json
--- error_code: 429
--- response_body chomp
{"error_code":18,"error_msg":"Open api qps limit"}



=== TEST 36: .. and passes to the next server
--- upstream
server 127.0.0.1:$TEST_NGINX_CLOSED_PORT max_fails=0;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1 backup;
--- http_config eval
main::static_server('application/json', '{"error":{"code":503}}')
--- location eval: $::Next
--- response_body_like: \[DONE\]
--- log
end: done



=== TEST 37: a short JSON answer is an answer
--- http_config eval
main::static_server('application/json',
                    '{"choices":[{"message":{"content":"a"}}]}')
--- config
location /v1/ {
    llm_stream on;
    proxy_pass http://127.0.0.1:$TEST_NGINX_CLOSED_PORT;
}
--- request eval
"POST /v1/chat/completions\n$LlmBlock::Body"
--- more_headers
Content-Type: application/json
--- response_body chomp
{"choices":[{"message":{"content":"a"}}]}



=== TEST 38: where no stream was asked for it passes, and costs nothing
--- http_config eval
$::Zone . main::static_server('application/json',
                              '{"error_code":18,"error_msg":"qps limit"}')
--- config
location /rpc/ {
    llm_stream on;
    llm_limit zone=t reserve=600;
    proxy_pass http://127.0.0.1:$TEST_NGINX_CLOSED_PORT;
}
--- request eval
[('POST /rpc/2.0/ai_custom/v1/wenxinworkshop/chat/ernie
{"messages":[{"role":"user","content":"' . 'a b ' x 300 . '"}]}') x 3]
--- more_headers
Content-Type: application/json
--- error_code eval
[200, 200, 200]
--- response_body_like eval
["qps", "qps", "qps"]



=== TEST 39: a HEAD of a stream
--- http_config eval
main::static_server('text/event-stream', "data: {}\n\n")
--- config
location /v1/ {
    llm_stream on;
    proxy_pass http://127.0.0.1:$TEST_NGINX_CLOSED_PORT;
}
--- request
HEAD /v1/chat/completions
--- response_headers
Content-Type: text/event-stream



=== TEST 40: an API that nobody knows: any data is content
--- http_config eval
main::static_server('text/event-stream', "data: {\"error\":0}\n\n")
--- config
location /else {
    llm_stream on;
    proxy_pass http://127.0.0.1:$TEST_NGINX_CLOSED_PORT;
}
--- request
GET /else
--- response_body eval
"data: {\"error\":0}\n\n"



=== TEST 41: a body that cannot be read is not held
--- location
llm_first_token_timeout 1s;
--- sim: gzip=lie; tokens=3; itl=10
--- response_headers
Content-Encoding: gzip
--- response_body_like: \[DONE\]
--- log
end: done



=== TEST 42: the operator's page of an error goes before it
--- location
proxy_intercept_errors on;
error_page 500 = @other;
--- config
location @other {
    return 200 "other";
}
--- sim: fault=error
--- response_body: other



=== TEST 43: a client that leaves while nothing was said
--- location
--- request
GET /v1/models
--- live eval
sub {
    my ($name) = @_;
    my $client;

    main::sim_reset();

    $client = LlmClient->open($ENV{TEST_NGINX_SERVER_PORT},
                              sim => 'fault=stall');
    main::sim_await(inflight => 1);
    main::sleep(0.3);
    main::is($client->pump, 1, "$name - it waits");
    main::is($client->{raw}, '', "$name - and has nothing, no header even");
    $client->close;
    LlmPair->aborted($name, 1);
}



=== TEST 44: no size at all
--- config
llm_hold 0;
--- must_die
--- error_log
invalid value "0" in "llm_hold": a size, or "off"



=== TEST 45: not a size
--- config
llm_hold on;
--- must_die
--- error_log
invalid value "on" in "llm_hold": a size, or "off"



=== TEST 46: an early hint goes before the header
--- skip_nginx: 3: < 1.29.0
--- config eval
"location /v1/ {
    llm_stream on;
    early_hints 1;
    proxy_http_version 1.1;
    proxy_pass http://127.0.0.1:$::Raw;
}"
--- tcp_listen eval: $::Raw
--- tcp_reply eval
"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
. "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
. "Connection: close\r\n\r\ndata: {\"error\":{\"code\":503}}\n\n"
--- request eval
"POST /v1/chat/completions\n$LlmBlock::Body"
--- more_headers
Content-Type: application/json
--- error_code: 103
--- response_body_like eval
qr/\AHTTP\/1\.1 503 .*\r\n\r\n\{"error":\{"code":503\}\}\z/s
