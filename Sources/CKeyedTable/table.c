/* The two tables: by hook and key (unique), by the cookie of a socket (several sessions of one connection). */
#include "fpx_keyed.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <urcu-bp.h> /* before the table: it decides the flavour */
#include <urcu/rculfhash.h>

/* Twice as many buckets as there are usually sessions would be faster by nothing that can be measured, and a table that resizes
 * itself starts a thread. There are at most 65,536 sessions with a handle and half as many ended ones that are remembered. */
#define BUCKETS 32768

struct fpx_keyed_table {
    struct cds_lfht *by_key, *by_cookie;
    pthread_rwlock_t sections; /* held alone while all sessions move to another segment */
    uint64_t seed; /* hashes differ from one start to the next, so that nobody can choose keys that collide */
};

struct node {
    fpx_session session;
    struct cds_lfht_node by_key, by_cookie;
    struct rcu_head head;
};

struct key {
    uint8_t hook;
    size_t length;
    const uint8_t *bytes;
};

static struct node *node_of(fpx_session *session) { return caa_container_of(session, struct node, session); }

static unsigned long hash_bytes(uint64_t hash, const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    hash ^= hash >> 33; /* the low bits choose the bucket, so all others are mixed into them */
    hash *= 0xff51afd7ed558ccdu;
    return hash ^ hash >> 33;
}
static unsigned long hash_key(const fpx_keyed_table *table, const struct key *key) {
    return hash_bytes(table->seed ^ key->hook, key->bytes, key->length);
}
static unsigned long hash_cookie(const fpx_keyed_table *table, uint64_t cookie) {
    return hash_bytes(table->seed, (const uint8_t *)&cookie, sizeof cookie);
}
static int is_key(struct cds_lfht_node *node, const void *wanted) {
    const fpx_record *record = &caa_container_of(node, struct node, by_key)->session.record;
    const struct key *key = wanted;
    return record->hook == key->hook && record->key_length == key->length && !memcmp(record->key, key->bytes, key->length);
}
static int has_cookie(struct cds_lfht_node *node, const void *wanted) {
    return caa_container_of(node, struct node, by_cookie)->session.record.cookie == *(const uint64_t *)wanted;
}
static struct key key_of(const fpx_record *record) { return (struct key){record->hook, record->key_length, record->key}; }

fpx_keyed_table *fpx_keyed_create(void) {
    fpx_keyed_table *table = calloc(1, sizeof *table);
    if (!table) return NULL;
    pthread_rwlock_init(&table->sections, NULL);
    if (getrandom(&table->seed, sizeof table->seed, GRND_NONBLOCK) != sizeof table->seed) table->seed = (uintptr_t)table;
    table->by_key = cds_lfht_new(BUCKETS, BUCKETS, BUCKETS, 0, NULL);
    table->by_cookie = cds_lfht_new(BUCKETS, BUCKETS, BUCKETS, 0, NULL);
    if (table->by_key && table->by_cookie) return table;
    if (table->by_key) cds_lfht_destroy(table->by_key, NULL);
    if (table->by_cookie) cds_lfht_destroy(table->by_cookie, NULL);
    free(table);
    return NULL;
}

static void free_node(struct rcu_head *head) { free(caa_container_of(head, struct node, head)); }

void fpx_keyed_destroy(fpx_keyed_table *table) {
    struct cds_lfht_iter iter;
    struct cds_lfht_node *each;
    rcu_read_lock();
    cds_lfht_for_each(table->by_cookie, &iter, each) (void)cds_lfht_del(table->by_cookie, each);
    cds_lfht_for_each(table->by_key, &iter, each) {
        if (cds_lfht_del(table->by_key, each) == 0)
            call_rcu(&caa_container_of(each, struct node, by_key)->head, free_node);
    }
    rcu_read_unlock();
    rcu_barrier();
    cds_lfht_destroy(table->by_cookie, NULL);
    cds_lfht_destroy(table->by_key, NULL);
    free(table);
}

