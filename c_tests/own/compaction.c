/* A log whose first records are dropped, and one whose last are cut: open writers go on, LSNs are what they were,
 * followers are caught up from what is left or get the checkpoint, and a follower with another past finds its way back. */
#include "wire.h"
#include "logship.h"
#include <sys/wait.h>

enum { RECORDS = 24 };

static struct replication_config config;
static struct wal_writer writer;
static uint8_t log_bytes[8192];
static size_t ends[RECORDS + 1]; /* where record n ends in the log, from 1 */
static char lines[16384];        /* what was logged */

static void remember(int level, const char *message, void *context)
{
    size_t used = strlen(lines);
    (void)context;
    snprintf(lines + used, sizeof lines - used, "%d %s\n", level, message);
}
/* Records 1..RECORDS; sizes differ, so that a wrong offset shows. Every key is its record's own. */
static void make_log(void)
{
    for (int n = 1; n <= RECORDS; n++) {
        char key[16], value[40];
        snprintf(key, sizeof key, "key%02d", n);
        snprintf(value, sizeof value, "value%02d%.*s", n, n, "abcdefghijklmnopqrstuvwxyz");
        ends[n] = ends[n - 1] + own_set(log_bytes + ends[n - 1], key, value, (uint64_t)(1000 + n));
    }
}
static const uint8_t *rec(int n)
{
    return log_bytes + ends[n - 1];
}
static size_t len(int n)
{
    return ends[n] - ends[n - 1];
}
static int append_to(struct wal_writer *to, int n)
{
    struct wal_record record;
    REQUIRE(wal_record_decode(rec(n), len(n), &record) == 0);
    int result = wal_append(to, &record);
    wal_record_free(&record);
    return result;
}
/* A store of records 1..last of the log, and nothing else. */
static void store_has(const struct kv_store *store, int last)
{
    CHECK_EQ(kv_store_count(store), last);
    for (int n = 1; n <= last; n++) {
        struct wal_record record;
        REQUIRE(wal_record_decode(rec(n), len(n), &record) == 0);
        const char *value = kv_store_get(store, record.key);
        CHECK(value && strcmp(value, record.value) == 0);
        wal_record_free(&record);
    }
}
/* Recovery of the log, with this checkpoint, replays so many records and gives the store of records 1..last. */
static void recovers(const char *wal, const char *checkpoint, int replayed, int last)
{
    struct kv_store store;
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(checkpoint ? wal_recover_with_checkpoint(wal, checkpoint, &store) : wal_recover(wal, &store), replayed);
    store_has(&store, last);
    kv_store_destroy(&store);
}
/* Writes the checkpoint of everything that `writer` has appended. */
static void checkpoint_now(const char *wal, const char *checkpoint)
{
    struct kv_store store;
    REQUIRE(kv_store_init(&store) == 0 && wal_recover(wal, &store) >= 0);
    REQUIRE(wal_checkpoint_write(&store, checkpoint, writer.offset) == 0);
    kv_store_destroy(&store);
}
/* leader.wal with records 1..covered in c.ckpt, and the others up to `records` behind it. */
static void start(int covered, int records)
{
    REQUIRE(wal_open(&writer, "leader.wal") == 0);
    for (int n = 1; n <= covered; n++)
        REQUIRE(append_to(&writer, n) == 0);
    if (covered > 0)
        checkpoint_now("leader.wal", "c.ckpt");
    for (int n = covered + 1; n <= records; n++)
        REQUIRE(append_to(&writer, n) == 0);
    REQUIRE(repl_config_init(&config) == 0);
    config.follower_count = 1;
    CHECK_EQ(repl_set_wal(&config, "leader.wal"), 0);
}
/* Bytes in front of the first record of a log that begins later. */
enum { MARKER = 40 };
static int log_is(const char *path, int base, int last)
{
    static uint8_t bytes[MARKER + sizeof log_bytes];
    size_t front = base > 0 ? MARKER : 0, size = ends[last] - ends[base];
    return own_read_file(path, bytes, sizeof bytes) == (long)(front + size) &&
           (front == 0 || memcmp(bytes, "LSWB\0\0\0\0", 8) == 0) && memcmp(bytes + front, log_bytes + ends[base], size) == 0;
}
/* Gives a checkpoint, and what belongs to it, another name. */
static void rename_checkpoint(const char *from, const char *to)
{
    char prefix[64], stamps[300], name[400];
    snprintf(prefix, sizeof prefix, "%s.stamps-", from);
    REQUIRE(own_count_files(prefix, stamps, sizeof stamps) == 1);
    snprintf(name, sizeof name, "%s%s", to, stamps + strlen(from));
    REQUIRE(rename(stamps, name) == 0 && rename(from, to) == 0);
}

/* ---- the writer that has the log open ---- */

