/* kernel.c - what the C library and the kernel offer to several processes: a POSIX semaphore, a robust mutex round a counter,
 * and a System V semaphore with undo. */
#include "loops.h"
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/ipc.h>
#include <sys/sem.h>

/* ---- POSIX semaphore: its value is what is free. A worker that dies keeps what it held. ---- */

typedef struct posix_pool {
    _Alignas(RIVAL_LINE) sem_t semaphore;
    int64_t cap;
} posix_pool;

static int posix_create(void *shared, int64_t cap) {
    posix_pool *pool = shared;
    if (cap < 0 || cap > SEM_VALUE_MAX) return -EINVAL;
    pool->cap = cap;
    return sem_init(&pool->semaphore, true, (unsigned)cap) == 0 ? 0 : -errno;
}
static void posix_destroy(void *shared) { sem_destroy(&((posix_pool *)shared)->semaphore); }

static int64_t posix_in_use(void *shared) {
    posix_pool *pool = shared;
    int value = 0;
    sem_getvalue(&pool->semaphore, &value);
    return pool->cap - value;
}

RIVAL_FAST sem_t *posix_of(void *shared, int worker) { (void)worker; return &((posix_pool *)shared)->semaphore; }
RIVAL_FAST bool posix_admit(sem_t *semaphore) { return sem_trywait(semaphore) == 0; }
RIVAL_FAST void posix_release(sem_t *semaphore) { sem_post(semaphore); }

RIVAL_LOOPS(posix, sem_t *);

const rival_ops rival_posix_semaphore = {
    .name = "posix_semaphore",
    .description = "process-shared POSIX semaphore: sem_trywait and sem_post",
    .processes = true,
    .exact = true,
    .has_cap = true,
    .shared_bytes = sizeof(posix_pool),
    .create = posix_create,
    .destroy = posix_destroy,
    .in_use = posix_in_use,
    RIVAL_RUNS(posix),
};

/* ---- Robust mutex: a worker that dies with the lock does not block the others, but keeps what it held. ---- */

typedef struct robust_pool {
    _Alignas(RIVAL_LINE) pthread_mutex_t mutex;
    int64_t count;
    int64_t cap;
} robust_pool;

static int robust_create(void *shared, int64_t cap) {
    robust_pool *pool = shared;
    if (cap < 0) return -EINVAL;
    pool->count = 0;
    pool->cap = cap;
    pthread_mutexattr_t attributes;
    int error = pthread_mutexattr_init(&attributes);
    if (error != 0) return -error;
    error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (error == 0) error = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (error == 0) error = pthread_mutex_init(&pool->mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return -error;
}
static void robust_destroy(void *shared) { pthread_mutex_destroy(&((robust_pool *)shared)->mutex); }

/* The dead owner's change is one store, made or not: the count is consistent either way. */
RIVAL_FAST void robust_lock(robust_pool *pool) {
    if (!RIVAL_LIKELY(pthread_mutex_lock(&pool->mutex) != EOWNERDEAD)) pthread_mutex_consistent(&pool->mutex);
}

RIVAL_FAST robust_pool *robust_of(void *shared, int worker) { (void)worker; return shared; }

RIVAL_FAST bool robust_admit(robust_pool *pool) {
    robust_lock(pool);
    bool admitted = pool->count < pool->cap;
    if (admitted) pool->count++;
    pthread_mutex_unlock(&pool->mutex);
    return admitted;
}

RIVAL_FAST void robust_release(robust_pool *pool) {
    robust_lock(pool);
    pool->count--;
    pthread_mutex_unlock(&pool->mutex);
}

static int64_t robust_in_use(void *shared) {
    robust_pool *pool = shared;
    robust_lock(pool);
    int64_t count = pool->count;
    pthread_mutex_unlock(&pool->mutex);
    return count;
}

RIVAL_LOOPS(robust, robust_pool *);

const rival_ops rival_robust_mutex = {
    .name = "robust_mutex",
    .description = "counter under a robust process-shared mutex",
    .processes = true,
    .exact = true,
    .has_cap = true,
    .shared_bytes = sizeof(robust_pool),
    .create = robust_create,
    .destroy = robust_destroy,
    .in_use = robust_in_use,
    RIVAL_RUNS(robust),
};

/* ---- System V semaphore: the kernel undoes what a process that ends has not given back. A system call each time. ---- */

enum { SYSV_VALUE_MAX = 32767 }; /* SEMVMX of Linux: no higher cap is possible */

typedef struct sysv_pool {
    _Alignas(RIVAL_LINE) int64_t cap;
    int identifier;
} sysv_pool;

/* The caller declares it (man 2 semctl). */
union semun {
    int val;
    struct semid_ds *buf;
    unsigned short *array;
};

static int sysv_create(void *shared, int64_t cap) {
    sysv_pool *pool = shared;
    if (cap < 0) return -EINVAL;
    if (cap > SYSV_VALUE_MAX) return -ERANGE;
    pool->cap = cap;
    pool->identifier = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
    if (pool->identifier < 0) return -errno;
    if (semctl(pool->identifier, 0, SETVAL, (union semun){.val = (int)cap}) == 0) return 0;
    int error = errno;
    semctl(pool->identifier, 0, IPC_RMID);
    return -error;
}
static void sysv_destroy(void *shared) { semctl(((sysv_pool *)shared)->identifier, 0, IPC_RMID); }

static int64_t sysv_in_use(void *shared) {
    sysv_pool *pool = shared;
    return pool->cap - semctl(pool->identifier, 0, GETVAL);
}

RIVAL_FAST bool sysv_add(int identifier, short by) {
    struct sembuf operation = {.sem_num = 0, .sem_op = by, .sem_flg = IPC_NOWAIT | SEM_UNDO};
    return semop(identifier, &operation, 1) == 0;
}

RIVAL_FAST int sysv_of(void *shared, int worker) { (void)worker; return ((sysv_pool *)shared)->identifier; }
RIVAL_FAST bool sysv_admit(int identifier) { return sysv_add(identifier, -1); }
RIVAL_FAST void sysv_release(int identifier) { sysv_add(identifier, 1); }

RIVAL_LOOPS(sysv, int);

const rival_ops rival_sysv_semaphore = {
    .name = "sysv_semaphore",
    .description = "System V semaphore with SEM_UNDO, two system calls a pair; cap up to 32767",
    .processes = true,
    .exact = true,
    .has_cap = true,
    .shared_bytes = sizeof(sysv_pool),
    .create = sysv_create,
    .destroy = sysv_destroy,
    .in_use = sysv_in_use,
    RIVAL_RUNS(sysv),
};
