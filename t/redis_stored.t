# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# What the scripts of src/redis store, replicate, keep and forget, in a real
# server, without nginx.

use strict;
use warnings;

use lib 't/lib';

use LlmScripts;
use Test::More;
use Time::HiRes ();

my $Hour = 3600 * 1000 * 1000;


each_server(sub {
    expires();
    outlives();
    memory();
    sweeps();
    foreign();
    real_clock();
    no_memory();
    replicated();
});

done_testing();


sub expires {
    fresh();

    my $took = Time::HiRes::time();
    reserve('a', 0, [ 10, 1, 100, 100 ], [ 1, 60, 10, 1 ]);

    # it is full in a minute; and a clock may be set by an hour

    my $ttl = $Redis->call('PTTL', $Key);
    $took = 1000 * (Time::HiRes::time() - $took);

    cmp_ok($ttl, '<=', 60_000 + 3_900_000, 'a key lives until it is full');
    cmp_ok($ttl, '>', 59_900 - $took + 3_900_000, 'and over an hour longer');

    fresh();
    reserve('a', 0, [ 1, 86400, 1_000_000_000, 1_000_000_000 ]);
    cmp_ok($Redis->call('PTTL', $Key), '>', 1e12, 'also for centuries');

    fresh();
    ask('reserve', 'a', numbers(7_200_000, -1, [ 1, 1, 10, 1 ]));
    reserve('b', 0, [ 1, 1, 10, 1 ]);
    cmp_ok($Redis->call('PTTL', $Key), '>=', 7_190_000,
           'and as long as any of its charges');

    is(scalar(grep { $Redis->call('PTTL', $_) == -1 }
                   @{$Redis->call('KEYS', 'llm:*')}), 0,
       'no key stays for ever');
}


# told once in a while, and yet never about to expire while it is visited

sub outlives {
    my ($least, $told);

    fresh();
    $Redis->call('CONFIG', 'RESETSTAT');
    $least = 1e18;

    for my $n (1 .. 60) {
        $Now += 60_000_000;
        my $full = reserve("c$n", 0, [ 10, 60, 1000, 15 ])->[5];
        settle("c$n", 0, [ 10, 60, 1000, 12 ]) if $n % 2;

        my $left = state()->{t}[1] - $Now - $full;
        $least = $left if $left < $least;
    }

    cmp_ok($least, '>=', $Hour, 'it lives an hour longer, at any time');
    ($told) = $Redis->call('INFO', 'commandstats')
              =~ /cmdstat_pexpire:calls=(\d+)/;
    cmp_ok($told, '<=', 20, "which costs little: $told commands of 90");
    cmp_ok(abs($Redis->call('PTTL', $Key)
               - (state()->{t}[1] - state()->{t}[0]) / 1000), '<', 600_000,
           'Redis knows, too');
}


# a budget and its charges; ids are as long as the module's

sub memory {
    my ($bytes, $charge);

    fresh();
    $Key = 'llm:{tenant:' . 'f' x 40 . '}';
    $Redis->call('DEL', $Key);

    reserve(sprintf('%032x', 0), 0, [ 10, 1, 100, 100 ], [ 1, 60, 10, 1 ]);
    settle(sprintf('%032x', 0), 0, [ 10, 1, 100, 90 ], [ 1, 60, 10, 1 ]);
    $bytes = $Redis->call('MEMORY', 'USAGE', $Key);

    reserve(sprintf('%032x', $_), 1e12, [ 10, 1, 100, 1 ]) for 1 .. 50;
    $charge = ($Redis->call('MEMORY', 'USAGE', $Key) - $bytes) / 50;

    is(join(' ', sort grep { length == 1 } keys %{state()}), 'r t',
       'two fields of a budget');

    fresh();
    reserve('a', 0, [ 10, 1, 100, 100 ]);
    is(join(' ', sort keys %{state()}), 'a t', 'one without requests');

    cmp_ok($bytes, '<=', 300, "a budget takes $bytes bytes: some 230");
    cmp_ok($charge, '<=', 100, "a charge $charge: some 80");
}


# of nodes that died: nobody ends their charges

sub sweeps {
    my @tokens = (1000, 1, 1000, 1);
    my ($fields, $most) = (0, 0);

    fresh();
    reserve('live', 0, \@tokens);

    for my $n (1 .. 1000) {
        $Now += 60_000_000;
        reserve("lost$n", 0, \@tokens);
        $fields = $Redis->call('HLEN', $Key);
        $most = $fields if $fields > $most;

        # its own life is longer: it goes on

        ask('raise', 'live', numbers(7_200_000, -1, \@tokens, undef, 0, 1));
    }

    cmp_ok($most, '<=', 200, 'what nobody ends is dropped after its time');
    is(settle('live', 0, [ 1000, 1, 1000, 0 ])->[0], 1, 'and nothing else');

    fresh();
    reserve("open$_", 0, [ 1000, 1, 1000, 0 ]) for 1 .. 300;
    is(scalar(grep { settle("open$_", 0, [ 1000, 1, 1000, 0 ])->[0] == 1 }
                   1 .. 300), 300, 'of many that are open none is dropped');
}


