
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#ifndef LLM_LOAD_H
#define LLM_LOAD_H


#include <stdint.h>

#include "buf.h"
#include "http.h"
#include "loop.h"
#include "net.h"


/*
 * The load generator: arrive.c decides when a request starts, a job what it
 * asks for (trace.c, generate.c); body.c writes it down, conn.c carries it,
 * reply.c takes the answer apart, dialect.c understands its events, log.c and
 * report.c say how it all went.
 */

#define LOAD_BLOCK_TOKENS   512
#define LOAD_TOKEN_BYTES    4
#define LOAD_STATUS_SIZE    1000

typedef struct load_conn_s    load_conn_t;
typedef struct load_target_s  load_target_t;

typedef enum {
    LOAD_OPENAI = 0,
    LOAD_ANTHROPIC,
    LOAD_RESPONSES,
    LOAD_OLLAMA,
    LOAD_GEMINI
} load_dialect_e;

/* how a request ended; LOAD_UNFINISHED: we were told to stop */
typedef enum {
    LOAD_COMPLETE = 0,
    LOAD_HTTP_ERROR,
    LOAD_ERROR_EVENT,
    LOAD_TRUNCATED,
    LOAD_ABORTED,
    LOAD_UNFINISHED,
    LOAD_REFUSED,
    LOAD_RESET,
    LOAD_CLOSED,
    LOAD_MALFORMED,
    LOAD_TIMEOUT,
    LOAD_LOCAL,
    LOAD_OUTCOMES
} load_outcome_e;

/* one request to make; blocks name the text of the prompt's blocks of 512 */
typedef struct {
    double            at_ms;
    uint64_t          prompt;           /* tokens */
    uint64_t          output;           /* tokens */
    uint64_t         *blocks;
    size_t            nblocks;
} load_job_t;

typedef struct {
    load_job_t       *jobs;
    size_t            njobs;
} load_trace_t;

struct load_target_s {
    struct sockaddr_in  addr;
    str_t               host;           /* with the port */
    str_t               path;
    link_t              idle;           /* connections kept alive */
};

typedef struct {
    load_target_t    *targets;
    size_t            ntargets;
    load_dialect_e    dialect;
    uint64_t          concurrency;
    uint64_t          requests;         /* 0: no limit */
    double            duration_sec;     /* 0: no limit */
    double            drain_sec;
    double            rate_per_sec;     /* 0: closed loop, or a trace */
    const char       *trace_file;
    const char       *generate;
    const char       *log_file;
    double            time_scale;
    uint64_t          limit;
    const char       *model;
    uint64_t          prompt_tokens;
    uint64_t          max_tokens;
    buf_t             headers;
    uint64_t          keys;
    uint64_t          abort_after;
    double            timeout_sec;
    uint64_t          seed;
    int               no_stream;
    int               include_usage;
    int               json;
    int               quiet;
    int               describe;
    load_trace_t      trace;
} load_conf_t;

/* what the answer itself reports; -1: it does not */
typedef struct {
    double            prompt;
    double            cached;
    double            completion;
} load_usage_t;

#define LOAD_HIST_SUB    64
#define LOAD_HIST_SIZE   (59 * LOAD_HIST_SUB)

/* microseconds, in buckets that are 1/64 wide of what they count */
typedef struct {
    uint64_t          count;
    uint64_t          max;
    double            sum;
    uint64_t          buckets[LOAD_HIST_SIZE];
} load_hist_t;

typedef struct {
    uint64_t          start_us;
    uint64_t          started;
    uint64_t          inflight;
    uint64_t          max_inflight;
    uint64_t          outcomes[LOAD_OUTCOMES];
    uint64_t          status[LOAD_STATUS_SIZE];
    uint64_t          left_open;        /* past the marker or error event */
    uint64_t          events;
    uint64_t          tokens;           /* content events */
    uint64_t          bytes;
    uint64_t          usages;
    load_usage_t      usage;
    load_hist_t       late;             /* of starting what was due */
    load_hist_t       first;
    load_hist_t       gap;
    load_hist_t       total;
} load_stats_t;

