/* A disk that is full, a file that may not grow, a disk that loses what it was given: what wal_append says, and what is
 * left in the file. A small tmpfs (in a mount namespace of its own) for the first; RLIMIT_FSIZE for the second; this
 * program's own fsync and fdatasync for the third, which the library's calls reach because an executable's definition
 * wins. */
#include "bytes.h"
#include "logship.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static int file_syncs, dir_syncs; /* calls that reached fsync or fdatasync */
static int sync_fails_on = -1;    /* the descriptor whose next sync fails with EIO, once */
static int sync_calls_on;         /* and how many this descriptor has seen */
static int counted_sync(int fd, long call)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
        dir_syncs++;
    else
        file_syncs++;
    if (fd >= 0 && fd == sync_fails_on) {
        sync_calls_on++;
        sync_fails_on = -1;
        errno = EIO;
        return -1;
    }
    return (int)syscall(call, fd);
}
int fsync(int fd)
{
    return counted_sync(fd, SYS_fsync);
}
int fdatasync(int fd)
{
    return counted_sync(fd, SYS_fdatasync);
}

static char value_1k[1001];
static struct wal_record numbered(char *key, int n)
{
    sprintf(key, "k%06d", n);
    return (struct wal_record){.op = WAL_OP_SET, .key = key, .key_len = 7, .value = value_1k, .value_len = 1000};
}
enum { NUMBERED = 8 + 1 + 2 + 7 + 2 + 1000 + 8 };
/* The log holds exactly the records from..to-1, whole, and nothing else. */
static int holds(const char *path, int from, int to)
{
    struct kv_store store;
    char key[16];
    if (own_file_size(path) != (long long)(to - from) * NUMBERED || kv_store_init(&store) != 0)
        return 0;
    int good = wal_recover(path, &store) == to - from && kv_store_count(&store) == to - from;
    for (int i = from; i < to; i++) {
        numbered(key, i);
        good &= kv_store_get(&store, key) != NULL;
    }
    kv_store_destroy(&store);
    return good;
}

