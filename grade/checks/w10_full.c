/* W10 L06: the whole log in the six tests of wal_full_test. They judge all files together, against the whole tree. */
#define _GNU_SOURCE
#include "wal.h"
#include "w10/wal_checkpoint.h"

#define LOG "full.wal"
#define CHECKPOINT "full.ckpt"

enum { ROOM = 256 };

static void codec(void)
{
    for (int i = 0; i < 10; i++) {
        struct workload_text text;
        struct wal_record record = workload_record(i, &text), decoded;
        uint8_t buffer[ROOM];
        size_t len = check_encode(&record, buffer, sizeof buffer);

        memset(&decoded, 0, sizeof decoded);
        EXPECT(check_is_good((int)wal_record_decode(buffer, len, &decoded), len), "decode of an encoded record",
               "it is good", "it is refused");
        EXPECT_INT(record.op, decoded.op, "op after encode and decode");
        EXPECT_INT(record.key_len, decoded.key_len, "key_len after encode and decode");
        EXPECT(decoded.key != NULL && memcmp(record.key, decoded.key, record.key_len) == 0,
               "key after encode and decode", "the same", "another");
        EXPECT_INT(record.value_len, decoded.value_len, "value_len after encode and decode");
        EXPECT(record.value_len == 0 || (decoded.value != NULL &&
                                         memcmp(record.value, decoded.value, record.value_len) == 0),
               "value after encode and decode", "the same", "another");
        check_free_record(&decoded, buffer, len);
    }
}

static void corruption(void)
{
    for (int i = 0; i < 10; i++) {
        struct workload_text text;
        struct wal_record record = workload_record(i, &text), decoded;
        uint8_t buffer[ROOM];
        size_t len = check_encode(&record, buffer, sizeof buffer), bit = (len * 8 - 1) * (size_t)i / 9;
        char what[100];

        buffer[bit / 8] ^= (uint8_t)(1u << bit % 8);
        memset(&decoded, 0, sizeof decoded);
        snprintf(what, sizeof what, "decode of record %d with bit %zu of byte %zu flipped", i + 1, bit % 8, bit / 8);
        EXPECT(!check_is_good((int)wal_record_decode(buffer, len, &decoded), len), what, "CRC_MISMATCH",
               "it is taken for a good record");
    }
}

static void append_discipline(void)
{
    uint64_t starts[WORKLOAD_MAX + 1];
    long long sum = 0;

    for (int i = 0; i < 20; i++) {
        struct workload_text text;
        struct wal_record record = workload_record(i, &text);
        uint8_t buffer[ROOM];

        write_workload(LOG, i, i + 1, starts);
        sum += (long long)check_encode(&record, buffer, sizeof buffer);
        EXPECT_INT(sum, check_file_size(LOG), "bytes in the log: the sum of its records");
    }
    expect_recovery(LOG, 20, "recovery of a log that was opened for each record");
}

static void full_recovery(void)
{
    uint64_t starts[WORKLOAD_MAX + 1];

    write_workload(LOG, 0, 20, starts);
    expect_recovery(LOG, 20, "recovery of 20 records");
}

static void crash_recovery(void)
{
    uint64_t starts[WORKLOAD_MAX + 1];

    write_workload(LOG, 0, 20, starts);
    check_garble_file(LOG, starts[14] + 12, 1);
    expect_recovery(LOG, 14, "recovery with record 15 of 20 damaged");
}

static void checkpoint(void)
{
    uint64_t starts[WORKLOAD_MAX + 1];
    struct kv_store store, recovered;

    write_workload(LOG, 0, 10, starts);
    EXPECT_INT(0, CHECK_STORE_INIT(&store), "what kv_store_init returns");
    apply_workload(&store, 0, 10);
    EXPECT(wal_checkpoint_write(&store, CHECKPOINT, starts[10]) >= 0, "what wal_checkpoint_write returns", "0", "less");
    write_workload(LOG, 10, 20, starts);
    apply_workload(&store, 10, 20);
    EXPECT_INT(0, CHECK_STORE_INIT(&recovered), "what kv_store_init returns");
    check_recovered(10, wal_recover_with_checkpoint(LOG, CHECKPOINT, &recovered),
                    "records replayed behind a checkpoint after 10 of 20");
    check_same_store(&store, &recovered, "the store recovered with the checkpoint");
    expect_recovery(LOG, 20, "full replay of the same log");
    kv_store_destroy(&recovered);
    kv_store_destroy(&store);
}

#define ALL "kv_store.c,crc32.c,wal_record.c,wal_writer.c,wal_recovery.c,wal_checkpoint.c"

static const struct check checks[] = {
    { "full_1_codec", "W10-R7", "w10-l06", ALL, 10, "record codec round-trip", "10 records, there and back.", codec },
    { "full_2_corruption", "W10-R7", "w10-l06", ALL, 10, "CRC corruption detection",
      "One bit flipped in each of 10 records.", corruption },
    { "full_3_append", "W10-R7", "w10-l06", ALL, 20, "append discipline file size",
      "20 records: the file's size is their sum.", append_discipline },
    { "full_4_recovery", "W10-R7", "w10-l06", ALL, 10, "full recovery replay", "20 records make the same store again.",
      full_recovery },
    { "full_5_crash", "W10-R7", "w10-l06", ALL, 10, "crash recovery (corrupt record)",
      "Record 15 of 20 is damaged: 14 survive.", crash_recovery },
    { "full_6_checkpoint", "W10-R7", "w10-l06", ALL, 10, "checkpoint + partial replay",
      "20 records, checkpoint after 10: the same store as a full replay.", checkpoint },
};

CHECK_MAIN(checks)
