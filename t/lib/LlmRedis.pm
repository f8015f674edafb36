# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmRedis;

# Redis servers of one's own, and what to ask them.
#
#     $redis = LlmRedis->start(dir => ..., args => ['--maxmemory', '1mb']);
#     $redis->call('GET', 'key');     its answer; dies with an error's text
#     $redis->error('GET', 'key');    an error's text, or undef
#     $redis->run('reserve', $keys, $args);  a script of src/redis
#     $redis->port; $redis->pid;
#     $redis->kill; $redis->restart; $redis->freeze; $redis->thaw;
#     $redis->stop;
#
#     $cluster = LlmRedis->cluster(dir => ..., masters => 3, replicas => 1);
#
# Options of start: server, 'redis' or 'valkey' (what there is: servers());
# port; args; tls => 1.

use strict;
use warnings;

use Cwd qw( abs_path );
use File::Basename qw( dirname );
use File::Path qw( make_path remove_tree );
use File::Spec;
use IO::Socket::INET;
use IO::Socket::UNIX;
use LlmPort qw( free_port );
use POSIX ();
use Time::HiRes qw( sleep time );

# of what may take as long as the machine likes

our $Timeout = 60;

my $Root = abs_path(dirname(__FILE__) . '/../..');
my $Build = $ENV{TEST_LLM_BUILD} || "$Root/build";


# the kinds of servers that this machine has; $TEST_LLM_REDIS and
# $TEST_LLM_VALKEY name others

sub servers {
    return grep { -x binary($_) } qw( redis valkey );
}


sub binary {
    my ($server) = @_;

    return $ENV{'TEST_LLM_' . uc $server}
           || "$Build/$server/usr/bin/$server-server";
}


sub start {
    my ($class, %options) = @_;
    my ($self, $server);

    ($server) = $options{server} // servers();
    die "no redis-server: run 'tools/install-deps redis' first\n" if !$server;

    $self = bless { %options, binary => binary($server) }, $class;

    remove_tree($self->{dir});
    make_path($self->{dir});

    # the path of a socket has 107 bytes at most

    $self->{dir} = abs_path($self->{dir});
    $self->{port} //= free_port(1);
    $self->{socket} = File::Spec->tmpdir . "/llm-redis-$self->{port}.sock";

    $self->certify if $self->{tls};
    $self->spawn;

    return $self;
}


