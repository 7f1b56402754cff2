#ifndef LOGSHIP_W10_WAL_RECOVERY_H
#define LOGSHIP_W10_WAL_RECOVERY_H


/* Generated from src/capi by `make headers`: change it there. */

#include "kv_store.h"


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
