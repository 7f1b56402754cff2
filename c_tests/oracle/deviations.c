/* The one table of what plain C knowingly does otherwise than logship (plain_c/README.md, "Left out"), and a small
 * program for each entry that shows it: the text that each library leaves is known, and a text that is another one
 * fails. So an entry can't excuse more than it says, and one that is no longer true must go. */
#include "oracle.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../own/wire.h"

typedef void show(const struct library *lib, char *text, size_t size);

static const char wal[] = "d.wal", ckpt[] = "d.ckpt";

static void append_to(const struct library *lib, const char *path, uint8_t op, const char *value, uint64_t timestamp)
{
    struct wal_writer writer;
    struct wal_record record = {.op = op, .key = (char[]){"k"}, .key_len = 1, .timestamp = timestamp};
    char copy[32];

    snprintf(copy, sizeof copy, "%s", value);
    record.value = copy;
    record.value_len = (uint16_t)strlen(copy);
    REQUIRE_THAT(lib->wal_open(&writer, path) == 0 && lib->wal_append(&writer, &record) == 0 &&
                 lib->wal_close(&writer) == 0);
}

static void show_entry(const struct library *lib, const struct kv_store *store, char *text, size_t size)
{
    const struct kv_entry *entry = lib->kv_store_find(store, "k");

    if (entry == NULL)
        snprintf(text, size, "absent");
    else
        snprintf(text, size, "%s at %llu", entry->value, (unsigned long long)entry->last_write_ts);
}

static void show_tombstone(const struct library *lib, char *text, size_t size)
{
    struct kv_store store;

    append_to(lib, wal, WAL_OP_DEL, "", 20);
    append_to(lib, wal, WAL_OP_SET, "older", 10);
    REQUIRE_THAT(lib->kv_store_init(&store) == 0 && lib->wal_recover(wal, &store) == 2);
    show_entry(lib, &store, text, size);
    lib->kv_store_destroy(&store);
}

static void write_checkpoint(const struct library *lib)
{
    struct kv_store store;

    REQUIRE_THAT(lib->kv_store_init(&store) == 0 && lib->kv_store_set_ts(&store, "k", "v", 5) == 0 &&
                 lib->wal_checkpoint_write(&store, ckpt, 0) == 0);
    lib->kv_store_destroy(&store);
}

static void show_loaded_stamp(const struct library *lib, char *text, size_t size)
{
    struct kv_store store;
    uint64_t offset;

    write_checkpoint(lib);
    REQUIRE_THAT(lib->kv_store_init(&store) == 0 && lib->wal_checkpoint_load(ckpt, &store, &offset) == 0);
    show_entry(lib, &store, text, size);
    lib->kv_store_destroy(&store);
}

static void show_stamps_file(const struct library *lib, char *text, size_t size)
{
    write_checkpoint(lib);
    /* Head, and one pair of a byte each: the checkpoint itself is the same. */
    REQUIRE_THAT(own_file_size(ckpt) == 16 + 3 + 3);
    snprintf(text, size, "%d beside it", remove_stamps());
}

static void show_order(const struct library *lib, char *text, size_t size)
{
    unsigned first = lib->kv_hash("a", 64), same = 1;

    /* Bernstein's hash puts neighbours side by side, another one hardly ever. */
    for (char c = 'b'; c <= 'h'; c++)
        same &= lib->kv_hash((char[]){c, '\0'}, 64) == (first + (unsigned)(c - 'a')) % 64;
    snprintf(text, size, "%s", same ? "Bernstein's hash" : "another hash");
}

static void show_flip(const struct library *lib, char *text, size_t size)
{
    struct kv_store store;
    uint8_t bytes[512];
    uint64_t offset;
    long len;

    write_checkpoint(lib);
    len = own_read_file(ckpt, bytes, sizeof bytes);
    REQUIRE_THAT(len >= 22);
    bytes[21] ^= 1; /* the value */
    REQUIRE_THAT(own_write_file(ckpt, bytes, (size_t)len) == 0 && lib->kv_store_init(&store) == 0);
    errno = 0;
    if (lib->wal_checkpoint_load(ckpt, &store, &offset) == 0)
        snprintf(text, size, "loaded");
    else
        snprintf(text, size, "errno %s", strerrorname_np(errno));
    lib->kv_store_destroy(&store);
}

static void show_nul_key(const struct library *lib, char *text, size_t size)
{
    struct kv_store store;
    uint8_t log[128];
    size_t len = own_encode(log, 1, "k\0a", 3, "one", 3, 0, 1);

    len += own_encode(log + len, 1, "k\0b", 3, "two", 3, 0, 1);
    REQUIRE_THAT(own_write_file(wal, log, len) == 0 && lib->kv_store_init(&store) == 0);
    REQUIRE_THAT(lib->wal_recover(wal, &store) == 2);
    snprintf(text, size, "%d keys", lib->kv_store_count(&store));
    lib->kv_store_destroy(&store);
}

