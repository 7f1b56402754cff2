/* Both ends logship: an LSN means the same record on both, whatever is damaged, refused, in flight behind it or sent
 * twice; and a quorum is reported only for what lies in the follower's log. */
#include "wire.h"
#include "logship.h"
#include <sys/resource.h>

enum { RECORDS = 16 };

static struct replication_config config;
static struct wal_writer writer;
static uint8_t log_bytes[4096];
static size_t ends[RECORDS + 1]; /* where record n ends in the log, from 1 */

static int errors; /* log lines that say so */
static void count_errors(int level, const char *message, void *context)
{
    (void)message, (void)context;
    errors += level == LOGSHIP_LOG_ERROR;
}
/* Records of one length (else the length alone would tell one from another) or of different ones. */
static void make_log(int same_length)
{
    for (int n = 1; n <= RECORDS; n++) {
        char key[16], value[40];
        snprintf(key, sizeof key, "key%02d", n);
        snprintf(value, sizeof value, "value%02d%.*s", n, same_length ? 5 : n, "abcdefghijklmnopqrstuvwxyz");
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
static void decoded(int n, struct wal_record *record)
{
    REQUIRE(wal_record_decode(rec(n), len(n), record) == 0);
}
static void append(int n)
{
    struct wal_record record;
    decoded(n, &record);
    REQUIRE(wal_append(&writer, &record) == 0);
    wal_record_free(&record);
}
static void leader(int records)
{
    REQUIRE(wal_open(&writer, "leader.wal") == 0);
    for (int n = 1; n <= records; n++)
        append(n);
    REQUIRE(repl_config_init(&config) == 0);
    config.follower_count = 1;
    CHECK_EQ(repl_set_wal(&config, "leader.wal"), 0);
}
/* How many whole records follower.wal begins with, each the leader's record of that number; -1 if one is not. */
static int holds(void)
{
    static uint8_t got[sizeof log_bytes + 1];
    long size = own_read_file("follower.wal", got, sizeof got);
    int whole = -1; /* a write may be on its way: what is behind the last whole record is not looked at */
    for (int n = 0; n <= RECORDS && size >= 0 && (size_t)size >= ends[n]; n++)
        whole = n;
    return whole >= 0 && memcmp(got, log_bytes, ends[whole]) == 0 ? whole : -1;
}
/* The store of follower.wal has the leader's keys 1..last and no other. */
static void store_is(int last)
{
    struct kv_store store;
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_recover("follower.wal", &store), last);
    CHECK_EQ(kv_store_count(&store), last);
    for (int n = 1; n <= last; n++) {
        struct wal_record record;
        decoded(n, &record);
        const char *value = kv_store_get(&store, record.key);
        CHECK(value && strcmp(value, record.value) == 0);
        wal_record_free(&record);
    }
    kv_store_destroy(&store);
}
/* A quorum for n: the follower has it, by number. */
static void commits(int n)
{
    CHECK_EQ(repl_wait_quorum(&config, (uint64_t)n, 5000), 0);
    if (!CHECK(holds() >= n))
        NOTE("quorum for %d, and the follower holds %d", n, holds());
}

/* ---- the follower's process ---- */

struct plan {
    int leader_connects; /* who connects: the leader with repl_connect, or the follower with it */
    int has;             /* records in its log before */
    int other;           /* and they are not the leader's */
    int is_refused;      /* by the leader, at any time: its receive may fail with ESTALE or EPIPE */
    int rejoins;         /* it sends repl_follower_rejoin with this LSN; -1: not */
    int by_hand;         /* repl_receive_record and repl_send_ack; else logship_follow */
    int refuses;         /* the record for which its log may not grow, once; 0 for none */
    int received;        /* by hand: so many receives return 0; -1: any number */
};
static const struct plan PLAIN = {.rejoins = -1, .received = -1};

static size_t other_records(uint8_t *out, int count)
{
    size_t size = 0;
    for (int n = 1; n <= count; n++)
        size += own_set(out + size, "key of another", "value of another", (uint64_t)(500 + n));
    return size;
}
static void follower(int fd, const struct plan *plan)
{
    static uint8_t others[sizeof log_bytes];
    struct wal_writer log;
    struct kv_store store;
    struct rlimit all, small;
    int received = 0, refused = 0;
    signal(SIGXFSZ, SIG_IGN);
    REQUIRE(getrlimit(RLIMIT_FSIZE, &all) == 0 && kv_store_init(&store) == 0);
    if (plan->other)
        REQUIRE(own_write_file("follower.wal", others, other_records(others, plan->has)) == 0);
    else
        REQUIRE(own_write_file("follower.wal", log_bytes, ends[plan->has]) == 0);
    REQUIRE(wal_open(&log, "follower.wal") == 0);
    if (plan->rejoins >= 0 && plan->by_hand) /* else it would be a plain follower */
        REQUIRE(logship_set_self(1) == 0);
    if (plan->rejoins >= 0)
        CHECK_EQ(repl_follower_rejoin(fd, (uint64_t)plan->rejoins), 0);
    if (plan->refuses) {
        small = all;
        small.rlim_cur = (rlim_t)ends[plan->refuses - 1] + 3;
        REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
    }
    for (;;) {
        errno = 0;
        int got = plan->by_hand ? repl_receive_record(fd, &log, &store) : logship_follow(fd, &log, &store);
        if (got == -1 && plan->refuses && refused == 0) {
            CHECK_EQ(errno, EFBIG);
            refused++;
            REQUIRE(setrlimit(RLIMIT_FSIZE, &all) == 0); /* from now on there is room again */
        } else if (got == -1) {
            int why = errno;
            CHECK(why == ENOTCONN || why == ECONNRESET || (plan->is_refused && (why == ESTALE || why == EPIPE)));
            break;
        }
        received += got == 0;
        if (plan->by_hand) {
            uint64_t last = (uint64_t)logship_last_lsn(&log);
            int sent = got == 0 ? repl_send_ack(fd, last, REPL_ACK_OK) : repl_send_ack(fd, last + 1, REPL_ACK_CRC_FAIL);
            CHECK(sent == 0 || errno == EPIPE || errno == ECONNRESET);
        }
    }
    CHECK_EQ(refused, plan->refuses > 0);
    if (plan->received >= 0)
        CHECK_EQ(received, plan->received);
    CHECK(wal_close(&log) == 0);
    kv_store_destroy(&store);
    own_leave();
}
/* Starts it; its connection is in slot 0, online only if it does not rejoin. */
static pid_t start_follower(const struct plan *plan)
{
    struct repl_node node = {.host = "127.0.0.1", .port = 0, .fd = -1};
    int listener = repl_listen(&node);
    REQUIRE(listener >= 0);
    pid_t pid = own_fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        int fd = -1;
        if (plan->leader_connects) {
            fd = repl_accept(listener);
        } else {
            CHECK_EQ(repl_connect(&node), 0);
            fd = node.fd;
        }
        close(listener);
        REQUIRE(fd >= 0);
        follower(fd, plan);
    }
    if (plan->leader_connects) {
        config.followers[0].port = node.port;
        CHECK_EQ(repl_connect(&config.followers[0]), 0);
    } else {
        config.followers[0].fd = repl_accept(listener);
    }
    REQUIRE(config.followers[0].fd >= 0);
    config.followers[0].online = plan->rejoins < 0;
    close(listener);
    return pid;
}
static void end_follower(pid_t pid)
{
    if (config.followers[0].fd >= 0)
        close(config.followers[0].fd);
    config.followers[0].fd = -1;
    CHECK_EQ(own_reap(pid), 0);
}
static int catch_up(uint64_t expected)
{
    uint64_t lsn = 99;
    CHECK_EQ(repl_read_rejoin(config.followers[0].fd, &lsn), 0);
    CHECK_EQ(lsn, expected);
    return repl_catch_up(&config, 0, lsn);
}
static int ship_damaged(int n, size_t at, uint8_t mask)
{
    uint8_t damaged[512];
    memcpy(damaged, rec(n), len(n));
    damaged[at] ^= mask;
    return repl_ship_record(&config, damaged, len(n));
}

