
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include "ngx_llm_estimate.h"
#include "request.h"


typedef struct {
    const ngx_llm_api_t  *api;
    const char           *body;
    const char           *want;
} case_t;


static void
test_facts(const case_t *cases, size_t n)
{
    size_t              i;
    const char         *got, *reason;
    ngx_llm_rc_e        rc;
    ngx_llm_request_t   request;

    for (i = 0; i < n; i++) {
        reason = NULL;
        rc = parse(&request, cases[i].api, cases[i].body,
                   strlen(cases[i].body), &reason);

        got = (rc == NGX_LLM_OK) ? facts(&request)
                                 : (reason != NULL) ? reason : "no reason";

        tap_str(got, strlen(got), cases[i].want, "%s", shown(cases[i].body));
    }
}


#define test_cases(cases)                                                     \
    test_facts(cases, sizeof(cases) / sizeof(cases[0]))


static const case_t  asked[] = {
    { CHAT, "{}", "model= stream=0 max=-1 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" },
    { CHAT, "{\"model\":\"m\",\"stream\":true,\"max_tokens\":7,\"n\":3,"
      "\"stream_options\":{\"include_usage\":true},"
      "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}",
      "model=m stream=1 max=7 n=3 usage=1 "
      "images=0 audios=0 messages=1 tokens=0 text=5" },

    /* the larger one of two maxima */

    { CHAT, "{\"max_tokens\":7,\"max_completion_tokens\":9}",
      "model= stream=0 max=9 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" },
    { CHAT, "{\"max_tokens\":9,\"max_completion_tokens\":7}",
      "model= stream=0 max=9 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" },

    /* null is as if it were not there */

    { CHAT, "{\"model\":null,\"stream\":null,\"max_tokens\":null,\"n\":null,"
      "\"stream_options\":null}",
      "model= stream=0 max=-1 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" },
    { OLLAMA, "{\"stream\":null}", "model= stream=1 max=-1 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" },

    /* integers, however they are written */

    { CHAT, "{\"max_tokens\":1e3,\"n\":2.0}",
      "model= stream=0 max=1000 n=2 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" },
    { CHAT, "{\"max_tokens\":1000000000,\"n\":1024}",
      "model= stream=0 max=1000000000 n=1024 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" },
    { CHAT, "{\"max_tokens\":0}", "model= stream=0 max=0 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" },

    /* keys are compared unescaped, and only where they belong */

    { CHAT, "{\"\\u0073tream\":true,\"m\\u006fdel\":\"m\"}",
      "model=m stream=1 max=-1 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" },
    { CHAT, "{\"metadata\":{\"stream\":true,\"n\":5,\"model\":\"x\","
      "\"max_tokens\":1},\"stream\":false}",
      "model= stream=0 max=-1 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" },

    /* a seed of 64 bits is nobody's concern */

    { CHAT, "{\"seed\":18446744073709551615,\"temperature\":1e400}",
      "model= stream=0 max=-1 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" },
    { CHAT, " \r\n\t{ } \r\n\t", "model= stream=0 max=-1 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" },

    { COMPLETE, "{\"prompt\":\"ab\",\"best_of\":4,\"n\":2}",
      "model= stream=0 max=-1 n=4 usage=-1 "
      "images=0 audios=0 messages=1 tokens=0 text=2" },
    { COMPLETE, "{\"n\":2,\"prompt\":[\"ab\",\"\",\"c\"]}",
      "model= stream=0 max=-1 n=6 usage=-1 "
      "images=0 audios=0 messages=3 tokens=0 text=3" },
    { COMPLETE, "{\"prompt\":[[1,22],[333]],\"best_of\":4}",
      "model= stream=0 max=-1 n=8 usage=-1 "
      "images=0 audios=0 messages=0 tokens=3 text=0" },
    { COMPLETE, "{\"prompt\":[\"ab\"]}",
      "model= stream=0 max=-1 n=1 usage=-1 "
      "images=0 audios=0 messages=1 tokens=0 text=2" },
    { COMPLETE, "{\"prompt\":[1,22,333]}",
      "model= stream=0 max=-1 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=3 text=0" },
    { RESPONSES, "{\"input\":\"ab\",\"instructions\":\"cde\","
      "\"max_output_tokens\":8}",
      "model= stream=0 max=8 n=1 usage=-1 "
      "images=0 audios=0 messages=1 tokens=0 text=5" },
    { EMBED, "{\"model\":\"e\",\"input\":[\"ab\",\"cd\"]}",
      "model=e stream=0 max=-1 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=4" },
    { ANTHROPIC, "{\"max_tokens\":5,\"system\":[{\"type\":\"text\","
      "\"text\":\"abc\"}],\"messages\":[]}",
      "model= stream=0 max=5 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=3" },
    { GEMINI, "{\"contents\":[{\"parts\":[{\"text\":\"ab\"}]}],"
      "\"generationConfig\":{\"maxOutputTokens\":6,\"candidateCount\":2}}",
      "model= stream=0 max=6 n=2 usage=-1 "
      "images=0 audios=0 messages=1 tokens=0 text=2" },
    { GEMINI, "{\"generation_config\":{\"max_output_tokens\":6,"
      "\"candidate_count\":2}}",
      "model= stream=0 max=6 n=2 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" },
    { OLLAMA, "{\"options\":{\"num_predict\":12}}",
      "model= stream=1 max=12 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" },
    { GENERATE, "{\"stream\":false,\"prompt\":\"ab\","
      "\"options\":{\"num_predict\":-1},\"context\":[1,2]}",
      "model= stream=0 max=-1 n=1 usage=-1 "
      "images=0 audios=0 messages=1 tokens=2 text=2" },
    { ERNIE, "{\"max_output_tokens\":9,\"system\":\"abc\"}",
      "model= stream=0 max=9 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=3" },
    { COHERE, "{\"model\":\"c\",\"max_tokens\":9,\"stream\":true}",
      "model=c stream=1 max=9 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" },

    /* what nothing is known of is read by all rows */

    { ANY, "{\"model\":\"m\",\"max_tokens\":3,\"max_output_tokens\":5,"
      "\"options\":{\"num_predict\":4}}",
      "model=m stream=0 max=5 n=1 usage=-1 "
      "images=0 audios=0 messages=0 tokens=0 text=0" }
};


