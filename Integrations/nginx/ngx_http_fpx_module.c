/* ngx_http_fpx_module.c - admission of http clients. A session is a client connection: requests that share it by keepalive, and
 * the streams of an HTTP/2 connection, are one session. */
#include "ngx_fpx.h"
#include <ngx_http.h>

/* What a request has reported. Its memory ends with the request, and reports the rest then. */
typedef struct {
    ngx_http_request_t *request;
    ngx_fpx_traffic_t counted;
} ngx_http_fpx_traffic_t;

static ngx_int_t ngx_http_fpx_add_variable(ngx_conf_t *cf);
static ngx_int_t ngx_http_fpx_add_handlers(ngx_conf_t *cf);
static void *ngx_http_fpx_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_fpx_init_main_conf(ngx_conf_t *cf, void *conf);
static void *ngx_http_fpx_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_fpx_merge_loc_conf(ngx_conf_t *cf, void *outer, void *conf);
static ngx_int_t ngx_http_fpx_init_process(ngx_cycle_t *cycle);
static void ngx_http_fpx_exit_process(ngx_cycle_t *cycle);

#define NGX_HTTP_FPX_ANYWHERE (NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF)

static ngx_command_t ngx_http_fpx_commands[] = {
    {ngx_string("fpx"), NGX_HTTP_FPX_ANYWHERE | NGX_CONF_FLAG, ngx_conf_set_flag_slot, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(ngx_fpx_conf_t, enable), NULL},
    {ngx_string("fpx_pool"), NGX_HTTP_FPX_ANYWHERE | NGX_CONF_TAKE1, ngx_fpx_set_pool, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    {ngx_string("fpx_fail"), NGX_HTTP_FPX_ANYWHERE | NGX_CONF_TAKE1, ngx_fpx_set_fail, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    {ngx_string("fpx_segment"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, ngx_fpx_set_segment, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL},
    ngx_null_command};

static ngx_http_module_t ngx_http_fpx_module_ctx = {
    .preconfiguration = ngx_http_fpx_add_variable,
    .postconfiguration = ngx_http_fpx_add_handlers,
    .create_main_conf = ngx_http_fpx_create_main_conf,
    .init_main_conf = ngx_http_fpx_init_main_conf,
    .create_loc_conf = ngx_http_fpx_create_loc_conf,
    .merge_loc_conf = ngx_http_fpx_merge_loc_conf};

ngx_module_t ngx_http_fpx_module = {NGX_MODULE_V1,
                                    &ngx_http_fpx_module_ctx,
                                    ngx_http_fpx_commands,
                                    NGX_HTTP_MODULE,
                                    NULL,
                                    NULL,
                                    ngx_http_fpx_init_process,
                                    NULL,
                                    NULL,
                                    ngx_http_fpx_exit_process,
                                    NULL,
                                    NGX_MODULE_V1_PADDING};

/* The memory that lives as long as the client's connection; below the streams of HTTP/2 there is one. */
static ngx_pool_t *ngx_http_fpx_connection_pool(ngx_http_request_t *r) {
#if (NGX_HTTP_V2)
    if (r->stream != NULL) return r->stream->connection->connection->pool;
#endif
    return r->connection->pool;
}

/* ---- Traffic: what a request has carried over the client's connection, headers and all, without TLS. ---- */

static ngx_http_output_body_filter_pt ngx_http_fpx_next_body_filter;
static ngx_http_request_body_filter_pt ngx_http_fpx_next_request_body_filter;

/* At the request's end: what no filter has seen, which is its header, and all of a response without a body. */
static void ngx_http_fpx_end_traffic(void *data) {
    ngx_http_fpx_traffic_t *traffic = data;
    ngx_http_request_t *r = traffic->request;
    off_t received = r->request_length;
    /* An upgraded connection goes past the filters: what its server was sent is what its client has sent. */
    if (r->upstream != NULL && r->upstream->upgrade && r->upstream->state != NULL) {
        received = ngx_max(received, r->upstream->state->bytes_sent);
    }
    ngx_fpx_count(&traffic->counted, received, r->connection->sent);
}

/* NULL: the request is not metered. */
static ngx_fpx_traffic_t *ngx_http_fpx_traffic(ngx_http_request_t *r) {
    ngx_http_fpx_traffic_t *traffic = ngx_http_get_module_ctx(r, ngx_http_fpx_module);
    if (traffic == NULL && (r->internal || r->filter_finalize)) {
        /* An internal redirect has taken the context away. */
        for (ngx_pool_cleanup_t *cleanup = r->pool->cleanup; cleanup != NULL; cleanup = cleanup->next) {
            if (cleanup->handler != ngx_http_fpx_end_traffic) continue;
            traffic = cleanup->data;
            ngx_http_set_ctx(r, traffic, ngx_http_fpx_module);
            break;
        }
    }
    return traffic != NULL ? &traffic->counted : NULL;
}

/* Meters a request from now on. */
static ngx_int_t ngx_http_fpx_meter(ngx_http_request_t *r, const ngx_fpx_session_t *session) {
    if (session->lane == NULL || session->verdict == FPX_BLOCK || ngx_http_fpx_traffic(r) != NULL) return NGX_OK;
    ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_fpx_traffic_t));
    if (cleanup == NULL) return NGX_ERROR;
    ngx_http_fpx_traffic_t *traffic = cleanup->data;
    *traffic = (ngx_http_fpx_traffic_t){.request = r, .counted.lane = session->lane};
    cleanup->handler = ngx_http_fpx_end_traffic;
    ngx_http_set_ctx(r, traffic, ngx_http_fpx_module);
    return NGX_OK;
}

/* Whatever the later filters keep back is not sent yet; they are called again, by this way, when the client can take more. */
static ngx_int_t ngx_http_fpx_body_filter(ngx_http_request_t *r, ngx_chain_t *chain) {
    ngx_int_t result = ngx_http_fpx_next_body_filter(r, chain);
    ngx_fpx_traffic_t *traffic = ngx_http_fpx_traffic(r->main);
    if (traffic != NULL) ngx_fpx_count(traffic, traffic->received, r->connection->sent);
    return result;
}

static ngx_int_t ngx_http_fpx_request_body_filter(ngx_http_request_t *r, ngx_chain_t *chain) {
    ngx_fpx_traffic_t *traffic = ngx_http_fpx_traffic(r->main);
    if (traffic != NULL) ngx_fpx_count(traffic, traffic->received + ngx_fpx_chain_size(chain), traffic->sent);
    return ngx_http_fpx_next_request_body_filter(r, chain);
}

/* ---- Sessions ---- */

static ngx_fpx_session_t *ngx_http_fpx_admit(ngx_http_request_t *r, const ngx_fpx_conf_t *conf) {
    ngx_fpx_session_t *session =
        ngx_fpx_admit(ngx_http_get_module_main_conf(r, ngx_http_fpx_module), conf, ngx_http_fpx_connection_pool(r), r->pool);
    return session != NULL && ngx_http_fpx_meter(r->main, session) == NGX_OK ? session : NULL;
}

static ngx_int_t ngx_http_fpx_handler(ngx_http_request_t *r) {
    const ngx_fpx_conf_t *conf = ngx_http_get_module_loc_conf(r, ngx_http_fpx_module);
    if (!conf->enable) return NGX_DECLINED;
    ngx_fpx_session_t *session = ngx_http_fpx_admit(r, conf);
    if (session == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    if (session->verdict != FPX_BLOCK || session->answered) return NGX_DECLINED;
    session->answered = 1;
    return NGX_HTTP_SERVICE_UNAVAILABLE;
}

/* Whoever reads the variable first admits, be it before the phase above. A response that has begun needs no session any more:
 * an access log that names the variable does not start one for a request that was answered before it got there. Where fpx is
 * off nobody was asked, so that there is no verdict. */
static ngx_int_t ngx_http_fpx_verdict(ngx_http_request_t *r, ngx_http_variable_value_t *value, uintptr_t unused) {
    const ngx_fpx_conf_t *conf = ngx_http_get_module_loc_conf(r, ngx_http_fpx_module);
    if (!conf->enable || (r->header_sent && ngx_fpx_session(conf, ngx_http_fpx_connection_pool(r), r->pool) == NULL)) {
        value->not_found = 1;
        return NGX_OK;
    }
    ngx_fpx_session_t *session = ngx_http_fpx_admit(r, conf);
    if (session == NULL) return NGX_ERROR;
    ngx_fpx_set_verdict(value, session->verdict);
    return NGX_OK;
}

static ngx_int_t ngx_http_fpx_add_variable(ngx_conf_t *cf) {
    ngx_str_t name = ngx_string("fpx_verdict");
    ngx_http_variable_t *variable = ngx_http_add_variable(cf, &name, NGX_HTTP_VAR_NOCACHEABLE);
    if (variable == NULL) return NGX_ERROR;
    variable->get_handler = ngx_http_fpx_verdict;
    return NGX_OK;
}

static ngx_int_t ngx_http_fpx_add_handlers(ngx_conf_t *cf) {
    ngx_http_core_main_conf_t *core = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    ngx_http_handler_pt *handler = ngx_array_push(&core->phases[NGX_HTTP_PREACCESS_PHASE].handlers);
    if (handler == NULL) return NGX_ERROR;
    *handler = ngx_http_fpx_handler;
    ngx_http_fpx_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_fpx_body_filter;
    ngx_http_fpx_next_request_body_filter = ngx_http_top_request_body_filter;
    ngx_http_top_request_body_filter = ngx_http_fpx_request_body_filter;
    return NGX_OK;
}

static void *ngx_http_fpx_create_main_conf(ngx_conf_t *cf) { return ngx_pcalloc(cf->pool, sizeof(ngx_fpx_main_conf_t)); }

static char *ngx_http_fpx_init_main_conf(ngx_conf_t *cf, void *conf) {
    ngx_fpx_init_main_conf(conf);
    return NGX_CONF_OK;
}

static void *ngx_http_fpx_create_loc_conf(ngx_conf_t *cf) { return ngx_fpx_create_conf(cf); }

static char *ngx_http_fpx_merge_loc_conf(ngx_conf_t *cf, void *outer, void *conf) {
    ngx_fpx_merge_conf(ngx_http_conf_get_module_main_conf(cf, ngx_http_fpx_module), outer, conf);
    return NGX_CONF_OK;
}

static ngx_int_t ngx_http_fpx_init_process(ngx_cycle_t *cycle) {
    ngx_fpx_init_process(ngx_http_cycle_get_module_main_conf(cycle, ngx_http_fpx_module));
    return NGX_OK;
}

static void ngx_http_fpx_exit_process(ngx_cycle_t *cycle) { ngx_fpx_exit_process(); }
