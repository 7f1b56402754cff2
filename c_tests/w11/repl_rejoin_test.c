/*
 * W11 L05: a follower dies, the leader goes on without it, and when the follower is back it gets what it has missed.
 *
 * What "goes on" means is the trade-off of this lesson. Two followers make a quorum of two, so while follower-2 is down no
 * write can have one: repl_wait_quorum says so with -1, and the leader has to choose.
 *
 *   Block:   it takes no write until follower-2 is back. Nothing that was ever confirmed can be lost with one machine, but
 *            any follower that dies stops all writes: with Q equal to the number of followers there is no spare one.
 *   Degrade: it writes on with follower-1 alone and waits for that one's ack. Writes stay possible, but each of them is on
 *            two machines (leader and follower-1) instead of three until follower-2 has caught up.
 *
 * This program degrades, knowingly, from the first write on for which the quorum could not be had; it never calls such a
 * write committed by a quorum. With a third follower Q would still be two, and one dead follower would cost nothing.
 */
#define _GNU_SOURCE
#include "repl_test_util.h"

static void ship_to_both(struct leader *leader)
{
    leader_commit(leader, 1, 5);
    printf("leader: shipped records 1-5 to both followers\n");
}

static void lose_follower_2(struct leader *leader, struct follower_process *follower_2)
{
    kill_follower(follower_2);
    leader_loses_follower_2(leader, 6);
    printf("leader: follower-2 connection lost, marking offline\n");
    leader_write_degraded(leader, 7, 10);
    printf("leader: shipped records 6-10 to follower-1 only\n");
}

/* What follower-2 had when it was killed is in its log, and it has nothing of what came later. */
static void bring_back_follower_2(struct leader *leader, struct follower_process *follower_2)
{
    int listen_fd = restart_follower(follower_2, 2, leader);
    uint64_t last_lsn = leader_accept_rejoin(leader, 1, listen_fd);

    relay_line(follower_2);
    CHECK_EQ(last_lsn, 5);
    CHECK_EQ(leader->config.followers[1].online, 0);
    printf("leader: catching up follower-2 from LSN %llu\n", (unsigned long long)last_lsn);
    CHECK_EQ(repl_catch_up(&leader->config, 1, last_lsn), 5);
    CHECK_EQ(leader->config.followers[1].online, 1);
    printf("leader: shipped records 6-10 to follower-2\n");
    /* Sent is not stored: its ack says that record 10 is in its log. */
    wait_for_ack(leader->config.followers[1].fd, 10);
}

static void compare_stores(struct leader *leader, struct follower_process followers[2])
{
    int keys;

    leader_hang_up(leader);
    CHECK_EQ(check_reported_store(&followers[0], &leader->store), 10);
    keys = check_reported_store(&followers[1], &leader->store);
    CHECK_EQ(keys, 10);
    for (int i = 0; i < 2; i++)
        reap_follower(&followers[i]);
    CHECK_EQ(check_wal_replay("follower-1.wal", 10, &leader->store), 10);
    CHECK_EQ(check_wal_replay("follower-2.wal", 10, &leader->store), 10);
    printf("follower-2: store has %d keys — matches leader ✓\n", keys);
}

static void test_rejoin(void)
{
    struct follower_process followers[2];
    struct leader leader;
    int open_fds = count_open_fds();

    leader_start(&leader, followers, 2, follower_main);
    ship_to_both(&leader);
    lose_follower_2(&leader, &followers[1]);
    bring_back_follower_2(&leader, &followers[1]);
    compare_stores(&leader, followers);
    leader_close(&leader);
    CHECK_EQ(count_open_fds(), open_fds);
}

int main(void)
{
    return run_test(test_rejoin);
}
