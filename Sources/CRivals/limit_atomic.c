/* limit_atomic.c - the atomic per-thread limit counter (P. McKenney, "Is Parallel Programming Hard, And, If So, What Can You
 * Do About It?", chapter Counting, section on exact limit counters), written from its description.
 *
 * Each thread has a counter (sessions that it counts locally) and a countermax (how far the counter may go without asking),
 * packed in one word that it changes by compare-and-swap. The rest is global, under a lock:
 *     globalcount     sessions that no thread counts locally
 *     globalreserve   sum of all countermax, whether used or not
 *     globalcountmax  the cap; globalcount + globalreserve <= globalcountmax
 * A thread whose room is spent takes the lock, globalizes its own word and balances: takes a fair share of what is free. When
 * nothing is free it flushes: takes the words of all threads. No thread can refuse the theft, since the owner's
 * compare-and-swap fails after it; that is the price of the locked instruction in each operation.
 *
 * The book keeps the word thread-local; here the loops hold a pointer to it, which is in the rival's favour. */
#include "loops.h"
#include <pthread.h>

typedef struct atomic_thread {
    _Alignas(RIVAL_LINE) uint64_t counter_and_max; /* counter : 32 | countermax : 32 */
    bool registered;                               /* under the lock */
} atomic_thread;

typedef struct atomic_pool {
    _Alignas(RIVAL_LINE) pthread_mutex_t lock;
    int64_t globalcount, globalreserve, globalcountmax;
    int online; /* threads registered now */
    int top;    /* one more than the highest worker ever registered */
    atomic_thread threads[RIVAL_WORKERS];
} atomic_pool;

typedef struct atomic_context {
    atomic_pool *pool;
    atomic_thread *thread;
} atomic_context;

RIVAL_FAST int64_t counter_of(uint64_t word) { return (int64_t)(word >> 32); }
RIVAL_FAST int64_t countermax_of(uint64_t word) { return (int64_t)(uint32_t)word; }
RIVAL_FAST uint64_t merge(int64_t counter, int64_t countermax) { return (uint64_t)counter << 32 | (uint64_t)countermax; }

/* ---- Under the lock ---- */

/* Takes the whole word of a thread, mine or another's. */
static void globalize_count(atomic_pool *pool, atomic_thread *thread) {
    uint64_t word = __atomic_exchange_n(&thread->counter_and_max, 0, __ATOMIC_ACQ_REL);
    pool->globalcount += counter_of(word);
    pool->globalreserve -= countermax_of(word);
}

static void flush_local_count(atomic_pool *pool) {
    for (int i = 0; i < pool->top; i++)
        if (RIVAL_LOAD(pool->threads[i].counter_and_max) != 0) globalize_count(pool, &pool->threads[i]);
}

static int64_t room(const atomic_pool *pool) { return pool->globalcountmax - pool->globalcount - pool->globalreserve; }

/* Takes a fair share of what is free and counts up to half of it locally, so that the thread can go both ways. */
static void balance_count(atomic_pool *pool, atomic_thread *thread) {
    int64_t countermax = room(pool) / pool->online;
    int64_t counter = countermax / 2 < pool->globalcount ? countermax / 2 : pool->globalcount;
    pool->globalreserve += countermax;
    pool->globalcount -= counter;
    __atomic_store_n(&thread->counter_and_max, merge(counter, countermax), __ATOMIC_RELEASE);
}

/* ---- Admit and release ---- */

RIVAL_SLOW bool atomic_admit_slow(atomic_context context) {
    atomic_pool *pool = context.pool;
    pthread_mutex_lock(&pool->lock);
    globalize_count(pool, context.thread);
    if (room(pool) < 1) flush_local_count(pool);
    bool admitted = room(pool) >= 1;
    if (admitted) {
        pool->globalcount++;
        balance_count(pool, context.thread);
    }
    pthread_mutex_unlock(&pool->lock);
    return admitted;
}

RIVAL_SLOW void atomic_release_slow(atomic_context context) {
    atomic_pool *pool = context.pool;
    pthread_mutex_lock(&pool->lock);
    globalize_count(pool, context.thread);
    if (pool->globalcount < 1) flush_local_count(pool);
    pool->globalcount--;
    balance_count(pool, context.thread);
    pthread_mutex_unlock(&pool->lock);
}

RIVAL_FAST bool atomic_swap(atomic_thread *thread, uint64_t *old, uint64_t new) {
    return __atomic_compare_exchange_n(&thread->counter_and_max, old, new, true, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

RIVAL_FAST bool atomic_admit(atomic_context context) {
    uint64_t word = RIVAL_LOAD(context.thread->counter_and_max);
    do {
        if (!RIVAL_LIKELY(counter_of(word) < countermax_of(word))) return atomic_admit_slow(context);
    } while (!RIVAL_LIKELY(atomic_swap(context.thread, &word, word + merge(1, 0))));
    return true;
}

RIVAL_FAST void atomic_release(atomic_context context) {
    uint64_t word = RIVAL_LOAD(context.thread->counter_and_max);
    do {
        if (!RIVAL_LIKELY(counter_of(word) > 0)) {
            atomic_release_slow(context);
            return;
        }
    } while (!RIVAL_LIKELY(atomic_swap(context.thread, &word, word - merge(1, 0))));
}

/* ---- The rival ---- */

static int atomic_create(void *shared, int64_t cap) {
    atomic_pool *pool = shared;
    if (cap < 0 || cap > INT32_MAX) return -EINVAL;
    pool->globalcountmax = cap;
    return -pthread_mutex_init(&pool->lock, NULL);
}
static void atomic_destroy(void *shared) { pthread_mutex_destroy(&((atomic_pool *)shared)->lock); }

static int atomic_enter(void *shared, int worker) {
    atomic_pool *pool = shared;
    if (worker < 0 || worker >= RIVAL_WORKERS) return -EINVAL;
    pthread_mutex_lock(&pool->lock);
    bool taken = pool->threads[worker].registered;
    if (!taken) {
        pool->threads[worker].registered = true;
        pool->online++;
        if (pool->top <= worker) pool->top = worker + 1;
    }
    pthread_mutex_unlock(&pool->lock);
    return taken ? -EBUSY : 0;
}

static void atomic_leave(void *shared, int worker) {
    atomic_pool *pool = shared;
    pthread_mutex_lock(&pool->lock);
    globalize_count(pool, &pool->threads[worker]);
    pool->threads[worker].registered = false;
    pool->online--;
    pthread_mutex_unlock(&pool->lock);
}

static int64_t atomic_in_use(void *shared) {
    atomic_pool *pool = shared;
    pthread_mutex_lock(&pool->lock);
    int64_t sum = pool->globalcount;
    for (int i = 0; i < pool->top; i++) sum += counter_of(RIVAL_LOAD(pool->threads[i].counter_and_max));
    pthread_mutex_unlock(&pool->lock);
    return sum;
}

RIVAL_FAST atomic_context atomic_of(void *shared, int worker) {
    return (atomic_context){.pool = shared, .thread = &((atomic_pool *)shared)->threads[worker]};
}

RIVAL_LOOPS(atomic, atomic_context);

const rival_ops rival_limit_atomic = {
    .name = "limit_atomic",
    .description = "per-thread limit counter with an atomic word for each thread (perfbook count_lim_atomic)",
    .exact = true,
    .has_cap = true,
    .shared_bytes = sizeof(atomic_pool),
    .create = atomic_create,
    .destroy = atomic_destroy,
    .enter = atomic_enter,
    .leave = atomic_leave,
    .in_use = atomic_in_use,
    RIVAL_RUNS(atomic),
};
