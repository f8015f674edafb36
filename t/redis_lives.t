# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# Random lives of a bucket in Redis, compared with one in whole numbers of any
# size, answer by answer: they are equal, not nearly equal.
#
#     PROPERTY_SEED=7 PROPERTY_STEPS=100000 prove -It/lib t/redis_lives.t

use strict;
use warnings;

use lib 't/lib';

use LlmScripts;
use Math::BigInt;
use Test::More;

my $Seed = $ENV{PROPERTY_SEED} || 1;
my $Steps = $ENV{PROPERTY_STEPS} || 8000;


# time passes by months: no charge is to be forgotten

$Keep = 1e14;

each_server(sub {
    lives();
});

done_testing();


# Exact: in units of a token by the period in us, or a us by the rate.

sub lives {
    my (%seen, $failed);

    srand $Seed;

    for (my $n = 0; $n < $Steps && !$failed; $n += 40) {
        $failed = live(\%seen);
    }

    is($failed, undef, "random lives, PROPERTY_SEED=$Seed: "
                       . join ', ', map { "$seen{$_} $_" } sort keys %seen);

    ok(!grep({ ($seen{$_} // 0) < $Steps / 100 }
             qw( admitted waited rejected settled raised back )),
       'and all kinds of steps are among them');
}


sub live {
    my ($seen) = @_;
    my ($life, $period, $step);

    $period = (1, 60, 3600, 86400)[rand 4];

    $life = {
        rate => Math::BigInt->new(num(1 + rand((20, 1e6, 1e9, 1e12)[rand 4]))),
        period => $period,
        unit => Math::BigInt->new($period)->bmul(1_000_000),
        wait => rand(2) < 1 ? 0 : int(rand($period * 1e6)),
        exact => Math::BigInt->new(0),
        sum => Math::BigInt->new(0),
        passed => 0,
        holds => {},
        seen => $seen,
    };

    $life->{burst} = num(1 + rand(rand(2) < 1 ? 10 : $life->{rate}->numify));
    $life->{tokens} = [ "$life->{rate}", $period, $life->{burst} ];

    fresh();

    for $step (1 .. 40) {
        my $wrong;

        passes($life);

        if (%{$life->{holds}} && rand(3) < 1) {
            $wrong = ends_one($life);

        } elsif (%{$life->{holds}} && rand(8) < 1) {
            $wrong = raises_one($life);

        } else {
            $wrong = reserves_one($life, $step);
        }

        return "step $step of $Key: $wrong" if $wrong;
    }

    return;
}


# a clock that goes back refills nothing

sub passes {
    my ($life) = @_;
    my $kind = int rand 32;
    my $us = $kind == 0 ? int(rand(30 * 86400e6))
             : $kind < 4 ? -int(rand(1e9))
             : $kind < 9 ? 0 : int(rand($life->{period} * 1e6 / 8));

    $Now += $us;

    if ($us < 0) {
        $life->{seen}{back}++;
    } else {
        $life->{passed} += $us;
        moves($life, $life->{rate}->copy->bmul(-$us));
    }
}


sub moves {
    my ($life, $units) = @_;

    $life->{exact}->badd($units);
    $life->{exact}->bzero if $life->{exact}->is_neg;
}


sub takes {
    my ($life, $tokens) = @_;

    $life->{sum}->badd($tokens);
    moves($life, $tokens->copy->bmul($life->{unit}));
}


sub differs {
    my ($what, $got, $want) = @_;

    return if "$got" eq "$want";
    return "$what is $got, not $want";
}


sub ends_one {
    my ($life) = @_;
    my ($id) = keys %{$life->{holds}};
    my $held = delete $life->{holds}{$id};
    my $final = rand(4) < 1 ? num($held + 1 + rand(2 * $life->{burst}))
                            : num(rand($held + 1));

    my $answer = settle($id, 0, [ @{$life->{tokens}}, $final ]);

    takes($life, Math::BigInt->new($final)->bsub(num($held)));
    $life->{seen}{settled}++;

    return differs('level', $answer->[1], level($life));
}


sub raises_one {
    my ($life) = @_;
    my ($id) = keys %{$life->{holds}};
    my $need = num(1 + rand($life->{burst}));
    my $left = level($life)->bsub($need);
    my $ahead = Math::BigInt->new(0);

    if ($left->is_pos && !$left->is_zero) {
        $ahead = $left->bdiv(8);
        $ahead = Math::BigInt->new(1) if $ahead->is_zero;
        $ahead = Math::BigInt->new(64) if $ahead->bcmp(64) > 0;
    }

    my $answer = ask('raise', $id,
                     numbers($Keep, -1, [ @{$life->{tokens}}, $need ], undef,
                             0, 64));

    my $took = $ahead->copy->badd($need);

    takes($life, $took);
    $life->{holds}{$id} += $took->numify;
    $life->{seen}{raised}++;

    return differs('ahead', $answer->[1], $ahead);
}


sub reserves_one {
    my ($life, $id) = @_;
    my ($ahead, $at, $delay, $over);
    my $cost = num(rand($life->{burst} + 1));

    $cost = $life->{burst} if $cost > $life->{burst};

    $over = Math::BigInt->new($cost)->bsub($life->{burst})
                ->bmul($life->{unit})->badd($life->{exact});
    $delay = $over->is_neg ? 0 : full($over, $life->{rate});

    my $answer = reserve($id, $life->{wait}, [ @{$life->{tokens}}, $cost ]);

    return differs('delay', $answer->[1], $delay)
        if "$answer->[1]" ne "$delay";

    if ($delay > $life->{wait}) {
        $life->{seen}{rejected}++;
        return differs('status', $answer->[0], 0);
    }

    # Over any window at most rate * window + burst.  Windows end when the
    # tokens are there (the answer is rounded up, to a microsecond), and are
    # of what has passed: a clock that was set back adds nothing.

    $at = $life->{rate}->copy->bmul(num($life->{passed}));
    $at->badd($over) if !$over->is_neg;
    $ahead = $life->{sum}->copy->bmul($life->{unit})->bsub($at);

    if ($cost > 0 && (!$life->{least} || $ahead->bcmp($life->{least}) < 0)) {
        $life->{least} = $ahead->copy;
    }

    takes($life, Math::BigInt->new($cost));
    $life->{holds}{$id} = $cost;
    $life->{seen}{$delay > 0 ? 'waited' : 'admitted'}++;

    if ($cost > 0) {
        $ahead->badd(Math::BigInt->new($cost)->bmul($life->{unit}))
              ->bsub($life->{least});

        return 'more was taken than rate * window + burst'
            if $ahead->bcmp(Math::BigInt->new($life->{burst})
                                ->bmul($life->{unit})) > 0;
    }

    return differs('full in', $answer->[5],
                   full($life->{exact}, $life->{rate}));
}


# rounded down

sub level {
    my ($life) = @_;

    return scalar Math::BigInt->new($life->{burst})->bmul($life->{unit})
                      ->bsub($life->{exact})->bdiv($life->{unit});
}
