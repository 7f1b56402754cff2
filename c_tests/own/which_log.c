/* Whose log and whose connection it is: no leftover log is believed, the open one of two is the leader's, a name is no
 * file, settings stay with their configuration, a number given out again is another connection, and no ack is lost. */
#include "wire.h"
#include "logship.h"

static struct replication_config config;
static int peer[MAX_FOLLOWERS];

static void quiet(int level, const char *message, void *context)
{
    (void)level, (void)message, (void)context;
}
/* Record n of the log that is called name. */
static size_t make(uint8_t *out, const char *name, int n)
{
    char key[64], value[64];
    snprintf(key, sizeof key, "%s-key%d", name, n);
    snprintf(value, sizeof value, "%s-value%d%.*s", name, n, n % 20, "abcdefghijklmnopqrstuvwxyz");
    return own_set(out, key, value, (uint64_t)(1000 + n));
}
static void append(struct wal_writer *writer, const char *name, int n)
{
    uint8_t bytes[512];
    struct wal_record record;
    size_t len = make(bytes, name, n);
    REQUIRE(wal_record_decode(bytes, len, &record) == 0);
    REQUIRE(wal_append(writer, &record) == 0);
    wal_record_free(&record);
}
/* Opens path, appends records 1..count of the log called name, leaves it open. */
static void begin(struct wal_writer *writer, const char *path, const char *name, int count)
{
    REQUIRE(wal_open(writer, path) == 0);
    for (int n = 1; n <= count; n++)
        append(writer, name, n);
}
static void made_and_closed(const char *path, const char *name, int count)
{
    struct wal_writer writer;
    begin(&writer, path, name, count);
    REQUIRE(wal_close(&writer) == 0);
}
/* A log that another process left here. */
static void left_over(const char *path, const char *name, int count)
{
    pid_t pid = own_fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        made_and_closed(path, name, count);
        CHECK_EQ(access(path, R_OK), 0);
        own_leave();
    }
    REQUIRE(own_reap(pid) == 0);
}
static void connect_slot(int i, int online)
{
    REQUIRE(own_pair(&config.followers[i].fd, &peer[i], 0) == 0);
    config.followers[i].online = (uint8_t)online;
}
static void disconnect_slot(int i)
{
    if (config.followers[i].fd >= 0)
        close(config.followers[i].fd);
    close(peer[i]);
    config.followers[i].fd = -1;
    config.followers[i].online = 0;
}
static void start(int count, int online)
{
    REQUIRE(repl_config_init(&config) == 0);
    config.follower_count = count;
    for (int i = 0; i < count; i++)
        connect_slot(i, online);
}
static int frames_are(int fd, const char *name, int from, int to)
{
    uint8_t bytes[512];
    for (int n = from; n <= to; n++)
        if (!own_frame_is(fd, bytes, make(bytes, name, n)))
            return 0;
    return 1;
}
/* Follower 0 has nothing behind record 1: catch-up sends it records 2..last of the log called name, and nothing else. */
static void catches_up_from(const char *name, int last)
{
    REQUIRE(repl_config_init(&config) == 0);
    config.follower_count = 1;
    connect_slot(0, 0);
    CHECK_EQ(repl_catch_up(&config, 0, 1), last - 1);
    CHECK_EQ(config.followers[0].online, 1);
    CHECK(frames_are(peer[0], name, 2, last));
    CHECK(config.followers[0].fd >= 0 && own_quiet(config.followers[0].fd, peer[0]));
    disconnect_slot(0);
}
static void catch_up_is_refused(int why)
{
    REQUIRE(repl_config_init(&config) == 0);
    config.follower_count = 1;
    connect_slot(0, 0);
    CHECK_FAILS(repl_catch_up(&config, 0, 1), why);
    CHECK_EQ(config.followers[0].online, 0);
    disconnect_slot(0);
}

/* ---- what is sent again ---- */

