#ifndef LOGSHIP_W10_WAL_RECORD_H
#define LOGSHIP_W10_WAL_RECORD_H


/* Generated from src/capi by `make headers`: change it there. */

#include <stddef.h>
#include <stdint.h>

/* What decode and receive return for a damaged record. */
enum { CRC_MISMATCH = -2 };

/* Bytes of the largest encoded record. */
#define WAL_RECORD_MAX 131091


/**
 * What a record does. Zeroed bytes are never a record.
 */
enum wal_op {
    /**
     * Set a key to a value.
     */
    WAL_OP_SET = 1,
    /**
     * Delete a key.
     */
    WAL_OP_DEL = 2,
};

/**
 * One write. After `wal_record_decode` its strings end with a NUL behind their lengths and belong to the caller, who
 * frees them with `free` or `wal_record_free`.
 */
struct wal_record {
    /**
     * A `wal_op`.
     */
    uint8_t op;
    /**
     * The key, `key_len` bytes.
     */
    char *key;
    /**
     * Bytes in the key, 1 to 65535.
     */
    uint16_t key_len;
    /**
     * The value, `value_len` bytes; NULL for a decoded DEL.
     */
    char *value;
    /**
     * Bytes in the value; 0 for a DEL.
     */
    uint16_t value_len;
    /**
     * The checksum found by decode; encode does not look at it.
     */
    uint32_t crc;
    /**
     * When it was written, in nanoseconds; 0 for none.
     */
    uint64_t timestamp;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Writes the encoded record to `buffer`: `[crc32:4][length:4][op:1][key_len:2][key][value_len:2][value][timestamp:8]`,
 * little-endian; `length` counts the bytes after itself, the CRC covers everything after its own 4 bytes. A DEL is
 * written without a value. Returns the number of bytes, or -1 with `errno` ENOBUFS if `buf_size` is too small, EINVAL
 * for NULL, an unknown op or an empty key. `WAL_RECORD_MAX` bytes are always enough. Safe in any thread.
 */
int wal_record_encode(const struct wal_record *record,
                      uint8_t *buffer,
                      size_t buf_size);

/**
 * Reads `len` bytes of one encoded record into `*record`. `key` and `value` are allocated with malloc(3) and end with
 * a NUL; a DEL's value is NULL. Returns 0; `CRC_MISMATCH` (-2, `errno` EBADMSG) if the length field is not `len` - 8
 * or the CRC does not match; -1 with `errno` EBADMSG if `len` is below the smallest record or a right CRC stands over
 * fields that make none, EINVAL for NULL, ENOMEM. On failure `*record` is zeroed. A record without the last 8 bytes (a
 * W10 log) has timestamp 0. Safe in any thread.
 */
int wal_record_decode(const uint8_t *buffer,
                      size_t len,
                      struct wal_record *record);

/**
 * Frees `key` and `value` of a decoded record and zeroes the struct. NULL and a zeroed record are fine.
 */
void wal_record_free(struct wal_record *record);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

/* The layout that the library was built with. A #pragma pack that is still open, or another header with a struct of
 * the same name, does not compile: docs/linking.md. */
#ifndef LOGSHIP_LAYOUT
#if defined(__cplusplus) && __cplusplus >= 201103L
#define LOGSHIP_LAYOUT(name, holds, otherwise) static_assert(holds, otherwise)
#elif !defined(__cplusplus) && defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define LOGSHIP_LAYOUT(name, holds, otherwise) _Static_assert(holds, otherwise)
#else
#define LOGSHIP_LAYOUT(name, holds, otherwise) typedef char logship_layout_##name[(holds) ? 1 : -1]
#endif
#endif
LOGSHIP_LAYOUT(wal_record_wal_record, sizeof(struct wal_record) == 48 &&
    offsetof(struct wal_record, op) == 0 &&
    offsetof(struct wal_record, key) == 8 &&
    offsetof(struct wal_record, key_len) == 16 &&
    offsetof(struct wal_record, value) == 24 &&
    offsetof(struct wal_record, value_len) == 32 &&
    offsetof(struct wal_record, crc) == 36 &&
    offsetof(struct wal_record, timestamp) == 40,
    "struct wal_record is laid out otherwise in liblogship: delete the wal_record.h of your own, or end #pragma pack");

#endif /* LOGSHIP_W10_WAL_RECORD_H */
