/* Of a correct tree in another hand than plain_c. Checkpoints by stdio, written in their place. */
#pragma once
#include "kv_store.h"
int wal_checkpoint_write(struct kv_store *store, const char *path, uint64_t wal_offset);
int wal_checkpoint_load(const char *path, struct kv_store *store, uint64_t * wal_offset);
int wal_recover_with_checkpoint(const char *wal_path, const char *ckpt_path, struct kv_store *store);
