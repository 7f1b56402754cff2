/* Of a correct tree in another hand than plain_c. Recovery by stdio. */
#pragma once
#include "kv_store.h"
int wal_recover(const char *path, struct kv_store *store);
long wal_replay_from(const char *path, uint64_t offset, struct kv_store *store);
