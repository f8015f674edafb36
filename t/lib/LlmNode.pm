# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmNode;

# One machine of several that share a budget: an nginx with a limit zone in
# Redis, and what its clients see.  For suites that use LlmTest.
#
#     $node = LlmNode->start(redis => "redis://127.0.0.1:$port/0",
#                            options => 'timeout=50ms', rate => '1/h',
#                            burst => 1000, limit => 'wait=2s');
#     $answer = $node->ask(300, sim => 'tokens=20', key => 'a');
#     $answer->{status}, ->header(..), ->{log}
#
# A prompt weighs nothing here, and all of max_tokens is reserved: what a
# request takes is what the test says, and a rate of 1/h refills nothing.
#
# More options: workers; name, the zone's; zone, more arguments of
# llm_limit_zone; http, lines of http{}; location, lines of location; key, the
# zone's key.

use strict;
use warnings;

use Digest::SHA qw( sha1_hex );
use LlmClient;
use LlmNginx;
use LlmPort qw( free_port );
use LlmTest ();
use Time::HiRes qw( sleep time );

my $Count = 0;


sub start {
    my ($class, %options) = @_;
    my $self = bless { %options, port => free_port(1) }, $class;
    my $workers = $options{workers} // 1;

    $self->{nginx} = LlmNginx->start(
        binary => LlmTest::nginx(), module => LlmTest::module(),
        dir => "$ENV{TEST_NGINX_SERVROOT}/node" . ++$Count,
        main => "worker_processes $workers;\n" . ($options{main} // ''),
        connections => $options{connections}, http => $self->http);

    return $self;
}


sub http {
    my ($self) = @_;
    my %with = (options => '', rate => '1/h', burst => 1000, zone => '',
                limit => '', http => '', location => '',
                name => 'shared', key => '$http_authorization', %$self);

    # a busy machine is not a fault: who tests one names its timeout

    for my $name (qw( timeout connect_timeout )) {
        $with{options} = "$name=10s $with{options}"
            if $with{options} !~ /(?<!\w)$name=/;
    }

    $with{limit} = "reserve=max $with{limit}"
        if $with{limit} !~ /reserve=/;

    my $llm_redis = $with{redis} ? "llm_redis shared $with{redis} "
                                   . "$with{options};" : '';
    my $shared = $with{redis} ? 'redis=shared' : '';
    my $sim = LlmTest::sim_port(1);

    return <<"END";
log_format node '\$http_x_request|\$status|\$llm_limit_status|'
                '\$llm_limit_zone|\$llm_limit_wait|\$llm_reserved_tokens|'
                '\$llm_completion_tokens|\$llm_end|\$request_time|'
                '\$upstream_header_time';
$llm_redis
llm_limit_zone $with{key} zone=$with{name}:1m tokens=$with{rate}
               burst=$with{burst} prompt=0 $shared $with{zone};
$with{http}
server {
    listen 127.0.0.1:$self->{port};
    access_log logs/access.log node;
    location / {
        llm_stream on;
        llm_limit zone=$with{name} $with{limit};
        $with{location}
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_pass http://127.0.0.1:$sim;
    }
}
END
}


# a client that has asked for so many tokens, and has not got anything yet

sub open {
    my ($self, $tokens, %options) = @_;
    my $key = $options{key} // 'k';
    my $id = join '-', $self->{port}, ++$self->{asked};
    my $client = LlmClient->open($self->{port},
        body => '{"model":"' . ($options{model} // 'sim')
                . '","stream":true,"max_tokens":' . $tokens
                . ',"messages":[{"role":"user","content":"hello"}]}',
        sim => $options{sim} // 'tokens=1; itl=0',
        headers => { Authorization => $key, 'X-Request' => $id,
                     %{$options{headers} // {}} });

    $client->{id} = $id;

    return $client;
}


# the same, to its end

sub ask {
    my ($self, $tokens, %options) = @_;

    return $self->open($tokens, %options)->finish;
}


# the same: its status and the milliseconds that it took

sub timed {
    my ($self, $tokens, %options) = @_;
    my $start = time;
    my $status = $self->ask($tokens, %options)->status;

    return ($status, 1000 * (time - $start));
}


# its line in the access log, when it is there: a hash

sub logged {
    my ($self, $client) = @_;
    my @names = qw( id status limit zone wait reserved completion end time
                    header_time );
    my %line;

    LlmRedis::await('a line in the access log', sub {
        CORE::open(my $log, '<', "$self->{nginx}{dir}/logs/access.log")
            or return;

        for (<$log>) {
            chomp;
            @line{@names} = split /\|/, $_, -1;
            return 1 if $line{id} eq $client->{id};
        }

        return;
    });

    return \%line;
}


# lines of the error log, as it is without debugging; what that says may have
# lines that do not look like it

sub errors {
    my ($self, $pattern) = @_;

    return grep { / \[(?!debug)\w+\] / } $self->{nginx}->logged($pattern);
}


# awaits a line of the error log beyond the first $seen ones of its kind

sub await_error {
    my ($self, $pattern, $seen) = @_;

    LlmRedis::await("\"$pattern\" in the error log of $self->{nginx}{dir}",
                    sub { scalar(my @a = $self->errors($pattern))
                          > ($seen // 0) });
}


sub await_up {
    my ($self, $seen) = @_;

    $self->await_error(qr/llm redis: "shared" is up/, $seen);
}


# how often the log has said so

sub ups { return scalar $_[0]->errors(qr/llm redis: "shared" is up/) }

sub downs { return scalar $_[0]->errors(qr/llm redis: "shared" is down/) }


sub stop { return $_[0]{nginx}->stop }

sub faults { return $_[0]{nginx}->faults($_[1]) }


# of those that were started

sub count { return $Count }


# the name of a key's budget in Redis

sub name_of {
    my ($key) = @_;

    return 'llm:{shared:' . sha1_hex($key // 'k') . '}';
}


# tokens and requests that are used there; undef: none ever were

sub used {
    my ($redis, $key) = @_;
    my ($tokens, $requests) = @{$redis->call('HMGET', name_of($key),
                                             't', 'r')};

    return if !defined $tokens;

    my @used = ((unpack 'd<7', $tokens)[3],
                defined $requests ? (unpack 'd<4', $requests)[0] : 0);

    return wantarray ? @used : $used[0];
}


# charges that are open there; a lease starts at no time

sub charges {
    my ($redis, $key) = @_;
    my %fields = @{$redis->call('HGETALL', name_of($key))};

    return scalar grep { $_->[2] } map { [ unpack 'd<5', $fields{$_} ] }
                                  grep { length > 1 } keys %fields;
}


# asks until the server knows of so much

sub ask_until_used {
    my ($self, $redis, $tokens) = @_;

    LlmRedis::await('the server decides', sub {
        $self->ask(10);
        (used($redis) // 0) >= $tokens
    });
}


# awaits a number of tokens used: settling is not waited for by anybody

sub await_used {
    my ($redis, $tokens, $key) = @_;

    eval {
        LlmRedis::await('settled', sub {
            (used($redis, $key) // -1) == $tokens
        });
    };

    return used($redis, $key);
}


1;
