/* What the kernel tells of TCP sockets (NETLINK_SOCK_DIAG). */
#define _GNU_SOURCE
#include "fpx_keyed.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* States in which a process can have a connection open (include/net/tcp_states.h): established, a half-open one that was
 * accepted early (TCP fast open), and those of a close that goes on. */
#define OPEN_STATES (1u << 1 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 8 | 1u << 9 | 1u << 11)

/* Datagrams before an answer that are not it. */
enum { FOREIGN_MAX = 64 };

static int open_diag(void) {
    int descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (descriptor < 0) return -errno;
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    if (bind(descriptor, (struct sockaddr *)&address, sizeof address) == 0) return descriptor;
    int error = errno;
    close(descriptor);
    return -error;
}

/* One datagram of the kernel. Its length, which may be more than there was room for; 0: from somebody else. */
static ssize_t receive(int descriptor, void *bytes, size_t capacity) {
    struct sockaddr_nl from = {0};
    socklen_t from_length = sizeof from;
    ssize_t length;
    do length = recvfrom(descriptor, bytes, capacity, MSG_DONTWAIT | MSG_TRUNC, (struct sockaddr *)&from, &from_length);
    while (length < 0 && errno == EINTR);
    if (length < 0) return -errno;
    return from.nl_pid == 0 ? length : 0;
}

/* ---- Questions ---- */

/* A thread asks on a socket of its own, so that no thread waits for another's answer. */
static pthread_key_t asker;
static pthread_once_t asker_once = PTHREAD_ONCE_INIT;
static int asker_error;

static void close_asker(void *kept) { close((int)((intptr_t)kept - 1)); }
static void make_asker(void) { asker_error = pthread_key_create(&asker, close_asker); }

static int descriptor_of_thread(void) {
    pthread_once(&asker_once, make_asker);
    if (asker_error) return -asker_error;
    intptr_t kept = (intptr_t)pthread_getspecific(asker);
    if (kept) return (int)(kept - 1);
    int descriptor = open_diag();
    if (descriptor < 0) return descriptor;
    int error = pthread_setspecific(asker, (void *)((intptr_t)descriptor + 1));
    if (!error) return descriptor;
    close(descriptor);
    return -error;
}

/* After an answer that did not come as it should: the next question begins with an empty queue. */
static int give_up(int descriptor, int error) {
    close(descriptor);
    pthread_setspecific(asker, NULL);
    return error;
}

struct question {
    struct nlmsghdr header;
    struct inet_diag_req_v2 request;
};
union answer {
    struct nlmsghdr header;
    char bytes[8192];
};

/* Sends a question and reads the first message of its answer into `answer`. The bytes of it that are there, or -errno.
 *
 * The kernel answers while it is asked, so the answer is there when `send` returns, or never comes. */
static ssize_t ask(struct question *question, union answer *answer) {
    static _Thread_local uint32_t sequence;
    int descriptor = descriptor_of_thread();
    if (descriptor < 0) return descriptor;
    question->header.nlmsg_len = sizeof *question;
    question->header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    question->header.nlmsg_seq = ++sequence;
    if (send(descriptor, question, sizeof *question, 0) != (ssize_t)sizeof *question) return give_up(descriptor, -errno);
    for (int foreign = 0; foreign < FOREIGN_MAX; foreign++) {
        ssize_t length = receive(descriptor, answer, sizeof *answer);
        if (length < 0) return give_up(descriptor, (int)length);
        if (length < (ssize_t)sizeof answer->header || answer->header.nlmsg_seq != sequence) continue;
        if ((size_t)length > sizeof *answer || answer->header.nlmsg_len > (size_t)length) break;
        return answer->header.nlmsg_len;
    }
    return give_up(descriptor, -EBADMSG);
}

/* The error that a message of the kernel's tells; 0: none. */
static int error_in(const union answer *answer, ssize_t length) {
    int error = 0;
    if (answer->header.nlmsg_type == NLMSG_ERROR || answer->header.nlmsg_type == NLMSG_DONE) {
        if (length < (ssize_t)NLMSG_LENGTH(sizeof error)) return -EBADMSG;
        memcpy(&error, NLMSG_DATA(&answer->header), sizeof error);
    }
    return error < 0 ? error : 0;
}

static bool is_mapped(const uint8_t address[16]) {
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
    return !memcmp(address, prefix, sizeof prefix);
}

