# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# Streams that spend more than was reserved for them: overrun=finish, cut and
# pace.  Only completion tokens count, and the rate of a day does not refill
# while a test runs.  llm-sim's words come to about two tokens an event by
# the estimate, which is all that can be known while they pass.
#
# long: all of it with the same clients

use strict;
use warnings;

use lib 't/lib';

use IO::Socket::INET;

use LlmTest;
use LlmBlock;
use LlmClient;
use LlmNginx;
use LlmStall;
use List::Util qw( sum0 );
use Time::HiRes qw( sleep time );

our $Port = $ENV{TEST_NGINX_SERVER_PORT};
our $Zone = 'llm_limit_zone $http_authorization zone=t:64k count=completion';
our $Me = "Authorization: one\n";

# what a cut stream of OpenAI's kind ends in

our $Cut = qr/\n\n(?:\r\n\w+\r\n)?event: error\ndata: \{"type":"error",/
           . qr/"error":\{[^}]*"code":"rate_limit_exceeded"[^\n]*\n\n/;

no_long_string();
workers(1);
LlmStall::start();
run_tests();


# a client that streams, by the key "one"

sub client {
    my ($sim, %options) = @_;

    return LlmClient->open($Port, sim => $sim, %options,
                           headers => { Authorization => 'one',
                                        %{$options{headers} // {}} });
}


# one has taken its tokens

sub passed {
    open my $log, '<', "$ENV{TEST_NGINX_SERVROOT}/logs/error.log" or return;

    return scalar grep { /llm limit: passed/ } <$log>;
}


# events of content that have come

sub events {
    my ($client) = @_;

    return scalar(() = $client->{raw} =~ /tok\d/g);
}


# reads for so many seconds

sub watch {
    my ($client, $seconds) = @_;
    my $deadline = time + $seconds;

    while (time < $deadline) {
        $client->pump;
        sleep 0.01;
    }
}


# values of a field of all lines that were logged, awaited to be so many

sub logged {
    my ($name, $count) = @_;
    my ($log, $deadline, @values);

    $log = "$ENV{TEST_NGINX_SERVROOT}/logs/llm.log";
    $deadline = time + 30;

    do {
        sleep 0.05;
        open my $fh, '<', $log or next;
        @values = map { /(?:^| )\Q$name\E=(\S+)/ ? $1 : () } <$fh>;
    } until (@values >= $count || time > $deadline);

    return @values;
}


# upstream has no request any more, within a second

sub quiet {
    my ($name) = @_;
    my $start = LlmStall::mark();

    sleep 0.02 while sim_stats()->{inflight} && LlmStall::since($start) < 1;
    is(sim_stats()->{inflight}, 0, "$name - upstream is closed");
}

__DATA__

=== TEST 1: cut: the events so far, an error event, and a clean end
--- http_config eval: "$::Zone tokens=100/d;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- sim: tokens=2000; itl=5
--- more_headers eval: $::Me
--- response_body_like eval: qr/tok40.*$::Cut\z/s
--- error_log: llm limit: answer cut, zone "t" is empty, reserved 10, used 10
--- log
end: limit_cut
usage_source: estimate
completion_tokens: /10[0-3]/
reserved_tokens: 10
limit_zone: t
status: 200
--- sim_stats
aborted: 1
inflight: 0



=== TEST 2: .. of events that come all at once
--- http_config eval: "$::Zone tokens=100/d;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- sim: tokens=2000; itl=0
--- more_headers eval: $::Me
--- response_body_like eval: qr/tok40.*$::Cut\z/s
--- error_log: answer cut
--- log
end: limit_cut
completion_tokens: /10[0-3]/



=== TEST 3: .. of events that come byte by byte
--- http_config eval: "$::Zone tokens=20/d;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- sim: tokens=40; itl=0; split=1
--- more_headers eval: $::Me
--- response_body_like eval: qr/tok5.*$::Cut\z/s
--- error_log: answer cut
--- log
end: limit_cut
completion_tokens: /2[0-3]/



=== TEST 4: cut in Anthropic's dialect
--- http_config eval: "$::Zone tokens=100/d;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- path: /v1/messages
--- body: {"model":"sim","stream":true,"messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=2000; itl=2
--- more_headers eval: $::Me
--- response_body_like eval
qr/text_delta.*\n\nevent: error\ndata: \{"type":"error","error":\{"type":"rate_limit_error",[^\n]*\n\n\z/s
--- error_log: answer cut
--- log
end: limit_cut
completion_tokens: /10\d/



=== TEST 5: cut in Ollama's
--- http_config eval: "$::Zone tokens=100/d;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- path: /api/chat
--- body: {"model":"sim","messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=2000; itl=2
--- more_headers eval: $::Me
--- response_body_like eval
qr/"done":false\}\n\{"error":"Rate limit[^\n]*\}\n\z/
--- error_log: answer cut
--- log
end: limit_cut
completion_tokens: /10[0-3]/



=== TEST 6: behind the cut the connection is used again
--- http_config eval: "$::Zone tokens=50/d;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- request
GET /up
--- error_code: 404
--- error_log: answer cut
--- live eval
sub {
    my ($name) = @_;
    my $client = main::client('tokens=500; itl=2',
                              headers => { Connection => 'keep-alive' });

    LlmClient::await(sub { $_[0]{raw} !~ /\r\n0\r\n\r\n$/ }, $client);
    main::like($client->body, qr/$main::Cut/, "$name - an error event");
    main::quiet($name);

    $client->{raw} = '';
    $client->{sock}->blocking(1);
    $client->{sock}->syswrite("GET /gone HTTP/1.1\r\nHost: l\r\n"
                              . "Connection: close\r\n\r\n");
    $client->{sock}->blocking(0);
    main::is($client->status, 404, "$name - the next answer");
    $client->finish;
}
--- log
end: limit_cut



=== TEST 7: no error events: the transport is broken off
--- http_config eval: "$::Zone tokens=50/d;"
--- location
llm_error_events off;
llm_limit zone=t reserve=10 overrun=cut;
--- request
GET /up
--- error_code: 404
--- error_log: answer cut
--- live eval
sub {
    my ($name) = @_;
    my $client = main::client('tokens=500; itl=2')->finish;

    main::like($client->body, qr/tok9/, "$name - what passed");
    main::unlike($client->body, qr/error/, "$name - no error event");
    main::unlike($client->{raw}, qr/\r\n0\r\n\r\n$/, "$name - no end");
}
--- log
end: limit_cut



=== TEST 8: a dry run cuts nothing
--- http_config eval: "$::Zone tokens=50/d;"
--- location
llm_limit_dry_run on;
llm_limit zone=t reserve=10 overrun=cut;
--- sim: tokens=200; itl=0
--- more_headers eval: $::Me
--- response_body_like: \[DONE\]
--- no_error_log
answer cut
--- log
end: done
completion_tokens: 200



=== TEST 9: what is complete is not cut for its last usage
--- http_config eval: "$::Zone tokens=50/d;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- sim: tokens=20; itl=0; usage={"prompt_tokens":9,"completion_tokens":900}
--- more_headers eval: $::Me
--- response_body_like: \[DONE\]
--- log
end: done
completion_tokens: 900



=== TEST 10: an answer that is not streamed has nothing to cut
--- http_config eval: "$::Zone tokens=50/d;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- body: {"model":"sim","messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=200; itl=0
--- more_headers eval: $::Me
--- error_code: 200
--- log
end: done
completion_tokens: 200



=== TEST 11: usage that upstream reports in mid-stream is believed
--- http_config eval: "$::Zone tokens=100/d;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- sim: tokens=2000; itl=5; extra={"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":5,"completion_tokens":120}}
--- more_headers eval: $::Me
--- response_body_like eval: qr/"content":"a"[^\n]*$::Cut\z/
--- error_log: used 120
--- log
end: limit_cut
completion_tokens: 120



=== TEST 12: the weight of reasoning tokens
--- http_config eval: "$::Zone reasoning=3 tokens=100/d;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- sim: tokens=9; itl=5; extra={"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":5,"completion_tokens":40,"completion_tokens_details":{"reasoning_tokens":35}}}
--- more_headers eval: $::Me
--- response_body_like eval: qr/"content":"a"[^\n]*$::Cut\z/
--- error_log: used 110
--- log
end: limit_cut
completion_tokens: 40
reasoning_tokens: 35



=== TEST 13: .. and of cached ones, when they are told early
--- http_config eval
'llm_limit_zone $http_authorization zone=t:64k cached=0.1 tokens=1k/d;'
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- sim: tokens=9; itl=5; extra={"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":5000,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":4500}}}
--- more_headers eval: $::Me
--- response_body_like: \[DONE\]
--- no_error_log
answer cut
--- log
end: done
cached_tokens: /[\d-]+/



=== TEST 14: .. that make too much of it
--- http_config eval
'llm_limit_zone $http_authorization zone=t:64k cached=0.1 tokens=1k/d;'
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- sim: tokens=9; itl=5; extra={"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":5000,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":4000}}}
--- more_headers eval: $::Me
--- response_body_like eval: qr/"content":"a"[^\n]*$::Cut\z/
--- error_log: used 1401
--- log
end: limit_cut
prompt_tokens: 5000



=== TEST 15: a maximum that upstream keeps to is not overrun by the estimate
--- http_config eval: "$::Zone tokens=60/d;"
--- location
llm_limit zone=t reserve=max overrun=cut;
--- body: {"model":"sim","stream":true,"max_tokens":60,"messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=40; itl=0
--- more_headers eval: $::Me
--- response_body_like: \[DONE\]
--- no_error_log
answer cut
--- log
end: done
completion_tokens: 40



=== TEST 16: .. and one that upstream does not keep to is, by the half of it
--- http_config eval: "$::Zone tokens=100/d;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- body: {"model":"sim","stream":true,"max_tokens":40,"messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=40; itl=2; words=40
--- more_headers eval: $::Me
--- response_body_like eval: qr/"content":" tok5.*$::Cut\z/s
--- error_log: answer cut
--- log
end: limit_cut
completion_tokens: /12\d|13[0-2]/



=== TEST 17: finish: others see the debt while the stream goes on
--- http_config eval: "$::Zone tokens=60/m;"
--- location
llm_limit zone=t reserve=10;
--- request
GET /up
--- error_code: 404
--- error_log: rejected
--- live eval
sub {
    my ($name) = @_;
    my ($first, $second);

    $first = main::client('tokens=300; itl=5');
    LlmClient::await(sub { main::events($_[0]) < 200 }, $first);

    # some 430 tokens have passed, 64 of them may not be charged yet

    $second = main::client('tokens=1');
    main::is($second->status, 429, "$name - no tokens for a second one");
    main::cmp_ok($second->header('Retry-After'), '>', 250,
                 "$name - it has to wait for the debt");
    main::cmp_ok($second->header('Retry-After'), '<', 500,
                 "$name - .. and for no more");

    main::ok($first->finish->complete, "$name - the first one is whole");
    main::logged('end', 2);

    # the truth: 300 tokens, some of which have been refilled

    $second = main::client('tokens=1');
    main::cmp_ok($second->header('Retry-After'), '>', 240,
                 "$name - in the end the truth is charged");
    main::cmp_ok($second->header('Retry-After'), '<=', 250,
                 "$name - .. once");
}



=== TEST 18: no more is taken ahead than may still come
--- http_config eval: "$::Zone tokens=1k/d;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- request
GET /up
--- error_code: 404
--- live eval
sub {
    my ($name) = @_;
    my ($first, $second);

    $first = main::client('tokens=40; fault=stall; at=9',
        body => $LlmBlock::Body =~ s/"stream"/"max_tokens":40,"stream"/r);
    LlmClient::await(sub { main::events($_[0]) < 9 }, $first);

    $second = main::client('tokens=1');
    main::cmp_ok($second->header('x-ratelimit-remaining-tokens'), '>=', 950,
                 "$name - the second one finds the rest");
    main::cmp_ok($second->header('x-ratelimit-remaining-tokens'), '<', 980,
                 "$name - .. and the first one had overrun");
    $second->finish;
}



=== TEST 19: two streams of a key share what is left, and none takes more
--- http_config eval: "$::Zone tokens=400/d;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- request
GET /up
--- error_code: 404
--- error_log: answer cut
--- live eval
sub {
    my ($name) = @_;
    my @clients = map { main::client('tokens=900; itl=5') } 1, 2;
    my @used;

    LlmClient::await_end(@clients);
    main::like($_->body, qr/$main::Cut/, "$name - both are cut") for @clients;

    @used = main::logged('completion_tokens', 2);
    main::cmp_ok($_, '>', 130, "$name - a fair share") for @used;
    main::cmp_ok($used[0] + $used[1], '>=', 395, "$name - all is used");
    main::cmp_ok($used[0] + $used[1], '<=', 406, "$name - and no more");
}



=== TEST 20: twenty at once: what there is, and one event of each
--- http_config eval: "$::Zone tokens=100/s burst=1k;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- request
GET /up
--- error_code: 404
--- error_log: answer cut
--- live eval
sub {
    my ($name) = @_;
    my $started = Time::HiRes::time();
    my (@clients, @used, $seconds);

    # all are let in before the first of them has a token

    @clients = map { main::client('tokens=2000; ttft=3000; itl='
                                  . (2 + $_ % 5)) } 1 .. 20;
    LlmClient::await_end(@clients);
    main::is(main::passed(), 20, "$name - all are let in");
    $seconds = Time::HiRes::time() - $started;

    main::is(scalar(grep { $_->body =~ $main::Cut } @clients), 20,
             "$name - all are cut");

    @used = main::logged('completion_tokens', 20);
    main::cmp_ok(List::Util::sum0(@used), '<=',
                 1000 + 100 * $seconds + 20 * 3,
                 "$name - used: burst, rate and an event of each");
    main::cmp_ok(List::Util::sum0(@used), '>=', 1000,
                 "$name - used: all of the burst");
    main::quiet($name);
}



=== TEST 21: pace: at the budget's rate, whole, and the idle clock is silent
--- http_config eval: "$::Zone tokens=100/s burst=20;"
--- location
llm_idle_timeout 300ms;
llm_limit zone=t reserve=10 overrun=pace;
--- request
GET /up
--- error_code: 404
--- error_log: llm limit: answer paced
--- live eval
sub {
    my ($name) = @_;
    my $start = LlmStall::mark();
    my $client = main::client('tokens=150; itl=0');
    my ($gaps, $last, $events) = (0, 0);

    # no more than a step at a time

    LlmClient::await(sub {
        $events = main::events($client);
        $gaps++ if $events > $last && $events - $last < 30;
        $last = $events;
        return $client->{sock};
    }, $client);

    # 150 words are about 330 tokens; 20 of them are there

    main::ok($client->complete, "$name - whole");
    main::is(main::events($client), 150, "$name - nothing is lost");
    main::cmp_ok($client->{seconds}, '>', 2.5, "$name - not too fast");
    main::cmp_ok(LlmStall::since($start), '<', 4.2, "$name - not too slow");
    main::cmp_ok($gaps, '>', 15, "$name - a little at a time");
}
--- log
end: done
completion_tokens: 150



=== TEST 22: .. by several streams: together
--- http_config eval: "$::Zone tokens=200/s burst=20;"
--- location
llm_limit zone=t reserve=1 wait=5s overrun=pace;
--- request
GET /up
--- error_code: 404
--- live eval
sub {
    my ($name) = @_;
    my $start = LlmStall::mark();
    my @clients = map { main::client('tokens=50; itl=0') } 1 .. 5;
    my (@seconds, $seconds);

    LlmClient::await_end(@clients);
    $seconds = LlmStall::since($start);
    main::is(scalar(grep { $_->complete } @clients), 5, "$name - whole");

    @seconds = sort { $a <=> $b } map { $_->{seconds} } @clients;
    main::cmp_ok($seconds[-1], '>', 1.8, "$name - not too fast");
    main::cmp_ok($seconds, '<', 4, "$name - not too slow");
    main::cmp_ok($seconds[0], '>', $seconds[-1] / 2, "$name - fair");
}
--- log
end: done



=== TEST 23: .. of events byte by byte, with the usage stripped
--- http_config eval: "$::Zone tokens=100/s burst=10;"
--- location
llm_limit zone=t reserve=10 overrun=pace;
--- sim: tokens=30; itl=0; split=7
--- more_headers eval: $::Me
--- response_body_like eval: qr/tok29.*"finish_reason":"stop".*\n\ndata: \[DONE\]\n\n\z/s
--- response_body_unlike: completion_tokens
--- error_log: answer paced
--- log
end: done
completion_tokens: 30



=== TEST 24: a client that leaves in a pause is seen, and pays for what passed
--- http_config eval: "$::Zone tokens=60/m;"
--- location
llm_limit zone=t reserve=10 overrun=pace;
--- request
GET /up
--- error_code: 404
--- live eval
sub {
    my ($name) = @_;
    my $client = main::client('tokens=2000; itl=1');

    main::watch($client, 1);
    main::cmp_ok(main::events($client), '<', 60, "$name - it is paused");
    main::is(main::sim_stats()->{inflight}, 1, "$name - upstream waits");

    $client->close;
    main::quiet($name);
}
--- log
end: client_abort
completion_tokens: /6\d/



=== TEST 25: the total clock runs in a pause, too
--- http_config eval: "$::Zone tokens=60/m;"
--- location
llm_idle_timeout 300ms;
llm_total_timeout 1s;
llm_limit zone=t reserve=10 overrun=pace;
--- sim: tokens=2000; itl=1
--- more_headers eval: $::Me
--- response_body_like eval
qr/tok\d+.*\n\nevent: error\ndata: \{"type":"error".*\n\n\z/s
--- error_log
upstream timed out
--- log
end: total_timeout
completion_tokens: /6\d/
--- sim_stats
aborted: 1
inflight: 0



=== TEST 26: upstream ends in a pause: the rest is not lost
--- http_config eval: "$::Zone tokens=40/s burst=10;"
--- location
llm_limit zone=t reserve=10 overrun=pace;
--- sim: tokens=20; itl=0; http=1.0
--- more_headers eval: $::Me
--- response_body_like eval: qr/tok19.*\[DONE\]\n\n\z/s
--- error_log: answer paced
--- log
end: done
completion_tokens: 20



=== TEST 27: .. and breaks off in one
--- http_config eval: "$::Zone tokens=40/s burst=10;"
--- location
llm_limit zone=t reserve=10 overrun=pace;
--- sim: tokens=40; itl=0; fault=close; at=20
--- more_headers eval: $::Me
--- response_body_like eval: qr/tok19.*\n\nevent: error\n[^\n]*\n\n\z/s
--- error_log: prematurely closed
--- log
end: upstream_truncated



=== TEST 28: of two zones each has its own overrun
--- http_config eval
"$::Zone tokens=100/d; llm_limit_zone \$host zone=u:64k count=completion
 tokens=200/s burst=30;"
--- location
llm_limit zone=u reserve=10 overrun=pace;
llm_limit zone=t reserve=10 overrun=cut;
--- sim: tokens=2000; itl=0
--- more_headers eval: $::Me
--- response_body_like eval: qr/tok40.*$::Cut\z/s
--- error_log
answer paced
answer cut, zone "t"
--- log
end: limit_cut
limit_zone: t
completion_tokens: /10[0-3]/



=== TEST 29: pace: what others give back lets a stream go on at once
--- http_config eval: "$::Zone tokens=10/s burst=600;"
--- location
llm_limit zone=t overrun=pace;
--- request
GET /up
--- error_code: 404
--- error_log: answer paced
--- live eval
sub {
    my ($name) = @_;
    my $ask = '{"model":"sim","stream":true,"max_tokens":MOST,"messages":'
              . '[{"role":"user","content":"hello"}]}';
    my $other = main::client('tokens=1; ttft=2500',
                             body => $ask =~ s/MOST/550/r);
    my $client;

    LlmNginx::true_in_time(sub { main::passed() });
    $client = main::client('tokens=1; words=2000',
                           body => $ask =~ s/MOST/10/r);

    LlmClient::await_end($client, $other);

    # some 40 s otherwise

    main::ok($client->complete, "$name - whole");
    main::cmp_ok($client->{seconds}, '>', 1, "$name - it paused");
    main::cmp_ok($client->{seconds}, '<', 8, "$name - not for long");
}
--- log
end: done



=== TEST 30: an event is a token at least, also where its text is less by far
--- http_config eval: "$::Zone tokens=100/d;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- sim: tokens=2000; itl=0; say=a
--- more_headers eval: $::Me
--- response_body_like eval: $::Cut
--- error_log: used 10
--- log
end: limit_cut
completion_tokens: /10[01]/



=== TEST 31: .. but a maximum that upstream keeps to is not overrun by that
--- http_config eval: "$::Zone tokens=60/d;"
--- location
llm_limit zone=t reserve=max overrun=cut;
--- body: {"model":"sim","stream":true,"max_tokens":60,"messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=60; itl=0; say=a; extra={"choices":[{"index":0,"delta":{"content":"b"}}]}
--- more_headers eval: $::Me
--- response_body_like: \[DONE\]
--- log
end: done
completion_tokens: 60
