/* fpx_platform.h - what Swift cannot say: a 128-bit compare-and-swap, fences, restartable sequences, and the few system
 * calls of the segment. Header only; nothing here keeps state. */
#ifndef FPX_PLATFORM_H
#define FPX_PLATFORM_H
#include "fpxadmission.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

/* GNU extensions, declared here: with _GNU_SOURCE the C library's types would differ from those that Swift imports. */
#ifndef F_OFD_GETLK
#define F_OFD_GETLK 36
#define F_OFD_SETLK 37
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef FALLOC_FL_KEEP_SIZE
#define FALLOC_FL_KEEP_SIZE 1
#endif
extern int fallocate(int descriptor, int mode, off_t offset, off_t length);
extern int sched_getcpu(void);
extern const char *strerrorname_np(int number);

_Static_assert(sizeof(fpx_writer) == 128 && offsetof(fpx_writer, gate) == 16 && offsetof(fpx_writer, credit) == 24,
               "a writer is 128 bytes and its gate and credit are one aligned pair");

/* Shards of one CPU lie together, so that their pages can lie on the CPU's node: 512 processes x 16 pools x 128 bytes. */
#define FPX_CPU_STRIDE_SHIFT 20

/* ---- Atomics ---- */

typedef struct fpx_pair { uint64_t low, high; } fpx_pair;

