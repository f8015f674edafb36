# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# llm_limit with wait=: who comes over the limit sleeps exactly as long as
# needed, first come, first served, over two workers.  Where time is measured
# it is bounded below by the rate, and above by what a busy machine needs.
# long: all of it with the same server and clients

use strict;
use warnings;

use lib 't/lib';

use File::Path qw( remove_tree );
use List::Util qw( max min );
use POSIX qw( ceil );
use Socket qw( SOL_SOCKET SO_LINGER );

use LlmTest;
use LlmClient;
use LlmH2;
use LlmNginx;
use LlmStall;
use Time::HiRes qw( sleep time );

my $Dir = "$ENV{TEST_NGINX_SERVROOT}-live";
my $Port = free_port(2);
my $PortH2 = $Port + 1;
my $Killed = qr/worker process \d+ exited on signal 9/;

my $Body = '{"model":"sim","stream":true,"max_tokens":%d,'
           . '"messages":[{"role":"user","content":"hello"}]}';

my $Nginx;

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000',
            '--batch', '256', '--quiet');
sim_start();
LlmStall::start();

in_order('requests', 'requests=5/s requests_burst=1');
in_order('tokens', 'tokens=500/s burst=100 count=completion');
at_rest();
left('requests', 'requests=15/m requests_burst=1');
left('tokens', 'tokens=1500/m burst=100 count=completion');
left_by_reset_of_a_stream();
moved_by_leavers();
moved_by_streams();
moved_once();
moved_by_a_killed_worker();
too_long();
two_zones();
dry_run();
reloaded();
killed();
killed_without_successor();

remove_tree($Dir) if Test::More->builder->is_passing;


# 30 at once and a budget for 5 a second; each needs one request, or 100
# tokens

sub in_order {
    my ($name, $rate) = @_;
    my ($cpu, @clients, @delayed, @late, @logged);

    start($rate, 'wait=40s');

    for my $n (1 .. 30) {
        push @clients, ask('', $n);
        await(sub { requests() == @clients });
    }

    $cpu = $Nginx->cpu_seconds;
    LlmClient::await_end(@clients);
    $cpu = $Nginx->cpu_seconds - $cpu;

    is(scalar(grep { $_->complete } @clients), 30,
       "$name: all 30 get their answers, nobody gets 429");

    @logged = sort { $a->{sent} <=> $b->{sent} } $Nginx->lines(30);

    is(join(' ', map { $_->{n} } @logged), join(' ', 1 .. 30),
       "$name: in the order in which they came");

    @late = late(0.2, @logged);

    cmp_ok(min(@late), '>', -0.2, "$name: one in 0.2 s, never one more");
    cmp_ok(max(@late), '<', 2, "$name: and not many less");

    # on a busy machine the first ones may come too late to be delayed

    @delayed = grep { $_->{limit} eq 'DELAYED' && $_->{wait} > 0 } @logged;

    is($logged[0]{limit}, 'PASSED', "$name: the first one passes");
    cmp_ok(scalar @delayed, '>=', 5, "$name: DELAYED is the others' status");

    is(scalar(keys %{{ map { $_->{pid} => 1 } @logged }}), 2,
       "$name: both workers had some of them");

    is($clients[29]->header("x-ratelimit-remaining-$name"), 0,
       "$name: the headers are as on a request that passed");
    ok(!defined $clients[29]->header('Retry-After'),
       "$name: without a time to wait");

    is(scalar($Nginx->logged(
           qr/\[warn\] .*llm limit: delayed, zone "t", key \w+, need \d+ /)),
       scalar @delayed, "$name: a line each, one level below a rejection's");

    # also nginx's debug log is written in this time

    cmp_ok($cpu, '<', 0.3, "$name: the workers are at rest");

    end($name);
}


# nobody is served: nothing runs

sub at_rest {
    my ($cpu, @clients);

    start('requests=1/m requests_burst=1', 'wait=1h');

    @clients = map { ask() } 1 .. 30;
    await(sub { requests() == 30 && grep { !$_->pump } @clients });

    $cpu = $Nginx->cpu_seconds;
    sleep 1;
    $cpu = $Nginx->cpu_seconds - $cpu;

    cmp_ok($cpu, '<=', 0.03, 'at rest: 29 sleepers take no time at all');

    $_->close for @clients;
    end('at rest');
}


