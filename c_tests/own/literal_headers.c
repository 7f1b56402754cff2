/* A program that has none of our headers, only the lessons' text: it declares structs and functions itself, const where
 * a lesson writer thought of it and not where he did not, crc32 under its own name. It runs the rejoin lesson with
 * followers in processes of their own. Static link only: there `crc32` exists, weak, beside `logship_crc32`. */
#include "wire.h"
#include <pthread.h>

#define MAX_FOLLOWERS 8
#define CRC_MISMATCH (-2)
enum wal_op { WAL_OP_SET = 1, WAL_OP_DEL = 2 };
struct kv_entry { char *key; char *value; struct kv_entry *next; uint64_t last_write_ts; };
struct kv_store { struct kv_entry **buckets; int num_buckets; pthread_rwlock_t lock; };
struct wal_record { uint8_t op; char *key; uint16_t key_len; char *value; uint16_t value_len; uint32_t crc; uint64_t timestamp; };
struct wal_writer { int fd; uint64_t offset; };
struct repl_node { char *host; uint16_t port; int fd; uint8_t online; };
struct replication_config { struct repl_node leader; struct repl_node followers[MAX_FOLLOWERS]; int follower_count; };
struct repl_ack { uint64_t lsn; uint8_t status; };

int kv_store_init(struct kv_store *store);
int kv_store_set(struct kv_store *store, char *key, char *value);
char *kv_store_get(struct kv_store *store, char *key);
int kv_store_del(struct kv_store *store, char *key);
void kv_store_destroy(struct kv_store *store);
void crc32_init(void);
uint32_t crc32(uint8_t *data, size_t len);
int wal_record_encode(struct wal_record *record, uint8_t *buffer, size_t buf_size);
int wal_record_decode(uint8_t *buffer, size_t len, struct wal_record *record);
void wal_record_free(struct wal_record *record);
int wal_open(struct wal_writer *writer, char *path);
int wal_append(struct wal_writer *writer, struct wal_record *record);
int wal_close(struct wal_writer *writer);
int wal_recover(char *path, struct kv_store *store);
int wal_checkpoint_write(struct kv_store *store, char *checkpoint_path, uint64_t wal_offset);
int wal_checkpoint_load(char *checkpoint_path, struct kv_store *store, uint64_t *wal_offset_out);
int repl_config_init(struct replication_config *config);
int repl_connect(struct repl_node *node);
int send_full(int fd, void *buf, size_t len);
int recv_full(int fd, void *buf, size_t len);
int repl_ship_record(struct replication_config *config, uint8_t *encoded_buf, size_t encoded_len);
int repl_receive_record(int fd, struct wal_writer *writer, struct kv_store *store);
int repl_wait_quorum(struct replication_config *config, uint64_t lsn, int timeout_ms);
int repl_resolve_conflict(uint64_t existing_ts, uint64_t incoming_ts, char *existing_val, char *incoming_val);
int repl_follower_rejoin(int leader_fd, uint64_t last_applied_lsn);
int repl_catch_up(struct replication_config *config, int follower_index, uint64_t follower_lsn);

static void make(struct wal_record *record, char *key, char *value, int n)
{
    memset(record, 0, sizeof *record);
    sprintf(key, "key-%d", n);
    sprintf(value, "value-%d", n);
    record->op = WAL_OP_SET;
    record->key = key;
    record->key_len = (uint16_t)strlen(key);
    record->value = value;
    record->value_len = (uint16_t)strlen(value);
    record->timestamp = (uint64_t)(1000 + n);
}
static int has_keys(struct kv_store *store, int from, int to)
{
    char key[32], value[32];
    struct wal_record record;
    for (int i = from; i <= to; i++) {
        make(&record, key, value, i);
        if (!kv_store_get(store, key) || strcmp(kv_store_get(store, key), value) != 0)
            return 0;
    }
    return 1;
}

