
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <string.h>

#include "ngx_llm_estimate.h"
#include "tap.h"


/* what the encoding o200k_base makes of a text */

typedef struct {
    const char  *name;
    int64_t      tokens;
    const char  *text;
} sample_t;


static const sample_t  samples[] = {

    { "English", 74,
      "The committee met again on Thursday, and after two hours"
      " of discussion it was clear that nobody had changed their"
      " mind. Some members wanted to repair the old bridge; others"
      " thought that the money would be better spent on a new"
      " one, further down the river, where the road is wider."
      " In the end they agreed to ask the engineers for a second"
      " report before the summer." },

    { "a turn of a chat", 43,
      "Sure! Here's a quick way to do it: first install the package,"
      " then open the settings page and choose \"Import\". If"
      " that doesn't work, let me know which version you're using"
      " and I'll have another look." },

    { "German", 61,
      "Die Gemeinde hat beschlossen, die alte Brücke über den"
      " Fluss noch einmal gründlich untersuchen zu lassen. Während"
      " einige Mitglieder für eine schnelle Reparatur waren,"
      " hielten andere einen Neubau weiter flussabwärts für"
      " vernünftiger, weil dort die Straße breiter ist und größere"
      " Fahrzeuge durchkommen." },

    { "French", 62,
      "La commission s'est réunie une nouvelle fois jeudi, et"
      " après deux heures de débat il était évident que personne"
      " n'avait changé d'avis. Certains membres voulaient réparer"
      " le vieux pont ; d'autres préféraient en construire un"
      " nouveau, plus loin sur la rivière, là où la route est"
      " plus large." },

    { "Russian", 65,
      "Комиссия снова собралась в четверг,"
      " и после двух часов обсуждения"
      " стало ясно, что никто не изменил"
      " своего мнения. Одни хотели отремонтир"
      "овать старый мост, другие считали,"
      " что деньги лучше потратить на"
      " новый, ниже по течению реки, где"
      " дорога шире." },

    { "Chinese", 68,
      "委员会星期四再次开会，经过两个小时的"
      "讨论，大家仍然坚持自己的意见。有些委"
      "员希望修理旧桥，另一些人认为应该把钱"
      "用在河流下游的新桥上，因为那里的道路"
      "更宽。最后他们同意在夏天之前请工程师"
      "再写一份报告。" },

    { "Japanese", 78,
      "委員会は木曜日に再び開かれ、二時間の"
      "議論の後も誰も意見を変えていないこと"
      "が明らかになった。古い橋を修理したい"
      "委員もいれば、道が広い下流に新しい橋"
      "を架けるほうがよいと考える人もいた。" },

    { "Korean", 73,
      "위원회는 목요일에 다시 모였고, 두 시간"
      " 동안 논의한 뒤에도 아무도 생각을 바꾸"
      "지 않았다는 것이 분명해졌다. 어떤 위원"
      "들은 오래된 다리를 고치기를 원했고, 다"
      "른 위원들은 길이 더 넓은 하류에 새 다"
      "리를 놓는 것이 낫다고 생각했다." },

    { "C", 99,
      "static int\nlist_insert(struct list *list, struct node"
      " *node, int key)\n{\n    struct node  **prev;\n"
      "\n    for (prev = &list->head; *prev != NULL; prev = &(*prev)->next)"
      " {\n        if ((*prev)->key >= key) {\n"
      "            break;\n        }\n"
      "    }\n\n    node->key = key;\n"
      "    node->next = *prev;\n"
      "    *prev = node;\n    list->count++;\n"
      "\n    return 0;\n}\n" },

    { "Python", 100,
      "def read_table(path, sep=\",\"):\n"
      "    rows = []\n    with open(path, encoding=\"utf-8\")"
      " as handle:\n        header = handle.readline().rstrip().split(sep)\n"
      "        for number, line in enumerate(handle, start=2):\n"
      "            values = line.rstrip().split(sep)\n"
      "            if len(values) != len(header):\n"
      "                raise ValueError(f\"line {number}: expected"
      " {len(header)} values\")\n"
      "            rows.append(dict(zip(header, values)))\n"
      "    return rows\n" },

    { "JavaScript", 97,
      "export async function fetchUsers(page, { limit = 20, signal"
      " } = {}) {\n  const response = await fetch(`/api/users?page=${page}&lim"
      "it=${limit}`, { signal });\n"
      "  if (!response.ok) {\n    throw new Error(`Request failed:"
      " ${response.status}`);\n  }\n"
      "  const { items, nextPage } = await response.json();\n"
      "  return items.map((user) => ({ ...user, fullName: `${user.first}"
      " ${user.last}` }));\n}\n" },

    { "JSON", 75,
      "{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"descrip"
      "tion\":\"Get the current weather in a given location\",\"parameters\":{"
      "\"type\":\"object\",\"properties\":{\"location\":{\"type\":\"string\","
      "\"description\":\"The city and state, e.g. San Francisco,"
      " CA\"},\"unit\":{\"type\":\"string\",\"enum\":[\"celsius\",\"fahrenheit"
      "\"]}},\"required\":[\"location\"]}}}" },

    { "base64", 218,
      "OLTmUuRNp/I3DZ4mDicTZVCko6bQf1wMMy+LEiQIP9IrkC+JEegYGPjJnV1dmDGVdQTZDpR"
      "d4uj1TueBzHX2NthQmQlaowAWWmcDb5tUDWuPC+IRJBecPdn3OBfObhGNJkqtbLbdIQ+vlK"
      "zTz5LBkCN8sR9dEIzyWTAmOTizcKG1dp+g8Ug/lakNnfLxMNYPzwS9k/UK5pUU2oxlnOKxD"
      "Mza6/mQ0Zg4sNfsCz6XgY7LlsTbrb4XIpbVI0pCskxrpObtJOxjaorAoSceWGYnkjiq+E5Y"
      "BW2PL6jt0JS6l66LFUQu4tthGpG/45RpczqS" },

    { "numbers", 98,
      "3.14159 2718281 1024 65536 0.5772 42 1000000 20240131 8080"
      " 127 299792458 6.022 1.618 365 86400 3600 1440 525600 31536000"
      " 1729 12345 67890 24601 90210 0.001 19.99 149597870 384400"
      " 5 17" }
};

