/* Recovery: a whole log is replayed to its end, and a damaged one up to the damage and not a record further. */
#define _GNU_SOURCE
#include "calls.h"
#include "wal.h"

#define LOG "checked.wal"

enum { RECORDS = 20 };

static void append_all(const struct wal_record *records, int count, uint64_t *starts)
{
    struct wal_writer writer;

    unlink(LOG);
    EXPECT_INT(0, CHECK_WAL_OPEN(&writer, LOG), "what wal_open returns");
    for (int i = 0; i < count; i++) {
        starts[i] = (uint64_t)check_file_size(LOG);
        EXPECT(wal_append(&writer, &records[i]) >= 0, "what wal_append returns", "0", "a negative number");
    }
    starts[count] = (uint64_t)check_file_size(LOG);
    EXPECT(CHECK_WAL_CLOSE(&writer) >= 0, "what wal_close returns", "0", "a negative number");
}

static void recover_into(struct kv_store *store, int expected, const char *what)
{
    EXPECT_INT(0, CHECK_STORE_INIT(store), "what kv_store_init returns");
    check_recovered(expected, check_recover(LOG, store), what);
}

/* ---- a whole log --------------------------------------------------------------------------------------------- */

static void five_records(void)
{
    struct wal_record records[] = { check_set_record("foo", "bar", 1), check_set_record("name", "alice", 2),
                                    check_set_record("count", "42", 3), check_del_record("name", 4),
                                    check_set_record("count", "99", 5) };
    struct kv_store store;
    uint64_t starts[6];

    append_all(records, 5, starts);
    recover_into(&store, 5, "records replayed");
    EXPECT_STRING("bar", kv_store_get(&store, "foo"), "GET foo after recovery");
    EXPECT_STRING(NULL, kv_store_get(&store, "name"), "GET name after recovery: it was deleted");
    EXPECT_STRING("99", kv_store_get(&store, "count"), "GET count after recovery: it was SET twice");
    EXPECT_INT(2, check_count_keys(&store), "keys in the store after recovery");
    kv_store_destroy(&store);
}

static void full_replay(void)
{
    uint64_t starts[WORKLOAD_MAX + 1];

    write_workload(LOG, 0, WORKLOAD_MAX, starts);
    expect_recovery(LOG, WORKLOAD_MAX, "recovery of 40 records");
    expect_recovery(LOG, WORKLOAD_MAX, "a second recovery of the same log");
}

static void del_of_missing_key(void)
{
    struct wal_record records[] = { check_del_record("nobody", 1), check_set_record("foo", "bar", 2),
                                    check_del_record("foo", 3), check_del_record("foo", 4),
                                    check_set_record("last", "here", 5) };
    struct kv_store store;
    uint64_t starts[6];

    append_all(records, 5, starts);
    recover_into(&store, 5, "records replayed, with DELs of keys that are not there");
    EXPECT_STRING("here", kv_store_get(&store, "last"), "GET of the key behind them");
    EXPECT_INT(1, check_count_keys(&store), "keys in the store after recovery");
    kv_store_destroy(&store);
}

static void empty_and_missing(void)
{
    struct kv_store store;
    int rc;

    check_write_file(LOG, "", 0);
    recover_into(&store, 0, "records replayed of an empty log");
    EXPECT_INT(0, check_count_keys(&store), "keys in the store after recovery of an empty log");
    rc = check_recover("no-such.wal", &store);
    EXPECT(rc <= 0, "what wal_recover returns when there is no log", "-1", "%d", rc);
    EXPECT_INT(0, check_count_keys(&store), "keys in the store when there is no log");
    kv_store_destroy(&store);
}

static void with_trouble(enum trouble kind, const char *what)
{
    uint64_t starts[RECORDS + 1];

    write_workload(LOG, 0, RECORDS, starts);
    trouble = kind;
    expect_recovery(LOG, RECORDS, what);
    trouble = TROUBLE_NONE;
}

static void short_reads(void)
{
    with_trouble(TROUBLE_SHORT, "recovery when read(2) gives one byte at a time");
}

static void leaves_log_alone(void)
{
    uint64_t starts[RECORDS + 1];
    uint8_t *before, *after;
    size_t before_len, after_len;
    int descriptors = count_descriptors();

    write_workload(LOG, 0, RECORDS, starts);
    before = check_read_file(LOG, &before_len);
    for (int i = 0; i < 5; i++)
        expect_recovery(LOG, RECORDS, "recovery");
    after = check_read_file(LOG, &after_len);
    EXPECT(before_len == after_len && memcmp(before, after, before_len) == 0, "the log after recovery", "as before",
           "%zu bytes, before %zu", after_len, before_len);
    EXPECT_INT(descriptors, count_descriptors(), "open descriptors after five recoveries");
    free(before);
    free(after);
}