/* The kernel's entry of a socket: 0, or -errno. `cookie` 0: whichever has these ends. `extensions`: what else is asked for. */
static int look_up(const fpx_socket *socket, uint64_t cookie, uint8_t extensions, union answer *answer, ssize_t *length) {
    struct question question = {
        .header = {.nlmsg_flags = NLM_F_REQUEST},
        .request =
            {
                .sdiag_family = AF_INET6,
                .sdiag_protocol = IPPROTO_TCP,
                .idiag_ext = extensions,
                .idiag_states = ~0u,
                .id =
                    {
                        .idiag_sport = htons(socket->local_port),
                        .idiag_dport = htons(socket->remote_port),
                        .idiag_cookie = {cookie ? (uint32_t)cookie : INET_DIAG_NOCOOKIE,
                                         cookie ? (uint32_t)(cookie >> 32) : INET_DIAG_NOCOOKIE},
                    },
            },
    };
    /* As IPv4 both an IPv4 socket is found and an IPv6 one with mapped addresses. */
    bool is_four = is_mapped(socket->local) && is_mapped(socket->remote);
    size_t skipped = is_four ? 12 : 0;
    if (is_four) question.request.sdiag_family = AF_INET;
    memcpy(question.request.id.idiag_src, socket->local + skipped, 16 - skipped);
    memcpy(question.request.id.idiag_dst, socket->remote + skipped, 16 - skipped);
    *length = ask(&question, answer);
    if (*length < 0) return (int)*length;
    int error = error_in(answer, *length);
    if (error) return error;
    bool is_entry = answer->header.nlmsg_type == SOCK_DIAG_BY_FAMILY
        && *length >= (ssize_t)NLMSG_LENGTH(sizeof(struct inet_diag_msg));
    return is_entry ? 0 : -EBADMSG;
}

/* An attribute's value among others; NULL: it is not there. */
static const char *attribute(const char *bytes, size_t left, uint16_t type, size_t *length) {
    while (left >= sizeof(struct nlattr)) {
        struct nlattr head;
        memcpy(&head, bytes, sizeof head);
        if (head.nla_len < sizeof head || head.nla_len > left) break;
        if ((head.nla_type & NLA_TYPE_MASK) == type) {
            *length = head.nla_len - sizeof head;
            return bytes + sizeof head;
        }
        size_t step = NLA_ALIGN(head.nla_len);
        if (step > left) break;
        bytes += step;
        left -= step;
    }
    return NULL;
}

/* Whether the socket is one path of an MPTCP connection, which goes on without it. */
static bool is_subflow(const union answer *answer, ssize_t length) {
    size_t begin = NLMSG_LENGTH(sizeof(struct inet_diag_msg)), size = 0;
    const char *ulp = attribute(answer->bytes + begin, (size_t)length - begin, INET_DIAG_ULP_INFO, &size);
    const char *name = ulp ? attribute(ulp, size, INET_ULP_INFO_NAME, &size) : NULL;
    return name && size >= 5 && !memcmp(name, "mptcp", 5);
}

int fpx_socket_find(fpx_socket *socket) {
    union answer answer;
    ssize_t length;
    /* With these the kernel tells of what stands above TCP too. */
    int error = look_up(socket, 0, 1 << (INET_DIAG_INFO - 1), &answer, &length);
    if (error) return error;
    const struct inet_diag_msg *found = NLMSG_DATA(&answer.header);
    /* Without an inode nobody has accepted it yet, or its process has closed it. What matches only in part is a listener. */
    bool is_open = found->idiag_inode != 0 && found->idiag_state < 32 && OPEN_STATES >> found->idiag_state & 1
        && found->id.idiag_sport == htons(socket->local_port) && found->id.idiag_dport == htons(socket->remote_port);
    if (!is_open || is_subflow(&answer, length)) return -ENOENT;
    socket->cookie = (uint64_t)found->id.idiag_cookie[1] << 32 | found->id.idiag_cookie[0];
    return socket->cookie ? 0 : -ENOENT;
}

int fpx_socket_exists(const fpx_socket *socket) {
    union answer answer;
    ssize_t length;
    int error = look_up(socket, socket->cookie, 0, &answer, &length);
    return error == -ENOENT || error == -ESTALE ? 0 : error ? error : 1;
}

int fpx_sockets_known(void) {
    /* A list of the sockets in no state at all: it is empty where there is somebody to make it, and an error otherwise. */
    struct question question = {
        .header = {.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .request = {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = 0},
    };
    union answer answer;
    ssize_t length = ask(&question, &answer);
    if (length < 0) return (int)length;
    int error = error_in(&answer, length);
    return error ? error : answer.header.nlmsg_type == NLMSG_DONE ? 0 : -EBADMSG;
}

/* ---- News ---- */

int fpx_destroyed_open(size_t receive_bytes) {
    int descriptor = open_diag();
    if (descriptor < 0) return descriptor;
    int bytes = (int)receive_bytes;
    /* Above the system's limit, with CAP_NET_ADMIN; without it as much as that allows. */
    if (setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0)
        (void)setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    const int groups[] = {SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (setsockopt(descriptor, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof groups[i]) == 0) continue;
        int error = errno;
        close(descriptor);
        return -error;
    }
    return descriptor;
}

int fpx_destroyed_read(int descriptor, uint64_t *cookies, size_t capacity) {
    union answer event;
    size_t count = 0;
    while (count < capacity) {
        ssize_t length = receive(descriptor, &event, sizeof event);
        if (length == -EAGAIN) break;
        if (length < 0) return (int)length; /* what was read so far is lost too: the caller looks for all sockets anyway */
        if (length == 0) continue;
        /* Each event is a datagram of its own. */
        if (length < (ssize_t)NLMSG_LENGTH(sizeof(struct inet_diag_msg))) return -EBADMSG;
        if (event.header.nlmsg_type != SOCK_DIAG_BY_FAMILY) continue;
        const struct inet_diag_msg *message = NLMSG_DATA(&event.header);
        cookies[count++] = (uint64_t)message->id.idiag_cookie[1] << 32 | message->id.idiag_cookie[0];
    }
    return (int)count;
}