static ino_t inode_of(int fd, const char *path)
{
    struct stat st;
    REQUIRE((path ? stat(path, &st) : fstat(fd, &st)) == 0);
    return st.st_ino;
}
static void open_writer(void)
{
    start(10, 12);
    struct wal_writer copy = writer;
    int fd = writer.fd, fds = own_count_fds(), flags = fcntl(fd, F_GETFL), fd_flags = fcntl(fd, F_GETFD);
    ino_t before = inode_of(fd, NULL);
    CHECK_EQ(logship_wal_compact("leader.wal", "c.ckpt"), 9);
    CHECK_EQ(writer.fd, fd);
    CHECK(inode_of(fd, NULL) != before && inode_of(fd, NULL) == inode_of(-1, "leader.wal"));
    CHECK(fcntl(fd, F_GETFL) == flags && fcntl(fd, F_GETFD) == fd_flags);
    CHECK_EQ(own_count_fds(), fds);
    CHECK(log_is("leader.wal", 9, 12));
    CHECK_EQ(logship_last_lsn(&writer), 12);
    CHECK_EQ(append_to(&writer, 13), 0);
    CHECK_EQ(writer.offset, MARKER + ends[13] - ends[9]);
    CHECK_EQ(append_to(&copy, 14), 0); /* a copy of the struct, made before */
    CHECK_EQ(logship_last_lsn(&copy), 14);
    CHECK_EQ(logship_last_lsn(&writer), 14);
    CHECK(log_is("leader.wal", 9, 14));
    CHECK_EQ(logship_wal_compact("leader.wal", "c.ckpt"), 0); /* nothing more that it covers */
    recovers("leader.wal", "c.ckpt", 4, 14);
    CHECK_EQ(wal_close(&writer), 0);
}
static void again_and_again(void)
{
    struct kv_store store;
    REQUIRE(wal_open(&writer, "leader.wal") == 0);
    REQUIRE(kv_store_init(&store) == 0);
    for (int n = 1; n <= RECORDS; n++) {
        struct wal_record record;
        REQUIRE(wal_record_decode(rec(n), len(n), &record) == 0);
        CHECK_EQ(kv_store_apply(&store, &record), 1);
        wal_record_free(&record);
        CHECK_EQ(append_to(&writer, n), 0);
        CHECK_EQ(logship_last_lsn(&writer), n);
        CHECK_EQ(wal_checkpoint_write(&store, "c.ckpt", writer.offset), 0);
        CHECK_EQ(logship_wal_compact("leader.wal", "c.ckpt"), n > 1);
        CHECK(log_is("leader.wal", n - 1, n));
        CHECK_EQ(logship_last_lsn(&writer), n);
        if (n % 5 == 0) { /* and from a process that begins anew */
            CHECK_EQ(wal_close(&writer), 0);
            CHECK_EQ(wal_open(&writer, "leader.wal"), 0);
            CHECK_EQ(logship_last_lsn(&writer), n);
            recovers("leader.wal", "c.ckpt", 0, n);
        }
    }
    kv_store_destroy(&store);
    CHECK_EQ(wal_close(&writer), 0);
    CHECK_EQ(own_count_files("", NULL, 0), 4); /* the log, its .meta, the checkpoint and its stamps */
}
/* Opened twice: both go on in the new file, also when it has become just as long as the old one was. */
static void two_writers_in_order(int order)
{
    struct wal_writer second;
    uint8_t bytes[64];
    struct kv_store store;
    struct wal_record record = {.op = WAL_OP_SET, .key = "k", .key_len = 1, .value = "v", .value_len = 1, .timestamp = 5};
    size_t size = own_set(bytes, "k", "v", 5);
    REQUIRE(wal_open(&writer, "leader.wal") == 0 && kv_store_init(&store) == 0);
    for (int n = 1; n <= 10; n++)
        REQUIRE(wal_append(&writer, &record) == 0);
    CHECK_EQ(wal_recover("leader.wal", &store), 10);
    CHECK_EQ(wal_checkpoint_write(&store, "c.ckpt", writer.offset), 0);
    REQUIRE(wal_open(&second, "leader.wal") == 0);
    CHECK_EQ(logship_last_lsn(&second), 10);
    CHECK_EQ(logship_wal_compact("leader.wal", "c.ckpt"), 9);
    CHECK_EQ(inode_of(writer.fd, NULL), inode_of(-1, "leader.wal"));
    CHECK_EQ(inode_of(second.fd, NULL), inode_of(-1, "leader.wal"));
    struct wal_writer *first = order ? &second : &writer, *other = order ? &writer : &second;
    for (int n = 11; n <= 19; n++)
        CHECK_EQ(wal_append(first, &record), 0);
    CHECK_EQ(own_file_size("leader.wal"), MARKER + 10 * (long long)size);
    CHECK_EQ(logship_last_lsn(other), 19);
    CHECK_EQ(wal_append(other, &record), 0);
    CHECK_EQ(logship_last_lsn(&writer), 20);
    CHECK_EQ(logship_last_lsn(&second), 20);
    /* The same with the end: cut, and as long as before. */
    CHECK_EQ(logship_wal_truncate_to("leader.wal", 15), 0);
    record.key = "long", record.key_len = 4, record.value_len = 0; /* three more bytes, one less */
    record.value = "", record.timestamp = 6;
    for (int n = 0; n < 5; n++)
        CHECK_EQ(wal_append(first, &record), 0);
    CHECK_EQ(logship_last_lsn(other), 20);
    CHECK_EQ(wal_append(other, &record), 0);
    CHECK_EQ(logship_last_lsn(&writer), 21);
    CHECK_EQ(logship_last_lsn(&second), 21);
    CHECK_EQ(wal_close(&second), 0);
    CHECK_EQ(wal_close(&writer), 0);
    kv_store_destroy(&store);
}
static void two_writers(void)
{
    two_writers_in_order(0);
}
static void two_writers_the_other_way(void)
{
    two_writers_in_order(1);
}
/* A program that has closed the log's descriptor itself has something else under the number by now. */
static void descriptor_of_something_else(void)
{
    char text[8] = {0};
    start(10, 10);
    int fd = writer.fd;
    close(fd);
    int other = open("notes", O_RDWR | O_CREAT, 0644);
    REQUIRE(other == fd && write(other, "mine", 4) == 4);
    CHECK_EQ(logship_wal_compact("leader.wal", "c.ckpt"), 9);
    CHECK_EQ(inode_of(fd, NULL), inode_of(-1, "notes"));
    CHECK(pread(fd, text, 4, 0) == 4 && strcmp(text, "mine") == 0);
    close(fd);
}

