/* Waiting until enough followers have a record. */
#ifndef PLAIN_W11_REPL_QUORUM_H
#define PLAIN_W11_REPL_QUORUM_H

#include <stdint.h>

#include "repl_ack.h"
#include "repl_config.h"

int repl_wait_quorum(struct replication_config *config, uint64_t lsn, int timeout_ms);

#endif
