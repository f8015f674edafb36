# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# What the limits' directives refuse, those with one value of a kind, and what
# they say: each configuration is tested with nginx -t.

use strict;
use warnings;

use lib 't/lib';

use File::Path qw( make_path remove_tree );

use LlmTest;

our $Port = free_port(1);
our $Dir = "$ENV{TEST_NGINX_SERVROOT}-conf";

my $Zone = 'llm_limit_zone $http_authorization';

my @Good = (
    "$Zone zone=t:32k tokens=1/s;",
    "$Zone zone=t:32k requests=1/d;",
    "$Zone zone=t:1m tokens=100k/m burst=50k requests=600/h requests_burst=6;",
    "$Zone zone=t:1m tokens=off requests=0;",
    "$Zone zone=t:1m tokens=\$arg_rate burst=\$arg_burst requests=5\$arg_r;",
    "$Zone zone=t:1m tokens=1G/m count=total prompt=1 cached=0.1 "
        . 'completion=4.125 reasoning=0;',
    "$Zone zone=t:1m tokens=1/m count=prompt prompt=2 cached=0;",
    "$Zone zone=t:1m tokens=1/m count=completion completion=2;",
    "server { llm_limit zone=t; } $Zone zone=t:1m tokens=1/m;",
    "$Zone zone=t:1m tokens=1/m; $Zone zone=u:1m tokens=1/m;"
        . 'llm_limit zone=t; llm_limit zone=u reserve=max; server {'
        . 'llm_limit zone=t reserve=auto; location / {'
        . 'llm_limit zone=t reserve=4k wait=500ms overrun=finish; } }',
    'llm_limit_status 400; server { llm_limit_status 599; }',
    'llm_media_tokens image=1600; server { llm_media_tokens audio=0 '
        . 'image=1000000; location / { llm_media_tokens audio=9; } }',
    'llm_limit_log_level info; llm_limit_dry_run on; llm_limit_headers off;',
);

