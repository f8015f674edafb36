# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# What the scripts of src/redis answer and take, in a real server, without
# nginx.

use strict;
use warnings;

use lib 't/lib';

use LlmScripts;
use Math::BigInt;
use Test::More;

my $Hour = 3600 * 1000 * 1000;
my $Start = 1_790_000_000 * 1000 * 1000;


each_server(sub {
    table();
    repeated();
    ended();
    given_up();
    raised();
    leased();
    plan_changes();
    clock_is_set();
    never_drifts();
});

done_testing();


sub table {
    my $minute = 60 * 1000 * 1000;

    # us since the start, wait, cost => status, delay, level, full in

    my %tables = (
        'one token a second, a burst of 10' => [ [ 1, 1, 10 ],
            [ 0, 0, 4, 1, 0, 6, 4_000_000 ],
            [ 0, 0, 6, 1, 0, 0, 10_000_000 ],
            [ 0, 0, 1, 0, 1_000_000, 0, 10_000_000 ],
            [ 999_999, 0, 1, 0, 1, 0, 9_000_001 ],
            [ 1_000_000, 0, 1, 1, 0, 0, 10_000_000 ],
            [ 1_000_000, 3_000_000, 3, 1, 3_000_000, -3, 13_000_000 ],
            [ 1_000_000, 3_000_000, 1, 0, 4_000_000, -3, 13_000_000 ],
            [ 1_000_000, 0, 0, 0, 3_000_000, -3, 13_000_000 ],
            [ 1_000_000, 0, 11, 0, -1, -3, 13_000_000 ],
            [ 30 * $minute, 0, 10, 1, 0, 0, 10_000_000 ],
        ],

        '100k a minute' => [ [ 100_000, 60, 50_000 ],
            [ 0, 0, 50_000, 1, 0, 0, 30_000_000 ],
            [ 0, 0, 1, 0, 600, 0, 30_000_000 ],
            [ 599, 0, 1, 0, 1, 0, 29_999_401 ],
            [ 600, 0, 1, 1, 0, 0, 30_000_000 ],
            [ 60_000_600, 0, 50_001, 0, -1, 50_000, 0 ],
        ],

        'one token a day' => [ [ 1, 86400, 2 ],
            [ 0, 0, 2, 1, 0, 0, 2 * 86_400_000_000 ],
            [ 86_399_999_999, 0, 1, 0, 1, 0, 86_400_000_001 ],
            [ 86_400_000_000, 0, 1, 1, 0, 0, 2 * 86_400_000_000 ],
            [ 86_400_000_001, 0, 1, 0, 86_399_999_999, 0, 172_799_999_999 ],
        ],

        '10^12 a second' => [ [ 1e12, 1, 1e12 ],
            [ 0, 0, 1e12, 1, 0, 0, 1_000_000 ],
            [ 1, 0, 1_000_001, 0, 1, 1_000_000, 999_999 ],
            [ 1, 0, 1_000_000, 1, 0, 0, 1_000_000 ],
        ],

        '10^12 a day' => [ [ 1e12, 86400, 1e12 ],
            [ 0, 0, 1e12, 1, 0, 0, 86_400_000_000 ],
            [ 86_400, 0, 1_000_001, 0, 1, 1_000_000, 86_399_913_600 ],
            [ 86_400, 0, 1_000_000, 1, 0, 0, 86_400_000_000 ],
        ],
    );

    for my $name (sort keys %tables) {
        my ($rate, @steps) = @{$tables{$name}};
        my (@got, @want, $n);

        fresh();

        for my $step (@steps) {
            my ($at, $wait, $cost, @rest) = @$step;

            $Now = $Start + $at;
            my $answer = reserve(++$n, $wait,
                                 [ map { num($_) } @$rate, $cost ]);

            push @got, join ' ', @{$answer}[0, 1, 3, 5];
            push @want, join ' ', map { num($_) } @rest;
        }

        is_deeply(\@got, \@want, $name);
    }
}


sub repeated {
    my @tokens = (1, 1, 10, 10);

    fresh();
    reserve('a', 0, \@tokens);

    my $first = reserve('b', 20_000_000, \@tokens, [ 1, 1, 5, 1 ]);
    my $state = $Redis->call('HGETALL', $Key);
    my $second = reserve('b', 20_000_000, \@tokens, [ 1, 1, 5, 1 ]);

    is_deeply($second, $first, 'reserved again: the same answer');
    is_deeply($Redis->call('HGETALL', $Key), $state,
              'and nothing more is taken');

    $Now += 4_000_000;
    is(reserve('b', 0, \@tokens)->[1], 6_000_000,
       'later: what is left of its delay');

    $Now += 20_000_000;
    is_deeply([ @{reserve('b', 0, \@tokens)}[0 .. 2] ], [ 1, 0, 0 ],
              'and then none');

    my $no = reserve('c', 0, [ 1, 1, 10, 11 ]);
    is($no->[0], 0, 'a rejection');
    is($Redis->call('HEXISTS', $Key, 'c'), 0, 'leaves nothing behind');
}


