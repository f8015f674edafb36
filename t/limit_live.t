# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# llm_limit with many requests at once, with clients that leave, with workers
# that die and with configurations that change.  A day's rate does not refill
# while a test runs, and only completion tokens count: the numbers are exact.

use strict;
use warnings;

use lib 't/lib';

use File::Path qw( remove_tree );

use LlmTest;
use LlmClient;
use LlmNginx;
use Time::HiRes qw( sleep time );

my $Dir = "$ENV{TEST_NGINX_SERVROOT}-live";
my $Port = free_port(1);
my $Killed = qr/worker process \d+ exited on signal 9/;

# a request that names its maximum, and one that does not

my $Body = '{"model":"sim","stream":true,"max_tokens":%d,'
           . '"messages":[{"role":"user","content":"hello"}]}';

my $Nginx;

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000',
            '--batch', '256', '--quiet');
sim_start();

herd();
herd_of_strangers();
herd_in_two_zones();
aborted();
reloaded();
resized();
key_changed();
killed();
killed_behind_locks();
terminated();
zone_full_of_keys();
zone_full_of_requests();
faster_plan();
slower_plan();

remove_tree($Dir) if Test::More->builder->is_passing;


# 50 at once and a budget for 10, over two workers

sub herd {
    my ($ok, $refused);

    start(limits('tokens=1k/d'));

    ($ok, $refused) = rush(50, 100, 'tokens=100');

    is(scalar @$ok, 10, 'herd: as many as the budget has reserves for');
    is(scalar @$refused, 40, 'herd: the others get 429');
    is(spent(), 1000, 'herd: the budget is spent to the token');
    is(left(), 0, 'herd: nothing is left');

    is(scalar(grep { $_->complete } @$ok), 10, 'herd: answers are whole');
    is(scalar(grep { $_->header('Retry-After') } @$refused), 40,
       'herd: each of the others is told when to come again');

    end('herd');

    # what is reserved and not used serves others

    ($ok) = rush_together(50, 100, 40);
    is(scalar @$ok, 10, 'modest herd: 10 reserves');
    is(left(), 600, 'modest herd: what they did not use is back');

    ($ok) = rush(50, 100, 'tokens=40');
    is(scalar @$ok, 15, 'modest herd: by then it is known what they use');
    is(left(), 0, 'modest herd: nothing is left');
    is(spent(), 1000, 'modest herd: the budget is spent to the token');

    end('modest herd');
}


# nothing is known of them, and they name no maximum

sub herd_of_strangers {
    my $ok;

    start(limits('tokens=1k/d'));

    ($ok) = rush(50, undef, 'tokens=100');

    cmp_ok(scalar @$ok, '>', 0, 'strangers: some are let in');
    cmp_ok(spent(), '<=', 1000, 'strangers: the budget holds');

    end('strangers');
}


# a request that one zone refuses has taken nothing of the other

sub herd_in_two_zones {
    my ($ok, $spent);

    start(limits('tokens=1k/d', 'requests=7/d'));

    ($ok) = rush(50, 100, 'tokens=10');

    is(scalar @$ok, 7, 'two zones: the tighter one decides');
    is(spent(), 70, 'two zones: as much as was used');
    is(left(), 930, 'two zones: is charged in the other');

    end('two zones');
}


sub aborted {
    my ($before, $client, $left, $spent);

    start(limits('tokens=1k/d'));

    $client = ask(500, 'tokens=500; itl=50');
    is($client->header('x-ratelimit-remaining-tokens'), 500,
       'aborted: the maximum is reserved');

    LlmClient::await(sub { $_[0]->body !~ /tok12/ }, $client);
    $client->close;

    await(sub { ($left = left()) > 500 });
    $spent = 1000 - $left;

    cmp_ok($spent, '>=', 10, 'aborted: what was produced is charged');
    cmp_ok($spent, '<', 100, 'aborted: what was not is given back');

    end('aborted');
}


# A reload keeps what was used, and has what is new apply to new requests.
# One stream stays as it is, the other uses what was reserved for it: what is
# left is the same at any time.