/* ---- damaged on the way ---- */

/* Six records in flight, the one that is damaged among them; quorum is asked for afterwards. */
static void damaged_one(int same_length, int damaged, size_t at, int acked_first, int leader_connects)
{
    struct plan plan = PLAIN;
    plan.leader_connects = leader_connects;
    unlink("leader.wal"), unlink("follower.wal");
    make_log(same_length);
    leader(0);
    pid_t pid = start_follower(&plan);
    for (int n = 1; n <= 6; n++) {
        append(n);
        if (n == damaged)
            CHECK_EQ(ship_damaged(n, at < len(n) ? at : len(n) - 1, 1), 1);
        else
            CHECK_EQ(repl_ship_record(&config, rec(n), len(n)), 1);
        if (n <= acked_first && n < damaged)
            commits(n);
    }
    for (int n = 1; n <= 6; n++)
        commits(n);
    CHECK_EQ(config.followers[0].online, 1);
    append(7); /* and the stream goes on */
    CHECK_EQ(repl_ship_record(&config, rec(7), len(7)), 1);
    commits(7);
    end_follower(pid);
    CHECK_EQ(holds(), 7);
    store_is(7);
    CHECK(wal_close(&writer) == 0);
    if (own_bad)
        NOTE("same length %d, record %d damaged at %zu, %d acked first, the %s connected", same_length, damaged, at,
             acked_first, leader_connects ? "leader" : "follower");
}
static const size_t PLACES[] = {0, 3, 5, 8, 10, 20, 4096}; /* CRC, length, op, key length, value, timestamp */
static void damaged_in_flight(int leader_connects, int acked_first)
{
    for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++)
        for (int damaged = acked_first + 1; damaged <= 5 && !own_bad; damaged += 2)
            damaged_one((int)i % 2, damaged, PLACES[i], acked_first, leader_connects);
}
static void damaged_after_an_ack(void)
{
    damaged_in_flight(1, 1);
    damaged_in_flight(0, 1);
}
static void damaged_before_any_ack(void)
{
    damaged_in_flight(1, 0);
    damaged_in_flight(0, 0);
}
static void damaged_the_newest(void)
{
    for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES && !own_bad; i++)
        damaged_one(1, 6, PLACES[i], 1, 1);
}
static void two_damaged(void)
{
    make_log(1);
    leader(0);
    pid_t pid = start_follower(&PLAIN);
    for (int n = 1; n <= 8; n++) {
        append(n);
        CHECK_EQ(n == 3 || n == 5 ? ship_damaged(n, len(n) / 2, 0x10) : repl_ship_record(&config, rec(n), len(n)), 1);
        if (n == 1)
            commits(1);
    }
    for (int n = 2; n <= 8; n++)
        commits(n);
    end_follower(pid);
    CHECK_EQ(holds(), 8);
    store_is(8);
}

