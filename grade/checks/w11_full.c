/* Lesson 6's six categories: the whole pipeline, with the tree's functions at both ends. Followers are forked
 * processes, on ports that the kernel picks. A follower looks at its own store and log when the leader has hung up,
 * and ends with a verdict of its own if something is wrong. */
#define _GNU_SOURCE
#include "wire.h"

enum { SHORT_MS = 400, LONG_MS = 8000 };

#define EVERY_FILE                                                                                             \
    "kv_store.c,crc32.c,wal_record.c,wal_writer.c,wal_recovery.c,repl_config.c,repl_ship.c,repl_quorum.c," \
    "repl_conflict.c,repl_rejoin.c"

struct pair {
    const char *key;
    const char *value; /* NULL: the key must be absent */
};

/* ---- a follower ------------------------------------------------------------------------------------------------- */

struct follower {
    int number;
    int frames;              /* that the leader will ship to it */
    int damaged;             /* the number of the damaged one among them, 0 if none is */
    int acks;                /* how many frames it takes and answers; the rest only when the leader hangs up */
    int records;             /* that its log and its store hold in the end: key-1 to key-n */
    const struct pair *want; /* what the store holds in the end, if not those; ends with a NULL key */
    int fd;
    int good, has_good; /* what the tree's repl_receive_record says of a good record */
    struct wal_writer writer;
    struct kv_store store;
};

static void follower_say(const struct follower *follower, char *text, size_t size, const char *what)
{
    snprintf(text, size, "follower-%d: %s", follower->number, what);
}

static void follower_open(struct follower *follower)
{
    char path[32];

    snprintf(path, sizeof path, "follower-%d.wal", follower->number);
    EXPECT(CHECK_STORE_INIT(&follower->store) >= 0, "kv_store_init", "no error", "an error");
    EXPECT(CHECK_WAL_OPEN(&follower->writer, path) >= 0, "wal_open of a follower's log", "no error", "%s",
           strerror(errno));
}

/* Answers as lesson 3 says, unless the tree's repl_receive_record has done so itself. */
static void follower_answer(struct follower *follower, int frame, uint64_t lsn, uint8_t status)
{
    if (frame <= follower->acks && wire_eyes.sent == 0)
        wire_ack(follower->fd, lsn, status);
}

static void follower_serve(struct follower *follower, uint64_t lsn)
{
    char what[100];
    int rc;

    for (int frame = 1; frame <= follower->frames; frame++) {
        EXPECT(wire_await(follower->fd, POLLIN, WIRE_CHILD_MS), "a follower that waits for a record", "one comes",
               "none");
        if (frame > follower->acks)
            wire_await(follower->fd, POLLRDHUP, WIRE_CHILD_MS);
        wire_watch(follower->fd, -1);
        follower_say(follower, what, sizeof what, "repl_receive_record");
        CALL(rc, what, repl_receive_record(follower->fd, &follower->writer, &follower->store));
        if (frame == follower->damaged) {
            EXPECT(rc != follower->good, what, "CRC_MISMATCH for a record with a flipped bit", "%d, as for a good one",
                   rc);
            follower_answer(follower, frame, lsn + 1, 1);
        } else {
            if (!follower->has_good)
                follower->good = rc;
            follower->has_good = 1;
            EXPECT(rc >= 0 && rc == follower->good, what, "success", "%d (%s), where success is %d", rc,
                   strerror(errno), follower->good);
            follower_answer(follower, frame, ++lsn, 0);
        }
    }
    EXPECT(wire_await(follower->fd, POLLIN, WIRE_CHILD_MS), "a follower that waits for the leader to hang up",
           "it does", "it does not");
    CALL(rc, "repl_receive_record when the leader has hung up",
         repl_receive_record(follower->fd, &follower->writer, &follower->store));
    follower_say(follower, what, sizeof what, "repl_receive_record when the leader has hung up");
    EXPECT(rc < 0 || rc != follower->good, what, "-1", "%d, as for a record", rc);
}

