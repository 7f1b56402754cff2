#ifndef LOGSHIP_LOGSHIP_H
#define LOGSHIP_LOGSHIP_H


/* Generated from src/capi by `make headers`: change it there. */

#include <stddef.h>
#include <stdint.h>

#include "w09/kv_store.h"
#include "w10/crc32.h"
#include "w10/wal_checkpoint.h"
#include "w10/wal_record.h"
#include "w10/wal_recovery.h"
#include "w10/wal_writer.h"
#include "w11/repl_ack.h"
#include "w11/repl_config.h"
#include "w11/repl_conflict.h"
#include "w11/repl_quorum.h"
#include "w11/repl_rejoin.h"
#include "w11/repl_ship.h"

/* The header's version; logship_version() is the library's. */
#define LOGSHIP_VERSION "0.1.0"

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
LOGSHIP_LAYOUT(logship_kv_store, sizeof(struct kv_store) == 72 &&
    offsetof(struct kv_store, buckets) == 0 &&
    offsetof(struct kv_store, num_buckets) == 8 &&
    offsetof(struct kv_store, lock) == 16,
    "struct kv_store is laid out otherwise in liblogship: delete the kv_store.h of your own, or end #pragma pack");
LOGSHIP_LAYOUT(logship_wal_record, sizeof(struct wal_record) == 48 &&
    offsetof(struct wal_record, op) == 0 &&
    offsetof(struct wal_record, key) == 8 &&
    offsetof(struct wal_record, key_len) == 16 &&
    offsetof(struct wal_record, value) == 24 &&
    offsetof(struct wal_record, value_len) == 32 &&
    offsetof(struct wal_record, crc) == 36 &&
    offsetof(struct wal_record, timestamp) == 40,
    "struct wal_record is laid out otherwise in liblogship: delete the wal_record.h of your own, or end #pragma pack");
LOGSHIP_LAYOUT(logship_wal_writer, sizeof(struct wal_writer) == 16 &&
    offsetof(struct wal_writer, fd) == 0 &&
    offsetof(struct wal_writer, offset) == 8,
    "struct wal_writer is laid out otherwise in liblogship: delete the wal_writer.h of your own, or end #pragma pack");
LOGSHIP_LAYOUT(logship_repl_node, sizeof(struct repl_node) == 24 &&
    offsetof(struct repl_node, host) == 0 &&
    offsetof(struct repl_node, port) == 8 &&
    offsetof(struct repl_node, fd) == 12 &&
    offsetof(struct repl_node, online) == 16,
    "struct repl_node is laid out otherwise in liblogship: delete the repl_config.h of your own, or end #pragma pack");
LOGSHIP_LAYOUT(logship_replication_config, sizeof(struct replication_config) == 224 &&
    offsetof(struct replication_config, leader) == 0 &&
    offsetof(struct replication_config, followers) == 24 &&
    offsetof(struct replication_config, follower_count) == 216,
    "struct replication_config is laid out otherwise in liblogship: delete the repl_config.h of your own, or end #pragma pack");
LOGSHIP_LAYOUT(logship_repl_ack, sizeof(struct repl_ack) == 16 &&
    offsetof(struct repl_ack, lsn) == 0 &&
    offsetof(struct repl_ack, status) == 8,
    "struct repl_ack is laid out otherwise in liblogship: delete the repl_ack.h of your own, or end #pragma pack");


/**
 * The header's version: major.
 */
#define LOGSHIP_VERSION_MAJOR 0

/**
 * The header's version: minor.
 */
#define LOGSHIP_VERSION_MINOR 1

/**
 * The header's version: patch.
 */
#define LOGSHIP_VERSION_PATCH 0

/**
 * Something failed and the caller got an error.
 */
#define LOGSHIP_LOG_ERROR 0

/**
 * Something was repaired, skipped or marked offline.
 */
#define LOGSHIP_LOG_WARN 1

/**
 * A milestone.
 */
#define LOGSHIP_LOG_INFO 2

/**
 * The quorum is counted over the configured followers.
 */
#define REPL_QUORUM_STRICT 0

/**
 * The quorum is counted over the followers online now, at least one.
 */
#define REPL_QUORUM_DEGRADE 1

/**
 * Not connected, not shipped to.
 */
#define REPL_FOLLOWER_OFFLINE 0

/**
 * Connected, and not caught up yet.
 */
#define REPL_FOLLOWER_CATCHING_UP 1

/**
 * Shipped to and counted on.
 */
#define REPL_FOLLOWER_ONLINE 2

/**
 * A log function: level (`LOGSHIP_LOG_*`), one line without a line feed, and the context given with it. It may be
 * called from any thread that is in a call of this library; the message is gone when it returns. A call on the same
 * object from inside it fails with EBUSY.
 */
