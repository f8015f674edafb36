# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmPort;

# Ports on 127.0.0.1 for the servers of a test.

use strict;
use warnings;

use Exporter qw( import );
use Fcntl qw( O_CREAT O_RDWR LOCK_EX LOCK_NB );
use File::Path qw( make_path );
use File::Spec;
use IO::Socket::INET;

our @EXPORT_OK = qw( free_port );

my @PortLocks;


# free_port(count, beyond): the first of so many free ports on 127.0.0.1, of
# which those so far beyond are free, too.  They stay below those that the
# kernel gives to outgoing connections, which might take one between two
# blocks, and below those of t/clients and the benchmarks; a lock keeps other
# running .t files off them.

sub free_port {
    my ($count, $beyond) = @_;
    my ($dir, $low, $high, $port, @locks);

    ($low, $high) = split /-/, $ENV{TEST_LLM_PORTS} || '10000-25999';

    $beyond //= 0;
    $high -= $beyond if $high - $beyond > $low;

    $dir = File::Spec->tmpdir() . "/llm-test-ports-$<";
    make_path($dir);

    for (1 .. 1000) {
        $port = 8 * int(($low + rand($high - $low)) / 8);
        @locks = map { lock_ports($dir, $_, $count) }
                     $port, $beyond ? $port + $beyond : ();

        if (@locks == ($beyond ? 2 : 1)) {
            push @PortLocks, @locks;
            return $port;
        }
    }

    die "found no $count free ports in $low-$high\n";
}


# the lock of ports that are free; nothing where they are not

sub lock_ports {
    my ($dir, $port, $count) = @_;
    my ($lock, @socks);

    sysopen $lock, "$dir/$port", O_CREAT | O_RDWR, 0600
        or die "$dir/$port: $!\n";

    return unless flock $lock, LOCK_EX | LOCK_NB;

    @socks = grep { defined } map {
        IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $_,
                              Proto => 'tcp', Listen => 1, ReuseAddr => 1)
    } $port .. $port + $count - 1;

    return @socks == $count ? $lock : ();
}


1;
