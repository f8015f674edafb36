# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# The operator's policy: what it is given, what it may answer, and how its
# faults are told; in a real server, without nginx.

use strict;
use warnings;

use lib 't/lib';

use LlmScripts;
use Test::More;


each_server(sub {
    policies();
    policy_faults();
});

done_testing();


sub policy {
    my ($id, $tokens, $text, $wait) = @_;

    return reserve($id, $wait // 0, $tokens, undef, policy => $text);
}


sub policies {
    my @tokens = (10, 1, 100, 20);

    fresh();

    my $allow = 'return function(request) return true end';
    is_deeply([ @{policy('a', \@tokens, $allow)}[0, 1, 3] ], [ 1, 0, 80 ],
              'allowed');

    my $wait = 'return function(request) return "wait", 1.5 end';
    is_deeply([ @{policy('b', \@tokens, $wait, 2_000_000)}[0, 1, 3] ],
              [ 1, 1_500_000, 60 ], 'to wait');
    is_deeply([ @{policy('c', \@tokens, $wait, 1_000_000)}[0, 1, 3] ],
              [ 0, 1_500_000, 60 ], 'too long: nothing is taken');

    is_deeply([ @{reserve('ba', 2_000_000, [ 0, 1, 0, 0 ], [ 9, 60, 9, 1 ],
                          policy => $wait)}[0 .. 2] ],
              [ 1, 0, 1_500_000 ], 'of a budget of requests alone, too');

    my $deny = 'return function(request) return "deny", "not at night" end';
    is_deeply([ @{policy('d', \@tokens, $deny)}[0, 3, 7] ],
              [ 3, 60, 'not at night' ], 'denied');
    is($Redis->call('HEXISTS', $Key, 'd'), 0, 'nothing is taken');

    is(length policy('d', \@tokens,
                     'return function() return "deny", ("x"):rep(999) end')
                  ->[7], 200, 'a reason has an end');

    is(policy('e', [ 10, 1, 100, 70 ], $allow)->[0], 0,
       'what the budget does not allow it cannot allow');
    is(policy('f', [ 10, 1, 100, 170 ], $wait, 9e6)->[1], -1,
       'nor let it wait for what never is');

    # what it gets

    my $facts = 'return function(r) return "deny", table.concat({ r.key, '
                . 'r.model, r.zone, r.estimated, r.reserved, r.now, r.wait, '
                . 'r.tokens.rate, r.tokens.period, r.tokens.burst, '
                . 'r.tokens.level, r.tokens.cost, r.tokens.delay, '
                . 'r.requests.rate, r.requests.level }, " ") end';

    is(policy('g', [ 10, 1, 100, 70 ], $facts, 2_000_000)->[7],
       'f00d sim zone 33 70 1790000000 2 10 1 100 60 70 1 0 0',
       'the facts of the request, and the zone\'s numbers');

    my $once = 'return function(r) return redis.call("INCR", r.store) == 1 '
               . 'and true or "deny", "again" end';

    is(policy('h', [ 10, 1, 100, 1 ], $once)->[0], 1, 'it may store');
    is(policy('h', [ 10, 1, 100, 1 ], $once)->[0], 1,
       'it is asked once for a charge');
    is(policy('i', [ 10, 1, 100, 1 ], $once)->[0], 3,
       'what it stored is there for the next one');
    cmp_ok($Redis->call('PTTL', "$Key:policy"), '>', 600_000_000,
           'and expires');
}


sub policy_faults {
    my %faults = (
        'raises' => [ "return function(r)\n\n  error('no luck') end",
                      qr/LLMPOLICY user_script:3: no luck/ ],
        'adds nil' => [ "return function(r)\n  return r.none + 1 end",
                        qr/LLMPOLICY user_script:2: / ],
        'sets a global' => [ 'return function(r) x = 1 return true end',
                             qr/LLMPOLICY .*(?:global|readonly)/ ],
        'calls nonsense' => [
            'return function(r) redis.call("NONSENSE") return true end',
            # Redis before 7 has no word ahead of it
            qr/LLMPOLICY (?:redis: ERR .*unknown|Unknown Redis command)/i ],
        'answers nothing' => [ 'return function(r) end',
                               qr/LLMPOLICY neither true/ ],
        'answers a word' => [ 'return function(r) return "perhaps" end',
                              qr/LLMPOLICY neither/ ],
        'waits for nothing' => [ 'return function(r) return "wait" end',
                                 qr/LLMPOLICY neither/ ],
        'waits for ever' => [
            'return function(r) return "wait", 1 / 0 end',
            qr/LLMPOLICY neither/ ],
        'waits backwards' => [ 'return function(r) return "wait", -1 end',
                               qr/LLMPOLICY neither/ ],
        'waits for what is no number' => [
            'return function(r) return "wait", 0 / 0 end',
            qr/LLMPOLICY neither/ ],
        'denies without a reason' => [
            'return function(r) return "deny" end', qr/LLMPOLICY neither/ ],
        'is no function' => [ 'return 1', qr/LLMPOLICY it returns no/ ],
        'is forgotten' => [ 'local function policy() end',
                            qr/LLMPOLICY it returns no function/ ],
    );

    for my $name (sort keys %faults) {
        my ($text, $error) = @{$faults{$name}};

        fresh();
        like(failed('a', [ 1, 1, 10, 1 ], policy => $text), $error,
             "a policy that $name");
        is($Redis->call('EXISTS', $Key), 0, 'takes nothing');
    }

    like($Redis->error('SCRIPT', 'LOAD',
                       LlmRedis::script('reserve', policy => "\n\nretrun 1")),
         qr/compiling script.*user_script:3:/s,
         'one that cannot be read is told by its own lines');
}
