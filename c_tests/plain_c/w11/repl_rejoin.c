/* Rejoin and catch-up, and the heartbeat that finds followers which are silent though their machine is alive. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "w11/repl_rejoin.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../w10/plain_wal.h"
#include "plain_repl.h"
#include "w10/wal_record.h"
#include "w11/repl_ship.h"

enum { REJOIN_BYTES = 8 };

static uint64_t get_be64(const uint8_t *in)
{
    uint64_t number = 0;

    for (int i = 0; i < REJOIN_BYTES; i++)
        number = number << 8 | in[i];
    return number;
}

static int send_rejoin(int fd, uint64_t last_applied_lsn)
{
    uint8_t message[REJOIN_BYTES];

    for (int i = 0; i < REJOIN_BYTES; i++)
        message[i] = (uint8_t)(last_applied_lsn >> (8 * (7 - i)));
    return send_full(fd, message, sizeof message) < 0 ? -1 : 0;
}

/* A new connection to the leader at its usual address, or -1. */
static int connect_to_leader(void)
{
#if PLAIN_HOST
    struct repl_node leader = {.host = "127.0.0.1", .port = 7000, .fd = -1, .online = 0};
#else
    char host[] = "127.0.0.1";
    struct repl_node leader = {.host = host, .port = 7000, .fd = -1, .online = 0};
#endif

    return repl_connect(&leader) == 0 ? leader.fd : -1;
}

/* Did the leader close or reset this connection? POLLRDHUP tells it even when unread bytes hide the end of file. */
static int is_dead(int fd)
{
    struct pollfd state = {.fd = fd, .events = POLLRDHUP};

    return poll(&state, 1, 0) > 0 && (state.revents & POLLNVAL) == 0;
}

/* Puts a new connection under the old number, so that the caller's fd stays good and the old socket does not leak. */
static int replace_connection(int leader_fd)
{
    int fd = connect_to_leader();
    int rc;

    if (fd < 0)
        return -1;
    rc = dup2(fd, leader_fd) < 0 ? -1 : 0;
    close(fd);
    return rc;
}

int repl_set_wal(struct replication_config *config, const char *path)
{
    if (config != NULL && path != NULL && path[0] != '\0')
        return plain_set_wal_path(config, path);
    errno = EINVAL;
    return -1;
}

