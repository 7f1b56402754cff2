/* Of a correct tree in another hand than plain_c. The log: the writer counts LSNs and allocates its path. */
#pragma once
#include "wal_record.h"
#include <pthread.h>
struct wal_writer {
    uint64_t offset;
    uint64_t lsn;
    int fd;
    char *wal_path;
    pthread_mutex_t *lock;
};
int wal_open(struct wal_writer *w, const char *path);
int wal_append(struct wal_writer *w, const struct wal_record *r);
void wal_close(struct wal_writer *w);
