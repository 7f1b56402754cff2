/* Arguments that can't be right: every function with NULL and impossible values. The same result, the same errno. */
#include "oracle.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../own/wire.h"

/* Says also whether the call has changed what it was given. */
#define TRACE_UNCHANGED(trace, object, call)                                                              \
    do {                                                                                                  \
        char before_[sizeof(object)];                                                                     \
        memcpy(before_, &(object), sizeof(object));                                                       \
        TRACE((trace), call);                                                                             \
        trace_say((trace), "%s", memcmp(before_, &(object), sizeof(object)) == 0 ? "unchanged" : "changed"); \
    } while (0)

static void store_arguments(const struct library *lib, struct trace *trace)
{
    struct kv_store store, zero;

    memset(&zero, 0, sizeof zero);
    TRACE(trace, lib->kv_store_init(NULL));
    REQUIRE_THAT(lib->kv_store_init(&store) == 0 && lib->kv_store_set_ts(&store, "a", "b", 3) == 0);
    TRACE(trace, lib->kv_store_set(NULL, "a", "b"));
    TRACE(trace, lib->kv_store_set(&store, NULL, "b"));
    TRACE(trace, lib->kv_store_set(&store, "a", NULL));
    TRACE_UNCHANGED(trace, zero, lib->kv_store_set(&zero, "a", "b"));
    TRACE(trace, lib->kv_store_set_ts(NULL, "a", "b", 1));
    TRACE(trace, lib->kv_store_set_ts(&store, NULL, "b", 1));
    TRACE(trace, lib->kv_store_set_ts(&store, "a", NULL, 1));
    TRACE(trace, (errno = 0, lib->kv_store_get(NULL, "a") == NULL) ? errno : -99);
    TRACE(trace, (errno = 0, lib->kv_store_get(&store, NULL) == NULL) ? errno : -99);
    TRACE(trace, (errno = 0, lib->kv_store_get(&zero, "a") == NULL) ? errno : -99);
    TRACE(trace, (errno = 0, lib->kv_store_get(&store, "absent") == NULL) ? errno : -99);
    TRACE(trace, (errno = 0, lib->kv_store_find(NULL, "a") == NULL) ? errno : -99);
    TRACE(trace, (errno = 0, lib->kv_store_find(&store, NULL) == NULL) ? errno : -99);
    TRACE(trace, lib->kv_store_del(NULL, "a"));
    TRACE(trace, lib->kv_store_del(&store, NULL));
    TRACE(trace, lib->kv_store_del(&zero, "a"));
    trace_say(trace, "errno %d", errno);
    TRACE(trace, lib->kv_store_count(NULL));
    TRACE(trace, lib->kv_store_count(&zero));
    trace_say(trace, "errno %d", errno);
    TRACE(trace, (errno = 0, lib->kv_hash(NULL, 8)) == 0 ? errno : -99);
    TRACE(trace, (errno = 0, lib->kv_hash("a", 0)) == 0 ? errno : -99);
    TRACE(trace, (errno = 0, lib->kv_hash("a", -5)) == 0 ? errno : -99);
    errno = 0;
    lib->kv_store_destroy(NULL);
    lib->kv_store_destroy(&zero);
    trace_say(trace, "errno %d", errno);
    trace_store(trace, lib, &store, 1);
    lib->kv_store_destroy(&store);
}

