# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# Clients that leave: upstream is closed at once, and what was produced is
# charged, never nothing, never the whole reserve.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;
use LlmClient;
use LlmPair;

our $Port = $ENV{TEST_NGINX_SERVER_PORT};

workers(1);

LlmStall::start();

run_tests();


# a client of a stream that does not end by itself, behind so many events

sub client {
    my ($events, %options) = @_;
    my $client = LlmClient->open($Port, sim => 'tokens=2000; itl=20',
                                 %options);

    LlmClient::await(sub { (() = $_[0]{raw} =~ /^data: /mg) < $events },
                     $client) if $events;

    return $client;
}

__DATA__

=== TEST 1: a client leaves in mid-stream, and pays for what was produced
--- http_config
llm_limit_zone $host zone=t:1m tokens=1M/m;
--- location
llm_limit zone=t reserve=5000;
--- request
GET /up
--- error_code: 404
--- live eval
sub {
    my ($name) = @_;

    main::client(10)->close;
    LlmPair->aborted($name, 1);
}
--- log
end: client_abort
usage_source: estimate
reserved_tokens: /50\d\d/
completion_tokens: /\d{1,3}/
prompt_tokens: /[1-9]\d*/



=== TEST 2: .. before the first token: the prompt is charged
--- location
--- request
GET /up
--- error_code: 404
--- live eval
sub {
    my ($name) = @_;
    my $client = main::client(0, sim => 'tokens=2000; ttft=30000');

    main::sim_await(inflight => 1);
    $client->close;
    LlmPair->aborted($name, 1);
}
--- log
end: client_abort
usage_source: estimate
prompt_tokens: /[1-9]\d*/
completion_tokens: -



=== TEST 3: .. of an answer that is not streamed
--- location
--- request
GET /up
--- error_code: 404
--- live eval
sub {
    my ($name) = @_;
    my $client = main::client(0, body => '{"model":"sim","messages":'
                              . '[{"role":"user","content":"hello"}]}');

    main::sim_await(inflight => 1);
    $client->close;
    LlmPair->aborted($name, 1);
}
--- log
end: client_abort
status: 499
usage_source: estimate
prompt_tokens: /[1-9]\d*/



=== TEST 4: .. by a reset
--- location
--- request
GET /up
--- error_code: 404
--- live eval
sub {
    my ($name) = @_;
    my $client = main::client(5);

    setsockopt $client->{sock}, Socket::SOL_SOCKET(), Socket::SO_LINGER(),
               pack('ii', 1, 0);
    $client->close;
    LlmPair->aborted($name, 1);
}
--- log
end: client_abort
completion_tokens: /[1-9]\d*/



=== TEST 5: .. twenty at once, each counted
--- location
--- request
GET /up
--- error_code: 404
--- live eval
sub {
    my ($name) = @_;
    my @clients = map { main::client(1) } 1 .. 20;

    $_->close for @clients;
    LlmPair->aborted($name, 20);
}
--- log
end: client_abort



=== TEST 6: a client that reads nothing does not make upstream stall the clock
--- location
llm_idle_timeout 800ms;
--- request
GET /up
--- error_code: 404
--- live eval
sub {
    my ($name) = @_;
    my $client = LlmClient->open($main::Port,
                             sim => 'tokens=3000; itl=0; words=20000');

    Time::HiRes::sleep(2);
    $client->finish;
    main::ok($client->complete, "$name - complete, though it paused");
}
--- log
end: done
completion_tokens: 3000



=== TEST 7: a client that leaves in the middle of one JSON answer pays for what came
--- location
proxy_buffers 4 4k;
--- request
GET /up
--- error_code: 404
--- live eval
sub {
    my ($name) = @_;
    my $client = LlmClient->open($main::Port,
                     sim => 'tokens=300; itl=0; words=20000',
                     body => '{"model":"sim","messages":'
                             . '[{"role":"user","content":"hello"}]}');

    LlmClient::await(sub { length $_[0]{raw} < 100_000 }, $client);
    $client->close;
}
--- log
end: client_abort
status: 200
usage_source: estimate
completion_tokens: /\d{4,}/



=== TEST 8: a client that leaves before its request was read is logged as such
--- http_config
llm_limit_zone $host zone=t:1m tokens=1M/m;
--- location
llm_limit zone=t;
--- request
GET /up
--- error_code: 404
--- live eval
sub {
    my ($name) = @_;
    my $client = LlmClient->open($main::Port,
                                 headers => { 'Content-Length' => 1000 });

    Time::HiRes::sleep(0.1);
    $client->close;
    LlmPair->aborted($name, 0);
}
--- log
end: client_abort
usage_source: none
status: 400



=== TEST 9: what was seen is estimated by what this model's answers taught
--- location
--- request
GET /up
--- error_code: 404
--- live eval
sub {
    my $twice = 'tokens=60; usage={"prompt_tokens":9,"completion_tokens":240}';

    LlmClient->open($main::Port, sim => $twice)->finish for 1 .. 3;
    LlmClient->open($main::Port,
                    sim => 'tokens=90; fault=close; at=60')->finish;
}
--- log
end: upstream_truncated
usage_source: estimate
completion_tokens: /2[2-5]\d/