#define SAMPLES  (sizeof(samples) / sizeof(samples[0]))


static uint64_t
rnd(void)
{
    static uint64_t  state = 0xda3e39cb94b95bdb;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;

    return state;
}


static int64_t
raw(const char *p)
{
    ngx_llm_text_t  text;

    memset(&text, 0, sizeof(text));
    ngx_llm_text_add(&text, (const unsigned char *) p, strlen(p));

    return ngx_llm_estimate_raw(&text);
}


static void
test_raw(void)
{
    size_t          i;
    int64_t         off, sum, tokens;
    ngx_llm_text_t  text;

    sum = 0;

    for (i = 0; i < SAMPLES; i++) {
        tokens = raw(samples[i].text);
        off = 100 * tokens / samples[i].tokens - 100;
        sum += (off < 0) ? -off : off;

        tap_ok(off >= -40 && off <= 40, "%s: %d of %d tokens, %+d%%",
               samples[i].name, (int) tokens, (int) samples[i].tokens,
               (int) off);
    }

    tap_ok(sum / (int64_t) SAMPLES <= 15, "%d%% off in the mean",
           (int) (sum / (int64_t) SAMPLES));

    tap_int(raw(""), 0, "no text, no tokens");
    tap_int(raw(" "), 1, "any text has a token");

    for (i = 0; i < NGX_LLM_TEXT_CLASSES; i++) {
        memset(&text, 0, sizeof(text));

        text.bytes[i] = UINT32_MAX;
        tap_ok(ngx_llm_estimate_raw(&text) >= NGX_LLM_MAX_TOKENS / 2
               && ngx_llm_estimate_raw(&text) <= NGX_LLM_MAX_TOKENS,
               "class %d at its most", (int) i);

        text.bytes[i] = 1;
        tap_int(ngx_llm_estimate_raw(&text), 1, "a byte of it is a token");
    }

    memset(&text, 0, sizeof(text));
    text.flips = UINT32_MAX;
    tap_int(ngx_llm_estimate_raw(&text), NGX_LLM_MAX_TOKENS,
            "capitals saturate");
}


