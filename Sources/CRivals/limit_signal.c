/* limit_signal.c - the signal-theft limit counter (P. McKenney, "Is Parallel Programming Hard, And, If So, What Can You
 * Do About It?", chapter Counting, section on exact limit counters), written from its description.
 *
 * As limit_atomic, but counter and countermax are plain variables that only their thread changes. Whoever wants them asks by
 * signal; the handler runs on the thread itself, so it knows whether it interrupted an operation:
 *     IDLE -> REQ     the thief, under the lock, then the signal
 *     REQ -> ACK      the handler: an operation was under way (counting); it ends, then the thread itself goes to READY
 *     REQ -> READY    the handler: no operation was under way
 *     READY -> IDLE   the thief, after it has taken both variables
 * From ACK to IDLE the thread's fast path is closed and its variables are the thief's. So the fast path has neither locked
 * instruction nor fence, but a theft costs a signal, and only threads of one process can take part.
 *
 * The book keeps the variables thread-local; here the loops hold a pointer to them, which is in the rival's favour. */
#include "loops.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#define THEFT_SIGNAL SIGUSR1
enum { THEFT_SPINS = 1000 }; /* a running thread answers sooner; then let a thread that does not run have the CPU */

typedef enum theft_state { THEFT_IDLE, THEFT_REQ, THEFT_ACK, THEFT_READY } theft_state;

typedef struct signal_thread {
    _Alignas(RIVAL_LINE) int64_t counter;
    int64_t countermax;
    uint32_t theft;
    uint32_t counting; /* the fast path is under way */
    bool registered;   /* under the lock, like all below */
    pthread_t identity;
} signal_thread;

typedef struct signal_pool {
    _Alignas(RIVAL_LINE) pthread_mutex_t lock;
    int64_t globalcount, globalreserve, globalcountmax;
    int online; /* threads registered now */
    int top;    /* one more than the highest worker ever registered */
    signal_thread threads[RIVAL_WORKERS];
} signal_pool;

typedef struct signal_context {
    signal_pool *pool;
    signal_thread *thread;
} signal_context;

/* For the handler; initial-exec, since it must not allocate. */
static _Thread_local signal_thread *own_thread __attribute__((tls_model("initial-exec")));

/* The compiler keeps the order of memory accesses; a handler on the same thread needs no more. */
#define SIGNAL_BARRIER() __atomic_signal_fence(__ATOMIC_SEQ_CST)
#define THEFT_OF(thread) __atomic_load_n(&(thread)->theft, __ATOMIC_ACQUIRE)
#define SET_THEFT(thread, state) __atomic_store_n(&(thread)->theft, (state), __ATOMIC_RELEASE)

static void theft_handler(int number) {
    (void)number;
    signal_thread *thread = own_thread;
    if (thread == NULL || THEFT_OF(thread) != THEFT_REQ) return;
    SET_THEFT(thread, RIVAL_LOAD(thread->counting) ? THEFT_ACK : THEFT_READY);
}

/* ---- Under the lock ---- */

/* Takes both variables: my own, or those of a thread that is READY. */
static void globalize_count(signal_pool *pool, signal_thread *thread) {
    pool->globalcount += RIVAL_LOAD(thread->counter);
    pool->globalreserve -= RIVAL_LOAD(thread->countermax);
    RIVAL_STORE(thread->counter, 0);
    RIVAL_STORE(thread->countermax, 0);
}

static void flush_local_count(signal_pool *pool) {
    /* All signals first, so that the threads answer at the same time. Who has no countermax has no counter either, and gets
     * one only under the lock: there is nothing to take. */
    for (int i = 0; i < pool->top; i++) {
        signal_thread *thread = &pool->threads[i];
        if (!thread->registered || RIVAL_LOAD(thread->countermax) == 0) continue;
        SET_THEFT(thread, THEFT_REQ);
        pthread_kill(thread->identity, THEFT_SIGNAL);
    }
    for (int i = 0; i < pool->top; i++) {
        signal_thread *thread = &pool->threads[i];
        if (THEFT_OF(thread) == THEFT_IDLE) continue;
        for (int spins = 0; THEFT_OF(thread) != THEFT_READY; spins++) {
            if (spins >= THEFT_SPINS) sched_yield();
#if defined(__x86_64__)
            else __builtin_ia32_pause();
#endif
        }
        globalize_count(pool, thread);
        SET_THEFT(thread, THEFT_IDLE);
    }
}

static int64_t room(const signal_pool *pool) { return pool->globalcountmax - pool->globalcount - pool->globalreserve; }

/* Takes a fair share of what is free and counts up to half of it locally, so that the thread can go both ways. */
static void balance_count(signal_pool *pool, signal_thread *thread) {
    int64_t countermax = room(pool) / pool->online;
    int64_t counter = countermax / 2 < pool->globalcount ? countermax / 2 : pool->globalcount;
    pool->globalreserve += countermax;
    pool->globalcount -= counter;
    RIVAL_STORE(thread->counter, counter);
    RIVAL_STORE(thread->countermax, countermax);
}

