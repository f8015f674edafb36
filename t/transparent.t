# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# What nothing is added to reaches the client byte for byte, and each event
# when it comes.  "live" is done while nginx runs, with the same requests
# through it and to the simulated server itself.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;
use LlmClient;
use LlmStall;

use Digest::SHA;
use HTTP::Tiny;
use List::Util;

my $Body = '{"model":"sim","stream":true,"stream_options":'
           . '{"include_usage":true},"max_tokens":200000,"messages":'
           . '[{"role":"user","content":"hello"}]}';

workers(1);

run_tests();


# the bytes of a stream

sub get {
    my ($port, $sim) = @_;
    my ($blank, $carry, $end, $events, $sha, $res);

    ($carry, $events, $sha) = ('', 0, Digest::SHA->new(256));
    $blank = $sim =~ /eol=crlf/ ? "\r\n\r\n" : "\n\n";

    $res = HTTP::Tiny->new->request('POST',
        "http://127.0.0.1:$port/v1/chat/completions", {
            headers => { 'Content-Type' => 'application/json',
                         'X-LLM-Sim' => $sim },
            content => $Body,
            data_callback => sub {
                $carry .= $_[0];

                # an id and a time differ from answer to answer

                while (($end = index $carry, $blank) >= 0) {
                    my $event = substr $carry, 0, $end + length $blank, '';
                    $event =~ s/"id":"chatcmpl-[0-9a-f]{16}"/"id":""/;
                    $event =~ s/"created":\d{10},/"created":,/;
                    $sha->add($event);
                    $events++;
                }
            },
        });

    $sha->add($carry);

    return { status => $res->{status}, events => $events,
             sha => $sha->hexdigest };
}


sub same {
    my ($name, $sim, $at_least) = @_;
    my ($direct, $through);

    $direct = get(sim_port(1), $sim);
    $through = get($ENV{TEST_NGINX_SERVER_PORT}, $sim);

    is($through->{status}, 200, "$name - status");
    cmp_ok($direct->{events}, '>=', $at_least, "$name - so many events");
    is($through->{events}, $direct->{events}, "$name - events");
    is($through->{sha}, $direct->{sha}, "$name - bytes");
}


# by how much each event was later than that of a stream without nginx, which
# has begun right before and is read beside it

sub late {
    my ($sim) = @_;
    my ($direct, $look, $through, @late, @marks);

    LlmStall::start();

    ($direct, $through) = map { LlmClient->open($_, sim => $sim,
                                                body => $Body) }
                              sim_port(1), $ENV{TEST_NGINX_SERVER_PORT};

    $look = sub {
        push @marks, LlmStall::mark() while @marks < events($direct);
        push @late, @late < @marks ? LlmStall::since($marks[@late]) : 0
            while @late < events($through);

        return 1;
    };

    LlmClient::await($look, $direct, $through);
    $look->();

    return @late;
}


sub events {
    my ($client) = @_;

    return scalar(() = $client->{raw} =~ /^data: /mg);
}

__DATA__

=== TEST 1: 100,000 events are byte-identical
--- location
--- request
GET /v1/models
--- live eval
sub { main::same($_[0], 'tokens=100000; itl=0', 100000) }



=== TEST 2: .. in pieces that split events anywhere
--- location
--- request
GET /v1/models
--- live eval
sub { main::same($_[0], 'tokens=20000; itl=0; split=1447', 20000) }



=== TEST 3: .. with CRLF and a BOM
--- location
--- request
GET /v1/models
--- live eval
sub { main::same($_[0], 'tokens=5000; itl=0; eol=crlf; bom=1; split=61',
                 5000) }



=== TEST 4: .. and events of 100 KB
--- location
--- request
GET /v1/models
--- live eval
sub { main::same($_[0], 'tokens=50; itl=0; words=100000', 50) }



=== TEST 5: .. and events of 1.5 MB, which is over what is read
--- location
--- request
GET /v1/models
--- live eval
sub { main::same($_[0], 'tokens=2; itl=0; words=1500000', 2) }



=== TEST 6: no event waits for the next
--- location
--- request
GET /v1/models
--- live eval
sub {
    my ($name) = @_;
    my @late = main::late('tokens=8; itl=300');

    main::cmp_ok(scalar @late, '>', 8, "$name - all of them");
    main::cmp_ok(List::Util::max(@late), '<', 0.15,
                 "$name - each event when the server sent it");
}
