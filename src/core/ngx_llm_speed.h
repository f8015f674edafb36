
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * What can be learned of an inference server from the traffic that passes:
 * how fast it reads prompts, how fast it writes, and how much of what it has
 * read it still holds.  Pure functions over small values, which live in
 * shared memory elsewhere.
 */


#ifndef _NGX_LLM_SPEED_H_INCLUDED_
#define _NGX_LLM_SPEED_H_INCLUDED_


#include "ngx_llm.h"


/*
 * Work and the time that it took, of late: their quotient is a speed in
 * which much work weighs much.  All zero: nothing is known.
 */

typedef struct {
    /* tokens */
    uint32_t              work;
    uint32_t              time_ms;
} ngx_llm_speed_t;


/* what is learned: prompts read, tokens written */

typedef struct {
    /* work that is remembered: twice that is halved */
    uint32_t              window;

    /*
     * A server starts as if it had done so much work at the mean speed of
     * all: a few answers say little, and what was learned long ago less and
     * less, so that a server that was slow for a while is tried again.
     */
    uint32_t              prior;

    /* where nothing is known of any server */
    uint32_t              default_ns;

    /*
     * A server is as fast as the mean unless it differs by more than this
     * factor.  What other requests do meanwhile lets equal servers seem to
     * read at speeds that are half as high again; taken at its word, the one
     * that seems fastest would get all that comes while little is going on.
     */
    double                band;
} ngx_llm_speed_kind_t;

extern const ngx_llm_speed_kind_t  ngx_llm_speed_prefill;
extern const ngx_llm_speed_kind_t  ngx_llm_speed_decode;

/* no server is taken for faster or slower than the mean by more than this */
#define NGX_LLM_SPEED_RANGE       16

/* what is not confirmed weighs half as much after this */
#define NGX_LLM_SPEED_HALF_S      60

/*
 * A request in flight adds to the time of the next first token as so many
 * prompt tokens do: each step of the server also makes one token for each
 * request that decodes.  In simulations of two traces it may as well be 20 or
 * 200.
 */
#define NGX_LLM_SPEED_REQUEST_TOKENS  64


/* the sums after so many seconds in which nothing was learned */

ngx_llm_speed_t ngx_llm_speed_faded(ngx_llm_speed_t speed, uint32_t age_s);

/* one sample more; at least 1 ms and one token, or it is ignored */

ngx_llm_speed_t ngx_llm_speed_learn(ngx_llm_speed_t speed,
    const ngx_llm_speed_kind_t *kind, uint32_t work, uint32_t time_ms);

/*
 * ns for a token: in the mean, by the sums over all servers, and of one of
 * them.  The mean is 1 us to 4 s.
 */

double ngx_llm_speed_mean_ns(const ngx_llm_speed_kind_t *kind, uint64_t work,
    uint64_t time_ms);
double ngx_llm_speed_ns(ngx_llm_speed_t speed,
    const ngx_llm_speed_kind_t *kind, double mean_ns);

/*
 * A comparison has 32 bits for what a token takes, and for what a request in
 * flight adds: that goes by how fast tokens are written there.  Never 0.
 */

uint32_t ngx_llm_speed_cost(double ns);


/*
 * The prefix cache of a server keeps what was read last.  Its size is in the
 * answers: prompt tokens that the server read since it had this prefix
 * ("distance"), and whether upstream then counted it as cached.  0: nothing
 * is known, nothing was lost yet.
 */

uint32_t ngx_llm_cache_learn(uint32_t capacity, uint32_t distance, int hit);

/* tokens of a prompt that the server is likely to hold */

uint32_t ngx_llm_cache_tokens(uint32_t capacity, uint32_t distance,
    uint32_t held, uint32_t prompt);


#endif /* _NGX_LLM_SPEED_H_INCLUDED_ */
