/* loops.h - the run loops that all rivals with a cap share. */
#ifndef CRIVALS_LOOPS_H
#define CRIVALS_LOOPS_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "CRivals.h"
#include <errno.h>

extern const rival_ops rival_floor, rival_memory, rival_lock_xadd;
extern const rival_ops rival_shared_fetch_add_undo, rival_shared_cas;
extern const rival_ops rival_posix_semaphore, rival_robust_mutex, rival_sysv_semaphore;
extern const rival_ops rival_limit_atomic, rival_limit_signal;

#define RIVAL_LINE 128 /* two cache lines: the adjacent-line prefetcher pulls pairs */
#define RIVAL_FAST static inline __attribute__((always_inline))
#define RIVAL_SLOW static __attribute__((noinline))
/* A loop is called through the table; noinline also keeps clang from moving its body out as cold code, built for size. */
#define RIVAL_RUN static __attribute__((noinline))
#define RIVAL_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define RIVAL_LOAD(word) __atomic_load_n(&(word), __ATOMIC_RELAXED)
#define RIVAL_STORE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELAXED)

/* Defines name_pairs, name_refuse, name_walk and name_drain from
 *     Context name_of(void *shared, int worker);
 *     bool name_admit(Context);
 *     void name_release(Context);
 * A macro, so that both compilers inline admit and release into each loop. */
#define RIVAL_LOOPS(name, Context)                                                                                     \
    RIVAL_RUN uint64_t name##_pairs(void *shared, int worker, uint64_t n) {                                            \
        Context context = name##_of(shared, worker);                                                                   \
        uint64_t admitted = 0;                                                                                         \
        for (; n > 0; n--)                                                                                             \
            if (RIVAL_LIKELY(name##_admit(context))) {                                                                 \
                name##_release(context);                                                                               \
                admitted++;                                                                                            \
            }                                                                                                          \
        return admitted;                                                                                               \
    }                                                                                                                  \
    RIVAL_RUN uint64_t name##_refuse(void *shared, int worker, uint64_t n) {                                           \
        Context context = name##_of(shared, worker);                                                                   \
        uint64_t refused = 0;                                                                                          \
        for (; n > 0; n--)                                                                                             \
            if (RIVAL_LIKELY(!name##_admit(context)))                                                                  \
                refused++;                                                                                             \
            else                                                                                                       \
                name##_release(context);                                                                               \
        return refused;                                                                                                \
    }                                                                                                                  \
    RIVAL_RUN uint64_t name##_walk(void *shared, int worker, uint64_t n, uint64_t seed, int64_t *held) {               \
        Context context = name##_of(shared, worker);                                                                   \
        uint64_t state = seed, admitted = 0;                                                                           \
        int64_t mine = *held;                                                                                          \
        for (; n > 0; n--) {                                                                                           \
            if (RIVAL_UP(rival_random(&state))) {                                                                      \
                if (name##_admit(context)) {                                                                           \
                    mine++;                                                                                            \
                    admitted++;                                                                                        \
                }                                                                                                      \
            } else if (mine > 0) {                                                                                     \
                name##_release(context);                                                                               \
                mine--;                                                                                                \
            }                                                                                                          \
        }                                                                                                              \
        *held = mine;                                                                                                  \
        return admitted;                                                                                               \
    }                                                                                                                  \
    RIVAL_RUN void name##_drain(void *shared, int worker, int64_t held) {                                              \
        Context context = name##_of(shared, worker);                                                                   \
        for (; held > 0; held--) name##_release(context);                                                              \
    }                                                                                                                  \
    _Static_assert(true, "")

/* Their places in a table of functions. */
#define RIVAL_RUNS(name) .pairs = name##_pairs, .refuse = name##_refuse, .walk = name##_walk, .drain = name##_drain

#endif