/* what an event is, as bits */
#define LOAD_IS_CONTENT  1
#define LOAD_IS_END      2
#define LOAD_IS_ERROR    4
#define LOAD_IS_USAGE    8

typedef enum {
    LOAD_BODY_JSON = 0,
    LOAD_BODY_SSE,
    LOAD_BODY_LINES
} load_body_e;

/* the answer so far */
typedef struct {
    int               status;           /* 0: no head yet */
    load_body_e       kind;
    http_body_t       body;
    buf_t             head;
    buf_t             line;             /* the one that is not complete */
    buf_t             name;             /* of the event */
    buf_t             data;             /* of the event, or the JSON */
    uint64_t          tokens;
    uint64_t          first_us;
    uint64_t          last_us;
    load_usage_t      usage;
    unsigned          keepalive:1;
    unsigned          skip_lf:1;
    unsigned          begun:1;          /* past where a BOM may stand */
    unsigned          ended:1;
    unsigned          failed:1;
} load_reply_t;

struct load_conn_s {
    link_t            link;
    loop_event_t      event;
    loop_timer_t      timer;
    load_target_t    *target;
    load_reply_t      reply;
    buf_t             out;
    uint64_t          start_us;
    uint64_t          number;           /* of the request, from 0 */
    uint64_t          prompt;           /* tokens asked for, as a job's */
    uint64_t          output;
    unsigned          busy:1;
    unsigned          connected:1;
    unsigned          dead:1;
};


extern load_conf_t    load_conf;
extern load_stats_t   load_stats;


/* arrive.c */
void load_arrive_start(void);
void load_arrive_again(int failed);

/* conn.c */
void load_conn_start(load_target_t *target, const load_job_t *job,
    uint64_t number, uint64_t start_us);
void load_conn_stop_all(void);

/* body.c: the request, head and body */
void load_body_write(buf_t *b, const load_target_t *target,
    const load_job_t *job, uint64_t number);

/*
 * reply.c: takes the bytes that came; HTTP_AGAIN: go on reading, HTTP_DONE:
 * the answer is complete, HTTP_ERROR: it is not HTTP.
 */
void load_reply_init(load_reply_t *reply);
int load_reply_read(load_reply_t *reply, str_t in, uint64_t now_us);
int load_reply_eof(load_reply_t *reply, uint64_t now_us);
void load_reply_free(load_reply_t *reply);

/* dialect.c: bits LOAD_IS_*; text is terminated, as is a whole JSON answer */
int load_dialect_event(const char *name, str_t data);
int load_dialect_answer(const char *text, load_usage_t *usage);
int load_dialect_usage(const char *text, load_usage_t *usage);
const char *load_dialect_path(load_dialect_e dialect);
int load_dialect_find(const char *name, load_dialect_e *dialect);

/* trace.c, generate.c: -1 with a message on stderr */
int load_trace_read(load_trace_t *trace, const char *file);
load_job_t *load_trace_add(load_trace_t *trace);
int load_generate(load_trace_t *trace, const char *kind);
void load_trace_describe(const load_trace_t *trace);

/* hist.c */
void load_hist_add(load_hist_t *h, uint64_t us);
uint64_t load_hist_percentile(const load_hist_t *h, double percent);

/* random.c */
uint64_t load_random(uint64_t *state);
double load_random_unit(uint64_t *state);
uint64_t load_random_mix(uint64_t a, uint64_t b);

/* log.c: -1 with a message on stderr; without open() nothing is written */
int load_log_open(const char *name);
void load_log_write(const load_conn_t *c, const char *outcome,
    uint64_t now_us);
int load_log_close(void);

/* report.c */
void load_report_start(void);
int load_report_end(void);
const char *load_report_outcome(load_outcome_e outcome);


#endif /* LLM_LOAD_H */