sub reloaded {
    my ($client, $stays);

    start(limits('tokens=1k/d'));

    ask(110, 'tokens=100')->finish;
    is(left(), 900, 'reloaded: before');

    $stays = ask(300, 'tokens=200; fault=stall; at=5');
    $client = ask(300, 'tokens=100; itl=15');
    LlmClient::await_header($stays, $client);

    $Nginx->reload(limits('tokens=1k/d'));
    is(left(), 700, 'reloaded: used and reserved tokens stay so');

    $Nginx->reload(limits('tokens=2k/d'));
    is(left(), 1700, 'reloaded: also under a new rate');

    $client->finish;
    is(left(), 1700, 'reloaded: what began before is charged');
    ok($client->complete, 'reloaded: its stream was whole');

    $stays->close;
    await(sub { left() > 1700 });
    cmp_ok(left(), '>', 1750, 'reloaded: and what it did not use is back');

    end('reloaded');
}


# Another size is another zone, with all of its locks; who is in the old one
# stays there.

sub resized {
    my (@keys, $stays);

    @keys = map { "key $_" } 1 .. 9;

    start(limits('tokens=1k/d'));

    finished(map { ask(110, 'tokens=100', $_) } @keys);
    $stays = ask(300, 'tokens=100; itl=15', $keys[0]);
    LlmClient::await_header($stays);

    $Nginx->reload(limits('tokens=1k/d') =~ s/:1m/:4m/r);
    is_deeply([ map { left($_) } @keys ], [ (1000) x 9 ],
              'resized: all budgets are full');

    finished(map { ask(110, 'tokens=100', $_) } @keys);
    is_deeply([ map { left($_) } @keys ], [ (900) x 9 ],
              'resized: and charged');

    $Nginx->reload(limits('tokens=1k/d') =~ s/:1m/:4m/r);
    is_deeply([ map { left($_) } @keys ], [ (900) x 9 ],
              'resized: the same size keeps them');

    $stays->finish;
    ok($stays->complete, 'resized: a stream of the old zone was whole');
    is(left($keys[0]), 900, 'resized: and is none of the new one');

    $Nginx->reload(limits('tokens=1k/d') =~ s/:1m/:2m/r);
    is_deeply([ map { left($_) } @keys ], [ (1000) x 9 ],
              'resized: a smaller one has fewer locks, and nothing else');

    end('resized');
}


sub key_changed {
    my $changed = limits('tokens=1k/d');

    $changed =~ s/\$http_authorization/\$remote_addr/;

    start(limits('tokens=1k/d'));
    ask(110, 'tokens=100')->finish;

    $Nginx->configure($changed);
    kill 'HUP', $Nginx->{pid};

    $Nginx->await('the reload is refused', sub {
        return scalar $Nginx->logged(qr/uses the "\$remote_addr" key while/);
    });

    is(left(), 900, 'key changed: the old configuration serves on');

    end('key changed', qr/uses the "\$remote_addr" key while/);
}


sub killed {
    my @clients;

    start(limits('tokens=1k/d'));

    @clients = map { ask(100, 'tokens=100; itl=100') } 1 .. 8;
    LlmClient::await_header(@clients);

    is(left(), 200, 'killed: reserved before');

    kill_workers('KILL', $Nginx->workers);
    $_->finish for @clients;

    is(left(), 1000, 'killed: what the dead ones held is given back');

    end('killed', $Killed);
}


# the same of many keys, which are all over a larger zone

sub killed_behind_locks {
    my (@clients, @keys);

    @keys = map { "key $_" } 1 .. 16;

    start(limits('tokens=1k/d') =~ s/:1m/:4m/r);

    @clients = map { ask(100, 'tokens=100; itl=100', $_) } @keys;
    LlmClient::await_header(@clients);

    is_deeply([ map { left($_) } @keys ], [ (900) x 16 ],
              'killed behind locks: reserved before');

    kill_workers('KILL', $Nginx->workers);
    $_->finish for @clients;

    is_deeply([ map { left($_) } @keys ], [ (1000) x 16 ],
              'killed behind locks: all of it is given back');

    end('killed behind locks', $Killed);
}


# a worker that has to leave at once, with its requests unfinished

