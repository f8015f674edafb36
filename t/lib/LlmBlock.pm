# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmBlock;

# Short blocks for one request through one location to llm-sim.  After
# "use LlmTest; use LlmBlock;" a block may have
#
#     --- location          directives of the location, besides llm_stream on
#                           and proxy_pass to the first simulated server
#     --- upstream          what an upstream block has, which takes the place
#                           of the first simulated server
#     --- sim               the X-LLM-Sim header: times and faults
#     --- path              default: /v1/chat/completions
#     --- body              default: a small chat request that streams
#     --- live eval         sub { .. }, called with the block's name while
#                           nginx runs, behind the request
#     --- log               NAME: VALUE lines, $llm_NAME (or $NAME) as logged
#                           for the last request, awaited; a VALUE /between
#                           slashes/ is a pattern, "-" is no value
#
# and all that Test::Nginx::Socket has besides.

use strict;
use warnings;

use File::Spec;
use Test::More ();
use Test::Nginx::Util ();
use Time::HiRes qw( sleep time );

our $Body = '{"model":"sim","stream":true,"messages":'
            . '[{"role":"user","content":"hello"}]}';

our @Variables = qw( end usage_source prompt_tokens cached_tokens
                     completion_tokens reasoning_tokens total_tokens
                     estimated_tokens reserved_tokens model served_model
                     is_stream dialect events finish_reason
                     first_token_time token_time id prefix limit_status
                     limit_zone limit_wait inflight );

my $Log;


sub import {
    Test::Nginx::Socket::add_block_preprocessor(\&prepare);
    Test::Nginx::Socket::add_response_body_check(\&check);
}


# added in front of LlmTest's own, which then sees what was made here

sub prepare {
    my ($block) = @_;
    my ($body, $format, $headers, $path, $sim, $to, $upstream);

    return if !defined $block->location;

    $format = join ' ', map { "$_=\$llm_$_" } @Variables;
    $Log = "$ENV{TEST_NGINX_SERVROOT}/logs/llm.log";
    unlink $Log;

    $block->set_value('http_config', ($block->http_config // '')
        . "log_format llm '$format status=\$status';\n");

    $to = '127.0.0.1:$TEST_NGINX_SIM_PORT_1';
    $upstream = $block->upstream;

    if (defined $upstream) {
        $to = 'llm';
        $block->set_value('http_config', $block->http_config
                          . "upstream llm {\n$upstream}\n");
    }

    # "location /" is Test::Nginx's own

    $block->set_value('config', ($block->config // '') . <<"END");
        location ~ ^/(?:v1|v1beta|api|rpc)/ {
            llm_stream on;
            @{[ $block->location ]}
            access_log $Log llm;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://$to;
        }
END

    return if defined $block->request || defined $block->must_die;

    $path = one_line($block->path // '/v1/chat/completions');
    $body = $block->body // $Body;
    $sim = one_line($block->sim // 'tokens=4');
    $headers = $block->more_headers // '';

    $block->set_value('request', "POST $path\n$body");
    $block->set_value('more_headers', "X-LLM-Sim: $sim\n"
                      . "Content-Type: application/json\n$headers");
}


sub one_line {
    my ($text) = @_;

    $text =~ s/\s+\z//;
    $text =~ s/\s*\n\s*/ /g;

    return $text;
}


sub check {
    my ($block, $body, $req_idx, $repeated_req_idx, $dry_run) = @_;

    return if $dry_run;

    $block->live->($block->name) if defined $block->live;
    check_log($block) if defined $block->log;
}


sub check_log {
    my ($block) = @_;
    my ($deadline, @wants, %got);

    for my $pair (grep { /\S/ } split /\n/, $block->log) {
        my ($name, $want) = $pair =~ /^(\w+):\s*(.*?)\s*$/
            or die "log: not NAME: VALUE: $pair\n";

        $want = $want =~ m{^/(.*)/$} ? qr/^(?:$1)$/ : qr/^\Q$want\E$/;
        push @wants, [ $name, $want ];
    }

    # of several requests, the last one's line may come behind the others

    $deadline = time + 10;

    do {
        sleep 0.02;
        %got = map { /^(\w+)=(.*)$/ } split / /, last_line() // '';
    } while (time < $deadline
             && grep { ($got{$_->[0]} // '') !~ $_->[1] } @wants);

    for (@wants) {
        my ($name, $want) = @$_;

        Test::More::like($got{$name}, $want, $block->name . " - log $name");
    }
}


sub last_line {
    my (@lines, $fh);

    open $fh, '<', $Log or return;
    @lines = <$fh>;
    close $fh;

    return if !@lines || $lines[-1] !~ /\n\z/;

    chomp $lines[-1];

    return $lines[-1];
}


1;
