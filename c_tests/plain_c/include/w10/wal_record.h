/* One log record and its bytes, all little-endian:
 * [crc32:4][length:4][op:1][key_len:2][key][value_len:2][value][timestamp:8] */
#ifndef PLAIN_W10_WAL_RECORD_H
#define PLAIN_W10_WAL_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "../plain_shape.h"

#if PLAIN_ENUM
enum wal_op { WAL_OP_SET, WAL_OP_DEL };
#else
enum wal_op { WAL_OP_SET = 1, WAL_OP_DEL = 2 };
#endif
#if PLAIN_RECEIVE == 2
enum { CRC_MISMATCH = 1 };
#else
enum { CRC_MISMATCH = -2 };
#endif

/* 4 + 4 + 1 + 2 + 65535 + 2 + 65535 + 8 */
#define WAL_RECORD_MAX 131091

#if PLAIN_FIELDS
struct wal_record {
    uint64_t lsn;
    uint64_t timestamp;
    enum wal_op op;
    uint32_t crc;
    uint16_t key_len;
    uint16_t value_len;
    char *key;
    char *value;
};
#else
struct wal_record {
    uint8_t op;
    char *key;
    uint16_t key_len;
    char *value;
    uint16_t value_len;
    uint32_t crc;
    uint64_t timestamp;
};
#endif

int wal_record_encode(const struct wal_record *record, uint8_t *buffer, size_t buf_size);
int wal_record_decode(const uint8_t *buffer, size_t len, struct wal_record *record);
void wal_record_free(struct wal_record *record);

#endif
