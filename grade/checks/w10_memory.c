/* W10-R8: nothing leaks and nothing is undefined. Each check goes a way through the code many times, and what the
 * process holds must not grow; valgrind, under which these run too, sees the rest. */
#define _GNU_SOURCE
#include "calls.h"
#include "wal.h"
#include "w10/wal_checkpoint.h"

#include <malloc.h>

#define LOG "memory.wal"
#define CHECKPOINT "memory.ckpt"

static size_t held(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

enum { ROOM = 256, WARM_UP = 20, ROUNDS = 200, SMALLEST_PIECE = 32 };

/* malloc keeps some freed pieces in reserve and counts them as held: the first rounds fill that, and less than half the
 * least that a leak a round would take is no leak. Under valgrind malloc is another one, which counts nothing here and
 * does better itself. */
static void expect_no_growth(void (*round)(void), const char *what)
{
    size_t before, after;

    for (int i = 0; i < WARM_UP; i++)
        round();
    before = held();
    for (int i = 0; i < ROUNDS; i++)
        round();
    after = held();
    EXPECT(after < before + ROUNDS * SMALLEST_PIECE / 2, what, "no more memory than before",
           "%zu bytes more after %d rounds", after - before, ROUNDS);
}

static void store_round(void)
{
    struct kv_store store;

    EXPECT_INT(0, CHECK_STORE_INIT(&store), "what kv_store_init returns");
    apply_workload(&store, 0, WORKLOAD_MAX);
    apply_workload(&store, 0, WORKLOAD_MAX);
    kv_store_destroy(&store);
}

static void store_memory(void)
{
    expect_no_growth(store_round, "memory after a store was filled, overwritten, emptied in part and destroyed");
}

static void record_round(void)
{
    struct wal_record record = check_set_record("foo", "bar", 1), decoded;
    uint8_t buffer[ROOM];
    size_t len = check_encode(&record, buffer, sizeof buffer);

    memset(&decoded, 0, sizeof decoded);
    EXPECT(check_is_good((int)wal_record_decode(buffer, len, &decoded), len), "decode of an encoded record",
           "it is good", "it is refused");
    check_free_record(&decoded, buffer, len);
}

/* A record that is refused has nothing to free. */
static void refused_round(void)
{
    struct wal_record record = check_set_record("foo", "bar", 1), decoded;
    uint8_t buffer[ROOM];
    size_t len = check_encode(&record, buffer, sizeof buffer);

    for (size_t at = 0; at < len; at++) {
        buffer[at] ^= 0x10;
        memset(&decoded, 0, sizeof decoded);
        EXPECT(!check_is_good((int)wal_record_decode(buffer, len, &decoded), len), "decode of a damaged record",
               "CRC_MISMATCH", "it is taken for a good one");
        buffer[at] ^= 0x10;
        EXPECT(!check_is_good((int)wal_record_decode(buffer, at, &decoded), at), "decode of a cut record",
               "it is refused", "it is taken for a good one");
    }
}

static void record_memory(void)
{
    expect_no_growth(record_round, "memory after records were decoded and freed");
    expect_no_growth(refused_round, "memory after damaged records were refused");
}

/* A log is opened, written, closed, recovered, and recovered again once its last record is damaged. */
static void log_round(void)
{
    uint64_t starts[WORKLOAD_MAX + 1];

    unlink(LOG);
    write_workload(LOG, 0, 3, starts);
    expect_recovery(LOG, 3, "recovery of 3 records");
    check_garble_file(LOG, starts[2] + 12, 1);
    expect_recovery(LOG, 2, "recovery with record 3 damaged");
}

static void log_memory(void)
{
    expect_no_growth(log_round, "memory after a log was written and recovered, whole and damaged");
}

static void checkpoint_round(void)
{
    static const char *const names[] = { CHECKPOINT, "no-such.ckpt", "cut.ckpt" };
    uint64_t starts[WORKLOAD_MAX + 1], offset = 0;
    struct kv_store store, loaded;
    uint8_t *bytes;
    size_t len;

    unlink(LOG);
    write_workload(LOG, 0, 3, starts);
    EXPECT_INT(0, CHECK_STORE_INIT(&store), "what kv_store_init returns");
    apply_workload(&store, 0, 3);
    EXPECT(wal_checkpoint_write(&store, CHECKPOINT, starts[3]) >= 0, "what wal_checkpoint_write returns", "0", "less");
    kv_store_destroy(&store);
    bytes = check_read_file(CHECKPOINT, &len);
    check_write_file("cut.ckpt", bytes, 20);
    free(bytes);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        EXPECT_INT(0, CHECK_STORE_INIT(&loaded), "what kv_store_init returns");
        wal_checkpoint_load(names[i], &loaded, &offset);
        wal_recover_with_checkpoint(LOG, names[i], &loaded);
        kv_store_destroy(&loaded);
    }
}

static void checkpoint_memory(void)
{
    expect_no_growth(checkpoint_round, "memory after checkpoints were written, loaded and found missing or cut");
}

static const struct check checks[] = {
    { "memory_store", "W10-R8", "w10-l06", "kv_store.c", 10, "the store's memory",
      "kv_store_destroy, DEL and overwriting free what they replace.", store_memory },
    { "memory_record", "W10-R8", "w10-l06", "wal_record.c", 10, "a decoded record's memory",
      "Key and value of a decoded record are the caller's to free; a refused record leaves nothing.", record_memory },
    { "memory_log", "W10-R8", "w10-l06", "wal_writer.c,wal_recovery.c", 20, "the log's memory",
      "Writing, recovering and finding damage leave nothing behind.", log_memory },
    { "memory_checkpoint", "W10-R8", "w10-l06", "wal_checkpoint.c", 20, "a checkpoint's memory",
      "Writing and loading checkpoints, missing and damaged ones too, leave nothing behind.", checkpoint_memory },
};

CHECK_MAIN(checks)
