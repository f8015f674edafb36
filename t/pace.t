# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# llm_pace: so many tokens a second and no more, nothing dropped, and no clock
# that takes it for upstream's silence.
# long: streams take the time that their pace gives them

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;
use LlmPair;
use LlmWaits;
use Time::HiRes qw( sleep time );

# of an estimate, as the pace counts: upstream reports nothing

my $Sim = 'tokens=100; itl=0; usage=none';

my $Pair;

sim_options('--itl', '0', '--itl-slope', '0', '--prefill', '1000000',
            '--batch', '256');

for my $http2 (0, 1) {
    paced($http2);
    nothing_dropped($http2);
    left_in_a_pause($http2);
}

by_variable();
beside_overrun();

run_tests();


sub start {
    $Pair = LlmPair->start(@_);
}


sub name {
    my ($name, $http2) = @_;

    return $name . ($http2 ? ', HTTP/2' : '');
}


# events by the time of their arrival

sub arrivals {
    my ($client) = @_;
    my (@times, $count);

    while ($client->pump) {
        $count = () = $client->content =~ /"content":"[^"]/g;
        push @times, (time) x ($count - @times);
        sleep 0.002;
    }

    return @times;
}


sub paced {
    my ($http2) = @_;
    my $name = name('paced', $http2);
    my ($client, $line, $most, $start, $tokens, @stalls, @times);

    start(location => 'llm_pace 200/s;');

    @stalls = LlmWaits::during(sub {
        $client = $Pair->open(sim => $Sim, http2 => $http2);
        @times = arrivals($client);
    }, $Pair->{nginx}->workers, sim_pid());

    ok($client->complete, "$name: complete");
    is(scalar @times, 100, "$name: with all its events");

    ($line) = $Pair->lines(1);
    $tokens = $line->{completion_tokens};

    # the last one passes with its end

    cmp_ok($line->{time}, '>=', 0.95 * ($tokens - 4) / 200, "$name: no faster");

    # without what the machine was late by

    $start = $client->{start};
    cmp_ok($line->{time}
           - LlmWaits::seconds($start, $start + $line->{time}, @stalls), '<=',
           1.1 * $tokens / 200 + 0.3, "$name: no slower");
    cmp_ok($line->{first_token_time}
           - LlmWaits::seconds($start, $start + 0.5, @stalls), '<', 0.1,
           "$name: the first one at once");

    # of each event's tokens, in any half of a second; read late by a little,
    # and by what the machine was late by

    $most = 0;

    for my $i (0 .. $#times) {
        my $n = grep { $_ >= $times[$i] && $_ < $times[$i] + 0.5 } @times;
        $n *= $tokens / 100;
        $n -= 200 * LlmWaits::seconds($times[$i] - 0.1, $times[$i] + 0.5,
                                      @stalls);
        $most = $n if $n > $most;
    }

    cmp_ok($most, '<=', 0.5 * 200 * 1.15 + 10,
           "$name: in each half of a second");

    $Pair->end($name);
}


sub nothing_dropped {
    my ($http2) = @_;
    my $name = name('nothing dropped', $http2);
    my ($client, $plain, $sim);

    # 3 MB, in which nginx's buffers end in mid-event

    $sim = 'tokens=3000; itl=0; words=1000';

    start(location => 'llm_pace $http_x_pace;');

    $plain = $Pair->open(sim => $sim, http2 => $http2)->finish;
    $client = $Pair->open(sim => $sim, http2 => $http2,
                          headers => { 'X-Pace' => '400k/s' })->finish;

    ok($client->complete, "$name: complete");

    # the id and the time are the request's own

    ok(bare($client) eq bare($plain), "$name: byte for byte");

    $Pair->end($name);
}


sub bare {
    my ($client) = @_;

    return $client->content =~ s/"(?:id|created)":[^,]*,//gr;
}


