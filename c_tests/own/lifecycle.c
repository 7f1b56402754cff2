/* What a process may do around the library: fork in the middle of writing, two threads with their own objects, a hundred
 * followers killed and started again, and at the end as many descriptors as at the beginning. */
#include "wire.h"
#include "logship.h"
#include <pthread.h>

static void quiet(int level, const char *message, void *context)
{
    (void)level, (void)message, (void)context;
}
static struct wal_record numbered(char *key, char *value, const char *prefix, int n)
{
    sprintf(key, "%s%d", prefix, n);
    sprintf(value, "value%d", n);
    return (struct wal_record){.op = WAL_OP_SET, .key = key, .key_len = (uint16_t)strlen(key), .value = value,
                               .value_len = (uint16_t)strlen(value), .timestamp = (uint64_t)(1000 + n)};
}
static int append(struct wal_writer *writer, const char *prefix, int n)
{
    char key[32], value[32];
    struct wal_record record = numbered(key, value, prefix, n);
    return wal_append(writer, &record);
}
/* A log of exactly these records, and a store of theirs. */
static int log_is(const char *path, const char *const *prefixes, const int *counts, int kinds)
{
    struct kv_store store;
    char key[32], value[32];
    int total = 0, good = kv_store_init(&store) == 0, got = good ? wal_recover(path, &store) : -1;
    for (int kind = 0; kind < kinds && good; kind++) {
        for (int n = 0; n < counts[kind]; n++) {
            numbered(key, value, prefixes[kind], n);
            good &= kv_store_get(&store, key) && strcmp(kv_store_get(&store, key), value) == 0;
        }
        total += counts[kind];
    }
    good &= got == total && kv_store_count(&store) == total;
    if (!good)
        NOTE("%s: %d records, want %d", path, got, total);
    kv_store_destroy(&store);
    return good;
}

