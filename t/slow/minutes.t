# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# The clocks at the scale that they have in real life: "make minutes".  All
# streams run at once, for some two minutes.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmPair;
use Time::HiRes qw( time );

my %Runs = (
    first => { sim => 'tokens=9; fault=stall; at=first',
               end => 'first_token_timeout', seconds => 60, status => 504 },
    idle  => { sim => 'tokens=9; itl=100; fault=comments; at=3',
               end => 'idle_timeout', seconds => 60, status => 200 },
    total => { sim => 'tokens=1000; itl=10000',
               end => 'total_timeout', seconds => 120, status => 200 },
    slow  => { sim => 'tokens=3; itl=40000',
               end => 'done', seconds => 80, status => 200 },
);

my ($pair, %clients, %lines);

$LlmClient::Timeout = 200;

$pair = LlmPair->start(location => 'llm_first_token_timeout 1m;'
                                   . ' llm_idle_timeout 1m;'
                                   . ' llm_total_timeout 2m;'
                                   . ' llm_heartbeat 30s;');

for my $name (sort keys %Runs) {
    $clients{$name} = $pair->open(sim => $Runs{$name}{sim},
                                  headers => { 'X-N' => $name });
}

LlmClient::await_end(values %clients);

%lines = map { $_->{n} => $_ } $pair->lines(scalar keys %Runs);

for my $name (sort keys %Runs) {
    my $run = $Runs{$name};
    my $line = $lines{$name};

    is($line->{end}, $run->{end}, "$name: end");
    is($line->{status}, $run->{status}, "$name: status");
    cmp_ok($line->{time}, '>=', $run->{seconds} - 0.1, "$name: not before");
    cmp_ok($line->{time}, '<', $run->{seconds} + 3, "$name: nor long behind");
}

like($clients{slow}->content, qr/\n\n: waiting\ndata: /,
     'slow: a heartbeat in each silence');

$pair->end('minutes');
