/* Which of the course's functions does the library itself call? A file of plain_c is linked with this program in
 * logship's place, compiled with -finstrument-functions; its functions and this program's stand in sections of their
 * own, so a call that comes from neither comes from the library.
 *
 *   reach NAME...   runs one log, one checkpoint, one receive and one rejoin; fails unless the library called each NAME
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "logship.h"

#define QUIET __attribute__((no_instrument_function))

void __cyg_profile_func_enter(void *function, void *call_site) QUIET;
void __cyg_profile_func_exit(void *function, void *call_site) QUIET;

extern const char __start_reach_text[], __stop_reach_text[], __start_plain_text[], __stop_plain_text[];

static const void *called[256];
static size_t called_count;

QUIET static int is_between(const void *at, const char *first, const char *past)
{
    return (const char *)at >= first && (const char *)at < past;
}

void __cyg_profile_func_enter(void *function, void *call_site)
{
    if (is_between(call_site, __start_reach_text, __stop_reach_text) ||
        is_between(call_site, __start_plain_text, __stop_plain_text))
        return;
    for (size_t i = 0; i < called_count; i++)
        if (called[i] == function)
            return;
    if (called_count < sizeof called / sizeof called[0])
        called[called_count++] = function;
}

void __cyg_profile_func_exit(void *function, void *call_site)
{
    (void)function;
    (void)call_site;
}

#define MUST(condition)                                                                              \
    do {                                                                                             \
        if (!(condition)) {                                                                          \
            fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #condition, strerror(errno));            \
            exit(2);                                                                                 \
        }                                                                                            \
    } while (0)

static struct wal_record set(char *key, char *value, uint64_t timestamp)
{
    struct wal_record record = {.op = WAL_OP_SET, .key = key, .value = value, .timestamp = timestamp};

    record.key_len = (uint16_t)strlen(key);
    record.value_len = (uint16_t)strlen(value);
    return record;
}

static void append(struct wal_writer *writer, char *key, char *value, uint64_t timestamp)
{
    struct wal_record record = set(key, value, timestamp);

    MUST(wal_append(writer, &record) == 0);
}

/* A connection over loopback: the accepted end, and in *other the one that connected. */
static int connect_pair(int *other, int listener, struct repl_node *at)
{
    int accepted;

    MUST(repl_connect(at) == 0);
    *other = at->fd;
    accepted = repl_accept(listener);
    MUST(accepted >= 0);
    return accepted;
}

static void run_log(void)
{
    struct wal_writer writer;
    struct kv_store store;
    uint64_t offset;

    MUST(wal_open(&writer, "leader.wal") == 0);
    append(&writer, "a", "1", 10);
    append(&writer, "b", "2", 20);
    append(&writer, "a", "3", 30);
    MUST(kv_store_init(&store) == 0);
    MUST(wal_recover("leader.wal", &store) == 3);
    MUST(strcmp(kv_store_get(&store, "a"), "3") == 0);
    MUST(wal_checkpoint_write(&store, "a.ckpt", writer.offset) == 0);
    kv_store_destroy(&store);
    MUST(kv_store_init(&store) == 0);
    MUST(wal_checkpoint_load("a.ckpt", &store, &offset) == 0 && offset == writer.offset);
    MUST(strcmp(kv_store_get(&store, "b"), "2") == 0);
    kv_store_destroy(&store);
    MUST(kv_store_init(&store) == 0);
    MUST(wal_recover_with_checkpoint("leader.wal", "none.ckpt", &store) == 3);
    kv_store_destroy(&store);
    MUST(wal_close(&writer) == 0);
}

/* What no lesson's program does, but some do: the other names, and a DEL. */
static void run_rest(void)
{
    struct wal_record records[2] = {set("a", "1", 10), set("a", "", 20)};
    struct wal_writer *writer = wal_open("rest.wal");
    struct kv_store store;

    records[1].op = WAL_OP_DEL;
    MUST(writer != NULL && logship_append_batch(writer, records, 2) == 0 && wal_close(writer) == 0);
    MUST(kv_store_init_sized(&store, 16) == 0);
    MUST(wal_recover("rest.wal", &store) == 2 && kv_store_get(&store, "a") == NULL);
    MUST(wal_checkpoint(&store, "rest.ckpt", 0) == 0);
    kv_store_destroy(&store);
}

