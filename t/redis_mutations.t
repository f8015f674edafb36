# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# Replies of a real Redis with bytes changed, lost or added, and with numbers
# of all sizes, to workers with many links: none of them dies, no request
# fails or hangs, no memory stays behind.
#
#     MUTATIONS=10000 MUTATIONS_SEED=7 prove -It/lib t/redis_mutations.t
#
# Every eighth of them falls upon all replies, those of the greeting too.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmFakeRedis;
use LlmNode;
use LlmRedis;
use Time::HiRes qw( sleep time );

my $Mutations = $ENV{MUTATIONS} || 400;
my $Seed = $ENV{MUTATIONS_SEED} || 1;
my $Links = 32;
my $Workers = 2;

my ($Fake, $Nginx, $Redis, %Status, $Port);

sim_options('--itl', '0', '--itl-slope', '0', '--prefill', '1000000');
sim_start();

$Redis = LlmRedis->start(dir => "$ENV{TEST_NGINX_SERVROOT}/redis");
$Fake = LlmFakeRedis->start(real => $Redis,
                            dir => "$ENV{TEST_NGINX_SERVROOT}/fake");
$Port = free_port(1);

$Nginx = LlmNginx->start(
    binary => nginx(), module => module(),
    dir => "$ENV{TEST_NGINX_SERVROOT}/nginx",
    main => "worker_processes $Workers;\nerror_log logs/error.log info;",
    http => http());

mutations();

$Nginx->stop;
is(join('', $Nginx->faults), '', 'no fault in the log');
$Fake->stop;
$Redis->stop;


# a location for each link

sub http {
    my $sim = sim_port(1);
    my $http = '';

    for my $n (1 .. $Links) {
        my $lease = $n % 2 ? '' : 'lease=10%';

        $http .= 'llm_redis r' . $n . ' ' . $Fake->url
                 . " timeout=200ms connect_timeout=200ms;\n"
                 . 'llm_limit_zone $http_authorization zone=z' . $n
                 . ":32k tokens=1M/s redis=r$n $lease;\n";
    }

    $http .= "server {\nlisten 127.0.0.1:$Port;\nllm_stream on;\n";

    for my $n (1 .. $Links) {
        $http .= "location /$n/ { llm_limit zone=z$n; "
                 . "proxy_pass http://127.0.0.1:$sim/; }\n";
    }

    return $http . '}';
}


sub mutations {
    my ($before, $turn, $start) = (undef, 0, time);
    my @workers;

    LlmRedis::await('all workers are there', sub {
        @workers = $Nginx->workers;
        @workers == $Workers
    });

    while ($Fake->count < $Mutations) {

        # some of it is whole, so that links come up again

        my $what = $turn % 4 == 3 ? 'real' : 'mutated ' . ($Seed + $turn);

        $Fake->does($what, all => $turn % 8 == 6);
        ask() for 1 .. 2;
        $before //= memory(@workers) if $Fake->count > $Mutations / 4;
        $turn++;

        die "only ", $Fake->count, " mutations so far\n"
            if time > $start + 120 + $Mutations;
    }

    my $after = memory(@workers);

    is(join(' ', sort { $a <=> $b } $Nginx->workers),
       join(' ', sort { $a <=> $b } @workers),
       $Fake->count . " mutated replies, MUTATIONS_SEED=$Seed: "
       . 'no worker dies');

    # a number that says no is a no

    is(join(' ', grep { !/^(?:200|429)$/ } sort keys %Status), '',
       'no request fails');
    cmp_ok($Status{429} // 0, '<=', $Status{200} / 100,
           'and few are rejected');
    cmp_ok($after - $before, '<=', 1024, 'memory stays where it is, in KB')
        || diag("$before, $after") unless sanitized();

    $Fake->does('real');
    LlmRedis::await('all links are up again', sub {
        ask();
        log_ends_up()
    });
    ok(1, 'every link comes up again');
}


# a request on each link, at once

sub ask {
    my @clients = map {
        LlmClient->open($Port, path => "/$_/v1/chat/completions",
                        sim => 'tokens=1',
                        headers => { Authorization => 'k' . int rand 50 })
    } 1 .. $Links;

    LlmClient::await_end(@clients);
    $Status{$_->status}++ for @clients;
}


sub memory {
    my $kb = 0;

    for my $pid (@_) {
        open my $status, '<', "/proc/$pid/status" or next;
        $kb += /^VmRSS:\s+(\d+)/ ? $1 : 0 for <$status>;
    }

    return $kb;
}


# what each worker said last of each server is that it is up

sub log_ends_up {
    my %last;

    for ($Nginx->logged(qr/llm redis: "r\d+" is/)) {
        my ($pid, $name, $state) = /(\d+)#\d+: llm redis: "(r\d+)" is (\w+)/
            or next;
        $last{"$pid $name"} = $state;
    }

    return !grep { $_ ne 'up' } values %last;
}
