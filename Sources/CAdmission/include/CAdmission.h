/* What Swift imports: the public C face, the platform's primitives, and the little process-wide state that is in C. */
#include "fpx_platform.h"

/* From now on a forked child finds an empty mapping at [address, address + size) instead of nothing. False: no memory. */
bool fpx_fork_guard(void *address, size_t size);
void fpx_fork_unguard(void *address);
/* Sets the text that fpx_last_error returns to this thread (cut at 511 bytes). */
void fpx_set_last_error(const char *text);
