/* killpoint: loaded before all other libraries (LD_PRELOAD), it kills its process at a chosen change of a file.
 *
 * FPX_KILL_ARM names a file with the text "ROUND N WHEN". While it is there, calls that change files whose paths have one of
 * FPX_KILL_IN (separated by colons) in them are counted, from 1 in each ROUND, and the N-th is the last: WHEN is `before` it is
 * made, in the `middle` (half the bytes of a write), or `after`. Just before it dies the file becomes FPX_KILL_ARM.done, and
 * holds the process id. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum when { NEVER, BEFORE, MIDDLE, AFTER };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long round_now = -1, count;

static void die(const char *arm) {
    char done[PATH_MAX], text[32];
    snprintf(done, sizeof done, "%s.done", arm);
    int file = syscall(SYS_openat, AT_FDCWD, done, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    int length = snprintf(text, sizeof text, "%d", getpid());
    syscall(SYS_write, file, text, length);
    syscall(SYS_close, file);
    syscall(SYS_unlink, arm);
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

static int counts(const char *path) {
    const char *rest = getenv("FPX_KILL_IN");
    while (rest && *rest) {
        char part[PATH_MAX];
        size_t length = strcspn(rest, ":");
        snprintf(part, sizeof part, "%.*s", (int)length, rest);
        if (length && strstr(path, part)) return 1;
        rest += length;
        if (*rest == ':') rest++;
    }
    return 0;
}

/* What is to become of this call. */
static enum when step(const char *path) {
    const char *arm = getenv("FPX_KILL_ARM");
    if (!arm || !counts(path)) return NEVER;
    int file = syscall(SYS_openat, AT_FDCWD, arm, O_RDONLY | O_CLOEXEC);
    if (file < 0) return NEVER;
    char text[64] = {0}, word[16] = {0};
    syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    long round = 0, chosen = 0;
    if (sscanf(text, "%ld %ld %15s", &round, &chosen, word) != 3) return NEVER;
    pthread_mutex_lock(&lock);
    if (round != round_now) {
        round_now = round;
        count = 0;
    }
    long mine = ++count;
    pthread_mutex_unlock(&lock);
    if (mine != chosen) return NEVER;
    if (strcmp(word, "before") == 0) die(arm);
    return strcmp(word, "middle") == 0 ? MIDDLE : AFTER;
}

static enum when step_file(int file) {
    char name[64], path[PATH_MAX];
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length <= 0) return NEVER;
    path[length] = 0;
    return step(path);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define END(when) do { if ((when) != NEVER) die(getenv("FPX_KILL_ARM")); } while (0)

ssize_t write(int file, const void *bytes, size_t count) {
    enum when when = step_file(file);
    ssize_t result = NEXT(write)(file, bytes, when == MIDDLE ? count / 2 : count);
    END(when);
    return result;
}

#define PWRITE(name, offset_t)                                                                      \
    ssize_t name(int file, const void *bytes, size_t count, offset_t offset) {                      \
        enum when when = step_file(file);                                                           \
        ssize_t result = NEXT(name)(file, bytes, when == MIDDLE ? count / 2 : count, offset);       \
        END(when);                                                                                  \
        return result;                                                                              \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define ON_FILE(name)                    \
    int name(int file) {                 \
        enum when when = step_file(file); \
        int result = NEXT(name)(file);   \
        END(when);                       \
        return result;                   \
    }
ON_FILE(fsync)
ON_FILE(fdatasync)

#define ON_PATHS(name)                                  \
    int name(const char *source, const char *target) { \
        enum when when = step(target);                  \
        int result = NEXT(name)(source, target);        \
        END(when);                                      \
        return result;                                  \
    }
ON_PATHS(rename)
ON_PATHS(link)

int unlink(const char *path) {
    enum when when = step(path);
    int result = NEXT(unlink)(path);
    END(when);
    return result;
}
