# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# What goes wrong at each stage of an exchange, in each dialect, streamed or
# not, over HTTP/1.1 and HTTP/2: the client gets an HTTP error, an error event
# or a broken transport, never a part that looks like the whole; the log tells
# the stages apart; and the charge is what was seen.  All of it at once, in one
# nginx.
# long: those that are silent wait for their clock

use strict;
use warnings;

use lib 't/lib';

use File::Path qw( remove_tree );
use JSON::PP;

use LlmTest;
use LlmClient;
use LlmNginx;

my $Dir = "$ENV{TEST_NGINX_SERVROOT}-stages";
my $Port = free_port(2);
my $PortH2 = $Port + 1;
my $Burst = 1e6;
my $Reserve = 100;

# a message, and how the API writes what went wrong

my @Chat = (messages => [ { role => 'user', content => 'hello' } ]);
my $Json = JSON::PP->new->canonical;

my $Event = qr/event: error\ndata: (\{"type":"error",.*\})\n\n\z/;

my %Dialects = (
    chat => { path => '/v1/chat/completions', body => { @Chat },
              event => $Event, error => sub { $_[0]{error}{message} } },
    completions => { path => '/v1/completions', body => { prompt => 'hello' },
                     event => $Event, error => sub { $_[0]{error}{message} } },
    responses => { path => '/v1/responses', body => { input => 'hello' },
                   event => qr/event: response\.failed\ndata: (.*)\n\n\z/,
                   error => sub { $_[0]{error}{message} } },
    anthropic => { path => '/v1/messages',
                   body => { @Chat, max_tokens => 50 }, event => $Event,
                   error => sub { $_[0]{type} eq 'error'
                                  && $_[0]{error}{type} } },
    gemini => { path => '/v1beta/models/m:', gemini => 1,
                body => { contents => [ { parts => [ { text => 'x' } ] } ] },
                event => qr/\n\ndata: (\{"error":.*\})\n\n\z/,
                error => sub { $_[0]{error}{code} } },
    ollama => { path => '/api/chat', body => { @Chat },
                event => qr/\n(\{"error":.*\})\n\z/,
                error => sub { !ref $_[0]{error} && $_[0]{error} } },
    generate => { path => '/api/generate', body => { prompt => 'hello' },
                  event => qr/\n(\{"error":.*\})\n\z/,
                  error => sub { !ref $_[0]{error} && $_[0]{error} } },
    ernie => { path => '/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/m',
               body => { @Chat },
               event => qr/\n\ndata: (\{"error_code":.*\})\n\n\z/,
               error => sub { $_[0]{error_code} && $_[0]{error_msg} } },
);

# upstream's own error event has the form of its API, or a simpler one

$Dialects{chat}{theirs} = $Dialects{completions}{theirs}
                        = qr/\n\ndata: (\{"error":.*\})\n\n\z/;
$Dialects{responses}{theirs} = qr/\n\nevent: error\ndata: (.*)\n\n/;

# stage, where, X-LLM-Sim, what the client gets, $llm_end, whether it is free

my @Streamed = (
    [ 'refused', 'refused', '', 502, 'upstream_error', 1 ],
    [ 'unauthorised', '', 'status=401', 401, 'upstream_error', 1 ],
    [ 'forbidden', '', 'status=403', 403, 'upstream_error', 1 ],
    [ 'limited', '', 'status=429; retry_after=7', 429, 'upstream_error', 1 ],
    [ 'limited in the stream', '', 'fault=error; status=429; retry_after=7',
      429, 'upstream_error', 1 ],
    [ 'reset before the header', '', 'fault=reset; at=header', 502,
      'upstream_error', 1 ],
    [ 'no header', '', 'fault=stall; at=header', 504, 'first_token_timeout',
      1 ],
    [ 'no content', '', 'fault=stall', 504, 'first_token_timeout', 1 ],
    [ 'no content, with pings', '', 'fault=comments', 504,
      'first_token_timeout', 1 ],
    [ 'an end before content', '', 'fault=end', 502, 'upstream_error', 1 ],
    [ 'silence', '', 'fault=stall; at=3', 'ours', 'idle_timeout', 0 ],
    [ 'an end', '', 'fault=end; at=3', 'ours', 'upstream_truncated', 0 ],
    [ 'a close', '', 'fault=close; at=3', 'ours', 'upstream_truncated', 0 ],
    [ 'half an event', '', 'fault=midevent; at=3', 'ours',
      'upstream_truncated', 0 ],
    [ 'bad chunks', '', 'fault=badchunk; at=3', 'ours', 'upstream_truncated',
      0 ],
    [ 'too long', 'total', 'tokens=40; itl=200', 'ours', 'total_timeout', 0 ],
    [ 'an error', '', 'fault=error; at=3', 'theirs', 'upstream_error', 0 ],
    [ 'an error, then silence', '', 'fault=error-stay; at=3', 'theirs',
      'upstream_error', 0 ],
    [ 'a filter', '', 'fault=filter; at=3', 200, 'content_filter', 0 ],
    [ 'a filter first', '', 'fault=filter', 200, 'content_filter', undef ],
    [ 'nothing', '', '', 200, 'done', 0 ],
);

