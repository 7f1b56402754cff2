/* Nodes and their sockets, and what the leader remembers about a follower that has no field in struct repl_node. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "w11/repl_config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plain_repl.h"
#include "w11/repl_ack.h"

enum { LISTEN_BACKLOG = 16, ACKS_REMEMBERED = 64 };

#if PLAIN_HOST
#define LOOPBACK "127.0.0.1"
#define HAS_HOST(node) ((node)->host[0] != '\0')
#else
#define LOOPBACK loopback
#define HAS_HOST(node) ((node)->host != NULL)
static char loopback[] = "127.0.0.1";
#endif

/* Acks that were read before a wait asked for them: late ones of a record whose wait timed out, early ones, and what a
 * follower sent before it went away. The oldest is forgotten first. They belong to one socket, known by its inode because
 * fd numbers come back. */
struct ack_memory {
    const struct replication_config *config;
    ino_t inode;
    uint64_t lsn[ACKS_REMEMBERED]; /* 0 is an empty place */
    unsigned next;
};

static struct ack_memory memories[MAX_FOLLOWERS];

/* The leader's log, for the config that named it. */
static char wal_path[PATH_MAX];
static const struct replication_config *wal_path_owner;

int repl_config_init(struct replication_config *config)
{
    if (config == NULL) {
        errno = EINVAL;
        return -1;
    }
    memset(config, 0, sizeof *config);
    config->leader = (struct repl_node){.host = LOOPBACK, .port = 7000, .fd = -1, .online = 0};
    for (int i = 0; i < MAX_FOLLOWERS; i++)
        config->followers[i] =
            (struct repl_node){.host = LOOPBACK, .port = (uint16_t)(7001 + i), .fd = -1, .online = 0};
    config->follower_count = 2;
    for (int i = 0; i < MAX_FOLLOWERS; i++)
        if (memories[i].config == config)
            memset(&memories[i], 0, sizeof memories[i]);
    if (wal_path_owner == config)
        wal_path_owner = NULL;
    return 0;
}

int plain_set_wal_path(const struct replication_config *config, const char *path)
{
    if (strlen(path) >= sizeof wal_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(wal_path, path);
    wal_path_owner = config;
    return 0;
}

const char *plain_wal_path(const struct replication_config *config)
{
    return config == wal_path_owner ? wal_path : NULL;
}

int plain_follower_count_ok(const struct replication_config *config)
{
    if (config != NULL && config->follower_count >= 0 && config->follower_count <= MAX_FOLLOWERS)
        return 1;
    errno = EINVAL;
    return 0;
}

static int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value);
}

/* A silent peer is probed after 5 s, then every second, and given up after 3 probes. The user timeout does the same while
 * sent data is unacknowledged, when keepalive does not probe. */
int repl_set_keepalive(int fd)
{
    if (set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1) != 0 || set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 5) != 0 ||
        set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1) != 0 || set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3) != 0 ||
        set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 8000) != 0)
        return -1;
    return 0;
}

static void close_keeping_errno(int fd)
{
    int saved = errno;

    close(fd);
    errno = saved;
}

/* The addresses of a node, to be freed with freeaddrinfo, or NULL with errno. */
static struct addrinfo *resolve(const struct repl_node *node)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    char port[8];
    int rc;

    snprintf(port, sizeof port, "%u", (unsigned)node->port);
    rc = getaddrinfo(node->host, port, &hints, &list);
    if (rc == 0)
        return list;
    if (rc != EAI_SYSTEM)
        errno = rc == EAI_MEMORY ? ENOMEM : EADDRNOTAVAIL;
    return NULL;
}

/* connect(2) on a non-blocking socket, so that a host that swallows packets costs no more than the deadline. */
static int connect_until(int fd, const struct addrinfo *address, int64_t deadline)
{
    struct pollfd waiting = {.fd = fd, .events = POLLOUT};
    socklen_t size = sizeof(int);
    int error = 0, rc;

    if (connect(fd, address->ai_addr, address->ai_addrlen) == 0)
        return 0;
    if (errno != EINPROGRESS && errno != EINTR)
        return -1;
    do
        rc = poll(&waiting, 1, plain_remaining_ms(deadline));
    while (rc < 0 && errno == EINTR);
    if (rc < 0)
        return -1;
    if (rc == 0) {
        errno = ETIMEDOUT;
        return -1;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        return -1;
    errno = error;
    return error == 0 ? 0 : -1;
}

static int set_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}

/* A connected blocking socket with all options set, or -1. */
static int connect_to(const struct addrinfo *address, int64_t deadline)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    if (connect_until(fd, address, deadline) == 0 && set_blocking(fd) == 0 && repl_set_keepalive(fd) == 0 &&
        set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1) == 0)
        return fd;
    close_keeping_errno(fd);
    return -1;
}

int repl_connect(struct repl_node *node)
{
    int64_t deadline = plain_now_ms() + PLAIN_DEADLINE_MS;
    struct addrinfo *list;
    int fd = -1, saved;

    if (node == NULL || !HAS_HOST(node)) {
        errno = EINVAL;
        return -1;
    }
    /* A node that is still connected would lose, and leak, its old socket. */
    if (node->online && node->fd >= 0)
        close(node->fd);
    node->fd = -1;
    node->online = 0;
    list = resolve(node);
    if (list == NULL)
        return -1;
    for (struct addrinfo *address = list; address != NULL && fd < 0; address = address->ai_next)
        fd = connect_to(address, deadline);
    saved = errno;
    freeaddrinfo(list);
    errno = saved;
    if (fd < 0)
        return -1;
    node->fd = fd;
    node->online = 1;
    return 0;
}

