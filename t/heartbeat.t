# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# llm_heartbeat: comment lines where a stream is silent, between two events,
# and nowhere else.
# long: silences take their time

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;
use LlmPair;
use Time::HiRes qw( sleep time );

my $Beat = ": waiting\n";

my $Pair;

sim_options('--itl', '5', '--itl-slope', '0', '--prefill', '1000000',
            '--batch', '256');

for my $http2 (0, 1) {
    between_events($http2);
    early_without_gate($http2);
}

slow_reader();
left();

run_tests();


sub start {
    $Pair = LlmPair->start(location => "llm_heartbeat @_;");
}


sub name {
    my ($name, $http2) = @_;

    return $name . ($http2 ? ', HTTP/2' : '');
}


# the id and the time are the request's own

sub bare {
    my ($client) = @_;

    return $client->content =~ s/"(?:id|created)":[^,]*,//gr;
}


sub between_events {
    my ($http2) = @_;
    my $name = name('between events', $http2);
    my ($beats, $client, $plain);

    start("300ms");

    # byte by byte, so that the silence may also be within an event

    $client = $Pair->open(sim => 'tokens=4; itl=700; split=1',
                          http2 => $http2)->finish;
    $plain = $Pair->open(sim => 'tokens=4; itl=0', http2 => $http2)->finish;

    ok($client->complete, "$name: complete");

    $beats = () = $client->content =~ /^$Beat/mg;
    cmp_ok($beats, '>=', 4, "$name: in each silence");
    cmp_ok($beats, '<=', 8, "$name: no more than it has room for");

    is(scalar(() = $client->content =~ /(?:\A|\n\n)(?:$Beat)+(?!\n)/g),
       scalar(() = $client->content =~ /(?<!waiting\n)$Beat/g),
       "$name: each at the end of an event, without a blank line");

    is(bare($client) =~ s/^$Beat//mgr, bare($plain),
       "$name: the rest is byte for byte what it was");
    unlike($plain->content, qr/$Beat/, "$name: none where it is not silent");

    $Pair->end($name);
}


sub early_without_gate {
    my ($http2) = @_;
    my $name = name('early', $http2);
    my $client;

    $Pair = LlmPair->start(
        location => 'llm_heartbeat 200ms early; llm_hold off;');

    $client = $Pair->open(sim => 'tokens=4; ttft=900', http2 => $http2);
    LlmClient::await(sub { $_[0]{raw} !~ /$Beat/ }, $client);

    unlike($client->content, qr/"content":"[^"]/,
           "$name: before the first token");
    ok($client->finish->complete, "$name: complete");

    $Pair->end($name);
}


# what waits for the client is no silence

sub slow_reader {
    my $client;

    start('100ms');

    $client = $Pair->open(sim => 'tokens=2000; itl=0; words=20000');
    $client->header('X-Id');
    sleep 1;

    ok($client->finish->complete, 'slow reader: complete');
    unlike($client->content, qr/$Beat/, 'slow reader: without a heartbeat');

    $Pair->end('slow reader');
}


# a client that left without a word is found out by it, if by nothing else

sub left {
    my $client;

    start('100ms');

    $client = $Pair->open_at(4, sim => 'tokens=9; fault=stall; at=3');
    LlmClient::await(sub { $_[0]{raw} !~ /$Beat.*$Beat/s }, $client);
    $client->close;

    $Pair->aborted('left', 1);
    is(($Pair->lines(1))[0]{end}, 'client_abort', 'left: end');

    $Pair->end('left');
}

__DATA__

=== TEST 1: not before the first token, and the header waits
--- location
llm_heartbeat 100ms;
llm_first_token_timeout 600ms;
--- sim: tokens=4; fault=stall; at=first
--- error_code: 504
--- response_body_unlike: waiting
--- error_log
upstream timed out
--- log
end: first_token_timeout