/* ---- the lesson's three scenarios ------------------------------------------------------------------------------ */

static void baseline(uint64_t starts[6])
{
    struct wal_record records[] = { check_set_record("a", "1", 1), check_set_record("b", "2", 2),
                                    check_set_record("c", "3", 3), check_del_record("b", 4),
                                    check_set_record("d", "4", 5) };

    append_all(records, 5, starts);
}

static void expect_store(int recovered, const char *a, const char *b, const char *c)
{
    struct kv_store store;

    recover_into(&store, recovered, "records recovered of 5");
    EXPECT_STRING(a, kv_store_get(&store, "a"), "GET a after recovery");
    EXPECT_STRING(b, kv_store_get(&store, "b"), "GET b after recovery");
    EXPECT_STRING(c, kv_store_get(&store, "c"), "GET c after recovery");
    EXPECT_STRING(NULL, kv_store_get(&store, "d"), "GET d after recovery");
    EXPECT_INT(2, check_count_keys(&store), "keys in the store after recovery");
    kv_store_destroy(&store);
}

static void torn_record(void)
{
    uint64_t starts[6];

    baseline(starts);
    check_garble_file(LOG, starts[4], 3);
    expect_store(4, "1", NULL, "3");
}

/* From the op on: those bytes were not all zero, so that the record is damaged. */
static void zeroed_region(void)
{
    static const uint8_t zeroes[8];
    uint64_t starts[6];
    int fd;

    baseline(starts);
    fd = open(LOG, O_WRONLY | O_CLOEXEC);
    REQUIRE(fd >= 0 && pwrite(fd, zeroes, sizeof zeroes, (off_t)starts[2] + 8) == 8, "zero a part of the log");
    close(fd);
    expect_store(2, "1", "2", NULL);
}

static void truncated_file(void)
{
    uint64_t starts[6];

    baseline(starts);
    REQUIRE(truncate(LOG, (off_t)starts[5] - 10) == 0, "cut the log");
    expect_store(4, "1", NULL, "3");
}

/* ---- damage anywhere ------------------------------------------------------------------------------------------- */

static int record_at(const uint64_t *starts, int records, uint64_t offset)
{
    int i = 0;

    while (i < records && starts[i + 1] <= offset)
        i++;
    return i;
}

static void every_cut(void)
{
    uint64_t starts[6];
    char what[100];
    uint8_t *whole;
    size_t len;

    write_workload(LOG, 0, 5, starts);
    whole = check_read_file(LOG, &len);
    for (size_t cut = 0; cut < len; cut++) {
        check_write_file(LOG, whole, cut);
        snprintf(what, sizeof what, "recovery of a log of %zu bytes cut at %zu", len, cut);
        expect_recovery(LOG, record_at(starts, 5, cut), what);
    }
    free(whole);
}

/* Every byte of five records: the length fields too. */
static void every_byte(void)
{
    uint64_t starts[6];
    char what[120];
    uint8_t *whole;
    size_t len;

    write_workload(LOG, 0, 5, starts);
    whole = check_read_file(LOG, &len);
    for (size_t at = 0; at < len; at++) {
        whole[at] ^= 0x41;
        check_write_file(LOG, whole, len);
        whole[at] ^= 0x41;
        snprintf(what, sizeof what, "recovery with byte %zu changed, in record %d of 5", at,
                 record_at(starts, 5, at) + 1);
        expect_recovery(LOG, record_at(starts, 5, at), what);
    }
    free(whole);
}

/* Record 15 of 20: five whole ones stand behind it. */
static void damage_in_middle(void)
{
    uint64_t starts[RECORDS + 1];

    write_workload(LOG, 0, RECORDS, starts);
    check_garble_file(LOG, starts[14] + 12, 1);
    expect_recovery(LOG, 14, "recovery with record 15 of 20 damaged");
}

/* Only the CRC is wrong: the record could be read, and must not count. */
static void crc_before_apply(void)
{
    uint64_t starts[6];
    struct kv_store store;

    baseline(starts);
    check_garble_file(LOG, starts[4], 1);
    recover_into(&store, 4, "records recovered when the CRC of record 5 is wrong");
    EXPECT_STRING(NULL, kv_store_get(&store, "d"), "GET of the key of a record whose CRC is wrong");
    kv_store_destroy(&store);
    baseline(starts);
    check_garble_file(LOG, starts[3], 1);
    recover_into(&store, 3, "records recovered when the CRC of record 4, DEL b, is wrong");
    EXPECT_STRING("2", kv_store_get(&store, "b"), "GET b, whose DEL has a wrong CRC");
    kv_store_destroy(&store);
}