# W sleeps until 4 s and leaves; then the next one has its place until 4 s,
# and leaves in another way.  Of each that gave nothing back the last one
# would have to wait 4 s longer.

sub left {
    my ($name, $rate) = @_;
    my ($client, $start, @line);

    start($rate, 'wait=1h');

    $start = time;
    ask()->finish;

    for my $way (\&full_close, \&half_close, \&reset_) {
        $client = ask();
        await(sub { requests() == @line + 2 });

        $way->($client->{sock});
        @line = grep { $_->{limit} eq 'DELAYED' } $Nginx->lines(@line + 2);

        is($line[-1]{end}, 'client_abort', "$name, left: seen at once");
        is("@{$line[-1]}{qw( status source prompt completion )}",
           '499 none - -', "$name, left: nothing is billed");
        cmp_ok($line[-1]{wait}, '<', 4, "$name, left: in its sleep");
    }

    $client = ask()->finish;
    is($client->status, 200, "$name, left: the next one is served");

    cmp_ok($client->{start} + $client->{seconds} - $start, '>=', 3.99,
           "$name, left: not before its time");
    cmp_ok($client->{start} + $client->{seconds} - $start, '<', 7.9,
           "$name, left: at the place of all who left");

    is(sim_stats()->{requests}, 2, "$name, left: nobody else was sent on");

    end("$name, left");
}


sub full_close {
    my ($sock) = @_;

    $sock->close;
}


sub half_close {
    my ($sock) = @_;

    $sock->shutdown(1);
}


sub reset_ {
    my ($sock) = @_;

    setsockopt $sock, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
    $sock->close;
}


# the connection stays: three streams on it, and the second leaves

sub left_by_reset_of_a_stream {
    my ($sock, @lines);

    start('requests=15/m requests_burst=1', 'wait=1h');

    ask()->finish;

    $sock = LlmH2::connect($PortH2);
    $sock->syswrite(h2_request(1));
    await(sub { requests() == 2 });

    $sock->syswrite(LlmH2::cancel(1));
    @lines = grep { $_->{limit} eq 'DELAYED' } $Nginx->lines(2);

    is($lines[0]{end}, 'client_abort', 'stream reset: seen at once');
    cmp_ok($lines[0]{wait}, '<', 4, 'stream reset: in its sleep');

    $sock->syswrite(h2_request(3));
    @lines = grep { $_->{limit} eq 'DELAYED' } $Nginx->lines(3);

    is($lines[1]{end}, 'done', 'stream reset: the next one is served');

    # 4 s later else

    cmp_ok($lines[1]{wait}, '<', 6, 'stream reset: at the same place');

    $sock->close;
    end('stream reset');
}


sub h2_request {
    my ($stream) = @_;

    return LlmH2::request($stream, sprintf($Body, 100),
                          'x-llm-sim' => 'tokens=100');
}


# 20 at 3 a second, and 6 that sleep leave at once: those behind move up by 2 s,
# and who comes then is behind them

sub moved_by_leavers {
    my (@clients, @late, @logged, @served);

    start('requests=3/s requests_burst=1', 'wait=40s');

    for my $n (1 .. 20) {
        push @clients, ask('', $n);
        await(sub { requests() == @clients });
    }

    for my $n (13 .. 18) {
        $clients[$n - 1]->close;
    }

    await(sub {
        return grep({ $_->{end} eq 'client_abort' } $Nginx->lines(6)) == 6;
    });

    for my $n (21 .. 25) {
        push @clients, ask('', $n);
        await(sub { requests() == @clients });
    }

    LlmClient::await_end(@clients);

    @logged = sort { $a->{sent} <=> $b->{sent} }
              grep { $_->{end} eq 'done' } $Nginx->lines(25);

    is(join(' ', map { $_->{n} } @logged), join(' ', 1 .. 12, 19 .. 25),
       'moved by leavers: all others are served, in order');

    @late = late(1 / 3, @logged);

    cmp_ok(min(@late), '>', -1 / 3, 'moved by leavers: not before its time');
    cmp_ok(max(@late), '<', 1.5, 'moved by leavers: nor where it was before');
    cmp_ok(most_in(3, @logged), '<=', 12,
           'moved by leavers: never more than the rate and the burst');
    is(scalar(keys %{{ map { $_->{pid} => 1 } @logged }}), 2,
       'moved by leavers: in both workers');

    end('moved by leavers');
}


