/* repl_quorum.c: waiting for acks. The check is every follower: it writes the acks by hand, mostly before the wait
 * begins, so that nothing depends on time. */
#define _GNU_SOURCE
#include "wire.h"

#include <sys/resource.h>

enum { SHORT_MS = 400, LONG_MS = 8000 };

/* The lesson does not say whether a quorum is reported as 0, as 1 or as the number of acks. What this tree reports
 * is seen where a quorum is certain; everything else is compared with that. */
static int seen_yes;

static int is_yes(int rc, int quorum)
{
    if (rc < 0)
        return 0;
    if (seen_yes >= quorum)
        return rc >= quorum;
    return rc == seen_yes;
}

/* Records are shipped before they are acked, as in the lesson: a leader may count acks of what it has shipped only. */
static void ship(struct wire_cluster *cluster, int last)
{
    uint8_t encoded[WIRE_ROOM];
    int rc;

    for (int n = 1; n <= last; n++) {
        size_t len = wire_nth(n, encoded);

        CALL(rc, "repl_ship_record", repl_ship_record(&cluster->config, encoded, len));
        EXPECT(rc >= 0, "repl_ship_record", "no error", "%d (%s)", rc, strerror(errno));
    }
}

static void learn_yes(int followers)
{
    struct wire_cluster cluster;

    wire_cluster_open(&cluster, followers);
    ship(&cluster, 1);
    for (int i = 0; i < followers; i++)
        wire_ack(cluster.raw[i], 1, 0);
    CALL(seen_yes, "repl_wait_quorum for LSN 1 when every follower has acked it",
         repl_wait_quorum(&cluster.config, 1, LONG_MS));
    EXPECT(seen_yes >= 0, "repl_wait_quorum for LSN 1 when every follower has acked it", "a quorum (0 or more)",
           "%d; the acks were %s", seen_yes, wire_ack_text());
    wire_cluster_close(&cluster);
}

/* One wait in a cluster of two, Q = 2. */
static void expect_quorum(struct wire_cluster *cluster, uint64_t lsn, const char *what)
{
    int rc;

    CALL(rc, what, repl_wait_quorum(&cluster->config, lsn, LONG_MS));
    EXPECT(is_yes(rc, 2), what, "a quorum", "%d, where a quorum is reported as %d", rc, seen_yes);
}

static void expect_no_quorum(struct wire_cluster *cluster, uint64_t lsn, const char *what)
{
    int rc;

    CALL(rc, what, repl_wait_quorum(&cluster->config, lsn, SHORT_MS));
    EXPECT(!is_yes(rc, 2), what, "no quorum: -1", "%d, as for a quorum", rc);
}

static void begin(struct wire_cluster *cluster)
{
    learn_yes(2);
    wire_cluster_open(cluster, 2);
    ship(cluster, 5);
}

static void reached(void)
{
    struct wire_cluster cluster;

    begin(&cluster);
    for (uint64_t lsn = 1; lsn <= 5; lsn++) {
        wire_ack(cluster.raw[0], lsn, 0);
        wire_ack(cluster.raw[1], lsn, 0);
        expect_quorum(&cluster, lsn, "repl_wait_quorum when both of two followers have acked the LSN");
    }
    wire_cluster_close(&cluster);
}

static void one_of_two(void)
{
    struct wire_cluster cluster;

    begin(&cluster);
    wire_ack(cluster.raw[0], 1, 0);
    expect_no_quorum(&cluster, 1, "repl_wait_quorum when one of two followers has acked and the other is silent");
    wire_cluster_close(&cluster);
}

static void none_of_two(void)
{
    struct wire_cluster cluster;

    begin(&cluster);
    expect_no_quorum(&cluster, 1, "repl_wait_quorum when both followers are silent");
    wire_cluster_close(&cluster);
}