static void expect_pairs(const struct kv_store *store, const struct pair *want, const char *what)
{
    char text[200];

    for (; want->key != NULL; want++) {
        snprintf(text, sizeof text, "%s: GET %s", what, want->key);
        EXPECT_STRING(want->value, kv_store_get(store, want->key), text);
    }
}

static void follower_close(struct follower *follower)
{
    struct kv_store replayed;
    char path[32], what[100];
    int rc;

    close(follower->fd);
    EXPECT(CHECK_WAL_CLOSE(&follower->writer) >= 0, "wal_close of a follower's log", "no error", "%s", strerror(errno));
    snprintf(path, sizeof path, "follower-%d.wal", follower->number);
    follower_say(follower, what, sizeof what, "its store");
    if (follower->want != NULL) {
        /* Whether a write that lost is logged, and what a replay makes of it, is not asked here. */
        expect_pairs(&follower->store, follower->want, what);
    } else {
        wire_expect_first(&follower->store, follower->records, what);
        EXPECT(CHECK_STORE_INIT(&replayed) >= 0, "kv_store_init", "no error", "an error");
        CALL(rc, "wal_recover of a follower's log", check_recover(path, &replayed));
        follower_say(follower, what, sizeof what, "records in its log");
        check_recovered(follower->records, rc, what);
        follower_say(follower, what, sizeof what, "its log, replayed");
        wire_expect_first(&replayed, follower->records, what);
        kv_store_destroy(&replayed);
    }
    kv_store_destroy(&follower->store);
}

/* The follower listens before the fork, so that the leader can connect at once. */
static pid_t follower_start(const struct follower *plan, struct repl_node *node, void (*run)(struct follower *, int))
{
    struct follower follower = *plan;
    int listen_fd;
    pid_t child;

    node->port = 0;
    CALL(listen_fd, "repl_listen on port 0 of 127.0.0.1", wire_tree_listen(node));
    EXPECT(listen_fd >= 0, "repl_listen on port 0 of 127.0.0.1", "a descriptor", "%d (%s)", listen_fd, strerror(errno));
    node->port = wire_port_of(listen_fd);
    child = check_fork();
    if (child == 0) {
        EXPECT(wire_await(listen_fd, POLLIN, WIRE_CHILD_MS), "a follower that listens", "the leader connects",
               "it does not");
        CALL(follower.fd, "repl_accept with a connection waiting", WIRE_ACCEPT(listen_fd));
        EXPECT(follower.fd >= 0, "repl_accept with a connection waiting", "a descriptor", "%d (%s)", follower.fd,
               strerror(errno));
        close(listen_fd);
        run(&follower, follower.fd);
        _exit(0);
    }
    close(listen_fd);
    return child;
}

static void follow(struct follower *follower, int fd)
{
    follower->fd = fd;
    follower_open(follower);
    follower_serve(follower, 0);
    follower_close(follower);
}

/* ---- the leader ------------------------------------------------------------------------------------------------- */

struct leader {
    struct wire_cluster cluster;
    struct wal_writer writer;
    pid_t children[WIRE_FOLLOWERS];
    int lsn;
};

/* All followers are started before the leader connects to the first: none inherits its sockets. */
static void leader_open(struct leader *leader, const struct follower *plans, int count,
                        void (*run)(struct follower *, int))
{
    int rc;

    memset(leader, 0, sizeof *leader);
    wire_config(&leader->cluster);
    for (int i = 0; i < wire_room_for(); i++)
        wire_set_node(&leader->cluster.config.followers[i], (uint16_t)(7001 + i));
    leader->cluster.config.follower_count = count;
    for (int i = 0; i < count; i++)
        leader->children[i] = follower_start(&plans[i], &leader->cluster.config.followers[i], run);
    for (int i = 0; i < count; i++) {
        CALL(rc, "repl_connect to a follower that listens", repl_connect(&leader->cluster.config.followers[i]));
        EXPECT(rc >= 0 && leader->cluster.config.followers[i].online == 1, "repl_connect to a follower that listens", "online",
               "%d (%s), online %d", rc, strerror(errno), leader->cluster.config.followers[i].online);
    }
    EXPECT(CHECK_WAL_OPEN(&leader->writer, "leader.wal") >= 0, "wal_open of the leader's log", "no error", "%s",
           strerror(errno));
}