# each takes 1000 tokens, and 900 of them are given back some 20 ms later

sub moved_by_streams {
    my (@clients, @logged);

    start('tokens=1k/s burst=1000 count=completion', 'wait=5m reserve=max');

    for my $n (1 .. 10) {
        push @clients, ask('', $n, 1000);
        await(sub { requests() == @clients });
    }

    LlmClient::await_end(@clients);

    is(scalar(grep { $_->complete } @clients), 10,
       'moved by streams: all are served');

    @logged = sort { $a->{sent} <=> $b->{sent} } $Nginx->lines(10);

    is(join(' ', map { $_->{n} } @logged), join(' ', 1 .. 10),
       'moved by streams: in the order in which they came');
    cmp_ok($logged[9]{sent} - $logged[0]{sent}, '>=', 0.88,
           'moved by streams: not before their tokens were refilled');
    cmp_ok($logged[9]{sent} - $logged[0]{sent}, '<=', 6,
           'moved by streams: in 1 s instead of 9');
    is(scalar(keys %{{ map { $_->{pid} => 1 } @logged }}), 2,
       'moved by streams: in both workers');

    end('moved by streams');
}


# a bucket is not more than full when 1000 tokens come back after 0.5 s: the
# next one has these, and the one behind it has to wait 4 s for 1000 more

sub moved_once {
    my (@clients, @logged);

    start('tokens=250/s burst=1000 count=completion', 'wait=5m reserve=max');

    push @clients, ask('', 1, 1000, 'tokens=1; ttft=500');
    await(sub { requests() == 1 });

    for my $n (2 .. 3) {
        push @clients, ask('', $n, 1000, 'tokens=1000; itl=0');
        await(sub { requests() == @clients });
    }

    LlmClient::await_end(@clients);

    @logged = sort { $a->{sent} <=> $b->{sent} } $Nginx->lines(3);

    is(join(' ', map { "$_->{n}:$_->{completion}" } @logged),
       '1:1 2:1000 3:1000', 'moved once: in the order in which they came');
    cmp_ok($logged[1]{sent} - $logged[0]{sent}, '<', 3.5,
           'moved once: as soon as it is known');
    cmp_ok($logged[2]{sent} - $logged[1]{sent}, '>', 3.5,
           'moved once: by no more than a full bucket');

    end('moved once');
}


# who sleeps in one worker moves up when the other one is killed

sub moved_by_a_killed_worker {
    my ($seconds, $start, @clients, @left, @logged);

    start('requests=5/s requests_burst=1', 'wait=1h');
    $start = LlmStall::mark();

    for my $n (1 .. 30) {
        push @clients, ask('', $n);
        await(sub { requests() == @clients });
    }

    # the lines of those that have been served are not to die with it

    $Nginx->lines(scalar grep { !$_->pump } @clients);
    $Nginx->replace('KILL', ($Nginx->workers)[0]);
    LlmClient::await_end(@clients);
    $seconds = LlmStall::since($start);

    @left = grep { $_->complete } @clients;
    @logged = sort { $a->{sent} <=> $b->{sent} }
              grep { $_->{end} eq 'done' } $Nginx->lines(scalar @left);

    cmp_ok(scalar @left, '<', 30, 'moved by a death: some have died');
    cmp_ok($seconds, '<=', 0.2 * @left + 2,
           'moved by a death: the others move up');
    is(join(' ', map { $_->{n} } @logged),
       join(' ', sort { $a <=> $b } map { $_->{n} } @logged),
       'moved by a death: in order');

    end('moved by a death', $Killed);
}


# how late each was sent, where one is let go in so many seconds, once it came

sub late {
    my ($period, @logged) = @_;
    my ($place, @late);

    for my $line (@logged) {
        $place = max(defined $place ? $place + $period : (),
                     $line->{sent} - $line->{wait});
        push @late, $line->{sent} - $place;
    }

    return @late;
}


# the most that were sent in any time of so many seconds

