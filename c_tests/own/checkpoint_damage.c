/* Checkpoints: changed at every byte, cut at every byte, written by a student's code (no trailer), naming an offset that
 * is none. A bad one is -1/EBADMSG with the store as it was, and recovery goes back to the whole log. */
#include "bytes.h"
#include "logship.h"

enum { RECORDS = 10 };
static size_t ends[RECORDS + 1];
static uint8_t log_bytes[1024];

/* 10 records: k0=v0 .. k8=v8, then DEL k0. The store after 6 holds k0..k5. */
static void write_log(const char *path)
{
    size_t at = 0;
    for (int i = 0; i < RECORDS; i++) {
        char key[8], value[8];
        sprintf(key, "k%d", i);
        sprintf(value, "v%d", i);
        at += i < RECORDS - 1 ? own_set(log_bytes + at, key, value, (uint64_t)(100 + i)) : own_del(log_bytes + at, "k0", 500);
        ends[i + 1] = at;
    }
    REQUIRE(own_write_file(path, log_bytes, at) == 0);
}
static int store_is(struct kv_store *store, int first, int last)
{
    for (int i = first; i <= last; i++) {
        char key[8], value[8];
        sprintf(key, "k%d", i);
        sprintf(value, "v%d", i);
        if (!kv_store_get(store, key) || strcmp(kv_store_get(store, key), value) != 0)
            return 0;
    }
    return kv_store_count(store) == last - first + 1;
}
static void fill(struct kv_store *store, int first, int last)
{
    REQUIRE(kv_store_init(store) == 0);
    for (int i = first; i <= last; i++) {
        char key[8], value[8];
        sprintf(key, "k%d", i);
        sprintf(value, "v%d", i);
        REQUIRE(kv_store_set_ts(store, key, value, (uint64_t)(100 + i)) == 0);
    }
}
/* The lesson's format by hand: "CKPT"[wal_offset:8][num_keys:4] then [key_len:2][key][value_len:2][value] per key. */
static size_t plain(uint8_t *out, uint64_t offset, int first, int last)
{
    uint8_t *at = out;
    memcpy(at, "CKPT", 4);
    at = own_put(at + 4, offset, 8);
    at = own_put(at, (uint64_t)(last - first + 1), 4);
    for (int i = first; i <= last; i++) {
        at = own_put(at, 2, 2), *at++ = 'k', *at++ = (uint8_t)('0' + i);
        at = own_put(at, 2, 2), *at++ = 'v', *at++ = (uint8_t)('0' + i);
    }
    return (size_t)(at - out);
}
/* The load fails, and the store that it was to fill still holds "mine" and nothing else. */
static int refused(const char *path)
{
    struct kv_store store;
    uint64_t offset = 4711;
    if (kv_store_init(&store) != 0 || kv_store_set(&store, "mine", "1") != 0)
        return 0;
    errno = 0;
    int got = wal_checkpoint_load(path, &store, &offset), why = errno;
    int same = kv_store_count(&store) == 1 && kv_store_get(&store, "mine") && strcmp(kv_store_get(&store, "mine"), "1") == 0;
    if (got != -1 || why != EBADMSG || !same)
        NOTE("%s: %d, errno %d, store %s", path, got, why, same ? "unchanged" : "changed");
    kv_store_destroy(&store);
    return got == -1 && why == EBADMSG && same;
}
/* Recovery with this checkpoint replays that many records and ends with the store of the whole log. */
static int recovers(const char *checkpoint, int replayed)
{
    struct kv_store store;
    if (kv_store_init(&store) != 0)
        return 0;
    int got = wal_recover_with_checkpoint("x.wal", checkpoint, &store), good = got == replayed && store_is(&store, 1, 8);
    if (!good)
        NOTE("with %s: replayed %d, want %d; %d keys", checkpoint, got, replayed, kv_store_count(&store));
    kv_store_destroy(&store);
    return good;
}
static void quiet(int level, const char *message, void *context)
{
    (void)level, (void)message, (void)context;
}

