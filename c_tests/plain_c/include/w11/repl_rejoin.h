/* Followers that fail and come back. */
#ifndef PLAIN_W11_REPL_REJOIN_H
#define PLAIN_W11_REPL_REJOIN_H

#include <stdint.h>

#include "repl_config.h"

int repl_follower_rejoin(int leader_fd, uint64_t last_applied_lsn);
int repl_read_rejoin(int fd, uint64_t *last_applied_lsn);
#if PLAIN_LOG == 4
int repl_catch_up(struct replication_config *config, int follower_index, uint64_t follower_lsn, const char *wal_path);
#else
int repl_catch_up(struct replication_config *config, int follower_index, uint64_t follower_lsn);
#endif
int repl_set_wal(struct replication_config *config, const char *wal_path);
int repl_heartbeat(struct replication_config *config, int timeout_ms);

#endif
