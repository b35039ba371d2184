/* floors.c - what counting costs without any limit: no rival that has one can be cheaper. */
#include "loops.h"

typedef struct floor_line {
    _Alignas(RIVAL_LINE) uint64_t counter;
} floor_line;

/* The compiler must have stored the word here and must load it again: it cannot fold ++ and --, nor keep it in a register. */
#define FLOOR_BARRIER(word) __asm__ __volatile__("" : "+m"(word))

/* Local-exec, as a compiler addresses the thread-locals of a program: one instruction relative to %fs for each operation. With a
 * general model it would keep the address in a register through the loop, which measures `memory` a second time. */
static _Thread_local uint64_t floor_counter __attribute__((tls_model("local-exec")));

RIVAL_RUN uint64_t floor_pairs(void *shared, int worker, uint64_t n) {
    (void)shared; (void)worker;
    for (uint64_t i = 0; i < n; i++) {
        floor_counter++;
        FLOOR_BARRIER(floor_counter);
        floor_counter--;
        FLOOR_BARRIER(floor_counter);
    }
    return n;
}

RIVAL_RUN uint64_t memory_pairs(void *shared, int worker, uint64_t n) {
    uint64_t *counter = &((floor_line *)shared)[worker].counter;
    for (uint64_t i = 0; i < n; i++) {
        ++*counter;
        FLOOR_BARRIER(*counter);
        --*counter;
        FLOOR_BARRIER(*counter);
    }
    return n;
}

/* The result is not used, so the compiler makes it LOCK add and LOCK sub (or inc and dec) rather than LOCK XADD. */
RIVAL_RUN uint64_t lock_xadd_pairs(void *shared, int worker, uint64_t n) {
    uint64_t *counter = &((floor_line *)shared)[worker].counter;
    for (uint64_t i = 0; i < n; i++) {
        __atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
        __atomic_fetch_sub(counter, 1, __ATOMIC_SEQ_CST);
    }
    return n;
}

const rival_ops rival_floor = {
    .name = "floor",
    .description = "++ and -- of a thread-local word; no cap",
    .processes = true,
    .shared_bytes = RIVAL_LINE,
    .pairs = floor_pairs,
};

const rival_ops rival_memory = {
    .name = "memory",
    .description = "++ and -- of an own cache line through a register; memory renaming hides its latency; no cap",
    .processes = true,
    .shared_bytes = RIVAL_WORKERS * sizeof(floor_line),
    .pairs = memory_pairs,
};

const rival_ops rival_lock_xadd = {
    .name = "lock_xadd",
    .description = "LOCK add and sub of an own cache line; no cap",
    .processes = true,
    .shared_bytes = RIVAL_WORKERS * sizeof(floor_line),
    .pairs = lock_xadd_pairs,
};
