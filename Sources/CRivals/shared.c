/* shared.c - one word that all workers change with atomic instructions. A worker that dies keeps what it held. */
#include "loops.h"

/* The cap lies with the count: whoever needs one needs the other, and it comes with the same line. */
typedef struct shared_word {
    _Alignas(RIVAL_LINE) int64_t count;
    int64_t cap;
} shared_word;

static int shared_create(void *shared, int64_t cap) {
    shared_word *word = shared;
    if (cap < 0) return -EINVAL;
    word->count = 0;
    word->cap = cap;
    return 0;
}

static int64_t shared_in_use(void *shared) { return RIVAL_LOAD(((shared_word *)shared)->count); }

RIVAL_FAST void shared_release(shared_word *word) { __atomic_fetch_sub(&word->count, 1, __ATOMIC_RELEASE); }

/* ---- fetch_add, and undo it when it went over ---- */

RIVAL_FAST shared_word *undo_of(void *shared, int worker) { (void)worker; return shared; }

/* Until a refused one has undone its own, the count is one too high: another may be refused while a session is free. */
RIVAL_FAST bool undo_admit(shared_word *word) {
    if (RIVAL_LIKELY(__atomic_fetch_add(&word->count, 1, __ATOMIC_ACQUIRE) < word->cap)) return true;
    __atomic_fetch_sub(&word->count, 1, __ATOMIC_RELAXED);
    return false;
}

RIVAL_FAST void undo_release(shared_word *word) { shared_release(word); }

RIVAL_LOOPS(undo, shared_word *);

const rival_ops rival_shared_fetch_add_undo = {
    .name = "shared_fetch_add_undo",
    .description = "fetch_add on one shared word, undone when over the cap: may refuse while a session is free",
    .processes = true,
    .has_cap = true,
    .shared_bytes = sizeof(shared_word),
    .create = shared_create,
    .in_use = shared_in_use,
    RIVAL_RUNS(undo),
};

/* ---- Compare-and-exchange loop ---- */

RIVAL_FAST shared_word *cas_of(void *shared, int worker) { (void)worker; return shared; }

RIVAL_FAST bool cas_admit(shared_word *word) {
    int64_t count = RIVAL_LOAD(word->count);
    do {
        if (!RIVAL_LIKELY(count < word->cap)) return false;
    } while (!__atomic_compare_exchange_n(&word->count, &count, count + 1, true, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED));
    return true;
}

RIVAL_FAST void cas_release(shared_word *word) { shared_release(word); }

RIVAL_LOOPS(cas, shared_word *);

const rival_ops rival_shared_cas = {
    .name = "shared_cas",
    .description = "load, compare with the cap and compare-exchange on one shared word",
    .processes = true,
    .exact = true,
    .has_cap = true,
    .shared_bytes = sizeof(shared_word),
    .create = shared_create,
    .in_use = shared_in_use,
    RIVAL_RUNS(cas),
};
