/* shiftedclock: loaded before all other libraries (LD_PRELOAD), it sets its process' wall clock, at any time while it runs.
 *
 * FPX_CLOCK names a file of eight bytes: how far the wall clock is ahead of the host's, in nanoseconds. Whoever waits until a
 * time of the wall clock waits as it would on a host whose clock is set: when the clock is set back it waits longer, when it is
 * set forward it wakes. Each such wait of 10 milliseconds or more is told in FPX_CLOCK.waits, a line of its call and its
 * length. Clocks that nobody sets (CLOCK_MONOTONIC, CLOCK_BOOTTIME) are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
/* How soon a sleeper sees that the clock was set. */
#define SLICE (SECOND / 100)

static const volatile int64_t *ahead;
static char waits[512];

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FPX_CLOCK");
    if (ahead) return;
    int file = open(path ? path : "", O_RDONLY | O_CLOEXEC);
    void *memory = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || memory == MAP_FAILED) _exit(125);
    close(file);
    snprintf(waits, sizeof waits, "%s.waits", path);
    ahead = memory;
}

static int64_t nanoseconds(const struct timespec *time) { return time->tv_sec * SECOND + time->tv_nsec; }

static struct timespec timespec(int64_t nanoseconds) {
    return (struct timespec){.tv_sec = nanoseconds / SECOND, .tv_nsec = nanoseconds % SECOND};
}

/* The host's own wall clock. */
static int64_t host(void) {
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    return nanoseconds(&now);
}

static int64_t shifted(void) {
    begin();
    return host() + *ahead;
}

static int is_wall(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

static void tell(const char *call, int64_t until) {
    int64_t length_ms = (until - shifted()) / (SECOND / 1000);
    if (length_ms < 10) return;
    int file = syscall(SYS_openat, AT_FDCWD, waits, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    char line[64];
    int length = snprintf(line, sizeof line, "%s %.1f s\n", call, length_ms / 1000.0);
    if (syscall(SYS_write, file, line, length) != length) _exit(125);
    syscall(SYS_close, file);
}

/* Calls `wait` with a time of the host's clock again and again, until it says something else than that the time is over. */
#define UNTIL(call, deadline, timed_out, wait)                                                                                \
    ({                                                                                                                        \
        int64_t until_ = nanoseconds(deadline);                                                                               \
        tell(call, until_);                                                                                                   \
        for (;;) {                                                                                                            \
            int64_t left_ = until_ - shifted();                                                                               \
            struct timespec slice = timespec(host() + (left_ < 0 ? 0 : left_ < SLICE ? left_ : SLICE));                       \
            (void)slice;                                                                                                      \
            if (!(timed_out(wait)) || left_ <= 0) break;                                                                      \
        }                                                                                                                     \
    })

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!is_wall(clock)) {
        long result = syscall(SYS_clock_gettime, clock, time);
        return (int)result;
    }
    *time = timespec(shifted());
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    int64_t now = shifted();
    (void)zone;
    time->tv_sec = now / SECOND;
    time->tv_usec = now % SECOND / 1000;
    return 0;
}

time_t time(time_t *result) {
    time_t now = shifted() / SECOND;
    if (result) *result = now;
    return now;
}

int sem_timedwait(sem_t *semaphore, const struct timespec *deadline) {
    int (*real)(sem_t *, const struct timespec *) = next("sem_timedwait");
    int result;
#define IS_OVER(call) ((result = (call)) != 0 && errno == ETIMEDOUT)
    UNTIL("sem_timedwait", deadline, IS_OVER, real(semaphore, &slice));
    return result;
}

int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *deadline) {
    int (*real)(sem_t *, clockid_t, const struct timespec *) = next("sem_clockwait");
    return is_wall(clock) ? sem_timedwait(semaphore, deadline) : real(semaphore, clock, deadline);
}

#undef IS_OVER
#define IS_OVER(call) ((result = (call)) == ETIMEDOUT)

int pthread_cond_clockwait(pthread_cond_t *c, pthread_mutex_t *m, clockid_t clock, const struct timespec *deadline) {
    int (*real)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *) = next("pthread_cond_clockwait");
    if (!is_wall(clock)) return real(c, m, clock, deadline);
    int result;
    UNTIL("pthread_cond_clockwait", deadline, IS_OVER, real(c, m, CLOCK_REALTIME, &slice));
    return result;
}

int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict deadline) {
    /* glibc keeps in this bit whether the condition was made for CLOCK_MONOTONIC. */
    clockid_t clock = c->__data.__wrefs & 2 ? CLOCK_MONOTONIC : CLOCK_REALTIME;
    return pthread_cond_clockwait(c, m, clock, deadline);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict m, const struct timespec *restrict deadline) {
    int (*real)(pthread_mutex_t *, const struct timespec *) = next("pthread_mutex_timedlock");
    int result;
    UNTIL("pthread_mutex_timedlock", deadline, IS_OVER, real(m, &slice));
    return result;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *left) {
    int (*real)(clockid_t, int, const struct timespec *, struct timespec *) = next("clock_nanosleep");
    if (!is_wall(clock) || !(flags & TIMER_ABSTIME)) return real(clock, flags, time, left);
    int result;
#undef IS_OVER
#define IS_OVER(call) ((result = (call)) == 0)
    UNTIL("clock_nanosleep", time, IS_OVER, real(clock, flags, &slice, left));
    return result;
}

/* A timer cannot be followed when the clock is set; that there is one is told, and it goes by the clock of now. */
int timerfd_create(int clock, int flags) {
    int (*real)(int, int) = next("timerfd_create");
    if (is_wall(clock)) tell("timerfd_create", shifted() + SECOND);
    return real(clock, flags);
}

/* What makes system calls itself: futexes, and reading the clock. */
long syscall(long number, ...) {
    static long (*real)(long, ...);
    va_list list;
    long a[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (!real) real = (long (*)(long, ...))next("syscall");
    int operation = (int)a[1] & ~FUTEX_PRIVATE_FLAG;
    const struct timespec *deadline = (const struct timespec *)a[3];
    if (number != SYS_futex || operation != (FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME) || !deadline)
        return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    long result;
#undef IS_OVER
#define IS_OVER(call) ((result = (call)) != 0 && errno == ETIMEDOUT)
    UNTIL("futex", deadline, IS_OVER, real(number, a[0], a[1], a[2], (long)&slice, a[4], a[5]));
    return result;
}
