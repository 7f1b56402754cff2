/* What stands between a leader and its follower and does harm: a process that passes bytes on, one connection at a time,
 * flips bits in the leader's frames, or cuts the connection after so many bytes. */
#ifndef FAULTS_PROXY_H
#define FAULTS_PROXY_H
#include "faults.h"

enum { CHUNK = 1 << 16, FRAME_MAX = 4 + WAL_RECORD_MAX };
enum target { BODIES, HEADERS, CONTROLS, TARGETS };

struct proxy {
    int listen_fd;
    uint16_t to;            /* where it connects to, on 127.0.0.1 */
    int leader_connects;    /* the first connection comes from the leader's side; then the follower's port is `to` */
    uint16_t later;         /* and where later connections, the follower's, go */
    unsigned one_in[TARGETS]; /* of so many record bodies, headers, control messages it damages one; 0: none */
    uint64_t random;        /* seed, then state */
    _Atomic uint64_t *flips; /* how many it has damaged, so far */
    _Atomic uint64_t *limit; /* it damages no more than that */
    _Atomic uint64_t *budget; /* if not NULL and not 0: after so many of the leader's bytes it cuts the connection */
    void (*on_cut)(void);   /* and does this first */
};
/* One direction's bytes that have not gone out yet. */
struct flow {
    uint8_t bytes[CHUNK + FRAME_MAX];
    size_t used, ready; /* ready: they may go out */
};
static inline void proxy_flip(struct proxy *proxy, uint8_t *bytes, size_t len)
{
    /* CRC-32 finds up to 3 bits at any length here: what comes through is found, or the test proves nothing. */
    for (uint64_t bits = 1 + random_next(&proxy->random) % 3; bits > 0; bits--) {
        uint64_t bit = random_next(&proxy->random) % (8 * len);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    ++*proxy->flips;
}
static inline int proxy_hits(struct proxy *proxy, enum target target)
{
    unsigned one_in = proxy->one_in[target];
    return one_in > 0 && *proxy->flips < *proxy->limit && random_next(&proxy->random) % one_in == 0;
}
/* Looks at the whole frames behind flow->ready and damages some. Once a header is damaged the follower is out of step,
 * but the proxy is not. */
static inline void proxy_frames(struct proxy *proxy, struct flow *flow)
{
    for (;;) {
        uint8_t *at = flow->bytes + flow->ready;
        size_t left = flow->used - flow->ready;
        if (left < 4)
            return;
        uint32_t word = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
        size_t len = word & 0x7FFFFFFFu;
        REQUIRE(len <= WAL_RECORD_MAX);
        if (left < 4 + len)
            return;
        if (proxy_hits(proxy, HEADERS))
            proxy_flip(proxy, at, 4);
        else if (word != 0 && proxy_hits(proxy, word >> 31 ? CONTROLS : BODIES))
            proxy_flip(proxy, at + 4, len);
        flow->ready += 4 + len;
    }
}
/* Moves what can be moved; 0 at the end of the connection. */
static inline int flow_read(struct flow *flow, int from)
{
    if (sizeof flow->bytes - flow->used < CHUNK)
        return 1;
    ssize_t got = recv(from, flow->bytes + flow->used, CHUNK, MSG_DONTWAIT);
    if (got > 0)
        flow->used += (size_t)got;
    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}
static inline int flow_write(struct flow *flow, int to)
{
    ssize_t sent = flow->ready ? send(to, flow->bytes, flow->ready, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
    if (sent < 0)
        return errno == EAGAIN || errno == EINTR;
    memmove(flow->bytes, flow->bytes + sent, flow->used - (size_t)sent);
    flow->used -= (size_t)sent;
    flow->ready -= (size_t)sent;
    return 1;
}
static inline void proxy_connection(struct proxy *proxy, int leader, int follower)
{
    static struct flow down, up; /* the leader's frames; the follower's acks, which pass as they are */
    uint64_t left = proxy->budget && *proxy->budget ? *proxy->budget : UINT64_MAX;
    down.used = down.ready = up.used = up.ready = 0;
    for (int open = 1; open;) {
        struct pollfd p[2] = {
            {.fd = leader, .events = (short)(sizeof down.bytes - down.used >= CHUNK ? POLLIN : 0)},
            {.fd = follower, .events = (short)(sizeof up.bytes - up.used >= CHUNK ? POLLIN : 0)}};
        p[1].events |= (short)(down.ready ? POLLOUT : 0);
        p[0].events |= (short)(up.ready ? POLLOUT : 0);
        poll(p, 2, -1);
        open = flow_read(&down, leader) && flow_read(&up, follower);
        proxy_frames(proxy, &down);
        up.ready = up.used;
        size_t before = down.used, ready = down.ready;
        down.ready = ready < left ? ready : (size_t)left;
        open = open && flow_write(&down, follower) && flow_write(&up, leader);
        left -= before - down.used;
        down.ready = ready - (before - down.used);
        if (left == 0) {
            *proxy->budget = 0;
            proxy->on_cut();
            break;
        }
    }
    close(leader);
    close(follower);
}
/* Ends with its parent. */
static inline pid_t proxy_start(const struct proxy *given, int inherited)
{
    pid_t pid = own_fork();
    if (pid != 0)
        return pid;
    struct proxy proxy = *given;
    if (inherited >= 0)
        close(inherited); /* the leader's listening socket: else nobody would notice that it is closed */
    for (int first = 1;; first = 0) {
        int from_leader = first && proxy.leader_connects;
        int near = accept(proxy.listen_fd, NULL, NULL), one = 1;
        int far = near < 0 ? -1 : own_connect(first || !proxy.leader_connects ? proxy.to : proxy.later, 0);
        if (far < 0) {
            if (near >= 0)
                close(near);
            continue;
        }
        setsockopt(near, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        proxy_connection(&proxy, from_leader ? near : far, from_leader ? far : near);
    }
}

#endif