/* Compares and swaps 16 aligned bytes; a full barrier either way. True when swapped. */
FPX_INLINE bool fpx_pair_compare_and_swap(void *address, fpx_pair expected, fpx_pair desired) {
#if defined(__x86_64__)
    bool swapped;
    __asm__ __volatile__("lock cmpxchg16b %[target]"
                         : "=@ccz"(swapped), [target] "+m"(*(fpx_pair *)address), "+a"(expected.low), "+d"(expected.high)
                         : "b"(desired.low), "c"(desired.high)
                         : "memory");
    return swapped;
#else
    unsigned __int128 old = (unsigned __int128)expected.high << 64 | expected.low;
    unsigned __int128 new = (unsigned __int128)desired.high << 64 | desired.low;
    return __atomic_compare_exchange_n((unsigned __int128 *)address, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
#endif
}

FPX_INLINE void fpx_prefetch_for_write(void *address) { __builtin_prefetch(address, 1); }
/* Lets another thread have a contended line for about two microseconds: long enough for many operations in a row, which cost a
 * tenth of what each costs when two CPUs pull the line to and fro. By time, since a pause takes 40 cycles on one CPU and 140 on
 * another. */
FPX_INLINE void fpx_back_off(void) {
#if defined(__x86_64__)
    uint64_t start = __builtin_ia32_rdtsc();
    do __builtin_ia32_pause();
    while (__builtin_ia32_rdtsc() - start < 6000);
#else
    for (volatile int i = 0; i < 256; i++) {}
#endif
}

/* Plain stores are enough for the fast paths on x86-64 (total store order); elsewhere they use locked ones. */
#if defined(__x86_64__)
#define FPX_PLAIN_FAST_PATH 1
#else
#define FPX_PLAIN_FAST_PATH 0
#endif

/* ---- Fences ---- */

/* Makes this process' threads take part in fpx_fence_everybody. 0 or errno. */
FPX_INLINE int fpx_fence_register(void) {
    return syscall(__NR_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0 ? 0 : errno;
}
/* A full barrier on every running thread of all registered processes. 0, or the errno of a kernel or sandbox that refuses it.
 * For want of kernel memory it fails for a moment only, and is tried again. */
FPX_INLINE int fpx_fence_everybody(void) {
    for (int tries = 0; tries < 1000; tries++) {
        if (syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0) return 0;
        if (errno != ENOMEM && errno != EAGAIN && errno != EINTR) return errno;
        sched_yield();
    }
    return ENOMEM;
}

/* ---- Restartable sequences (man 2 rseq; registered by glibc 2.35 and later) ---- */

#if defined(__x86_64__) && defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 35)
#define FPX_RSEQ 1
extern const ptrdiff_t __rseq_offset;
extern const unsigned int __rseq_size;
#else
#define FPX_RSEQ 0
#endif

/* Whether glibc has registered restartable sequences for this process' threads. */
FPX_INLINE bool fpx_rseq_is_registered(void) {
#if FPX_RSEQ
    return __rseq_size != 0;
#else
    return false;
#endif
}

#if FPX_RSEQ
/* struct rseq: cpu_id_start @0, cpu_id @4 (negative: not registered), rseq_cs @8. A section is the instructions from 1 to 2;
 * it is aborted to 4 on preemption, migration or a signal, and its last instruction is its only store to shared memory. */
#define FPX_RSEQ_BEGIN                                                                                                   \
    ".pushsection __rseq_cs, \"aw\"\n.balign 32\n3: .long 0, 0\n.quad 1f, (2f - 1f), 4f\n.popsection\n"                  \
    "leaq 3b(%%rip), %[writer]\nmovq %[writer], %%fs:8(%[rseq])\n"                                                       \
    "1: movl %%fs:4(%[rseq]), %k[writer]\ncmpl %k[cpus], %k[writer]\njae %l[closed]\n"                                   \
    "shlq %[shift], %[writer]\naddq %[shards], %[writer]\nmovq 16(%[writer]), %[gate]\n"
#define FPX_RSEQ_END                                                                                                     \
    "2:\n.pushsection __rseq_failure, \"ax\"\n.byte 0x0f, 0xb9, 0x3d\n.long 0x53053053\n4: jmp %l[again]\n.popsection\n"
#endif

/* Admits on the shard of the current CPU. `shards`: this process' and pool's shard of CPU 0. FPX_STEP_CLOSED: nothing was
 * stored (gate closed, no spare session, this CPU has no shard, or the thread is not registered). FPX_STEP_CHANGED: the claim
 * is in *where, whose gate changed. */
FPX_INLINE fpx_step fpx_shard_admit(char *shards, uint64_t cpus, fpx_writer **where) {
#if FPX_RSEQ
    ptrdiff_t rseq = __rseq_offset;
    char *writer;
    uint64_t gate, room;
again:
    __asm__ goto volatile(FPX_RSEQ_BEGIN
                          "movq %[gate], %[room]\nshrq $32, %[room]\n"
                          "subl (%[writer]), %k[room]\naddl 8(%[writer]), %k[room]\n"
                          "cmpl %[bias], %k[room]\njle %l[closed]\n"
                          "addq $1, (%[writer])\n" FPX_RSEQ_END
                          : [writer] "=&r"(writer), [gate] "=&r"(gate), [room] "=&r"(room)
                          : [rseq] "r"(rseq), [shards] "r"(shards), [cpus] "r"(cpus), [shift] "i"(FPX_CPU_STRIDE_SHIFT),
                            [bias] "i"(FPX_GATE_BIAS)
                          : "memory", "cc"
                          : again, closed);
    *where = (fpx_writer *)writer;
    return FPX_LIKELY(FPX_LOAD(((fpx_writer *)writer)->gate) == gate) ? FPX_STEP_DONE : FPX_STEP_CHANGED;
closed:
#else
    (void)shards; (void)cpus; (void)where;
#endif
    return FPX_STEP_CLOSED;
}

FPX_INLINE fpx_step fpx_shard_release(char *shards, uint64_t cpus, fpx_writer **where) {
#if FPX_RSEQ
    ptrdiff_t rseq = __rseq_offset;
    char *writer;
    uint64_t gate;
again:
    __asm__ goto volatile(FPX_RSEQ_BEGIN
                          "testb %[open], %b[gate]\njz %l[closed]\n"
                          "addq $1, 8(%[writer])\n" FPX_RSEQ_END
                          : [writer] "=&r"(writer), [gate] "=&r"(gate)
                          : [rseq] "r"(rseq), [shards] "r"(shards), [cpus] "r"(cpus), [shift] "i"(FPX_CPU_STRIDE_SHIFT),
                            [open] "i"(FPX_GATE_OPEN)
                          : "memory", "cc"
                          : again, closed);
    *where = (fpx_writer *)writer;
    return FPX_LIKELY(FPX_LOAD(((fpx_writer *)writer)->gate) == gate) ? FPX_STEP_DONE : FPX_STEP_CHANGED;
closed:
#else
    (void)shards; (void)cpus; (void)where;
#endif
    return FPX_STEP_CLOSED;
}

/* The CPU that this thread runs on, by rseq where it is registered, else by the vDSO. */
FPX_INLINE int fpx_current_cpu(void) {
#if FPX_RSEQ
    if (__rseq_size != 0) return *(volatile int *)((char *)__builtin_thread_pointer() + __rseq_offset + 4);
#endif
    return sched_getcpu();
}

/* ---- Time ---- */

/* CLOCK_BOOTTIME: counts suspend and is never set. */
FPX_INLINE uint64_t fpx_boottime_milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* How many microseconds the kernel adds to its clocks with each of its ticks: 10000 unless it is told otherwise. Negative: errno. */
FPX_INLINE long fpx_clock_tick(void) {
    struct timex state = {0};
    return adjtimex(&state) < 0 ? -1 : state.tick;
}

/* ---- Files: the segment's descriptor, its locks, its mapping ---- */

/* 0 or errno. */
FPX_INLINE int fpx_file_open(const char *path, bool create, unsigned int mode, int *descriptor) {
    *descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (create ? O_CREAT | O_EXCL : 0), (mode_t)mode);
    return *descriptor >= 0 ? 0 : errno;
}
/* The same for a link, such as those under /proc. */
FPX_INLINE int fpx_file_open_other(const char *path, int *descriptor) {
    *descriptor = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    return *descriptor >= 0 ? 0 : errno;
}
typedef struct fpx_file_status {
    int64_t size;
    uint64_t device, inode, links;
    bool regular;
} fpx_file_status;
/* Of an open file, or of the file that a path leads to. 0 or errno. */
FPX_INLINE int fpx_file_stat(int descriptor, const char *path, fpx_file_status *result) {
    struct stat status;
    if ((path ? lstat(path, &status) : fstat(descriptor, &status)) != 0) return errno;
    *result = (fpx_file_status){status.st_size, (uint64_t)status.st_dev, (uint64_t)status.st_ino, (uint64_t)status.st_nlink,
                                S_ISREG(status.st_mode)};
    return 0;
}
/* Takes memory for a part of the file, so that touching it later cannot fail. The size stays. 0 or errno (ENOSPC: the file
 * system is full, ENOMEM: its user may take no more, EOPNOTSUPP: it cannot). */
FPX_INLINE int fpx_file_reserve(int descriptor, int64_t offset, int64_t bytes) {
    int result;
    do result = fallocate(descriptor, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes);
    while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : errno;
}
/* Gives an empty new file its size. 0 or errno. */
FPX_INLINE int fpx_file_set_size(int descriptor, int64_t size) { return ftruncate(descriptor, (off_t)size) == 0 ? 0 : errno; }
/* Gives a finished file its name; `replace`: also where that name is taken. 0 or errno. */
FPX_INLINE int fpx_file_publish(const char *from, const char *to, bool replace) {
    if (replace) return rename(from, to) == 0 ? 0 : errno;
    int error = link(from, to) == 0 ? 0 : errno;
    unlink(from);
    return error;
}
FPX_INLINE void fpx_file_remove(const char *path) { unlink(path); }
FPX_INLINE void fpx_file_close(int descriptor) { close(descriptor); }
/* A second open file description of the same file, which sees the first one's locks as another's. 0 or errno. */
FPX_INLINE int fpx_file_reopen(int descriptor, int *other) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    *other = open(path, O_RDWR | O_CLOEXEC);
    return *other >= 0 ? 0 : errno;
}
/* An open-file-description lock on one byte: it lives as long as a mapping made through the descriptor does, so it goes
 * with the address space that holds it, not with a stray close, and a forked child without the mapping does not keep it. */