static void record_arguments(const struct library *lib, struct trace *trace)
{
    uint8_t bytes[64];
    struct wal_record good = {.op = 1, .key = (char[]){"k"}, .key_len = 1, .value = (char[]){"v"}, .value_len = 1};
    struct wal_record record = good;
    int len = lib->wal_record_encode(&good, bytes, sizeof bytes);

    TRACE(trace, lib->wal_record_encode(NULL, bytes, sizeof bytes));
    TRACE(trace, lib->wal_record_encode(&good, NULL, sizeof bytes));
    TRACE(trace, lib->wal_record_encode(&good, bytes, 0));
    TRACE(trace, lib->wal_record_encode(&good, bytes, (size_t)len - 1));
    TRACE(trace, lib->wal_record_encode(&good, bytes, (size_t)len));
    let_through(NO_SUCH_SIZE);
    record.op = 0;
    TRACE(trace, lib->wal_record_encode(&record, bytes, sizeof bytes));
    record.op = 2;
    record.value = NULL; /* a DEL has none */
    TRACE(trace, lib->wal_record_encode(&record, bytes, sizeof bytes));
    record.op = 1;
    TRACE(trace, lib->wal_record_encode(&record, bytes, sizeof bytes));
    record.value_len = 0;
    TRACE(trace, lib->wal_record_encode(&record, bytes, sizeof bytes));
    record = (struct wal_record){0};
    TRACE(trace, lib->wal_record_decode(NULL, 30, &record));
    TRACE(trace, lib->wal_record_decode(NULL, 0, &record));
    TRACE(trace, lib->wal_record_decode(bytes, sizeof bytes, NULL));
    TRACE(trace, lib->wal_record_decode(bytes, 0, &record));
    lib->wal_record_free(NULL);
    lib->wal_record_free(&record);
    lib->wal_record_free(&record);
    TRACE(trace, lib->crc32(NULL, 0));
}

static void log_arguments(const struct library *lib, struct trace *trace)
{
    struct wal_record good = {.op = 1, .key = (char[]){"k"}, .key_len = 1, .value = (char[]){"v"}, .value_len = 1};
    struct wal_writer writer = {.fd = -1}, shut = {.fd = -1};
    struct kv_store store, zero;
    uint64_t offset = 5;
    char byte[1] = {0};

    memset(&zero, 0, sizeof zero);
    REQUIRE_THAT(lib->kv_store_init(&store) == 0);
    TRACE(trace, lib->wal_open(NULL, "x.wal"));
    TRACE(trace, lib->wal_open(&writer, NULL));
    TRACE(trace, lib->wal_open(&writer, "no/such/directory.wal"));
    TRACE(trace, lib->wal_open(&writer, "."));
    TRACE(trace, lib->wal_open(&writer, ""));
    TRACE(trace, lib->wal_append(NULL, &good));
    TRACE(trace, lib->wal_append(&shut, &good));
    TRACE(trace, lib->wal_append(&shut, NULL));
    TRACE(trace, lib->wal_close(NULL));
    TRACE(trace, lib->wal_close(&shut));
    REQUIRE_THAT(lib->wal_open(&writer, "x.wal") == 0);
    TRACE(trace, lib->wal_append(&writer, NULL));
    TRACE(trace, lib->wal_append(&writer, &(struct wal_record){0}));
    trace_say(trace, "offset %llu", (unsigned long long)writer.offset);
    TRACE(trace, lib->wal_recover(NULL, &store));
    TRACE(trace, lib->wal_recover("x.wal", NULL));
    TRACE(trace, lib->wal_recover("x.wal", &zero));
    TRACE(trace, lib->wal_recover("x.wal", &store));
    TRACE(trace, lib->wal_recover("no.wal", &store));
    TRACE(trace, lib->wal_recover(".", &store));
    TRACE(trace, lib->wal_checkpoint_write(NULL, "x.ckpt", 0));
    TRACE(trace, lib->wal_checkpoint_write(&store, NULL, 0));
    TRACE(trace, lib->wal_checkpoint_write(&zero, "x.ckpt", 0));
    TRACE(trace, lib->wal_checkpoint_write(&store, "no/such/directory.ckpt", 0));
    TRACE(trace, lib->wal_checkpoint_load(NULL, &store, &offset));
    TRACE(trace, lib->wal_checkpoint_load("x.ckpt", NULL, &offset));
    TRACE(trace, lib->wal_checkpoint_load("x.ckpt", &zero, &offset));
    TRACE(trace, lib->wal_checkpoint_load("x.ckpt", &store, NULL));
    TRACE_UNCHANGED(trace, offset, lib->wal_checkpoint_load("x.ckpt", &store, &offset));
    TRACE(trace, lib->wal_recover_with_checkpoint(NULL, "x.ckpt", &store));
    TRACE(trace, lib->wal_recover_with_checkpoint("x.wal", NULL, &store));
    TRACE(trace, lib->wal_recover_with_checkpoint("x.wal", "x.ckpt", NULL));
    TRACE(trace, lib->wal_recover_with_checkpoint("x.wal", "x.ckpt", &zero));
    TRACE(trace, lib->wal_recover_with_checkpoint("x.wal", "x.ckpt", &store));
    TRACE(trace, lib->wal_recover_with_checkpoint("no.wal", "x.ckpt", &store));
    TRACE(trace, lib->write_full(-1, byte, 1));
    TRACE(trace, lib->write_full(writer.fd, NULL, 1));
    TRACE(trace, lib->write_full(writer.fd, NULL, 0));
    TRACE(trace, lib->read_full(-1, byte, 1));
    TRACE(trace, lib->read_full(writer.fd, NULL, 1));
    TRACE(trace, lib->read_full(writer.fd, byte, 1));
    TRACE(trace, lib->wal_close(&writer));
    /* Values that a checkpoint can't hold. */
    static char big[65537];
    memset(big, 'v', 65536);
    REQUIRE_THAT(lib->kv_store_set(&store, "k", big) == 0);
    TRACE(trace, lib->wal_checkpoint_write(&store, "x.ckpt", 0));
    big[65535] = '\0';
    REQUIRE_THAT(lib->kv_store_set(&store, "k", big) == 0);
    TRACE(trace, lib->wal_checkpoint_write(&store, "x.ckpt", 0));
    lib->kv_store_destroy(&store);
    trace_directory(trace);
}