static void
test_estimate(void)
{
    ngx_llm_ratio_t  ratio;

    memset(&ratio, 0, sizeof(ratio));

    tap_int(ngx_llm_estimate(NULL, 100, 0), 100, "no ratio");
    tap_int(ngx_llm_estimate(&ratio, 100, 0), 100, "nothing learned");

    ratio.ratio_16 = 65536 * 3 / 2;

    tap_int(ngx_llm_estimate(&ratio, 100, 0), 150, "a ratio");
    tap_int(ngx_llm_estimate(&ratio, 100, 800), 950,
            "parts are not corrected");
    tap_int(ngx_llm_estimate(&ratio, 0, 0), 0, "nothing");
    tap_int(ngx_llm_estimate(&ratio, -5, -5), 0, "less than nothing");

    ratio.ratio_16 = 1;

    tap_int(ngx_llm_estimate(&ratio, 1, 0), 1, "a token remains one");
    tap_int(ngx_llm_estimate(&ratio, INT64_MAX, 0), 15259,
            "an absurd text is cut first");

    ratio.ratio_16 = UINT32_MAX;

    tap_int(ngx_llm_estimate(&ratio, INT64_MAX, INT64_MAX),
            NGX_LLM_MAX_TOKENS, "all of it saturates");
    tap_int(ngx_llm_estimate(&ratio, 0, INT64_MAX), NGX_LLM_MAX_TOKENS,
            "parts saturate");
}


static void
test_learn(void)
{
    size_t           i;
    int64_t          known;
    ngx_llm_ratio_t  ratio;

    memset(&ratio, 0, sizeof(ratio));

    ngx_llm_ratio_learn(&ratio, 7, 100);
    ngx_llm_ratio_learn(&ratio, 100, 7);
    ngx_llm_ratio_learn(&ratio, 100, -1);
    ngx_llm_ratio_learn(&ratio, -1, 100);
    ngx_llm_ratio_learn(&ratio, INT64_MAX, 100);
    ngx_llm_ratio_learn(&ratio, 100, INT64_MAX);
    tap_ok(ratio.ratio_16 == 0 && ratio.samples == 0,
           "what is short or absurd is not learned from");

    ngx_llm_ratio_learn(&ratio, 100, 150);
    tap_ok(ratio.ratio_16 == 98304 && ratio.samples == 1,
           "the first answer is the ratio");

    ngx_llm_ratio_learn(&ratio, 100, 50);
    tap_ok(ratio.ratio_16 == 65536 && ratio.samples == 2,
           "two answers are their mean");

    ngx_llm_ratio_learn(&ratio, 800, 1600);
    tap_int(ratio.ratio_16, 1800 * 65536 / 1000,
            "of long texts and short ones the ratio of their sums");

    memset(&ratio, 0, sizeof(ratio));
    ngx_llm_ratio_learn(&ratio, 10, 1000000);
    tap_int(ratio.ratio_16, 4 * 65536, "a lie is bounded above");

    memset(&ratio, 0, sizeof(ratio));
    ngx_llm_ratio_learn(&ratio, 1000000, 10);
    tap_int(ratio.ratio_16, 65536 / 4, "and below");

    for (i = 0; i < 200; i++) {
        ngx_llm_ratio_learn(&ratio, 100, 200);
    }

    tap_ok(ratio.ratio_16 > 130000 && ratio.ratio_16 <= 131072,
           "old answers decay: a lie of a million is gone after 200");

    known = ratio.ratio_16;

    ngx_llm_ratio_learn(&ratio, 1000000, 1000000);
    tap_ok(llabs(5 * (int64_t) ratio.ratio_16 - 4 * known - 65536) < 10,
           "one answer is at most a fifth of what is known");

    ratio.samples = UINT32_MAX;
    ngx_llm_ratio_learn(&ratio, 100, 200);
    tap_ok(ratio.samples == UINT32_MAX, "the count of answers saturates");
}


