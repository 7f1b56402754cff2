#ifndef LOGSHIP_W11_REPL_SHIP_H
#define LOGSHIP_W11_REPL_SHIP_H


/* Generated from src/capi by `make headers`: change it there. */

#include <stddef.h>
#include <stdint.h>

#include "../w09/kv_store.h"
#include "../w10/wal_record.h"
#include "../w10/wal_writer.h"
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
LOGSHIP_LAYOUT(repl_ship_kv_store, sizeof(struct kv_store) == 72 &&
    offsetof(struct kv_store, buckets) == 0 &&
    offsetof(struct kv_store, num_buckets) == 8 &&
    offsetof(struct kv_store, lock) == 16,
    "struct kv_store is laid out otherwise in liblogship: delete the kv_store.h of your own, or end #pragma pack");
LOGSHIP_LAYOUT(repl_ship_wal_writer, sizeof(struct wal_writer) == 16 &&
    offsetof(struct wal_writer, fd) == 0 &&
    offsetof(struct wal_writer, offset) == 8,
    "struct wal_writer is laid out otherwise in liblogship: delete the wal_writer.h of your own, or end #pragma pack");
LOGSHIP_LAYOUT(repl_ship_repl_node, sizeof(struct repl_node) == 24 &&
    offsetof(struct repl_node, host) == 0 &&
    offsetof(struct repl_node, port) == 8 &&
    offsetof(struct repl_node, fd) == 12 &&
    offsetof(struct repl_node, online) == 16,
    "struct repl_node is laid out otherwise in liblogship: delete the repl_config.h of your own, or end #pragma pack");
LOGSHIP_LAYOUT(repl_ship_replication_config, sizeof(struct replication_config) == 224 &&
    offsetof(struct replication_config, leader) == 0 &&
    offsetof(struct replication_config, followers) == 24 &&
    offsetof(struct replication_config, follower_count) == 216,
    "struct replication_config is laid out otherwise in liblogship: delete the repl_config.h of your own, or end #pragma pack");


#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Sends all `len` bytes. Returns 0, or -1 with `errno`: EPIPE or ECONNRESET if the peer is gone, ETIMEDOUT after the
 * send deadline (5 s unless `repl_set_timeouts`), EINVAL for NULL. Some bytes may be out then. Never raises SIGPIPE.
 */
int send_full(int fd,
              const void *buf,
              size_t len);

/**
 * Receives exactly `len` bytes. Returns 0, or -1 with `errno`: ENOTCONN if the peer closed before all came, ETIMEDOUT
 * if the rest did not come within the receive deadline of the first byte, EINVAL for NULL. Acks that were read early
 * come first. Waits for the first byte as long as TCP says that the peer lives.
 */
int recv_full(int fd,
              void *buf,
              size_t len);

/**
 * Ships one encoded record to every follower with `online` 1, to all of them at the same time. Its content is not
 * looked at. Returns how many got it (0 is no error); -1 with `errno` EINVAL for bad arguments only. A follower that
 * has hung up, fails, or has not taken the whole frame within the send deadline (5 s unless `repl_set_timeouts`) is
 * marked offline: its acks are kept, its socket closed, `fd` -1, one log line. A logship follower that takes no more
 * now is not waited for: it gets the rest from the log in later calls. Blocks at most for that deadline.
 */
int repl_ship_record(struct replication_config *config,
                     const uint8_t *encoded_buf,
                     size_t encoded_len);

/**
 * Receives one record: stores it in the log (fsync) and applies it by the conflict rule. Returns 0 then, also if the
 * rule skipped it; `CRC_MISMATCH` (-2) if it came damaged: nothing is stored and the stream is still in step; -1 with
 * `errno` if not: ENOTCONN the leader closed in order, ETIMEDOUT, EPROTO a frame that can't be, ESTALE this log is not
 * a part of the leader's, or the log's own (nothing stored). Sends no ack: the caller does, with `repl_send_ack(fd,
 * logship_last_lsn(writer), 0)`, or status 1 and the next LSN after CRC_MISMATCH. Heartbeats and control messages are
 * answered inside. Waits for a frame's first byte as long as TCP says that the leader lives, then 5 s for the whole
 * frame.
 */
int repl_receive_record(int fd,
                        struct wal_writer *writer,
                        struct kv_store *store);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif /* LOGSHIP_W11_REPL_SHIP_H */