static void one_log_by_turns(void)
{
    struct wal_writer writer, copy;
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    int parents = 0, children = 0;
    for (; parents < 3; parents++)
        CHECK_EQ(append(&writer, "parent", parents), 0);
    for (int round = 0; round < 5; round++) {
        pid_t pid = own_fork();
        if (pid == 0) {
            CHECK_EQ(logship_last_lsn(&writer), parents + children);
            CHECK_EQ(append(&writer, "child", children), 0);
            CHECK_EQ(append(&writer, "child", children + 1), 0);
            CHECK_EQ(logship_last_lsn(&writer), parents + children + 2);
            CHECK_EQ(wal_close(&writer), 0); /* its own descriptor: the parent's stays open */
            own_leave();
        }
        CHECK_EQ(own_reap(pid), 0);
        children += 2;
        CHECK_EQ(logship_last_lsn(&writer), parents + children); /* the parent sees what the child wrote */
        for (int i = 0; i < 2; i++, parents++)
            CHECK_EQ(append(&writer, "parent", parents), 0);
        CHECK_EQ(logship_last_lsn(&writer), parents + children);
    }
    copy = writer; /* a struct that was copied or filled by hand works too */
    CHECK_EQ(append(&copy, "parent", parents++), 0);
    CHECK_EQ(logship_last_lsn(&writer), parents + children);
    struct wal_writer by_hand = {.fd = open("x.wal", O_WRONLY | O_APPEND), .offset = (uint64_t)own_file_size("x.wal")};
    CHECK_EQ(append(&by_hand, "parent", parents++), 0);
    CHECK_EQ(logship_last_lsn(&by_hand), parents + children);
    CHECK_EQ(wal_close(&by_hand), 0);
    CHECK_EQ(wal_close(&writer), 0);
    CHECK(log_is("x.wal", (const char *const[]){"parent", "child"}, (const int[]){parents, children}, 2));
}
static void different_logs_after_fork(void)
{
    struct wal_writer before, mine;
    struct kv_store store;
    REQUIRE(wal_open(&before, "before.wal") == 0 && kv_store_init(&store) == 0);
    CHECK_EQ(append(&before, "before", 0), 0);
    CHECK_EQ(kv_store_set(&store, "shared", "at the fork"), 0);
    pid_t pid = own_fork();
    const char *name = pid == 0 ? "child.wal" : "parent.wal", *prefix = pid == 0 ? "child" : "parent";
    if (pid == 0)
        CHECK_EQ(wal_close(&before), 0);
    REQUIRE(wal_open(&mine, name) == 0); /* in the child likely under the number that `before` had */
    for (int n = 0; n < 50; n++) {
        CHECK_EQ(append(&mine, prefix, n), 0);
        CHECK_EQ(kv_store_set(&store, prefix, n % 2 ? "odd" : "even"), 0);
    }
    CHECK_EQ(logship_last_lsn(&mine), 50);
    CHECK(strcmp(kv_store_get(&store, "shared"), "at the fork") == 0);
    CHECK_EQ(kv_store_count(&store), 2);
    CHECK_EQ(wal_close(&mine), 0);
    CHECK(log_is(name, &prefix, (const int[]){50}, 1));
    kv_store_destroy(&store);
    if (pid == 0)
        own_leave();
    CHECK_EQ(append(&before, "before", 1), 0);
    CHECK_EQ(logship_last_lsn(&before), 2);
    CHECK_EQ(wal_close(&before), 0);
    CHECK_EQ(own_reap(pid), 0);
    CHECK(log_is("before.wal", (const char *const[]){"before"}, (const int[]){2}, 1));
}
/* The number of a closed log's descriptor is given to another log: nothing of the first is remembered for the second. */
static void numbers_used_again(void)
{
    struct wal_writer writer;
    char name[16];
    for (int n = 0; n < 20; n++) {
        sprintf(name, "n%d.wal", n);
        REQUIRE(wal_open(&writer, name) == 0);
        CHECK_EQ(writer.offset, 0);
        CHECK_EQ(logship_last_lsn(&writer), 0);
        for (int i = 0; i <= n; i++)
            CHECK_EQ(append(&writer, "k", i), 0);
        CHECK_EQ(logship_last_lsn(&writer), n + 1);
        if (n % 2)
            CHECK_EQ(wal_close(&writer), 0);
        else
            close(writer.fd); /* behind the library's back */
        CHECK(log_is(name, (const char *const[]){"k"}, (const int[]){n + 1}, 1));
    }
}

