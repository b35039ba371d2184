/* ngx_fpx.h - what the http and the stream module share: their settings, a worker's attachments to segments, and the sessions of
 * client connections. All of it is called by the event loop of one worker, so nothing here is locked. */
#ifndef NGX_FPX_H
#define NGX_FPX_H
#include <ngx_config.h>
#include <ngx_core.h>
#include <fpxadmission.h>

typedef struct ngx_fpx_segment_s ngx_fpx_segment_t;
typedef struct ngx_fpx_attachment_s ngx_fpx_attachment_t;

/* Settings of a whole http or stream block. */
typedef struct {
    ngx_str_t path;
    ngx_uint_t used;            /* "fpx on" stands somewhere: workers attach */
    ngx_fpx_segment_t *segment; /* of this worker; looked up on first use */
} ngx_fpx_main_conf_t;

/* Settings of a server or location. */
typedef struct {
    ngx_flag_t enable;
    ngx_uint_t pool;
    ngx_uint_t fail; /* the verdict without a segment: FPX_BYPASS (open) or FPX_BLOCK (closed) */
} ngx_fpx_conf_t;

/* One session of a client connection. It ends when the memory pool that holds it is destroyed. */
typedef struct {
    ngx_fpx_attachment_t *attachment; /* who counts it; NULL: nobody does, there was no segment */
    fpx_lane *lane;                   /* of the attachment */
    ngx_uint_t pool;
    fpx_verdict verdict;
    ngx_uint_t answered; /* the refusal has been sent: what serves its error page passes */
} ngx_fpx_session_t;

void ngx_fpx_init_main_conf(ngx_fpx_main_conf_t *main);
ngx_fpx_conf_t *ngx_fpx_create_conf(ngx_conf_t *cf);
void ngx_fpx_merge_conf(ngx_fpx_main_conf_t *main, ngx_fpx_conf_t *outer, ngx_fpx_conf_t *conf);
char *ngx_fpx_set_segment(ngx_conf_t *cf, ngx_command_t *command, void *conf);
char *ngx_fpx_set_pool(ngx_conf_t *cf, ngx_command_t *command, void *conf);
char *ngx_fpx_set_fail(ngx_conf_t *cf, ngx_command_t *command, void *conf);

/* Attaches a worker at its start. */
void ngx_fpx_init_process(ngx_fpx_main_conf_t *main);
/* Gives back all sessions of a worker that exits. */
void ngx_fpx_exit_process(void);

/* The session that a connection has in the pool of `conf`, or NULL. */
ngx_fpx_session_t *ngx_fpx_session(const ngx_fpx_conf_t *conf, ngx_pool_t *connection, ngx_pool_t *request);
/* The same, or else a new one. What is inspected or bypassed lives as long as the
 * connection; a refusal lives as long as `request`, so that the next request on the connection asks again. NULL: no memory. */
ngx_fpx_session_t *ngx_fpx_admit(ngx_fpx_main_conf_t *main, const ngx_fpx_conf_t *conf, ngx_pool_t *connection,
                                 ngx_pool_t *request);

/* What one request or stream session has carried, as far as it has been reported. */
typedef struct {
    fpx_lane *lane;
    off_t received;
    off_t sent;
} ngx_fpx_traffic_t;

/* Reports what both directions have grown to. Call it once for each chain of buffers that has moved. */
void ngx_fpx_count(ngx_fpx_traffic_t *traffic, off_t received, off_t sent);
/* Bytes in a chain. */
off_t ngx_fpx_chain_size(const ngx_chain_t *chain);

/* The value of $fpx_verdict. */
void ngx_fpx_set_verdict(ngx_variable_value_t *value, fpx_verdict verdict);

#endif
