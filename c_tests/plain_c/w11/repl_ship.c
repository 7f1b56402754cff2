/* Shipping and receiving records and acks. A frame is [length:4, big-endian][encoded record]; length 0 is a heartbeat. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "w11/repl_ship.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../w10/plain_wal.h"
#include "plain_repl.h"
#include "w11/repl_conflict.h"
#include "w11/repl_rejoin.h"

/* How long to wait for room before looking again for acks. */
enum { ROOM_WAIT_MS = 10 };

/* The frame shipped last, for a follower that received it damaged. One leader in a process at a time. */
static uint8_t last_frame[PLAIN_FRAME_MAX];
static size_t last_frame_len;

/* Waits for events, through signals. 1, 0 at the deadline, -1. */
static int wait_for(int fd, short events, int64_t deadline)
{
    struct pollfd waiting = {.fd = fd, .events = events};
    int rc;

    do
        rc = poll(&waiting, 1, plain_remaining_ms(deadline));
    while (rc < 0 && errno == EINTR);
    return rc;
}

/* Sends what fits now. The number of bytes, 0 when the socket is full, -1. */
static ssize_t send_some(int fd, const uint8_t *buf, size_t len)
{
    ssize_t n;

    /* MSG_NOSIGNAL: a follower that went away must not kill the leader with SIGPIPE. */
    do
        n = send(fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 && errno == EAGAIN ? 0 : n;
}

/* 0, -1. */
static int send_all(int fd, const void *buf, size_t len)
{
    int64_t deadline = plain_now_ms() + PLAIN_DEADLINE_MS;
    const uint8_t *next = buf;

    if (buf == NULL && len > 0) {
        errno = EINVAL;
        return -1;
    }
    while (len > 0) {
        ssize_t n = send_some(fd, next, len);

        if (n < 0)
            return -1;
        if (n == 0) {
            int rc = wait_for(fd, POLLOUT, deadline);

            if (rc == 0)
                errno = ETIMEDOUT;
            if (rc <= 0)
                return -1;
        }
        next += n;
        len -= (size_t)n;
    }
    return 0;
}

int send_full(int fd, const void *buf, size_t len)
{
    return send_all(fd, buf, len) == 0 ? plain_full(len) : -1;
}

int plain_recv_until(int fd, void *buf, size_t len, int64_t deadline)
{
    uint8_t *next = buf;

    while (len > 0) {
        ssize_t n = recv(fd, next, len, MSG_DONTWAIT);

        if (n < 0 && errno == EAGAIN) {
            int rc = wait_for(fd, POLLIN, deadline);

            if (rc == 0)
                errno = ETIMEDOUT;
            if (rc <= 0)
                return -1;
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0) {
            errno = ENOTCONN;
            return -1;
        }
        next += n;
        len -= (size_t)n;
    }
    return 0;
}

/* No deadline of its own: keepalive ends the wait when the peer is gone. */
int recv_full(int fd, void *buf, size_t len)
{
    if (buf == NULL && len > 0) {
        errno = EINVAL;
        return -1;
    }
    if (plain_recv_until(fd, buf, len, -1) == 0)
        return plain_full(len);
    return PLAIN_FULL == 2 && errno == ENOTCONN ? 0 : -1;
}

int repl_send_ack(int fd, uint64_t lsn, uint8_t status)
{
    uint8_t bytes[PLAIN_ACK_BYTES];

    plain_put_ack(lsn, status, bytes);
    return send_all(fd, bytes, sizeof bytes);
}

/* Peer closed between two acks is 0; in the middle of one it is an error. */
int repl_recv_ack(int fd, struct repl_ack *ack)
{
    uint8_t bytes[PLAIN_ACK_BYTES];
    ssize_t n;

    if (ack == NULL) {
        errno = EINVAL;
        return -1;
    }
    for (;;) {
        n = recv(fd, bytes, 1, MSG_PEEK | MSG_DONTWAIT);
        if (n >= 0)
            break;
        if (errno == EAGAIN) {
            if (wait_for(fd, POLLIN, -1) < 0)
                return -1;
        } else if (errno != EINTR) {
            return -1;
        }
    }
    if (n == 0)
        return 0;
    if (plain_recv_until(fd, bytes, sizeof bytes, plain_now_ms() + PLAIN_DEADLINE_MS) != 0)
        return -1;
    plain_get_ack(bytes, ack);
    return 1;
}

static void put_be32(uint8_t *out, uint32_t number)
{
    out[0] = (uint8_t)(number >> 24);
    out[1] = (uint8_t)(number >> 16);
    out[2] = (uint8_t)(number >> 8);
    out[3] = (uint8_t)number;
}

static uint32_t get_be32(const uint8_t *in)
{
    return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
}

/* While the socket is full the follower may be stuck the same way, with acks that nobody reads: then both would wait for
 * ever. So acks are taken, and after a short wait the caller tries again. 0, -1. */
static int wait_for_room(struct replication_config *config, int index, int64_t deadline)
{
    struct repl_ack ack;
    int taken;

    do
        taken = plain_take_ack(config, index, &ack);
    while (taken == 1);
    if (taken < 0)
        return -1;
    if (plain_now_ms() >= deadline) {
        errno = ETIMEDOUT;
        return -1;
    }
    return wait_for(config->followers[index].fd, POLLOUT, plain_now_ms() + ROOM_WAIT_MS) < 0 ? -1 : 0;
}

int plain_send_frame(struct replication_config *config, int index, const uint8_t *frame, size_t len)
{
    int64_t deadline = plain_now_ms() + PLAIN_DEADLINE_MS;

    while (len > 0) {
        ssize_t n = send_some(config->followers[index].fd, frame, len);

        if (n < 0 || (n == 0 && wait_for_room(config, index, deadline) != 0)) {
            /* A frame cut half-way cannot be continued on this connection or another: the follower must rejoin. */
            plain_mark_offline(config, index, strerror(errno));
            return -1;
        }
        frame += n;
        len -= (size_t)n;
    }
    return 0;
}

/* The first send after a peer's close succeeds, only the second fails. So look before sending. */
static int hung_up(int fd)
{
    struct pollfd state = {.fd = fd, .events = POLLRDHUP};

    return poll(&state, 1, 0) > 0;
}

int repl_ship_record(struct replication_config *config, const uint8_t *encoded_buf, size_t encoded_len)
{
    int shipped = 0;

    if (!plain_follower_count_ok(config) || encoded_buf == NULL || encoded_len == 0 || encoded_len > WAL_RECORD_MAX) {
        errno = EINVAL;
        return -1;
    }
    put_be32(last_frame, (uint32_t)encoded_len);
    memcpy(last_frame + 4, encoded_buf, encoded_len);
    last_frame_len = 4 + encoded_len;
    for (int i = 0; i < config->follower_count; i++) {
        if (!config->followers[i].online)
            continue;
        if (hung_up(config->followers[i].fd))
            plain_mark_offline(config, i, "connection lost");
        else if (plain_send_frame(config, i, last_frame, last_frame_len) == 0)
            shipped++;
    }
    return shipped;
}

static int decodes(const uint8_t *bytes, size_t len)
{
    struct wal_record record;

    if (!plain_decodes(bytes, len, &record))
        return 0;
    wal_record_free(&record);
    return 1;
}

/* The record number lsn of the log as a frame. Its length, 0 if the log has no such whole record. */
static size_t frame_from_log(const char *path, uint64_t lsn, uint8_t *frame)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum plain_read got = PLAIN_RECORD;
    size_t len = 0;

    if (fd < 0)
        return 0;
    for (uint64_t number = 0; number < lsn && got == PLAIN_RECORD; number++)
        got = plain_read_record(fd, frame + 4, &len);
    close(fd);
    if (lsn == 0 || got != PLAIN_RECORD || !decodes(frame + 4, len))
        return 0;
    put_be32(frame, (uint32_t)len);
    return 4 + len;
}