static void mount_small(void)
{
    if (mkdir("disk", 0700) != 0)
        REQUIRE(!"mkdir disk");
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", "disk", "tmpfs", 0, "size=128k") != 0)
        own_skip("a full disk needs a tmpfs, and this process may not mount one");
}
static void ballast(int bytes) /* fills the disk up; 0 removes it again */
{
    static char zeroes[4096];
    int fd = bytes ? open("disk/ballast", O_WRONLY | O_CREAT, 0600) : -1;
    for (ssize_t n = 1; fd >= 0 && bytes > 0 && n > 0; bytes -= (int)n)
        n = write(fd, zeroes, sizeof zeroes);
    if (fd >= 0)
        close(fd);
    else
        unlink("disk/ballast");
}
static void full_disk(void)
{
    struct wal_writer writer;
    struct wal_record record;
    char key[16];
    int n = 0, got = 0;
    mount_small();
    ballast(40 * 1024);
    REQUIRE(wal_open(&writer, "disk/x.wal") == 0);
    for (int round = 0; round < 2; round++) {
        for (record = numbered(key, n); n < 1000 && (errno = 0, got = wal_append(&writer, &record)) == 0; record = numbered(key, n))
            n++;
        int why = errno;
        CHECK_EQ(got, -1);
        CHECK_EQ(why, ENOSPC);
        CHECK(n >= 40); /* 128k - 40k, less a few pages */
        CHECK_EQ(writer.offset, n * NUMBERED);
        CHECK(holds("disk/x.wal", 0, n));
        CHECK_FAILS(wal_append(&writer, &record), ENOSPC); /* still full: still nothing of it in the file */
        CHECK(holds("disk/x.wal", 0, n));
        ballast(0); /* room again: the same writer goes on */
    }
    CHECK_EQ(logship_last_lsn(&writer), n);
    CHECK(wal_close(&writer) == 0);
    REQUIRE(wal_open(&writer, "disk/x.wal") == 0); /* nothing torn, nothing set aside */
    CHECK_EQ(writer.offset, n * NUMBERED);
    CHECK(wal_close(&writer) == 0);
}
static void full_disk_and_a_batch(void)
{
    struct wal_writer writer;
    struct wal_record records[60];
    char keys[60][16];
    mount_small();
    ballast(80 * 1024);
    for (int i = 0; i < 60; i++)
        records[i] = numbered(keys[i], i);
    REQUIRE(wal_open(&writer, "disk/x.wal") == 0);
    CHECK_EQ(logship_append_batch(&writer, records, 5), 0);
    CHECK_FAILS(logship_append_batch(&writer, records + 5, 55), ENOSPC);
    CHECK(holds("disk/x.wal", 0, 5)); /* all of a batch or none of it */
    ballast(0);
    CHECK_EQ(logship_append_batch(&writer, records + 5, 55), 0);
    CHECK(holds("disk/x.wal", 0, 60));
    CHECK(wal_close(&writer) == 0);
}
static void full_disk_and_a_checkpoint(void)
{
    struct kv_store store, loaded;
    char key[16];
    uint64_t offset = 0;
    mount_small();
    REQUIRE(kv_store_init(&store) == 0 && kv_store_init(&loaded) == 0);
    CHECK_EQ(kv_store_set(&store, "small", "1"), 0);
    CHECK_EQ(wal_checkpoint_write(&store, "disk/c", 11), 0);
    for (int i = 0; i < 100; i++) {
        numbered(key, i);
        CHECK_EQ(kv_store_set(&store, key, value_1k), 0);
    }
    ballast(100 * 1024);
    CHECK_FAILS(wal_checkpoint_write(&store, "disk/c", 22), ENOSPC);
    CHECK_EQ(wal_checkpoint_load("disk/c", &loaded, &offset), 0); /* the old one is as it was */
    CHECK_EQ(offset, 11);
    CHECK_EQ(kv_store_count(&loaded), 1);
    CHECK(chdir("disk") == 0);
    CHECK_EQ(own_count_files("", NULL, 0), 3); /* and no temporary file is left in the way */
    kv_store_destroy(&store);
    kv_store_destroy(&loaded);
}
static void file_that_may_not_grow(void)
{
    struct wal_writer writer;
    struct wal_record record;
    struct rlimit limit, was;
    char key[16];
    int n = 0;
    signal(SIGXFSZ, SIG_DFL); /* raised once, and this process is gone */
    REQUIRE(wal_open(&writer, "x.wal") == 0 && getrlimit(RLIMIT_FSIZE, &was) == 0);
    for (int part = 0; part <= NUMBERED; part += NUMBERED / 4) { /* the limit falls at another place of the record each time */
        limit = was;
        limit.rlim_cur = (rlim_t)(n + 3) * NUMBERED + (rlim_t)part;
        if (part == NUMBERED)
            limit.rlim_cur--;
        REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
        for (int i = 0; i < 3; i++, n++) {
            record = numbered(key, n);
            CHECK_EQ(wal_append(&writer, &record), 0);
        }
        record = numbered(key, n);
        CHECK_FAILS(wal_append(&writer, &record), EFBIG);
        CHECK(holds("x.wal", 0, n));
        CHECK_EQ(writer.offset, n * NUMBERED);
        CHECK_FAILS(wal_append(&writer, &record), EFBIG);
        REQUIRE(setrlimit(RLIMIT_FSIZE, &was) == 0);
        CHECK_EQ(wal_append(&writer, &record), 0);
        n++;
        CHECK(holds("x.wal", 0, n));
    }
    CHECK_EQ(logship_last_lsn(&writer), n);
    CHECK(wal_close(&writer) == 0);
}
/* The roll-back cuts off its own bytes only: the file has grown under it through another descriptor. */
static int torn_logs_kept(void)
{
    return own_count_files("x.wal.torn-", NULL, 0);
}
static void every_other_file_that_may_not_grow(void)
{
    struct kv_store store;
    struct wal_writer writer;
    struct wal_record record;
    struct rlimit limit, was;
    char key[16], line[64];
    uint64_t offset;
    sigset_t pending;
    signal(SIGXFSZ, SIG_DFL);
    REQUIRE(getrlimit(RLIMIT_FSIZE, &was) == 0 && kv_store_init(&store) == 0 && wal_open(&writer, "x.wal") == 0);
    for (int i = 0; i < 20; i++) {
        record = numbered(key, i);
        CHECK_EQ(wal_append(&writer, &record), 0);
        CHECK_EQ(kv_store_set(&store, key, value_1k), 0);
    }
    CHECK_EQ(wal_close(&writer), 0);
    int fd = open("x.wal", O_WRONLY | O_APPEND);
    record = numbered(key, 20);
    uint8_t encoded[NUMBERED];
    REQUIRE(wal_record_encode(&record, encoded, sizeof encoded) == NUMBERED);
    REQUIRE(write_full(fd, encoded, NUMBERED - 1) == 0); /* a record that a crash cut off */
    limit = was;
    limit.rlim_cur = 100;
    REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHECK_FAILS(write_full(fd, encoded, NUMBERED), EFBIG);
    CHECK_FAILS(wal_checkpoint_write(&store, "c", 0), EFBIG);
    CHECK_FAILS(wal_open(&writer, "x.wal"), EFBIG); /* what is cut off can't be kept, so it is not cut off */
    int err = open("stderr", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    memset(line, '-', sizeof line);
    REQUIRE(write(err, line, sizeof line) == sizeof line && dup2(err, 2) == 2);
    CHECK_FAILS(wal_open(&writer, "x.wal"), EFBIG); /* and says so in a file that may not grow either */
    CHECK(sigpending(&pending) == 0 && !sigismember(&pending, SIGXFSZ));
    REQUIRE(setrlimit(RLIMIT_FSIZE, &was) == 0);
    CHECK_EQ(own_file_size("x.wal"), 21 * NUMBERED - 1);
    CHECK_EQ(torn_logs_kept(), 0);
    CHECK_EQ(own_count_files("c", NULL, 0), 0);
    CHECK_EQ(wal_checkpoint_write(&store, "c", 0), 0);
    CHECK_EQ(wal_checkpoint_load("c", &store, &offset), 0);
    CHECK_EQ(wal_open(&writer, "x.wal"), 0);
    CHECK_EQ(logship_last_lsn(&writer), 20);
    CHECK_EQ(torn_logs_kept(), 1);
    CHECK_EQ(wal_close(&writer), 0);
    close(err);
    close(fd);
    kv_store_destroy(&store);
}
static void rolled_back_to_what_the_file_had(void)
{
    struct wal_writer first, second;
    struct wal_record record;
    struct rlimit limit, was;
    char key[16];
    signal(SIGXFSZ, SIG_IGN);
    REQUIRE(wal_open(&first, "x.wal") == 0 && wal_open(&second, "x.wal") == 0 && getrlimit(RLIMIT_FSIZE, &was) == 0);
    record = numbered(key, 0);
    CHECK_EQ(wal_append(&first, &record), 0);
    record = numbered(key, 1);
    CHECK_EQ(wal_append(&second, &record), 0);
    limit = was;
    limit.rlim_cur = 2 * NUMBERED + 500;
    REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    record = numbered(key, 2);
    CHECK_FAILS(wal_append(&first, &record), EFBIG); /* first believes in one record, the file has two */
    REQUIRE(setrlimit(RLIMIT_FSIZE, &was) == 0);
    CHECK(holds("x.wal", 0, 2));
    CHECK_EQ(wal_append(&first, &record), 0);
    CHECK(holds("x.wal", 0, 3));
    CHECK_EQ(logship_last_lsn(&first), 3);
    CHECK_EQ(logship_last_lsn(&second), 3);
    CHECK(wal_close(&first) == 0 && wal_close(&second) == 0);
}
static void failed_fsync(void)
{
    struct wal_writer writer, copy, other;
    struct wal_record record;
    char key[16];
    REQUIRE(wal_open(&writer, "x.wal") == 0 && wal_open(&other, "y.wal") == 0);
    record = numbered(key, 0);
    file_syncs = 0;
    CHECK_EQ(wal_append(&writer, &record), 0);
    CHECK(file_syncs >= 1); /* else the rest tests nothing: the library syncs by a way that this program does not see */
    record = numbered(key, 1);
    CHECK_EQ(wal_append(&writer, &record), 0);
    copy = writer;
    record = numbered(key, 2);
    sync_fails_on = writer.fd;
    CHECK_FAILS(wal_append(&writer, &record), EIO);
    CHECK_EQ(sync_calls_on, 1);
    CHECK(holds("x.wal", 0, 2)); /* cut off: what the disk may have lost is not in the log */
    CHECK_FAILS(wal_append(&writer, &record), EIO); /* fsync would succeed now, and would lie */
    CHECK_FAILS(wal_append(&writer, &record), EIO);
    CHECK_FAILS(wal_append(&copy, &record), EIO);
    CHECK_FAILS(logship_append_batch(&writer, &record, 1), EIO);
    CHECK(holds("x.wal", 0, 2));
    CHECK_EQ(wal_append(&other, &record), 0); /* another log is another matter */
    int fd = writer.fd;
    (void)wal_close(&writer);
    CHECK(!own_is_open(fd));
    CHECK_EQ(writer.fd, -1);
    REQUIRE(wal_open(&writer, "x.wal") == 0); /* likely under the same number: the latch is gone with the descriptor */
    CHECK_EQ(writer.offset, 2 * NUMBERED);
    CHECK_EQ(wal_append(&writer, &record), 0);
    CHECK(holds("x.wal", 0, 3));
    CHECK(wal_close(&writer) == 0 && wal_close(&other) == 0);
}
static void failed_fsync_of_a_batch(void)
{
    struct wal_writer writer;
    struct wal_record records[10];
    char keys[10][16];
    for (int i = 0; i < 10; i++)
        records[i] = numbered(keys[i], i);
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    file_syncs = 0;
    CHECK_EQ(logship_append_batch(&writer, records, 4), 0);
    CHECK_EQ(file_syncs, 1); /* that is what a batch is for */
    CHECK(holds("x.wal", 0, 4));
    CHECK_EQ(logship_last_lsn(&writer), 4);
    CHECK_EQ(writer.offset, 4 * NUMBERED);
    sync_fails_on = writer.fd;
    CHECK_FAILS(logship_append_batch(&writer, records + 4, 6), EIO);
    CHECK(holds("x.wal", 0, 4));
    CHECK_FAILS(logship_append_batch(&writer, records + 4, 6), EIO);
    CHECK(holds("x.wal", 0, 4));
    (void)wal_close(&writer);
}
static void what_is_synced_when(void)
{
    struct wal_writer writer;
    struct wal_record record;
    struct kv_store store;
    char key[16];
    file_syncs = dir_syncs = 0;
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    CHECK(dir_syncs >= 1); /* a new file's name is durable too */
    for (int i = 0; i < 5; i++) {
        int before = file_syncs;
        record = numbered(key, i);
        CHECK_EQ(wal_append(&writer, &record), 0);
        CHECK(file_syncs > before);
    }
    int before_close = file_syncs;
    CHECK(wal_close(&writer) == 0);
    CHECK_EQ(file_syncs, before_close + 1);
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    int fd = sync_fails_on = writer.fd;
    CHECK_FAILS(wal_close(&writer), EIO);
    CHECK_EQ(writer.fd, -1);
    CHECK(!own_is_open(fd));
    REQUIRE(kv_store_init(&store) == 0 && kv_store_set(&store, "k", "v") == 0);
    file_syncs = dir_syncs = 0;
    CHECK_EQ(wal_checkpoint_write(&store, "c", 0), 0);
    CHECK(file_syncs >= 1 && dir_syncs >= 1);
    kv_store_destroy(&store);
}

int main(void)
{
    memset(value_1k, 'v', 1000);
    CASE("full disk: ENOSPC, whole records only, goes on when there is room", full_disk);
    CASE("full disk: a batch is stored whole or not at all", full_disk_and_a_batch);
    CASE("full disk: a checkpoint that does not fit leaves the old one", full_disk_and_a_checkpoint);
    CASE("RLIMIT_FSIZE: EFBIG after a partial write, whole records only", file_that_may_not_grow);
    CASE("RLIMIT_FSIZE: no signal from any other file either", every_other_file_that_may_not_grow);
    CASE("roll-back keeps what came into the file through another descriptor", rolled_back_to_what_the_file_had);
    CASE("failed fsync: EIO, cut off, latched until reopened", failed_fsync);
    CASE("failed fsync of a batch; one fsync for a batch", failed_fsync_of_a_batch);
    CASE("fsync for each record, at close, for a new name, for a checkpoint", what_is_synced_when);
    return own_end();
}
