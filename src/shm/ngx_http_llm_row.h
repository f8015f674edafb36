
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


/*
 * Rows in shared memory, one for each living process that takes one.  A row
 * is known by its process: pid and start time, because a pid is used again.
 * So what a process wrote there is gone with the process, however it died,
 * and a worker that drains behind a reload keeps its row.
 */


#ifndef _NGX_HTTP_LLM_ROW_H_INCLUDED_
#define _NGX_HTTP_LLM_ROW_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/* living workers, those that drain included */
#define NGX_HTTP_LLM_ROWS_MAX  128


typedef struct {
    /* 0: free; set last when taken, and cleared first when left */
    volatile ngx_pid_t     pid;

    /* in clock ticks since boot; 0: not known */
    uint64_t               start;

    /* allocated when the row is first taken, and kept */
    void                  *data;
} ngx_http_llm_row_t;


/* zero-initialised, in the zone whose pool is given below */

typedef struct {
    /* rows that were ever taken: those above need no look */
    volatile ngx_uint_t    n;

    /* when somebody last looked for dead processes, monotonic */
    volatile ngx_msec_t    reaped_ms;

    ngx_http_llm_row_t     elts[NGX_HTTP_LLM_ROWS_MAX];
} ngx_http_llm_rows_t;


/* data of a row that a process holds, otherwise NULL; without a lock */

#define ngx_http_llm_row_data(row)                                            \
    (__atomic_load_n(&(row)->pid, __ATOMIC_ACQUIRE) ? (row)->data : NULL)


/*
 * A row for this process, with size zeroed bytes of data, the same size for
 * all rows; NULL when all are taken or there is no memory.  Rows of dead
 * processes are freed first.
 */

ngx_http_llm_row_t *ngx_http_llm_row_take(ngx_http_llm_rows_t *rows,
    ngx_slab_pool_t *shpool, size_t size, ngx_log_t *log);

void ngx_http_llm_row_leave(ngx_http_llm_row_t *row);

/* told of each process whose row was freed: in one worker, without a lock */

typedef void (*ngx_http_llm_row_gone_pt)(ngx_pid_t pid);

/*
 * Frees the rows of dead processes every second from here on, in whichever
 * worker comes first.  Once for each process, before it takes a row; does
 * not keep it from exiting.
 */

void ngx_http_llm_rows_watch(ngx_http_llm_rows_t *rows,
    ngx_slab_pool_t *shpool, ngx_http_llm_row_gone_pt gone, ngx_log_t *log);


#endif /* _NGX_HTTP_LLM_ROW_H_INCLUDED_ */
