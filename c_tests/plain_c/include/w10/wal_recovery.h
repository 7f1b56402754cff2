/* Replaying the log into a store. */
#ifndef PLAIN_W10_WAL_RECOVERY_H
#define PLAIN_W10_WAL_RECOVERY_H

#include "../w09/kv_store.h"
#include "wal_writer.h"

int wal_recover(const char *path, struct kv_store *store);

#endif
