/*
 * W10 L02: records are appended to the log one behind the other, and the file is exactly as long as they are.
 */
#define _GNU_SOURCE
#include "wal_test_util.h"

#define WAL_PATH "writer.wal"

static void append_and_print(struct wal_writer *wal, const struct wal_record *record)
{
    uint8_t encoded[RECORD_ROOM], in_file[RECORD_ROOM];
    size_t len = encode_record(record, encoded);
    uint64_t start = wal->offset;
    uint64_t written = append_record(wal, record);
    int fd = open(WAL_PATH, O_RDONLY | O_CLOEXEC);

    /* The bytes stand in the file as soon as the append has returned, at the offset where the last one ended. */
    CHECK_EQ(written, len);
    CHECK_EQ(file_size(WAL_PATH), wal->offset);
    CHECK(fd >= 0);
    CHECK(pread(fd, in_file, len, (off_t)start) == (ssize_t)len);
    CHECK(memcmp(in_file, encoded, len) == 0);
    CHECK(close(fd) == 0);
    if (record->op == WAL_OP_SET)
        printf("append SET %s=%s → %llu bytes\n", record->key, record->value, (unsigned long long)written);
    else
        printf("append DEL %s → %llu bytes\n", record->key, (unsigned long long)written);
}

static void append_all(struct wal_writer *wal)
{
    struct wal_record records[] = { set_record("foo", "bar", 1), set_record("name", "alice", 2),
                                    set_record("count", "42", 3), del_record("name", 4) };

    for (size_t i = 0; i < sizeof records / sizeof records[0]; i++)
        append_and_print(wal, &records[i]);
}

/* Opening a log again must keep what it holds and go on behind it. */
static void check_reopen(uint64_t total)
{
    struct wal_record record = set_record("later", "1", 5);
    struct wal_writer wal;

    CHECK_EQ(wal_open(&wal, WAL_PATH), 0);
    CHECK_EQ(wal.offset, total);
    append_record(&wal, &record);
    CHECK_EQ(file_size(WAL_PATH), wal.offset);
    CHECK_EQ(wal_close(&wal), 0);
}

static void test_writer(void)
{
    struct wal_writer wal;
    uint64_t total;

    CHECK_EQ(wal_open(&wal, WAL_PATH), 0);
    CHECK_EQ(wal.offset, 0);
    printf("wal_open: ok\n");
    append_all(&wal);
    total = wal.offset;
    CHECK_EQ(wal_close(&wal), 0);
    CHECK_EQ(wal.fd, -1);
    printf("wal_close: ok\n");
    CHECK_EQ(file_size(WAL_PATH), total);
    printf("total offset: %llu\n", (unsigned long long)total);
    check_reopen(total);
}

int main(void)
{
    return run_test(test_writer);
}
