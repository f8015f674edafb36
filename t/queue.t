# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# llm_queue: requests wait where all servers are at max_conns, fairly between
# keys and over two workers, and are woken as soon as there is room.  What
# workers and servers do meanwhile is in queue_live.t.

use strict;
use warnings;

use lib 't/lib';

use File::Path qw( remove_tree );
use List::Util qw( max min sum0 );
use Socket qw( SOL_SOCKET SO_LINGER );

use LlmTest;
use LlmH2;
use LlmQueue;
use LlmStall;
use LlmWaits;
use Time::HiRes qw( sleep time );

my $Hold = $LlmQueue::Hold;

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000',
            '--batch', '256', '--quiet');
sim_start();

LlmStall::start();

fair('halves', 20, 20);
fair('of tokens', 60, 20);
woken();
in_its_order();
shared_by_budget();
at_rest();
full();
too_late();
left();
left_by_reset_of_a_stream();
given_back();
elsewhere();
by_variable();
without_llm_stream();

remove_tree($LlmQueue::Dir) if Test::More->builder->is_passing;


# 40 clients on four seats: 32 of a greedy key, 8 of another, so that both
# always have somebody who waits

sub fair {
    my ($name, $greedy, $modest) = @_;
    my ($share, @lines, @most, %tokens);
    my %length = (greedy => $greedy, modest => $modest);

    start(queue => '100 timeout=20s key=$http_x_key');

    @most = again(5, sub { return "tokens=$length{$_[0]}; itl=4" },
                  ('greedy') x 32, ('modest') x 8);

    @lines = grep { $_->{end} eq 'done' } logged(1);
    $tokens{$_->{key}} += $_->{completion} for @lines;

    $share = $tokens{greedy} / sum0(values %tokens);

    diag(sprintf '%s: greedy %d, modest %d tokens', $name,
         $tokens{greedy}, $tokens{modest});

    cmp_ok($share, '>=', 0.42, "$name: the greedy key has its half");
    cmp_ok($share, '<=', 0.58, "$name: and no more");

    is("@most", '2 2', "$name: each server has two at a time");

    is(scalar(keys %{{ map { $_->{pid} => 1 } @lines }}), 2,
       "$name: both workers had some of them");

    is_deeply([ grep { $_->{wait} eq '-' } @lines ], [],
              "$name: all of them say how long they waited");

    end($name);
}


# A client of each key, that asks again as soon as it has its answer.  Gives
# what the servers had at a time, until the clients leave: a server learns
# from its next client that one has left.

sub again {
    my ($seconds, $sim, @keys) = @_;
    my ($end, @live, @most);

    my $ask = sub {
        my ($key) = @_;
        my $client = ask(0, key => $key, sim => $sim->($key));

        $client->{key} = $key;
        push @live, $client;
    };

    $ask->($_) for @keys;
    $end = time + $seconds;

    while (time < $end) {
        IO::Select->new(map { $_->{sock} } @live)->can_read(0.2);

        for my $client (splice @live) {
            if ($client->pump) {
                push @live, $client;

            } else {
                $ask->($client->{key});
            }
        }
    }

    @most = map { sim_stats(sim_port($_))->{max_inflight} } 1, 2;
    $_->close for @live;

    return @most;
}


# Every start but the first four was somebody's end, in either worker: the
# k-th start is behind the (k - 4)-th end.  Both are logged in milliseconds.
# Where the machine did not run the workers, it is not our time, nor is it where
# the client was late, and nobody waited.

sub woken {
    my (@late, @lines, @round, @stalls);
    my $stalled = 0;

    for my $round (1 .. 20) {
        last if $round > 4 && @late >= 100;

        # what is written to a debug log takes longer than all the rest

        start(http => 'error_log logs/error.log warn;');
        @stalls = LlmWaits::during(sub {
            again(1.5, sub { return 'tokens=3; itl=12' }, ('x') x 16);
        }, $LlmQueue::Nginx->workers);

        @lines = grep { $_->{end} eq 'done' } logged(1);
        end("woken, round $round");

        @round = from_release_to_start(\@stalls, @lines);
        $stalled += grep { !defined } @round;
        push @late, grep { defined } @round;
    }

    @late = sort { $a <=> $b } @late;

    diag(sprintf 'woken: from release to start, %d times: median %.0f ms, '
         . 'p99 %.0f ms, most %.0f ms; while the machine stalled: %d',
         scalar @late, $late[@late / 2], $late[0.99 * @late], $late[-1],
         $stalled);

    is(scalar(keys %{{ map { $_->{pid} => 1 } @lines }}), 2,
       'woken: in both workers');
    cmp_ok(scalar @late, '>=', 100, 'woken: often enough to tell');
    cmp_ok($late[0.99 * @late], '<', 5,
           'woken: p99 from release to start is below 5 ms');
}