/* ---- not stored ---- */

/* The follower's log fails once, for record `refused`, with others behind it. */
static void refused_once(int refused, int rejoins)
{
    struct plan plan = PLAIN;
    int from = 1;
    unlink("leader.wal"), unlink("follower.wal");
    make_log(1);
    leader(rejoins ? 2 : 0);
    plan.refuses = refused;
    if (rejoins) {
        plan.rejoins = plan.has = 2;
        from = 3;
    }
    pid_t pid = start_follower(&plan);
    if (rejoins)
        CHECK_EQ(catch_up(2), 0);
    for (int n = from; n <= 6; n++) {
        append(n);
        CHECK_EQ(repl_ship_record(&config, rec(n), len(n)), 1);
        if (n == from && n < refused)
            commits(n);
    }
    for (int n = from; n <= 6; n++)
        commits(n);
    CHECK_EQ(config.followers[0].online, 1);
    end_follower(pid);
    CHECK_EQ(holds(), 6);
    store_is(6);
    CHECK(wal_close(&writer) == 0);
    if (own_bad)
        NOTE("record %d not stored, %s", refused, rejoins ? "after a rejoin" : "fresh connection");
}
static void not_stored_once(void)
{
    for (int refused = 1; refused <= 6 && !own_bad; refused++)
        refused_once(refused, 0);
    for (int refused = 3; refused <= 6 && !own_bad; refused++)
        refused_once(refused, 1);
}

