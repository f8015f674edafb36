# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmWaits;

# When the machine did not run what was due: a processor that came late to its
# timers, or processes that had to wait for one, by more than a millisecond.
# What is measured meanwhile is not ours.  (LlmStall is for what may take a
# second: a clock.)
#
#     @stalls = LlmWaits::during(sub { ... }, @pids);     pairs of seconds
#     LlmWaits::seconds($from, $to, @stalls);             how much of that time

use strict;
use warnings;

use List::Util qw( max min );

# Linux' own count of what each process has waited, in ns, where there is one.
# It is told when the wait is over, for which reason it reaches back.

my $Watch = <<'END';
use strict;
use Time::HiRes qw( sleep time );

my @waits;

for my $pid (@ARGV) {
    open my $in, '<', "/proc/$pid/schedstat" or next;
    push @waits, $in;
}

my (@was, @now, $late, $from, $last);

sub waited {
    return map { sysseek $_, 0, 0; sysread $_, my $line, 99;
                 (split ' ', $line // '')[1] // 0 } @waits;
}

$| = 1;
$last = time;
@was = waited();
print "ready\n";

for ( ;; ) {
    sleep 0.001;
    my $now = time;
    @now = waited();
    $late = 0;

    for (0 .. $#now) {
        my $more = ($now[$_] - $was[$_]) / 1e9;
        $late = $more if $more > $late;
    }

    $from = $last;
    $from -= $late if $late > 0.001;
    print "$from $now\n" if $late > 0.001 || $now - $last > 0.002;

    $last = $now;
    @was = @now;
}
END


sub during {
    my ($run, @pids) = @_;
    my ($processors, @stalls, @watches);

    chomp($processors = `nproc`);

    for my $cpu (0 .. $processors - 1) {
        my $pid = open my $out, '-|', 'taskset', '-c', $cpu, $^X, '-e', $Watch,
                       $cpu ? () : @pids
            or die "taskset: $!\n";
        push @watches, [ $pid, $out ];
    }

    # until they run there is nobody who would see a stall

    readline $_->[1] for @watches;

    $run->();

    for (@watches) {
        my ($pid, $out) = @$_;

        kill 'KILL', $pid;
        push @stalls, map { [ split ] } grep { /\n/ } <$out>;
        close $out;
    }

    return sort { $a->[0] <=> $b->[0] } @stalls;
}


# of stalls in their order; those that overlap count once

sub seconds {
    my ($from, $to, @stalls) = @_;
    my $seconds = 0;

    for my $stall (@stalls) {
        my $end = min($to, $stall->[1]);

        $from = max($from, $stall->[0]);

        if ($end > $from) {
            $seconds += $end - $from;
            $from = $end;
        }
    }

    return $seconds;
}


1;
