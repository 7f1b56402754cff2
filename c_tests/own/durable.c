/* What a log knows to be durable: nothing of that is ever taken for a torn write, and what is not durable is no reason
 * to refuse a log. Crashes are this program's own fsync, which the library's calls reach because an executable's
 * definition wins: a child damages what it has written and is gone before fsync has returned. */
#include "bytes.h"
#include "logship.h"
#include <sys/syscall.h>
#include <sys/xattr.h>

static void (*at_fsync)(int fd); /* what happens instead of the next one */
int fsync(int fd)
{
    void (*crash)(int) = at_fsync;
    at_fsync = NULL;
    if (crash)
        crash(fd);
    return (int)syscall(SYS_fsync, fd);
}

enum { RECORDS = 40, VALUE = 1000, ENCODED = 8 + 1 + 2 + 7 + 2 + VALUE + 8 };
static char value[VALUE + 1];
static char keys[RECORDS][16];
static struct wal_record records[RECORDS];
static int warnings;
static char last_line[512];
static void listen_to_log(int level, const char *message, void *context)
{
    (void)context;
    warnings += level <= LOGSHIP_LOG_WARN;
    snprintf(last_line, sizeof last_line, "%s", message);
}
static void build(void)
{
    memset(value, 'v', VALUE);
    for (int i = 0; i < RECORDS; i++) {
        snprintf(keys[i], sizeof keys[i], "key%04d", i);
        records[i] = (struct wal_record){.op = WAL_OP_SET, .key = keys[i], .key_len = 7, .value = value,
                                         .value_len = VALUE, .timestamp = (uint64_t)i + 1};
    }
}
static void need_notes(void)
{
    int fd = open("probe", O_WRONLY | O_CREAT, 0600);
    if (fsetxattr(fd, "user.logship.durable", "", 0, 0) != 0)
        own_skip("this file system keeps no extended attributes");
    close(fd);
}
/* A log with the first `count` records, all acknowledged. */
static struct wal_writer writer;
static void make_log(int count)
{
    unlink("x.wal");
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    for (int i = 0; i < count; i++)
        REQUIRE(wal_append(&writer, &records[i]) == 0);
}
/* The log opens with `count` records and `torn` files of what was cut off. */
static void opens_with(int count, int torn)
{
    struct kv_store store;
    if (!CHECK_EQ(wal_open(&writer, "x.wal"), 0))
        return;
    CHECK_EQ(logship_last_lsn(&writer), count);
    CHECK_EQ(wal_append(&writer, &records[count]), 0);
    CHECK_EQ(wal_close(&writer), 0);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_recover("x.wal", &store), count + 1);
    CHECK_EQ(kv_store_count(&store), count + 1);
    kv_store_destroy(&store);
    CHECK_EQ(own_count_files("x.wal.torn-", NULL, 0), torn);
}
/* The log is refused and not a byte of it changes. */
static uint8_t before[RECORDS * ENCODED + 10], after[RECORDS * ENCODED + 10];
static void is_refused(const char *what)
{
    long size = own_read_file("x.wal", before, sizeof before);
    if (!CHECK(wal_open(&writer, "x.wal") == -1 && errno == EBADMSG))
        NOTE("%s", what);
    CHECK(own_read_file("x.wal", after, sizeof after) == size && memcmp(before, after, (size_t)size) == 0);
    CHECK_EQ(own_count_files("x.wal.", NULL, 0), 0);
}
static void poke(long at)
{
    uint8_t byte;
    int fd = open("x.wal", O_RDWR);
    REQUIRE(pread(fd, &byte, 1, at) == 1);
    byte ^= 0x10;
    REQUIRE(pwrite(fd, &byte, 1, at) == 1 && close(fd) == 0);
}

