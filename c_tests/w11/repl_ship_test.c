/*
 * W11 L02: the leader ships its log to one follower, which checks, stores and applies every record. Acks are for the
 * next lesson: this follower sends none.
 */
#define _GNU_SOURCE
#include "repl_test_util.h"

#define RECORDS 5

static void silent_follower(struct follower *self)
{
    int received = 0;

    follower_accept(self);
    follower_open(self);
    while (received < RECORDS) {
        CHECK_EQ(repl_receive_record(self->fd, &self->wal, &self->store), 0);
        received++;
    }
    /* Nothing comes behind the last one. */
    CHECK_EQ(repl_receive_record(self->fd, &self->wal, &self->store), -1);
    report(self, "follower-%d: received %d records, CRC OK", self->number, received);
    report(self, "follower-%d: store has %d keys", self->number, count_keys(&self->store));
    report_store(self);
    follower_close(self);
}

static void test_ship(void)
{
    struct follower_process follower;
    struct leader leader;
    int shipped = 0, same;

    leader_start(&leader, &follower, 1, silent_follower);
    for (int n = 1; n <= RECORDS; n++)
        shipped += leader_write_nth(&leader, n);
    CHECK_EQ(shipped, RECORDS);
    printf("leader: shipped %d records to follower-1\n", shipped);
    leader_hang_up(&leader);
    relay_line(&follower);
    relay_line(&follower);
    CHECK_EQ(check_reported_store(&follower, &leader.store), RECORDS);
    reap_follower(&follower);
    same = check_wal_replay("follower-1.wal", RECORDS, &leader.store);
    printf("leader: follower WAL replay matches — %d/%d keys identical\n", same, count_keys(&leader.store));
    leader_close(&leader);
}

int main(void)
{
    return run_test(test_ship);
}
