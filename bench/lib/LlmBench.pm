# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmBench;

# What the benchmarks that start servers share.
#
#     my $dir = work_dir($build, $name);
#     start($log, @command);     in the background, stdout to $log; its pid
#     await($port, $log);        until somebody listens there
#     stop();                    all that was started, the last one first
#     free_ports($n);            the first of $n in a row on 127.0.0.1
#     median(@numbers);
#
# Servers and directory end with the program; KEEP=1 leaves the directory.

use strict;
use warnings;

use Exporter qw( import );
use File::Path qw( make_path remove_tree );
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw( sleep time );

our @EXPORT_OK = qw( await free_ports median start stop work_dir );

use constant TIMEOUT_S => 60;

my (@servers, $dir);

$SIG{INT} = $SIG{TERM} = $SIG{HUP} = sub { exit 1 };


sub work_dir {
    my ($build, $name) = @_;

    $dir = "$build/bench/$name-$$";
    make_path($dir);

    return $dir;
}


sub start {
    my ($log, @command) = @_;
    my $pid = fork // die "fork: $!\n";

    if ($pid == 0) {
        open STDOUT, '>', $log;
        exec { $command[0] } @command or POSIX::_exit(1);
    }

    push @servers, { pid => $pid, nginx => scalar $command[0] =~ m{/nginx$} };

    return $pid;
}


# told to QUIT, nginx writes the lines of all requests before it ends

sub stop {
    my ($at_once) = @_;

    while (my $server = pop @servers) {
        kill $server->{nginx} && !$at_once ? 'QUIT' : 'TERM', $server->{pid};
        waitpid $server->{pid}, 0;
    }
}


END {
    my $code = $?;

    stop(1);
    remove_tree($dir) if defined $dir && !$ENV{KEEP};
    $? = $code;
}


# below the ports that the kernel gives to outgoing connections

sub free_ports {
    my ($n) = @_;

    for (1 .. 50) {
        my $port = 29000 + int rand 2000;

        return $port if !grep { connects($_) } $port .. $port + $n - 1;
    }

    die "found no free ports\n";
}


sub connects {
    return IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                 PeerPort => $_[0]);
}


sub await {
    my ($port, $log) = @_;
    my $deadline = time + TIMEOUT_S;

    until (connects($port)) {
        die "nobody listens on port $port:\n", `tail -n 5 $log`
            if time > $deadline;
        sleep 0.02;
    }
}


sub median {
    my @sorted = sort { $a <=> $b } @_;

    return $sorted[$#sorted / 2];
}


1;
