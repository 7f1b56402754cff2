/* Of a correct tree in another hand than plain_c. A quorum is reported as the number of acks. */
#pragma once
#include "repl_ship.h"
int repl_wait_quorum(struct replication_config *c, uint64_t lsn, int timeout_ms);
