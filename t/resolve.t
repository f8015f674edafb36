# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# "resolve": the addresses of a server's name change while it is used, under
# llm_least_inflight and llm_queue.  nginx has it from 1.27.3 on; of an older
# one it is only shown that it says so.

use strict;
use warnings;

use lib 't/lib';

use File::Path qw( make_path remove_tree );

use LlmTest;
use LlmDns;
use LlmQueue;

my $Hold = $LlmQueue::Hold;
my $Sim = sim_port(1);
my $Dns;

# of the name's addresses all servers have the same port

my ($One, $Two, $Three) = map { "127.0.0.$_" } 1 .. 3;

if (version() < 1.027003) {
    refused();
    exit;
}

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000',
            map { ('--listen', "$_:$Sim") } $Two, $Three);
sim_start();

$Dns = LlmDns->start(dir => "$ENV{TEST_NGINX_SERVROOT}/dns");

changed();
comes_to_who_waits();
gone();
failed_and_gone();
next_server();

remove_tree($LlmQueue::Dir) if Test::More->builder->is_passing;


sub version {
    my $says = `@{[ nginx() ]} -v 2>&1`;
    my @parts = $says =~ m{nginx/(\d+)\.(\d+)\.(\d+)} or die $says;

    return sprintf '%d.%03d%03d', @parts;
}


sub servers {
    my ($options) = @_;

    return "zone llm 256k; resolver @{[ $Dns ? $Dns->address : $One ]} "
           . "ipv6=off valid=1s; resolver_timeout 1s;"
           . "server llm.test:$Sim resolve $options;";
}


sub refused {
    my $nginx = bless { dir => $LlmQueue::Dir, module => module(),
                        main => '' }, 'LlmNginx';

    make_path("$nginx->{dir}/logs");
    $nginx->configure(configure(servers => servers('max_conns=2')));

    my $says = `@{[ nginx() ]} -t -p '$nginx->{dir}/' -c nginx.conf 2>&1`;

    isnt($?, 0, 'an nginx without "resolve" does not start with it');
    like($says, qr/"resolver" directive is not allowed here/,
         'and says why');
    remove_tree($nginx->{dir}) if Test::More->builder->is_passing;
}


# whose address a choice was, in the order in which they were made

sub choices {
    return map { /get (\S+?):\d+ inflight:(\d+)/ ? [ $1, $2 ] : () }
               $LlmQueue::Nginx->logged(qr/llm balancer: get/);
}


sub asked { return (choices())[-1][0] }


# requests come until the choice is made among these addresses only

sub await_asked {
    my ($name, @addresses) = @_;
    my %wanted = map { $_ => 1 } @addresses;

    ok(await(sub {
        my %seen;

        for (1 .. 2 * @addresses) {
            my $status = ask(0)->finish->status;
            $seen{$status == 200 ? asked() : $status} = 1;
        }

        return join(' ', sort keys %seen) eq join(' ', sort keys %wanted);
    }), $name);
}


# a choice that finds nobody else in flight, once all have ended

sub idle {
    my ($address) = @_;

    return await(sub {
        my $before = choices();

        ask(0)->finish;
        return grep { $_->[0] eq $address && $_->[1] == 1 }
               (choices())[$before .. choices() - 1];
    });
}


# another address: new requests go there, live streams end where they are

