/* What the W10 files share with each other and with W11 and the course's headers do not name. Every name starts with plain_,
 * so that these files compile beside any header set. */
#ifndef PLAIN_WAL_H
#define PLAIN_WAL_H

#include <stddef.h>
#include <stdint.h>

#include "w09/kv_store.h"
#include "w10/wal_record.h"

enum plain_read {
    PLAIN_END = 0,      /* clean end of file */
    PLAIN_RECORD = 1,   /* the bytes of one record, its CRC not looked at */
    PLAIN_ERROR = -1,   /* read(2) failed, errno says why */
    PLAIN_DAMAGED = -2, /* a length that no record can have */
    PLAIN_CUT = -3      /* the file ends inside this record */
};

/* Reads the next record's bytes into buffer (WAL_RECORD_MAX of them) and their number into *len. In wal_writer.c. */
enum plain_read plain_read_record(int fd, uint8_t *buffer, size_t *len);

/* Is it a whole and undamaged record? Fills *record, for wal_record_free. */
static inline int plain_decodes(const uint8_t *bytes, size_t len, struct wal_record *record)
{
    return wal_record_decode(bytes, len, record) == (PLAIN_DECODE ? (int)len : 0);
}

/* wal_open with two arguments, whatever form the tree gives it. In wal_writer.c. */
struct wal_writer;
int plain_open(struct wal_writer *writer, const char *path);

/* Makes a file's name durable: a new or renamed file can be lost with its directory's old contents. In wal_writer.c. */
int plain_sync_directory(const char *path);

/* wal_recover from a byte offset on. In wal_recovery.c. */
int plain_replay_from(const char *path, uint64_t offset, struct kv_store *store);

#endif
