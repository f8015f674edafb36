# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# Redis is gone, frozen, slow or not able to decide: who decides then, that
# it is not waited for, what is logged, and that it is as before afterwards.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmFakeRedis;
use LlmNode;
use LlmRedis;
use List::Util qw( max );
use Time::HiRes qw( sleep time );

# ms that a request may take which is not decided by Redis.  Whoever waits for
# it takes 10 s (see LlmNode), where no timeout is named; how exact timeout= is
# bench/redis frozen measures.

my $Bound = 5000;

my ($Redis, $Node);

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000');
sim_start();

$Redis = LlmRedis->start(dir => dir('redis'));

killed($_) for qw( local open closed );
never_there();
frozen();
late();
blackhole();
foreign_key();
no_memory();
flushed_scripts();
flushed_budgets();
no_scripts_allowed();
failover();
clock_is_set();
slow();
many_ends();

$Redis->stop;


sub dir { return "$ENV{TEST_NGINX_SERVROOT}/$_[0]" }


sub node {
    my (%options) = @_;

    $Redis->call('FLUSHALL') if $Redis->pid;

    $Node = LlmNode->start(redis => 'redis://' . $Redis->address, %options);
    $Node->await_up if !$options{down};

    return $Node;
}


sub done {
    my ($name, $expected) = @_;

    $Node->stop;
    is(join('', $Node->faults($expected)), '', "$name: no fault in the log");
}


sub killed {
    my ($fallback) = @_;
    my (@ms, @status, $ms, $status);

    $Redis->restart if !$Redis->pid;
    node(options => "fallback=$fallback");

    is($Node->ask(300, sim => 'tokens=300; itl=0')->status, 200,
       "$fallback: Redis is there");
    LlmNode::await_used($Redis, 300);

    my $live = $Node->open(100, sim => 'tokens=100; itl=20');
    $live->status;

    $Redis->kill;

    # the local zone's own budget of 1000 is full: Redis has had 300 of it

    for my $tokens (800, 10, 800, 10) {
        ($status, $ms) = $Node->timed($tokens, sim => 'tokens=1; itl=0');
        push @status, $status;
        push @ms, $ms;
    }

    my %want = (local => '200 200 200 200', open => '200 200 200 200',
                closed => qr/^(?:503|429)(?: (?:503|429)){3}$/);

    if ($fallback eq 'closed') {
        like(join(' ', @status), $want{closed}, 'closed: killed, rejected');
    } else {
        is(join(' ', @status), $want{$fallback}, "$fallback: killed, passed");
    }

    cmp_ok(max(@ms), '<', $Bound, "$fallback: at once");

    if ($fallback eq 'local') {
        my $held = $Node->open(900, sim => 'tokens=900; itl=20');

        is($held->status, 200, 'local: this machine has a budget');
        is($Node->ask(300)->status, 429, 'and keeps it');
        $held->close;
    }

    is($Node->downs, 1, "$fallback: one line says that it is gone");
    $live->finish;
    ok($live->complete, "$fallback: a live stream does not notice");

    $Redis->restart;
    $Node->await_up(1);

    is($Node->ups, 2, "$fallback: one line says that it is back");
    is($Node->downs, 1, "$fallback: and no more of the other kind");

    is($Node->ask(500)->status, 200, "$fallback: Redis decides again");
    ok(defined LlmNode::await_used($Redis, 1), "$fallback: it knows");

    done($fallback);
}


# nginx starts without it, and finds it later

sub never_there {
    $Redis->kill;

    node(down => 1);
    is($Node->ask(10)->status, 200, 'never there: nginx starts all the same');

    $Redis->restart;
    $Node->await_up;
    is($Node->ask(10)->status, 200, 'and finds it when it comes');
    is(LlmNode::await_used($Redis, 1), 1, 'it decides');
    done('never there');

    node(redis => 'unix:' . dir('none.sock'), down => 1);
    $Node->await_error(qr/"shared" is down, unix:.*connect.*No such file/);
    ok(1, 'no socket: the log says it');
    done('no socket');
}


