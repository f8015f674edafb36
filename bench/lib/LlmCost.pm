# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmCost;

# What an event costs a proxy, beside stock nginx:
#
#     my $cost = LlmCost->new(proxies => .., build => .., dir => ..,
#                             rounds => 5, turns => 9,
#                             events => 200);
#     $cost->cpu(@kinds);           in time of a processor, 32 streams at once
#     $cost->instructions(@kinds);  in user space, for an event that comes
#                                   alone
#
# Both print a line for each kind; "stock" is one of them.

use strict;
use warnings;

use List::Util qw( shuffle sum0 );

use LlmBench qw( await free_ports median start stop );
use LlmEvents qw( connected passed upstream );

use constant STREAMS => 32;


sub new {
    my ($class, %self) = @_;

    return bless { %self }, $class;
}


sub cpu {
    my ($self, @kinds) = @_;
    my $server = free_ports(1);
    my (%proxies, %us);

    start("$self->{dir}/sim.log", "$self->{build}/llm-sim", '--quiet',
          '--listen', "127.0.0.1:$server", '--itl-slope', 0,
          '--prefill', 1_000_000, '--batch', 65536);
    await($server, "$self->{dir}/sim.log");

    for my $kind (@kinds) {
        my $port = free_ports(1);

        $proxies{$kind} = { port => $port,
                            pid => $self->{proxies}->run($kind, $port,
                                                         $server) };
        $self->event_us($proxies{$kind});
    }

    # turns are short, and what else the machine does hits all alike

    for (1 .. $self->{rounds} * $self->{turns}) {
        push @{$us{$_}}, $self->event_us($proxies{$_}) for shuffle @kinds;
    }

    stop(1);
    $self->{proxies}->troubles($_) for @kinds;

    $self->print_us($_, $us{$_}, 'stock', $us{stock}) for @kinds;

    for my $peer (grep { $us{$_} } qw( haproxy lua )) {
        $self->print_us($_, $us{$_}, $peer, $us{$peer})
            for grep { $us{$_} } qw( module limited );
    }
}


# the median of the turns, of their ratios, and of those of each round

sub print_us {
    my ($self, $kind, $us, $name, $base) = @_;
    my @ratios = map { $us->[$_] / $base->[$_] } 0 .. $#$us;

    printf 'cpu       %-7s  %.2f us an event, %.3fx of %s; by round:', $kind,
           median(@$us), median(@ratios), $name;

    printf ' %.3f', median(splice @ratios, 0, $self->{turns}) while @ratios;
    print "\n";
}


sub event_us {
    my ($self, $proxy) = @_;
    my $events = $self->{events};
    my $before = used_us($proxy->{pid});

    open my $out, '-|', "$self->{build}/llm-load", '--quiet', '--url',
         "http://127.0.0.1:$proxy->{port}/v1/chat/completions",
         '--include-usage', '--concurrency', STREAMS, '--max-tokens', $events,
         '--header', "X-LLM-Sim: tokens=$events; itl=2"
        or die "llm-load: $!\n";
    () = <$out>;
    close $out or die "llm-load failed\n";

    return (used_us($proxy->{pid}) - $before) / STREAMS / $events;
}


# what a process has had of a processor, in user space and in the kernel

sub used_us {
    my ($pid) = @_;

    return sum0(map {
        open my $in, '<', $_ or die "$_: $!\n";
        (split ' ', <$in>)[0] / 1000;
    } glob "/proc/$pid/task/*/schedstat");
}


# What a run of more events has more than one of fewer: all else is the same.

sub instructions {
    my ($self, @kinds) = @_;
    my %events;

    if (system('valgrind --version > /dev/null 2>&1') != 0) {
        print "instructions  not counted: there is no valgrind\n";
        return;
    }

    for my $kind (@kinds) {
        my ($few, $many) = map { $self->counted($kind, $_) } 200, 1200;

        $events{$kind} = ($many - $few) / 1000;
        printf "instructions  %-7s  %.0f an event, %+.0f\n", $kind,
               $events{$kind}, $events{$kind} - $events{stock};
    }
}


sub counted {
    my ($self, $kind, $events) = @_;
    my $out = "$self->{dir}/callgrind.$kind.$events";
    my ($listen, $server) = upstream(1);

    $self->{proxies}->run($kind, $server + 1, $server, 'valgrind', '-q',
                          '--tool=callgrind', "--callgrind-out-file=$out");

    my $pair = connected($listen, $server + 1);

    passed($pair) for 1 .. $events;
    stop(1);

    open my $in, '<', $out or die "no counts: see $self->{dir}/$kind.log\n";

    for (<$in>) {
        return $1 if /^summary: (\d+)/;
    }

    die "no counts in $out\n";
}


1;
