# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmProxies;

# What stands between clients and an inference server: nginx without and with
# the module, and what people have instead, from build/peers, where
# tools/install-deps peers unpacks it.  One thread of one process works.
#
#     my $proxies = LlmProxies->new(build => .., nginx => .., module => ..,
#                                   dir => ..);
#     $proxies->misses($kind);   why it cannot run here, or ''
#     LlmProxies::does($kind);   and what it is
#     my $pid = $proxies->run($kind, $port, $server);    its working process,
#     $proxies->run($kind, $port, $server, 'valgrind');  or that of a command
#                                                        in front of it
#     $proxies->troubles($kind);  dies of what is in its log

use strict;
use warnings;

use FindBin qw( $Bin );
use Time::HiRes qw( sleep );

use LlmBench qw( await start );

my %Kinds = (
    stock => { does => 'nginx: passes bytes, counts nothing',
               location => 'proxy_buffering off;' },
    loaded => { does => 'nginx with the module loaded, no directive of it',
                module => 1, location => 'proxy_buffering off;' },
    module => { does => 'llm_stream: counts content, usage, times, knows ends',
                module => 1, location => 'llm_stream on;' },
    limited => { does => 'llm_stream, llm_limit, llm_least_inflight: and '
                         . 'budgets, and load',
                 module => 1, balancer => 'llm_least_inflight;',
                 http => 'llm_limit_zone $http_host zone=tokens:16m '
                         . 'tokens=100M/s;',
                 location => 'llm_stream on; llm_limit zone=tokens;' },
    haproxy => { does => 'HAProxy, option http-no-delay: passes bytes, counts '
                         . 'nothing' },
    lua => { does => 'nginx, body_filter_by_lua, cjson: counts content, usage; '
                     . 'no times, no limit',
             location => 'proxy_buffering off; '
                         . "body_filter_by_lua_file $Bin/lib/count.lua;" },
);


sub new {
    my ($class, %self) = @_;
    my $self = bless { %self }, $class;
    my $usr = "$self->{build}/peers/usr";

    $self->{haproxy} = "$usr/sbin/haproxy";
    $self->{libs} = join ':', glob "$self->{build}/peers/{usr/,}lib/*-linux-*";

    $Kinds{lua}{load} = join ' ', map { "load_module $usr/lib/nginx/modules/"
                                        . "$_.so;" }
                                      qw( ndk_http_module ngx_http_lua_module );
    $Kinds{lua}{http} = "lua_package_path '$usr/share/lua/5.1/?.lua;;'; "
                        . 'lua_package_cpath \''
                        . join(';', map { "$_/?.so" }
                                        glob "$usr/lib/*/lua/5.1") . ";;';";
    $Kinds{$_}{load} = "load_module $self->{module};"
        for grep { $Kinds{$_}{module} } keys %Kinds;

    return $self;
}


sub does {
    return $Kinds{$_[0]}{does};
}


sub misses {
    my ($self, $kind) = @_;
    my $log = "$self->{dir}/$kind.test";
    my $test = $kind eq 'haproxy' ? '-c' : '-t';

    die "no such kind: $kind\n" if !$Kinds{$kind};

    return 'see tools/install-deps peers'
        if $kind =~ /^(?:haproxy|lua)$/ && !-x $self->{haproxy};

    $self->configure($kind, 1, 1, 'off');

    local $ENV{LD_LIBRARY_PATH} = $self->{libs};

    return '' if system("@{[ $self->command($kind) ]} $test > $log 2>&1") == 0;

    chomp(my $why = `grep -m 1 -E 'emerg|ALERT' $log` || `tail -n 1 $log`);

    return $why;
}


sub run {
    my ($self, $kind, $port, $server, @command) = @_;
    my $master = @command || $kind eq 'haproxy' ? 'off' : 'on';
    my $log = "$self->{dir}/$kind.log";

    $self->configure($kind, $port, $server, $master);

    local $ENV{LD_LIBRARY_PATH} = $self->{libs};
    my $pid = start("$self->{dir}/$kind.out", @command, $self->command($kind));

    await($port, $log);

    return $master eq 'on' ? worker($pid, $log) : $pid;
}


# a peer that does not do its work is not compared with

sub troubles {
    my ($self, $kind) = @_;
    my $log = "$self->{dir}/$kind.log";
    my $trouble = -e $log && `grep -m 1 -E '\\[(error|crit)\\]' $log`;

    die "$kind: $trouble" if $trouble;
    die "$kind counted nothing\n"
        if $kind eq 'lua'
           && system("grep -q 'counted [1-9].* [1-9].* tokens' $log") != 0;
}


sub command {
    my ($self, $kind) = @_;
    my $name = "$self->{dir}/$kind";

    return $self->{haproxy}, '-db', '-f', "$name.conf" if $kind eq 'haproxy';
    return $self->{nginx}, '-p', $self->{dir}, '-c', "$name.conf",
           '-e', "$name.log";
}


# the port is open before there is a worker

sub worker {
    my ($pid, $log) = @_;
    my $worker;

    do {
        sleep 0.02;
        open my $in, '<', "/proc/$pid/task/$pid/children"
            or die "no nginx: see $log\n";
        ($worker) = split ' ', <$in> // '';
    } while (!defined $worker);

    return $worker;
}


sub configure {
    my ($self, $kind, $port, $server, $master) = @_;
    my $dir = $self->{dir};

    open my $conf, '>', "$dir/$kind.conf" or die "$dir/$kind.conf: $!\n";
    print $conf $kind eq 'haproxy' ? haproxy($port, $server)
                                   : $self->nginx($kind, $port, $server,
                                                  $master);
    close $conf;
}


sub haproxy {
    my ($port, $server) = @_;

    return <<"END";
global
    nbthread 1
    maxconn 4096

defaults
    mode http
    option http-no-delay
    timeout connect 5s
    timeout client 1h
    timeout server 1h

listen sim
    bind 127.0.0.1:$port
    server sim 127.0.0.1:$server
END
}


sub nginx {
    my ($self, $kind, $port, $server, $master) = @_;
    my $dir = $self->{dir};
    my %kind = (load => '', http => '', balancer => '', %{$Kinds{$kind}});

    return <<"END";
$kind{load}
daemon off;
master_process $master;
worker_processes 1;
worker_rlimit_nofile 100000;
pid $dir/$kind.pid;
error_log $dir/$kind.log info;
events { worker_connections 50000; }
http {
    access_log off;
    client_body_buffer_size 256k;
    client_body_temp_path $dir/body;
    proxy_temp_path $dir/proxy;
    fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi;
    scgi_temp_path $dir/scgi;
    $kind{http}
    upstream sim {
        zone sim 64k;
        server 127.0.0.1:$server;
        $kind{balancer}
    }
    server {
        listen 127.0.0.1:$port backlog=4096;
        location / {
            $kind{location}
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout 1h;
            proxy_pass http://sim;
        }
    }
}
END
}


1;