static void false_lengths(void)
{
    static const uint8_t lengths[][4] = { { 0, 0, 0, 0 },       { 1, 0, 0, 0 },       { 0xFF, 0xFF, 0, 0 },
                                          { 0, 0, 0, 0x10 },    { 0xFF, 0xFF, 0xFF, 0x7F },
                                          { 0, 0, 0, 0x80 },    { 0xF8, 0xFF, 0xFF, 0xFF },
                                          { 0xFF, 0xFF, 0xFF, 0xFF } };
    uint64_t starts[RECORDS + 1];
    char what[100];
    uint8_t *whole;
    size_t len;

    write_workload(LOG, 0, RECORDS, starts);
    whole = check_read_file(LOG, &len);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        memcpy(whole + starts[10] + 4, lengths[i], 4);
        check_write_file(LOG, whole, len);
        snprintf(what, sizeof what, "recovery with the length of record 11 of 20 changed to %02x %02x %02x %02x",
                 lengths[i][0], lengths[i][1], lengths[i][2], lengths[i][3]);
        expect_recovery(LOG, 10, what);
    }
    free(whole);
}

static const struct check checks[] = {
    { "recovery_five_records", "W10-R3", "w10-l03", "wal_recovery.c", 10, "replay of the lesson's log",
      "Five records are replayed: foo=bar, count=99, name is gone.", five_records },
    { "recovery_full_replay", "W10-R3", "w10-l03", "wal_recovery.c", 10, "replay of 40 records",
      "After a full replay the store is what it was.", full_replay },
    { "recovery_del_missing", "W10-R3", "w10-l03", "wal_recovery.c", 10, "DEL of a missing key in the log",
      "DEL of a key that is not there is no error: replay goes on.", del_of_missing_key },
    { "recovery_empty_log", "W10-R3", "w10-l03", "wal_recovery.c", 10, "empty and missing logs",
      "An empty log is 0 records; a missing one leaves an empty store.", empty_and_missing },
    { "recovery_short_reads", "W10-R3", "w10-l03", "wal_recovery.c,wal_writer.c", 10, "short reads",
      "read(2) may give less than it is asked for: the rest is read too.", short_reads },
    { "recovery_leaves_log", "W10-R3", "w10-l03", "wal_recovery.c", 10, "the log stays, its descriptor does not",
      "Recovery changes nothing in the log and closes what it opens.", leaves_log_alone },
    { "crash_torn_record", "W10-R4", "w10-l04", "wal_recovery.c", 10, "scenario 1: torn record",
      "The first 3 bytes of record 5 garbled: 4 of 5 records, keys a and c.", torn_record },
    { "crash_zeroed_region", "W10-R4", "w10-l04", "wal_recovery.c", 10, "scenario 2: zeroed region",
      "8 bytes in the middle of record 3 zeroed: 2 of 5 records, keys a and b.", zeroed_region },
    { "crash_truncated_file", "W10-R4", "w10-l04", "wal_recovery.c", 10, "scenario 3: truncated file",
      "The file cut 10 bytes before its end: 4 of 5 records, keys a and c.", truncated_file },
    { "crash_every_cut", "W10-R4", "w10-l04", "wal_recovery.c", 20, "the log cut at every byte",
      "A record that is not all there is damage: what was before it survives.", every_cut },
    { "crash_every_byte", "W10-R4", "w10-l04", "wal_recovery.c", 20, "every byte of the log changed",
      "Replay stops at the damaged record and skips none.", every_byte },
    { "crash_damage_in_middle", "W10-R4", "w10-l04", "wal_recovery.c", 10, "damage in the middle of the log",
      "Record 15 of 20 is damaged: 14 survive, the five behind it are not replayed.", damage_in_middle },
    { "crash_crc_before_apply", "W10-R4", "w10-l04", "wal_recovery.c", 10, "the CRC comes first",
      "The CRC is checked before the record is applied: nothing of a damaged one reaches the store.",
      crc_before_apply },
    { "crash_false_lengths", "W10-R4", "w10-l04", "wal_recovery.c", 20, "lengths that can't be",
      "A damaged length is damage: no crash, no endless loop, nothing read behind the end.", false_lengths },
};

CHECK_MAIN(checks)
