/*
 * What the programs of W10 and W11 share: making records, writing them to a log and a store, looking at stores and files.
 *
 * The including file defines _GNU_SOURCE before its first #include.
 */
#ifndef LESSON_WAL_TEST_UTIL_H
#define LESSON_WAL_TEST_UTIL_H

#include <fcntl.h>
#include <sys/stat.h>

#include "../test_util.h"
#include "w09/kv_store.h"
#include "w10/wal_record.h"
#include "w10/wal_writer.h"

/* Room for one encoded record: the keys and values of these tests are a few bytes long. */
#define RECORD_ROOM 256

/* The record borrows key and value: it must not be given to wal_record_free. */
static inline struct wal_record set_record(const char *key, const char *value, uint64_t timestamp)
{
    struct wal_record record;

    memset(&record, 0, sizeof record);
    record.op = WAL_OP_SET;
    record.key = (char *)key;
    record.key_len = (uint16_t)strlen(key);
    record.value = (char *)value;
    record.value_len = (uint16_t)strlen(value);
    record.timestamp = timestamp;
    return record;
}

static inline struct wal_record del_record(const char *key, uint64_t timestamp)
{
    struct wal_record record;

    memset(&record, 0, sizeof record);
    record.op = WAL_OP_DEL;
    record.key = (char *)key;
    record.key_len = (uint16_t)strlen(key);
    record.timestamp = timestamp;
    return record;
}

static inline size_t encode_record(const struct wal_record *record, uint8_t *buffer)
{
    int n = wal_record_encode(record, buffer, RECORD_ROOM);

    CHECK(n > 0 && n <= RECORD_ROOM);
    return (size_t)n;
}

/* Appends the record and returns how many bytes that took in the log. */
static inline uint64_t append_record(struct wal_writer *wal, const struct wal_record *record)
{
    uint64_t before = wal->offset;

    CHECK_EQ(wal_append(wal, record), 0);
    CHECK(wal->offset > before);
    return wal->offset - before;
}

static inline void apply_record(struct kv_store *store, const struct wal_record *record)
{
    if (record->op == WAL_OP_SET)
        CHECK_EQ(kv_store_set(store, record->key, record->value), 0);
    else
        CHECK(kv_store_del(store, record->key) >= 0);
}

/* The order that makes a log a write-ahead log: to disk first, to the store second. */
static inline void log_and_apply(struct wal_writer *wal, struct kv_store *store, const struct wal_record *record)
{
    append_record(wal, record);
    apply_record(store, record);
}

static inline int count_keys(const struct kv_store *store)
{
    int keys = 0;

    for (int i = 0; i < store->num_buckets; i++) {
        for (const struct kv_entry *entry = store->buckets[i]; entry != NULL; entry = entry->next)
            keys++;
    }
    return keys;
}

/* Key by key; returns how many keys are the same in both, which is all of them or the test has ended. */
static inline int check_same_stores(const struct kv_store *got, const struct kv_store *want)
{
    int same = 0;

    for (int i = 0; i < want->num_buckets; i++) {
        for (const struct kv_entry *entry = want->buckets[i]; entry != NULL; entry = entry->next) {
            CHECK_STR(kv_store_get(got, entry->key), entry->value);
            same++;
        }
    }
    CHECK_EQ(count_keys(got), same);
    return same;
}

static inline long long file_size(const char *path)
{
    struct stat info;

    CHECK(stat(path, &info) == 0);
    return (long long)info.st_size;
}

/* Inverts bytes of a file: unlike writing a fixed pattern, that always changes them. */
static inline void garble_file(const char *path, uint64_t offset, size_t len)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;

    CHECK(fd >= 0);
    for (size_t i = 0; i < len; i++) {
        CHECK(pread(fd, &byte, 1, (off_t)(offset + i)) == 1);
        byte = (uint8_t)~byte;
        CHECK(pwrite(fd, &byte, 1, (off_t)(offset + i)) == 1);
    }
    CHECK(close(fd) == 0);
}

#endif
