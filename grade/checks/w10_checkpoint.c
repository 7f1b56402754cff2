/* Checkpoints: what is in the file, when it is on the disk, what recovery makes of it and of the rest of the log. */
#define _GNU_SOURCE
#include "calls.h"
#include "wal.h"
#include "w10/wal_checkpoint.h"

#define LOG "store.wal"
#define CHECKPOINT "store.ckpt"

static void make_store(struct kv_store *store, int records)
{
    EXPECT_INT(0, CHECK_STORE_INIT(store), "what kv_store_init returns");
    apply_workload(store, 0, records);
}

static void write_checkpoint(const struct kv_store *store, uint64_t offset)
{
    EXPECT(wal_checkpoint_write(store, CHECKPOINT, offset) >= 0, "what wal_checkpoint_write returns", "0",
           "a negative number, errno %d (%s)", errno, strerror(errno));
}

/* A fresh store must become what is in `expected`. */
static void expect_load(const struct kv_store *expected, uint64_t offset, const char *what)
{
    struct kv_store loaded;
    uint64_t seen = 0x5A5A5A5A;

    EXPECT_INT(0, CHECK_STORE_INIT(&loaded), "what kv_store_init returns");
    EXPECT(wal_checkpoint_load(CHECKPOINT, &loaded, &seen) >= 0, "what wal_checkpoint_load returns", "0",
           "a negative number, errno %d (%s)", errno, strerror(errno));
    EXPECT_INT(offset, seen, "the offset that wal_checkpoint_load gives");
    check_same_store(expected, &loaded, what);
    kv_store_destroy(&loaded);
}

/* ---- written and loaded ---------------------------------------------------------------------------------------- */

static void write_and_load(void)
{
    struct kv_store store;

    make_store(&store, WORKLOAD_MAX);
    write_checkpoint(&store, 1234);
    expect_load(&store, 1234, "the store that was loaded");
    /* An offset may need more than four bytes. */
    write_checkpoint(&store, 0x0000000123456789u);
    expect_load(&store, 0x0000000123456789u, "the store that was loaded");
    kv_store_destroy(&store);
}

static void empty_store(void)
{
    struct kv_store store;

    make_store(&store, 0);
    write_checkpoint(&store, 0);
    expect_load(&store, 0, "the store loaded from a checkpoint of an empty one");
    kv_store_destroy(&store);
}

static void replaces_old(void)
{
    struct kv_store store;

    make_store(&store, WORKLOAD_MAX);
    write_checkpoint(&store, 100);
    EXPECT_INT(1, kv_store_del(&store, "key-1"), "what DEL returns");
    EXPECT_INT(1, kv_store_del(&store, "key-2"), "what DEL returns");
    EXPECT(kv_store_set(&store, "key-0", "") >= 0, "what kv_store_set returns", "0", "less");
    write_checkpoint(&store, 200);
    expect_load(&store, 200, "the store loaded after a second, smaller checkpoint");
    kv_store_destroy(&store);
}

static void long_values(void)
{
    static char value[65536];
    struct kv_store store;

    memset(value, 'v', 65535);
    make_store(&store, 3);
    EXPECT(kv_store_set(&store, "long", value) >= 0, "what kv_store_set returns", "0", "less");
    EXPECT(kv_store_set(&store, "empty", "") >= 0, "what kv_store_set returns", "0", "less");
    write_checkpoint(&store, 77);
    expect_load(&store, 77, "the store loaded, with a value of 65535 bytes");
    kv_store_destroy(&store);
}

static uint64_t get_le(const uint8_t *bytes, int count)
{
    uint64_t number = 0;

    for (int i = count - 1; i >= 0; i--)
        number = number << 8 | bytes[i];
    return number;
}

