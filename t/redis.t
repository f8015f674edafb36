# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# A budget in Redis: two nginx share it, and all that a budget of one nginx
# does is done: headers, waiting, all or nothing, giving back.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmNode;
use LlmRedis;
use Time::HiRes qw( sleep time );

my ($Redis, @Nodes);

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000');
sim_start();

$Redis = LlmRedis->start(dir => dir('redis'));

shared();
headers();
settled();
left();
upstream_failed();
requests_too();
waits();
leaves_while_waiting();
with_local_zones();
rejected_by_local_zone();
many_keys();
overruns();
answered_late();
paced();
dry_run();
nothing_secret();
reloaded();
by_unix_socket();
by_user();
by_password();
by_tls();
several_addresses();
refused_configurations();

$Redis->stop;


sub dir { return "$ENV{TEST_NGINX_SERVROOT}/$_[0]" }

sub url { return 'redis://' . $Redis->address . '/0' }


sub nodes {
    my ($count, %options) = @_;

    $Redis->call('FLUSHALL') if $Redis->pid;

    @Nodes = map { LlmNode->start(redis => url(), %options) } 1 .. $count;
    $_->await_up for @Nodes;

    return @Nodes;
}


sub done {
    my ($name, $expected) = @_;

    $_->stop for @Nodes;
    is(join('', map { $_->faults($expected) } @Nodes), '',
       "$name: no fault in a log");
    @Nodes = ();
}


sub shared {
    my ($one, $two) = nodes(2);
    my $live = $one->open(600, sim => 'tokens=600; itl=20');

    is($live->status, 200, 'shared: one nginx takes 600 of 1000');
    is($two->ask(600)->status, 429, 'the other one has less than 600');
    is($two->ask(400)->status, 200, 'but 400');
    is($two->ask(400, key => 'other')->status, 200,
       'another key has a budget of its own');
    is(LlmNode::await_used($Redis, 601), 601, 'what was used is written down');

    $live->close;
    done('shared');
}


sub headers {
    my ($one, $two) = nodes(2, zone => 'requests=100/h');
    my $yes = $one->ask(400);
    my ($no, $never);

    is($yes->header('x-ratelimit-limit-tokens'), 1000, 'headers: limit');
    is($yes->header('x-ratelimit-remaining-tokens'), 600, 'what is left');
    is($yes->header('x-ratelimit-remaining-requests'), 99, 'and of requests');
    is($one->logged($yes)->{limit}, 'PASSED', '$llm_limit_status');
    is($one->logged($yes)->{reserved}, 400, '$llm_reserved_tokens');

    LlmNode::await_used($Redis, 1);

    my $live = $one->open(700, sim => 'tokens=700; itl=20');
    $live->status;
    $no = $two->ask(301);

    is($no->status, 429, 'rejected');
    is($no->header('x-ratelimit-remaining-tokens'), 299,
       'with what is left, by the other nginx');
    like($no->header('Retry-After'), qr/^(?:359\d|7[12]\d\d)$/,
         'and the time until it is there');
    like($no->body, qr/"code":"rate_limit_exceeded"/, 'in JSON');

    $never = $two->ask(1001);
    is($never->status, 429, 'more than the burst');
    is($never->header('Retry-After'), undef, 'never is there');

    $live->close;
    done('headers');
}


sub settled {
    my ($one) = nodes(1);

    $one->ask(500, sim => 'tokens=30; itl=0');
    is(LlmNode::await_used($Redis, 30), 30, 'settled: to what it used');
    is(LlmNode::charges($Redis), 0, 'no charge is left');

    done('settled');
}


sub left {
    my ($one) = nodes(1);
    my $client = $one->open(500, sim => 'tokens=500; itl=50');

    LlmClient::await(sub { $_[0]{raw} !~ /(?:"content":.*){5}/s }, $client);
    is(LlmNode::used($Redis), 500, 'left: 500 are taken');
    $client->close;

    LlmRedis::await('given back', sub { LlmNode::used($Redis) < 500 });

    my $used = LlmNode::used($Redis);

    ok($used >= 3 && $used < 400, "a client that leaves pays what it got")
        or diag("it paid $used");
    done('left');
}


sub upstream_failed {
    my ($one) = nodes(1, zone => 'requests=100/h');

    is($one->ask(500, sim => 'status=500')->status, 500,
       'upstream fails: its status');
    is(LlmNode::await_used($Redis, 0), 0, 'all is given back');
    is((LlmNode::used($Redis))[1], 0, 'the request, too');
    done('upstream failed');
}