static void say_config(struct trace *trace, const struct replication_config *config)
{
    trace_say(trace, "leader %s:%u fd %d online %u, %d followers", config->leader.host, config->leader.port,
              config->leader.fd, config->leader.online, config->follower_count);
    for (int i = 0; i < config->follower_count; i++)
        trace_say(trace, "%s:%u fd %d online %u", config->followers[i].host, config->followers[i].port,
                  config->followers[i].fd, config->followers[i].online);
    for (int i = config->follower_count; i < MAX_FOLLOWERS; i++)
        trace_say(trace, "not used: fd %d online %u", config->followers[i].fd, config->followers[i].online);
}

static void cluster_arguments(const struct library *lib, struct trace *trace)
{
    static const int counts[] = {-1, INT_MIN, MAX_FOLLOWERS + 1, INT_MAX};
    static struct replication_config config;
    struct repl_node node;
    struct wal_writer writer;
    struct kv_store store;
    uint8_t record[64];
    size_t len = own_set(record, "k", "v", 1);

    memset(&config, 0x5A, sizeof config);
    TRACE(trace, lib->repl_config_init(NULL));
    TRACE(trace, lib->repl_config_init(&config));
    say_config(trace, &config);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        config.follower_count = counts[i];
        TRACE_UNCHANGED(trace, config, lib->repl_ship_record(&config, record, len));
        TRACE_UNCHANGED(trace, config, lib->repl_wait_quorum(&config, 1, 10));
        TRACE_UNCHANGED(trace, config, lib->repl_heartbeat(&config, 10));
        TRACE_UNCHANGED(trace, config, lib->repl_catch_up(&config, 0, 0));
    }
    config.follower_count = 2;
    TRACE(trace, lib->repl_ship_record(NULL, record, len));
    TRACE(trace, lib->repl_ship_record(&config, NULL, len));
    TRACE(trace, lib->repl_ship_record(&config, record, 0));
    TRACE(trace, lib->repl_ship_record(&config, record, (size_t)WAL_RECORD_MAX + 1));
    TRACE(trace, lib->repl_ship_record(&config, record, SIZE_MAX));
    TRACE(trace, lib->repl_ship_record(&config, record, len));
    TRACE(trace, lib->repl_wait_quorum(NULL, 1, 10));
    TRACE(trace, lib->repl_wait_quorum(&config, 0, 10));
    TRACE(trace, lib->repl_wait_quorum(&config, 1, 10));
    TRACE(trace, lib->repl_wait_quorum(&config, 1, -1));
    config.follower_count = 0;
    TRACE(trace, lib->repl_wait_quorum(&config, 1, 10));
    TRACE(trace, lib->repl_ship_record(&config, record, len));
    TRACE(trace, lib->repl_heartbeat(&config, 10));
    config.follower_count = 2;
    TRACE(trace, lib->repl_heartbeat(NULL, 10));
    TRACE(trace, lib->repl_heartbeat(&config, 0));
    TRACE(trace, lib->repl_set_wal(NULL, "x.wal"));
    TRACE(trace, lib->repl_set_wal(&config, NULL));
    TRACE(trace, lib->repl_set_wal(&config, ""));
    TRACE(trace, lib->repl_catch_up(NULL, 0, 0));
    TRACE_UNCHANGED(trace, config, lib->repl_catch_up(&config, -1, 0));
    TRACE_UNCHANGED(trace, config, lib->repl_catch_up(&config, 2, 0));
    TRACE_UNCHANGED(trace, config, lib->repl_catch_up(&config, MAX_FOLLOWERS, 0));
    TRACE(trace, lib->repl_catch_up(&config, 1, 0));
    TRACE(trace, lib->repl_read_rejoin(0, NULL));

    TRACE(trace, lib->repl_connect(NULL));
    TRACE(trace, lib->repl_listen(NULL));
    node = (struct repl_node){.host = NULL, .port = 1, .fd = -1};
    TRACE_UNCHANGED(trace, node, lib->repl_connect(&node));
    TRACE_UNCHANGED(trace, node, lib->repl_listen(&node));

    REQUIRE_THAT(lib->kv_store_init(&store) == 0 && lib->wal_open(&writer, "y.wal") == 0);
    TRACE(trace, lib->repl_receive_record(-1, NULL, &store));
    TRACE(trace, lib->repl_receive_record(-1, &writer, NULL));
    TRACE(trace, lib->repl_recv_ack(-1, NULL));
    TRACE(trace, lib->wal_close(&writer));
    lib->kv_store_destroy(&store);
}

