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

our $Retry = 'proxy_next_upstream error http_503 non_idempotent;';

our $Fails = 'tokens=3; status=503; only=' . sim_port(1);

# what all blocks have, unless they say otherwise

add_block_preprocessor(sub {
    my ($block) = @_;
    my %all = (
        location => "client_body_buffer_size 64k; $Retry",
        upstream => 'server 127.0.0.1:$TEST_NGINX_SIM_PORT_1 max_fails=0;'
                    . 'server 127.0.0.1:$TEST_NGINX_SIM_PORT_2 backup;',
        sim => $Fails,
        log => "usage_source: upstream\nprompt_tokens: 10000\n"
               . "completion_tokens: 3\n",
        response_body_unlike => '"choices":\[\]'
    );

    for my $name (keys %all) {
        $block->set_value($name, $all{$name}) if !defined $block->$name;
    }
});

run_tests();


# four bytes of text are a token of the simulator's, and it knows no others

sub body {
    my ($tokens, $first) = @_;

    return '{' . ($first // '') . '"model":"sim","stream":true,"messages":'
           . '[{"role":"user","content":"' . ('abc ' x $tokens) . '"}]}';
}

__DATA__

=== TEST 1: behind the header
--- body eval: ::body(20)
--- log
usage_source: upstream
prompt_tokens: 20
completion_tokens: 3



=== TEST 2: in a buffer that it fills
--- body eval: ::body(10000)



=== TEST 3: at its beginning
--- body eval: ::body(10000, '"stream_options":{},')



=== TEST 4: in place of what a client wants
--- body eval: ::body(10000, '"stream_options":{"include_usage":false},')



=== TEST 5: in a file
--- location eval
"client_body_buffer_size 1k; $::Retry"
--- body eval: ::body(10000)
--- error_log
a client request body is buffered to a temporary file



=== TEST 6: in several buffers, of chunks
--- raw_request eval
"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
. "Connection: close\r\nX-LLM-Sim: $::Fails\r\n"
. "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
. CORE::join '', map { sprintf "%x\r\n%s\r\n", length, $_ }
                 ::body(10000) =~ /(.{1,997})/gs, ''



=== TEST 7: in a buffer that it fills bit by bit
--- raw_request eval
my $body = ::body(10000);
["POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
 . "Connection: close\r\nX-LLM-Sim: $::Fails\r\nContent-Length: "
 . CORE::length($body) . "\r\nContent-Type: application/json\r\n\r\n"
 . CORE::substr($body, 0, 99), CORE::substr($body, 99) =~ /(.{1,9000})/gs]
--- raw_request_middle_delay: 0.05



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