sub requests_too {
    my ($one, $two) = nodes(2, zone => 'requests=3/h');

    is(join(' ', map { $_->ask(10)->status } $one, $two, $one, $two),
       '200 200 200 429', 'requests are counted for both');
    done('requests');
}


sub waits {
    my ($one, $two) = nodes(2, rate => '100/s', burst => 200,
                            limit => 'wait=30s');
    my ($first, $second, $third, $start);

    # the tokens are taken behind this, so that nobody has them earlier

    $start = time;
    $first = $one->open(200, sim => 'tokens=200; itl=100');
    $first->status;
    $second = $two->open(200, sim => 'tokens=200; itl=1');
    $third = $one->open(100, sim => 'tokens=100; itl=1');

    is($second->status, 200, 'waits: as long as need be');

    my $seconds = time - $start;

    ok($seconds > 1.99 && $seconds < 20, 'two seconds for 200 at 100/s')
        or diag("it was $seconds s");

    is($third->status, 200, 'and the next one behind it');
    $seconds = time - $start;
    ok($seconds > 2.99 && $seconds < 20, 'a second longer')
        or diag("it was $seconds s");

    $_->finish for $second, $third;
    is($two->logged($second)->{limit}, 'DELAYED', 'the log says so');
    cmp_ok($two->logged($second)->{wait}, '>', 0, 'and how long');

    $first->close;
    done('waits');
}


sub leaves_while_waiting {
    my ($one) = nodes(1, rate => '10/s', burst => 200, limit => 'wait=60s');
    my ($first, $second);

    $first = $one->open(200, sim => 'tokens=200; itl=50');
    $first->status;
    $second = $one->open(200);

    LlmRedis::await('taken', sub { LlmNode::used($Redis) > 300 });
    $second->close;
    LlmRedis::await('given back', sub { LlmNode::used($Redis) <= 200 });
    ok(1, 'who leaves while waiting gives back');

    $first->close;
    done('leaves while waiting');
}


sub with_local_zones {
    my ($one) = nodes(1, http => 'llm_limit_zone $http_x_local '
                                 . 'zone=local:1m tokens=1/h burst=100 '
                                 . 'prompt=0;',
                      location => 'llm_limit zone=local reserve=max;');
    my $local = { 'X-Local' => 'l' };

    is($one->ask(100, key => '', headers => $local)->status, 200,
       'a local zone alone: no key, no question');
    is(join(' ', @{$Redis->call('KEYS', '*shared*')}), '',
       'Redis was not asked');

    # the request above used 1 of the local 100

    is($one->ask(1001, headers => $local)->status, 429,
       'more than both ever have');

    my $live = $one->open(990);
    $live->finish;
    LlmNode::await_used($Redis, 1);
    $live = $one->open(950, sim => 'tokens=950; itl=20');
    $live->status;

    is($one->ask(90, headers => $local)->status, 429,
       'Redis has not enough, the local zone has');
    is($one->ask(90, key => 'other', headers => $local)->status, 200,
       'nothing was taken from the local zone');

    $live->close;
    done('with local zones');
}


sub rejected_by_local_zone {
    my ($one) = nodes(1, http => 'llm_limit_zone $http_x_local '
                                 . 'zone=local:1m tokens=1/h burst=100 '
                                 . 'prompt=0;',
                      location => 'llm_limit zone=local reserve=max;');

    my $no = $one->ask(101, headers => { 'X-Local' => 'l' });

    is($no->status, 429, 'the local zone has not enough, Redis has');
    is($one->logged($no)->{zone}, 'local', 'it is the one that is told');
    LlmRedis::await('given back', sub { !LlmNode::used($Redis) });
    ok(1, 'nothing is taken from Redis, or all is given back');
    is(LlmNode::charges($Redis), 0, 'and no charge is open');
    done('rejected by a local zone');
}


sub many_keys {
    my ($one, $two) = nodes(2);
    my @clients = map { $_ % 2 ? $one->open(600, key => "key$_")
                               : $two->open(600, key => "key$_") } 1 .. 60;

    LlmClient::await_end(@clients);
    is(scalar(grep { $_->status == 200 } @clients), 60,
       'many keys at once: each has its own');
    done('many keys');
}


