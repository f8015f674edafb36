# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# llm_queue while workers are killed, configurations are reloaded and servers
# fail: nobody who waits is forgotten, and no seat is lost.

use strict;
use warnings;

use lib 't/lib';

use File::Path qw( remove_tree );
use List::Util qw( max );

use LlmTest;
use LlmQueue;
use LlmStall;
use Time::HiRes qw( sleep time );

my $Hold = $LlmQueue::Hold;
my $Killed = qr/worker process \d+ exited on signal 9/;

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000',
            '--batch', '256', '--quiet');
sim_start();

LlmStall::start();

killed_in_flight();
killed_waiting();
killed_under_load();
terminated();
reloaded();
reloaded_under_load();
next_server();
back_from_failure();
all_down();
backup_and_zone();
directive();

remove_tree($LlmQueue::Dir) if Test::More->builder->is_passing;


# requests of a dead worker are in flight no more: others take their seats

sub killed_in_flight {
    my ($dead, $start, @clients, @held, @lines);

    start();
    @held = hold(4);
    push @clients, map { ask($_) } 1 .. 12;
    await_waiting(12);

    kill 'KILL', $LlmQueue::Nginx->workers;
    $start = LlmStall::mark();
    LlmClient::await_end(@held, @clients);

    push @clients, map { ask($_) } 13 .. 20;
    LlmClient::await_end(@clients);

    is(scalar(grep { $_->complete } @clients[12 .. 19]), 8,
       'all killed: new ones are served');
    cmp_ok(LlmStall::since($start), '<', 3, 'all killed: within 3 s');

    free('all killed', 4);
    end('all killed', $Killed);
}


# of two workers one: who waits in the other one goes on, those of the dead
# one neither hold a seat nor a place in the queue

sub killed_waiting {
    my ($start, @clients, @held, @left);

    start(queue => '20 timeout=20s');
    @held = hold(4);
    push @clients, map { ask($_) } 1 .. 20;
    await_waiting(20);

    kill 'KILL', ($LlmQueue::Nginx->workers)[0];
    $start = LlmStall::mark();

    # the seats of those that were in flight there are free, if there were
    # any; then all others, who still hold theirs, leave

    await(sub { grep { !$_->pump } @clients, @held });
    sleep 0.5;
    $_->close for @held;
    LlmClient::await_end(@clients);

    @left = grep { $_->complete } @clients;

    cmp_ok(scalar @left, '>', 0, 'killed: some wait in the other worker');
    cmp_ok(scalar @left, '<', 20, 'killed: some have died');
    is(scalar(grep { $_->{raw} eq '' } @clients), 20 - @left,
       'killed: all others are served');
    cmp_ok(LlmStall::since($start), '<', 4, 'killed: and soon');

    free('killed', 4);
    end('killed', $Killed);
}


sub killed_under_load {
    my (@clients, @served);

    start(queue => '100 timeout=10s');

    for my $round (1 .. 5) {
        push @clients, map { ask($_, sim => 'tokens=10; itl=4') } 1 .. 16;
        sleep 0.1;
        $LlmQueue::Nginx->replace('KILL', ($LlmQueue::Nginx->workers)[0]);
    }

    LlmClient::await_end(@clients);
    @served = grep { $_->complete } @clients;

    cmp_ok(scalar @served, '>', 20, 'killed under load: others are served');
    is(scalar(grep { $_->{raw} =~ m{^HTTP/1.1 50} } @clients), 0,
       'killed under load: nobody is told that there is no server');

    for my $server (1, 2) {
        cmp_ok(sim_stats(sim_port($server))->{max_inflight}, '<=', 4,
               "killed under load: server $server has its two, and what a "
               . 'dead worker left');
    }

    free('killed under load', 4);
    end('killed under load', $Killed);
}


sub terminated {
    my ($pid, @clients, @held);

    start();
    @held = hold(4);
    push @clients, map { ask($_) } 1 .. 16;
    await_waiting(16);

    $pid = ($LlmQueue::Nginx->workers)[0];
    kill 'TERM', $pid;
    await(sub { !grep { $_ eq $pid } $LlmQueue::Nginx->children });

    $_->close for @held;
    LlmClient::await_end(@clients);

    cmp_ok(scalar(grep { $_->complete } @clients), '>', 0,
           'terminated: who waits in the other worker is served');

    free('terminated', 4);
    end('terminated');
}


# those who wait are served by the old workers; a server that comes with the
# new configuration is theirs, too

