
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"
#include "opt.h"
#include "sim.h"


#define SIM_DEFAULT_LISTEN  "127.0.0.1:9001"

typedef struct {
    struct sockaddr_in   first;
    unsigned             last_port;
} sim_listen_t;


static int sim_set_listen(const char *value);
static int sim_set_speed(const char *value);
static int sim_start(void);
static int sim_start_server(sim_server_t *s, const sim_listen_t *l,
    unsigned port);


sim_conf_t  sim_conf = {
    .prefill_per_sec = 20000,
    .itl_ms = 20,
    .itl_slope_ms = 0.3,
    .time_scale = 1,
    .batch = 64,
    .chunk = SIM_BLOCK_TOKENS,
    .tokens = 64
};


static sim_listen_t  *sim_listens;
static size_t         sim_nlistens;

static double         sim_speeds[65536];


static const char  sim_help[] =
"llm-sim: simulates LLM inference servers, many in one process\n"
"\n"
"  --listen ADDR:PORT[-PORT]  each port is one server; ADDR numeric (IPv4),\n"
"                             localhost or *; repeatable\n"
"                             (default " SIM_DEFAULT_LISTEN ")\n"
"  --prefill N       prompt tokens a second of one server (default 20000)\n"
"  --itl MS          time between tokens at batch size 1 (default 20)\n"
"  --itl-slope MS    added for each further request that is decoding\n"
"                    (default 0.3)\n"
"  --batch N         requests worked on at once, others queue (default 64)\n"
"  --chunk N         prompt tokens computed in one step (default 512)\n"
"  --speed PORT=X    speed factor of one server (default 1); repeatable\n"
"  --tokens N        length of an answer, if the request does not ask for\n"
"                    fewer (default 64)\n"
"  --time-scale X    all modelled times are divided by X (default 1)\n"
"  --prefix-cache N  tokens of prefix cache of one server, in blocks of 512\n"
"                    (2 KB of text), least recently used (default 0: off)\n"
"  --quiet           no counters on stderr at the end\n"
"  --help\n"
"\n"
"POST /v1/chat/completions /v1/completions /v1/responses /v1/embeddings\n"
"     /v1/messages /api/chat /api/generate\n"
"     /v1beta/models/MODEL:generateContent\n"
"     /v1beta/models/MODEL:streamGenerateContent[?alt=sse]\n"
"     /rpc/2.0/ai_custom/v1/wenxinworkshop/chat/MODEL\n"
"GET  /v1/models\n"
"GET  /sim/stats: counters of all servers; DELETE /sim/stats zeroes them\n"
"     (made_tokens: with those of answers that are under way)\n"
"     requests = completed + aborted (the client left before the end)\n"
"     + faulted (spoiled as below) + inflight; times in modelled ms: busy_ms\n"
"     the steps of the batch, late_ms by how much their ends came late, in\n"
"     all, late_max_ms at worst: the machine is too busy for --time-scale\n"
"\n"
"Prints \"llm-sim ready: ADDR:PORT...\" when it listens; ends on SIGTERM.\n"
"\n"
"A token of the prompt is four bytes of its text.  A step of a server makes\n"
"one token for every request that decodes and computes up to --chunk tokens\n"
"of waiting prompts; it lasts the sum of both times.\n"
"\n"
"Request header \"X-LLM-Sim: key=value; key=value\" (a value with a semicolon\n"
"in quotes; an unknown key is a 400):\n"
"  tokens=N       length of the answer (max_tokens etc. still limit it)\n"
"  itl=MS         between this request's tokens; 0: as fast as can be\n"
"  ttft=MS        until its first token, instead of the prefill\n"
"  words=N        bytes of each token's text\n"
"  say=TEXT       each token's text, as it is in the JSON string; %XX: a byte\n"
"  line=N         behind the first content event one of a line with N bytes;\n"
"  lines=N        one of N lines \"data: x\" (LF alone); with itl=0: as fast\n"
"                 as the client reads\n"
"  tool=1         call a tool, if the request has any\n"
"  status=CODE    answer with this status and the dialect's JSON error; with\n"
"                 fault=error..: what the error event says\n"
"  retry_after=S  with it: Retry-After, retry-after-ms\n"
"  fault=F        what goes wrong:\n"
"     reset       RST\n"
"     close       FIN, without the proper end of the body\n"
"     stall       silence, the connection stays open\n"
"     comments    only \": ping\" every 100 ms, for ever\n"
"     error       the dialect's error event, then a proper end of the body\n"
"                 without terminal marker (not streamed: status 500)\n"
"     error-stay  the error event, then silence\n"
"     filter      stopped by a content filter, a normal end\n"
"     midevent    half of an event, then FIN;  midevent-reset  then RST\n"
"     badchunk    an invalid chunk header, then FIN\n"
"     midchunk    half of a chunk header, then FIN;  midchunk-reset  then RST\n"
"     end         a proper end of the body, but no terminal marker\n"
"  at=header|first|N  when: before any byte (faults that need a body: header,\n"
"                 no life-cycle events), before the first content event\n"
"                 (default), after N of them; not streamed: within the body\n"
"  only=PORT      fault, status and ttft apply at this server only\n"
"  on=PORT        the keys behind it are for this server, until the next on\n"
"  usage=none     no usage in the answer;  usage=JSON: this one, verbatim\n"
"  extra=JSON     one more event before the first content event\n"
"  split=N        send N bytes at a time\n"
"  eol=lf|crlf|cr  line ends of the stream;  bom=1  a BOM before it\n"
"  http=1.0       no chunks, closing ends the body\n"
"  length=0       no Content-Length in an answer that is not streamed\n"
"  gzip=1         compressed (really: stored);  gzip=lie  only says so\n";