=== TEST 2: early opens the gate: comments, and the error is told in the stream
--- location
llm_heartbeat 200ms early;
llm_first_token_timeout 900ms;
--- sim: tokens=4; fault=stall; at=first
--- error_code: 200
--- response_headers
Content-Type: text/event-stream; charset=utf-8
--- response_body_like eval
qr/\A(?:data: .*\n\n)*(?:: waiting\n){2,3}event: error\ndata: \{"type":"error".*\n\n\z/
--- error_log
upstream timed out
--- log
end: first_token_timeout
usage_source: none



=== TEST 3: .. no other server is asked then
--- http_config
upstream two {
    server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
    server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
}
--- config
location = /v1/chat/completions {
    llm_stream on;
    llm_heartbeat 200ms early;
    llm_first_token_timeout 600ms;
    proxy_next_upstream timeout error;
    proxy_pass http://two;
}
--- location
--- sim: tokens=4; fault=stall; at=first
--- error_code: 200
--- response_body_like: event: error
--- error_log
upstream timed out
--- sim_stats
requests: 1



=== TEST 4: early, and content comes: complete, after its comments
--- location
llm_heartbeat 200ms early;
--- sim: tokens=4; ttft=900
--- response_body_like eval
qr/: waiting\n.*data: \[DONE\]\n\n\z/s
--- log
end: done
first_token_time: /[0-9.]*\.[89]\d*|1\.\d+/



=== TEST 5: early, and content comes in time: no comment
--- location
llm_heartbeat 2s early;
--- sim: tokens=4; ttft=300
--- response_body_unlike: waiting
--- log
end: done



=== TEST 6: no comment for the JSON of an error
--- location
llm_heartbeat 100ms early;
llm_total_timeout 500ms;
--- sim: tokens=4; fault=stall; at=header
--- error_code: 504
--- response_body_like: ^\{"error"
--- error_log
upstream timed out
--- log
end: total_timeout



=== TEST 7: a BOM behind a comment is left out: it would be a field's name
--- location
llm_heartbeat 200ms early;
llm_hold off;
--- path: /v1/completions
--- body: {"model":"sim","stream":true,"prompt":"hello"}
--- sim: tokens=2; ttft=700; bom=1
--- response_body_like eval
qr/\A(?:: waiting\n){1,4}data: [^\xef]*\[DONE\]\n\n\z/
--- log
end: done



=== TEST 8: .. and passes without one
--- location
llm_heartbeat 5s early;
--- sim: tokens=2; bom=1
--- response_body_like eval
qr/\A\xef\xbb\xbf/
--- log
end: done



=== TEST 9: lines that end with CR have no place for it
--- location
llm_heartbeat 100ms;
--- sim: tokens=3; itl=300; eol=cr
--- response_body_unlike: waiting
--- log
end: done



=== TEST 10: lines that end with CRLF do
--- location
llm_heartbeat 100ms;
--- sim: tokens=3; itl=300; eol=crlf
--- response_body_like eval
qr/\r\n\r\n(?:: waiting\n)+data: /
--- log
end: done



=== TEST 11: NDJSON has no comments
--- location
llm_heartbeat 100ms early;
--- path: /api/chat
--- sim: tokens=3; itl=300; ttft=500
--- response_body_unlike: waiting
--- log
end: done



=== TEST 12: Anthropic's events
--- location
llm_heartbeat 100ms;
--- path: /v1/messages
--- body: {"model":"sim","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=3; itl=300
--- response_body_like eval
qr/\n\n(?:: waiting\n)+event: content_block_delta\n/
--- log
end: done



=== TEST 13: a pause has its comments, too
--- location
llm_heartbeat 150ms;
llm_pace 4/s;
--- sim: tokens=3; itl=0
--- response_body_like eval
qr/\n\n(?:: waiting\n)+data: .*\[DONE\]\n\n\z/s
--- log
end: done



=== TEST 14: it does not hide a stalled model
--- location
llm_heartbeat 100ms;
llm_idle_timeout 500ms;
--- sim: tokens=9; fault=stall; at=3
--- response_body_like eval
qr/\n\n(?:: waiting\n){2,6}event: error\ndata: \{"type":"error".*\n\n\z/
--- error_log
upstream timed out
--- log
end: idle_timeout



=== TEST 15: upstream's own comments count as something sent
--- location
llm_heartbeat 700ms;
llm_idle_timeout 2s;
--- sim: tokens=9; fault=comments; at=3
--- response_body_unlike: waiting
--- error_log
upstream timed out
--- log
end: idle_timeout



=== TEST 16: off, where it is inherited
--- http_config
llm_heartbeat 100ms early;
--- location
llm_heartbeat off;
--- sim: tokens=3; itl=300
--- response_body_unlike: waiting
--- log
end: done



=== TEST 17: what is no time is refused
--- config
llm_heartbeat soon;
--- must_die
--- error_log
invalid value "soon" in "llm_heartbeat" directive: it must be a time or "off"



=== TEST 18: .. and what is not early
--- config
llm_heartbeat 1s late;
--- must_die
--- error_log
invalid value "late" in "llm_heartbeat" directive: it must be "early" or nothing
