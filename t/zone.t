#!/usr/bin/perl

# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# Random lives of the budgets in shared memory, inside of a real nginx: see
# t/zone/ngx_llm_test_zone_module.c, which prints what this file is for.
#
#     LIVES=50 SEED=7 prove t/zone.t

use strict;
use warnings;

use Cwd qw( abs_path );
use File::Basename qw( dirname );
use File::Temp qw( tempdir );

chdir dirname(abs_path(__FILE__)) . '/..' or die "chdir: $!\n";

my $build = abs_path($ENV{TEST_LLM_BUILD} // 'build');
my $nginx = $ENV{TEST_NGINX_BINARY} // "$build/nginx/usr/sbin/nginx";
my $lives = $ENV{LIVES} // 100_000;
my $seed = $ENV{SEED} // 1;
my $dir;

if (!-x $nginx) {
    print "1..0 # SKIP there is no nginx, 'make build' has not run\n";
    exit 0;
}

# nginx takes it for the sockets of its predecessor

delete $ENV{NGINX};
$ENV{BUILD} = $build;

# the suites' nginx, where that is not Debian's

$ENV{NGINX_SOURCE} = $ENV{TEST_LLM_SOURCE} // '';
$ENV{NGINX_OBJ} = $ENV{TEST_LLM_OBJ} // '';

my @sources = map { "t/zone/ngx_llm_test_$_.c" }
                  qw( zone_module life ledger order race );

chomp(my $module = `bench/build-module @sources`);
die "the module was not built\n" if $? != 0;

$dir = tempdir(CLEANUP => 1);

open my $conf, '>', "$dir/nginx.conf" or die "nginx.conf: $!\n";
print $conf <<"END";
load_module $module;
daemon off;
master_process off;
pid $dir/nginx.pid;
llm_test_zone $lives $seed;
events { }
END
close $conf;

my $failed = system($nginx, '-p', $dir, '-e', "$dir/error.log",
                    '-c', "$dir/nginx.conf");

exit($failed != 0);
