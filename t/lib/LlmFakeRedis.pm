# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmFakeRedis;

# A server that is almost Redis: it asks a real one, and passes its replies
# on as it is told to.
#
#     $fake = LlmFakeRedis->start(real => $redis, dir => ...);
#     $fake->does('doubled');           from the next reply on
#     $fake->does('mutated', seed => 7);
#     $fake->count;                     replies that it has spoiled
#
# What it does to a script's reply, or with all => 1 to every one:
#
#     real          nothing
#     says TEXT     says TEXT instead, \r and \n as such
#     doubled       says it twice
#     unsolicited   says one more thing that nobody asked for
#     bytewise      byte by byte, each in a packet of its own
#     late MS       so many milliseconds later
#     busy MS       has so long to do with each, one behind the other
#     silent        never answers
#     cut N         N bytes of it, then closes
#     closed        closes
#     mutated SEED  bytes of it are changed, lost, added, or numbers replaced
#     greets TEXT   says TEXT as soon as somebody connects
#     servers IP..  is a cluster of servers that have its port, and a slot each,
#                   the last one all others
#     stuck N       takes N bytes of what it is asked, answers none of it, is
#                   counted once, and takes nothing any more
#
# unix => 1: it listens there, where little lies between who writes and who
# reads.

use strict;
use warnings;

use File::Path qw( make_path );
use File::Spec;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use LlmPort qw( free_port );
use parent 'LlmServer';
use Socket qw( IPPROTO_TCP TCP_NODELAY );
use Time::HiRes qw( sleep time );

my @Numbers = qw( 0 -0 -1 1 2 7 8 9 00 127 65536 2147483647 2147483648
                  4294967296 4611686018427387904 9223372036854775807
                  -9223372036854775808 9223372036854775808
                  99999999999999999999999 1e9 );


sub start {
    my ($class, %options) = @_;
    my $self = bless { %options, port => free_port(1) }, $class;

    make_path($self->{dir});
    $self->put(count => 0);
    $self->does('real');

    # the path of a socket has 107 bytes at most

    if ($self->{unix}) {
        $self->{path} = File::Spec->tmpdir . "/llm-fake-$self->{port}.sock";
        unlink $self->{path};
    }

    $self->{listen} = $self->{unix}
        ? IO::Socket::UNIX->new(Local => $self->{path}, Listen => 64)
        : IO::Socket::INET->new(
              LocalAddr => '127.0.0.1', LocalPort => $self->{port},
              Proto => 'tcp', Listen => 64, ReuseAddr => 1);
    die "port $self->{port}: $!\n" if !$self->{listen};

    # the workers are another user's

    chmod 0777, $self->{path} if $self->{path};

    return $self->begin($self->{listen});
}


sub url {
    my ($self) = @_;

    return $self->{path} ? "unix:$self->{path}" : 'redis://' . $self->address;
}