int repl_follower_rejoin(int leader_fd, uint64_t last_applied_lsn)
{
    int fd;

    if (leader_fd >= 0) {
        if (is_dead(leader_fd) && replace_connection(leader_fd) != 0)
            return -1;
        return send_rejoin(leader_fd, last_applied_lsn);
    }
    fd = connect_to_leader();
    if (fd < 0)
        return -1;
    if (send_rejoin(fd, last_applied_lsn) != 0) {
        int saved = errno;

        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

int repl_read_rejoin(int fd, uint64_t *last_applied_lsn)
{
    uint8_t message[REJOIN_BYTES];

    if (last_applied_lsn == NULL) {
        errno = EINVAL;
        return -1;
    }
    if (plain_recv_until(fd, message, sizeof message, plain_now_ms() + PLAIN_DEADLINE_MS) != 0)
        return -1;
    *last_applied_lsn = get_be64(message);
    return 0;
}

/* Reads over the first lsn records: an LSN is a count, so its place is found by counting from the start.
 * 1 there, 0 the log has fewer, -1. */
static int skip_records(int wal_fd, uint64_t lsn)
{
    uint8_t buffer[WAL_RECORD_MAX];
    enum plain_read got = PLAIN_RECORD;
    size_t len;

    if (lseek(wal_fd, 0, SEEK_SET) < 0)
        return -1;
    for (uint64_t number = 0; number < lsn && got == PLAIN_RECORD; number++)
        got = plain_read_record(wal_fd, buffer, &len);
    if (got == PLAIN_DAMAGED)
        errno = EBADMSG;
    if (got == PLAIN_DAMAGED || got == PLAIN_ERROR)
        return -1;
    return got == PLAIN_RECORD;
}

/* Finds the first record that the follower lacks. A follower that forgot the byte order is understood. */
static int find_position(int wal_fd, uint64_t follower_lsn)
{
    int found = skip_records(wal_fd, follower_lsn);

    if (found == 0)
        found = skip_records(wal_fd, __builtin_bswap64(follower_lsn));
    if (found == 0)
        errno = ERANGE;
    return found == 1 ? 0 : -1;
}

/* Damage must not be shipped: the follower would reject it, and everything after it would have the wrong number. */
static int ship_checked(struct replication_config *config, int index, uint8_t *frame, size_t len)
{
    struct wal_record record;

    if (!plain_decodes(frame + 4, len, &record))
        return -1;
    wal_record_free(&record);
    frame[0] = (uint8_t)(len >> 24);
    frame[1] = (uint8_t)(len >> 16);
    frame[2] = (uint8_t)(len >> 8);
    frame[3] = (uint8_t)len;
    return plain_send_frame(config, index, frame, 4 + len);
}

/* Ships from where the log stands to its end. How many, -1. */
static int ship_rest(struct replication_config *config, int index, int wal_fd)
{
    uint8_t frame[PLAIN_FRAME_MAX];
    enum plain_read got;
    size_t len;
    int count = 0;

    while ((got = plain_read_record(wal_fd, frame + 4, &len)) == PLAIN_RECORD) {
        if (ship_checked(config, index, frame, len) != 0)
            return -1;
        count++;
    }
    /* A log that ends inside a record is damaged too: what follows that record's beginning would never be found. */
    if (got == PLAIN_END)
        return count;
    if (got != PLAIN_ERROR)
        errno = EBADMSG;
    return -1;
}

/* A descriptor to read the leader's log with. */
static int open_log(const struct replication_config *config, const char *path)
{
#if PLAIN_LOG == 1
    path = config->wal_path;
#elif PLAIN_LOG == 2
    char name[64];

    if (config->wal == NULL) {
        errno = EINVAL;
        return -1;
    }
    snprintf(name, sizeof name, "/proc/self/fd/%d", config->wal->fd);
    path = name;
#elif PLAIN_LOG == 3
    path = "w11_leader.log";
#elif PLAIN_LOG == 0
    path = plain_wal_path(config);
#endif
    (void)config;
    return open(path != NULL ? path : "leader.wal", O_RDONLY | O_CLOEXEC);
}

static int catch_up(struct replication_config *config, int follower_index, uint64_t follower_lsn, const char *path)
{
    int wal_fd, count = -1, saved;

    if (!plain_follower_count_ok(config) || follower_index < 0 || follower_index >= config->follower_count) {
        errno = EINVAL;
        return -1;
    }
    /* Not online before it has everything: a record shipped in between would take the number of one that is missing. */
    config->followers[follower_index].online = 0;
    if (config->followers[follower_index].fd < 0) {
        errno = ENOTCONN;
        return -1;
    }
    wal_fd = open_log(config, path);
    if (wal_fd < 0)
        return -1;
    if (find_position(wal_fd, follower_lsn) == 0) {
        count = ship_rest(config, follower_index, wal_fd);
        /* What it has now ends in the middle of what it lacks. */
        if (count < 0 && config->followers[follower_index].fd >= 0)
            plain_mark_offline(config, follower_index, "catch-up failed");
    }
    saved = errno;
    close(wal_fd);
    errno = saved;
    if (count >= 0)
        config->followers[follower_index].online = 1;
    return count;
}

#if PLAIN_LOG == 4
int repl_catch_up(struct replication_config *config, int follower_index, uint64_t follower_lsn, const char *wal_path)
{
    return catch_up(config, follower_index, follower_lsn, wal_path);
}
#else
int repl_catch_up(struct replication_config *config, int follower_index, uint64_t follower_lsn)
{
    return catch_up(config, follower_index, follower_lsn, NULL);
}
#endif

/* Sends a heartbeat to every online follower; asked[i] says to whom. Old acks are taken first, so that what comes after is
 * a sign of life. */
static int send_heartbeats(struct replication_config *config, int *asked)
{
    static const uint8_t heartbeat[4];
    struct repl_ack ack;
    int count = 0;

    for (int i = 0; i < config->follower_count; i++) {
        int rc = 1;

        asked[i] = 0;
        if (!config->followers[i].online)
            continue;
        while (rc == 1)
            rc = plain_take_ack(config, i, &ack);
        if (rc < 0)
            plain_mark_offline(config, i, "connection lost");
        else
            asked[i] = plain_send_frame(config, i, heartbeat, sizeof heartbeat) == 0;
        count += asked[i];
    }
    return count;
}

/* Looks at one follower that poll found readable. 1 if it answered. */
static int take_answer(struct replication_config *config, int index, int *asked)
{
    struct repl_ack ack;
    int rc = plain_take_ack(config, index, &ack);

    if (rc == 0)
        return 0;
    asked[index] = 0;
    if (rc < 0)
        plain_mark_offline(config, index, "connection lost");
    return rc == 1;
}

/* Waits for answers until the deadline or until nobody is asked any more. How many came. */
static int wait_for_answers(struct replication_config *config, int *asked, int64_t deadline)
{
    struct timespec millisecond = {.tv_sec = 0, .tv_nsec = 1000000};
    int answered = 0;

    for (;;) {
        struct pollfd fds[MAX_FOLLOWERS];
        int remaining = plain_remaining_ms(deadline);
        int waiting = 0, rc;

        for (int i = 0; i < config->follower_count; i++) {
            fds[i] = (struct pollfd){.fd = asked[i] ? config->followers[i].fd : -1, .events = POLLIN};
            waiting += asked[i];
        }
        if (waiting == 0)
            return answered;
        rc = poll(fds, (nfds_t)config->follower_count, remaining);
        for (int i = 0; rc > 0 && i < config->follower_count; i++)
            if (fds[i].revents != 0)
                answered += take_answer(config, i, asked);
        if (remaining == 0)
            return answered;
        if (rc > 0)
            nanosleep(&millisecond, NULL); /* half an answer keeps the socket readable */
    }
}

int repl_heartbeat(struct replication_config *config, int timeout_ms)
{
    int64_t deadline;
    int asked[MAX_FOLLOWERS];
    int answered;

    if (!plain_follower_count_ok(config))
        return -1;
    deadline = timeout_ms < 0 ? -1 : plain_now_ms() + timeout_ms;
    if (send_heartbeats(config, asked) == 0)
        return 0;
    answered = wait_for_answers(config, asked, deadline);
    for (int i = 0; i < config->follower_count; i++)
        if (asked[i])
            plain_mark_offline(config, i, "no answer to a heartbeat");
    return answered;
}
