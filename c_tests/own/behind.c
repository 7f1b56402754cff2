/* Followers that are behind hold nobody up: one that takes nothing while others commit, and those that catch up beside
 * the commits. All ends are logship; three followers, a quorum of two. */
#include "wire.h"
#include "logship.h"
#include <sys/resource.h>

enum { FOLLOWERS = 3, VALUE = 60000 };

static struct replication_config config;
static struct wal_writer writer;
static pid_t pids[FOLLOWERS];
static int listener, written;

static void quiet(int level, const char *message, void *context)
{
    (void)level, (void)message, (void)context;
}
static void name_of(int node, char path[32])
{
    snprintf(path, 32, "follower-%d.wal", node);
}
static void follow(int node)
{
    struct wal_writer log;
    struct kv_store store;
    char path[32];
    name_of(node, path);
    REQUIRE(kv_store_init(&store) == 0 && wal_open(&log, path) == 0);
    REQUIRE(logship_set_self(node) == 0);
    REQUIRE(repl_set_leader("127.0.0.1", config.leader.port) == 0);
    int fd = repl_follower_rejoin(-1, (uint64_t)logship_last_lsn(&log));
    REQUIRE(fd >= 0);
    while (logship_follow(fd, &log, &store) == 0)
        ;
    CHECK(errno == ENOTCONN || errno == ECONNRESET);
    close(fd);
    CHECK(wal_close(&log) == 0);
    kv_store_destroy(&store);
    own_leave();
}
static void start(int node)
{
    pids[node - 1] = own_fork();
    REQUIRE(pids[node - 1] >= 0);
    if (pids[node - 1] == 0)
        follow(node);
}
/* The next follower that comes; `begin`: it is only begun with. */
static void accept_one(int begin)
{
    int index = -1;
    uint64_t lsn;
    REQUIRE(repl_accept_rejoin(&config, listener, &index, &lsn) == 0);
    if (begin)
        REQUIRE(repl_catch_up_begin(&config, index, lsn) == 0);
    else
        REQUIRE(repl_catch_up(&config, index, lsn) >= 0);
}
static void leader(void)
{
    logship_set_log(quiet, NULL);
    REQUIRE(repl_config_init(&config) == 0);
    config.follower_count = FOLLOWERS;
    for (int i = 0; i < FOLLOWERS; i++)
        config.followers[i] = (struct repl_node){.host = "127.0.0.1", .port = 1, .fd = -1, .online = 0};
    config.leader.port = 0;
    listener = repl_listen(&config.leader);
    REQUIRE(listener >= 0);
    REQUIRE(wal_open(&writer, "leader.wal") == 0 && repl_set_wal(&config, "leader.wal") == 0);
}
static void append(int value_len, uint8_t *encoded, int *len)
{
    static char value[VALUE];
    char key[16];
    memset(value, 'v', sizeof value);
    snprintf(key, sizeof key, "key%d", ++written % 1000);
    struct wal_record record = {.op = WAL_OP_SET, .key = key, .key_len = (uint16_t)strlen(key), .value = value,
                                .value_len = (uint16_t)value_len, .timestamp = (uint64_t)written};
    *len = wal_record_encode(&record, encoded, WAL_RECORD_MAX);
    REQUIRE(*len > 0 && wal_append(&writer, &record) == 0);
}
/* Returns how many followers got it. */
static int ship(int value_len)
{
    static uint8_t encoded[WAL_RECORD_MAX];
    int len;
    append(value_len, encoded, &len);
    return repl_ship_record(&config, encoded, (size_t)len);
}
static void commit(int value_len)
{
    ship(value_len);
    CHECK_EQ(repl_wait_quorum(&config, (uint64_t)written, 10000), 0);
}
static int online(void)
{
    int count = 0;
    for (int i = 0; i < FOLLOWERS; i++)
        count += config.followers[i].online == 1;
    return count;
}
/* Everybody has everything: said by acks, and true of the files. */
static void ends_whole(void)
{
    struct repl_follower_status status;
    static uint8_t ours[64 << 20];
    long size;
    for (int i = 0; i < FOLLOWERS; i++) {
        do { /* acks of followers that no quorum waited for */
            CHECK_EQ(repl_wait_quorum(&config, (uint64_t)written, 10000), 0);
            REQUIRE(repl_heartbeat(&config, 10000) == FOLLOWERS);
            REQUIRE(repl_get_follower_status(&config, i, &status) == 0);
        } while (status.acked_lsn < (uint64_t)written && !own_bad);
        CHECK_EQ(status.state, REPL_FOLLOWER_ONLINE);
        CHECK_EQ(status.lag_records, 0);
    }
    for (int i = 0; i < FOLLOWERS; i++)
        close(config.followers[i].fd);
    for (int i = 0; i < FOLLOWERS; i++)
        CHECK_EQ(own_reap(pids[i]), 0);
    size = own_read_file("leader.wal", ours, sizeof ours);
    REQUIRE(size > 0 && (size_t)size < sizeof ours);
    for (int node = 1; node <= FOLLOWERS; node++) {
        char path[32];
        name_of(node, path);
        CHECK(own_file_is(path, ours, (size_t)size));
    }
    CHECK(wal_close(&writer) == 0);
}
static void three_followers(void)
{
    leader();
    for (int node = 1; node <= FOLLOWERS; node++) {
        start(node);
        accept_one(0);
    }
    commit(10);
}

