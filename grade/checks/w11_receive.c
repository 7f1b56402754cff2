/* repl_ship.c, the follower's side: repl_receive_record. The check is the leader and writes every byte itself. The
 * follower acks in the caller of repl_receive_record; a tree that acks inside it is not failed for that. */
#define _GNU_SOURCE
#include "wire.h"


struct follower {
    int judged, raw;
    struct wal_writer writer;
    struct kv_store store;
    int good, has_good; /* what repl_receive_record returned for a good record */
};

static void follower_open(struct follower *follower)
{
    memset(follower, 0, sizeof *follower);
    EXPECT(CHECK_STORE_INIT(&follower->store) >= 0, "kv_store_init", "no error", "an error");
    EXPECT(CHECK_WAL_OPEN(&follower->writer, "follower.wal") >= 0, "wal_open of the follower's log", "no error", "%s",
           strerror(errno));
    wire_pair(&follower->judged, &follower->raw);
}

static void follower_close(struct follower *follower)
{
    close(follower->judged);
    if (follower->raw >= 0)
        close(follower->raw);
    CHECK_WAL_CLOSE(&follower->writer);
    kv_store_destroy(&follower->store);
}

static int receive(struct follower *follower, const char *doing)
{
    int rc;

    CALL(rc, doing, repl_receive_record(follower->judged, &follower->writer, &follower->store));
    return rc;
}

/* CRC_MISMATCH has another number in another tree's headers, and a tree may say 1 for a good record and 0 for none.
 * What is no success is whatever the first good record did not give. */
static int is_good(const struct follower *follower, int rc)
{
    return rc >= 0 && rc == follower->good;
}

static void receive_good(struct follower *follower, const char *doing)
{
    int rc = receive(follower, doing);

    if (!follower->has_good)
        follower->good = rc;
    follower->has_good = 1;
    EXPECT(rc >= 0 && rc == follower->good, doing, "success", "%d (%s), where success is %d", rc, strerror(errno),
           follower->good);
}

static void send_nth(struct follower *follower, int n)
{
    uint8_t encoded[WIRE_ROOM];

    wire_frame(follower->raw, encoded, wire_nth(n, encoded));
}

static void send_set(struct follower *follower, const char *key, const char *value, uint64_t timestamp)
{
    uint8_t encoded[WIRE_ROOM];

    wire_frame(follower->raw, encoded, wire_set(key, value, timestamp, encoded));
}

static void send_del(struct follower *follower, const char *key, uint64_t timestamp)
{
    struct wal_record record = check_del_record(key, timestamp);
    uint8_t encoded[WIRE_ROOM];

    wire_frame(follower->raw, encoded, check_encode(&record, encoded, sizeof encoded));
}

static void stores_and_applies(void)
{
    struct follower follower;
    struct kv_store replayed;
    int rc;

    follower_open(&follower);
    for (int n = 1; n <= 5; n++) {
        send_nth(&follower, n);
        receive_good(&follower, "repl_receive_record of a good record");
    }
    wire_expect_first(&follower.store, 5, "the follower's store after 5 records");
    EXPECT(CHECK_STORE_INIT(&replayed) >= 0, "kv_store_init", "no error", "an error");
    CALL(rc, "wal_recover of the follower's log", check_recover("follower.wal", &replayed));
    check_recovered(5, rc, "records in the follower's log after 5 were received");
    wire_expect_first(&replayed, 5, "the follower's log, replayed");
    kv_store_destroy(&replayed);
    follower_close(&follower);
}

static void in_pieces(void)
{
    struct follower follower;
    uint8_t encoded[WIRE_ROOM], frame[4 + WIRE_ROOM];
    pid_t child;

    follower_open(&follower);
    child = check_fork();
    if (child == 0) {
        for (int n = 1; n <= 2; n++)
            wire_trickle(follower.raw, frame, wire_make_frame(encoded, wire_nth(n, encoded), frame), follower.judged);
        _exit(0);
    }
    for (int n = 1; n <= 2; n++)
        receive_good(&follower, "repl_receive_record of a frame that arrives one byte at a time");
    wire_expect_first(&follower.store, 2, "the store after two frames that arrived one byte at a time");
    check_join(child, WIRE_CHILD_MS, "the check's leader");
    follower_close(&follower);
}

