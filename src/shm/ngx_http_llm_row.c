
/*
 * Copyright (C) the ngx_http_llm_stream_module authors
 * SPDX-License-Identifier: BSD-2-Clause
 */


#include <ngx_event.h>

#include "ngx_http_llm_row.h"


#define NGX_HTTP_LLM_ROWS_WATCH_MS  1000


typedef struct {
    /* one letter: R, S, D, Z.. */
    u_char                 state;

    /* in clock ticks since boot */
    uint64_t               start;
} ngx_http_llm_process_t;


typedef struct {
    ngx_http_llm_rows_t       *rows;
    ngx_slab_pool_t           *shpool;
    ngx_http_llm_row_gone_pt   gone;
    ngx_event_t                event;
    ngx_connection_t           dumb;
} ngx_http_llm_watch_t;


static void ngx_http_llm_rows_watch_handler(ngx_event_t *ev);
static void ngx_http_llm_rows_reap(ngx_http_llm_rows_t *rows,
    ngx_slab_pool_t *shpool, ngx_log_t *log);
static ngx_uint_t ngx_http_llm_process_alive(ngx_pid_t pid, uint64_t start);
static ngx_int_t ngx_http_llm_process_read(ngx_pid_t pid,
    ngx_http_llm_process_t *process);


static ngx_http_llm_watch_t  ngx_http_llm_watch;


ngx_http_llm_row_t *
ngx_http_llm_row_take(ngx_http_llm_rows_t *rows, ngx_slab_pool_t *shpool,
    size_t size, ngx_log_t *log)
{
    ngx_uint_t               i;
    ngx_http_llm_row_t      *row;
    ngx_http_llm_process_t   self;

    ngx_http_llm_rows_reap(rows, shpool, log);

    if (ngx_http_llm_process_read(ngx_pid, &self) != NGX_OK) {
        self.start = 0;
    }

    ngx_shmtx_lock(&shpool->mutex);

    for (i = 0; i < rows->n && rows->elts[i].pid; i++) { /* void */ }

    row = (i < NGX_HTTP_LLM_ROWS_MAX) ? &rows->elts[i] : NULL;

    if (row && row->data == NULL) {
        row->data = ngx_slab_alloc_locked(shpool, size);
    }

    if (row && row->data) {
        ngx_memzero(row->data, size);
        row->start = self.start;

        __atomic_store_n(&row->pid, ngx_pid, __ATOMIC_RELEASE);

        rows->n = ngx_max(rows->n, i + 1);

    } else {
        row = NULL;
    }

    ngx_shmtx_unlock(&shpool->mutex);

    return row;
}


void
ngx_http_llm_row_leave(ngx_http_llm_row_t *row)
{
    __atomic_store_n(&row->pid, 0, __ATOMIC_RELEASE);
}


void
ngx_http_llm_rows_watch(ngx_http_llm_rows_t *rows, ngx_slab_pool_t *shpool,
    ngx_http_llm_row_gone_pt gone, ngx_log_t *log)
{
    ngx_http_llm_watch_t  *watch;

    watch = &ngx_http_llm_watch;

    watch->rows = rows;
    watch->shpool = shpool;
    watch->gone = gone;

    /* the event module logs the descriptor */

    watch->dumb.fd = (ngx_socket_t) -1;

    watch->event.data = &watch->dumb;
    watch->event.handler = ngx_http_llm_rows_watch_handler;
    watch->event.log = log;
    watch->event.cancelable = 1;

    ngx_add_timer(&watch->event, NGX_HTTP_LLM_ROWS_WATCH_MS);
}


static void
ngx_http_llm_rows_watch_handler(ngx_event_t *ev)
{
    ngx_http_llm_watch_t  *watch;

    watch = &ngx_http_llm_watch;

    /* one of all workers is enough; two now and then do no harm */

    if (ngx_current_msec - watch->rows->reaped_ms
        >= NGX_HTTP_LLM_ROWS_WATCH_MS / 2)
    {
        watch->rows->reaped_ms = ngx_current_msec;
        ngx_http_llm_rows_reap(watch->rows, watch->shpool, ev->log);
    }

    ngx_add_timer(ev, NGX_HTTP_LLM_ROWS_WATCH_MS);
}


static void
ngx_http_llm_rows_reap(ngx_http_llm_rows_t *rows, ngx_slab_pool_t *shpool,
    ngx_log_t *log)
{
    uint64_t             start;
    ngx_pid_t            pid;
    ngx_uint_t           i, freed;
    ngx_http_llm_row_t  *row;

    for (i = 0; i < rows->n; i++) {
        row = &rows->elts[i];
        pid = row->pid;
        start = row->start;

        if (pid == 0 || ngx_http_llm_process_alive(pid, start)) {
            continue;
        }

        freed = 0;

        ngx_shmtx_lock(&shpool->mutex);

        if (row->pid == pid && row->start == start) {
            row->pid = 0;
            freed = 1;
        }

        ngx_shmtx_unlock(&shpool->mutex);

        if (freed) {
            ngx_log_error(NGX_LOG_NOTICE, log, 0,
                          "process %P is gone, "
                          "its requests are in flight no more", pid);

            if (ngx_http_llm_watch.gone) {
                ngx_http_llm_watch.gone(pid);
            }
        }
    }
}


static ngx_uint_t
ngx_http_llm_process_alive(ngx_pid_t pid, uint64_t start)
{
    ngx_http_llm_process_t  process;

    if (kill(pid, 0) == -1 && ngx_errno == NGX_ESRCH) {
        return 0;
    }

    /* there is no /proc, or it hides other users' processes */

    if (ngx_http_llm_process_read(pid, &process) != NGX_OK) {
        return 1;
    }

    /* dead, but the master did not wait for it yet */

    if (process.state == 'Z' || process.state == 'X') {
        return 0;
    }

    return start == 0 || process.start == start;
}


/* proc(5): fields 3 and 22 of /proc/PID/stat; field 2 may hold anything */

static ngx_int_t
ngx_http_llm_process_read(ngx_pid_t pid, ngx_http_llm_process_t *process)
{
    u_char     *p, *last;
    ssize_t     n;
    ngx_fd_t    fd;
    ngx_uint_t  field;
    u_char      buf[1024];

    (void) ngx_sprintf(buf, "/proc/%P/stat%Z", pid);

    fd = ngx_open_file(buf, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);
    if (fd == NGX_INVALID_FILE) {
        return NGX_DECLINED;
    }

    n = ngx_read_fd(fd, buf, sizeof(buf));
    (void) ngx_close_file(fd);

    if (n <= 0) {
        return NGX_DECLINED;
    }

    last = buf + n;

    for (p = last; p > buf && p[-1] != ')'; p--) { /* void */ }

    if (p == buf || last - p < 2) {
        return NGX_DECLINED;
    }

    process->state = p[1];
    process->start = 0;

    for (field = 2; p < last && field < 22; p++) {
        field += (*p == ' ');
    }

    for ( /* void */ ; p < last && *p >= '0' && *p <= '9'; p++) {
        process->start = process->start * 10 + (*p - '0');
    }

    return NGX_OK;
}
