# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# llm_limit and what belongs to it, one request after the other.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;
use LlmH2;
use LlmLimit;
use Time::HiRes qw( sleep time );

# another location that is limited, in front of the same server

our $Other = <<'END';
    llm_stream on;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_1/v1/chat/completions;
END

# a spare server that inherits the limit

our $Spare = <<'END';
llm_stream on;
llm_limit zone=t;
location /v1/ {
    proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_1;
}
location @spare {
    proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_2;
}
END

our $PortH2 = free_port(1);

no_long_string();
add_response_body_check(\&check_last);

run_tests();


# after the last request of a block:
#
#     --- last_log      as LlmBlock's log, of the last request
#     --- logged        patterns, a line each, that the error log has

sub check_last {
    my ($block, $body, $req_idx, $repeated_req_idx, $dry_run) = @_;
    my ($deadline, $requests, @errors, @lines);

    $requests = ref $block->request eq 'ARRAY' ? @{$block->request} : 1;

    return if $dry_run || $req_idx != $requests - 1;

    if (defined $block->last_log) {
        $deadline = time + 20;

        do {
            sleep 0.02;
            @lines = lines('llm.log');
        } while (@lines < $requests && time < $deadline);

        $block->set_value('log', $block->last_log);
        LlmBlock::check_log($block);
    }

    @errors = lines('error.log');

    for my $pattern (grep { /\S/ } split /\n/, $block->logged // '') {
        ok(scalar(grep { /$pattern/ } @errors),
           $block->name . " - logged $pattern");
    }
}


# eight requests in one write, where seven are the burst

sub at_once {
    my ($name) = @_;
    my $deadline = time + 20;
    my $sock = LlmH2::connect($PortH2);
    my @statuses;

    $sock->syswrite(join '', map {
        LlmH2::request(2 * $_ - 1, $LlmBlock::Body, authorization => 'one',
                       'x-llm-sim' => 'tokens=2')
    } 1 .. 8);

    while (@statuses < 8 && time < $deadline) {
        sleep 0.02;
        @statuses = lines('at_once.log');
    }

    is(join('', sort @statuses), "200\n" x 7 . "429\n", "$name - statuses");
}


sub lines {
    my ($name) = @_;

    open my $log, '<', "$ENV{TEST_NGINX_SERVROOT}/logs/$name" or return;

    return <$log>;
}

__DATA__

=== TEST 1: what is reserved is taken, and what is left is told
--- http_config eval: $::Completion
--- location
llm_limit zone=t reserve=100;
--- more_headers
Authorization: Bearer one
--- response_headers
x-ratelimit-limit-tokens: 1000
x-ratelimit-remaining-tokens: 900
x-ratelimit-reset-tokens: 2h24m0s
! x-ratelimit-limit-requests
! Retry-After
--- log
limit_status: PASSED
limit_zone: t
limit_wait: 0.000
reserved_tokens: 100
completion_tokens: 4