static void
test_margin(void)
{
    int              i;
    int64_t          last, margin;
    ngx_llm_ratio_t  ratio;

    memset(&ratio, 0, sizeof(ratio));

    tap_int(ngx_llm_estimate_margin(NULL, 1000), 250,
            "of a model that nobody knows a quarter more is reserved");
    tap_int(ngx_llm_estimate_margin(&ratio, 1000), 250,
            "also of one that has taught nothing");
    tap_int(ngx_llm_estimate_margin(&ratio, 3), 0, "small ones have none");
    tap_int(ngx_llm_estimate_margin(&ratio, INT64_MAX),
            NGX_LLM_MAX_TOKENS / 4, "and absurd ones are bounded");

    ngx_llm_ratio_learn(&ratio, 100, 200);

    tap_int(ngx_llm_estimate_margin(&ratio, 1000), 250,
            "an eighth behind one answer, of the corrected estimate");

    last = 250;

    for (i = 0; i < 14; i++) {
        ngx_llm_ratio_learn(&ratio, 100, 200);

        margin = ngx_llm_estimate_margin(&ratio, 1000);
        tap_ok(margin < last, "each answer makes less of it");
        last = margin;
    }

    ngx_llm_ratio_learn(&ratio, 100, 200);

    tap_int(ngx_llm_estimate_margin(&ratio, 1000), 0,
            "and behind 16 there is none");
}


/*
 * A short text has as much overhead as a long one: the mean of all ratios
 * would be too small for the long ones, of which a budget is made.
 */

static void
test_sums(void)
{
    size_t           i;
    int64_t          estimated, raw_tokens, reported, spent;
    ngx_llm_ratio_t  ratio;

    memset(&ratio, 0, sizeof(ratio));

    estimated = 0;
    spent = 0;

    for (i = 0; i < 10000; i++) {
        raw_tokens = (i % 2 ? 20 : 1000) + rnd() % 100;
        reported = raw_tokens - 7 + raw_tokens * (rnd() % 11) / 100;

        if (i >= 50) {
            estimated += ngx_llm_estimate(&ratio, raw_tokens, 0);
            spent += reported;
        }

        ngx_llm_ratio_learn(&ratio, raw_tokens, reported);
    }

    tap_ok(estimated * 1000 > spent * 998 && estimated * 1000 < spent * 1002,
           "all estimates together are within 0.2%%: %.4f",
           (double) estimated / spent);
}


/*
 * 50 answers about one kind of text, of which each is up to 30% more or less
 * dense than the kind: the estimate then is right within 10% in the median.
 */

static void
test_convergence(void)
{
    size_t           i, j, k, close;
    int64_t          estimate, raws[SAMPLES], reported, size;
    ngx_llm_ratio_t  ratio;

    for (i = 0; i < SAMPLES; i++) {
        raws[i] = raw(samples[i].text);
    }

    close = 0;

    for (i = 0; i < 1000; i++) {
        k = i % SAMPLES;
        memset(&ratio, 0, sizeof(ratio));

        for (j = 0; j < 50; j++) {
            size = 1 + rnd() % 20;
            reported = samples[k].tokens * size * (700 + rnd() % 601) / 1000;
            ngx_llm_ratio_learn(&ratio, raws[k] * size, reported);
        }

        estimate = ngx_llm_estimate(&ratio, raws[k] * 10, 0);
        reported = samples[k].tokens * 10;

        close += estimate * 10 >= reported * 9
                 && estimate * 10 <= reported * 11;
    }

    tap_ok(close >= 950, "after 50 answers %d of 1000 are within 10%%",
           (int) close);
}


int
main(void)
{
    test_raw();
    test_estimate();
    test_learn();
    test_margin();
    test_sums();
    test_convergence();

    return tap_done();
}