/* ---- arguments and files that can't be right ---- */

static void refusals(void)
{
    struct kv_store store;
    uint8_t bytes[8192];
    start(10, 12);
    CHECK_FAILS(logship_wal_compact(NULL, "c.ckpt"), EINVAL);
    CHECK_FAILS(logship_wal_compact("leader.wal", NULL), EINVAL);
    CHECK_FAILS(logship_wal_compact("", "c.ckpt"), EINVAL);
    CHECK_FAILS(logship_wal_compact("no.wal", "c.ckpt"), ENOENT);
    CHECK_FAILS(logship_wal_compact("leader.wal", "no.ckpt"), ENOENT);
    CHECK_FAILS(repl_compact(NULL, "c.ckpt", NULL), EINVAL);
    CHECK_FAILS(repl_compact(&config, NULL, NULL), EINVAL);
    CHECK_FAILS(repl_compact(&config, "no.ckpt", NULL), ENOENT);
    CHECK_FAILS(logship_wal_truncate_to(NULL, 1), EINVAL);
    CHECK_FAILS(logship_wal_truncate_to("no.wal", 1), ENOENT);
    CHECK_FAILS(logship_wal_truncate_to("leader.wal", 13), ERANGE);
    CHECK_EQ(own_file_size("no.wal"), -1);

    long size = own_read_file("c.ckpt", bytes, sizeof bytes);
    REQUIRE(size > 0);
    for (long at = 0; at < size; at += 5) {
        bytes[at] ^= 0x04;
        REQUIRE(own_write_file("c.ckpt", bytes, (size_t)size) == 0);
        CHECK_FAILS(logship_wal_compact("leader.wal", "c.ckpt"), EBADMSG);
        bytes[at] ^= 0x04;
    }
    REQUIRE(own_write_file("c.ckpt", bytes, (size_t)size) == 0);
    /* A lesson's: it says an offset and no LSN, and nothing could be recovered from it afterwards. */
    REQUIRE(own_write_file("d.ckpt", bytes, (size_t)size) == 0);
    CHECK_FAILS(logship_wal_compact("leader.wal", "d.ckpt"), EBADMSG);
    /* One whose writer could not know the LSN: no log has a record that ends there. */
    REQUIRE(kv_store_init(&store) == 0 && wal_recover("leader.wal", &store) == 12);
    CHECK_EQ(wal_checkpoint_write(&store, "d.ckpt", ends[11] - 1), 0);
    CHECK_FAILS(logship_wal_compact("leader.wal", "d.ckpt"), EBADMSG);
    /* Of another log. */
    struct wal_writer other;
    struct wal_record record = {.op = WAL_OP_SET, .key = "k", .key_len = 1, .value = "v", .value_len = 1, .timestamp = 5};
    REQUIRE(wal_open(&other, "other.wal") == 0);
    for (int n = 1; n <= 11; n++)
        CHECK_EQ(wal_append(&other, &record), 0);
    CHECK_EQ(wal_checkpoint_write(&store, "d.ckpt", other.offset), 0);
    CHECK_FAILS(logship_wal_compact("leader.wal", "d.ckpt"), EBADMSG);
    CHECK_EQ(wal_close(&other), 0);
    CHECK(log_is("leader.wal", 0, 12)); /* nothing of all that has changed it */
    CHECK_EQ(own_count_files("leader.wal.", NULL, 0), 0);
    /* A damaged log is not compacted: what stays must be whole. */
    CHECK_EQ(wal_close(&writer), 0);
    memcpy(bytes, log_bytes, ends[12]);
    bytes[ends[11] - 3] ^= 1;
    REQUIRE(own_write_file("leader.wal", bytes, ends[12]) == 0);
    CHECK_FAILS(logship_wal_compact("leader.wal", "c.ckpt"), EBADMSG);
    CHECK(own_file_is("leader.wal", bytes, ends[12]));
    kv_store_destroy(&store);
}
/* What can be recovered without a checkpoint, with one that is damaged, and with the one that a snapshot leaves. */
static void recovery(void)
{
    struct kv_store store;
    start(10, 12);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(logship_wal_compact("leader.wal", "c.ckpt"), 9);
    CHECK_FAILS(wal_recover("leader.wal", &store), EBADMSG);
    CHECK_FAILS(wal_recover_with_checkpoint("leader.wal", "no.ckpt", &store), EBADMSG);
    REQUIRE(own_write_file("d.ckpt", "CKPT", 4) == 0);
    CHECK_FAILS(wal_recover_with_checkpoint("leader.wal", "d.ckpt", &store), EBADMSG);
    CHECK_EQ(kv_store_count(&store), 0);
    recovers("leader.wal", "c.ckpt", 2, 12);
    rename_checkpoint("c.ckpt", "leader.wal.ckpt");
    recovers("leader.wal", NULL, 2, 12);
    recovers("leader.wal", "no.ckpt", 2, 12);
    recovers("leader.wal", "d.ckpt", 2, 12);
    kv_store_destroy(&store);
    CHECK_EQ(wal_close(&writer), 0);
}
/* The checkpoint of a follower that has handed out some of the records which were stored together. */
static void checkpoint_between_grouped_receives(void)
{
    uint8_t frames[1024];
    size_t size = own_position(frames, 1);
    int leader, follower;
    struct kv_store store;
    for (int n = 1; n <= 5; n++)
        size += own_frame(frames + size, rec(n), len(n));
    REQUIRE(own_pair(&leader, &follower, 0) == 0 && kv_store_init(&store) == 0);
    REQUIRE(wal_open(&writer, "follower.wal") == 0);
    CHECK_EQ(own_put_all(leader, frames, size), 0);
    REQUIRE(own_settle(follower, (int)size));
    for (int n = 1; n <= 5; n++) {
        CHECK_EQ(repl_receive_record(follower, &writer, &store), 0);
        CHECK_EQ(logship_last_lsn(&writer), n);
        store_has(&store, n);
        CHECK_EQ(wal_checkpoint_write(&store, "c.ckpt", writer.offset), 0);
        recovers("follower.wal", "c.ckpt", 5 - n, 5);
        if (n == 3) { /* and what it does not cover stays in the log */
            CHECK_EQ(logship_wal_compact("follower.wal", "c.ckpt"), 2);
            recovers("follower.wal", "c.ckpt", 2, 5);
        }
    }
    close(leader), close(follower);
    CHECK_EQ(wal_close(&writer), 0);
    kv_store_destroy(&store);
}

