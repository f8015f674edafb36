
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#ifndef LLM_SIM_H
#define LLM_SIM_H


#include <stdint.h>

#include "buf.h"
#include "http.h"
#include "loop.h"


/*
 * The simulator, from the outside in: a connection (conn.c) carries one
 * request at a time; what the client asks for is read from its JSON (ask.c)
 * and from the header X-LLM-Sim (order.c); a server (batch.c) decides when
 * its tokens come; a dialect (dialect_*.c) says what they look like; wire.c
 * frames that; request.c drives it all, fault.c and mass.c spoil it.
 */

#define SIM_BLOCK_TOKENS    512
#define SIM_TOKEN_BYTES     4
#define SIM_MAX_BODY        (64 << 20)
#define SIM_MAX_CHOICES     128
#define SIM_NONE            -1

/* positions of a fault, in content events */
#define SIM_AT_HEADER       -1
#define SIM_AT_FIRST        0

typedef struct sim_conn_s     sim_conn_t;
typedef struct sim_req_s      sim_req_t;
typedef struct sim_server_s   sim_server_t;
typedef struct sim_cache_s    sim_cache_t;
typedef struct sim_dialect_s  sim_dialect_t;

typedef enum {
    SIM_FAULT_NONE = 0,
    SIM_FAULT_RESET,
    SIM_FAULT_CLOSE,
    SIM_FAULT_STALL,
    SIM_FAULT_COMMENTS,
    SIM_FAULT_ERROR,
    SIM_FAULT_ERROR_STAY,
    SIM_FAULT_FILTER,
    SIM_FAULT_MIDEVENT,
    SIM_FAULT_MIDEVENT_RESET,
    SIM_FAULT_BADCHUNK,
    SIM_FAULT_MIDCHUNK,
    SIM_FAULT_MIDCHUNK_RESET,
    SIM_FAULT_END
} sim_fault_e;

typedef enum {
    SIM_STOP = 0,
    SIM_LENGTH,
    SIM_TOOL,
    SIM_FILTER
} sim_finish_e;

typedef enum {
    SIM_GZIP_NONE = 0,
    SIM_GZIP_STORED,
    SIM_GZIP_LIE
} sim_gzip_e;

typedef enum {
    SIM_EOL_LF = 0,
    SIM_EOL_CRLF,
    SIM_EOL_CR
} sim_eol_e;

typedef enum {
    SIM_FRAME_SSE = 0,
    SIM_FRAME_LINES,
    SIM_FRAME_ARRAY                         /* one JSON array */
} sim_frame_e;

typedef struct {
    double                prefill_per_sec;
    double                itl_ms;
    double                itl_slope_ms;
    double                time_scale;
    uint64_t              batch;
    uint64_t              chunk;            /* prefill tokens in one step */
    uint64_t              tokens;
    uint64_t              cache_tokens;
    int                   quiet;
    sim_server_t         *servers;
    size_t                nservers;
} sim_conf_t;

typedef struct {
    uint64_t              requests;
    uint64_t              completed;
    uint64_t              aborted;
    uint64_t              faulted;          /* spoiled on order */
    uint64_t              inflight;
    uint64_t              max_inflight;
    uint64_t              prompt_tokens;
    uint64_t              cached_tokens;
    uint64_t              completion_tokens;
    uint64_t              made_tokens;      /* those under way included */
    uint64_t              steps;
    double                busy_us;          /* of all steps, modelled */
    uint64_t              late_us;          /* their ends, in all; the worst */
    uint64_t              late_max_us;
} sim_stats_t;

struct sim_server_s {
    loop_event_t          event;
    loop_timer_t          step;
    loop_timer_t          accept;           /* again, when out of files */
    unsigned              port;
    double                speed;
    link_t                queue;
    link_t                timed;            /* queued, with a ttft */
    link_t                prefill;
    link_t                decode;
    size_t                decoding;         /* elements of decode */
    size_t                running;          /* in the batch, in any way */
    uint64_t              prefill_left;     /* tokens of those in prefill */
    uint64_t              step_tokens;      /* of prefill, in this step */
    sim_cache_t          *cache;
    sim_stats_t           stats;
};

