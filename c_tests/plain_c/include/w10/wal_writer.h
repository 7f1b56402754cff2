/* The append side of the write-ahead log. */
#ifndef PLAIN_W10_WAL_WRITER_H
#define PLAIN_W10_WAL_WRITER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wal_record.h"

struct wal_writer {
#if PLAIN_FIELDS
    char wal_path[200];
    unsigned long count;
#endif
    int fd;
    uint64_t offset;
};

#if PLAIN_OPEN
struct wal_writer *wal_open(const char *path);
#else
int wal_open(struct wal_writer *writer, const char *path);
#endif
int wal_append(struct wal_writer *writer, const struct wal_record *record);
int wal_close(struct wal_writer *writer);
int write_full(int fd, const void *buf, size_t len);
ssize_t read_full(int fd, void *buf, size_t len);

#endif
