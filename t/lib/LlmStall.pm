# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmStall;

# A clock that stands still while the machine does: what has to happen within
# a time is measured by it, so that a processor that ran nothing for a while
# is not taken for a slow nginx, and a slow nginx not for such a processor.
#
#     $mark = LlmStall::mark();
#     ...
#     $seconds = LlmStall::since($mark);
#
# A process on each processor sleeps 5 ms at a time, and knows by how much it
# was late.

use strict;
use warnings;

use IO::Handle;
use List::Util qw( max );
use POSIX ();
use Socket;
use Time::HiRes qw( time );

my @Watches;

# late by less than 5 ms is not late: that may be any other process

my $Watch = <<'END';
    use Time::HiRes qw( time );
    my ($lost, $last) = (0, time);

    for ( ;; ) {
        my $asked = '';
        vec($asked, 0, 1) = 1;
        select $asked, undef, undef, 0.005;

        my $now = time;
        my $late = $now - $last - 0.005;
        $lost += $late if $late > 0.005;
        $last = $now;

        next if !vec $asked, 0, 1;
        sysread STDIN, my $question, 64 or exit;
        syswrite STDOUT, "$lost\n";
    }
END


sub mark {
    start();

    return { lost => [ lost() ], time => time };
}


sub since {
    my ($mark) = @_;
    my (@lost, $seconds);

    @lost = lost();
    $seconds = time - $mark->{time};

    return $seconds - max(map { $lost[$_] - $mark->{lost}[$_] } 0 .. $#lost);
}


# seconds by which each processor was late so far

sub lost {
    my ($answer, @lost);

    syswrite $_, '?' for @Watches;

    for my $watch (@Watches) {
        sysread $watch, $answer, 64 or die "no clock of the machine\n";
        push @lost, $answer;
    }

    return @lost;
}


# once, ahead of what is measured; each ends as soon as its socket does

sub start {
    return if @Watches;

    for my $cpu (processors()) {
        socketpair my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC
            or die "socketpair: $!\n";

        my $pid = fork // die "fork: $!\n";

        if ($pid == 0) {
            open STDIN, '<&', $theirs or POSIX::_exit(1);
            open STDOUT, '>&', $theirs or POSIX::_exit(1);
            exec 'taskset', '-c', $cpu, $^X, '-e', $Watch
                or POSIX::_exit(1);
        }

        push @Watches, $ours;
    }

    lost();
}


# those that we may run on, eight at most

sub processors {
    my ($list, @cpus);

    open my $in, '<', '/proc/self/status' or die "/proc/self/status: $!\n";
    ($list) = map { /^Cpus_allowed_list:\s*(\S+)/ ? $1 : () } <$in>;
    @cpus = map { /(\d+)-(\d+)/ ? $1 .. $2 : $_ } split /,/, $list;

    return splice @cpus, 0, 8;
}


1;
