#ifndef LOGSHIP_W10_WAL_CHECKPOINT_H
#define LOGSHIP_W10_WAL_CHECKPOINT_H


/* Generated from src/capi by `make headers`: change it there. */

#include <stddef.h>
#include <stdint.h>

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
LOGSHIP_LAYOUT(wal_checkpoint_kv_store, sizeof(struct kv_store) == 72 &&
    offsetof(struct kv_store, buckets) == 0 &&
    offsetof(struct kv_store, num_buckets) == 8 &&
    offsetof(struct kv_store, lock) == 16,
    "struct kv_store is laid out otherwise in liblogship: delete the kv_store.h of your own, or end #pragma pack");


#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Writes the store to `checkpoint_path`, to stand for the log's first `wal_offset` bytes: under a temporary name,
 * fsynced, renamed, directory fsynced. The file has the lesson's bytes; what is ours (LSN, history, time stamps,
 * tombstones, a CRC) goes to `<checkpoint_path>.stamps-*` beside it, which belongs to it by its content. Returns 0, or
 * -1 with `errno` EMSGSIZE if a key or value is over 65,535 bytes, EINVAL for NULL, or what the file system says;
 * whatever was at the path stays then. Takes the store's `lock` for reading. A checkpoint never covers a record that
 * its store was not given: of a store that recovery, load or receive have filled a smaller offset is written if it has
 * less than `wal_offset` says. What a program has set by itself is taken at its word. EINVAL too if the log was
 * compacted and it can't be told which of its records the store has.
 */
int wal_checkpoint_write(const struct kv_store *store,
                         const char *checkpoint_path,
                         uint64_t wal_offset);

/**
 * Another name for `wal_checkpoint_write`.
 */
int wal_checkpoint(const struct kv_store *store, const char *checkpoint_path, uint64_t wal_offset);

/**
 * Loads a checkpoint into `store`, which must be initialised, by the conflict rule, and writes the offset up to which
 * it stands for the log to `*wal_offset_out`. A file with nothing of ours beside it (a lesson's) loads too. Returns 0,
 * or -1 with
 * `errno` EBADMSG if the file is damaged (the store is unchanged), ENOENT, EINVAL for NULL, ENOMEM. Takes the store's
 * `lock` for writing around each change.
 */
int wal_checkpoint_load(const char *checkpoint_path,
                        struct kv_store *store,
                        uint64_t *wal_offset_out);

/**
 * Loads the checkpoint and replays the log behind it. A checkpoint that is missing, damaged, or of another log or
 * another past of this one is passed over, with a log line, and the whole log replayed. Returns how many records of
 * the log were replayed; -1 with `errno` ENOENT if there is no log; EBADMSG if it ends before the checkpoint does, or
 * was compacted and no checkpoint stands for what it has lost, and nothing is changed then; else as `wal_recover`.
 */
int wal_recover_with_checkpoint(const char *wal_path,
                                const char *checkpoint_path,
                                struct kv_store *store);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif /* LOGSHIP_W10_WAL_CHECKPOINT_H */
