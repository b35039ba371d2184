/* fpxadmission.h - the C face of fpx: exact session admission shared by all processes of a host.
 *
 * A segment is a file in shared memory, made by fpxd, that holds up to 16 pools, one for each licence type. Each pool has a
 * cap: how many licensed sessions may be in use at once, over all processes that attach. Ask for a verdict when a session
 * starts, give it back when the session ends:
 *
 *     fpx_segment *segment; fpx_lane *lane;
 *     if (fpx_attach("/dev/shm/fpx/segment", &segment) != FPX_OK) fprintf(stderr, "%s\n", fpx_last_error());
 *     fpx_lane_open(segment, FPX_POOL_FURL, &lane);           // one lane for each event loop (thread)
 *     fpx_verdict verdict = fpx_lane_admit(lane);             // a few plain instructions, inlined
 *     ...                                                     // the session's life
 *     fpx_lane_release(lane, verdict);
 *
 * Threads. fpx_lane_* belong to one thread at a time and are not async-signal-safe. Everything else may be called from
 * any thread at the same time. Nothing here starts a thread. Admit and release are lock-free and allocate nothing but an
 * error's text; only fpx_attach and fpx_detach take a lock.
 *
 * Releases. Release each FPX_INSPECT and FPX_BYPASS exactly once. A verdict does not say which session it belongs to, so
 * fpx_lane_release and fpx_pool_release cannot see a release too many: each one frees the place of another session, and more
 * sessions than the cap are admitted. Only handles are checked: fpx_release answers FPX_E_HANDLE to a second release. While
 * you develop, run your program with the debug library (`make library DEBUG=1 OUT=...`, the same soname): it aborts with a
 * message when a process releases a session and has none in use. It is slow, and needs no other header.
 *
 * Processes. Attach in the process that does the work: after fork, not before. A child does not inherit an attachment, however
 * it was made (fork, _Fork, a raw clone without CLONE_VM): what it calls with the parent's segment and lanes returns
 * FPX_E_DETACHED, or FPX_BYPASS where it returns a verdict, and counts nothing. 511 processes can be attached at the same time.
 * A process that dies gives back all it held as soon as any other process reaps (fpxd does, each 25 ms), once the kernel has
 * taken down its memory: that takes it 1.2 s for 2 GiB.
 *
 * Without fpxd. fpxd may stop, die or restart at any time: attached processes go on admitting, under the last cap and policy.
 * What stops is its own work: a licence does not expire and seats borrowed from other hosts end in time; sessions of dead
 * processes come back only when somebody calls fpx_attach or fpx_reap. Before its first start there is no segment: fpx_attach
 * fails with ENOENT; pass or refuse new sessions, as your users expect, and try again each second.
 *
 * A replaced segment. When the file is gone or the memory damaged, fpxd puts another segment in its place, within a second or
 * so. The old one admits nobody from then on. So when a verdict is not FPX_INSPECT, look at fpx_is_current. Where it is false,
 * attach to the path again, open lanes there, and ask again; if that fails, try again in a second. End each session where it
 * began, and fpx_detach from the old segment when its last session has ended. Do the same where memory is lost (below): until
 * the detach fpxd finds this process by its open descriptor, and keeps the sessions that it may have there off the new caps.
 *
 * Memory. What a process may touch is reserved when it attaches, and for handles as they are used, so that a full file system
 * is an error of that call and not a signal later. Memory can be lost all the same (somebody cuts the file), and a child of a
 * raw clone has none. Therefore the first fpx_attach installs handlers of SIGBUS and SIGSEGV, which act on addresses within a
 * segment alone: the process is detached there, and goes on. All else goes to the handler that was there before. If the
 * program installs its own ones later, they should pass on what is not theirs in the same way.
 *
 * Rights. fpx_attach needs to read and write the file, to see /proc, and the system calls membarrier, fallocate, fcntl
 * and mmap. fpxd gives the file to the group fpx: where fpx_attach fails with EACCES, the process's user is not a member
 * (`usermod -aG fpx USER`, then start the process anew). A sandbox that is set up after fpx_attach should still allow
 * membarrier and fallocate: without membarrier a process gets the over-limit verdict while the last free sessions are spare
 * in other processes; without fallocate it gets no further handles.
 *
 * Errors. Functions that return int give FPX_OK (0) or a negative FPX_E_*; fpx_last_error() then says, for this thread,
 * what was found and what was expected. Functions that return a verdict give FPX_BLOCK for wrong arguments and FPX_BYPASS
 * where this process is not attached, with a text as well. */
#ifndef FPXADMISSION_H
#define FPXADMISSION_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header and of the library. Another major version is another contract, and another soname. */
#define FPX_VERSION_MAJOR 1
#define FPX_VERSION_MINOR 0
#define FPX_VERSION_PATCH 0

/* The pools of fpxd's licence types; the others are not in use. */
enum { FPX_POOL_FURL = 0, FPX_POOL_FNBI = 1, FPX_POOL_FCAS = 2 };

