# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# How much llm_limit reserves, and what a request costs in the end.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;
use LlmLimit;

our $Long = $Ask =~ s/hello/'hello ' x 80/er;

no_long_string();
run_tests();

__DATA__

=== TEST 1: what was not used comes back, what was used stays
--- http_config eval: $::Completion
--- location
llm_limit zone=t reserve=100;
--- request eval
[$::Ask, $::Ask, $::Ask]
--- more_headers eval: $::Headers
--- response_headers eval
["x-ratelimit-remaining-tokens: 900",
 "x-ratelimit-remaining-tokens: 870",
 "x-ratelimit-remaining-tokens: 840"]
--- error_code eval
[200, 200, 200]



=== TEST 2: more than was reserved is charged, into debt
--- http_config eval: $::Completion
--- location
llm_limit zone=t reserve=10;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval
"X-LLM-Sim: tokens=1500\n$::Common"
--- response_headers eval
["x-ratelimit-remaining-tokens: 990",
 "x-ratelimit-remaining-tokens: 0"]
--- error_code eval
[200, 429]
--- response_headers_like eval
["", "Retry-After: 4[34]\\d{3}"]



=== TEST 3: upstream fails before any content: tokens and request come back
--- http_config eval
"$::Zone tokens=1k/d count=completion requests=5/d;"
--- location
llm_limit zone=t reserve=100;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval
"X-LLM-Sim: fault=reset; at=header\n$::Common"
--- error_code eval
[502, 502]
--- response_headers eval
["x-ratelimit-remaining-tokens: 900
x-ratelimit-remaining-requests: 4",
 "x-ratelimit-remaining-tokens: 900
x-ratelimit-remaining-requests: 4"]



=== TEST 4: upstream fails after some content: that is charged
--- http_config eval: $::Completion
--- location
llm_limit zone=t reserve=100;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval
"X-LLM-Sim: tokens=90; fault=close; at=40\n$::Common"
--- response_headers_like eval
["x-ratelimit-remaining-tokens: 900",
 "x-ratelimit-remaining-tokens: 8[1-8]\\d"]
--- error_code eval
[200, 200]



=== TEST 5: rates and bursts from variables
--- http_config eval
'map $arg_plan $rate { free 100/d; paid 1M/d; bad 1M; }
map $arg_plan $burst { paid 5k; odd -1; default off; }
llm_limit_zone $http_authorization zone=t:64k tokens=$rate burst=$burst
               count=completion;'
--- location
llm_limit zone=t reserve=100;
--- request eval
[ map { $::Ask =~ s/completions/completions?plan=$_/r } qw( free paid none ) ]
--- more_headers eval: $::Headers
--- error_code eval
[200, 200, 200]
--- response_headers eval
["x-ratelimit-limit-tokens: 100
x-ratelimit-remaining-tokens: 0",
 "x-ratelimit-limit-tokens: 5000
x-ratelimit-remaining-tokens: 4870",
 "! x-ratelimit-limit-tokens"]



=== TEST 6: a variable that is no rate is an error, not a way round
--- http_config eval
'llm_limit_zone $http_authorization zone=t:64k tokens=$arg_rate;'
--- location
llm_limit zone=t;
--- request eval
$::Ask =~ s/completions/completions?rate=1M/r
--- more_headers eval: $::Headers
--- error_code: 500
--- error_log
llm limit: invalid rate "1M" from "$arg_rate" for zone "t", allowed is a number
--- sim_stats
requests: 0



=== TEST 7: a variable that is no burst neither
--- http_config eval
'llm_limit_zone $http_authorization zone=t:64k tokens=1/s burst=$arg_burst;'
--- location
llm_limit zone=t;
--- request eval
$::Ask =~ s/completions/completions?burst=x/r
--- more_headers eval: $::Headers
--- error_code: 500
--- error_log
llm limit: invalid burst "x" from "$arg_burst" for zone "t", allowed is a number



=== TEST 8: reserve=auto learns what this key's answers take
--- http_config eval: $::Completion
--- location
llm_limit zone=t;
--- request eval
[$::AskMost, $::AskMost, $::Ask, $::AskMost =~ s/300/20/r]
--- more_headers eval: $::Headers
--- response_headers eval
["x-ratelimit-remaining-tokens: 700",
 "x-ratelimit-remaining-tokens: 940",
 "x-ratelimit-remaining-tokens: 910",
 "x-ratelimit-remaining-tokens: 890"]
--- error_code eval
[200, 200, 200, 200]



=== TEST 9: what is learned is learned of one model
--- http_config eval: $::Completion
--- location
llm_limit zone=t;
--- request eval
[$::AskMost, $::AskMost =~ s/"sim"/"other"/r]
--- more_headers eval: $::Headers
--- response_headers eval
["x-ratelimit-remaining-tokens: 700",
 "x-ratelimit-remaining-tokens: 670"]
--- error_code eval
[200, 200]



=== TEST 10: reserve=max takes the maximum, and learns where none is named
--- http_config eval: $::Completion
--- location
llm_limit zone=t reserve=max;
--- request eval
[$::AskMost, $::AskMost, $::Ask]
--- more_headers eval: $::Headers
--- response_headers eval
["x-ratelimit-remaining-tokens: 700",
 "x-ratelimit-remaining-tokens: 670",
 "x-ratelimit-remaining-tokens: 910"]
--- error_code eval
[200, 200, 200]



=== TEST 11: a number is reserved, or a smaller maximum
--- http_config eval: $::Completion
--- location
llm_limit zone=t reserve=400;
--- request eval
[$::Ask, $::AskMost]
--- more_headers eval: $::Headers
--- response_headers eval
["x-ratelimit-remaining-tokens: 600",
 "x-ratelimit-remaining-tokens: 670"]
--- error_code eval
[200, 200]



=== TEST 12: a small limit does not refuse what nothing is known of
--- http_config eval
"$::Zone tokens=50/d;"
--- location
llm_limit zone=t;
--- more_headers eval: $::Headers
--- response_headers
x-ratelimit-limit-tokens: 50
x-ratelimit-remaining-tokens: 29
--- log
reserved_tokens: 21



=== TEST 13: nor where the key is in use: a quarter of the burst is enough
--- http_config eval: $::Completion
--- location
llm_limit zone=t;
--- request eval
[$::Ask, $::Ask =~ s/"sim"/"other"/r, $::Ask =~ s/"sim"/"third","n":2/r]
--- more_headers eval: $::Headers
--- response_headers eval
["x-ratelimit-remaining-tokens: 750",
 "x-ratelimit-remaining-tokens: 720",
 "x-ratelimit-remaining-tokens: 690"]
--- error_code eval
[200, 200, 200]



=== TEST 14: .. as it costs
--- http_config eval
"$::Zone tokens=1k/d prompt=0 completion=2.5;"
--- location
llm_limit zone=t;
--- request eval
[$::Ask, $::Ask =~ s/"sim"/"other"/r]
--- more_headers eval: $::Headers
--- response_headers eval
["x-ratelimit-remaining-tokens: 750",
 "x-ratelimit-remaining-tokens: 675"]
--- error_code eval
[200, 200]



=== TEST 15: of a larger one 1024 tokens are reserved for each choice
--- http_config eval
"$::Zone tokens=10k/d count=completion;"
--- location
llm_limit zone=t;
--- request eval
[$::Ask, $::Ask =~ s/"sim"/"other","n":2/r]
--- more_headers eval: $::Headers
--- response_headers eval
["x-ratelimit-remaining-tokens: 8976",
 "x-ratelimit-remaining-tokens: 7922"]
--- error_code eval
[200, 200]



=== TEST 16: a maximum is asked for as often as there are prompts and choices
--- http_config eval: $::Completion
--- location
llm_limit zone=t;
--- request eval
[map { "POST /v1/completions\n{\"model\":\"sim\",\"max_tokens\":100,$_}" }
 '"n":3,"prompt":["a","b","c"]', '"n":6,"prompt":[[1,2],[3]]']
--- more_headers eval: $::Headers
--- response_headers eval
["x-ratelimit-remaining-tokens: 100", "! Retry-After"]
--- error_code eval
[200, 429]



=== TEST 17: each kind of token has its weight
--- http_config eval
"$::Zone tokens=1k/d prompt=0 cached=0.5 completion=2 reasoning=4;"
--- location
llm_limit zone=t reserve=10;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval
'X-LLM-Sim: tokens=4; usage={"prompt_tokens":100,"completion_tokens":50,'
. '"prompt_tokens_details":{"cached_tokens":60},'
. '"completion_tokens_details":{"reasoning_tokens":20}}' . "\n$::Common"
--- response_headers eval
["x-ratelimit-remaining-tokens: 980",
 "x-ratelimit-remaining-tokens: 810"]
--- error_code eval
[200, 200]



=== TEST 18: count=prompt
--- http_config eval
"$::Zone tokens=1k/d count=prompt;"
--- location
llm_limit zone=t;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval
'X-LLM-Sim: tokens=50; usage={"prompt_tokens":500,"completion_tokens":50}'
. "\n$::Common"
--- response_headers_like eval
["x-ratelimit-remaining-tokens: 99\\d",
 "x-ratelimit-remaining-tokens: 4[89]\\d"]
--- error_code eval
[200, 200]



=== TEST 19: upstream's usage of zero is a usage
--- http_config eval: $::Completion
--- location
llm_limit zone=t reserve=100;
--- request eval
[$::Ask, $::Ask]
--- more_headers eval
'X-LLM-Sim: tokens=50; usage={"prompt_tokens":0,"completion_tokens":0}'
. "\n$::Common"
--- response_headers eval
["x-ratelimit-remaining-tokens: 900",
 "x-ratelimit-remaining-tokens: 900"]
--- error_code eval
[200, 200]



=== TEST 20: embeddings reserve their prompt alone
--- http_config eval
"$::Zone tokens=1M/d;"
--- location
llm_limit zone=t;
--- path: /v1/embeddings
--- body: {"model":"embed","input":"hello"}
--- more_headers
Authorization: Bearer a
--- log
reserved_tokens: /\d{1,2}/
end: done



=== TEST 21: where answers reach their maxima, these stay reserved
--- http_config eval: $::Completion
--- location
llm_limit zone=t;
--- request eval
[$::AskMost =~ s/300/30/r, $::AskMost =~ s/300/20/r, $::AskMost, $::AskMost]
--- more_headers eval: $::Headers
--- response_headers eval
["x-ratelimit-remaining-tokens: 970",
 "x-ratelimit-remaining-tokens: 950",
 "x-ratelimit-remaining-tokens: 650",
 "x-ratelimit-remaining-tokens: 710"]
--- error_code eval
[200, 200, 200, 200]



=== TEST 22: of a model that is not known a quarter of the prompt is kept ready
--- http_config eval
"$::Zone tokens=1k/d count=prompt;"
--- location
llm_limit zone=t;
--- request eval
$::Long
--- more_headers eval: $::Headers
--- log
estimated_tokens: 108
reserved_tokens: 133



=== TEST 23: and comes back, less of it with each answer
--- http_config eval
"$::Zone tokens=1k/d count=prompt;"
--- location
llm_limit zone=t;
--- request eval
[$::Long, $::Long, $::Long]
--- more_headers eval
'X-LLM-Sim: usage={"prompt_tokens":108,"completion_tokens":50}' . "\n$::Common"
--- response_headers eval
["x-ratelimit-remaining-tokens: 867",
 "x-ratelimit-remaining-tokens: 772",
 "x-ratelimit-remaining-tokens: 668"]
--- error_code eval
[200, 200, 200]



=== TEST 24: it makes no request too large
--- http_config eval
"$::Zone tokens=108/d count=prompt;"
--- location
llm_limit zone=t;
--- request eval
$::Long
--- more_headers eval: $::Headers
--- log
estimated_tokens: 108
reserved_tokens: 108