/* ---- caught up, then shipped ---- */

static void batch_caught_up_then_shipped(void)
{
    struct plan plan = PLAIN;
    struct wal_record batch[5];
    make_log(0);
    leader(0);
    plan.rejoins = 0;
    for (int n = 1; n <= 5; n++)
        decoded(n, &batch[n - 1]);
    CHECK_EQ(logship_append_batch(&writer, batch, 5), 0);
    pid_t pid = start_follower(&plan);
    CHECK_EQ(catch_up(0), 5);
    for (int n = 1; n <= 5; n++) {
        CHECK_EQ(repl_ship_record(&config, rec(n), len(n)), 1); /* it has it: that counts as shipped */
        wal_record_free(&batch[n - 1]);
    }
    for (int n = 1; n <= 5; n++)
        commits(n);
    append(6);
    CHECK_EQ(repl_ship_record(&config, rec(6), len(6)), 1);
    commits(6);
    end_follower(pid);
    CHECK_EQ(holds(), 6);
    store_is(6);
}
/* The program reads the acks itself, and ships a record again itself when one says so. */
static void damaged_after_rejoin_by_hand(void)
{
    struct plan plan = {.has = 2, .rejoins = 2, .by_hand = 1, .received = 5};
    make_log(1);
    leader(4);
    pid_t pid = start_follower(&plan);
    CHECK_EQ(catch_up(2), 2);
    int fd = config.followers[0].fd;
    CHECK(own_ack_is(fd, 3, REPL_ACK_OK) && own_ack_is(fd, 4, REPL_ACK_OK));
    for (int n = 5; n <= 7; n++) {
        append(n);
        if (n != 6)
            CHECK_EQ(ship_damaged(n, n == 5 ? len(n) / 2 : 1, 1), 1); /* in the value; in the CRC */
        if (n != 6)
            CHECK(own_ack_is(fd, (uint64_t)n, REPL_ACK_CRC_FAIL));
        CHECK_EQ(repl_ship_record(&config, rec(n), len(n)), 1);
        CHECK(own_ack_is(fd, (uint64_t)n, REPL_ACK_OK));
    }
    end_follower(pid);
    CHECK_EQ(holds(), 7);
    store_is(7);
}

/* ---- an LSN that is not its log's ---- */

/* It says 3 and its log is new. A program that counts for itself knows what it has: it gets what it asked for. */
static void more_by_hand(void)
{
    struct plan plan = {.has = 0, .rejoins = 3, .by_hand = 1, .received = 2};
    make_log(0);
    leader(5);
    pid_t pid = start_follower(&plan);
    CHECK_EQ(catch_up(3), 2);
    CHECK_EQ(config.followers[0].online, 1);
    /* its acks say 1 and 2, the numbers in its own log */
    CHECK(own_ack_is(config.followers[0].fd, 1, REPL_ACK_OK) && own_ack_is(config.followers[0].fd, 2, REPL_ACK_OK));
    end_follower(pid);
    CHECK(own_file_is("follower.wal", rec(4), len(4) + len(5)));
}
/* logship_follow counts with the leader: it gets all that its log has not, so that the numbers are the same. */
static void more_followed(void)
{
    struct plan plan = {.has = 0, .rejoins = 3, .received = -1};
    make_log(0);
    leader(5);
    pid_t pid = start_follower(&plan);
    CHECK_EQ(catch_up(3), 5);
    CHECK_EQ(config.followers[0].online, 1);
    for (int n = 1; n <= 5; n++)
        commits(n);
    append(6);
    CHECK_EQ(repl_ship_record(&config, rec(6), len(6)), 1);
    commits(6);
    end_follower(pid);
    CHECK_EQ(holds(), 6);
    store_is(6);
}
/* It has 5 and says 3: a program that counts what it receives gets as many as were sent, and each is stored once. */
static void fewer(void)
{
    struct plan plan = {.has = 5, .rejoins = 3, .by_hand = 1, .received = 7};
    make_log(0);
    leader(10);
    pid_t pid = start_follower(&plan);
    CHECK_EQ(catch_up(3), 7);
    commits(10);
    append(11);
    end_follower(pid);
    CHECK_EQ(holds(), 10);
    store_is(10);
}
static void fewer_followed(void)
{
    struct plan plan = {.has = 5, .rejoins = 3, .received = -1};
    make_log(0);
    leader(10);
    pid_t pid = start_follower(&plan);
    CHECK_EQ(catch_up(3), 7);
    for (int n = 6; n <= 10; n++)
        commits(n);
    append(11);
    CHECK_EQ(repl_ship_record(&config, rec(11), len(11)), 1);
    commits(11);
    end_follower(pid);
    CHECK_EQ(holds(), 11);
    store_is(11);
}