static void show_heartbeat_answer(const struct library *lib, char *text, size_t size)
{
    struct wal_writer writer;
    struct kv_store store;
    uint8_t answer[16];
    int fd, peer;

    REQUIRE_THAT(own_pair(&peer, &fd, 0) == 0 && own_put_all(peer, "\0\0\0\0", 4) == 0);
    REQUIRE_THAT(shutdown(peer, SHUT_WR) == 0);
    REQUIRE_THAT(lib->kv_store_init(&store) == 0 && lib->wal_open(&writer, wal) == 0);
    REQUIRE_THAT(lib->repl_receive_record(fd, &writer, &store) == -1 && own_get(peer, answer, 16));
    snprintf(text, size, "%s", memcmp(answer + 9, "LSHP", 4) == 0 ? "marked" : "not marked");
    REQUIRE_THAT(lib->wal_close(&writer) == 0);
    lib->kv_store_destroy(&store);
    close(fd);
    close(peer);
}

static void one_follower(const struct library *lib, struct replication_config *config, int *peer)
{
    REQUIRE_THAT(lib->repl_config_init(config) == 0);
    config->follower_count = 1;
    REQUIRE_THAT(own_pair(&config->followers[0].fd, peer, 0) == 0);
    config->followers[0].online = 1;
}

static void end_follower(struct replication_config *config, int peer)
{
    if (config->followers[0].fd >= 0)
        close(config->followers[0].fd);
    close(peer);
}

static void show_four_bytes(const struct library *lib, char *text, size_t size)
{
    static struct replication_config config;
    int peer;
    pid_t child;

    one_follower(lib, &config, &peer);
    child = own_fork();
    if (child == 0) {
        char beat[4];

        _exit(own_get(peer, beat, 4) && own_put_all(peer, "\0\0\0\0", 4) == 0 ? 0 : 1);
    }
    snprintf(text, size, "%d answered", lib->repl_heartbeat(&config, 300));
    REQUIRE_THAT(own_reap(child) == 0);
    end_follower(&config, peer);
}

static void show_ack_above(const struct library *lib, char *text, size_t size)
{
    static struct replication_config config;
    int peer;

    append_to(lib, wal, WAL_OP_SET, "v", 1);
    one_follower(lib, &config, &peer);
    REQUIRE_THAT(lib->repl_set_wal(&config, wal) == 0 && own_send_ack(peer, 2, 0, 0) == 0 &&
                 own_settle(config.followers[0].fd, 16));
    errno = 0;
    snprintf(text, size, "%s", lib->repl_wait_quorum(&config, 2, 50) == 0 ? "counts" : strerrorname_np(errno));
    end_follower(&config, peer);
}

static void show_log_opened(const struct library *lib, char *text, size_t size)
{
    static struct replication_config config;
    struct wal_writer writer;
    int peer, rc;

    append_to(lib, wal, WAL_OP_SET, "v", 1);
    one_follower(lib, &config, &peer);
    REQUIRE_THAT(lib->wal_open(&writer, wal) == 0);
    errno = 0;
    rc = lib->repl_catch_up(&config, 0, 0);
    snprintf(text, size, "%d %s", rc, rc < 0 ? strerrorname_np(errno) : "shipped");
    REQUIRE_THAT(lib->wal_close(&writer) == 0);
    end_follower(&config, peer);
}

static void show_shipped_twice(const struct library *lib, char *text, size_t size)
{
    static struct replication_config config;
    uint8_t record[64];
    size_t len = own_set(record, "k", "v", 1);
    int peer;

    append_to(lib, wal, WAL_OP_SET, "v", 1);
    one_follower(lib, &config, &peer);
    REQUIRE_THAT(lib->repl_set_wal(&config, wal) == 0 && lib->repl_catch_up(&config, 0, 0) == 1);
    REQUIRE_THAT(lib->repl_ship_record(&config, record, len) == 1);
    close(config.followers[0].fd);
    config.followers[0].fd = -1;
    REQUIRE_THAT(own_await(peer, POLLRDHUP));
    snprintf(text, size, "sent %d times", own_pending(peer) / (int)(len + 4));
    end_follower(&config, peer);
}

static void show_growth(const struct library *lib, char *text, size_t size)
{
    struct kv_store store;
    int before;

    REQUIRE_THAT(lib->kv_store_init(&store) == 0);
    before = store.num_buckets;
    for (int i = 0; i < 2000; i++) {
        char key[16];

        snprintf(key, sizeof key, "%d", i);
        REQUIRE_THAT(lib->kv_store_set(&store, key, "v") == 0);
    }
    snprintf(text, size, "%s", store.num_buckets > before ? "grows" : "stays");
    lib->kv_store_destroy(&store);
}

static void show_size(const struct library *lib, char *text, size_t size)
{
    struct wal_record record = {.op = 1, .key = (char[]){"k"}, .key_len = 1};
    uint8_t bytes[64];

    snprintf(text, size, "%d", lib->wal_record_encode(&record, bytes, SIZE_MAX));
}

