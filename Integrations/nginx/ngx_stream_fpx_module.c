/* ngx_stream_fpx_module.c - admission of TCP (and UDP) clients: a session is a stream session. */
#include "ngx_fpx.h"
#include <ngx_stream.h>

static ngx_int_t ngx_stream_fpx_add_variable(ngx_conf_t *cf);
static ngx_int_t ngx_stream_fpx_add_handlers(ngx_conf_t *cf);
static void *ngx_stream_fpx_create_main_conf(ngx_conf_t *cf);
static char *ngx_stream_fpx_init_main_conf(ngx_conf_t *cf, void *conf);
static void *ngx_stream_fpx_create_srv_conf(ngx_conf_t *cf);
static char *ngx_stream_fpx_merge_srv_conf(ngx_conf_t *cf, void *outer, void *conf);
static ngx_int_t ngx_stream_fpx_init_process(ngx_cycle_t *cycle);
static void ngx_stream_fpx_exit_process(ngx_cycle_t *cycle);

#define NGX_STREAM_FPX_ANYWHERE (NGX_STREAM_MAIN_CONF | NGX_STREAM_SRV_CONF)

static ngx_command_t ngx_stream_fpx_commands[] = {
    {ngx_string("fpx"), NGX_STREAM_FPX_ANYWHERE | NGX_CONF_FLAG, ngx_conf_set_flag_slot, NGX_STREAM_SRV_CONF_OFFSET,
     offsetof(ngx_fpx_conf_t, enable), NULL},
    {ngx_string("fpx_pool"), NGX_STREAM_FPX_ANYWHERE | NGX_CONF_TAKE1, ngx_fpx_set_pool, NGX_STREAM_SRV_CONF_OFFSET, 0, NULL},
    {ngx_string("fpx_fail"), NGX_STREAM_FPX_ANYWHERE | NGX_CONF_TAKE1, ngx_fpx_set_fail, NGX_STREAM_SRV_CONF_OFFSET, 0, NULL},
    {ngx_string("fpx_segment"), NGX_STREAM_MAIN_CONF | NGX_CONF_TAKE1, ngx_fpx_set_segment, NGX_STREAM_MAIN_CONF_OFFSET, 0,
     NULL},
    ngx_null_command};

static ngx_stream_module_t ngx_stream_fpx_module_ctx = {
    .preconfiguration = ngx_stream_fpx_add_variable,
    .postconfiguration = ngx_stream_fpx_add_handlers,
    .create_main_conf = ngx_stream_fpx_create_main_conf,
    .init_main_conf = ngx_stream_fpx_init_main_conf,
    .create_srv_conf = ngx_stream_fpx_create_srv_conf,
    .merge_srv_conf = ngx_stream_fpx_merge_srv_conf};

ngx_module_t ngx_stream_fpx_module = {NGX_MODULE_V1,
                                      &ngx_stream_fpx_module_ctx,
                                      ngx_stream_fpx_commands,
                                      NGX_STREAM_MODULE,
                                      NULL,
                                      NULL,
                                      ngx_stream_fpx_init_process,
                                      NULL,
                                      NULL,
                                      ngx_stream_fpx_exit_process,
                                      NULL,
                                      NGX_MODULE_V1_PADDING};

/* ---- Traffic: what a session has carried over the client's connection, without TLS. ---- */

static ngx_stream_filter_pt ngx_stream_fpx_next_filter;

/* A chain from the client passes here once; of one to the client that counts which has been sent. */
static ngx_int_t ngx_stream_fpx_filter(ngx_stream_session_t *s, ngx_chain_t *chain, ngx_uint_t from_upstream) {
    ngx_fpx_traffic_t *traffic = ngx_stream_get_module_ctx(s, ngx_stream_fpx_module);
    if (traffic == NULL) return ngx_stream_fpx_next_filter(s, chain, from_upstream);
    off_t received = traffic->received + (from_upstream ? 0 : ngx_fpx_chain_size(chain));
    ngx_int_t result = ngx_stream_fpx_next_filter(s, chain, from_upstream);
    ngx_fpx_count(traffic, received, s->connection->sent);
    return result;
}

/* At the session's end: what was received for a server that never took it. */
static ngx_int_t ngx_stream_fpx_end_traffic(ngx_stream_session_t *s) {
    ngx_fpx_traffic_t *traffic = ngx_stream_get_module_ctx(s, ngx_stream_fpx_module);
    if (traffic != NULL) ngx_fpx_count(traffic, s->received, s->connection->sent);
    return NGX_OK;
}

/* ---- Sessions ---- */

