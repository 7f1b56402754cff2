#ifndef LOGSHIP_W09_KV_STORE_H
#define LOGSHIP_W09_KV_STORE_H


/* Generated from src/capi by `make headers`: change it there. */

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* Under -std=c99 and the like glibc declares the lock only when a feature macro asks for it, and by now it is too late to
 * ask. The stand-in has the same size and alignment, and zeroes mean the same. */
#if defined(__STRICT_ANSI__) && !defined(__USE_UNIX98) && !defined(__USE_XOPEN2K) && !defined(LOGSHIP_RWLOCK)
#define LOGSHIP_RWLOCK
typedef union {
    char __size[56];
    long int __align;
} pthread_rwlock_t;
#endif

struct wal_record; /* w10/wal_record.h */


/**
 * One key with its value, in the chain of its bucket. `key` and `value` end with a NUL and are never NULL. Programs
 * may read all of it and change `last_write_ts`.
 */
struct kv_entry {
    /**
     * The key.
     */
    char *key;
    /**
     * The value.
     */
    char *value;
    /**
     * The next entry of the same bucket, or NULL.
     */
    struct kv_entry *next;
    /**
     * When the value was written; 0 if nobody said.
     */
    uint64_t last_write_ts;
};

/**
 * A hash table with chains. Every entry is in bucket `kv_hash(key, num_buckets)`, no key is there twice.
 */
