# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# llm_on_abort drain: a stream whose client has left is read to its end, and
# costs what upstream says.  t/abort.t has those that are closed.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;
use LlmPair;
use LlmStall;
use Time::HiRes qw( sleep );

my $Zone = 'llm_limit_zone all zone=t:1m tokens=1k/h burst=1M;';
my $Upstream = 'upstream llm { llm_least_inflight; server 127.0.0.1:'
               . sim_port(1) . '; }';

my $Pair;

sim_options('--itl', '10', '--itl-slope', '0', '--prefill', '1000000',
            '--batch', '512');

for my $http2 (0, 1) {
    drained($http2);
    reset_of_a_client($http2);
    slow_reader($http2);
    bounded_in_time($http2);
}

in_a_pause();
before_content();
stalled();
bounded_in_number();
by_default();
leaving_worker();

run_tests();


sub start {
    my (%options) = @_;

    $options{http} = "$Zone $Upstream";
    $options{location} = 'llm_on_abort drain; llm_limit zone=t reserve=5000; '
                         . ($options{location} // '');

    $Pair = LlmPair->start(%options);
}


sub name {
    my ($name, $http2) = @_;

    return $name . ($http2 ? ', HTTP/2' : '');
}


# it was completed upstream, and costs what that said

sub exact {
    my ($name, $tokens) = @_;
    my ($line) = $Pair->lines(1);
    my $stats = sim_stats();

    is($stats->{aborted}, 0, "$name: upstream was not closed");
    is($stats->{completed}, 1, "$name: but read to its end");
    is($line->{end}, 'client_abort', "$name: end");
    is($line->{usage_source}, 'upstream', "$name: charged by upstream's count");
    is($line->{completion_tokens}, $tokens, "$name: exactly");
    is($line->{finish_reason}, 'stop', "$name: it had finished");
}


sub drained {
    my ($http2) = @_;
    my $name = name('drained', $http2);
    my ($client, $inflight, $next);

    start();

    $client = $Pair->open_at(10, sim => 'tokens=150', http2 => $http2);
    $client->close;
    $Pair->await(sub { $Pair->{nginx}->logged(qr/client left, llm answer/) });

    is(sim_stats()->{inflight}, 1, "$name: it goes on without its client");

    exact($name, 150);

    $next = $Pair->open(sim => 'tokens=2', http2 => $http2)->finish;

    cmp_ok($next->header('x-ratelimit-remaining-tokens'), '>',
           1e6 - 5150 - 200, "$name: the rest of the reserve came back");

    $Pair->end($name);
}


sub reset_of_a_client {
    my ($http2) = @_;
    my $name = name('reset', $http2);
    my $client;

    start();

    $client = $Pair->open_at(5, sim => 'tokens=150', http2 => $http2);

    setsockopt $client->{sock}, Socket::SOL_SOCKET(), Socket::SO_LINGER(),
               pack('ii', 1, 0) if !$http2;
    $client->close;

    exact($name, 150);
    $Pair->end($name);
}


# buffers that wait for the client are not waited for any more

sub slow_reader {
    my ($http2) = @_;
    my $name = name('slow reader', $http2);
    my $client;

    start();

    $client = $Pair->open(sim => 'tokens=1000; itl=0; words=20000',
                          http2 => $http2);
    $client->header('X-Id');
    sleep 0.5;
    $client->close;

    exact($name, 1000);
    $Pair->end($name);
}


sub bounded_in_time {
    my ($http2) = @_;
    my $name = name('in time', $http2);
    my ($line, $start);

    start(location => 'llm_total_timeout 1s;');

    $start = LlmStall::mark();
    $Pair->open_at(2, sim => 'tokens=4000', http2 => $http2)->close;

    ($line) = $Pair->lines(1);
    cmp_ok(LlmStall::since($start), '<', 1.5, "$name: the total clock ends it");
    is($line->{end}, 'client_abort', "$name: end");
    is($line->{usage_source}, 'estimate', "$name: charged by what was seen");

    $Pair->aborted($name, 1);
    $Pair->end($name);
}


sub in_a_pause {
    start(location => 'llm_pace 5/s;');

    $Pair->open_at(1, sim => 'tokens=60; itl=1')->close;

    exact('in a pause', 60);
    $Pair->end('in a pause');
}


# nothing was produced: closing costs the prompt

sub before_content {
    my ($client, $line);

    start();

    $client = $Pair->open(sim => 'tokens=100; ttft=30000');
    sim_await(inflight => 1);
    $client->close;

    $Pair->aborted('before content', 1);
    ($line) = $Pair->lines(1);
    is($line->{end}, 'client_abort', 'before content: end');
    cmp_ok($line->{prompt_tokens}, '>', 0, 'before content: the prompt');

    $Pair->end('before content');
}


sub stalled {
    my $client;

    start(location => 'llm_idle_timeout 1s;');

    $client = $Pair->open_at(4, sim => 'tokens=9; fault=stall; at=3');
    $client->close;

    sim_await(inflight => 0);
    is(($Pair->lines(1))[0]{end}, 'client_abort', 'stalled: end');
    is(sim_stats()->{inflight}, 0, 'stalled: the idle clock ends it');

    $Pair->end('stalled');
}


# 64 in each worker: of 160 the rest is closed at once.  They all have left
# when the first one's answer ends, which takes 6 s.

sub bounded_in_number {
    my (@clients, $drained, @lines, $stats);

    start(location => 'llm_total_timeout 30s;');

    @clients = map { $Pair->open(sim => 'tokens=7; itl=1000') } 1 .. 160;
    LlmClient::await(sub { $_[0]{raw} !~ /"content":"[^"]/ }, @clients);
    $_->close for @clients;

    @lines = $Pair->lines(160);
    $stats = sim_stats();

    is(scalar(grep { $_->{end} eq 'client_abort' } @lines), 160,
       'in number: all have left');
    cmp_ok($stats->{completed}, '<=', 128, 'in number: not more are drained');
    cmp_ok($stats->{completed}, '>=', 64, 'in number: but as many');
    is($stats->{completed} + $stats->{aborted}, 160,
       'in number: the rest is closed');

    # the places are free again

    $drained = sim_stats()->{completed};
    $Pair->open_at(3, sim => 'tokens=20')->close;
    is(sim_await(completed => $drained + 1)->{completed}, $drained + 1,
       'in number: then there is room again');

    $Pair->end('in number');
}


sub by_default {
    $Pair = LlmPair->start;

    $Pair->open_at(3, sim => 'tokens=5000')->close;
    $Pair->aborted('by default', 1);

    $Pair->end('by default');
}


# a reload is no reason to go on without clients

sub leaving_worker {
    my (@clients, @old);

    start();

    @clients = map { $Pair->open_at(3, sim => 'tokens=5000') } 1 .. 4;
    @old = $Pair->{nginx}->workers;
    $Pair->{nginx}->reload($Pair->{http});

    $_->close for @clients;
    $Pair->aborted('leaving worker', 4);

    for my $pid (@old) {
        ok($Pair->await(sub {
            !grep { $_ eq $pid } $Pair->{nginx}->children;
        }), 'leaving worker: it is gone');
    }

    $Pair->end('leaving worker');
}

__DATA__

=== TEST 1: what is neither close nor drain is refused
--- config
llm_on_abort wait;
--- must_die
--- error_log
invalid value "wait"