static void twice_from_one(void)
{
    struct wire_cluster cluster;

    begin(&cluster);
    wire_ack(cluster.raw[0], 1, 0);
    wire_ack(cluster.raw[0], 1, 0);
    expect_no_quorum(&cluster, 1, "repl_wait_quorum when one follower has acked twice and the other not at all");
    wire_cluster_close(&cluster);
}

static void status_1(void)
{
    struct wire_cluster cluster;

    if (shape_ack().status_at < 0) {
        check_note("this tree's acks have no status: that status 1 does not count was not looked at");
        return;
    }
    begin(&cluster);
    wire_ack(cluster.raw[0], 1, 0);
    wire_ack(cluster.raw[1], 1, 1);
    expect_no_quorum(&cluster, 1,
                     "repl_wait_quorum when one of two followers has answered with status 1 (CRC failure)");
    wire_cluster_close(&cluster);
}

static void older_lsn(void)
{
    struct wire_cluster cluster;

    begin(&cluster);
    wire_ack(cluster.raw[0], 2, 0);
    wire_ack(cluster.raw[1], 1, 0);
    expect_no_quorum(&cluster, 2, "repl_wait_quorum for LSN 2 when one of two followers has acked LSN 1 only");
    wire_cluster_close(&cluster);
}

static void late_ack_skipped(void)
{
    struct wire_cluster cluster;

    begin(&cluster);
    wire_ack(cluster.raw[0], 2, 0);
    wire_ack(cluster.raw[1], 1, 0); /* of a record whose wait is over */
    wire_ack(cluster.raw[1], 2, 0);
    expect_quorum(&cluster, 2, "repl_wait_quorum for LSN 2 when a late ack of LSN 1 stands before that of LSN 2");
    wire_cluster_close(&cluster);
}

/* The lesson counts the acks of the LSN that is waited for, each for itself. */
static void newer_lsn(void)
{
    struct wire_cluster cluster;

    begin(&cluster);
    wire_ack(cluster.raw[0], 1, 0);
    wire_ack(cluster.raw[1], 2, 0);
    expect_no_quorum(&cluster, 1, "repl_wait_quorum for LSN 1 when one of two followers has acked LSN 2 only");
    wire_cluster_close(&cluster);
}

/* An LSN has 64 bits. */
static void wide_lsn(void)
{
    struct wire_cluster cluster;

    begin(&cluster);
    wire_ack(cluster.raw[0], 1, 0);
    wire_ack(cluster.raw[1], 1, 0);
    expect_no_quorum(&cluster, 0x100000001, "repl_wait_quorum for LSN 4294967297 when both followers have acked LSN 1");
    wire_cluster_close(&cluster);
}

/* Q of three is two: the third need not be waited for. */
static void two_of_three(void)
{
    struct wire_cluster cluster;
    int rc;

    if (!wire_has_room_for(3))
        return;
    learn_yes(3);
    wire_cluster_open(&cluster, 3);
    ship(&cluster, 2);
    wire_ack(cluster.raw[0], 1, 0);
    wire_ack(cluster.raw[2], 1, 0);
    CALL(rc, "repl_wait_quorum when two of three followers have acked and the third is silent",
         repl_wait_quorum(&cluster.config, 1, LONG_MS / 4));
    EXPECT(is_yes(rc, 2), "repl_wait_quorum when two of three followers have acked and the third is silent",
           "a quorum: Q is 2 of 3", "%d, where a quorum is reported as %d", rc, seen_yes);
    wire_ack(cluster.raw[1], 2, 0);
    CALL(rc, "repl_wait_quorum when one of three followers has acked", repl_wait_quorum(&cluster.config, 2, SHORT_MS));
    EXPECT(!is_yes(rc, 2), "repl_wait_quorum when one of three followers has acked", "no quorum: Q is 2 of 3",
           "%d, as for a quorum", rc);
    wire_cluster_close(&cluster);
}