sub most_in {
    my ($seconds, @logged) = @_;
    my @sent = map { $_->{sent} } @logged;

    return max(map { my $from = $_;
                     scalar grep { $_ >= $from && $_ < $from + $seconds }
                            @sent } @sent);
}


# a delay above wait: at once, and nothing is taken

sub too_long {
    my ($client, @clients);

    start('requests=15/m requests_burst=1', 'wait=4400ms');

    @clients = map { ask() } 1 .. 2;
    await(sub { requests() == 2 });

    for (1 .. 3) {
        $client = ask()->finish;

        is($client->status, 429, 'too long: is rejected');
        cmp_ok($client->{seconds}, '<', 3, 'too long: at once');
        is($client->header('Retry-After'),
           ceil($client->header('retry-after-ms') / 1000),
           'too long: says how long');
        cmp_ok($client->header('retry-after-ms'), '>', 4400,
               'too long: to a millisecond');
        cmp_ok($client->header('retry-after-ms'), '<=', 8000,
               'too long: and did not take its place');
    }

    LlmClient::await_end(@clients);
    is(join(' ', map { $_->status } @clients), '200 200',
       'too long: those before are served');

    end('too long');
}


# t gives one in five seconds, u one in three

sub two_zones {
    my ($client, @lines);

    start('requests=12/m requests_burst=1', 'wait=9s',
          'requests=20/m requests_burst=1');

    ask('/t', 1)->finish;
    ask('/u', 2)->finish;

    # t has the longer delay, but may wait for it

    $client = ask('/hard', 3)->finish;
    is($client->status, 429, 'two zones: one that has no wait rejects');
    cmp_ok($client->header('retry-after-ms'), '<=', 3000,
           'two zones: and tells its own delay');

    # that took nothing of t, which would have a delay of ten seconds else

    $client = ask('/both', 4)->finish;
    is($client->status, 200, 'two zones: both may wait');

    @lines = by_number(4);
    is(join(' ', map { "$_->{limit}:$_->{zone}" } @lines),
       'PASSED:t PASSED:u REJECTED:u DELAYED:t', 'two zones: who decided');
    cmp_ok($lines[3]{wait}, '>', 0, 'two zones: for the longest delay');
    cmp_ok($lines[3]{wait}, '<=', 5, 'two zones: not for both together');

    end('two zones');
}


sub dry_run {
    my (@clients, @lines);

    start('requests=1/m requests_burst=1', 'wait=90s', undef,
          'llm_limit_dry_run on;');

    @clients = map { ask('', $_)->finish } 1 .. 3;

    is(join(' ', map { $_->status } @clients), '200 200 200',
       'dry run: all are served');
    @lines = by_number(3);
    is(join(' ', map { "$_->{limit}:$_->{wait}" } @lines),
       'PASSED:0.000 DELAYED_DRY_RUN:0.000 REJECTED_DRY_RUN:0.000',
       'dry run: but they are counted');

    is(scalar($Nginx->logged(qr/\[warn\] .*llm limit: delayed, dry run, /)),
       1, 'dry run: and logged');

    end('dry run');
}


# those who sleep are served by the old workers, at their time; new ones come
# behind them

sub reloaded {
    my ($conf, @clients);

    $conf = start('requests=2/s requests_burst=1', 'wait=40s');

    @clients = map { ask() } 1 .. 5;
    await(sub { requests() == 5 });

    $Nginx->reload($conf);

    push @clients, ask();
    LlmClient::await_end(@clients);

    is(scalar(grep { $_->complete } @clients), 6, 'reloaded: all are served');
    cmp_ok($clients[5]{start} + $clients[5]{seconds} - $clients[0]{start},
           '>=', 2.5, 'reloaded: the new one behind the others');

    is(scalar(grep { $_->{end} eq 'done' } $Nginx->lines(6)), 6,
       'reloaded: and to their end');

    end('reloaded');
}


# those that slept in a killed worker have taken nothing