/* A damaged record that is in no log of this leader is rejected. Whatever lies about must not be sent in its place. */
static void nothing_is_sent_again(void)
{
    uint8_t sent[512];
    size_t len = make(sent, "mine", 1);
    sent[len / 2] ^= 1;
    start(1, 1);
    CHECK_EQ(repl_ship_record(&config, sent, len), 1);
    CHECK(own_frame_is(peer[0], sent, len));
    CHECK(own_send_ack(peer[0], 1, REPL_ACK_CRC_FAIL, 0) == 0 && own_settle(config.followers[0].fd, 16));
    CHECK_FAILS(repl_wait_quorum(&config, 1, 0), ETIMEDOUT);
    CHECK(own_quiet(config.followers[0].fd, peer[0]));
    len = make(sent, "mine", 2); /* nor before the next record */
    CHECK_EQ(repl_ship_record(&config, sent, len), 1);
    CHECK(own_frame_is(peer[0], sent, len));
    /* Nor does its length say how many records this leader has. */
    CHECK(own_send_ack(peer[0], 7, REPL_ACK_OK, 0) == 0);
    CHECK_EQ(repl_wait_quorum(&config, 7, 5000), 0);
}
static void leftover_leader_wal(void)
{
    left_over("leader.wal", "old", 3);
    nothing_is_sent_again();
}
static void leftover_leader_wal_after_reading_it(void)
{
    struct kv_store store;
    left_over("leader.wal", "old", 3);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_recover("leader.wal", &store), 3);
    nothing_is_sent_again();
    kv_store_destroy(&store);
}
static void closed_log(void)
{
    made_and_closed("earlier.wal", "old", 3);
    nothing_is_sent_again();
}
/* The control: of a log that is open the record does come. */
static void open_log(void)
{
    struct wal_writer writer;
    uint8_t sent[512];
    size_t len = make(sent, "mine", 1);
    left_over("leader.wal", "old", 3);
    made_and_closed("earlier.wal", "old", 3);
    begin(&writer, "mine.wal", "mine", 1);
    sent[len / 2] ^= 1;
    start(1, 1);
    CHECK_EQ(repl_ship_record(&config, sent, len), 1);
    CHECK(own_frame_is(peer[0], sent, len));
    CHECK(own_send_ack(peer[0], 1, REPL_ACK_CRC_FAIL, 0) == 0 && own_settle(config.followers[0].fd, 16));
    CHECK_FAILS(repl_wait_quorum(&config, 1, 0), ETIMEDOUT);
    CHECK(frames_are(peer[0], "mine", 1, 1));
    CHECK(own_send_ack(peer[0], 1, REPL_ACK_OK, 0) == 0);
    CHECK_EQ(repl_wait_quorum(&config, 1, 5000), 0);
    CHECK(own_quiet(config.followers[0].fd, peer[0]));
    CHECK(wal_close(&writer) == 0);
}

/* ---- which log ---- */

