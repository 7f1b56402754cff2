/* The key-value store of W09: a hash table with chains, strings in and out. */
#ifndef PLAIN_W09_KV_STORE_H
#define PLAIN_W09_KV_STORE_H

#include <pthread.h>
#include <stdint.h>

#include "../plain_shape.h"

#if PLAIN_FIELDS
struct kv_entry {
    uint64_t last_write_ts;
    struct kv_entry *next;
    char *value;
    char *key;
};

struct kv_store {
    pthread_rwlock_t lock;
    int num_buckets;
    long count;
    struct kv_entry **buckets;
};
#else
struct kv_entry {
    char *key;
    char *value;
    struct kv_entry *next;
    uint64_t last_write_ts;
};

struct kv_store {
    struct kv_entry **buckets;
    int num_buckets;
    pthread_rwlock_t lock;
};
#endif

int kv_store_init(struct kv_store *store);
int kv_store_set(struct kv_store *store, const char *key, const char *value);
int kv_store_set_ts(struct kv_store *store, const char *key, const char *value, uint64_t ts);
char *kv_store_get(const struct kv_store *store, const char *key);
struct kv_entry *kv_store_find(const struct kv_store *store, const char *key);
int kv_store_del(struct kv_store *store, const char *key);
int kv_store_count(const struct kv_store *store);
void kv_store_destroy(struct kv_store *store);
unsigned kv_hash(const char *key, int num_buckets);

#endif
