/* The append side of the log: its bytes, when they reach the disk, and what becomes of writes that the kernel cuts
 * short. */
#define _GNU_SOURCE
#include "calls.h"
#include "wal.h"

#define LOG "checked.wal"

enum { RECORDS = 20, ROOM = 1024 };

static void open_log(struct wal_writer *writer)
{
    EXPECT_INT(0, CHECK_WAL_OPEN(writer, LOG), "what wal_open returns");
}

static void close_log(struct wal_writer *writer)
{
    EXPECT(CHECK_WAL_CLOSE(writer) >= 0, "what wal_close returns", "0", "a negative number");
}

/* Appends record i of the workload and returns its size by wal_record_encode. */
static size_t append(struct wal_writer *writer, int i)
{
    struct workload_text text;
    struct wal_record record = workload_record(i, &text);
    uint8_t buffer[ROOM];
    size_t len = check_encode(&record, buffer, sizeof buffer);

    EXPECT(wal_append(writer, &record) >= 0, "what wal_append returns", "0", "a negative number");
    return len;
}

static void size_is_sum(void)
{
    struct wal_writer writer;
    long long sum = 0;

    open_log(&writer);
    EXPECT_INT(0, check_file_size(LOG), "bytes in a new log");
    for (int i = 0; i < RECORDS; i++) {
        sum += (long long)append(&writer, i);
        EXPECT_INT(sum, check_file_size(LOG), "bytes in the log: the sum of its records");
#ifdef GRADE_WRITER_OFFSET
        EXPECT_INT(sum, writer.offset, "the writer's offset: the sum of its records");
#endif
    }
    close_log(&writer);
    EXPECT_INT(sum, check_file_size(LOG), "bytes in the log after wal_close");
}

/* The log must hold what encode gives, record after record, from its first byte. */
static void expect_log_bytes(int records)
{
    uint8_t expected[ROOM], *bytes;
    size_t len, at = 0;
    char what[80];

    bytes = check_read_file(LOG, &len);
    for (int i = 0; i < records; i++) {
        struct workload_text text;
        struct wal_record record = workload_record(i, &text);
        size_t size = check_encode(&record, expected, sizeof expected);

        snprintf(what, sizeof what, "record %d of %d in the log", i + 1, records);
        EXPECT(at + size <= len, what, "its bytes, whole", "the log ends at %zu, the record at %zu", len, at + size);
        EXPECT(memcmp(bytes + at, expected, size) == 0, what, "the bytes that wal_record_encode gives",
               "others, at offset %zu", at);
        at += size;
    }
    EXPECT_INT(at, len, "bytes in the log");
    free(bytes);
}

static void log_bytes(void)
{
    struct wal_writer writer;

    open_log(&writer);
    for (int i = 0; i < RECORDS; i++)
        append(&writer, i);
    close_log(&writer);
    expect_log_bytes(RECORDS);
}

static void reopen_keeps(void)
{
    struct wal_writer writer;
    long long sum = 0;

    for (int i = 0; i < 6; i++) {
        if (i % 2 == 0)
            open_log(&writer);
        EXPECT_INT(sum, check_file_size(LOG), "bytes in the log after it was opened again");
        sum += (long long)append(&writer, i);
        if (i % 2 == 1)
            close_log(&writer);
    }
    expect_log_bytes(6);
}

/* The descriptor is the lesson's field. Another writer on the same file shows what the flag is for. */
static void append_mode(void)
{
    struct wal_writer first, second;

    open_log(&first);
#ifdef GRADE_WRITER_FD
    int flags = fcntl(first.fd, F_GETFL);

    EXPECT(flags >= 0, "the writer's fd", "an open descriptor", "%d: %s", first.fd, strerror(errno));
    EXPECT((flags & O_APPEND) != 0, "how wal_open opens the log", "with O_APPEND", "flags 0x%x without it",
           (unsigned)flags);
#endif
    open_log(&second);
    append(&first, 0);
    append(&second, 1);
    append(&first, 2);
    close_log(&first);
    close_log(&second);
    expect_log_bytes(3);
}

static int writes_through(const struct wal_writer *writer)
{
#ifdef GRADE_WRITER_FD
    int flags = fcntl(writer->fd, F_GETFL);

    return flags >= 0 && (flags & (O_SYNC | O_DSYNC)) != 0;
#else
    (void)writer;
    return 0;
#endif
}

/* A log opened with O_SYNC or O_DSYNC needs no fsync. */
static void fsync_per_record(void)
{
    struct wal_writer writer;
    char what[100];

    open_log(&writer);
    for (int i = 0; i < 5; i++) {
        calls_forget();
        append(&writer, i);
        snprintf(what, sizeof what, "fsyncs of the log during wal_append of record %d", i + 1);
        EXPECT(calls.syncs > 0 || writes_through(&writer), what, "1", "none");
    }
    close_log(&writer);
}

static void fsync_after_write(void)
{
    struct wal_writer writer;
    char expected[32];

    open_log(&writer);
    for (int i = 0; i < 5 && !writes_through(&writer); i++) {
        calls_forget();
        append(&writer, i);
        snprintf(expected, sizeof expected, "%lld", check_file_size(LOG));
        EXPECT(calls_synced_size(LOG) == check_file_size(LOG), "bytes in the log at the last fsync of wal_append",
               expected, "%s", calls_synced_text(LOG));
    }
    close_log(&writer);
}

/* What a program leaves behind when it closes its log is on the disk. */
static void close_syncs(void)
{
    struct wal_writer writer;

    open_log(&writer);
    append(&writer, 0);
    if (!writes_through(&writer)) {
        calls_forget();
        close_log(&writer);
        EXPECT(calls.syncs > 0, "fsyncs of the log during wal_close", "1", "none");
    }
}