/* The leader's log and the follower's are open in one process, are equally long and have the same records. */
static void checkpoint_beside_a_log_of_that_length(void)
{
    uint8_t frames[1024];
    size_t size = own_position(frames, 1);
    int leader, follower;
    struct wal_writer own;
    struct kv_store store, empty;
    REQUIRE(wal_open(&own, "leader.wal") == 0 && wal_open(&writer, "follower.wal") == 0);
    for (int n = 1; n <= 5; n++) {
        CHECK_EQ(append_to(&own, n), 0);
        size += own_frame(frames + size, rec(n), len(n));
    }
    REQUIRE(own_pair(&leader, &follower, 0) == 0 && kv_store_init(&store) == 0 && kv_store_init(&empty) == 0);
    CHECK_EQ(own_put_all(leader, frames, size), 0);
    REQUIRE(own_settle(follower, (int)size));
    for (int n = 1; n <= 5; n++) {
        CHECK_EQ(repl_receive_record(follower, &writer, &store), 0);
        CHECK_EQ(writer.offset, own.offset);
        CHECK_EQ(wal_checkpoint_write(&store, "c.ckpt", writer.offset), 0);
        recovers("follower.wal", "c.ckpt", 5 - n, 5);
        recovers("leader.wal", "c.ckpt", 5 - n, 5); /* its records are the same */
        if (n == 3)                                 /* a key of the program's own changes nothing of that */
            CHECK_EQ(kv_store_set(&store, "key01", kv_store_get(&store, "key01")), 0);
    }
    /* A store that was given none of it. */
    CHECK_EQ(wal_checkpoint_write(&empty, "c.ckpt", writer.offset), 0);
    recovers("follower.wal", "c.ckpt", 5, 5);
    close(leader), close(follower);
    CHECK_EQ(wal_close(&writer), 0);
    CHECK_EQ(wal_close(&own), 0);
    kv_store_destroy(&store);
    kv_store_destroy(&empty);
}

/* ---- what is kept ---- */