void fpx_keyed_enter(fpx_keyed_table *table) {
    pthread_rwlock_rdlock(&table->sections); /* prefers readers: sections may nest */
    rcu_read_lock();
}
void fpx_keyed_enter_alone(fpx_keyed_table *table) {
    pthread_rwlock_wrlock(&table->sections);
    rcu_read_lock();
}
void fpx_keyed_leave(fpx_keyed_table *table) {
    rcu_read_unlock();
    pthread_rwlock_unlock(&table->sections);
}

fpx_session *fpx_session_make(void) {
    struct node *node = calloc(1, sizeof *node);
    if (!node) return NULL;
    cds_lfht_node_init(&node->by_key);
    cds_lfht_node_init(&node->by_cookie);
    return &node->session;
}
void fpx_session_discard(fpx_session *session) { free(node_of(session)); }

fpx_session *fpx_keyed_add(fpx_keyed_table *table, fpx_session *session) {
    struct key key = key_of(&session->record);
    struct cds_lfht_node *found =
        cds_lfht_add_unique(table->by_key, hash_key(table, &key), is_key, &key, &node_of(session)->by_key);
    return &caa_container_of(found, struct node, by_key)->session;
}

fpx_session *fpx_keyed_find(fpx_keyed_table *table, uint8_t hook, const uint8_t *bytes, size_t length) {
    struct key key = {hook, length, bytes};
    struct cds_lfht_iter iter;
    cds_lfht_lookup(table->by_key, hash_key(table, &key), is_key, &key, &iter);
    struct cds_lfht_node *found = cds_lfht_iter_get_node(&iter);
    return found ? &caa_container_of(found, struct node, by_key)->session : NULL;
}

void fpx_keyed_link(fpx_keyed_table *table, fpx_session *session) {
    cds_lfht_add(table->by_cookie, hash_cookie(table, session->record.cookie), &node_of(session)->by_cookie);
}
void fpx_keyed_unlink(fpx_keyed_table *table, fpx_session *session) {
    (void)cds_lfht_del(table->by_cookie, &node_of(session)->by_cookie);
}

bool fpx_keyed_remove(fpx_keyed_table *table, fpx_session *session) {
    if (cds_lfht_del(table->by_key, &node_of(session)->by_key) != 0) return false;
    call_rcu(&node_of(session)->head, free_node);
    return true;
}

/* liburcu's iterator is two pointers; the walk carries them so that Swift needs none of its headers. */
_Static_assert(sizeof(fpx_walk) == sizeof(struct cds_lfht_iter), "a walk holds an iterator");

static fpx_session *keyed_step(struct cds_lfht_iter *iter, fpx_walk *walk) {
    memcpy(walk, iter, sizeof *walk);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(iter);
    return node ? &caa_container_of(node, struct node, by_key)->session : NULL;
}
static fpx_session *bound_step(struct cds_lfht_iter *iter, fpx_walk *walk) {
    memcpy(walk, iter, sizeof *walk);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(iter);
    return node ? &caa_container_of(node, struct node, by_cookie)->session : NULL;
}

fpx_session *fpx_keyed_first(fpx_keyed_table *table, fpx_walk *walk) {
    struct cds_lfht_iter iter;
    cds_lfht_first(table->by_key, &iter);
    return keyed_step(&iter, walk);
}
fpx_session *fpx_keyed_next(fpx_keyed_table *table, fpx_walk *walk) {
    struct cds_lfht_iter iter;
    memcpy(&iter, walk, sizeof iter);
    cds_lfht_next(table->by_key, &iter);
    return keyed_step(&iter, walk);
}
fpx_session *fpx_bound_first(fpx_keyed_table *table, uint64_t cookie, fpx_walk *walk) {
    struct cds_lfht_iter iter;
    cds_lfht_lookup(table->by_cookie, hash_cookie(table, cookie), has_cookie, &cookie, &iter);
    return bound_step(&iter, walk);
}
fpx_session *fpx_bound_next(fpx_keyed_table *table, fpx_walk *walk) {
    struct cds_lfht_iter iter;
    memcpy(&iter, walk, sizeof iter);
    uint64_t cookie = caa_container_of(iter.node, struct node, by_cookie)->session.record.cookie;
    cds_lfht_next_duplicate(table->by_cookie, has_cookie, &cookie, &iter);
    return bound_step(&iter, walk);
}