int plain_ship_again(struct replication_config *config, int index, uint64_t lsn)
{
    uint8_t frame[PLAIN_FRAME_MAX];
    size_t len;

    if (last_frame_len > 4 && decodes(last_frame + 4, last_frame_len - 4))
        return plain_send_frame(config, index, last_frame, last_frame_len);
    if (plain_wal_path(config) == NULL)
        return -1;
    len = frame_from_log(plain_wal_path(config), lsn, frame);
    return len > 0 ? plain_send_frame(config, index, frame, len) : -1;
}

/* Decides by the conflict rule and applies. Two records without a timestamp apply in the order in which they come. */
static int apply_unlocked(struct kv_store *store, const struct wal_record *record)
{
    const struct kv_entry *existing = kv_store_find(store, record->key);
    const char *incoming = record->op == WAL_OP_SET ? record->value : NULL;

    if (existing != NULL && (existing->last_write_ts != 0 || record->timestamp != 0) &&
        repl_resolve_conflict(existing->last_write_ts, record->timestamp, existing->value, incoming) == SKIP)
        return 0;
    if (record->op == WAL_OP_SET)
        return kv_store_set_ts(store, record->key, record->value, record->timestamp);
    return kv_store_del(store, record->key) < 0 ? -1 : 0;
}

static int apply(struct kv_store *store, const struct wal_record *record)
{
    /* EDEADLK: the caller holds the lock, which is as good. */
    int locked = pthread_rwlock_wrlock(&store->lock) == 0;
    int rc = apply_unlocked(store, record);

    if (locked)
        pthread_rwlock_unlock(&store->lock);
    return rc;
}