# milliseconds, or undef where the machine stalled meanwhile

sub from_release_to_start {
    my ($stalls, @lines) = @_;
    my (@ends, @late, @starts);

    @starts = sort { $a->{sent} <=> $b->{sent} } @lines;
    @ends = sort { $a <=> $b } map { $_->{sent} + $_->{rt} } @lines;

    for my $i (0 .. $#starts - 8) {
        my ($sent, $wait) = @{$starts[$i + 4]}{qw( sent wait )};

        push @late, LlmWaits::seconds($ends[$i], $sent, @$stalls)
                    ? undef : 1000 * min($sent - $ends[$i], $wait);
    }

    return @late;
}


# one seat, one key: over both workers in the order in which they came

sub in_its_order {
    my ($hold, @clients, @lines);

    start(servers => [1], seats => 1);

    ($hold) = hold(1);

    for my $n (1 .. 20) {
        push @clients, ask($n, sim => $n == 1 ? 'tokens=20; itl=20'
                                              : 'tokens=5; itl=4');
        await_waiting($n);
    }

    # the server may hear of this one's end behind the next one's beginning,
    # as nginx closes the connection when it has given the seat away

    $hold->close;
    await(sub { sim_stats()->{aborted} == 1 && sim_stats()->{inflight} == 1 });
    sim_reset();

    LlmClient::await_end(@clients);

    is(scalar(grep { $_->complete } @clients), 20, 'in order: all are served');

    @lines = logged(21);
    is(in_order(@lines), join(' ', 1 .. 20), 'in order: as they came');
    is(scalar(keys %{{ map { $_->{pid} => 1 } @lines }}), 2,
       'in order: in both workers');
    is(sim_stats()->{max_inflight}, 1, 'in order: one at a time');
    is($lines[0]{wait}, '0.000', 'in order: the first one did not wait');
    cmp_ok(max(map { $_->{wait} } @lines), '>', 0.2,
           'in order: the last one did');

    end('in order');
}


# without key=, those that share all their budgets are one key

sub shared_by_budget {
    my ($hold, @clients, @lines);

    start(servers => [1], seats => 1,
          http => 'llm_limit_zone $http_x_key zone=k:1m requests=1000/s;'
                  . 'llm_limit_zone all zone=all:1m requests=1000/s;',
          location => 'llm_limit zone=all; llm_limit zone=k;');

    ($hold) = hold(1);

    for my $n (1 .. 9) {
        push @clients, ask($n, key => $n < 7 ? 'a' : 'b');
        await_waiting($n);
    }

    $hold->close;
    LlmClient::await_end(@clients);
    @lines = logged(10);

    is(in_order(@lines), '1 7 2 8 3 9 4 5 6',
       'shared by budget: keys have turns');

    end('shared by budget');
}


# nobody is served: nothing runs but one look a second

sub at_rest {
    my ($cpu, @clients);

    start(servers => [1], seats => 1, queue => '100 timeout=1m');

    push @clients, ask(0, sim => 'fault=stall; at=1');
    LlmClient::await_header(@clients);
    push @clients, map { ask($_) } 1 .. 30;
    await_waiting(30);

    $cpu = cpu_seconds();
    sleep 2.5;
    $cpu = cpu_seconds() - $cpu;

    diag(sprintf 'at rest: 30 wait 2.5 s in %d ms of both workers',
         1000 * $cpu);
    cmp_ok($cpu, '<=', 0.03, 'at rest: those who wait take no time at all');

    $_->close for @clients;
    end('at rest');
}


# one over the number: at once, with JSON and when to try again