sub overruns {
    my ($one) = nodes(1, limit => 'overrun=cut', burst => 200);
    my $body = '{"model":"sim","stream":true,"messages":[{"role":"user",'
               . '"content":"hello"}]}';

    # it names no maximum: 1 to 200 are reserved

    my $client = LlmClient->open($one->{port}, body => $body,
        sim => 'tokens=900; itl=1', headers => { Authorization => 'k',
                                                 'X-Request' => 'cut' });
    $client->{id} = 'cut';
    $client->finish;

    like($client->body, qr/rate_limit_exceeded/, 'overrun: it is cut');
    is($one->logged($client)->{end}, 'limit_cut', 'the log says so');

    LlmRedis::await('settled', sub { LlmNode::charges($Redis) == 0 });
    ok(LlmNode::used($Redis) <= 200 + 5, 'over by one event at most')
        or diag(scalar LlmNode::used($Redis));
    done('overruns');
}


# what passes while Redis has not answered for what passed before it

sub answered_late {
    my ($one) = nodes(1, limit => 'reserve=1', burst => 10000);
    my $client = $one->open(3000, sim => 'tokens=3000; itl=5');
    my $passed = sub { return scalar(() = $client->body =~ /tok\d/g) };

    $client->pump until $passed->() >= 10;
    $Redis->freeze;
    $client->pump until $passed->() >= 200;
    $Redis->thaw;

    LlmRedis::await('overrun: late answers do not end the counting', sub {
        $client->pump;
        return LlmNode::used($Redis) >= 200;
    });

    ok(!$client->complete, 'while the stream goes on');
    $client->close;
    done('answered late');
}


# an answer of Redis about more tokens ends the pause for it, and no other

sub paced {
    my ($one) = nodes(1, limit => 'overrun=cut reserve=1',
                      location => 'llm_pace 3/s;');
    my $client = $one->open(8, sim => 'tokens=8; itl=0');
    my ($least, @times) = (9);

    while ($client->pump) {
        my $tokens = () = $client->body =~ /"content":"[^"]/g;

        push @times, (time) x ($tokens - @times);
    }

    ok($client->complete, 'paced: complete');

    # what is complete does not wait; a busy machine reads two at once

    for my $i (1 .. 5) {
        $least = $times[$i] - $times[$i - 1] if $times[$i] - $times[$i - 1]
                                                < $least;
    }

    cmp_ok($least, '>', 0.1, 'no token is early');

    done('paced');
}


sub dry_run {
    my ($one) = nodes(1, location => 'llm_limit_dry_run on;');
    my $live = $one->open(900, sim => 'tokens=900; itl=20');

    $live->status;

    my $over = $one->ask(500);

    is($over->status, 200, 'dry run: nothing is rejected');
    is($one->logged($over)->{limit}, 'REJECTED_DRY_RUN', 'the log says it');
    $live->close;
    done('dry run');
}


# what is stored, and said, is a digest

sub nothing_secret {
    my ($one) = nodes(1);

    $one->ask(10, key => 'Bearer sk-secret');
    LlmNode::await_used($Redis, 1, 'Bearer sk-secret');

    my @keys = @{$Redis->call('KEYS', '*')};

    ok(scalar(@keys), 'something is stored');
    unlike(join(' ', @keys, map { @{$Redis->call('HGETALL', $_)} } @keys),
           qr/secret/, 'but no key');
    is(scalar($one->errors(qr/secret/)), 0,
       'nor does the log have one');
    is(scalar(grep { $Redis->call('PTTL', $_) == -1 } @keys), 0,
       'all of it expires');
    done('nothing secret');
}


sub reloaded {
    my ($one) = nodes(1);
    my $stays = $one->open(500, sim => 'tokens=500; fault=stall; at=5');
    my $live = $one->open(100, sim => 'tokens=60; itl=30');

    LlmClient::await_header($stays, $live);
    $one->{nginx}->reload($one->http);
    $one->await_up(1);

    is($one->ask(600)->status, 429, 'reloaded: the budget is what it was');
    $live->finish;
    ok($live->complete, 'the stream goes on');
    is(LlmNode::await_used($Redis, 560), 560,
       'and is settled by the old worker');

    $stays->close;
    LlmRedis::await('given back', sub { LlmNode::used($Redis) < 100 });
    ok(1, 'so is one whose client leaves');
    done('reloaded');
}


sub by_unix_socket {
    my ($one) = nodes(1, redis => "unix:$Redis->{socket}");

    is($one->ask(10)->status, 200, 'by unix socket');
    is(LlmNode::await_used($Redis, 1), 1, 'Redis knows of it');
    done('unix socket');
}


# with the rights that README.md names, and no others

