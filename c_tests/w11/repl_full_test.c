/*
 * W11 L06: the whole replication pipeline in six tests. Each runs in a process and a directory of its own, so that it has
 * fresh logs and leaves nothing to the next; all of them run even if one fails. test_harness.sh builds this program and
 * runs it.
 */
#define _GNU_SOURCE
#include "repl_test_util.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

/* ---- 1: connectivity --------------------------------------------------------------------------------------------- */

static int get_option(int fd, int level, int option)
{
    int value = -1;
    socklen_t len = sizeof value;

    CHECK(getsockopt(fd, level, option, &value, &len) == 0);
    return value;
}

/* Without these a connection whose other end has lost its power looks alive for ever. */
static void check_keepalive(int fd)
{
    CHECK_EQ(get_option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    CHECK_EQ(get_option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 5);
    CHECK_EQ(get_option(fd, IPPROTO_TCP, TCP_KEEPINTVL), 1);
    CHECK_EQ(get_option(fd, IPPROTO_TCP, TCP_KEEPCNT), 3);
}

static void echoing_follower(struct follower *self)
{
    uint8_t bytes[4];

    follower_accept(self);
    check_keepalive(self->fd);
    CHECK_EQ(recv_full(self->fd, bytes, sizeof bytes), 0);
    CHECK_EQ(send_full(self->fd, bytes, sizeof bytes), 0);
    CHECK_EQ(recv_full(self->fd, bytes, 1), -1); /* the leader hangs up */
    CHECK(close(self->fd) == 0);
}

static void test_connectivity(void)
{
    static const uint8_t sent[2][4] = { { 'p', 'i', 'n', '1' }, { 'p', 'i', 'n', '2' } };
    struct follower_process followers[2];
    struct leader leader;

    leader_start(&leader, followers, 2, echoing_follower);
    for (int i = 0; i < 2; i++) {
        check_keepalive(leader.config.followers[i].fd);
        CHECK_EQ(send_full(leader.config.followers[i].fd, sent[i], 4), 0);
    }
    for (int i = 0; i < 2; i++) {
        uint8_t answer[4] = { 0 };

        CHECK_EQ(recv_full(leader.config.followers[i].fd, answer, 4), 0);
        CHECK(memcmp(answer, sent[i], 4) == 0);
    }
    leader_close(&leader);
    for (int i = 0; i < 2; i++)
        reap_follower(&followers[i]);
}

/* ---- 2: shipping ------------------------------------------------------------------------------------------------- */

/* A follower that has been hung up on: in memory and in its log of so many records it has this store, and it ends well. */
static void check_follower(struct follower_process *process, int number, int records, const struct kv_store *want)
{
    char wal_path[32];

    snprintf(wal_path, sizeof wal_path, "follower-%d.wal", number);
    check_reported_store(process, want);
    reap_follower(process);
    check_wal_replay(wal_path, records, want);
}

/* A record with one wrong bit goes over the wire: it must be refused, leave no trace and not disturb what follows. */
static void ship_damaged(struct leader *leader, uint64_t lsn)
{
    struct wal_record record = set_record("damaged", "damaged", 1000);
    uint8_t encoded[RECORD_ROOM];
    size_t len = encode_record(&record, encoded);

    encoded[len - 10] ^= 0x01; /* in the value */
    CHECK_EQ(repl_ship_record(&leader->config, encoded, len), 2);
    for (int i = 0; i < 2; i++) {
        struct repl_ack ack;

        CHECK_EQ(repl_recv_ack(leader->config.followers[i].fd, &ack), 1);
        CHECK_EQ(ack.status, REPL_ACK_CRC_FAIL);
        CHECK_EQ(ack.lsn, lsn);
    }
}

/* A follower that is marked offline gets nothing, although its connection is whole: that is what the flag is for. */
static void ship_past_offline(struct leader *leader, int n)
{
    leader->config.followers[1].online = 0;
    CHECK_EQ(leader_write_nth(leader, n), 1);
    wait_for_ack(leader->config.followers[0].fd, leader->lsn);
}

static void test_shipping(void)
{
    struct follower_process followers[2];
    struct kv_store first_ten;
    struct leader leader;

    leader_start(&leader, followers, 2, follower_main);
    for (int n = 1; n <= 10; n++) {
        if (n == 6)
            ship_damaged(&leader, 6);
        CHECK_EQ(leader_write_nth(&leader, n), 2);
        for (int i = 0; i < 2; i++)
            wait_for_ack(leader.config.followers[i].fd, (uint64_t)n);
    }
    CHECK_EQ(kv_store_init(&first_ten), 0);
    CHECK_EQ(check_wal_replay(LEADER_WAL, 10, &leader.store), 10);
    CHECK_EQ(wal_recover(LEADER_WAL, &first_ten), 10);
    ship_past_offline(&leader, 11);
    leader_hang_up(&leader);
    check_follower(&followers[0], 1, 11, &leader.store);
    check_follower(&followers[1], 2, 10, &first_ten);
    kv_store_destroy(&first_ten);
    leader_close(&leader);
}

/* ---- 3: quorum --------------------------------------------------------------------------------------------------- */

/* Reads whatever comes, stores nothing and answers that it was damaged, until the leader has had enough of it. */
static void refuse_everything(struct follower *self)
{
    uint8_t frame[4 + RECORD_ROOM];

    while (recv_full(self->fd, frame, 4) == 0) {
        size_t len = (size_t)frame[0] << 24 | (size_t)frame[1] << 16 | (size_t)frame[2] << 8 | frame[3];

        CHECK(len <= RECORD_ROOM);
        if (recv_full(self->fd, frame + 4, len) != 0 || repl_send_ack(self->fd, self->lsn + 1, REPL_ACK_CRC_FAIL) != 0)
            return;
    }
}

static void follower_2_refuses_later(struct follower *self)
{
    follower_accept(self);
    follower_open(self);
    while (self->lsn < 5)
        CHECK_EQ(follow_once(self), 1);
    if (self->number == 2)
        refuse_everything(self);
    else
        follow(self);
    report_store(self);
    follower_close(self);
}

/* Five records with an OK of both; the sixth has one OK and one refusal, and that is no quorum however often it is asked. */
static void test_quorum(void)
{
    struct follower_process followers[2];
    struct kv_store first_five;
    struct leader leader;

    leader_start(&leader, followers, 2, follower_2_refuses_later);
    leader_commit(&leader, 1, 5);
    CHECK_EQ(kv_store_init(&first_five), 0);
    CHECK_EQ(wal_recover(LEADER_WAL, &first_five), 5);
    CHECK_EQ(leader_write_nth(&leader, 6), 2);
    CHECK_EQ(repl_wait_quorum(&leader.config, leader.lsn, 300), -1);
    leader_hang_up(&leader);
    check_follower(&followers[0], 1, 6, &leader.store);
    check_follower(&followers[1], 2, 5, &first_five);
    kv_store_destroy(&first_five);
    leader_close(&leader);
}

/* ---- 4: conflicts ------------------------------------------------------------------------------------------------ */

static void check_converged(const struct wal_record *records, int count)
{
    struct follower_process follower;
    struct kv_store want;

    run_on_fresh_follower(&follower, records, count);
    CHECK_EQ(kv_store_init(&want), 0);
    CHECK_EQ(kv_store_set(&want, "x", "new"), 0);
    CHECK_EQ(kv_store_set(&want, "y", "zzz"), 0);
    CHECK_EQ(kv_store_set(&want, "z", "back"), 0);
    check_reported_store(&follower, &want);
    reap_follower(&follower);
    check_wal_replay("follower-1.wal", count, &want);
    kv_store_destroy(&want);
}

/* The same writes in two orders, one the reverse of the other: both followers end with the same store. */
static void test_conflicts(void)
{
    enum { COUNT = 7 };
    struct wal_record records[COUNT] = {
        set_record("x", "old", 100), set_record("x", "new", 200),  /* the newer one */
        set_record("y", "aaa", 300), set_record("y", "zzz", 300),  /* a tie: the greater value */
        set_record("z", "first", 400), del_record("z", 500),       /* deleted, and then */
        set_record("z", "back", 600),                              /* written again */
    };
    struct wal_record reversed[COUNT];

    for (int i = 0; i < COUNT; i++)
        reversed[i] = records[COUNT - 1 - i];
    check_converged(records, COUNT);
    check_converged(reversed, COUNT);
}

/* ---- 5 and 6: failure and rejoin --------------------------------------------------------------------------------- */

/* follower-2 comes back with what its log holds and gets everything that the leader has beyond that. */
static void bring_back_follower_2(struct leader *leader, struct follower_process *follower_2, uint64_t had)
{
    int listen_fd = restart_follower(follower_2, 2, leader);
    uint64_t last_lsn = leader_accept_rejoin(leader, 1, listen_fd);
    char line[256];

    hear(follower_2, line, sizeof line);
    CHECK_EQ(last_lsn, had);
    CHECK_EQ(repl_catch_up(&leader->config, 1, last_lsn), leader->lsn - had);
    CHECK_EQ(leader->config.followers[1].online, 1);
    wait_for_ack(leader->config.followers[1].fd, leader->lsn);
}

static void check_both_followers(struct leader *leader, struct follower_process followers[2], int records)
{
    leader_hang_up(leader);
    for (int i = 0; i < 2; i++)
        check_follower(&followers[i], i + 1, records, &leader->store);
}

/* Five records, a kill, five more with follower-1 alone, catch-up; and then follower-2 counts for the quorum again. */
static void test_rejoin(void)
{
    struct follower_process followers[2];
    struct leader leader;
    int open_fds = count_open_fds();

    leader_start(&leader, followers, 2, follower_main);
    leader_commit(&leader, 1, 5);
    kill_follower(&followers[1]);
    leader_loses_follower_2(&leader, 6);
    leader_write_degraded(&leader, 7, 10);
    bring_back_follower_2(&leader, &followers[1], 5);
    leader_commit(&leader, 11, 11);
    CHECK_EQ(count_keys(&leader.store), 11);
    check_both_followers(&leader, followers, 11);
    leader_close(&leader);
    CHECK_EQ(count_open_fds(), open_fds);
}

/* Record n of the pipeline: every fourth deletes the key before it, every seventh overwrites the first key. */
static void pipeline_commit(struct leader *leader, int n)
{
    char key[32], value[32];
    struct wal_record record;

    snprintf(key, sizeof key, "key-%d", n % 4 == 0 ? n - 1 : n % 7 == 0 ? 1 : n);
    snprintf(value, sizeof value, "value-%d", n);
    record = n % 4 == 0 ? del_record(key, (uint64_t)n) : set_record(key, value, (uint64_t)n);
    CHECK_EQ(leader_write(leader, &record), 2);
    CHECK_EQ(repl_wait_quorum(&leader->config, leader->lsn, PATIENCE_MS), 0);
}

/*
 * 20 records of all kinds. follower-2 crashes after the eighth, misses four, comes back and takes part again. In the end
 * the leader's process could crash too: its log gives back the store it had.
 */
static void test_pipeline(void)
{
    struct follower_process followers[2];
    struct leader leader;
    int open_fds = count_open_fds();

    leader_start(&leader, followers, 2, follower_main);
    for (int n = 1; n <= 8; n++)
        pipeline_commit(&leader, n);
    kill_follower(&followers[1]);
    leader_loses_follower_2(&leader, 9);
    leader_write_degraded(&leader, 10, 12);
    bring_back_follower_2(&leader, &followers[1], 8);
    for (int n = 13; n <= 20; n++)
        pipeline_commit(&leader, n);
    CHECK_EQ(leader.lsn, 20);
    check_both_followers(&leader, followers, 20);
    check_wal_replay(LEADER_WAL, 20, &leader.store);
    leader_close(&leader);
    CHECK_EQ(count_open_fds(), open_fds);
}

int main(void)
{
    static const struct test_case tests[] = {
        { "leader-follower connectivity", test_connectivity },
        { "log shipping (10 records)", test_shipping },
        { "quorum acknowledgment", test_quorum },
        { "conflict resolution (LWW)", test_conflicts },
        { "failure and rejoin", test_rejoin },
        { "full pipeline (20 records + crash)", test_pipeline },
    };

    return run_test_table(tests, sizeof tests / sizeof tests[0]);
}
