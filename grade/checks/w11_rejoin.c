/* repl_rejoin.c: a follower that comes back, and what the leader ships to it from its log. The check is the other
 * end of every connection. Nothing but the lesson's flow is used: the leader appends each record to leader.wal and
 * ships it, a follower goes and comes back on another connection. */
#define _GNU_SOURCE
#include "wire.h"

/* ---- the follower's side ---------------------------------------------------------------------------------------- */

/* What arrives on the connection that was there or on one that the call opened; the lesson's sentences allow both. */
static size_t rejoin_message(int raw, int listen_fd, uint8_t *bytes, size_t size)
{
    long long end = check_now_ms() + WIRE_READ_MS;

    while (check_now_ms() < end) {
        if (raw >= 0 && wire_await(raw, POLLIN, 10)) {
            ssize_t n = recv(raw, bytes, size, MSG_DONTWAIT);

            if (n > 0)
                return (size_t)n;
        }
        if (wire_await(listen_fd, POLLIN, 10)) {
            int fd = wire_accept(listen_fd);
            ssize_t n = fd >= 0 ? recv(fd, bytes, size, 0) : 0;

            close(fd);
            if (n > 0)
                return (size_t)n;
        }
    }
    return 0;
}

static void message(void)
{
    static const uint64_t lsns[] = { 5, 0x0102030405060708 };
    uint8_t bytes[256];

    for (size_t i = 0; i < 2; i++) {
        int listen_fd = wire_listen(), judged, raw, rc;
        char what[100];
        size_t got;

        wire_eyes.leader_port = wire_port_of(listen_fd);
        judged = wire_connect(wire_eyes.leader_port);
        raw = wire_accept(listen_fd);
        REQUIRE(judged >= 0 && raw >= 0, "a connection over the loopback");
        snprintf(what, sizeof what, "repl_follower_rejoin with last_applied_lsn %" PRIu64, lsns[i]);
        CALL(rc, what, repl_follower_rejoin(judged, lsns[i]));
        EXPECT(rc >= 0, what, "no error", "%d (%s)", rc, strerror(errno));
        got = rejoin_message(raw, listen_fd, bytes, sizeof bytes);
        EXPECT(got > 0, what, "a message to the leader", "none");
        EXPECT(wire_shows_lsn(bytes, got, lsns[i]), what, "a message that holds the LSN (8 bytes)",
               "%zu bytes without it, the first of them %02x %02x %02x %02x", got, bytes[0], bytes[1], bytes[2],
               bytes[3]);
        close(judged);
        close(raw);
        close(listen_fd);
        /* What the call opened besides is known by its result, if at all. */
        if (rc > 2 && rc != judged && wire_is(rc, S_IFSOCK))
            close(rc);
    }
}

/* The leader has closed the old connection. Whatever the call makes of that, no socket may be left that nobody
 * knows: at most the old one, which is the caller's, and a new one, whose number is the result. */
static void old_socket_replaced(void)
{
    int listen_fd = wire_listen(), judged, raw, rc, before, known;

    wire_eyes.leader_port = wire_port_of(listen_fd);
    before = wire_count_fds();
    for (int i = 0; i < 5; i++) {
        judged = wire_connect(wire_eyes.leader_port);
        raw = wire_accept(listen_fd);
        REQUIRE(judged >= 0 && raw >= 0, "a connection over the loopback");
        close(raw);
        REQUIRE(wire_await(judged, POLLRDHUP, WIRE_READ_MS), "a hang-up over the loopback");
        CALL(rc, "repl_follower_rejoin on a connection that the leader has closed", repl_follower_rejoin(judged, 5));
        known = rc > 2 && rc != judged && wire_is(rc, S_IFSOCK) ? rc : -1;
        if (wire_is(judged, S_IFSOCK))
            close(judged);
        if (known >= 0)
            close(known);
        while (wire_await(listen_fd, POLLIN, 0)) {
            raw = wire_accept(listen_fd);
            close(raw);
        }
    }
    EXPECT_INT(before, wire_count_fds(), "open descriptors after 5 calls of repl_follower_rejoin on dead connections");
    close(listen_fd);
}

/* ---- the leader's side ------------------------------------------------------------------------------------------ */

struct leader {
    struct wire_cluster cluster;
    struct wal_writer writer;
    int lsn;
};

/* One write: logged, then shipped to whoever is online. */
static void leader_write(struct leader *leader)
{
    uint8_t encoded[WIRE_ROOM];
    size_t len;
    int rc;

    leader->lsn++;
    wire_append_nth(&leader->writer, leader->lsn);
    len = wire_nth(leader->lsn, encoded);
    CALL(rc, "repl_ship_record", repl_ship_record(&leader->cluster.config, encoded, len));
    EXPECT(rc >= 0, "repl_ship_record", "no error", "%d (%s)", rc, strerror(errno));
}

