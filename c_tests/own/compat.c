/* logship_compat.h: the names that the lessons leave open, and a program that has two of them itself. */
#define _GNU_SOURCE
#define WAL_OK 7
#define repl_disconnect repl_disconnect
#include "harness.h"
#include "logship_compat.h"
#include <sys/socket.h>

static int disconnected;
static void repl_disconnect(const char *why)
{
    disconnected += why[0] == 'x';
}

static void sizes_are_those_of_the_codec(void)
{
    char key[] = "foo", value[] = "barbaz";
    uint8_t bytes[64];
    struct wal_record record = {WAL_OP_SET, key, 3, value, 6, 0, 9};

    CHECK_EQ(wal_record_encode(&record, bytes, sizeof bytes), wal_record_size(&record));
    record.op = WAL_OP_DEL;
    CHECK_EQ(wal_record_encode(&record, bytes, sizeof bytes), wal_record_size(&record));
    record.key_len = 1;
    CHECK_EQ(WAL_MIN_RECORD, wal_record_size(&record) - 8);
    record = (struct wal_record){WAL_OP_SET, key, UINT16_MAX, value, UINT16_MAX, 0, 9};
    CHECK_EQ(WAL_MAX_RECORD, wal_record_size(&record));
    CHECK_EQ(WAL_HEADER_SIZE, 8);
    CHECK_EQ(REPL_ACK_SIZE, sizeof(struct repl_ack));
}

static void a_log_is_replayed_from_its_descriptor(void)
{
    char key[] = "foo", value[] = "bar";
    struct wal_record record = {WAL_OP_SET, key, 3, value, 3, 0, 9};
    struct wal_writer writer;
    struct kv_store store;

    REQUIRE(wal_open(&writer, LEADER_WAL_PATH) == 0 && wal_append(&writer, &record) == 0);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(store.num_buckets, KV_DEFAULT_BUCKETS);
    CHECK_EQ(wal_replay(writer.fd, &store), 1);
    CHECK(kv_store_get(&store, "foo") && strcmp(kv_store_get(&store, "foo"), "bar") == 0);
    CHECK_EQ(wal_append(&writer, &record), 0);
    CHECK_EQ(wal_replay(-1, &store), -1);
    CHECK_EQ(wal_close(&writer), 0);
    kv_store_destroy(&store);
    CHECK(strcmp(REPL_LEADER_WAL, LEADER_WAL_PATH) == 0);
}

static void nodes_and_quorums(void)
{
    struct replication_config config;
    int pair[2];
    uint64_t first = repl_now_ns();

    REQUIRE(repl_config_init(&config) == 0);
    CHECK_EQ(repl_quorum_size(&config), 2);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    config.followers[0].fd = pair[0];
    config.followers[0].online = 1;
    CHECK_EQ(repl_wait_quorum(&config, 1, 0), REPL_QUORUM_TIMEOUT);
    repl_mark_offline(&config.followers[0]);
    CHECK_EQ(config.followers[0].fd, -1);
    CHECK_EQ(config.followers[0].online, 0);
    CHECK_EQ(read(pair[1], pair, 1), 0); /* closed */
    repl_mark_offline(&config.followers[0]);
    config.follower_count = 0;
    CHECK_EQ(repl_wait_quorum(&config, 1, 0), REPL_QUORUM_OK);
    CHECK(repl_now_ns() > first);
    close(pair[1]);
}

static void names_of_the_programs_own(void)
{
    repl_disconnect("x");
    CHECK_EQ(disconnected, 1);
    CHECK_EQ(WAL_OK, 7);
}

int main(void)
{
    CASE("sizes", sizes_are_those_of_the_codec);
    CASE("wal_replay, KV_DEFAULT_BUCKETS, LEADER_WAL_PATH", a_log_is_replayed_from_its_descriptor);
    CASE("nodes, quorums and a clock", nodes_and_quorums);
    CASE("names that the program has itself", names_of_the_programs_own);
    return own_end();
}
