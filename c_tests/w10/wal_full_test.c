/*
 * W10 L06: the whole log in six tests. Each runs in a process and a directory of its own; all of them run even if one
 * fails. test_harness.sh builds this program and runs it.
 */
#define _GNU_SOURCE
#include "wal_test_util.h"
#include "w10/wal_checkpoint.h"
#include "w10/wal_recovery.h"

#define WAL_PATH "full.wal"
#define CHECKPOINT_PATH "full.ckpt"

/* The keys and values that a record borrows. */
struct record_text {
    char key[32];
    char value[32];
};

/*
 * Record number i (from 0) of a workload that sets, overwrites and deletes: every fifth record deletes the key that the
 * one before it has set, every seventh writes to key-0 again.
 */
static struct wal_record workload_record(int i, struct record_text *text)
{
    snprintf(text->value, sizeof text->value, "value-%d", i);
    if (i % 5 == 4) {
        snprintf(text->key, sizeof text->key, "key-%d", i - 1);
        return del_record(text->key, (uint64_t)i + 1);
    }
    snprintf(text->key, sizeof text->key, "key-%d", i % 7 == 6 ? 0 : i);
    return set_record(text->key, text->value, (uint64_t)i + 1);
}

/* Writes records first to last-1 to the log and, if there is one, to the store. */
static void write_records(struct wal_writer *wal, struct kv_store *store, int first, int last)
{
    for (int i = first; i < last; i++) {
        struct record_text text;
        struct wal_record record = workload_record(i, &text);

        append_record(wal, &record);
        if (store != NULL)
            apply_record(store, &record);
    }
}

static void check_same_record(const struct wal_record *got, const struct wal_record *want)
{
    CHECK_EQ(got->op, want->op);
    CHECK_EQ(got->key_len, want->key_len);
    CHECK_STR(got->key, want->key);
    CHECK_EQ(got->value_len, want->value_len);
    if (want->op == WAL_OP_SET)
        CHECK_STR(got->value, want->value);
    CHECK_EQ(got->timestamp, want->timestamp);
}

static void test_codec(void)
{
    for (int i = 0; i < 10; i++) {
        struct record_text text;
        struct wal_record record = workload_record(i, &text), decoded;
        uint8_t buffer[RECORD_ROOM];
        size_t len = encode_record(&record, buffer);

        CHECK_EQ(wal_record_decode(buffer, len, &decoded), 0);
        check_same_record(&decoded, &record);
        wal_record_free(&decoded);
    }
}

/* A different bit in each of ten records, spread over all parts of it. */
static void test_corruption(void)
{
    for (int i = 0; i < 10; i++) {
        struct record_text text;
        struct wal_record record = workload_record(i, &text), decoded;
        uint8_t buffer[RECORD_ROOM];
        size_t len = encode_record(&record, buffer);
        size_t bit = (len * 8 - 1) * (size_t)i / 9;

        buffer[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK_EQ(wal_record_decode(buffer, len, &decoded), CRC_MISMATCH);
    }
}

static void test_append_discipline(void)
{
    struct wal_writer wal;
    long long expected = 0;

    CHECK_EQ(wal_open(&wal, WAL_PATH), 0);
    for (int i = 0; i < 20; i++) {
        struct record_text text;
        struct wal_record record = workload_record(i, &text);
        uint8_t buffer[RECORD_ROOM];

        /* Half-way the log is closed and opened again: what it holds must stay. */
        if (i == 10) {
            CHECK_EQ(wal_close(&wal), 0);
            CHECK_EQ(wal_open(&wal, WAL_PATH), 0);
        }
        expected += (long long)encode_record(&record, buffer);
        append_record(&wal, &record);
        CHECK_EQ(wal.offset, expected);
        CHECK_EQ(file_size(WAL_PATH), expected);
    }
    CHECK_EQ(wal_close(&wal), 0);
}

static void check_recovers_to(int expected_records, const struct kv_store *want)
{
    struct kv_store recovered;

    CHECK_EQ(kv_store_init(&recovered), 0);
    CHECK_EQ(wal_recover(WAL_PATH, &recovered), expected_records);
    check_same_stores(&recovered, want);
    kv_store_destroy(&recovered);
}

static void test_full_recovery(void)
{
    struct kv_store store;
    struct wal_writer wal;

    CHECK_EQ(kv_store_init(&store), 0);
    CHECK_EQ(wal_open(&wal, WAL_PATH), 0);
    write_records(&wal, &store, 0, 20);
    CHECK_EQ(wal_close(&wal), 0);
    check_recovers_to(20, &store);
    kv_store_destroy(&store);
}

/* Record 15 of 20 is damaged: the 14 before it survive, the five whole ones behind it are not replayed. */
static void test_crash_recovery(void)
{
    struct kv_store first_14;
    struct wal_writer wal;
    uint64_t damage;

    CHECK_EQ(kv_store_init(&first_14), 0);
    CHECK_EQ(wal_open(&wal, WAL_PATH), 0);
    write_records(&wal, &first_14, 0, 14);
    damage = wal.offset;
    write_records(&wal, NULL, 14, 20);
    CHECK_EQ(wal_close(&wal), 0);
    garble_file(WAL_PATH, damage + 12, 1);
    check_recovers_to(14, &first_14);
    kv_store_destroy(&first_14);
}

/* 20 records with a checkpoint after the tenth: recovery replays the other ten and ends where a full replay ends. */
static void test_checkpoint(void)
{
    struct kv_store store, recovered;
    struct wal_writer wal;
    uint64_t offset, loaded_offset = 0;

    CHECK_EQ(kv_store_init(&store), 0);
    CHECK_EQ(wal_open(&wal, WAL_PATH), 0);
    write_records(&wal, &store, 0, 10);
    offset = wal.offset;
    CHECK_EQ(wal_checkpoint_write(&store, CHECKPOINT_PATH, offset), 0);
    write_records(&wal, &store, 10, 20);
    CHECK_EQ(wal_close(&wal), 0);

    CHECK_EQ(kv_store_init(&recovered), 0);
    CHECK_EQ(wal_checkpoint_load(CHECKPOINT_PATH, &recovered, &loaded_offset), 0);
    CHECK_EQ(loaded_offset, offset);
    kv_store_destroy(&recovered);

    CHECK_EQ(kv_store_init(&recovered), 0);
    CHECK_EQ(wal_recover_with_checkpoint(WAL_PATH, CHECKPOINT_PATH, &recovered), 10);
    check_same_stores(&recovered, &store);
    check_recovers_to(20, &recovered);
    kv_store_destroy(&recovered);
    kv_store_destroy(&store);
}

int main(void)
{
    static const struct test_case tests[] = {
        { "record codec round-trip", test_codec },
        { "CRC corruption detection", test_corruption },
        { "append discipline file size", test_append_discipline },
        { "full recovery replay", test_full_recovery },
        { "crash recovery (corrupt record)", test_crash_recovery },
        { "checkpoint + partial replay", test_checkpoint },
    };

    return run_test_table(tests, sizeof tests / sizeof tests[0]);
}
