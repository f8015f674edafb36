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

our @EXPORT = qw( ask each_server failed fresh full lease num numbers reserve
                  settle state $Keep $Key $Now $Redis $Since );

our ($Redis, $Now, $Since, $Key);

# milliseconds that a charge lives
our $Keep = 60000;

my $Build = $ENV{TEST_LLM_BUILD} || 'build';
my $Start = 1_790_000_000 * 1000 * 1000;

# TIME is what the last argument says

my $Clock = <<'EOF';
local redis = { call = function(command, ...)
  if command ~= 'TIME' then return redis.call(command, ...) end
  local us = tonumber(ARGV[#ARGV])
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


# what all scripts are given: see src/redis/bucket.lua.  A budget that is not
# named does not apply.

sub numbers {
    my ($keep_ms, $since, $tokens, $requests, @own) = @_;

    return pack 'd<12', $keep_ms, $since, @$tokens,
                        @{$requests // [ 0, 1, 0, 0 ]}, @own, 0, 0;
}


# facts are for a policy

sub ask {
    my ($script, $id, $numbers, $facts, %options) = @_;

    return $Redis->run($script,
                       [ $Key, $options{policy} ? "$Key:policy" : () ],
                       [ $id, $numbers, @{$facts // []}, $Now ],
                       prefix => $Clock, %options);
}


sub reserve {
    my ($id, $wait, $tokens, $requests, %options) = @_;

    return ask('reserve', $id,
               numbers($Keep, $Since, $tokens, $requests, $wait),
               [ 'f00d', 'sim', 33, 'zone' ], %options);
}


sub settle {
    my ($id, $mode, $tokens, $requests) = @_;

    return ask('settle', $id,
               numbers($Keep, $Since, $tokens, $requests, $mode));
}


sub lease {
    my ($id, $tokens, $requests, @debt) = @_;

    return ask('lease', $id,
               numbers(10000, $Since, $tokens, $requests, @debt));
}


# fields of the key as numbers

sub state {
    my %fields = @{$Redis->call('HGETALL', $Key)};

    return { map { $_ => [ unpack 'd<*', $fields{$_} ] } keys %fields };
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
