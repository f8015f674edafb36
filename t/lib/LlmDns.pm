# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmDns;

# A name server on 127.0.0.1 that knows one thing: the addresses that every
# name has at the moment.
#
#     $dns = LlmDns->start(dir => ...);
#     $dns->knows('127.0.0.1', '127.0.0.2');  from now on; none: NXDOMAIN
#     $dns->address;                          for nginx's "resolver"

use strict;
use warnings;

use File::Path qw( make_path );
use IO::Select;
use IO::Socket::INET;
use parent 'LlmServer';
use Socket qw( inet_aton );

use constant { TYPE_A => 1, CLASS_IN => 1, NXDOMAIN => 3, TTL => 1 };


sub start {
    my ($class, %options) = @_;
    my $self = bless { %options }, $class;

    make_path($self->{dir});
    $self->knows();

    $self->{sock} = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
                                          LocalPort => 0, Proto => 'udp')
        or die "no port for a name server: $!\n";
    $self->{port} = $self->{sock}->sockport;

    return $self->begin($self->{sock});
}


sub knows {
    my ($self, @addresses) = @_;

    $self->put(addresses => "@addresses");
}


# ---- in the child ---------------------------------------------------------

sub serve {
    my ($self, $parent) = @_;
    my $select = IO::Select->new($self->{sock});

    while (kill 0, $parent) {
        next if !$select->can_read(0.2);

        my $from = $self->{sock}->recv(my $query, 512) // next;
        my $reply = $self->answer($query) // next;

        $self->{sock}->send($reply, 0, $from);
    }
}


# RFC 1035, 4.1: a header, the question as it came, an address each

sub answer {
    my ($self, $query) = @_;
    my ($end, $id, $question, $type, @addresses);

    return if length $query < 17;

    $end = index $query, "\0", 12;
    return if $end < 0 || length $query < $end + 5;

    $id = unpack 'n', $query;
    $question = substr $query, 12, $end + 5 - 12;
    ($type) = unpack 'n', substr $query, $end + 1, 2;

    @addresses = split ' ', $self->get('addresses');

    # of another type such a name has nothing, but it exists

    my @answers = $type == TYPE_A ? @addresses : ();
    my $flags = 0x8180 | (@addresses ? 0 : NXDOMAIN);

    return pack('n6', $id, $flags, 1, scalar @answers, 0, 0) . $question
           . join '', map { pack('n n n N n', 0xc00c, TYPE_A, CLASS_IN, TTL, 4)
                            . inet_aton($_) } @answers;
}


1;