/* what the header X-LLM-Sim orders; SIM_NONE where it does not */
typedef struct {
    int                   fault;            /* sim_fault_e */
    int                   gzip;             /* sim_gzip_e */
    int                   eol;              /* sim_eol_e */
    int                   minor;            /* of the answer's version */
    int64_t               at;
    int64_t               only;
    int64_t               on;               /* while it is read */
    int64_t               status;
    int64_t               tokens;
    int64_t               words;
    int64_t               split;
    int64_t               bom;
    int64_t               length;
    int64_t               tool;
    int64_t               line;             /* bytes of one more event */
    int64_t               lines;            /* of data, in one more event */
    double                itl_ms;
    double                ttft_ms;
    double                retry_after;
    buf_t                 say;
    buf_t                 usage;
    buf_t                 extra;
} sim_order_t;

/* what the client asks for */
typedef struct {
    char                 *model;
    int64_t               max_tokens;       /* SIM_NONE: not named */
    uint64_t              choices;
    uint64_t              inputs;           /* of an embeddings request */
    uint64_t              dimensions;
    unsigned              stream:1;
    unsigned              include_usage:1;
    unsigned              tools:1;
    unsigned              base64:1;
    uint64_t              prompt_bytes;
    uint64_t              hash;
    uint64_t             *blocks;           /* hashes of the prompt's blocks */
    size_t                nblocks;
} sim_ask_t;

typedef enum {
    SIM_REQ_READ = 0,
    SIM_REQ_QUEUED,
    SIM_REQ_RUN,                            /* in the batch */
    SIM_REQ_HELD,                           /* spoiled: silent or comments */
    SIM_REQ_FLUSH                           /* all made, not all sent */
} sim_state_e;

struct sim_req_s {
    link_t                link;             /* queue, prefill or decode */
    loop_timer_t          timer;            /* a clock of its own */
    sim_conn_t           *conn;
    sim_server_t         *server;
    const sim_dialect_t  *dialect;

    /* not a model's answer: statistics, the list of models */
    void                (*local)(sim_req_t *r, buf_t *b);

    const char           *refusal;          /* the message of refuse */
    int                   refuse;           /* status; 0: none */
    sim_state_e           state;
    sim_finish_e          finish;
    sim_order_t           order;
    sim_ask_t             ask;
    buf_t                 body;
    uint64_t              id;
    int64_t               created;          /* Unix seconds */
    uint64_t              start_us;
    uint64_t              first_us;
    uint64_t              prompt;           /* tokens, as those below */
    uint64_t              cached;
    uint64_t              prefill_left;
    uint64_t              length;           /* content events to make */
    uint64_t              made;
    uint64_t              sequence;         /* of events, where numbered */
    uint64_t              mass;             /* of order.line(s), made */
    uint64_t              body_bytes;       /* before gzip and chunks */
    uint64_t              gzip_bytes;
    uint32_t              crc;
    unsigned              decoding:1;
    unsigned              counted:1;
    unsigned              header_sent:1;
    unsigned              chunked:1;
    unsigned              half:1;           /* cut the next event in two */
    unsigned              paused:1;         /* until the client reads */
    sim_frame_e           frame;
};

struct sim_conn_s {
    loop_event_t          event;
    loop_timer_t          timer;            /* what must not be done inside */
    sim_server_t         *server;
    sim_req_t            *req;
    buf_t                 in;
    buf_t                 out;
    size_t                split;
    http_body_t           body;
    unsigned              readable:1;
    unsigned              eof:1;
    unsigned              broken:1;
    unsigned              dead:1;
    unsigned              close:1;          /* when all is sent */
    unsigned              minor:1;          /* of the request's version */
};

struct sim_dialect_s {
    const char           *content_type;     /* of a stream */
    sim_frame_e           frame;
    unsigned              embeddings:1;
    unsigned              choices:1;        /* knows n > 1 */
    unsigned              stream_default:1;

    /* events before the content; one content event; all that follows it */
    void                (*begin)(sim_req_t *r);
    void                (*token)(sim_req_t *r, uint64_t k);
    void                (*end)(sim_req_t *r);

    /* the error event; the whole answer of a request that is not streamed */
    void                (*error)(sim_req_t *r);
    void                (*answer)(sim_req_t *r, buf_t *b);

    /* the body of an error status */
    void                (*status)(buf_t *b, int status, const char *message);
};


extern sim_conf_t            sim_conf;

