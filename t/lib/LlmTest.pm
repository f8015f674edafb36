# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmTest;

# The frame of the suites.  In a .t file:
#
#     use lib 't/lib';
#     use LlmTest;
#
#     run_tests();
#
#     __DATA__
#
#     === TEST 1: a stream reaches the client whole
#     --- config
#         location / {
#             llm_stream on;
#             proxy_pass http://127.0.0.1:$TEST_NGINX_SIM_PORT_1;
#         }
#     --- request
#     ...
#
# It loads Test::Nginx::Socket (no plan needed), finds nginx, the module and
# llm-sim as "make suites" names them (or where "make build tools" puts them),
# gives the file a server root and ports of its own, so that files may run at
# once, and adds to every block:
#
#     --- no_error_log      [alert], [emerg] and sanitizer reports
#     --- sim_stats         NAME: VALUE lines, sums over all simulated
#                           servers, awaited after the response
#
# What --- error_log names is awaited, too: it may be logged behind that.
#
# llm-sim is started once for the file, at the first block that names a
# $TEST_NGINX_SIM_PORT_n (n from 1 to 4), with sim_options(), and with its
# counters zeroed before each block.

use strict;
use warnings;

use Cwd qw( abs_path );
use File::Basename qw( basename dirname );
use File::Path qw( make_path remove_tree );
use HTTP::Tiny;
use JSON::PP;
use LlmPort qw( free_port );
use Time::HiRes qw( sleep time );

# who is late because the machine was is awaited: nothing else takes so long

our $Timeout = 30;

our $Servers = 4;
our @SimOptions = ('--itl', '2', '--itl-slope', '0', '--prefill', '1000000');

my ($Root, $Build, $ServRoot, $Owner, $SimPid, $SimOut);


# compiled, and so run, in the reverse order: this one ends last

END {
    local $?;

    if (defined $ServRoot && $$ == $Owner && Test::More->can('builder')
        && Test::More->builder->is_passing)
    {
        remove_tree($ServRoot);
    }
}


BEGIN {
    $Owner = $$;
    $Root = abs_path(dirname(__FILE__) . '/../..');
    $Build = $ENV{TEST_LLM_BUILD} || "$Root/build";

    unshift @INC, "$Build/test-nginx/usr/share/perl5";

    $ENV{TEST_NGINX_BINARY} ||= "$Build/nginx/usr/sbin/nginx";
    $ENV{TEST_LLM_MODULE} ||= "$Build/ngx_http_llm_stream_module.so";

    for my $file ($ENV{TEST_NGINX_BINARY}, $ENV{TEST_LLM_MODULE}) {
        die "no $file: run 'make build' first\n" unless -e $file;
    }

    # nginx takes it for the sockets of its predecessor

    delete $ENV{NGINX};

    $ENV{TEST_NGINX_LOAD_MODULES} = $ENV{TEST_LLM_MODULE};

    # of a request, and of nginx's end

    $ENV{TEST_NGINX_TIMEOUT} //= 30;

    # workers and a master, as in real life

    $ENV{TEST_NGINX_MASTER_PROCESS} //= 'on';

    if (!defined $ENV{TEST_NGINX_SERVROOT}) {
        $ServRoot = "$Build/servroot/" . basename($0, '.t') . "-$$";
        make_path(dirname($ServRoot));
        $ENV{TEST_NGINX_SERVROOT} = $ServRoot;
    }

    # Test::Nginx may use the port after it for a second server

    $ENV{TEST_NGINX_SERVER_PORT} = $ENV{TEST_NGINX_PORT} || free_port(2);
    $ENV{TEST_NGINX_PORT} = $ENV{TEST_NGINX_SERVER_PORT};

    for my $n (1 .. 4) {
        $ENV{"TEST_NGINX_SIM_PORT_$n"} = free_port(1);
    }

    # closed: whoever connects is refused

    $ENV{TEST_NGINX_CLOSED_PORT} = free_port(1);
}

use Test::Nginx::Socket ();


# it looks once, and a line that is behind the response may not be there yet

{
    my $check = \&Test::Nginx::Socket::check_error_log;

    no warnings qw( prototype redefine );

    *Test::Nginx::Socket::check_error_log = sub {
        await_error_log($_[0]) if !$_[2];
        goto &$check;
    };
}


sub import {
    my ($class, @args) = @_;

    # Test::Base exports to the package that calls it, and reads its DATA

    package main;

    no strict 'refs';

    Test::Nginx::Socket->import(@args ? @args : 'no_plan');

    for my $name (qw( sim_options sim_start sim_stats sim_reset sim_await
                      sim_port sim_pid module nginx sanitized free_port ))
    {
        *{"main::$name"} = \&{"LlmTest::$name"};
    }

    Test::Nginx::Socket::worker_connections(512);
    Test::Nginx::Socket::add_block_preprocessor(\&LlmTest::prepare);
    Test::Nginx::Socket::add_response_body_check(\&LlmTest::check_sim_stats);
}


sub module { return $ENV{TEST_LLM_MODULE} }

sub nginx { return $ENV{TEST_NGINX_BINARY} }

# by "make asan": its shadow is larger than what it guards, and what was freed
# is kept for a while, so that how much memory nginx takes says nothing

sub sanitized { return nginx() =~ m{/asan/nginx$} }

sub sim_port { return $ENV{"TEST_NGINX_SIM_PORT_$_[0]"} }


# sim_options(...): llm-sim's, instead of the defaults above; before the
# first block that uses it

sub sim_options {
    @SimOptions = @_;
}


# every block, before it runs

