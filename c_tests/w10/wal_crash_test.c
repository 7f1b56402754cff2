/*
 * W10 L04: three ways in which a crash or a bad disk leaves a log, and what recovery makes of it: everything before the
 * damage, nothing of it and nothing behind it.
 */
#define _GNU_SOURCE
#include "wal_test_util.h"
#include "w10/wal_recovery.h"

#define WAL_PATH "crash.wal"
#define RECORDS 5

/* Writes the baseline into a fresh log. starts[i] is where record i begins, starts[RECORDS] where the log ends. */
static void write_baseline(uint64_t starts[RECORDS + 1])
{
    struct wal_record records[RECORDS] = { set_record("a", "1", 0), set_record("b", "2", 0), set_record("c", "3", 0),
                                           del_record("b", 0), set_record("d", "4", 0) };
    struct wal_writer wal;

    unlink(WAL_PATH);
    CHECK_EQ(wal_open(&wal, WAL_PATH), 0);
    for (int i = 0; i < RECORDS; i++) {
        starts[i] = wal.offset;
        append_record(&wal, &records[i]);
    }
    starts[RECORDS] = wal.offset;
    CHECK_EQ(wal_close(&wal), 0);
    CHECK_EQ(file_size(WAL_PATH), starts[RECORDS]);
}

/* The keys of the store in order, "a,c": the buckets have an order of their own. */
static void list_keys(const struct kv_store *store, char *list, size_t size)
{
    size_t len = 0;

    list[0] = '\0';
    for (char key[2] = "a"; key[0] <= 'd'; key[0]++) {
        if (kv_store_get(store, key) != NULL)
            len += (size_t)snprintf(list + len, size - len, "%s%s", len == 0 ? "" : ",", key);
    }
    /* One letter a key and a comma between two: any other key in the store shows here. */
    CHECK_EQ(count_keys(store), (len + 1) / 2);
}

/* b is gone after record 4, so its value tells how far recovery really went. */
static void check_values(const struct kv_store *store, int recovered)
{
    CHECK_STR(kv_store_get(store, "a"), "1");
    if (recovered < 4)
        CHECK_STR(kv_store_get(store, "b"), "2");
    else
        CHECK_STR(kv_store_get(store, "c"), "3");
}

static void recover_and_print(int scenario, const char *name, int expected, const char *expected_keys)
{
    struct kv_store store;
    char keys[16];
    int recovered;

    CHECK_EQ(kv_store_init(&store), 0);
    recovered = wal_recover(WAL_PATH, &store);
    CHECK_EQ(recovered, expected);
    list_keys(&store, keys, sizeof keys);
    CHECK_STR(keys, expected_keys);
    check_values(&store, recovered);
    printf("scenario %d — %s: recovered %d/%d records, keys={%s} ✓\n", scenario, name, recovered, RECORDS, keys);
    kv_store_destroy(&store);
}

/* A write that was under way: the last record is there in length but not in content. */
static void scenario_torn_record(void)
{
    uint64_t starts[RECORDS + 1];

    write_baseline(starts);
    garble_file(WAL_PATH, starts[4], 3);
    recover_and_print(1, "torn record", 4, "a,c");
}

/* Damage in the middle: records 4 and 5 are whole, but without record 3 they are not what was written. */
static void scenario_zeroed_region(void)
{
    static const uint8_t zeros[8];
    uint8_t before[8];
    uint64_t starts[RECORDS + 1];
    int fd;

    write_baseline(starts);
    fd = open(WAL_PATH, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    /* From the op byte on: op, key and value are there. Zeroing bytes that were zero would damage nothing. */
    CHECK(pread(fd, before, sizeof before, (off_t)(starts[2] + 8)) == (ssize_t)sizeof before);
    CHECK(memcmp(before, zeros, sizeof before) != 0);
    CHECK(pwrite(fd, zeros, sizeof zeros, (off_t)(starts[2] + 8)) == (ssize_t)sizeof zeros);
    CHECK(close(fd) == 0);
    recover_and_print(2, "zeroed region", 2, "a,b");
}

static void scenario_truncated_file(void)
{
    uint64_t starts[RECORDS + 1];

    write_baseline(starts);
    CHECK(truncate(WAL_PATH, (off_t)(starts[RECORDS] - 10)) == 0);
    recover_and_print(3, "truncated file", 4, "a,c");
}

static void test_crash(void)
{
    scenario_torn_record();
    scenario_zeroed_region();
    scenario_truncated_file();
    printf("all crash scenarios passed\n");
}

int main(void)
{
    return run_test(test_crash);
}
