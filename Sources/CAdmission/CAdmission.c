#include "CAdmission.h"

/* Attachments are never unmapped (detaching empties them), so the table only grows. */
enum { GUARDS_MAX = 256 };
static struct {
    void *address;
    size_t size;
} guards[GUARDS_MAX];
static unsigned int guard_count; /* atomic; an entry is filled before it is counted by the thread that reserved it */
static pthread_once_t guard_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t guard_mutex = PTHREAD_MUTEX_INITIALIZER;

static void forked(void) {
    unsigned int count = __atomic_load_n(&guard_count, __ATOMIC_ACQUIRE);
    for (unsigned int i = 0; i < count; i++) (void)fpx_map_nothing(guards[i].address, guards[i].size);
    pthread_mutex_init(&guard_mutex, NULL); /* another thread of the parent may have held it */
}
static void install(void) { pthread_atfork(NULL, NULL, forked); }

bool fpx_fork_guard(void *address, size_t size) {
    pthread_once(&guard_once, install);
    pthread_mutex_lock(&guard_mutex);
    bool room = guard_count < GUARDS_MAX;
    if (room) {
        guards[guard_count].address = address;
        guards[guard_count].size = size;
        __atomic_store_n(&guard_count, guard_count + 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&guard_mutex);
    return room;
}

static _Thread_local char last_error[512] = "no error";

void fpx_set_last_error(const char *text) {
    size_t length = strnlen(text, sizeof last_error - 1);
    memcpy(last_error, text, length);
    last_error[length] = 0;
}
const char *fpx_last_error(void) { return last_error; }
