# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# llm_least_inflight by requests; its frame is t/lib/LlmBalance.pm.

use strict;
use warnings;

use lib 't/lib';

# first, for it takes the ports that "servers" name

use LlmTest;
use LlmBalance;

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000',
            '--quiet');

run_tests();


__DATA__

=== TEST 1: a request counts until its answer has ended, in both workers
--- live code
my @clients = hold(12);
my %workers = map { $_->header('X-Worker') => 1 } @clients;

is(join(' ', map { $_->header('X-Inflight') } @clients),
         '1 1 1 1 2 2 2 2 3 3 3 3', "$name - counts");
is_deeply(servers(@clients),
                { 1 => 3, 2 => 3, 3 => 3, 4 => 3 }, "$name - servers");
is(scalar keys %workers, 2, "$name - workers");

leave(@clients);
all_idle($name, 4);



=== TEST 2: the faster a server, the more requests it gets
--- live code
# four times as fast as the last two, and twice: times that are long beside
# what a machine that stalls adds to them

my @ttfts = (80, 160, 320, 320);
my $sim = join '; ', 'tokens=1',
               map { 'on=' . sim_port($_) . "; ttft=$ttfts[$_ - 1]" } 1 .. 4;
my @clients = LlmClient::load($Port, 240, 12, sim => $sim);
my $count = servers(@clients);

is_deeply(statuses(@clients), { 200 => 240 },
                "$name - statuses");
is(scalar(grep { $_->complete } @clients), 240, "$name - answers");
cmp_ok($count->{1}, '>', 1.3 * $count->{2}, "$name - first");
cmp_ok($count->{2}, '>', 1.2 * $count->{3}, "$name - second");
cmp_ok($count->{2}, '>', 1.2 * $count->{4}, "$name - third");

all_idle($name, 4);



=== TEST 3: servers that are equally idle get equally many requests
--- live code
my $count = servers(LlmClient::load($Port, 240, 1,
                                          sim => 'tokens=1'));

for my $server (1 .. 4) {
    cmp_ok($count->{$server}, '>', 30, "$name - server $server");
}



=== TEST 4: a server of three times the weight holds three times as many
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1 weight=3;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
--- live code
my @clients = hold(16);

is_deeply(servers(@clients), { 1 => 12, 2 => 4 },
                "$name - servers");
leave(@clients);



=== TEST 5: max_conns are requests in flight in all workers
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1 max_conns=2;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2 max_conns=3;
--- live code
my @clients = hold(7);

is_deeply(statuses(@clients), { 200 => 5, 502 => 2 },
                "$name - statuses");

leave(pop @clients, pop @clients, shift @clients);
push @clients, hold(1);

is($clients[-1]->status, 200, "$name - a place is free again");
leave(@clients);
--- error_log
no live upstreams



=== TEST 6: max_conns is not exceeded when all come at once
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_3 max_conns=1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_4 max_conns=2;
--- live code
my @clients = LlmClient::load($Port, 400, 20,
                              sim => 'tokens=1; itl=1');
my $status = statuses(@clients);

for my $server (3, 4) {
    is(sim_stats(sim_port($server))->{max_inflight},
             $server - 2, "$name - server $server");
}

cmp_ok($status->{200}, '>', 20, "$name - served");
cmp_ok($status->{502}, '>', 20, "$name - refused");
--- error_log
no live upstreams



=== TEST 7: a server that is down gets nothing
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1 down;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_3;
--- live code
my @clients = hold(6);

is_deeply(servers(@clients), { 2 => 3, 3 => 3 },
                "$name - servers");
leave(@clients);



=== TEST 8: a backup gets what the others have no place for
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1 max_conns=2;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2 backup;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_3 backup;
--- live code
my @clients = hold(6);

is_deeply(servers(@clients), { 1 => 2, 2 => 2, 3 => 2 },
                "$name - servers");
is(join(' ', map { $_->header('X-Inflight') } @clients),
         '1 2 1 1 2 2', "$name - counts");
leave(@clients);
all_idle($name, 1);



=== TEST 9: a backup gets what the others refuse
--- servers
server 127.0.0.1:$TEST_NGINX_CLOSED_PORT max_fails=0;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2 backup;
--- live code
my @clients = LlmClient::load($Port, 10, 2);

is_deeply(statuses(@clients), { 200 => 10 },
                "$name - statuses");
is_deeply(servers(@clients), { 2 => 10 }, "$name - servers");
--- error_log
connect() failed



=== TEST 10: a request that is refused goes to the next server
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_CLOSED_PORT max_fails=0;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
--- live code
my @clients = LlmClient::load($Port, 40, 4);

is_deeply(statuses(@clients), { 200 => 40 },
                "$name - statuses");
all_idle($name, 2);
--- error_log
connect() failed