sub terminated {
    my @clients;

    start(limits('tokens=1k/d'));

    @clients = map { ask(100, 'tokens=100; itl=100') } 1 .. 8;
    LlmClient::await_header(@clients);

    kill_workers('TERM', $Nginx->workers);
    $_->finish for @clients;

    is(left(), 1000, 'terminated: what they held is given back');

    end('terminated');
}


# more keys than a zone has room for: the oldest one goes, and is logged once

sub zone_full_of_keys {
    my ($ok, @lines);

    start(limits('tokens=1k/d') =~ s/:1m/:32k/r);

    for (1 .. 15) {
        $ok += grep { $_->status == 200 }
               finished(map { ask(10, 'tokens=1', rand) } 1 .. 30);
    }

    is($ok, 450, 'full of keys: all of them are served');

    @lines = $Nginx->logged(qr/zone "t" is too small: it dropped a key/);
    is(scalar @lines, 1, 'full of keys: one line says so');

    ask(110, 'tokens=100')->finish;
    is(left(), 900, 'full of keys: the last one has its budget');

    end('full of keys');
}


# no key can be dropped: those that hold something stay, new ones are refused

sub zone_full_of_requests {
    my (@clients, @lines, @ok, @refused);

    start(limits('tokens=1k/d') =~ s/:1m/:32k/r);

    ask(110, 'tokens=100')->finish;

    # held, the key is not dropped

    push @clients, ask(500, 'tokens=100; itl=100');
    push @clients, map { ask(10, 'tokens=100; itl=100', $_) } 1 .. 150;
    LlmClient::await_header(@clients);

    @ok = grep { $_->status == 200 } @clients;
    @refused = grep { $_->status == 429 } @clients;

    cmp_ok(scalar @ok, '>', 50, 'full of requests: those that fit');
    is(@ok + @refused, 151, 'full of requests: the others are refused');
    is(scalar(grep { ($_->header('Retry-After') // 0) == 1 } @refused),
       scalar @refused, 'full of requests: to come again in a second');

    @lines = $Nginx->logged(qr/zone "t" is too small for the requests/);
    is(scalar @lines, 1, 'full of requests: one line says so');

    $_->close for @ok[-30 .. -1];
    await(sub { (left() // 0) == 800 });
    is(left(), 800, 'full of requests: who holds something was not dropped');

    $_->close for @clients;
    await(sub { ask(10, 'tokens=1', 'new')->status == 200 });
    is(ask(10, 'tokens=1', 'newer')->status, 200,
       'full of requests: when they end, new keys are served');

    end('full of requests');
}


# who sleeps has the new rate from the next request of its key on

sub faster_plan {
    my ($first, $second, $third);

    start(plans());

    $first = planned('1/h');
    is($first->finish->status, 200, 'faster plan: there is one an hour');

    $second = planned('1/h');
    ok(await_logged(qr/llm limit: delayed, zone "t", .* by 3[56]\d{5}ms/),
       'faster plan: the second one is to sleep for an hour');

    $third = planned('1/s');

    is($third->finish->status, 200, 'faster plan: the third one has its turn');
    is($second->finish->status, 200, 'faster plan: the second one, too');

    end('faster plan');
}


# .. but never has to sleep for longer than it was told

sub slower_plan {
    my ($first, $second, $third);

    start(plans());

    $first = planned('20/m');
    is($first->finish->status, 200, 'slower plan: there is one in 3 seconds');

    $second = planned('20/m');
    ok(await_logged(qr/llm limit: delayed, zone "t"/),
       'slower plan: the second one is to sleep');

    $third = planned('1/d', '/now');

    is($third->status, 429, 'slower plan: one a day is not there now');
    is($second->finish->status, 200, 'slower plan: who slept is not told that');

    end('slower plan');
}


sub planned {
    my ($rate, $path) = @_;

    return LlmClient->open($Port, path => ($path // '')
                                          . '/v1/chat/completions',
                           headers => { 'X-Rate' => $rate });
}


sub plans {
    my $to = 'http://127.0.0.1:' . sim_port(1);

    return <<"END";
    llm_limit_zone all zone=t:1m requests=\$http_x_rate requests_burst=1;

    server {
        listen 127.0.0.1:$Port reuseport;

        llm_stream on;
        proxy_http_version 1.1;
        proxy_set_header Connection "";

        location / {
            llm_limit zone=t wait=2h;
            proxy_pass $to;
        }

        location /now/ {
            llm_limit zone=t;
            proxy_pass $to/;
        }
    }
END
}


sub await_logged {
    my ($pattern) = @_;
    my $deadline = time + 60;

    while (time < $deadline) {
        return 1 if $Nginx->logged($pattern);
        sleep 0.05;
    }

    return 0;
}


# so many at once; those that were let in, and the others

sub rush {
    my ($requests, $max, $sim) = @_;

    return decided(finished(map { ask($max, $sim) } 1 .. $requests));
}


sub decided {
    my (@clients) = @_;

    return ([ grep { $_->status == 200 } @clients ],
            [ grep { $_->status == 429 } @clients ]);
}


# The same, none of them over before all are decided, with an nginx of its
# own: where the machine was too slow for that, once more, and slowly.

sub rush_together {
    my ($requests, $max, $tokens) = @_;

    for my $itl (25, 250) {
        start(limits('tokens=1k/d'));

        my @clients = map { ask($max, "tokens=$tokens; itl=$itl") }
                          1 .. $requests;

        LlmClient::await_header(@clients);

        my ($ok) = decided(@clients);
        my $together = !grep { !$_->pump } @$ok;

        finished(@clients);
        return decided(@clients) if $together || $itl == 250;
        end("too slow for $itl ms");
    }
}


sub ask {
    my ($max, $sim, $key, $path) = @_;
    my $body;

    $body = sprintf $Body, $max // 0;
    $body =~ s/"max_tokens":0,//;

    return LlmClient->open($Port, sim => $sim, body => $body, path => $path,
                           headers => { Authorization => $key // 'one' });
}


sub finished {
    my (@clients) = @_;

    LlmClient::await_end(@clients);

    return @clients;
}


# asked by a request that takes nothing

sub left {
    my ($key) = @_;

    return ask(undef, 'status=500', $key, '/left/v1/chat/completions')
        ->finish->header('x-ratelimit-remaining-tokens');
}


# what was produced since the start

sub spent {
    return sim_stats()->{completion_tokens};
}


sub await {
    my ($happened) = @_;
    my $deadline = time + 60;

    sleep 0.05 while !$happened->() && time < $deadline;
}


sub kill_workers {
    my ($signal, @pids) = @_;

    kill $signal, @pids;

    $Nginx->await('successors start', sub {
        my %dead = map { $_ => 1 } @pids;
        my @workers = $Nginx->workers;

        return @workers == 2 && !grep { $dead{$_} } @workers;
    });

    $Nginx->await_ready;
}


# http{}: a zone of tokens and, if given, another one

sub limits {
    my ($tokens, $more) = @_;
    my $zone;

    $zone = defined $more ? "llm_limit_zone all zone=u:1m $more;" : '';
    $more = defined $more ? 'llm_limit zone=u;' : '';

    # with sockets of their own both workers get requests

    return <<"END";
    llm_limit_zone \$http_authorization zone=t:1m $tokens count=completion;
    $zone

    server {
        listen 127.0.0.1:$Port reuseport;

        llm_stream on;
        proxy_http_version 1.1;
        proxy_set_header Connection "";

        location / {
            llm_limit zone=t;
            $more
            proxy_pass http://127.0.0.1:@{[ sim_port(1) ]};
        }

        location /left/ {
            llm_limit zone=t reserve=0;
            proxy_pass http://127.0.0.1:@{[ sim_port(1) ]}/;
        }
    }
END
}


sub start {
    my ($http) = @_;

    sim_reset();

    $Nginx = LlmNginx->start(binary => nginx(), module => module(),
                             dir => $Dir,
                             main => 'worker_processes 2;', http => $http);
}


sub end {
    my ($name, $expected) = @_;

    is_deeply([ $Nginx->faults($expected) ], [], "$name: no faults logged");

    $Nginx->stop;
}
