# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# llm_least_inflight while workers are killed and the configuration is
# reloaded under live streams.
#
# What is in flight is known here, from the clients' side: so each further
# stream has to be given to one of the servers with the fewest streams, and
# to be told that number.  Whatever is counted too much or too little shows
# as soon as that server's turn comes, or does not.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmClient;
use LlmNginx;
use LlmStall;
use Time::HiRes qw( sleep time );

my $Port = free_port(1);
my $Spare = free_port(1);
my $Hold = 'tokens=4000; itl=50';

# a worker may be killed while it has a zone: nginx unlocks that, and says so

my $Killed = qr/worker\ process\ \d+\ exited\ on\ signal\ 9
                | shared\ memory\ zone\ "\w+"\ was\ locked\ by/x;

our $Method = 'llm_least_inflight;';

my ($Nginx, @Clients, @Numbers);

sim_options('--itl', '4', '--itl-slope', '0', '--prefill', '40000',
            '--quiet');
sim_start();
LlmStall::start();

killed();
killed_all();
killed_unnoticed();
killed_in_zone();
terminated();
reloaded();
reloaded_to_the_end();
killed_under_load();
reloaded_under_load();
killed_with_tokens();
reloaded_with_tokens();
single_process();
many_servers();


sub killed {
    my (@dead, @left, $pid);

    start(servers(1 .. 4));
    open_streams('killed: before', 12, 1 .. 4);

    $pid = $Clients[0]->header('X-Worker');
    @dead = grep { $_->header('X-Worker') eq $pid } @Clients;
    @left = grep { $_->header('X-Worker') ne $pid } @Clients;

    $Nginx->replace('KILL', $pid);
    $_->finish for @dead;

    is(scalar(grep { $_->complete } @dead), 0, 'killed: its streams end');

    @Clients = @left;
    open_streams('killed: after', 12, 1 .. 4);
    is(scalar(grep { !$_->pump } @left), 0, 'killed: the others go on');

    end('killed', $Killed);
}


sub killed_all {
    start(servers(1 .. 4));
    open_streams('all killed: before', 12, 1 .. 4);

    $Nginx->replace('KILL', $Nginx->workers);
    $_->finish for @Clients;

    @Clients = ();
    open_streams('all killed: after', 8, 1 .. 4);

    end('all killed', $Killed);
}


# the master waits for no child, so that there is no successor to clean up

sub killed_unnoticed {
    my ($left, $pid, $start);

    start(servers(1 .. 4), undef, '');
    open_streams('killed unnoticed: before', 12, 1 .. 4);

    # one of them takes new connections, whichever it is that is left

    $pid = ($Nginx->workers)[0];
    $left = [ grep { $_->header('X-Worker') ne $pid } @Clients ];

    kill 'STOP', $Nginx->{pid};
    kill 'KILL', $pid;
    $start = LlmStall::mark();

    $Nginx->await('the other worker notices', sub {
        return scalar $Nginx->logged(qr/process $pid is gone/);
    });
    cmp_ok(LlmStall::since($start), '<', 3, 'killed unnoticed: within 3 s');

    @Clients = @$left;
    open_streams('killed unnoticed: after', 8, 1 .. 4);

    kill 'CONT', $Nginx->{pid};
    end('killed unnoticed', $Killed);
}


# nginx's own count in a zone stays too high for good

sub killed_in_zone {
    start('zone llm 256k;' . servers(1, 2, max_conns => 3));
    open_streams('killed in zone: before', 6, 1, 2);

    $Nginx->replace('KILL', $Nginx->workers);
    $_->finish for @Clients;

    @Clients = ();
    open_streams('killed in zone: after', 6, 1, 2);

    end('killed in zone', $Killed);
}


sub terminated {
    my (@left, $pid);

    start(servers(1 .. 4));
    open_streams('terminated: before', 12, 1 .. 4);

    $pid = $Clients[0]->header('X-Worker');
    @left = grep { $_->header('X-Worker') ne $pid } @Clients;

    kill 'TERM', $pid;
    $Nginx->await('a worker leaves', sub {
        return !grep { $_ eq $pid } $Nginx->children;
    });

    @Clients = @left;
    open_streams('terminated: after', 12, 1 .. 4);

    end('terminated');
}


# servers go, come and change their places; streams stay where they are

sub reloaded {
    my @old;

    start(servers(1, 2, 3));
    open_streams('reloaded: before', 7, 1, 2, 3);
    @old = @Clients;

    $Nginx->reload(http(servers(4, 3, 2)));
    open_streams('reloaded: servers changed', 9, 2, 3, 4);

    $Nginx->reload(http(servers(3, 4, 2, 1)));
    open_streams('reloaded: server 1 is back', 6, 1 .. 4);

    $Nginx->reload(http('zone llm 256k;' . servers(1 .. 4)));
    open_streams('reloaded: now with a zone', 4, 1 .. 4);

    is(scalar(grep { !$_->pump } @old), 0, 'reloaded: streams go on');

    leave(splice @Clients, 0, 13);
    open_streams('reloaded: old streams left', 8, 1 .. 4);

    end('reloaded');
}