typedef void (*logship_log_fn)(int level, const char *message, void *context);

/**
 * What is known of one follower.
 */
struct repl_follower_status {
    /**
     * One of `REPL_FOLLOWER_*`.
     */
    int state;
    /**
     * The highest LSN it has acknowledged on this connection.
     */
    uint64_t acked_lsn;
    /**
     * Records in the leader's log after that.
     */
    uint64_t lag_records;
    /**
     * Bytes of them.
     */
    uint64_t lag_bytes;
    /**
     * Milliseconds since it was last heard; -1 for never on this connection.
     */
    int64_t ms_since_heard;
    /**
     * Why it was marked offline last; "" for never.
     */
    char last_disconnect[96];
    /**
     * Why it needed a full resync (a snapshot) last; "" for never.
     */
    char last_full_resync[96];
    /**
     * Times it was marked offline.
     */
    uint64_t disconnects;
    /**
     * Catch-ups for which the log was enough.
     */
    uint64_t partial_resyncs;
    /**
     * Catch-ups that began with a snapshot.
     */
    uint64_t full_resyncs;
    /**
     * Catch-ups that were refused: ERANGE, ESTALE, ENODATA.
     */
    uint64_t refusals;
};

/**
 * Is told how far `repl_catch_up` has come: the follower's index, records and bytes sent so far, records to be sent,
 * and the context given with it. Called inside `repl_catch_up`, ten times a second and at its end.
 */
typedef void (*repl_progress_fn)(int follower,
                                 uint64_t records,
                                 uint64_t bytes,
                                 uint64_t total,
                                 void *context);

/**
 * What a compaction leaves in the log although the checkpoint covers it.
 */