static const opt_t  sim_opts[] = {
    { "listen", OPT_CALL, NULL, 0, sim_set_listen },
    { "prefill", OPT_NUMBER, &sim_conf.prefill_per_sec, 1, NULL },
    { "itl", OPT_NUMBER, &sim_conf.itl_ms, 0, NULL },
    { "itl-slope", OPT_NUMBER, &sim_conf.itl_slope_ms, 0, NULL },
    { "batch", OPT_COUNT, &sim_conf.batch, 1, NULL },
    { "chunk", OPT_COUNT, &sim_conf.chunk, 1, NULL },
    { "speed", OPT_CALL, NULL, 0, sim_set_speed },
    { "tokens", OPT_COUNT, &sim_conf.tokens, 0, NULL },
    { "time-scale", OPT_NUMBER, &sim_conf.time_scale, 0.001, NULL },
    { "prefix-cache", OPT_COUNT, &sim_conf.cache_tokens, 0, NULL },
    { "quiet", OPT_FLAG, &sim_conf.quiet, 0, NULL },
    { NULL, OPT_FLAG, NULL, 0, NULL }
};


int
main(int argc, char *argv[])
{
    int     rc;
    buf_t  *b;

    rc = opt_parse(sim_opts, sim_help, argc, argv);

    if (rc != -1) {
        return rc;
    }

    if (sim_nlistens == 0) {
        sim_set_listen(SIM_DEFAULT_LISTEN);
    }

    net_raise_files();

    if (loop_init() == -1 || sim_start() == -1) {
        return 1;
    }

    loop_run();

    if (!sim_conf.quiet) {
        b = sim_json();
        sim_stats_json(b);
        fputs(b->data, stderr);
    }

    return 0;
}


/* ADDR:PORT[-PORT] */

static int
sim_set_listen(const char *value)
{
    str_t          first, last;
    double         port;
    sim_listen_t  *l;

    sim_listens = mem_grow(sim_listens, sim_nlistens, sizeof(sim_listen_t));

    l = &sim_listens[sim_nlistens];

    last = (str_t) { value, strlen(value) };
    str_split(&last, '-', &first);

    if (net_parse_addr(first, &l->first) == -1) {
        return -1;
    }

    port = ntohs(l->first.sin_port);

    if (last.data != NULL
        && (str_number(last, &port) == -1
            || !(port >= ntohs(l->first.sin_port) && port <= 65535)))
    {
        return -1;
    }

    l->last_port = (unsigned) port;

    sim_nlistens++;
    sim_conf.nservers += l->last_port - ntohs(l->first.sin_port) + 1;

    return 0;
}


/* PORT=X */

static int
sim_set_speed(const char *value)
{
    str_t   port, speed;
    double  n, x;

    speed = (str_t) { value, strlen(value) };
    str_split(&speed, '=', &port);

    if (str_number(port, &n) == -1 || !(n >= 1 && n <= 65535)
        || str_number(speed, &x) == -1 || !(x >= 0.001 && x <= 1e6))
    {
        return -1;
    }

    sim_speeds[(unsigned) n] = x;

    return 0;
}


static int
sim_start(void)
{
    size_t               i;
    unsigned             port;
    sim_server_t        *s;
    const sim_listen_t  *l;

    sim_conf.servers = mem_zero_alloc(sim_conf.nservers * sizeof(sim_server_t));

    s = sim_conf.servers;

    for (i = 0; i < sim_nlistens; i++) {
        l = &sim_listens[i];

        for (port = ntohs(l->first.sin_port); port <= l->last_port; port++) {

            if (sim_start_server(s++, l, port) == -1) {
                return -1;
            }
        }
    }

    printf("llm-sim ready:");

    for (i = 0; i < sim_nlistens; i++) {
        l = &sim_listens[i];
        port = ntohs(l->first.sin_port);

        printf(" %s:%u", inet_ntoa(l->first.sin_addr), port);

        if (l->last_port > port) {
            printf("-%u", l->last_port);
        }
    }

    printf("\n");
    fflush(stdout);

    return 0;
}


static int
sim_start_server(sim_server_t *s, const sim_listen_t *l, unsigned port)
{
    struct sockaddr_in  sin;

    sin = l->first;
    sin.sin_port = htons((uint16_t) port);

    s->port = port;
    s->speed = sim_speeds[port] > 0 ? sim_speeds[port] : 1;

    sim_batch_init(s);

    s->event.fd = net_listen(&sin);
    s->event.handler = sim_accept_handler;
    s->accept.handler = sim_accept_timer;

    if (s->event.fd == -1) {
        fprintf(stderr, "llm-sim: port %u: %s\n", port, strerror(errno));
        return -1;
    }

    return loop_add(&s->event);
}