static void retention(void)
{
    int peer;
    start(20, RECORDS);
    struct logship_retention keep = {.records = 10};
    CHECK_EQ(repl_compact(&config, "c.ckpt", &keep), 14);
    CHECK(log_is("leader.wal", 14, RECORDS));
    keep = (struct logship_retention){.bytes = ends[RECORDS] - ends[16] - 1};
    CHECK_EQ(repl_compact(&config, "c.ckpt", &keep), 2);
    CHECK(log_is("leader.wal", 16, RECORDS));
    /* A follower that has acknowledged 17 is waited for if what it lacks is within the limit. */
    REQUIRE(own_pair(&config.followers[0].fd, &peer, 0) == 0);
    config.followers[0].online = 1;
    CHECK_EQ(repl_ship_record(&config, rec(RECORDS), len(RECORDS)), 1);
    own_send_ack(peer, 17, REPL_ACK_OK, 0);
    CHECK_FAILS(repl_wait_quorum(&config, RECORDS, 50), ETIMEDOUT); /* that reads it */
    keep = (struct logship_retention){.follower_bytes = ends[RECORDS] - ends[17]};
    CHECK_EQ(repl_compact(&config, "c.ckpt", &keep), 1);
    CHECK(log_is("leader.wal", 17, RECORDS));
    keep.follower_bytes--;
    CHECK_EQ(repl_compact(&config, "c.ckpt", &keep), 2); /* up to record 19, which the checkpoint covers with 20 */
    CHECK(log_is("leader.wal", 19, RECORDS));
    CHECK_EQ(repl_compact(&config, "c.ckpt", NULL), 0);
    recovers("leader.wal", "c.ckpt", RECORDS - 20, RECORDS);
    close(peer);
    CHECK_EQ(wal_close(&writer), 0);
}
/* One that has acknowledged nothing yet is a follower too. */
static void retention_for_a_new_follower(void)
{
    int peer;
    start(20, RECORDS);
    REQUIRE(own_pair(&config.followers[0].fd, &peer, 0) == 0);
    config.followers[0].online = 1;
    struct logship_retention keep = {.follower_bytes = ends[RECORDS]};
    CHECK_EQ(repl_compact(&config, "c.ckpt", &keep), 0);
    CHECK(log_is("leader.wal", 0, RECORDS));
    keep.follower_bytes--;
    CHECK_EQ(repl_compact(&config, "c.ckpt", &keep), 19);
    close(peer);
    CHECK_EQ(wal_close(&writer), 0);
}

/* ---- catching up across a compaction ---- */

