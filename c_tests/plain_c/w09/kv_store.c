/* The store of W09: a table of KV_BUCKETS chains, one malloc for each key, value and entry. The table never grows, so that
 * set and get slow down with the number of keys: this is the baseline, not the fast one. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "w09/kv_store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifndef KV_BUCKETS
#define KV_BUCKETS 1024
#endif

/* Bernstein's hash: short, and good enough for keys that people type. */
unsigned kv_hash(const char *key, int num_buckets)
{
    unsigned hash = 5381;

    if (key == NULL || num_buckets <= 0) {
        errno = EINVAL;
        return 0;
    }
    for (; *key != '\0'; key++)
        hash = hash * 33 + (unsigned char)*key;
    return hash % (unsigned)num_buckets;
}

/* The name is in parentheses because a header may also define a macro kv_store_init(...). */
int (kv_store_init)(struct kv_store *store)
{
    int rc;

    if (store == NULL) {
        errno = EINVAL;
        return -1;
    }
    memset(store, 0, sizeof *store);
    store->buckets = calloc(KV_BUCKETS, sizeof *store->buckets);
    if (store->buckets == NULL)
        return -1;
    rc = pthread_rwlock_init(&store->lock, NULL);
    if (rc != 0) {
        free(store->buckets);
        store->buckets = NULL;
        errno = rc;
        return -1;
    }
    store->num_buckets = KV_BUCKETS;
    return 0;
}

/* The pointer that leads to the entry of `key`, or the NULL at the end of its chain, so that callers can unlink or append. */
static struct kv_entry **find_link(const struct kv_store *store, const char *key)
{
    struct kv_entry **link = &store->buckets[kv_hash(key, store->num_buckets)];

    while (*link != NULL && strcmp((*link)->key, key) != 0)
        link = &(*link)->next;
    return link;
}

static int usable(const struct kv_store *store, const char *key)
{
    if (store != NULL && store->buckets != NULL && key != NULL)
        return 1;
    errno = EINVAL;
    return 0;
}

static void free_entry(struct kv_entry *entry)
{
    free(entry->key);
    free(entry->value);
    free(entry);
}

static int replace_value(struct kv_entry *entry, const char *value)
{
    char *copy = strdup(value);

    if (copy == NULL)
        return -1;
    free(entry->value);
    entry->value = copy;
    return 0;
}

/* Finds the entry or adds one with timestamp 0, and gives it the value. NULL and the table as it was when memory is short. */
static struct kv_entry *put(struct kv_store *store, const char *key, const char *value)
{
    struct kv_entry **link = find_link(store, key);
    struct kv_entry *entry = *link;

    if (entry != NULL)
        return replace_value(entry, value) == 0 ? entry : NULL;

    entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return NULL;
    entry->key = strdup(key);
    entry->value = strdup(value);
    if (entry->key == NULL || entry->value == NULL) {
        free_entry(entry);
        errno = ENOMEM;
        return NULL;
    }
    *link = entry;
    return entry;
}

int kv_store_set(struct kv_store *store, const char *key, const char *value)
{
    if (!usable(store, key))
        return -1;
    if (value == NULL) {
        errno = EINVAL;
        return -1;
    }
    return put(store, key, value) != NULL ? 0 : -1;
}

int kv_store_set_ts(struct kv_store *store, const char *key, const char *value, uint64_t ts)
{
    struct kv_entry *entry;

    if (!usable(store, key))
        return -1;
    if (value == NULL) {
        errno = EINVAL;
        return -1;
    }
    entry = put(store, key, value);
    if (entry == NULL)
        return -1;
    entry->last_write_ts = ts;
    return 0;
}

struct kv_entry *kv_store_find(const struct kv_store *store, const char *key)
{
    return usable(store, key) ? *find_link(store, key) : NULL;
}

char *kv_store_get(const struct kv_store *store, const char *key)
{
    struct kv_entry *entry = kv_store_find(store, key);

    return entry != NULL ? entry->value : NULL;
}

int kv_store_del(struct kv_store *store, const char *key)
{
    struct kv_entry **link;
    struct kv_entry *entry;

    /* A store that is not initialised has no key: not found, but errno tells. */
    if (!usable(store, key))
        return store != NULL && key != NULL ? 0 : -1;
    link = find_link(store, key);
    entry = *link;
    if (entry == NULL)
        return 0;
    *link = entry->next;
    free_entry(entry);
    return 1;
}

int kv_store_count(const struct kv_store *store)
{
    int count = 0;

    if (store == NULL) {
        errno = EINVAL;
        return -1;
    }
    if (store->buckets == NULL)
        errno = EINVAL;
    for (int i = 0; i < store->num_buckets; i++)
        for (const struct kv_entry *entry = store->buckets[i]; entry != NULL; entry = entry->next)
            count++;
    return count;
}

void kv_store_destroy(struct kv_store *store)
{
    /* No buckets: never initialised, or destroyed already. Then the lock must not be touched either. */
    if (store == NULL || store->buckets == NULL)
        return;
    for (int i = 0; i < store->num_buckets; i++) {
        struct kv_entry *entry = store->buckets[i];

        while (entry != NULL) {
            struct kv_entry *next = entry->next;

            free_entry(entry);
            entry = next;
        }
    }
    free(store->buckets);
    pthread_rwlock_destroy(&store->lock);
    store->buckets = NULL;
    store->num_buckets = 0;
}
