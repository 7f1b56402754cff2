/* Everything of W11 once more in one process, for valgrind: what was opened is closed, what was allocated is freed,
 * nothing is read that was not written. Without valgrind the open descriptors are still counted. */
#define _GNU_SOURCE
#include "wire.h"

static void write_nth(struct replication_config *config, struct wal_writer *writer, int n)
{
    uint8_t encoded[WIRE_ROOM];
    size_t len = wire_nth(n, encoded);
    int rc;

    wire_append_nth(writer, n);
    CALL(rc, "repl_ship_record", repl_ship_record(config, encoded, len));
    EXPECT(rc >= 0, "repl_ship_record", "no error", "%d (%s)", rc, strerror(errno));
}

/* Connects the tree's way to followers of which the check is the other end. */
static void connect_all(struct wire_cluster *cluster)
{
    int rc;

    wire_config(cluster);
    cluster->config.follower_count = 2;
    for (int i = 0; i < WIRE_FOLLOWERS; i++)
        cluster->raw[i] = -1;
    for (int i = 0; i < wire_room_for(); i++)
        wire_set_node(&cluster->config.followers[i], (uint16_t)(7001 + i));
    for (int i = 0; i < 2; i++) {
        int listen_fd = wire_listen();

        cluster->config.followers[i].port = wire_port_of(listen_fd);
        CALL(rc, "repl_connect to a follower that listens", repl_connect(&cluster->config.followers[i]));
        EXPECT(rc >= 0, "repl_connect to a follower that listens", "0", "%d (%s)", rc, strerror(errno));
        cluster->raw[i] = wire_accept(listen_fd);
        close(listen_fd);
    }
}

static void leader_side(void)
{
    struct wire_cluster cluster;
    struct wal_writer writer;
    int before = wire_count_fds(), rc;

    connect_all(&cluster);
    EXPECT(CHECK_WAL_OPEN(&writer, "leader.wal") >= 0, "wal_open of the leader's log", "no error", "%s",
           strerror(errno));
    for (int n = 1; n <= 3; n++) {
        write_nth(&cluster.config, &writer, n);
        for (int i = 0; i < 2; i++) {
            wire_expect_nth(cluster.raw[i], n, "a follower");
            wire_ack(cluster.raw[i], (uint64_t)n, 0);
        }
        CALL(rc, "repl_wait_quorum when both followers have acked",
             repl_wait_quorum(&cluster.config, (uint64_t)n, 3000));
        EXPECT(rc >= 0, "repl_wait_quorum when both followers have acked", "a quorum (0 or more)", "%d", rc);
    }
    wire_leave(&cluster, 1);
    for (int n = 4; n <= 6; n++)
        write_nth(&cluster.config, &writer, n);
    wire_node_close(&cluster.config.followers[1]);
    wire_join(&cluster, 1);
    cluster.config.followers[1].online = 0;
    CALL(rc, "repl_catch_up", wire_catch_up(&cluster.config, &writer, 1, 3));
    EXPECT(rc >= 0, "repl_catch_up", "no error", "%d (%s)", rc, strerror(errno));
    for (int n = 4; n <= 6; n++)
        wire_expect_nth(cluster.raw[1], n, "catch-up from LSN 3");
    EXPECT(CHECK_WAL_CLOSE(&writer) >= 0, "wal_close of the leader's log", "no error", "%s", strerror(errno));
    wire_cluster_close(&cluster);
    EXPECT_INT(before, wire_count_fds(), "open descriptors of a leader at its end, as at its beginning");
}

static void follower_side(void)
{
    struct repl_node node = wire_node(0);
    struct wal_writer writer;
    struct kv_store store;
    uint8_t encoded[WIRE_ROOM];
    int before = wire_count_fds(), listen_fd, fd, raw, rc, good = 0;
    struct wal_record del = check_del_record("key-2", 100);
    size_t len;

    CALL(listen_fd, "repl_listen on port 0 of 127.0.0.1", wire_tree_listen(&node));
    EXPECT(listen_fd >= 0, "repl_listen on port 0 of 127.0.0.1", "a descriptor", "%d (%s)", listen_fd, strerror(errno));
    raw = wire_connect(wire_port_of(listen_fd));
    EXPECT(raw >= 0, "a connection to the socket of repl_listen", "accepted by the kernel", "%s", strerror(errno));
    wire_tame(raw);
    CALL(fd, "repl_accept with a connection waiting", WIRE_ACCEPT(listen_fd));
    EXPECT(fd >= 0, "repl_accept with a connection waiting", "a descriptor", "%d (%s)", fd, strerror(errno));
    EXPECT(CHECK_STORE_INIT(&store) >= 0, "kv_store_init", "no error", "an error");
    EXPECT(CHECK_WAL_OPEN(&writer, "follower.wal") >= 0, "wal_open of the follower's log", "no error", "%s",
           strerror(errno));
    for (int i = 0; i < 6; i++) {
        /* Records 1, 2 and 3, the second of them damaged first, one key written twice, and a DEL. */
        static const int numbers[] = { 1, 2, 2, 3, 1, 0 };

        len = numbers[i] > 0 ? wire_nth(numbers[i], encoded) : check_encode(&del, encoded, sizeof encoded);
        if (i == 1)
            encoded[14] ^= 0x01;
        wire_frame(raw, encoded, len);
        CALL(rc, "repl_receive_record", repl_receive_record(fd, &writer, &store));
        if (i == 0)
            good = rc;
        EXPECT(i == 1 ? rc != good : rc >= 0 && rc == good, "repl_receive_record",
               i == 1 ? "CRC_MISMATCH for a damaged record" : "success", "%d, where success is %d", rc, good);
    }
    wire_frame(raw, encoded, len);
    shutdown(raw, SHUT_WR);
    CALL(rc, "repl_receive_record", repl_receive_record(fd, &writer, &store));
    CALL(rc, "repl_receive_record when the leader has closed", repl_receive_record(fd, &writer, &store));
    EXPECT(rc < 0 || rc != good, "repl_receive_record when the leader has closed", "-1", "%d, as for a record", rc);
    EXPECT_STRING(NULL, kv_store_get(&store, "key-2"), "GET key-2, which was set and deleted");
    close(fd);
    close(raw);
    close(listen_fd);
    EXPECT(CHECK_WAL_CLOSE(&writer) >= 0, "wal_close of the follower's log", "no error", "%s", strerror(errno));
    kv_store_destroy(&store);
    EXPECT_INT(before, wire_count_fds(), "open descriptors of a follower at its end, as at its beginning");
}

static const struct check checks[] = {
    { "memory_leader", "W11-R9", "w11-l06", "repl_config.c,repl_ship.c,repl_quorum.c,repl_rejoin.c", 40,
      "a leader's life leaves nothing behind", "Zero leaks, no undefined behaviour under valgrind.", leader_side },
    { "memory_follower", "W11-R9", "w11-l06",
      "repl_config.c,repl_ship.c,repl_conflict.c,kv_store.c,wal_record.c,wal_writer.c",
      40, "a follower's life leaves nothing behind", "Zero leaks, no undefined behaviour under valgrind.",
      follower_side },
};

CHECK_MAIN(checks)