sub spawn {
    my ($self) = @_;
    my ($pid, @command);

    @command = ($self->{binary}, '--bind', '127.0.0.1', '--save', '',
                '--port', $self->{tls} ? 0 : $self->{port},
                '--unixsocket', $self->{socket}, '--unixsocketperm', 777,
                '--dir', $self->{dir},
                '--logfile', 'redis.log', '--appendonly', 'no',
                '--repl-diskless-sync-delay', 0,
                $self->{tls} ? $self->tls_args : (),
                @{$self->{args} // []});

    # not to outlive a killed test

    if (-x '/usr/bin/setpriv') {
        unshift @command, '/usr/bin/setpriv', '--pdeathsig', 'KILL', '--';
    }

    $pid = fork // die "fork: $!\n";

    if ($pid == 0) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', "$self->{dir}/stdout.log";
        open STDERR, '>&', \*STDOUT;
        exec { $command[0] } @command or POSIX::_exit(1);
    }

    $self->{pid} = $pid;
    $self->{owner} = $$;

    await('redis starts', sub {
        die "redis does not start: see $self->{dir}\n"
            if waitpid($pid, POSIX::WNOHANG()) == $pid;

        my $pong = eval { $self->connect; $self->call('PING') };

        return defined $pong || ($@ // '') =~ /NOAUTH|NOPERM/;
    });
}


# a certificate that signs itself

sub certify {
    my ($self) = @_;
    my @command = (qw( openssl req -x509 -newkey rsa:2048 -nodes -days 2
                       -subj /CN=localhost -addext ),
                   'subjectAltName=IP:127.0.0.1,DNS:localhost',
                   '-keyout', "$self->{dir}/key.pem",
                   '-out', "$self->{dir}/cert.pem");

    open my $openssl, '-|', join(' ', @command) . ' 2>&1'
        or die "openssl: $!\n";
    my @said = <$openssl>;
    close $openssl or die "openssl: @said\n";
}


sub tls_args {
    my ($self) = @_;

    return ('--tls-port', $self->{port},
            '--tls-cert-file', "$self->{dir}/cert.pem",
            '--tls-key-file', "$self->{dir}/key.pem",
            '--tls-ca-cert-file', "$self->{dir}/cert.pem",
            '--tls-auth-clients', 'no');
}


sub port { return $_[0]{port} }

sub pid { return $_[0]{pid} }

sub address { return "127.0.0.1:$_[0]{port}" }


sub await {
    my ($what, $happened, $timeout) = @_;
    my $deadline = time + ($timeout // $Timeout);

    until ($happened->()) {
        die "$what: not in time\n" if time > $deadline;
        sleep 0.02;
    }
}


# ---- life and death -------------------------------------------------------

# as a crash: nothing is said good-bye to

sub kill {
    my ($self) = @_;

    return if !$self->{pid};

    CORE::kill('KILL', $self->{pid});
    waitpid $self->{pid}, 0;

    $self->{pid} = 0;
    $self->{sock} = undef;

    unlink $self->{socket};
}


sub stop { $_[0]->kill }


# the same address, and nothing remembered

sub restart {
    my ($self) = @_;

    $self->kill;
    $self->spawn;
}


sub freeze {
    my ($self) = @_;

    CORE::kill('STOP', $self->{pid});
}


sub thaw {
    my ($self) = @_;

    CORE::kill('CONT', $self->{pid});
}


# a replica of the other one, which is linked

sub follow {
    my ($self, $master) = @_;

    $self->call('REPLICAOF', '127.0.0.1', $master->port);

    await('the replica is linked', sub {
        $self->call('INFO', 'replication') =~ /master_link_status:up/
    });
}


# the other one is the master now, and has all of it

sub give_way {
    my ($self, $replica) = @_;

    $self->call('WAIT', 1, 30_000);
    $replica->lead;
    $self->call('REPLICAOF', '127.0.0.1', $replica->port);
}


sub lead { $_[0]->call('REPLICAOF', 'NO', 'ONE') }


sub DESTROY {
    my ($self) = @_;
    local ($?, $@, $!);

    $self->kill if defined $self->{owner} && $self->{owner} == $$;
}


# ---- what is asked --------------------------------------------------------

# over the unix socket: it is there with TLS, too

sub connect {
    my ($self) = @_;

    $self->{sock} = IO::Socket::UNIX->new(Peer => $self->{socket})
        or die "connect to $self->{socket}: $!\n";
    $self->{in} = '';
}


sub call {
    my ($self, @args) = @_;

    $self->send(@args);

    return $self->receive;
}


# more than one at a time: send, send, receive, receive

sub send {
    my ($self, @args) = @_;
    my ($out, $n);

    $self->connect if !$self->{sock};

    $out = '*' . @args . "\r\n"
           . join '', map { '$' . length($_) . "\r\n$_\r\n" } @args;

    while (length $out) {
        $n = $self->{sock}->syswrite($out) // die "redis: write: $!\n";
        substr $out, 0, $n, '';
    }
}


sub receive {
    my ($self) = @_;
    my $answer = $self->value;

    die "redis: $$answer\n" if ref $answer eq 'SCALAR';

    return $answer;
}


sub error {
    my ($self, @args) = @_;

    return if eval { $self->call(@args); 1 };

    return $@;
}


# an error inside of an array stays a reference to its text

sub value {
    my ($self) = @_;
    my ($kind, $rest) = $self->line =~ /^(.)(.*)$/s;

    return $rest if $kind eq '+' || $kind eq ':';
    return \$rest if $kind eq '-';

    return if $rest < 0;

    return [ map { scalar $self->value } 1 .. $rest ] if $kind eq '*';

    die "redis: not understood: $kind$rest\n" if $kind ne '$';

    $self->more while length $self->{in} < $rest + 2;

    my $bulk = substr $self->{in}, 0, $rest;
    substr $self->{in}, 0, $rest + 2, '';

    return $bulk;
}


sub line {
    my ($self) = @_;
    my $end;

    $self->more while ($end = index $self->{in}, "\r\n") < 0;

    my $line = substr $self->{in}, 0, $end;
    substr $self->{in}, 0, $end + 2, '';

    return $line;
}


sub more {
    my ($self) = @_;
    my $n;

    vec(my $ready = '', fileno $self->{sock}, 1) = 1;

    if (!select $ready, undef, undef, $Timeout) {
        $self->{sock} = undef;
        die "redis: no answer within $Timeout s\n";
    }

    $n = $self->{sock}->sysread($self->{in}, 65536, length $self->{in});

    if (!$n) {
        $self->{sock} = undef;
        die "redis: the connection is lost\n";
    }
}


# ---- the module's scripts -------------------------------------------------

# script($name, policy => text, prefix => text): the text of a script as the
# module sends it

sub script {
    my ($name, %options) = @_;
    my $text = defined $options{policy}
               ? "local policy = (function() $options{policy}\nend)()\n"
               : "local policy\n";

    $text .= $options{prefix} // '';

    for my $file ('bucket', $name, 'save') {
        open my $in, '<', "$Root/src/redis/$file.lua"
            or die "src/redis/$file.lua: $!\n";
        local $/;
        $text .= <$in>;
    }

    return $text;
}


# Its numbers are doubles: seven, and a reason behind them, or three.  They
# are whole, and said as such.

sub answer {
    my ($text) = @_;
    my $bytes = length $text > 24 ? 56 : 24;
    my $reason = substr $text, $bytes, length $text, '';

    return [ (map { sprintf '%.0f', $_ } unpack 'd<*', $text),
             $reason eq '' ? () : $reason ];
}


# run($name, [ keys ], [ arguments ], %options): loaded once for a server; its
# answer, as numbers

sub run {
    my ($self, $name, $keys, $args, %options) = @_;
    my ($id, $sha);

    $id = join "\0", $name, map { $options{$_} // '' } qw( policy prefix );

    $sha = $self->{scripts}{$id}
           //= $self->call('SCRIPT', 'LOAD', script($name, %options));

    return answer($self->call('EVALSHA', $sha, scalar @$keys, @$keys,
                              @$args));
}


# ---- clusters -------------------------------------------------------------

# An object of its own: {nodes} are servers, masters first, then a replica of
# each, and so on.

sub cluster {
    my ($class, %options) = @_;
    my ($bus, $count, $masters, $port, $share, @nodes);

    $masters = $options{masters} // 3;
    $count = $masters * (1 + ($options{replicas} // 0));

    die "a cluster of more than 8 nodes\n" if $count > 8;

    # the port of the bus cannot be chosen before Redis 7

    $port = free_port($count, 10000);
    $bus = $port + 10000;

    for my $i (0 .. $count - 1) {
        push @nodes, $class->start(
            server => $options{server}, dir => "$options{dir}/$i",
            port => $port + $i,
            args => [ '--cluster-enabled', 'yes',
                      '--cluster-node-timeout', 60_000,
                      '--cluster-replica-validity-factor', 0,
                      @{$options{args} // []} ]);
    }

    $share = 16384 / $masters;

    for my $i (0 .. $masters - 1) {
        $nodes[$i]->call('CLUSTER', 'ADDSLOTS',
                         int($share * $i) .. int($share * ($i + 1)) - 1);
        $nodes[$i]->call('CLUSTER', 'SET-CONFIG-EPOCH', $i + 1);
    }

    # each meets each: what others tell of them comes late

    for my $i (1 .. $#nodes) {
        $nodes[$i]->call('CLUSTER', 'MEET', '127.0.0.1', $port + $_,
                         $bus + $_) for 0 .. $i - 1;
    }

    for my $i ($masters .. $count - 1) {
        my $id = $nodes[$i % $masters]->call('CLUSTER', 'MYID');

        await('a replica knows its master', sub {
            !$nodes[$i]->error('CLUSTER', 'REPLICATE', $id)
        });
    }

    my $self = bless { nodes => \@nodes, masters => $masters },
                     'LlmRedis::Cluster';

    await('the cluster is whole', sub {
        !grep { !$self->whole($_) } @nodes
    });

    return $self;
}


package LlmRedis::Cluster;


sub whole {
    my ($self, $node) = @_;

    return $node->call('CLUSTER', 'INFO') =~ /cluster_state:ok/
           && (() = $node->call('CLUSTER', 'NODES') =~ /\bconnected\b/g)
              == @{$self->{nodes}}
           && ($node->call('INFO', 'replication') !~ /role:slave/
               || $node->call('INFO', 'replication')
                  =~ /master_link_status:up/);
}


# a server more, without a slot

sub add {
    my ($self, %options) = @_;
    my @nodes = grep { $_->{pid} } $self->nodes;
    my $node = LlmRedis->start(
        %options, port => LlmPort::free_port(1, 10000),
        args => [ '--cluster-enabled', 'yes' ]);

    $node->call('CLUSTER', 'MEET', '127.0.0.1', $_->port, $_->port + 10000)
        for @nodes;

    push @{$self->{nodes}}, $node;

    LlmRedis::await('it is a part of the cluster', sub {
        !grep { !$self->whole($_) } @nodes, $node
    });

    return $node;
}


sub nodes { return @{$_[0]{nodes}} }

sub addresses { return join ',', map { $_->address } $_[0]->nodes }


# the node that serves a key now: it is asked for it, and does not send us on

sub master_of {
    my ($self, $key) = @_;

    for my $node ($self->nodes) {
        next if !$node->{pid};

        my $role = eval { $node->call('ROLE')->[0] } // '';

        return $node if $role eq 'master' && !$node->error('EXISTS', $key);
    }

    return;
}


# moves a key's slot, its keys too, while others use it: who asks for a key
# meanwhile is sent on by ASK, and afterwards by MOVED

sub move_slot {
    my ($self, $key, $from, $to, $between) = @_;
    my ($slot, @keys);

    $slot = $from->call('CLUSTER', 'KEYSLOT', $key);

    $to->call('CLUSTER', 'SETSLOT', $slot, 'IMPORTING',
              $from->call('CLUSTER', 'MYID'));
    $from->call('CLUSTER', 'SETSLOT', $slot, 'MIGRATING',
                $to->call('CLUSTER', 'MYID'));

    while (@keys = @{$from->call('CLUSTER', 'GETKEYSINSLOT', $slot, 100)}) {
        $from->call('MIGRATE', '127.0.0.1', $to->port, '', 0, 5000, 'KEYS',
                    @keys);
    }

    $between->() if $between;

    for my $node ($to, $from, grep { $_ != $to && $_ != $from }
                                   $self->nodes)
    {
        next if !$node->{pid} || $node->call('ROLE')->[0] ne 'master';

        $node->call('CLUSTER', 'SETSLOT', $slot, 'NODE',
                    $to->call('CLUSTER', 'MYID'));
    }
}


# No master is taken for dead before that has been called: a slow machine is
# none.

sub takes_over {
    my ($self, $timeout_ms) = @_;

    $_->call('CONFIG', 'SET', 'cluster-node-timeout', $timeout_ms)
        for $self->nodes;
}


sub stop { $_->kill for $_[0]->nodes }


1;
