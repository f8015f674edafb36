# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# Redis takes nothing any more, and has long to answer: how much waits for it
# is bounded, by the number of commands and by their bytes.  Who comes then
# does not wait.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmFakeRedis;
use LlmH2;
use LlmNode;
use LlmRedis;
use Time::HiRes qw( sleep time );

# commands of a worker that wait for an answer, as README.md has it

use constant { PENDING => 4096, MORE => 40 };

my ($Redis, $Node, $PortH2);

sim_options('--itl', '0', '--itl-slope', '0', '--prefill', '1000000',
            '--batch', '1024');
sim_start();

$PortH2 = free_port(1);
$Redis = LlmRedis->start(dir => "$ENV{TEST_NGINX_SERVROOT}/redis");

commands();
bytes();
behind();

$Redis->stop;


# a second server, of HTTP/2

sub begin {
    my ($name, $options, $url) = @_;

    $Redis->call('FLUSHALL');

    $Node = LlmNode->start(
        redis => $url // "unix:$Redis->{socket}", connections => 8192,
        name => $name, burst => 100_000,
        options => "timeout=1m fallback=local $options",
        http => <<"END");

# all that debugging would say of thousands is too much
error_log logs/error.log info;

server {
    listen 127.0.0.1:$PortH2 http2;
    http2_max_concurrent_streams 8192;
    keepalive_requests 100000;

    location / {
        llm_stream on;
        llm_limit zone=$name reserve=max;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_pass http://127.0.0.1:@{[ sim_port(1) ]};
    }
}
END

    $Node->await_up;
}


# so many streams of one connection, which has a window for all answers

sub streams {
    my ($count, $model) = @_;
    my $sock = LlmH2::connect($PortH2);
    my $body = qq({"model":"$model","stream":true,"max_tokens":1,)
               . '"messages":[{"role":"user","content":"hello"}]}';
    my $out = LlmH2::frame(8, 0, 0, pack('N', 2 ** 30));

    for my $n (1 .. $count) {
        $out .= LlmH2::request(2 * $n - 1, $body, authorization => 'k',
                               'x-llm-sim' => 'tokens=1; itl=0');
    }

    # a PING behind them (RFC 9113, 6.7): answered when all have been read

    $out .= LlmH2::frame(6, 0, 0, 'all read');

    while (length $out) {
        my $n = $sock->syswrite($out) // die "write: $!\n";
        substr $out, 0, $n, '';
    }

    return $sock;
}


# until a frame of this type and stream comes: HEADERS is 1, PING is 6

sub await_frame {
    my ($sock, $wanted, $stream) = @_;
    my $deadline = time + 60;
    my $in = '';

    $sock->blocking(0);

    while (time < $deadline) {
        $sock->sysread($in, 65536, length $in) or sleep 0.01;

        while (length $in >= 9) {
            my ($high, $low, $type, $id) = unpack 'CnCxN', $in;
            my $size = 9 + ($high << 16) + $low;

            last if length $in < $size;
            return 1 if $type == $wanted && $id == $stream;
            substr $in, 0, $size, '';
        }
    }

    return 0;
}


sub fallbacks { return scalar $Node->errors(qr/its fallback decides/) }


sub memory_kb {
    my ($pid) = $Node->{nginx}->workers;

    open my $in, '<', "/proc/$pid/status" or die "no worker: $!\n";

    return join('', <$in>) =~ /VmRSS:\s+(\d+)/ ? $1 : 0;
}


# what waits, frozen, and what is left of it when Redis goes on

sub overrun {
    my ($name, $model) = @_;
    my $total = PENDING + MORE;
    my ($kb, $ms, $sock, $status, $waited);

    $Redis->call('CONFIG', 'RESETSTAT');
    $Redis->freeze;

    $sock = streams($total, $model);
    ok(await_frame($sock, 1, 2 * $total - 1),
       "$name: who comes when too much waits is answered");
    $waited = $total - fallbacks();

    ($status, $ms) = $Node->timed(10, model => $model);
    is($status, 200, 'by the fallback');
    cmp_ok($ms, '<', 20_000, 'and does not wait a minute');

    $kb = memory_kb();
    $Node->ask(10, model => $model) for 1 .. 100;
    cmp_ok(memory_kb() - $kb, '<', 2048, 'it takes no memory')
        unless sanitized();
    is(scalar($Node->errors(qr/"shared" is down/)), 0,
       'Redis is not down for it');

    # all that wait leave, and what they may have taken is to come back

    close $sock;
    $Redis->thaw;

    LlmRedis::await('Redis decides again', sub {
        my $before = fallbacks();

        $Node->ask(1, model => $model);
        fallbacks() == $before
    }, 60);

    LlmRedis::await('all is given back', sub { open_charges() == 0 }, 60);
    cmp_ok(calls(), '>', 2 * $waited, 'all that waited is asked, and ended');
    is(open_charges(), 0, 'and has left no charge');
    is(scalar($Node->errors(qr/"shared" is down/)), 0, 'on the same link');

    $Node->stop;
    is(join('', $Node->faults), '', "$name: no fault in the log");

    return $waited;
}


# scripts that Redis has run

sub calls {
    my ($calls) = $Redis->call('INFO', 'commandstats')
                  =~ /cmdstat_evalsha:calls=(\d+)/;

    return $calls // 0;
}


# of all keys

sub open_charges {
    my $open = 0;

    for my $key (@{$Redis->call('KEYS', '*{*}')}) {
        next if $key =~ /:policy$|:probe/;

        my %fields = @{$Redis->call('HGETALL', $key)};
        $open += grep { length > 1 } keys %fields;
    }

    return $open;
}


sub commands {
    begin('short', '');
    is(overrun('commands', 'sim'), PENDING,
       'as many wait as commands may be pending');
}


# the longest names that there can be, and a policy that is told them

sub begin_long {
    my ($url) = @_;
    my $policy = "$Redis->{dir}/policy.lua";

    open my $file, '>', $policy or die "$policy: $!\n";
    print $file "return function() return true end\n";
    close $file;

    begin('z' x 128, 'prefix=' . 'p' x 128 . " script=$policy", $url);
}


sub bytes {
    my $waited;

    begin_long();
    $waited = overrun('bytes', 'm' x 128);

    cmp_ok($waited, '<', PENDING, 'so long, fewer can wait');
    cmp_ok($waited, '>', PENDING / 2, 'but not for nothing');
    diag("$waited of " . PENDING);
}


# a server that is always behind: what it has taken does not count.  Of 3.5 MB
# it takes two, and 1 MB more are no 4 MB.

sub behind {
    my $fake = LlmFakeRedis->start(real => $Redis, unix => 1,
                                   dir => "$ENV{TEST_NGINX_SERVROOT}/fake");
    my @socks;

    begin_long($fake->url);
    $fake->does('stuck 2000000');

    # all of it waits before anything is taken

    kill 'STOP', $fake->{pid};
    push @socks, streams(3200, 'm' x 128);
    ok(await_frame($socks[0], 6, 0), 'behind: 3200 ask');
    kill 'CONT', $fake->{pid};
    LlmRedis::await('two megabytes are taken', sub { $fake->count == 1 }, 60);

    push @socks, streams(880, 'm' x 128);
    ok(await_frame($socks[1], 6, 0), 'and 880 more');
    is(fallbacks(), 0, 'all of whom wait');

    $Node->stop;
    is(join('', $Node->faults), '', 'behind: no fault in the log');
    $fake->stop;
}
