# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# Failover before the first token.  Of three servers one begins every stream
# with an error, one never says anything, one is well: every client gets a
# whole answer, its first token within one first-token clock and 50 ms, and is
# charged for that answer alone.
# long: every request that meets the silent server waits for the clock

use strict;
use warnings;

use lib 't/lib';

use File::Path qw( remove_tree );
use List::Util qw( min );

use LlmTest;
use LlmClient;
use LlmNginx;
use LlmWaits;
use Time::HiRes qw( sleep time );

# "make failover" asks for 1,000, and that none is late; beside other suites
# one in twenty may be, also when what the machine was late by is left out

my $Requests = $ENV{FAILOVER_REQUESTS} // 150;
my $Share = $ENV{FAILOVER_REQUESTS} ? 1 : 0.95;
my $AtOnce = 25;
my $ClockMs = 500;
my $Tokens = 8;
my $Dir = "$ENV{TEST_NGINX_SERVROOT}-failover";
my $Port = free_port(1);
my $Faults = "tokens=$Tokens; on=" . sim_port(1) . '; fault=error;'
             . ' on=' . sim_port(2) . '; fault=stall';

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000',
            '--batch', '256');
sim_start();

failover('round robin', '');
failover('least in flight', 'llm_least_inflight;');

remove_tree($Dir) if Test::More->builder->is_passing;


sub failover {
    my ($name, $balancer) = @_;
    my ($complete, $nginx, $stats, @clients, @firsts, @logged, @stalls);

    sim_reset();

    $nginx = LlmNginx->start(binary => nginx(), module => module(),
                             dir => $Dir, main => 'worker_processes 2;',
                             http => http($balancer, 1 .. 3));

    @stalls = LlmWaits::during(sub {
        @clients = LlmClient::load($Port, $Requests, $AtOnce, sim => $Faults);
    }, $nginx->workers, sim_pid());

    $complete = grep { $_->complete && $_->status == 200 } @clients;
    is($complete, $Requests, "$name: as many complete answers as requests");
    is(scalar(grep { $_->body =~ /error/ } @clients), 0,
       "$name: no client knows of an error");

    # by nginx's clock, and as the clients saw it

    @logged = logged();
    is(scalar(@logged), $Requests, "$name: as many lines in the log");
    is(scalar(grep { $_->{end} ne 'done' } @logged), 0, "$name: all are done");

    @firsts = sort { $a <=> $b } map { ours($_, @stalls) } @logged;
    cmp_ok($firsts[$Share * @firsts - 1], '<=', $ClockMs + 50,
           "$name: first token within the clock and 50 ms");

    report($name, 'by nginx, without what the machine was late by', @firsts);
    report($name, 'by nginx', sort { $a <=> $b }
                                   map { 1000 * $_->{first} } @logged);
    report($name, 'at the client',
           sort { $a <=> $b } map { 1000 * ($_->{first} // 1e6) } @clients);

    cmp_ok(scalar(grep { $_->{tried} =~ /,.*,/ } @logged), '>', 0,
           "$name: some met both of the others first");

    $stats = sim_stats();
    is($stats->{completed}, $Requests, "$name: one whole generation each");
    is($stats->{inflight}, 0, "$name: none goes on unheard");

    charged_once($name);
    at_rest($name, $nginx) if $balancer;

    is_deeply([ $nginx->faults ], [], "$name: no faults logged");
    $nginx->stop;
}


# ms until the first token, without what the machine was late by while nginx
# had something to do: before it asked the silent server, and behind the clock

sub ours {
    my ($line, @stalls) = @_;
    my $first = $line->{first};
    my $start = $line->{at} - $line->{took};
    my $clock = $ClockMs / 1000;
    my $late = $first - $clock;

    if ($late > 0) {
        $first -= LlmWaits::seconds($start, $start + min($late, $clock),
                                    @stalls)
                  + LlmWaits::seconds($start + $clock, $start + $first,
                                      @stalls);
    }

    return 1000 * $first;
}


sub report {
    my ($name, $who, @firsts) = @_;

    diag(sprintf '%s: %d requests, first token %s: median %d, 95%% %d,'
         . ' all %d ms', $name, scalar @firsts, $who, $firsts[@firsts / 2],
         $firsts[0.95 * @firsts - 1], $firsts[-1]);
}


# the last answer of each, and nothing else

sub charged_once {
    my ($name) = @_;
    my $client = LlmClient->open($Port, sim => 'tokens=1', headers => {
                                 Authorization => 'same' });

    $client->finish;

    is($client->header('x-ratelimit-remaining-requests'),
       1e6 - $Requests - 1, "$name: requests are charged once");
    is($client->header('x-ratelimit-remaining-tokens'),
       1e6 - $Requests * $Tokens - 100, "$name: one answer's tokens each");
}


# a reload keeps the counts: each server alone tells its own

sub at_rest {
    my ($name, $nginx) = @_;
    my ($client, @told);

    for my $n (1 .. 3) {
        $nginx->reload(http('llm_least_inflight;', $n));

        $client = LlmClient->open($Port, sim => 'tokens=4000; itl=50');
        push @told, $client->header('X-Inflight');
        $client->close;
    }

    is_deeply(\@told, [ 1, 1, 1 ], "$name: nothing is in flight at the end");
}


sub http {
    my ($balancer, @numbers) = @_;
    my ($servers, $vars);

    $servers = join "\n", map { 'server 127.0.0.1:' . sim_port($_)
                                . ' max_fails=0;' } @numbers;
    $vars = 'end=$llm_end;first=$llm_first_token_time;tried=$upstream_addr;'
            . 'at=$msec;took=$request_time';

    return <<"END";
    log_format llm '$vars';
    llm_limit_zone all zone=t:1m tokens=1k/d burst=1M requests=1k/d
                   requests_burst=1M count=completion;

    upstream llm {
        $balancer
        $servers
    }

    server {
        listen 127.0.0.1:$Port;

        location / {
            llm_stream on;
            llm_limit zone=t reserve=100;
            llm_first_token_timeout ${ClockMs}ms;
            proxy_next_upstream error timeout http_500;
            add_header X-Inflight \$llm_inflight;
            access_log logs/llm.log llm;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://llm;
        }
    }
END
}


# a client has its answer just before the line is written

sub logged {
    my $deadline = time + 30;
    my @lines;

    do {
        sleep 0.02;
        open my $in, '<', "$Dir/logs/llm.log" or die "llm.log: $!\n";
        @lines = <$in>;
    } while (@lines < $Requests && time < $deadline);

    return map { chomp; +{ map { split /=/ } split /;/ } } @lines;
}