/* The follower reads what is left, looks at what it has, and ends. Its last acks are read, or the close would be a
 * reset. */
static void hang_up(struct leader *leader, int index)
{
    struct repl_node *node = &leader->cluster.config.followers[index];
    uint8_t rest[256];

    if (node->fd >= 0 && wire_is(node->fd, S_IFSOCK)) {
        wire_tame(node->fd);
        shutdown(node->fd, SHUT_WR);
        while (wire_read(node->fd, rest, sizeof rest) == sizeof rest)
            continue;
    }
    wire_node_close(node);
    check_join(leader->children[index], WIRE_CHILD_MS, "a follower process");
}

static void leader_close(struct leader *leader)
{
    for (int i = 0; i < leader->cluster.config.follower_count; i++)
        hang_up(leader, i);
    EXPECT(CHECK_WAL_CLOSE(&leader->writer) >= 0, "wal_close of the leader's log", "no error", "%s", strerror(errno));
}

static void ship(struct leader *leader, const uint8_t *encoded, size_t len)
{
    int rc;

    CALL(rc, "repl_ship_record", repl_ship_record(&leader->cluster.config, encoded, len));
    EXPECT(rc >= 0, "repl_ship_record", "no error", "%d (%s)", rc, strerror(errno));
}

static void leader_write(struct leader *leader)
{
    uint8_t encoded[WIRE_ROOM];

    leader->lsn++;
    wire_append_nth(&leader->writer, leader->lsn);
    ship(leader, encoded, wire_nth(leader->lsn, encoded));
}

static int wait_quorum(struct leader *leader, int timeout_ms)
{
    int rc;

    CALL(rc, "repl_wait_quorum", repl_wait_quorum(&leader->cluster.config, (uint64_t)leader->lsn, timeout_ms));
    return rc;
}

/* Returns how this tree reports a quorum. */
static int leader_commit(struct leader *leader)
{
    int rc;

    leader_write(leader);
    rc = wait_quorum(leader, LONG_MS);
    EXPECT(rc >= 0, "repl_wait_quorum for a record that both followers ack", "a quorum (0 or more)", "%d at LSN %d", rc,
           leader->lsn);
    return rc;
}

/* Ends a follower as a power cut would. */
static void kill_follower(struct leader *leader, int index)
{
    struct repl_node *node = &leader->cluster.config.followers[index];

    wire_dismiss(leader->children[index]);
    REQUIRE(wire_await(node->fd, POLLRDHUP, WIRE_READ_MS), "a hang-up over the loopback");
}

/* Up to two writes until the dead follower is known to be dead; the rest reaches follower-1 alone. */
static void leader_write_until(struct leader *leader, int last)
{
    while (leader->lsn < last)
        leader_write(leader);
    EXPECT_INT(0, leader->cluster.config.followers[1].online, "online of follower-2, which was killed, some writes later");
    EXPECT_INT(1, leader->cluster.config.followers[0].online, "online of follower-1, which was not");
}

/* ---- 1: connectivity -------------------------------------------------------------------------------------------- */

static void answer_heartbeat(struct follower *follower, int fd)
{
    char bytes[4] = { 0 };
    int rc;

    (void)follower;
    CALL(rc, "recv_full of a 4-byte heartbeat", WIRE_RECV_FULL(fd, bytes, 4));
    EXPECT(rc >= 0 && memcmp(bytes, "ping", 4) == 0, "recv_full of a 4-byte heartbeat", "ping", "%d, %.4s", rc, bytes);
    CALL(rc, "send_full of the answer", WIRE_SEND_FULL(fd, "pong", 4));
    EXPECT(rc >= 0, "send_full of the answer", "no error", "%d (%s)", rc, strerror(errno));
    wire_tame(fd);
    wire_read(fd, bytes, 1); /* the leader hangs up */
    close(fd);
}