#define FPX_POOLS_MAX 16
#define FPX_REPORT_MAX ((uint64_t)1 << 50)

enum {
    FPX_OK = 0,
    FPX_E_SYSTEM = -1,    /* a system call failed: fpx_last_error() names it and its errno */
    FPX_E_FORMAT = -2,    /* not a segment, another version, another size, damaged, or replaced */
    FPX_E_ARGUMENT = -3,  /* a null pointer or a number out of range */
    FPX_E_LIMIT = -4,     /* no process slot, lane or session handle is left */
    FPX_E_HANDLE = -5,    /* a handle that is not in use: released twice, foreign, or of a dead process */
    FPX_E_DETACHED = -6,  /* this process is not attached (a forked child, or after fpx_detach) */
    FPX_E_PLATFORM = -7   /* the kernel refuses what the segment's fences need (membarrier) */
};

/* What to do with a new session. */
typedef enum fpx_verdict {
    FPX_INSPECT = 0, /* licensed and counted */
    FPX_BYPASS = 1,  /* over the limit: pass it uninspected (counted in the bypass gauge) */
    FPX_BLOCK = 2    /* over the limit: refuse it (nothing to release) */
} fpx_verdict;

typedef struct fpx_segment fpx_segment;

/* One session that any thread of any attached process may release, exactly once; 0 is no session. */
typedef uint64_t fpx_session;

/* A writer's record in the segment. Read it through the functions below; it stands here so that they can be inlined. */
typedef struct fpx_writer {
    uint64_t admitted; /* sessions ever started by stores of this writer */
    uint64_t released; /* sessions ever ended by stores of this writer */
    uint64_t gate;     /* bound : 32 | sequence : 29 | phase : 3 */
    uint64_t credit;   /* sequence : 32 | credit : 32 */
    uint64_t bypassed; /* gauge: sessions that pass uninspected now */
    uint64_t bypassed_peak;
    uint64_t refused;  /* admissions over the limit (a statistic: racy between threads of one CPU) */
    uint64_t cursor;   /* where to look for a free session handle */
    uint64_t pool_admissions; /* sessions started through the pool, near the limit (a statistic, racy like refused) */
    uint64_t bytes_in;  /* reported bytes from clients */
    uint64_t bytes_out; /* reported bytes to clients */
    uint64_t reserved[5];
} fpx_writer;

typedef struct fpx_lane {
    fpx_writer *writer;
    fpx_segment *segment;
    uint32_t pool;
    uint32_t index;
} fpx_lane;

typedef struct fpx_pool_stats {
    int64_t cap;            /* licensed sessions that may be in use */
    int64_t in_use;         /* licensed sessions in use: exact while nothing runs, else of about now */
    int64_t free_sessions;  /* in nobody's hands; negative: a debt after the cap was lowered below use */
    int64_t bypassed;       /* sessions that pass uninspected now */
    int64_t bypassed_peak;
    uint64_t admitted;      /* licensed sessions ever started by the processes attached now */
    uint64_t refused;       /* admissions over the limit of the processes attached now */
    uint32_t processes;     /* attached now */
    fpx_verdict over_limit; /* FPX_BYPASS or FPX_BLOCK */
} fpx_pool_stats;

/* Attaches this process to the segment in `path` (UTF-8). Takes one of 511 process slots, memory (36 KiB and a page for each
 * CPU) and some microseconds. On failure *segment is NULL. */
int fpx_attach(const char *path, fpx_segment **segment);
/* Gives back all sessions of this process and its slot. Handles, lanes and the segment pointer stay safe to pass: every
 * later call answers FPX_E_DETACHED. So does this one where the memory was lost, and closes the descriptor: do it there when
 * the sessions that were counted have ended, and not before. No other thread may be inside a call on the segment meanwhile.
 * What stays of an attachment is some 16 KiB and its address space, so do not attach and detach for each session. */
int fpx_detach(fpx_segment *segment);
/* Whether this process is attached: false in a forked child. */
bool fpx_is_attached(const fpx_segment *segment);
/* Whether new sessions belong here: attached, and not replaced by another segment (see above). A few loads. */
bool fpx_is_current(const fpx_segment *segment);

/* Opens a lane of a pool for the calling thread. A process has 16 lanes in each pool; then this is FPX_E_LIMIT. A closed lane
 * may be opened again by another thread. */
int fpx_lane_open(fpx_segment *segment, uint32_t pool, fpx_lane **lane);
/* Closes it. Sessions that it admitted stay counted until they are released on another lane or by fpx_pool_release, or until
 * the process ends. Calls with a closed lane give FPX_E_ARGUMENT or FPX_BLOCK until somebody opens it again. */
int fpx_lane_close(fpx_lane *lane);
/* The ways out of fpx_lane_admit and fpx_lane_release, which stand below and are what to call (with a lane, never NULL).
 * `stored`: the fast path has counted already and found the gate changed. */