extern const sim_dialect_t   sim_openai_chat;
extern const sim_dialect_t   sim_openai_completions;
extern const sim_dialect_t   sim_openai_embeddings;
extern const sim_dialect_t   sim_openai_responses;
extern const sim_dialect_t   sim_anthropic_messages;
extern const sim_dialect_t   sim_ollama_chat;
extern const sim_dialect_t   sim_ollama_generate;
extern const sim_dialect_t   sim_gemini;
extern const sim_dialect_t   sim_ernie;


/* conn.c */
void sim_accept_handler(loop_event_t *ev, uint32_t events);
void sim_accept_timer(loop_timer_t *t);
void sim_conn_send(sim_conn_t *c, const void *data, size_t len);
void sim_conn_close(sim_conn_t *c, int reset);
void sim_conn_next(sim_conn_t *c);
int sim_conn_congested(const sim_conn_t *c);

/* request.c: a request from its head to its end */
sim_req_t *sim_req_create(sim_conn_t *c, const http_head_t *h);
void sim_req_start(sim_req_t *r);
void sim_req_reject(sim_req_t *r, int status, const char *message);
void sim_req_begin(sim_req_t *r);
void sim_req_head(sim_req_t *r);
int sim_req_token(sim_req_t *r);
void sim_req_finish(sim_req_t *r);
void sim_req_done(sim_req_t *r);
void sim_req_spoiled(sim_req_t *r, int reset);
void sim_req_flushed(sim_req_t *r);
void sim_req_abort(sim_req_t *r);

/* route.c: sets the dialect, a local answer or a refusal */
void sim_route(sim_req_t *r, const http_head_t *h);

/* ask.c: 0, or -1 if the body is not JSON */
int sim_ask_parse(sim_ask_t *ask, const char *text);
void sim_ask_free(sim_ask_t *ask);

/* order.c: NULL, or what is wrong (static) */
const char *sim_order_parse(sim_order_t *o, const http_head_t *h,
    int64_t port);
void sim_order_init(sim_order_t *o);
void sim_order_free(sim_order_t *o);

/* fault.c: the request is taken over, and may be gone, after fire() */
int sim_fault_due(const sim_req_t *r);
void sim_fault_fire(sim_req_t *r);
int sim_fault_status(const sim_req_t *r, int usual);

/* mass.c: the next piece of what is ordered by line or lines; 0: no more */
int sim_mass_next(sim_req_t *r);

/* batch.c */
void sim_batch_init(sim_server_t *s);
void sim_batch_add(sim_req_t *r);
void sim_batch_remove(sim_req_t *r);

/* cache.c */
sim_cache_t *sim_cache_create(uint64_t tokens);
uint64_t sim_cache_find(sim_cache_t *cache, const sim_ask_t *ask);
void sim_cache_insert(sim_cache_t *cache, const sim_ask_t *ask);

/* wire.c */
void sim_wire_head(sim_req_t *r, int status, const char *type,
    int64_t length, const char *fields);
void sim_wire_stream(sim_req_t *r, const char *fields);
void sim_wire_event(sim_req_t *r, const char *name, const buf_t *json);
void sim_wire_body(sim_req_t *r, const char *data, size_t len);
void sim_wire_raw(sim_req_t *r, const char *data, size_t len);
void sim_wire_end(sim_req_t *r);

/* text.c: pieces that the dialects share; text is escaped for JSON */
buf_t *sim_json(void);
void sim_text_token(const sim_req_t *r, uint64_t token, buf_t *b);
void sim_text_all(const sim_req_t *r, buf_t *b);
void sim_text_model(const sim_req_t *r, buf_t *b);
void sim_text_words(const sim_req_t *r, buf_t *b);
int sim_text_usage(const sim_req_t *r, buf_t *b, const char *name);
int sim_text_no_usage(const sim_req_t *r);
int sim_text_is_tool(const sim_req_t *r);

/* dialect_openai.c: for its other interfaces */
void sim_openai_status(buf_t *b, int status, const char *message);

/* gzip.c */
uint32_t sim_gzip_crc(uint32_t crc, const char *data, size_t len);
void sim_gzip_head(buf_t *b);
void sim_gzip_stored(buf_t *b, const char *data, size_t len);
void sim_gzip_end(buf_t *b, uint32_t crc, uint32_t bytes);

/* stats.c */
void sim_stats_json(buf_t *b);
void sim_stats_zero(void);


#endif /* LLM_SIM_H */
