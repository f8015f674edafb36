# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# llm_least_inflight by tokens, and with affinity; its frame is
# t/lib/LlmBalance.pm.

use strict;
use warnings;

use lib 't/lib';

# first, for it takes the ports that "servers" name

use LlmTest;
use LlmBalance;
use Cwd qw( abs_path );
use IO::Socket::IP;
use Time::HiRes qw( time );

our $Ports = free_port(2);

$ENV{TEST_NGINX_PLAIN_PORT} = free_port(1);

our $Tls = abs_path('t/data/tls');

# whether there is a loopback of IPv6: without it the block has IPv4's

our $Ipv6 = IO::Socket::IP->new(LocalHost => '::1', LocalPort => $Ports,
                                Listen => 1) ? '[::1]' : '127.0.0.1';

# 20 prompt tokens in a millisecond; the last server is four times slower

sim_options('--itl', '5', '--itl-slope', '0', '--prefill', '20000',
            '--chunk', '2048', '--prefix-cache', '1000000',
            '--speed', sim_port(4) . '=0.25', '--quiet');

run_tests();


# a request of about so many tokens, all of them new unless there is a name
# for them; options are LlmClient's

sub ask {
    my ($tokens, %options) = @_;
    my $text = words($options{name} // rand, $tokens);

    return LlmClient->open($Port, body => body([ user => $text ]), %options);
}


# one whose prompt is not read while a test looks at what others do

sub unread {
    my ($tokens, %options) = @_;
    my $chosen = choices();
    my $client = ask($tokens, %options, sim => 'ttft=60000');

    await(sub { choices() > $chosen });

    return $client;
}


# text that its name decides, a token a word

sub words {
    my ($name, $tokens) = @_;
    my $word = substr unpack('H*', pack 'w/a', $name), -8;

    return "$word " . join ' ', map { sprintf '%03x', $_ % 4096 } 1 .. $tokens;
}


sub body {
    my @messages = map { qq({"role":"$_->[0]","content":"$_->[1]"}) } @_;

    return '{"model":"sim","stream":true,"messages":['
           . join(',', @messages) . ']}';
}


sub session {
    my ($session, %options) = @_;

    return (headers => { 'X-Session' => $session }, %options);
}


__DATA__

=== TEST 1: a prompt that is being read weighs more than streams
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
llm_least_inflight cost=tokens;
--- live code
my $long = unread(60000);
my @clients = hold(6);
my %chosen;

$chosen{$_->{server}}++ for choices();
is(join(' ', sort values %chosen), '1 6',
   "$name - all others keep away from it");
leave($long);

# one more; as soon as it is read it is one stream against six

$long = ask(20000, sim => $Hold);

my ($home) = keys %{servers($long)};

is(servers(@clients)->{3 - $home}, 6, "$name - again");

my @more = hold(4);

is(servers(@more)->{$home}, 4, "$name - until it is read");
leave(@clients, @more, $long);
all_idle($name, 2);



=== TEST 2: a client that leaves takes its tokens along
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
llm_least_inflight cost=tokens;
--- live code
my @clients = map { unread(60000) } 1 .. 4;

is(scalar(grep { $_->{pending} > 50000 } choices()), 2,
   "$name - they wait for each other");
leave(@clients);
all_idle($name, 2);



=== TEST 3: a retry takes its tokens to the next server
--- http_config
    proxy_next_upstream error http_503 non_idempotent;
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1 max_fails=0;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2 max_fails=0;
llm_least_inflight cost=tokens;
--- live code
my $sim = 'tokens=4; on=' . sim_port(1) . '; status=503'
          . '; on=' . sim_port(2) . '; ttft=2000';
my @clients = map { ask(2000, sim => $sim) } 1 .. 12;

LlmClient::await_end(@clients);
is_deeply(statuses(@clients), { 200 => 12 }, "$name - statuses");

my @retries = grep { $_->{try} == 1 } choices();

cmp_ok(scalar @retries, '>', 0, "$name - some were sent twice");
is(scalar(grep { $_->{uncached} < 1500 } @retries), 0,
   "$name - with all of their tokens");

ask(8)->finish;
is((choices())[-1]{pending}, 0, "$name - nothing is to be read");



=== TEST 4: a slow server gets less to read
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_4;
llm_least_inflight cost=tokens;
--- live code
my (@live, @clients);

# their times are long beside what a machine that stalls adds to them

while (@clients < 90 || @live) {
    while (@clients < 90 && @live < 6) {
        push @live, ask(2000, sim => 'tokens=3');
        push @clients, $live[-1];
    }

    IO::Select->new(map { $_->{sock} } @live)->can_read(1);
    @live = grep { $_->pump } @live;
}

my $count = servers(@clients[30 .. 89]);

is_deeply(statuses(@clients), { 200 => 90 }, "$name - statuses");
cmp_ok($count->{4}, '<', 21, "$name - it has the smaller part");
cmp_ok($count->{4}, '>', 3, "$name - and some of it");



=== TEST 5: what has the same key goes to the same server
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_3;
llm_least_inflight affinity=$http_x_session;
--- live code
my %homes;

for my $round (1 .. 5) {
    for my $session (1 .. 12) {
        my ($client) = LlmClient::load($Port, 1, 1, session($session));
        $homes{$session}{$client->header('X-Server')}++;
    }
}

is(scalar(grep { keys %$_ == 1 } values %homes), 12, "$name - each its own");
cmp_ok(scalar(keys %{{ map { (keys %$_)[0] => 1 } values %homes }}), '>', 1,
       "$name - not all the same");



=== TEST 6: without a key there is no affinity
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_3;
llm_least_inflight affinity=$http_x_session;
--- live code
my $count = servers(LlmClient::load($Port, 90, 1, sim => 'tokens=1'));

for my $server (1 .. 3) {
    cmp_ok($count->{$server} // 0, '>', 12, "$name - server $server");
}



=== TEST 7: a key that everybody sends is served by several
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_3;
llm_least_inflight affinity=$http_x_session bound=1.25;
--- live code
my @clients = hold(24, session('all'));
my $count = servers(@clients);

for my $server (1 .. 3) {
    cmp_ok($count->{$server} // 0, '>=', 4, "$name - server $server: some");
    cmp_ok($count->{$server} // 0, '<=', 13, "$name - server $server: bound");
}

leave(@clients);



=== TEST 8: a conversation stays where its beginning is in the cache
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_3;
llm_least_inflight cost=tokens affinity=$llm_prefix;
--- live code
my (%turns, %homes);

# the first turns come at once: none of the servers is idle meanwhile

for my $turn (1 .. 4) {
    my $sim = 'tokens=3' . ($turn == 1 ? '; ttft=2000' : '');
    my @clients;

    for my $talk (1 .. 6) {
        push @{$turns{$talk}}, [ user => words("$talk.$turn", 600) ];
        push @clients, LlmClient->open($Port, sim => $sim,
                                       body => body(@{$turns{$talk}}));
        push @{$turns{$talk}}, [ assistant => 'I see' ];

        $clients[-1]->finish if $turn > 1;
    }

    $homes{$_}{$clients[$_ - 1]->header('X-Server')}++ for 1 .. 6;
    LlmClient::await_end(@clients);
}

my @last = (choices())[18 .. 23];

is(scalar(grep { keys %$_ == 1 } values %homes), 6, "$name - each its own");
cmp_ok(scalar(keys %{{ map { (keys %$_)[0] => 1 } values %homes }}), '>', 1,
       "$name - not all the same");
is(scalar(grep { $_->{uncached} < $_->{of} / 2 } @last), 6,
   "$name - it has little new to read");

my $cached = 0;
$cached += sim_stats(sim_port($_))->{cached_tokens} for 1 .. 3;
cmp_ok($cached, '>', 6 * 3 * 512, "$name - the caches had it");



=== TEST 9: behind a long prompt a conversation does not wait
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
llm_least_inflight cost=tokens affinity=$http_x_session;
--- live code
my @others = hold(2);
my ($server) = map { $_->header('X-Server') } @others;

# both keys have their home at the same server, which has less to do

leave(shift @others);

my $first = ask(1000, name => 'first', session('first', sim => 'tokens=3'));
is($first->finish->header('X-Server'), $server, "$name - at home");

my $long = ask(100, session('long', sim => 'tokens=3'));
is($long->finish->header('X-Server'), $server, "$name - both");

# a stream on either server: only the prompt tells them apart

$long = unread(90000, session('long'));
is((choices())[-1]{server}, $server, "$name - there it is to be read");

$first = ask(1000, name => 'first', session('first', sim => 'tokens=3'));
isnt($first->header('X-Server'), $server, "$name - it goes elsewhere");
$first->finish;

# and that is warm, too

my $count = 0;

for (1 .. 5) {
    $first = ask(1000, name => 'first', session('first', sim => 'tokens=3'));
    $count += $first->finish->header('X-Server') ne $server;
}

is($count, 5, "$name - and stays there");
leave($long, @others);



=== TEST 10: a server that fails loses the key
--- http_config
    proxy_next_upstream error http_503 non_idempotent;
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1 max_fails=0;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2 max_fails=0;
llm_least_inflight affinity=$http_x_session;
--- live code
my ($first) = LlmClient::load($Port, 1, 1, session('a'));
my $server = $first->header('X-Server');
my ($port) = $server =~ /(\d+)$/;

my ($next) = LlmClient::load($Port, 1, 1,
    session('a', sim => "tokens=3; status=503; only=$port"));
my ($both) = $next->header('X-Server');

is($next->status, 200, "$name - the other one answers");
like($both, qr/^\Q$server\E, /, "$name - it was asked first");

my @clients = LlmClient::load($Port, 10, 1, session('a'));

is(scalar(grep { $_->header('X-Server') eq $server } @clients), 0,
   "$name - it is not asked again");



=== TEST 11: the same value is another key in another upstream
--- http_config
    upstream other {
        server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
        server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
        llm_least_inflight affinity=$http_x_session;
    }
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
llm_least_inflight affinity=$http_x_session;
--- proxy
proxy_pass http://$http_x_upstream;
--- live code
my $same = 0;

for my $session (1 .. 40) {
    my ($one, $two) = map {
        (LlmClient::load($Port, 1, 1, sim => 'tokens=1', headers =>
                         { 'X-Session' => $session, 'X-Upstream' => $_ }))[0]
            ->header('X-Server')
    } 'llm', 'other';

    $same += $one eq $two;
}

cmp_ok($same, '>', 5, "$name - by chance the same server");
cmp_ok($same, '<', 35, "$name - or not");



=== TEST 12: a server that was out comes back slowly
--- http_config
    proxy_next_upstream error http_503 non_idempotent;
--- servers
zone llm 256k;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1 max_fails=1 fail_timeout=2s;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2 max_fails=0;
llm_least_inflight;
--- live code
my $fails = 'status=503; only=' . sim_port(1);
my ($start, @clients, @first, @later);

await(sub {
    my ($client) = LlmClient::load($Port, 1, 1, sim => "tokens=1; $fails");

    return $client->header('X-Server') =~ /, /;
});

# where these take longer than its time, it is tried, and fails, once more

$start = time;
@clients = hold(5, sim => "$Hold; $fails");
is_deeply(servers(@clients), { 2 => 5 }, "$name - it is out");
cmp_ok(scalar(grep { $_->header('X-Server') =~ /, / } @clients), '<=',
       (time - $start) / 2, "$name - for its time");

# the other one has 5 streams: as soon as its time is over it is tried

ok(await(sub { servers(LlmClient::load($Port, 1, 1))->{1} }),
   "$name - it is tried");

@first = hold(2);
is_deeply(servers(@first), { 2 => 2 }, "$name - at first it gets nothing");

await(sub {
    my ($client) = hold(1);

    if (servers($client)->{1}) {
        push @later, $client;

    } else {
        leave($client);
    }

    return @later == 2;
});

is(scalar @later, 2, "$name - then it gets more");
leave(@clients, @first, @later);
--- timeout: 20



=== TEST 13: upstream by TLS, with keep-alive and sessions
--- http_config eval
CORE::join '', map { my $port = $main::Ports + $_ - 1; <<"END" } 1, 2
server {
    listen 127.0.0.1:$port ssl;
    ssl_certificate $main::Tls/localhost.crt;
    ssl_certificate_key $main::Tls/localhost.key;
    location / { proxy_pass http://127.0.0.1:\$TEST_NGINX_SIM_PORT_$_; proxy_buffering off; }
}
END
--- servers eval
CORE::join '', (map { "server 127.0.0.1:" . ($main::Ports + $_) . ";\n" } 0, 1),
               "llm_least_inflight cost=tokens affinity=\$http_x_session;\n",
               "keepalive 4;\n"
--- proxy
proxy_pass https://llm;
--- live code
my %homes;

for my $session (1 .. 6) {
    $homes{$session}{$_->header('X-Server')}++
        for LlmClient::load($Port, 5, 1, session($session));
}

is(scalar(grep { keys %$_ == 1 } values %homes), 6, "$name - each its own");

my @clients = hold(8);

is(scalar(keys %{{ map { $_->header('X-Server') => 1 } @clients }}), 2,
   "$name - both are used");
leave(@clients);
cmp_ok(scalar(() = logged(qr/SSL reused session/)), '>', 0,
       "$name - sessions are used again");
cmp_ok(scalar(() = logged(qr/get keepalive peer: using/)), '>', 0,
       "$name - connections are used again");



=== TEST 14: servers by IPv6, named by a variable
--- http_config eval
CORE::join '', map { my $port = $main::Ports + $_ - 1; <<"END" } 1, 2
server {
    listen $main::Ipv6:$port;
    location / { proxy_pass http://127.0.0.1:\$TEST_NGINX_SIM_PORT_$_; proxy_buffering off; }
}
END
--- servers eval
CORE::join '', (map { "server $main::Ipv6:" . ($main::Ports + $_) . ";\n" } 0, 1),
               "llm_least_inflight cost=tokens affinity=\$http_x_session;\n"
--- proxy
set $name llm; proxy_pass http://$name;
--- live code
my @clients = hold(8);
my %count;

$count{$_->header('X-Server')}++ for @clients;
is_deeply([ values %count ], [ 4, 4 ], "$name - servers");
leave(@clients);



=== TEST 15: servers on unix sockets, some of them down or backup
--- http_config eval
CORE::join '', map { "server { listen unix:$ENV{TEST_NGINX_SERVROOT}/$_;"
               . " location / { proxy_buffering off; proxy_pass"
               . " http://127.0.0.1:\$TEST_NGINX_SIM_PORT_$_; } }\n" } 1 .. 4
--- servers eval
CORE::join '', (map { "server unix:$ENV{TEST_NGINX_SERVROOT}/$_->[0] $_->[1];\n" }
               [ 1, 'weight=2' ], [ 2, 'down' ], [ 3, '' ], [ 4, 'backup' ]),
               "llm_least_inflight cost=tokens affinity=\$http_x_session;\n"
--- live code
my @clients = hold(9);
my %count;

$count{($_->header('X-Server') =~ /(\d)$/)[0]}++ for @clients;
cmp_ok($count{1}, '>=', 5, "$name - the heavier one");
cmp_ok($count{3}, '>=', 2, "$name - the other one");
is($count{1} + $count{3}, 9, "$name - nobody else");
leave(@clients);



=== TEST 16: max_conns holds for warm servers, too
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1 max_conns=3;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2 max_conns=3;
llm_least_inflight cost=tokens affinity=$http_x_session bound=100;
--- live code
my @clients = hold(7, session('a'));

is_deeply(servers(@clients[0 .. 5]), { 1 => 3, 2 => 3 }, "$name - servers");
is($clients[6]->status, 502, "$name - no place is left");
leave(@clients);
--- error_log
no live upstreams



=== TEST 17: without llm_stream requests count
--- http_config
    server {
        listen 127.0.0.1:$TEST_NGINX_PLAIN_PORT reuseport;
        add_header X-Server $upstream_addr always;
        location / {
            proxy_buffering off;
            proxy_pass http://llm;
        }
    }
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
llm_least_inflight cost=tokens affinity=$http_x_session;
--- live code
my @clients = map { hold(1, port => $ENV{TEST_NGINX_PLAIN_PORT}) } 1 .. 8;

is_deeply(servers(@clients), { 1 => 4, 2 => 4 }, "$name - servers");
leave(@clients);



=== TEST 18: an answer in one piece gives its tokens back
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
server 127.0.0.1:$TEST_NGINX_SIM_PORT_2;
llm_least_inflight cost=tokens affinity=$llm_prefix;
--- live code
my $body = body([ user => words('piece', 4000) ]);
$body =~ s/"stream":true/"stream":false/;

my @clients = LlmClient::load($Port, 6, 3, body => $body, sim => 'tokens=3');

is_deeply(statuses(@clients), { 200 => 6 }, "$name - statuses");
all_idle($name, 2);



=== TEST 19: bound is at least 1
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
llm_least_inflight affinity=$http_x_session bound=0.9;
--- must_die
--- error_log eval
qr/\[emerg\] .*"bound=0.9" of "llm_least_inflight", allowed is a number from 1/



=== TEST 20: bound is a number
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
llm_least_inflight affinity=$http_x_session bound=much;
--- must_die
--- error_log eval
qr/\[emerg\] .*"bound=much" of "llm_least_inflight", allowed is a number from 1/



=== TEST 21: bound needs affinity
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
llm_least_inflight cost=tokens bound=1.5;
--- must_die
--- error_log eval
qr/\[emerg\] .*"bound" of "llm_least_inflight" has no effect without/



=== TEST 22: affinity needs a variable
--- servers
server 127.0.0.1:$TEST_NGINX_SIM_PORT_1;
llm_least_inflight affinity=session;
--- must_die
--- error_log eval
qr/\[emerg\] .*"affinity=session" of "llm_least_inflight", allowed is a value/
