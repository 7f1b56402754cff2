/* Of a correct tree in another hand than plain_c. The store: FNV-1a, a mutex, a count. */
#pragma once
#include <stdint.h>
#include <stddef.h>
#include <pthread.h>
struct kv_entry {
    char *key, *value;
    uint64_t last_write_ts;
    struct kv_entry *next;
};
struct kv_store {
    size_t num_buckets;
    size_t count;
    struct kv_entry **buckets;
    pthread_mutex_t mu;
};
int kv_store_init(struct kv_store *s, int num_buckets);
int kv_store_set(struct kv_store *s, const char *key, const char *value);
const char *kv_store_get(struct kv_store *s, const char *key);
int kv_store_del(struct kv_store *s, const char *key);
void kv_store_destroy(struct kv_store *s);
