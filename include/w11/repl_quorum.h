#ifndef LOGSHIP_W11_REPL_QUORUM_H
#define LOGSHIP_W11_REPL_QUORUM_H


/* Generated from src/capi by `make headers`: change it there. */

#include <stdint.h>

#include "repl_ack.h"
#include "repl_config.h"


#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Waits until a quorum (`follower_count` / 2 + 1 different followers; the leader does not count) has acknowledged
 * `lsn` with status 0. Returns 0, or -1 with `errno`: ETIMEDOUT when `timeout_ms`, one deadline for the whole call,
 * has passed (negative: none; the record is in the leader's log and maybe on some followers, and one may wait again);
 * ENOTCONN at once when the followers still online can't make a quorum; EINVAL for bad arguments. Only online
 * followers are polled. A record rejected with status 1 is sent again, at most 3 times. 0 followers: 0.
 */
int repl_wait_quorum(struct replication_config *config,
                     uint64_t lsn,
                     int timeout_ms);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif /* LOGSHIP_W11_REPL_QUORUM_H */