/* parts count as such, their bytes do not */

static const case_t  parts[] = {
    { CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":["
      "{\"type\":\"text\",\"text\":\"ab\"},"
      "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:AAAA\"}},"
      "{\"type\":\"image_url\",\"image_url\":{\"url\":\"https://x\"}},"
      "{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"AAAA\"}}]}]}",
      "model= stream=0 max=-1 n=1 usage=-1 "
      "images=2 audios=1 messages=1 tokens=0 text=2" },
    { ANTHROPIC, "{\"messages\":[{\"role\":\"user\",\"content\":["
      "{\"type\":\"image\",\"source\":{\"type\":\"base64\","
      "\"media_type\":\"image/png\",\"data\":\"AAAAAAAAAAAA\"}}]}]}",
      "model= stream=0 max=-1 n=1 usage=-1 "
      "images=1 audios=0 messages=1 tokens=0 text=0" },
    { GEMINI, "{\"contents\":[{\"parts\":[{\"text\":\"ab\"},"
      "{\"inlineData\":{\"data\":\"AAAA\",\"mimeType\":\"audio/wav\"}},"
      "{\"inline_data\":{\"mime_type\": \"image/png\",\"data\":\"AA\"}}]}]}",
      "model= stream=0 max=-1 n=1 usage=-1 "
      "images=1 audios=1 messages=1 tokens=0 text=2" },
    { OLLAMA, "{\"messages\":[{\"role\":\"user\",\"content\":\"ab\","
      "\"images\":[\"AAAA\",\"BBBB\"]}]}",
      "model= stream=1 max=-1 n=1 usage=-1 "
      "images=2 audios=0 messages=1 tokens=0 text=2" },
    { RESPONSES, "{\"input\":[{\"role\":\"user\",\"content\":["
      "{\"type\":\"input_image\",\"image_url\":\"data:AAAA\"},"
      "{\"type\":\"input_text\",\"text\":\"ab\"}]}]}",
      "model= stream=0 max=-1 n=1 usage=-1 "
      "images=1 audios=0 messages=1 tokens=0 text=2" },

    /* tools are text as they are written, arguments too */

    { CHAT, "{\"tools\":[{\"a\":1}],\"messages\":[{\"role\":\"assistant\","
      "\"tool_calls\":[{\"id\":\"1\",\"function\":{\"name\":\"f\","
      "\"arguments\":\"{}\"}}]}]}",
      "model= stream=0 max=-1 n=1 usage=-1 "
      "images=0 audios=0 messages=1 tokens=0 text=12" },
    { OLLAMA, "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":["
      "{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1}}}]}]}",
      "model= stream=1 max=-1 n=1 usage=-1 "
      "images=0 audios=0 messages=1 tokens=0 text=8" },

    /* text counts unescaped */

    { CHAT, "{\"messages\":[{\"content\":\"\\u00e9\\n\\\"\"}]}",
      "model= stream=0 max=-1 n=1 usage=-1 "
      "images=0 audios=0 messages=1 tokens=0 text=4" }
};


#define COUNT  "an integer from 0 to 1000000000"
#define CHOICES  "an integer from 1 to 1024"

static const case_t  refused[] = {
    { CHAT, "", "empty document" },
    { CHAT, "[]", "the request must be a JSON object" },
    { CHAT, "null", "the request must be a JSON object" },
    { CHAT, "\"{}\"", "the request must be a JSON object" },
    { CHAT, "7", "the request must be a JSON object" },
    { CHAT, "[{}]", "the request must be a JSON object" },
    { CHAT, " ", "JSON syntax error" },
    { CHAT, "{", "JSON syntax error" },
    { CHAT, "{}{}", "JSON syntax error" },
    { CHAT, "{} x", "JSON syntax error" },
    { CHAT, "{\"n\":NaN}", "JSON syntax error" },
    { CHAT, "{\"n\":Infinity}", "JSON syntax error" },
    { CHAT, "{\"n\":1,}", "JSON syntax error" },
    { CHAT, "{'n':1}", "JSON syntax error" },
    { CHAT, "{\"seed\":01}", "JSON syntax error" },
    { CHAT, "\xef\xbb\xbf{}", "JSON syntax error" },
    { CHAT, "\xff\xfe{", "invalid UTF-8" },
    { CHAT, "{\"model\":\"\xc0\xaf\"}", "invalid UTF-8" },

    { CHAT, "{\"model\":\"a\",\"model\":\"a\"}", "duplicate \"model\"" },
    { CHAT, "{\"stream\":true,\"stream\":true}", "duplicate \"stream\"" },
    { CHAT, "{\"stream\":null,\"stream\":true}", "duplicate \"stream\"" },
    { CHAT, "{\"\\u0073tream\":false,\"stream\":true}",
      "duplicate \"stream\"" },
    { CHAT, "{\"max_tokens\":1,\"max_tokens\":9}",
      "duplicate \"max_tokens\"" },
    { CHAT, "{\"n\":1,\"n\":9}", "duplicate \"n\"" },
    { CHAT, "{\"stream_options\":{},\"stream_options\":{}}",
      "duplicate \"stream_options\"" },
    { CHAT, "{\"stream_options\":{\"include_usage\":true,"
      "\"include_usage\":false}}", "duplicate \"include_usage\"" },
    { OLLAMA, "{\"options\":{\"num_predict\":1},"
      "\"options\":{\"num_predict\":9}}", "duplicate \"num_predict\"" },

    { CHAT, "{\"model\":7}", "\"model\" must be a string" },
    { CHAT, "{\"model\":[]}", "\"model\" must be a string" },
    { CHAT, "{\"stream\":\"yes\"}", "\"stream\" must be true or false" },
    { CHAT, "{\"stream\":1}", "\"stream\" must be true or false" },
    { CHAT, "{\"stream\":{}}", "\"stream\" must be true or false" },
    { CHAT, "{\"stream_options\":true}",
      "\"stream_options\" must be an object" },
    { CHAT, "{\"stream_options\":[]}",
      "\"stream_options\" must be an object" },
    { CHAT, "{\"stream_options\":{\"include_usage\":1}}",
      "\"include_usage\" must be true or false" },
    { CHAT, "{\"max_tokens\":-1}", "\"max_tokens\" must be " COUNT },
    { CHAT, "{\"max_tokens\":1.5}", "\"max_tokens\" must be " COUNT },
    { CHAT, "{\"max_tokens\":\"12\"}", "\"max_tokens\" must be " COUNT },
    { CHAT, "{\"max_tokens\":true}", "\"max_tokens\" must be " COUNT },
    { CHAT, "{\"max_tokens\":{}}", "\"max_tokens\" must be " COUNT },
    { CHAT, "{\"max_tokens\":[1]}", "\"max_tokens\" must be " COUNT },
    { CHAT, "{\"max_tokens\":1000000001}", "\"max_tokens\" must be " COUNT },
    { CHAT, "{\"max_tokens\":18446744073709551616}",
      "\"max_tokens\" must be " COUNT },
    { CHAT, "{\"max_tokens\":1e308}", "\"max_tokens\" must be " COUNT },
    { CHAT, "{\"max_tokens\":1e-1}", "\"max_tokens\" must be " COUNT },
    { CHAT, "{\"max_completion_tokens\":-1}",
      "\"max_completion_tokens\" must be " COUNT },
    { RESPONSES, "{\"max_output_tokens\":-1}",
      "\"max_output_tokens\" must be " COUNT },
    { GEMINI, "{\"generationConfig\":{\"maxOutputTokens\":-1}}",
      "\"maxOutputTokens\" must be " COUNT },
    { OLLAMA, "{\"options\":{\"num_predict\":-1.5}}",
      "\"num_predict\" must be an integer up to 1000000000" },
    { OLLAMA, "{\"options\":{\"num_predict\":1e10}}",
      "\"num_predict\" must be an integer up to 1000000000" },
    { CHAT, "{\"n\":0}", "\"n\" must be " CHOICES },
    { CHAT, "{\"n\":-1}", "\"n\" must be " CHOICES },
    { CHAT, "{\"n\":1025}", "\"n\" must be " CHOICES },
    { CHAT, "{\"n\":1000000000}", "\"n\" must be " CHOICES },
    { CHAT, "{\"n\":\"2\"}", "\"n\" must be " CHOICES },
    { COMPLETE, "{\"best_of\":0}", "\"best_of\" must be " CHOICES },
    { ANY, "{\"options\":{\"num_predict\":[]}}",
      "\"num_predict\" must be an integer up to 1000000000" }
};


/* limits: depth, the model's length, memory */

static void
test_limits(void)
{
    char               *body;
    size_t              i, n;
    const char         *reason;
    ngx_llm_rc_e        rc;
    ngx_llm_scratch_t   scratch;
    ngx_llm_request_t   request;

    body = malloc(300000);
    if (body == NULL) {
        tap_bail("no memory");
    }

    n = sprintf(body, "{\"messages\":");
    memset(body + n, '[', 100000);

    rc = parse(&request, CHAT, body, n + 100000, &reason);
    tap_ok(rc == NGX_LLM_TOO_LARGE && reason != NULL, "depth of 100,000");

    n = sprintf(body, "{\"model\":\"");
    memset(body + n, 'm', 1000);
    n += 1000;
    n += sprintf(body + n, "\"}");

    rc = parse(&request, CHAT, body, n, &reason);
    tap_ok(rc == NGX_LLM_OK && request.model_len == NGX_LLM_MAX_MODEL
           && memcmp(request.model, body + 10, NGX_LLM_MAX_MODEL) == 0,
           "a long model's name is cut");

    n = sprintf(body, "{\"messages\":[{\"role\":\"user\",\"content\":\"");

    for (i = 0; i < 100000; i++) {
        n += sprintf(body + n, "\\n");
    }

    n += sprintf(body + n, "\"}],\"max_tokens\":5}");

    scratch.data = NULL;
    scratch.size_bytes = 0;

    rc = ngx_llm_request_parse(&request, CHAT, (unsigned char *) body, n,
                               &scratch, &reason);
    tap_ok(rc == NGX_LLM_OK && request.max_output == 5
           && ngx_llm_text_bytes(&request.text) == 100000,
           "a body larger than any scratch");

    free(body);
}


static void
test_part_tokens(void)
{
    ngx_llm_media_t    media = { 1000, 70 };
    ngx_llm_request_t  request;

    memset(&request, 0, sizeof(request));
    tap_int(ngx_llm_request_part_tokens(&request, &media), 0, "no parts");

    request.images = 2;
    request.audios = 3;
    request.tokens = 5;
    tap_int(ngx_llm_request_part_tokens(&request, &media), 2215,
            "images, audios and tokens");

    memset(&request, 0, sizeof(request));
    request.messages = 1;
    tap_ok(ngx_llm_request_part_tokens(&request, &media) > 0,
           "a message has its frame");

    memset(&request, 0xff, sizeof(request));
    media.image = NGX_LLM_MEDIA_TOKENS_MAX;
    media.audio = NGX_LLM_MEDIA_TOKENS_MAX;
    tap_ok(ngx_llm_request_part_tokens(&request, &media)
           > (int64_t) UINT32_MAX * NGX_LLM_MEDIA_TOKENS_MAX,
           "nothing overflows");
}


int
main(void)
{
    test_cases(asked);
    test_cases(parts);
    test_cases(refused);
    test_limits();
    test_part_tokens();

    return tap_done();
}
