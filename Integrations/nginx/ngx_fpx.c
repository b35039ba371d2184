/* ngx_fpx.c - see ngx_fpx.h. This file is linked into both modules. nginx loads modules with RTLD_GLOBAL, so the names below
 * that are not static exist once in a process: the first module's. That is how both come to share one attachment, which
 * matters since all workers of a host have 511 process slots. */
#include "ngx_fpx.h"
#include <ngx_event.h>

#define NGX_FPX_SEGMENT "/dev/shm/fpx/segment"
/* What is missing may be there in a moment (fpxd starts, or replaces a segment), or for long not. */
#define NGX_FPX_FIRST_RETRY_MSEC 50
#define NGX_FPX_RETRY_MSEC 1000

/* A segment by its name. */
struct ngx_fpx_segment_s {
    ngx_fpx_segment_t *next;
    ngx_fpx_attachment_t *current; /* where new sessions go; NULL: not attached, and `retry` is set */
    ngx_event_t retry;
    char problem[256]; /* what the log has been told; empty: all is well */
    char path[];
};

/* One attachment. When another segment has taken the name of its own one, it stays until its last session has ended. */
struct ngx_fpx_attachment_s {
    ngx_queue_t link;
    fpx_segment *segment;
    fpx_lane *lanes[FPX_POOLS_MAX]; /* opened on first use */
    ngx_uint_t sessions;            /* in progress */
    ngx_uint_t replaced;
};

/* All segments that this worker uses: one, or two when http and stream name different ones. Attaching must come after fork, so
 * the master, which runs neither init_process nor requests, leaves both lists empty. */
ngx_fpx_segment_t *ngx_fpx_segments;
ngx_queue_t ngx_fpx_attachments = {&ngx_fpx_attachments, &ngx_fpx_attachments};

/* ---- Settings ---- */

static const char *const ngx_fpx_pools[] = {"furl", "fnbi", "fcas"};

void ngx_fpx_init_main_conf(ngx_fpx_main_conf_t *main) {
    static const ngx_str_t usual = ngx_string(NGX_FPX_SEGMENT);
    if (main->path.data == NULL) main->path = usual;
}

ngx_fpx_conf_t *ngx_fpx_create_conf(ngx_conf_t *cf) {
    ngx_fpx_conf_t *conf = ngx_palloc(cf->pool, sizeof(ngx_fpx_conf_t));
    if (conf == NULL) return NULL;
    conf->enable = NGX_CONF_UNSET;
    conf->pool = NGX_CONF_UNSET_UINT;
    conf->fail = NGX_CONF_UNSET_UINT;
    return conf;
}

void ngx_fpx_merge_conf(ngx_fpx_main_conf_t *main, ngx_fpx_conf_t *outer, ngx_fpx_conf_t *conf) {
    ngx_conf_merge_value(conf->enable, outer->enable, 0);
    ngx_conf_merge_uint_value(conf->pool, outer->pool, 0);
    ngx_conf_merge_uint_value(conf->fail, outer->fail, FPX_BYPASS);
    if (conf->enable) main->used = 1;
}

static char *ngx_fpx_wrong(ngx_conf_t *cf, const ngx_str_t *directive, const ngx_str_t *found, const char *expected) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "directive \"%V\": found \"%V\", expected %s", directive, found, expected);
    return NGX_CONF_ERROR;
}

char *ngx_fpx_set_segment(ngx_conf_t *cf, ngx_command_t *command, void *conf) {
    ngx_fpx_main_conf_t *main = conf;
    ngx_str_t *words = cf->args->elts;
    if (main->path.data != NULL) return "is duplicate";
    if (words[1].len == 0 || words[1].data[0] != '/') {
        return ngx_fpx_wrong(cf, &command->name, &words[1], "an absolute path such as " NGX_FPX_SEGMENT);
    }
    main->path = words[1];
    return NGX_CONF_OK;
}

char *ngx_fpx_set_pool(ngx_conf_t *cf, ngx_command_t *command, void *conf) {
    ngx_uint_t *pool = &((ngx_fpx_conf_t *)conf)->pool;
    ngx_str_t *words = cf->args->elts;
    if (*pool != NGX_CONF_UNSET_UINT) return "is duplicate";
    for (ngx_uint_t i = 0; i < sizeof(ngx_fpx_pools) / sizeof(ngx_fpx_pools[0]); i++) {
        if (ngx_strcmp(words[1].data, ngx_fpx_pools[i]) == 0) {
            *pool = i;
            return NGX_CONF_OK;
        }
    }
    ngx_int_t number = ngx_atoi(words[1].data, words[1].len);
    if (number == NGX_ERROR || number >= FPX_POOLS_MAX) {
        return ngx_fpx_wrong(cf, &command->name, &words[1], "furl, fnbi, fcas, or the number of a pool, 0 to 15");
    }
    *pool = number;
    return NGX_CONF_OK;
}