/* ---- crashes ---- */
static void gone(int fd)
{
    (void)fd;
    _exit(0);
}
static long hole_at, hole_len;
static void gone_with_a_hole(int fd) /* one page of what was written never reached the disk */
{
    static const uint8_t zeros[4096];
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = open(path, O_WRONLY);
    REQUIRE(pwrite(own, zeros, (size_t)hole_len, hole_at) == hole_len);
    _exit(0);
}
static void crash_in_batch(int from, int count, void (*crash)(int))
{
    pid_t child = own_fork();
    if (child == 0) {
        REQUIRE(wal_open(&writer, "x.wal") == 0);
        at_fsync = crash;
        logship_append_batch(&writer, records + from, (size_t)count);
        REQUIRE(!"the crash came");
    }
    CHECK_EQ(own_reap(child), 0);
}
static void torn_batch(void)
{
    need_notes();
    for (int had = 0; had <= 5; had += 5)
        for (int at = 0; at < 10; at++) {
            make_log(had);
            REQUIRE(wal_close(&writer) == 0);
            hole_at = (long)(had + at) * ENCODED + (had + at > 0 ? 3 : 0);
            hole_len = at == 9 ? ENCODED - 3 : at == 0 ? 4096 : ENCODED + 20;
            crash_in_batch(had, 10, gone_with_a_hole);
            CHECK_EQ(own_file_size("x.wal"), (had + 10) * ENCODED);
            opens_with(had + at, 1);
            CHECK(unlink("x.wal.torn-1") == 0);
        }
    make_log(5);
    REQUIRE(wal_close(&writer) == 0);
    crash_in_batch(5, 10, gone); /* all of it is there, though nobody was told */
    opens_with(15, 0);
}
static void damage_before_a_torn_batch(void)
{
    need_notes();
    make_log(5);
    REQUIRE(wal_close(&writer) == 0);
    hole_at = 8 * ENCODED;
    hole_len = ENCODED;
    crash_in_batch(5, 10, gone_with_a_hole);
    poke(4 * ENCODED + 30);
    is_refused("a durable record");
    CHECK(strstr(last_line, "durable up to byte") != NULL);
}
static void a_batch_is_acknowledged(void)
{
    need_notes();
    make_log(5);
    CHECK_EQ(logship_append_batch(&writer, records + 5, 10), 0);
    pid_t child = own_fork(); /* it never closes the log */
    if (child == 0)
        _exit(0);
    own_reap(child);
    poke(14 * ENCODED + 500); /* the last record */
    is_refused("the last record of a batch");
}

/* ---- what was acknowledged ---- */
static void every_record_that_was_acknowledged(void)
{
    need_notes();
    for (int closes = 0; closes <= 1; closes++)
        for (int count = 1; count <= 2; count++)
            for (long at = 0; at < count * ENCODED; at += at % ENCODED < 24 ? 4 : 331) {
                pid_t child = own_fork(); /* killed, or closed as it should be */
                if (child == 0) {
                    make_log(count);
                    _exit(closes && wal_close(&writer) != 0);
                }
                REQUIRE(own_reap(child) == 0);
                poke(at);
                is_refused("a changed byte");
                poke(at);
                CHECK(truncate("x.wal", at ? at : 1) == 0);
                is_refused("a cut log");
            }
}
static void an_emptied_log_is_a_new_one(void)
{
    need_notes();
    make_log(3);
    REQUIRE(wal_close(&writer) == 0 && truncate("x.wal", 0) == 0);
    warnings = 0;
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    CHECK_EQ(warnings, 1);
    CHECK_EQ(wal_append(&writer, &records[0]), 0);
    CHECK_EQ(wal_close(&writer), 0);
    warnings = 0;
    opens_with(1, 0);
    CHECK_EQ(warnings, 0);
}
static void another_content_under_the_same_inode(void)
{
    uint8_t bytes[200];
    need_notes();
    make_log(3);
    REQUIRE(wal_close(&writer) == 0);
    int fd = open("x.wal", O_WRONLY | O_TRUNC);
    size_t len = own_set(bytes, "other", "1", 1);
    len += own_set(bytes + len, "other", "2", 2);
    REQUIRE(write(fd, bytes, len - 3) == (ssize_t)len - 3 && close(fd) == 0); /* its own write, cut off */
    CHECK_EQ(wal_open(&writer, "x.wal"), 0); /* shorter than what was durable, but not that log */
    CHECK_EQ(logship_last_lsn(&writer), 1);
    CHECK_EQ(wal_close(&writer), 0);
    fd = open("x.wal", O_WRONLY | O_TRUNC);
    for (int i = 0; i < 200; i++)
        REQUIRE(write(fd, bytes, len) == (ssize_t)len);
    REQUIRE(write(fd, bytes, len - 3) == (ssize_t)len - 3 && close(fd) == 0);
    CHECK_EQ(wal_open(&writer, "x.wal"), 0);
    CHECK_EQ(logship_last_lsn(&writer), 401);
    CHECK_EQ(own_count_files("x.wal.torn-", NULL, 0), 2);
    CHECK_EQ(wal_close(&writer), 0);
}
static void the_way_on(void)
{
    need_notes();
    make_log(10);
    REQUIRE(wal_close(&writer) == 0);
    poke(6 * ENCODED + 100);
    is_refused("a damaged record");
    CHECK_FAILS(logship_wal_truncate_to("x.wal", 7), ERANGE);
    CHECK_EQ(logship_wal_truncate_to("x.wal", 6), 0);
    CHECK_EQ(own_file_size("x.wal.cut-1"), 4 * ENCODED);
    opens_with(6, 0);
    REQUIRE(truncate("x.wal", 3 * ENCODED) == 0);
    CHECK(wal_open(&writer, "x.wal") == -1 && errno == EBADMSG);
    CHECK_EQ(logship_wal_truncate_to("x.wal", 3), 0); /* nothing is left to cut; what is there is the log */
    opens_with(3, 0);
}
static void structs_filled_by_hand(void)
{
    need_notes();
    unlink("x.wal");
    struct wal_writer by_hand = {open("x.wal", O_WRONLY | O_CREAT | O_APPEND, 0644), 0}, copy;
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(wal_append(&by_hand, &records[i]), 0);
        copy = by_hand;
    }
    CHECK_EQ(logship_append_batch(&copy, records + 4, 4), 0);
    close(by_hand.fd); /* not wal_close */
    poke(7 * ENCODED + 10);
    is_refused("the last record of a writer by hand");
}

