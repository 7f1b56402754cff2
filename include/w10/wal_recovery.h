#ifndef LOGSHIP_W10_WAL_RECOVERY_H
#define LOGSHIP_W10_WAL_RECOVERY_H


/* Generated from src/capi by `make headers`: change it there. */

#include <stddef.h>

#include "kv_store.h"

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
LOGSHIP_LAYOUT(wal_recovery_kv_store, sizeof(struct kv_store) == 72 &&
    offsetof(struct kv_store, buckets) == 0 &&
    offsetof(struct kv_store, num_buckets) == 8 &&
    offsetof(struct kv_store, lock) == 16,
    "struct kv_store is laid out otherwise in liblogship: delete the kv_store.h of your own, or end #pragma pack");


#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Replays the log at `path` into `store`, which must be initialised, by the conflict rule; records without time stamp
 * apply in log order. Stops at the first record that is damaged or cut, never skips one, and warns with its offset.
 * Returns how many records were replayed (at most INT_MAX); -1 with `errno` ENOENT if there is no file, EINVAL for
 * NULL, ENOMEM, or read(2)'s. An empty file is 0. Takes the store's `lock` for writing around each batch of records;
 * memory beside the store stays under 2 MiB.
 */
int wal_recover(const char *path,
                struct kv_store *store);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif /* LOGSHIP_W10_WAL_RECOVERY_H */
