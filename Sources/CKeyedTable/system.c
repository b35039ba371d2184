/* What the kernel tells of processes and sockets, files and clocks. */
#define _GNU_SOURCE
#include "fpx_keyed.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- Processes ---- */

int fpx_pidfd_open(int pid) {
    int descriptor = (int)syscall(SYS_pidfd_open, pid, 0);
    return descriptor >= 0 ? descriptor : -errno;
}

void fpx_pidfd_poll(const int *descriptors, bool *dead, size_t count) {
    struct pollfd polled[64];
    for (size_t base = 0; base < count; base += 64) {
        size_t part = count - base < 64 ? count - base : 64;
        for (size_t i = 0; i < part; i++) polled[i] = (struct pollfd){descriptors[base + i], POLLIN, 0};
        int ready = poll(polled, part, 0);
        for (size_t i = 0; i < part; i++) dead[base + i] = ready > 0 && polled[i].revents & POLLIN;
    }
}

int fpx_same_network(int pid) {
    char path[32];
    struct stat other, own;
    snprintf(path, sizeof path, "/proc/%d/ns/net", pid);
    if (stat(path, &other) != 0 || stat("/proc/self/ns/net", &own) != 0) return -1;
    return other.st_ino == own.st_ino && other.st_dev == own.st_dev;
}

/* ---- Sockets ---- */

/* Sockets that still belong to somebody: TIME_WAIT and half-open ones have no process, listeners no other end. */
enum { TCP_STATE_LISTEN = 10, TCP_STATE_TIME_WAIT = 6, TCP_STATE_NEW_SYN = 12 };
#define STATES (0xfffu << 1 & ~(1u << TCP_STATE_LISTEN | 1u << TCP_STATE_TIME_WAIT | 1u << TCP_STATE_NEW_SYN))

static int open_diag(size_t receive_bytes, const int *groups, size_t count) {
    int descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (descriptor < 0) return -errno;
    int bytes = (int)receive_bytes;
    /* Above the system's limit, with CAP_NET_ADMIN; without it as much as that allows. */
    if (bytes && setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0)
        (void)setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    int failed = bind(descriptor, (struct sockaddr *)&address, sizeof address);
    for (size_t i = 0; !failed && i < count; i++)
        failed = setsockopt(descriptor, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof groups[i]);
    if (!failed) return descriptor;
    int error = errno;
    close(descriptor);
    return -error;
}

int fpx_destroyed_open(size_t receive_bytes) {
    const int groups[] = {SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY};
    return open_diag(receive_bytes, groups, 2);
}
int fpx_dump_open(void) { return open_diag(0, NULL, 0); }

/* IPv4 addresses are mapped into IPv6; an IPv6 socket says them so already. */
static void flow_of(const struct inet_diag_msg *message, fpx_flow *flow) {
    memset(flow, 0, sizeof *flow);
    if (message->idiag_family == AF_INET) {
        flow->remote[10] = flow->remote[11] = 0xff;
        memcpy(flow->remote + 12, message->id.idiag_dst, 4);
    } else {
        memcpy(flow->remote, message->id.idiag_dst, 16);
    }
    flow->remote_port = ntohs(message->id.idiag_dport);
    flow->local_port = ntohs(message->id.idiag_sport);
}

/* The sockets of one datagram. *done: the dump's end was in it. Messages of other kinds are skipped. */
static int parse(const void *bytes, size_t length, fpx_flow *flows, size_t capacity, bool *done) {
    int count = 0;
    unsigned left = (unsigned)length;
    for (const struct nlmsghdr *header = bytes; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
        if (header->nlmsg_type == NLMSG_DONE) {
            *done = true;
        } else if (header->nlmsg_type == NLMSG_ERROR) {
            if (header->nlmsg_len < NLMSG_LENGTH(sizeof(struct nlmsgerr))) return -EBADMSG;
            int error = ((const struct nlmsgerr *)NLMSG_DATA(header))->error;
            return error ? error : -EBADMSG;
        } else if (header->nlmsg_type == SOCK_DIAG_BY_FAMILY && (size_t)count < capacity) {
            if (header->nlmsg_len < NLMSG_LENGTH(sizeof(struct inet_diag_msg))) return -EBADMSG;
            flow_of(NLMSG_DATA(header), &flows[count++]);
        }
    }
    return count;
}