static void connectivity(void)
{
    static const struct follower plans[2] = { { .number = 1 }, { .number = 2 } };
    struct leader leader;
    char bytes[4] = { 0 };
    int rc, answers = 0;

    leader_open(&leader, plans, 2, answer_heartbeat);
    for (int i = 0; i < 2; i++) {
        CALL(rc, "send_full of a 4-byte heartbeat", WIRE_SEND_FULL(leader.cluster.config.followers[i].fd, "ping", 4));
        EXPECT(rc >= 0, "send_full of a 4-byte heartbeat", "no error", "%d (%s)", rc, strerror(errno));
    }
    for (int i = 0; i < 2; i++) {
        CALL(rc, "recv_full of the 4-byte answer", WIRE_RECV_FULL(leader.cluster.config.followers[i].fd, bytes, 4));
        answers += rc >= 0 && memcmp(bytes, "pong", 4) == 0;
    }
    EXPECT_INT(2, answers, "followers that responded to a heartbeat");
    leader_close(&leader);
}

/* ---- 2: shipping ------------------------------------------------------------------------------------------------ */

static void shipping(void)
{
    static const struct follower plans[2] = {
        { .number = 1, .frames = 11, .damaged = 6, .acks = 11, .records = 10 },
        { .number = 2, .frames = 11, .damaged = 6, .acks = 11, .records = 10 },
    };
    uint8_t encoded[WIRE_ROOM];
    struct leader leader;
    size_t len;

    leader_open(&leader, plans, 2, follow);
    while (leader.lsn < 5)
        leader_write(&leader);
    len = wire_set("damaged", "damaged", 1000, encoded);
    encoded[16] ^= 0x01;
    ship(&leader, encoded, len);
    while (leader.lsn < 10)
        leader_write(&leader);
    leader_close(&leader);
}

/* ---- 3: quorum -------------------------------------------------------------------------------------------------- */

static void quorum(void)
{
    static const struct follower plans[2] = {
        { .number = 1, .frames = 6, .acks = 6, .records = 6 },
        { .number = 2, .frames = 6, .acks = 5, .records = 6 },
    };
    struct leader leader;
    int yes = 0, rc;

    leader_open(&leader, plans, 2, follow);
    while (leader.lsn < 5)
        yes = leader_commit(&leader);
    leader_write(&leader);
    rc = wait_quorum(&leader, SHORT_MS);
    EXPECT(rc < 0 || rc != yes, "repl_wait_quorum for a record that follower-2 does not ack", "no quorum",
           "%d, as for a quorum", rc);
    leader_close(&leader);
}

/* ---- 4: conflicts ----------------------------------------------------------------------------------------------- */

static void conflicts(void)
{
    static const struct {
        const char *key, *value;
        uint64_t timestamp;
    } writes[] = {
        { "in-order", "old", 100 },     { "in-order", "new", 200 }, { "out-of-order", "new", 200 },
        { "out-of-order", "old", 100 }, { "tie", "zzz", 100 },      { "tie", "aaa", 100 },
        { "other-tie", "aaa", 100 },    { "other-tie", "zzz", 100 },  { "stale-del", "kept", 200 },
        { "stale-del", NULL, 100 },     { "del", "gone", 100 },     { "del", NULL, 200 },
    };
    enum { WRITES = sizeof writes / sizeof writes[0] };
    static const struct pair want[] = {
        { "in-order", "new" },   { "out-of-order", "new" }, { "tie", "zzz" }, { "other-tie", "zzz" },
        { "stale-del", "kept" }, { "del", NULL },           { NULL, NULL },
    };
    const struct follower plans[2] = {
        { .number = 1, .frames = WRITES, .acks = WRITES, .records = WRITES, .want = want },
        { .number = 2, .frames = WRITES, .acks = WRITES, .records = WRITES, .want = want },
    };
    struct leader leader;

    leader_open(&leader, plans, 2, follow);
    for (size_t i = 0; i < WRITES; i++) {
        struct wal_record record = writes[i].value == NULL
                                       ? check_del_record(writes[i].key, writes[i].timestamp)
                                       : check_set_record(writes[i].key, writes[i].value, writes[i].timestamp);
        uint8_t encoded[WIRE_ROOM];
        int rc;

        leader.lsn++;
        EXPECT(wal_append(&leader.writer, &record) >= 0, "wal_append to the leader's log", "no error", "%s",
               strerror(errno));
        ship(&leader, encoded, check_encode(&record, encoded, sizeof encoded));
        rc = wait_quorum(&leader, LONG_MS);
        EXPECT(rc >= 0, "repl_wait_quorum for a write that loses or wins a conflict", "a quorum (0 or more)", "%d", rc);
    }
    leader_close(&leader);
}

