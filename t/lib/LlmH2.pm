# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmH2;

# HTTP/2 by hand, as far as a test needs it: requests on a connection that
# stays, and resets of single streams.
#
#     $sock = LlmH2::connect($port);
#     $sock->syswrite(LlmH2::request(1, $body, 'x-llm-sim' => 'tokens=9'));
#     $sock->syswrite(LlmH2::cancel(1));

use strict;
use warnings;

use IO::Socket::INET;


# the preface and empty SETTINGS: RFC 9113, 3.4

sub connect {
    my ($port) = @_;
    my $sock;

    $sock = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                  PeerPort => $port, Proto => 'tcp')
        or die "connect to port $port: $!\n";

    $sock->syswrite("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . frame(4, 0, 0));

    return $sock;
}


# HEADERS of literals that are not indexed (RFC 7541, 6.2.2), and DATA

sub request {
    my ($stream, $body, %more) = @_;
    my ($fields, @fields);

    @fields = (':method' => 'POST', ':scheme' => 'http',
               ':path' => '/v1/chat/completions', ':authority' => 'localhost',
               'content-type' => 'application/json',
               map { $_ => $more{$_} } sort keys %more);

    $fields = '';

    while (my ($name, $value) = splice @fields, 0, 2) {
        $fields .= "\0" . pack('C/a*C/a*', $name, $value);
    }

    return frame(1, 4, $stream, $fields) . frame(0, 1, $stream, $body);
}


# RST_STREAM

sub cancel {
    my ($stream) = @_;

    return frame(3, 0, $stream, pack('N', 8));
}


# length, type, flags, stream: RFC 9113, 4.1

sub frame {
    my ($type, $flags, $stream, $payload) = @_;

    $payload //= '';

    return substr(pack('N', length $payload), 1)
           . pack('CCN', $type, $flags, $stream) . $payload;
}


1;
