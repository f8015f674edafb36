# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# script=: the operator's own policy decides with the budget.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmNode;
use LlmRedis;
use Time::HiRes qw( sleep time );

my ($Redis, $Node);

sim_options('--itl', '2', '--itl-slope', '0', '--prefill', '1000000');
sim_start();

$Redis = LlmRedis->start(dir => dir('redis'));

denies();
delays();
narrows_only();
requests_only();
raises();
failover();
not_lua();
readme();

$Redis->stop;


sub dir { return "$ENV{TEST_NGINX_SERVROOT}/$_[0]" }


sub node {
    my ($policy, %options) = @_;

    $Redis->call('FLUSHALL');

    open my $file, '>', dir('policy.lua') or die "policy.lua: $!\n";
    print $file $policy;
    close $file;

    $Node = LlmNode->start(
        redis => 'redis://' . $Redis->address, %options,
        options => 'script=' . dir('policy.lua') . ' '
                   . ($options{options} // ''));
    $Node->await_up if !$options{down};
}


sub done {
    my ($name) = @_;

    $Node->stop;
    is(join('', $Node->faults), '', "$name: no fault in the log");
}


sub denies {
    node(<<'END');
return function(request)
  if request.key == redis.sha1hex('guest') and request.reserved > 100 then
    return 'deny', 'guests have 100 tokens a request'
  end

  return true
end
END

    is($Node->ask(101, key => 'member')->status, 200, 'denies: not this one');
    is($Node->ask(100, key => 'guest')->status, 200, 'nor this one');

    my $no = $Node->ask(101, key => 'guest');

    is($no->status, 429, 'but that one');
    like($no->body, qr/guests have 100 tokens a request/, 'with its reason');
    is($no->header('Retry-After'), undef, 'there is no time to try again');
    is($Node->logged($no)->{limit}, 'REJECTED', 'the log says so');
    is(LlmNode::await_used($Redis, 1, 'guest'), 1, 'and nothing was taken');
    done('denies');
}


sub delays {
    node(<<'END', limit => 'wait=2s');
return function(request)
  return 'wait', request.reserved / 100
end
END

    my $start = time;
    my $late = $Node->ask(50);
    my $seconds = time - $start;

    is($late->status, 200, 'delays: it is let through');
    ok($seconds > 0.49 && $seconds < 10, 'half a second later')
        or diag("$seconds s");
    is($Node->logged($late)->{limit}, 'DELAYED', 'the log says so');

    my $no = $Node->ask(300);

    is($no->status, 429, 'three seconds are more than its wait');
    is($no->header('Retry-After'), 3, 'it is told when to try again');
    done('delays');
}


sub narrows_only {
    node("return function(request) return true end\n");

    my $live = $Node->open(900, sim => 'tokens=900; itl=20');

    is($live->status, 200, 'it allows');
    is($Node->ask(200)->status, 429, 'but the budget does not');
    $live->close;
    done('narrows only');
}


sub requests_only {
    node(<<'END', rate => '0/h', zone => 'requests=60/m', limit => 'wait=2s');
return function(request)
  return 'wait', request.model == 'long' and 3 or 0.5
end
END

    my $late = $Node->ask(10);

    is($late->status, 200, 'requests only: it is let through');
    is($Node->logged($late)->{limit}, 'DELAYED', 'and waits as it is told');
    cmp_ok($Node->logged($late)->{wait}, '>=', 0.4, 'for half a second');

    my $no = $Node->ask(10, model => 'long');

    is($no->status, 429, 'three seconds are more than its wait');
    is($no->header('Retry-After'), 3, 'it is told when to try again');
    done('requests only');
}


sub raises {
    node(<<'END', options => 'fallback=local');
return function(request)
  if request.model == 'sim' then
    error('no such plan')
  end

  return true
end
END

    is($Node->ask(10)->status, 200, 'raises: the fallback decides');
    $Node->await_error(qr/script of "shared".*user_script:3: no such plan/);
    ok(1, 'the log has its own line and word');
    is(scalar($Node->errors(qr/is down/)), 0, 'Redis is not down');
    done('raises');

    node("return function(request) return 'perhaps' end\n",
         options => 'fallback=closed');
    like($Node->ask(10)->status, qr/^(?:503|429)$/,
         'an answer that is none: the fallback decides');
    $Node->await_error(qr/script of "shared".*neither true, nor/);
    ok(1, 'the log says what is allowed');
    done('no answer');
}


# its commands are the first ones that a replica refuses

sub failover {
    my $other = LlmRedis->start(dir => dir('other'));

    $other->follow($Redis);

    my $both = join ',', $Redis->address, $other->address;

    node(<<'END', redis => "redis://$both");
return function(request)
  redis.call('INCR', request.store)
  return true
end
END

    $Node->ask(10);
    is(LlmNode::await_used($Redis, 1), 1, 'failover: the master decides');
    $Redis->give_way($other);

    $Node->ask_until_used($other, 2);
    ok(1, 'READONLY in a policy leads to the other one, too');

    $Redis->lead;
    $other->stop;
    done('failover');
}


sub not_lua {
    node("\nretrun 1\n", down => 1);
    $Node->await_error(qr/"shared".*user_script:2:/);
    ok(1, 'one that cannot be read is told at the start');
    is($Node->ask(10)->status, 200, 'the fallback decides');
    done('not Lua');
}


# the example of the documentation

sub readme {
    open my $in, '<', 'README.md' or die "README.md: $!\n";
    my ($policy) = join('', <$in>) =~ /^```lua\n(.*?)^```$/ms;

    node($policy, burst => 20_000, limit => 'wait=3s');

    is($Node->ask(8000, model => 'big')->status, 200,
       'README: the big model has 8,000 tokens');

    my $no = $Node->ask(8001, model => 'big');

    is($no->status, 429, 'not more');
    like($no->body, qr/The big model takes 8,000 tokens at once\./,
         'for its reason');

    my $live = $Node->open(19_000, sim => 'tokens=19000; itl=20');

    is($live->status, 200, 'another model has more');

    my $late = $Node->ask(100);

    is($late->status, 200, 'when nearly all is used');
    cmp_ok($Node->logged($late)->{wait}, '>=', 1.9, 'who comes waits');

    $live->close;
    done('README');
}
