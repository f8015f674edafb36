# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

package LlmLimit;

# What blocks about one limited key have in common; behind "use LlmBlock;".
# A day's rate does not refill while a test runs, and where only completion
# tokens count the numbers are exact: the prompt is an estimate at admission.

use strict;
use warnings;

use Exporter qw( import );

use LlmBlock ();

our @EXPORT = qw( $Zone $Completion $Ask $AskMost $Common $Headers );

our $Zone = 'llm_limit_zone $http_authorization zone=t:64k';

# 1000 completion tokens

our $Completion = "$Zone tokens=1k/d count=completion;\n";

our $Ask = "POST /v1/chat/completions\n$LlmBlock::Body";

# names a maximum of 300

our $AskMost = $Ask =~ s/"stream"/"max_tokens":300,"stream"/r;

our $Common = "Content-Type: application/json\n"
              . "Authorization: Bearer one\n";
our $Headers = "X-LLM-Sim: tokens=30\n$Common";


1;