struct kv_store {
    /**
     * `num_buckets` chains; NULL when the store is not initialised or destroyed.
     */
    struct kv_entry **buckets;
    /**
     * Grows as keys come.
     */
    int num_buckets;
    /**
     * For the program: the calls below never take it.
     */
    pthread_rwlock_t lock;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Makes an empty store of 64 buckets in `*store`, whatever that memory holds. Returns 0, or -1 with `errno` ENOMEM, or
 * EINVAL if `store` is NULL. `kv_store_destroy` releases it. (`kv_store_init(&store, n)` is `kv_store_init_sized`.)
 */
int kv_store_init(struct kv_store *store);

/**
 * Makes an empty store that begins with `num_buckets` buckets. Returns 0, or -1 with `errno` ENOMEM, or EINVAL if
 * `store` is NULL or `num_buckets` not above 0. The number grows when there are more keys than buckets, and more than
 * 64.
 */
int kv_store_init_sized(struct kv_store *store,
                        int num_buckets);

/**
 * Sets `key` to a copy of `value`, whatever is there. The key keeps its time stamp; a new key gets that of its
 * tombstone, which is cleared, else 0. Returns 0, or -1 with `errno` ENOMEM (nothing is changed then) or EINVAL if an
 * argument is NULL or the store not initialised. `num_buckets` may grow; entries and values of other keys stay where
 * they are. Never takes `lock`: no other call on this store may run at the same time.
 */
int kv_store_set(struct kv_store *store,
                 const char *key,
                 const char *value);

/**
 * Sets `key` to a copy of `value` with the time stamp `ts`, whatever is there; a tombstone is cleared. Returns and
 * rules as for `kv_store_set`.
 */
int kv_store_set_ts(struct kv_store *store,
                    const char *key,
                    const char *value,
                    uint64_t ts);

/**
 * Returns the value of `key`, or NULL if it is absent. The string is the store's: it is valid until that key is set or
 * deleted or the store destroyed, and must not be freed. NULL with `errno` EINVAL if an argument is NULL or the store
 * not initialised. Writes nothing and takes no lock: several threads may call it at once, while nobody writes.
 */
char *kv_store_get(const struct kv_store *store,
                   const char *key);

/**
 * Returns the entry of `key`, with its value and time stamp, or NULL if it is absent. Valid, owned and safe between
 * threads as `kv_store_get`'s string is.
 */
struct kv_entry *kv_store_find(const struct kv_store *store,
                               const char *key);

/**
 * Deletes `key`. Returns 1, or 0 if it is absent (no error; with `errno` EINVAL if the store is not initialised), or
 * -1 with `errno` EINVAL if an argument is NULL, or ENOMEM (nothing is changed then). If the key has a time stamp, a
 * tombstone with it stays behind, which no program sees but `kv_store_apply` and checkpoints heed. Threads as for
 * `kv_store_set`.
 */
int kv_store_del(struct kv_store *store,
                 const char *key);

/**
 * Returns how many live keys the store holds (at most INT_MAX); 0 with `errno` EINVAL if it is not initialised, -1
 * with EINVAL if `store` is NULL. Threads as for `kv_store_get`.
 */
int kv_store_count(const struct kv_store *store);

/**
 * Releases everything that the store holds. Safe on NULL, on a zeroed struct, and twice; `errno` is left alone.
 */
void kv_store_destroy(struct kv_store *store);

/**
 * Returns the bucket, below `num_buckets`, in which a store with that many buckets keeps `key`; 0 with `errno` EINVAL
 * if `key` is NULL or `num_buckets` not above 0. The same in every run. Safe in any thread.
 */
unsigned int kv_hash(const char *key,
                     int num_buckets);

/**
 * Applies a record by the conflict rule: the higher time stamp wins, then the greater value, and a DEL leaves a
 * tombstone. Returns 1 if it was applied, 0 if an equal or newer write was there already, or -1 with `errno` ENOMEM
 * (nothing is changed then), or EINVAL if an argument is NULL or out of range or the store not initialised. The record
 * stays the caller's; its lengths count, so key and value need no NUL and may contain some. Never takes `lock`;
 * threads as for `kv_store_set`.
 */
int kv_store_apply(struct kv_store *store,
                   const struct wal_record *record);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

/* The layout that the library was built with. A #pragma pack that is still open, or another header with a struct of
 * the same name, does not compile: docs/linking.md. */
#ifndef LOGSHIP_LAYOUT
#if defined(__cplusplus) && __cplusplus >= 201103L
#define LOGSHIP_LAYOUT(name, holds, otherwise) static_assert(holds, otherwise)
#elif !defined(__cplusplus) && defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define LOGSHIP_LAYOUT(name, holds, otherwise) _Static_assert(holds, otherwise)
#else
#define LOGSHIP_LAYOUT(name, holds, otherwise) typedef char logship_layout_##name[(holds) ? 1 : -1]
#endif
#endif
LOGSHIP_LAYOUT(kv_store_kv_entry, sizeof(struct kv_entry) == 32 &&
    offsetof(struct kv_entry, key) == 0 &&
    offsetof(struct kv_entry, value) == 8 &&
    offsetof(struct kv_entry, next) == 16 &&
    offsetof(struct kv_entry, last_write_ts) == 24,
    "struct kv_entry is laid out otherwise in liblogship: delete the kv_store.h of your own, or end #pragma pack");
LOGSHIP_LAYOUT(kv_store_kv_store, sizeof(struct kv_store) == 72 &&
    offsetof(struct kv_store, buckets) == 0 &&
    offsetof(struct kv_store, num_buckets) == 8 &&
    offsetof(struct kv_store, lock) == 16,
    "struct kv_store is laid out otherwise in liblogship: delete the kv_store.h of your own, or end #pragma pack");

/* Half of those who write the lesson's header give kv_store_init a second argument, the number of buckets: both
 * kv_store_init(&store) and kv_store_init(&store, 1024) compile. Where a struct of function pointers has a kv_store_init
 * with two arguments, #define LOGSHIP_NO_MACROS before the first include: docs/linking.md. */
#if defined(LOGSHIP_NO_MACROS)
#elif !defined(__cplusplus)
#define LOGSHIP_KV_INIT_PICK(_1, _2, name, ...) name
#define kv_store_init(...) LOGSHIP_KV_INIT_PICK(__VA_ARGS__, kv_store_init_sized, kv_store_init, 0)(__VA_ARGS__)
#else
extern "C++" inline int kv_store_init(struct kv_store *store, int num_buckets)
{
    return kv_store_init_sized(store, num_buckets);
}
#endif

#endif /* LOGSHIP_W09_KV_STORE_H */