static void show_not_stored(const struct library *lib, char *text, size_t size)
{
    static struct replication_config config;
    uint8_t record[64];
    size_t len = own_set(record, "k", "v", 1);
    int peer;

    one_follower(lib, &config, &peer);
    REQUIRE_THAT(lib->repl_ship_record(&config, record, len) == 1 && own_frame_is(peer, record, len));
    REQUIRE_THAT(own_send_ack(peer, 1, REPL_ACK_NOT_STORED, 0) == 0 && own_settle(config.followers[0].fd, 16));
    REQUIRE_THAT(lib->repl_wait_quorum(&config, 1, 20) == -1);
    len = own_set(record, "k", "w", 2);
    REQUIRE_THAT(lib->repl_ship_record(&config, record, len) == 1);
    snprintf(text, size, "%s", own_frame_is(peer, record, len) ? "the next record" : "the same record");
    end_follower(&config, peer);
}

static const struct known {
    const char *name, *reason;
    show *run;
    const char *logship, *plain;
} table[DEVIATIONS] = {
    [TOMBSTONES] = {"tombstones", "the lessons know none: plain C forgets a deleted key, an older SET revives it",
                    show_tombstone, "absent", "older at 10"},
    [CHECKPOINT_STAMPS] = {"timestamps in checkpoints", "the lesson's checkpoint has no room for them",
                           show_loaded_stamp, "v at 5", "v at 0"},
    [STAMPS_FILE] = {"the stamps file beside a checkpoint", "it is logship's own", show_stamps_file, "1 beside it",
                     "0 beside it"},
    [CHECKPOINT_ORDER] = {"the order of pairs in a checkpoint", "it is that of the table, and so of the hash",
                          show_order, "another hash", "Bernstein's hash"},
    [CHECKPOINT_CRC] = {"bits that flip in a checkpoint", "the lesson's checkpoint has no checksum", show_flip,
                        "errno EBADMSG", "loaded"},
    [NUL_IN_KEY] = {"keys with a NUL inside", "plain C's keys are C strings", show_nul_key, "2 keys", "1 keys"},
    [HEARTBEAT_ANSWER] = {"the mark in the answer to a heartbeat", "by it logship knows logship",
                          show_heartbeat_answer, "marked", "not marked"},
    [HEARTBEAT_FOUR_BYTES] = {"four bytes as the answer to a heartbeat",
                              "logship takes those of lesson 1's follower too, plain C only acks", show_four_bytes,
                              "1 answered", "0 answered"},
    [ACK_ABOVE_LOG] = {"an ack above the end of the leader's log", "plain C does not look at its log for it",
                       show_ack_above, "ETIMEDOUT", "counts"},
    [LEADER_LOG_OPENED] = {"the log that this process has opened", "plain C needs repl_set_wal, or leader.wal",
                           show_log_opened, "1 shipped", "-1 ENOENT"},
    [SHIPPED_BY_CATCH_UP] = {"a record that catch-up has sent", "plain C ships it once more", show_shipped_twice,
                             "sent 1 times", "sent 2 times"},
    [TABLE_GROWS] = {"a table that grows", "plain C is the naive baseline", show_growth, "grows", "stays"},
    [NO_SUCH_SIZE] = {"a buffer larger than memory", "logship takes it for an impossible argument", show_size,
                      "-1", "22"},
    [NOT_STORED] = {"an ack with status 2", "it is logship's own: the record is sent again before the next one",
                    show_not_stored, "the same record", "the next record"},
};

/* Bodies run in processes of their own. */
static unsigned long *uses;

void deviations_begin(void)
{
    uses = mmap(NULL, DEVIATIONS * sizeof *uses, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE_THAT(uses != MAP_FAILED);
}

void let_through(enum deviation deviation)
{
    uses[deviation]++;
}

static int holds(const struct known *known, const struct library *lib, const char *expected)
{
    char text[80] = "";

    unlink(wal);
    unlink(ckpt);
    known->run(lib, text, sizeof text);
    if (strcmp(text, expected) == 0)
        return 1;
    printf("    %s, %s: %s, but the table says %s\n", known->name, lib->name, text, expected);
    fflush(stdout);
    return 0;
}

int deviations_hold(void)
{
    int hold = 1;

    for (int i = 0; i < DEVIATIONS; i++) {
        /* The same text twice would be no deviation. */
        hold &= strcmp(table[i].logship, table[i].plain) != 0;
        hold &= holds(&table[i], &logship_library, table[i].logship);
        hold &= holds(&table[i], &plain_library, table[i].plain);
    }
    return hold;
}

void deviations_print(void)
{
    printf("Known deviations, and how often a round stayed away from one or left it out:\n");
    for (int i = 0; i < DEVIATIONS; i++)
        printf("  %7lu  %s: %s\n", uses[i], table[i].name, table[i].reason);
}
