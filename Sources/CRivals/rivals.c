/* rivals.c - the table of all rivals, from the cheapest that counts anything to the dearest. */
#include "loops.h"

static const rival_ops *const rivals[] = {
    &rival_floor,           &rival_memory,       &rival_lock_xadd,      &rival_shared_fetch_add_undo, &rival_shared_cas,
    &rival_posix_semaphore, &rival_robust_mutex, &rival_sysv_semaphore, &rival_limit_atomic,          &rival_limit_signal,
};

int rival_count(void) { return (int)(sizeof rivals / sizeof rivals[0]); }
const rival_ops *rival_at(int index) { return index >= 0 && index < rival_count() ? rivals[index] : NULL; }
