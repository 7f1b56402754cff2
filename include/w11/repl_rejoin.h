#ifndef LOGSHIP_W11_REPL_REJOIN_H
#define LOGSHIP_W11_REPL_REJOIN_H


/* Generated from src/capi by `make headers`: change it there. */

#include <stddef.h>
#include <stdint.h>

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
LOGSHIP_LAYOUT(repl_rejoin_repl_node, sizeof(struct repl_node) == 24 &&
    offsetof(struct repl_node, host) == 0 &&
    offsetof(struct repl_node, port) == 8 &&
    offsetof(struct repl_node, fd) == 12 &&
    offsetof(struct repl_node, online) == 16,
    "struct repl_node is laid out otherwise in liblogship: delete the repl_config.h of your own, or end #pragma pack");
LOGSHIP_LAYOUT(repl_rejoin_replication_config, sizeof(struct replication_config) == 224 &&
    offsetof(struct replication_config, leader) == 0 &&
    offsetof(struct replication_config, followers) == 24 &&
    offsetof(struct replication_config, follower_count) == 216,
    "struct replication_config is laid out otherwise in liblogship: delete the repl_config.h of your own, or end #pragma pack");


#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Says to the leader "my log ends at `last_applied_lsn`". A live connection in `leader_fd` is taken as the new one.
 * One that the leader has closed is replaced: a new connection to the leader (`repl_set_leader`, else 127.0.0.1:7000)
 * is put under the same descriptor number, so `leader_fd` stays what to read from and nothing leaks. Returns 0; with
 * `leader_fd` -1 the new descriptor, which is the program's; -1 with `errno` if the leader can't be reached. What the
 * follower missed comes next on the connection: read it with `repl_receive_record`. The message is 8 bytes; behind it
 * goes a marked ack if `logship_set_self` has given this node a number. Blocks at most 10 s.
 */
int repl_follower_rejoin(int leader_fd,
                         uint64_t last_applied_lsn);

/**
 * Reads a rejoin message from a connection that was accepted, within 5 s: the follower's last LSN goes to
 * `*last_applied_lsn`. Returns 0, or -1 with `errno`: ETIMEDOUT, ENOTCONN, EINVAL for NULL.
 */
int repl_read_rejoin(int fd,
                     uint64_t *last_applied_lsn);

/**
 * Accepts a follower that comes back on `listen_fd`, reads its message and finds its slot: by node number if it gave
 * one (`logship_set_self`), else the first offline slot whose host is its address; an online slot is taken over only
 * if its old connection does not answer a heartbeat. The old socket is closed, `fd` set, `online` left 0 until
 * `repl_catch_up`. Returns 0 and both results, or -1 with `errno`: EADDRNOTAVAIL no slot (the connection is closed),
 * ETIMEDOUT, ENOTCONN, EINVAL. Waits for a connection as accept(2) does, then at most 5 s for its message, and 1 s
 * more if every slot that may be its own seems online.
 */
int repl_accept_rejoin(struct replication_config *config,
                       int listen_fd,
                       int *follower_index,
                       uint64_t *follower_lsn);

/**
 * Ships every record after `follower_lsn` to follower `follower_index` alone, on its `fd`, and sets `online` = 1.
 * Returns how many were shipped (0: nothing missed). Shipped is not acknowledged: acks that arrive meanwhile are kept
 * for `repl_wait_quorum`, `repl_recv_ack` and `recv_full`. -1 leaves it offline, with `errno`: EINVAL bad index, or
 * several logs might be the leader's; ENOTCONN no socket; ENOENT no log; ERANGE the follower is ahead of the leader;
 * ESTALE its last record is not the leader's; ENODATA its missing records were compacted away and no checkpoint is set
 * or the peer is not logship (with one, the snapshot is sent and then the rest of the log); EBADMSG the log is damaged
 * in the range (what came before was shipped); else the send's. The log is `repl_set_wal`'s, else the one that this
 * process opened with `wal_open` and did not receive into, else `leader.wal` in the current directory. Memory stays
 * under 8 MiB whatever was missed.
 */
int repl_catch_up(struct replication_config *config,
                  int follower_index,
                  uint64_t follower_lsn);

/**
 * Names the log that followers of `config` are caught up and re-shipped from. The path is kept absolute. Returns 0, or
 * -1 with `errno` EINVAL for NULL or an empty path, ENAMETOOLONG.
 */
int repl_set_wal(struct replication_config *config,
                 const char *wal_path);

/**
 * Names the checkpoint for followers whose missing records were compacted away. It must cover at least what is gone.
 * Returns as `repl_set_wal`.
 */
int repl_set_checkpoint(struct replication_config *config,
                        const char *checkpoint_path);

/**
 * Sends a heartbeat to every online follower and waits at most `timeout_ms` for all answers; those that stay silent
 * are marked offline. Returns how many answered; -1 with `errno` EINVAL for bad arguments. A stopped process is silent
 * although TCP keepalive is satisfied.
 */
int repl_heartbeat(struct replication_config *config,
                   int timeout_ms);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif /* LOGSHIP_W11_REPL_REJOIN_H */
