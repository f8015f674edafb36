# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmPair;

# An nginx of two workers in front of llm-sim, for HTTP/1.1 and HTTP/2.
#
#     $pair = LlmPair->start(location => 'llm_heartbeat 1s;',
#                            main => 'worker_shutdown_timeout 2s;',
#                            server => 'location /x/ { ... }',
#                            pass => 'llm');         the upstream's name
#     $client = $pair->open(http2 => 1, sim => ...);    see LlmClient
#     @lines = $pair->lines(2);     of the log, when there are so many: hashes
#                                   by names as in LlmBlock, and time, pid, n
#     $pair->await(sub { ... });    true when that becomes true in time
#     $pair->end('name', qr/.../);  no faults were logged, but for these
#
# The response's X-Id is $llm_id, X-Pid the worker's.

use strict;
use warnings;

use File::Path qw( remove_tree );
use Test::More ();
use LlmBlock ();
use LlmClient;
use LlmNginx;
use LlmStall;
use LlmTest ();


sub start {
    my ($class, %options) = @_;
    my ($format, $http, $self);

    LlmStall::start();
    LlmTest::sim_start();
    LlmTest::sim_reset();

    $self = bless { dir => "$ENV{TEST_NGINX_SERVROOT}-pair",
                    port => $ENV{TEST_NGINX_SERVER_PORT} }, $class;

    $format = join ' ', map { "$_=\$llm_$_" } @LlmBlock::Variables;

    # with sockets of their own both workers get requests

    $http = <<"END";
    log_format llm '$format status=\$status time=\$request_time pid=\$pid '
                   'n=\$http_x_n';
    @{[ $options{http} // '' ]}

    server {
        listen 127.0.0.1:$self->{port} reuseport;
        listen 127.0.0.1:@{[ $self->{port} + 1 ]} http2 reuseport;

        access_log logs/llm.log llm;

        @{[ $options{server} // '' ]}

        location / {
            llm_stream on;
            @{[ $options{location} // '' ]}
            add_header X-Id \$llm_id;
            add_header X-Pid \$pid;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://@{[ $options{pass}
                                   // '127.0.0.1:' . LlmTest::sim_port(1) ]};
        }
    }
END

    $self->{http} = $http;
    $self->{nginx} = LlmNginx->start(
        binary => LlmTest::nginx(), module => LlmTest::module(),
        dir => $self->{dir}, http => $http,
        main => 'worker_processes 2; ' . ($options{main} // ''));

    return $self;
}


sub open {
    my ($self, %options) = @_;

    return LlmClient->open($self->{port} + ($options{http2} ? 1 : 0),
                           %options);
}


# behind so many events

sub open_at {
    my ($self, $events, %options) = @_;
    my $client = $self->open(%options);

    LlmClient::await(sub { (() = $_[0]{raw} =~ /^data: /mg) < $events },
                     $client);

    return $client;
}


sub await {
    my ($self, $happened, $seconds) = @_;

    return LlmNginx::true_in_time($happened, $seconds);
}


sub lines {
    my ($self, $count) = @_;

    return $self->{nginx}->lines($count);
}


# one server with one seat, and one request a minute for each X-Key

sub start_to_wait {
    my ($class, %options) = @_;

    return $class->start(%options, pass => 'one', http => <<"END",
    llm_limit_zone \$http_x_key zone=w:1m requests=1/m requests_burst=1;
    log_format id '\$http_x_n \$llm_id';

    upstream one {
        server 127.0.0.1:@{[ LlmTest::sim_port(1) ]} max_conns=1;
        llm_least_inflight;
        llm_queue 10 timeout=1m;
    }
END
        location => 'llm_limit zone=w wait=1h; mirror /mirror;',
        server => ($options{server} // '') . <<'END');
        location = /mirror {
            internal;
            log_subrequest on;
            access_log logs/id.log id;
            return 204;
        }
END
}


# a stream that has the seat, one that waits in the queue for it, and one that
# waits for the request that the second one has taken; their X-N is as here

sub open_waiting {
    my ($self, %options) = @_;
    my @clients;

    for my $n (qw( seated queue limit )) {
        push @clients, $self->open(
            sim => 'tokens=5000', %options,
            headers => { 'X-N' => $n, 'X-Key' => $n eq 'seated' ? '' : 'k' });

        $clients[0]->header('X-Id');
        $self->await(sub { $self->waiting == $#clients });
    }

    return @clients;
}


# so many have waited so far, or still do

sub waiting {
    my ($self) = @_;

    return scalar $self->{nginx}->logged(
        qr/llm queue: waits|llm limit: delayed/);
}


# $llm_id by X-N, as a mirror tells it behind the limit, ahead of a response

sub ids {
    my ($self) = @_;

    CORE::open my $log, '<', "$self->{dir}/logs/id.log" or return;

    return map { split } <$log>;
}


# upstream has seen so many of its clients leave, within a second

sub aborted {
    my ($class, $name, $aborted) = @_;
    my $start = LlmStall::mark();
    my $stats = LlmTest::sim_await(aborted => $aborted, inflight => 0);

    Test::More::is($stats->{aborted}, $aborted, "$name: upstream was closed");
    Test::More::is($stats->{inflight}, 0, "$name: nothing goes on there");
    Test::More::cmp_ok(LlmStall::since($start), '<', 1,
                       "$name: within a second");

    return $stats;
}


sub end {
    my ($self, $name, $expected) = @_;

    Test::More::is_deeply([ $self->{nginx}->faults($expected) ], [],
                          "$name: no faults logged");

    $self->{nginx}->stop;

    remove_tree($self->{dir}) if Test::More->builder->is_passing;
}


1;
