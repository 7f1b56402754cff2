/* Mixed clusters of real processes: one library leads, the followers are of both, and who comes back after a
 * SIGKILL, or takes over a log, may be of the other one. In the end all logs are the same bytes and all stores the
 * same. */
#include "oracle.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../own/wire.h"

enum { MOST = 3, WAIT_MS = 10000 };

static const char leader_wal[] = "leader.wal";

struct leader {
    const struct library *lib;
    struct trace *trace;
    struct rng *rng;
    struct replication_config config;
    struct wal_writer writer;
    struct source source;
    uint64_t last_lsn;
    int listener;
    int count; /* of followers: 2, who are both needed, or 3 */
    int one_is_away;
    pid_t followers[MOST];
};

/* The store as a file, so that processes can be compared. */
static void write_store(const struct library *lib, const struct kv_store *store, const char *path)
{
    struct trace lines = {0};
    FILE *file = fopen(path, "w");

    REQUIRE_THAT(file != NULL);
    trace_store(&lines, lib, store, 1);
    for (size_t i = 0; i < lines.count; i++)
        fprintf(file, "%s\n", lines.lines[i]);
    REQUIRE_THAT(fclose(file) == 0);
    trace_clear(&lines);
}

/* A follower as the lesson has it: it counts its records itself, and acknowledges each. */
__attribute__((noreturn)) static void follow(const struct library *lib, int number, uint16_t port)
{
    struct repl_node leader = {.host = (char[]){"127.0.0.1"}, .port = port, .fd = -1};
    struct wal_writer writer;
    struct kv_store store;
    char wal[32], dump[32];
    int last, rc;

    snprintf(wal, sizeof wal, "follower-%d.wal", number);
    snprintf(dump, sizeof dump, "follower-%d.store", number);
    REQUIRE_THAT(lib->kv_store_init(&store) == 0 && lib->wal_open(&writer, wal) == 0);
    last = lib->wal_recover(wal, &store);
    REQUIRE_THAT(last >= 0 && lib->repl_connect(&leader) == 0);
    REQUIRE_THAT(lib->repl_follower_rejoin(leader.fd, (uint64_t)last) == 0);
    while ((rc = lib->repl_receive_record(leader.fd, &writer, &store)) != -1) {
        last += rc == 0;
        rc = lib->repl_send_ack(leader.fd, (uint64_t)last + (rc != 0), rc == 0 ? REPL_ACK_OK : REPL_ACK_CRC_FAIL);
        if (rc != 0)
            break;
    }
    /* The leader has nothing more to say. */
    REQUIRE_THAT(rc == -1 && errno == ENOTCONN);
    REQUIRE_THAT(lib->wal_close(&writer) == 0);
    write_store(lib, &store, dump);
    lib->kv_store_destroy(&store);
    close(leader.fd);
    _exit(0);
}

static const struct library *either(struct rng *rng)
{
    return rng_once_in(rng, 2) ? &logship_library : &plain_library;
}

/* Starts a follower, which comes by rejoin, and catches it up. */
static void start(struct leader *leader, int index)
{
    struct replication_config *config = &leader->config;
    const struct library *lib = either(leader->rng);
    uint64_t lsn = 0;
    int caught_up;

    leader->followers[index] = own_fork();
    REQUIRE_THAT(leader->followers[index] >= 0);
    if (leader->followers[index] == 0) {
        /* A copy of a connection would keep it from ending when the leader closes it. */
        REQUIRE_THAT(close_range(3, ~0u, 0) == 0);
        follow(lib, index + 1, config->leader.port);
    }
    config->followers[index].fd = leader->lib->repl_accept(leader->listener);
    REQUIRE_THAT(config->followers[index].fd >= 0);
    leader->one_is_away = 0;
    TRACE(leader->trace, leader->lib->repl_read_rejoin(config->followers[index].fd, &lsn));
    caught_up = leader->lib->repl_catch_up(config, index, lsn);
    /* How much a killed follower has is chance; that it gets the rest is not. */
    trace_say(leader->trace, "follower %d of %d records: sent the rest %d, online %u", index, (int)leader->last_lsn,
              caught_up >= 0 && lsn + (uint64_t)caught_up == leader->last_lsn, config->followers[index].online);
}

static void write_some(struct leader *leader, unsigned count)
{
    static uint8_t encoded[BIG_ENOUGH];

    while (count-- > 0) {
        struct wal_record record = source_next(&leader->source);
        int len = leader->lib->wal_record_encode(&record, encoded, sizeof encoded);

        REQUIRE_THAT(len > 0);
        leader->last_lsn++;
        TRACE(leader->trace, leader->lib->wal_append(&leader->writer, &record));
        /* It comes damaged, and is sent again from the log. Only where both are waited for: whoever is not needed says
         * that it was damaged when the next record may be out already, and with plain ends that is too late. */
        if (leader->count == 2 && !leader->one_is_away && rng_once_in(leader->rng, 5))
            encoded[len - 1 - (int)rng_below(leader->rng, 8)] ^= 0x20;
        TRACE(leader->trace, leader->lib->repl_ship_record(&leader->config, encoded, (size_t)len));
        TRACE(leader->trace, leader->lib->repl_wait_quorum(&leader->config, leader->last_lsn, WAIT_MS));
    }
}

