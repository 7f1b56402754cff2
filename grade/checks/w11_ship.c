/* repl_ship.c, the leader's side: frames to the followers, and what happens when one of them is gone. The check is
 * every follower. */
#define _GNU_SOURCE
#include "wire.h"

static void ship_nth(struct wire_cluster *cluster, int n, const char *doing)
{
    uint8_t encoded[WIRE_ROOM];
    size_t len = wire_nth(n, encoded);
    int rc;

    CALL(rc, doing, repl_ship_record(&cluster->config, encoded, len));
    EXPECT(rc >= 0, doing, "no error", "%d (%s)", rc, strerror(errno));
}

/* A record of more than 255 bytes: the length has more than one byte that is not zero. */
static size_t long_record(uint8_t *encoded)
{
    char value[301];

    memset(value, 'v', 300);
    value[300] = '\0';
    return wire_set("long", value, 1, encoded);
}

/* Ships it to one follower and returns what arrives, at most 4 + len bytes. */
static size_t shipped_bytes(const uint8_t *encoded, size_t len, uint8_t *frame)
{
    struct wire_cluster cluster;
    size_t got;
    int rc;

    wire_cluster_open(&cluster, 1);
    CALL(rc, "repl_ship_record to one follower", repl_ship_record(&cluster.config, encoded, len));
    EXPECT(rc >= 0, "repl_ship_record to one follower", "no error", "%d (%s)", rc, strerror(errno));
    if (cluster.config.followers[0].fd >= 0)
        shutdown(cluster.config.followers[0].fd, SHUT_WR);
    got = wire_read(cluster.raw[0], frame, 4 + WIRE_ROOM);
    wire_cluster_close(&cluster);
    return got;
}

static void length_prefix(void)
{
    uint8_t encoded[WIRE_ROOM], frame[4 + WIRE_ROOM];
    size_t len = long_record(encoded), got = shipped_bytes(encoded, len, frame);

    EXPECT(got < len || memcmp(frame, encoded, len) != 0, "what repl_ship_record sends",
           "a 4-byte length, then the encoded record", "the record without a length");
    EXPECT(got == 4 + len && memcmp(frame + 4, encoded, len) == 0,
           "what repl_ship_record sends for a record of 300 bytes or more",
           "4 bytes of length and the encoded record, unchanged", "%zu bytes for a record of %zu%s", got, len,
           got == 4 + len ? ", and others" : "");
}

static void length_big_endian(void)
{
    uint8_t encoded[WIRE_ROOM], frame[4 + WIRE_ROOM] = { 0 };
    size_t len = long_record(encoded), got = shipped_bytes(encoded, len, frame);
    char expected[100];

    snprintf(expected, sizeof expected, "%02zx %02zx %02zx %02zx, as htonl makes it", len >> 24, len >> 16 & 255,
             len >> 8 & 255, len & 255);
    EXPECT(got >= 4 && frame[0] == 0 && frame[1] == 0 && frame[2] == len >> 8 && frame[3] == (len & 255),
           "the length in front of a record", expected, "%02x %02x %02x %02x", frame[0], frame[1], frame[2], frame[3]);
}

static void to_all(void)
{
    struct wire_cluster cluster;
    int followers = wire_room_for();
    char what[64];

    wire_cluster_open(&cluster, followers);
    for (int n = 1; n <= 5; n++)
        ship_nth(&cluster, n, "repl_ship_record to all followers that are online");
    for (int i = 0; i < followers; i++) {
        snprintf(what, sizeof what, "follower-%d of %d", i + 1, followers);
        for (int n = 1; n <= 5; n++)
            wire_expect_nth(cluster.raw[i], n, what);
        wire_expect_end(cluster.config.followers[i].fd, cluster.raw[i], what);
    }
    wire_cluster_close(&cluster);
}

static void skips_offline(void)
{
    struct wire_cluster cluster;

    wire_cluster_open(&cluster, 2);
    cluster.config.followers[0].online = 0;
    for (int n = 1; n <= 2; n++)
        ship_nth(&cluster, n, "repl_ship_record when follower-1 is offline and follower-2 online");
    for (int n = 1; n <= 2; n++)
        wire_expect_nth(cluster.raw[1], n, "follower-2, which is online");
    wire_expect_end(cluster.config.followers[0].fd, cluster.raw[0], "follower-1, whose online is 0");
    wire_cluster_close(&cluster);
}