sub reloaded_to_the_end {
    my @clients;

    start(servers(1 .. 4));

    @clients = map { LlmClient->open($Port, sim => 'tokens=40; itl=50') } 1..8;
    LlmClient::await_header(@clients);

    $Nginx->reload(http(servers(4, 2)));
    $_->finish for @clients;

    is(scalar(grep { $_->complete } @clients), 8,
       'reloaded to the end: answers are whole');
    $Nginx->await('old workers leave', sub { $Nginx->children == 2 });

    open_streams('reloaded to the end: after', 4, 2, 4);

    end('reloaded to the end');
}


sub killed_under_load {
    my $count;

    start(servers(1 .. 4));

    $count = under_load(20, \&kill_one);

    open_streams('killed under load: after', 8, 1 .. 4);
    fair('killed under load', $count);

    end('killed under load', $Killed);
}


sub kill_one {
    $Nginx->replace('KILL', ($Nginx->workers)[rand 2]);
}


sub reloaded_under_load {
    my $count;

    start(servers(1 .. 4));

    $count = under_load(20, \&reorder);

    open_streams('reloaded under load: after', 8, 1 .. 4);
    fair('reloaded under load', $count);

    end('reloaded under load');
}


sub reorder {
    my @orders = ([ 1, 2, 3, 4 ], [ 4, 3, 2, 1 ], [ 2, 4, 1, 3 ]);

    $Nginx->reload(http(servers(@{$orders[rand @orders]})));
}


# both sums, and where conversations are, in the same storms

sub killed_with_tokens {
    with_tokens('killed with tokens', \&kill_one, $Killed);
}


sub reloaded_with_tokens {
    with_tokens('reloaded with tokens', \&reorder);
}


sub with_tokens {
    my ($name, $happens, $expected) = @_;
    my ($count, $left, $most, $sum, @wrong);

    local $Method = 'llm_least_inflight cost=tokens affinity=$llm_prefix;';

    start(servers(1 .. 4));

    $count = under_load(20, $happens, \&conversation);
    fair($name, $count);

    $sum += $_ for values %$count;
    ($most) = sort { $b <=> $a } values %$count;
    cmp_ok($most, '<', $sum / 2, "$name: none is flooded");
    diag("$name: ", join " ", map { "$_=$count->{$_}" } sort keys %$count);

    # those that were cut off have been noticed

    $left = LlmStall::mark();
    LlmNginx::true_in_time(sub { sleep 0.1; LlmStall::since($left) > 2.5 });

    push @Clients, LlmClient->open($Port, sim => $Hold) for 1 .. 24;
    LlmClient::await_header(@Clients);

    # what each server had when the first of these came to it

    my %first;

    for my $line (($Nginx->logged(qr/llm balancer: get /))[-24 .. -1]) {
        my ($server, $inflight, $pending) =
            $line =~ /get (\S+) inflight:(\d+) .* pending:(\d+) /;
        $first{$server} //= "$inflight $pending";
    }

    is_deeply([ values %first ], [ ('1 0') x 4 ], "$name: both sums are 0");

    $_->close for @Clients;
    is_deeply([ $Nginx->faults($expected) ], [], "$name: no faults logged");

    $Nginx->stop;
}


# one of 40, with some 2,000 tokens to read

sub conversation {
    my $text = (1000 + int rand 40) . ' ' . join ' ', 1 .. 1000;

    return (sim => 'tokens=10; itl=10',
            body => '{"model":"sim","stream":true,"messages":'
                    . qq([{"role":"user","content":"$text"}]}));
}


sub single_process {
    start(servers(1 .. 4), 'master_process off;');
    open_streams('single process', 8, 1 .. 4);

    leave(splice @Clients, 0, 4);
    open_streams('single process: some left', 8, 1 .. 4);

    end('single process');
}


# the table has 1024 slots; those of servers that are gone are used again

sub many_servers {
    my ($first, $count);

    start(many(0, 600));

    for $first (600, 1200, 1800, 2400) {
        served(20, 'many servers');

        $Nginx->reload(http(many($first, 600)));
        $Nginx->await('old workers leave', sub { $Nginx->children == 2 });
    }

    served(20, 'many servers: after four reloads');

    $count = () = $Nginx->logged(qr/no slot is left/);
    is($count, 0, 'many servers: slots are used again');

    $Nginx->reload(http(many(3000, 1100)));
    served(40, 'more servers than slots');

    $count = () = $Nginx->logged(qr/\[warn\].* no slot is left/);
    is($count, 2, 'more servers than slots: each worker says so once');

    is_deeply([ $Nginx->faults ], [], 'many servers: no faults logged');

    $Nginx->stop;
}


