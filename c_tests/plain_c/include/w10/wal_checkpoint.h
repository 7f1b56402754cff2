/* Snapshots of the store, so that recovery need not replay the whole log. */
#ifndef PLAIN_W10_WAL_CHECKPOINT_H
#define PLAIN_W10_WAL_CHECKPOINT_H

#include <stdint.h>

#include "../w09/kv_store.h"

int wal_checkpoint_write(const struct kv_store *store, const char *checkpoint_path, uint64_t wal_offset);
int wal_checkpoint_load(const char *checkpoint_path, struct kv_store *store, uint64_t *wal_offset_out);
int wal_recover_with_checkpoint(const char *wal_path, const char *checkpoint_path, struct kv_store *store);

#endif