static void one_of_two_is_open(void)
{
    struct wal_writer first, second;
    made_and_closed("one.wal", "one", 3);
    begin(&second, "two.wal", "two", 5);
    catches_up_from("two", 5);
    CHECK(wal_close(&second) == 0);
    begin(&first, "one.wal", "one", 0);
    catches_up_from("one", 3);
    CHECK(wal_close(&first) == 0);
}
static void two_are_open(void)
{
    struct wal_writer first, second;
    begin(&first, "one.wal", "one", 3);
    begin(&second, "two.wal", "two", 5);
    catch_up_is_refused(EINVAL);
    CHECK(wal_close(&first) == 0);
    catches_up_from("two", 5); /* the other one is closed now */
    CHECK(wal_close(&second) == 0);
    catch_up_is_refused(EINVAL); /* neither is open: nothing tells which it is */
    CHECK(unlink("two.wal") == 0);
    catches_up_from("one", 3); /* one is not there any more */
}
static void two_spellings(void)
{
    struct wal_writer writer;
    REQUIRE(mkdir("d", 0700) == 0 && symlink("x.wal", "link.wal") == 0);
    made_and_closed("x.wal", "x", 3);
    REQUIRE(wal_open(&writer, "d/../x.wal") == 0);
    catches_up_from("x", 3);
    append(&writer, "x", 4);
    CHECK(wal_close(&writer) == 0);
    catches_up_from("x", 4);
    REQUIRE(wal_open(&writer, "link.wal") == 0);
    append(&writer, "x", 5);
    catches_up_from("x", 5);
    CHECK(wal_close(&writer) == 0);
    catches_up_from("x", 5);
}
static void both_spellings_open(void)
{
    struct wal_writer first, second;
    REQUIRE(mkdir("d", 0700) == 0);
    begin(&first, "x.wal", "x", 3);
    REQUIRE(wal_open(&second, "d/../x.wal") == 0);
    catches_up_from("x", 3);
    append(&second, "x", 4);
    append(&first, "x", 5);
    catches_up_from("x", 5);
    CHECK(wal_close(&first) == 0 && wal_close(&second) == 0);
}
/* A log that records were received into, and a new one of the leader's where it was. */
static void was_a_followers(void)
{
    struct wal_writer writer;
    struct kv_store store;
    uint8_t bytes[512], frame[600];
    int a, b;
    REQUIRE(wal_open(&writer, "n.wal") == 0 && kv_store_init(&store) == 0 && own_pair(&a, &b, 0) == 0);
    CHECK(own_put_all(a, frame, own_frame(frame, bytes, make(bytes, "theirs", 1))) == 0);
    CHECK_EQ(repl_receive_record(b, &writer, &store), 0);
    CHECK(wal_close(&writer) == 0);
    kv_store_destroy(&store);
    close(a), close(b);
}
static uint64_t inode(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_ino : 0;
}
static void same_inode_emptied(void)
{
    struct wal_writer writer;
    was_a_followers();
    uint64_t before = inode("n.wal");
    REQUIRE(truncate("n.wal", 0) == 0); /* a new log in the same file */
    begin(&writer, "n.wal", "mine", 4);
    CHECK(before == inode("n.wal"));
    catches_up_from("mine", 4);
    CHECK(wal_close(&writer) == 0);
    catches_up_from("mine", 4);
}
/* Most file systems give the number of a file that has gone to the next one. */
static void same_inode_created_anew(void)
{
    struct wal_writer writer;
    was_a_followers();
    uint64_t before = inode("n.wal");
    REQUIRE(unlink("n.wal") == 0);
    begin(&writer, "n.wal", "mine", 4);
    if (before != inode("n.wal"))
        own_skip("this file system does not use the inode number again");
    catches_up_from("mine", 4);
    CHECK(wal_close(&writer) == 0);
}
/* Removed and made again under one name: what is known of the old one is not believed of the new one. */
static void created_anew_each_round(void)
{
    for (int round = 0; round < 6; round++) {
        struct wal_writer writer;
        char name[16];
        int count = round == 5 ? 3 : 10 - round;
        unlink("again.wal");
        snprintf(name, sizeof name, "round%d", round);
        begin(&writer, "again.wal", name, count);
        if (round % 2)
            close(writer.fd); /* behind the library's back */
        else
            CHECK(wal_close(&writer) == 0);
        catches_up_from(name, count);
    }
}

/* ---- which configuration ---- */

#define CONFIGS 200
static struct replication_config many[CONFIGS];

static void settings_of_many(void)
{
    int a, b;
    made_and_closed("one.wal", "one", 3);
    made_and_closed("two.wal", "two", 5); /* two logs: a configuration whose setting is lost gets EINVAL */
    for (int i = 0; i < CONFIGS; i++) {
        REQUIRE(repl_config_init(&many[i]) == 0);
        CHECK_EQ(repl_set_wal(&many[i], i % 2 ? "two.wal" : "one.wal"), 0);
        if (i % 3 == 0)
            CHECK_EQ(repl_set_quorum_policy(&many[i], REPL_QUORUM_DEGRADE), 0);
    }
    for (int i = 0; i < CONFIGS; i++) {
        REQUIRE(own_pair(&a, &b, 0) == 0);
        many[i].followers[0].fd = a;
        int last = i % 2 ? 5 : 3;
        int got = repl_catch_up(&many[i], 0, 1);
        if (!CHECK_EQ(got, last - 1) || !CHECK(frames_are(b, i % 2 ? "two" : "one", 2, last)))
            NOTE("configuration %d", i);
        CHECK_EQ(many[i].followers[0].online, 1);
        CHECK(own_send_ack(b, 2, REPL_ACK_OK, 0) == 0 && own_settle(a, 16));
        errno = 0;
        int committed = repl_wait_quorum(&many[i], 2, 0); /* 1 of 2: enough only where DEGRADE is set */
        if (!CHECK_EQ(committed, i % 3 == 0 ? 0 : -1))
            NOTE("configuration %d", i);
        close(a), close(b);
        many[i].followers[0].fd = -1;
        many[i].followers[0].online = 0;
    }
}

/* ---- which connection ---- */

