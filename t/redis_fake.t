# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# What is not Redis at all, or says what Redis does not: no request fails, none
# waits for it, no worker dies.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmFakeRedis;
use LlmNode;
use LlmRedis;
use Time::HiRes qw( sleep time );

# ms that a request may take which is not decided by Redis.  Whoever waits for
# it takes for ever; how exact timeout= is bench/redis frozen measures.

my $Bound = 5000;

my ($Redis, $Node);

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000');
sim_start();

$Redis = LlmRedis->start(dir => dir('redis'));

fake();
greeting();
servers_left();

$Redis->stop;


sub dir { return "$ENV{TEST_NGINX_SERVROOT}/$_[0]" }


sub node {
    my ($fake, %options) = @_;

    $Redis->call('FLUSHALL');
    $Node = LlmNode->start(redis => $fake->url, %options);
    $Node->await_up;
}


sub done {
    my ($name) = @_;

    $Node->stop;
    is(join('', $Node->faults), '', "$name: no fault in the log");
}


sub fake {
    my $fake = LlmFakeRedis->start(real => $Redis, dir => dir('fake'));

    my @faults = (
        'doubled', 'unsolicited', 'bytewise', 'cut 0', 'cut 1', 'cut 5',
        'closed',
        'says +OK\r\n', 'says :1\r\n', 'says $-1\r\n', 'says *-1\r\n',
        'says *0\r\n', 'says *1\r\n:1\r\n', 'says $2\r\nab\r\n',
        'says *7\r\n' . '+1\r\n' x 7, 'says *7\r\n' . '$-1\r\n' x 7,
        'says *7\r\n' . ':1\r\n' x 7, 'says $55\r\n' . 'x' x 55 . '\r\n',
        numbers(1, -9, -9, 1, 1, 1, 1), numbers(1, 0, 9e7, 1, 1, 1, 1),
        numbers(99, 0, 0, 1, 1, 1, 1), numbers(0.5, 0, 0, 1, 1, 1, 1),
        numbers((2 ** 63) x 7), numbers((-2 ** 63) x 7),
        numbers(('nan') x 7), numbers(('inf') x 7), numbers(('-inf') x 7),
        numbers(1, 0, 0, 1e300, 1, 1, 1), numbers(1, 0, 0, 1, 1, 1, 'nan'),
        numbers(1, 0, 0, 1, 1, 1, 1, 1),
        'says :99999999999999999999999999\r\n',
        'says $4611686018427387904\r\n',
        'says *4611686018427387904\r\n', 'says *-7\r\n', 'says $-2\r\n',
        'says *7\r\n$4611686018427387904\r\n',
        'says ' . '*1\r\n' x 64 . ':1\r\n',
        'says _\r\n', 'says %1\r\n:1\r\n:2\r\n', 'says #t\r\n',
        'says ,1.5\r\n', 'says >1\r\n+x\r\n', 'says (123\r\n',
        'says HTTP/1.1 400 Bad Request\r\n\r\n', 'says \r\n', 'says \n',
        'says -\r\n', 'says -ERR ' . 'x' x 100_000 . '\r\n',
        'says -MOVED 1 127.0.0.1:1\r\n', 'says -MOVED\r\n',
        'says -MOVED 99999 256.0.0.1:99999\r\n', 'says -ASK 1\r\n',
        'says -ASK 1 127.0.0.1:1\r\n', 'says -TRYAGAIN\r\n',
        'says -CLUSTERDOWN x\r\n', 'says -LOADING x\r\n',
        'says -BUSY x\r\n', 'says -NOAUTH x\r\n', 'says -NOSCRIPT x\r\n',
        'says -READONLY x\r\n', 'says -OOM x\r\n', 'says -WRONGTYPE x\r\n',
    );

    node($fake, options => 'timeout=200ms connect_timeout=1s');

    my ($pid) = $Node->{nginx}->workers;
    my (@slow, @wrong);

    for my $fault (@faults) {
        # what comes unasked is there by then

        $fake->does('real');
        sleep 0.05;
        LlmRedis::await('Redis decides', sub {
            my $count = LlmNode::used($Redis, 'probe') // 0;
            $Node->ask(1, key => 'probe');
            sleep 0.02;
            (LlmNode::used($Redis, 'probe') // 0) > $count
        });

        # said, if not to the first one: a late answer takes the link, too

        my $count = $fake->count;
        $fake->does($fault);

        LlmRedis::await('it is said', sub {
            my ($status, $ms) = $Node->timed(1);

            push @wrong, "$fault: $status" if $status != 200;
            push @slow, "$fault: $ms ms" if $ms > $Bound;

            return $fake->count > $count;
        });
    }

    is(join(', ', map { substr $_, 0, 60 } @wrong), '',
       scalar(@faults) . ' wrong replies: no request fails');
    is(join(', ', map { substr $_, 0, 60 } @slow), '', 'nor waits long');
    is(join(' ', $Node->{nginx}->workers), $pid, 'the worker lives');

    $fake->stop;
    done('fake');
}


# as a script answers

sub numbers {
    my $text = pack 'd<*', @_;

    return 'says $' . length($text) . "\\r\\n$text\\r\\n";
}


# said before anything was asked

sub greeting {
    my $fake = LlmFakeRedis->start(real => $Redis, dir => dir('fake'));
    my ($pid, @wrong);

    node($fake, options => 'connect_timeout=1s');
    ($pid) = $Node->{nginx}->workers;

    for my $text ('+HELLO\r\n', '-ERR go away\r\n', '$4611686018427387904\r\n',
                  '*2\r\n:1\r\n', 'x' x 70_000, "\\r\\n")
    {
        my $count;

        # the link there is has to go first

        $fake->does("greets $text");
        $count = $fake->count;
        $Redis->call('CLIENT', 'KILL', 'TYPE', 'normal');

        LlmRedis::await('a new link', sub {
            my ($status) = $Node->timed(1);

            push @wrong, $status if $status != 200;
            sleep 0.02;
            $fake->count > $count
        });
    }

    is("@wrong", '', 'greetings: no request fails');
    is(join(' ', $Node->{nginx}->workers), $pid, 'the worker lives');

    $fake->does('real');
    $Redis->call('FLUSHALL');
    LlmRedis::await('Redis decides again', sub {
        $Node->ask(1);
        sleep 0.02;
        (LlmNode::used($Redis) // 0) > 0
    });
    ok(1, 'and it is found again');

    $fake->stop;
    done('greeting');
}


# a worker knows 127 servers of a cluster: those that have left make room

sub servers_left {
    my $fake = LlmFakeRedis->start(real => $Redis, dir => dir('fake'));
    my $pid;

    $Redis->call('FLUSHALL');
    $fake->does('servers ' . join ' ', map { "127.0.1.$_" } 1 .. 127);

    $Node = LlmNode->start(redis => $fake->url);
    ($pid) = $Node->{nginx}->workers;

    for my $net (1, 2) {
        $Node->await_error(qr/is down, 127\.0\.$net\.127:/);
        is($Node->ask(10)->status, 200, 'servers left: the fallback decides');

        $fake->does('servers 127.0.0.1');
        $Node->ask_until_used($Redis, 1);
        ok(1, 'and a new one, when there is one');

        # all of them are asked for again where a connection breaks

        $fake->does('servers ' . join ' ', map { "127.0.2.$_" } 1 .. 127);
        $Redis->call('FLUSHALL');
        $Redis->call('CLIENT', 'KILL', 'TYPE', 'normal');
    }

    is(join(' ', $Node->{nginx}->workers), $pid, 'the worker lives');

    $fake->stop;
    done('servers left');
}