static int connect_slot(void)
{
    int peer;
    REQUIRE(own_pair(&config.followers[0].fd, &peer, 0) == 0);
    config.followers[0].online = 0;
    return peer;
}
static struct repl_follower_status status(void)
{
    struct repl_follower_status out;
    REQUIRE(repl_get_follower_status(&config, 0, &out) == 0);
    return out;
}
static void plain_follower(void)
{
    int peer;
    start(10, 14);
    CHECK_EQ(logship_wal_compact("leader.wal", "c.ckpt"), 9);
    for (int has = 9; has <= 14; has++) {
        peer = connect_slot();
        CHECK_EQ(repl_catch_up(&config, 0, (uint64_t)has), 14 - has);
        CHECK_EQ(config.followers[0].online, 1);
        for (int n = has + 1; n <= 14; n++)
            CHECK(own_frame_is(peer, rec(n), len(n)));
        CHECK(own_quiet(config.followers[0].fd, peer));
        close(config.followers[0].fd), close(peer);
        config.followers[0].online = 0, config.followers[0].fd = -1;
    }
    CHECK_EQ(status().partial_resyncs, 6);
    for (int has = 0; has <= 8; has += 4)
        for (int set = 0; set <= 1; set++) { /* it can take no checkpoint: it would not know what it is */
            if (set)
                CHECK_EQ(repl_set_checkpoint(&config, "c.ckpt"), 0);
            peer = connect_slot();
            CHECK_FAILS(repl_catch_up(&config, 0, (uint64_t)has), ENODATA);
            CHECK_EQ(config.followers[0].online, 0);
            CHECK(config.followers[0].fd >= 0 && own_quiet(config.followers[0].fd, peer)); /* kept, nothing was sent */
            close(config.followers[0].fd), close(peer);
            config.followers[0].fd = -1;
        }
    CHECK_EQ(status().refusals, 6);
    CHECK_EQ(status().full_resyncs, 0);
    CHECK_EQ(status().last_full_resync[0], 0);
    CHECK_EQ(wal_close(&writer), 0);
}
/* The follower's process: joins, follows until its log ends at `last` (or once fails with `why`), and leaves. */
static void follow(uint16_t port, int last, int by_hand, int why)
{
    struct wal_writer log, twin;
    struct kv_store store;
    REQUIRE(wal_open(&log, "follower.wal") == 0 && wal_open(&twin, "follower.wal") == 0 && kv_store_init(&store) == 0);
    ino_t inode = inode_of(log.fd, NULL); /* a snapshot up to 10 makes it another */
    REQUIRE(wal_recover("follower.wal", &store) >= 0);
    REQUIRE(repl_set_leader("127.0.0.1", port) == 0 && logship_set_self(by_hand ? 1 : 0) == 0); /* else it is a plain one */
    int fd = repl_follower_rejoin(-1, (uint64_t)logship_last_lsn(&log)), result = 0;
    REQUIRE(fd >= 0);
    while (result == 0 && (why || logship_last_lsn(&log) < last)) {
        result = by_hand ? repl_receive_record(fd, &log, &store) : logship_follow(fd, &log, &store);
        if (by_hand && result == 0)
            CHECK_EQ(repl_send_ack(fd, (uint64_t)logship_last_lsn(&log), REPL_ACK_OK), 0);
    }
    if (why) {
        CHECK_EQ(result, -1);
        CHECK_EQ(errno, why);
    } else {
        CHECK_EQ(result, 0);
        CHECK_EQ(logship_last_lsn(&log), last);
        CHECK_EQ(logship_last_lsn(&twin), last); /* the other writer of this process is in the new file too */
        CHECK_EQ(inode_of(twin.fd, NULL), inode_of(-1, "follower.wal"));
        store_has(&store, last);
        recovers("follower.wal", "no.ckpt", inode_of(-1, "follower.wal") == inode ? last : last - 10, last);
    }
    close(fd);
    CHECK_EQ(wal_close(&twin), 0);
    CHECK_EQ(wal_close(&log), 0);
    kv_store_destroy(&store);
}
static void write_follower_log(int count, int differs)
{
    uint8_t bytes[sizeof log_bytes];
    memcpy(bytes, log_bytes, ends[count]);
    for (int n = differs; differs && n <= count; n++) { /* other records, under the same numbers, as long as ours */
        bytes[ends[n] - 8] ^= 1;
        own_seal(bytes + ends[n - 1], len(n));
    }
    unlink("follower.wal"), unlink("follower.wal.meta"); /* a new log, not another one under that name */
    REQUIRE(own_write_file("follower.wal", bytes, ends[count]) == 0);
}
/* One rejoin: what the leader's catch-up returns, or errno if it fails. */
static int rejoin(int listener, uint16_t port, int last, int by_hand, int why)
{
    uint64_t lsn;
    int index, result, saved;
    pid_t child = own_fork();
    if (child == 0) {
        close(listener);
        follow(port, last, by_hand, why);
        own_leave();
    }
    REQUIRE(repl_accept_rejoin(&config, listener, &index, &lsn) == 0);
    errno = 0;
    result = repl_catch_up(&config, index, lsn);
    saved = errno;
    if (result < 0 && config.followers[0].fd >= 0) {
        close(config.followers[0].fd);
        config.followers[0].fd = -1;
    }
    CHECK_EQ(own_reap(child), 0);
    config.followers[0].online = 0;
    return result < 0 ? -saved : result;
}
static int step = 4; /* from one follower's LSN to the next one's */
static void logship_follower(void)
{
    uint16_t port;
    int listener = own_listen(&port), full = 0;
    REQUIRE(listener >= 0);
    start(10, 14);
    CHECK_EQ(logship_wal_compact("leader.wal", "c.ckpt"), 9);
    for (int has = 0; has <= 12; has += step)
        for (int by_hand = 0; by_hand <= 1; by_hand++) {
            if (has < 9) { /* nothing can be sent before the program says which checkpoint */
                config.followers[0].fd = -1;
                write_follower_log(has, 0);
                REQUIRE(repl_config_init(&config) == 0 && repl_set_wal(&config, "leader.wal") == 0);
                config.follower_count = 1;
                CHECK_EQ(rejoin(listener, port, 14, by_hand, ENOTCONN), -ENODATA);
                CHECK_EQ(status().refusals, 1);
                CHECK(log_is("follower.wal", 0, has));
            }
            CHECK_EQ(repl_set_checkpoint(&config, "c.ckpt"), 0);
            write_follower_log(has, 0);
            unlink("follower.wal.meta"), unlink("follower.wal.ckpt");
            full += has < 9;
            uint64_t before = status().full_resyncs, partial = status().partial_resyncs;
            CHECK_EQ(rejoin(listener, port, 14, by_hand, 0), has < 9 ? 4 : 14 - has); /* records; the snapshot is none */
            CHECK_EQ(status().full_resyncs, before + (has < 9));
            CHECK_EQ(status().partial_resyncs, partial + (has >= 9));
            CHECK_EQ(log_is("follower.wal", has < 9 ? 9 : 0, 14), 1);
            if (has < 9)
                CHECK(strstr(status().last_full_resync, "9") != NULL); /* the base */
        }
    CHECK_EQ(full, step == 4 ? 6 : 2);
    CHECK_EQ(wal_close(&writer), 0);
    close(listener);
}

/* ---- the way out for a follower that is refused ---- */