=== TEST 2: over the limit: 429 as JSON, with the time to wait
--- http_config eval
"$::Zone tokens=100/d count=completion;"
--- location
llm_limit zone=t reserve=100;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval: $::Headers
--- error_code eval
[200, 429]
--- response_headers_like eval
["x-ratelimit-remaining-tokens: 0",
 "Content-Type: application/json
x-ratelimit-limit-tokens: 100
x-ratelimit-remaining-tokens: 70
x-ratelimit-reset-tokens: 7h(?:12m0|11m\\d+(?:\\.\\d+)?)s
Retry-After: 25(?:920|8[6-9]\\d|9[01]\\d)
retry-after-ms: 25[89]\\d{5}"]
--- response_body_like eval
[qr/\[DONE\]/,
 qr/^\{"error":\{"message":"Rate limit reached for tokens\. .*"code":"rate_limit_exceeded"/]
--- logged
\[error\] .*llm limit: rejected, zone "t", key [0-9a-f]{8}, need 100 tokens, retry after 25[89]\d{5}ms, client:



=== TEST 3: a rejected request is logged as such, and costs nothing
--- http_config eval
"$::Zone tokens=100/d count=completion;"
--- location
llm_limit zone=t reserve=100;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval: $::Headers
--- error_code eval
[200, 429]
--- last_log
end: rejected
limit_status: REJECTED
limit_zone: t
reserved_tokens: 0
status: 429
--- sim_stats
requests: 1



=== TEST 4: more than a burst in so many words: 429, and never a time to wait
--- http_config eval
"$::Zone tokens=1k/d burst=200 count=completion;"
--- location
llm_limit zone=t;
--- request eval: $::AskMost
--- more_headers eval: $::Headers
--- error_code: 429
--- response_headers
x-ratelimit-limit-tokens: 200
x-ratelimit-remaining-tokens: 200
! Retry-After
! retry-after-ms
--- response_body_like: ^\{"error":\{"message":"Request too large
--- error_log
need 300 tokens, more than its burst of 200



=== TEST 5: a maximum is asked for as often as there are choices
--- http_config eval
"$::Zone tokens=1k/d count=completion;"
--- location
llm_limit zone=t;
--- request eval
$::AskMost =~ s/"stream"/"n":4,"stream"/r
--- more_headers eval: $::Headers
--- error_code: 429
--- error_log
need 1200 tokens, more than its burst of 1000



=== TEST 6: requests have a budget of their own
--- http_config eval
"$::Zone requests=2/d;"
--- location
llm_limit zone=t;
--- request eval
[$::Ask, $::Ask, $::Ask]
--- more_headers eval: $::Headers
--- error_code eval
[200, 200, 429]
--- response_headers eval
["x-ratelimit-limit-requests: 2
x-ratelimit-remaining-requests: 1
x-ratelimit-reset-requests: 12h0m0s
! x-ratelimit-limit-tokens",
 "x-ratelimit-remaining-requests: 0",
 "x-ratelimit-remaining-requests: 0"]
--- response_body_like eval
[qr/\[DONE\]/, qr/\[DONE\]/, qr/Rate limit reached for requests\./]
--- logged
rejected, zone "t", key [0-9a-f]{8}, need 1 request, retry after \d+ms



=== TEST 7: tokens beside requests: whichever is used up first
--- http_config eval
"$::Zone tokens=1k/d count=completion requests=3/h requests_burst=1;"
--- location
llm_limit zone=t reserve=100;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval: $::Headers
--- error_code eval
[200, 429]
--- response_headers eval
["x-ratelimit-remaining-tokens: 900
x-ratelimit-limit-requests: 1
x-ratelimit-remaining-requests: 0
x-ratelimit-reset-requests: 20m0s",
 "x-ratelimit-remaining-tokens: 970"]
--- response_headers_like eval
["", "Retry-After: 1(?:200|1[4-9]\\d)"]



=== TEST 8: several zones: the most constrained one is told
--- http_config eval
"$::Completion
llm_limit_zone all zone=u:64k tokens=500/d count=completion;
llm_limit_zone all zone=v:64k requests=10/d;"
--- location
llm_limit zone=t reserve=100;
llm_limit zone=u reserve=100;
llm_limit zone=v;
--- more_headers eval: $::Headers
--- response_headers
x-ratelimit-limit-tokens: 500
x-ratelimit-remaining-tokens: 400
x-ratelimit-limit-requests: 10
x-ratelimit-remaining-requests: 9
--- log
limit_zone: u



=== TEST 9: several zones: all or nothing
--- http_config eval
"$::Completion
llm_limit_zone all zone=u:64k requests=1/d;"
--- config eval
"location = /t { llm_limit zone=t reserve=100; $::Other }"
--- location
llm_limit zone=t reserve=100;
llm_limit zone=u;
--- request eval
[$::Ask, $::Ask, $::Ask =~ s{/v1\S+}{/t}r]
--- more_headers eval: $::Headers
--- error_code eval
[200, 429, 200]
--- response_headers eval
["x-ratelimit-remaining-tokens: 900",
 "x-ratelimit-remaining-tokens: 970",
 "x-ratelimit-remaining-tokens: 870"]
--- logged
rejected, zone "u",



=== TEST 10: each key has its budgets
--- http_config eval: $::Completion
--- location
llm_limit zone=t reserve=100;
--- request eval
[$::Ask, $::Ask, $::Ask]
--- more_headers eval
my $other = $::Headers =~ s/one/two/r;
[$::Headers, $other, $::Headers]
--- response_headers eval
["x-ratelimit-remaining-tokens: 900",
 "x-ratelimit-remaining-tokens: 900",
 "x-ratelimit-remaining-tokens: 870"]
--- error_code eval
[200, 200, 200]



=== TEST 11: a long key is a key
--- http_config eval
"large_client_header_buffers 4 128k; $::Completion"
--- location
llm_limit zone=t reserve=100;
--- request eval
[$::Ask, $::Ask, $::Ask]
--- more_headers eval
my $long = 'x' x 65536;
my $a = $::Headers =~ s/one/${long}a/r;
my $b = $::Headers =~ s/one/${long}b/r;
[$a, $b, $a]
--- response_headers eval
["x-ratelimit-remaining-tokens: 900",
 "x-ratelimit-remaining-tokens: 900",
 "x-ratelimit-remaining-tokens: 870"]
--- error_code eval
[200, 200, 200]



=== TEST 12: two keys are none: nginx takes one Authorization
--- http_config eval: $::Completion
--- location
llm_limit zone=t reserve=100;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval
[$::Headers . "Authorization: Bearer two\n", $::Headers]
--- error_code eval
[400, 200]
--- response_headers eval
["", "x-ratelimit-remaining-tokens: 900"]



=== TEST 13: blanks around a key are no other key
--- http_config eval: $::Completion
--- location
llm_limit zone=t reserve=100;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval
[$::Headers, $::Headers =~ s/Bearer one/  Bearer one  /r]
--- response_headers eval
["x-ratelimit-remaining-tokens: 900", "x-ratelimit-remaining-tokens: 870"]
--- error_code eval
[200, 200]



=== TEST 14: who has no key has no limit
--- http_config eval
"$::Zone requests=1/d;"
--- location
llm_limit zone=t;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval
$::Headers =~ s/Authorization.*//r
--- error_code eval
[200, 200]
--- response_headers eval
["! x-ratelimit-limit-requests", "! x-ratelimit-limit-requests"]
--- log
limit_status: -
limit_zone: -



=== TEST 15: a request without a body is not counted
--- http_config eval
"$::Zone requests=1/d;"
--- location
llm_limit zone=t;
--- request eval
["GET /v1/models", "GET /v1/models", $::Ask]
--- more_headers eval: $::Headers
--- error_code eval
[200, 200, 200]



=== TEST 16: dry run: decided and logged, never done
--- http_config eval
"$::Zone requests=1/d;"
--- location
llm_limit zone=t;
llm_limit_dry_run on;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval: $::Headers
--- error_code eval
[200, 200]
--- response_headers eval
["x-ratelimit-remaining-requests: 0",
 "x-ratelimit-remaining-requests: 0
! Retry-After"]
--- logged
llm limit: rejected, dry run, zone "t"
--- last_log
limit_status: REJECTED_DRY_RUN
end: done



=== TEST 17: status and log level are the operator's
--- http_config eval
"$::Zone requests=1/d;"
--- location
llm_limit zone=t;
llm_limit_status 503;
llm_limit_log_level notice;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval: $::Headers
--- error_code eval
[200, 503]
--- logged
\[notice\] .*llm limit: rejected
--- response_headers_like eval
["", "Retry-After: 86\\d\\d\\d"]



=== TEST 18: no headers where they are not wanted
--- http_config eval
"$::Zone requests=1/d;"
--- location
llm_limit zone=t;
llm_limit_headers off;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval: $::Headers
--- error_code eval
[200, 429]
--- response_headers eval
["! x-ratelimit-limit-requests",
 "! x-ratelimit-limit-requests
! Retry-After
! retry-after-ms"]



=== TEST 19: nginx's own page where error events are off
--- http_config eval
"$::Zone requests=1/d;"
--- location
llm_limit zone=t;
llm_error_events off;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval: $::Headers
--- error_code eval
[200, 429]
--- response_body_like eval
[qr/\[DONE\]/, qr/<title>429 Too Many Requests/]
--- response_headers_like eval
["", "Retry-After: 86\\d\\d\\d"]



=== TEST 20: an error_page of the operator goes before our JSON
--- http_config eval
"$::Zone requests=1/d;"
--- config
location = /limit.txt { return 429 "slow down\n"; }
location = /fine.txt { return 200 "fine\n"; }
--- location
llm_limit zone=t;
error_page 429 /limit.txt;
if ($arg_fine) { error_page 429 =200 /fine.txt; }
--- request eval
[$::Ask, $::Ask, $::Ask =~ s/completions/completions?fine=1/r]
--- more_headers eval: $::Headers
--- error_code eval
[200, 429, 200]
--- response_body eval
[qr/DONE/, "slow down\n", "fine\n"]



=== TEST 21: the dialect's own error
--- http_config eval
"$::Zone requests=1/d;"
--- location
llm_limit zone=t;
--- request eval
my $ask = $::Ask =~ s{chat/completions}{messages}r
                 =~ s/"stream":true/"max_tokens":9/r;
[$ask, $ask]
--- more_headers eval: $::Headers
--- error_code eval
[200, 429]
--- response_body_like eval
[qr/"type":"message"/, qr/^\{"type":"error","error":\{"type":"rate_limit_error"/]



=== TEST 22: upstream's own limits are not shown beside ours
--- http_config eval
"$::Zone tokens=1k/d count=completion;"
--- location
llm_limit zone=t reserve=100;
--- request eval: $::Ask
--- more_headers eval
"X-LLM-Sim: tokens=9; fault=error; at=3; status=429\n$::Common"
--- error_code: 200
--- raw_response_headers_unlike eval
qr/x-ratelimit-limit-tokens.*x-ratelimit-limit-tokens/s
--- response_headers
x-ratelimit-remaining-tokens: 900
! x-ratelimit-limit-requests
--- response_body_like: rate_limit_exceeded



=== TEST 23: a request that is redirected is charged once
--- http_config eval
"$::Zone requests=5/d;"
--- config eval
"location /try/ { llm_stream on; llm_limit zone=t;
    proxy_pass http://127.0.0.1:\$TEST_NGINX_CLOSED_PORT;
    error_page 502 = \@other; }
location \@other { llm_limit zone=t; rewrite ^/try(.*) \$1 break;
    " . ($::Other =~ s{/v1\S+;}{;}r) . "}"
--- location
llm_limit zone=t;
--- request eval
my $try = $::Ask =~ s{/v1}{/try/v1}r;
[$try, $::Ask]
--- more_headers eval: $::Headers
--- error_code eval
[200, 200]
--- response_headers eval
["x-ratelimit-remaining-requests: 4",
 "x-ratelimit-remaining-requests: 3"]



=== TEST 24: dry run: what could not be read passes, too
--- http_config eval
"$::Zone requests=1/d;"
--- config
location /v1/ {
    llm_stream on;
    llm_limit zone=t;
    llm_limit_dry_run on;
    llm_body_max 100;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/taken/;
}
location /taken/ {
    return 200 taken;
}
--- request eval
["POST /v1/\n{", "POST /v1/\n" . ("x" x 101)]
--- more_headers eval: $::Headers
--- error_code eval
[200, 200]
--- response_body eval
["taken", "taken"]
--- logged
llm limit: rejected, dry run, the body is not read: JSON syntax
llm limit: rejected, dry run, the body is not read: .*larger



=== TEST 25: dry run: a rate that is none does not end the request
--- http_config
llm_limit_zone $http_authorization zone=t:64k tokens=$http_x_rate;
--- location
llm_limit zone=t;
llm_limit_dry_run on;
--- request eval: $::Ask
--- more_headers eval
["Authorization: one\nX-Rate: many\n"]
--- error_code: 200
--- logged
llm limit: invalid rate "many"



=== TEST 26: a rejected request is subject to the limits of the place it is sent to
--- http_config eval
"$::Zone requests=1/d;
llm_limit_zone \$http_authorization zone=spare:64k requests=1/d;"
--- location
llm_limit zone=t;
error_page 429 = @spare;
--- config
location @spare {
    llm_stream on;
    llm_limit zone=spare;
    access_log logs/llm.log llm;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_2;
}
--- request eval
[$::Ask, $::Ask, $::Ask]
--- more_headers eval: $::Headers
--- error_code eval
[200, 200, 429]
--- last_log
limit_status: REJECTED
limit_zone: spare
end: rejected



=== TEST 27: .. and of one that inherits the same to no other
--- http_config eval
"$::Zone requests=1/d;"
--- config eval
"error_page 429 = \@spare;\n$::Spare"
--- request eval
[$::Ask, $::Ask]
--- more_headers eval: $::Headers
--- error_code eval
[200, 200]



=== TEST 28: a rate that is none is no way round the limit by an error_page
--- http_config
llm_limit_zone $http_authorization zone=t:64k tokens=$http_x_rate;
--- config eval
"error_page 500 = \@spare;\n$::Spare"
--- request eval: $::Ask
--- more_headers eval
["Authorization: one\nX-Rate: many\n"]
--- error_code: 500
--- error_log
llm limit: invalid rate "many"



=== TEST 29: what a rate's nanoseconds are rounded to costs no token
--- http_config eval
"$::Zone tokens=7k/d requests=11/d count=completion;"
--- location
llm_limit zone=t reserve=100;
--- request eval: $::Ask
--- more_headers eval: $::Headers
--- response_headers
x-ratelimit-remaining-tokens: 6900
x-ratelimit-remaining-requests: 10



=== TEST 30: .. and of a burst that comes at once nobody is refused
--- http_config eval
"$::Zone requests=7/m;
log_format status \$status;
server {
    listen 127.0.0.1:$::PortH2 http2;
    access_log logs/at_once.log status;
    llm_stream on;
    llm_limit zone=t;
    location / {
        proxy_pass http://127.0.0.1:\$TEST_NGINX_SIM_PORT_1;
    }
}"
--- location
--- live eval: \&main::at_once