/* Where the last entry of a file in the lesson's layout ends; what follows it is the writer's own. */
static size_t end_of_entries(const uint8_t *bytes, size_t len, const struct kv_store *store)
{
    size_t at = 16;
    uint64_t count = get_le(bytes + 12, 4);

    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *strings[2];
        size_t lengths[2];
        char key[64];

        for (int part = 0; part < 2; part++) {
            EXPECT(at + 2 <= len, "an entry of the checkpoint", "key_len, key, value_len, value",
                   "the file ends at %zu", len);
            lengths[part] = (size_t)get_le(bytes + at, 2);
            strings[part] = bytes + at + 2;
            at += 2 + lengths[part];
            EXPECT(at <= len, "an entry of the checkpoint", "lengths that fit into the file", "%zu at %zu of %zu",
                   lengths[part], at - lengths[part] - 2, len);
        }
        snprintf(key, sizeof key, "%.*s", (int)lengths[0], (const char *)strings[0]);
        EXPECT(kv_store_get(CHECK_STORE(store), key) != NULL &&
                   strlen(kv_store_get(CHECK_STORE(store), key)) == lengths[1] &&
                   memcmp(kv_store_get(CHECK_STORE(store), key), strings[1], lengths[1]) == 0,
               "an entry of the checkpoint", "a key of the store with its value", "key %s", key);
    }
    return at;
}

static void layout(void)
{
    struct kv_store store;
    uint8_t *bytes;
    size_t len;

    make_store(&store, 20);
    write_checkpoint(&store, 0x0102030405u);
    bytes = check_read_file(CHECKPOINT, &len);
    EXPECT(len >= 16, "bytes in the checkpoint", "16 and the entries", "%zu", len);
    EXPECT(memcmp(bytes, "CKPT", 4) == 0, "the first four bytes of the checkpoint", "43 4b 50 54 (CKPT)",
           "%02x %02x %02x %02x", bytes[0], bytes[1], bytes[2], bytes[3]);
    EXPECT_INT(0x0102030405u, get_le(bytes + 4, 8), "the checkpoint's wal_offset, little-endian");
    EXPECT_INT(check_count_keys(&store), get_le(bytes + 12, 4), "the checkpoint's num_keys, little-endian");
    end_of_entries(bytes, len, &store);
    free(bytes);
    kv_store_destroy(&store);
}

static void missing_file(void)
{
    struct kv_store store;
    uint64_t offset = 0;
    int rc;

    make_store(&store, 3);
    rc = wal_checkpoint_load("no-such.ckpt", &store, &offset);
    EXPECT(rc < 0 || offset == 0, "wal_checkpoint_load when there is no file", "-1, or the offset 0", "%d, offset %llu",
           rc, (unsigned long long)offset);
    EXPECT_INT(3, check_count_keys(&store), "keys in the store after that");
    kv_store_destroy(&store);
}

/* Cut anywhere before its last entry's end, the file has not the keys that it promises. */
static void cut_file(void)
{
    struct kv_store store, loaded;
    uint8_t *bytes;
    size_t len, end;
    char what[120];

    make_store(&store, 6);
    write_checkpoint(&store, 50);
    bytes = check_read_file(CHECKPOINT, &len);
    /* A file in another layout is judged by checkpoint_layout; here only its header is cut. */
    end = len >= 16 && memcmp(bytes, "CKPT", 4) == 0 ? end_of_entries(bytes, len, &store) : 4;
    for (size_t cut = 0; cut < end; cut++) {
        uint64_t offset = 0;
        int rc;

        check_write_file(CHECKPOINT, bytes, cut);
        EXPECT_INT(0, CHECK_STORE_INIT(&loaded), "what kv_store_init returns");
        rc = wal_checkpoint_load(CHECKPOINT, &loaded, &offset);
        snprintf(what, sizeof what, "wal_checkpoint_load of a file of %zu bytes cut at %zu", len, cut);
        EXPECT(rc < 0, what, "-1", "%d", rc);
        kv_store_destroy(&loaded);
    }
    free(bytes);
    kv_store_destroy(&store);
}

/* ---- on the disk ------------------------------------------------------------------------------------------------ */

static void synced(void)
{
    struct kv_store store;
    char expected[32];

    make_store(&store, WORKLOAD_MAX);
    for (int i = 0; i < 2; i++) {
        calls_forget();
        write_checkpoint(&store, 1000);
        snprintf(expected, sizeof expected, "%lld", check_file_size(CHECKPOINT));
        EXPECT(calls_synced_size(CHECKPOINT) == check_file_size(CHECKPOINT),
               "bytes in the checkpoint at its last fsync in wal_checkpoint_write", expected, "%s",
               calls_synced_text(CHECKPOINT));
    }
    kv_store_destroy(&store);
}