sub changed {
    my ($before, @held, @clients, @live);

    $Dns->knows($One);
    start(servers => servers('max_conns=3'), queue => '20 timeout=20s');
    await_asked('changed: the first address is asked', $One);

    @live = map { ask($_, sim => 'tokens=500; itl=20') } 1 .. 2;
    $_->status for @live;

    $Dns->knows($Two);
    await_asked('a new address: requests go there', $Two);

    $before = choices();
    push @clients, map { ask($_) } 1 .. 12;
    LlmClient::await_end(@clients);

    is(scalar(grep { $_->complete } @clients), 12, 'all of them, at once 3');
    is(scalar(grep { $_->[0] ne $Two } (choices())[$before .. choices() - 1]),
       0, 'the old one gets nothing new');

    $_->pump for @live;
    is(scalar(grep { $_->{sock} } @live), 2,
       'where two streams are alive still');
    LlmClient::await_end(@live);
    is(scalar(grep { $_->complete } @live), 2, 'they end as they should');

    # both: three seats each, which nobody has

    $Dns->knows($One, $Two);
    await_asked('the old address comes back beside the new one', $One, $Two);

    ok(idle($One), 'nothing is counted in flight there any more');
    ok(idle($Two), 'nor at the other one');

    $before = choices();
    @held = hold(6);

    is(join(' ', map { $_->[0] } sort { $a->[0] cmp $b->[0] }
                     (choices())[$before .. $before + 5]),
       "$One $One $One $Two $Two $Two", 'and so both fill evenly');

    $before = waiting();
    push @clients, ask(99);
    ok(await(sub { waiting() > $before }), 'the next one waits');
    $_->close for @held;
    is($clients[-1]->finish->status, 200, 'until they leave');

    end('changed');
}


# nobody leaves, but a server comes: who waits is called

sub comes_to_who_waits {
    my ($client, @held);

    $Dns->knows($One);
    start(servers => servers('max_conns=1'), queue => '5 timeout=20s');
    await_asked('to who waits: one address', $One);

    @held = hold(1);
    $client = ask(1);
    await_waiting(1);

    $Dns->knows($One, $Three);
    is($client->finish->status, 200, 'a server that comes is for who waits');
    is(asked(), $Three, 'it was asked');
    ok($held[0]->pump, 'who is in flight goes on');
    $held[0]->close;

    end('to who waits');
}


# no address at all

sub gone {
    my @held;

    $Dns->knows($One);
    start(servers => servers('max_conns=2'), queue => '5 timeout=20s');
    await_asked('gone: one address', $One);
    @held = hold(1);

    $Dns->knows();
    await_asked('no address: 502', 502);
    ok($held[0]->pump, 'who is in flight goes on');

    $Dns->knows($One);
    await_asked('and an address again: it is asked', $One);
    is((choices())[-1][1], 2, 'who is in flight there counts');

    $held[0]->close;
    ok(idle($One), 'until it leaves');

    end('gone');
}


# a request fails at an address that is no more: nginx forgets the server
# together with the last request that it has

sub failed_and_gone {
    my ($client);

    $Dns->knows($One, $Two);
    start(servers => servers('max_fails=1 fail_timeout=1s max_conns=8'),
          location => 'llm_first_token_timeout 6s; proxy_next_upstream off;');
    await_asked('failed: two addresses', $One, $Two);

    # out, and tried again: what it ends with decides

    $client = ask(1, sim => 'fault=stall; at=header');
    ok(await(sub { sim_stats()->{inflight} == 1 }),
       'one is asked, and is silent');

    $Dns->knows($Three);
    await_asked('meanwhile both addresses go', $Three);

    is($client->finish->status, 504, 'it fails there');

    $Dns->knows($One, $Two);
    await_asked('both come again', $One, $Two);
    ok(idle($One) && idle($Two), 'and have nothing in flight');

    end('failed');
}


# a server dies and its address goes, before the request that it has is given
# up: that one goes on to who is left

sub next_server {
    my $other = sim_port(2);
    my $client;

    # by its weight the name is asked first, also beside the one in flight

    $Dns->knows($Two);
    start(servers => servers('max_conns=9 weight=9')
                     . "server $One:$other max_conns=9;",
          location => 'llm_first_token_timeout 6s;');
    await_asked('next server: the address is asked', $Two);

    $client = ask(1, sim => "fault=stall; at=header; only=$Sim");
    ok(await(sub { sim_stats($Sim)->{inflight} == 1 }), 'and is silent');

    $Dns->knows();
    await_asked('its address goes', $One);

    is($client->finish->status, 200, 'the request goes on to another one');
    end('next server');
}
