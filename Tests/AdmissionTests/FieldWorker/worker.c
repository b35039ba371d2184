/* worker.c - processes in the field, for FieldMemoryTests. The first argument names what it does, the second one the segment;
 * what comes out is one line of words and numbers. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fpxadmission.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { POOL = 0, HANDLES = 1 << 16, PROCESSES = 512 };

/* ---- Allocations are counted ---- */

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
static long allocations;
void *malloc(size_t size) { return allocations++, __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return allocations++, __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return allocations++, __libc_realloc(old, size); }
void *aligned_alloc(size_t alignment, size_t size) { return allocations++, __libc_memalign(alignment, size); }
int posix_memalign(void **memory, size_t alignment, size_t size) {
    return (*memory = aligned_alloc(alignment, size)) ? 0 : ENOMEM;
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * (int64_t)1000000000 + now.tv_nsec;
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

static fpx_segment *attached(const char *path) {
    fpx_segment *segment;
    if (fpx_attach(path, &segment) == FPX_OK) return segment;
    say("not attached: %s", fpx_last_error());
    exit(3);
}

static fpx_lane *opened(fpx_segment *segment) {
    fpx_lane *lane;
    if (fpx_lane_open(segment, POOL, &lane) == FPX_OK) return lane;
    say("no lane: %s", fpx_last_error());
    exit(4);
}

/* The next line of standard input; false at its end. */
static bool next_line(char *line, size_t size) {
    size_t length = 0;
    while (length + 1 < size && read(0, line + length, 1) == 1 && line[length] != '\n') length++;
    bool ended = length == 0 && line[0] != '\n';
    line[length] = 0;
    return !ended;
}
static void wait_for_line(void) {
    char line[64] = "";
    (void)next_line(line, sizeof line);
}

/* ---- herd SEGMENT PROCESSES SESSIONS HANDLES: forked processes that hold sessions, until all are killed at once ---- */

typedef struct { int error, inspected, bypassed, handles; char text[120]; } report;

static report take(const char *path, int sessions, int handles) {
    report result = {0};
    fpx_segment *segment;
    result.error = fpx_attach(path, &segment);
    if (result.error == FPX_OK) {
        fpx_lane *lane = opened(segment);
        for (int i = 0; i < sessions; i++) {
            fpx_verdict verdict = fpx_lane_admit(lane);
            result.inspected += verdict == FPX_INSPECT;
            result.bypassed += verdict == FPX_BYPASS;
        }
        for (int i = 0; i < handles && result.error == FPX_OK; i++) {
            fpx_session session;
            fpx_verdict verdict;
            result.error = fpx_admit(segment, POOL, &session, &verdict);
            result.inspected += verdict == FPX_INSPECT;
            result.bypassed += verdict == FPX_BYPASS;
            result.handles += session != 0;
        }
    }
    if (result.error != FPX_OK) strncpy(result.text, fpx_last_error(), sizeof result.text - 1);
    return result;
}

static int herd(const char *path, int processes, int sessions, int handles) {
    static pid_t children[2 * PROCESSES];
    int reports[2], life[2];
    if (pipe(reports) != 0 || pipe(life) != 0) return 5;
    for (int i = 0; i < processes; i++) {
        if ((children[i] = fork()) != 0) continue;
        close(life[1]);
        report own = take(path, sessions, handles);
        if (write(reports[1], &own, sizeof own) != sizeof own) _exit(5);
        char end;
        _exit(read(life[0], &end, 1) == 0 ? 0 : 5); /* until the herd ends */
    }
    report sum = {0}, one;
    int held = 0, failed = 0;
    for (int i = 0; i < processes; i++) {
        if (read(reports[0], &one, sizeof one) != sizeof one) return 5;
        held += one.error == FPX_OK;
        failed += one.error != FPX_OK;
        if (one.error != FPX_OK) sum = (report){one.error, sum.inspected, sum.bypassed, sum.handles, ""};
        if (one.error != FPX_OK) memcpy(sum.text, one.text, sizeof sum.text);
        sum.inspected += one.inspected;
        sum.bypassed += one.bypassed;
        sum.handles += one.handles;
    }
    say("attached %d inspected %d bypassed %d handles %d failed %d error %d %s", held, sum.inspected, sum.bypassed,
        sum.handles, failed, sum.error, sum.text);
    wait_for_line();
    for (int i = 0; i < processes; i++) kill(children[i], SIGKILL);
    for (int i = 0; i < processes; i++) waitpid(children[i], NULL, 0);
    /* Who attaches reaps. The second time there is nobody to be reaped. */
    int64_t took[2];
    for (int i = 0; i < 2; i++) {
        int64_t start = nanoseconds();
        fpx_segment *segment = attached(path);
        took[i] = nanoseconds() - start;
        (void)fpx_detach(segment);
    }
    say("attached in %lld us, then in %lld us", (long long)took[0] / 1000, (long long)took[1] / 1000);
    return 0;
}

/* ---- loop: reads names of segments; uses each in all ways until the next one comes or it finds itself detached ---- */

static int64_t longest;

static void use(fpx_segment *segment, fpx_lane *lane, uint64_t round, fpx_session *held) {
    int64_t start = nanoseconds();
    fpx_verdict verdict = fpx_lane_admit(lane);
    fpx_lane_release(lane, verdict);
    verdict = fpx_pool_admit(segment, POOL);
    (void)fpx_pool_release(segment, POOL, verdict);
    fpx_session *session = &held[round % 64];
    if (*session != 0) (void)fpx_release(segment, *session);
    (void)fpx_admit(segment, POOL, session, &verdict);
    (void)fpx_report_bytes(segment, POOL, 1, 2);
    if (round % 1024 == 0) {
        fpx_pool_stats stats;
        (void)fpx_stats(segment, POOL, &stats);
        (void)fpx_reap(segment);
    }
    int64_t took = nanoseconds() - start;
    if (took > longest) longest = took;
}

static int loop(void) {
    char path[256];
    struct pollfd input = {.fd = 0, .events = POLLIN};
    while (next_line(path, sizeof path)) {
        fpx_segment *segment;
        fpx_lane *lane;
        fpx_session held[64] = {0};
        longest = 0;
        int64_t start = nanoseconds();
        if (fpx_attach(path, &segment) != FPX_OK || fpx_lane_open(segment, POOL, &lane) != FPX_OK) {
            say("failed in %lld us: %s", (long long)(nanoseconds() - start) / 1000, fpx_last_error());
            continue;
        }
        if (nanoseconds() - start > longest) longest = nanoseconds() - start;
        say("attached");
        uint64_t round = 0;
        do use(segment, lane, round, held);
        while (++round % 256 != 0 || (fpx_is_attached(segment) && poll(&input, 1, 0) == 0));
        bool detached = !fpx_is_attached(segment);
        start = nanoseconds();
        (void)fpx_detach(segment);
        if (nanoseconds() - start > longest) longest = nanoseconds() - start;
        say("%s, longest %lld us, rounds %llu", detached ? "detached" : "left", (long long)longest / 1000,
            (unsigned long long)round);
    }
    return 0;
}

/* ---- children SEGMENT HOW: what a forked child gets of its parent's attachment ---- */

#define EXPECT(condition)                                                        \
    do {                                                                         \
        if (!(condition)) {                                                      \
            fprintf(stderr, "line %d: expected %s\n", __LINE__, #condition);     \
            _exit(1);                                                            \
        }                                                                        \
    } while (0)

static pid_t child_by(const char *how) {
    if (strcmp(how, "fork") == 0) return fork();
    if (strcmp(how, "_Fork") == 0) return _Fork();
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
}

static void in_child(const char *path, fpx_segment *segment, fpx_lane *lane, fpx_session session) {
    /* Memory that the child maps may come to lie where its parent's segment was. It stays the child's. */
    enum { SIZE = 1 << 20 };
    unsigned char *own = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(own != MAP_FAILED);
    memset(own, 0x5a, SIZE);
    for (int i = 0; i < 1000; i++) {
        fpx_verdict verdict = fpx_lane_admit(lane);
        EXPECT(verdict == FPX_BYPASS);
        fpx_lane_release(lane, verdict);
        fpx_lane_release(lane, FPX_INSPECT);
        EXPECT(fpx_pool_admit(segment, POOL) == FPX_BYPASS);
    }
    fpx_verdict verdict;
    fpx_pool_stats stats;
    fpx_session other;
    EXPECT(!fpx_is_attached(segment) && !fpx_is_current(segment));
    EXPECT(fpx_release(segment, session) == FPX_E_DETACHED);
    EXPECT(fpx_admit(segment, POOL, &other, &verdict) == FPX_E_DETACHED);
    EXPECT(fpx_stats(segment, POOL, &stats) == FPX_E_DETACHED);
    EXPECT(fpx_reap(segment) == FPX_E_DETACHED);
    EXPECT(fpx_report_bytes(segment, POOL, 1, 1) == FPX_E_DETACHED);
    /* An attachment of its own is another process', and what it has inherited still leads nowhere. */
    fpx_segment *anew;
    EXPECT(fpx_attach(path, &anew) == FPX_OK);
    EXPECT(fpx_pool_admit(anew, POOL) == FPX_INSPECT);
    EXPECT(fpx_lane_admit(lane) == FPX_BYPASS && !fpx_is_attached(segment));
    EXPECT(fpx_detach(segment) == FPX_E_DETACHED);
    EXPECT(fpx_stats(anew, POOL, &stats) == FPX_OK && stats.processes == 3 && stats.in_use == 3);
    for (int i = 0; i < SIZE; i++) EXPECT(own[i] == 0x5a);
    _exit(0); /* with a session in its hands */
}

static int children(const char *path, const char *how) {
    fpx_segment *segment = attached(path);
    fpx_lane *lane = opened(segment);
    fpx_session session;
    fpx_verdict verdict;
    EXPECT(fpx_lane_admit(lane) == FPX_INSPECT);
    EXPECT(fpx_admit(segment, POOL, &session, &verdict) == FPX_OK && verdict == FPX_INSPECT);
    pid_t child = child_by(how);
    if (child == 0) in_child(path, segment, lane, session);
    int status;
    EXPECT(child > 0 && waitpid(child, &status, 0) == child);
    if (!WIFEXITED(status)) say("child: signal %d", WTERMSIG(status));
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    fpx_pool_stats stats;
    EXPECT(fpx_reap(segment) == FPX_OK);
    EXPECT(fpx_stats(segment, POOL, &stats) == FPX_OK && stats.in_use == 2 && stats.processes == 2);
    EXPECT(fpx_release(segment, session) == FPX_OK);
    fpx_lane_release(lane, FPX_INSPECT);
    EXPECT(fpx_stats(segment, POOL, &stats) == FPX_OK && stats.in_use == 0);
    say("ok");
    return 0;
}

/* ---- signals SEGMENT: handlers of before keep what is not the segment's ---- */

static volatile sig_atomic_t seen;
static void *page;
static void before(int number) {
    seen = number;
    (void)mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static int signals(const char *path) {
    struct sigaction action = {.sa_handler = before};
    EXPECT(sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
    fpx_segment *segment = attached(path);
    page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *(volatile char *)page = 1; /* SIGSEGV: not the segment's */
    EXPECT(seen == SIGSEGV);
    int file = memfd_create("empty", 0);
    EXPECT(ftruncate(file, 4096) == 0);
    EXPECT(mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == page && ftruncate(file, 0) == 0);
    *(volatile char *)page = 1; /* SIGBUS: not the segment's */
    EXPECT(seen == SIGBUS && raise(SIGBUS) == 0 && raise(SIGSEGV) == 0 && seen == SIGSEGV);
    EXPECT(fpx_is_attached(segment) && fpx_pool_admit(segment, POOL) == FPX_INSPECT);
    seen = 0;
    EXPECT(truncate(path, 0) == 0);
    EXPECT(fpx_pool_admit(segment, POOL) == FPX_BYPASS && !fpx_is_attached(segment) && seen == 0);
    say("ok");
    return 0;
}

/* ---- forbidden SEGMENT [1]: admits until refused, again for each line, with membarrier forbidden after it has attached; 1: and
 * releases them ---- */

static int forbidden(const char *path, bool releases) {
    fpx_segment *segment = attached(path);
    fpx_lane *lane = opened(segment);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof code / sizeof *code, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) return 5;
    char line[64];
    do {
        int inspected = 0;
        int64_t start = nanoseconds();
        while (fpx_lane_admit(lane) == FPX_INSPECT) {
            inspected++;
            start = nanoseconds();
        }
        start = nanoseconds() - start;
        fpx_lane_release(lane, FPX_BYPASS);
        for (int i = 0; releases && i < inspected; i++) fpx_lane_release(lane, FPX_INSPECT);
        say("inspected %d refused in %lld us", inspected, (long long)start / 1000);
        line[0] = 0;
    } while (next_line(line, sizeof line));
    return 0;
}

/* ---- full SEGMENT: what an admission by handle costs in a quarter of the table, and when all are taken ---- */

static int full(const char *path) {
    enum { TIMES = 20000 };
    fpx_segment *segment = attached(path);
    fpx_session session;
    fpx_verdict verdict;
    for (int i = 0; i < HANDLES / 4; i++) EXPECT(fpx_admit(segment, POOL, &session, &verdict) == FPX_OK);
    int64_t start = nanoseconds();
    for (int i = 0; i < TIMES; i++) {
        EXPECT(fpx_admit(segment, POOL, &session, &verdict) == FPX_OK);
        EXPECT(fpx_release(segment, session) == FPX_OK);
    }
    int64_t quarter = nanoseconds() - start;
    for (int i = HANDLES / 4; i < HANDLES; i++) EXPECT(fpx_admit(segment, POOL, &session, &verdict) == FPX_OK);
    EXPECT(fpx_admit(segment, POOL, &session, &verdict) == FPX_E_LIMIT);
    start = nanoseconds();
    for (int i = 0; i < TIMES; i++) EXPECT(fpx_admit(segment, POOL, &session, &verdict) == FPX_E_LIMIT);
    int64_t taken = nanoseconds() - start;
    say("quarter %lld ns full %lld ns", (long long)quarter / TIMES, (long long)taken / TIMES);
    return 0;
}

/* ---- collects SEGMENT ROUNDS: allocations while spare sessions are collected ---- */

static int collects(const char *path, int rounds) {
    fpx_segment *segment = attached(path);
    fpx_lane *rich = opened(segment), *poor = opened(segment);
    long before_all = allocations;
    int taken = 0;
    for (int round = 0; round < rounds; round++) {
        fpx_lane_release(rich, fpx_lane_admit(rich)); /* its gate is open, with spare sessions behind it */
        int held = 0;
        while (fpx_lane_admit(poor) == FPX_INSPECT) held++;
        fpx_lane_release(poor, FPX_BYPASS);
        taken += held;
        while (held-- > 0) fpx_lane_release(poor, FPX_INSPECT);
    }
    say("admitted %d allocations %ld", taken, allocations - before_all);
    return 0;
}

/* ---- death SEGMENT MEBIBYTES: when the session of a killed process is back, and when its pidfd tells of its death ---- */

static int death(const char *path, long mebibytes) {
    fpx_segment *segment = attached(path);
    int ready[2];
    if (pipe(ready) != 0) return 5;
    pid_t child = fork();
    if (child == 0) {
        size_t size = (size_t)mebibytes << 20;
        char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        EXPECT(memory != MAP_FAILED);
        segment = attached(path);
        EXPECT(fpx_pool_admit(segment, POOL) == FPX_INSPECT);
        EXPECT(write(ready[1], "", 1) == 1);
        for (;;) pause();
    }
    char byte;
    struct pollfd end = {.fd = (int)syscall(SYS_pidfd_open, child, 0), .events = POLLIN};
    EXPECT(end.fd >= 0 && read(ready[0], &byte, 1) == 1);
    int64_t start = nanoseconds(), back = 0, told = 0;
    kill(child, SIGKILL);
    bool first = false;
    while (told == 0 || back == 0) {
        /* In this order: what the pidfd tells of must be back in the reap that follows. */
        if (told == 0 && poll(&end, 1, 0) == 1) told = nanoseconds();
        fpx_pool_stats stats;
        EXPECT(fpx_reap(segment) == FPX_OK && fpx_stats(segment, POOL, &stats) == FPX_OK);
        if (back == 0 && stats.in_use == 0) {
            back = nanoseconds();
            first = true;
        }
        EXPECT(told == 0 || first);
    }
    say("back after %lld us pidfd after %lld us", (long long)(back - start) / 1000, (long long)(told - start) / 1000);
    waitpid(child, NULL, 0);
    return 0;
}

/* ---- vandal SEGMENT SEED WRITES PAUSE-US [FROM]: writes 8 bytes anywhere in the memory that the segment has taken ---- */

static uint64_t random_state;
static uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static int vandal(const char *path, uint64_t seed, long writes, long pause_us, long from) {
    static struct { off_t begin, end; } extents[8192];
    int descriptor = open(path, O_RDWR), count = 0;
    off_t size = lseek(descriptor, 0, SEEK_END), words = 0;
    for (off_t begin = from; count < 8192 && (begin = lseek(descriptor, begin, SEEK_DATA)) >= 0; count++) {
        off_t end = lseek(descriptor, begin, SEEK_HOLE);
        extents[count].begin = begin;
        extents[count].end = end;
        words += (end - begin) / 8;
        begin = end;
    }
    char *memory = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (memory == MAP_FAILED || words == 0) return 5;
    random_state = seed * 2654435761u + 88172645463325252u;
    for (long i = 0; i < writes; i++) {
        uint64_t *chosen[2];
        for (int which = 0; which < 2; which++) {
            off_t word = (off_t)(next_random() % (uint64_t)words);
            int extent = 0;
            while (word >= (extents[extent].end - extents[extent].begin) / 8) {
                word -= (extents[extent].end - extents[extent].begin) / 8;
                extent++;
            }
            chosen[which] = (uint64_t *)(memory + extents[extent].begin) + word;
        }
        uint64_t old = __atomic_load_n(chosen[0], __ATOMIC_RELAXED), new = next_random();
        switch (next_random() % 6) {
        case 0: break;
        case 1: new = next_random() % 2 ? 0 : UINT64_MAX; break;
        case 2: new = old ^ (uint64_t)1 << (new % 64); break;
        case 3: new = __atomic_load_n(chosen[1], __ATOMIC_RELAXED); break;
        case 4: new = old + new % 65 - 32; break;
        default: new = new % 1024; break;
        }
        __atomic_store_n(chosen[0], new, __ATOMIC_RELAXED);
        if (pause_us > 0) usleep((useconds_t)pause_us);
    }
    say("wrote %ld", writes);
    return 0;
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "", *path = count > 2 ? words[2] : "";
    long numbers[6] = {0};
    for (int i = 3; i < count && i < 9; i++) numbers[i - 3] = atol(words[i]);
    signal(SIGPIPE, SIG_IGN);
    if (strcmp(what, "herd") == 0) return herd(path, (int)numbers[0], (int)numbers[1], (int)numbers[2]);
    if (strcmp(what, "loop") == 0) return loop();
    if (strcmp(what, "children") == 0 && count > 3) return children(path, words[3]);
    if (strcmp(what, "signals") == 0) return signals(path);
    if (strcmp(what, "forbidden") == 0) return forbidden(path, numbers[0] != 0);
    if (strcmp(what, "full") == 0) return full(path);
    if (strcmp(what, "collects") == 0) return collects(path, (int)numbers[0]);
    if (strcmp(what, "death") == 0) return death(path, numbers[0]);
    if (strcmp(what, "vandal") == 0) return vandal(path, (uint64_t)numbers[0], numbers[1], numbers[2], numbers[3]);
    fprintf(stderr, "worker: found \"%s\", expected what to do\n", what);
    return 2;
}
