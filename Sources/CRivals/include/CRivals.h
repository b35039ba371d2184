/* CRivals.h - how others limit concurrency, behind one table of functions, so that a benchmark drives all of them alike.
 *
 * A rival counts sessions against a cap: an admit takes one if one is free, a release gives it back. The run loops are here,
 * in C, with the rival's admit and release inlined into them: the call through the table costs once for each batch.
 *
 *     for (int i = 0; i < rival_count(); i++) {
 *         const rival_ops *rival = rival_at(i);
 *         void *shared = zeroed MAP_SHARED memory of rival->shared_bytes, 128-aligned;
 *         if (rival->create && rival->create(shared, cap) != 0) continue;
 *         in each worker:  if (rival->enter) rival->enter(shared, worker);
 *                          rival->pairs(shared, worker, 100000);
 *                          if (rival->leave) rival->leave(shared, worker);
 *         if (rival->destroy) rival->destroy(shared);
 *     }
 */
#ifndef CRIVALS_H
#define CRIVALS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

/* Workers are numbered from 0 and have one thread each. */
#define RIVAL_WORKERS 128

/* A function pointer is NULL where it does not apply. Without has_cap only `pairs` is there; with it `create`, `pairs`,
 * `refuse`, `walk`, `drain` and `in_use` always are. */
typedef struct rival_ops {
    const char *name;
    const char *description;
    bool processes;      /* workers may be in different processes (else: threads of the process that called create) */
    bool exact;          /* never over the cap, and never refuses while a session is free */
    bool has_cap;        /* false: a floor, which counts but never refuses */
    size_t shared_bytes; /* zeroed MAP_SHARED memory that it wants, 128-aligned; a multiple of 128 */

    /* 0 or -errno. Once, by the parent, before any worker. */
    int (*create)(void *shared, int64_t cap);
    /* Once, by the parent, after all workers have left. */
    void (*destroy)(void *shared);
    /* 0 or -errno. By the worker's own thread, before it runs anything. */
    int (*enter)(void *shared, int worker);
    /* By the same thread, after its last run and before it ends. Sessions that it still holds stay counted. */
    void (*leave)(void *shared, int worker);

    /* The runs, by the worker's own thread between enter and leave. */

    /* n times: admit, then release. Returns how many were admitted. */
    uint64_t (*pairs)(void *shared, int worker, uint64_t n);
    /* n admits at a full cap. Returns how many were refused; gives back what was admitted nevertheless. */
    uint64_t (*refuse)(void *shared, int worker, uint64_t n);
    /* n steps of a random walk that hovers at the cap: where RIVAL_UP says so try an admit, else release one of the *held
     * sessions of this worker if there is any. *held carries over between calls; `seed` is not 0 and should differ from call
     * to call. Returns how many were admitted. */
    uint64_t (*walk)(void *shared, int worker, uint64_t n, uint64_t seed, int64_t *held);
    /* Releases `held` sessions. */
    void (*drain)(void *shared, int worker, int64_t held);

    /* Sessions in use: exact while no worker runs. By any thread. */
    int64_t (*in_use)(void *shared);
} rival_ops;

/* The rival of this index, NULL out of 0..<rival_count(). */
const rival_ops *rival_at(int index);
int rival_count(void);

/* The next number of the random walk (xorshift64); *state starts as the seed and is never 0. */
static inline uint64_t rival_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}
/* Whether the walk's step is an admit: 563 times in 1024, so that it climbs to the cap and stays near. A function, since
 * Swift cannot import a macro. */
static inline bool RIVAL_UP(uint64_t random) { return random >> 54 < 563; }

#ifdef __cplusplus
}
#endif
#endif
