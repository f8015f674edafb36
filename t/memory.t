# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# What a stream costs while nothing comes: the resident memory of a worker
# with some hundred silent streams, beside the same without the module's
# doing.  Headers of all sizes fill a pool's blocks differently, so that the
# mean is what a stream costs and not whether it just fits.
#
# Such a stream has less than one of stock nginx, as the 4 KB of its upstream
# buffer are another's meanwhile: 2,990 and 2,260 bytes were measured.  The
# bounds have some 600 to spare, as another nginx or allocator fills its blocks
# differently.  Who adds to a request's context, exchange or relay what an idle
# stream does not need will meet them.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmNginx;
use IO::Socket::INET;
use IO::Select;

my $Port = free_port(1);
my @Headers = map { 256 * $_ } 0 .. 15;
my $Rounds = 40;

my %Locations = (
    off => 'llm_stream off; proxy_buffering off;',
    on => 'llm_stream on;',
    limited => 'llm_stream on; llm_limit zone=t;'
);

my %Bounds = (on => -2400, limited => -1600);

my $Body = '{"model":"sim","stream":true,"messages":'
           . '[{"role":"user","content":"hello"}]}';

my ($Nginx, %Each);

sim_options('--itl', '1', '--itl-slope', '0', '--prefill', '1000000',
            '--batch', '65536', '--quiet');
sim_start();

for my $kind (qw( off on limited )) {
    $Each{$kind} = measured($kind);
}

for my $kind (sort keys %Bounds) {
    my $more = $Each{$kind} - $Each{off};

    diag(sprintf '%s: a silent stream costs %+d bytes', $kind, $more);

    cmp_ok($more, '<=', $Bounds{$kind}, "a stream's memory: $kind")
        unless sanitized();
}

pipelined();


# bytes of resident memory for each of many streams at once

sub measured {
    my ($kind) = @_;
    my ($before, $after, @streams, @warm);

    start($kind);

    # what a worker takes once is there behind the first ones

    @warm = map { silent($_) } @Headers, @Headers;
    $before = resident();
    @streams = map { silent($Headers[$_ % @Headers]) }
                   1 .. @Headers * $Rounds;
    $after = resident();

    is(scalar(grep { !defined } @streams), 0, "$kind - all streams began");
    is_deeply([ $Nginx->faults ], [], "$kind - nothing is amiss");

    close $_ for grep { defined } @streams, @warm;
    $Nginx->stop;

    return ($after - $before) / @streams;
}


# a request whose usage is asked for leaves alone what was sent behind it

sub pipelined {
    my ($got, $sock);

    start('on');

    $sock = connected();
    print $sock request('tokens=2', 'keep-alive', 0)
                . request('tokens=3', 'close', 0);

    $got = read_until($sock, sub { 0 });

    is(() = $got =~ m{^HTTP/1\.1 200}mg, 2, 'both requests are answered');
    is(() = $got =~ /"content":"[^"]/g, 5, '.. with all of their tokens');
    is(() = $got =~ /^data: \[DONE\]/mg, 2, '.. to the end');
    unlike($got, qr/"usage":\{/, '.. and usage that nobody asked for is not');

    is_deeply([ $Nginx->faults ], [], 'nothing is amiss');
    $Nginx->stop;
}


sub start {
    my ($kind) = @_;
    my $balancer = $kind eq 'limited' ? 'llm_least_inflight;' : '';

    $Nginx = LlmNginx->start(
        binary => nginx(), module => module(),
        dir => "$ENV{TEST_NGINX_SERVROOT}/own",
        main => 'worker_processes 1; worker_rlimit_nofile 4096;',
        connections => 4096,
        http => <<"END");
    llm_limit_zone \$http_host zone=t:1m tokens=100M/s;

    upstream sim {
        zone sim 64k;
        server 127.0.0.1:@{[ sim_port(1) ]};
        $balancer
    }

    server {
        listen 127.0.0.1:$Port backlog=1024;

        location / {
            $Locations{$kind}
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout 1h;
            proxy_pass http://sim;
        }
    }
END
}


sub resident {
    my ($worker) = $Nginx->workers;

    open my $in, '<', "/proc/$worker/status" or die "no worker: $!\n";

    for (<$in>) {
        return $1 * 1024 if /^VmRSS:\s+(\d+) kB/;
    }

    die "no VmRSS\n";
}


sub connected {
    return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $Port)
        || die "connect: $!\n";
}


sub request {
    my ($sim, $connection, $header) = @_;

    return "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
           . "Connection: $connection\r\nContent-Type: application/json\r\n"
           . 'Content-Length: ' . length($Body) . "\r\n"
           . 'X-Header: ' . 'x' x $header . "\r\n"
           . "X-LLM-Sim: $sim\r\n\r\n$Body";
}


# a stream that is silent behind its third token; undef: it never began

sub silent {
    my ($header) = @_;
    my $sock = connected();
    my $got;

    print $sock request('tokens=9; fault=stall; at=3', 'close', $header);

    $got = read_until($sock, sub { (() = $_[0] =~ /^data: /mg) >= 4 });

    return (() = $got =~ /^data: /mg) >= 4 ? $sock : undef;
}


# what comes, up to what is waited for, or the end, or 30 s of nothing

sub read_until {
    my ($sock, $enough) = @_;
    my $select = IO::Select->new($sock);
    my $got = '';

    while (!$enough->($got) && $select->can_read(30)) {
        last unless sysread $sock, $got, 65536, length $got;
    }

    return $got;
}
