# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# The three clocks: they run on content, each ends the stream in its own name.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;

run_tests();

__DATA__

=== TEST 1: no header in time: 504 as JSON, and nothing is billed
--- location
llm_first_token_timeout 500ms;
--- sim: tokens=9; fault=stall; at=header
--- error_code: 504
--- response_headers
Content-Type: application/json
--- response_body_like: "error"
--- error_log
upstream timed out
--- log
end: first_token_timeout
usage_source: none
--- sim_stats
aborted: 1



=== TEST 2: a header, but no content: it was held back, and 504 as well
--- location
llm_first_token_timeout 500ms;
--- sim: tokens=9; fault=stall; at=first
--- error_code: 504
--- response_headers
Content-Type: application/json
--- response_body_like: "error"
--- error_log
upstream timed out
--- log
end: first_token_timeout
usage_source: none



=== TEST 3: comments do not hide that there is no content
--- location
llm_first_token_timeout 700ms;
--- sim: tokens=9; fault=comments; at=first
--- error_code: 504
--- response_body_unlike: ping
--- error_log
upstream timed out
--- log
end: first_token_timeout



=== TEST 4: the first token may take longer than the idle time
--- location
llm_first_token_timeout 5s;
llm_idle_timeout 900ms;
--- sim: tokens=4; ttft=1500
--- response_body_like: \[DONE\]
--- log
end: done
first_token_time: /[1-4]\.\d+/



=== TEST 5: content stops: the idle clock
--- location
llm_idle_timeout 500ms;
--- sim: tokens=9; fault=stall; at=3
--- response_body_like eval
qr/event: error\ndata: \{"type":"error".*\n\n\z/
--- error_log
upstream timed out
--- log
end: idle_timeout
usage_source: estimate
completion_tokens: /[1-9]\d*/
--- sim_stats
aborted: 1
inflight: 0



=== TEST 6: comments from upstream do not hide a stalled model
--- location
llm_idle_timeout 600ms;
--- sim: tokens=9; fault=comments; at=3
--- response_body_like eval
qr/: ping\n.*event: error\ndata: \{"type":"error".*\n\n\z/s
--- error_log
upstream timed out
--- log
end: idle_timeout



=== TEST 7: slow, but within the idle time: nothing is cut
--- location
llm_idle_timeout 900ms;
--- sim: tokens=6; itl=300
--- response_body_like: \[DONE\]
--- log
end: done
completion_tokens: 6



=== TEST 8: the whole exchange in mid-stream
--- location
llm_total_timeout 700ms;
--- sim: tokens=100; itl=50
--- response_body_like eval
qr/event: error\ndata: \{"type":"error".*\n\n\z/
--- error_log
upstream timed out
--- log
end: total_timeout
usage_source: estimate



=== TEST 9: the whole exchange before any header
--- location
llm_total_timeout 500ms;
--- sim: tokens=9; fault=stall; at=header
--- error_code: 504
--- response_body_like: "error"
--- error_log
upstream timed out
--- log
end: total_timeout



=== TEST 10: an answer that is not streamed has the total clock only
--- location
llm_first_token_timeout 300ms;
llm_idle_timeout 300ms;
--- body: {"model":"sim","messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=10; itl=100
--- error_code: 200
--- log
end: done



=== TEST 11: nginx's proxy_read_timeout does not cut in
--- location
proxy_read_timeout 300ms;
--- sim: tokens=3; itl=700
--- response_body_like: \[DONE\]
--- log
end: done



=== TEST 12: 0 is no clock at all
--- location
llm_first_token_timeout 0;
llm_idle_timeout 0;
llm_total_timeout 0;
--- sim: tokens=3; itl=400
--- response_body_like: \[DONE\]
--- log
end: done



=== TEST 13: nothing is held back: an error event where there is no content
--- location
llm_hold off;
llm_first_token_timeout 500ms;
--- sim: tokens=9; fault=stall; at=first
--- response_body_like eval
qr/"role".*\n\nevent: error\ndata: \{"type":"error".*\n\n\z/
--- error_log
upstream timed out
--- log
end: first_token_timeout
usage_source: none



=== TEST 14: .. and where there are comments only
--- location
llm_hold off;
llm_first_token_timeout 700ms;
--- sim: tokens=9; fault=comments; at=first
--- response_body_like eval
qr/: ping\n.*event: error\ndata: \{"type":"error".*\n\n\z/s
--- error_log
upstream timed out
--- log
end: first_token_timeout
