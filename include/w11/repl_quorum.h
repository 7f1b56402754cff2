#ifndef LOGSHIP_W11_REPL_QUORUM_H
#define LOGSHIP_W11_REPL_QUORUM_H


/* Generated from src/capi by `make headers`: change it there. */

#include <stddef.h>
#include <stdint.h>

#include "repl_ack.h"
#include "repl_config.h"

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
LOGSHIP_LAYOUT(repl_quorum_repl_node, sizeof(struct repl_node) == 24 &&
    offsetof(struct repl_node, host) == 0 &&
    offsetof(struct repl_node, port) == 8 &&
    offsetof(struct repl_node, fd) == 12 &&
    offsetof(struct repl_node, online) == 16,
    "struct repl_node is laid out otherwise in liblogship: delete the repl_config.h of your own, or end #pragma pack");
LOGSHIP_LAYOUT(repl_quorum_replication_config, sizeof(struct replication_config) == 224 &&
    offsetof(struct replication_config, leader) == 0 &&
    offsetof(struct replication_config, followers) == 24 &&
    offsetof(struct replication_config, follower_count) == 216,
    "struct replication_config is laid out otherwise in liblogship: delete the repl_config.h of your own, or end #pragma pack");


#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Waits until a quorum (`follower_count` / 2 + 1 different followers; the leader does not count) has acknowledged
 * `lsn` with status 0. Returns 0, or -1 with `errno`: ETIMEDOUT when `timeout_ms`, one deadline for the whole call,
 * has passed (negative: none; the record is in the leader's log and maybe on some followers, and one may wait again);
 * ENOTCONN as soon as each follower that was online has acknowledged it or has gone, and they are too few; EINVAL for
 * bad arguments. Only online followers are polled, too few or not. A record rejected with status 1 is sent again, at
 * most 3 times. 0 followers: 0.
 */
int repl_wait_quorum(struct replication_config *config,
                     uint64_t lsn,
                     int timeout_ms);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif /* LOGSHIP_W11_REPL_QUORUM_H */
