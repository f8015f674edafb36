# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# Streams that upstream ends well: passed whole, at once, and counted.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;

run_tests();

__DATA__

=== TEST 1: a chat stream passes whole, and its usage is upstream's
--- location
--- sim: tokens=4
--- response_body_like eval
qr/\Adata: [^\n]+"role":"assistant".*data: \[DONE\]\n\n\z/s
--- response_headers
Content-Type: text/event-stream; charset=utf-8
Content-Length:
--- log
end: done
usage_source: upstream
completion_tokens: 4
total_tokens: /\d+/
is_stream: 1
dialect: openai
model: sim
finish_reason: /stop|length/
first_token_time: /\d\.\d{3}/
token_time: /\d\.\d{3}/
id: /[0-9a-f]{32}/
prefix: /[0-9a-f]{16}/



=== TEST 2: usage is asked for, and the event that the client did not ask for is stripped
--- location
--- sim: tokens=3
--- response_body_unlike: "choices":\[\]
--- log
end: done
usage_source: upstream
completion_tokens: 3



=== TEST 3: a client that asks for usage gets the event
--- location
--- sim: tokens=3
--- body: {"model":"sim","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hello"}]}
--- response_body_like: "choices":\[\],"usage":\{
--- log
usage_source: upstream
completion_tokens: 3



=== TEST 4: a client's include_usage false is overridden upstream, and honoured downstream
--- location
--- sim: tokens=3
--- body: {"model":"sim","stream":true,"stream_options":{"include_usage":false},"messages":[{"role":"user","content":"hello"}]}
--- response_body_unlike: "choices":\[\]
--- log
usage_source: upstream
completion_tokens: 3



=== TEST 5: with llm_include_usage off nothing is asked for, and the bill is an estimate
--- location
llm_include_usage off;
--- sim: tokens=30
--- log
end: done
usage_source: estimate
completion_tokens: /[1-9]\d*/



=== TEST 6: byte by byte: the same events, the same count
--- location
--- sim: tokens=5; split=1
--- response_body_like eval
qr/\Adata: .*data: \[DONE\]\n\n\z/s
--- log
end: done
completion_tokens: 5
events: /[89]|1\d/



=== TEST 7: CRLF, CR and a BOM are line ends and a BOM
--- location
--- sim: tokens=5; eol=crlf; bom=1
--- response_body_like eval
qr/\A\xEF\xBB\xBFdata: .*data: \[DONE\]\r\n\r\n\z/s
--- log
end: done
completion_tokens: 5



=== TEST 8: CR alone
--- location
--- sim: tokens=5; eol=cr; split=3
--- response_body_like eval
qr/\Adata: [^\n]*data: \[DONE\]\r\r\z/s
--- log
end: done
completion_tokens: 5



=== TEST 9: an HTTP/1.0 upstream that ends by closing is complete with its marker
--- location
--- sim: tokens=5; http=1.0
--- response_body_like eval
qr/data: \[DONE\]\n\n\z/
--- log
end: done
completion_tokens: 5



=== TEST 10: anthropic: prompt tokens, completion tokens and the end
--- location
--- path: /v1/messages
--- body: {"model":"claude","stream":true,"max_tokens":50,"messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=6
--- response_body_like eval
qr/event: message_start.*event: message_stop\ndata: [^\n]+\n\n\z/s
--- log
end: done
dialect: anthropic
model: claude
usage_source: upstream
completion_tokens: 6



=== TEST 11: responses
--- location
--- path: /v1/responses
--- body: {"model":"m","stream":true,"input":"hello"}
--- sim: tokens=6
--- response_body_like: response\.completed
--- log
end: done
dialect: openai
usage_source: upstream
completion_tokens: 6



=== TEST 12: completions
--- location
--- path: /v1/completions
--- body: {"model":"m","stream":true,"prompt":"hello"}
--- sim: tokens=6
--- response_body_unlike: "choices":\[\]
--- log
end: done
usage_source: upstream
completion_tokens: 6



=== TEST 13: ollama's lines
--- location
--- path: /api/chat
--- body: {"model":"llama","messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=6
--- response_body_like eval
qr/"done":true[^\n]*\n\z/
--- log
end: done
dialect: ollama
is_stream: 1
usage_source: upstream
completion_tokens: 6



=== TEST 14: gemini
--- location
--- path: /v1beta/models/gemini-pro:streamGenerateContent?alt=sse
--- body: {"contents":[{"role":"user","parts":[{"text":"hello"}]}]}
--- sim: tokens=6
--- response_body_like: finishReason
--- log
end: done
dialect: gemini
model: gemini-pro
is_stream: 1
usage_source: upstream
completion_tokens: 6



=== TEST 15: ernie
--- location
--- path: /rpc/2.0/ai_custom/v1/wenxinworkshop/chat/ernie-4
--- body: {"stream":true,"messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=6
--- response_body_like: "is_end":true
--- log
end: done
dialect: ernie
model: ernie-4
usage_source: upstream
completion_tokens: 6



=== TEST 16: an answer that is not streamed is read too
--- location
--- body: {"model":"sim","messages":[{"role":"user","content":"hello"}]}
--- sim: tokens=6
--- response_headers
Content-Type: application/json
--- response_body_like: "completion_tokens":\s*6
--- log
end: done
is_stream: 0
usage_source: upstream
completion_tokens: 6
served_model: sim



=== TEST 17: embeddings have no completion, and say so
--- location
--- path: /v1/embeddings
--- body: {"model":"embed","input":"hello world"}
--- response_body_like: embedding
--- log
end: done
usage_source: upstream
prompt_tokens: /[1-9]\d*/
completion_tokens: -



=== TEST 18: upstream is asked for an answer that can be read, and gzip leaves streams alone
--- location
gzip on;
gzip_types text/event-stream;
--- more_headers
Accept-Encoding: gzip
--- response_headers
Content-Encoding:
--- log
end: done
usage_source: upstream



=== TEST 19: a compressed stream passes untouched, with one warning and an estimate
--- location
--- sim: tokens=6; gzip=1
--- response_headers
Content-Encoding: gzip
--- response_body_like eval
qr/\A\x1f\x8b/
--- error_log
passes unread
--- log
end: done
usage_source: none
prompt_tokens: /[1-9]\d*/
completion_tokens: -



=== TEST 20: what is no request to a model passes as it did
--- location
--- request
GET /v1/models
--- response_body_like: "data"
--- log
is_stream: /-|0/
usage_source: none
prompt_tokens: -



=== TEST 21: a content filter's end is told from others
--- location
--- sim: tokens=6; fault=filter; at=3
--- response_body_like: content_filter
--- log
end: content_filter
finish_reason: content_filter



=== TEST 22: continuous usage replaces itself, zero is a value
--- location
--- sim: tokens=6; usage={"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}
--- log
end: done
usage_source: upstream
prompt_tokens: 0
completion_tokens: 0
