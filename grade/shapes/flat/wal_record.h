/* Of a correct tree in another hand than plain_c.
 * The codec: the timestamp stands behind op, length counts the whole record, decode points into the buffer. */
#pragma once
#include <stdint.h>
#include <stddef.h>
typedef enum wal_op { WAL_OP_SET, WAL_OP_DEL } wal_op;
#define CRC_MISMATCH (-100)
struct wal_record {
    enum wal_op op;
    const char *key;
    uint16_t key_len;
    const char *value;
    uint16_t value_len;
    uint64_t timestamp;
    uint32_t crc;
};
int wal_record_encode(const struct wal_record *r, uint8_t *buf, size_t n);
/*key and value point into buf; returns the number of bytes */
int wal_record_decode(const uint8_t *buf, size_t len, struct wal_record *r);