/* One thread's own world: store, log, checkpoint, a connection with both ends. */
static void *own_world(void *name)
{
    struct wal_writer leader, follower;
    struct kv_store store, theirs;
    struct replication_config config;
    char key[32], value[32], path[32];
    uint8_t bytes[256];
    uint64_t offset;
    long failures = 0;
    int peer;
#define NEED(cond) (failures += !(cond))
    snprintf(path, sizeof path, "%s-leader.wal", (const char *)name);
    NEED(wal_open(&leader, path) == 0);
    NEED(repl_config_init(&config) == 0);
    NEED(repl_set_wal(&config, path) == 0);
    snprintf(path, sizeof path, "%s-follower.wal", (const char *)name);
    NEED(wal_open(&follower, path) == 0 && kv_store_init(&store) == 0 && kv_store_init(&theirs) == 0);
    config.follower_count = 1;
    config.followers[0].host = "127.0.0.1";
    NEED(own_pair(&config.followers[0].fd, &peer, 0) == 0);
    config.followers[0].online = 1;
    for (int n = 0; n < 200 && failures == 0; n++) {
        struct wal_record record = numbered(key, value, name, n);
        int len = wal_record_encode(&record, bytes, sizeof bytes);
        NEED(len > 0 && wal_append(&leader, &record) == 0 && kv_store_apply(&store, &record) == 1);
        NEED(repl_ship_record(&config, bytes, (size_t)len) == 1);
        NEED(logship_follow(peer, &follower, &theirs) == 0);
        NEED(repl_wait_quorum(&config, (uint64_t)n + 1, 5000) == 0);
        NEED(repl_next_timestamp() < UINT64_MAX);
    }
    NEED(logship_last_lsn(&leader) == 200 && logship_last_lsn(&follower) == 200);
    NEED(kv_store_count(&store) == 200 && kv_store_count(&theirs) == 200);
    snprintf(path, sizeof path, "%s.ckpt", (const char *)name);
    NEED(wal_checkpoint_write(&store, path, leader.offset) == 0 && wal_checkpoint_load(path, &theirs, &offset) == 0);
    NEED(offset == leader.offset && wal_close(&leader) == 0 && wal_close(&follower) == 0);
    kv_store_destroy(&store);
    kv_store_destroy(&theirs);
    close(config.followers[0].fd), close(peer);
#undef NEED
    return (void *)failures;
}
static void threads_with_their_own(void)
{
    char names[4][8] = {"one", "two", "three", "four"};
    pthread_t threads[4];
    void *failures = NULL;
    int fds = own_count_fds();
    for (int i = 0; i < 4; i++)
        REQUIRE(pthread_create(&threads[i], NULL, own_world, names[i]) == 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &failures);
        CHECK_EQ((long)failures, 0);
    }
    for (int i = 0; i < 4; i++) {
        char path[64];
        const char *prefix = names[i];
        snprintf(path, sizeof path, "%s-follower.wal", names[i]);
        CHECK(log_is(path, &prefix, (const int[]){200}, 1));
    }
    CHECK_EQ(own_count_fds(), fds);
}
static struct kv_store shared;
static void *reader(void *wrong)
{
    char key[32], value[32];
    for (int round = 0; round < 50; round++)
        for (int n = 0; n < 1000; n++) {
            numbered(key, value, "k", n);
            const char *got = kv_store_get(&shared, key);
            *(long *)wrong += !got || strcmp(got, value) != 0;
        }
    return NULL;
}
static void gets_in_parallel(void)
{
    pthread_t threads[3];
    long wrong[3] = {0, 0, 0};
    char key[32], value[32];
    REQUIRE(kv_store_init(&shared) == 0);
    for (int n = 0; n < 1000; n++) {
        numbered(key, value, "k", n);
        CHECK_EQ(kv_store_set(&shared, key, value), 0);
    }
    for (int i = 0; i < 3; i++)
        REQUIRE(pthread_create(&threads[i], NULL, reader, &wrong[i]) == 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        CHECK_EQ(wrong[i], 0);
    }
    kv_store_destroy(&shared);
}