sub ended {
    my @requests = (1, 60, 5, 1);

    fresh();
    reserve('a', 0, [ 1, 1, 100, 90 ], \@requests);

    is_deeply(settle('a', 0, [ 1, 1, 100, 30 ], \@requests), [ 1, 70, 4 ],
              'settled to less: the rest is given back');
    is($Redis->call('HEXISTS', $Key, 'a'), 0, 'the charge is gone');
    is_deeply(settle('a', 0, [ 1, 1, 100, 0 ], \@requests), [ 0, 0, 0 ],
              'settled again: nothing');
    is(reserve('b', 0, [ 1, 1, 100, 70 ], \@requests)->[3], 0,
       'it has moved nothing');

    is_deeply(settle('b', 0, [ 1, 1, 100, 170 ], \@requests), [ 1, -100, 3 ],
              'settled to more: into debt');

    reserve('c', 900_000_000, [ 1, 1, 100, 50 ], \@requests);
    is_deeply(settle('c', 0, [ 1, 1, 100, 0 ], [ 1, 60, 5, 0 ]),
              [ 1, -100, 3 ], 'abandoned: the request, too');

    $Now += $Hour;
    reserve('d', 0, [ 1, 1, 100, 50 ]);
    $Now += $Hour;
    is(settle('d', 0, [ 1, 1, 100, 0 ])->[1], 100, 'never more than full');
}


# the answer never came, or came too late

sub given_up {
    my @tokens = (1, 1, 100, 60);

    fresh();

    is_deeply(settle('a', 1, [ 1, 1, 100, 0 ]), [ 0, 0, 0 ],
              'given up before it came');
    is_deeply([ @{reserve('a', 0, \@tokens)}[0, 3] ], [ 2, 100 ],
              'a reserve that comes late takes nothing');

    reserve('b', 0, \@tokens);
    is(settle('b', 1, [ 1, 1, 100, 0 ])->[1], 100,
       'given up after it came: all is back');
    is(reserve('b', 0, \@tokens)->[0], 2, 'and a repeated one takes nothing');
    is_deeply(settle('b', 1, \@tokens), [ 0, 0, 0 ], 'nor can it be settled');

    $Now += 61_000_000;
    is(reserve('b', 0, \@tokens)->[0], 1, 'that is forgotten after a while');
}


sub raised {
    my @tokens = (1, 1, 100);
    my $raise = sub {
        my ($need, $least, $most) = @_;

        return ask('raise', 'a', numbers(60000, -1, [ @tokens, $need ], undef,
                                         $least, $most));
    };

    fresh();
    reserve('a', 0, [ 1, 1, 100, 20 ]);

    is_deeply($raise->(8, 0, 64), [ 1, 9, 0 ],
              'raised by what is needed and an eighth of what is left');
    is_deeply($raise->(8, 0, 4), [ 1, 4, 0 ],
              'at most');
    is_deeply($raise->(70, 5, 64), [ 1, 5, 24_000_000 ],
              'at least, into debt');
    is(settle('a', 0, [ 1, 1, 100, 30 ])->[1], 70,
       'all that was raised is part of the charge');
    is_deeply($raise->(8, 0, 64), [ 0, 64, 0 ],
              'an ended one is not raised');
}


sub leased {
    my @tokens = (1, 1, 100);
    my @requests = (1, 1, 10);

    fresh();

    my $first = lease('a', [ @tokens, 40 ], [ @requests, 4 ]);
    is_deeply([ @{$first}[0 .. 4] ], [ 1, 40, 4, 60, 6 ], 'a lease');
    is_deeply(lease('a', [ @tokens, 40 ], [ @requests, 4 ]), $first,
              'asked again: the same answer, nothing more is taken');

    is_deeply([ @{lease('b', [ @tokens, 80 ], [ @requests, 4 ], 10, 1)}
                [1 .. 4] ], [ 50, 4, 0, 1 ],
              'debts first, then what is there');
    is_deeply([ @{lease('b', [ @tokens, 80 ], [ @requests, 4 ], 10, 1)}
                [1 .. 2] ], [ 50, 4 ], 'asked again: without the debts');
    is(lease('c', [ @tokens, 40 ], [ @requests, 4 ])->[2], 0,
       'no requests without tokens');

    is(lease('d', [ @tokens, -30 ], [ @requests, -3 ])->[3], 30,
       'given back');
    is_deeply([ @{lease('d', [ @tokens, -30 ], [ @requests, -3 ])}[3, 4] ],
              [ 30, 4 ], 'and again: nothing moves');

    is_deeply([ @{settle('b', 1, [ @tokens, 0 ], [ @requests, 0 ])}[1, 2] ],
              [ 90, 9 ], 'one whose answer was lost is undone, debts too');
    is(lease('b', [ @tokens, 40 ], [ @requests, 4 ])->[1], 0,
       'and gives nothing when it comes late');
    is(lease('e', [ @tokens, 0 ], [ @requests, 0 ], 95, 0)->[3], -5,
       'only debts: into debt if need be');
    is_deeply([ @{lease('f', [ @tokens, 9 ], [ 0, 1, 0, 0 ])}[1, 2] ],
              [ 0, 0 ], 'nothing of what is not there');
}