static void good_checkpoint(void)
{
    struct kv_store store, loaded;
    uint64_t offset = 0;
    uint8_t head[64], bytes[1024];
    write_log("x.wal");
    fill(&store, 0, 5);
    CHECK_EQ(wal_checkpoint_write(&store, "c", ends[6]), 0);
    long size = own_read_file("c", bytes, sizeof bytes);
    REQUIRE(size > 16);
    own_put((uint8_t *)memcpy(head, "CKPT", 4) + 4, ends[6], 8);
    own_put(head + 12, 6, 4);
    CHECK(memcmp(bytes, head, 16) == 0); /* the lesson's head, for a student's loader */
    CHECK(kv_store_init(&loaded) == 0);
    CHECK_EQ(wal_checkpoint_load("c", &loaded, &offset), 0);
    CHECK_EQ(offset, ends[6]);
    CHECK(store_is(&loaded, 0, 5));
    CHECK(kv_store_find(&loaded, "k3") && kv_store_find(&loaded, "k3")->last_write_ts == 103);
    CHECK(recovers("c", 4));
    CHECK_EQ(own_count_files("", NULL, 0), 3); /* the log, the checkpoint and its stamps: no temporary name stayed */
    CHECK(own_file_is("x.wal", log_bytes, ends[10]));
    kv_store_destroy(&store);
    kv_store_destroy(&loaded);
}
static void empty_store_and_offsets(void)
{
    struct kv_store store, loaded;
    uint64_t offset = 5;
    write_log("x.wal");
    REQUIRE(kv_store_init(&store) == 0 && kv_store_init(&loaded) == 0);
    CHECK_EQ(wal_checkpoint_write(&store, "none", 0), 0);
    CHECK_EQ(wal_checkpoint_load("none", &loaded, &offset), 0);
    CHECK_EQ(offset, 0);
    CHECK_EQ(kv_store_count(&loaded), 0);
    CHECK(recovers("none", 10));
    kv_store_destroy(&store);
    fill(&store, 1, 8);
    CHECK_EQ(wal_checkpoint_write(&store, "all", ends[10]), 0); /* everything: nothing to replay */
    CHECK(recovers("all", 0));
    kv_store_destroy(&store);
    kv_store_destroy(&loaded);
}
static void tombstones_and_timestamps_are_kept(void)
{
    struct kv_store store, loaded;
    uint64_t offset;
    struct wal_record late = {.op = WAL_OP_SET, .key = "dead", .key_len = 4, .value = "x", .value_len = 1, .timestamp = 50};
    struct wal_record old = {.op = WAL_OP_SET, .key = "live", .key_len = 4, .value = "zzz", .value_len = 3, .timestamp = 50};
    struct wal_record del = {.op = WAL_OP_DEL, .key = "dead", .key_len = 4, .timestamp = 100};
    REQUIRE(kv_store_init(&store) == 0 && kv_store_init(&loaded) == 0);
    CHECK_EQ(kv_store_set_ts(&store, "live", "1", 100), 0);
    CHECK_EQ(kv_store_set_ts(&store, "dead", "1", 90), 0);
    CHECK_EQ(kv_store_apply(&store, &del), 1);
    CHECK_EQ(wal_checkpoint_write(&store, "c", 0), 0);
    CHECK_EQ(wal_checkpoint_load("c", &loaded, &offset), 0);
    CHECK_EQ(kv_store_count(&loaded), 1);
    CHECK_EQ(kv_store_apply(&loaded, &late), 0);
    CHECK_EQ(kv_store_apply(&loaded, &old), 0);
    CHECK(kv_store_get(&loaded, "dead") == NULL);
    CHECK(kv_store_get(&loaded, "live") && strcmp(kv_store_get(&loaded, "live"), "1") == 0);
    late.timestamp = 101;
    CHECK_EQ(kv_store_apply(&loaded, &late), 1);
    kv_store_destroy(&store);
    kv_store_destroy(&loaded);
}
static void changed_at_every_byte(void)
{
    struct kv_store store;
    uint8_t bytes[2048], copy[2048];
    write_log("x.wal");
    fill(&store, 0, 5);
    CHECK_EQ(wal_checkpoint_write(&store, "c", ends[6]), 0);
    kv_store_destroy(&store);
    long size = own_read_file("c", bytes, sizeof bytes);
    REQUIRE(size > 16);
    for (long at = 0; at < size; at++) {
        memcpy(copy, bytes, (size_t)size);
        copy[at] ^= at % 3 ? 0x01 : 0x80;
        CHECK(own_write_file("c", copy, (size_t)size) == 0); /* beside what belongs to it */
        CHECK(refused("c"));
        CHECK(recovers("c", 10)); /* the whole log instead */
    }
    CHECK(own_write_file("c", bytes, (size_t)size) == 0);
    CHECK(recovers("c", 4)); /* the same bytes undamaged: the copying is not what was refused */
}
static void cut_at_every_byte(void)
{
    struct kv_store store;
    uint8_t bytes[2048], without[256];
    write_log("x.wal");
    fill(&store, 0, 5);
    CHECK_EQ(wal_checkpoint_write(&store, "c", ends[6]), 0);
    kv_store_destroy(&store);
    long size = own_read_file("c", bytes, sizeof bytes);
    CHECK_EQ(size, plain(without, ends[6], 0, 5)); /* a lesson's size */
    for (long cut = 0; cut < size; cut++) {
        CHECK(own_write_file("bad", bytes, (size_t)cut) == 0);
        CHECK(refused("bad") && recovers("bad", 10));
    }
    bytes[size] = 0;
    CHECK(own_write_file("bad", bytes, (size_t)size + 1) == 0); /* a byte too many */
    CHECK(refused("bad"));
}
static void written_by_a_student(void)
{
    struct kv_store store;
    uint8_t bytes[1024];
    uint64_t offset = 0;
    write_log("x.wal");
    size_t size = plain(bytes, ends[6], 0, 5);
    CHECK(own_write_file("c", bytes, size) == 0);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_checkpoint_load("c", &store, &offset), 0);
    CHECK_EQ(offset, ends[6]);
    CHECK(store_is(&store, 0, 5));
    kv_store_destroy(&store);
    CHECK(recovers("c", 4));
    for (size_t cut = 0; cut < size; cut++) {
        CHECK(own_write_file("bad", bytes, cut) == 0);
        CHECK(refused("bad"));
    }
    bytes[size] = 'x'; /* bytes after the last entry that are no trailer */
    CHECK(own_write_file("bad", bytes, size + 1) == 0 && refused("bad"));
    memset(bytes + size, 0, 64);
    CHECK(own_write_file("bad", bytes, size + 64) == 0 && refused("bad"));
    bytes[0] = 'X';
    CHECK(own_write_file("bad", bytes, size) == 0 && refused("bad"));
    bytes[0] = 'C';
    own_put(bytes + 12, 7, 4); /* more keys than there are, and far more than there could be */
    CHECK(own_write_file("bad", bytes, size) == 0 && refused("bad"));
    own_put(bytes + 12, 0xFFFFFFFFu, 4);
    CHECK(own_write_file("bad", bytes, size) == 0 && refused("bad"));
    own_put(bytes + 12, 5, 4);
    CHECK(own_write_file("bad", bytes, size) == 0 && refused("bad"));
    CHECK(recovers("bad", 10));
}
static void offset_that_is_none(void)
{
    struct kv_store store;
    write_log("x.wal");
    fill(&store, 0, 5);
    size_t wrong[] = {1, ends[6] - 1, ends[6] + 1, ends[9] + 5, ends[10] - 1, ends[10] + 1, ends[10] + 100000};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint8_t bytes[256];
        CHECK_EQ(wal_checkpoint_write(&store, "c", wrong[i]), 0);
        CHECK(recovers("c", 10));
        CHECK(own_write_file("plain", bytes, plain(bytes, wrong[i], 0, 5)) == 0);
        CHECK(recovers("plain", 10));
    }
    CHECK_EQ(wal_checkpoint_write(&store, "c", UINT64_MAX), 0);
    CHECK(recovers("c", 10));
    CHECK_EQ(wal_checkpoint_write(&store, "c", ends[6]), 0);
    CHECK(recovers("c", 4));
    kv_store_destroy(&store);
}
static void missing_files(void)
{
    struct kv_store store;
    uint64_t offset = 4711;
    write_log("x.wal");
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_FAILS(wal_checkpoint_load("none", &store, &offset), ENOENT);
    CHECK_EQ(kv_store_count(&store), 0);
    CHECK(recovers("none", 10));
    CHECK_FAILS(wal_checkpoint_write(&store, "no/directory/c", 0), ENOENT);
    CHECK_EQ(own_count_files("", NULL, 0), 1);
    kv_store_destroy(&store);
}
/* The log is damaged behind the checkpoint: what is whole is replayed, as ever. */
static void damaged_tail(void)
{
    struct kv_store store;
    write_log("x.wal");
    fill(&store, 0, 5);
    CHECK_EQ(wal_checkpoint_write(&store, "c", ends[6]), 0);
    CHECK(truncate("x.wal", (off_t)ends[9] + 3) == 0);
    kv_store_destroy(&store);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_recover_with_checkpoint("x.wal", "c", &store), 3);
    CHECK(store_is(&store, 0, 8));
    kv_store_destroy(&store);
}
static void values_too_large(void)
{
    struct kv_store store, loaded;
    uint64_t offset = 0;
    uint8_t before[64 * 1024 + 256];
    char *value = malloc(65537);
    REQUIRE(value != NULL && kv_store_init(&store) == 0);
    memset(value, 'v', 65536);
    value[65535] = '\0';
    CHECK_EQ(kv_store_set(&store, "k", value), 0); /* 65,535: the largest that fits */
    CHECK_EQ(wal_checkpoint_write(&store, "c", 3), 0);
    REQUIRE(kv_store_init(&loaded) == 0);
    CHECK_EQ(wal_checkpoint_load("c", &loaded, &offset), 0);
    CHECK(kv_store_get(&loaded, "k") && strcmp(kv_store_get(&loaded, "k"), value) == 0);
    kv_store_destroy(&loaded);
    long size = own_read_file("c", before, sizeof before);
    REQUIRE(size > 65535);
    value[65535] = 'v';
    value[65536] = '\0';
    CHECK_EQ(kv_store_set(&store, "k", value), 0);
    CHECK_FAILS(wal_checkpoint_write(&store, "c", 4), EMSGSIZE);
    CHECK_FAILS(wal_checkpoint_write(&store, "new", 4), EMSGSIZE);
    CHECK(own_file_is("c", before, (size_t)size)); /* the old one is untouched */
    CHECK_EQ(own_count_files("", NULL, 0), 2);     /* with its stamps, and nothing else was written */
    CHECK(strcmp(kv_store_get(&store, "k"), value) == 0);
    kv_store_destroy(&store);
    free(value);
}

int main(void)
{
    logship_set_log(quiet, NULL);
    CASE("a good checkpoint: the lesson's head, loads, recovery replays the tail", good_checkpoint);
    CASE("an empty store, offset 0, offset at the end", empty_store_and_offsets);
    CASE("tombstones and timestamps survive", tombstones_and_timestamps_are_kept);
    CASE("changed at every byte: refused, store unchanged, whole log instead", changed_at_every_byte);
    CASE("cut at every byte: the same", cut_at_every_byte);
    CASE("written by a student's code, without trailer", written_by_a_student);
    CASE("an offset past the log or inside a record: whole log instead", offset_that_is_none);
    CASE("no checkpoint, no directory", missing_files);
    CASE("the log torn behind the checkpoint", damaged_tail);
    CASE("a value over 65,535 bytes: EMSGSIZE, nothing written", values_too_large);
    return own_end();
}
