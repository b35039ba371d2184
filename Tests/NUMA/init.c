/* The first process of the emulated machine: mounts what the check needs, runs it, says how it ended, switches off. */
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void attach(const char *type, const char *directory) {
    mkdir(directory, 0755);
    if (mount(type, directory, type, 0, NULL) != 0) perror(directory);
}

int main(void) {
    attach("devtmpfs", "/dev");
    attach("proc", "/proc");
    attach("sysfs", "/sys");
    attach("tmpfs", "/dev/shm");
    attach("cgroup2", "/sys/fs/cgroup");
    pid_t child = fork();
    if (child == 0) {
        execl("/check", "/check", "--unplug", (char *)NULL);
        perror("/check");
        _exit(127);
    }
    int status = -1;
    while (waitpid(child, &status, 0) != child) {}
    printf("check ended with status %d\n", status);
    fflush(stdout);
    tcdrain(1);
    reboot(RB_POWER_OFF);
    for (;;) pause();
}