sub reloaded {
    my ($start, @clients, @held);

    start(servers => [1], seats => 1);
    @held = hold(1);

    for my $n (1 .. 6) {
        push @clients, ask($n);
        await_waiting($n);
    }

    $LlmQueue::Nginx->reload(configure(servers => [ 1 ], seats => 1));

    push @clients, ask(7);
    await_waiting(7);

    $held[0]->close;
    LlmClient::await_end(@clients);

    is(scalar(grep { $_->complete } @clients), 7, 'reloaded: all are served');
    is(in_order(logged(8)), '1 2 3 4 5 6 7',
       'reloaded: the new one behind the others');

    await(sub { $LlmQueue::Nginx->children == 2 });
    is(scalar $LlmQueue::Nginx->children, 2, 'reloaded: old workers leave');

    # more seats: nobody leaves, but somebody looks

    @held = hold(1);
    @clients = map { ask($_) } 11 .. 12;
    await_waiting(9);

    $LlmQueue::Nginx->reload(configure(servers => [ 1, 2 ], seats => 2));
    push @clients, ask(13);
    $start = LlmStall::mark();
    LlmClient::await_end($clients[2]);

    cmp_ok(LlmStall::since($start), '<', 2, 'reloaded: new seats are seen');
    is($clients[2]->status, 200, 'reloaded: and used');

    # the old workers do not know them: theirs go on waiting for the old one

    $held[0]->close;
    LlmClient::await_end(@clients);
    is(scalar(grep { $_->complete } @clients), 3,
       'reloaded: all others are served, too');

    free('reloaded', 4);
    end('reloaded');
}


sub reloaded_under_load {
    my @clients;

    start(queue => '200 timeout=10s');

    for my $round (1 .. 4) {
        push @clients, map { ask($_, sim => 'tokens=10; itl=4') } 1 .. 16;
        $LlmQueue::Nginx->reload(configure(
            servers => $round % 2 ? [ 2, 1 ] : [ 1, 2 ],
            queue => '200 timeout=10s'));
    }

    LlmClient::await_end(@clients);

    is(scalar(grep { $_->complete } @clients), 64,
       'reloaded under load: all are served');

    for my $server (1, 2) {
        is(sim_stats(sim_port($server))->{max_inflight}, 2,
           "reloaded under load: server $server has two at a time");
    }

    free('reloaded under load', 4);
    end('reloaded under load');
}


# a request that is refused goes on to the next server with its seat, ahead
# of those who wait

sub next_server {
    my (@clients, @held);

    start(servers => "server 127.0.0.1:$ENV{TEST_NGINX_CLOSED_PORT} "
                     . 'max_conns=1 max_fails=0; server 127.0.0.1:'
                     . sim_port(1) . ' max_conns=2;');

    @held = hold(1);
    push @clients, map { ask($_, sim => 'tokens=10; itl=2') } 1 .. 30;
    LlmClient::await_end(@clients);

    # until it is known to fail, there was no seat for who had it

    cmp_ok(scalar(grep { $_->complete } @clients), '>=', 27,
           'next server: all but the first ones are served');
    cmp_ok(scalar($LlmQueue::Nginx->logged(qr/connect\(\) failed/)), '>', 0,
           'next server: some by their second one');
    is(sim_stats()->{max_inflight}, 2, 'next server: two at a time');

    $held[0]->close;
    end('next server');
}


# taken out for a second, without anybody leaving meanwhile

sub back_from_failure {
    my ($failed, $start, @clients, @held);

    start(workers => 1,
          servers => 'server 127.0.0.1:' . sim_port(1)
                     . ' max_conns=1 max_fails=1 fail_timeout=1s;'
                     . 'server 127.0.0.1:' . sim_port(2) . ' max_conns=1;',
          location => 'proxy_next_upstream off;');

    @held = hold(2);
    $_->close for @held;

    # one of both has failed, whichever it was given to: it is out for a second

    @held = ();

    while (!@held) {
        $failed = time;
        my $client = ask(0, sim => 'fault=close; at=header; only='
                                   . sim_port(1));
        push @held, 1 if $client->status == 502;
        $client->close;
    }

    @held = hold(1);
    $start = LlmStall::mark();
    push @clients, ask(1);
    LlmClient::await_end(@clients);

    is($clients[0]->status, 200, 'back from failure: it is tried again');
    cmp_ok(time - $failed, '>', 0.5, 'back from failure: after its time');
    cmp_ok(LlmStall::since($start), '<', 5,
           'back from failure: not much later');

    $held[0]->close;
    end('back from failure');
}


# nobody is busy: no wait

