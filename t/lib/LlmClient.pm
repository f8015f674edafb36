# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmClient;

# Clients that stream at the same time, in one process and without threads.
#
#     $client = LlmClient->open($port, sim => 'tokens=100; itl=20');
#     $client->header('X-Server');        waits for the response's header
#     $client->finish;                    reads to the end
#     $client->close;                     leaves in mid-stream
#     $client->{first}                    seconds until the first content
#
#     @clients = LlmClient::load($port, $requests, $at_once, %options);
#
# Options: sim, the faults and times that llm-sim is asked for; headers, a
# hash; path; body; http2, the same by curl and HTTP/2 without TLS.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use Time::HiRes qw( time );

our $Timeout = 60;


sub open {
    my ($class, $port, %options) = @_;
    my ($body, $path, $self, $sock, $start, %headers);

    return $class->open_http2($port, %options) if $options{http2};

    $sock = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                  PeerPort => $port, Proto => 'tcp')
        or die "connect to port $port: $!\n";

    $body = $options{body} // '{"model":"sim","stream":true,"messages":'
                              . '[{"role":"user","content":"hello"}]}';
    $path = $options{path} // '/v1/chat/completions';

    %headers = (Host => 'localhost', Connection => 'close',
                'Content-Type' => 'application/json',
                'Content-Length' => length $body,
                'X-LLM-Sim' => $options{sim} // 'tokens=8',
                %{$options{headers} // {}});

    $start = time;
    $sock->syswrite("POST $path HTTP/1.1\r\n"
                    . join('', map { "$_: $headers{$_}\r\n" }
                                   sort keys %headers)
                    . "\r\n$body");
    $sock->blocking(0);

    $self = { sock => $sock, raw => '', start => $start };

    return bless $self, $class;
}


# curl's output, the response's header included

sub open_http2 {
    my ($class, $port, %options) = @_;
    my ($body, $path, $pid, $sock, $start, %headers);

    $body = $options{body} // '{"model":"sim","stream":true,"messages":'
                              . '[{"role":"user","content":"hello"}]}';
    $path = $options{path} // '/v1/chat/completions';

    %headers = ('Content-Type' => 'application/json',
                'X-LLM-Sim' => $options{sim} // 'tokens=8',
                %{$options{headers} // {}});

    $start = time;
    $pid = CORE::open $sock, '-|', 'curl', '-sNi', '--http2-prior-knowledge',
                '--data-binary', $body,
                (map { ('-H', "$_: $headers{$_}") } sort keys %headers),
                "http://127.0.0.1:$port$path"
        or die "curl: $!\n";

    $sock->blocking(0);

    return bless { sock => $sock, raw => '', start => $start, pid => $pid,
                   http2 => 1 }, $class;
}


# reads what is there; false when nothing more will come

sub pump {
    my ($self) = @_;
    my ($again, $n, $now);

    return 0 if !$self->{sock};

    $now = time;

    do {
        $n = $self->{sock}->sysread($self->{raw}, 65536, length $self->{raw});
    } while ($n);

    $again = !defined $n && $!{EAGAIN};

    if (!defined $self->{first} && $self->{raw} =~ /"content":"[^"]/) {
        $self->{first} = $now - $self->{start};
    }

    return 1 if $again;

    $self->{over} = 1;
    $self->close;

    return 0;
}


sub close {
    my ($self) = @_;

    return if !$self->{sock};

    # one that leaves in mid-stream is to do so at once

    kill 'KILL', $self->{pid} if $self->{pid} && !$self->{over};

    {
        local ($?, $!);

        $self->{sock}->close;
        $self->{exit} = $? if $self->{pid};
    }

    $self->{sock} = undef;
    $self->{seconds} = time - $self->{start};
}


# reads from all clients until none is left that wants more

sub await {
    my ($wants, @clients) = @_;
    my ($deadline, $select);

    $deadline = time + $Timeout;

    for ( ;; ) {
        @clients = grep { $_->{sock} && $wants->($_) } @clients;
        return if !@clients;

        die "no answer within $Timeout s\n" if time > $deadline;

        $select = IO::Select->new(map { $_->{sock} } @clients);
        $select->can_read(0.2);

        $_->pump for @clients;
    }
}


sub await_header {
    await(sub { $_[0]{raw} !~ /\r\n\r\n/ }, @_);
}


sub await_end {
    await(sub { 1 }, @_);
}


sub header {
    my ($self, $name) = @_;

    await_header($self);

    return $self->{raw} =~ /^\Q$name\E: ([^\r\n]*)/mi ? $1 : undef;
}


# 0 where there was no response at all

sub status {
    my ($self) = @_;

    await_header($self);

    return $self->{raw} =~ m{^HTTP/[\d.]+ (\d+)} ? $1 : 0;
}


sub finish {
    my ($self) = @_;

    await_end($self);

    return $self;
}


sub body {
    my ($self) = @_;
    my ($body) = $self->{raw} =~ /\r\n\r\n(.*)/s;

    return $body // '';
}


# without the framing of its chunks

sub content {
    my ($self) = @_;
    my ($body, $content) = ($self->body, '');

    return $body if $self->{http2};

    while ($body =~ /\G([0-9a-f]+)\r\n/gc) {
        $content .= substr $body, pos($body), hex $1;
        pos($body) = pos($body) + hex($1) + 2;

        last if pos($body) > length $body;
    }

    return $content;
}


# the transport ended as it should

sub clean {
    my ($self) = @_;

    return $self->{http2} ? $self->{exit} == 0
                          : $self->body =~ /\r\n0\r\n\r\n$/;
}


# the answer ended with its terminal marker, and its transport cleanly

sub complete {
    my ($self) = @_;

    return $self->body =~ /data: \[DONE\]/ && $self->clean;
}


# so many requests, so many of them at once, each new one when one has ended

sub load {
    my ($port, $requests, $at_once, %options) = @_;
    my (@clients, @live, $select);

    while (@clients < $requests || @live) {

        while (@live < $at_once && @clients < $requests) {
            push @live, LlmClient->open($port, %options);
            push @clients, $live[-1];
        }

        $select = IO::Select->new(map { $_->{sock} } @live);

        die "no answer within $Timeout s\n" if !$select->can_read($Timeout);

        @live = grep { $_->pump } @live;
    }

    return @clients;
}


1;
