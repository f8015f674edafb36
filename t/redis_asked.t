# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# While Redis is asked, or a link to it is being made: clients leave, nginx is
# reloaded or stopped, and more is asked than a link takes.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmNode;
use LlmRedis;

# questions of a link that are not answered: NGX_HTTP_LLM_REDIS_PENDING, which
# requests of so many zones reach

my $Most = 4096;
my $Zones = 8;

my ($Redis, $Node);

sim_options('--itl', '0', '--itl-slope', '0', '--prefill', '1000000');
sim_start();

$Redis = LlmRedis->start(dir => "$ENV{TEST_NGINX_SERVROOT}/redis");

client_leaves();
reloaded();
reloaded_while_connecting();
too_much();
full();
stopped_while_asked();
stopped('redis://' . $Redis->address);
stopped("unix:$Redis->{socket}");

$Redis->stop;


sub node {
    my (%options) = @_;

    $Redis->call('FLUSHALL') if !$options{down};

    $Node = LlmNode->start(redis => 'redis://' . $Redis->address,
                           options => 'timeout=60s', %options);
    $Node->await_up if !$options{down};
}


sub done {
    my ($name) = @_;

    $Node->stop;
    is(join('', $Node->faults), '', "$name: no fault in the log");
}


# a request that Redis is asked for, and does not answer; one that it does not
# concern comes behind it, so that it has been asked then

sub asked {
    my ($node, $tokens) = @_;
    my $client = $node->open($tokens);

    $node->ask(1, headers => { Authorization => '' });

    return $client;
}


sub client_leaves {
    node();
    $Redis->freeze;

    my $client = asked($Node, 500);

    $client->close;
    is($Node->logged($client)->{status}, 499,
       'left while Redis is asked: at once');

    $Redis->thaw;

    LlmRedis::await('what it asked for is given back', sub {
        $Node->ask(700)->status == 200
    });
    is(LlmNode::await_used($Redis, 1), 1, 'what it asked for is not charged');
    is(LlmNode::charges($Redis), 0, 'and no charge is open');
    done('left');
}


sub reloaded {
    node();
    $Redis->freeze;

    my $client = asked($Node, 500);

    $Node->{nginx}->reload($Node->http);
    $Redis->thaw;

    is($client->finish->status, 200,
       'reloaded while Redis is asked: the answer decides');
    is(LlmNode::await_used($Redis, 1), 1, 'it is settled');
    $Node->await_up(1);
    is($Node->ask(10)->status, 200, 'the new worker asks, too');
    is(LlmNode::await_used($Redis, 2), 2, 'and is answered');
    done('reloaded');
}


sub reloaded_while_connecting {
    $Redis->call('FLUSHALL');
    $Redis->freeze;

    # the kernel accepts; the greeting stays without an answer

    node(down => 1, options => 'timeout=60s connect_timeout=60s');
    $Node->{nginx}->reload($Node->http) for 1 .. 3;

    LlmRedis::await('old workers have left', sub {
        $Node->{nginx}->children == 1
    });
    ok(1, 'reloaded while connecting: nobody stays for it');

    my $client = asked($Node, 10);

    $Redis->thaw;
    is($client->finish->status, 200, 'who came first is decided by Redis');
    is(LlmNode::await_used($Redis, 1), 1, 'which knows');
    is(scalar($Node->errors(qr/"shared" is down/)), 0, 'it never was down');
    done('connecting');
}


sub too_much {
    my $zones = join '', map { "llm_limit_zone \$http_authorization "
                               . "zone=z$_:1m tokens=100k/h prompt=0 "
                               . "redis=shared;\n" } 2 .. $Zones;
    my $limits = join '', map { "llm_limit zone=z$_ reserve=max;\n" }
                              2 .. $Zones;

    node(options => 'timeout=60s fallback=closed', burst => 10_000,
         http => $zones, location => $limits, connections => 2000);
    $Redis->freeze;

    my $passing = $Most / $Zones;
    my @clients = map { $Node->open(10) } 1 .. $passing + 40;

    asked($Node, 10)->close;
    $Redis->thaw;
    LlmClient::await_end(@clients);

    my %status;

    $status{$_->status}++ for @clients;

    is_deeply(\%status, { 200 => $passing, 503 => 40 },
              'more is asked than a link takes: the fallback decides that');
    is(LlmNode::await_used($Redis, $passing), $passing,
       'the rest is charged once');
    is(LlmNode::charges($Redis), 0, 'and no charge is open');
    is(scalar($Node->errors(qr/"shared" is down/)), 0, 'the link is the same');
    done('too much');
}


# what is in flight takes this machine's memory: Redis is not asked

sub full {
    node(http => 'llm_limit_zone $http_authorization zone=small:32k '
                 . 'tokens=1k/h prompt=0 redis=shared;',
         location => 'llm_limit zone=small reserve=max;');

    my @clients = map {
        $Node->open(10, key => "k$_", sim => 'tokens=10; ttft=60000')
    } 1 .. 200;

    $Node->await_error(qr/zone "small" is too small for the requests in/);

    my $no = $Node->ask(10, key => 'last');

    is($no->status, 429, 'a full zone: rejected');
    is($no->header('Retry-After'), 1, 'for a moment');
    like($no->body, qr/Rate limit reached/, 'for what it is');
    is(scalar($Node->errors(qr/no answer from Redis/)), 0, 'not by Redis');

    $_->close for @clients;
    done('full');
}


# nobody hears what Redis takes then

sub stopped_while_asked {
    node();
    $Redis->freeze;

    my $client = asked($Node, 500);

    $Node->stop;
    $client->close;
    $Redis->thaw;

    is(LlmNode::await_used($Redis, 0), 0,
       'stopped while Redis is asked: what it takes is given back');
    is(LlmNode::charges($Redis), 0, 'and no charge is open');
    done('stopped while asked');
}


# All that is open is given back, in one go that nobody waits for: by default
# a unix socket takes some 800 at once, and Redis reads 60 of them at a time.

sub stopped {
    my ($url) = @_;

    node(redis => $url, burst => 10_000, connections => 2000,
         http => 'error_log logs/error.log info;');

    my @clients = map {
        $Node->open(10, sim => 'tokens=10; ttft=60000')
    } 1 .. 600;

    LlmRedis::await('all are open', sub {
        LlmNode::charges($Redis) == @clients
    });

    kill 'TERM', $Node->{nginx}{pid};
    is(LlmNode::await_used($Redis, 0), 0, "stopped: $url has all back");
    is(LlmNode::charges($Redis), 0, 'and no charge is open');
    done('stopped');
}
