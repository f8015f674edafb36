# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmLatency;

# What a decision of Redis adds to the first token, beside one in this
# machine's memory, and beside what Redis costs anybody who asks it: a bare
# PING and EVAL "return 1" from a plain socket.
#
#     my @rows = measure(turns => 21, urls => { local => ..., tcp => ... },
#                        sockets => { tcp => ..., unix => ... },
#                        load => [ command and arguments of llm-load ]);
#     report(@rows);
#
# Each turn takes all of them at all paces, one behind the other, so that
# what else the machine does hits all alike.  A row is a pace; its numbers are
# microseconds: medians over the turns of a turn's median.

use strict;
use warnings;

use Exporter qw( import );
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP ();
use List::Util qw( shuffle );
use Socket qw( IPPROTO_TCP TCP_NODELAY );
use Time::HiRes qw( sleep time );

use LlmBench qw( median );

our @EXPORT_OK = qw( measure report );

# how requests come, as llm-load says it; how many in a turn, and for a plain
# socket how many a second, 0: one behind the other

my @PACES = (
    { name => '300 a second, at random', args => [ '--rate', 300 ],
      n => 90, rate => 300 },
    { name => '1000 a second, at random', args => [ '--rate', 1000 ],
      n => 200, rate => 1000 },
    { name => '2000 a second, at random', args => [ '--rate', 2000 ],
      n => 400, rate => 2000 },
    { name => 'one behind the other', args => [ '--concurrency', 1 ],
      n => 200, rate => 0 },
    { name => '4 at a time', args => [ '--concurrency', 4 ],
      n => 400, rate => undef },
);

my %COMMANDS = (
    ping => "*1\r\n\$4\r\nPING\r\n",
    eval => "*3\r\n\$4\r\nEVAL\r\n\$8\r\nreturn 1\r\n\$1\r\n0\r\n",
);


sub measure {
    my (%what) = @_;
    my @rows = map { { %$_ } } @PACES;

    for my $turn (0 .. $what{turns}) {
        for my $row (@rows) {
            my %p50;

            for my $kind (shuffle keys %{$what{urls}},
                                  sockets_of($row, %what))
            {
                my $url = $what{urls}{$kind};

                $p50{$kind} = $url ? first_token($row, $url, %what)
                                   : answer($row, $kind, %what);
            }

            # the first one warms up

            next if $turn == 0;

            for my $kind (keys %p50) {
                push @{$row->{us}{$kind}}, $p50{$kind};
                push @{$row->{added}{$kind}}, $p50{$kind} - $p50{local};
            }
        }
    }

    return @rows;
}


# "tcp ping", "tcp eval", ...: of a pace that a plain socket can have

sub sockets_of {
    my ($row, %what) = @_;

    return if !defined $row->{rate};

    return map { ("$_ ping", "$_ eval") } sort keys %{$what{sockets}};
}


sub first_token {
    my ($row, $url, %what) = @_;

    open my $out, '-|', @{$what{load}}, '--json', '--quiet', '--url', $url,
                        @{$row->{args}}, '--requests', $row->{n}
        or die "llm-load: $!\n";
    local $/;

    my $result = JSON::PP::decode_json(<$out>);

    die "only $result->{complete} of $row->{n} requests at $url\n"
        if $result->{complete} != $row->{n};

    return 1000 * $result->{first_token_ms}{p50};
}


sub answer {
    my ($row, $kind, %what) = @_;
    my ($where, $command) = split / /, $kind;
    my $socket = connect_to($what{sockets}{$where});
    my $text = $COMMANDS{$command};
    my @us;

    for (1 .. $row->{n}) {
        sleep(-log(1 - rand) / $row->{rate}) if $row->{rate};

        my $start = time;

        syswrite $socket, $text or die "Redis: $!\n";
        sysread $socket, my $reply, 64 or die "Redis: $!\n";

        push @us, 1e6 * (time - $start);

        die "Redis: $reply\n" if $reply =~ /^-/;
    }

    return median(@us);
}


sub connect_to {
    my ($where) = @_;
    my $socket = $where =~ m{^/} ? IO::Socket::UNIX->new(Peer => $where)
                                 : IO::Socket::INET->new(PeerAddr => $where);

    die "connect to $where: $!\n" if !$socket;

    setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1 if $where !~ m{^/};

    return $socket;
}


sub report {
    my (@rows) = @_;

    printf "%-26s %7s %7s %7s %7s %7s %9s %9s\n", 'us, medians', 'local',
           '+ tcp', '+ unix', 'PING', 'EVAL', 'PING unix', 'EVAL unix';

    for my $row (@rows) {
        printf "%-26s %7.0f %+7.0f %+7.0f %7s %7s %9s %9s\n", $row->{name},
               median(@{$row->{us}{local}}),
               (map { median(@{$row->{added}{$_}}) } qw( tcp unix )),
               map { $row->{us}{$_} ? sprintf '%.0f', median(@{$row->{us}{$_}})
                                    : '-' }
                   'tcp ping', 'tcp eval', 'unix ping', 'unix eval';
    }
}


1;
