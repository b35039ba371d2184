#include "CAdmission.h"
#include <signal.h>
#include <stdatomic.h>

/* The mappings of segments in this process. An entry is made once and never freed, and used again when its mapping has gone: a
 * signal handler may walk the list at any time. `size` 0: the entry is free. */
typedef struct guard {
    struct guard *next;
    _Atomic(uintptr_t) address;
    _Atomic(size_t) size;
    _Atomic(pid_t) process; /* that has the mapping */
} guard;
static _Atomic(guard *) guards;
static pthread_once_t guard_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t guard_mutex = PTHREAD_MUTEX_INITIALIZER;

/* fork waits for the mutex: the child finds the list whole, and no descriptor of an attach that is under way. */
static void before_fork(void) { pthread_mutex_lock(&guard_mutex); }
static void after_fork(void) { pthread_mutex_unlock(&guard_mutex); }
static void in_child(void) {
    for (guard *each = guards; each; each = each->next) {
        if (each->size) (void)fpx_map_nothing((void *)each->address, each->size);
        each->size = 0;
    }
    pthread_mutex_unlock(&guard_mutex);
}

/* ---- Signals ----
 * A segment's memory can go from under its mapping: somebody cuts the file, its file system is full, a memory module fails
 * (SIGBUS); or this is a child that was made by a raw clone or _Fork, in which no handler of fork has run and which has no
 * mapping (SIGSEGV). Empty memory in the place of the segment makes the process a detached one. In such a child it is put only
 * where nothing is: what the child has mapped there since is its own. Other addresses are not ours: the handler that was there
 * before gets them. */
static struct sigaction before_bus, before_segv;

static void pass_on(int number, siginfo_t *info, void *context) {
    struct sigaction *before = number == SIGBUS ? &before_bus : &before_segv;
    if (before->sa_flags & SA_SIGINFO) {
        before->sa_sigaction(number, info, context);
    } else if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN) {
        before->sa_handler(number);
    } else {
        /* The instruction is executed again, and ends the process as if we had never been here. */
        (void)sigaction(number, before, NULL);
        if (info->si_code <= 0) (void)raise(number); /* sent by a process: there is no instruction */
    }
}

/* Whether memory of a segment in this process has gone, and empty memory is there by now. */
static bool is_replaced(const guard *entry, uintptr_t address, int number) {
    uintptr_t begin = entry->address;
    size_t size = entry->size;
    if (address < begin || address - begin >= size) return false;
    if (number == SIGBUS) return entry->process == getpid() && fpx_map_nothing((void *)begin, size) == 0;
    uintptr_t page = address & ~(uintptr_t)4095;
    return fpx_map_nothing_new((void *)begin, size) == 0 || fpx_map_nothing_new((void *)page, 4096) == 0;
}

static void on_lost_memory(int number, siginfo_t *info, void *context) {
    int error = errno;
    uintptr_t address = (uintptr_t)info->si_addr;
    guard *each = info->si_code > 0 ? atomic_load(&guards) : NULL;
    while (each && !is_replaced(each, address, number)) each = each->next;
    if (!each) pass_on(number, info, context);
    errno = error;
}

static void install(void) {
    pthread_atfork(before_fork, after_fork, in_child);
    struct sigaction action = {.sa_sigaction = on_lost_memory, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGBUS, &action, &before_bus);
    (void)sigaction(SIGSEGV, &action, &before_segv);
}

/* In a child of a raw clone: fills the places of its parent's mappings, so that no segment that it attaches to comes to lie
 * where its parent's lanes lead. */
static void forget_parent(void) {
    for (guard *each = guards; each; each = each->next)
        if (each->size && each->process != getpid() && fpx_map_nothing_new((void *)each->address, each->size) == 0)
            each->size = 0;
}

void fpx_fork_hold(void) {
    pthread_once(&guard_once, install);
    pthread_mutex_lock(&guard_mutex);
    forget_parent();
}
void fpx_fork_resume(void) { pthread_mutex_unlock(&guard_mutex); }

bool fpx_guard_memory(void *address, size_t size) {
    guard *entry = guards;
    while (entry && entry->size) entry = entry->next;
    if (!entry) {
        entry = calloc(1, sizeof *entry);
        if (!entry) return false;
        entry->next = guards;
        guards = entry;
    }
    entry->address = (uintptr_t)address;
    entry->process = getpid();
    entry->size = size;
    return true;
}

void fpx_unguard_memory_held(void *address) {
    for (guard *each = guards; each; each = each->next)
        if (each->size && each->address == (uintptr_t)address) each->size = 0;
}

void fpx_unguard_memory(void *address) {
    pthread_mutex_lock(&guard_mutex);
    fpx_unguard_memory_held(address);
    pthread_mutex_unlock(&guard_mutex);
}

void fpx_discard_memory(void *address) {
    guard *entry = guards;
    while (entry && !(entry->size && entry->address == (uintptr_t)address && entry->process == getpid())) entry = entry->next;
    if (!entry) return; /* a child's parent has it; or it has been discarded */
    pthread_mutex_lock(&guard_mutex);
    if (entry->size) (void)fpx_map_nothing(address, entry->size);
    entry->size = 0;
    pthread_mutex_unlock(&guard_mutex);
}

static _Thread_local char last_error[512] = "no error";

void fpx_set_last_error(const char *text) {
    size_t length = strnlen(text, sizeof last_error - 1);
    memcpy(last_error, text, length);
    last_error[length] = 0;
}
const char *fpx_last_error(void) { return last_error; }

void fpx_die(const char *text) {
    dprintf(STDERR_FILENO, "%s\n", text);
    abort();
}
