/* Who leads, who follows, and the sockets between them. */
#ifndef PLAIN_W11_REPL_CONFIG_H
#define PLAIN_W11_REPL_CONFIG_H

#include <stdint.h>

#include "../plain_shape.h"

#if PLAIN_ROOM
#define MAX_FOLLOWERS 2
#else
#define MAX_FOLLOWERS 8
#endif

struct repl_node {
#if PLAIN_FIELDS
    uint64_t acked_lsn;
    uint8_t online;
    int fd;
#endif
#if PLAIN_HOST
    char host[64];
#else
    char *host;
#endif
    uint16_t port;
#if !PLAIN_FIELDS
    int fd;
    uint8_t online;
#endif
};

#if PLAIN_LOG == 2
struct wal_writer;
#endif

struct replication_config {
#if PLAIN_LOG == 1
    char wal_path[256];
#elif PLAIN_LOG == 2
    struct wal_writer *wal;
#endif
    struct repl_node leader;
    struct repl_node followers[MAX_FOLLOWERS];
    int follower_count;
};

int repl_config_init(struct replication_config *config);
int repl_connect(struct repl_node *node);
int repl_listen(struct repl_node *node);
int repl_accept(int listen_fd);
int repl_set_keepalive(int fd);

#endif