/* The first send after a hang-up still succeeds: TCP learns from the answer. So up to three records may be needed. */
static void ship_to_the_dead(struct wire_cluster *cluster)
{
    int dead = cluster->config.followers[0].fd;

    wire_leave(cluster, 0);
    for (int n = 1; n <= 3; n++) {
        ship_nth(cluster, n, "repl_ship_record when follower-1 has hung up");
        if (n == 1 && cluster->config.followers[0].online && wire_is(dead, S_IFSOCK))
            wire_await(dead, POLLERR, WIRE_READ_MS); /* the reset has come */
    }
}

static void survives_hang_up(void)
{
    struct wire_cluster cluster;

    wire_cluster_open(&cluster, 2);
    ship_to_the_dead(&cluster);
    for (int n = 1; n <= 3; n++)
        wire_expect_nth(cluster.raw[1], n, "follower-2, after follower-1 has hung up");
    wire_cluster_close(&cluster);
}

static void marks_offline(void)
{
    struct wire_cluster cluster;

    wire_cluster_open(&cluster, 2);
    ship_to_the_dead(&cluster);
    EXPECT_INT(0, cluster.config.followers[0].online, "online of follower-1, which has hung up, after three records");
    EXPECT_INT(1, cluster.config.followers[1].online, "online of follower-2, which has not");
    wire_cluster_close(&cluster);
}

/* A node whose fd is -1 has been given up by the tree: then the tree must have closed the socket. A tree that
 * leaves fd as it was leaves the close to the program, as the lesson's table says. */
static void offline_socket_closed(void)
{
    struct wire_cluster cluster;
    const struct repl_node *node = &cluster.config.followers[0];
    int dead;

    wire_cluster_open(&cluster, 2);
    dead = node->fd;
    ship_to_the_dead(&cluster);
    EXPECT(node->fd == dead || !wire_is(dead, S_IFSOCK),
           "the socket of a follower that was marked offline and whose fd was given up",
           "closed", "still open: nobody knows its number any more");
    wire_cluster_close(&cluster);
}

static void short_sends(void)
{
    struct wire_cluster cluster;
    uint8_t encoded[WIRE_ROOM], frame[4 + WIRE_ROOM];
    char value[5001];
    size_t len, got;
    int rc;

    memset(value, 'v', 5000);
    value[5000] = '\0';
    len = wire_set("key", value, 1, encoded);
    wire_cluster_open(&cluster, 1);
    wire_eyes.send_at_most = 1000;
    CALL(rc, "repl_ship_record when send(2) takes 1000 bytes at a time",
         repl_ship_record(&cluster.config, encoded, len));
    wire_eyes.send_at_most = 0;
    EXPECT(rc >= 0, "repl_ship_record when send(2) takes 1000 bytes at a time", "no error", "%d", rc);
    if (cluster.config.followers[0].fd >= 0)
        shutdown(cluster.config.followers[0].fd, SHUT_WR);
    got = wire_read(cluster.raw[0], frame, sizeof frame);
    EXPECT(got == 4 + len && memcmp(frame + 4, encoded, len) == 0,
           "a record of 5000 bytes when send(2) takes 1000 bytes at a time", "all of it arrives", "%zu of %zu bytes",
           got, 4 + len);
    wire_cluster_close(&cluster);
}

static void send_full_error(void)
{
    static uint8_t bytes[1 << 16];
    int judged, raw, rc = 0;

#ifndef GRADE_HAS_send_full
    check_note("this tree has no send_full: it was not looked at");
    (void)bytes;
    return;
#endif
    wire_prepare();
    wire_pair(&judged, &raw);
    close(raw);
    REQUIRE(wire_await(judged, POLLRDHUP, WIRE_READ_MS), "a hang-up over the loopback");
    for (int i = 0; i < 3 && rc >= 0; i++) {
        CALL(rc, "send_full on a connection whose other end is gone", WIRE_SEND_FULL(judged, bytes, sizeof bytes));
        wire_await(judged, POLLERR, 100);
    }
    EXPECT(rc < 0, "send_full on a connection whose other end is gone", "-1 (EPIPE or ECONNRESET)", "%d, three times",
           rc);
    close(judged);
}

