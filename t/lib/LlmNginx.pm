# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmNginx;

# An nginx of one's own, to be reloaded and to have its workers killed: what
# Test::Nginx has no blocks for.
#
#     $nginx = LlmNginx->start(binary => ..., module => ..., dir => ...,
#                              main => 'worker_processes 2;',
#                              http => 'server { ... }');
#     $nginx->reload($http);          returns when the new workers work
#     $nginx->workers;                their pids, without those that leave
#     $nginx->replace('KILL', @pids); returns when their successors work
#     $nginx->lines($count);          of logs/llm.log, as soon as there are so
#                                     many: hashes of its name=value
#     $nginx->cpu_seconds;            of all workers, so far
#     LlmNginx::true_in_time(sub { ... }, $seconds);
#     $nginx->faults(qr/.../);        lines that no test may cause; those
#                                     that match are expected
#     $nginx->stop;

use strict;
use warnings;

use File::Path qw( make_path remove_tree );
use POSIX qw( sysconf _SC_CLK_TCK );
use Time::HiRes qw( sleep time );

our $Timeout = 60;


sub start {
    my ($class, %options) = @_;
    my ($pid, $self);

    $self = bless { %options }, $class;

    remove_tree($self->{dir});
    make_path("$self->{dir}/logs");
    $self->configure($self->{http});

    $pid = fork // die "fork: $!\n";

    if ($pid == 0) {
        open STDOUT, '>>', "$self->{dir}/logs/stderr.log";
        open STDERR, '>&', \*STDOUT;
        exec { $self->{binary} } $self->{binary}, '-p', "$self->{dir}/",
             '-c', 'nginx.conf', '-e', 'logs/error.log'
            or POSIX::_exit(1);
    }

    $self->{pid} = $pid;
    $self->await('nginx starts', sub {
        die "nginx does not start, see $self->{dir}/logs\n"
            if waitpid($pid, POSIX::WNOHANG()) == $pid && !($self->{pid} = 0);

        return $self->ready == ($self->{main} =~ /master_process\s+off/ ? 1
                                : $self->{main} =~ /worker_processes\s+(\d+)/
                                ? $1 : 1);
    });

    return $self;
}


sub configure {
    my ($self, $http) = @_;

    open my $conf, '>', "$self->{dir}/nginx.conf" or die "nginx.conf: $!\n";

    print $conf <<"END";
load_module $self->{module};
daemon off;
pid logs/nginx.pid;
error_log logs/error.log debug;
$self->{main}
events {
    worker_connections @{[ $self->{connections} // 512 ]};
}
http {
    access_log off;
    client_body_temp_path temp_body;
    proxy_temp_path temp_proxy;
    fastcgi_temp_path temp_fastcgi;
    uwsgi_temp_path temp_uwsgi;
    scgi_temp_path temp_scgi;
    $http
}
END

    close $conf;
}


# how many workers have come to their event loop so far

sub ready {
    my ($self) = @_;
    my @lines = $self->logged(qr/: worker cycle$/);
    my %seen = map { /(\d+)#/ => 1 } @lines;

    return scalar keys %seen;
}


sub reload {
    my ($self, $http) = @_;
    my @old = $self->workers;

    $self->configure($http);

    kill 'HUP', $self->{pid};

    $self->await('new workers start', sub {
        my %old = map { $_ => 1 } @old;
        my @new = $self->workers;

        return @new == @old && !grep { $old{$_} } @new;
    });

    $self->await_ready;
}


sub replace {
    my ($self, $signal, @pids) = @_;
    my $count = $self->workers;

    kill $signal, @pids;

    $self->await('successors start', sub {
        my %old = map { $_ => 1 } @pids;
        my @workers = $self->workers;

        return @workers == $count && !grep { $old{$_} } @workers;
    });

    $self->await_ready;
}


# the workers that are there have come to their event loop

sub await_ready {
    my ($self) = @_;

    $self->await('workers work', sub {
        my %seen = map { /(\d+)#/ => 1 } $self->logged(qr/: worker cycle$/);
        my @workers = $self->workers;

        return @workers && !grep { !$seen{$_} } @workers;
    });
}


sub workers {
    my ($self) = @_;
    my @workers = grep { title($_) =~ /worker process(?! is shut)/ }
                  $self->children;

    return @workers;
}


sub title {
    my ($pid) = @_;

    open my $cmd, '<', "/proc/$pid/cmdline" or return '';

    return <$cmd> // '';
}


sub children {
    my ($self) = @_;

    open my $in, '<', "/proc/$self->{pid}/task/$self->{pid}/children"
        or return;

    return split ' ', <$in> // '';
}


sub await {
    my ($self, $what, $happened) = @_;
    my $deadline = time + $Timeout;

    until ($happened->()) {
        if (time > $deadline) {
            $self->stop;
            die "$what: not within $Timeout s, see $self->{dir}/logs\n";
        }

        sleep 0.02;
    }
}


# what a test waits for: whether it became true

sub true_in_time {
    my ($happened, $seconds) = @_;
    my $deadline = time + ($seconds // $Timeout);

    until ($happened->()) {
        return 0 if time > $deadline;

        sleep 0.005;
    }

    return 1;
}


sub lines {
    my ($self, $count) = @_;
    my @lines;

    true_in_time(sub {
        open my $log, '<', "$self->{dir}/logs/llm.log" or return;
        @lines = <$log>;

        return @lines >= $count;
    });

    return map { +{ /(\w+)=(\S*)/g } } @lines;
}


sub cpu_seconds {
    my ($self) = @_;
    my ($ticks, @stat);

    for my $pid ($self->workers) {
        open my $in, '<', "/proc/$pid/stat" or die "/proc/$pid/stat: $!\n";
        @stat = split ' ', <$in> =~ s/.*\)//sr;
        $ticks += $stat[11] + $stat[12];
    }

    return $ticks / sysconf(_SC_CLK_TCK);
}


sub logged {
    my ($self, $pattern) = @_;

    open my $log, '<', "$self->{dir}/logs/error.log" or return;

    return grep { $_ =~ $pattern } <$log>;
}


sub faults {
    my ($self, $expected) = @_;
    my @lines = $self->logged(qr/\[(?:alert|emerg)\]/);

    if (open my $log, '<', "$self->{dir}/logs/stderr.log") {
        push @lines, grep { /Sanitizer|runtime error:/ } <$log>;
    }

    return grep { !defined $expected || $_ !~ $expected } @lines;
}


# ends at once, with what its workers serve; a master may have been stopped,
# and one that has crashed leaves its workers behind

sub stop {
    my ($self) = @_;
    my $deadline = time + $Timeout;

    return if !$self->{pid};

    kill 'TERM', $self->{pid};
    kill 'CONT', $self->{pid};

    while (waitpid($self->{pid}, POSIX::WNOHANG()) == 0) {
        kill 'KILL', $self->{pid} if time > $deadline;
        sleep 0.02;
    }

    $self->{pid} = 0;

    for my $line ($self->logged(qr/: start worker process \d+$/)) {
        my ($pid) = $line =~ /(\d+)$/;
        kill 'KILL', $pid if title($pid) =~ /^nginx: worker process/;
    }
}


sub DESTROY {
    my ($self) = @_;
    local ($?, $@);

    $self->stop;
}


1;
