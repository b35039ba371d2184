#define _GNU_SOURCE
#include "CTestSupport.h"
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int test_spawn(
    pid_t *process, char *const words[], char *const environment[], const char *folder, const int streams[3], bool own_group) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int error = posix_spawn_file_actions_init(&actions);
    if (error) return error;
    error = posix_spawnattr_init(&attributes);
    if (error) {
        posix_spawn_file_actions_destroy(&actions);
        return error;
    }
    if (folder) error = posix_spawn_file_actions_addchdir_np(&actions, folder);
    for (int i = 0; i < 3 && !error; i++) error = posix_spawn_file_actions_adddup2(&actions, streams[i], i);
    if (!error) error = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    /* The threads that tests run on block signals, and a child would too: Ctrl-C would be lost on it. */
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    posix_spawnattr_setflags(&attributes, own_group ? flags | POSIX_SPAWN_SETPGROUP : flags);
    if (!error) error = posix_spawnp(process, words[0], &actions, &attributes, words, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

int test_pidfd(pid_t process) { return (int)syscall(SYS_pidfd_open, process, 0); }

int test_nameless_file(void) { return memfd_create("input", MFD_CLOEXEC); }
