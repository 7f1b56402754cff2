#ifndef LOGSHIP_W11_REPL_CONFIG_H
#define LOGSHIP_W11_REPL_CONFIG_H


/* Generated from src/capi by `make headers`: change it there. */

#include <stddef.h>
#include <stdint.h>


/**
 * Followers that a configuration has room for.
 */
#define MAX_FOLLOWERS 8

/**
 * One node.
 */
struct repl_node {
    /**
     * Its address: a C string that the program keeps alive.
     */
    char *host;
    /**
     * Its port.
     */
    uint16_t port;
    /**
     * The socket to it, or -1. The program's, but closed and set to -1 when the node is marked offline.
     */
    int fd;
    /**
     * 1: shipped to and counted on. 0: not.
     */
    uint8_t online;
};

/**
 * A leader and its followers.
 */
struct replication_config {
    /**
     * The leader.
     */
    struct repl_node leader;
    /**
     * The followers; the first `follower_count` are used.
     */
    struct repl_node followers[MAX_FOLLOWERS];
    /**
     * 0 to MAX_FOLLOWERS.
     */
    int follower_count;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Fills in the lesson's nodes: leader 127.0.0.1:7000, followers :7001 and :7002, every `fd` -1, every `online` 0. The
 * hosts are constants: replace the pointers, don't write through them. Forgets all that was known of a configuration
 * at this address. Returns 0, or -1 with `errno` EINVAL for NULL.
 */
int repl_config_init(struct replication_config *config);

/**
 * Connects to `node->host`, `node->port` within 5 s; sets `fd` and `online` = 1. The socket has TCP_NODELAY and
 * keepalive as `repl_set_keepalive` sets it, and SO_REUSEADDR. Returns 0, or -1 with `errno` (ECONNREFUSED, ETIMEDOUT,
 * EINVAL for NULL...) and the node unchanged. Try again if the peer does not listen yet. An old socket in `fd` is the
 * program's to close.
 */
int repl_connect(struct repl_node *node);

/**
 * Listens on `node->host`, `node->port`; port 0 is any free one, written back. SO_REUSEADDR, and the keepalive
 * options, which Linux hands down to accepted sockets. Returns the listening descriptor, which is the program's to
 * close (the node's `fd` is not touched), or -1 with `errno` (EADDRINUSE, EADDRNOTAVAIL, EINVAL for NULL...).
 */
int repl_listen(struct repl_node *node);

/**
 * Accepts one connection, with keepalive and TCP_NODELAY. Returns its descriptor, which is the program's, or -1 with
 * accept(2)'s `errno`. Waits as accept(2) does: without a deadline, and not at all on a non-blocking listening socket;
 * poll(2) the listening descriptor to bound it.
 */
int repl_accept(int listen_fd);

/**
 * Sets SO_KEEPALIVE, TCP_KEEPIDLE 5, TCP_KEEPINTVL 1, TCP_KEEPCNT 3 and TCP_USER_TIMEOUT, 8 s or the send deadline of
 * `repl_set_timeouts` if that is longer: by default a peer that is gone
 * without a word is noticed in at most 8 s, idle or not. Returns 0, or -1 with setsockopt(2)'s `errno`. See tcp(7).
 */
int repl_set_keepalive(int fd);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

/* The layout that the library was built with. A #pragma pack that is still open, or another header with a struct of
 * the same name, does not compile: docs/linking.md. */
#ifndef LOGSHIP_LAYOUT
#if defined(__cplusplus) && __cplusplus >= 201103L
#define LOGSHIP_LAYOUT(name, holds, otherwise) static_assert(holds, otherwise)
#elif !defined(__cplusplus) && defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define LOGSHIP_LAYOUT(name, holds, otherwise) _Static_assert(holds, otherwise)
#else
#define LOGSHIP_LAYOUT(name, holds, otherwise) typedef char logship_layout_##name[(holds) ? 1 : -1]
#endif
#endif
LOGSHIP_LAYOUT(repl_config_repl_node, sizeof(struct repl_node) == 24 &&
    offsetof(struct repl_node, host) == 0 &&
    offsetof(struct repl_node, port) == 8 &&
    offsetof(struct repl_node, fd) == 12 &&
    offsetof(struct repl_node, online) == 16,
    "struct repl_node is laid out otherwise in liblogship: delete the repl_config.h of your own, or end #pragma pack");
LOGSHIP_LAYOUT(repl_config_replication_config, sizeof(struct replication_config) == 224 &&
    offsetof(struct replication_config, leader) == 0 &&
    offsetof(struct replication_config, followers) == 24 &&
    offsetof(struct replication_config, follower_count) == 216,
    "struct replication_config is laid out otherwise in liblogship: delete the repl_config.h of your own, or end #pragma pack");

#endif /* LOGSHIP_W11_REPL_CONFIG_H */
