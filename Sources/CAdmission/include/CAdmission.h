/* What Swift imports: the public C face, the platform's primitives, and the little process-wide state that is in C. */
#include "fpx_platform.h"

/* After a fork the child finds an empty mapping at [address, address + size) instead of nothing: false when the table of 256
 * attachments of this process is full. */
bool fpx_fork_guard(void *address, size_t size);
/* Sets the text that fpx_last_error returns to this thread (cut at 511 bytes). */
void fpx_set_last_error(const char *text);