char *ngx_fpx_set_fail(ngx_conf_t *cf, ngx_command_t *command, void *conf) {
    ngx_uint_t *fail = &((ngx_fpx_conf_t *)conf)->fail;
    ngx_str_t *words = cf->args->elts;
    if (*fail != NGX_CONF_UNSET_UINT) return "is duplicate";
    if (ngx_strcmp(words[1].data, "open") == 0) {
        *fail = FPX_BYPASS;
    } else if (ngx_strcmp(words[1].data, "closed") == 0) {
        *fail = FPX_BLOCK;
    } else {
        return ngx_fpx_wrong(cf, &command->name, &words[1], "open or closed");
    }
    return NGX_CONF_OK;
}

/* ---- Attachments ---- */

/* Tells the log what is wrong: once, until it changes. Whether it was told now. */
static ngx_uint_t ngx_fpx_report(ngx_fpx_segment_t *segment) {
    const char *problem = fpx_last_error();
    if (ngx_strncmp(segment->problem, problem, sizeof(segment->problem) - 1) == 0) return 0;
    ngx_cpystrn((u_char *)segment->problem, (u_char *)problem, sizeof(segment->problem));
    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                  "fpx: %s; sessions get the verdict of \"fpx_fail\"; this worker tries again each second", problem);
    return 1;
}

static void ngx_fpx_detach(ngx_fpx_attachment_t *attachment) {
    (void)fpx_detach(attachment->segment);
    ngx_queue_remove(&attachment->link);
}

static void ngx_fpx_attach(ngx_event_t *event) {
    ngx_fpx_segment_t *segment = event->data;
    ngx_fpx_attachment_t *attachment = ngx_calloc(sizeof(*attachment), ngx_cycle->log);
    if (attachment == NULL || fpx_attach(segment->path, &attachment->segment) != FPX_OK) {
        ngx_uint_t news = attachment != NULL && ngx_fpx_report(segment);
        ngx_free(attachment);
        event->log = ngx_cycle->log;
        ngx_add_timer(event, news ? NGX_FPX_FIRST_RETRY_MSEC : NGX_FPX_RETRY_MSEC);
        return;
    }
    ngx_queue_insert_tail(&ngx_fpx_attachments, &attachment->link);
    segment->current = attachment;
    if (segment->problem[0] != '\0') {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0, "fpx: attached to %s", segment->path);
        segment->problem[0] = '\0';
    }
}

/* Attaches to the segment that has the name by now. The sessions of the former one end where they began. */
static void ngx_fpx_attach_again(ngx_fpx_segment_t *segment) {
    ngx_fpx_attachment_t *former = segment->current;
    ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                  "fpx: %s: found the segment lost or replaced by another; this worker attaches again, and keeps %ui sessions "
                  "of before",
                  segment->path, former->sessions);
    former->replaced = 1;
    segment->current = NULL;
    if (former->sessions == 0) {
        ngx_fpx_detach(former);
        ngx_free(former);
    }
    ngx_fpx_attach(&segment->retry);
}

/* The segment that `main` names; NULL: no memory. */
static ngx_fpx_segment_t *ngx_fpx_segment(ngx_fpx_main_conf_t *main) {
    if (main->segment != NULL) return main->segment;
    ngx_fpx_segment_t *segment = ngx_fpx_segments;
    while (segment != NULL && ngx_strcmp(segment->path, main->path.data) != 0) segment = segment->next;
    if (segment == NULL) {
        /* Not from a cycle's pool: without a master process a reload replaces the cycle, and this stays. */
        segment = ngx_calloc(sizeof(ngx_fpx_segment_t) + main->path.len + 1, ngx_cycle->log);
        if (segment == NULL) return NULL;
        ngx_memcpy(segment->path, main->path.data, main->path.len);
        segment->next = ngx_fpx_segments;
        ngx_fpx_segments = segment;
        segment->retry.handler = ngx_fpx_attach;
        segment->retry.data = segment;
        segment->retry.cancelable = 1; /* it does not keep a worker that is shutting down */
        ngx_fpx_attach(&segment->retry);
    }
    main->segment = segment;
    return segment;
}

void ngx_fpx_init_process(ngx_fpx_main_conf_t *main) {
    /* The cache manager and loader are no workers: they serve nobody and shall take no process slot. */
    if (main == NULL || !main->used || (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)) return;
    (void)ngx_fpx_segment(main);
}

/* Death would give the sessions back as well, but only when somebody reaps. A worker that is told to terminate, or passes its
 * worker_shutdown_timeout, drops its connections without their clean-up: detaching ends their sessions all the same. */
