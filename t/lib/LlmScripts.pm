# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmScripts;

# The scripts of src/redis in every server that is there, without nginx.
#
# Time is an argument here: a line put before a script answers its TIME from
# what the test says.
#
#     each_server(sub { fresh(); reserve('id', ...) });

use strict;
use warnings;

use Exporter qw( import );
use LlmRedis;
use Math::BigInt;
use Test::More;

our @EXPORT = qw( ask each_server failed fresh full lease num reserve settle
                  $Keep $Key $Now $Redis $Since );

our ($Redis, $Now, $Since, $Key);

# milliseconds that a charge lives
our $Keep = 60000;

my $Build = $ENV{TEST_LLM_BUILD} || 'build';
my $Start = 1_790_000_000 * 1000 * 1000;

# TIME is what ARGV[17] says

my $Clock = <<'EOF';
local redis = { call = function(command, ...)
  if command ~= 'TIME' then return redis.call(command, ...) end
  local us = tonumber(ARGV[17])
  return { string.format('%.0f', math.floor(us / 1e6)),
           string.format('%.0f', math.fmod(us, 1e6)) }
end }
EOF


sub each_server {
    my ($run) = @_;

    for my $server (LlmRedis::servers()) {
        $Redis = LlmRedis->start(server => $server,
                                 dir => "$Build/servroot/$server-$$");

        note($Redis->call('INFO', 'server')
             =~ /((?:redis|valkey)_version:\S+)/);

        $run->();
        $Redis->stop;
    }
}


# a budget: rate, period in seconds, burst, cost

sub fresh {
    $Key = 'llm:{zone:' . sprintf('%040x', ++$Redis->{count}) . '}';
    $Now = $Start;
    $Since = -1;
}


sub ask {
    my ($script, $id, $args, %options) = @_;

    $args->[$_] //= '' for 0 .. 14;

    return $Redis->run($script,
                       [ $Key, $options{policy} ? "$Key:policy" : () ],
                       [ $id, @$args, $Now ], prefix => $Clock, %options);
}


sub reserve {
    my ($id, $wait, $tokens, $requests, %options) = @_;

    return ask('reserve', $id,
               [ $Keep, $wait, @$tokens, @{$requests // [ 0, 1, 0, 0 ]},
                 $Since, 'f00d', 'sim', 33, 'zone' ], %options);
}


sub settle {
    my ($id, $mode, $tokens, $requests) = @_;

    return ask('settle', $id, [ $Keep, $mode, @$tokens,
                                @{$requests // [ 0, 1, 0, 0 ]}, $Since ]);
}


sub lease {
    my ($id, $tokens, $requests, @debt) = @_;

    return ask('lease', $id, [ 10000, 0, @$tokens, @$requests, $Since,
                               @debt ]);
}


sub failed {
    my ($id, $tokens, %options) = @_;

    return eval { reserve($id, 0, $tokens, undef, %options); 1 }
           ? 'it did not fail' : $@;
}


sub num { return sprintf '%.0f', $_[0] }


# rounded up

sub full {
    my ($units, $rate) = @_;

    return scalar $units->copy->badd($rate)->bsub(1)->bdiv($rate);
}


1;
