#include "CAdmission.h"

/* What to empty in a forked child: one entry for each attachment, linked, changed under the mutex only. */
typedef struct guard {
    struct guard *next;
    void *address;
    size_t size;
} guard;
static guard *guards;
static pthread_once_t guard_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t guard_mutex = PTHREAD_MUTEX_INITIALIZER;

/* fork waits for the mutex: the child finds the list whole, and no descriptor of an attach that is under way. */
static void before_fork(void) { pthread_mutex_lock(&guard_mutex); }
static void after_fork(void) { pthread_mutex_unlock(&guard_mutex); }
static void in_child(void) {
    for (guard *each = guards; each; each = each->next) (void)fpx_map_nothing(each->address, each->size);
    guards = NULL;
    pthread_mutex_unlock(&guard_mutex);
}
static void install(void) { pthread_atfork(before_fork, after_fork, in_child); }

void fpx_fork_hold(void) {
    pthread_once(&guard_once, install);
    pthread_mutex_lock(&guard_mutex);
}
void fpx_fork_resume(void) { pthread_mutex_unlock(&guard_mutex); }

bool fpx_fork_guard(void *address, size_t size) {
    guard *entry = malloc(sizeof *entry);
    if (!entry) return false;
    *entry = (guard){guards, address, size};
    guards = entry;
    return true;
}

void fpx_fork_unguard(void *address) {
    pthread_mutex_lock(&guard_mutex);
    for (guard **link = &guards; *link; link = &(*link)->next) {
        guard *entry = *link;
        if (entry->address != address) continue;
        *link = entry->next;
        free(entry);
        break;
    }
    pthread_mutex_unlock(&guard_mutex);
}

static _Thread_local char last_error[512] = "no error";

void fpx_set_last_error(const char *text) {
    size_t length = strnlen(text, sizeof last_error - 1);
    memcpy(last_error, text, length);
    last_error[length] = 0;
}
const char *fpx_last_error(void) { return last_error; }