# whatever somebody else has put there

sub foreign {
    fresh();
    $Redis->call('LPUSH', $Key, 1);
    like(failed('a', [ 1, 1, 10, 1 ]), qr/WRONGTYPE/, 'a list');

    fresh();
    $Redis->call('SET', $Key, 'hello');
    like(failed('a', [ 1, 1, 10, 1 ]), qr/WRONGTYPE/, 'a text');

    my $whole = pack 'd<7', $Now, 0, 64, 1, 0, 1, 1;

    for my $case ([ t => '' ], [ t => 'hello' ], [ r => 'hello' ],
                  [ a => '' ], [ a => 'hello' ], [ a => 'x' x 41 ],
                  [ r => pack 'd<4', 1, 0, 1, 1 ],
                  [ t => "$whole " ],
                  [ t => "$whole ", r => pack 'd<4', 1, 0, 1, 1 ],
                  [ t => $whole, r => pack 'd<3', 1, 0, 1 ],
                  [ t => 'x' x 56, r => pack 'd<4', 1, 0, 1, 1 ],
                  map { [ t => pack 'd<7', $Now, 0, 64, @$_ ],
                        [ t => $whole, r => pack 'd<4', @$_ ] }
                      [ -1, 0, 1, 1 ], [ 5e15, 0, 1, 1 ], [ 1, -1, 1, 1 ],
                      [ 1, 1e6, 1, 1 ], [ 1, 0, -1, 1 ], [ 1, 0, 5e15, 1 ],
                      [ 1, 0, 1, 0 ], [ 'nan', 0, 1, 1 ], [ 1, 'nan', 1, 1 ],
                      [ 1, 0, 'nan', 1 ], [ 1, 0, 1, 'nan' ])
    {
        fresh();
        $Redis->call('HSET', $Key, @$case);
        my $state = $Redis->call('HGETALL', $Key);

        like(failed('a', [ 1, 1, 10, 1 ]), qr/LLMSTATE/,
             'something else: ' . join ' ', map { unpack 'H*', $_ } @$case);
        is_deeply($Redis->call('HGETALL', $Key), $state, 'is left alone');
    }
}


sub no_memory {
    my $state;

    fresh();
    reserve('a', 0, [ 1, 1, 10, 1 ]);
    $state = $Redis->call('HGETALL', $Key);

    $Redis->call('CONFIG', 'SET', 'maxmemory', 1);
    like(failed('b', [ 1, 1, 10, 1 ]), qr/OOM/, 'no memory: an error');
    $Redis->call('CONFIG', 'SET', 'maxmemory', 0);

    is_deeply($Redis->call('HGETALL', $Key), $state, 'and nothing is taken');
}


# its own TIME, on a clock that nobody sets

sub real_clock {
    my ($answer, $took);
    my $tokens = [ 1000, 1, 1000, 1000 ];

    fresh();

    $took = Time::HiRes::time();
    $answer = $Redis->run('reserve', [ $Key ],
                          [ 'a', numbers(60000, -1, $tokens) ]);
    is_deeply([ @{$answer}[0, 1, 3] ], [ 1, 0, 0 ],
              'by the server\'s clock');

    Time::HiRes::sleep(0.3);
    $answer = $Redis->run('reserve', [ $Key ],
                          [ 'b', numbers(60000, -1, [ 1000, 1, 1000, 0 ]) ]);
    $took = 1000 * (Time::HiRes::time() - $took);

    cmp_ok($answer->[3], '>=', 300, 'it refills');
    cmp_ok($answer->[3], '<=', $took + 2, 'as fast as it says');
}


# effects are replicated, not the script: a replica has the same clock

sub replicated {
    my $replica = LlmRedis->start(
        server => $Redis->{server}, dir => "$Redis->{dir}-replica",
        args => [ '--replicaof', '127.0.0.1', $Redis->port ]);

    fresh();

    LlmRedis::await('the replica is linked', sub {
        $replica->call('INFO', 'replication') =~ /master_link_status:up/
    });

    reserve($_, 1e9, [ 7, 1, 100, 33 ], [ 1, 60, 10, 1 ]) for 'a' .. 'e';
    settle('b', 0, [ 7, 1, 100, 3 ]);

    $Redis->call('WAIT', 1, 30_000);

    is_deeply({ @{$replica->call('HGETALL', $Key)} },
              { @{$Redis->call('HGETALL', $Key)} },
              'a replica has the same budget, and charges');

    my $sha = $replica->call('SCRIPT', 'LOAD', LlmRedis::script('reserve'));
    my $error = $replica->error('EVALSHA', $sha, 1, $Key, 'z',
                                numbers(60000, -1, [ 1, 1, 10, 1 ]));

    like(substr($error, 0, 256), qr/READONLY/, 'a replica says so');

    $replica->stop;
}
