/* Every exported function with every pointer NULL and with values that cannot be: -1/EINVAL (NULL for pointers), and
 * nothing changed. One row per argument. Where the contract names no errno for a descriptor that is none, EBADF will do. */
#include "wire.h"
#include "logship.h"

#define IS_EINVAL(call) CHECK_FAILS(call, EINVAL)
#define IS_BAD_FD(call) do { \
        errno = 0; \
        long long own_r = (long long)(call); \
        int own_e = errno; \
        own_check(own_r == -1, __FILE__, __LINE__, #call " == -1", own_r, -1); \
        own_check(own_e == EINVAL || own_e == EBADF, __FILE__, __LINE__, "EINVAL or EBADF after " #call, own_e, EBADF); \
    } while (0)
#define IS_NULL_EINVAL(call) do { \
        errno = 0; \
        const void *own_p = (call); \
        int own_e = errno; \
        own_check(own_p == NULL, __FILE__, __LINE__, #call " == NULL", 0, 0); \
        own_check(own_e == EINVAL, __FILE__, __LINE__, "errno == EINVAL after " #call, own_e, EINVAL); \
    } while (0)

/* NULL through a variable: the compiler must not see that an argument is constant and warn, or reason from it. */
static void *volatile null_value;
#define NOTHING null_value

static struct wal_record good_record(void)
{
    return (struct wal_record){.op = WAL_OP_SET, .key = "foo", .key_len = 3, .value = "bar", .value_len = 3, .timestamp = 5};
}

static void kv_rows(void)
{
    struct kv_store store;
    struct wal_record record = good_record(), bad;
    IS_EINVAL(kv_store_init(NOTHING));
    REQUIRE(kv_store_init(&store) == 0);
    CHECK(kv_store_set_ts(&store, "k", "v", 7) == 0);
    IS_EINVAL(kv_store_set(NOTHING, "k", "x"));
    IS_EINVAL(kv_store_set(&store, NOTHING, "x"));
    IS_EINVAL(kv_store_set(&store, "k", NOTHING));
    IS_NULL_EINVAL(kv_store_get(NOTHING, "k"));
    IS_NULL_EINVAL(kv_store_get(&store, NOTHING));
    IS_NULL_EINVAL(kv_store_find(NOTHING, "k"));
    IS_NULL_EINVAL(kv_store_find(&store, NOTHING));
    IS_EINVAL(kv_store_del(NOTHING, "k"));
    IS_EINVAL(kv_store_del(&store, NOTHING));
    IS_EINVAL(kv_store_count(NOTHING));
    IS_EINVAL(kv_store_set_ts(NOTHING, "k", "x", 9));
    IS_EINVAL(kv_store_set_ts(&store, NOTHING, "x", 9));
    IS_EINVAL(kv_store_set_ts(&store, "k", NOTHING, 9));
    IS_EINVAL(kv_store_apply(NOTHING, &record));
    IS_EINVAL(kv_store_apply(&store, NOTHING));
    bad = record, bad.op = 0;
    IS_EINVAL(kv_store_apply(&store, &bad));
    bad = record, bad.op = 3;
    IS_EINVAL(kv_store_apply(&store, &bad));
    bad = record, bad.key = NULL;
    IS_EINVAL(kv_store_apply(&store, &bad));
    bad = record, bad.key_len = 0;
    IS_EINVAL(kv_store_apply(&store, &bad));
    CHECK_EQ(kv_store_count(&store), 1);
    REQUIRE(kv_store_find(&store, "k") != NULL);
    CHECK(strcmp(kv_store_get(&store, "k"), "v") == 0);
    CHECK(kv_store_find(&store, "k")->last_write_ts == 7);
    (void)kv_hash(NOTHING, 16); /* unsigned: no way to say -1; it only has to come back */
    (void)kv_hash("k", 0);
    (void)kv_hash("k", -1);
    kv_store_destroy(&store);
}
static void destroying_nothing(void)
{
    struct kv_store store;
    struct wal_record record, good = good_record();
    uint8_t bytes[64];
    kv_store_destroy(NOTHING);
    memset(&store, 0, sizeof store);
    kv_store_destroy(&store);
    kv_store_destroy(&store);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK(kv_store_set(&store, "k", "v") == 0);
    kv_store_destroy(&store);
    kv_store_destroy(&store);
    REQUIRE(kv_store_init(&store) == 0); /* and it can be used again */
    CHECK(kv_store_get(&store, "k") == NULL);
    CHECK(kv_store_set(&store, "k", "v") == 0);
    kv_store_destroy(&store);
    wal_record_free(NOTHING);
    memset(&record, 0, sizeof record);
    wal_record_free(&record);
    wal_record_free(&record);
    int len = wal_record_encode(&good, bytes, sizeof bytes);
    REQUIRE(len > 0 && wal_record_decode(bytes, (size_t)len, &record) == 0);
    wal_record_free(&record);
    wal_record_free(&record); /* twice: the first left nothing to free */
}
static void codec_rows(void)
{
    struct wal_record record = good_record(), bad, zero;
    uint8_t bytes[64], before[64];
    memset(bytes, 0x77, sizeof bytes);
    memcpy(before, bytes, sizeof bytes);
    IS_EINVAL(wal_record_encode(NOTHING, bytes, sizeof bytes));
    IS_EINVAL(wal_record_encode(&record, NOTHING, sizeof bytes));
    bad = record, bad.op = 0;
    IS_EINVAL(wal_record_encode(&bad, bytes, sizeof bytes));
    bad = record, bad.op = 3;
    IS_EINVAL(wal_record_encode(&bad, bytes, sizeof bytes));
    bad = record, bad.op = 255;
    IS_EINVAL(wal_record_encode(&bad, bytes, sizeof bytes));
    bad = record, bad.key = NULL;
    IS_EINVAL(wal_record_encode(&bad, bytes, sizeof bytes));
    bad = record, bad.key_len = 0;
    IS_EINVAL(wal_record_encode(&bad, bytes, sizeof bytes));
    bad = record, bad.value = NULL;
    IS_EINVAL(wal_record_encode(&bad, bytes, sizeof bytes));
    CHECK(memcmp(bytes, before, sizeof bytes) == 0);
    for (size_t room = 0; room < 27; room++) {
        CHECK_FAILS(wal_record_encode(&record, bytes, room), ENOBUFS);
        CHECK(memcmp(bytes + room, before + room, sizeof bytes - room) == 0);
    }
    CHECK_EQ(wal_record_encode(&record, bytes, 27), 27);
    memset(&zero, 0, sizeof zero);
    memset(&bad, 0, sizeof bad);
    IS_EINVAL(wal_record_decode(NOTHING, 27, &bad));
    CHECK(memcmp(&bad, &zero, sizeof zero) == 0);
    IS_EINVAL(wal_record_decode(bytes, 27, NOTHING));
    (void)crc32(NOTHING, 0);
    (void)crc32(NOTHING, 5);
}
static void log_rows(void)
{
    struct wal_writer writer = {.fd = 55, .offset = 66}, none = {.fd = -1, .offset = 0};
    struct wal_record record = good_record(), bad, two[2] = {record, record};
    struct kv_store store;
    char buffer[8] = "abcdefg";
    IS_EINVAL(wal_open(NOTHING, "x.wal"));
    IS_EINVAL(wal_open(&writer, NOTHING));
    CHECK(writer.fd == 55 && writer.offset == 66);
    IS_NULL_EINVAL(wal_open_path(NOTHING));
    CHECK_EQ(own_count_files("", NULL, 0), 0);
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    IS_EINVAL(wal_append(NOTHING, &record));
    IS_EINVAL(wal_append(&writer, NOTHING));
    IS_BAD_FD(wal_append(&none, &record));
    bad = record, bad.op = 0;
    IS_EINVAL(wal_append(&writer, &bad));
    bad = record, bad.op = 3;
    IS_EINVAL(wal_append(&writer, &bad));
    bad = record, bad.key = NULL;
    IS_EINVAL(wal_append(&writer, &bad));
    bad = record, bad.key_len = 0;
    IS_EINVAL(wal_append(&writer, &bad));
    bad = record, bad.value = NULL;
    IS_EINVAL(wal_append(&writer, &bad));
    IS_EINVAL(logship_append_batch(NOTHING, two, 2));
    IS_EINVAL(logship_append_batch(&writer, NOTHING, 2));
    IS_BAD_FD(logship_append_batch(&none, two, 2));
    two[1].key_len = 0; /* the second is impossible: then the first is not stored either */
    IS_EINVAL(logship_append_batch(&writer, two, 2));
    IS_EINVAL(logship_last_lsn(NOTHING));
    IS_BAD_FD(logship_last_lsn(&none));
    CHECK_EQ(own_file_size("x.wal"), 0);
    CHECK_EQ(writer.offset, 0);
    CHECK(own_is_open(writer.fd));
    IS_EINVAL(wal_close(NOTHING));
    CHECK(wal_append(&writer, &record) == 0);
    IS_EINVAL(write_full(writer.fd, NOTHING, 5));
    IS_BAD_FD(write_full(-1, buffer, 5));
    CHECK_EQ(own_file_size("x.wal"), 27);
    CHECK(wal_close(&writer) == 0);
    int fd = open("x.wal", O_RDONLY);
    IS_EINVAL(read_full(fd, NOTHING, 5));
    IS_BAD_FD(read_full(-1, buffer, 5));
    CHECK(strcmp(buffer, "abcdefg") == 0);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
    close(fd);
    REQUIRE(kv_store_init(&store) == 0);
    IS_EINVAL(wal_recover(NOTHING, &store));
    IS_EINVAL(wal_recover("x.wal", NOTHING));
    CHECK_EQ(kv_store_count(&store), 0);
    kv_store_destroy(&store);
}
static void checkpoint_rows(void)
{
    struct kv_store store;
    struct replication_config config;
    uint64_t offset = 99;
    REQUIRE(kv_store_init(&store) == 0);
    CHECK(kv_store_set(&store, "k", "v") == 0);
    IS_EINVAL(wal_checkpoint_write(NOTHING, "c", 0));
    IS_EINVAL(wal_checkpoint_write(&store, NOTHING, 0));
    CHECK_EQ(own_count_files("", NULL, 0), 0);
    CHECK(wal_checkpoint_write(&store, "c", 0) == 0);
    CHECK(kv_store_del(&store, "k") == 1);
    IS_EINVAL(wal_checkpoint_load(NOTHING, &store, &offset));
    IS_EINVAL(wal_checkpoint_load("c", NOTHING, &offset));
    IS_EINVAL(wal_checkpoint_load("c", &store, NOTHING));
    CHECK_EQ(offset, 99);
    IS_EINVAL(wal_recover_with_checkpoint(NOTHING, "c", &store));
    IS_EINVAL(wal_recover_with_checkpoint("w", NOTHING, &store));
    IS_EINVAL(wal_recover_with_checkpoint("w", "c", NOTHING));
    CHECK_EQ(kv_store_count(&store), 0);
    REQUIRE(repl_config_init(&config) == 0);
    IS_EINVAL(repl_set_wal(NOTHING, "w"));
    IS_EINVAL(repl_set_wal(&config, NOTHING));
    IS_EINVAL(repl_set_checkpoint(NOTHING, "c"));
    IS_EINVAL(repl_set_checkpoint(&config, NOTHING));
    IS_EINVAL(logship_wal_compact(NOTHING, "c"));
    IS_EINVAL(logship_wal_compact("w", NOTHING));
    IS_EINVAL(logship_wal_truncate_to(NOTHING, 0));
    IS_EINVAL(repl_compact(NOTHING, "c", NULL));
    IS_EINVAL(repl_compact(&config, NOTHING, NULL));
    kv_store_destroy(&store);
}
static void node_rows(void)
{
    struct replication_config config;
    struct repl_node node = {.host = NULL, .port = 1, .fd = -1, .online = 0};
    IS_EINVAL(repl_config_init(NOTHING));
    REQUIRE(repl_config_init(&config) == 0);
    IS_EINVAL(repl_connect(NOTHING));
    IS_EINVAL(repl_connect(&node));
    IS_EINVAL(repl_listen(NOTHING));
    IS_EINVAL(repl_listen(&node));
    CHECK(node.fd == -1 && node.online == 0 && node.port == 1);
    IS_BAD_FD(repl_accept(-1));
    IS_BAD_FD(repl_set_keepalive(-1));
    IS_EINVAL(repl_set_leader(NOTHING, 7000));
    IS_EINVAL(logship_set_self(-1));
    IS_EINVAL(repl_set_quorum_policy(NOTHING, REPL_QUORUM_STRICT));
    IS_EINVAL(repl_set_quorum_policy(&config, -1));
    IS_EINVAL(repl_set_quorum_policy(&config, 2));
    IS_EINVAL(repl_last_commit_degraded(NOTHING));
    logship_set_log(NULL, NULL);
    CHECK(logship_version() != NULL);
}
/* A leader with one follower, online, whose end is in peer: whatever the row, nothing may arrive there. */
static void leader_rows(void)
{
    struct replication_config config, bad;
    struct repl_follower_status status, untouched;
    struct wal_record record = good_record();
    struct wal_writer writer;
    uint8_t bytes[64], *large = calloc(1, WAL_RECORD_MAX + 1);
    int peer, counts[] = {-1, MAX_FOLLOWERS + 1, INT32_MAX, INT32_MIN};
    REQUIRE(large != NULL && wal_open(&writer, "leader.wal") == 0);
    int len = wal_record_encode(&record, bytes, sizeof bytes);
    CHECK(wal_append(&writer, &record) == 0);
    REQUIRE(len > 0 && repl_config_init(&config) == 0);
    config.follower_count = 1;
    REQUIRE(own_pair(&config.followers[0].fd, &peer, 0) == 0);
    config.followers[0].online = 1;
    int fd = config.followers[0].fd;
    IS_EINVAL(repl_ship_record(NOTHING, bytes, (size_t)len));
    IS_EINVAL(repl_ship_record(&config, NOTHING, (size_t)len));
    IS_EINVAL(repl_ship_record(&config, bytes, 0));
    IS_EINVAL(repl_ship_record(&config, large, WAL_RECORD_MAX + 1));
    IS_EINVAL(repl_ship_record(&config, large, SIZE_MAX));
    IS_EINVAL(repl_wait_quorum(NOTHING, 1, 0));
    IS_EINVAL(repl_heartbeat(NOTHING, 0));
    IS_EINVAL(repl_catch_up(NOTHING, 0, 0));
    IS_EINVAL(repl_catch_up(&config, -1, 0));
    IS_EINVAL(repl_catch_up_begin(NOTHING, 0, 0));
    IS_EINVAL(repl_catch_up_begin(&config, MAX_FOLLOWERS, 0));
    IS_EINVAL(repl_catch_up_go_on(NOTHING, 0));
    IS_EINVAL(repl_catch_up(&config, 1, 0)); /* == follower_count */
    IS_EINVAL(repl_catch_up(&config, MAX_FOLLOWERS, 0));
    IS_EINVAL(repl_catch_up(&config, INT32_MIN, 0));
    memset(&status, 0x33, sizeof status);
    untouched = status;
    IS_EINVAL(repl_get_follower_status(NOTHING, 0, &status));
    IS_EINVAL(repl_get_follower_status(&config, -1, &status));
    IS_EINVAL(repl_get_follower_status(&config, 1, &status));
    IS_EINVAL(repl_get_follower_status(&config, MAX_FOLLOWERS, &status));
    IS_EINVAL(repl_get_follower_status(&config, 0, NOTHING));
    CHECK(memcmp(&status, &untouched, sizeof status) == 0);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        bad = config;
        bad.follower_count = counts[i];
        IS_EINVAL(repl_ship_record(&bad, bytes, (size_t)len));
        IS_EINVAL(repl_wait_quorum(&bad, 1, 0));
        IS_EINVAL(repl_heartbeat(&bad, 0));
        IS_EINVAL(repl_catch_up(&bad, 0, 0));
        IS_EINVAL(repl_get_follower_status(&bad, 0, &status));
        CHECK(bad.followers[0].fd == fd && bad.followers[0].online == 1);
    }
    CHECK(config.followers[0].fd == fd && config.followers[0].online == 1);
    CHECK(own_is_open(fd));
    CHECK(own_quiet(fd, peer));
    CHECK_EQ(repl_ship_record(&config, bytes, (size_t)len), 1); /* and the connection is as good as before */
    CHECK(own_frame_is(peer, bytes, (size_t)len));
    close(fd), close(peer);
    wal_close(&writer);
    free(large);
}
static void follower_rows(void)
{
    struct wal_writer writer;
    struct kv_store store;
    struct repl_ack ack = {.lsn = 42, .status = 9};
    struct wal_record record = good_record();
    struct replication_config config;
    uint8_t bytes[64], frame[68], buffer[8] = {0};
    uint64_t lsn = 77;
    int leader, fd, index = 55;
    uint16_t port = 0;
    REQUIRE(own_pair(&leader, &fd, 0) == 0);
    REQUIRE(wal_open(&writer, "follower.wal") == 0 && kv_store_init(&store) == 0);
    int len = wal_record_encode(&record, bytes, sizeof bytes);
    REQUIRE(len > 0 && own_put_all(leader, frame, own_frame(frame, bytes, (size_t)len)) == 0);
    IS_BAD_FD(repl_receive_record(-1, &writer, &store));
    IS_EINVAL(repl_receive_record(fd, NOTHING, &store));
    IS_EINVAL(repl_receive_record(fd, &writer, NOTHING));
    IS_BAD_FD(logship_follow(-1, &writer, &store));
    IS_EINVAL(logship_follow(fd, NOTHING, &store));
    IS_EINVAL(logship_follow(fd, &writer, NOTHING));
    IS_EINVAL(recv_full(fd, NOTHING, 4));
    IS_BAD_FD(recv_full(-1, buffer, 4));
    IS_EINVAL(send_full(fd, NOTHING, 4));
    IS_BAD_FD(send_full(-1, buffer, 4));
    IS_BAD_FD(repl_send_ack(-1, 1, REPL_ACK_OK));
    IS_EINVAL(repl_recv_ack(fd, NOTHING));
    IS_BAD_FD(repl_recv_ack(-1, &ack));
    IS_EINVAL(repl_read_rejoin(fd, NOTHING));
    IS_BAD_FD(repl_read_rejoin(-1, &lsn));
    CHECK(ack.lsn == 42 && ack.status == 9);
    CHECK_EQ(own_pending(fd), len + 4);
    CHECK(own_quiet(fd, leader));
    CHECK_EQ(repl_receive_record(fd, &writer, &store), 0); /* the frame is still whole */
    CHECK(kv_store_get(&store, "foo") != NULL);
    REQUIRE(repl_config_init(&config) == 0);
    int listener = own_listen(&port);
    REQUIRE(listener >= 0);
    IS_EINVAL(repl_accept_rejoin(NOTHING, listener, &index, &lsn));
    IS_BAD_FD(repl_accept_rejoin(&config, -1, &index, &lsn));
    IS_EINVAL(repl_accept_rejoin(&config, listener, NOTHING, &lsn));
    IS_EINVAL(repl_accept_rejoin(&config, listener, &index, NOTHING));
    config.follower_count = MAX_FOLLOWERS + 1;
    IS_EINVAL(repl_accept_rejoin(&config, listener, &index, &lsn));
    config.follower_count = -1;
    IS_EINVAL(repl_accept_rejoin(&config, listener, &index, &lsn));
    CHECK(index == 55 && lsn == 77);
    CHECK(own_is_open(listener));
    close(listener), close(leader), close(fd);
    wal_close(&writer);
    kv_store_destroy(&store);
}

int main(void)
{
    CASE("kv_store: each pointer NULL, impossible records", kv_rows);
    CASE("kv_store_destroy and wal_record_free: NULL, twice, zeroed", destroying_nothing);
    CASE("wal_record: each pointer NULL, impossible fields, too small a buffer", codec_rows);
    CASE("wal_writer and wal_recovery: each pointer NULL, impossible records, fd -1", log_rows);
    CASE("wal_checkpoint, repl_set_wal, repl_set_checkpoint: each pointer NULL", checkpoint_rows);
    CASE("repl_config and settings: each pointer NULL, no host, unknown policy", node_rows);
    CASE("leader's calls: each pointer NULL, impossible counts, indexes and lengths", leader_rows);
    CASE("follower's calls: each pointer NULL, fd -1, nothing read from the stream", follower_rows);
    return own_end();
}
