# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmEvents;

# Streams of which this program is the client, and upstream, too, where an
# event at a time is to pass a proxy:
#
#     my $sock = ask($port, 'tokens=9', $header, $body);  a request, sent
#     my ($listen, $first) = upstream($n);  listens on a port behind which $n
#                                           are free
#     my $pair = connected($listen, $port, $body);  through the proxy there
#     my $us = passed($pair);  an event: told($pair), seen($pair)

use strict;
use warnings;

use Exporter qw( import );
use IO::Socket::INET;
use Socket qw( IPPROTO_TCP TCP_NODELAY );
use Time::HiRes qw( time );

use LlmBench qw( free_ports );

our @EXPORT_OK = qw( ask body connected passed seen told upstream );

my $Body = body('hello');

my $Event = 'data: {"id":"chatcmpl-1","object":"chat.completion.chunk",'
            . '"created":1700000000,"model":"sim","choices":[{"index":0,'
            . '"delta":{"content":" word"},"finish_reason":null}]}' . "\n\n";


sub body {
    return '{"model":"sim","stream":true,"messages":'
           . qq([{"role":"user","content":"$_[0]"}]});
}


# $header bytes of a header field; $sim is what llm-sim is to do

sub ask {
    my ($port, $sim, $header, $body) = @_;
    my $sock = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                     PeerPort => $port)
        or die "connect: $!\n";

    $body //= $Body;
    $sock->syswrite("POST /v1/chat/completions HTTP/1.1\r\n"
                    . "Host: localhost\r\nConnection: close\r\n"
                    . "Content-Type: application/json\r\nContent-Length: "
                    . length($body) . "\r\nX-Header: " . 'x' x ($header // 0)
                    . "\r\nX-LLM-Sim: $sim\r\n\r\n$body");

    return $sock;
}


sub upstream {
    my ($ports) = @_;
    my $first = free_ports(1 + $ports);
    my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 8,
                                       LocalPort => $first, ReuseAddr => 1)
        or die "listen: $!\n";

    return $listen, $first;
}


sub connected {
    my ($listen, $port, $body) = @_;
    my $client = ask($port, '', 0, $body);
    my $upstream = $listen->accept;
    my $request = '';

    setsockopt $upstream, IPPROTO_TCP, TCP_NODELAY, 1;

    until ($request =~ /^Content-Length: (\d+)\r.*?\r\n\r\n/ims
           && length($request) == $+[0] + $1)
    {
        $upstream->sysread($request, 65536, length $request)
            or die "no request\n";
    }

    $upstream->syswrite("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
                        . "Content-Type: text/event-stream\r\n\r\n");

    return { client => $client, upstream => $upstream };
}


sub passed {
    my ($pair) = @_;
    my $start = time;

    told($pair);

    seen($pair);

    return (time - $start) * 1e6;
}


sub told {
    $_[0]{upstream}->syswrite(sprintf "%x\r\n%s\r\n", length $Event, $Event);
}


sub seen {
    my ($pair) = @_;
    my $got = '';

    while (index($got, '}]}') < 0) {
        $pair->{client}->sysread($got, 65536, length $got)
            or die "the stream ended\n";
    }
}


1;