/* ---- the log changes under its writer ---- */
static void cut_under_its_writer(void)
{
    for (int left = 0; left <= 2; left++) {
        make_log(3);
        REQUIRE(truncate("x.wal", left * ENCODED) == 0);
        for (int again = 0; again < 2; again++)
            CHECK_FAILS(wal_append(&writer, &records[3]), EBADMSG);
        CHECK_EQ(own_file_size("x.wal"), left * ENCODED);
        CHECK_EQ(wal_close(&writer), 0);
    }
}
static void removed_or_replaced_under_its_writer(void)
{
    for (int replaced = 0; replaced <= 1; replaced++) {
        make_log(3);
        REQUIRE(own_write_file("other", "x", 1) == 0);
        REQUIRE(replaced ? rename("other", "x.wal") == 0 : unlink("x.wal") == 0);
        for (int again = 0; again < 2; again++)
            CHECK_FAILS(wal_append(&writer, &records[3]), ESTALE);
        CHECK_FAILS(logship_append_batch(&writer, records + 3, 2), ESTALE);
        CHECK_EQ(writer.offset, 3 * ENCODED);
        CHECK_EQ(wal_close(&writer), 0);
    }
    unlink("x.wal");
}
static void emptied_for_a_new_writer(void) /* a program that opens by itself, and closes by itself */
{
    for (int round = 0; round < 3; round++) {
        struct wal_writer by_hand = {open("x.wal", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644), 0};
        for (int i = 0; i < 3; i++)
            CHECK_EQ(wal_append(&by_hand, &records[i]), 0);
        CHECK_EQ(logship_last_lsn(&by_hand), 3);
        close(by_hand.fd);
    }
}

/* ---- several writers ---- */
static void several_processes(void)
{
    enum { WRITERS = 4, EACH = 300 };
    struct kv_store store;
    pid_t children[WRITERS];
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    for (int n = 0; n < WRITERS; n++)
        if ((children[n] = own_fork()) == 0) {
            struct wal_writer own = writer; /* two share the parent's descriptor, two have their own */
            if (n % 2)
                REQUIRE(wal_open(&own, "x.wal") == 0);
            for (int i = 0; i < EACH; i++) {
                char key[32];
                struct wal_record record = {.op = WAL_OP_SET, .key = key, .value = value, .value_len = VALUE};
                record.key_len = (uint16_t)snprintf(key, sizeof key, "writer %d, record %d", n, i);
                if (i % 10 == 0) {
                    struct wal_record batch[3] = {record, record, record};
                    CHECK_EQ(logship_append_batch(&own, batch, 3), 0);
                } else {
                    CHECK_EQ(wal_append(&own, &record), 0);
                }
                if (n == 3 && i % 50 == 0) {
                    struct wal_writer second;
                    CHECK_EQ(wal_open(&second, "x.wal"), 0); /* while the others write */
                    CHECK_EQ(wal_close(&second), 0);
                }
            }
            own_leave();
        }
    for (int n = 0; n < WRITERS; n++)
        CHECK_EQ(own_reap(children[n]), 0);
    CHECK_EQ(wal_append(&writer, &records[0]), 0);
    CHECK_EQ(logship_last_lsn(&writer), WRITERS * (EACH + 2 * EACH / 10) + 1);
    CHECK_EQ(wal_close(&writer), 0);
    CHECK_EQ(own_count_files("x.wal.", NULL, 0), 0);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_recover("x.wal", &store), WRITERS * (EACH + 2 * EACH / 10) + 1);
    CHECK_EQ(kv_store_count(&store), WRITERS * EACH + 1);
    kv_store_destroy(&store);
}

int main(void)
{
    build();
    logship_set_log(listen_to_log, NULL);
    CASE("a batch that a crash left with a hole is cut off at the hole", torn_batch);
    CASE("damage where the log was durable, and a torn batch behind it", damage_before_a_torn_batch);
    CASE("a batch that was acknowledged is durable", a_batch_is_acknowledged);
    CASE("no record that was acknowledged is a torn write, be it the last", every_record_that_was_acknowledged);
    CASE("a log that was emptied is a new one, and that is said", an_emptied_log_is_a_new_one);
    CASE("a note that is about other records is none", another_content_under_the_same_inode);
    CASE("the way on from a refused log", the_way_on);
    CASE("structs filled by hand, and copies, keep the note too", structs_filled_by_hand);
    CASE("a log that is cut under its writer: EBADMSG", cut_under_its_writer);
    CASE("a log that is removed or replaced under its writer: ESTALE", removed_or_replaced_under_its_writer);
    CASE("a log that is emptied for a new writer", emptied_for_a_new_writer);
    CASE("several processes append to one log", several_processes);
    return own_end();
}
