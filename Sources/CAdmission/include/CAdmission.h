/* What Swift imports: the public C face, the platform's primitives, and the little process-wide state that is in C. */
#include "fpx_platform.h"

/* Between these two no thread of this process can fork: a child that inherited the descriptor of an attach under way would keep
 * its lock, and so the dead, alive. (posix_spawn goes its own way; what it starts closes the descriptor when it executes.) */
void fpx_fork_hold(void);
void fpx_fork_resume(void);
/* From now on the memory at [address, address + size) is a segment's: a forked child finds an empty mapping instead, and so
 * does this process once the segment's memory is lost (SIGBUS). False: no memory. Call it while fork is held. */
bool fpx_guard_memory(void *address, size_t size);
/* No longer. The first is for callers that hold fork. */
void fpx_unguard_memory_held(void *address);
void fpx_unguard_memory(void *address);
/* The same, with empty memory in its place, in the process that has guarded it: a child of a raw clone may have memory of its
 * own there. */
void fpx_discard_memory(void *address);
/* Sets the text that fpx_last_error returns to this thread (cut at 511 bytes). */
void fpx_set_last_error(const char *text);
/* Says why on standard error, and aborts. */
_Noreturn void fpx_die(const char *text);
