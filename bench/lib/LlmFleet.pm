# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmFleet;

# A workload through nginx to a fleet of simulated servers, once:
#
#     my $fleet = LlmFleet->new(build => .., nginx => .., module => ..,
#                               dir => .., workload => [ '--trace', .. ]);
#     $fleet->refuses($balancer);  why this nginx does not take it, or ''
#     $fleet->run(servers => 8, slow => 2, balancer => 'least_conn;',
#                 load => 0.8);  what came of it, see measure()
#
# All results are in the time of the model.

use strict;
use warnings;

use JSON::PP qw( decode_json );
use List::Util qw( max min sum0 );
use POSIX qw( ceil );
use Time::HiRes qw( time );

use LlmBench qw( await free_ports start stop );

# the model of a server: llm-sim's defaults, and a cache

use constant PREFILL => 20_000;
use constant ITL_MS => 20;
use constant SLOPE_MS => 0.3;
use constant BATCH => 64;
use constant CHUNK => 512;
use constant CACHE => 1_000_000;
use constant SLOW => 0.5;

# goodput: both, or the request does not count

use constant FIRST_MS => 5000;
use constant TOKEN_MS => 50;

# the caches are cold at first: so many requests are not measured

use constant WARM_UP => 0.1;

# what all processes take of the machine's time, in microseconds, by which
# the compression is chosen, so that they have this share of it

use constant REQUEST_US => 400;
use constant PROMPT_TOKEN_US => 0.09;
use constant OUTPUT_TOKEN_US => 40;
use constant CPU_SHARE => 0.45;

# a tenth of a millisecond, which is how late a process wakes up, is to stay
# small beside a step of 20 ms

use constant COMPRESS => 25;


sub new {
    my ($class, %self) = @_;
    my $self = bless { %self }, $class;

    my $json = `$self->{build}/llm-load --describe @{$self->{workload}}`;
    die "no workload\n" if $? != 0;

    $self->{trace} = decode_json($json);

    return $self;
}


# the seconds in which one server would compute all of it at best: every
# prompt in full, every step with a full batch

sub work_s {
    my ($self) = @_;
    my $trace = $self->{trace};
    my $step_ms = ITL_MS + SLOPE_MS * (BATCH - 1);

    return $trace->{prompt_tokens} / PREFILL
           + $trace->{output_tokens} * $step_ms / BATCH / 1000;
}


# how much faster than the trace its requests come, for this load