static void receive_interrupted(void)
{
    uint8_t encoded[WIRE_ROOM], frame[4 + WIRE_ROOM];
    struct follower follower;
    pid_t child;

    follower_open(&follower);
    child = wire_interrupt_then_write(follower.raw, frame, wire_make_frame(encoded, wire_nth(1, encoded), frame));
    receive_good(&follower, "repl_receive_record when a signal interrupts recv(2) (EINTR)");
    wire_expect_first(&follower.store, 1, "the store after a record whose receive was interrupted");
    check_join(child, WIRE_CHILD_MS, "the check's leader");
    follower_close(&follower);
}

/* TCP has no message boundaries: several frames may be there at once. */
static void frames_at_once(void)
{
    struct follower follower;

    follower_open(&follower);
    for (int n = 1; n <= 5; n++)
        send_nth(&follower, n);
    for (int n = 1; n <= 5; n++)
        receive_good(&follower, "repl_receive_record when several frames are there at once");
    wire_expect_first(&follower.store, 5, "the store after 5 frames that arrived at once");
    follower_close(&follower);
}

static void rejected(struct follower *follower, size_t byte)
{
    uint8_t encoded[WIRE_ROOM];
    size_t len = wire_set("damaged", "damaged", 77, encoded);
    long long before = check_file_size("follower.wal");
    char what[100];
    int rc;

    byte = byte < len ? byte : len - 1;
    encoded[byte] ^= 0x10;
    wire_frame(follower->raw, encoded, len);
    snprintf(what, sizeof what, "repl_receive_record of a record of %zu bytes with a bit of byte %zu flipped", len,
             byte);
    rc = receive(follower, what);
    EXPECT(!is_good(follower, rc), what, "CRC_MISMATCH", "%d, as for a good record", rc);
    EXPECT(kv_store_get(&follower->store, "damaged") == NULL, what, "nothing is applied to the store",
           "it is in the store");
    snprintf(what, sizeof what, "the follower's log after a record with a bit of byte %zu flipped", byte);
    EXPECT_INT(before, check_file_size("follower.wal"), what);
}

static void bad_crc(void)
{
    struct follower follower;

    follower_open(&follower);
    send_nth(&follower, 1);
    receive_good(&follower, "repl_receive_record of a good record");
    rejected(&follower, 0);        /* the CRC itself */
    rejected(&follower, 14);       /* the key */
    rejected(&follower, 24);       /* the value */
    rejected(&follower, SIZE_MAX); /* the last byte: the timestamp */
    follower_close(&follower);
}

static void in_step_after_bad_crc(void)
{
    struct follower follower;

    follower_open(&follower);
    send_nth(&follower, 1);
    receive_good(&follower, "repl_receive_record of a good record");
    rejected(&follower, 14);
    send_nth(&follower, 2);
    receive_good(&follower, "repl_receive_record of a good record after a damaged one");
    wire_expect_first(&follower.store, 2, "the store after a good, a damaged and a good record");
    follower_close(&follower);
}

static void leader_closes(void)
{
    struct follower follower;
    long long before;
    int rc;

    follower_open(&follower);
    send_nth(&follower, 1);
    receive_good(&follower, "repl_receive_record of a good record");
    before = check_file_size("follower.wal");
    close(follower.raw);
    follower.raw = -1;
    rc = receive(&follower, "repl_receive_record when the leader has closed the connection");
    EXPECT(!is_good(&follower, rc), "repl_receive_record when the leader has closed the connection", "-1",
           "%d, as for a good record", rc);
    EXPECT_INT(before, check_file_size("follower.wal"),
               "the follower's log after the leader has closed the connection");
    follower_close(&follower);
}

static void leader_closes_in_a_frame(void)
{
    struct follower follower;
    uint8_t encoded[WIRE_ROOM], frame[4 + WIRE_ROOM];
    long long before;
    size_t len;
    int rc;

    follower_open(&follower);
    send_nth(&follower, 1);
    receive_good(&follower, "repl_receive_record of a good record");
    before = check_file_size("follower.wal");
    len = wire_make_frame(encoded, wire_nth(2, encoded), frame);
    wire_write(follower.raw, frame, len - 5);
    close(follower.raw);
    follower.raw = -1;
    rc = receive(&follower, "repl_receive_record when the leader closes in the middle of a frame");
    EXPECT(!is_good(&follower, rc), "repl_receive_record when the leader closes in the middle of a frame", "-1",
           "%d, as for a good record", rc);
    EXPECT_INT(before, check_file_size("follower.wal"), "the follower's log after half a frame");
    follower_close(&follower);
}