static ngx_fpx_session_t *ngx_stream_fpx_admit(ngx_stream_session_t *s, const ngx_fpx_conf_t *conf) {
    ngx_pool_t *memory = s->connection->pool;
    ngx_fpx_session_t *session =
        ngx_fpx_admit(ngx_stream_get_module_main_conf(s, ngx_stream_fpx_module), conf, memory, memory);
    if (session == NULL || session->lane == NULL || session->verdict == FPX_BLOCK) return session;
    if (ngx_stream_get_module_ctx(s, ngx_stream_fpx_module) == NULL) {
        ngx_fpx_traffic_t *traffic = ngx_pcalloc(memory, sizeof(*traffic));
        if (traffic == NULL) return NULL;
        traffic->lane = session->lane;
        ngx_stream_set_ctx(s, traffic, ngx_stream_fpx_module);
    }
    return session;
}

static ngx_int_t ngx_stream_fpx_handler(ngx_stream_session_t *s) {
    const ngx_fpx_conf_t *conf = ngx_stream_get_module_srv_conf(s, ngx_stream_fpx_module);
    if (!conf->enable) return NGX_DECLINED;
    ngx_fpx_session_t *session = ngx_stream_fpx_admit(s, conf);
    if (session == NULL) return NGX_STREAM_INTERNAL_SERVER_ERROR;
    return session->verdict == FPX_BLOCK ? NGX_STREAM_SERVICE_UNAVAILABLE : NGX_DECLINED;
}

/* Whoever reads the variable first admits, except an access log: it comes after the session has got its status.
 * Where fpx is off there is no verdict. */
static ngx_int_t ngx_stream_fpx_verdict(ngx_stream_session_t *s, ngx_stream_variable_value_t *value, uintptr_t unused) {
    const ngx_fpx_conf_t *conf = ngx_stream_get_module_srv_conf(s, ngx_stream_fpx_module);
    if (!conf->enable || (s->status != 0 && ngx_fpx_session(conf, s->connection->pool, s->connection->pool) == NULL)) {
        value->not_found = 1;
        return NGX_OK;
    }
    ngx_fpx_session_t *session = ngx_stream_fpx_admit(s, conf);
    if (session == NULL) return NGX_ERROR;
    ngx_fpx_set_verdict(value, session->verdict);
    return NGX_OK;
}

static ngx_int_t ngx_stream_fpx_add_variable(ngx_conf_t *cf) {
    ngx_str_t name = ngx_string("fpx_verdict");
    ngx_stream_variable_t *variable = ngx_stream_add_variable(cf, &name, NGX_STREAM_VAR_NOCACHEABLE);
    if (variable == NULL) return NGX_ERROR;
    variable->get_handler = ngx_stream_fpx_verdict;
    return NGX_OK;
}

static ngx_int_t ngx_stream_fpx_add_handlers(ngx_conf_t *cf) {
    ngx_stream_core_main_conf_t *core = ngx_stream_conf_get_module_main_conf(cf, ngx_stream_core_module);
    ngx_stream_handler_pt *admit = ngx_array_push(&core->phases[NGX_STREAM_PREACCESS_PHASE].handlers);
    ngx_stream_handler_pt *end = ngx_array_push(&core->phases[NGX_STREAM_LOG_PHASE].handlers);
    if (admit == NULL || end == NULL) return NGX_ERROR;
    *admit = ngx_stream_fpx_handler;
    *end = ngx_stream_fpx_end_traffic;
    ngx_stream_fpx_next_filter = ngx_stream_top_filter;
    ngx_stream_top_filter = ngx_stream_fpx_filter;
    return NGX_OK;
}

static void *ngx_stream_fpx_create_main_conf(ngx_conf_t *cf) { return ngx_pcalloc(cf->pool, sizeof(ngx_fpx_main_conf_t)); }

static char *ngx_stream_fpx_init_main_conf(ngx_conf_t *cf, void *conf) {
    ngx_fpx_init_main_conf(conf);
    return NGX_CONF_OK;
}

static void *ngx_stream_fpx_create_srv_conf(ngx_conf_t *cf) { return ngx_fpx_create_conf(cf); }

static char *ngx_stream_fpx_merge_srv_conf(ngx_conf_t *cf, void *outer, void *conf) {
    ngx_fpx_merge_conf(ngx_stream_conf_get_module_main_conf(cf, ngx_stream_fpx_module), outer, conf);
    return NGX_CONF_OK;
}

static ngx_int_t ngx_stream_fpx_init_process(ngx_cycle_t *cycle) {
    ngx_fpx_init_process(ngx_stream_cycle_get_module_main_conf(cycle, ngx_stream_fpx_module));
    return NGX_OK;
}

static void ngx_stream_fpx_exit_process(ngx_cycle_t *cycle) { ngx_fpx_exit_process(); }
