/* Who leads, who follows, and the sockets between them. */
#ifndef PLAIN_W11_REPL_CONFIG_H
#define PLAIN_W11_REPL_CONFIG_H

#include <stdint.h>

#define MAX_FOLLOWERS 8

struct repl_node {
    char *host;
    uint16_t port;
    int fd;
    uint8_t online;
};

struct replication_config {
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