/* The second follower takes its time. The record is committed when its ack is there, not before. */
static void slow_follower(void)
{
    volatile int *acked = wire_shared_flag();
    struct wire_cluster cluster;
    long long started, took;
    int rc, seen;
    pid_t child;

    begin(&cluster);
    wire_ack(cluster.raw[0], 1, 0);
    started = check_now_ms();
    child = check_fork();
    if (child == 0) {
        syscall(SYS_poll, NULL, 0, 500);
        *acked = 1;
        wire_ack(cluster.raw[1], 1, 0);
        _exit(0);
    }
    CALL(rc, "repl_wait_quorum while the second follower takes 500 ms to ack",
         repl_wait_quorum(&cluster.config, 1, LONG_MS));
    seen = *acked;
    took = check_now_ms() - started;
    EXPECT(!is_yes(rc, 2) || seen, "repl_wait_quorum while the second follower takes 500 ms to ack",
           "no quorum before that ack is sent", "a quorum after %lld ms", took);
    EXPECT(is_yes(rc, 2), "repl_wait_quorum when the second follower has acked after 500 ms", "a quorum",
           "%d after %lld ms", rc, took);
    check_join(child, WIRE_CHILD_MS, "the check's slow follower");
    wire_cluster_close(&cluster);
}

/* One follower keeps sending what does not count. A wait that gives every poll the whole timeout never ends. */
static void timeout_counts_down(void)
{
    struct wire_cluster cluster;
    long long started, took;
    pid_t child;
    int rc;

    begin(&cluster);
    wire_ack(cluster.raw[0], 2, 0);
    started = check_now_ms();
    child = check_fork();
    if (child == 0) {
        for (;;) {
            wire_ack(cluster.raw[1], 1, 0);
            syscall(SYS_poll, NULL, 0, 100);
        }
    }
    CALL(rc, "repl_wait_quorum for LSN 2 with a timeout of 400 ms while acks of LSN 1 come every 100 ms",
         repl_wait_quorum(&cluster.config, 2, SHORT_MS));
    took = check_now_ms() - started;
    wire_dismiss(child);
    EXPECT(!is_yes(rc, 2), "repl_wait_quorum for LSN 2 when one of two followers acks LSN 1 only", "no quorum",
           "%d, as for a quorum", rc);
    EXPECT(took < 5000, "repl_wait_quorum with a timeout of 400 ms while acks of another LSN come every 100 ms",
           "the timeout is for the whole call", "it took %lld ms", took);
    wire_cluster_close(&cluster);
}

static void timeout_is_waited_for(void)
{
    struct wire_cluster cluster;
    long long started;
    pid_t child;

    begin(&cluster);
    wire_ack(cluster.raw[0], 1, 0);
    started = check_now_ms();
    child = check_fork();
    if (child == 0) {
        /* Only after the parent's wait has begun, most likely; if not, the check is merely weaker. */
        syscall(SYS_poll, NULL, 0, 150);
        wire_ack(cluster.raw[1], 1, 0);
        _exit(0);
    }
    expect_quorum(&cluster, 1, "repl_wait_quorum with a timeout of 8000 ms when the missing ack comes after 150 ms");
    EXPECT(check_now_ms() - started < LONG_MS, "repl_wait_quorum when the missing ack comes after 150 ms",
           "it returns when a quorum is there", "it waited for the timeout");
    check_join(child, WIRE_CHILD_MS, "the check's follower");
    wire_cluster_close(&cluster);
}

/* follower-2 is offline and its descriptor closed, as after a failed send. What the wait says is not judged: with
 * one of two left, the lesson lets a leader block or degrade. */
static void offline_not_polled(void)
{
    struct wire_cluster cluster;
    int closed, rc;

    begin(&cluster);
    wire_ack(cluster.raw[0], 1, 0);
    closed = cluster.config.followers[1].fd;
    close(closed);
    cluster.config.followers[1].online = 0;
    wire_eyes.offline = closed;
    CALL(rc, "repl_wait_quorum when follower-2 is offline and its descriptor closed",
         repl_wait_quorum(&cluster.config, 1, SHORT_MS));
    (void)rc;
    EXPECT(wire_eyes.polled_offline == 0, "the descriptors that repl_wait_quorum gives to poll(2)",
           "those of online followers only", "that of a follower with online 0 (POLLNVAL)");
    wire_eyes.offline = -1;
    cluster.config.followers[1].fd = -1;
    wire_cluster_close(&cluster);
}