static int receive(int descriptor, int flags, fpx_flow *flows, size_t capacity, bool *done) {
    /* One message is 72 bytes at least, so a datagram of this size never holds more than FPX_FLOWS. */
    _Alignas(struct nlmsghdr) char bytes[65536];
    struct sockaddr_nl from = {0};
    socklen_t from_length = sizeof from;
    ssize_t length;
    do length = recvfrom(descriptor, bytes, sizeof bytes, flags, (struct sockaddr *)&from, &from_length);
    while (length < 0 && errno == EINTR);
    if (length < 0) return -errno;
    if (from.nl_pid != 0) return 0; /* not from the kernel */
    return parse(bytes, (size_t)length, flows, capacity, done);
}

int fpx_destroyed_read(int descriptor, fpx_flow *flows, size_t capacity) {
    /* An event has a datagram of its own, so as many are read as there is room for. */
    size_t count = 0;
    while (capacity - count >= 64) {
        bool done = false;
        int found = receive(descriptor, MSG_DONTWAIT, flows + count, capacity - count, &done);
        if (found == -EAGAIN) break;
        if (found < 0) return found; /* what was read so far is lost too: the caller asks for all sockets anyway */
        count += (size_t)found;
    }
    return (int)count;
}

int fpx_dump_begin(int descriptor, int family) {
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 request;
    } message = {
        .header = {.nlmsg_len = sizeof message, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .request = {.sdiag_family = family == 4 ? AF_INET : AF_INET6, .sdiag_protocol = IPPROTO_TCP, .idiag_states = STATES},
    };
    return send(descriptor, &message, sizeof message, 0) == (ssize_t)sizeof message ? 0 : -errno;
}

int fpx_dump_read(int descriptor, fpx_flow *flows, size_t capacity) {
    for (;;) {
        bool done = false;
        int found = receive(descriptor, 0, flows, capacity, &done);
        if (found != 0 || done) return found;
    }
}

/* ---- Files and clocks ---- */

int fpx_file_open_sized(const char *path, int64_t *size) {
    int descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (descriptor < 0) return -errno;
    struct stat status;
    int error = fstat(descriptor, &status) != 0 ? errno : S_ISREG(status.st_mode) ? 0 : EINVAL;
    *size = status.st_size;
    if (!error) return descriptor;
    close(descriptor);
    return -error;
}
int fpx_file_reset(int descriptor, int64_t bytes) {
    return ftruncate(descriptor, 0) == 0 && ftruncate(descriptor, bytes) == 0 ? 0 : errno;
}
int fpx_file_read(int descriptor, void *bytes, size_t count, int64_t offset) {
    ssize_t length;
    do length = pread(descriptor, bytes, count, offset);
    while (length < 0 && errno == EINTR);
    return length < 0 ? errno : (size_t)length == count ? 0 : EIO;
}
int fpx_file_write(int descriptor, const void *bytes, size_t count, int64_t offset) {
    ssize_t length;
    do length = pwrite(descriptor, bytes, count, offset);
    while (length < 0 && errno == EINTR);
    return length < 0 ? errno : (size_t)length == count ? 0 : EIO;
}
void fpx_descriptor_close(int descriptor) { close(descriptor); }
const char *fpx_errno_name(int number) {
    const char *name = strerrorname_np(number);
    return name ? name : "unknown";
}

static uint64_t nanoseconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
uint64_t fpx_monotonic(void) { return nanoseconds(CLOCK_MONOTONIC); }
uint64_t fpx_milliseconds(void) { return nanoseconds(CLOCK_REALTIME) / 1000000u; }
void fpx_yield(void) { sched_yield(); }