static void codec_and_log(void)
{
    uint8_t buffer[256], digits[] = "123456789";
    char key[32], value[32];
    struct wal_record record, back;
    struct wal_writer writer;
    struct kv_store store, loaded;
    uint64_t offset = 0;
    crc32_init();
    CHECK_EQ(crc32(digits, 9), 0xCBF43926u);
    record = (struct wal_record){.op = WAL_OP_SET, .key = "foo", .key_len = 3, .value = "bar", .value_len = 3};
    CHECK_EQ(wal_record_encode(&record, buffer, sizeof buffer), 27);
    CHECK_EQ(wal_record_decode(buffer, 27, &back), 0);
    CHECK(strcmp(back.key, "foo") == 0 && strcmp(back.value, "bar") == 0);
    wal_record_free(&back);
    buffer[12] ^= 1;
    CHECK_EQ(wal_record_decode(buffer, 27, &back), CRC_MISMATCH);
    REQUIRE(wal_open(&writer, "literal.wal") == 0);
    for (int i = 1; i <= 4; i++) {
        make(&record, key, value, i);
        CHECK_EQ(wal_append(&writer, &record), 0);
    }
    CHECK_EQ(writer.offset, own_file_size("literal.wal"));
    CHECK_EQ(wal_close(&writer), 0);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_recover("literal.wal", &store), 4);
    CHECK(has_keys(&store, 1, 4));
    CHECK_EQ(kv_store_set(&store, "mine", "1"), 0);
    CHECK_EQ(kv_store_del(&store, "mine"), 1);
    CHECK_EQ(kv_store_del(&store, "mine"), 0);
    CHECK_EQ(wal_checkpoint_write(&store, "literal.ckpt", 77), 0);
    REQUIRE(kv_store_init(&loaded) == 0);
    CHECK_EQ(wal_checkpoint_load("literal.ckpt", &loaded, &offset), 0);
    CHECK_EQ(offset, 77);
    CHECK(has_keys(&loaded, 1, 4));
    CHECK_EQ(repl_resolve_conflict(100, 200, "old", "new"), 1);
    CHECK_EQ(repl_resolve_conflict(200, 100, "new", "old"), 0);
    CHECK_EQ(repl_resolve_conflict(100, 100, "aaa", "zzz"), 1);
    kv_store_destroy(&loaded);
    kv_store_destroy(&store);
}

/* Receives records from..to and acks each with a struct whose padding is rubbish, as a stack variable's is. */
static void receive(int fd, struct wal_writer *writer, struct kv_store *store, int from, int to)
{
    for (int i = from; i <= to; i++) {
        struct repl_ack ack;
        memset(&ack, 0x5A, sizeof ack);
        REQUIRE(repl_receive_record(fd, writer, store) == 0);
        ack.lsn = (uint64_t)i;
        ack.status = 0;
        REQUIRE(send_full(fd, &ack, sizeof ack) == 0);
    }
}
/* A follower's first life: it listens, says where, takes the leader's connection and `records` records, and is gone. */
static pid_t follower(char *wal, int records, uint16_t *port)
{
    int pipefd[2];
    REQUIRE(pipe(pipefd) == 0);
    pid_t pid = own_fork();
    if (pid == 0) {
        struct wal_writer writer;
        struct kv_store store;
        int listener = own_listen(port), fd;
        REQUIRE(listener >= 0 && write(pipefd[1], port, sizeof *port) == sizeof *port);
        REQUIRE(kv_store_init(&store) == 0 && wal_open(&writer, wal) == 0);
        fd = accept(listener, NULL, NULL);
        receive(fd, &writer, &store, 1, records);
        CHECK(has_keys(&store, 1, records));
        wal_close(&writer);
        kv_store_destroy(&store);
        own_leave();
    }
    CHECK(read(pipefd[0], port, sizeof *port) == sizeof *port);
    close(pipefd[0]);
    close(pipefd[1]);
    return pid;
}
/* Its second life: what it has is in its log; it connects to the leader, says so, and takes the rest. */
static pid_t follower_again(char *wal, int have, int records, uint16_t leader_port)
{
    pid_t pid = own_fork();
    if (pid == 0) {
        struct wal_writer writer;
        struct kv_store store;
        REQUIRE(kv_store_init(&store) == 0);
        REQUIRE(wal_recover(wal, &store) == have);
        REQUIRE(wal_open(&writer, wal) == 0);
        int fd = own_connect(leader_port, 0);
        REQUIRE(fd >= 0 && repl_follower_rejoin(fd, (uint64_t)have) == 0);
        receive(fd, &writer, &store, have + 1, records);
        CHECK(has_keys(&store, 1, records));
        CHECK(own_at_eof(fd));
        wal_close(&writer);
        kv_store_destroy(&store);
        close(fd);
        own_leave();
    }
    return pid;
}
static int write_and_ship(struct replication_config *config, struct wal_writer *writer, int n)
{
    char key[32], value[32];
    uint8_t buffer[256];
    struct wal_record record;
    make(&record, key, value, n);
    int len = wal_record_encode(&record, buffer, sizeof buffer);
    if (len <= 0 || wal_append(writer, &record) != 0)
        return -1;
    return repl_ship_record(config, buffer, (size_t)len);
}