/* One is what it takes. A few more are slow and not wrong; one a byte is. */
static void fsync_not_per_byte(void)
{
    struct wal_writer writer;

    open_log(&writer);
    calls_forget();
    append(&writer, 0);
    EXPECT(calls.syncs <= 4, "fsyncs of the log for one record", "1", "%d", calls.syncs);
    close_log(&writer);
}

static void with_trouble(enum trouble kind, const char *what)
{
    struct wal_writer writer;

    open_log(&writer);
    for (int i = 0; i < RECORDS; i++) {
        struct workload_text text;
        struct wal_record record = workload_record(i, &text);
        int rc;

        trouble = kind;
        rc = wal_append(&writer, &record);
        trouble = TROUBLE_NONE;
        EXPECT(rc >= 0, what, "wal_append goes on until all is written and returns 0", "%d", rc);
    }
    close_log(&writer);
    expect_log_bytes(RECORDS);
}

static void short_writes(void)
{
    with_trouble(TROUBLE_SHORT, "what wal_append returns when write(2) writes half of what it is given");
}

static void interrupted_writes(void)
{
    with_trouble(TROUBLE_INTERRUPTED, "what wal_append returns when write(2) is interrupted (EINTR)");
}

/* A student who writes through stdio is not reached by this trouble: then there is nothing to see. */
static void disk_full(void)
{
    struct wal_writer writer;
    struct workload_text text;
    struct wal_record record = workload_record(1, &text);
    int rc;

    open_log(&writer);
    append(&writer, 0);
    calls_forget();
    trouble = TROUBLE_DISK_FULL;
    rc = wal_append(&writer, &record);
    trouble = TROUBLE_NONE;
    EXPECT(rc < 0 || calls.troubles == 0, "what wal_append returns when the disk is full", "-1", "%d", rc);
    CHECK_WAL_CLOSE(&writer);
    expect_log_bytes(1);
}

static void close_closes(void)
{
    struct wal_writer writer;
    int before = count_descriptors();

    for (int i = 0; i < 5; i++) {
        open_log(&writer);
        append(&writer, i);
        close_log(&writer);
    }
    EXPECT_INT(before, count_descriptors(), "open descriptors after five times wal_open and wal_close");
}

/* As large as the format allows. A log that takes no such record must say so and stay as it was. */
static void long_record(void)
{
    static char value[65536];
    struct kv_store store;
    struct wal_writer writer;
    struct wal_record record;
    long long before;
    int rc;

    memset(value, 'v', 65535);
    open_log(&writer);
    append(&writer, 0);
    before = check_file_size(LOG);
    record = check_set_record("long", value, 2);
    rc = wal_append(&writer, &record);
    close_log(&writer);
    if (rc < 0) {
        EXPECT_INT(before, check_file_size(LOG), "bytes in the log after wal_append has refused a long record");
        return;
    }
    EXPECT_INT(0, CHECK_STORE_INIT(&store), "what kv_store_init returns");
    check_recovered(2, check_recover(LOG, &store), "records replayed after a value of 65535 bytes");
    EXPECT(kv_store_get(&store, "long") != NULL && strcmp(kv_store_get(&store, "long"), value) == 0,
           "the value of 65535 bytes", "recovered", "missing or different");
    kv_store_destroy(&store);
}

static const struct check checks[] = {
    { "writer_size_is_sum", "W10-R2", "w10-l02", "wal_writer.c", 10, "size of the log",
      "The log's size, and the writer's offset, is the sum of the encoded records.", size_is_sum },
    { "writer_bytes", "W10-R2", "w10-l02", "wal_writer.c", 10, "bytes of the log",
      "The log is the encoded records, one behind the other.", log_bytes },
    { "writer_reopen_keeps", "W10-R2", "w10-l02", "wal_writer.c", 10, "a log opened again",
      "The log is append-only: opening it again keeps every byte, and appends go behind them.", reopen_keeps },
    { "writer_append_mode", "W10-R2", "w10-l02", "wal_writer.c", 10, "O_APPEND", "The log is opened with O_APPEND.",
      append_mode },
    { "writer_fsync_per_record", "W10-R2", "w10-l02", "wal_writer.c", 10, "an fsync for each record",
      "Every append ends with an fsync of the log.", fsync_per_record },
    { "writer_fsync_after_write", "W10-R2", "w10-l02", "wal_writer.c", 10, "fsync after the write",
      "fsync comes after the write: all of the record is in the file by then.", fsync_after_write },
    { "writer_fsync_not_per_byte", "W10-R2", "w10-l02", "wal_writer.c", 10, "one fsync, not one a byte",
      "One fsync for a record.", fsync_not_per_byte },
    { "writer_close_syncs", "W10-R2", "w10-l02", "wal_writer.c", 10, "wal_close syncs",
      "wal_close fsyncs the log before it closes it.", close_syncs },
    { "writer_short_write", "W10-R2", "w10-l02", "wal_writer.c", 10, "short writes",
      "write(2) may write less than it is given: the rest follows.", short_writes },
    { "writer_interrupted", "W10-R2", "w10-l02", "wal_writer.c", 10, "interrupted writes",
      "A write that a signal interrupts (EINTR) is made again.", interrupted_writes },
    { "writer_disk_full", "W10-R2", "w10-l02", "wal_writer.c", 10, "a full disk",
      "An append that fails returns -1.", disk_full },
    { "writer_closes_fd", "W10-R2", "w10-l02", "wal_writer.c", 10, "wal_close closes",
      "wal_close closes the log's descriptor.", close_closes },
    { "writer_long_record", "W10-R2", "w10-l02", "wal_writer.c", 10, "a record of the largest size",
      "A value may have up to 65535 bytes.", long_record },
};

CHECK_MAIN(checks)
