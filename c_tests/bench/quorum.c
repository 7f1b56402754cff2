/*
 * One write at a time, committed by two follower processes: append (fsync), ship, wait for both acks, each sent
 * after the follower's own fsync. Commits alternate with the probes against which they are judged, so that both
 * see the same disk and the same scheduler: two fsyncs one after the other plus one loopback round trip; and the
 * bare commit, which is what the three processes do with no library at all: fsync here, 16 bytes to both, an fsync
 * in each at the same time, 16 bytes back.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <unistd.h>

#include "w09/kv_store.h"
#include "w10/wal_writer.h"
#include "w11/repl_ack.h"
#include "w11/repl_quorum.h"
#include "w11/repl_ship.h"
#ifndef PLAIN_C
#include "logship.h"
#endif

enum { FOLLOWERS = 2, COMMITS = 500 };

struct follower {
    int listen_fd;
    char wal_path[32];
};

static void follow(void *argument)
{
    const struct follower *self = argument;
    int fd = repl_accept(self->listen_fd);
    struct wal_writer wal;
    struct kv_store store;

    MUST(fd >= 0);
    MUST(kv_store_init(&store) == 0);
    MUST(wal_open(&wal, self->wal_path) == 0);
#ifdef PLAIN_C
    for (uint64_t lsn = 1; repl_receive_record(fd, &wal, &store) == 0; lsn++)
        MUST(repl_send_ack(fd, lsn, REPL_ACK_OK) == 0);
#else
    while (logship_follow(fd, &wal, &store) == 0)
        ;
#endif
    MUST(errno == ENOTCONN);
    MUST(wal_close(&wal) == 0);
    kv_store_destroy(&store);
    close(fd);
}

struct probes {
    int first, second;
    struct echo echo;
    struct echo bare[FOLLOWERS];
};

static void probes_start(struct probes *probes)
{
    static const char *const names[FOLLOWERS] = {"quorum-bare-1", "quorum-bare-2"};

    for (int i = 0; i < FOLLOWERS; i++)
        echo_start(&probes->bare[i], names[i]);
    echo_start(&probes->echo, NULL);
    probes->first = open_probe_file("quorum-probe-1");
    probes->second = open_probe_file("quorum-probe-2");
}

static void probes_stop(struct probes *probes)
{
    close(probes->first);
    close(probes->second);
    echo_stop(&probes->echo);
    /* The last one first: it has inherited the near end of those before it, whose far ends wait for its end. */
    for (int i = FOLLOWERS - 1; i >= 0; i--)
        echo_stop(&probes->bare[i]);
}

static double two_fsyncs(const struct probes *probes)
{
    double start = now_s();

    append_64_and_fsync(probes->first);
    append_64_and_fsync(probes->second);
    return now_s() - start;
}

static double round_trip(const struct probes *probes)
{
    double start = now_s();

    echo_ask(&probes->echo);
    echo_answer(&probes->echo);
    return now_s() - start;
}

static double bare_commit(const struct probes *probes)
{
    double start = now_s();

    append_64_and_fsync(probes->first);
    for (int i = 0; i < FOLLOWERS; i++)
        echo_ask(&probes->bare[i]);
    for (int i = 0; i < FOLLOWERS; i++)
        echo_answer(&probes->bare[i]);
    return now_s() - start;
}

static double commit(struct replication_config *config, struct wal_writer *wal, uint64_t lsn)
{
    uint8_t encoded[256];
    struct sample sample;
    double start;
    int len;

    fill_sample(&sample, (int)lsn, SMALL_VALUE);
    start = now_s();
    MUST(wal_append(wal, &sample.record) == 0);
    len = wal_record_encode(&sample.record, encoded, sizeof encoded);
    MUST(len > 0);
    MUST(repl_ship_record(config, encoded, (size_t)len) == FOLLOWERS);
    MUST(repl_wait_quorum(config, lsn, PATIENCE_MS) == 0);
    return now_s() - start;
}

static void measure(struct replication_config *config, struct wal_writer *wal, const struct probes *probes)
{
    static double commits[COMMITS], fsyncs[COMMITS], trips[COMMITS], bare[COMMITS];
    static double over_floor[COMMITS], over_bare[COMMITS];
    double total = 0;

    for (int i = 0; i < COMMITS; i++) {
        commits[i] = commit(config, wal, (uint64_t)i + 1);
        total += commits[i];
        fsyncs[i] = two_fsyncs(probes);
        trips[i] = round_trip(probes);
        bare[i] = bare_commit(probes);
        /* Ratios of neighbours, so that a disk which is shared and changes its mood does so for both. */
        over_floor[i] = commits[i] / (fsyncs[i] + trips[i]);
        over_bare[i] = commits[i] / bare[i];
    }
    emit("quorum.commits_per_s", COMMITS / total, "1/s");
    emit("quorum.commit_median", median(commits, COMMITS) * 1e6, "us");
    emit("quorum.two_fsyncs", median(fsyncs, COMMITS) * 1e6, "us");
    emit("quorum.round_trip", median(trips, COMMITS) * 1e6, "us");
    emit("quorum.bare_commit", median(bare, COMMITS) * 1e6, "us");
    emit("quorum.commit_over_floor", median(over_floor, COMMITS), "x");
    emit("quorum.commit_over_bare", median(over_bare, COMMITS), "x");
}

void bench_quorum(void)
{
    struct replication_config config;
    struct follower followers[FOLLOWERS];
    pid_t pids[FOLLOWERS];
    struct probes probes;
    struct wal_writer wal;

    MUST(repl_config_init(&config) == 0);
    config.follower_count = FOLLOWERS;
    /* Followers first, so that they inherit nothing of the leader. */
    for (int i = 0; i < FOLLOWERS; i++) {
        followers[i].listen_fd = listen_any(&config.followers[i]);
        snprintf(followers[i].wal_path, sizeof followers[i].wal_path, "quorum-follower-%d.wal", i + 1);
        pids[i] = start_process(follow, &followers[i]);
        close(followers[i].listen_fd);
    }
    probes_start(&probes);
    MUST(wal_open(&wal, "quorum-leader.wal") == 0);
    for (int i = 0; i < FOLLOWERS; i++)
        connect_node(&config.followers[i]);
    measure(&config, &wal, &probes);
    for (int i = 0; i < FOLLOWERS; i++)
        close(config.followers[i].fd);
    for (int i = 0; i < FOLLOWERS; i++)
        reap(pids[i]);
    probes_stop(&probes);
    MUST(wal_close(&wal) == 0);
}