static void run_receive(int to_leader, int to_follower, struct wal_writer *writer, struct kv_store *store)
{
    struct replication_config config;
    struct wal_record record = set("a", "1", 10); /* The log's first: what follows is its future. */
    uint8_t bytes[64];
    int len = wal_record_encode(&record, bytes, sizeof bytes);

    MUST(repl_config_init(&config) == 0);
    config.follower_count = 1;
    config.followers[0].fd = to_follower;
    config.followers[0].online = 1;
    MUST(len > 0 && repl_ship_record(&config, bytes, (size_t)len) == 1);
    MUST(repl_receive_record(to_leader, writer, store) == 0);
    MUST(strcmp(kv_store_get(store, "a"), "3") == 0);
    MUST(repl_send_ack(to_leader, 1, REPL_ACK_OK) == 0);
    MUST(repl_wait_quorum(&config, 1, 2000) == 0);
}

static void run_rejoin(int listener, struct repl_node *leader, struct wal_writer *writer, struct kv_store *store)
{
    struct replication_config config;
    int fd, dead[2], index = 0;
    uint64_t lsn;

    MUST(repl_config_init(&config) == 0);
    config.follower_count = 1;
    MUST(repl_set_leader(leader->host, leader->port) == 0);
    MUST(repl_set_wal(&config, "leader.wal") == 0);
    /* A connection whose other end is closed: a new one is made. */
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, dead) == 0 && close(dead[1]) == 0);
    fd = dead[0];
    MUST(repl_follower_rejoin(fd, 1) == 0);
    MUST(repl_accept_rejoin(&config, listener, &index, &lsn) == 0 && index == 0 && lsn == 1);
    MUST(repl_catch_up(&config, 0, lsn) == 2);
    MUST(repl_receive_record(fd, writer, store) == 0);
    MUST(repl_receive_record(fd, writer, store) == 0);
    MUST(close(fd) == 0 && close(config.followers[0].fd) == 0);
}

static void remove_all(const char *pattern)
{
    glob_t found;

    MUST(glob(pattern, 0, NULL, &found) == 0);
    for (size_t i = 0; i < found.gl_pathc; i++)
        MUST(unlink(found.gl_pathv[i]) == 0);
    globfree(&found);
}

int main(int argc, char **argv)
{
    struct repl_node node = {.host = "127.0.0.1", .port = 0, .fd = -1, .online = 0};
    struct wal_writer writer;
    struct kv_store store;
    char directory[] = "/tmp/logship-reach-XXXXXX";
    int listener, to_leader, to_follower, missing = 0;

    MUST(mkdtemp(directory) != NULL && chdir(directory) == 0);
    alarm(30);
    run_log();
    run_rest();
    listener = repl_listen(&node);
    MUST(listener >= 0);
    MUST(kv_store_init(&store) == 0 && wal_open(&writer, "follower.wal") == 0);
    MUST(kv_store_set_ts(&store, "a", "3", 30) == 0);
    to_follower = connect_pair(&to_leader, listener, &node);
    run_receive(to_leader, to_follower, &writer, &store);
    run_rejoin(listener, &node, &writer, &store);
    MUST(close(to_leader) == 0 && close(to_follower) == 0 && close(listener) == 0);
    MUST(wal_close(&writer) == 0);
    kv_store_destroy(&store);
    remove_all("*.wal");
    remove_all("*.ckpt*"); /* what our library keeps beside a checkpoint too */
    MUST(chdir("/") == 0 && rmdir(directory) == 0);

    for (int i = 1; i < argc; i++) {
        const void *function = dlsym(RTLD_DEFAULT, argv[i]);
        size_t at = 0;

        MUST(function != NULL);
        while (at < called_count && called[at] != function)
            at++;
        if (at == called_count) {
            fprintf(stderr, "the library has not called %s\n", argv[i]);
            missing++;
        }
    }
    return missing > 0;
}
