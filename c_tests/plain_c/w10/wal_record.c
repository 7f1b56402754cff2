/* The record codec. It touches memory only. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "w10/wal_record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "w10/crc32.h"

enum {
    CRC_BYTES = 4,
    HEADER_BYTES = 8,                       /* crc and length */
    TIMESTAMP_BYTES = 8,
    FIXED_BYTES = 1 + 2 + 2,                /* op, key_len, value_len */
    MIN_BYTES = HEADER_BYTES + FIXED_BYTES + 1 /* a key of one byte, no value, no timestamp */
};

static uint8_t *put_le(uint8_t *out, uint64_t number, int bytes)
{
    for (int i = 0; i < bytes; i++)
        *out++ = (uint8_t)(number >> (8 * i));
    return out;
}

static uint64_t get_le(const uint8_t *in, int bytes)
{
    uint64_t number = 0;

    for (int i = 0; i < bytes; i++)
        number |= (uint64_t)in[i] << (8 * i);
    return number;
}

static uint8_t *put_bytes(uint8_t *out, const char *bytes, size_t len)
{
    if (len > 0)
        memcpy(out, bytes, len);
    return out + len;
}

static int encodable(const struct wal_record *record)
{
    if (record == NULL || record->key == NULL || record->key_len == 0)
        return 0;
    if (record->op == WAL_OP_SET)
        return record->value != NULL || record->value_len == 0;
    return record->op == WAL_OP_DEL;
}

int wal_record_encode(const struct wal_record *record, uint8_t *buffer, size_t buf_size)
{
    size_t value_len, total;
    uint8_t *out;

    if (!encodable(record) || buffer == NULL) {
        errno = EINVAL;
        return -1;
    }
    /* A DEL has no value, whatever the caller left in the struct. */
    value_len = record->op == WAL_OP_SET ? record->value_len : 0;
    total = HEADER_BYTES + FIXED_BYTES + record->key_len + value_len + TIMESTAMP_BYTES;
    if (buf_size < total) {
        errno = ENOBUFS;
        return -1;
    }
    out = put_le(buffer + CRC_BYTES, total - HEADER_BYTES, 4);
    if (PLAIN_STAMP == 2)
        out = put_le(out, record->timestamp, TIMESTAMP_BYTES);
    *out++ = (uint8_t)record->op;
    if (PLAIN_STAMP == 1)
        out = put_le(out, record->timestamp, TIMESTAMP_BYTES);
    out = put_le(out, record->key_len, 2);
    out = put_bytes(out, record->key, record->key_len);
    out = put_le(out, value_len, 2);
    out = put_bytes(out, record->value, value_len);
    if (PLAIN_STAMP == 0)
        put_le(out, record->timestamp, TIMESTAMP_BYTES);
    /* Last, and over everything but its own bytes: the length is as worth protecting as the value. */
    put_le(buffer, crc32(buffer + CRC_BYTES, total - CRC_BYTES), CRC_BYTES);
    return (int)total;
}

static char *copy_string(const uint8_t *bytes, size_t len)
{
    char *copy = malloc(len + 1);

    if (copy == NULL)
        return NULL;
    if (len > 0)
        memcpy(copy, bytes, len);
    copy[len] = '\0';
    return copy;
}

/* Where the fields stand in an encoded record; filled and checked before anything is allocated. */
struct layout {
    size_t op_at, key_at, key_len, value_at, value_len, timestamp_at;
    int has_timestamp;
};

static int find_fields(const uint8_t *buffer, size_t len, struct layout *at)
{
    size_t end;

    at->op_at = HEADER_BYTES + (PLAIN_STAMP == 2 ? TIMESTAMP_BYTES : 0);
    at->key_at = at->op_at + 1 + (PLAIN_STAMP == 1 ? TIMESTAMP_BYTES : 0) + 2;
    if (at->key_at > len)
        return -1;
    at->key_len = (size_t)get_le(buffer + at->key_at - 2, 2);
    if (at->key_len == 0 || at->key_at + at->key_len + 2 > len)
        return -1;
    at->value_at = at->key_at + at->key_len + 2;
    at->value_len = (size_t)get_le(buffer + at->value_at - 2, 2);
    end = at->value_at + at->value_len;
    /* A log from W10 ends here; since W11 eight bytes of timestamp follow. Nothing else fits. */
    if (end != len && (PLAIN_STAMP != 0 || end + TIMESTAMP_BYTES != len))
        return -1;
    at->has_timestamp = end != len || PLAIN_STAMP != 0;
    at->timestamp_at = PLAIN_STAMP == 0 ? end : PLAIN_STAMP == 1 ? at->op_at + 1 : HEADER_BYTES;
    if (buffer[at->op_at] == WAL_OP_DEL)
        return at->value_len == 0 ? 0 : -1;
    return buffer[at->op_at] == WAL_OP_SET ? 0 : -1;
}

static int bad_message(int result)
{
    errno = EBADMSG;
    return result;
}

int wal_record_decode(const uint8_t *buffer, size_t len, struct wal_record *record)
{
    struct layout at;

    if (record != NULL)
        memset(record, 0, sizeof *record);
    if (buffer == NULL || record == NULL) {
        errno = EINVAL;
        return -1;
    }
    if (len < MIN_BYTES)
        return bad_message(-1);
    if (get_le(buffer + CRC_BYTES, 4) != len - HEADER_BYTES)
        return bad_message(CRC_MISMATCH);
    if (get_le(buffer, CRC_BYTES) != crc32(buffer + CRC_BYTES, len - CRC_BYTES))
        return bad_message(CRC_MISMATCH);
    if (find_fields(buffer, len, &at) != 0)
        return bad_message(-1);

    record->op = buffer[at.op_at];
    record->key = copy_string(buffer + at.key_at, at.key_len);
    if (record->op == WAL_OP_SET) /* A DEL has no value. */
        record->value = copy_string(buffer + at.value_at, at.value_len);
    if (record->key == NULL || (record->value == NULL && record->op == WAL_OP_SET)) {
        wal_record_free(record);
        errno = ENOMEM;
        return -1;
    }
    record->key_len = (uint16_t)at.key_len;
    record->value_len = (uint16_t)at.value_len;
    record->crc = (uint32_t)get_le(buffer, CRC_BYTES);
    record->timestamp = at.has_timestamp ? get_le(buffer + at.timestamp_at, TIMESTAMP_BYTES) : 0;
    return PLAIN_DECODE ? (int)len : 0;
}

void wal_record_free(struct wal_record *record)
{
    if (record == NULL)
        return;
    free(record->key);
    free(record->value);
    record->key = NULL;
    record->value = NULL;
    record->key_len = 0;
    record->value_len = 0;
}
