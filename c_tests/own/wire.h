/* The other end of a connection, driven by hand: a test plays the leader or the follower with bytes of its own. */
#ifndef OWN_WIRE_H
#define OWN_WIRE_H
#include "bytes.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static inline int own_listen(uint16_t *port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) != 0 || listen(fd, 16) != 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &len) != 0)
        return -1;
    *port = ntohs(addr.sin_port);
    return fd;
}
/* buffer: SO_SNDBUF and SO_RCVBUF of the connecting side, 0 for the system's. */
static inline int own_connect(uint16_t port, int buffer)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (buffer > 0) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    }
    if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof addr) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}
/* A connected pair: what would be in config->followers[i].fd, and the follower's own end. */
static inline int own_pair(int *leader_end, int *follower_end, int buffer)
{
    uint16_t port;
    int listener = own_listen(&port);
    if (listener >= 0 && buffer > 0)
        setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    if (listener >= 0 && buffer > 0)
        setsockopt(listener, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    *leader_end = listener < 0 ? -1 : own_connect(port, buffer);
    *follower_end = *leader_end < 0 ? -1 : accept(listener, NULL, NULL);
    if (listener >= 0)
        close(listener);
    return *follower_end < 0 ? -1 : 0;
}
static inline int own_pending(int fd)
{
    int bytes = -1;
    return ioctl(fd, FIONREAD, &bytes) == 0 ? bytes : -1;
}
/* Waits until the events are there: 1, or 0 after 5 s. */
static inline int own_await(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    return poll(&p, 1, 5000) == 1 && (p.revents & events) != 0;
}
/* Waits until n bytes wait to be read here (1), or 5 s have passed (0). */
static inline int own_settle(int fd, int n)
{
    for (int64_t end = own_now_ms() + 5000; own_now_ms() < end; poll(NULL, 0, 1))
        if (own_pending(fd) >= n)
            return 1;
    return 0;
}
/* Waits until the other thread or process has read everything that was sent to fd; at most ms. */
static inline int own_drained(int fd, int ms)
{
    for (int64_t end = own_now_ms() + ms; own_now_ms() < end; poll(NULL, 0, 1))
        if (own_pending(fd) == 0)
            return 1;
    return 0;
}
static inline int own_put_all(int fd, const void *data, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = send(fd, (const char *)data + done, len - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        done += (size_t)n;
    }
    return 0;
}
/* Exactly len bytes within 5 s: 1; else 0. */
static inline int own_get(int fd, void *data, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = own_await(fd, POLLIN) ? recv(fd, (char *)data + done, len - done, 0) : 0;
        if (n <= 0)
            return 0;
        done += (size_t)n;
    }
    return 1;
}
/* The next thing on the wire is the end of the stream. A reset is an end too. */
static inline int own_at_eof(int fd)
{
    char byte;
    if (!own_await(fd, POLLIN))
        return 0;
    ssize_t n = recv(fd, &byte, 1, 0);
    return n == 0 || (n < 0 && errno == ECONNRESET);
}
/* Nothing has been sent from one end that the other has not read: bytes of ours, sent behind it, come next. */
static inline int own_quiet(int from, int to)
{
    char got[8];
    return own_put_all(from, "SENTINEL", 8) == 0 && own_get(to, got, 8) && memcmp(got, "SENTINEL", 8) == 0;
}
static inline size_t own_frame(uint8_t *out, const uint8_t *record, size_t len)
{
    memcpy(own_put_be(out, len, 4), record, len);
    return len + 4;
}
enum { POSITION_LEN = 17 };
/* The control message that says which record comes next. */
static inline size_t own_position(uint8_t out[POSITION_LEN], uint64_t lsn)
{
    uint8_t *at = own_put_be(out, 0x8000000D, 4);
    *at++ = 1;
    at = own_put_be(at, lsn, 8);
    own_put_be(at, own_crc32(out + 4, 9), 4);
    return POSITION_LEN;
}
/* The next frame is this record: the length in network order, the record, as they are. */
static inline int own_frame_is(int fd, const uint8_t *record, size_t len)
{
    uint8_t *want = malloc(2 * (len + 4));
    int same = want && own_frame(want, record, len) && own_get(fd, want + len + 4, len + 4) &&
               memcmp(want, want + len + 4, len + 4) == 0;
    free(want);
    return same;
}
/* 16 bytes: lsn little-endian, status, 7 bytes that are zero (a plain C follower) or the mark (a logship follower). */
static inline void own_ack(uint8_t out[16], uint64_t lsn, int status, int marked)
{
    memset(out, 0, 16);
    own_put(out, lsn, 8);
    out[8] = (uint8_t)status;
    if (marked)
        memcpy(out + 9, "LSHP\001\000\000", 7);
}
static inline int own_send_ack(int fd, uint64_t lsn, int status, int marked)
{
    uint8_t ack[16];
    own_ack(ack, lsn, status, marked);
    return own_put_all(fd, ack, sizeof ack);
}
/* What logship_follow says first on a connection: the last LSN of its log, marked, with the flags LIVENESS and FOLLOWS. */
static inline int own_hello_is(int fd, uint64_t lsn)
{
    uint8_t got[16], want[16];
    own_ack(want, lsn, 0, 1);
    want[15] = 1 | 16;
    return own_get(fd, got, 16) && memcmp(got, want, 14) == 0 && got[15] == want[15];
}
static inline int own_ack_is(int fd, uint64_t lsn, int status)
{
    uint8_t got[16], want[16];
    own_ack(want, lsn, status, 0);
    return own_get(fd, got, 16) && memcmp(got, want, 9) == 0;
}

#endif