# tokens that are not refilled yet stay as many as they were

sub plan_changes {
    fresh();
    reserve('a', 0, [ 60, 60, 100, 100 ]);

    $Now += 30_000_000;
    is_deeply([ @{reserve('b', 0, [ 3600, 3600, 1000, 0 ])}[3, 5] ],
              [ 930, 70_000_000 ], 'the old rate until now');

    $Now += 500_000;
    reserve('c', 0, [ 1, 1, 1000, 0 ]);
    $Now += 500_000;
    is(reserve('d', 0, [ 10, 10, 1000, 0 ])->[3], 931,
       'half tokens are not lost');

    is_deeply([ @{reserve('e', 0, [ 0, 1, 0, 0 ], [ 5, 1, 5, 1 ])}[0, 4] ],
              [ 1, 4 ], 'a budget that does not apply is not in the way');
    is(reserve('f', 0, [ 10, 10, 1000, 0 ])->[3], 931, 'and is kept');
}


# an hour back and forth: no mass rejection, no free refill

sub clock_is_set {
    my @tokens = (10, 1, 1000);

    for my $set (-$Hour, $Hour) {
        my $name = $set < 0 ? 'an hour back' : 'an hour forward';

        fresh();
        reserve('a', 0, [ @tokens, 900 ]);

        # the node has been here half a second ago, by its own clock

        $Now += $set + 500_000;
        $Since = 500_000;

        my $level = reserve('b', 0, [ @tokens, 0 ])->[3];

        cmp_ok($level, '<=', 105, "$name: no free refill");
        cmp_ok($level, '>=', 100, "$name: nothing is lost");
        is(reserve('c', 0, [ @tokens, 100 ])->[0], 1, "$name: no rejection");

        $Now += 10_000_000;
        $Since = 10_000_000;
        is(reserve('d', 0, [ @tokens, 100 ])->[0], 1,
           "$name: it refills from there on");
        is(reserve('e', 0, [ @tokens, 100 ])->[0], 0,
           "$name: at its rate");
    }

    # several nodes: each knows of its own last visit only

    fresh();
    reserve('a', 0, [ @tokens, 1000 ]);
    $Now += $Hour;
    $Since = 2_000_000;
    is(reserve('b', 0, [ @tokens, 0 ])->[3], 20, 'another node, 2 s ago');
    $Now += 1_000_000;
    $Since = 3_000_000;
    is(reserve('c', 0, [ @tokens, 0 ])->[3], 30, 'and a third one, 3 s ago');
}


# a bucket of many small charges is where one of one charge is

sub never_drifts {
    my @cases = (
        # rate, period, burst, cost, us between
        [ 1, 86400, 3, 1, 86_400_000_000 - 1 ],
        [ 7, 86400, 100, 1, 12_342_857_141 ],
        [ 1e9, 1, 1e9, 333_333_333, 333_333 ],
        [ 999_999_999_999, 1, 1e12, 7_000_001, 7 ],
        [ 100_000, 60, 50_000, 3, 1799 ],
        [ 1_000_000_007, 3600, 1e9, 1, 1 ],
    );

    for my $case (@cases) {
        my ($rate, $period, $burst, $cost, $step) = @$case;
        my $name = num($rate) . "/${period}s";
        my ($exact, $got, $n) = (undef, undef, 500);

        # in debt from the start, so that it never is full meanwhile

        fresh();
        owe($rate, $period, $burst, $burst * 4);

        for (1 .. $n) {
            $Now += $step;
            owe($rate, $period, $burst, $cost);
        }

        $exact = Math::BigInt->new(num($burst * 4))
                     ->badd(Math::BigInt->new($cost)->bmul($n))
                     ->bmul($period)->bmul(1_000_000)
                     ->bsub(Math::BigInt->new($step)->bmul($n)
                                ->bmul(num($rate)));

        $got = reserve('z', 0, [ num($rate), $period, num($burst), 0 ]);

        is($got->[5], full($exact, Math::BigInt->new(num($rate))),
           "$name: nothing drifts in $n charges");
    }
}


# takes so many, be it into debt

sub owe {
    my ($rate, $period, $burst, $cost) = @_;

    lease('debt', [ num($rate), $period, num($burst), 0 ], [ 0, 1, 0, 0 ],
          num($cost), 0);
    $Redis->call('HDEL', $Key, 'debt');
}
