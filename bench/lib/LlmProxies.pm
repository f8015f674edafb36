# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmProxies;

# What stands between clients and an inference server: nginx without and with
# the module.  One thread of one process works, pinned to no processor.
#
#     my $proxies = LlmProxies->new(nginx => .., module => .., dir => ..);
#     my $pid = $proxies->run($kind, $port, $server);    its working process,
#     $proxies->run($kind, $port, $server, 'valgrind');  or that of a command
#                                                        in front of it

use strict;
use warnings;

use Time::HiRes qw( sleep );

use LlmBench qw( await start );

# "loaded" has the module, and no directive of it

my %Locations = (stock => 'proxy_buffering off;',
                 loaded => 'proxy_buffering off;', module => 'llm_stream on;',
                 limited => 'llm_stream on; llm_limit zone=tokens;');


sub new {
    my ($class, %self) = @_;

    return bless { %self }, $class;
}


sub run {
    my ($self, $kind, $port, $server, @command) = @_;
    my $name = "$self->{dir}/$kind";

    $self->configure($kind, $port, $server, @command ? 'off' : 'on');

    my $pid = start("$name.out", @command, $self->{nginx}, '-p', $self->{dir},
                    '-c', "$name.conf", '-e', "$name.log");

    await($port, "$name.log");

    return @command ? $pid : worker($pid, "$name.log");
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
    my $load = $kind eq 'stock' ? '' : "load_module $self->{module};";
    my $zone = $kind eq 'limited'
               ? 'llm_limit_zone $http_host zone=tokens:16m tokens=100M/s;'
               : '';
    my $balancer = $kind eq 'limited' ? 'llm_least_inflight;' : '';

    open my $conf, '>', "$dir/$kind.conf" or die "$dir/$kind.conf: $!\n";
    print $conf <<"END";
$load
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
    $zone
    upstream sim {
        zone sim 64k;
        server 127.0.0.1:$server;
        $balancer
    }
    server {
        listen 127.0.0.1:$port backlog=4096;
        location / {
            $Locations{$kind}
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout 1h;
            proxy_pass http://sim;
        }
    }
}
END
    close $conf;
}


1;