sub does {
    my ($self, $what, %options) = @_;

    $self->{turn}++;
    $self->put(does => join "\n", $self->{turn}, $options{all} // 0, $what);
}


sub count { return $_[0]->get('count') || 0 }


sub stop {
    my ($self) = @_;

    $self->SUPER::stop;
    unlink $self->{path} if $self->{path} && $self->{owner} == $$;
}


# ---- in the child ---------------------------------------------------------

sub serve {
    my ($self, $parent) = @_;
    my $select = IO::Select->new($self->{listen});

    $self->{links} = {};
    $self->{late} = [];
    $self->{spoiled} = 0;

    while (kill 0, $parent) {
        for my $sock ($select->can_read(@{$self->{late}} ? 0.005 : 0.2)) {

            if ($sock == $self->{listen}) {
                $self->greet($select);

            } elsif (my $link = $self->{links}{$sock}) {
                $self->pass($select, $link, $sock);
            }
        }

        $self->say_late($select);
    }
}


sub greet {
    my ($self, $select) = @_;
    my $client = $self->{listen}->accept or return;
    my $real = IO::Socket::UNIX->new(Peer => $self->{real}{socket});
    my ($what, $text) = split / /, $self->task->{what}, 2;

    if (!$real) {
        close $client;
        return;
    }

    setsockopt $client, IPPROTO_TCP, TCP_NODELAY, 1 if !$self->{unix};

    my $link = { client => $client, real => $real, asked => '',
                 answered => '', commands => [] };

    $self->{links}{$_} = $link for $client, $real;
    $select->add($client, $real);

    if ($what eq 'greets') {
        syswrite $client, unescape($text);
        $self->spoil;
    }
}


sub part {
    my ($self, $select, $link) = @_;

    for my $sock ($link->{client}, $link->{real}) {
        delete $self->{links}{$sock};
        $select->remove($sock);
        close $sock;
    }

    $link->{closed} = 1;
}


sub pass {
    my ($self, $select, $link, $sock) = @_;

    if ($sock == $link->{client} && $self->task->{what} =~ /^stuck (\d+)/) {
        $self->take($select, $link, $1);
        return;
    }

    my $n = sysread $sock, my $bytes, 65536;

    if (!$n) {
        $self->part($select, $link);
        return;
    }

    if ($sock == $link->{client}) {
        $link->{asked} .= $bytes;

        # what is a script is remembered: its reply is the one to spoil

        while (defined(my $command = cut_reply(\$link->{asked}))) {
            push @{$link->{commands}},
                 $command =~ /^\*\d+\r\n\$\d+\r\n(EVAL|CLUSTER)/i
                 ? uc $1 : '';
            syswrite $link->{real}, $command;
        }

        return;
    }

    $link->{answered} .= $bytes;

    while (!$link->{closed}
           && defined(my $reply = cut_reply(\$link->{answered})))
    {
        my $command = shift @{$link->{commands}};
        my $task = $self->task;

        if ($task->{what} =~ /^servers (.*)/) {
            syswrite $link->{client},
                     $command eq 'CLUSTER' ? $self->slots(split / /, $1)
                                           : $reply;

        } elsif ($command eq 'EVAL' || $task->{all}) {
            $self->answer($select, $link, $task->{what}, $reply);
        } else {
            syswrite $link->{client}, $reply;
        }
    }
}


sub slots {
    my ($self, @servers) = @_;
    my $slot = 0;

    return '*' . @servers . "\r\n" . join '', map {
        my $last = $slot == $#servers ? 16383 : $slot;

        sprintf "*3\r\n:%d\r\n:%d\r\n*2\r\n\$%d\r\n%s\r\n:%d\r\n", $slot++,
                $last, length, $_, $self->{port}
    } @servers;
}


sub take {
    my ($self, $select, $link, $bytes) = @_;
    my $n = sysread $link->{client}, my $taken, 16384;

    if (!$n) {
        $self->part($select, $link);
        return;
    }

    $link->{taken} += $n;

    if ($link->{taken} >= $bytes) {
        $select->remove($link->{client});
        $self->spoil;
    }
}


sub task {
    my ($self) = @_;
    my %task;

    @task{qw( turn all what )} = split /\n/, $self->get('does'), 3;

    return \%task;
}


sub spoil {
    my ($self) = @_;

    $self->put(count => ++$self->{spoiled});
}


sub answer {
    my ($self, $select, $link, $task, $reply) = @_;
    my ($what, $how) = split / /, $task, 2;
    my $client = $link->{client};

    if ($what eq 'real' || $what eq 'greets') {
        syswrite $client, $reply;
        return;
    }

    # counted before it is said: who has got it may ask for the count

    $self->spoil;

    if ($what eq 'says') {
        syswrite $client, unescape($how);

    } elsif ($what eq 'doubled') {
        syswrite $client, $reply . $reply;

    } elsif ($what eq 'unsolicited') {
        syswrite $client, $reply;
        sleep 0.02;
        syswrite $client, ":1\r\n";

    } elsif ($what eq 'bytewise') {
        for my $byte (split //, $reply) {
            syswrite $client, $byte;
            sleep 0.0002;
        }

    } elsif ($what eq 'late') {
        push @{$self->{late}}, [ time + $how / 1000, $link, $reply ];

    } elsif ($what eq 'busy') {
        sleep $how / 1000;
        syswrite $client, $reply;

    } elsif ($what eq 'cut') {
        syswrite $client, substr $reply, 0, $how;
        $self->part($select, $link);

    } elsif ($what eq 'closed') {
        $self->part($select, $link);

    } elsif ($what eq 'mutated') {
        syswrite $client, mutate($reply, $how + $self->{spoiled});

    } elsif ($what ne 'silent') {
        die "unknown: $what\n";
    }
}


sub say_late {
    my ($self, $select) = @_;

    while (@{$self->{late}} && $self->{late}[0][0] <= time) {
        my (undef, $link, $reply) = @{shift @{$self->{late}}};

        syswrite $link->{client}, $reply if !$link->{closed};
    }
}


sub unescape {
    my ($text) = @_;

    $text =~ s/\\r/\r/g;
    $text =~ s/\\n/\n/g;

    return $text;
}


# the same for the same seed

sub mutate {
    my ($reply, $seed) = @_;

    srand $seed;

    for (0 .. int rand 3) {
        my $at = int rand(1 + length $reply);
        my $kind = int rand 8;

        if ($kind == 0) {
            substr($reply, $at, 1) = chr int rand 256;

        } elsif ($kind == 1) {
            substr($reply, $at, 1 + rand 4) = '';

        } elsif ($kind == 2) {
            substr($reply, $at, 0) = join '', map { chr int rand 256 }
                                              0 .. rand 6;

        } elsif ($kind == 3) {
            $reply = substr($reply, 0, $at) . $reply;

        } elsif ($kind == 4) {
            substr($reply, $at, 1) = (split //, "*\$+-:%~_,#\r\n")[rand 12];

        } elsif ($kind == 5) {
            my @places = grep { substr($reply, $_) =~ /^-?\d+/ }
                              0 .. length($reply) - 1;
            my $place = $places[rand @places] // next;

            $reply = replace_number($reply, $place);

        } elsif ($kind == 6) {
            $reply = substr $reply, 0, $at;

        } else {
            $reply =~ s/\r\n/\n/;
        }
    }

    return $reply;
}


sub replace_number {
    my ($reply, $place) = @_;
    my $number = $Numbers[rand @Numbers];

    return $reply =~ s/^(.{$place})-?\d+/$1$number/sr;
}


# Takes one whole reply or command off the front of the text; undef: it is
# not whole yet.

sub cut_reply {
    my ($text) = @_;
    my $end = reply_end($$text, 0) // return;
    my $reply = substr $$text, 0, $end;

    substr($$text, 0, $end) = '';

    return $reply;
}


sub reply_end {
    my ($text, $at) = @_;
    my $eol = index $text, "\r\n", $at;

    return if $eol < 0;

    my $kind = substr $text, $at, 1;
    my $rest = substr $text, $at + 1, $eol - $at - 1;
    my $end = $eol + 2;

    if ($kind eq '$' && $rest >= 0) {
        $end += $rest + 2;
        return if $end > length $text;

    } elsif ($kind eq '*') {
        for (1 .. $rest) {
            $end = reply_end($text, $end) // return;
        }
    }

    return $end;
}


1;
