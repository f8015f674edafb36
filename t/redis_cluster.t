# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# Budgets in a cluster of three masters and three replicas: each key in its
# slot, slots that move while they are used, a master that dies.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmNode;
use LlmRedis;
use List::Util qw( first );
use Time::HiRes qw( sleep time );

my ($Cluster, @Nodes, @Masters);

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000');
sim_start();

$Cluster = LlmRedis->cluster(dir => "$ENV{TEST_NGINX_SERVROOT}/cluster",
                             masters => 3, replicas => 1);
@Masters = ($Cluster->nodes)[0 .. 2];

allow($_) for $Cluster->nodes;

spread();
moved();
asked();
started();
unserved();
learned();
joined();
fails_over();

$Cluster->stop;


# a user with the rights that README.md names, and no others

sub allow {
    $_[0]->call('ACL', 'SETUSER', 'llm', 'on', '>pass-word', '~llm:*',
                qw( +evalsha +script|load +hset +hdel +hmget +hgetall
                    +pexpire +pttl +time +cluster|slots +asking
                    +client|reply ));
}


# they know one address; what they learn is the rest

sub nodes {
    my ($count, %options) = @_;

    $_->call('FLUSHALL') for grep { $_->pid } @Masters;

    @Nodes = map {
        LlmNode->start(redis => 'redis://llm:pass-word@'
                                . $Masters[0]->address, %options)
    } 1 .. $count;

    $_->await_up for @Nodes;

    return @Nodes;
}


sub done {
    my ($name) = @_;

    $_->stop for @Nodes;
    is(join('', map { $_->faults } @Nodes), '',
       "$name: no fault in a log");
    @Nodes = ();
}


sub master_of { return $Cluster->master_of(LlmNode::name_of($_[0])) }


# a key that this server serves

sub key_at {
    my ($server, $prefix) = @_;

    return first { master_of($_) == $server } map { "$prefix$_" } 1 .. 99;
}


sub spread {
    my ($one, $two) = nodes(2);
    my (@keys, %seen);

    @keys = map { "key$_" } 1 .. 24;

    is(scalar(grep { $one->ask(600, key => $_,
                               sim => 'tokens=600; itl=0')->status == 200 }
                   @keys), 24, 'spread: one nginx takes 600 of each key');

    for my $key (@keys) {
        my $server = master_of($key);

        $seen{$server}++ if LlmNode::await_used($server, 600, $key) == 600;
    }

    is(scalar(keys %seen), 3, 'each key is where it belongs, on all three');
    is(scalar(grep { $two->ask(600, key => $_)->status == 429 } @keys), 24,
       'the other one has not got 600 of any');
    is(scalar(map { $_->errors(qr/is down/) } @Nodes), 0, 'nothing is down');
    done('spread');
}


# a slot that has got another server

sub moved {
    my ($one, $two) = nodes(2);
    my $key = key_at($Masters[0], 'move');
    my ($from, $to) = @Masters[0, 1];

    $one->ask(600, key => $key, sim => 'tokens=600; itl=0');
    is(LlmNode::await_used($from, 600, $key), 600, 'moved: before');

    my $live = $two->open(100, key => $key, sim => 'tokens=100; itl=10');
    $live->status;

    $Cluster->move_slot(LlmNode::name_of($key), $from, $to);

    is($one->ask(600, key => $key)->status, 429,
       'the new server knows what was used');
    is($one->ask(200, key => $key)->status, 200, 'and gives what is left');
    $live->finish;
    is(LlmNode::await_used($to, 701, $key), 701,
       'a charge of the old server is settled there');
    is(scalar(map { $_->errors(qr/is down|cannot decide/) } @Nodes), 0,
       'nobody had to decide alone');
    done('moved');
}


# while it moves: the keys are there already, the slot is not

sub asked {
    my ($one) = nodes(1);
    my $key = key_at($Masters[1], 'ask');
    my ($from, $to) = @Masters[1, 2];
    my (@status);

    $one->ask(600, key => $key, sim => 'tokens=600; itl=0');
    LlmNode::await_used($from, 600, $key);

    $Cluster->move_slot(LlmNode::name_of($key), $from, $to, sub {
        push @status, $one->ask(600, key => $key)->status,
                      $one->ask(200, key => $key)->status,
                      $one->ask(100, key => $key)->status;
        sleep 0.1;
    });

    is("@status", '429 200 200', 'asked: who is sent on gets an answer');
    is(LlmNode::await_used($to, 602, $key), 602, 'from the new server');
    is(scalar(map { $_->errors(qr/is down|cannot decide/) } @Nodes), 0,
       'nobody had to decide alone');
    done('asked');
}