/* follower-1 gets everything, follower-2 the first `both` of `all` records; then it is gone, as if killed. */
static void leader_open(struct leader *leader, int both, int all)
{
    memset(leader, 0, sizeof *leader);
    EXPECT(CHECK_WAL_OPEN(&leader->writer, "leader.wal") >= 0, "wal_open of the leader's log", "no error", "%s",
           strerror(errno));
    wire_cluster_open(&leader->cluster, 2);
    while (leader->lsn < both)
        leader_write(leader);
    for (int n = 1; n <= both; n++)
        wire_expect_nth(leader->cluster.raw[1], n, "follower-2, before it goes");
    wire_leave(&leader->cluster, 1);
    wire_node_close(&leader->cluster.config.followers[1]);
    while (leader->lsn < all)
        leader_write(leader);
    for (int n = 1; n <= all; n++)
        wire_expect_nth(leader->cluster.raw[0], n, "follower-1");
}

static void leader_close(struct leader *leader)
{
    wire_cluster_close(&leader->cluster);
    CHECK_WAL_CLOSE(&leader->writer);
}

/* follower-2 is back on a new connection, not yet online. */
static void come_back(struct leader *leader)
{
    wire_join(&leader->cluster, 1);
    leader->cluster.config.followers[1].online = 0;
}

static void catch_up(struct leader *leader, uint64_t lsn, const char *doing)
{
    int rc;

    CALL(rc, doing, wire_catch_up(&leader->cluster.config, &leader->writer, 1, lsn));
    EXPECT(rc >= 0, doing, "no error", "%d (%s)", rc, strerror(errno));
}

static void expect_records(struct leader *leader, int first, int last, const char *what)
{
    for (int n = first; n <= last; n++)
        wire_expect_nth(leader->cluster.raw[1], n, what);
    wire_expect_end(leader->cluster.config.followers[1].fd, leader->cluster.raw[1], what);
}

static void from_the_next(void)
{
    struct leader leader;

    leader_open(&leader, 5, 10);
    come_back(&leader);
    catch_up(&leader, 5, "repl_catch_up of a follower with last_lsn=5, the log having 10 records");
    expect_records(&leader, 6, 10, "catch-up from LSN 5 of a log of 10 records");
    leader_close(&leader);
}

static void from_the_start(void)
{
    struct leader leader;

    leader_open(&leader, 0, 10);
    come_back(&leader);
    catch_up(&leader, 0, "repl_catch_up of a follower with last_lsn=0, the log having 10 records");
    expect_records(&leader, 1, 10, "catch-up from LSN 0 of a log of 10 records");
    leader_close(&leader);
}

static void nothing_missed(void)
{
    struct leader leader;

    leader_open(&leader, 10, 10);
    come_back(&leader);
    catch_up(&leader, 10, "repl_catch_up of a follower with last_lsn=10, the log having 10 records");
    EXPECT_INT(1, leader.cluster.config.followers[1].online,
               "online of a follower that missed nothing, after repl_catch_up");
    wire_expect_end(leader.cluster.config.followers[1].fd, leader.cluster.raw[1],
                    "catch-up from LSN 10 of a log of 10 records");
    leader_close(&leader);
}

static void one_missed(void)
{
    struct leader leader;

    leader_open(&leader, 9, 10);
    come_back(&leader);
    catch_up(&leader, 9, "repl_catch_up of a follower with last_lsn=9, the log having 10 records");
    expect_records(&leader, 10, 10, "catch-up from LSN 9 of a log of 10 records");
    leader_close(&leader);
}

static void only_that_follower(void)
{
    struct leader leader;

    leader_open(&leader, 5, 10);
    come_back(&leader);
    catch_up(&leader, 5, "repl_catch_up of a follower with last_lsn=5, the log having 10 records");
    EXPECT_INT(1, leader.cluster.config.followers[0].online, "online of follower-1 after the catch-up of follower-2");
    wire_expect_end(leader.cluster.config.followers[0].fd, leader.cluster.raw[0],
                    "follower-1, while follower-2 catches up");
    leader_close(&leader);
}

static void online_again(void)
{
    struct leader leader;

    leader_open(&leader, 5, 10);
    come_back(&leader);
    catch_up(&leader, 5, "repl_catch_up of a follower with last_lsn=5, the log having 10 records");
    EXPECT_INT(1, leader.cluster.config.followers[1].online, "online of the follower after repl_catch_up");
    leader_write(&leader);
    wire_expect_nth(leader.cluster.raw[0], 11, "follower-1, a write after the catch-up");
    expect_records(&leader, 6, 11, "follower-2, catch-up from LSN 5, then a write");
    leader_close(&leader);
}

/* read(2) may return less than it was asked for. */
static void short_reads(void)
{
    struct leader leader;

    leader_open(&leader, 5, 10);
    come_back(&leader);
    wire_eyes.read_at_most = 5;
    catch_up(&leader, 5, "repl_catch_up from LSN 5 when read(2) returns at most 5 bytes of the log");
    wire_eyes.read_at_most = 0;
    expect_records(&leader, 6, 10, "catch-up from LSN 5 when read(2) returns at most 5 bytes of the log");
    leader_close(&leader);
}

