#ifndef LOGSHIP_COMPAT_H
#define LOGSHIP_COMPAT_H

/* Names that programs use which were written from the lessons, and that the lessons leave open. Optional: no other
 * header includes this one. A program that has one of these names itself says `#define NAME NAME` above the include, or
 * defines its macro there, and gets none of ours. */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "logship.h"

/* What calls that return 0 return. */
#ifndef WAL_OK
#define WAL_OK 0
#endif

/* Where repl_catch_up looks for the log if nobody has named or opened one. */
#ifndef LEADER_WAL_PATH
#define LEADER_WAL_PATH "leader.wal"
#endif
#ifndef REPL_LEADER_WAL
#define REPL_LEADER_WAL "leader.wal"
#endif

/* Bytes of a record's [crc32:4][length:4]. */
#ifndef WAL_HEADER_SIZE
#define WAL_HEADER_SIZE 8
#endif

/* Bytes of the smallest record (a DEL of one byte, without time stamp) and of the largest. */
#ifndef WAL_MIN_RECORD
#define WAL_MIN_RECORD 14
#endif
#ifndef WAL_MAX_RECORD
#define WAL_MAX_RECORD WAL_RECORD_MAX
#endif

/* Bytes of an ack on the wire. */
#ifndef REPL_ACK_SIZE
#define REPL_ACK_SIZE 16
#endif

/* Buckets of a fresh store. */
#ifndef KV_DEFAULT_BUCKETS
#define KV_DEFAULT_BUCKETS 64
#endif

/* What repl_wait_quorum returns; errno tells ETIMEDOUT from ENOTCONN. */
#ifndef REPL_QUORUM_OK
#define REPL_QUORUM_OK 0
#endif
#ifndef REPL_QUORUM_TIMEOUT
#define REPL_QUORUM_TIMEOUT (-1)
#endif

/* Bytes that wal_record_encode writes for this record. */
#ifndef wal_record_size
static inline size_t wal_record_size(const struct wal_record *record)
{
    size_t value_len = record->op == WAL_OP_DEL ? 0 : record->value_len;

    return 8 + 1 + 2 + (size_t)record->key_len + 2 + value_len + 8;
}
#endif

/* How many followers make a quorum; the leader does not count. */
#ifndef repl_quorum_size
static inline int repl_quorum_size(const struct replication_config *config)
{
    return config->follower_count / 2 + 1;
}
#endif

/* Closes the node's connection: it is not shipped to any more, until a rejoin. Acks that are still unread are lost. */
#ifndef repl_mark_offline
static inline void repl_mark_offline(struct repl_node *node)
{
    if (node->fd >= 0)
        (void)close(node->fd);
    node->fd = -1;
    node->online = 0;
}
#endif
#ifndef repl_disconnect
static inline void repl_disconnect(struct repl_node *node)
{
    if (node->fd >= 0)
        (void)close(node->fd);
    node->fd = -1;
    node->online = 0;
}
#endif

/* wal_recover of an open log, from its beginning, wherever the descriptor stands, which stays there. It needs /proc, and
 * a log that was compacted needs its path: wal_recover. */
#ifndef wal_replay
static inline int wal_replay(int fd, struct kv_store *store)
{
    char path[40];

    (void)sprintf(path, "/proc/self/fd/%d", fd);
    return wal_recover(path, store);
}
#endif

/* A clock in nanoseconds that never shows the same twice: repl_next_timestamp. */
#ifndef repl_now_ns
static inline uint64_t repl_now_ns(void)
{
    return repl_next_timestamp();
}
#endif

#endif /* LOGSHIP_COMPAT_H */
