/* What the kernel tells of processes, namespaces, files and clocks. */
#define _GNU_SOURCE
#include "fpx_keyed.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- Processes ---- */

int fpx_pidfd_open(int pid) {
    int descriptor = (int)syscall(SYS_pidfd_open, pid, 0);
    return descriptor >= 0 ? descriptor : -errno;
}

void fpx_pidfd_poll(const int *descriptors, bool *dead, size_t count) {
    struct pollfd polled[64];
    for (size_t base = 0; base < count; base += 64) {
        size_t part = count - base < 64 ? count - base : 64;
        for (size_t i = 0; i < part; i++) polled[i] = (struct pollfd){descriptors[base + i], POLLIN, 0};
        int ready = poll(polled, part, 0);
        for (size_t i = 0; i < part; i++) dead[base + i] = ready > 0 && polled[i].revents & POLLIN;
    }
}

/* ---- Namespaces ---- */

#ifdef SO_NETNS_COOKIE
_Static_assert(SO_NETNS_COOKIE == FPX_SO_NETNS_COOKIE, "the option's number on this processor");
#endif

uint64_t fpx_network_cookie(void) {
    int descriptor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) return 0;
    uint64_t cookie = 0;
    socklen_t length = sizeof cookie;
    if (getsockopt(descriptor, SOL_SOCKET, FPX_SO_NETNS_COOKIE, &cookie, &length) != 0) cookie = 0;
    close(descriptor);
    return cookie;
}

uint32_t fpx_namespace(const char *kind) {
    char path[32];
    struct stat own;
    snprintf(path, sizeof path, "/proc/self/ns/%s", kind);
    return stat(path, &own) == 0 ? (uint32_t)own.st_ino : 0;
}

int fpx_same_network(int pid) {
    char path[32];
    struct stat other, own;
    snprintf(path, sizeof path, "/proc/%d/ns/net", pid);
    if (stat(path, &other) != 0 || stat("/proc/self/ns/net", &own) != 0) return -1;
    return other.st_ino == own.st_ino && other.st_dev == own.st_dev;
}

/* ---- Records ---- */

static uint64_t sum_of(const fpx_record *record, uint32_t entry) {
    uint64_t words[sizeof *record / 8], hash = UINT64_C(0x6670782d72656364) ^ entry;
    memcpy(words, record, sizeof words);
    words[offsetof(fpx_record, sum) / 8] = 0;
    for (size_t i = 0; i < sizeof words / 8; i++) {
        hash = (hash ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    return hash;
}
void fpx_record_seal(fpx_record *record, uint32_t entry) { record->sum = sum_of(record, entry); }
enum fpx_record_kind fpx_record_kind_of(const fpx_record *record, uint32_t entry) {
    static const fpx_record zeros;
    if (record->sum == sum_of(record, entry)) return record->handle ? FPX_RECORD_SESSION : FPX_RECORD_FREE;
    return memcmp(record, &zeros, sizeof zeros) == 0 ? FPX_RECORD_UNUSED : FPX_RECORD_DAMAGED;
}

/* ---- Files and clocks ---- */

int fpx_file_open_own(const char *path, int64_t *size) {
    int descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (descriptor < 0) return -errno;
    struct stat status;
    int error = fstat(descriptor, &status) != 0                        ? errno
                : !S_ISREG(status.st_mode)                             ? EINVAL
                : status.st_uid != 0 && status.st_uid != geteuid()     ? EPERM
                                                                       : 0;
    *size = status.st_size;
    if (!error) return descriptor;
    close(descriptor);
    return -error;
}
int fpx_file_make(const char *path, int64_t bytes) {
    if (unlink(path) != 0 && errno != ENOENT) return -errno;
    int descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (descriptor < 0) return -errno;
    if (ftruncate(descriptor, bytes) == 0) return descriptor;
    int error = errno;
    close(descriptor);
    unlink(path);
    return -error;
}
int fpx_file_check(int descriptor, const char *path, int64_t bytes, int64_t *size) {
    struct stat own, named;
    if (fstat(descriptor, &own) != 0) return errno;
    *size = own.st_size;
    if (lstat(path, &named) != 0) return errno;
    if (named.st_dev != own.st_dev || named.st_ino != own.st_ino) return EEXIST;
    return own.st_size == bytes ? 0 : EFBIG;
}
int fpx_file_try(int descriptor, int64_t end, int64_t bytes) {
    int result;
    do result = fallocate(descriptor, FALLOC_FL_KEEP_SIZE, end, bytes);
    while (result != 0 && errno == EINTR);
    int error = result == 0 ? 0 : errno;
    /* Also what was taken before an error. */
    (void)fallocate(descriptor, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, end, bytes);
    return error;
}
int64_t fpx_file_data(int descriptor, int64_t offset) {
    off_t data = lseek(descriptor, offset, SEEK_DATA);
    return data >= 0 ? data : errno == ENXIO ? -1 : offset;
}
int fpx_file_read(int descriptor, void *bytes, size_t count, int64_t offset) {
    ssize_t length;
    do length = pread(descriptor, bytes, count, offset);
    while (length < 0 && errno == EINTR);
    return length < 0 ? errno : (size_t)length == count ? 0 : EIO;
}
int fpx_file_write(int descriptor, const void *bytes, size_t count, int64_t offset) {
    ssize_t length;
    do length = pwrite(descriptor, bytes, count, offset);
    while (length < 0 && errno == EINTR);
    return length < 0 ? errno : (size_t)length == count ? 0 : EIO;
}
void fpx_descriptor_close(int descriptor) { close(descriptor); }
const char *fpx_errno_name(int number) {
    const char *name = strerrorname_np(number);
    return name ? name : "unknown";
}

static uint64_t nanoseconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
uint64_t fpx_monotonic(void) { return nanoseconds(CLOCK_MONOTONIC); }
uint64_t fpx_milliseconds(void) { return nanoseconds(CLOCK_REALTIME) / 1000000u; }
void fpx_yield(void) { sched_yield(); }
void fpx_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