static int names_file(const char *path, int fd, const char *name)
{
    struct stat one, other;

    if (stat(name, &other) != 0 || (path != NULL ? stat(path, &one) : fstat(fd, &one)) != 0)
        return 0;
    return one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

static void on_rename(const char *from, const char *to)
{
    char expected[32];

    /* The file's new name counts, whatever directory it is spelt with. */
    if (strlen(to) < strlen(CHECKPOINT) || strcmp(to + strlen(to) - strlen(CHECKPOINT), CHECKPOINT) != 0)
        return;
    snprintf(expected, sizeof expected, "%lld", check_file_size(from));
    EXPECT(calls_synced_size(from) == check_file_size(from),
           "bytes in the new checkpoint that were synced when rename gave it the name", expected,
           "%s", calls_synced_text(from));
}

/* A checkpoint written in its place needs no rename; one that is renamed must be on the disk by then. */
static void synced_before_rename(void)
{
    struct kv_store store;

    make_store(&store, WORKLOAD_MAX);
    calls_on_rename = on_rename;
    for (int i = 0; i < 2; i++) {
        calls_forget();
        write_checkpoint(&store, 1000);
    }
    calls_on_rename = NULL;
    kv_store_destroy(&store);
}

/* The log may go, in whole or in part, when the checkpoint that stands for it is on the disk. */
static void on_loss(const char *path, int fd)
{
    long long size = check_file_size(CHECKPOINT);

    if (names_file(path, fd, LOG))
        EXPECT(size >= 16 && calls_synced_size(CHECKPOINT) == size, "the checkpoint when the log was cut or removed",
               "whole, and synced", "%lld bytes, synced: %s", size < 0 ? 0 : size, calls_synced_text(CHECKPOINT));
}

static void log_outlives(void)
{
    uint64_t starts[WORKLOAD_MAX + 1];
    struct kv_store store, recovered;

    write_workload(LOG, 0, 20, starts);
    make_store(&store, 20);
    calls_forget();
    calls_on_loss = on_loss;
    write_checkpoint(&store, starts[20]);
    EXPECT_INT(0, CHECK_STORE_INIT(&recovered), "what kv_store_init returns");
    EXPECT(wal_recover_with_checkpoint(LOG, CHECKPOINT, &recovered) >= 0, "what wal_recover_with_checkpoint returns",
           "0 or more", "less");
    check_same_store(&store, &recovered, "the store recovered with the checkpoint");
    calls_on_loss = NULL;
    kv_store_destroy(&recovered);
    /* Whatever was done to the log, nothing may be lost with the checkpoint there. */
    EXPECT_INT(0, CHECK_STORE_INIT(&recovered), "what kv_store_init returns");
    EXPECT(wal_recover_with_checkpoint(LOG, CHECKPOINT, &recovered) >= 0, "what wal_recover_with_checkpoint returns",
           "0 or more", "less");
    check_same_store(&store, &recovered, "the store recovered a second time");
    kv_store_destroy(&recovered);
    kv_store_destroy(&store);
}

static void with_trouble(enum trouble kind, const char *what)
{
    struct kv_store store;
    int rc;

    make_store(&store, WORKLOAD_MAX);
    trouble = kind;
    rc = wal_checkpoint_write(&store, CHECKPOINT, 99);
    EXPECT(rc >= 0, what, "0", "%d", rc);
    expect_load(&store, 99, what);
    trouble = TROUBLE_NONE;
    kv_store_destroy(&store);
}

static void short_calls(void)
{
    with_trouble(TROUBLE_SHORT, "a checkpoint when reads and writes move less than they are asked to");
}

/* Some load a file that is not theirs without a look at its first four bytes. */
static void bad_magic(void)
{
    struct kv_store store, loaded;
    uint64_t offset = 0;
    uint8_t *bytes;
    size_t len;
    int rc;

    make_store(&store, 6);
    write_checkpoint(&store, 50);
    bytes = check_read_file(CHECKPOINT, &len);
    for (size_t i = 0; i < 4; i++) {
        bytes[i] ^= 0x20;
        check_write_file(CHECKPOINT, bytes, len);
        bytes[i] ^= 0x20;
        EXPECT_INT(0, CHECK_STORE_INIT(&loaded), "what kv_store_init returns");
        rc = wal_checkpoint_load(CHECKPOINT, &loaded, &offset);
        EXPECT(rc < 0, "wal_checkpoint_load of a file that does not begin with CKPT", "-1", "%d", rc);
        kv_store_destroy(&loaded);
    }
    free(bytes);
    kv_store_destroy(&store);
}

static void closes_files(void)
{
    uint64_t starts[WORKLOAD_MAX + 1], offset = 0;
    struct kv_store store;
    int before;

    write_workload(LOG, 0, 5, starts);
    make_store(&store, 5);
    before = count_descriptors();
    for (int i = 0; i < 3; i++) {
        write_checkpoint(&store, starts[5]);
        wal_checkpoint_load(CHECKPOINT, &store, &offset);
        wal_checkpoint_load("no-such.ckpt", &store, &offset);
        wal_recover_with_checkpoint(LOG, CHECKPOINT, &store);
        wal_recover_with_checkpoint(LOG, "no-such.ckpt", &store);
        EXPECT_INT(before, count_descriptors(), "open descriptors after checkpoints were written and loaded");
    }
    kv_store_destroy(&store);
}

/* ---- recovery with a checkpoint --------------------------------------------------------------------------------- */

/* A log of `records`, a checkpoint after `covered` of them. */
static void recover_with(int records, int covered, const char *checkpoint, int expected, const char *what)
{
    uint64_t starts[WORKLOAD_MAX + 1];
    struct kv_store at_checkpoint, store, recovered;
    char text[200];

    unlink(LOG);
    unlink(CHECKPOINT);
    write_workload(LOG, 0, covered, starts);
    make_store(&at_checkpoint, covered);
    write_checkpoint(&at_checkpoint, covered == 0 ? 0 : starts[covered]);
    write_workload(LOG, covered, records, starts);
    make_store(&store, records);
    EXPECT_INT(0, CHECK_STORE_INIT(&recovered), "what kv_store_init returns");
    snprintf(text, sizeof text, "%s: records of the log replayed", what);
    check_recovered(expected, wal_recover_with_checkpoint(LOG, checkpoint, &recovered), text);
    check_same_store(&store, &recovered, what);
    kv_store_destroy(&recovered);
    expect_recovery(LOG, records, "full replay of the same log");
    kv_store_destroy(&store);
    kv_store_destroy(&at_checkpoint);
}

static void partial_replay(void)
{
    recover_with(13, 7, CHECKPOINT, 6, "13 records, checkpoint after 7");
    recover_with(20, 10, CHECKPOINT, 10, "20 records, checkpoint after 10");
}

/* The tail deletes and overwrites keys of the checkpoint, and the checkpoint must not come after it. */
static void tail_wins(void)
{
    recover_with(WORKLOAD_MAX, 14, CHECKPOINT, WORKLOAD_MAX - 14, "40 records, checkpoint after 14");
}

static void at_the_end(void)
{
    recover_with(10, 10, CHECKPOINT, 0, "10 records, checkpoint after the last");
    recover_with(10, 9, CHECKPOINT, 1, "10 records, checkpoint before the last");
}

static void at_the_start(void)
{
    recover_with(10, 0, CHECKPOINT, 10, "10 records, checkpoint of the empty store before the first");
    recover_with(10, 1, CHECKPOINT, 9, "10 records, checkpoint after the first");
}

static void missing_checkpoint(void)
{
    recover_with(13, 7, "no-such.ckpt", 13, "13 records and no checkpoint file");
}

static void damaged_tail(void)
{
    uint64_t starts[WORKLOAD_MAX + 1];
    struct kv_store store, expected;

    write_workload(LOG, 0, 7, starts);
    make_store(&store, 7);
    write_checkpoint(&store, starts[7]);
    write_workload(LOG, 7, 13, starts);
    check_garble_file(LOG, starts[10] + 12, 1);
    make_store(&expected, 10);
    kv_store_destroy(&store);
    EXPECT_INT(0, CHECK_STORE_INIT(&store), "what kv_store_init returns");
    check_recovered(3, wal_recover_with_checkpoint(LOG, CHECKPOINT, &store),
                    "checkpoint after 7 records, record 11 damaged: records of the log replayed");
    check_same_store(&expected, &store, "checkpoint after 7 records, record 11 damaged");
    kv_store_destroy(&store);
    kv_store_destroy(&expected);
}

static const struct check checks[] = {
    { "checkpoint_write_load", "W10-R5", "w10-l05", "wal_checkpoint.c", 10, "write and load",
      "A checkpoint that is loaded into a fresh store gives the same store and the offset.", write_and_load },
    { "checkpoint_empty_store", "W10-R5", "w10-l05", "wal_checkpoint.c", 10, "checkpoint of an empty store",
      "A store without keys has a checkpoint too.", empty_store },
    { "checkpoint_replaces_old", "W10-R5", "w10-l05", "wal_checkpoint.c", 10, "a second checkpoint",
      "A new checkpoint takes the place of the old one, all of it.", replaces_old },
    { "checkpoint_long_values", "W10-R5", "w10-l05", "wal_checkpoint.c", 10, "long and empty values",
      "Values of 0 to 65535 bytes are kept.", long_values },
    { "checkpoint_layout", "W10-R5", "w10-l05", "wal_checkpoint.c", 10, "bytes of a checkpoint",
      "CKPT, wal_offset in 8 bytes, num_keys in 4, then key_len, key, value_len, value; little-endian.", layout },
    { "checkpoint_missing_file", "W10-R5", "w10-l05", "wal_checkpoint.c", 10, "load without a file",
      "Loading a checkpoint that is not there returns -1.", missing_file },
    { "checkpoint_cut", "W10-R5", "w10-l05", "wal_checkpoint.c", 10, "a checkpoint that was cut",
      "A checkpoint that ends too early is damaged: nothing is read behind its end.", cut_file },
    { "checkpoint_synced", "W10-R5", "w10-l05", "wal_checkpoint.c", 10, "fsync of the checkpoint",
      "A checkpoint is on the disk (fsync) when it counts as written.", synced },
    { "checkpoint_synced_before_rename", "W10-R5", "w10-l05", "wal_checkpoint.c", 10, "fsync before rename",
      "What is renamed to the checkpoint is on the disk before.", synced_before_rename },
    { "checkpoint_log_outlives", "W10-R5", "w10-l05", "wal_checkpoint.c", 10, "the log outlives the checkpoint",
      "The log is not deleted before the checkpoint that stands for it is durable.", log_outlives },
    { "checkpoint_short_calls", "W10-R5", "w10-l05", "wal_checkpoint.c", 10, "short reads and writes",
      "read(2) and write(2) may move less than they are asked to: the rest follows.", short_calls },
    { "checkpoint_bad_magic", "W10-R5", "w10-l05", "wal_checkpoint.c", 10, "a file that is no checkpoint",
      "A checkpoint begins with the magic CKPT: what begins otherwise is none.", bad_magic },
    { "checkpoint_closes_files", "W10-R5", "w10-l05", "wal_checkpoint.c", 10, "files are closed",
      "What is opened for a checkpoint is closed.", closes_files },
    { "with_checkpoint_partial", "W10-R6", "w10-l05", "wal_checkpoint.c", 10, "only the rest of the log is replayed",
      "Recovery loads the checkpoint and replays the log from its offset: the same store as a full replay.",
      partial_replay },
    { "with_checkpoint_tail_wins", "W10-R6", "w10-l05", "wal_checkpoint.c", 10, "the log comes after the checkpoint",
      "What the log says behind the checkpoint is newer: SETs and DELs apply over it.", tail_wins },
    { "with_checkpoint_at_end", "W10-R6", "w10-l05", "wal_checkpoint.c", 10, "checkpoint at the log's end",
      "With a checkpoint of the whole log nothing is replayed.", at_the_end },
    { "with_checkpoint_at_start", "W10-R6", "w10-l05", "wal_checkpoint.c", 10, "checkpoint at the log's start",
      "With a checkpoint at offset 0 everything is replayed.", at_the_start },
    { "with_checkpoint_missing", "W10-R6", "w10-l05", "wal_checkpoint.c", 10, "no checkpoint file",
      "Without a checkpoint file the whole log is replayed.", missing_checkpoint },
    { "with_checkpoint_damaged_tail", "W10-R6", "w10-l05", "wal_checkpoint.c", 10, "damage behind the checkpoint",
      "Replay behind the checkpoint stops at damage like any other.", damaged_tail },
};

CHECK_MAIN(checks)