/* The record must be in the log before anybody can ack it: when the call returns, and before anything is sent from
 * within. */
static void logged_before_ack(void)
{
    struct follower follower;
    const char *sent;
    long long before;

    follower_open(&follower);
    before = check_file_size("follower.wal");
    send_nth(&follower, 1);
#ifdef GRADE_WRITER_FD
    wire_watch(follower.judged, follower.writer.fd);
#endif
    receive_good(&follower, "repl_receive_record of a good record");
    sent = strchr(wire_eyes.journal, 's');
    EXPECT(check_file_size("follower.wal") > before, "the follower's log when repl_receive_record has returned 0",
           "the record is in it", "it has not grown");
    EXPECT(!wire_eyes.sent_unlogged && (sent == NULL || (strchr(sent, 'w') == NULL && strchr(sent, 'f') == NULL)),
           "the order of write (w), fsync (f) and ack (s) in repl_receive_record", "the ack comes last", "%s",
           wire_eyes.journal);
    wire_watch(-1, -1);
    follower_close(&follower);
}

/* The log can't be written: its descriptor is one for reading. Then the record must not be confirmed, nor be in the
 * store, from where it would be gone after a crash. */
static void log_fails(void)
{
    struct follower follower;
    struct shape_ack shape = shape_ack();
    uint8_t ack[WIRE_ACK_MAX] = { 0 };
    int read_only, rc;
    size_t got;

    follower_open(&follower);
    send_nth(&follower, 1);
    receive_good(&follower, "repl_receive_record of a good record");
#ifdef GRADE_WRITER_FD
    read_only = open("follower.wal", O_RDONLY | O_CLOEXEC);
    REQUIRE(read_only >= 0 && dup2(read_only, follower.writer.fd) >= 0, "a log that can't be written");
    close(read_only);
    while (wire_await(follower.raw, POLLIN, 0) && wire_read(follower.raw, ack, 1) == 1)
        continue; /* the ack of a tree that acks by itself */
    send_nth(&follower, 2);
    rc = receive(&follower, "repl_receive_record when the log can't be written");
    EXPECT(!is_good(&follower, rc), "repl_receive_record when the log can't be written", "-1",
           "%d, as for a stored record", rc);
    EXPECT(kv_store_get(&follower.store, "key-2") == NULL, "the store when the log can't be written",
           "without the record: the log comes first", "it was applied");
    shutdown(follower.judged, SHUT_WR);
    got = wire_read(follower.raw, ack, (size_t)shape.size);
    EXPECT(got < (size_t)shape.size || (shape.status_at >= 0 && ack[shape.status_at] != 0), "what the leader hears when the follower's log can't be written",
           "no ack with status 0", "one");
#else
    (void)read_only;
    (void)rc;
    (void)ack;
    (void)got;
    (void)shape;
    check_note("struct wal_writer of this tree has no fd: a log that can't be written was not tried");
#endif
    follower_close(&follower);
}

static void expect_value(struct follower *follower, const char *key, const char *value, const char *what)
{
    receive_good(follower, "repl_receive_record of a good record");
    EXPECT_STRING(value, kv_store_get(&follower->store, key), what);
}

static void conflicts(void)
{
    struct follower follower;

    follower_open(&follower);
    send_set(&follower, "x", "old", 100);
    expect_value(&follower, "x", "old", "GET x after SET x=old (t=100)");
    send_set(&follower, "x", "new", 200);
    expect_value(&follower, "x", "new", "GET x after SET x=new (t=200)");
    send_set(&follower, "x", "old", 100);
    expect_value(&follower, "x", "new", "GET x after SET x=new (t=200), then SET x=old (t=100)");
    send_set(&follower, "y", "zzz", 100);
    expect_value(&follower, "y", "zzz", "GET y after SET y=zzz (t=100)");
    send_set(&follower, "y", "aaa", 100);
    expect_value(&follower, "y", "zzz", "GET y after SET y=zzz (t=100), then SET y=aaa (t=100)");
    follower_close(&follower);
}

static void stale_del(void)
{
    struct follower follower;

    follower_open(&follower);
    send_set(&follower, "x", "new", 200);
    expect_value(&follower, "x", "new", "GET x after SET x=new (t=200)");
    send_del(&follower, "x", 150);
    expect_value(&follower, "x", "new", "GET x after SET x=new (t=200), then DEL x (t=150)");
    send_del(&follower, "x", 300);
    expect_value(&follower, "x", NULL, "GET x after SET x=new (t=200), then DEL x (t=300)");
    follower_close(&follower);
}