/* ---- one that takes nothing ---- */

static void stopped(void)
{
    three_followers();
    CHECK_EQ(repl_set_timeouts(60000, 0), 0);
    REQUIRE(kill(pids[2], SIGSTOP) == 0);
    int left = 20;
    for (int i = 0; i < 1000 && left > 0; i++) {
        left -= ship(VALUE) == 2; /* its buffers are full: the two others got it */
        CHECK_EQ(repl_wait_quorum(&config, (uint64_t)written, 10000), 0);
    }
    CHECK_EQ(left, 0);
    CHECK_EQ(online(), 3); /* its deadline has not passed */
    REQUIRE(kill(pids[2], SIGCONT) == 0);
    CHECK_EQ(repl_catch_up_go_on(&config, 10000), 0);
    CHECK_EQ(online(), 3);
    CHECK_EQ(ship(10), 3);
    ends_whole();
}
static void stopped_for_too_long(void)
{
    struct repl_follower_status status;
    three_followers();
    CHECK_EQ(repl_set_timeouts(300, 0), 0);
    REQUIRE(kill(pids[2], SIGSTOP) == 0);
    int64_t began = own_now_ms();
    while (config.followers[2].online && own_now_ms() - began < 15000)
        commit(VALUE);
    CHECK_EQ(config.followers[2].online, 0);
    CHECK_EQ(config.followers[2].fd, -1);
    CHECK_EQ(repl_get_follower_status(&config, 2, &status), 0);
    CHECK(strstr(status.last_disconnect, "deadline") != NULL);
    CHECK_EQ(online(), 2);
    CHECK_EQ(repl_set_timeouts(10000, 0), 0);
    REQUIRE(kill(pids[2], SIGCONT) == 0);
    CHECK_EQ(own_reap(pids[2]), 0); /* its connection is closed: it ends, and comes back */
    start(3);
    accept_one(0);
    commit(10);
    ends_whole();
}
/* A heartbeat is no part of a frame that is half out. */
static void heartbeat_behind(void)
{
    three_followers();
    REQUIRE(kill(pids[2], SIGSTOP) == 0);
    while (ship(VALUE) == FOLLOWERS)
        ;
    REQUIRE(kill(pids[2], SIGCONT) == 0);
    CHECK_EQ(repl_heartbeat(&config, 10000), 3);
    CHECK_EQ(repl_catch_up_go_on(&config, 10000), 0);
    commit(10);
    ends_whole();
}

/* ---- catching up beside commits ---- */

static void beside_commits(void)
{
    leader();
    for (int i = 0; i < 50000; i++) {
        static uint8_t encoded[WAL_RECORD_MAX];
        static struct wal_record batch[1000];
        static char keys[1000][16];
        if (i % 1000 == 0 && i > 0)
            REQUIRE(logship_append_batch(&writer, batch, 1000) == 0);
        snprintf(keys[i % 1000], 16, "key%d", i);
        batch[i % 1000] = (struct wal_record){.op = WAL_OP_SET, .key = keys[i % 1000], .value = (char *)encoded,
            .key_len = (uint16_t)strlen(keys[i % 1000]), .value_len = 100, .timestamp = (uint64_t)i + 1};
    }
    written = (int)logship_last_lsn(&writer);
    start(1);
    accept_one(0);
    start(2);
    accept_one(1); /* both go on at the same time, and the leader commits with those it has */
    start(3);
    accept_one(1);
    CHECK_EQ(repl_set_quorum_policy(&config, REPL_QUORUM_DEGRADE), 0);
    int beside = 0;
    while (online() < FOLLOWERS && beside < 100000 && !own_bad) {
        commit(100);
        beside++;
    }
    CHECK(beside > 0);
    CHECK_EQ(online(), 3);
    CHECK_EQ(repl_set_quorum_policy(&config, REPL_QUORUM_STRICT), 0);
    for (int i = 0; i < 100; i++)
        commit(100);
    ends_whole();
}
static void killed_while_catching_up(void)
{
    leader();
    for (int i = 0; i < 300; i++) {
        static uint8_t encoded[WAL_RECORD_MAX];
        int len;
        append(VALUE, encoded, &len);
    }
    start(1);
    accept_one(0);
    start(2);
    accept_one(0);
    for (int round = 0; round < 5; round++) {
        start(3);
        accept_one(1);
        for (int i = 0; i < round; i++)
            commit(100);
        REQUIRE(kill(pids[2], SIGKILL) == 0);
        own_reap(pids[2]);
        while (config.followers[2].fd >= 0 && !own_bad)
            commit(100); /* it is noticed, and nobody else is disturbed */
    }
    CHECK_EQ(online(), 2);
    start(3);
    accept_one(1);
    CHECK_EQ(repl_catch_up_go_on(&config, 10000), 0);
    CHECK_EQ(online(), 3);
    ends_whole();
}

int main(void)
{
    CASE("one stopped with full buffers: the others commit, it goes on", stopped);
    CASE("one stopped for too long: offline at the deadline, then whole", stopped_for_too_long);
    CASE("a heartbeat to one that is behind", heartbeat_behind);
    CASE("two catch up at the same time beside commits", beside_commits);
    CASE("killed while it catches up beside commits", killed_while_catching_up);
    return own_end();
}