sub many {
    my ($first, $count) = @_;

    return join '', map { sprintf 'server 127.%d.%d.1:%d;', 1 + $_ / 250,
                                  $_ % 250, $Spare }
                        $first .. $first + $count - 1;
}


sub served {
    my ($count, $name) = @_;
    my @clients = LlmClient::load($Port, $count, 4);

    is(scalar(grep { $_->status == 200 } @clients), $count, "$name: served");
}


# so many times, with 12 clients at work; who was served by which server

sub under_load {
    my ($times, $happens, $client) = @_;
    my (%count, @live, $next);

    $client //= sub { return (sim => 'tokens=10; itl=10') };

    $next = time + 0.2;

    while ($times || @live) {

        if ($times && time > $next) {
            $happens->();
            $times--;
            $next = time + 0.2;
        }

        while ($times && @live < 12) {
            push @live, LlmClient->open($Port, $client->());
        }

        IO::Select->new(map { $_->{sock} } @live)->can_read(0.05);

        for my $client (grep { !$_->pump } @live) {
            my ($server) = $client->{raw} =~ /^X-Server: (\S+)/mi;
            $count{$server}++ if defined $server;
        }

        @live = grep { $_->{sock} } @live;
    }

    return \%count;
}


sub fair {
    my ($name, $count) = @_;
    my ($sum, $min);

    $sum += $_ for values %$count;
    ($min) = sort { $a <=> $b } values %$count;

    is(scalar keys %$count, 4, "$name: all servers are used");
    cmp_ok($min, '>', $sum / 8, "$name: none is starved");
}


# opens streams one by one; each gets a server with the fewest of them

sub open_streams {
    my ($name, $streams, @numbers) = @_;
    my (%count, @wrong);

    @Numbers = @numbers;
    $count{'127.0.0.1:' . sim_port($_)} = 0 for @numbers;

    for my $client (@Clients) {
        my $server = $client->header('X-Server');
        $count{$server}++ if exists $count{$server};
    }

    for (1 .. $streams) {
        my ($inflight, $client, $least, $server);

        $client = LlmClient->open($Port, sim => $Hold);
        push @Clients, $client;

        $server = $client->header('X-Server') // 'none';
        $inflight = $client->header('X-Inflight') // 'none';
        ($least) = sort { $a <=> $b } values %count;

        if (($count{$server} // -1) != $least || $inflight ne $least + 1) {
            push @wrong, "$server is told $inflight, has "
                         . ($count{$server} // 'nothing') . ", least is $least";
        }

        $count{$server}++;
    }

    is_deeply(\@wrong, [], $name);
}


sub servers {
    my (@numbers, %options);

    push @numbers, shift while @_ && $_[0] =~ /^\d+$/;
    %options = @_;

    return join('', map { 'server 127.0.0.1:' . sim_port($_)
                          . join('', map { " $_=$options{$_}" }
                                         sort keys %options)
                          . ';' } @numbers);
}


sub http {
    my ($servers, $reuseport) = @_;

    # with sockets of their own both workers get requests

    $reuseport //= 'reuseport';

    return <<"END";
    upstream llm {
        $servers
        $Method
    }

    server {
        listen 127.0.0.1:$Port $reuseport;

        add_header X-Server \$upstream_addr always;
        add_header X-Inflight \$llm_inflight always;
        add_header X-Worker \$pid always;

        location / {
            llm_stream on;
            proxy_pass http://llm;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }

    server {
        listen $Spare;

        location / {
            return 200 "{}";
        }
    }
END
}


sub start {
    my ($servers, $main, $reuseport) = @_;

    @Clients = ();

    $Nginx = LlmNginx->start(binary => nginx(), module => module(),
                             dir => "$ENV{TEST_NGINX_SERVROOT}-crash",
                             main => $main // 'worker_processes 2;',
                             http => http($servers, $reuseport));
}


# streams of workers that live; returns when these know

sub leave {
    my $freed = freed() + grep { $_->pump } @_;

    $_->close for @_;
    $Nginx->await('streams end', sub { freed() >= $freed });
}


sub freed {
    return scalar $Nginx->logged(qr/llm balancer: free /);
}


# what is in flight ends; nothing is left, and nothing was wrong

sub end {
    my ($name, $expected) = @_;

    leave(splice @Clients);
    open_streams("$name: at the end", scalar @Numbers, @Numbers);

    $_->close for @Clients;
    is_deeply([ $Nginx->faults($expected) ], [], "$name: no faults logged");

    $Nginx->stop;
}