/* A length that no record has, and many bytes after it: a buffer of fixed size must not be written past its end. */
static void absurd_length(void)
{
    static uint8_t bytes[200000];
    struct follower follower;
    pid_t child;
    int rc;

    follower_open(&follower);
    send_nth(&follower, 1);
    receive_good(&follower, "repl_receive_record of a good record");
    child = check_fork();
    if (child == 0) {
        close(follower.judged);
        memset(bytes, 0xff, 4); /* 4 GiB */
        for (size_t sent = 0; sent < sizeof bytes;) {
            ssize_t n = syscall(SYS_sendto, follower.raw, bytes + sent, sizeof bytes - sent, MSG_NOSIGNAL, NULL, 0);

            if (n <= 0)
                break; /* the follower has hung up, which is its right */
            sent += (size_t)n;
        }
        _exit(0);
    }
    close(follower.raw);
    follower.raw = -1;
    rc = receive(&follower, "repl_receive_record of a frame whose length is 4294967295");
    EXPECT(!is_good(&follower, rc), "repl_receive_record of a frame whose length is 4294967295", "an error",
           "%d, as for a good record", rc);
    shutdown(follower.judged, SHUT_RDWR);
    check_join(child, WIRE_CHILD_MS, "the check's leader");
    follower_close(&follower);
}

static const struct check checks[] = {
    { "receive_stores", "W11-R2", "w11-l02", "repl_ship.c", 40, "a received record is in the follower's log and store",
      "The follower appends each record to its own WAL and applies it to its store: 5 records, 5 keys.",
      stores_and_applies },
    { "receive_in_pieces", "W11-R2", "w11-l02", "repl_ship.c", 60,
      "a frame that arrives byte by byte is received whole",
      "recv(2) may return fewer bytes than asked for: recv_full in a loop.", in_pieces },
    { "receive_interrupted", "W11-R2", "w11-l02", "repl_ship.c", 40, "a receive goes on after a signal",
      "A recv(2) that a signal interrupts (EINTR) is made again.", receive_interrupted },
    { "receive_frames_at_once", "W11-R2", "w11-l02", "repl_ship.c", 40,
      "frames that arrive together are taken one by one",
      "The length prefix parts one record from the next in the stream.", frames_at_once },
    { "receive_bad_crc", "W11-R3", "w11-l02", "repl_ship.c,wal_record.c", 40,
      "a damaged record is rejected and leaves no trace",
      "Check the CRC before anything is applied: a record with a flipped bit is rejected.", bad_crc },
    { "receive_after_bad_crc", "W11-R3", "w11-l03", "repl_ship.c", 40, "after a damaged record the stream is in step",
      "A damaged record is answered with status 1; the next record is received as usual.", in_step_after_bad_crc },
    { "receive_logged_before_ack", "W11-R4", "w11-l03", "repl_ship.c", 40, "the record is in the log before the ack",
      "The follower acks after it has appended the record to its WAL, not before.", logged_before_ack },
    { "receive_log_fails", "W11-R4", "w11-l03", "repl_ship.c", 40,
      "what could not be logged is neither confirmed nor applied",
      "Status 0 says that the record is in the follower's WAL.", log_fails },
    { "receive_conflicts", "W11-R5", "w11-l04", "repl_ship.c,repl_conflict.c", 40,
      "a received record is applied by the conflict rule",
      "On the follower: x=new (t=200) kept, old (t=100) skipped; x=zzz wins over x=aaa.", conflicts },
    { "receive_stale_del", "W11-R5", "w11-l04", "repl_ship.c,repl_conflict.c", 40,
      "a received DEL is applied by the conflict rule",
      "A stale DEL must not delete a newer value.", stale_del },
    { "receive_leader_closes", "W11-R6", "w11-l05", "repl_ship.c", 40, "a leader that closes is noticed",
      "recv(2) returns 0 when the peer has closed the connection.", leader_closes },
    { "receive_half_frame", "W11-R6", "w11-l05", "repl_ship.c", 40, "a leader that closes inside a frame is noticed",
      "recv(2) returns 0 when the peer has closed the connection: half a record is none.", leader_closes_in_a_frame },
    { "receive_absurd_length", "W11-R9", "w11-l06", "repl_ship.c", 40, "a length that no record has is survived",
      "No undefined behaviour: a length from the network is checked before it is used.", absurd_length },
};

CHECK_MAIN(checks)
