# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# Usage is asked for in a body wherever nginx has put it: behind the header,
# in a buffer with and without room, in several, in a file.  Each is sent
# twice, as the first server fails: a retry starts at the body's start.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;

our $Servers = <<'END';
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1 max_fails=0;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2 backup;
END

our $Retry = 'proxy_next_upstream error http_503 non_idempotent;';

our $Fails = 'tokens=3; status=503; only=' . sim_port(1);

# four bytes of text are a token of the simulator's, and it knows no others

sub body {
    my ($tokens, $first) = @_;

    return '{' . ($first // '') . '"model":"sim","stream":true,"messages":'
           . '[{"role":"user","content":"' . ('abc ' x $tokens) . '"}]}';
}

run_tests();

__DATA__

=== TEST 1: behind the header
--- upstream eval: $::Servers
--- location eval: $::Retry
--- sim eval: $::Fails
--- body eval: ::body(20)
--- response_body_unlike: "choices":\[\]
--- log
usage_source: upstream
prompt_tokens: 20
completion_tokens: 3



=== TEST 2: in a buffer that it fills
--- upstream eval: $::Servers
--- location eval
"client_body_buffer_size 64k; $::Retry"
--- sim eval: $::Fails
--- body eval: ::body(10000)
--- response_body_unlike: "choices":\[\]
--- log
usage_source: upstream
prompt_tokens: 10000
completion_tokens: 3



=== TEST 3: at its beginning
--- upstream eval: $::Servers
--- location eval
"client_body_buffer_size 64k; $::Retry"
--- sim eval: $::Fails
--- body eval: ::body(10000, '"stream_options":{},')
--- response_body_unlike: "choices":\[\]
--- log
usage_source: upstream
prompt_tokens: 10000
completion_tokens: 3



=== TEST 4: in place of what a client wants
--- upstream eval: $::Servers
--- location eval
"client_body_buffer_size 64k; $::Retry"
--- sim eval: $::Fails
--- body eval: ::body(10000, '"stream_options":{"include_usage":false},')
--- response_body_unlike: "choices":\[\]
--- log
usage_source: upstream
prompt_tokens: 10000
completion_tokens: 3



=== TEST 5: in a file
--- upstream eval: $::Servers
--- location eval
"client_body_buffer_size 1k; $::Retry"
--- sim eval: $::Fails
--- body eval: ::body(10000)
--- response_body_unlike: "choices":\[\]
--- log
usage_source: upstream
prompt_tokens: 10000
completion_tokens: 3
--- error_log
a client request body is buffered to a temporary file



=== TEST 6: in several buffers, of chunks
--- upstream eval: $::Servers
--- location eval
"client_body_buffer_size 64k; $::Retry"
--- raw_request eval
"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
. "Connection: close\r\nX-LLM-Sim: $::Fails\r\n"
. "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
. CORE::join '', map { sprintf "%x\r\n%s\r\n", length, $_ }
                 ::body(10000) =~ /(.{1,997})/gs, ''
--- response_body_unlike: "choices":\[\]
--- log
usage_source: upstream
prompt_tokens: 10000
completion_tokens: 3



=== TEST 7: in a buffer that it fills bit by bit
--- upstream eval: $::Servers
--- location eval
"client_body_buffer_size 64k; $::Retry"
--- raw_request eval
my $body = ::body(10000);
["POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
 . "Connection: close\r\nX-LLM-Sim: $::Fails\r\nContent-Length: "
 . CORE::length($body) . "\r\nContent-Type: application/json\r\n\r\n"
 . CORE::substr($body, 0, 99), CORE::substr($body, 99) =~ /(.{1,9000})/gs]
--- raw_request_middle_delay: 0.05
--- response_body_unlike: "choices":\[\]
--- log
usage_source: upstream
prompt_tokens: 10000
completion_tokens: 3



=== TEST 8: for a variable and a subrequest, too
--- location
client_body_buffer_size 64k;
mirror /copy;
proxy_set_header X-Length $content_length;
--- config
location = /copy {
    internal;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_2/v1/chat/completions;
}
--- sim: tokens=3
--- body eval: ::body(10000)
--- response_body_unlike: "choices":\[\]
--- log
usage_source: upstream
prompt_tokens: 10000
completion_tokens: 3