# the slot of what a new connection tries out moves while it does

sub started {
    my ($from, $to) = @Masters[2, 0];
    my $key = key_at($from, 'start');
    my $used;

    $Cluster->move_slot('llm:{:probe}', $from, $to, sub {
        my ($one) = nodes(1);

        is($one->ask(10, key => $key)->status, 200, 'started: while it moves');
        $used = LlmNode::await_used($from, 1, $key);
    });

    is($used, 1, 'the server that it leaves decides for its other keys');
    is(scalar(map { $_->errors(qr/is down/) } @Nodes), 0, 'nothing is down');
    done('started');
}


# what ends while nobody serves its slot is said again

sub unserved {
    my ($one) = nodes(1);
    my $server = $Masters[1];
    my $key = key_at($server, 'unserved');
    my $slot = $server->call('CLUSTER', 'KEYSLOT', LlmNode::name_of($key));
    my $live = $one->open(500, key => $key, sim => 'tokens=20; itl=20');

    $live->status;
    $server->call('CLUSTER', 'DELSLOTS', $slot);
    $live->finish;
    is($one->ask(10, key => $key)->status, 200, 'unserved: the fallback');

    $server->call('CLUSTER', 'ADDSLOTS', $slot);
    is(LlmNode::await_used($server, 20, $key), 20,
       'what has ended meanwhile is settled');
    is(LlmNode::charges($server, $key), 0, 'and no charge is open');
    done('unserved');
}


# a server that joins: nobody has asked it for anything yet

sub joined {
    my ($one) = nodes(1);
    my $key = key_at($Masters[0], 'join');
    my $new = $Cluster->add(dir => "$ENV{TEST_NGINX_SERVROOT}/joins");
    my ($live, @status);

    allow($new);

    $live = $one->open(600, key => $key, sim => 'tokens=600; itl=1');
    $live->status;

    $Cluster->move_slot(LlmNode::name_of($key), $Masters[0], $new, sub {
        @status = map { $one->ask(600, key => $key)->status } 1 .. 2;
        $live->finish;
    });

    is("@status", '429 429', 'joined: it is asked from the first time on');
    is(LlmNode::await_used($new, 600, $key), 600, 'and told the end');
    is(scalar($one->errors(qr/is down|cannot decide/)), 0,
       'nobody had to decide alone');
    done('joined');
}


# the address that is configured is not the only one that is known

sub learned {
    my ($one) = nodes(1);
    my $key = key_at($Masters[1], 'learn');

    $one->ask(10, key => $key);
    LlmNode::await_used($Masters[1], 1, $key);
    $Masters[0]->freeze;

    is($one->ask(10, key => $key)->status, 200,
       'learned: a server that is frozen is not in the way of others');
    is(LlmNode::await_used($Masters[1], 2, $key), 2, 'the right one decides');

    $Masters[0]->thaw;
    LlmRedis::await('the cluster is whole', sub {
        !grep { !$Cluster->whole($_) } $Cluster->nodes
    });
    done('learned');
}


# a master dies under load: its replica takes over, with what it knew

sub fails_over {
    my ($one, $two) = nodes(2);
    my $key = key_at($Masters[0], 'fail');
    my (@clients, $dead, $new, $used);

    $one->ask(300, key => $key, sim => 'tokens=300; itl=0');
    LlmNode::await_used($Masters[0], 300, $key);
    $Masters[0]->call('WAIT', 1, 30_000);

    $Cluster->takes_over(1000);
    $dead = $Masters[0];
    $dead->kill;

    my $deadline = time + 60;
    my $ms = 0;

    until ($new || time > $deadline) {
        my $start = time;

        push @clients, $one->ask(1, key => $key), $two->ask(1, key => $key);
        $ms = 500 * (time - $start) if $ms < 500 * (time - $start);
        sleep 0.05;
        $new = master_of($key);
    }

    isnt($new, undef, 'fails over: a replica has taken over');
    is(scalar(grep { $_->status != 200 } @clients), 0,
       'no request failed meanwhile');
    cmp_ok($ms, '<', 5000, 'nor waited for it, as timeout= is 10 s');

    LlmRedis::await('the new master decides', sub {
        $one->ask(1, key => $key);
        sleep 0.02;
        (LlmNode::used($new, $key) // 0) > 300
    });

    $used = LlmNode::used($new, $key);
    ok($used > 300 && $used < 400, 'it knows what was used before')
        or diag($used);

    LlmRedis::await('the other nginx asks it, too', sub {
        $two->ask(750, key => $key)->status == 429
    });
    ok(1, 'and so do both');

    done('fails over');
}