struct logship_retention {
    /**
     * At least so many of the last records.
     */
    uint64_t records;
    /**
     * At least so many bytes of the last records.
     */
    uint64_t bytes;
    /**
     * What the slowest follower online has not acknowledged, if that is no more than so many bytes.
     */
    uint64_t follower_bytes;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library, "major.minor.patch": a constant. Compare it with LOGSHIP_VERSION, the header's.
 */
const char *logship_version(void);

/**
 * Sends every diagnostic to `function` from now on; NULL brings stderr back (errors and warnings only). The library
 * prints nothing else, and never to stdout.
 */
void logship_set_log(logship_log_fn function,
                     void *context);

/**
 * Sets this process's deadlines in milliseconds: of a whole send, and of a whole frame once its first byte has come
 * (both 5000 at first). 0 leaves one as it is; negative is EINVAL. Returns 0 or -1.
 */
int repl_set_timeouts(int send_ms,
                      int recv_ms);

/**
 * Sets where `repl_follower_rejoin` finds the leader (at first 127.0.0.1:7000). The host is copied. Returns 0, or -1
 * with `errno` EINVAL.
 */
int repl_set_leader(const char *host,
                    uint16_t port);

/**
 * Sets this process's node number, 1 to 255, which its acks carry so that a leader finds its slot (node n is
 * `followers[n - 1]`); 0 for none. With a number this process is a logship peer also where it receives with
 * `repl_receive_record`. Returns 0, or -1 with `errno` EINVAL.
 */
int logship_set_self(int node);

/**
 * Sets over whom the quorum is counted: REPL_QUORUM_STRICT or REPL_QUORUM_DEGRADE. Returns 0, or -1 with `errno`
 * EINVAL.
 */
int repl_set_quorum_policy(struct replication_config *config,
                           int policy);

/**
 * Whether the last successful `repl_wait_quorum` had fewer acks than the strict quorum: 1 or 0; -1 with `errno`
 * EINVAL.
 */
int repl_last_commit_degraded(const struct replication_config *config);

/**
 * Fills `*out` with what is known of follower `follower_index`. The lag is 0 when this process has no leader's log.
 * Returns 0, or -1 with `errno` EINVAL.
 */
int repl_get_follower_status(const struct replication_config *config,
                             int follower_index,
                             struct repl_follower_status *out);

/**
 * As `repl_receive_record`, and answers for the record itself: with status 0 once it is durable, cumulative and
 * marked, 1 if it came damaged, 2 if the log failed. The first call on a connection says so to the leader, with one
 * marked ack that counts for no record. Returns the same.
 */
int logship_follow(int fd,
                   struct wal_writer *writer,
                   struct kv_store *store);

/**
 * The LSN of the log's last record, which is the number of its records; 0 for an empty log. Of records that were
 * received and stored together, the last one that a receive has returned. -1 with `errno` EINVAL for NULL, EBADF for a
 * closed one.
 */
int64_t logship_last_lsn(const struct wal_writer *writer);

/**
 * Appends `count` records with one write and one fsync: all are durable when this returns 0, none is in the log when
 * it returns -1, with `errno` as `wal_append`. Memory grows with the encoded batch.
 */
int logship_append_batch(struct wal_writer *writer,
                         const struct wal_record *records,
                         size_t count);

/**
 * Begins what `repl_catch_up` does and returns at once: it goes on inside `repl_ship_record`, `repl_wait_quorum` and
 * `repl_catch_up_go_on`, beside the commits, and marks the follower online at its end. `repl_get_follower_status`
 * tells how far it is. Several followers may catch up at the same time. Returns 0, or -1 with `errno` as
 * `repl_catch_up`; that the follower's log is another one shows later: it is marked offline then. A snapshot, if one
 * is needed, is sent to its end first.
 */
int repl_catch_up_begin(struct replication_config *config,
                        int follower_index,
                        uint64_t follower_lsn);

/**
 * Goes on with the catch-ups that `repl_catch_up_begin` has begun, for at most `timeout_ms` (negative: to their end).
 * Returns how many go on still, or -1 with `errno` EINVAL.
 */
int repl_catch_up_go_on(struct replication_config *config,
                        int timeout_ms);

/**
 * Sets who is told how far catch-ups have come; NULL for nobody.
 */
void repl_set_progress(repl_progress_fn function, void *context);

/**
 * Drops the records of the log at `wal_path` that the checkpoint at `checkpoint_path` covers, except the last of them.
 * Returns how many were dropped (0: nothing to drop; at most INT_MAX), or -1 with `errno`: EBADMSG if the checkpoint
 * or the log is damaged, the checkpoint does not say which records it covers (a lesson's), or is not of this log;
 * ENOENT; what the file system says. The log is what it was then. The new file takes the old one's place with
 * rename(2), and a crash at any moment leaves one of the two; LSNs stay what they are (`<wal_path>.meta` keeps the
 * base). Writers of this process that have the log open go on in the new file; no other process may have it open.
 * Recover with `wal_recover_with_checkpoint` from now on. Takes the time of one pass over what stays.
 */
int logship_wal_compact(const char *wal_path,
                        const char *checkpoint_path);

/**
 * As `logship_wal_compact`, for the log of the leader `config`: it keeps what `keep` says (NULL: nothing), and counts
 * a follower's records by what it has acknowledged. A follower that falls behind the log's beginning needs the
 * checkpoint: see `repl_set_checkpoint`.
 */
int repl_compact(struct replication_config *config,
                 const char *checkpoint_path,
                 const struct logship_retention *keep);

/**
 * Drops every record after `lsn` from the log at `wal_path`; their bytes are kept in `<wal_path>.cut-N`. It is the way
 * out for a follower that is refused with ESTALE or ERANGE: cut its log back to a record that both have, and rejoin.
 * No store is changed: build it anew, and not from a checkpoint that covers what is cut. Returns 0, or -1 with
 * `errno`: ERANGE if the log does not have `lsn` (one record must stay of a log that was compacted), EBADMSG if it is
 * damaged, ENOENT, EINVAL. Writers of this process that have the log open go on at its new end.
 */
int logship_wal_truncate_to(const char *wal_path,
                            uint64_t lsn);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

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
LOGSHIP_LAYOUT(logship_repl_follower_status, sizeof(struct repl_follower_status) == 264 &&
    offsetof(struct repl_follower_status, state) == 0 &&
    offsetof(struct repl_follower_status, acked_lsn) == 8 &&
    offsetof(struct repl_follower_status, lag_records) == 16 &&
    offsetof(struct repl_follower_status, lag_bytes) == 24 &&
    offsetof(struct repl_follower_status, ms_since_heard) == 32 &&
    offsetof(struct repl_follower_status, last_disconnect) == 40 &&
    offsetof(struct repl_follower_status, last_full_resync) == 136 &&
    offsetof(struct repl_follower_status, disconnects) == 232 &&
    offsetof(struct repl_follower_status, partial_resyncs) == 240 &&
    offsetof(struct repl_follower_status, full_resyncs) == 248 &&
    offsetof(struct repl_follower_status, refusals) == 256,
    "struct repl_follower_status is laid out otherwise in liblogship: delete the logship.h of your own, or end #pragma pack");
LOGSHIP_LAYOUT(logship_logship_retention, sizeof(struct logship_retention) == 24 &&
    offsetof(struct logship_retention, records) == 0 &&
    offsetof(struct logship_retention, bytes) == 8 &&
    offsetof(struct logship_retention, follower_bytes) == 16,
    "struct logship_retention is laid out otherwise in liblogship: delete the logship.h of your own, or end #pragma pack");

#endif /* LOGSHIP_LOGSHIP_H */