/* Neither does what poll says about a closed descriptor count as an ack. Of three followers two are offline. */
static void offline_does_not_count(void)
{
    struct wire_cluster cluster;
    int rc;

    if (!wire_has_room_for(3))
        return;
    learn_yes(3);
    wire_cluster_open(&cluster, 3);
    ship(&cluster, 1);
    for (int i = 1; i < 3; i++) {
        close(cluster.config.followers[i].fd);
        cluster.config.followers[i].online = 0;
    }
    CALL(rc, "repl_wait_quorum when two of three followers are offline and the third is silent",
         repl_wait_quorum(&cluster.config, 1, SHORT_MS));
    EXPECT(!is_yes(rc, 2), "repl_wait_quorum when two of three followers are offline and the third is silent",
           "no quorum", "%d, as for a quorum", rc);
    cluster.config.followers[1].fd = -1;
    cluster.config.followers[2].fd = -1;
    wire_cluster_close(&cluster);
}

/* What the wait says is not judged here either. */
static void hang_up_marks_offline(void)
{
    struct wire_cluster cluster;
    int rc;

    begin(&cluster);
    wire_ack(cluster.raw[0], 1, 0);
    wire_leave(&cluster, 1);
    CALL(rc, "repl_wait_quorum when follower-2 has hung up without an ack",
         repl_wait_quorum(&cluster.config, 1, SHORT_MS));
    (void)rc;
    EXPECT_INT(0, cluster.config.followers[1].online,
               "online of follower-2, which has hung up, after repl_wait_quorum");
    EXPECT_INT(1, cluster.config.followers[0].online, "online of follower-1, which has not, after repl_wait_quorum");
    wire_cluster_close(&cluster);
}

static void ack_in_pieces(void)
{
    struct wire_cluster cluster;
    pid_t child;

    begin(&cluster);
    child = check_fork();
    if (child == 0) {
        uint8_t ack[WIRE_ACK_MAX];
        size_t len = wire_make_ack(shape_ack(), 1, 0, ack);

        for (int i = 0; i < 2; i++)
            wire_trickle(cluster.raw[i], ack, len, cluster.config.followers[i].fd);
        _exit(0);
    }
    expect_quorum(&cluster, 1, "repl_wait_quorum when the bytes of each ack arrive one at a time");
    check_join(child, WIRE_CHILD_MS, "the check's followers");
    wire_cluster_close(&cluster);
}

/* select(2) and FD_SET know descriptors below 1024 only. */
static void high_descriptors(void)
{
    struct rlimit limit;
    struct wire_cluster cluster;

    learn_yes(2);
    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
    limit.rlim_cur = limit.rlim_max > 4096 ? 4096 : limit.rlim_max;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
    wire_cluster_open(&cluster, 2);
    ship(&cluster, 2);
    for (int i = 0; i < 2; i++) {
        struct repl_node *node = &cluster.config.followers[i];
        int high = fcntl(node->fd, F_DUPFD_CLOEXEC, 1030 + i);

        REQUIRE(high >= 1024, "a descriptor above 1024");
        close(node->fd);
        node->fd = high;
        wire_ack(cluster.raw[i], 1, 0);
    }
    expect_quorum(&cluster, 1,
                  "repl_wait_quorum with sockets whose descriptors are above 1024 (select(2) can't have them)");
    wire_ack(cluster.raw[0], 2, 0);
    expect_no_quorum(&cluster, 2, "repl_wait_quorum with descriptors above 1024 when one follower is silent");
    wire_cluster_close(&cluster);
}

