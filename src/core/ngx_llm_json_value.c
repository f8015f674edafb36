
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_json.h"
#include "ngx_llm_utf8.h"


static ngx_llm_rc_e ngx_llm_json_exponent(const unsigned char *p, size_t len,
    int64_t *power);


ngx_llm_rc_e
ngx_llm_json_count(ngx_llm_str_t number, int64_t *count)
{
    size_t    i, zeros;
    int64_t   fraction, power, value;
    unsigned  point;

    value = 0;
    zeros = 0;
    fraction = 0;
    point = 0;

    /* zeros are held back until a digit follows: "10.50" ends as 105 */

    for (i = 0; i < number.len; i++) {

        if (number.data[i] == '.' && !point) {
            point = 1;
            continue;
        }

        if (number.data[i] < '0' || number.data[i] > '9') {
            break;
        }

        fraction += point;

        if (number.data[i] == '0') {
            zeros += (value != 0);
            continue;
        }

        for (zeros++; zeros; zeros--) {
            value *= 10;

            /* no exponent makes this an integer in range */

            if (value > NGX_LLM_MAX_TOKENS) {
                return NGX_LLM_INVALID;
            }
        }

        value += number.data[i] - '0';
    }

    if (i == 0
        || ngx_llm_json_exponent(&number.data[i], number.len - i, &power)
           != NGX_LLM_OK)
    {
        return NGX_LLM_INVALID;
    }

    power += (int64_t) zeros - fraction;

    if (value != 0) {

        if (power < 0 || power > 9) {
            return NGX_LLM_INVALID;
        }

        while (power--) {
            value *= 10;
        }

        if (value > NGX_LLM_MAX_TOKENS) {
            return NGX_LLM_INVALID;
        }
    }

    *count = value;

    return NGX_LLM_OK;
}


/* what stands behind a number's digits: nothing or an exponent */

static ngx_llm_rc_e
ngx_llm_json_exponent(const unsigned char *p, size_t len, int64_t *power)
{
    size_t    i;
    unsigned  minus;

    *power = 0;

    if (len == 0) {
        return NGX_LLM_OK;
    }

    if (len < 2 || (p[0] != 'e' && p[0] != 'E')) {
        return NGX_LLM_INVALID;
    }

    minus = (p[1] == '-');
    i = (minus || p[1] == '+') ? 2 : 1;

    if (i == len) {
        return NGX_LLM_INVALID;
    }

    for ( /* void */ ; i < len; i++) {

        if (p[i] < '0' || p[i] > '9') {
            return NGX_LLM_INVALID;
        }

        if (*power < INT32_MAX) {
            *power = *power * 10 + (p[i] - '0');
        }
    }

    if (minus) {
        *power = -*power;
    }

    return NGX_LLM_OK;
}


size_t
ngx_llm_json_escape(unsigned char *out, size_t size, ngx_llm_str_t text)
{
    size_t                n, len;
    unsigned char         ch, *p, buf[6];
    const unsigned char  *in, *last;

    static const char  hex[] = "0123456789abcdef";

    p = out;
    in = text.data;
    last = text.data + text.len;

    while (in < last) {
        ch = *in;
        n = ngx_llm_utf8_char(in, last - in);

        if (n == 0) {
            memcpy(buf, "\xef\xbf\xbd", 3);
            n = 1;
            len = 3;

        } else if (ch < 0x20) {
            memcpy(buf, "\\u00", 4);
            buf[4] = hex[ch >> 4];
            buf[5] = hex[ch & 0xf];
            len = 6;

        } else if (ch == '"' || ch == '\\') {
            buf[0] = '\\';
            buf[1] = ch;
            len = 2;

        } else {
            memcpy(buf, in, n);
            len = n;
        }

        if (len > size - (p - out)) {
            break;
        }

        memcpy(p, buf, len);
        p += len;
        in += n;
    }

    return p - out;
}