/* ---- a batch of nothing; timestamps ---- */

static void batch_of_none(void)
{
    struct plan plan = {.has = 3, .rejoins = 3, .received = -1};
    struct wal_record record;
    make_log(0);
    leader(3);
    decoded(9, &record);
    CHECK_EQ(logship_append_batch(&writer, &record, 0), 0);
    CHECK_EQ(logship_last_lsn(&writer), 3);
    CHECK_EQ(writer.offset, ends[3]);
    CHECK(own_file_is("leader.wal", log_bytes, ends[3]));
    pid_t pid = start_follower(&plan);
    CHECK_EQ(catch_up(3), 0); /* what is known of the log's end is still true: the logs have not diverged */
    append(4);
    CHECK_EQ(repl_ship_record(&config, rec(4), len(4)), 1);
    commits(4);
    end_follower(pid);
    CHECK_EQ(holds(), 4);
    wal_record_free(&record);
}
/* The same at the follower's end, whose log is asked for its last record. */
static void batch_of_none_at_the_follower(void)
{
    uint16_t port = 0;
    int listener = own_listen(&port);
    make_log(0);
    leader(3);
    pid_t pid = own_fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        struct wal_writer log;
        struct wal_record record;
        struct kv_store store;
        int fd = own_connect(port, 0);
        close(listener);
        REQUIRE(fd >= 0 && wal_open(&log, "follower.wal") == 0 && kv_store_init(&store) == 0);
        for (int n = 1; n <= 3; n++) {
            decoded(n, &record);
            CHECK_EQ(wal_append(&log, &record), 0);
            CHECK_EQ(logship_append_batch(&log, &record, 0), 0);
            wal_record_free(&record);
        }
        CHECK_EQ(repl_follower_rejoin(fd, 3), 0);
        CHECK_EQ(logship_follow(fd, &log, &store), 0); /* record 4, not ESTALE */
        CHECK_FAILS(logship_follow(fd, &log, &store), ENOTCONN);
        CHECK_EQ(wal_close(&log), 0);
        kv_store_destroy(&store);
        own_leave();
    }
    config.followers[0].fd = accept(listener, NULL, NULL);
    close(listener);
    CHECK_EQ(catch_up(3), 0);
    append(4);
    CHECK_EQ(repl_ship_record(&config, rec(4), len(4)), 1);
    commits(4);
    end_follower(pid);
    CHECK_EQ(holds(), 4);
}
static void timestamps(void)
{
    const uint64_t high = 1800000000000000000u; /* above any monotonic clock, below 2^62 */
    uint8_t bytes[128];
    struct wal_record record = {.op = WAL_OP_SET, .key = "k", .key_len = 1, .value = "v", .value_len = 1}, copy;
    REQUIRE(wal_open(&writer, "leader.wal") == 0);
    CHECK(repl_next_timestamp() < high);
    record.timestamp = high;
    CHECK_EQ(wal_append(&writer, &record), 0);
    CHECK(repl_next_timestamp() > high); /* above its own appends */
    record.timestamp = high + 1000;
    CHECK_EQ(logship_append_batch(&writer, &record, 1), 0);
    CHECK(repl_next_timestamp() > high + 1000);
    REQUIRE(wal_record_decode(bytes, own_set(bytes, "k", "v", high + 2000), &copy) == 0);
    wal_record_free(&copy);
    CHECK(repl_next_timestamp() > high + 2000); /* above what it decodes */
    uint64_t last = repl_next_timestamp();
    for (int i = 0; i < 1000; i++) {
        uint64_t next = repl_next_timestamp();
        CHECK(next > last);
        last = next;
    }
    CHECK(wal_close(&writer) == 0);
}