=== TEST 11: a server that refuses at once does not look idle
--- servers
server 127.0.0.1:$TEST_NGINX_CLOSED_PORT max_fails=0;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
--- live code
my @clients = LlmClient::load($Port, 200, 6);
my $refused = () = logged(qr/connect\(\) failed/);

is_deeply(statuses(@clients), { 200 => 200 },
                "$name - statuses");
cmp_ok($refused, '>', 0, "$name - it was tried");
cmp_ok($refused, '<', 20, "$name - it was not tried often");
--- error_log
connect() failed



=== TEST 12: a server that answers 500 at once does not look idle
--- live code
my $port = sim_port(4);
my @clients = LlmClient::load($Port, 200, 8,
    sim => "tokens=8; status=500; only=$port");
my $status = statuses(@clients);

cmp_ok($status->{500}, '>', 0, "$name - it was tried");
cmp_ok($status->{500}, '<', 20, "$name - it was not tried often");



=== TEST 13: max_fails takes a server out
--- servers
server 127.0.0.1:$TEST_NGINX_CLOSED_PORT max_fails=1 fail_timeout=60s;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1 max_conns=1;
--- live code
my @clients;

# the other one is preferred until it has no place

for (1 .. 6) {
    push @clients, LlmClient->open($Port, sim => $Hold);
    $clients[-1]->status;
}

my $refused = () = logged(qr/connect\(\) failed/);

cmp_ok($refused, '<=', 2, "$name - once in each worker");
leave(@clients);
--- error_log
temporarily disabled



=== TEST 14: a keep-alive connection is used again, and counted once
--- http_config
    proxy_next_upstream_tries 1;
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
llm_least_inflight;
keepalive 8;
--- live code
my @clients = LlmClient::load($Port, 60, 6);
my $used = () = logged(qr/get keepalive peer: using/);

is_deeply(statuses(@clients), { 200 => 60 },
                "$name - statuses");
cmp_ok($used, '>', 20, "$name - connections used again");
all_idle($name, 2);



=== TEST 15: a single server is counted, too
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1 max_conns=3;
--- live code
my @clients = hold(4);

is(join(' ', map { $_->status } @clients), '200 200 200 502',
         "$name - statuses");
is(join(' ', map { $_->header('X-Inflight') } @clients[0 .. 2]),
         '1 2 3', "$name - counts");
leave(@clients);
all_idle($name, 1);
--- error_log
no live upstreams



=== TEST 16: servers in a shared zone
--- servers
zone llm 256k;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2 max_conns=2;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_3 backup;
--- live code
my @clients = hold(8);

is_deeply(servers(@clients), { 1 => 6, 2 => 2 },
                "$name - servers");
leave(@clients);
all_idle($name, 2);



=== TEST 17: a server that is named twice is one server
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
--- live code
my @clients = hold(6);

is_deeply(servers(@clients), { 1 => 3, 2 => 3 },
                "$name - servers");
leave(@clients);



=== TEST 18: unix sockets and more servers than one word has bits
--- http_config eval
CORE::join '', map { "server { listen unix:$ENV{TEST_NGINX_SERVROOT}/$_;"
               . " location / { return 200 $_; } }\n" } 1 .. 66
--- servers eval
CORE::join '', map { "server unix:$ENV{TEST_NGINX_SERVROOT}/$_;\n" } 1 .. 66
--- live code
my @clients = LlmClient::load($Port, 900, 1);
my %count;

# that one of them is never chosen happens once in 14,000 times

$count{$_->header('X-Server')}++ for @clients;

is(scalar keys %count, 66, "$name - servers");
is_deeply(statuses(@clients), { 200 => 900 },
                "$name - statuses");



=== TEST 19: a request that left its server behind goes on to the next one
--- live code
my @clients = hold(4);

leave(@clients[0, 1]);

my @more = hold(2);

is_deeply(servers(@more, @clients[2, 3]),
                { 1 => 1, 2 => 1, 3 => 1, 4 => 1 }, "$name - servers");
leave(@more, @clients);



=== TEST 20: cost has to be one that there is
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
llm_least_inflight cost=weight;
--- must_die
--- error_log eval
qr/\[emerg\] .*"cost=weight" of "llm_least_inflight"/



=== TEST 21: other parameters are refused by name
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
llm_least_inflight speed=1;
--- must_die
--- error_log eval
qr/\[emerg\] .*"speed=1" of "llm_least_inflight"/



=== TEST 22: the directive stands once
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
llm_least_inflight;
llm_least_inflight;
--- must_die
--- error_log
"llm_least_inflight" directive is duplicate



=== TEST 23: a second balancer is warned of
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
least_conn;
llm_least_inflight cost=requests;
--- live code
my @clients = hold(4);

is_deeply(servers(@clients), { 1 => 2, 2 => 2 },
                "$name - servers");
leave(@clients);
--- error_log
load balancing method redefined
