# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# What goes wrong upstream, and what the client gets: an HTTP error, or an
# error event and a clean end; never a part that looks like the whole.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;

run_tests();

__DATA__

=== TEST 1: upstream resets in mid-stream: an error event and a clean end
--- location
--- sim: tokens=9; fault=reset; at=3
--- response_body_like eval
qr/data: .*\n\nevent: error\ndata: \{"type":"error","error":\{.*\}\}\n\n\z/s
--- log
end: upstream_truncated
usage_source: estimate
completion_tokens: /[1-9]\d*/



=== TEST 2: upstream closes in mid-stream
--- location
--- sim: tokens=9; fault=close; at=3
--- response_body_like eval
qr/event: error\ndata: \{"type":"error".*\n\n\z/
--- response_body_unlike: \[DONE\]
--- log
end: upstream_truncated



=== TEST 3: upstream ends cleanly, without its terminal marker
--- location
--- sim: tokens=9; fault=end; at=3
--- response_body_like eval
qr/event: error\ndata: \{"type":"error".*\n\n\z/
--- log
end: upstream_truncated



=== TEST 4: an HTTP/1.0 upstream closes in mid-stream
--- location
--- sim: tokens=9; fault=close; at=3; http=1.0
--- response_body_like eval
qr/event: error\ndata: \{"type":"error".*\n\n\z/
--- log
end: upstream_truncated



=== TEST 5: a cut event is not completed: it never was one
--- location
--- sim: tokens=9; fault=midevent; at=3
--- response_body_like eval
qr/\A(?:data: \{[^\n]*\}\n\n)+event: error\ndata: \{"type":"error".*\n\n\z/
--- log
end: upstream_truncated



=== TEST 6: a broken chunk
--- location
--- sim: tokens=9; fault=badchunk; at=3
--- response_body_like eval
qr/event: error\ndata: \{"type":"error".*\n\n\z/
--- error_log
upstream sent invalid chunked response
--- log
end: upstream_truncated



=== TEST 7: the connection to the client is used again after an error event
--- location
--- pipelined_requests eval
["POST /v1/chat/completions\n$LlmBlock::Body", "GET /v1/models"]
--- more_headers
X-LLM-Sim: tokens=9; fault=close; at=3
Content-Type: application/json
--- response_body_like eval
["event: error", "data"]



=== TEST 8: upstream's own error event passes unchanged, and ends the stream
--- location
--- sim: tokens=9; fault=error; at=3
--- response_body_like eval
qr/"error":\{[^\n]*\n\n\z/
--- response_body_unlike: ended the answer before
--- log
end: upstream_error



=== TEST 9: .. also when upstream stays open and silent
--- location
--- sim: tokens=9; fault=error-stay; at=3
--- response_body_like eval
qr/"error":\{[^\n]*\n\n\z/
--- timeout: 20
--- log
end: upstream_error
--- sim_stats
aborted: 1
inflight: 0



=== TEST 10: an error status passes with its body, and nothing is billed
--- location
--- sim: status=429; retry_after=7
--- error_code: 429
--- response_headers
Retry-After: 7
--- response_body_like: "error"
--- log
end: upstream_error
usage_source: none
total_tokens: -



=== TEST 11: nobody listens: 502 as JSON
--- location
--- config
location = /refused {
    llm_stream on;
    proxy_pass http://127.0.0.1:$TEST_NGINX_CLOSED_PORT;
}
--- request eval
"POST /refused\n$LlmBlock::Body"
--- error_code: 502
--- response_headers
Content-Type: application/json
--- response_body_like eval
qr/\A\{"type":"error","error":\{"message":"[^"]+"/
--- error_log
Connection refused



=== TEST 12: .. in the dialect of the request
--- location
--- config
location = /v1/messages {
    llm_stream on;
    proxy_pass http://127.0.0.1:$TEST_NGINX_CLOSED_PORT;
}
--- request
POST /v1/messages
{"model":"claude","max_tokens":5,"messages":[{"role":"user","content":"x"}]}
--- error_code: 502
--- response_body_like eval
qr/\A\{"type":"error","error":\{"type":"[a-z_]+","message":"/
--- error_log
Connection refused



=== TEST 13: an error_page goes before it
--- location
error_page 502 = @other;
--- config
location @other {
    return 200 "other";
}
--- sim: fault=reset; at=header
--- response_body: other
--- error_code: 200
--- error_log
reset by peer



=== TEST 14: with llm_error_events off nginx's own page is sent
--- location
llm_error_events off;
--- sim: fault=reset; at=header
--- error_code: 502
--- response_headers
Content-Type: text/html
--- error_log
reset by peer



=== TEST 15: with llm_error_events off a stream that was cut off is broken off
--- location
llm_error_events off;
--- sim: tokens=9; fault=end; at=3
--- ignore_response
--- error_log
closing connection
--- log
end: upstream_truncated



=== TEST 16: anthropic: the error event
--- location
--- path: /v1/messages
--- body: {"model":"claude","stream":true,"max_tokens":50,"messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=9; fault=close; at=3
--- response_body_like eval
qr/event: error\ndata: \{"type":"error","error":\{"type":.*\n\n\z/
--- log
end: upstream_truncated



=== TEST 17: ollama: one line
--- location
--- path: /api/chat
--- body: {"model":"llama","messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=9; fault=close; at=3
--- response_body_like eval
qr/\n\{"error":"[^"\n]*"\}\n\z/
--- log
end: upstream_truncated



=== TEST 18: responses: response.failed
--- location
--- path: /v1/responses
--- body: {"model":"m","stream":true,"input":"hello"}
--- sim: tokens=9; fault=close; at=3
--- response_body_like eval
qr/event: response\.failed\ndata: \{"type":"response\.failed".*\n\n\z/
--- log
end: upstream_truncated



=== TEST 19: an answer that is not streamed and cut off breaks the transport
--- location
--- body: {"model":"sim","messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=9; fault=midevent; at=0
--- ignore_response
--- error_log
prematurely closed
--- log
end: upstream_truncated



=== TEST 20: an event too large to be read is content, and not free when cut off
--- location
--- sim: tokens=2; itl=0; words=3000000; fault=midevent; at=0
--- ignore_response
--- error_log
closing connection
--- log
end: upstream_truncated
usage_source: estimate
completion_tokens: /\d{5,}/