/* The log up to the last record that both have, and from there the leader's. */
static void cut_and_come_back(int has, int differs, int refused_with)
{
    uint16_t port;
    char text[64];
    int listener = own_listen(&port);
    REQUIRE(listener >= 0);
    start(0, 14);
    write_follower_log(has, differs);
    lines[0] = '\0';
    CHECK_EQ(rejoin(listener, port, 14, 0, refused_with == ESTALE ? ESTALE : ENOTCONN), -refused_with);
    CHECK_EQ(status().refusals, 1);
    CHECK_EQ(own_file_size("follower.wal"), (long long)ends[has]);
    /* The leader's log lines say both LSNs. The follower's has CRC and history of both sides too, see below. */
    snprintf(text, sizeof text, "LSN %d", has);
    CHECK(strstr(lines, text) != NULL && strstr(lines, "LSN 14") != NULL);
    uint64_t partial = status().partial_resyncs;
    CHECK_EQ(logship_wal_truncate_to("follower.wal", (uint64_t)(differs - 1)), 0);
    CHECK(log_is("follower.wal", 0, differs - 1));
    CHECK_EQ(own_file_size("follower.wal.cut-1"), (long long)(ends[has] - ends[differs - 1]));
    CHECK_EQ(rejoin(listener, port, 14, 0, 0), 14 - (differs - 1));
    CHECK(log_is("follower.wal", 0, 14));
    CHECK_EQ(status().refusals, 1);
    CHECK_EQ(status().partial_resyncs, partial + 1);
    CHECK_EQ(status().full_resyncs, 0);
    CHECK_EQ(wal_close(&writer), 0);
    close(listener);
}
static void out_of_estale(void)
{
    cut_and_come_back(12, 9, ESTALE);
}
static void out_of_estale_from_the_first_record(void)
{
    cut_and_come_back(14, 1, ESTALE);
}
static void out_of_erange(void)
{
    cut_and_come_back(20, 13, ERANGE);
}
/* What the follower itself says: LSN, CRC and history of both. */
static void both_sides_in_one_line(void)
{
    uint8_t frame[32] = {0x80, 0, 0, 25, 2}, *at = frame + 5; /* CHECK */
    char want[256];
    int leader, follower;
    struct kv_store store;
    write_follower_log(12, 9);
    REQUIRE(wal_open(&writer, "follower.wal") == 0 && kv_store_init(&store) == 0);
    REQUIRE(own_pair(&leader, &follower, 0) == 0);
    at = own_put_be(own_put_be(own_put_be(at, 10, 8), 0x1234abcd, 4), 0x1122334455667788u, 8);
    at = own_put_be(at, own_crc32(frame + 4, 21), 4);
    CHECK_EQ(own_put_all(leader, frame, (size_t)(at - frame)), 0);
    lines[0] = '\0';
    CHECK_FAILS(repl_receive_record(follower, &writer, &store), ESTALE);
    uint8_t record[128];
    memcpy(record, rec(10), len(10));
    record[len(10) - 8] ^= 1;
    uint32_t crc = own_crc32(record + 4, len(10) - 4);
    snprintf(want, sizeof want, "record 10 has CRC 1234abcd and history 1122334455667788, this log's %08x and ", crc);
    CHECK(strstr(lines, want) != NULL);
    CHECK(strstr(lines, "last LSN 12") != NULL);
    close(leader), close(follower);
    kv_store_destroy(&store);
    CHECK_EQ(wal_close(&writer), 0);
}
/* To every LSN, with a writer that is open meanwhile; the cut bytes are kept, each time under a new name. */
static void cut_everywhere(void)
{
    char name[32];
    for (int base = 0; base <= 9; base += 9)
        for (int lsn = 0, cuts = 0; lsn <= 15; lsn++) {
            unlink("leader.wal"), unlink("leader.wal.meta");
            start(10, 14);
            if (base)
                CHECK_EQ(logship_wal_compact("leader.wal", "c.ckpt"), 9);
            if (lsn > 14 || (base && lsn <= base)) {
                CHECK_FAILS(logship_wal_truncate_to("leader.wal", (uint64_t)lsn), ERANGE);
                CHECK(log_is("leader.wal", base, 14));
            } else {
                CHECK_EQ(logship_wal_truncate_to("leader.wal", (uint64_t)lsn), 0);
                CHECK(log_is("leader.wal", base, lsn));
                if (lsn < 14) {
                    snprintf(name, sizeof name, "leader.wal.cut-%d", ++cuts);
                    CHECK(own_file_is(name, log_bytes + ends[lsn], ends[14] - ends[lsn]));
                }
                CHECK_EQ(logship_last_lsn(&writer), lsn);
                CHECK_EQ(append_to(&writer, lsn + 1), 0);
                CHECK_EQ(logship_last_lsn(&writer), lsn + 1);
                CHECK(log_is("leader.wal", base, lsn + 1));
                if (lsn >= 10)
                    recovers("leader.wal", "c.ckpt", lsn + 1 - 10, lsn + 1);
            }
            CHECK_EQ(wal_close(&writer), 0);
            while (lsn == 15 && cuts > 0) {
                snprintf(name, sizeof name, "leader.wal.cut-%d", cuts--);
                unlink(name);
            }
        }
}
/* Records that were stored together and not handed out are cut with the others. */
static void cut_between_grouped_receives(void)
{
    uint8_t frames[1024];
    int leader, follower;
    struct kv_store store;
    for (int by_hand = 0; by_hand <= 1; by_hand++) {
        size_t size = own_position(frames, 1);
        for (int n = 1; n <= 5; n++)
            size += own_frame(frames + size, rec(n), len(n));
        unlink("follower.wal");
        REQUIRE(own_pair(&leader, &follower, 0) == 0 && kv_store_init(&store) == 0);
        REQUIRE(wal_open(&writer, "follower.wal") == 0);
        CHECK_EQ(own_put_all(leader, frames, size), 0);
        REQUIRE(own_settle(follower, (int)size));
        CHECK_EQ(by_hand ? repl_receive_record(follower, &writer, &store) : logship_follow(follower, &writer, &store), 0);
        CHECK_EQ(logship_last_lsn(&writer), 1);
        CHECK_EQ(logship_wal_truncate_to("follower.wal", 2), 0);
        CHECK_EQ(logship_last_lsn(&writer), 2); /* of the log as it is: nothing is handed out any more */
        size = own_frame(frames, rec(3), len(3)); /* on the next connection */
        close(leader), close(follower);
        REQUIRE(own_pair(&leader, &follower, 0) == 0);
        CHECK_EQ(own_put_all(leader, frames, size), 0);
        CHECK_EQ(by_hand ? repl_receive_record(follower, &writer, &store) : logship_follow(follower, &writer, &store), 0);
        CHECK_EQ(logship_last_lsn(&writer), 3);
        CHECK(log_is("follower.wal", 0, 3));
        CHECK_EQ(wal_close(&writer), 0);
        close(leader), close(follower);
        kv_store_destroy(&store);
    }
}

