# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# llm_cancel: DELETE of an id ends the stream that has it, in whichever worker
# it runs, over HTTP/1.1 and HTTP/2.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;
use LlmPair;
use LlmStall;
use HTTP::Tiny;
use Time::HiRes qw( sleep time );

my $Cancel = 'location /cancel/ { llm_cancel; access_log off; }';
my $Zone = 'llm_limit_zone all zone=t:1m tokens=1k/h burst=1M;';
my $Error = qr/event: error\ndata: \{"type":"error".*cancelled.*\n\n\z/;

my $Pair;

sim_options('--itl', '20', '--itl-slope', '0', '--prefill', '1000000',
            '--batch', '256');

for my $http2 (0, 1) {
    mid_stream($http2);
    slow_reader($http2);
    asleep($http2);
}

every_worker();
before_header();
not_streamed();
unknown();
killed();
reloaded();

run_tests();


sub start {
    $Pair = LlmPair->start(server => $Cancel, http => $Zone,
                           location => 'llm_limit zone=t reserve=5000;', @_);
}


# always over a connection of its own, so both workers get some

sub cancel {
    my ($id, $method) = @_;

    return HTTP::Tiny->new(keep_alive => 0)
               ->request($method // 'DELETE',
                         "http://127.0.0.1:$Pair->{port}/cancel/$id");
}


sub mid_stream {
    my ($http2) = @_;
    my $name = 'mid-stream' . ($http2 ? ', HTTP/2' : '');
    my ($client, $id, $line, $res, $stats);

    start();

    $client = $Pair->open_at(10, sim => 'tokens=2000', http2 => $http2);
    $id = $client->header('X-Id');
    like($id, qr/^[0-9a-f]{32}$/, "$name: 128 bits of id");

    $res = cancel($id);
    is($res->{status}, 202, "$name: 202");
    is($res->{content}, '', "$name: and no body");

    $stats = $Pair->aborted($name, 1);
    $client->finish;

    like($client->content, $Error, "$name: an error event is the last");
    unlike($client->content, qr/\[DONE\]/, "$name: and no terminal marker");
    ok($client->clean, "$name: the body ends cleanly");

    ($line) = $Pair->lines(1);
    is($line->{end}, 'cancelled', "$name: end");
    is($line->{usage_source}, 'estimate', "$name: charged by what was seen");
    cmp_ok($line->{prompt_tokens}, '>', 0, "$name: .. the prompt");
    cmp_ok($line->{completion_tokens}, '>=', 8, "$name: .. the completion");
    cmp_ok($line->{completion_tokens}, '<', 500, "$name: .. not the reserve");

    is(cancel($id)->{status}, 404, "$name: it is not alive any more");

    $client = $Pair->open(sim => 'tokens=2', http2 => $http2)->finish;
    cmp_ok($client->header('x-ratelimit-remaining-tokens'), '>', 994000,
           "$name: the rest of the reserve was given back");

    $Pair->end($name);
}


# what waits for a client that does not read does not keep upstream open

sub slow_reader {
    my ($http2) = @_;
    my $name = 'slow reader' . ($http2 ? ', HTTP/2' : '');
    my $client;

    start();

    $client = $Pair->open(sim => 'tokens=5000; itl=0; words=20000',
                          http2 => $http2);
    $client->header('X-Id');
    sleep 0.5;

    is(cancel($client->header('X-Id'))->{status}, 202, "$name: 202");
    $Pair->aborted($name, 1);
    $client->finish;

    like($client->content, $Error, "$name: an error event is the last");
    ok($client->clean, "$name: the body ends cleanly");

    $Pair->end($name);
}


sub every_worker {
    my (@clients, @status, %pids);

    start();

    @clients = map { $Pair->open(sim => 'tokens=2000') } 1 .. 40;
    $pids{$_->header('X-Pid')} = 1 for @clients;

    is(scalar(keys %pids), 2, 'every worker: both have streams');

    # those that stay are not touched

    @status = map { cancel($_->header('X-Id'))->{status} } @clients[0 .. 34];

    is(scalar(grep { $_ == 202 } @status), 35, 'every worker: 202 each');

    $_->finish for @clients[0 .. 34];

    is(scalar(grep { $_->content =~ $Error && $_->clean } @clients), 35,
       'every worker: each ends with its error event');
    is(scalar(grep { $_->pump } @clients[35 .. 39]), 5,
       'every worker: the others go on');

    is(sim_await(inflight => 5)->{inflight}, 5,
       'every worker: upstream has five left');

    is(scalar(grep { $_->{end} eq 'cancelled' } $Pair->lines(35)), 35,
       'every worker: end');

    $_->close for @clients;
    $Pair->end('every worker');
}


# an operator knows ids by other ways than the response's header

sub before_header {
    my ($client, $id, $line);

    start(http => "$Zone log_format id '\$llm_id';",
          server => "$Cancel location = /mirror {"
                    . ' internal; access_log logs/id.log id;'
                    . ' log_subrequest on; return 204; }',
          location => 'llm_limit zone=t; mirror /mirror;');

    $client = $Pair->open(sim => 'tokens=9; fault=stall; at=header');

    $Pair->await(sub {
        open my $log, '<', "$Pair->{dir}/logs/id.log" or return;
        ($id) = (<$log> // '') =~ /^([0-9a-f]{32})$/;
        return defined $id;
    });
    sim_await(inflight => 1);

    is(cancel($id)->{status}, 202, 'before the header: 202');
    $Pair->aborted('before the header', 1);
    $client->finish;

    is($client->status, 410, 'before the header: 410 for the client');
    like($client->body, qr/^\{"error".*cancelled/, '.. as JSON');

    ($line) = $Pair->lines(1);
    is($line->{end}, 'cancelled', 'before the header: end');
    cmp_ok($line->{prompt_tokens}, '>', 0, 'before the header: charged');

    $Pair->end('before the header');
}


# who waits for a seat or for tokens was asked nothing yet, and pays nothing

sub asleep {
    my ($http2) = @_;
    my $name = 'asleep' . ($http2 ? ', HTTP/2' : '');
    my ($client, $seated, @clients, %ids, %lines);

    $Pair = LlmPair->start_to_wait(server => $Cancel);
    ($seated, @clients) = $Pair->open_waiting(http2 => $http2);

    # with the first one's request the second one stands in the queue, too

    for my $n ('queue', 'limit') {
        $client = shift @clients;
        $Pair->await(sub { %ids = $Pair->ids; $ids{$n} });

        is(cancel($ids{$n})->{status}, 202, "$name, $n: 202");
        $client->finish;

        is($client->status, 410, "$name, $n: 410 for the client");
        like($client->body, qr/^\{"error".*cancelled/, "$name, $n: as JSON");
        is(cancel($ids{$n})->{status}, 404, "$name, $n: it is gone");
    }

    %lines = map { $_->{n} => $_ } $Pair->lines(2);

    for my $n ('limit', 'queue') {
        is($lines{$n}{end}, 'cancelled', "$name, $n: end");
        is($lines{$n}{total_tokens}, '-', "$name, $n: nothing is charged");
    }

    ok($seated->pump, "$name: who has the seat goes on");
    is(sim_stats()->{requests}, 1, "$name: nobody else was sent on");

    # the request is there again, and then the seat

    $client = $Pair->open(http2 => $http2, headers => { 'X-Key' => 'k' });
    ok($Pair->await(sub { $Pair->waiting == 4 }), "$name: a third one waits");
    $seated->close;

    is($client->finish->status, 200, "$name: it gets what they had taken");
    is($client->complete, 1, "$name: all of its answer");

    $Pair->end($name);
}


# the answer is on its way: nothing can be put into it

sub not_streamed {
    my ($client, $line);

    start(location => 'proxy_buffers 4 4k;');

    $client = $Pair->open(sim => 'tokens=3000; itl=0; words=20000',
                          body => '{"model":"sim","messages":'
                                  . '[{"role":"user","content":"hello"}]}');
    $client->header('X-Id');

    is(cancel($client->header('X-Id'))->{status}, 202, 'not streamed: 202');
    $client->finish;

    unlike($client->body, qr/\}\s*\z/, 'not streamed: it breaks off');
    is(($Pair->lines(1))[0]{end}, 'cancelled', 'not streamed: end');

    $Pair->end('not streamed');
}


sub unknown {
    my ($client, $id);

    start();

    $client = $Pair->open_at(1, sim => 'tokens=5000');
    $id = $client->header('X-Id');

    is(cancel('0' x 32)->{status}, 404, 'unknown: 404');
    is(cancel('')->{status}, 404, 'unknown: none');
    is(cancel("${id}0")->{status}, 404, 'unknown: too long');
    is(cancel(substr $id, 1)->{status}, 404, 'unknown: too short');
    is(cancel('g' x 32)->{status}, 404, 'unknown: not hex');
    is(cancel("$id/")->{status}, 404, 'unknown: not the last');

    for my $method ('GET', 'POST', 'PUT') {
        my $res = cancel($id, $method);

        is($res->{status}, 405, "unknown: $method is not allowed");
        is($res->{headers}{allow}, 'DELETE', "unknown: but DELETE is");
    }

    ok($client->pump, 'unknown: the stream goes on');
    $client->close;

    $Pair->end('unknown');
}


# the id of a stream whose worker was killed is not alive

sub killed {
    my ($start, @clients, @left, $pid);

    start();

    @clients = map { $Pair->open_at(1, sim => 'tokens=2000') } 1 .. 8;
    $pid = $clients[0]->header('X-Pid');

    $Pair->{nginx}->replace('KILL', $pid);

    $start = LlmStall::mark();

    $Pair->await(sub {
        cancel($clients[0]->header('X-Id'))->{status} == 404;
    });
    cmp_ok(LlmStall::since($start), '<', 3,
           'killed: 404 within three seconds');

    @left = grep { $_->header('X-Pid') ne $pid } @clients;

    for my $client (@left) {
        is(cancel($client->header('X-Id'))->{status}, 202,
           "killed: the other worker's");
        like($client->finish->content, $Error, 'killed: ends');
    }

    $_->close for @clients;
    $Pair->end('killed', qr/worker process \d+ exited on signal 9/);
}


# who drains behind a reload hears of it, too

sub reloaded {
    my $client;

    start();

    $client = $Pair->open_at(1, sim => 'tokens=2000');
    $Pair->{nginx}->reload($Pair->{http});

    is(cancel($client->header('X-Id'))->{status}, 202, 'reloaded: 202');
    like($client->finish->content, $Error, 'reloaded: it ends');

    $Pair->end('reloaded');
}

__DATA__

=== TEST 1: a second llm_cancel is refused
--- config
    location /cancel/ {
        llm_cancel;
        llm_cancel;
    }
--- must_die
--- error_log
"llm_cancel" directive is duplicate



=== TEST 2: .. and where it cannot be
--- http_config
llm_cancel;
--- config
--- must_die
--- error_log
"llm_cancel" directive is not allowed here