static void short_sends(void)
{
    struct leader leader;

    leader_open(&leader, 5, 10);
    come_back(&leader);
    wire_eyes.send_at_most = 7;
    catch_up(&leader, 5, "repl_catch_up from LSN 5 when send(2) takes at most 7 bytes");
    wire_eyes.send_at_most = 0;
    expect_records(&leader, 6, 10, "catch-up from LSN 5 when send(2) takes at most 7 bytes");
    leader_close(&leader);
}

static void no_descriptor_left(void)
{
    struct leader leader;
    int before;

    leader_open(&leader, 5, 10);
    before = wire_count_fds() + 2; /* the new connection, with the check's end of it */
    for (int i = 0; i < 5; i++) {
        come_back(&leader);
        catch_up(&leader, 5, "repl_catch_up of a follower with last_lsn=5, the log having 10 records");
        EXPECT_INT(before, wire_count_fds(),
                   "open descriptors after a catch-up: those before it, and the new connection");
        expect_records(&leader, 6, 10, "catch-up from LSN 5 of a log of 10 records");
        wire_leave(&leader.cluster, 1);
        wire_node_close(&leader.cluster.config.followers[1]);
    }
    leader_close(&leader);
}

/* Large records, so that the end of the connection is noticed while some are still to be sent. */
static void gone_again(void)
{
    struct leader leader;
    static char value[60001];
    struct wal_record record;
    int rc;

    memset(value, 'v', sizeof value - 1);
    leader_open(&leader, 5, 5);
    for (int i = 0; i < 200; i++) {
        record = check_set_record("key", value, 100 + (uint64_t)i);
        EXPECT(wal_append(&leader.writer, &record) >= 0, "wal_append to the leader's log", "no error", "%s",
               strerror(errno));
    }
    come_back(&leader);
    wire_leave(&leader.cluster, 1);
    CALL(rc, "repl_catch_up of a follower that is gone again", wire_catch_up(&leader.cluster.config, &leader.writer, 1, 5));
    (void)rc;
    EXPECT_INT(0, leader.cluster.config.followers[1].online,
               "online of a follower that is gone again, after repl_catch_up");
    leader_close(&leader);
}

static const struct check checks[] = {
    { "rejoin_message", "W11-R7", "w11-l05", "repl_rejoin.c", 40, "the follower tells the leader its last LSN",
      "repl_follower_rejoin sends a rejoin message containing its last_applied_lsn.", message },
    { "rejoin_old_socket", "W11-R7", "w11-l05", "repl_rejoin.c", 60, "the follower's old socket does not leak",
      "Not closing the old socket before rejoin leaks a descriptor.", old_socket_replaced },
    { "catch_up_from_next", "W11-R7", "w11-l05", "repl_rejoin.c", 40, "catch-up from LSN 5 ships records 6 to 10",
      "follower-2 sends last_lsn=5 and the leader re-ships records 6-10.", from_the_next },
    { "catch_up_from_start", "W11-R7", "w11-l05", "repl_rejoin.c", 40, "catch-up from LSN 0 ships the whole log",
      "repl_catch_up ships every record from that point forward.", from_the_start },
    { "catch_up_one_missed", "W11-R7", "w11-l05", "repl_rejoin.c", 40,
      "catch-up from the last record but one ships one",
      "The LSN must map to a byte offset in the WAL: scan from the start, or keep an index.", one_missed },
    { "catch_up_nothing_missed", "W11-R7", "w11-l05", "repl_rejoin.c", 40,
      "a follower that missed nothing is online at once",
      "After catch-up is complete, set the follower's online flag to 1.", nothing_missed },
    { "catch_up_only_one", "W11-R7", "w11-l05", "repl_rejoin.c", 40, "catch-up goes to the rejoining follower alone",
      "repl_catch_up ships to just the rejoining follower.", only_that_follower },
    { "catch_up_online_again", "W11-R7", "w11-l05", "repl_rejoin.c", 40, "after catch-up the follower gets new records",
      "After catch-up is complete, set the follower's online flag to 1 and include it again.", online_again },
    { "catch_up_short_reads", "W11-R7", "w11-l05", "repl_rejoin.c", 40, "a short read of the log is gone on with",
      "read(2) may return fewer bytes than asked for: read in a loop.", short_reads },
    { "catch_up_short_sends", "W11-R7", "w11-l05", "repl_rejoin.c", 40, "a short send is gone on with",
      "send(2) may take fewer bytes than it was given: send the rest.", short_sends },
    { "catch_up_descriptors", "W11-R7", "w11-l05", "repl_rejoin.c", 60, "a rejoin leaves no descriptor open",
      "repl_catch_up opens the leader's WAL file, and closes it.", no_descriptor_left },
    { "catch_up_gone_again", "W11-R6", "w11-l05", "repl_rejoin.c", 60,
      "a follower that goes during catch-up stays offline",
      "Check the return of send(2) and mark the follower offline.", gone_again },
};

CHECK_MAIN(checks)