static void recv_full_in_pieces(void)
{
    uint8_t sent[60], bytes[60] = { 0 };
    int judged, raw, rc;
    pid_t child;

#ifndef GRADE_HAS_recv_full
    check_note("this tree has no recv_full: it was not looked at");
    (void)bytes;
    return;
#endif
    for (size_t i = 0; i < sizeof sent; i++)
        sent[i] = (uint8_t)(i + 1);
    wire_pair(&judged, &raw);
    child = check_fork();
    if (child == 0) {
        wire_trickle(raw, sent, sizeof sent, judged);
        _exit(0);
    }
    CALL(rc, "recv_full of 60 bytes that arrive one at a time", WIRE_RECV_FULL(judged, bytes, sizeof bytes));
    EXPECT(rc >= 0, "recv_full of 60 bytes that arrive one at a time", "no error", "%d (%s)", rc, strerror(errno));
    EXPECT(memcmp(bytes, sent, sizeof sent) == 0, "recv_full of 60 bytes that arrive one at a time", "all 60, in order",
           "%s", bytes[1] == 0 ? "only the first" : "not all of them");
    check_join(child, WIRE_CHILD_MS, "the check's own end");
    close(judged);
    close(raw);
}

static void recv_full_end(void)
{
    uint8_t bytes[8];
    int judged, raw, complete, rc;

#ifndef GRADE_HAS_recv_full
    check_note("this tree has no recv_full: it was not looked at");
    (void)bytes;
    return;
#endif
    wire_pair(&judged, &raw);
    wire_write(raw, "12345678", 8);
    CALL(complete, "recv_full of 8 bytes that are there", WIRE_RECV_FULL(judged, bytes, 8));
    EXPECT(complete >= 0, "recv_full of 8 bytes that are there", "no error", "%d (%s)", complete, strerror(errno));
    wire_write(raw, "1234", 4);
    close(raw);
    CALL(rc, "recv_full of 8 bytes when the other end closes after 4", WIRE_RECV_FULL(judged, bytes, 8));
    EXPECT(rc < 0 || rc != complete, "recv_full of 8 bytes when the other end closes after 4",
           "an error (recv returns 0)", "%d, as for 8 bytes", rc);
    close(judged);
}

/* A signal may come at any time. */
static void recv_full_interrupted(void)
{
    uint8_t bytes[60] = { 0 };
    int judged, raw, rc;
    pid_t child;

#ifndef GRADE_HAS_recv_full
    check_note("this tree has no recv_full: it was not looked at");
    (void)bytes;
    return;
#endif
    wire_pair(&judged, &raw);
    child = wire_interrupt_then_write(raw, (const uint8_t *)"0123456789", 10);
    CALL(rc, "recv_full of 10 bytes when a signal interrupts recv(2) (EINTR)", WIRE_RECV_FULL(judged, bytes, 10));
    EXPECT(rc >= 0 && memcmp(bytes, "0123456789", 10) == 0,
           "recv_full of 10 bytes when a signal interrupts recv(2) (EINTR)", "it goes on until all are there",
           "%d (%s)", rc, strerror(errno));
    check_join(child, WIRE_CHILD_MS, "the check's own end");
    close(judged);
    close(raw);
}