sub prepare {
    my ($block) = @_;
    my ($expected, $forbidden, $text);

    $text = join "\n", map { $block->$_ // '' }
                           qw( config http_config main_config
                               post_main_config user_files );

    if ($text =~ /\$TEST_NGINX_SIM_PORT_/ || defined $block->sim_stats) {
        sim_start();
        sim_reset();
    }

    return if defined $block->must_die;

    $forbidden = $block->no_error_log // [];
    $forbidden = [ split /\n+/, $forbidden ] if !ref $forbidden;
    $forbidden = [ $forbidden ] if ref $forbidden ne 'ARRAY';

    $expected = $block->error_log // '';
    $expected = join "\n", @$expected if ref $expected eq 'ARRAY';

    for my $pattern ('[alert]', '[emerg]', 'Sanitizer', 'runtime error:') {
        next if index($expected, $pattern) >= 0;
        next if grep { !ref && $_ eq $pattern } @$forbidden;

        $forbidden = [ @$forbidden, $pattern ];
    }

    $block->set_value('no_error_log', $forbidden);
}


# until all is logged that the block expects, or that has taken too long

sub await_error_log {
    my ($block) = @_;
    my ($deadline, @missing);

    @missing = $block->error_log // ();
    @missing = map { ref eq 'ARRAY' ? @$_ : ref ? $_ : split /\n+/ } @missing;
    @missing = map { ref ? $_ : qr/\Q$_\E/ } @missing;
    $deadline = time + 10;

    while (@missing && time < $deadline) {
        open my $log, '<', $Test::Nginx::Util::ErrLogFile or return;
        seek $log, $Test::Nginx::Util::ErrLogFilePos // 0, 0;

        while (my $line = <$log>) {
            @missing = grep { $line !~ $_ } @missing;
        }

        sleep 0.02 if @missing;
    }
}


sub sim_pid { return $SimPid }


sub sim_start {
    my ($line, $pid, $ready, $write, @args);

    return if defined $SimPid;

    @args = ($ENV{TEST_LLM_SIM} || "$Build/llm-sim",
             (map { ('--listen', '127.0.0.1:' . sim_port($_)) }
                  1 .. $Servers),
             '--quiet', @SimOptions);

    die "no $args[0]: run 'make tools' first\n" unless -x $args[0];

    # not to outlive a killed test

    if (-x '/usr/bin/setpriv') {
        unshift @args, '/usr/bin/setpriv', '--pdeathsig', 'TERM', '--';
    }

    pipe $SimOut, $write or die "pipe: $!";
    $pid = fork // die "fork: $!";

    if ($pid == 0) {
        open STDOUT, '>&', $write or POSIX::_exit(1);
        exec { $args[0] } @args or POSIX::_exit(1);
    }

    close $write;
    $SimPid = $pid;

    local $SIG{ALRM} = sub { };
    alarm $Timeout;
    $line = <$SimOut>;
    alarm 0;

    $ready = defined $line && $line =~ /^llm-sim ready:/;
    Test::Nginx::Socket::bail_out("llm-sim did not start: @args") if !$ready;
}


sub sim_request {
    my ($method) = @_;
    my ($res, $url);

    $url = 'http://127.0.0.1:' . sim_port(1) . '/sim/stats';
    $res = HTTP::Tiny->new(timeout => $Timeout)->request($method, $url);

    die "$method $url: $res->{status} $res->{content}\n"
        unless $res->{success};

    return $res->{content};
}


# sim_stats(): the sums over all servers, by name; with the port of one
# server, its own counters

sub sim_stats {
    my ($port) = @_;
    my (%sum, $stats);

    $stats = JSON::PP::decode_json(sim_request('GET'));

    for my $server (@{$stats->{servers}}) {
        next if defined $port && $server->{port} != $port;

        for my $name (keys %$server) {
            $sum{$name} += $server->{$name};
        }
    }

    return \%sum;
}


sub sim_reset {
    sim_request('DELETE');
}


# sim_await(name => value, ...): until the sums are so, or that has taken too
# long; they are returned

sub sim_await {
    my (%want) = @_;
    my $deadline = time + $Timeout;
    my $sum;

    for ( ;; ) {
        $sum = sim_stats();

        return $sum if time > $deadline
                       || !grep { $sum->{$_} != $want{$_} } keys %want;

        sleep 0.02;
    }
}


sub check_sim_stats {
    my ($block, $body, $req_idx, $repeated_req_idx, $dry_run) = @_;
    my ($deadline, $got, $name, $want);

    return if !defined $block->sim_stats || $dry_run;

    # of several requests, the counters are looked at after the last

    return if ref $block->request eq 'ARRAY'
              && $req_idx < $#{$block->request};

    $want = join '', map { "$_\n" }
                     sort grep { /\S/ } split /\n/, $block->sim_stats;
    $deadline = time + $Timeout;

    for ( ;; ) {
        my $sum = sim_stats();

        $got = '';

        for my $line (split /\n/, $want) {
            ($name) = $line =~ /^(\w+):/
                or die "sim_stats: not NAME: VALUE: $line\n";
            $got .= "$name: " . ($sum->{$name} // 'none') . "\n";
        }

        last if $got eq $want || time > $deadline;
        sleep 0.05;
    }

    Test::More::is($got, $want, $block->name . ' - sim_stats');
}


END {
    if (defined $SimPid && $$ == $Owner) {
        local $?;

        kill 'TERM', $SimPid;
        waitpid $SimPid, 0;
    }
}


$SIG{INT} = $SIG{TERM} = $SIG{HUP} = sub { exit 130 };

1;