FPX_INLINE int fpx_file_lock_byte(int descriptor, int64_t byte) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
    return fcntl(descriptor, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}
FPX_INLINE void fpx_file_unlock_byte(int descriptor, int64_t byte) {
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
    fcntl(descriptor, F_OFD_SETLK, &lock);
}
/* Whether another open file description holds the byte; an error counts as held (a live process is never reaped by mistake). */
FPX_INLINE bool fpx_file_byte_is_locked(int descriptor, int64_t byte) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
    return fcntl(descriptor, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}
/* Maps the whole segment; children do not inherit it. 0 or errno. */
FPX_INLINE int fpx_map(int descriptor, size_t size, void **address) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor, 0);
    if (memory == MAP_FAILED) return errno;
    madvise(memory, size, MADV_DONTFORK);
    *address = memory;
    return 0;
}
FPX_INLINE void fpx_unmap(void *address, size_t size) { munmap(address, size); }
/* Puts empty private memory in the place of a segment: every gate in it is closed, so whoever still uses it goes the slow way
 * and finds itself detached. For fpx_detach, and for children after fork. */
FPX_INLINE int fpx_map_nothing(void *address, size_t size) {
    return mmap(address, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) ==
                   MAP_FAILED
               ? errno
               : 0;
}
/* The same where nothing is mapped, and only there. 0 or errno. */
FPX_INLINE int fpx_map_nothing_new(void *address, size_t size) {
    void *memory = mmap(address, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
    if (memory == address) return 0;
    if (memory == MAP_FAILED) return errno;
    munmap(memory, size); /* a kernel before 4.17 takes the address for a wish */
    return EEXIST;
}
FPX_INLINE const char *fpx_error_name(int number) {
    const char *name = strerrorname_np(number);
    return name ? name : "unknown";
}

/* ---- The host and this process ---- */

/* CPUs that the host may ever have, whatever cpusets hide from this process. */
FPX_INLINE int fpx_configured_cpus(void) { return (int)sysconf(_SC_NPROCESSORS_CONF); }
FPX_INLINE int fpx_process_id(void) { return (int)getpid(); }
/* The process' name, that of its first thread, 16 bytes with at least one zero at the end. Where /proc is not there it is that
   of the calling thread, which may have a name of its own. */
FPX_INLINE void fpx_process_name(void *name) {
    memset(name, 0, 16);
    int descriptor = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
    ssize_t length = descriptor < 0 ? -1 : read(descriptor, name, 15);
    if (descriptor >= 0) close(descriptor);
    if (length <= 0) (void)prctl(PR_GET_NAME, name, 0, 0, 0);
    ((char *)name)[15] = 0;
    if (length > 0 && ((char *)name)[length - 1] == '\n') ((char *)name)[length - 1] = 0;
}
/* When a process started, in clock ticks since boot (field 22 of /proc/PID/stat); 0 if it cannot be read. */
FPX_INLINE uint64_t fpx_process_start(int pid) {
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return 0;
    ssize_t length = read(descriptor, text, sizeof text - 1);
    close(descriptor);
    if (length <= 0) return 0;
    text[length] = 0;
    char *field = strrchr(text, ')'); /* the name may hold anything, but it ends at the last parenthesis */
    for (int skip = 0; field && skip < 20; skip++) field = strchr(field + 1, ' ');
    return field ? strtoull(field, NULL, 10) : 0;
}

#endif