void bad_arguments(const struct library *lib, struct trace *trace, struct rng *rng)
{
    (void)rng;
    store_arguments(lib, trace);
    record_arguments(lib, trace);
    log_arguments(lib, trace);
    cluster_arguments(lib, trace);
}

/* One thing that is no connection, given to everything that wants one. */
static void try_descriptor(const struct library *lib, struct trace *trace, const char *what, int fd)
{
    struct wal_writer writer;
    struct kv_store store;
    struct repl_ack ack;
    uint64_t lsn = 9;
    char bytes[8] = {0};

    trace_say(trace, "%s", what);
    REQUIRE_THAT(lib->kv_store_init(&store) == 0 && lib->wal_open(&writer, "z.wal") == 0);
    TRACE(trace, lib->send_full(fd, bytes, 8));
    TRACE(trace, lib->send_full(fd, NULL, 8));
    TRACE(trace, lib->recv_full(fd, NULL, 8));
    TRACE(trace, lib->recv_full(fd, bytes, 8));
    TRACE(trace, lib->repl_send_ack(fd, 1, 0));
    TRACE(trace, lib->repl_recv_ack(fd, &ack));
    TRACE(trace, lib->repl_receive_record(fd, &writer, &store));
    TRACE(trace, lib->repl_read_rejoin(fd, &lsn));
    TRACE(trace, lib->repl_set_keepalive(fd));
    TRACE(trace, lib->repl_accept(fd));
    if (fd != -1) /* -1 means another thing there */
        TRACE(trace, lib->repl_follower_rejoin(fd, 1));
    trace_say(trace, "lsn %llu, still open %d", (unsigned long long)lsn, fcntl(fd, F_GETFD) >= 0);
    REQUIRE_THAT(lib->wal_close(&writer) == 0);
    lib->kv_store_destroy(&store);
}

