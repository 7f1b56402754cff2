/*
 * W10 L03: a process writes its log and is gone; the next one builds the same store from the log alone.
 */
#define _GNU_SOURCE
#include "wal_test_util.h"
#include "w10/wal_recovery.h"

#define WAL_PATH "recovery.wal"

static void write_phase(void)
{
    struct wal_record records[] = { set_record("foo", "bar", 0), set_record("name", "alice", 0),
                                    set_record("count", "42", 0), del_record("name", 0), set_record("count", "99", 0) };
    struct wal_writer wal;
    int written = 0;

    CHECK_EQ(wal_open(&wal, WAL_PATH), 0);
    for (size_t i = 0; i < sizeof records / sizeof records[0]; i++) {
        append_record(&wal, &records[i]);
        written++;
    }
    CHECK_EQ(wal_close(&wal), 0);
    printf("write phase: %d records written\n", written);
}

static void get_and_print(const struct kv_store *store, const char *key, const char *expected)
{
    const char *value = kv_store_get(store, key);

    printf("GET %s → %s\n", key, value == NULL ? "(nil)" : value);
    if (expected == NULL)
        CHECK(value == NULL);
    else
        CHECK_STR(value, expected);
}

static void recovery_phase(void)
{
    struct kv_store store;
    int replayed;

    CHECK_EQ(kv_store_init(&store), 0);
    replayed = wal_recover(WAL_PATH, &store);
    CHECK_EQ(replayed, 5);
    printf("recovery: replayed %d records\n", replayed);
    get_and_print(&store, "foo", "bar");
    get_and_print(&store, "name", NULL);
    get_and_print(&store, "count", "99");
    CHECK_EQ(count_keys(&store), 2);
    printf("store has %d keys — correct\n", count_keys(&store));
    kv_store_destroy(&store);
}

/* An empty log is an empty store and no error; a log that is not there is an error, so that nobody takes it for empty. */
static void check_empty_and_missing(void)
{
    struct kv_store store;
    struct wal_writer wal;

    CHECK_EQ(kv_store_init(&store), 0);
    CHECK_EQ(wal_open(&wal, "empty.wal"), 0);
    CHECK_EQ(wal_close(&wal), 0);
    CHECK_EQ(wal_recover("empty.wal", &store), 0);
    CHECK_EQ(wal_recover("missing.wal", &store), -1);
    CHECK_EQ(count_keys(&store), 0);
    kv_store_destroy(&store);
}

static void test_recovery(void)
{
    write_phase();
    recovery_phase();
    check_empty_and_missing();
}

int main(void)
{
    return run_test(test_recovery);
}