/* ---- no catch-up: what an ack counts for ---- */

static const struct plan CONNECTED = {.leader_connects = 1, .rejoins = -1, .received = -1};
static const struct plan REFUSED = {.leader_connects = 1, .rejoins = -1, .received = -1, .is_refused = 1};

static void ship(int n)
{
    append(n);
    CHECK_EQ(repl_ship_record(&config, rec(n), len(n)), 1);
}
/* The follower is offline, an error was logged, and none of the records counts. */
static void is_refused(int from, int to)
{
    struct repl_follower_status status;
    for (int n = from; n <= to; n++)
        CHECK_FAILS(repl_wait_quorum(&config, (uint64_t)n, 5000), ENOTCONN);
    CHECK_EQ(config.followers[0].online, 0);
    CHECK_EQ(config.followers[0].fd, -1);
    CHECK(errors > 0);
    CHECK_EQ(repl_get_follower_status(&config, 0, &status), 0);
    CHECK_EQ(status.acked_lsn, 0);
}
/* The leader has 10 records; the follower stores 11 to 14 under other numbers. */
static void never_counts(const struct plan *plan, int asked_first)
{
    unlink("leader.wal"), unlink("follower.wal");
    make_log(1);
    leader(10);
    errors = 0;
    pid_t pid = start_follower(plan);
    for (int n = 11; n <= 14; n++)
        ship(n);
    CHECK_FAILS(repl_wait_quorum(&config, (uint64_t)asked_first, 5000), ENOTCONN);
    is_refused(1, 14);
    append(15);
    CHECK_EQ(repl_ship_record(&config, rec(15), len(15)), 0);
    is_refused(1, 15);
    end_follower(pid);
    CHECK(wal_close(&writer) == 0);
    if (own_bad)
        NOTE("the follower had %d %s, LSN %d was asked for first", plan->has, plan->other ? "others" : "of them",
             asked_first);
}
static void older_records(void)
{
    static const int HAS[] = {0, 1, 4, 9}, ASKED_FIRST[] = {1, 11, 14};
    struct plan plan = REFUSED;
    for (size_t i = 0; i < sizeof HAS / sizeof *HAS; i++)
        for (size_t j = 0; j < sizeof ASKED_FIRST / sizeof *ASKED_FIRST && !own_bad; j++) {
            plan.has = HAS[i];
            plan.other = j == 1;
            never_counts(&plan, ASKED_FIRST[j]);
        }
}
static void older_records_one_by_one(void)
{
    make_log(1);
    leader(10);
    pid_t pid = start_follower(&REFUSED);
    ship(11);
    is_refused(1, 11);
    append(12);
    CHECK_EQ(repl_ship_record(&config, rec(12), len(12)), 0); /* no position that would fill it up behind record 11 */
    is_refused(1, 12);
    end_follower(pid);
    CHECK(own_file_is("follower.wal", rec(11), len(11)));
}
static void more_than_the_leader(void)
{
    struct plan plan = REFUSED;
    plan.other = 1;
    for (plan.has = 11; plan.has <= 14 && !own_bad; plan.has++)
        never_counts(&plan, 14);
}
static void more_than_the_leader_one_by_one(void)
{
    struct plan plan = REFUSED;
    plan.other = 1, plan.has = 12;
    make_log(1);
    leader(10);
    pid_t pid = start_follower(&plan);
    for (int n = 11; n <= 14; n++) {
        append(n);
        repl_ship_record(&config, rec(n), len(n));
        CHECK_EQ(repl_wait_quorum(&config, (uint64_t)n, 500), -1); /* ENOTCONN as soon as it is refused */
    }
    is_refused(1, 14);
    end_follower(pid);
}
static void as_many_others(void)
{
    struct plan plan = REFUSED;
    plan.other = 1, plan.has = 10;
    make_log(1);
    leader(10);
    pid_t pid = start_follower(&plan);
    ship(11);
    repl_wait_quorum(&config, 11, 5000); /* nobody can know by the number alone */
    append(12);
    repl_ship_record(&config, rec(12), len(12));
    is_refused(12, 12);
    append(13);
    CHECK_EQ(repl_ship_record(&config, rec(13), len(13)), 0);
    is_refused(12, 13);
    end_follower(pid);
}
/* Both begin with the same 10 records. */
static void same_records(void)
{
    struct plan plan = CONNECTED;
    plan.has = 10;
    for (int damaged = 10; damaged <= 14 && !own_bad; damaged++) { /* 10: none */
        unlink("leader.wal"), unlink("follower.wal");
        make_log(1);
        leader(10);
        errors = 0;
        pid_t pid = start_follower(&plan);
        for (int n = 11; n <= 14; n++) {
            append(n);
            CHECK_EQ(n == damaged ? ship_damaged(n, 20, 1) : repl_ship_record(&config, rec(n), len(n)), 1);
        }
        for (int n = 14; n >= 11; n--)
            commits(n);
        ship(15);
        commits(15);
        CHECK_EQ(config.followers[0].online, 1);
        CHECK_EQ(errors, 0);
        end_follower(pid);
        CHECK_EQ(holds(), 15);
        store_is(15);
        CHECK(wal_close(&writer) == 0);
        if (own_bad)
            NOTE("record %d damaged", damaged);
    }
}