sub all_down {
    my ($client, $mark);

    start(servers => 'server 127.0.0.1:' . sim_port(1) . ' max_conns=1 down;'
                     . 'server 127.0.0.1:' . sim_port(2)
                     . ' max_conns=1 down;');

    $mark = LlmStall::mark();
    $client = ask(1)->finish;

    is($client->status, 502, 'all down: 502, as without a queue');
    cmp_ok(LlmStall::since($mark), '<', 1, 'all down: at once');

    end('all down');
}


sub backup_and_zone {
    my (@clients, @held);

    start(servers => 'zone llm 256k; server 127.0.0.1:' . sim_port(1)
                     . ' max_conns=1; server 127.0.0.1:' . sim_port(2)
                     . ' max_conns=2; server 127.0.0.1:' . sim_port(2)
                     . ' max_conns=2; server 127.0.0.1:' . sim_port(3)
                     . ' max_conns=1 backup; keepalive 4;');

    # before the backup is busy, too, nobody waits; two lines for one server
    # are one server

    @held = hold(4, sim => 'tokens=50; itl=50');
    is(waiting(), 0, 'backup: takes what the others have no seat for');

    push @clients, map { ask($_) } 1 .. 20;
    await_waiting(20);
    LlmClient::await_end(@held, @clients);

    is(scalar(grep { $_->complete } @clients), 20, 'backup: all are served');
    is(join(' ', map { sim_stats(sim_port($_))->{max_inflight} } 1 .. 3),
       '1 2 1', 'backup: never more than max_conns');

    end('backup');
}


# nothing is in flight, and nobody waits

sub free {
    my ($name, $seats) = @_;
    my ($before, $free, @held, @last);

    # a killed worker is noticed within two seconds

    for (1 .. 15) {
        $before = waiting();
        @held = map { ask('f', sim => $Hold) } 1 .. $seats;

        await(sub {
            $free = grep { $_->pump && $_->{raw} =~ m{^HTTP/1.1 200} } @held;
            return $free == $seats || waiting() > $before;
        });

        last if $free == $seats;

        $_->close for @held;
        sleep 0.3;
    }

    is($free, $seats, "$name: all seats are free");

    $before = waiting();
    push @last, ask('f', sim => $Hold);
    await_waiting($before + 1);
    is(waiting(), $before + 1, "$name: and no more than these");

    $_->close for @held, @last;
}


sub directive {
    my $servers = 'server 127.0.0.1:1 max_conns=1;';

    for my $test (
        [ "$servers llm_least_inflight; llm_queue 0;",
          qr/invalid number of requests "0" in "llm_queue", allowed is 1 to / ],
        [ "$servers llm_least_inflight; llm_queue many;",
          qr/invalid number of requests "many" in "llm_queue"/ ],
        [ "$servers llm_least_inflight; llm_queue 1 timeout=0;",
          qr/invalid parameter "timeout=0" of "llm_queue", allowed are / ],
        [ "$servers llm_least_inflight; llm_queue 1 timeout=x;",
          qr/invalid parameter "timeout=x" of "llm_queue"/ ],
        [ "$servers llm_least_inflight; llm_queue 1 key=;",
          qr/invalid parameter "key=" of "llm_queue"/ ],
        [ "$servers llm_least_inflight; llm_queue 1 keys=a;",
          qr/invalid parameter "keys=a" of "llm_queue"/ ],
        [ "$servers llm_least_inflight; llm_queue 1; llm_queue 1;",
          qr/"llm_queue" directive is duplicate/ ],
        [ "$servers llm_queue 1;",
          qr/"llm_queue" needs "llm_least_inflight" in upstream "llm" in / ],
        [ 'server 127.0.0.1:1; llm_least_inflight; llm_queue 1;',
          qr/\[warn\].*nobody ever waits in the "llm_queue" of upstream "llm"/,
          'ok' ],
        [ "$servers llm_queue 16384 key=a\$uri timeout=1ms;"
          . ' llm_least_inflight;', qr/test is successful/, 'ok' ])
    {
        my ($upstream, $wanted, $ok) = @$test;
        my $said = check_conf($upstream);

        like($said, $wanted, "directive: $upstream");
        is($? == 0 ? 'ok' : '', $ok // '', 'directive: stops nginx, or not');
    }
}


sub check_conf {
    my ($upstream) = @_;
    my $dir = $LlmQueue::Dir;
    my $nginx = nginx();

    open my $conf, '>', "$dir/test.conf" or die "$dir/test.conf: $!\n";

    print $conf <<"END";
load_module @{[ module() ]};
pid logs/test.pid;
events { }
http { upstream llm { $upstream } }
END

    close $conf;

    return scalar `$nginx -t -p $dir -c test.conf -e stderr 2>&1`;
}
