# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# What a client is told of its budgets, and what the log is.  Only completion
# tokens count, and a key's first request finds its budget full: the numbers
# are exact, however slow the machine is.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;
use LlmClient;

# each request names its plan

our $Zone = 'llm_limit_zone $arg_key zone=t:64k tokens=$arg_rate '
            . "burst=\$arg_burst count=completion;\n";

no_long_string();
run_tests();


# as many tokens as are asked for are reserved, unless they are known

sub ask {
    my ($plan, $most, $sim) = @_;

    return LlmClient->open($ENV{TEST_NGINX_SERVER_PORT},
        path => "/v1/chat/completions?$plan",
        sim => $sim // "tokens=$most",
        body => $LlmBlock::Body =~ s/"stream"/"max_tokens":$most,"stream"/r);
}


# what a client is told of its tokens

sub told {
    my ($client) = @_;

    return join ' ', map { $client->header("x-ratelimit-$_-tokens") // '-' }
                         qw( limit remaining reset );
}


# milliseconds of a reset

sub ms {
    my ($reset) = @_;

    return $1 if $reset =~ /^(\d+)ms$/;

    $reset =~ /^(?:(\d+)h)?(?:(\d+)m)?([\d.]+)s$/ or die "reset: $reset\n";

    return (($1 // 0) * 3600 + ($2 // 0) * 60 + $3) * 1000;
}


__DATA__

=== TEST 1: a reset is written as OpenAI does
--- http_config eval: $::Zone
--- location
llm_limit zone=t;
--- live eval
sub {
    my ($name) = @_;

    for my $case ([ '1k/s', 2000, 12, '12ms' ],
                  [ '1k/s', 2000, 999, '999ms' ],
                  [ '1k/s', 2000, 1000, '1s' ],
                  [ '1k/s', 2000, 1001, '1.001s' ],
                  [ '1k/s', 2000, 1500, '1.5s' ],
                  [ '10k/d', 100, 1, '8.64s' ],
                  [ '1/s', 60, 59, '59s' ],
                  [ '1/s', 60, 60, '1m0s' ],
                  [ '10/h', 100, 1, '6m0s' ],
                  [ '3/m', 100, 4, '1m20s' ],
                  [ '1/h', 100, 1, '1h0m0s' ],
                  [ '16/d', 100, 1, '1h30m0s' ],
                  [ '1/d', 100, 2, '48h0m0s' ])
    {
        my ($rate, $burst, $most, $reset) = @$case;
        my $client = main::ask("key=$reset&rate=$rate&burst=$burst", $most,
                               'tokens=1');

        main::is(main::told($client),
                 "$burst " . ($burst - $most) . " $reset",
                 "$name - $most of $rate");
        $client->close;
    }
}



=== TEST 2: nothing is used: no reset is nothing
--- http_config eval: $::Zone
--- location
llm_limit zone=t reserve=0;
--- live eval
sub {
    my ($name) = @_;
    my $client = main::ask('key=a&rate=1/d&burst=100', 9, 'tokens=1');

    main::is(main::told($client), '100 100 0s', $name);
    $client->finish;
}



=== TEST 3: what came back when a request ended is told the next one
--- http_config eval: $::Zone
--- location
llm_limit zone=t reserve=50;
--- live eval
sub {
    my ($name) = @_;
    my ($ms, $next);

    main::ask('key=a&rate=24/d&burst=100', 50, 'tokens=2')->finish;

    $next = main::ask('key=a&rate=24/d&burst=100', 10, 'tokens=1');

    main::is($next->header('x-ratelimit-remaining-tokens'), 88,
             "$name - remaining");

    # 12 hours but for the time that has passed

    $ms = main::ms($next->header('x-ratelimit-reset-tokens'));

    main::cmp_ok($ms, '<=', 12 * 3600_000, "$name - reset");
    main::cmp_ok($ms, '>', 11.9 * 3600_000, "$name - not less");
    $next->finish;
}



=== TEST 4: who waited is told how it is then
--- http_config eval: $::Zone
--- location
llm_limit zone=t wait=30s reserve=2;
--- live eval
sub {
    my ($name) = @_;
    my $plan = 'key=a&rate=30/m&burst=2';
    my ($ms, $next);

    # it is in flight, so that nothing can come back

    my $first = main::ask($plan, 2, 'tokens=2; fault=stall; at=1');

    main::is(main::told($first), '2 0 4s', "$name - the first one");

    # no token more in the two seconds behind its turn

    $next = main::ask($plan, 2);

    main::is($next->header('x-ratelimit-remaining-tokens'), 0,
             "$name - remaining");

    # eight seconds when it came: four are behind it, and what else has passed

    $ms = main::ms($next->header('x-ratelimit-reset-tokens'));

    main::cmp_ok($ms, '<=', 4002, "$name - reset");
    main::ok(!defined $next->header('Retry-After'), "$name - no Retry-After");

    $next->finish;
    $first->close;
}
--- error_log
llm limit: delayed, zone "t"



=== TEST 5: a burst that no rate can fill is cut, with a warning
--- http_config eval: $::Zone
--- location
llm_limit zone=t;
--- live eval
sub {
    my ($name) = @_;

    for my $plan ('rate=1/d&burst=53375', 'rate=1/d&burst=53376') {
        my $client = main::ask("key=$plan&$plan", 5, 'tokens=1');

        main::is($client->header('x-ratelimit-limit-tokens'), 53375,
                 "$name - $plan");
        $client->finish;
    }
}
--- error_log
llm limit: burst 53376 for zone "t" is more than its rate gives in 146 years, 53375 is used
--- no_error_log
burst 53375 for zone
[alert]
[emerg]



=== TEST 6: .. also where only the rate is a variable
--- http_config
llm_limit_zone $arg_key zone=t:64k tokens=$arg_rate burst=60k count=completion;
--- location
llm_limit zone=t;
--- live eval
sub {
    my ($name) = @_;
    my $client = main::ask('key=a&rate=1/d', 5, 'tokens=1');

    main::is($client->header('x-ratelimit-limit-tokens'), 53375, $name);
    $client->finish;
}
--- error_log
llm limit: burst 60000 for zone "t" is more than its rate gives in 146 years, 53375 is used



=== TEST 7: a compressed answer costs what was reserved, which the log tells
--- http_config eval: $::Zone
--- config
location = /left {
    llm_stream on;
    llm_dialect openai;
    llm_limit zone=t reserve=0;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_1/v1/chat/completions;
}
--- location
llm_limit zone=t;
--- path: /v1/chat/completions?key=a&rate=1/d&burst=1000
--- body eval: $LlmBlock::Body =~ s/"stream"/"max_tokens":300,"stream"/r
--- sim: tokens=6; gzip=1
--- live eval
sub {
    my ($name) = @_;
    my $next = LlmClient->open($ENV{TEST_NGINX_SERVER_PORT},
                               path => '/left?key=a&rate=1/d&burst=1000');

    main::is($next->header('x-ratelimit-remaining-tokens'), 700, $name);
    $next->finish;
}
--- log
usage_source: none
reserved_tokens: 300
completion_tokens: -
total_tokens: /[1-9]\d?/
--- error_log
passes unread
