/* Of a correct tree in another hand than plain_c.
 * Nodes: room for two followers, repl_listen takes a port, repl_connect tries for a second. */
#pragma once
#include <stdint.h>
#define NUM_FOLLOWERS 2
struct repl_node {
    char host[64];
    int fd;
    uint16_t port;
    uint8_t online;
};
struct replication_config {
    const char *wal_path;
    struct repl_node leader;
    struct repl_node followers[NUM_FOLLOWERS];
    int follower_count;
    uint64_t next_lsn;
};
void repl_config_init(struct replication_config *c);
int repl_connect(struct repl_node *n);
int repl_listen(uint16_t port);