my @Bad = (
    "$Zone tokens=1/m;"
        => 'must have "zone" parameter',
    "$Zone zone=t:1m;"
        => 'must have "tokens" or "requests" parameter',
    "$Zone zone=t tokens=1/m;"
        => 'invalid value "zone=t" in llm_limit_zone, allowed is name:size',
    "$Zone zone=:1m tokens=1/m;"
        => 'invalid value "zone=:1m"',
    "$Zone zone=t:16k tokens=1/m;"
        => 'invalid value "zone=t:16k" in llm_limit_zone, allowed is '
           . 'name:size with a size of at least 32k',
    "$Zone zone=t:big tokens=1/m;"
        => 'invalid value "zone=t:big"',
    "$Zone zone=t:1m tokens=1;"
        => 'invalid value "tokens=1" in llm_limit_zone, allowed is a number',
    "$Zone zone=t:1m tokens=-1/m;"
        => 'invalid value "tokens=-1/m"',
    "$Zone zone=t:1m tokens=1.5/m;"
        => 'invalid value "tokens=1.5/m"',
    "$Zone zone=t:1m requests=1/w;"
        => 'invalid value "requests=1/w"',
    "$Zone zone=t:1m requests=2000G/s;"
        => 'invalid value "requests=2000G/s"',
    "$Zone zone=t:1m tokens=1/m burst=0;"
        => 'invalid value "burst=0" in llm_limit_zone, allowed is a number '
           . 'above 0',
    "$Zone zone=t:1m tokens=1/d burst=100k;"
        => 'invalid value "burst=100000" in llm_limit_zone, allowed is what '
           . 'the rate gives in 146 years, 53375',
    "$Zone zone=t:1m requests=1/d requests_burst=53376;"
        => 'invalid value "requests_burst=53376" in llm_limit_zone',
    "$Zone zone=t:1m tokens=1/m burst=1/m;"
        => 'invalid value "burst=1/m"',
    "$Zone zone=t:1m requests=1/m burst=1;"
        => 'has "burst" parameter without "tokens"',
    "$Zone zone=t:1m tokens=1/m requests_burst=1;"
        => 'has "requests_burst" parameter without "requests"',
    "$Zone zone=t:1m tokens=1/m count=all;"
        => 'invalid value "count=all" in llm_limit_zone, allowed is total, '
           . 'prompt or completion',
    "$Zone zone=t:1m tokens=1/m cached=0.0001;"
        => 'invalid value "cached=0.0001"',
    "$Zone zone=t:1m tokens=1/m prompt=-1;"
        => 'invalid value "prompt=-1"',
    "$Zone zone=t:1m tokens=1/m count=prompt completion=1;"
        => 'counts prompt tokens only',
    "$Zone zone=t:1m tokens=1/m count=completion cached=1;"
        => 'counts completion tokens only',
    "$Zone zone=t:1m tokens=1/m tokens=2/m;"
        => 'duplicate parameter "tokens=2/m" in llm_limit_zone',
    "$Zone zone=t:1m tokens=1/m redis=x;"
        => 'unknown "redis=x" of llm_limit_zone "t"',
    "$Zone zone=t:1m tokens=1/m redis=;"
        => 'invalid value "redis=" in llm_limit_zone',
    "llm_redis r redis://127.0.0.1; $Zone 'zone=t{}:1m' tokens=1/m redis=r;"
        => 'invalid name "t{}" of an llm_limit_zone with "redis"',
    'llm_redis r redis://127.0.0.1; llm_redis r redis://127.0.0.1;'
        => 'duplicate llm_redis "r"',
    'llm_redis r http://127.0.0.1;'
        => 'invalid address of "r" in llm_redis, allowed is redis://',
    'llm_redis r redis://:secret@redis.example;'
        => 'invalid address of "r" in llm_redis, allowed is numeric',
    'llm_redis r redis://secret@127.0.0.1;'
        => 'invalid address of "r" in llm_redis, allowed is user:password',
    'llm_redis r redis://127.0.0.1/x;'
        => 'invalid address of "r" in llm_redis, allowed is a number',
    'llm_redis r redis://127.0.0.1?ca=/etc/hosts;'
        => 'invalid address of "r" in llm_redis, allowed is ?ca=file with '
           . 'rediss://',
    'llm_redis r unix:/run/redis.sock?ca=/etc/hosts;'
        => 'invalid address of "r" in llm_redis, allowed is ?ca=file with '
           . 'rediss://',
    'llm_redis r unix:;'
        => 'invalid address of "r" in llm_redis, allowed is unix:path',
    'llm_redis r redis://127.0.0.1 redis://user:secret@127.0.0.2;'
        => 'invalid value "redis://" in llm_redis, allowed is timeout=',
    'llm_redis r redis://127.0.0.1 timeout=1s fallback=open timeout=2s;'
        => 'duplicate parameter "timeout=2s" in llm_redis',
    'llm_redis r redis://127.0.0.1 fallback=open fallback=local;'
        => 'duplicate parameter "fallback=local" in llm_redis',
    'llm_redis r redis://127.0.0.1 timeout=0;'
        => 'invalid value "timeout=0" in llm_redis, allowed is a time',
    'llm_redis r redis://127.0.0.1 fallback=none;'
        => 'invalid value "fallback=none" in llm_redis, allowed is timeout=',
    'llm_redis r redis://127.0.0.1 "prefix=a{b";'
        => 'invalid value "prefix=a{b" in llm_redis, allowed is up to 128',
    'llm_redis r redis://127.0.0.1 script=/nowhere.lua;'
        => '"/nowhere.lua" failed',
    "$Zone zone=t:1m tokens=1/m lease=5%;"
        => '"llm_limit_zone" has "lease" parameter without "redis"',
    "$Zone zone=t:1m tokens=1/m redis=r lease=60%;"
        => 'invalid value "lease=60%" in llm_limit_zone, allowed is 1% to 50%',
    "$Zone zone=t:1m tokens=\$nobody_knows;"
        => 'unknown "nobody_knows" variable',
    "$Zone zone=t:1m tokens=1/m; llm_limit_zone \$uri zone=t:1m tokens=1/m;"
        => 'llm_limit_zone "t" is already bound to key "$http_authorization"',
    "$Zone zone=t:1m tokens=1/m; limit_req_zone \$uri zone=t:1m rate=1r/s;"
        => 'the shared memory zone "t" is already declared for a different',
    'server { llm_limit zone=t; }'
        => 'unknown zone "t" in llm_limit',
    'llm_limit zone=t; server { }'
        => 'unknown zone "t" in llm_limit',
    "$Zone zone=t:1m tokens=1/m; llm_limit zone=t; llm_limit zone=t;"
        => '"llm_limit" is duplicate for zone "t"',
    'llm_limit reserve=max;'
        => '"llm_limit" must have "zone" parameter',
    'llm_limit zone=;'
        => 'invalid parameter "zone=" in llm_limit',
    'llm_limit zone=t wait=soon;'
        => 'invalid value "wait=soon" in llm_limit, allowed is a time, such '
           . 'as 500ms, 20s or 2m',
    'llm_limit zone=t wait=;'
        => 'invalid value "wait=" in llm_limit, allowed is a time',
    'llm_limit zone=t wait=-1s;'
        => 'invalid value "wait=-1s" in llm_limit, allowed is a time',
    'llm_limit zone=t overrun=stop;'
        => 'invalid value "overrun=stop" in llm_limit, allowed is finish, '
           . 'cut or pace',
    'llm_limit zone=t reserve=most;'
        => 'invalid value "reserve=most" in llm_limit, allowed is max, auto '
           . 'or a number',
    "$Zone zone=t:32k tokens=1/m; $Zone zone=u:32k tokens=1/m; "
        . 'llm_limit zone=t zone=u;'
        => 'duplicate parameter "zone=u" in llm_limit',
    "$Zone zone=t:32k tokens=1/m; llm_limit wait=1s zone=t wait=2s;"
        => 'duplicate parameter "wait=2s" in llm_limit',
    join('', map { "$Zone zone=t$_:32k tokens=1/m;" } 1 .. 9)
        . join('', map { "llm_limit zone=t$_;" } 1 .. 9)
        => 'more than 8 "llm_limit" in one place',
    'llm_limit_status 399;'
        => 'invalid value "399" in llm_limit_status, allowed is 400 to 599',
    'llm_limit_status 600;'
        => 'invalid value "600" in llm_limit_status, allowed is 400 to 599',
    'llm_media_tokens video=9;'
        => 'invalid value "video=9" in "llm_media_tokens", allowed are '
           . 'image=number and audio=number, once each, of 0 to 1000000 tokens',
    'llm_media_tokens image=;'
        => 'invalid value "image=" in "llm_media_tokens", allowed are',
    'llm_media_tokens audio=-1;'
        => 'invalid value "audio=-1" in "llm_media_tokens", allowed are',
    'llm_media_tokens image=1k;'
        => 'invalid value "image=1k" in "llm_media_tokens", allowed are',
    'llm_media_tokens image=1000001;'
        => 'invalid value "image=1000001" in "llm_media_tokens"',
    'llm_media_tokens image=1 image=2;'
        => 'invalid value "image=2" in "llm_media_tokens", allowed are',
    'llm_media_tokens image=0; llm_media_tokens audio=2;'
        => '"llm_media_tokens" directive is duplicate',
    'llm_limit_status many;'
        => 'invalid value "many" in llm_limit_status, allowed is 400 to 599',
    'llm_limit_status 429; llm_limit_status 429;'
        => '"llm_limit_status" directive is duplicate',
    'llm_limit_log_level debug;'
        => 'invalid value "debug" in "llm_limit_log_level", allowed are '
           . 'info, notice, warn, error',
    'llm_dialect grpc;'
        => 'invalid value "grpc" in "llm_dialect", allowed are auto, openai, '
           . 'anthropic, gemini, ollama, ernie, cohere',
    'llm_dialect auto; llm_dialect auto;'
        => '"llm_dialect" directive is duplicate',
    'llm_on_abort wait;'
        => 'invalid value "wait" in "llm_on_abort", allowed are close, drain',
    ( map { ( "$_ soon;"
                  => qq{invalid value "soon" in "$_", allowed is a time},
              "$_ 1s; $_ 1s;"
                  => qq{"$_" directive is duplicate} ) }
          qw( llm_first_token_timeout llm_idle_timeout llm_total_timeout ) ),
    'llm_body_max much;'
        => 'invalid value "much" in "llm_body_max", allowed is a size',
    'llm_body_max 1m; llm_body_max 1m;'
        => '"llm_body_max" directive is duplicate',
);

make_path("$Dir/logs");

for my $conf (@Good) {
    unlike(nginx_says($conf), qr/emerg|alert|failed/, "accepted: $conf");
}

while (my ($conf, $error) = splice @Bad, 0, 2) {
    like(nginx_says($conf), qr/\[emerg\] .*\Q$error\E/, "refused: $conf");
}

remove_tree($Dir) if Test::More->builder->is_passing;


sub nginx_says {
    my ($http) = @_;

    # nginx -t binds to what a server listens on

    $http =~ s/server \{/server { listen 127.0.0.1:$Port;/g;

    open my $conf, '>', "$Dir/nginx.conf" or die "nginx.conf: $!\n";

    print $conf <<"END";
load_module @{[ module() ]};
pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path temp;
    proxy_temp_path temp;
    fastcgi_temp_path temp;
    uwsgi_temp_path temp;
    scgi_temp_path temp;

    server { listen 127.0.0.1:$Port; }

    $http
}
END

    close $conf;

    open my $says, '-|', nginx() . " -t -p '$Dir/' -c nginx.conf "
                         . "-e stderr 2>&1"
        or die "nginx: $!\n";

    return join '', <$says>;
}