/* ---- appended after a catch-up or not yet shipped: each in its place, once ---- */

/* `caught` records are caught up, `more` appended, then all are shipped. The follower is in its own process. */
static void append_catch_up_append(int by_hand, int caught, int more)
{
    struct plan plan = {.rejoins = 0, .by_hand = by_hand, .received = caught + more};
    unlink("leader.wal"), unlink("follower.wal");
    make_log(caught % 2);
    leader(caught);
    pid_t pid = start_follower(&plan);
    CHECK_EQ(catch_up(0), caught);
    for (int n = caught + 1; n <= caught + more; n++)
        append(n);
    for (int n = 1; n <= caught + more; n++)
        CHECK_EQ(repl_ship_record(&config, rec(n), len(n)), 1);
    for (int n = 1; n <= caught + more; n++)
        commits(n);
    CHECK_EQ(config.followers[0].online, 1);
    end_follower(pid);
    CHECK(own_file_is("follower.wal", log_bytes, ends[caught + more]));
    CHECK(wal_close(&writer) == 0);
    if (own_bad)
        NOTE("%d caught up, %d appended, %s", caught, more, by_hand ? "acked by hand" : "logship_follow");
}
/* The same to a plain one, which is played here. */
static void append_catch_up_append_plain(int caught, int more)
{
    uint8_t rejoin[8];
    int peer;
    unlink("leader.wal");
    make_log(caught % 2);
    leader(caught);
    REQUIRE(own_pair(&config.followers[0].fd, &peer, 0) == 0);
    own_put_be(rejoin, 0, 8);
    CHECK_EQ(own_put_all(peer, rejoin, 8), 0);
    CHECK_EQ(catch_up(0), caught);
    for (int n = caught + 1; n <= caught + more; n++)
        append(n);
    for (int n = 1; n <= caught + more; n++) {
        CHECK_EQ(repl_ship_record(&config, rec(n), len(n)), 1);
        CHECK(own_frame_is(peer, rec(n), len(n))); /* sent by the catch-up or just now */
        CHECK_EQ(own_send_ack(peer, (uint64_t)n, REPL_ACK_OK, 0), 0);
        CHECK_EQ(repl_wait_quorum(&config, (uint64_t)n, 5000), 0);
    }
    CHECK(own_quiet(config.followers[0].fd, peer));
    close(peer), close(config.followers[0].fd);
    CHECK(wal_close(&writer) == 0);
    if (own_bad)
        NOTE("%d caught up, %d appended, plain", caught, more);
}
static void appended_after_the_catch_up(void)
{
    for (int caught = 1; caught <= 4 && !own_bad; caught++)
        for (int more = 1; more <= 3 && !own_bad; more++) {
            append_catch_up_append(0, caught, more);
            append_catch_up_append(1, caught, more);
            append_catch_up_append_plain(caught, more);
        }
}
static void only_the_last_is_shipped(void)
{
    for (int shown = 0; shown <= 1 && !own_bad; shown++) { /* positioned by a catch-up, or by a marked ack */
        struct plan plan = {.leader_connects = shown, .rejoins = shown ? -1 : 0, .received = -1};
        unlink("leader.wal"), unlink("follower.wal");
        make_log(shown);
        leader(0);
        pid_t pid = start_follower(&plan);
        if (shown) {
            ship(1);
            commits(1);
        } else {
            CHECK_EQ(catch_up(0), 0);
            append(1);
        }
        append(2);
        ship(3);
        for (int n = 3; n >= 1; n--)
            commits(n);
        CHECK_EQ(repl_ship_record(&config, rec(2), len(2)), 1); /* late: it has that one */
        append(4);
        ship(5);
        commits(5);
        CHECK_EQ(config.followers[0].online, 1);
        end_follower(pid);
        CHECK(own_file_is("follower.wal", log_bytes, ends[5]));
        store_is(5);
        CHECK(wal_close(&writer) == 0);
    }
}

