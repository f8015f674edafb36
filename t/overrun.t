# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# Streams that spend more than was reserved for them: overrun=finish, cut and
# pace.  Only completion tokens count, and the rate of a day does not refill
# while a test runs.  llm-sim's usual content, words of four bytes, is about
# one token an event by the estimate.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;
use LlmClient;

use Time::HiRes qw( sleep time );

our $Port = $ENV{TEST_NGINX_SERVER_PORT};
our $Zone = 'llm_limit_zone $http_authorization zone=t:64k count=completion';

workers(1);
run_tests();

__DATA__

=== TEST 1: cut: the events so far, an error event, and a clean end
--- http_config eval: "$::Zone tokens=100/d;"
--- location
llm_limit zone=t reserve=10 overrun=cut;
--- sim: tokens=2000; itl=1
--- more_headers
Authorization: one
--- response_body_like eval
qr/"content":"[^"]*tok40.*\n\nevent: error\ndata: \{"type":"error",.*"code":"rate_limit_exceeded".*\n\n\z/s
--- error_log: answer cut
--- log
end: limit_cut
usage_source: estimate
completion_tokens: /10[0-5]/
reserved_tokens: 10
--- sim_stats
aborted: 1
inflight: 0



=== TEST 2: finish: into debt
--- http_config eval: "$::Zone tokens=100/d;"
--- location
llm_limit zone=t reserve=10;
--- sim: tokens=200; itl=1
--- more_headers
Authorization: one
--- response_body_like: \[DONE\]
--- log
end: done
completion_tokens: 200



=== TEST 3: pace: as fast as the budget
--- http_config eval: "$::Zone tokens=50/s burst=10;"
--- location
llm_limit zone=t reserve=10 overrun=pace;
llm_idle_timeout 500ms;
--- sim: tokens=100; itl=1
--- more_headers
Authorization: one
--- response_body_like: \[DONE\]
--- error_log: answer paced
--- log
end: done
completion_tokens: 100
