# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# lease=: tokens that are taken ahead of their use, given out without asking,
# and given back.

use strict;
use warnings;

use lib 't/lib';

use Digest::SHA qw( sha1_hex );
use LlmTest;
use LlmNode;
use LlmRedis;
use Time::HiRes qw( sleep time );

my ($Redis, @Nodes);

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000');
sim_start();

$Redis = LlmRedis->start(dir => "$ENV{TEST_NGINX_SERVROOT}/redis",
                         args => [ '--slowlog-log-slower-than', 0,
                                   '--slowlog-max-len', 100_000 ]);

rarely_asks();
never_over();
idle();
leaves($_) for qw( QUIT TERM );
at_times();
killed_worker();
redis_gone();
back_later();
too_large();

$Redis->stop;


sub nodes {
    my ($count, %options) = @_;

    $Redis->call('FLUSHALL');

    @Nodes = map {
        LlmNode->start(redis => 'redis://' . $Redis->address, %options)
    } 1 .. $count;

    $_->await_up for @Nodes;

    return @Nodes;
}


sub done {
    my ($name, $expected) = @_;

    $_->stop for @Nodes;
    is(join('', map { $_->faults($expected) } @Nodes), '',
       "$name: no fault in a log");
    @Nodes = ();
}


# Takes 100 tokens of a lease, which it then has.  Only after 5 s without
# anybody does it go back.

sub use_lease {
    my ($one) = @_;

    $one->ask(5, sim => 'tokens=5; itl=0') for 1 .. 20;
    LlmRedis::await('a lease', sub { LlmNode::used($Redis) > 100 });

    # an answer on the same link comes behind that of the lease, which nginx
    # has then

    $one->ask(1, key => 'other');
}


# how often a script was run since the last SLOWLOG RESET

sub runs {
    my ($script) = @_;
    my $sha = sha1_hex(LlmRedis::script($script));

    return scalar grep {
        my ($command, $what) = @{$_->[3]};

        uc $command eq 'EVALSHA' && $what eq $sha
    } @{$Redis->call('SLOWLOG', 'GET', -1)};
}


sub rarely_asks {
    my ($one) = nodes(1, zone => 'requests=10000/h lease=20%');

    $Redis->call('SLOWLOG', 'RESET');

    is(scalar(grep { $one->ask(5)->status == 200 } 1 .. 100), 100,
       'a lease: 100 requests');
    cmp_ok(runs('reserve'), '<=', 5, 'at most 5 of them ask');
    cmp_ok(runs('lease'), '>=', 1, 'tokens are taken ahead');
    cmp_ok(runs('lease'), '<=', 30, 'not for every request');

    LlmRedis::await('settled', sub { LlmNode::charges($Redis) == 0 });

    my $held = LlmNode::used($Redis) - 100;

    ok($held >= 0 && $held <= 200,
       "of the 100 that were used Redis knows, and of the lease")
        or diag("it says $held more");
    done('rarely asks');
}


# all that two machines give out together, without any refill

sub never_over {
    my ($one, $two) = nodes(2, zone => 'lease=20%');
    my ($passed, @clients) = (0);

    for (1 .. 70) {
        push @clients, $one->open(10, sim => 'tokens=10; itl=0'),
                       $two->open(10, sim => 'tokens=10; itl=0');
        LlmClient::await_end(@clients[-2, -1]);
    }

    $passed = grep { $_->status == 200 } @clients;

    cmp_ok($passed, '<=', 100, 'never over: of 1000 tokens at most 1000');
    cmp_ok($passed, '>=', 80, 'and no less than without the leases');
    done('never over');
}


sub idle {
    my ($one) = nodes(1, zone => 'lease=20%');

    use_lease($one);
    ok(1, 'idle: at first it is kept');

    LlmRedis::await('given back', sub { LlmNode::used($Redis) <= 100 });
    is(LlmNode::used($Redis), 100, 'then all of it goes back');
    is($one->ask(900)->status, 200, 'to whoever wants it');
    done('idle');
}


sub leaves {
    my ($signal) = @_;
    my ($one) = nodes(1, zone => 'lease=20%');

    use_lease($one);
    ok(1, "$signal: it has a lease");

    kill $signal, $one->{nginx}{pid};
    is(LlmNode::await_used($Redis, 100), 100, 'and gives it back');
    done($signal);
}


# a rate that is off for some of a key's requests

sub at_times {
    my ($one) = nodes(1, rate => '$http_x_rate',
                      zone => 'requests=1000/h lease=20%');
    my $spends = 'tokens=5; itl=0';

    for (1 .. 5) {
        $one->ask(5, sim => $spends, headers => { 'X-Rate' => '1/h' })
            for 1 .. 4;
        $one->ask(5, sim => $spends, headers => { 'X-Rate' => 'off' });
    }

    kill 'QUIT', $one->{nginx}{pid};
    is(LlmNode::await_used($Redis, 100), 100,
       'a rate that is off at times: what is held goes back all the same');
    done('at times');
}


# a lease is the machine's, not the worker's

sub killed_worker {
    my ($one) = nodes(1, zone => 'lease=20%');

    use_lease($one);
    $one->{nginx}->replace('KILL', $one->{nginx}->workers);
    $one->await_up(1);
    is($one->ask(5, sim => 'tokens=5; itl=0')->status, 200,
       'a killed worker: its successor goes on');

    LlmRedis::await('given back', sub { LlmNode::used($Redis) <= 105 });
    is(LlmNode::used($Redis), 105, 'and gives the lease back');
    done('killed worker', qr/exited on signal 9/);
}


sub redis_gone {
    my ($one) = nodes(1, zone => 'lease=20%',
                      options => 'fallback=closed timeout=2s');

    use_lease($one);
    $Redis->freeze;

    is($one->ask(5)->status, 200, 'Redis is gone: what was taken is there');

    my @status = map { $one->ask(50, sim => 'tokens=50; itl=0')->status }
                     1 .. 6;

    like("@status", qr/ (?:503|429)$/, 'then the fallback decides');

    $Redis->thaw;
    $one->await_up(1);

    LlmRedis::await('Redis decides again', sub {
        $one->ask(300)->status == 200
    });
    ok(1, 'and then Redis');
    done('Redis gone');
}


# One machine knows that Redis is away when nobody wants its lease any more.
# The other finds out by giving it back: that Redis has it, and is told again.

sub back_later {
    my ($knows, $tells) = nodes(2, zone => 'lease=20%',
                                options => 'timeout=2s');

    $_->ask(5, sim => 'tokens=5; itl=0') for ($knows, $tells) x 20;

    LlmRedis::await('both have a lease', sub {
        LlmNode::used($Redis) >= 300
    });

    $Redis->freeze;
    $knows->ask(700);
    LlmRedis::await('both know that Redis is away', sub {
        2 == grep { scalar $_->errors(qr/"shared" is down/) } @Nodes
    });

    $Redis->thaw;
    $_->await_up(1) for @Nodes;

    LlmRedis::await('given back', sub { LlmNode::used($Redis) <= 200 });
    sleep 1;
    is(LlmNode::used($Redis), 200, 'Redis was away: leases go back, once');
    done('back later');
}


# more than a lease ever has is asked for at once

sub too_large {
    my ($one) = nodes(1, zone => 'lease=10%');

    $one->ask(5, sim => 'tokens=5; itl=0') for 1 .. 5;
    $Redis->call('SLOWLOG', 'RESET');

    is($one->ask(600)->status, 200, 'more than a lease: Redis is asked');
    is(runs('reserve'), 1, 'once');
    is($one->ask(1001)->status, 429, 'never more than the burst');
    done('too large');
}