/* After bind to port 0: what the kernel chose. */
static int read_port(int fd, uint16_t *port)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;

    if (getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        return -1;
    if (address.ss_family == AF_INET6)
        *port = ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    else
        *port = ntohs(((struct sockaddr_in *)&address)->sin_port);
    return 0;
}

/* SO_REUSEADDR: a restarted node must not wait a minute for its own old connections. Keepalive on the listening socket is
 * handed down to what accept(2) returns, for programs that call it themselves. */
static int listen_on(const struct addrinfo *address, uint16_t *port)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    if (set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1) == 0 && repl_set_keepalive(fd) == 0 &&
        bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, LISTEN_BACKLOG) == 0 &&
        read_port(fd, port) == 0)
        return fd;
    close_keeping_errno(fd);
    return -1;
}

int repl_listen(struct repl_node *node)
{
    struct addrinfo *list;
    int fd = -1, saved;

    if (node == NULL || !HAS_HOST(node)) {
        errno = EINVAL;
        return -1;
    }
    list = resolve(node);
    if (list == NULL)
        return -1;
    for (struct addrinfo *address = list; address != NULL && fd < 0; address = address->ai_next)
        fd = listen_on(address, &node->port);
    saved = errno;
    freeaddrinfo(list);
    errno = saved;
    return fd;
}

int repl_accept(int listen_fd)
{
    int fd;

    do
        fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0)
        return -1;
    if (repl_set_keepalive(fd) == 0 && set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1) == 0)
        return fd;
    close_keeping_errno(fd);
    return -1;
}

/* What is remembered of the follower in this place. Another config, or another socket, starts with nothing; a follower that
 * is offline keeps what it sent before it went. */
static struct ack_memory *memory_of(const struct replication_config *config, int index)
{
    struct ack_memory *memory = &memories[index];
    int fd = config->followers[index].fd;
    ino_t inode = memory->inode;
    struct stat st;

    if (fd >= 0 && fstat(fd, &st) == 0)
        inode = st.st_ino;
    if (memory->config != config || memory->inode != inode) {
        memset(memory, 0, sizeof *memory);
        memory->config = config;
        memory->inode = inode;
    }
    return memory;
}

void plain_refresh_acks(const struct replication_config *config)
{
    for (int i = 0; i < config->follower_count; i++)
        memory_of(config, i);
}

static void remember(const struct replication_config *config, int index, uint64_t lsn)
{
    struct ack_memory *memory = memory_of(config, index);

    memory->lsn[memory->next] = lsn;
    memory->next = (memory->next + 1) % ACKS_REMEMBERED;
}

int plain_has_acked(const struct replication_config *config, int index, uint64_t lsn)
{
    const struct ack_memory *memory = &memories[index];

    for (int i = 0; i < ACKS_REMEMBERED; i++)
        if (memory->config == config && memory->lsn[i] == lsn && lsn != 0)
            return 1;
    return 0;
}

void plain_use_up_ack(const struct replication_config *config, int index, uint64_t lsn)
{
    struct ack_memory *memory = &memories[index];

    for (int i = 0; i < ACKS_REMEMBERED; i++)
        if (memory->config == config && memory->lsn[i] == lsn)
            memory->lsn[i] = 0;
}

int plain_take_ack(struct replication_config *config, int index, struct repl_ack *ack)
{
    int fd = config->followers[index].fd;
    uint8_t bytes[PLAIN_ACK_BYTES];
    ssize_t n;

    /* An ack may arrive a few bytes at a time. It is left in the kernel until it is whole, so no call keeps half of one. */
    do
        n = recv(fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? 0 : -1;
    if (n == 0) {
        errno = ENOTCONN;
        return -1;
    }
    if ((size_t)n < sizeof bytes) {
        struct pollfd state = {.fd = fd, .events = POLLRDHUP};

        if (poll(&state, 1, 0) <= 0)
            return 0;
        /* The rest never comes; but it may have come since the look above, in front of the end. */
        if (recv(fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT) != (ssize_t)sizeof bytes) {
            errno = ENOTCONN;
            return -1;
        }
    }
    if (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) != (ssize_t)sizeof bytes)
        return -1;
    plain_get_ack(bytes, ack);
    if (ack->status == REPL_ACK_OK)
        remember(config, index, ack->lsn);
    return 1;
}

void plain_mark_offline(struct replication_config *config, int index, const char *why)
{
    struct repl_node *node = &config->followers[index];
    struct repl_ack ack;
    struct stat st;
    int saved = errno;

    /* A descriptor that the program has closed may by now be a file of its own: only a socket is read and closed. */
    if (node->fd >= 0 && fstat(node->fd, &st) == 0 && S_ISSOCK(st.st_mode)) {
        while (plain_take_ack(config, index, &ack) == 1)
            ;
        close(node->fd);
    }
    node->fd = -1;
    node->online = 0;
    fprintf(stderr, "leader: follower-%d offline: %s\n", index + 1, why);
    errno = saved;
}
