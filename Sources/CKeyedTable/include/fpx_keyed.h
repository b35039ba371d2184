/* fpx_keyed.h - sessions by key and by the socket that they are bound to, in two RCU hash tables (liburcu), and what the kernel
 * tells of processes and sockets. Plain functions, for Swift to call.
 *
 * Progress: find, add, remove and the walks are lock-free (cds_lfht); readers register themselves with the "bp" flavour of RCU,
 * so any thread may call. A node that has left the tables is freed after a grace period by liburcu's own thread, which starts
 * with the first removal; nothing starts when the library is loaded. */
#ifndef FPX_KEYED_H
#define FPX_KEYED_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FPX_KEY_BYTES 160

/* One session, as it stands in the journal and in a node. IPv4 addresses are mapped into IPv6 (::ffff:a.b.c.d).
 *
 * A record of no session (free) has the handle 0 and a sum of its own; one of zeros has never been written. */
typedef struct fpx_record {
    uint64_t handle; /* its entry is the record's place in the journal; 0: no session */
    uint64_t started; /* milliseconds since 1970 */
    uint64_t owner_start; /* clock ticks since boot */
    int32_t owner_pid; /* 0: unknown */
    uint16_t client_port; /* 0: the hook does not tell the client */
    uint16_t local_port; /* 0: bound to no socket */
    uint8_t client[16];
    uint8_t verdict;
    uint8_t hook; /* 0: a session of which nothing but the handle is known; the key is the handle */
    uint8_t key_length;
    uint8_t unused;
    uint32_t network_namespace; /* of the socket, by the inode of /proc/self/ns/net */
    uint64_t cookie; /* the kernel's number of the socket whose end ends the session; 0: bound to no socket */
    uint8_t key[FPX_KEY_BYTES];
    uint64_t sum; /* of all other bytes and of the record's place, in the journal only */
    uint32_t process_namespace; /* which the owner's number is of, by the inode of /proc/self/ns/pid */
    uint32_t time_namespace; /* which the owner's start is of, by the inode of /proc/self/ns/time */
    uint8_t local[16]; /* the proxy's own address of that socket */
} fpx_record;
_Static_assert(sizeof(fpx_record) == 256 && offsetof(fpx_record, key) == 64 && offsetof(fpx_record, sum) == 224, "a journal record never crosses a page");

/* A node. All but the state is written before the node is in a table and never again. */
typedef struct fpx_session {
    fpx_record record;
    uint64_t state; /* atomic, see KeyedSessions.swift */
} fpx_session;

typedef struct fpx_keyed_table fpx_keyed_table;
/* Where a walk stands. Valid within one read section. */
typedef struct fpx_walk { void *node, *next; } fpx_walk;

/* NULL: no memory. */
fpx_keyed_table *fpx_keyed_create(void);
/* Frees all nodes. No other thread may use the table. */
void fpx_keyed_destroy(fpx_keyed_table *table);

/* Nodes found between these two stay readable until the second. Many threads at a time, and sections may nest. */
void fpx_keyed_enter(fpx_keyed_table *table);
void fpx_keyed_leave(fpx_keyed_table *table);
/* The same with nobody else between the two. */
void fpx_keyed_enter_alone(fpx_keyed_table *table);

/* A node of zeros in no table; NULL: no memory. */
fpx_session *fpx_session_make(void);
/* Frees a node that was never in a table. */
void fpx_session_discard(fpx_session *session);
/* Adds by hook and key; returns the node that has this key now: the one given, or one that was there before. */
fpx_session *fpx_keyed_add(fpx_keyed_table *table, fpx_session *session);
fpx_session *fpx_keyed_find(fpx_keyed_table *table, uint8_t hook, const uint8_t *key, size_t length);
/* Makes the session known by its record's cookie too. Once. */
void fpx_keyed_link(fpx_keyed_table *table, fpx_session *session);
/* Takes it from that table again; later calls do nothing. */
void fpx_keyed_unlink(fpx_keyed_table *table, fpx_session *session);
/* Takes the node from both tables and frees it after a grace period. False: another has. */
bool fpx_keyed_remove(fpx_keyed_table *table, fpx_session *session);

/* All sessions, one by one; NULL at the end. */
fpx_session *fpx_keyed_first(fpx_keyed_table *table, fpx_walk *walk);
fpx_session *fpx_keyed_next(fpx_keyed_table *table, fpx_walk *walk);
/* The sessions that are bound to one socket: several requests of one connection. */
fpx_session *fpx_bound_first(fpx_keyed_table *table, uint64_t cookie, fpx_walk *walk);
fpx_session *fpx_bound_next(fpx_keyed_table *table, fpx_walk *walk);