/* ---- nothing is left in use ---- */

static char self[4096];

/* What is run under valgrind: an open writer, a compaction, a snapshot taken in, a cut. */
static void everything(void)
{
    step = 12;
    plain_follower();
    unlink("leader.wal"), unlink("leader.wal.meta");
    logship_follower();
    CHECK_EQ(logship_wal_truncate_to("follower.wal", 12), 0);
}
static void nothing_in_use(void)
{
    char command[5000], line[256];
    int clean = 0, runs = 0;
#ifdef __SANITIZE_ADDRESS__
    own_skip("built with a sanitizer, which valgrind can't run");
#endif
    if (system("valgrind --version >/dev/null 2>&1") != 0)
        own_skip("valgrind is not installed");
    snprintf(command, sizeof command, "valgrind --leak-check=full --error-exitcode=99 '%s' everything 2>&1", self);
    FILE *out = popen(command, "r");
    REQUIRE(out != NULL);
    while (fgets(line, sizeof line, out)) {
        runs += strstr(line, "in use at exit:") != NULL;
        clean += strstr(line, "in use at exit: 0 bytes in 0 blocks") != NULL;
    }
    CHECK_EQ(pclose(out), 0);
    CHECK(runs >= 1);
    CHECK_EQ(clean, runs);
}

int main(int argc, char **argv)
{
    logship_set_log(remember, NULL);
    make_log();
    if (argc > 1) {
        everything();
        own_leave();
    }
    if (!realpath(argv[0], self))
        return 2;
    CASE("a writer that is open goes on in the new file, under its number", open_writer);
    CASE("a log is compacted after every record", again_and_again);
    CASE("a log that is open twice, the first writer goes on", two_writers);
    CASE("a log that is open twice, the second writer goes on", two_writers_the_other_way);
    CASE("a descriptor that was closed and is something else", descriptor_of_something_else);
    CASE("arguments, checkpoints and logs that can't be right", refusals);
    CASE("recovery of a compacted log", recovery);
    CASE("a checkpoint between records that were stored together", checkpoint_between_grouped_receives);
    CASE("a checkpoint beside another log of that length", checkpoint_beside_a_log_of_that_length);
    CASE("what the retention rule keeps", retention);
    CASE("a follower that has acknowledged nothing is waited for", retention_for_a_new_follower);
    CASE("a plain follower at, above and below the base", plain_follower);
    CASE("a logship follower below the base gets the checkpoint", logship_follower);
    CASE("out of ESTALE: cut, rejoin", out_of_estale);
    CASE("out of ESTALE, from the first record on", out_of_estale_from_the_first_record);
    CASE("out of ERANGE: cut, rejoin", out_of_erange);
    CASE("LSN, CRC and history of both sides in the follower's line", both_sides_in_one_line);
    CASE("a log is cut to every LSN", cut_everywhere);
    CASE("a log is cut among records that were stored together", cut_between_grouped_receives);
    CASE("nothing is in use at exit", nothing_in_use);
    return own_end();
}