/* One slot, its connections accepted with plain accept(2) one after another; each gets the number of the last. */
static void accepted_again(void)
{
    uint16_t port = 0;
    int listener = own_listen(&port), number = -1;
    uint8_t bytes[512];
    REQUIRE(listener >= 0 && repl_config_init(&config) == 0);
    config.follower_count = 1;
    for (int round = 1; round <= 5; round++) {
        size_t len = make(bytes, "mine", round);
        int theirs = own_connect(port, 0), ours = accept(listener, NULL, NULL);
        REQUIRE(theirs >= 0 && ours >= 0);
        if (round == 1)
            number = ours;
        CHECK_EQ(ours, number); /* else this case shows nothing */
        config.followers[0].fd = ours;
        config.followers[0].online = 1;
        CHECK_EQ(repl_ship_record(&config, bytes, len), 1);
        CHECK_EQ(config.followers[0].online, 1);
        CHECK_EQ(config.followers[0].fd, ours);
        CHECK(own_frame_is(theirs, bytes, len));
        if (round > 1) { /* what another connection acked does not count on this one */
            errno = 0;
            CHECK_FAILS(repl_wait_quorum(&config, (uint64_t)(100 + round - 1), 0), ETIMEDOUT);
        }
        CHECK(own_send_ack(theirs, (uint64_t)round, REPL_ACK_OK, 0) == 0);
        CHECK_EQ(repl_wait_quorum(&config, (uint64_t)round, 5000), 0);
        CHECK(own_send_ack(theirs, (uint64_t)(100 + round), REPL_ACK_OK, 0) == 0 && own_settle(ours, 16));
        CHECK_EQ(repl_ship_record(&config, bytes, len), 1);
        close(ours), close(theirs);
    }
    close(listener);
}
/* Filled by hand where another one was, as a local variable of a function that is called again is. */
static void filled_by_hand(int local_socket)
{
    uint8_t bytes[512];
    size_t len = make(bytes, "mine", 1);
    int ends[2];
    memset(&config, 0, sizeof config);
    if (local_socket)
        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    else
        REQUIRE(own_pair(&ends[0], &ends[1], 0) == 0);
    config.follower_count = 1;
    config.followers[0].host = "127.0.0.1";
    config.followers[0].fd = ends[0];
    config.followers[0].online = 1;
    CHECK_EQ(repl_ship_record(&config, bytes, len), 1);
    CHECK_EQ(config.followers[0].online, 1);
    CHECK_EQ(config.followers[0].fd, ends[0]);
    CHECK(own_frame_is(ends[1], bytes, len));
    CHECK(own_send_ack(ends[1], 1, REPL_ACK_OK, 0) == 0);
    CHECK_EQ(repl_wait_quorum(&config, 1, 5000), 0);
    close(ends[0]), close(ends[1]);
}
static void at_an_old_address(void)
{
    const int kinds[] = {1, 1, 0, 0, 1, 0};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        filled_by_hand(kinds[i]);
}

/* ---- who lives ---- */