void ngx_fpx_exit_process(void) {
    for (ngx_fpx_segment_t *segment = ngx_fpx_segments; segment != NULL; segment = segment->next) segment->current = NULL;
    while (!ngx_queue_empty(&ngx_fpx_attachments)) {
        ngx_fpx_detach(ngx_queue_data(ngx_queue_head(&ngx_fpx_attachments), ngx_fpx_attachment_t, link));
    }
}

/* ---- Sessions ---- */

/* Asks for a verdict where new sessions go. */
static void ngx_fpx_ask(ngx_fpx_segment_t *segment, ngx_fpx_session_t *session, const ngx_fpx_conf_t *conf) {
    ngx_fpx_attachment_t *attachment = segment != NULL ? segment->current : NULL;
    *session = (ngx_fpx_session_t){.pool = conf->pool, .verdict = conf->fail};
    if (attachment == NULL) return;
    fpx_lane **lane = &attachment->lanes[conf->pool];
    if (*lane == NULL && fpx_lane_open(attachment->segment, conf->pool, lane) != FPX_OK) {
        (void)ngx_fpx_report(segment);
        return;
    }
    session->verdict = fpx_lane_admit(*lane);
    session->lane = *lane;
    session->attachment = attachment;
    attachment->sessions++;
}

static void ngx_fpx_end(void *data) {
    ngx_fpx_session_t *session = data;
    ngx_fpx_attachment_t *attachment = session->attachment;
    if (attachment == NULL) return;
    fpx_lane_release(session->lane, session->verdict);
    if (--attachment->sessions > 0 || !attachment->replaced) return;
    ngx_fpx_detach(attachment);
    ngx_free(attachment);
}

static ngx_fpx_session_t *ngx_fpx_find(ngx_pool_t *memory, ngx_uint_t pool) {
    for (ngx_pool_cleanup_t *cleanup = memory->cleanup; cleanup != NULL; cleanup = cleanup->next) {
        ngx_fpx_session_t *session = cleanup->data;
        if (cleanup->handler == ngx_fpx_end && session->pool == pool) return session;
    }
    return NULL;
}

ngx_fpx_session_t *ngx_fpx_session(const ngx_fpx_conf_t *conf, ngx_pool_t *connection, ngx_pool_t *request) {
    ngx_fpx_session_t *session = ngx_fpx_find(request, conf->pool);
    return session != NULL ? session : ngx_fpx_find(connection, conf->pool);
}

ngx_fpx_session_t *ngx_fpx_admit(ngx_fpx_main_conf_t *main, const ngx_fpx_conf_t *conf, ngx_pool_t *connection,
                                 ngx_pool_t *request) {
    ngx_fpx_session_t *session = ngx_fpx_session(conf, connection, request);
    if (session != NULL) return session;

    ngx_fpx_segment_t *segment = ngx_fpx_segment(main);
    ngx_fpx_session_t started;
    ngx_fpx_ask(segment, &started, conf);
    if (started.verdict != FPX_INSPECT && segment != NULL && segment->current != NULL &&
        !fpx_is_current(segment->current->segment)) {
        ngx_fpx_end(&started);
        ngx_fpx_attach_again(segment);
        ngx_fpx_ask(segment, &started, conf);
    }
    ngx_pool_cleanup_t *cleanup =
        ngx_pool_cleanup_add(started.verdict == FPX_BLOCK ? request : connection, sizeof(*session));
    if (cleanup == NULL) {
        ngx_fpx_end(&started);
        return NULL;
    }
    session = cleanup->data;
    *session = started;
    cleanup->handler = ngx_fpx_end;
    return session;
}

/* ---- Traffic ---- */

void ngx_fpx_count(ngx_fpx_traffic_t *traffic, off_t received, off_t sent) {
    off_t in = ngx_max(received - traffic->received, 0), out = ngx_max(sent - traffic->sent, 0);
    if (in == 0 && out == 0) return;
    traffic->received += in;
    traffic->sent += out;
    (void)fpx_report_bytes(traffic->lane->segment, traffic->lane->pool, in, out);
}

off_t ngx_fpx_chain_size(const ngx_chain_t *chain) {
    off_t size = 0;
    for (; chain != NULL; chain = chain->next) size += ngx_buf_size(chain->buf);
    return size;
}

void ngx_fpx_set_verdict(ngx_variable_value_t *value, fpx_verdict verdict) {
    static const ngx_str_t names[] = {ngx_string("inspect"), ngx_string("bypass"), ngx_string("block")};
    value->data = names[verdict].data;
    value->len = names[verdict].len;
    value->valid = 1;
    value->no_cacheable = 0;
    value->not_found = 0;
}
