/* Of a correct tree in another hand than plain_c.
 * Rejoin closes the old connection and opens another; the log is known from config.wal_path. */
#pragma once
#include "repl_ship.h"
int repl_follower_rejoin(int leader_fd, uint64_t last_applied_lsn);
int repl_catch_up(struct replication_config *c, int follower_index, uint64_t follower_lsn);