/* ---- 5: failure and rejoin -------------------------------------------------------------------------------------- */

/* A new process, with nothing but the log of the old one. */
static void come_back(struct follower *follower, uint16_t leader_port)
{
    struct repl_node leader = wire_node(leader_port);
    char path[32];
    uint64_t has = (uint64_t)(follower->records - follower->frames);
    int recovered, rc;

    follower_open(follower);
    snprintf(path, sizeof path, "follower-%d.wal", follower->number);
    CALL(recovered, "wal_recover of the log of a follower that was killed", check_recover(path, &follower->store));
    check_recovered(follower->records - follower->frames, recovered, "records in the log of a follower that was killed");
    CALL(rc, "repl_connect to the leader", repl_connect(&leader));
    EXPECT(rc >= 0, "repl_connect to the leader", "0", "%d (%s)", rc, strerror(errno));
    CALL(rc, "repl_follower_rejoin", repl_follower_rejoin(leader.fd, has));
    EXPECT(rc >= 0, "repl_follower_rejoin", "no error", "%d (%s)", rc, strerror(errno));
    follower->fd = rc > 2 && wire_is(rc, S_IFSOCK) ? rc : leader.fd;
    follower_serve(follower, has);
    follower_close(follower);
}

/* The connection on which the rejoin message came. A follower may have opened more than one. */
static int accept_rejoin(int listen_fd, uint64_t lsn)
{
    long long end = check_now_ms() + WIRE_CHILD_MS;
    uint8_t bytes[256];
    int fds[4], count = 0;

    while (check_now_ms() < end) {
        if (count < 4 && wire_await(listen_fd, POLLIN, 10)) {
            CALL(fds[count], "repl_accept with a connection waiting", WIRE_ACCEPT(listen_fd));
            EXPECT(fds[count] >= 0, "repl_accept with a connection waiting", "a descriptor", "%s", strerror(errno));
            count++;
        }
        for (int i = 0; i < count; i++) {
            ssize_t n = wire_await(fds[i], POLLIN, 10) ? recv(fds[i], bytes, sizeof bytes, MSG_DONTWAIT) : 0;

            if (n <= 0)
                continue;
            EXPECT(wire_shows_lsn(bytes, (size_t)n, lsn), "the rejoin message of follower-2", "it holds its last LSN",
                   "%zd bytes without it", n);
            for (int other = 0; other < count; other++)
                if (other != i)
                    close(fds[other]);
            return fds[i];
        }
    }
    check_fail("a follower that comes back", "a rejoin message", "none");
}