static void rejoin_lesson(void)
{
    struct replication_config config;
    struct wal_writer writer;
    uint16_t ports[2], leader_port = 0;
    pid_t pids[2];
    int leader = own_listen(&leader_port);
    uint8_t message[8], want[8] = {0, 0, 0, 0, 0, 0, 0, 5}, log[4096];
    pids[0] = follower("f1.wal", 11, &ports[0]);
    pids[1] = follower("f2.wal", 5, &ports[1]);
    REQUIRE(repl_config_init(&config) == 0);
    CHECK_EQ(config.follower_count, 2);
    for (int i = 0; i < 2; i++) {
        config.followers[i].port = ports[i];
        REQUIRE(repl_connect(&config.followers[i]) == 0);
        CHECK(config.followers[i].online == 1);
    }
    REQUIRE(wal_open(&writer, "leader.wal") == 0);
    for (int i = 1; i <= 5; i++) {
        CHECK_EQ(write_and_ship(&config, &writer, i), 2);
        CHECK_EQ(repl_wait_quorum(&config, (uint64_t)i, 5000), 0);
    }
    CHECK_EQ(own_reap(pids[1]), 0); /* follower-2 is gone, and its socket closed with it */
    if (config.followers[1].fd >= 0)
        CHECK(own_await(config.followers[1].fd, POLLRDHUP));
    for (int i = 6; i <= 10; i++) {
        CHECK_EQ(write_and_ship(&config, &writer, i), 1);
        CHECK_EQ(config.followers[1].online, 0);
        CHECK_EQ(repl_wait_quorum(&config, (uint64_t)i, 5000), -1); /* 1 of 2, Q = 2: stored, not committed */
        CHECK_EQ(config.followers[0].online, 1);
    }
    pids[1] = follower_again("f2.wal", 5, 11, leader_port);
    int fd = accept(leader, NULL, NULL);
    REQUIRE(fd >= 0 && recv_full(fd, message, sizeof message) == 0);
    CHECK(memcmp(message, want, sizeof want) == 0);
    config.followers[1].fd = fd;
    CHECK_EQ(repl_catch_up(&config, 1, 5), 5);
    CHECK_EQ(config.followers[1].online, 1);
    for (uint64_t lsn = 6; lsn <= 10; lsn++) { /* the acks for the caught-up records, and no other, are here to be read */
        struct repl_ack ack = {0, 9};
        REQUIRE(recv_full(fd, &ack, sizeof ack) == 0);
        CHECK_EQ(ack.lsn, lsn);
        CHECK_EQ(ack.status, 0);
    }
    CHECK_EQ(write_and_ship(&config, &writer, 11), 2);
    CHECK_EQ(repl_wait_quorum(&config, 11, 5000), 0);
    for (int i = 0; i < 2; i++)
        close(config.followers[i].fd);
    CHECK_EQ(wal_close(&writer), 0);
    CHECK_EQ(own_reap(pids[0]), 0);
    CHECK_EQ(own_reap(pids[1]), 0);
    long size = own_read_file("leader.wal", log, sizeof log);
    CHECK(size > 0 && own_file_is("f1.wal", log, (size_t)size) && own_file_is("f2.wal", log, (size_t)size));
}

int main(void)
{
    CASE("codec, log, recovery, checkpoint and conflict through the lesson's own declarations", codec_and_log);
    CASE("the rejoin lesson through the lesson's own declarations", rejoin_lesson);
    return own_end();
}
