# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# Clients that leave while Redis is asked about them, in every way: that is
# seen at once, and what was asked in vain is given back.

use strict;
use warnings;

use lib 't/lib';

use Socket qw( SOL_SOCKET SO_LINGER );

use LlmTest;
use LlmH2;
use LlmNode;
use LlmPort qw( free_port );
use LlmRedis;

my %Ways = (
    close => sub { $_[0]->close },
    half => sub { $_[0]->shutdown(1) },
    reset => sub {
        setsockopt $_[0], SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
        $_[0]->close;
    },
    'reset of a stream' => sub { $_[0]->syswrite(LlmH2::cancel(1)) },
    'close of HTTP/2' => sub { $_[0]->close },
);

my ($Node, $PortH2, $Redis);

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000');
sim_start();

$PortH2 = free_port(1);
$Redis = LlmRedis->start(dir => "$ENV{TEST_NGINX_SERVROOT}/redis");

# longer than anything here takes

$Node = LlmNode->start(redis => 'redis://' . $Redis->address,
                       options => 'timeout=1m', http => http2(),
                       location => 'access_log logs/llm.log left;');
$Node->await_up;

is($Node->ask(10)->status, 200, 'Redis decides');
is(LlmNode::await_used($Redis, 1), 1, 'and has its charge');

left($_) for sort keys %Ways;

ok(true(sub {
    grep({ $_->{end} eq 'done' } lines()) == 1 + 2 * keys %Ways
}), 'all others are served');
is(sim_stats()->{requests}, 1 + 2 * keys %Ways, 'and nobody else was sent on');

$Node->stop;
is(join('', $Node->faults), '', 'no fault in the log');
$Redis->stop;


sub left {
    my ($way) = @_;
    my $used = LlmNode::used($Redis);
    my $waits = waits();
    my ($other, $sock, @before);

    @before = aborted();
    $Redis->freeze;

    $sock = $way =~ /HTTP|stream/ ? open_http2() : $Node->open(300)->{sock};
    ok(true(sub { waits() == $waits + 1 }), "$way: it waits for Redis");

    $Ways{$way}->($sock);
    ok(true(sub { aborted() == @before + 1 }), "$way: it is seen to leave");
    is((aborted())[-1]{total}, '-', "$way: nothing is charged");

    # somebody else's request goes the same way

    $other = $Node->open(5);
    ok(true(sub { waits() == $waits + 2 }), "$way: another one waits");

    $Redis->thaw;

    is($other->finish->status, 200, "$way: Redis decides about the other");
    is($Node->ask(5)->status, 200, "$way: and about the next");
    is(LlmNode::await_used($Redis, $used + 2), $used + 2,
       "$way: what was asked in vain is given back");
    is(LlmNode::charges($Redis), 0, "$way: and no charge is open");
}


sub waits {
    return scalar $Node->{nginx}->logged(qr/llm wait: up to/);
}


sub true {
    my ($happened) = @_;

    return LlmNginx::true_in_time($happened);
}


sub open_http2 {
    my $sock = LlmH2::connect($PortH2);

    $sock->syswrite(LlmH2::request(1, '{"model":"sim","stream":true,'
                    . '"max_tokens":300,"messages":'
                    . '[{"role":"user","content":"hello"}]}',
                    authorization => 'k'));

    return $sock;
}


sub aborted {
    return grep { $_->{end} eq 'client_abort' } lines();
}


# of the access log, as it is now

sub lines {
    return $Node->{nginx}->lines(0);
}


sub http2 {
    my $sim = sim_port(1);

    return <<"END";
log_format left 'end=\$llm_end total=\$llm_total_tokens status=\$status';
server {
    listen 127.0.0.1:$PortH2 http2;
    location / {
        access_log logs/llm.log left;
        llm_stream on;
        llm_limit zone=shared reserve=max;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_pass http://127.0.0.1:$sim;
    }
}
END
}