/* The log first, the store after: what is in the store must survive a crash. */
static int store_record(const uint8_t *bytes, size_t len, struct wal_writer *writer, struct kv_store *store)
{
    struct wal_record record;
    int rc;

    if (!plain_decodes(bytes, len, &record))
        return errno == EBADMSG ? CRC_MISMATCH : -1;
    rc = wal_append(writer, &record);
    if (rc == 0)
        rc = apply(store, &record);
    wal_record_free(&record);
    return rc;
}

/* The length of the next record. The first byte may be long in coming; the rest may not. Heartbeats are answered here: with
 * LSN 0, which is no record's, so that the answer can never be taken for an ack. */
static int next_length(int fd, uint32_t *length, int64_t *deadline)
{
    uint8_t header[4];

    do {
        if (plain_recv_until(fd, header, 1, -1) != 0)
            return -1;
        *deadline = plain_now_ms() + PLAIN_DEADLINE_MS;
        if (plain_recv_until(fd, header + 1, 3, *deadline) != 0)
            return -1;
        *length = get_be32(header);
        if (*length == 0 && repl_send_ack(fd, 0, REPL_ACK_OK) != 0)
            return -1;
    } while (*length == 0);
    return 0;
}

static int receive_one(int fd, struct wal_writer *writer, struct kv_store *store)
{
    int64_t deadline;
    uint32_t length;
    uint8_t *bytes;
    int rc, saved;

    if (writer == NULL || store == NULL || store->buckets == NULL) {
        errno = EINVAL;
        return -1;
    }
    if (next_length(fd, &length, &deadline) != 0)
        return -1;
    /* Before the allocation: a peer must not make us ask for four gigabytes. */
    if (length > WAL_RECORD_MAX) {
        errno = EPROTO;
        return -1;
    }
    bytes = malloc(length);
    if (bytes == NULL)
        return -1;
    rc = plain_recv_until(fd, bytes, length, deadline);
    if (rc == 0)
        rc = store_record(bytes, length, writer, store);
    saved = errno;
    free(bytes);
    errno = saved;
    return rc;
}

/* The LSN of the last record of the log that this descriptor writes to: its number from the start. */
static uint64_t last_lsn(const struct wal_writer *writer)
{
    uint8_t buffer[WAL_RECORD_MAX];
    uint64_t count = 0;
    size_t len;
    char path[64];
    int fd;

    snprintf(path, sizeof path, "/proc/self/fd/%d", writer->fd);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && plain_read_record(fd, buffer, &len) == PLAIN_RECORD)
        count++;
    if (fd >= 0)
        close(fd);
    return count;
}

static int ack_received(int fd, const struct wal_writer *writer, int rc)
{
    if (rc == 0)
        return repl_send_ack(fd, last_lsn(writer), REPL_ACK_OK);
    if (rc == CRC_MISMATCH && PLAIN_ACK != 2)
        return repl_send_ack(fd, last_lsn(writer) + 1, REPL_ACK_CRC_FAIL);
    return 0;
}

int repl_receive_record(int fd, struct wal_writer *writer, struct kv_store *store)
{
    int rc = receive_one(fd, writer, store);
    int saved = errno;

    if (PLAIN_ACKS && ack_received(fd, writer, rc) != 0)
        return -1;
    errno = saved;
    if (PLAIN_RECEIVE == 1)
        return rc == 0 ? 1 : rc == -1 && saved == ENOTCONN ? 0 : rc;
    return rc;
}