my @Whole = (
    [ 'refused', 'refused', '', 502, 'upstream_error', 1 ],
    [ 'unauthorised', '', 'status=401', 401, 'upstream_error', 1 ],
    [ 'limited', '', 'status=429; retry_after=7', 429, 'upstream_error', 1 ],
    [ 'an error', '', 'fault=error', 500, 'upstream_error', 1 ],
    [ 'reset before the header', '', 'fault=reset; at=header', 502,
      'upstream_error', 1 ],
    [ 'no header', 'total', 'fault=stall; at=header', 504, 'total_timeout',
      1 ],
    [ 'cut off', '', 'fault=midevent; at=3', 'broken', 'upstream_truncated',
      0 ],
    [ 'a filter', '', 'fault=filter; at=3', 200, 'content_filter', 0 ],
    [ 'nothing', '', '', 200, 'done', 0 ],
);

# Ollama has no filter, and names no status in its errors

my %Ends = map { +"$_ a filter" => 'done', "$_ a filter first" => 'done' }
               qw( ollama generate );

my %Gets = map { +"$_ limited in the stream" => 502 } qw( ollama generate );

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000',
            '--batch', '512');
sim_start();

stages('HTTP/1.1', \&ask);
stages('HTTP/2', \&ask_h2);

remove_tree($Dir) if Test::More->builder->is_passing;


sub stages {
    my ($http, $ask) = @_;
    my ($nginx, @cases, %logged);

    sim_reset();

    $nginx = LlmNginx->start(binary => nginx(), module => module(),
                             dir => $Dir, main => 'worker_processes 2;',
                             http => http());

    for my $name (sort keys %Dialects) {
        push @cases, map { request($http, $name, 1, @$_) } @Streamed;
        push @cases, map { request($http, $name, 0, @$_) } @Whole;
    }

    $cases[$_]{id} = $_ for 0 .. $#cases;
    $ask->(@cases);

    %logged = logged(scalar @cases);

    for my $case (@cases) {
        answer($case);
        is($logged{$case->{id}}, $Ends{$case->{short}} // $case->{end},
           "$case->{name}: its end");
    }

    charges(@cases);

    is(sim_await(inflight => 0)->{inflight}, 0,
       "$http: nothing goes on unheard");
    is_deeply([ $nginx->faults ], [], "$http: no faults logged");

    $nginx->stop;
}


sub request {
    my ($http, $name, $stream, $stage, $where, $sim, $gets, $end, $free) = @_;
    my $dialect = $Dialects{$name};
    my ($body, $path);

    $body = { %{$dialect->{body}} };
    $path = $dialect->{path};

    if ($dialect->{gemini}) {
        $path .= $stream ? 'streamGenerateContent?alt=sse&'
                         : 'generateContent?';

    } else {
        $body->{model} = 'm';
        $body->{stream} = $stream ? JSON::PP::true : JSON::PP::false;
        $path .= '?';
    }

    return { dialect => $name, short => "$name $stage",
             gets => $Gets{"$name $stage"} // $gets, end => $end,
             free => $free, sim => "tokens=9; $sim",
             body => $Json->encode($body),
             path => ($where ? "/$where" : '') . $path,
             name => "$http: $name: " . ($stream ? '' : 'not streamed: ')
                     . $stage };
}


# sets the answer: {head}, {body}, and whether it came to a clean end

sub ask {
    my (@cases) = @_;

    for my $case (@cases) {
        $case->{client} = LlmClient->open($Port, sim => $case->{sim},
                                          body => $case->{body},
                                          path => "$case->{path}id=$case->{id}",
                                          headers => {
                                          Authorization => $case->{id} });
    }

    LlmClient::await_end(map { $_->{client} } @cases);

    for my $case (@cases) {
        ($case->{head}, $case->{body}) = split /\r\n\r\n/,
                                               $case->{client}{raw}, 2;
        $case->{clean} = 1;

        if ($case->{head} =~ /^Transfer-Encoding: chunked/mi) {
            $case->{clean} = $case->{body} =~ /\r\n0\r\n\r\n\z/;
            $case->{body} = unchunked($case->{body});

        } elsif ($case->{head} =~ /^Content-Length: (\d+)/mi) {
            $case->{clean} = length $case->{body} == $1;
        }
    }
}


sub unchunked {
    my ($in) = @_;
    my ($body, $size) = ('');

    while ($in =~ s/^([0-9a-f]+)\r\n//) {
        $size = hex $1 or last;
        $body .= substr $in, 0, $size, '';
        $in =~ s/^\r\n//;
    }

    return $body;
}


