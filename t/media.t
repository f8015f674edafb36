# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# What images and audio parts of a prompt count as: the estimate that is
# logged, reserved, and charged where upstream reports no usage.

use strict;
use warnings;

use lib 't/lib';

use LlmTest;
use LlmBlock;

our $Zone = "llm_limit_zone \$http_authorization zone=t:64k tokens=1M/d "
            . "count=prompt;\n";

# as long as a small picture and a second of sound

our $Base64 = 'QUJD' x 12_000;

our $Image = '{"type":"image_url","image_url":'
             . "{\"url\":\"data:image/png;base64,$Base64\"}}";
our $Audio = '{"type":"input_audio","input_audio":'
             . "{\"data\":\"$Base64\",\"format\":\"wav\"}}";

# a conversation of such parts; the frame of its one message is 7 tokens

sub parts {
    return '{"model":"sim","stream":true,"messages":[{"role":"user",'
           . '"content":[' . join(',', @_) . ']}]}';
}

no_long_string();
run_tests();

__DATA__

=== TEST 1: an image and an audio part are constants, not their bytes
--- location
--- body eval: ::parts($::Image, $::Image, $::Audio)
--- log
estimated_tokens: 2107



=== TEST 2: which the directive names
--- location
llm_media_tokens image=1600 audio=90;
--- body eval: ::parts($::Image, $::Image, $::Audio)
--- log
estimated_tokens: 3297



=== TEST 3: what it does not name has its default
--- location
llm_media_tokens audio=0;
--- body eval: ::parts($::Image, $::Audio)
--- log
estimated_tokens: 807



=== TEST 4: it is inherited
--- http_config
llm_media_tokens image=12 audio=5;
--- location
--- body eval: ::parts($::Image, $::Audio)
--- log
estimated_tokens: 24



=== TEST 5: as a whole: a line of its own takes nothing from the level above
--- http_config
llm_media_tokens image=12 audio=5;
--- location
llm_media_tokens image=100;
--- body eval: ::parts($::Image, $::Audio)
--- log
estimated_tokens: 607



=== TEST 6: an image by its URL counts the same
--- location
llm_media_tokens image=1600;
--- body eval
::parts('{"type":"image_url","image_url":{"url":"https://a/b.png"}}')
--- log
estimated_tokens: 1607



=== TEST 7: in another dialect, too
--- location
llm_media_tokens image=1600 audio=90;
--- path
/v1beta/models/m:streamGenerateContent?alt=sse
--- body eval
qq({"contents":[{"role":"user","parts":[
    {"inlineData":{"mimeType":"audio/wav","data":"$::Base64"}},
    {"inlineData":{"mimeType":"image/png","data":"$::Base64"}}]}]})
--- log
estimated_tokens: 1697



=== TEST 8: so much is reserved; what upstream counts is the bill
--- http_config eval: $::Zone
--- location
llm_media_tokens image=1600;
llm_limit zone=t;
--- more_headers
Authorization: one
--- sim
tokens=4; usage={"prompt_tokens":2222,"completion_tokens":4}
--- body eval: ::parts($::Image)
--- log
estimated_tokens: 1607
reserved_tokens: 1607
prompt_tokens: 2222



=== TEST 9: and the estimate is, where it does not count
--- http_config eval: $::Zone
--- location
llm_media_tokens image=1600;
llm_limit zone=t;
--- more_headers
Authorization: one
--- sim
tokens=4; usage=none
--- body eval: ::parts($::Image)
--- log
reserved_tokens: 1607
prompt_tokens: 1607
usage_source: estimate



=== TEST 10: pictures teach nothing of the model's text
--- location
llm_media_tokens image=1600;
--- request eval
[map { "POST /v1/chat/completions\n" . ::parts($::Image,
       '{"type":"text","text":"' . 'hello ' x 100 . '"}') } 1 .. 3]
--- more_headers
Content-Type: application/json
X-LLM-Sim: tokens=4; usage={"prompt_tokens":9999,"completion_tokens":4}
--- log
estimated_tokens: 1733
--- error_code eval
[200, 200, 200]