static pid_t live_follower(int i, const char *path)
{
    int a, b;
    REQUIRE(own_pair(&a, &b, 0) == 0);
    pid_t pid = own_fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        struct wal_writer writer;
        struct kv_store store;
        close(a);
        for (int other = 0; other < i; other++)
            close(config.followers[other].fd);
        REQUIRE(wal_open(&writer, path) == 0 && kv_store_init(&store) == 0);
        while (logship_follow(b, &writer, &store) == 0)
            ;
        CHECK(errno == ENOTCONN || errno == ECONNRESET);
        wal_close(&writer);
        kv_store_destroy(&store);
        own_leave();
    }
    close(b);
    config.followers[i].fd = a;
    config.followers[i].online = 1;
    return pid;
}
/* Until nothing more can be sent: twice, since the kernel moves what is there to the other end's buffer. */
static void fill_up(int fd)
{
    static const char zeros[4096];
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    while (poll(&p, 1, 100) == 1)
        while (send(fd, zeros, sizeof zeros, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
            ;
}
/* The one who takes nothing uses up the whole deadline, but not the other's answer. */
static void full_buffer_beside_a_healthy_one(void)
{
    REQUIRE(repl_config_init(&config) == 0);
    config.follower_count = 2;
    REQUIRE(own_pair(&config.followers[0].fd, &peer[0], 4096) == 0);
    config.followers[0].online = 1;
    pid_t pid = live_follower(1, "healthy.wal");
    fill_up(config.followers[0].fd);
    CHECK_EQ(repl_heartbeat(&config, 1000), 1);
    CHECK_EQ(config.followers[0].online, 0);
    CHECK_EQ(config.followers[0].fd, -1);
    CHECK_EQ(config.followers[1].online, 1);
    CHECK_EQ(repl_heartbeat(&config, 5000), 1);
    close(peer[0]);
    if (config.followers[1].fd >= 0)
        close(config.followers[1].fd);
    CHECK_EQ(own_reap(pid), 0);
}

/* ---- which acks ---- */

/* Ships count records and takes them in at the other end. */
static void ship_many(int count)
{
    uint8_t bytes[512];
    start(1, 1);
    for (int n = 1; n <= count; n++) {
        size_t len = make(bytes, "mine", n);
        REQUIRE(repl_ship_record(&config, bytes, len) == 1);
        REQUIRE(own_frame_is(peer[0], bytes, len));
    }
}
static void out_of_order(void)
{
    enum { COUNT = 900 };
    static int order[COUNT];
    unsigned seed = 12345;
    for (int i = 0; i < COUNT; i++)
        order[i] = i + 1;
    for (int i = COUNT - 1; i > 0; i--) {
        seed = seed * 1103515245u + 12345u;
        int j = (int)((seed >> 8) % (unsigned)(i + 1)), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    ship_many(COUNT);
    for (int i = 0; i < COUNT; i++)
        REQUIRE(own_send_ack(peer[0], (uint64_t)order[i], REPL_ACK_OK, 0) == 0);
    REQUIRE(own_settle(config.followers[0].fd, 16 * COUNT));
    for (int n = 1; n <= COUNT; n++)
        REQUIRE(repl_wait_quorum(&config, (uint64_t)n, 0) == 0);
    CHECK_FAILS(repl_wait_quorum(&config, COUNT + 1, 0), ETIMEDOUT);
}
static void twice_each_and_gone(void)
{
    enum { COUNT = 1500 };
    uint8_t bytes[512];
    ship_many(COUNT);
    for (int n = 1; n <= COUNT; n++)
        for (int i = 0; i < 2; i++)
            REQUIRE(own_send_ack(peer[0], (uint64_t)n, REPL_ACK_OK, 0) == 0);
    REQUIRE(own_settle(config.followers[0].fd, 32 * COUNT));
    close(peer[0]);
    REQUIRE(own_await(config.followers[0].fd, POLLRDHUP));
    CHECK_EQ(repl_ship_record(&config, bytes, make(bytes, "mine", COUNT + 1)), 0);
    CHECK_EQ(config.followers[0].online, 0);
    for (int n = 1; n <= COUNT; n++)
        REQUIRE(repl_wait_quorum(&config, (uint64_t)n, 0) == 0);
    CHECK_FAILS(repl_wait_quorum(&config, COUNT + 1, 0), ENOTCONN);
}

int main(void)
{
    logship_set_log(quiet, NULL);
    CASE("sent again: not from a leftover leader.wal", leftover_leader_wal);
    CASE("sent again: not from a leader.wal that was only read", leftover_leader_wal_after_reading_it);
    CASE("sent again: not from a log that was closed", closed_log);
    CASE("sent again: from the log that is open", open_log);
    CASE("of two logs the open one", one_of_two_is_open);
    CASE("two open logs: EINVAL; two closed ones too, until one is gone", two_are_open);
    CASE("one log under two spellings, one after another", two_spellings);
    CASE("one log under two spellings, both open", both_spellings_open);
    CASE("a follower's log emptied and begun anew by the leader", same_inode_emptied);
    CASE("a follower's log removed and made anew, same inode", same_inode_created_anew);
    CASE("a log removed and made anew again and again", created_anew_each_round);
    own_case("200 configurations keep their log and policy", settings_of_many, 60);
    CASE("accept(2) gives the old number: another connection, and it is used", accepted_again);
    CASE("a configuration filled by hand at an old address", at_an_old_address);
    CASE("a heartbeat beside a full buffer leaves the healthy follower online", full_buffer_beside_a_healthy_one);
    own_case("900 acks out of order all count", out_of_order, 60);
    own_case("1500 records acked twice each, then closed: all count", twice_each_and_gone, 60);
    return own_end();
}