fpx_verdict fpx_lane_admit_slow(fpx_lane *lane, bool stored);
void fpx_lane_release_slow(fpx_lane *lane, bool stored);
void fpx_lane_release_bypassed(fpx_lane *lane);

/* Any thread, no lane: the shard of the CPU it runs on. Release with the verdict that was given. */
fpx_verdict fpx_pool_admit(fpx_segment *segment, uint32_t pool);
int fpx_pool_release(fpx_segment *segment, uint32_t pool, fpx_verdict verdict);

/* The same with a handle (65,536 at once for each process) whose release is checked: a second or foreign release is
 * FPX_E_HANDLE and changes nothing. `session` is 0 for FPX_BLOCK. Two atomic instructions dearer. */
int fpx_admit(fpx_segment *segment, uint32_t pool, fpx_session *session, fpx_verdict *verdict);
int fpx_release(fpx_segment *segment, fpx_session session);

/* Counts bytes that sessions of a pool have carried (bandwidth metering): from clients and to clients, for FPX_INSPECT and
 * FPX_BYPASS alike. Any thread; as often as is convenient, best as the bytes flow, since fpxd tells the speed of the last
 * seconds. More than FPX_REPORT_MAX in either direction is FPX_E_ARGUMENT, and then nothing is counted. */
int fpx_report_bytes(fpx_segment *segment, uint32_t pool, uint64_t bytes_in, uint64_t bytes_out);

/* Reads a pool's figures. */
int fpx_stats(fpx_segment *segment, uint32_t pool, fpx_pool_stats *stats);
/* Gives back at once what dead processes held. */
int fpx_reap(fpx_segment *segment);

/* The last error of this thread as text; valid until its next failing call. */
const char *fpx_last_error(void);

/* ---- The lane's fast path. ------------------------------------------------------------------------------------------
 * The gate is read, the claim is stored, and the gate is read again. There is no fence between store and second load: who
 * wants to take a lane's spare sessions changes the gate first and then makes every running thread of all processes pass a
 * full barrier (membarrier). After it either the claim is visible to the taker or the second load sees the changed gate. */
#define FPX_GATE_OPEN 1u                /* phase bit: open to plain stores */
#define FPX_GATE_BIAS ((int32_t)1 << 30) /* an open gate stands this far above the bound: one comparison tests both */

#define FPX_LOAD(word) __atomic_load_n(&(word), __ATOMIC_RELAXED)
#define FPX_STORE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELAXED)
#define FPX_COMPILER_BARRIER() __asm__ __volatile__("" ::: "memory")
#define FPX_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define FPX_INLINE static inline __attribute__((always_inline))

typedef enum fpx_step { FPX_STEP_DONE = 0, FPX_STEP_CLOSED = 1, FPX_STEP_CHANGED = 2 } fpx_step;

FPX_INLINE fpx_step fpx_writer_admit(fpx_writer *writer) {
    uint64_t gate = FPX_LOAD(writer->gate), admitted = FPX_LOAD(writer->admitted);
    int32_t room = (int32_t)((uint32_t)(gate >> 32) - (uint32_t)admitted + (uint32_t)FPX_LOAD(writer->released));
    if (!FPX_LIKELY(room > FPX_GATE_BIAS)) return FPX_STEP_CLOSED;
    FPX_STORE(writer->admitted, admitted + 1);
    FPX_COMPILER_BARRIER();
    return FPX_LIKELY(FPX_LOAD(writer->gate) == gate) ? FPX_STEP_DONE : FPX_STEP_CHANGED;
}

FPX_INLINE fpx_step fpx_writer_release(fpx_writer *writer) {
    uint64_t gate = FPX_LOAD(writer->gate);
    if (!FPX_LIKELY(gate & FPX_GATE_OPEN)) return FPX_STEP_CLOSED;
    FPX_STORE(writer->released, FPX_LOAD(writer->released) + 1);
    FPX_COMPILER_BARRIER();
    return FPX_LIKELY(FPX_LOAD(writer->gate) == gate) ? FPX_STEP_DONE : FPX_STEP_CHANGED;
}

/* Starts and ends a session of the lane's owner. A release too many is not noticed (see "Releases" above). */
FPX_INLINE fpx_verdict fpx_lane_admit(fpx_lane *lane) {
    fpx_step step = fpx_writer_admit(lane->writer);
    return FPX_LIKELY(step == FPX_STEP_DONE) ? FPX_INSPECT : fpx_lane_admit_slow(lane, step == FPX_STEP_CHANGED);
}

FPX_INLINE void fpx_lane_release(fpx_lane *lane, fpx_verdict verdict) {
    if (FPX_LIKELY(verdict == FPX_INSPECT)) {
        fpx_step step = fpx_writer_release(lane->writer);
        if (!FPX_LIKELY(step == FPX_STEP_DONE)) fpx_lane_release_slow(lane, step == FPX_STEP_CHANGED);
    } else if (verdict == FPX_BYPASS) {
        fpx_lane_release_bypassed(lane);
    }
}

#ifdef __cplusplus
}
#endif
#endif
