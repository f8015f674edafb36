# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmQueue;

# What the suites of llm_queue share: an nginx with two workers, which have
# sockets of their own so that both get requests, in front of simulated
# servers; clients; and its log.  After "use LlmTest; use LlmQueue;"
#
#     start(servers => [1, 2], seats => 2, queue => '10', ...);
#     $client = ask($n, sim => 'tokens=4', ...);      LlmClient
#     @clients = hold($count, sim => ...);    with a seat each, until they leave
#     await_waiting($count);          so many have waited so far, since start
#     @lines = logged($count);        hashes, see the log_format below
#     end($name, qr/expected faults/);

use strict;
use warnings;

use Test::More ();

use LlmClient;
use LlmNginx;
use LlmTest ();

our ($Nginx, $Port, $PortH2, $Dir);

# a stream that ends only when its client leaves

our $Hold = 'tokens=100000; itl=50';

our $Body = '{"model":"sim","stream":true,"messages":'
            . '[{"role":"user","content":"hello"}]}';


sub import {
    no strict 'refs';

    for my $name (qw( start configure ask hold waiting await_waiting logged
                      await in_order end cpu_seconds ))
    {
        *{"main::$name"} = \&{"LlmQueue::$name"};
    }

    $Dir = "$ENV{TEST_NGINX_SERVROOT}-live";
    $Port = LlmTest::free_port(2);
    $PortH2 = $Port + 1;
}


# servers: numbers of simulated ones, or what stands in the upstream; seats:
# their max_conns; queue: parameters of llm_queue; location: more directives
# of "location /"; server, http: more of theirs; workers

sub configure {
    my (%options) = @_;
    my ($servers, $queue);

    $servers = $options{servers} // [ 1, 2 ];

    if (ref $servers) {
        $servers = join ' ', map {
            'server 127.0.0.1:' . LlmTest::sim_port($_)
            . ' max_conns=' . ($options{seats} // 2) . ';'
        } @$servers;
    }

    $queue = $options{queue} // '100 timeout=20s';

    return <<"END";
    @{[ $options{http} // '' ]}

    map \$msec \$sent { default \$msec; }

    log_format llm 'n=\$http_x_n key=\$http_x_key sent=\$sent '
                   'rt=\$upstream_response_time to=\$upstream_addr '
                   'wait=\$llm_queue_wait end=\$llm_end status=\$status '
                   'limit=\$llm_limit_status prompt=\$llm_prompt_tokens '
                   'completion=\$llm_completion_tokens '
                   'source=\$llm_usage_source pid=\$pid';

    upstream llm {
        $servers
        llm_least_inflight;
        llm_queue $queue;
    }

    server {
        listen 127.0.0.1:$Port reuseport;
        listen 127.0.0.1:$PortH2 http2;

        access_log logs/llm.log llm;

        llm_stream on;
        proxy_http_version 1.1;
        proxy_set_header Connection "";

        # evaluated when the request to upstream is made

        proxy_set_header X-Sent \$sent;

        location / {
            @{[ $options{location} // '' ]}
            proxy_pass http://@{[ $options{pass} // 'llm' ]};
        }

        @{[ $options{server} // '' ]}
    }
END
}


sub start {
    my (%options) = @_;

    LlmTest::sim_reset();

    $Nginx = LlmNginx->start(binary => LlmTest::nginx(),
                             module => LlmTest::module(), dir => $Dir,
                             main => 'worker_processes '
                                     . ($options{workers} // 2) . ';',
                             http => configure(%options));

    return $Nginx;
}


sub ask {
    my ($n, %options) = @_;

    return LlmClient->open($Port, body => $options{body} // $Body,
                           sim => $options{sim} // 'tokens=4; itl=1',
                           path => $options{path} // '/v1/chat/completions',
                           headers => { 'X-N' => $n,
                                        'X-Key' => $options{key} // '' });
}


# one after the other: of two that come at once in two workers one may find
# the other's seat counted twice for a moment, and wait that long

sub hold {
    my ($count, %options) = @_;
    my @clients;

    for (1 .. $count) {
        push @clients, ask(0, sim => $Hold, %options);
        $clients[-1]->status;
    }

    return @clients;
}


# so many that came have waited, or still wait

sub waiting {
    return scalar $Nginx->logged(qr/llm queue: waits/);
}


sub await_waiting {
    my ($count) = @_;

    await(sub { waiting() >= $count });

    Test::More::is(waiting(), $count, "$count wait") if waiting() != $count;
}


# the access log, as soon as it has so many lines

sub logged {
    my ($count) = @_;

    return $Nginx->lines($count);
}


# the numbers of those that were served, in the order in which they were sent

sub in_order {
    my @lines = sort { $a->{sent} <=> $b->{sent} }
                grep { $_->{end} eq 'done' } @_;

    return join ' ', map { $_->{n} } @lines;
}


sub await {
    my ($happened) = @_;

    return LlmNginx::true_in_time($happened);
}


sub cpu_seconds { return $Nginx->cpu_seconds }


# whatever was done: nothing is in flight, and no seat is lost

sub end {
    my ($name, $expected) = @_;

    Test::More::is_deeply([ $Nginx->faults($expected) ], [],
                          "$name: no faults logged");
    $Nginx->stop;
}


1;
