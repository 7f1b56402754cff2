/* The layouts, types, values and prototypes that a C program sees, each as the contract has it.
 *
 * Most of it is asserted by the compiler: the program does not build when the header differs. What the header cannot
 * show (does the library itself write where the header says?) is checked when it runs, through structs of our own. */
#include "harness.h"
#include "logship.h"
#include <pthread.h>
#include <stddef.h>

#define FIELD_TYPE(object, field, type) \
    _Static_assert(_Generic(&((object *)0)->field, type * : 1, default : 0), #object "." #field " is " #type)
#define FIELD(object, field, type, at) \
    FIELD_TYPE(object, field, type); \
    _Static_assert(offsetof(object, field) == (at), #object "." #field " at " #at); \
    _Static_assert(sizeof(((object *)0)->field) == sizeof(type), #object "." #field " has the size of " #type)
#define SIZE(object, size) _Static_assert(sizeof(object) == (size), #object " has " #size " bytes")
#define VALUE(name, value) _Static_assert((name) == (value), #name " is " #value)
#define PROTOTYPE(name, type) _Static_assert(_Generic(&name, type : 1, default : 0), #name " has the type " #type)

SIZE(struct kv_entry, 32);
FIELD(struct kv_entry, key, char *, 0);
FIELD(struct kv_entry, value, char *, 8);
FIELD(struct kv_entry, next, struct kv_entry *, 16);
FIELD(struct kv_entry, last_write_ts, uint64_t, 24);

SIZE(struct kv_store, 16 + sizeof(pthread_rwlock_t));
FIELD(struct kv_store, buckets, struct kv_entry **, 0);
FIELD(struct kv_store, num_buckets, int, 8);
FIELD(struct kv_store, lock, pthread_rwlock_t, 16);

SIZE(struct wal_record, 48);
FIELD(struct wal_record, op, uint8_t, 0);
FIELD(struct wal_record, key, char *, 8);
FIELD(struct wal_record, key_len, uint16_t, 16);
FIELD(struct wal_record, value, char *, 24);
FIELD(struct wal_record, value_len, uint16_t, 32);
FIELD(struct wal_record, crc, uint32_t, 36);
FIELD(struct wal_record, timestamp, uint64_t, 40);

SIZE(struct wal_writer, 16);
FIELD(struct wal_writer, fd, int, 0);
FIELD(struct wal_writer, offset, uint64_t, 8);

SIZE(struct repl_node, 24);
FIELD(struct repl_node, host, char *, 0);
FIELD(struct repl_node, port, uint16_t, 8);
FIELD(struct repl_node, fd, int, 12);
FIELD(struct repl_node, online, uint8_t, 16);

SIZE(struct replication_config, 224);
FIELD(struct replication_config, leader, struct repl_node, 0);
FIELD_TYPE(struct replication_config, followers[0], struct repl_node);
_Static_assert(offsetof(struct replication_config, followers) == 24, "followers at 24");
_Static_assert(sizeof(((struct replication_config *)0)->followers) == 8 * 24, "8 followers");
FIELD(struct replication_config, follower_count, int, 216);

SIZE(struct repl_ack, 16);
FIELD(struct repl_ack, lsn, uint64_t, 0);
FIELD(struct repl_ack, status, uint8_t, 8);

SIZE(struct repl_follower_status, 264);
FIELD(struct repl_follower_status, state, int, 0);
FIELD(struct repl_follower_status, acked_lsn, uint64_t, 8);
FIELD(struct repl_follower_status, lag_records, uint64_t, 16);
FIELD(struct repl_follower_status, lag_bytes, uint64_t, 24);
FIELD(struct repl_follower_status, ms_since_heard, int64_t, 32);
_Static_assert(offsetof(struct repl_follower_status, last_disconnect) == 40, "last_disconnect at 40");
_Static_assert(offsetof(struct repl_follower_status, last_full_resync) == 136, "last_full_resync at 136");
FIELD(struct repl_follower_status, disconnects, uint64_t, 232);
FIELD(struct repl_follower_status, partial_resyncs, uint64_t, 240);
FIELD(struct repl_follower_status, full_resyncs, uint64_t, 248);
FIELD(struct repl_follower_status, refusals, uint64_t, 256);
SIZE(struct logship_retention, 24);

VALUE(WAL_OP_SET, 1);
VALUE(WAL_OP_DEL, 2);
VALUE(CRC_MISMATCH, -2);
VALUE(WAL_RECORD_MAX, 131091);
VALUE(WAL_RECORD_MAX, 4 + 4 + 1 + 2 + 65535 + 2 + 65535 + 8); /* what the parts of the largest record come to */
VALUE(MAX_FOLLOWERS, 8);
VALUE(REPL_ACK_OK, 0);
VALUE(REPL_ACK_CRC_FAIL, 1);
VALUE(REPL_ACK_NOT_STORED, 2);
VALUE(SKIP, 0);
VALUE(APPLY, 1);
VALUE(REPL_QUORUM_STRICT, 0);
VALUE(REPL_QUORUM_DEGRADE, 1);
VALUE(LOGSHIP_LOG_ERROR, 0);
VALUE(LOGSHIP_LOG_WARN, 1);
VALUE(LOGSHIP_LOG_INFO, 2);
VALUE(REPL_FOLLOWER_OFFLINE, 0);
VALUE(REPL_FOLLOWER_CATCHING_UP, 1);
VALUE(REPL_FOLLOWER_ONLINE, 2);
VALUE(LOGSHIP_VERSION_MAJOR, 0);
VALUE(LOGSHIP_VERSION_MINOR, 1);
VALUE(LOGSHIP_VERSION_PATCH, 0);

PROTOTYPE(kv_store_set, int (*)(struct kv_store *, const char *, const char *));
PROTOTYPE(kv_store_get, char *(*)(const struct kv_store *, const char *));
PROTOTYPE(kv_store_del, int (*)(struct kv_store *, const char *));
PROTOTYPE(kv_store_destroy, void (*)(struct kv_store *));
PROTOTYPE(kv_hash, unsigned (*)(const char *, int));
PROTOTYPE(kv_store_count, int (*)(const struct kv_store *));
PROTOTYPE(kv_store_find, struct kv_entry *(*)(const struct kv_store *, const char *));
PROTOTYPE(kv_store_set_ts, int (*)(struct kv_store *, const char *, const char *, uint64_t));
PROTOTYPE(kv_store_apply, int (*)(struct kv_store *, const struct wal_record *));
PROTOTYPE(kv_store_init, int (*)(struct kv_store *));
PROTOTYPE(kv_store_init_sized, int (*)(struct kv_store *, int));
PROTOTYPE(crc32_init, void (*)(void));
PROTOTYPE(crc32, uint32_t (*)(const uint8_t *, size_t));
PROTOTYPE(wal_record_encode, int (*)(const struct wal_record *, uint8_t *, size_t));
PROTOTYPE(wal_record_decode, int (*)(const uint8_t *, size_t, struct wal_record *));
PROTOTYPE(wal_record_free, void (*)(struct wal_record *));
PROTOTYPE(wal_open, int (*)(struct wal_writer *, const char *));
PROTOTYPE(wal_open_path, struct wal_writer *(*)(const char *));
PROTOTYPE(wal_append, int (*)(struct wal_writer *, const struct wal_record *));
PROTOTYPE(wal_close, int (*)(struct wal_writer *));
PROTOTYPE(write_full, int (*)(int, const void *, size_t));
PROTOTYPE(read_full, ssize_t (*)(int, void *, size_t));
PROTOTYPE(wal_recover, int (*)(const char *, struct kv_store *));
PROTOTYPE(wal_checkpoint_write, int (*)(const struct kv_store *, const char *, uint64_t));
PROTOTYPE(wal_checkpoint_load, int (*)(const char *, struct kv_store *, uint64_t *));
PROTOTYPE(wal_recover_with_checkpoint, int (*)(const char *, const char *, struct kv_store *));
PROTOTYPE(repl_config_init, int (*)(struct replication_config *));
PROTOTYPE(repl_connect, int (*)(struct repl_node *));
PROTOTYPE(repl_listen, int (*)(struct repl_node *));
PROTOTYPE(repl_accept, int (*)(int));
PROTOTYPE(repl_set_keepalive, int (*)(int));
PROTOTYPE(repl_send_ack, int (*)(int, uint64_t, uint8_t));
PROTOTYPE(repl_recv_ack, int (*)(int, struct repl_ack *));
PROTOTYPE(send_full, int (*)(int, const void *, size_t));
PROTOTYPE(recv_full, int (*)(int, void *, size_t));
PROTOTYPE(repl_ship_record, int (*)(struct replication_config *, const uint8_t *, size_t));
PROTOTYPE(repl_receive_record, int (*)(int, struct wal_writer *, struct kv_store *));
PROTOTYPE(repl_wait_quorum, int (*)(struct replication_config *, uint64_t, int));
PROTOTYPE(repl_resolve_conflict, int (*)(uint64_t, uint64_t, const char *, const char *));
PROTOTYPE(repl_next_timestamp, uint64_t (*)(void));
PROTOTYPE(repl_follower_rejoin, int (*)(int, uint64_t));
PROTOTYPE(repl_read_rejoin, int (*)(int, uint64_t *));
PROTOTYPE(repl_accept_rejoin, int (*)(struct replication_config *, int, int *, uint64_t *));
PROTOTYPE(repl_catch_up, int (*)(struct replication_config *, int, uint64_t));
PROTOTYPE(repl_set_wal, int (*)(struct replication_config *, const char *));
PROTOTYPE(repl_set_checkpoint, int (*)(struct replication_config *, const char *));
PROTOTYPE(repl_heartbeat, int (*)(struct replication_config *, int));
PROTOTYPE(repl_set_timeouts, int (*)(int, int));
PROTOTYPE(repl_set_leader, int (*)(const char *, uint16_t));
PROTOTYPE(logship_set_self, int (*)(int));
PROTOTYPE(repl_set_quorum_policy, int (*)(struct replication_config *, int));
PROTOTYPE(repl_last_commit_degraded, int (*)(const struct replication_config *));
PROTOTYPE(logship_follow, int (*)(int, struct wal_writer *, struct kv_store *));
PROTOTYPE(logship_last_lsn, int64_t (*)(const struct wal_writer *));
PROTOTYPE(logship_append_batch, int (*)(struct wal_writer *, const struct wal_record *, size_t));
PROTOTYPE(logship_set_log, void (*)(logship_log_fn, void *));
PROTOTYPE(repl_get_follower_status, int (*)(const struct replication_config *, int, struct repl_follower_status *));
PROTOTYPE(logship_wal_compact, int (*)(const char *, const char *));
PROTOTYPE(logship_wal_truncate_to, int (*)(const char *, uint64_t));
PROTOTYPE(repl_compact, int (*)(struct replication_config *, const char *, const struct logship_retention *));
PROTOTYPE(repl_catch_up_begin, int (*)(struct replication_config *, int, uint64_t));
PROTOTYPE(repl_catch_up_go_on, int (*)(struct replication_config *, int));
PROTOTYPE(repl_set_progress, void (*)(repl_progress_fn, void *));
PROTOTYPE(logship_version, const char *(*)(void));

/* The lessons' structs, typed in again: what the library fills is read through these. */
struct lesson_entry { char *key; char *value; struct lesson_entry *next; uint64_t last_write_ts; };
struct lesson_store { struct lesson_entry **buckets; int num_buckets; pthread_rwlock_t lock; };
struct lesson_record { uint8_t op; char *key; uint16_t key_len; char *value; uint16_t value_len; uint32_t crc; uint64_t timestamp; };
struct lesson_writer { int fd; uint64_t offset; };
struct lesson_node { char *host; uint16_t port; int fd; uint8_t online; };
struct lesson_config { struct lesson_node leader; struct lesson_node followers[8]; int follower_count; };

/* The object lies at the end of a block full of a pattern; what stands behind it must not change. */
struct guarded { union { struct kv_store store; struct wal_writer writer; struct replication_config config;
                         struct wal_record record; } as; };
static unsigned char block[sizeof(struct guarded) + 64];
static void *guard(size_t size)
{
    memset(block, 0xA5, sizeof block);
    memset(block, 0, size);
    return block;
}
static int untouched(size_t size)
{
    for (size_t i = size; i < sizeof block; i++)
        if (block[i] != 0xA5)
            return 0;
    return 1;
}

static void store_is_written_where_the_header_says(void)
{
    struct kv_store *store = guard(sizeof *store);
    struct lesson_store view;
    REQUIRE(kv_store_init(store) == 0);
    CHECK(kv_store_set_ts(store, "foo", "bar", 0x1122334455667788u) == 0);
    memcpy(&view, store, sizeof view);
    REQUIRE(view.num_buckets > 0 && view.buckets != NULL);
    unsigned bucket = kv_hash("foo", view.num_buckets);
    REQUIRE(bucket < (unsigned)view.num_buckets);
    struct lesson_entry *entry = view.buckets[bucket];
    while (entry && strcmp(entry->key, "foo") != 0)
        entry = entry->next;
    REQUIRE(entry != NULL);
    CHECK(strcmp(entry->value, "bar") == 0);
    CHECK(entry->last_write_ts == 0x1122334455667788u);
    CHECK((void *)entry == (void *)kv_store_find(store, "foo"));
    CHECK(pthread_rwlock_tryrdlock(&store->lock) == 0 && pthread_rwlock_unlock(&store->lock) == 0);
    kv_store_destroy(store);
    CHECK(untouched(sizeof *store));
}
static void record_is_written_where_the_header_says(void)
{
    struct wal_record *record = guard(sizeof *record);
    struct lesson_record view, in = {.op = 1, .key = "foo", .key_len = 3, .value = "barbaz", .value_len = 6,
                                     .timestamp = 0x0102030405060708u};
    uint8_t bytes[64];
    int len = wal_record_encode((const struct wal_record *)(const void *)&in, bytes, sizeof bytes);
    REQUIRE(len == 8 + 1 + 2 + 3 + 2 + 6 + 8);
    CHECK(wal_record_decode(bytes, (size_t)len, record) == 0);
    memcpy(&view, record, sizeof view);
    CHECK(view.op == 1 && view.key_len == 3 && view.value_len == 6);
    CHECK(view.key && strcmp(view.key, "foo") == 0);
    CHECK(view.value && strcmp(view.value, "barbaz") == 0);
    CHECK(view.timestamp == 0x0102030405060708u);
    CHECK(view.crc == ((uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24));
    wal_record_free(record);
    CHECK(untouched(sizeof *record));
}
static void writer_is_written_where_the_header_says(void)
{
    struct wal_writer *writer = guard(sizeof *writer);
    struct lesson_writer view;
    struct wal_record record = {.op = WAL_OP_SET, .key = "foo", .key_len = 3, .value = "bar", .value_len = 3};
    struct stat st;
    REQUIRE(wal_open(writer, "abi.wal") == 0);
    CHECK(wal_append(writer, &record) == 0);
    memcpy(&view, writer, sizeof view);
    CHECK(fstat(view.fd, &st) == 0 && st.st_size == 27);
    CHECK_EQ(view.offset, 27);
    CHECK(wal_close(writer) == 0);
    memcpy(&view, writer, sizeof view);
    CHECK_EQ(view.fd, -1);
    CHECK(untouched(sizeof *writer));
}
static void config_is_written_where_the_header_says(void)
{
    struct replication_config *config = guard(sizeof *config);
    struct lesson_config view;
    CHECK(repl_config_init(config) == 0);
    memcpy(&view, config, sizeof view);
    CHECK_EQ(view.follower_count, 2);
    const struct lesson_node *nodes[] = {&view.leader, &view.followers[0], &view.followers[1]};
    for (int i = 0; i < 3; i++) {
        CHECK(nodes[i]->host && strcmp(nodes[i]->host, "127.0.0.1") == 0);
        CHECK_EQ(nodes[i]->port, 7000 + i);
        CHECK_EQ(nodes[i]->fd, -1);
        CHECK_EQ(nodes[i]->online, 0);
    }
    CHECK(untouched(sizeof *config));
}

int main(void)
{
    puts("sizes, offsets, types, values and prototypes: asserted by the compiler");
    CASE("struct kv_store and kv_entry as the library fills them", store_is_written_where_the_header_says);
    CASE("struct wal_record as the library reads and fills it", record_is_written_where_the_header_says);
    CASE("struct wal_writer as the library fills it", writer_is_written_where_the_header_says);
    CASE("struct replication_config as the library fills it", config_is_written_where_the_header_says);
    return own_end();
}