sub pace {
    my ($self, %run) = @_;
    my $speed = $run{servers} - ($run{slow} // 0) * (1 - SLOW);

    return $run{load} * $speed * $self->{trace}{seconds} / $self->work_s;
}


sub compression {
    my ($self, $pace) = @_;
    my $trace = $self->{trace};
    my $cpu_s = ($trace->{requests} * REQUEST_US
                 + $trace->{prompt_tokens} * PROMPT_TOKEN_US
                 + $trace->{output_tokens} * OUTPUT_TOKEN_US) / 1e6;
    my $cores = grep { /^processor/ } lines('/proc/cpuinfo');

    return max(1, min(COMPRESS, CPU_SHARE * $cores * $trace->{seconds} / $pace
                           / $cpu_s));
}


sub run {
    my ($self, %run) = @_;
    my $dir = $self->{dir};
    my $pace = $self->pace(%run);
    my $compress = $run{compress} // $self->compression($pace);
    my $sim = free_ports($run{servers} + 1);
    my $port = $sim + $run{servers};
    my $last = $port - 1;

    my @slow = map { ('--speed', $_ . '=' . SLOW) }
                   $port - ($run{slow} // 0) .. $last;

    my @before = (time, times);

    start("$dir/servers.log", "$self->{build}/llm-sim", '--quiet',
          '--listen', "127.0.0.1:$sim-$last", '--time-scale', $compress,
          '--prefill', PREFILL, '--itl', ITL_MS, '--itl-slope', SLOPE_MS,
          '--batch', BATCH, '--chunk', CHUNK, '--prefix-cache', CACHE, @slow);
    await($sim, "$dir/servers.log");

    unlink "$dir/error.log";
    $self->configure($run{balancer}, $port, $sim .. $last);
    start("$dir/nginx.log", $self->{nginx}, '-p', $dir, '-c',
          "$dir/nginx.conf", '-e', "$dir/error.log");
    await($port, "$dir/error.log");

    my $load = $self->load($port, $pace * $compress);
    my $stats = fetch_stats($sim);

    stop();

    my $cpu_s = (times)[2] + (times)[3] - $before[3] - $before[4];
    my $result = $self->measure($compress, $load, $stats);

    $result->{cpu} = $cpu_s / (time - $before[0]);
    $result->{compress} = $compress;
    $result->{alerts} = grep { /\[(?:alert|emerg|crit)\]/ }
                             lines("$dir/error.log");

    return $result;
}


sub load {
    my ($self, $port, $scale) = @_;
    my $url = "http://127.0.0.1:$port/v1/chat/completions";

    unlink "$self->{dir}/load.log";

    my $json = qx{$self->{build}/llm-load --quiet --json --url $url \\
                  --log $self->{dir}/load.log --time-scale $scale \\
                  @{$self->{workload}}};

    return decode_json($json);
}


sub fetch_stats {
    my ($port) = @_;

    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                       PeerPort => $port)
        or die "llm-sim is gone\n";

    print $socket "GET /sim/stats HTTP/1.0\r\n\r\n";
    local $/;
    my ($json) = <$socket> =~ /\r\n\r\n(.*)/s;

    return decode_json($json)->{servers};
}


# p50, p99: of the times to the first token, ms; good: share of all requests
# with both goals; hits: cached share of the prompts' tokens; busy: share of
# the time in which the servers had work; busiest: the busiest one's over
# their mean; late: by how much the ends of the steps came late, on average,
# ms; due_late: likewise the requests; lost: requests that failed; alerts:
# such lines in nginx's log

sub measure {
    my ($self, $compress, $load, $stats) = @_;
    my ($good, $lost, $n, @first) = (0, 0, 0);

    for (lines("$self->{dir}/load.log")) {
        next if /^#/;

        my ($number, $due, $first, $token, undef, undef, undef, undef,
            $outcome) = split;

        $lost++ if $outcome ne 'complete';
        next if $number < WARM_UP * $self->{trace}{requests};

        $n++;
        next if $first eq '-';

        $_ = $_ eq '-' ? 0 : $_ * $compress for $first, $token;

        push @first, $first;
        $good++ if $outcome eq 'complete' && $first <= FIRST_MS
                   && $token <= TOKEN_MS;
    }

    my %sum;

    for my $key (qw( prompt_tokens cached_tokens steps busy_ms late_ms )) {
        $sum{$key} = sum0(map { $_->{$key} } @$stats);
    }

    @first = sort { $a <=> $b } @first;

    return {
        p50 => percentile(50, @first),
        p99 => percentile(99, @first),
        good => $good / $n,
        lost => $lost,
        hits => $sum{cached_tokens} / $sum{prompt_tokens},
        busy => $sum{busy_ms} / @$stats / ($load->{seconds} * 1000 * $compress),
        busiest => max(map { $_->{busy_ms} } @$stats)
                   / ($sum{busy_ms} / @$stats),
        late => $sum{late_ms} / $sum{steps},
        due_late => $load->{late_ms}{mean} * $compress,
    };
}


sub percentile {
    my ($percent, @sorted) = @_;

    return $sorted[max(0, ceil(@sorted * $percent / 100) - 1)] // 0;
}


sub refuses {
    my ($self, $balancer) = @_;
    my $port = free_ports(1);

    $self->configure($balancer, $port, $port);

    my $why = qx{$self->{nginx} -t -p $self->{dir} -e $self->{dir}/error.log \\
                 -c $self->{dir}/nginx.conf 2>&1};

    return $? == 0 ? '' : $why =~ /(.*\[emerg\].*)/ ? "$1\n" : $why;
}


sub configure {
    my ($self, $balancer, $port, @servers) = @_;
    my $dir = $self->{dir};
    my $user = $> == 0 ? 'user root;' : '';
    my $servers = join "\n        ",
                       map { "server 127.0.0.1:$_ max_fails=0;" } @servers;

    open my $conf, '>', "$dir/nginx.conf" or die "nginx.conf: $!\n";

    print $conf <<"END";
$user
load_module $self->{module};
daemon off;
worker_processes 2;
worker_rlimit_nofile 16384;
pid $dir/nginx.pid;
error_log $dir/error.log warn;

events {
    worker_connections 8192;
}

http {
    access_log off;
    client_body_temp_path $dir/client_body;
    client_body_buffer_size 2m;
    client_max_body_size 16m;
    proxy_temp_path $dir/proxy;
    fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi;
    scgi_temp_path $dir/scgi;

    upstream llm {
        zone llm 1m;
        $servers
        $balancer
        keepalive 1024;
    }

    server {
        listen 127.0.0.1:$port backlog=4096;
        keepalive_requests 1000000;

        llm_stream on;
        llm_include_usage on;

        location / {
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream off;
            proxy_pass http://llm;
        }
    }
}
END

    close $conf;
}


sub lines {
    my ($file) = @_;

    open my $in, '<', $file or die "$file: $!\n";

    return <$in>;
}


1;