/* ---- Processes ---- */

/* A descriptor that is readable once the process is dead (a zombie is), or -errno. */
int fpx_pidfd_open(int pid);
/* Sets dead[i] for each descriptor that is readable. Does not wait. */
void fpx_pidfd_poll(const int *descriptors, bool *dead, size_t count);

/* ---- Namespaces ---- */

/* The inode of this process' namespace of a kind ("net", "pid", "time"); 0: it cannot be told. */
uint32_t fpx_namespace(const char *kind);

/* The socket option (level SOL_SOCKET) that tells the number, 8 bytes, of a socket's network namespace. Linux 5.14 or later. */
#define FPX_SO_NETNS_COOKIE 71
/* The number of this process' network namespace; 0: the kernel does not tell. */
uint64_t fpx_network_cookie(void);
/* 1: the process is in this process' network namespace, 0: in another, -1: cannot be told. */
int fpx_same_network(int pid);

/* ---- Sockets ---- */

/* A TCP socket of this network namespace. IPv4 addresses are mapped into IPv6. */
typedef struct fpx_socket {
    uint8_t local[16], remote[16];
    uint16_t local_port, remote_port;
    uint64_t cookie; /* the kernel's number of it: no other socket has it until the machine starts again */
} fpx_socket;

/* Looks for the socket between two ends that a process has open, and sets its cookie. 0; -ENOENT: there is none, or it is a
 * part of a connection that outlives it (MPTCP); another -errno: it cannot be told. Waits for nothing but the kernel's own
 * locks. The first call of a thread opens a netlink socket, which is closed when the thread ends. */
int fpx_socket_find(fpx_socket *socket);
/* 1: the kernel has a socket of these ends and this cookie, 0: it has none, -errno: it cannot be told. A 0 counts only if
 * `fpx_sockets_known` is 0 after it. */
int fpx_socket_exists(const fpx_socket *socket);
/* 0: the kernel can look for TCP sockets. -errno: it cannot, and then says of each that it is not there. */
int fpx_sockets_known(void);

/* A netlink socket that hears of each TCP socket destroyed in this network namespace; -errno (EPERM: needs CAP_NET_ADMIN). */
int fpx_destroyed_open(size_t receive_bytes);
/* The cookies of up to `capacity` sockets that were destroyed; 0: none now; -ENOBUFS: the kernel had to drop some; another
 * -errno: some may be lost as well. */
int fpx_destroyed_read(int descriptor, uint64_t *cookies, size_t capacity);

/* ---- Records ---- */

/* What stands in a place of the journal. */
enum fpx_record_kind { FPX_RECORD_UNUSED, FPX_RECORD_FREE, FPX_RECORD_SESSION, FPX_RECORD_DAMAGED };
/* Sets the sum of a record for its place. */
void fpx_record_seal(fpx_record *record, uint32_t entry);
enum fpx_record_kind fpx_record_kind_of(const fpx_record *record, uint32_t entry);

/* ---- Files and clocks ---- */

/* Opens a regular file of this user or root and tells its size. Its descriptor, or -errno (EINVAL: not a regular file, EPERM:
 * another user's). */
int fpx_file_open_own(const char *path, int64_t *size);
/* Makes a new file (mode 0600) of zeros and no blocks, in the place of one of that name. Its descriptor, or -errno. */
int fpx_file_make(const char *path, int64_t bytes);
/* How an open file stands to its name and size. 0: it has the name and is whole; ENOENT: nothing has the name; EEXIST: another
 * file has it; EFBIG: it has another size, which `size` tells; another errno: it cannot be told. */
int fpx_file_check(int descriptor, const char *path, int64_t bytes, int64_t *size);
/* Whether so much more memory can be had beyond a file's end; it is given back at once. 0 or errno. */
int fpx_file_try(int descriptor, int64_t end, int64_t bytes);
/* Where a file's next bytes are that were ever written, from an offset on; -1: there are none. A file system that does not tell
 * answers the offset. */
int64_t fpx_file_data(int descriptor, int64_t offset);
/* Reads or writes all bytes. 0 or errno (EIO: the file is too short). */
int fpx_file_read(int descriptor, void *bytes, size_t count, int64_t offset);
int fpx_file_write(int descriptor, const void *bytes, size_t count, int64_t offset);
void fpx_descriptor_close(int descriptor);
const char *fpx_errno_name(int number);

/* Nanoseconds that never go back; milliseconds since 1970. */
uint64_t fpx_monotonic(void);
uint64_t fpx_milliseconds(void);
/* Lets other threads run. */
void fpx_yield(void);
/* A full barrier. */
void fpx_fence(void);
#endif
