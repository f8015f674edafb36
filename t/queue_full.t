# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# The shared memory of llm_queue is full.  It holds some 30,000 requests; here
# two thousand upstreams with long names, which have queues too, leave little
# of it.

use strict;
use warnings;

use lib 't/lib';

use File::Path qw( remove_tree );

use LlmTest;
use LlmQueue;

# pages of memory that are left: 32 requests or keys in each

use constant { SPARE => 2, EACH => 32 };

my $Key = 'key=$http_x_key';
my $Free;

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000');
sim_start();

$Free = room();

nothing_left();
full();
of_another();

remove_tree($LlmQueue::Dir) if Test::More->builder->is_passing;


# the others, each of which takes a page

sub others {
    my ($count) = @_;
    my $server = 'server 127.0.0.1:' . sim_port(3) . ' max_conns=1;';

    return "upstream other { server 127.0.0.1:@{[ sim_port(2) ]} max_conns=2;"
           . " llm_least_inflight; llm_queue 9 $Key; }\n"
           . join '', map { "upstream f$_" . '-' x 1850 . " { $server "
                            . "llm_least_inflight; llm_queue 1; }\n" }
                      1 .. $count;
}


sub begin {
    my ($count) = @_;

    start(workers => 1, servers => [ 1 ], seats => 2,
          queue => "1000 timeout=20s $Key", http => others($count),
          server => 'location /other/ { proxy_pass http://other/; }');
}


sub no_queue {
    return scalar $LlmQueue::Nginx->logged(
        qr/\[error\].*zone "llm_queue" is full, upstream "f\d+-+" has no/);
}


# how many of them there is room for

sub room {
    my $count = 2048;

    begin($count);
    my $none = no_queue();

    cmp_ok($none, '>', 0, 'an upstream for whose queue there is no room has '
                          . 'none, and the log says so');
    end('no queue');

    return $count - $none;
}


# requests of as many keys, which wait or are rejected

sub ask_all {
    my ($from, $count) = @_;
    my $before = waiting();
    my (@clients, @full);

    for my $n ($from .. $from + $count - 1) {
        push @clients, ask($n, key => "key$n");
    }

    # one worker takes them in their order: once the last one was looked at ..

    await(sub {
        $_->pump for @clients;
        @full = grep { $_->{raw} =~ /\r\n\r\n/ } @clients;

        return waiting() - $before + @full == $count;
    });

    my %full = map { $_ => 1 } @full;

    return ([ grep { !$full{$_} } @clients ], \@full);
}


# not one page: nobody can stand there, whoever waits for it or not

sub nothing_left {
    begin($Free);
    is(no_queue(), 0, 'nothing left: all upstreams have a queue');

    my ($waiting, $full) = ask_all(1, 3);

    is(scalar(@$full), 3, 'with no memory left nobody can stand in it');
    is(join(' ', map { $_->status } @$full), '503 503 503', 'that is 503');

    end('nothing left');
}


sub full {
    my ($again, $full, $more, $waiting, @held, @lines);

    begin($Free - SPARE);
    @held = hold(2);

    ($waiting, $full) = ask_all(1, SPARE * EACH);

    cmp_ok(scalar(@$waiting), '>=', SPARE * EACH / 2 - 4,
           'full: as many wait as there is memory for');
    cmp_ok(scalar(@$full), '>=', SPARE * EACH / 4, 'all others do not');
    is(scalar(grep { $_->status != 503 } @$full), 0, 'they receive 503');

    LlmClient::await_end(@$full);
    like($full->[0]->header('Retry-After'), qr/^\d+$/, 'with Retry-After');
    like($full->[0]->body, qr/"error".*queue is full/, 'and JSON');
    is(scalar($LlmQueue::Nginx->logged(
           qr/\[error\].*llm queue: full, upstream "llm"/)), scalar(@$full),
       'the log says so');

    # one leaves, and one can come

    (shift @$waiting)->close;
    ok(await(sub {
        my ($in, $out) = ask_all(500, 1);

        push @$waiting, @$in;
        return @$in == 1;
    }), 'who leaves makes room');

    $_->close for @held;
    LlmClient::await_end(@$waiting);
    is(scalar(grep { $_->complete } @$waiting), scalar(@$waiting),
       'all that waited are served');

    # as many again, also with keys that nobody has had before

    @held = hold(2);
    ($again, $more) = ask_all(1000, SPARE * EACH);
    is(scalar(@$again), scalar(@$waiting), 'and then as many can wait again');

    $_->close for @held;
    LlmClient::await_end(@$again);
    is(scalar(grep { $_->complete } @$again), scalar(@$again),
       'and are served');

    @lines = grep { $_->{end} eq 'queue_full' }
             logged(2 * (SPARE * EACH + 2) + 1);
    cmp_ok(scalar(@lines), '>=', @$full + @$more, '$llm_end is queue_full');

    end('full');
}


# what one queue only remembers of its keys gives way to requests of others

sub of_another {
    my (@held, @status);

    begin($Free - SPARE);

    for my $n (1 .. SPARE * EACH + 10) {
        push @status, ask($n, key => "key$n")->finish->status;
    }

    is(scalar(grep { $_ != 200 } @status), 0,
       'another queue: keys that are remembered make room for others');

    for my $n (1 .. 2) {
        push @held, ask($n, path => '/other/v1/chat/completions',
                        key => "other$n", sim => $LlmQueue::Hold);
    }

    is(join(' ', map { $_->status } @held), '200 200',
       'of other upstreams, too');
    $_->close for @held;

    end('another queue');
}
