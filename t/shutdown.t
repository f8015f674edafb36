# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# A worker that is to leave: live streams finish, and where
# worker_shutdown_timeout bounds that, they are told and end cleanly.
# long: the time that workers take to leave

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmPair;
use LlmStall;
use Time::HiRes qw( sleep time );

my $Error = qr/event: error\ndata: \{"type":"error".*shutting down.*\n\n\z/;
my $Zone = 'llm_limit_zone all zone=t:1m tokens=1k/h burst=1M;';

my $Pair;

sim_options('--itl', '20', '--itl-slope', '0', '--prefill', '1000000',
            '--batch', '256');

bounded();
bounded_quit();
bounded_asleep($_) for 0, 1;
bounded_late();
bounded_slow_readers();
finished_in_time();
unbounded();


sub start {
    $Pair = LlmPair->start(http => $Zone,
                           location => 'llm_limit zone=t reserve=5000;', @_);
}


sub gone {
    my ($pid) = @_;

    return sub { !grep { $_ eq $pid } $Pair->{nginx}->children };
}


sub ends_well {
    my ($name, @clients) = @_;

    is(scalar(grep { $_->status == 200 && $_->content =~ $Error } @clients),
       scalar @clients, "$name: an error event is each one's last");
    is(scalar(grep { $_->content =~ /\[DONE\]/ } @clients), 0,
       "$name: and no terminal marker");
    is(scalar(grep { $_->clean } @clients), scalar @clients,
       "$name: the bodies end cleanly");
}


sub bounded {
    my ($early, $start, @clients, @lines, @old);

    start(main => 'worker_shutdown_timeout 2s;');

    @clients = map { $Pair->open_at(3, sim => 'tokens=5000',
                                    http2 => $_ % 2) } 1 .. 12;
    $early = $Pair->open(sim => 'tokens=9; fault=stall; at=header');
    sim_await(inflight => 13);

    @old = $Pair->{nginx}->workers;
    $start = LlmStall::mark();
    $Pair->{nginx}->reload($Pair->{http});

    is(scalar(grep { $_->pump } @clients), 12,
       'bounded: they go on behind the reload');

    $_->finish for @clients, $early;
    cmp_ok(time - $start->{time}, '>', 1, 'bounded: for most of the time');
    cmp_ok(LlmStall::since($start), '<', 2.5, 'bounded: no longer');

    ends_well('bounded', @clients);

    is($early->status, 503, 'bounded: one without a header gets 503');
    like($early->body, qr/^\{"error".*shutting down/, 'bounded: as JSON');

    $Pair->aborted('bounded', 13);

    @lines = $Pair->lines(13);
    is(scalar(grep { $_->{end} eq 'shutdown' } @lines), 13, 'bounded: end');
    is(scalar(grep { $_->{status} == 200 && $_->{completion_tokens} > 0
                     && $_->{completion_tokens} < 1000 } @lines), 12,
       'bounded: charged by what was seen');

    for my $pid (@old) {
        ok($Pair->await(gone($pid)), 'bounded: the worker is gone');
    }

    $Pair->end('bounded');
}


# a whole nginx that is told to quit, as for an upgrade

sub bounded_quit {
    my @clients;

    start(main => 'worker_shutdown_timeout 1s;');

    @clients = map { $Pair->open_at(3, sim => 'tokens=5000',
                                    http2 => $_ % 2) } 1 .. 4;

    kill 'QUIT', $Pair->{nginx}{pid};
    $_->finish for @clients;

    ends_well('quit', @clients);
    $Pair->end('quit');
}


# who waits for a seat or for tokens is told, and keeps neither

sub bounded_asleep {
    my ($http2) = @_;
    my $name = 'asleep' . ($http2 ? ', HTTP/2' : '');
    my ($client, $seated, @clients, @old, %lines);

    $Pair = LlmPair->start_to_wait(main => 'worker_shutdown_timeout 2s;');
    ($seated, @clients) = $Pair->open_waiting(http2 => $http2);

    @old = $Pair->{nginx}->workers;
    $Pair->{nginx}->reload($Pair->{http});

    for my $client (@clients) {
        $client->finish;

        is($client->status, 503, "$name: 503");
        is($client->header('Retry-After'), 1, "$name: to try again");
        like($client->body, qr/^\{"error".*shutting down/, "$name: as JSON");
    }

    ends_well($name, $seated->finish);

    %lines = map { $_->{n} => $_ } $Pair->lines(3);

    for my $n ('limit', 'queue') {
        is($lines{$n}{end}, 'shutdown', "$name, $n: end");
        is($lines{$n}{total_tokens}, '-', "$name, $n: nothing is charged");
    }

    is(sim_stats()->{requests}, 1, "$name: nobody else was sent on");

    $client = $Pair->open(http2 => $http2, headers => { 'X-Key' => 'k' });
    ok($client->finish->complete, "$name: the next one waits for nothing");

    for my $pid (@old) {
        ok($Pair->await(gone($pid)), "$name: the worker is gone");
    }

    $Pair->end($name);
}


# a worker that was not run for as long as it had: what is there to be told is
# told in the moment before nginx closes its connections

sub bounded_late {
    my (@clients, @old);

    start(main => 'worker_shutdown_timeout 1s;');

    @clients = map { $Pair->open_at(3, sim => 'tokens=5000',
                                    http2 => $_ % 2) } 1 .. 4;

    @old = $Pair->{nginx}->workers;
    kill 'QUIT', @old;
    $Pair->await(sub {
        $Pair->{nginx}->logged(qr/gracefully shutting down/) == @old;
    });

    kill 'STOP', @old;
    sleep 1.2;
    kill 'CONT', @old;

    $_->finish for @clients;
    ends_well('late', @clients);

    for my $pid (@old) {
        ok($Pair->await(gone($pid)), 'late: the worker is gone');
    }

    $Pair->end('late');
}


# who reads on gets it all; who does not is cut off by nginx as ever

sub bounded_slow_readers {
    my ($start, @clients, @old);

    start(main => 'worker_shutdown_timeout 2s;');

    @clients = map { $Pair->open(sim => 'tokens=5000; itl=0; words=20000') }
                   1, 2;
    LlmClient::await_header(@clients);
    sleep 0.3;

    @old = $Pair->{nginx}->workers;
    kill 'QUIT', @old;

    sim_await(inflight => 0);
    $Pair->aborted('slow readers', 2);

    $clients[0]->finish;
    ends_well('slow reader that reads', $clients[0]);

    for my $pid (@old) {
        ok($Pair->await(gone($pid)), 'slow readers: the worker is gone');
    }

    $clients[1]->finish;
    ok(!$clients[1]->clean, 'slow reader that does not: cut off');

    $Pair->end('slow readers');
}


# nobody waits for a bound that is not needed

sub finished_in_time {
    my ($client, $start, @old);

    start(main => 'worker_shutdown_timeout 30s;');

    $client = $Pair->open_at(1, sim => 'tokens=50');
    @old = $Pair->{nginx}->workers;
    $start = LlmStall::mark();

    kill 'QUIT', $Pair->{nginx}{pid};
    ok($client->finish->complete, 'in time: complete');

    for my $pid (@old) {
        ok($Pair->await(gone($pid)), 'in time: the worker is gone');
    }

    cmp_ok(LlmStall::since($start), '<', 4, 'in time: as soon as it could');
    $Pair->end('in time');
}


sub unbounded {
    my (@clients, @old);

    start();

    @clients = map { $Pair->open_at(3, sim => 'tokens=150',
                                    http2 => $_ % 2) } 1 .. 6;
    @old = $Pair->{nginx}->workers;
    $Pair->{nginx}->reload($Pair->{http});

    $_->finish for @clients;
    is(scalar(grep { $_->complete } @clients), 6,
       'unbounded: all finish behind the reload');
    is(scalar(grep { $_->{end} eq 'done' } $Pair->lines(6)), 6,
       'unbounded: end');

    for my $pid (@old) {
        ok($Pair->await(gone($pid)), 'unbounded: the worker is gone');
    }

    $Pair->end('unbounded');
}
