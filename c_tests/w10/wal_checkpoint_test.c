/*
 * W10 L05: a checkpoint of the store lets recovery start in the middle of the log and still arrive at the same store.
 *
 * The checkpoint is taken of the store as it was after record 7 of 10, then 3 more records follow: the tail that recovery
 * has to replay is records 8 to 13, six of them.
 */
#define _GNU_SOURCE
#include "wal_test_util.h"
#include "w10/wal_checkpoint.h"
#include "w10/wal_recovery.h"

#define WAL_PATH "checkpoint.wal"
#define CHECKPOINT_PATH "checkpoint.ckpt"

enum { AT_CHECKPOINT = 7, FIRST_BATCH = 10, ALL = 13 };

/* The tail overwrites, deletes and brings back keys of the checkpoint: a replay of the wrong part ends differently. */
static void make_records(struct wal_record records[ALL])
{
    int n = 0;

    records[n++] = set_record("k1", "one", 0);
    records[n++] = set_record("k2", "two", 0);
    records[n++] = set_record("k3", "three", 0);
    records[n++] = del_record("k2", 0);
    records[n++] = set_record("k4", "four", 0);
    records[n++] = set_record("k5", "five", 0);
    records[n++] = set_record("k1", "uno", 0);
    records[n++] = set_record("k6", "six", 0);
    records[n++] = del_record("k3", 0);
    records[n++] = set_record("k4", "vier", 0);
    records[n++] = set_record("k7", "seven", 0);
    records[n++] = set_record("k2", "again", 0);
    records[n++] = del_record("k5", 0);
    CHECK_EQ(n, ALL);
}

/* The first ten records; the checkpoint is what the store and the log's end were after the seventh. */
static void write_and_checkpoint(struct wal_writer *wal, const struct wal_record *records)
{
    struct kv_store store;
    uint64_t offset;

    CHECK_EQ(kv_store_init(&store), 0);
    for (int i = 0; i < AT_CHECKPOINT; i++)
        log_and_apply(wal, &store, &records[i]);
    offset = wal->offset;
    for (int i = AT_CHECKPOINT; i < FIRST_BATCH; i++)
        append_record(wal, &records[i]);
    printf("wrote %d WAL records\n", FIRST_BATCH);
    CHECK_EQ(wal_checkpoint_write(&store, CHECKPOINT_PATH, offset), 0);
    printf("checkpoint at offset %llu with %d keys\n", (unsigned long long)offset, count_keys(&store));
    CHECK_EQ(count_keys(&store), 4);
    kv_store_destroy(&store);
}

static int load_checkpoint(uint64_t *offset)
{
    struct kv_store store;
    int keys;

    CHECK_EQ(kv_store_init(&store), 0);
    CHECK_EQ(wal_checkpoint_load(CHECKPOINT_PATH, &store, offset), 0);
    keys = count_keys(&store);
    CHECK_EQ(keys, 4);
    CHECK_STR(kv_store_get(&store, "k1"), "uno");
    CHECK_STR(kv_store_get(&store, "k3"), "three");
    CHECK(kv_store_get(&store, "k2") == NULL);
    kv_store_destroy(&store);
    return keys;
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

static void check_against_full_replay(const struct kv_store *store)
{
    struct kv_store replayed;

    CHECK_EQ(kv_store_init(&replayed), 0);
    CHECK_EQ(wal_recover(WAL_PATH, &replayed), ALL);
    check_same_stores(store, &replayed);
    kv_store_destroy(&replayed);
}

static void recover_and_print(void)
{
    struct kv_store store;
    uint64_t offset;
    int keys = load_checkpoint(&offset), replayed;

    CHECK_EQ(kv_store_init(&store), 0);
    replayed = wal_recover_with_checkpoint(WAL_PATH, CHECKPOINT_PATH, &store);
    CHECK_EQ(replayed, ALL - AT_CHECKPOINT);
    printf("recovery: loaded checkpoint (%d keys), replayed %d WAL records\n", keys, replayed);
    get_and_print(&store, "k1", "uno");
    get_and_print(&store, "k2", "again");
    get_and_print(&store, "k3", NULL);
    get_and_print(&store, "k4", "vier");
    get_and_print(&store, "k5", NULL);
    get_and_print(&store, "k6", "six");
    get_and_print(&store, "k7", "seven");
    CHECK_EQ(count_keys(&store), 5);
    printf("store has %d keys — correct\n", count_keys(&store));
    check_against_full_replay(&store);
    kv_store_destroy(&store);
}

/* Before the first checkpoint there is only the log: recovery reads all of it. */
static void check_without_checkpoint(void)
{
    struct kv_store store;

    CHECK_EQ(kv_store_init(&store), 0);
    CHECK_EQ(wal_recover_with_checkpoint(WAL_PATH, "missing.ckpt", &store), ALL);
    check_against_full_replay(&store);
    kv_store_destroy(&store);
}

static void test_checkpoint(void)
{
    struct wal_record records[ALL];
    struct wal_writer wal;

    make_records(records);
    CHECK_EQ(wal_open(&wal, WAL_PATH), 0);
    write_and_checkpoint(&wal, records);
    for (int i = FIRST_BATCH; i < ALL; i++)
        append_record(&wal, &records[i]);
    CHECK_EQ(wal_close(&wal), 0);
    printf("wrote %d more WAL records\n", ALL - FIRST_BATCH);
    recover_and_print();
    check_without_checkpoint();
}

int main(void)
{
    return run_test(test_checkpoint);
}