/* What this tree sends as an ack, it reads as one. In which bytes, is its own choice. */
static void ack_there_and_back(void)
{
#if defined(GRADE_ACK) && defined(GRADE_HAS_repl_send_ack) && defined(GRADE_HAS_repl_recv_ack) && \
    defined(GRADE_DECLARES_repl_send_ack) && defined(GRADE_DECLARES_repl_recv_ack)
    static const uint64_t lsns[] = { 1, 0x0102030405060708, 0x100000000 };
    struct repl_ack ack;
    int judged, raw, rc;

    EXPECT_INT(8, sizeof ack.lsn, "bytes of lsn in struct repl_ack (uint64_t)");
    wire_pair(&judged, &raw);
    for (int i = 0; i < 6; i++) {
        uint64_t lsn = lsns[i / 2];

#ifdef GRADE_SEND_ACK_STRUCT
        memset(&ack, 0, sizeof ack);
        ack.lsn = lsn;
        ack.status = (uint8_t)(i % 2);
        CALL(rc, "repl_send_ack", repl_send_ack(raw, &ack));
#else
        CALL(rc, "repl_send_ack", repl_send_ack(raw, lsn, (uint8_t)(i % 2)));
#endif
        EXPECT(rc >= 0, "repl_send_ack", "no error", "%d (%s)", rc, strerror(errno));
        memset(&ack, 0x5a, sizeof ack);
        CALL(rc, "repl_recv_ack with an ack waiting", repl_recv_ack(judged, &ack));
        EXPECT(rc >= 0 && ack.lsn == lsn && (ack.status == i % 2 || shape_ack().status_at < 0),
               "repl_recv_ack of what repl_send_ack has sent", "the same LSN and status",
               "%d: LSN %" PRIu64 " for %" PRIu64 ", status %d for %d", rc, (uint64_t)ack.lsn, lsn, ack.status, i % 2);
    }
    close(judged);
    close(raw);
#else
    check_note("this tree has no repl_send_ack and repl_recv_ack: its acks are judged where they are waited for");
#endif
}

static const struct check checks[] = {
    { "ship_length_prefix", "W11-R2", "w11-l02", "repl_ship.c", 30, "each record is preceded by its length",
      "Send a 4-byte length prefix, then the encoded record: TCP has no message boundaries.", length_prefix },
    { "ship_length_big_endian", "W11-R2", "w11-l02", "repl_ship.c", 30, "the length is in network byte order",
      "The length prefix is sent with htonl.", length_big_endian },
    { "ship_to_all", "W11-R2", "w11-l02", "repl_ship.c", 30, "every online follower gets every record",
      "The leader ships each record to all online followers, not to one.", to_all },
    { "ship_short_sends", "W11-R2", "w11-l02", "repl_ship.c", 30, "a send that takes fewer bytes is gone on with",
      "send_full: send(2) may take fewer bytes than it was given; send the rest.", short_sends },
    { "recv_full_in_pieces", "W11-R2", "w11-l02", "repl_ship.c", 40, "recv_full goes on until all bytes are there",
      "recv_full: recv(2) may return fewer bytes than asked for; receive in a loop.", recv_full_in_pieces },
    { "recv_full_end", "W11-R2", "w11-l02", "repl_ship.c", 30, "recv_full tells when the other end has closed",
      "recv(2) returns 0 when the peer has closed the connection: that is an error in the middle of a message.",
      recv_full_end },
    { "recv_full_interrupted", "W11-R2", "w11-l02", "repl_ship.c", 30, "recv_full goes on after a signal",
      "recv_full: a recv(2) that a signal interrupts (EINTR) is made again.", recv_full_interrupted },
    { "ack_there_and_back", "W11-R4", "w11-l03", "repl_ship.c,repl_quorum.c", 30,
      "an ack that is sent is the ack that is read",
      "struct repl_ack holds lsn (uint64_t) and status (uint8_t: 0 OK, 1 CRC failure).", ack_there_and_back },
    { "ship_skips_offline", "W11-R6", "w11-l05", "repl_ship.c", 30, "an offline follower gets nothing",
      "Modify repl_ship_record to skip followers where online is 0.", skips_offline },
    { "ship_survives_hang_up", "W11-R6", "w11-l05", "repl_ship.c", 40,
      "a follower that hangs up neither kills the leader nor stops the others",
      "When a follower goes down, the leader continues shipping to the remaining followers (no SIGPIPE).",
      survives_hang_up },
    { "ship_marks_offline", "W11-R6", "w11-l05", "repl_ship.c", 40, "a failed send marks the follower offline",
      "Check the return of send(2): -1 with EPIPE or ECONNRESET means that the connection is dead. Mark it offline.",
      marks_offline },
    { "send_full_error", "W11-R6", "w11-l05", "repl_ship.c", 40, "send_full reports a dead connection",
      "send(2) returns -1 and sets errno to EPIPE or ECONNRESET when the connection is dead.", send_full_error },
    { "offline_socket_closed", "W11-R7", "w11-l05", "repl_ship.c,repl_config.c", 40,
      "the socket of an offline follower does not leak",
      "The dead socket leaks a descriptor: close(2) it before the new connection.", offline_socket_closed },
};

CHECK_MAIN(checks)