# by curl, a connection for each: curl 7.88 cannot use one again that it knows
# to be HTTP/2 beforehand

sub ask_h2 {
    my (@cases) = @_;
    my %exit;

    open my $config, '>', "$Dir/curl" or die "curl: $!\n";
    print $config join "next\n", map { curl($_) } @cases;
    close $config;

    %exit = split ' ', `curl -s --no-progress-meter -Z -K $Dir/curl`;

    for my $case (@cases) {
        $case->{head} = content("$Dir/answer.$case->{id}.head");
        $case->{body} = content("$Dir/answer.$case->{id}");
        $case->{clean} = ($exit{$case->{id}} // '-') eq '0';
    }
}


sub curl {
    my ($case) = @_;
    my ($body, $file) = ($case->{body}, "$Dir/answer.$case->{id}");

    $body =~ s/"/\\"/g;

    return <<"END";
url = "http://$case->{id}.test:$PortH2$case->{path}id=$case->{id}"
connect-to = "::127.0.0.1:$PortH2"
http2-prior-knowledge
header = "Authorization: $case->{id}"
header = "Content-Type: application/json"
header = "X-LLM-Sim: $case->{sim}"
data = "$body"
dump-header = "$file.head"
output = "$file"
write-out = "$case->{id} %{exitcode}\\n"
END
}


sub content {
    my ($file) = @_;

    open my $in, '<', $file or return '';
    local $/;

    return <$in> // '';
}


# exactly one of the four

sub answer {
    my ($case) = @_;
    my ($name, $body) = ($case->{name}, $case->{body});
    my $dialect = $Dialects{$case->{dialect}};
    my ($error, $event, $status);

    if ($case->{gets} eq 'broken') {
        ok(!$case->{clean}, "$name: the transport broke off");
        return;
    }

    $status = $case->{gets} =~ /^\d/ ? $case->{gets} : 200;
    is($case->{head} =~ m{^HTTP/\S+ (\d+)} ? $1 : 0, $status,
       "$name: status");

    ok($case->{clean}, "$name: a clean end");

    if ($status == 200 && $case->{gets} eq '200') {
        unlike($body, $dialect->{event}, "$name: no error");
        return;
    }

    if ($status == 200) {
        $event = $dialect->{$case->{gets}} // $dialect->{event};
        ($error) = $body =~ $event;

    } else {
        like($case->{head}, qr{^Content-Type: application/json}mi,
             "$name: JSON");
        $error = $body;
    }

    $error = eval { $Json->decode($error // '') } // {};
    ok($dialect->{error}->($error), "$name: an error of the API");

    if ($status == 429) {
        like($case->{head}, qr/^Retry-After: 7\r?$/mi, "$name: Retry-After");
        like($case->{head}, qr/^x-ratelimit-limit-tokens: 10000\r?$/mi,
             "$name: the provider's limit");
    }
}


# each has a budget of its own, and asks once more to see what is left of it

sub charges {
    my (@cases) = @_;
    my ($paid);

    for my $case (@cases) {
        $case->{again} = LlmClient->open($Port, sim => 'tokens=1', headers => {
                                         Authorization => $case->{id} });
    }

    LlmClient::await_end(map { $_->{again} } @cases);

    for my $case (@cases) {
        $paid = $Burst - $Reserve
                - $case->{again}->header('x-ratelimit-remaining-tokens');

        if (!defined $case->{free}) {
            cmp_ok($paid, '<=', 9, "$case->{name}: not more than was said");

        } elsif ($case->{free}) {
            is($paid, 0, "$case->{name}: costs nothing");

        } else {
            cmp_ok($paid, '>', 0, "$case->{name}: costs what was said");
        }
    }
}


sub http {
    my $sim = 'proxy_pass http://127.0.0.1:' . sim_port(1);

    return <<"END";
    log_format llm '\$arg_id \$llm_end';
    llm_limit_zone \$http_authorization zone=t:8m tokens=1k/d burst=1M
                   count=completion;

    server {
        listen 127.0.0.1:$Port;
        listen 127.0.0.1:$PortH2 http2;

        llm_stream on;
        llm_limit zone=t reserve=$Reserve;
        llm_first_token_timeout 2s;
        llm_idle_timeout 2s;
        access_log logs/llm.log llm;
        proxy_http_version 1.1;
        proxy_set_header Connection "";

        location / {
            $sim;
        }

        location /refused/ {
            proxy_pass http://127.0.0.1:$ENV{TEST_NGINX_CLOSED_PORT}/;
        }

        location /total/ {
            llm_total_timeout 1500ms;
            $sim/;
        }
    }
END
}


sub logged {
    my ($count) = @_;
    my @lines;

    LlmNginx::true_in_time(sub {
        open my $in, '<', "$Dir/logs/llm.log" or die "llm.log: $!\n";
        @lines = <$in>;

        return @lines >= $count;
    });

    return map { split } @lines;
}