static const struct check checks[] = {
    { "quorum_reached", "W11-R4", "w11-l03", "repl_quorum.c", 30, "both acks are a quorum",
      "quorum reached for LSN=1 (2/2 acks), for each of 5 records.", reached },
    { "quorum_one_of_two", "W11-R4", "w11-l03", "repl_quorum.c", 40, "one ack of two is none",
      "With two followers Q is 2: the leader does not say OK before both have acked.", one_of_two },
    { "quorum_none_of_two", "W11-R4", "w11-l03", "repl_quorum.c", 40, "no ack is none",
      "With two followers Q is 2: the leader does not say OK before both have acked.", none_of_two },
    { "quorum_slow_follower", "W11-R4", "w11-l03", "repl_quorum.c", 40, "a write waits for the slow follower",
      "follower-2 sleeps 500 ms before its ack; the write takes at least that long.", slow_follower },
    { "quorum_twice_from_one", "W11-R4", "w11-l03", "repl_quorum.c", 40, "two acks from one follower count once",
      "A quorum is made of different followers.", twice_from_one },
    { "quorum_status_1", "W11-R4", "w11-l03", "repl_quorum.c", 40, "an ack with status 1 does not count",
      "Status 1 says that the CRC did not match: the record is not stored there.", status_1 },
    { "quorum_older_lsn", "W11-R4", "w11-l03", "repl_quorum.c", 40, "an ack of an older LSN does not count",
      "An ack counts for the LSN that it names.", older_lsn },
    { "quorum_newer_lsn", "W11-R4", "w11-l03", "repl_quorum.c", 40, "an ack of a newer LSN does not count",
      "An ack counts for the LSN that it names.", newer_lsn },
    { "quorum_wide_lsn", "W11-R4", "w11-l03", "repl_quorum.c", 40, "an LSN has 64 bits",
      "lsn is a uint64_t, in the ack and in the call.", wide_lsn },
    { "quorum_two_of_three", "W11-R4", "w11-l03", "repl_quorum.c", 40, "two acks of three are a quorum",
      "Q is follower_count / 2 + 1: with three followers two acks are enough, and one is not.", two_of_three },
    { "quorum_late_ack_skipped", "W11-R4", "w11-l03", "repl_quorum.c", 40, "a late ack does not stand in the way",
      "The ack of an earlier record is passed over; the one that is waited for counts.", late_ack_skipped },
    { "quorum_timeout_counts_down", "W11-R4", "w11-l03", "repl_quorum.c", 40, "the timeout is one for the whole call",
      "Decrement the timeout by the time that has passed since the last poll.", timeout_counts_down },
    { "quorum_waits", "W11-R4", "w11-l03", "repl_quorum.c", 40, "an ack that comes in time counts",
      "Wait with poll(2) until a quorum is reached or the timeout has passed.", timeout_is_waited_for },
    { "quorum_ack_in_pieces", "W11-R4", "w11-l03", "repl_quorum.c", 40, "an ack that arrives byte by byte counts",
      "recv(2) may return fewer bytes than asked for: receive in a loop.", ack_in_pieces },
    { "quorum_high_descriptors", "W11-R4", "w11-l03", "repl_quorum.c", 40, "descriptors above 1024",
      "Use poll(2): select(2) is limited to descriptors below 1024.", high_descriptors },
    { "quorum_offline_not_polled", "W11-R6", "w11-l05", "repl_quorum.c", 40, "an offline follower is not polled",
      "Polling a closed descriptor gives POLLNVAL: skip offline followers in the poll(2) array.", offline_not_polled },
    { "quorum_offline_not_counted", "W11-R6", "w11-l05", "repl_quorum.c", 40, "an offline follower does not count",
      "Dead followers are marked online = 0 and excluded from the quorum.", offline_does_not_count },
    { "quorum_hang_up", "W11-R6", "w11-l05", "repl_quorum.c", 40, "a follower that hangs up is marked offline",
      "Set online to 0 when a recv(2) returns an error or 0.", hang_up_marks_offline },
};

CHECK_MAIN(checks)
