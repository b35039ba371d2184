/* What Swift's view of the C library leaves out. */
#ifndef CTESTSUPPORT_H
#define CTESTSUPPORT_H

#include <stdbool.h>
#include <sys/types.h>

/* Starts a program, looked for in PATH, that gets the descriptors 0, 1 and 2 from `streams` and no other one, blocks no signal
 * and ignores none. `folder`: where it works; NULL: where this process does. `own_group`: it leads a process group. 0 or errno. */
int test_spawn(
    pid_t *process, char *const words[], char *const environment[], const char *folder, const int streams[3], bool own_group);

/* A descriptor that can be read from when the process has ended; -1: errno. */
int test_pidfd(pid_t process);

/* An empty file without a name; -1: errno. */
int test_nameless_file(void);

#endif