/* A follower: what it has is in its log; it connects, says so, and follows until it is killed. */
static pid_t follower(uint16_t port)
{
    pid_t pid = own_fork();
    if (pid == 0) {
        struct wal_writer writer;
        struct kv_store store;
        REQUIRE(repl_set_leader("127.0.0.1", port) == 0 && kv_store_init(&store) == 0);
        REQUIRE(wal_open(&writer, "follower.wal") == 0);
        REQUIRE(wal_recover("follower.wal", &store) == logship_last_lsn(&writer));
        int fd = repl_follower_rejoin(-1, (uint64_t)logship_last_lsn(&writer));
        REQUIRE(fd >= 0);
        while (logship_follow(fd, &writer, &store) == 0)
            ;
        _exit(9); /* only a kill is expected here */
    }
    return pid;
}
static void crash_and_rejoin(void)
{
    enum { CYCLES = 100 };
    struct replication_config config;
    struct wal_writer writer;
    uint16_t port = 0;
    char key[32], value[32];
    uint8_t bytes[256], all[65536];
    int listener = own_listen(&port), written = 0, have = 0, fds = 0;
    REQUIRE(listener >= 0 && repl_config_init(&config) == 0 && wal_open(&writer, "leader.wal") == 0);
    config.follower_count = 1;
    config.followers[0].host = "127.0.0.1";
    for (int cycle = 0; cycle < CYCLES; cycle++) {
        int index = -1;
        uint64_t lsn = 0;
        pid_t pid = follower(port);
        CHECK_EQ(repl_accept_rejoin(&config, listener, &index, &lsn), 0);
        CHECK_EQ(index, 0);
        CHECK_EQ(lsn, have);
        CHECK_EQ(repl_catch_up(&config, 0, lsn), written - have);
        CHECK_EQ(config.followers[0].online, 1);
        for (int n = 0; n < 3; n++) {
            struct wal_record record = numbered(key, value, "k", written);
            int len = wal_record_encode(&record, bytes, sizeof bytes);
            CHECK_EQ(wal_append(&writer, &record), 0);
            written++;
            CHECK_EQ(repl_ship_record(&config, bytes, (size_t)len), 1);
            CHECK_EQ(repl_wait_quorum(&config, (uint64_t)written, 5000), 0);
        }
        have = written; /* acked, so on its disk, whenever it dies */
        if (cycle == 0)
            fds = own_count_fds();
        else
            CHECK_EQ(own_count_fds(), fds);
        kill(pid, SIGKILL);
        CHECK_EQ(own_reap(pid), 128 + SIGKILL);
        if (cycle % 3 == 0) /* found dead by a ship; else the next connection finds the slot taken by a dead one */
            CHECK(own_await(config.followers[0].fd, POLLRDHUP));
        for (int n = 0; cycle % 3 == 0 && n < 2; n++) {
            struct wal_record record = numbered(key, value, "k", written);
            int len = wal_record_encode(&record, bytes, sizeof bytes);
            CHECK_EQ(wal_append(&writer, &record), 0);
            written++;
            CHECK_EQ(repl_ship_record(&config, bytes, (size_t)len), 0);
            CHECK(config.followers[0].online == 0 && config.followers[0].fd == -1);
        }
        if (own_bad > 0)
            break;
    }
    if (config.followers[0].fd >= 0)
        close(config.followers[0].fd);
    CHECK_EQ(wal_close(&writer), 0);
    close(listener);
    long size = own_read_file("leader.wal", all, sizeof all), copy = own_file_size("follower.wal");
    CHECK(size > 0 && copy > 0 && copy <= size);
    CHECK(own_file_is("follower.wal", all, (size_t)copy)); /* byte for byte, as far as it came */
}
static void all_closed_at_the_end(void)
{
    int fds = own_count_fds();
    for (int round = 0; round < 20; round++) {
        struct wal_writer writer;
        struct kv_store store;
        struct repl_node listening = {.host = "127.0.0.1", .fd = -1}, node = {.host = "127.0.0.1", .fd = -1};
        REQUIRE(wal_open(&writer, "x.wal") == 0 && kv_store_init(&store) == 0);
        CHECK_EQ(append(&writer, "k", round), 0);
        CHECK_EQ(wal_recover("x.wal", &store), round + 1);
        CHECK_EQ(wal_checkpoint_write(&store, "c", writer.offset), 0);
        CHECK_EQ(wal_recover_with_checkpoint("x.wal", "c", &store), 0);
        CHECK_EQ(wal_recover("missing", &store), -1);
        CHECK_EQ(wal_checkpoint_write(&store, "no/such/c", 0), -1);
        int listener = repl_listen(&listening);
        node.port = listening.port;
        CHECK_EQ(repl_connect(&node), 0);
        int accepted = repl_accept(listener);
        close(accepted), close(node.fd), close(listener);
        CHECK_EQ(wal_close(&writer), 0);
        kv_store_destroy(&store);
        CHECK_EQ(own_count_fds(), fds);
    }
}

int main(void)
{
    logship_set_log(quiet, NULL);
    CASE("fork: one log by turns, copies of the struct, a struct filled by hand", one_log_by_turns);
    CASE("fork: different logs and stores afterwards", different_logs_after_fork);
    CASE("descriptor numbers used again", numbers_used_again);
    CASE("four threads, each with its own stores, logs and connections", threads_with_their_own);
    CASE("kv_store_get in parallel", gets_in_parallel);
    CASE("100 followers killed and rejoined: no descriptor lost, no record either", crash_and_rejoin);
    CASE("every descriptor closed at the end", all_closed_at_the_end);
    return own_end();
}