static void rejoin_follower_2(struct leader *leader, const struct follower *plan)
{
    struct repl_node here = wire_node(0);
    struct repl_node *node = &leader->cluster.config.followers[1];
    struct follower follower = *plan;
    int listen_fd, rc;

    wire_node_close(node); /* before the new connection, as the lesson says */
    CALL(listen_fd, "repl_listen on port 0 of 127.0.0.1", wire_tree_listen(&here));
    EXPECT(listen_fd >= 0, "repl_listen on port 0 of 127.0.0.1", "a descriptor", "%d (%s)", listen_fd, strerror(errno));
    wire_eyes.leader_port = wire_port_of(listen_fd);
    leader->children[1] = check_fork();
    if (leader->children[1] == 0) {
        close(listen_fd);
        close(leader->cluster.config.followers[0].fd);
        CHECK_WAL_CLOSE(&leader->writer);
        come_back(&follower, wire_eyes.leader_port);
        _exit(0);
    }
    node->fd = accept_rejoin(listen_fd, (uint64_t)(plan->records - plan->frames));
    close(listen_fd);
    CALL(rc, "repl_catch_up", wire_catch_up(&leader->cluster.config, &leader->writer, 1, (uint64_t)(plan->records - plan->frames)));
    EXPECT(rc >= 0, "repl_catch_up", "no error", "%d (%s)", rc, strerror(errno));
    EXPECT_INT(1, node->online, "online of follower-2 after repl_catch_up");
}

static void rejoin(void)
{
    static const struct follower plans[2] = {
        { .number = 1, .frames = 10, .acks = 10, .records = 10 },
        { .number = 2, .frames = 10, .acks = 10, .records = 10 },
    };
    static const struct follower back = { .number = 2, .frames = 5, .acks = 5, .records = 10 };
    struct leader leader;

    leader_open(&leader, plans, 2, follow);
    while (leader.lsn < 5)
        leader_commit(&leader);
    kill_follower(&leader, 1);
    leader_write_until(&leader, 10);
    rejoin_follower_2(&leader, &back);
    leader_close(&leader);
}

/* ---- 6: the whole pipeline -------------------------------------------------------------------------------------- */

static void pipeline(void)
{
    static const struct follower plans[2] = {
        { .number = 1, .frames = 20, .acks = 20, .records = 20 },
        { .number = 2, .frames = 20, .acks = 20, .records = 20 },
    };
    static const struct follower back = { .number = 2, .frames = 12, .acks = 12, .records = 20 };
    struct kv_store recovered;
    struct leader leader;
    int rc;

    leader_open(&leader, plans, 2, follow);
    while (leader.lsn < 8)
        leader_commit(&leader);
    kill_follower(&leader, 1);
    leader_write_until(&leader, 15);
    rejoin_follower_2(&leader, &back);
    while (leader.lsn < 20)
        leader_commit(&leader);
    leader_close(&leader);
    EXPECT(CHECK_STORE_INIT(&recovered) >= 0, "kv_store_init", "no error", "an error");
    CALL(rc, "wal_recover of the leader's log", check_recover("leader.wal", &recovered));
    check_recovered(20, rc, "records in the leader's log");
    wire_expect_first(&recovered, 20, "the leader's log, replayed");
    kv_store_destroy(&recovered);
}

static const struct check checks[] = {
    { "full_1_connectivity", "W11-R8", "w11-l06", EVERY_FILE, 60, "harness 1: leader-follower connectivity",
      "[test 1] leader-follower connectivity... PASS", connectivity },
    { "full_2_shipping", "W11-R8", "w11-l06", EVERY_FILE, 60, "harness 2: log shipping",
      "[test 2] log shipping (10 records)... PASS", shipping },
    { "full_3_quorum", "W11-R8", "w11-l06", EVERY_FILE, 60, "harness 3: quorum acknowledgment",
      "[test 3] quorum acknowledgment... PASS", quorum },
    { "full_4_conflict", "W11-R8", "w11-l06", EVERY_FILE, 60, "harness 4: conflict resolution",
      "[test 4] conflict resolution (LWW)... PASS", conflicts },
    { "full_5_rejoin", "W11-R8", "w11-l06", EVERY_FILE, 90, "harness 5: failure and rejoin",
      "[test 5] failure and rejoin... PASS", rejoin },
    { "full_6_pipeline", "W11-R8", "w11-l06", EVERY_FILE, 90, "harness 6: full pipeline",
      "[test 6] full pipeline (20 records + crash)... PASS", pipeline },
};

CHECK_MAIN(checks)