sub full {
    my ($client, $mark, @clients, @lines);

    start(servers => [1], seats => 1, queue => '2 timeout=20s');

    push @clients, hold(1);
    push @clients, map { ask($_) } 1 .. 2;
    await_waiting(2);

    for my $n (3 .. 6) {
        $mark = LlmStall::mark();
        $client = ask($n)->finish;

        is($client->status, 503, 'full: rejected');
        cmp_ok(LlmStall::since($mark), '<', 0.5, 'full: at once');
        like($client->header('Content-Type'), qr{^application/json$},
             'full: JSON');
        like($client->body, qr/"message":"The model servers are busy and the /,
             'full: says why');
        is($client->header('Retry-After'), 1, 'full: says when');
        is($client->header('retry-after-ms'), 1000,
           'full: in milliseconds, too');
    }

    $client = ask(7, path => '/v1/messages')->finish;
    like($client->body, qr/^\{"type":"error","error":\{"type":"overloaded_/,
         'full: in the dialect of the request');

    # both that waited are served, and there is room for two again

    $clients[0]->close;
    LlmClient::await_end(@clients[1, 2]);
    is(join(' ', map { $_->status } @clients[1, 2]), '200 200',
       'full: those who waited are served');

    is(ask(8)->finish->status, 200, 'full: and new ones are');

    @lines = sort { $a->{n} <=> $b->{n} }
             grep { $_->{end} eq 'queue_full' } logged(9);
    is(join(' ', map { "$_->{n}:$_->{status}:$_->{wait}:$_->{to}" } @lines),
       join(' ', map { "$_:503:0.000:-" } 3 .. 7), 'full: logged');
    is(scalar($LlmQueue::Nginx->logged(
           qr/\[error\] .*llm queue: full, upstream "llm", waited 0ms, /)), 5,
       'full: also as errors');

    end('full');
}


sub too_late {
    my ($client, @clients, @lines);

    start(servers => [1], seats => 1, queue => '10 timeout=700ms',
          server => 'location = /plain/v1/chat/completions {
                         llm_error_events off;
                         proxy_pass http://llm/v1/chat/completions;
                     }');

    push @clients, hold(1);

    push @clients, ask(1), ask(2, path => '/plain/v1/chat/completions');
    LlmClient::await_end(@clients[1, 2]);

    for my $client (@clients[1, 2]) {
        is($client->status, 503, 'too late: rejected');
        is($client->header('Retry-After'), 1, 'too late: says when');
    }

    like($clients[1]->body, qr/"message":"The model servers are busy\. /,
         'too late: JSON');
    like($clients[2]->body, qr/<html>/, 'too late: or nginx\'s page');

    @lines = logged(2);
    is(join(' ', map { "$_->{end}:$_->{source}" } @lines),
       'queue_timeout:none queue_timeout:none', 'too late: logged');

    for my $line (@lines) {
        cmp_ok($line->{wait}, '>=', 0.69, 'too late: behind its time');
        cmp_ok($line->{wait}, '<=', 1.5, 'too late: not later');
    }

    $clients[0]->close;
    is(ask(3)->finish->status, 200, 'too late: its seat went to nobody');

    end('too late');
}


# room for one: each who leaves makes room for the next one, and nobody else
# is sent on

sub left {
    my ($mark, @clients, @line);

    start(servers => [1], seats => 1, queue => '1 timeout=20s');

    push @clients, hold(1);

    for my $way (\&full_close, \&half_close, \&reset_) {
        push @clients, ask(scalar @clients);
        await_waiting(@line + 1);
        $mark = LlmStall::mark();
        $way->($clients[-1]{sock});

        @line = logged(@line + 1);
        is("$line[-1]{end}:$line[-1]{status}:$line[-1]{to}",
           'client_abort:499:-', 'left: seen while it waited');
        cmp_ok(LlmStall::since($mark), '<', 1, 'left: at once');
    }

    push @clients, ask(4);
    await_waiting(4);
    $clients[0]->close;
    is($clients[4]->finish->status, 200, 'left: the next one is served');

    is(sim_stats()->{requests}, 2, 'left: nobody else was sent on');

    end('left');
}


sub full_close {
    my ($sock) = @_;

    $sock->close;
}


sub half_close {
    my ($sock) = @_;

    $sock->shutdown(1);
}


sub reset_ {
    my ($sock) = @_;

    setsockopt $sock, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
    $sock->close;
}


# a storm of them, on one connection that stays

sub left_by_reset_of_a_stream {
    my ($client, $mark, $sock, @lines);

    start(servers => [1], seats => 1, queue => '20 timeout=20s');

    ($client) = hold(1);
    $sock = LlmH2::connect($LlmQueue::PortH2);

    for my $round (0 .. 2) {
        for my $n (1 .. 20) {
            $sock->syswrite(LlmH2::request(40 * $round + 2 * $n - 1,
                                           $LlmQueue::Body));
        }

        await_waiting(20 * $round + 20);

        $mark = LlmStall::mark();
        $sock->syswrite(join '', map { LlmH2::cancel(40 * $round + 2 * $_ - 1) }
                                     1 .. 20);
        @lines = logged(20 * $round + 20);
        cmp_ok(LlmStall::since($mark), '<', 2, 'stream reset: at once');
    }

    is(scalar(grep { $_->{end} eq 'client_abort' } @lines), 60,
       'stream reset: all are seen');

    $sock->syswrite(LlmH2::request(121, $LlmQueue::Body,
                                   'x-llm-sim' => 'tokens=4'));
    await_waiting(61);
    $client->close;
    @lines = grep { $_->{end} eq 'done' } logged(62);

    is(scalar @lines, 1, 'stream reset: the next one is served');
    is(sim_stats()->{requests}, 2, 'stream reset: nobody else was sent on');

    $sock->close;
    end('stream reset');
}


# what llm_limit had taken, on each way out of the queue: a budget of 1000
# holds one reserve of 600

sub given_back {
    my ($client, $hold, @lines);

    start(servers => [1], seats => 1, queue => '1 timeout=3s',
          http => 'llm_limit_zone $http_x_key zone=k:1m tokens=1000/d;',
          location => 'llm_limit zone=k reserve=600;');

    ($hold) = hold(1, key => 'hold');

    # too late; and while it waits another one is too many

    $client = ask(1, key => 'late');
    await_waiting(1);

    is(ask(2, key => 'full')->finish->status, 503, 'given back: full');
    is(ask(3, key => 'late')->finish->status, 429,
       'given back: held while it waits');
    is($client->finish->status, 503, 'given back: too late');

    $client = ask(4, key => 'left');
    await_waiting(2);
    $client->close;
    logged(4);

    $hold->close;

    for my $key (qw( late full left )) {
        is(ask(5, key => $key)->finish->status, 200,
           "given back: all that \"$key\" had reserved");
    }

    end('given back');
}


# an error_page sends it to another upstream, with what was reserved for it

sub elsewhere {
    my ($hold, @clients, @lines);

    start(servers => [1], seats => 1, queue => '1 timeout=20s',
          http => 'llm_limit_zone all zone=k:1m tokens=2000/d;',
          location => 'llm_limit zone=k reserve=600; error_page 503 = @b;',
          server => 'location @b { proxy_pass http://127.0.0.1:'
                    . sim_port(2) . '; }');

    ($hold) = hold(1);
    push @clients, ask(1);
    await_waiting(1);

    is(ask(2)->finish->status, 200, 'elsewhere: served by the other upstream');
    is(sim_stats(sim_port(2))->{requests}, 1, 'elsewhere: once');

    $hold->close;
    LlmClient::await_end(@clients);

    @lines = sort { $a->{n} <=> $b->{n} } logged(3);
    is("$lines[2]{end}:$lines[2]{status}:$lines[2]{source}",
       'done:200:upstream', 'elsewhere: accounted there');
    is($lines[2]{wait}, '-', 'elsewhere: which has no queue');

    end('elsewhere');
}


sub by_variable {
    my ($hold, @clients);

    start(servers => [1], seats => 1, pass => '$upstream',
          http => 'map $http_x_key $upstream { x llm; y 127.0.0.1:'
                  . sim_port(2) . '; }');

    ($hold) = hold(1, key => 'x');
    push @clients, ask(1, key => 'x');
    await_waiting(1);

    is(ask(2, key => 'y')->finish->status, 200,
       'by variable: an address has no queue');

    $hold->close;
    is($clients[0]->finish->status, 200, 'by variable: an upstream has');

    end('by variable');
}


# it cannot wait, and does not get ahead of those who do

sub without_llm_stream {
    my ($hold, @clients, @lines);

    start(servers => [1], seats => 2,
          server => 'location /off/ {
                         llm_stream off;
                         proxy_pass http://llm/;
                     }');

    my $off = sub {
        return ask(9, path => '/off/v1/chat/completions', @_);
    };

    is($off->()->finish->status, 200, 'llm_stream off: served');

    ($hold) = hold(1);
    push @clients, $off->(sim => $Hold);
    is($clients[0]->status, 200, 'llm_stream off: counted, too');

    push @clients, ask(1, sim => $Hold);
    await_waiting(1);
    is($off->()->finish->status, 502, 'llm_stream off: no room');

    # the seat that it leaves wakes who waits

    $clients[0]->close;
    is($clients[1]->status, 200, 'llm_stream off: wakes others');

    $_->close for $hold, @clients;
    end('llm_stream off');
}
