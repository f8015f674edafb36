# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmBalance;

# The frame of suites about llm_least_inflight, behind LlmTest.  A block's
# "servers" stand in its upstream, "proxy" (if not to that upstream) in its
# location, "live" is done while nginx runs.  The two workers have sockets of
# their own, so that both get requests, and every choice has to be made from
# the counts of both.

use strict;
use warnings;

use List::Util qw( sum0 );

use LlmClient;
use LlmNginx;

our $Port = LlmTest::free_port(1);
our $Hold = 'tokens=2000; itl=50';


sub import {
    no strict 'refs';

    *main::Port = \$Port;
    *main::Hold = \$Hold;

    for my $name (qw( code hold leave logged servers statuses choices
                      await all_idle )) {
        *{"main::$name"} = \&{"LlmBalance::$name"};
    }

    Test::Nginx::Socket::workers(2);
    Test::Nginx::Socket::add_block_preprocessor(\&prepare);
    Test::Nginx::Socket::add_response_body_check(\&live);
}


sub prepare {
    my ($block) = @_;
    my $servers = $block->servers // '';

    LlmTest::sim_start();
    LlmTest::sim_reset();

    # four servers unless the block names its own

    $servers = join '', map { 'server 127.0.0.1:' . LlmTest::sim_port($_)
                              . ";\n" } 1 .. 4
        if $servers eq '';

    $servers .= "llm_least_inflight;\n" if $servers !~ /llm_least_inflight/;
    my $proxy = $block->proxy // 'proxy_pass http://llm;';

    $block->set_value('http_config', ($block->http_config // '') . <<"END");
        upstream llm {
            $servers
        }

        server {
            listen 127.0.0.1:$Port reuseport;

            add_header X-Server \$upstream_addr always;
            add_header X-Inflight \$llm_inflight always;
            add_header X-Worker \$pid always;

            location / {
                llm_stream on;
                $proxy
                proxy_http_version 1.1;
                proxy_set_header Connection "";
            }
        }
END

    $block->set_value('config', 'location = /up { return 204; }');
    $block->set_value('request', 'GET /up');
    $block->set_value('error_code', '204') if !defined $block->must_die;
}


sub live {
    my ($block) = @_;
    my %balance;

    return if !defined $block->live;

    $block->live->($block->name);

    # whatever was done: each server that was got was freed, and once

    %balance = balance();

    main::is_deeply([ grep { $balance{$_} } sort keys %balance ], [],
                    $block->name . ' - each get has one free');
    main::ok(%balance > 0, $block->name . ' - the balancer was asked');
}


# how often each server was got and not freed, when nothing is to come

sub balance {
    my %balance;

    await(sub {
        %balance = got();
        return !grep { $_ } values %balance;
    });

    return %balance;
}


# how often each server was got and not freed so far

sub got {
    my %got;

    for my $line (logged(qr/llm balancer: (?:get|free) /)) {
        my ($what, $server) = $line =~ /balancer: (\w+) (\S+)/;
        $got{$server} += $what eq 'get' ? 1 : -1;
    }

    return %got;
}


# the log is long, and not to be read all of the time

sub await {
    my ($happened) = @_;

    return LlmNginx::true_in_time(sub {
        return 1 if $happened->();

        Time::HiRes::sleep(0.03);
        return 0;
    });
}


# "live code": Perl of this file, with the block's name in $name

sub code {
    my ($text) = @_;
    my $code = eval "package main; sub { my (\$name) = \@_; $text }";

    die "live: $@" if !$code;

    return $code;
}


# the error log's lines, without taking them from Test::Nginx's own checks

sub logged {
    my ($pattern) = @_;

    my $root = Test::Nginx::Util::server_root();

    open my $log, '<', "$root/logs/error.log" or return;

    return grep { $_ =~ $pattern } <$log>;
}


# so many streams that do not end by themselves, one after the other: of two
# at once in two workers neither may count the other one yet

sub hold {
    my ($count, %options) = @_;
    my $port = delete $options{port} // $Port;
    my @clients;

    for (1 .. $count) {
        push @clients, LlmClient->open($port, sim => $Hold, %options);
        $clients[-1]->status;
    }

    return @clients;
}


# returns when nginx knows, of those that were being served

sub leave {
    my $left = sum0(values %{{ got() }})
               - grep { $_->pump && $_->{raw} !~ m{^HTTP/1.1 [45]} } @_;

    $_->close for @_;
    await(sub { sum0(values %{{ got() }}) <= $left });
}


# who serves these clients: the port's number in the list of servers => times

sub servers {
    my (%count, %number);

    %number = map { (LlmTest::sim_port($_) => $_) } 1 .. 4;

    for my $client (@_) {
        my ($port) = ($client->header('X-Server') // '') =~ /(\d+)$/;
        $count{$number{$port // ''} // 'none'}++;
    }

    return \%count;
}


sub statuses {
    my %count;

    $count{$_->status}++ for @_;

    return \%count;
}


# the first stream on each server finds nobody else there, and nothing to read;
# with cost=tokens a server that is known to be fast may get more than that

sub all_idle {
    my ($name, $count) = @_;
    my ($choice, @clients, %first);

    balance();

    while (keys %first < $count && @clients < 4 * $count) {
        push @clients, hold(1);

        $choice = (choices())[-1];
        $first{$choice->{server}} //= [ $clients[-1]->header('X-Inflight'),
                                        $choice->{pending} ];
    }

    main::is(join(' ', map { $_->[0] } values %first),
             join(' ', (1) x $count), "$name - nothing is in flight");
    main::is(join(' ', map { $_->[1] } values %first),
             join(' ', (0) x $count), "$name - nothing is to be read");

    leave(@clients);
}


# what the balancer has logged of each choice so far, in their order

sub choices {
    return map {
        my ($server, $words) = /balancer: get (\S+) (.*)/;
        +{ server => $server, $words =~ /(\w+):(\d+)/g };
    } logged(qr/llm balancer: get /);
}


1;