sub killed {
    my ($client, @clients);

    start('requests=1/m requests_burst=1', 'wait=1h');

    @clients = map { ask() } 1 .. 20;
    await(sub { requests() == 20 && grep { !$_->pump } @clients });

    $Nginx->replace('KILL', $Nginx->workers);
    $_->finish for @clients;

    $client = ask();
    await(sub { delays() == 20 });

    cmp_ok((delays())[-1], '<=', 60_000, 'killed: their places are free');

    $client->close;
    end('killed', $Killed);
}


# the master does not replace a worker that was about to leave

sub killed_without_successor {
    my ($client, $conf, $start, @clients, @old);

    $conf = start('requests=1/m requests_burst=1', 'wait=1h');

    @clients = map { ask() } 1 .. 20;
    await(sub { requests() == 20 && grep { !$_->pump } @clients });

    @old = $Nginx->workers;
    $Nginx->reload($conf);
    kill 'KILL', @old;

    $_->finish for @clients;
    $start = LlmStall::mark();

    do {
        sleep 0.2;
        $client = ask();
        await(sub { requests() == @clients + 1 });
        push @clients, $client;
        $client->close;

    } while ((delays())[-1] > 60_000 && LlmStall::since($start) < 3);

    cmp_ok((delays())[-1], '<=', 60_000,
           'killed without successor: their places are free within 3 s');

    end('killed without successor', $Killed);
}


sub ask {
    my ($path, $n, $max, $sim) = @_;

    return LlmClient->open($Port, sim => $sim // 'tokens=100; itl=0.1',
                           body => sprintf($Body, $max // 100),
                           headers => { 'X-N' => $n // 0 },
                           path => ($path // '') . '/v1/chat/completions');
}


# a worker may be late to log what its client has already

sub by_number {
    my ($count) = @_;

    return sort { $a->{n} <=> $b->{n} } $Nginx->lines($count);
}


# what was decided so far: requests, and the delays of those that have one

sub requests {
    return scalar $Nginx->logged(qr/llm limit: (?:passed|delayed|rejected)/);
}


sub delays {
    return map { /by (\d+)ms/ } $Nginx->logged(qr/llm limit: delayed/);
}


sub await {
    my ($happened) = @_;

    return LlmNginx::true_in_time($happened);
}


# with sockets of their own both workers get requests; "sent" is when the
# request to upstream was made: a map's value is evaluated once

sub start {
    my ($rate, $wait, $other, $more) = @_;
    my $conf;

    $other //= $rate;
    $more //= '';

    $conf = <<"END";
    llm_limit_zone all zone=t:1m $rate;
    llm_limit_zone all zone=u:1m $other;

    map \$msec \$sent { default \$msec; }

    log_format llm 'n=\$http_x_n sent=\$sent limit=\$llm_limit_status '
                   'zone=\$llm_limit_zone wait=\$llm_limit_wait '
                   'status=\$status end=\$llm_end source=\$llm_usage_source '
                   'prompt=\$llm_prompt_tokens '
                   'completion=\$llm_completion_tokens pid=\$pid';

    server {
        listen 127.0.0.1:$Port reuseport;
        listen 127.0.0.1:$PortH2 http2;

        access_log logs/llm.log llm;

        llm_stream on;
        $more
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header X-Sent \$sent;

        location / {
            llm_limit zone=t $wait;
            proxy_pass http://127.0.0.1:@{[ sim_port(1) ]};
        }

        location /t/ {
            llm_limit zone=t;
            proxy_pass http://127.0.0.1:@{[ sim_port(1) ]}/;
        }

        location /u/ {
            llm_limit zone=u;
            proxy_pass http://127.0.0.1:@{[ sim_port(1) ]}/;
        }

        location /both/ {
            llm_limit zone=u $wait;
            llm_limit zone=t $wait;
            proxy_pass http://127.0.0.1:@{[ sim_port(1) ]}/;
        }

        location /hard/ {
            llm_limit zone=t $wait;
            llm_limit zone=u;
            proxy_pass http://127.0.0.1:@{[ sim_port(1) ]}/;
        }
    }
END

    sim_reset();

    $Nginx = LlmNginx->start(binary => nginx(), module => module(),
                             dir => $Dir,
                             main => 'worker_processes 2;', http => $conf);

    return $conf;
}


sub end {
    my ($name, $expected) = @_;

    is_deeply([ $Nginx->faults($expected) ], [], "$name: no faults logged");

    $Nginx->stop;
}