sub left_in_a_pause {
    my ($http2) = @_;
    my $name = name('left in a pause', $http2);
    my $client;

    start(location => 'llm_pace 1/s;');

    $client = $Pair->open_at(1, sim => 'tokens=2000; itl=5',
                             http2 => $http2);
    sleep 0.3;
    $client->close;

    $Pair->aborted($name, 1);
    is(($Pair->lines(1))[0]{end}, 'client_abort', "$name: end");

    $Pair->end($name);
}


sub by_variable {
    my (@clients, %seconds);

    start(http => 'map $http_x_tier $pace { slow 100/s; bad 12; off off; }',
          location => 'llm_pace $pace;');

    for my $tier (qw( slow bad off none )) {
        push @clients, $Pair->open(sim => $Sim,
                                   headers => { 'X-Tier' => $tier,
                                                'X-N' => $tier });
    }

    LlmClient::await_end(@clients);
    is(scalar(grep { $_->complete } @clients), 4, 'variable: all complete');

    %seconds = map { $_->{n} => $_->{time} } $Pair->lines(4);

    cmp_ok($seconds{slow}, '>', 1, 'variable: a rate');

    for my $tier (qw( bad off none )) {
        cmp_ok($seconds{$tier}, '<', 0.5, "variable: $tier is none");
    }

    is(scalar($Pair->{nginx}->logged(
           qr/\[error\].*llm_pace: invalid rate "12" from "\$pace"/)), 1,
       'variable: what is no rate is logged');

    $Pair->end('variable');
}


# the slower of both counts

sub beside_overrun {
    my (@lines);

    start(http => 'llm_limit_zone $http_x_n zone=t:1m tokens=100/s burst=50;',
          location => 'llm_limit zone=t reserve=10 overrun=pace;'
                      . ' llm_idle_timeout 1s; llm_pace $http_x_pace;');

    $Pair->open(sim => $Sim, headers => { 'X-N' => 1, 'X-Pace' => '1k/s' })
        ->finish;
    $Pair->open(sim => $Sim, headers => { 'X-N' => 2, 'X-Pace' => '60/s' })
        ->finish;

    # a worker may be late to log what its client has already

    @lines = sort { $a->{n} <=> $b->{n} } $Pair->lines(2);

    is(join(' ', map { $_->{end} } @lines), 'done done', 'overrun: both end');

    cmp_ok($lines[0]{time}, '>=',
           0.9 * ($lines[0]{completion_tokens} - 60) / 100,
           'overrun: no faster than the budget');
    cmp_ok($lines[1]{time}, '>=', 0.9 * $lines[1]{completion_tokens} / 60,
           'overrun: no faster than the pace');

    $Pair->end('overrun');
}

__DATA__

=== TEST 1: a pause is not upstream's silence
--- location
llm_idle_timeout 300ms;
llm_pace 4/s;
--- sim: tokens=4; itl=0
--- timeout: 8
--- response_body_like: \[DONE\]
--- log
end: done



=== TEST 2: the total clock ends it all the same
--- location
llm_total_timeout 700ms;
llm_pace 4/s;
--- sim: tokens=40; itl=0
--- response_body_like eval
qr/event: error\ndata: \{"type":"error".*\n\n\z/
--- error_log
upstream timed out
--- log
end: total_timeout



=== TEST 3: an answer that is not streamed has no pace
--- location
llm_pace 1/s;
--- body: {"model":"sim","messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=100; itl=0
--- error_code: 200
--- log
end: done
completion_tokens: 100



=== TEST 4: off, where it is inherited
--- http_config
llm_pace 1/s;
--- location
llm_pace off;
--- sim: tokens=50; itl=0
--- response_body_like: \[DONE\]
--- log
end: done



=== TEST 5: what is no rate is refused
--- config
llm_pace 12;
--- must_die
--- error_log
invalid value "12" in "llm_pace" directive: 



=== TEST 6: .. and twice
--- config
llm_pace 12/s;
llm_pace 12/s;
--- must_die
--- error_log
"llm_pace" directive is duplicate
