/* Waiting for a quorum. Q is counted over the configured followers, whatever is online: a leader that made Q smaller when a
 * follower fails would call records safe that are on one disk only. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "w11/repl_quorum.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "plain_repl.h"
#include "w11/repl_ack.h"

enum { SHIP_AGAIN_MAX = 3 };

/* One call of repl_wait_quorum. */
struct quorum_wait {
    struct replication_config *config;
    uint64_t lsn;
    int64_t deadline; /* negative: none */
    int needed;
    int shipped_again[MAX_FOLLOWERS];
};

static int pending(const struct quorum_wait *wait, int index)
{
    return wait->config->followers[index].online && !plain_has_acked(wait->config, index, wait->lsn);
}

/* A follower that got this record damaged gets it again. If that does not help its connection is of no use. */
static void ship_again(struct quorum_wait *wait, int index)
{
    if (wait->shipped_again[index] == SHIP_AGAIN_MAX) {
        plain_mark_offline(wait->config, index, "record damaged again and again");
        return;
    }
    if (plain_ship_again(wait->config, index, wait->lsn) == 0)
        wait->shipped_again[index]++;
}

/* Takes the acks that have come from one follower, up to the one that is waited for: later ones can stay in the kernel.
 * Returns how many. */
static int take_acks(struct quorum_wait *wait, int index)
{
    struct repl_ack ack;
    int taken = 0, rc;

    while (pending(wait, index)) {
        rc = plain_take_ack(wait->config, index, &ack);
        if (rc < 0)
            plain_mark_offline(wait->config, index, "connection lost");
        if (rc <= 0)
            return taken;
        taken++;
        if (ack.lsn == wait->lsn && ack.status == REPL_ACK_CRC_FAIL)
            ship_again(wait, index);
    }
    return taken;
}

static int count_acked(const struct quorum_wait *wait)
{
    int acked = 0;

    for (int i = 0; i < wait->config->follower_count; i++)
        acked += plain_has_acked(wait->config, i, wait->lsn);
    return acked;
}

static int count_pending(const struct quorum_wait *wait)
{
    int count = 0;

    for (int i = 0; i < wait->config->follower_count; i++)
        count += pending(wait, i);
    return count;
}

/* An ack of which only some bytes are here keeps the socket readable: poll would return at once, again and again. */
static void pause_for_the_rest(void)
{
    struct timespec millisecond = {.tv_sec = 0, .tv_nsec = 1000000};

    nanosleep(&millisecond, NULL);
}

/* Sleeps until something has come from a follower whose ack is missing, and takes it. 0, or -1 at the deadline. */
static int wait_and_take(struct quorum_wait *wait)
{
    struct pollfd fds[MAX_FOLLOWERS];
    int index_of[MAX_FOLLOWERS];
    int remaining = plain_remaining_ms(wait->deadline);
    int count = 0, taken = 0, rc;

    for (int i = 0; i < wait->config->follower_count; i++) {
        if (!pending(wait, i))
            continue;
        fds[count] = (struct pollfd){.fd = wait->config->followers[i].fd, .events = POLLIN};
        index_of[count++] = i;
    }
    rc = poll(fds, (nfds_t)count, remaining);
    if (rc < 0 && errno != EINTR)
        return -1;
    for (int i = 0; rc > 0 && i < count; i++) {
        if (fds[i].revents == 0)
            continue;
        taken += take_acks(wait, index_of[i]);
        taken += !wait->config->followers[index_of[i]].online;
    }
    if (taken > 0)
        return 0;
    if (remaining == 0) {
        errno = ETIMEDOUT;
        return -1;
    }
    if (rc > 0)
        pause_for_the_rest();
    return 0;
}

int repl_wait_quorum(struct replication_config *config, uint64_t lsn, int timeout_ms)
{
    struct quorum_wait wait = {.config = config, .lsn = lsn};

    if (!plain_follower_count_ok(config))
        return -1;
    /* LSNs begin with 1. */
    if (lsn == 0) {
        errno = EINVAL;
        return -1;
    }
    if (config->follower_count == 0)
        return 0;
    wait.deadline = timeout_ms < 0 ? -1 : plain_now_ms() + timeout_ms;
    wait.needed = config->follower_count / 2 + 1;
    plain_refresh_acks(config);
    while (count_acked(&wait) < wait.needed) {
        /* Those online are read also while they are too few: what is unread when the leader closes is a reset there. */
        if (count_pending(&wait) == 0) {
            fprintf(stderr, "leader: no quorum for LSN=%llu: %d acked, nobody else can, %d needed\n",
                    (unsigned long long)lsn, count_acked(&wait), wait.needed);
            errno = ENOTCONN;
            return -1;
        }
        if (wait_and_take(&wait) != 0)
            return -1;
    }
    if (PLAIN_QUORUM)
        wait.needed = count_acked(&wait);
    for (int i = 0; i < config->follower_count; i++)
        plain_use_up_ack(config, i, lsn);
    return PLAIN_QUORUM ? wait.needed : 0;
}