sub frozen {
    my (@ms, $live, $used);

    node(options => 'timeout=1s');

    $live = $Node->open(400, sim => 'tokens=50; itl=50');
    $live->status;

    $Redis->freeze;

    for (1 .. 20) {
        my ($status, $ms) = $Node->timed(10);

        push @ms, $ms if $status == 200;
        sleep 0.02;
    }

    is(scalar(@ms), 20, 'frozen: this machine decides');
    cmp_ok(max(@ms), '<', $Bound, 'and does not wait for it');
    is($Node->downs, 1, 'one line says it');

    # settled while nobody listens

    $live->finish;

    $Redis->thaw;
    $Node->await_up(1);

    is($Node->ask(10)->status, 200, 'thawed: Redis decides');
    $used = LlmNode::await_used($Redis, 51);
    is($used, 51, 'what was asked in vain is given back, what ended settled');
    is(LlmNode::charges($Redis), 0, 'and no charge is open');
    done('frozen');
}


# what comes too late has taken tokens: they are given back

sub late {
    my $fake = LlmFakeRedis->start(real => $Redis, dir => dir('fake'));
    my @ms;

    node(redis => $fake->url, options => 'timeout=1s');
    is($Node->ask(10)->status, 200, 'late: not yet');
    LlmNode::await_used($Redis, 1);

    $fake->does('late 3000');

    for (1 .. 8) {
        my ($status, $ms) = $Node->timed(50);

        push @ms, $ms if $status == 200;
    }

    is(scalar(@ms), 8, 'too late: this machine decides');
    cmp_ok(max(@ms), '<', $Bound, 'and does not wait for it');

    $fake->does('real');

    LlmRedis::await('Redis decides again', sub {
        $Node->ask(1, key => 'other');
        (LlmNode::used($Redis, 'other') // 0) > 0
    });

    is(LlmNode::await_used($Redis, 1), 1, 'what it took is given back');
    is(LlmNode::charges($Redis), 0, 'no charge is open');

    $fake->stop;
    done('late');
}


sub blackhole {
    my $fake = LlmFakeRedis->start(real => $Redis, dir => dir('fake'));
    my @ms;

    node(redis => $fake->url, options => 'timeout=1s connect_timeout=2s');

    # not even the greeting is answered

    $fake->does('silent', all => 1);

    for (1 .. 8) {
        my ($status, $ms) = $Node->timed(50);

        push @ms, $ms if $status == 200;
        sleep 0.05;
    }

    is(scalar(@ms), 8, 'a black hole: this machine decides');
    cmp_ok(max(@ms), '<', $Bound, 'and does not wait for it');
    cmp_ok($Node->downs, '<=', 1, 'one line says it');

    $fake->does('real');
    $Node->await_up(1);
    is($Node->ask(5)->status, 200, 'and it is found again');

    $fake->stop;
    done('black hole');
}


# a key that somebody else uses: no reason to give the link up

sub foreign_key {
    node();

    $Redis->call('LPUSH', LlmNode::name_of('bad'), 1);
    $Redis->call('HSET', LlmNode::name_of('worse'), 't', 'hello');

    is($Node->ask(10, key => 'bad')->status, 200, 'a list: fallback');
    is($Node->ask(10, key => 'worse')->status, 200, 'a text: fallback');
    is($Node->ask(10)->status, 200, 'other keys');
    is(LlmNode::await_used($Redis, 1), 1, 'are decided by Redis');
    is($Node->downs, 0, 'which is not down');
    ok(scalar($Node->errors(qr/llm redis: "shared" cannot decide.*WRONGTYPE/)),
       'the log says what is wrong');
    done('foreign key');
}


sub no_memory {
    node();
    $Redis->call('CONFIG', 'SET', 'maxmemory', 1);

    is($Node->ask(10)->status, 200, 'no memory: fallback');
    is($Node->ask(10)->status, 200, 'again');
    cmp_ok(scalar($Node->errors(qr/llm redis: .* cannot decide/)), '<=', 1,
           'one line says it');

    $Redis->call('CONFIG', 'SET', 'maxmemory', 0);

    LlmRedis::await('Redis decides again', sub {
        $Node->ask(1);
        (LlmNode::used($Redis) // 0) > 0
    });
    ok(1, 'no memory: as before when there is some');
    done('no memory');
}


sub flushed_scripts {
    node();
    $Node->ask(10);
    LlmNode::await_used($Redis, 1);

    $Redis->call('SCRIPT', 'FLUSH');

    is($Node->ask(10, sim => 'tokens=7; itl=0')->status, 200,
       'scripts are flushed: they are sent again');
    is(LlmNode::await_used($Redis, 8), 8, 'Redis has decided');

    my $live = $Node->open(100, sim => 'tokens=20; itl=10');

    $live->status;
    $Redis->call('SCRIPT', 'FLUSH');
    $live->finish;
    is(LlmNode::await_used($Redis, 28), 28, 'settling sends its own again');
    is($Node->downs, 0, 'the link is the same');
    done('flushed scripts');
}


sub flushed_budgets {
    node();

    my $live = $Node->open(900, sim => 'tokens=30; itl=20');

    $live->status;
    $Redis->call('FLUSHALL');

    is($Node->ask(900)->status, 200, 'FLUSHALL: a new budget');
    $live->finish;

    # on the same link, behind what ends the charge

    $Node->ask(1, key => 'other');
    LlmNode::await_used($Redis, 1, 'other');
    is(LlmNode::await_used($Redis, 1), 1,
       'the charge of before is not settled into it');
    done('flushed budgets');
}


sub no_scripts_allowed {
    $Redis->call('ACL', 'SETUSER', 'poor', 'on', '>p', '~*', '+@all',
                 '-@scripting');

    node(redis => 'redis://poor:p@' . $Redis->address, down => 1);
    $Node->await_error(qr/llm redis: .*NOPERM/);
    ok(1, 'a user without scripts: the log says why');

    my ($status, $ms) = $Node->timed(10);

    is($status, 200, 'fallback');
    cmp_ok($ms, '<', $Bound, 'at once');
    $Redis->call('ACL', 'DELUSER', 'poor');
    done('no scripts');
}


# a master becomes a replica: what it says leads to the other one

sub failover {
    my $other = LlmRedis->start(dir => dir('other'));

    $other->follow($Redis);

    node(redis => 'redis://' . $Redis->address . ',' . $other->address);
    $Node->ask(10);
    is(LlmNode::await_used($Redis, 1), 1, 'failover: the master decides');
    $Redis->give_way($other);

    is($Node->ask(10)->status, 200, 'the master has become a replica');

    $Node->ask_until_used($other, 2);
    ok(1, 'READONLY leads to the other one');

    $Redis->lead;
    $other->stop;
    done('failover');
}


# its state is an hour ahead: as if its clock had been set back

sub clock_is_set {
    node(rate => '6000/h', burst => 1000);
    $Node->ask(900, sim => 'tokens=900; itl=0');
    LlmRedis::await('settled', sub { LlmNode::charges($Redis) == 0 });

    shift_clock(3600);
    is($Node->ask(50)->status, 200, 'the clock goes back: no rejection');

    shift_clock(-3600);
    is($Node->ask(500)->status, 429, 'it goes forward: no free refill');
    done('clock');
}


# as if the server's clock had been set by so many seconds the other way

sub shift_clock {
    my ($seconds) = @_;
    my $key = LlmNode::name_of();
    my @state = unpack 'd<7', $Redis->call('HGET', $key, 't');

    $state[0] += $seconds * 1000 * 1000;
    $Redis->call('HSET', $key, 't', pack 'd<7', @state);
}


# what is refilled while a command waits for the server is not lost

sub slow {
    node(rate => '100/s', burst => 1000);
    $Node->ask(1000, sim => 'tokens=1000; itl=0');
    LlmRedis::await('settled', sub { LlmNode::charges($Redis) == 0 });

    $Redis->freeze;

    my $client = $Node->open(100);

    sleep 2;
    $Redis->thaw;
    is($client->status, 200, 'a slow server: two seconds are refilled');
    $client->finish;
    done('slow');
}


# What has ended while Redis was away keeps it busy for twice timeout=: all at
# once would be a server that does not answer.

sub many_ends {
    my $fake = LlmFakeRedis->start(real => $Redis, dir => dir('fake'));
    my @clients;

    node(redis => $fake->url, options => 'timeout=1s', burst => 100_000);
    sim_reset();

    push @clients, $Node->open(5, sim => 'tokens=5; ttft=3000; itl=0')
        for 1 .. 130;

    # the answers are here, too: what is charged behind a lost one is given back

    sim_await(requests => scalar @clients);

    $Redis->freeze;
    $Node->ask(1, key => 'other');
    $_->finish for @clients;

    $fake->does('busy 15');
    $Redis->thaw;

    LlmRedis::await('all are answered', sub { $fake->count > @clients });
    LlmRedis::await('all are closed', sub {
        LlmNode::charges($Redis) == 0
    });
    is(LlmNode::used($Redis), 5 * @clients, 'many ends: all are settled');
    is($Node->downs, 1, 'one line said that it is gone');
    is($Node->ups, 2, 'and one that it is back');

    $fake->stop;
    done('many ends');
}