sub by_user {
    $Redis->call('ACL', 'SETUSER', 'llm', 'on', '>pass-word', '~llm:*',
                 qw( +evalsha +script|load +hset +hdel +hmget +hgetall
                     +pexpire +pttl +time +select ));

    my ($one) = nodes(1, redis => 'redis://llm:pass-word@'
                                  . $Redis->address . '/3');

    is($one->ask(10)->status, 200, 'by user, password and db');
    $Redis->call('SELECT', 3);
    is(LlmNode::await_used($Redis, 1), 1, 'it is in db 3');
    $Redis->call('SELECT', 0);
    is(scalar($one->errors(qr/pass-word/)), 0,
       'no log has the password');
    $Redis->call('ACL', 'DELUSER', 'llm');
    done('user');
}


sub by_password {
    $Redis->call('CONFIG', 'SET', 'requirepass', 'hush');

    my ($one) = LlmNode->start(redis => 'redis://:hush@' . $Redis->address);
    @Nodes = ($one);
    $one->await_up;
    is($one->ask(10, key => 'pw')->status, 200, 'by password');

    $Redis->call('AUTH', 'hush');
    is(LlmNode::await_used($Redis, 1, 'pw'), 1, 'Redis knows of it');
    $Redis->call('CONFIG', 'SET', 'requirepass', '');
    done('password');
}


# hiredis of Debian 12 (0.14) has no TLS: the configuration says so then

sub by_tls {
    my $tls = LlmRedis->start(dir => dir('tls'), tls => 1);
    my $one = eval {
        LlmNode->start(redis => 'rediss://' . $tls->address
                                . '?ca=' . $tls->{dir} . '/cert.pem');
    };

    if (!$one) {
        open my $log, '<', "$ENV{TEST_NGINX_SERVROOT}/node"
                           . LlmNode::count() . '/logs/error.log';
        my $said = join '', <$log>;

        like($said, qr/\[emerg\].*rediss.*(?:TLS|hiredis)/,
             'a hiredis without TLS: said at the configuration test');

    } else {
        @Nodes = ($one);
        $one->await_up;
        is($one->ask(10)->status, 200, 'by TLS');
        is(LlmNode::await_used($tls, 1), 1, 'Redis knows of it');
        done('TLS');
    }

    $tls->stop;
}


# the servers of a failover set: one that does not answer is passed over

sub several_addresses {
    my ($one) = nodes(1, redis => "redis://127.0.0.1:"
                                  . $ENV{TEST_NGINX_CLOSED_PORT} . ','
                                  . $Redis->address);

    is($one->ask(10)->status, 200, 'several addresses: one that is there');
    is(LlmNode::await_used($Redis, 1), 1, 'is used');
    done('several addresses');
}


sub refused_configurations {
    my %wrong = (
        'redis://localhost:6379' => qr/llm_redis/,
        'redis://127.0.0.1:0' => qr/llm_redis/,
        'redis://127.0.0.1:6379/x' => qr/llm_redis/,
        'http://127.0.0.1:6379' => qr/llm_redis/,
        'unix:' => qr/llm_redis/,
        'redis://127.0.0.1:6379 timeout=fast' => qr/timeout=fast/,
        'redis://127.0.0.1:6379 fallback=maybe' => qr/fallback=maybe/,
        'redis://127.0.0.1:6379 "prefix={a}"' => qr/prefix/,
        'redis://127.0.0.1:6379 script=/nowhere.lua' => qr{/nowhere\.lua},
        'redis://127.0.0.1:6379 nonsense=1' => qr/nonsense=1/,
    );

    for my $url (sort keys %wrong) {
        like(refusal($url), $wrong{$url}, "refused: $url");
    }

    like(refusal('redis://127.0.0.1:6379', 'redis=other'), qr/redis=other/,
         'refused: a zone in a Redis that there is not');
    like(refusal('redis://127.0.0.1:6379', 'redis=r lease=0%'), qr/lease=0%/,
         'refused: no lease at all');
    like(refusal('redis://127.0.0.1:6379', 'redis=r lease=101%'),
         qr/lease=101%/, 'refused: more than everything');
    like(refusal('redis://127.0.0.1:6379', 'lease=5%'), qr/lease/,
         'refused: a lease without Redis');
}


sub refusal {
    my ($url, $zone) = @_;
    my $dir = dir('refused');
    my $module = module();
    my $nginx = nginx();

    mkdir $dir;
    mkdir "$dir/logs";

    open my $conf, '>', "$dir/nginx.conf" or die "nginx.conf: $!\n";
    print $conf "load_module $module;\nevents { }\nhttp {\n",
                "    llm_redis r $url;\n",
                '    llm_limit_zone $remote_addr zone=z:1m tokens=1/s ',
                $zone // 'redis=r', ";\n}\n";
    close $conf;

    return `$nginx -t -p $dir/ -c nginx.conf -e logs/error.log 2>&1`;
}
