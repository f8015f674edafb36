# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmServer;

# What servers have in common that tests play themselves: each has a process
# of its own, and a directory by whose files the test tells it what to do.
#
#     use parent 'LlmServer';
#
#     $self->begin($sock);        behind it, $self->serve($parent) runs there
#     $self->put($file, $text);   as a whole
#     $self->get($file);          '' if there is none
#     $self->stop;                also at the end of the test
#
# serve() ends when there is no $parent any more.

use strict;
use warnings;

use POSIX ();


sub begin {
    my ($self, $sock) = @_;
    my $parent = $$;
    my $pid = fork // die "fork: $!\n";

    if ($pid == 0) {
        $SIG{$_} = 'DEFAULT' for qw( INT TERM HUP );
        $SIG{PIPE} = 'IGNORE';
        eval { $self->serve($parent) };
        print STDERR ref $self, ": $@" if $@;
        POSIX::_exit(0);
    }

    close $sock;
    $self->{pid} = $pid;
    $self->{owner} = $$;

    return $self;
}


sub address { return "127.0.0.1:$_[0]{port}" }


sub put {
    my ($self, $name, $text) = @_;
    my $file = "$self->{dir}/$name";

    # in one step: it is never half written

    open my $out, '>', "$file.new" or die "$file: $!\n";
    print $out $text;
    close $out;
    rename "$file.new", $file;
}


sub get {
    my ($self, $name) = @_;

    open my $in, '<', "$self->{dir}/$name" or return '';
    local $/;

    return <$in> // '';
}


sub stop {
    my ($self) = @_;

    return if !$self->{pid} || $self->{owner} != $$;

    kill 'KILL', $self->{pid};
    waitpid $self->{pid}, 0;
    $self->{pid} = 0;
}


sub DESTROY {
    my ($self) = @_;
    local ($?, $@, $!);

    $self->stop if $self->{owner};
}


1;