static void kill_follower(struct leader *leader, int index)
{
    leader->one_is_away = 1;
    REQUIRE_THAT(kill(leader->followers[index], SIGKILL) == 0);
    REQUIRE_THAT(own_reap(leader->followers[index]) == 128 + SIGKILL);
    REQUIRE_THAT(own_await(leader->config.followers[index].fd, POLLRDHUP));
}

static void lead(struct leader *leader, const struct library *lib)
{
    leader->lib = lib;
    REQUIRE_THAT(lib->repl_config_init(&leader->config) == 0);
    leader->config.follower_count = leader->count;
    leader->config.leader.port = 0;
    leader->listener = lib->repl_listen(&leader->config.leader);
    REQUIRE_THAT(leader->listener >= 0);
    TRACE(leader->trace, lib->wal_open(&leader->writer, leader_wal));
    TRACE(leader->trace, lib->repl_set_wal(&leader->config, leader_wal));
    for (int i = 0; i < leader->count; i++)
        start(leader, i);
}

/* Every follower gets what is on the way before it sees the end. */
static void retire(struct leader *leader)
{
    for (int i = 0; i < leader->count; i++) {
        int fd = leader->config.followers[i].fd;
        char acks[256];

        REQUIRE_THAT(fd >= 0 && shutdown(fd, SHUT_WR) == 0);
        while (own_await(fd, POLLIN) && recv(fd, acks, sizeof acks, 0) > 0)
            ;
        close(fd);
        trace_say(leader->trace, "follower %d ends with %d", i, own_reap(leader->followers[i]));
    }
    close(leader->listener);
    TRACE(leader->trace, leader->lib->wal_close(&leader->writer));
}

static int same_file(const char *one, const char *two)
{
    long long size = own_file_size(one);
    uint8_t *bytes = size >= 0 ? malloc((size_t)size + 1) : NULL;
    int same;

    REQUIRE_THAT(bytes != NULL && own_read_file(one, bytes, (size_t)size + 1) == size);
    same = own_file_is(two, bytes, (size_t)size);
    free(bytes);
    return same;
}

static void compare(struct leader *leader)
{
    const struct library *const libraries[] = {&logship_library, &plain_library};

    for (int i = 0; i < 2; i++) {
        struct kv_store store;

        REQUIRE_THAT(libraries[i]->kv_store_init(&store) == 0);
        trace_say(leader->trace, "%s recovers %d", libraries[i]->name, libraries[i]->wal_recover(leader_wal, &store));
        write_store(libraries[i], &store, i == 0 ? "leader.store" : "leader-again.store");
        libraries[i]->kv_store_destroy(&store);
    }
    trace_say(leader->trace, "both recover the same %d", same_file("leader.store", "leader-again.store"));
    for (int i = 1; i <= leader->count; i++) {
        char wal[32], dump[32];

        snprintf(wal, sizeof wal, "follower-%d.wal", i);
        snprintf(dump, sizeof dump, "follower-%d.store", i);
        /* Said, so that both traces would have to be wrong in the same way; and demanded. */
        trace_say(leader->trace, "follower %d: same log %d, same store %d", i, same_file(leader_wal, wal),
                  same_file("leader.store", dump));
        REQUIRE_THAT(same_file(leader_wal, wal) && same_file("leader.store", dump));
    }
    REQUIRE_THAT(same_file("leader.store", "leader-again.store"));
    trace_file(leader->trace, leader_wal);
    trace_file(leader->trace, "leader.store");
}

void cluster(const struct library *lib, struct trace *trace, struct rng *rng)
{
    static struct leader leader;
    int victim;

    memset(&leader, 0, sizeof leader);
    leader.count = 2 + (int)rng_below(rng, 2);
    victim = (int)rng_below(rng, (unsigned)leader.count);
    leader.trace = trace;
    leader.rng = rng;
    source_begin(&leader.source, rng, STAMPS_MIXED);
    lead(&leader, lib);
    write_some(&leader, 10 + rng_below(rng, 10));
    kill_follower(&leader, victim);
    write_some(&leader, 1 + rng_below(rng, 20));
    start(&leader, victim);
    write_some(&leader, 1 + rng_below(rng, 10));
    TRACE(trace, lib->repl_heartbeat(&leader.config, WAIT_MS));
    retire(&leader);
    compare(&leader);

    /* The other library takes the log over. */
    lead(&leader, lib->other);
    write_some(&leader, 5 + rng_below(rng, 10));
    kill_follower(&leader, (victim + 1) % leader.count);
    write_some(&leader, 5);
    start(&leader, (victim + 1) % leader.count);
    retire(&leader);
    compare(&leader);
}
