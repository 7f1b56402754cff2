/*
 * W11 L03: a write is committed when a quorum of the followers has acknowledged it, and not before. With two followers
 * the quorum is both of them, so the slower one decides how long a write takes.
 */
#define _GNU_SOURCE
#include "repl_test_util.h"

#include <time.h>

#define RECORDS 5
#define LATE_MS 500

static int64_t now_ms(void)
{
    struct timespec now;

    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The sleep is the slowness that this test is about. */
static void be_late(void)
{
    struct timespec late = { .tv_sec = 0, .tv_nsec = LATE_MS * 1000000L };

    while (nanosleep(&late, &late) != 0)
        CHECK(errno == EINTR);
}

static void receive_and_ack(struct follower *self, int late)
{
    CHECK_EQ(repl_receive_record(self->fd, &self->wal, &self->store), 0);
    self->lsn++;
    if (late)
        be_late();
    CHECK_EQ(repl_send_ack(self->fd, self->lsn, REPL_ACK_OK), 0);
}

static void acking_follower(struct follower *self)
{
    follower_accept(self);
    follower_open(self);
    for (int i = 0; i < RECORDS; i++) {
        receive_and_ack(self, 0);
        report(self, "follower-%d: ack LSN=%llu status=OK", self->number, (unsigned long long)self->lsn);
    }
    receive_and_ack(self, self->number == 2);
    follow(self);
    report_store(self);
    follower_close(self);
}

/* Prints what the follower says of its ack, which must be an OK for this record. */
static int relay_ack_line(const struct follower_process *process, int number, int lsn)
{
    char line[64], expected[64];

    snprintf(expected, sizeof expected, "follower-%d: ack LSN=%d status=OK", number, lsn);
    hear(process, line, sizeof line);
    CHECK_STR(line, expected);
    printf("%s\n", line);
    return 1;
}

static void commit_and_print(struct leader *leader, const struct follower_process *followers, int n)
{
    int acks = 0;

    CHECK_EQ(leader_write_nth(leader, n), 2);
    printf("leader: shipped record LSN=%d, waiting for quorum (Q=%d)\n", n, leader->config.follower_count / 2 + 1);
    CHECK_EQ(repl_wait_quorum(&leader->config, leader->lsn, PATIENCE_MS), 0);
    for (int i = 0; i < 2; i++)
        acks += relay_ack_line(&followers[i], i + 1, n);
    printf("leader: quorum reached for LSN=%d (%d/2 acks)\n", n, acks);
}

/* follower-1 acks at once, and that must not be enough. */
static void commit_with_late_ack(struct leader *leader, int n)
{
    int64_t start = now_ms(), took;

    CHECK_EQ(leader_write_nth(leader, n), 2);
    CHECK_EQ(repl_wait_quorum(&leader->config, leader->lsn, PATIENCE_MS), 0);
    took = now_ms() - start;
    CHECK(took >= LATE_MS);
    printf("late ack: follower-2 acked after %d ms, the write took %lld ms ✓\n", LATE_MS, (long long)took);
}

static void test_quorum(void)
{
    struct follower_process followers[2];
    struct leader leader;
    int committed = 0;

    leader_start(&leader, followers, 2, acking_follower);
    for (int n = 1; n <= RECORDS; n++) {
        commit_and_print(&leader, followers, n);
        committed++;
    }
    printf("%d/%d records committed with quorum\n", committed, RECORDS);
    commit_with_late_ack(&leader, RECORDS + 1);
    leader_hang_up(&leader);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(check_reported_store(&followers[i], &leader.store), RECORDS + 1);
        reap_follower(&followers[i]);
    }
    leader_close(&leader);
}

int main(void)
{
    return run_test(test_quorum);
}