int main(void)
{
    logship_set_log(count_errors, NULL);
    own_case("a damaged record with others behind it, after an ack", damaged_after_an_ack, 60);
    own_case("a damaged record with others behind it, before any ack", damaged_before_any_ack, 60);
    CASE("a damaged record, the newest", damaged_the_newest);
    CASE("two damaged records in flight", two_damaged);
    own_case("a record that could not be stored once: none takes its number", not_stored_once, 60);
    CASE("a batch, caught up, then shipped: each once", batch_caught_up_then_shipped);
    CASE("after a rejoin: damaged, and shipped again by the program", damaged_after_rejoin_by_hand);
    CASE("rejoin with an LSN that the new log does not have, by hand", more_by_hand);
    CASE("rejoin with an LSN that the new log does not have: logship_follow", more_followed);
    CASE("rejoin with a lower LSN than the log's: all are counted", fewer);
    CASE("rejoin with a lower LSN than the log's: logship_follow", fewer_followed);
    CASE("connected, without the older records: no ack counts", older_records);
    CASE("connected, without the older records, one at a time", older_records_one_by_one);
    CASE("connected, with more records than the leader: no ack counts", more_than_the_leader);
    CASE("connected, with more records than the leader, one at a time", more_than_the_leader_one_by_one);
    CASE("connected, with as many other records: refused at the second ship", as_many_others);
    CASE("connected, with the same records: counted, one damaged or none", same_records);
    own_case("appended after a catch-up, all shipped: each once", appended_after_the_catch_up, 60);
    CASE("only the last of three is shipped: the gap is filled", only_the_last_is_shipped);
    CASE("logship_append_batch of no records changes nothing", batch_of_none);
    CASE("logship_append_batch of no records in the follower's log", batch_of_none_at_the_follower);
    CASE("repl_next_timestamp: above appends and decodes", timestamps);
    return own_end();
}