/* ---- Admit and release ---- */

RIVAL_SLOW bool signal_admit_slow(signal_context context) {
    signal_pool *pool = context.pool;
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

RIVAL_SLOW void signal_release_slow(signal_context context) {
    signal_pool *pool = context.pool;
    pthread_mutex_lock(&pool->lock);
    globalize_count(pool, context.thread);
    if (pool->globalcount < 1) flush_local_count(pool);
    pool->globalcount--;
    balance_count(pool, context.thread);
    pthread_mutex_unlock(&pool->lock);
}

/* Adds +1 or -1 to the counter if it stays within 0...countermax and nobody is about to take it. `theft` is read before the
 * variables: once it is seen IDLE again, they are seen as the thief left them. */
RIVAL_FAST bool signal_count(signal_thread *thread, int by) {
    RIVAL_STORE(thread->counting, 1);
    SIGNAL_BARRIER();
    bool done = false;
    if (RIVAL_LIKELY(THEFT_OF(thread) <= THEFT_REQ)) {
        int64_t counter = RIVAL_LOAD(thread->counter);
        done = by > 0 ? counter < RIVAL_LOAD(thread->countermax) : counter > 0;
        if (RIVAL_LIKELY(done)) RIVAL_STORE(thread->counter, counter + by);
    }
    SIGNAL_BARRIER();
    RIVAL_STORE(thread->counting, 0);
    SIGNAL_BARRIER();
    if (!RIVAL_LIKELY(THEFT_OF(thread) != THEFT_ACK)) SET_THEFT(thread, THEFT_READY);
    return done;
}

RIVAL_FAST bool signal_admit(signal_context context) {
    return RIVAL_LIKELY(signal_count(context.thread, 1)) || signal_admit_slow(context);
}

RIVAL_FAST void signal_release(signal_context context) {
    if (!RIVAL_LIKELY(signal_count(context.thread, -1))) signal_release_slow(context);
}

/* ---- The rival ---- */

/* The handler stays installed: without a request it does nothing. */
static int signal_create(void *shared, int64_t cap) {
    signal_pool *pool = shared;
    if (cap < 0) return -EINVAL;
    struct sigaction action = {.sa_handler = theft_handler, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    if (sigaction(THEFT_SIGNAL, &action, NULL) != 0) return -errno;
    pool->globalcountmax = cap;
    return -pthread_mutex_init(&pool->lock, NULL);
}
static void signal_destroy(void *shared) { pthread_mutex_destroy(&((signal_pool *)shared)->lock); }

static int signal_enter(void *shared, int worker) {
    signal_pool *pool = shared;
    if (worker < 0 || worker >= RIVAL_WORKERS) return -EINVAL;
    signal_thread *thread = &pool->threads[worker];
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, THEFT_SIGNAL);
    pthread_mutex_lock(&pool->lock);
    bool taken = thread->registered;
    if (!taken) {
        own_thread = thread;
        pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
        thread->identity = pthread_self();
        thread->registered = true;
        pool->online++;
        if (pool->top <= worker) pool->top = worker + 1;
    }
    pthread_mutex_unlock(&pool->lock);
    return taken ? -EBUSY : 0;
}

static void signal_leave(void *shared, int worker) {
    signal_pool *pool = shared;
    pthread_mutex_lock(&pool->lock);
    globalize_count(pool, &pool->threads[worker]);
    pool->threads[worker].registered = false;
    pool->online--;
    pthread_mutex_unlock(&pool->lock);
    own_thread = NULL;
}

static int64_t signal_in_use(void *shared) {
    signal_pool *pool = shared;
    pthread_mutex_lock(&pool->lock);
    int64_t sum = pool->globalcount;
    for (int i = 0; i < pool->top; i++) sum += RIVAL_LOAD(pool->threads[i].counter);
    pthread_mutex_unlock(&pool->lock);
    return sum;
}

RIVAL_FAST signal_context signal_of(void *shared, int worker) {
    return (signal_context){.pool = shared, .thread = &((signal_pool *)shared)->threads[worker]};
}

RIVAL_LOOPS(signal, signal_context);

const rival_ops rival_limit_signal = {
    .name = "limit_signal",
    .description = "per-thread limit counter with plain variables and theft by SIGUSR1 (perfbook count_lim_sig)",
    .exact = true,
    .has_cap = true,
    .shared_bytes = sizeof(signal_pool),
    .create = signal_create,
    .destroy = signal_destroy,
    .enter = signal_enter,
    .leave = signal_leave,
    .in_use = signal_in_use,
    RIVAL_RUNS(signal),
};