/* In a slot of a leader: the follower is offline afterwards, and the descriptor, not being a connection, is left
 * alone. */
static void try_slot(const struct library *lib, struct trace *trace, const char *what, int fd)
{
    static struct replication_config config;
    uint8_t record[64];
    size_t len = own_set(record, "k", "v", 1);

    trace_say(trace, "a slot with %s", what);
    REQUIRE_THAT(lib->repl_config_init(&config) == 0);
    config.follower_count = 1;
    config.followers[0].fd = fd;
    config.followers[0].online = 1;
    TRACE(trace, lib->repl_ship_record(&config, record, len));
    trace_say(trace, "fd %d online %u", config.followers[0].fd, config.followers[0].online);
    config.followers[0].fd = fd;
    config.followers[0].online = 1;
    TRACE(trace, lib->repl_wait_quorum(&config, 1, 20));
    config.followers[0].fd = fd;
    config.followers[0].online = 1;
    TRACE(trace, lib->repl_heartbeat(&config, 20));
    trace_say(trace, "still open %d", fcntl(fd, F_GETFD) >= 0);
}

void bad_descriptors(const struct library *lib, struct trace *trace, struct rng *rng)
{
    int file = open("f", O_RDWR | O_CREAT | O_CLOEXEC, 0600), one, two, closed_number;
    uint16_t port;
    struct repl_node node = {.host = (char[]){"127.0.0.1"}, .fd = -1};

    (void)rng;
    /* A number that nothing will take: far above what the libraries open meanwhile. */
    closed_number = 900;
    REQUIRE_THAT(file >= 0 && fcntl(closed_number, F_GETFD) < 0);
    try_descriptor(lib, trace, "-1", -1);
    try_descriptor(lib, trace, "a closed number", closed_number);
    try_descriptor(lib, trace, "a file", file);
    try_slot(lib, trace, "a closed number", closed_number);
    try_slot(lib, trace, "a file", file);
    close(file);

    /* A peer that has gone: everything but sending sees the end of the stream. */
    REQUIRE_THAT(own_pair(&one, &two, 0) == 0);
    close(two);
    REQUIRE_THAT(own_await(one, POLLRDHUP));
    {
        struct repl_ack ack;
        uint64_t lsn;
        char bytes[4];

        TRACE(trace, lib->recv_full(one, bytes, 4));
        TRACE(trace, lib->repl_recv_ack(one, &ack));
        TRACE(trace, lib->repl_read_rejoin(one, &lsn));
    }
    close(one);

    /* Nobody listens: the port is free, because it was a moment ago. */
    one = own_listen(&port);
    REQUIRE_THAT(one >= 0);
    close(one);
    node.port = port;
    TRACE_UNCHANGED(trace, node, lib->repl_connect(&node));
    node.port = 0;
    one = lib->repl_listen(&node);
    REQUIRE_THAT(one >= 0);
    trace_say(trace, "port written back %d, fd %d", node.port != 0, node.fd);
    TRACE_UNCHANGED(trace, node, lib->repl_listen(&node));
    close(one);
    /* A name that no resolver can know. */
    node.host = (char[]){"no-name-has-a-part-of-more-than-sixty-three-letters-which-this-one-has"};
    TRACE(trace, lib->repl_connect(&node));
}
