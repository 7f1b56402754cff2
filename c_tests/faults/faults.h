/* Followers and a leader as a program would run them, each in a process of its own, for the tests that break things
 * between them: a follower that comes back by itself for as long as the test lasts, and a leader that takes it back. */
#ifndef FAULTS_H
#define FAULTS_H
#include "../own/wire.h"
#include "logship.h"
#include <stdatomic.h>
#include <sys/mman.h>

enum { NODES = 8, KEYS = 20000, PATIENCE = 20000 /* ms; only a bug makes a wait this long */ };

/* What one follower process tells the test. */
struct report {
    _Atomic uint64_t lsn;           /* the last record that a call has returned */
    _Atomic int joins;              /* times it has come */
    _Atomic int damaged;            /* records that came damaged */
    _Atomic int stale;              /* times it was refused for another past: never right here */
    _Atomic int fds_first, fds_last; /* descriptors it had when it first came, and when it ended */
    _Atomic int done;
    _Atomic uint64_t keys, digest;  /* of its store, at the end */
    _Atomic uint64_t resident_kib;  /* its high-water mark, at the end */
};
struct shared {
    _Atomic int stop;               /* followers end instead of coming back */
    _Atomic int64_t event_us;       /* when the fault happened */
    _Atomic int go;
    _Atomic uint64_t number[8];
    struct report follower[NODES];
};
static struct shared *shared;

static inline void faults_share(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(shared != MAP_FAILED);
}
static inline int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}
/* splitmix64: the same faults for the same seed. */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
static inline long setting(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 10) : otherwise;
}
/* Looks until it is so (1) or ms have passed (0). Between two looks the processor is given away for a moment. */
#define AWAIT(condition, ms) __extension__({ \
        int64_t await_end = own_now_ms() + (ms); \
        int await_so; \
        while (!(await_so = !!(condition)) && own_now_ms() < await_end) \
            poll(NULL, 0, 1); \
        await_so; \
    })
static inline int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}
/* Sorts them. */
static inline double percentile(double *values, size_t count, double part)
{
    qsort(values, count, sizeof *values, by_value);
    size_t at = (size_t)(part * (double)count);
    return values[at < count ? at : count - 1];
}
/* A number of /proc/self/status in KiB. */
static inline long own_status_kib(const char *name)
{
    char line[256];
    long kib = -1;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0)
            kib = strtol(line + strlen(name) + 1, NULL, 10);
    if (file)
        fclose(file);
    return kib;
}

/* ---- records ---- */

struct sample {
    struct wal_record record;
    char key[24], value[4200];
};
/* Record n of any log here: a key out of KEYS, a value that says n. */
static inline void fill(struct sample *sample, uint64_t n, size_t value_len)
{
    int key_len = snprintf(sample->key, sizeof sample->key, "key-%012u", (unsigned)(n * 7919 % KEYS));
    memset(sample->value, 'v', value_len);
    snprintf(sample->value, sizeof sample->value, "%llu", (unsigned long long)n);
    size_t digits = strlen(sample->value);
    sample->value[digits] = 'v';
    sample->value[value_len > digits ? value_len : digits] = '\0';
    sample->record = (struct wal_record){.op = WAL_OP_SET, .key = sample->key, .key_len = (uint16_t)key_len,
                                         .value = sample->value, .value_len = (uint16_t)strlen(sample->value),
                                         .timestamp = repl_next_timestamp()};
}
/* Keys and values of a store in one number, whatever their order. */
static inline uint64_t store_digest(const struct kv_store *store)
{
    uint64_t sum = 0;
    for (int i = 0; i < store->num_buckets; i++)
        for (const struct kv_entry *at = store->buckets[i]; at; at = at->next) {
            uint64_t hash = 0xCBF29CE484222325u ^ at->last_write_ts;
            for (const char *c = at->key; *c; c++)
                hash = (hash ^ (uint8_t)*c) * 0x100000001B3u;
            for (const char *c = at->value; *c; c++)
                hash = (hash ^ (uint8_t)*c) * 0x100000001B3u;
            sum += random_next(&hash);
        }
    return sum;
}
/* Two files are the same, byte for byte. */
static inline int same_files(const char *left, const char *right)
{
    static char a[1 << 16], b[1 << 16];
    FILE *one = fopen(left, "rb"), *other = fopen(right, "rb");
    int same = one && other;
    for (size_t got = 1; same && got > 0;) {
        got = fread(a, 1, sizeof a, one);
        same = fread(b, 1, sizeof b, other) == got && memcmp(a, b, got) == 0;
    }
    if (one)
        fclose(one);
    if (other)
        fclose(other);
    return same;
}

/* ---- a follower that comes back ---- */

struct follower {
    int node;           /* its number, from 1 */
    const char *host;   /* of its leader, or of what stands between */
    uint16_t port;
    int listen_fd;      /* the leader comes here first, without a catch-up; -1: not */
    int small_buffer;   /* SO_RCVBUF, 0 for the system's */
    int ns;             /* the network namespace, -1 for this one */
};
static inline void wal_name(char name[32], int node)
{
    snprintf(name, 32, "follower-%d.wal", node);
}
static inline void follow_until_lost(int fd, struct wal_writer *wal, struct kv_store *store, struct report *report)
{
    for (;;) {
        int got = logship_follow(fd, wal, store);
        if (got == 0)
            report->lsn = (uint64_t)logship_last_lsn(wal);
        else if (got == CRC_MISMATCH)
            report->damaged++;
        else
            break;
    }
    report->stale += errno == ESTALE;
}
/* Its log is opened and its store built; then it follows, and comes back whenever it has lost its leader, until
 * shared->stop. Ends the process. */
static inline void follower_live(const struct follower *self)
{
    struct report *report = &shared->follower[self->node - 1];
    struct wal_writer wal;
    struct kv_store store;
    char name[32];
    wal_name(name, self->node);
    REQUIRE(logship_set_self(self->node) == 0 && repl_set_leader(self->host, self->port) == 0);
    REQUIRE(kv_store_init(&store) == 0 && wal_open(&wal, name) == 0);
    REQUIRE(wal_recover(name, &store) == logship_last_lsn(&wal));
    report->lsn = (uint64_t)logship_last_lsn(&wal);
    int listen_fd = self->listen_fd, fd = -1;
    while (!shared->stop) {
        /* Both ways that the lesson has: with the old descriptor, and with none. */
        if (fd >= 0 && self->node % 2 == 0) {
            close(fd);
            fd = -1;
        }
        uint64_t last = (uint64_t)logship_last_lsn(&wal);
        int got = listen_fd >= 0 ? repl_accept(listen_fd) : repl_follower_rejoin(fd, last);
        if (got < 0) {
            poll(NULL, 0, 5); /* nothing tells when a leader that is gone will be there again */
            continue;
        }
        fd = fd < 0 ? got : fd;
        if (report->joins++ == 0)
            report->fds_first = own_count_fds() - (listen_fd >= 0);
        if (listen_fd >= 0)
            close(listen_fd);
        listen_fd = -1; /* from now on it rejoins */
        if (self->small_buffer)
            setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &self->small_buffer, sizeof self->small_buffer);
        follow_until_lost(fd, &wal, &store, report);
    }
    if (fd >= 0)
        close(fd);
    report->fds_last = own_count_fds() + 1; /* its connection, which it had the first time */
    report->keys = (uint64_t)kv_store_count(&store);
    report->digest = store_digest(&store);
    report->resident_kib = (uint64_t)own_status_kib("VmHWM");
    CHECK_EQ(wal_close(&wal), 0);
    kv_store_destroy(&store);
    report->done = 1;
    own_leave();
}

/* ---- a leader ---- */

struct leader {
    struct replication_config config;
    struct wal_writer wal;
    int listen_fd, fds;
    uint64_t lsn;
    uint64_t caught_up;     /* records that catch-ups have sent, unless they go on beside commits */
    int beside;             /* they do */
    struct sample sample;
    uint8_t encoded[WAL_RECORD_MAX];
    size_t len;
};
static const char leader_wal[] = "leader.wal";

/* Listens before the followers are forked; its log is opened after that. */
static inline void leader_listen(struct leader *leader, int followers, char *host)
{
    REQUIRE(repl_config_init(&leader->config) == 0);
    leader->config.follower_count = followers;
    if (host)
        leader->config.leader.host = host;
    leader->config.leader.port = 0;
    leader->listen_fd = repl_listen(&leader->config.leader);
    REQUIRE(leader->listen_fd >= 0);
}
static inline void leader_open(struct leader *leader)
{
    REQUIRE(wal_open(&leader->wal, leader_wal) == 0);
    REQUIRE(repl_set_wal(&leader->config, leader_wal) == 0);
    leader->lsn = (uint64_t)logship_last_lsn(&leader->wal);
    leader->fds = own_count_fds();
}
/* In a forked process: what it holds too is not closed when the leader closes it. */
static inline void leader_let_go(const struct leader *leader)
{
    close(leader->listen_fd);
    for (int i = 0; i < leader->config.follower_count; i++)
        if (leader->config.followers[i].fd >= 0)
            close(leader->config.followers[i].fd);
}
static inline pid_t start_follower(const struct leader *leader, const struct follower *follower)
{
    pid_t pid = own_fork();
    if (pid == 0) {
        leader_let_go(leader);
        follower_live(follower);
    }
    REQUIRE(pid > 0);
    return pid;
}
/* Takes back whoever knocks; returns how many. */
static inline int leader_welcome(struct leader *leader)
{
    int welcomed = 0;
    for (struct pollfd p = {.fd = leader->listen_fd, .events = POLLIN}; poll(&p, 1, 0) == 1;) {
        int slot;
        uint64_t lsn;
        if (repl_accept_rejoin(&leader->config, leader->listen_fd, &slot, &lsn) != 0)
            continue; /* it has gone again, or its old connection answers still */
        if (leader->beside) {
            welcomed += repl_catch_up_begin(&leader->config, slot, lsn) == 0;
            continue;
        }
        int sent = repl_catch_up(&leader->config, slot, lsn);
        welcomed += sent >= 0;
        leader->caught_up += sent > 0 ? (uint64_t)sent : 0;
    }
    return welcomed;
}
static inline int leader_online(const struct leader *leader)
{
    int online = 0;
    for (int i = 0; i < leader->config.follower_count; i++)
        online += leader->config.followers[i].online == 1;
    return online;
}
/* Everybody is there. */
static inline void leader_gather(struct leader *leader, int ms)
{
    for (int64_t end = own_now_ms() + ms; leader_online(leader) < leader->config.follower_count;) {
        struct pollfd p = {.fd = leader->listen_fd, .events = POLLIN};
        int left = (int)(end - own_now_ms());
        REQUIRE(left > 0);
        poll(&p, 1, repl_catch_up_go_on(&leader->config, 0) > 0 ? 0 : left < 100 ? left : 100);
        leader_welcome(leader);
    }
}
static inline void leader_append(struct leader *leader, size_t value_len)
{
    fill(&leader->sample, ++leader->lsn, value_len);
    REQUIRE(wal_append(&leader->wal, &leader->sample.record) == 0);
    int len = wal_record_encode(&leader->sample.record, leader->encoded, sizeof leader->encoded);
    REQUIRE(len > 0);
    leader->len = (size_t)len;
}
static inline int leader_ship(struct leader *leader)
{
    return repl_ship_record(&leader->config, leader->encoded, leader->len);
}
/* Appends n records with few fsyncs. */
static inline void leader_preload(struct leader *leader, uint64_t n, size_t value_len)
{
    enum { BATCH = 1000 };
    struct sample *samples = malloc(BATCH * sizeof *samples);
    struct wal_record *records = malloc(BATCH * sizeof *records);
    REQUIRE(samples && records);
    for (uint64_t done = 0; done < n;) {
        size_t count = n - done < BATCH ? (size_t)(n - done) : BATCH;
        for (size_t i = 0; i < count; i++) {
            fill(&samples[i], leader->lsn + i + 1, value_len);
            records[i] = samples[i].record;
        }
        REQUIRE(logship_append_batch(&leader->wal, records, count) == 0);
        done += count;
        leader->lsn += count;
    }
    free(samples);
    free(records);
}
/* Every follower has acknowledged everything. */
static inline int leader_all_acked(struct leader *leader)
{
    int acked = 0;
    for (int i = 0; i < leader->config.follower_count; i++) {
        struct repl_follower_status status;
        acked += repl_get_follower_status(&leader->config, i, &status) == 0 && status.acked_lsn == leader->lsn;
    }
    return acked == leader->config.follower_count;
}
/* Brings everybody back and to the end of the log; 0 if that takes too long. */
static inline int leader_settle(struct leader *leader, int ms)
{
    for (int64_t end = own_now_ms() + ms; own_now_ms() < end; poll(NULL, 0, 1)) {
        leader_welcome(leader);
        while (repl_catch_up_go_on(&leader->config, 100) > 0)
            leader_welcome(leader);
        repl_heartbeat(&leader->config, 1000); /* reads what acks have come */
        if (leader_online(leader) == leader->config.follower_count && leader_all_acked(leader))
            return 1;
    }
    return 0;
}
/* The end of a test that lets followers live: they stop, and each has the leader's log, the leader's store, and as many
 * descriptors as in the beginning. */
static inline void leader_end(struct leader *leader, const pid_t *pids)
{
    struct kv_store store;
    int followers = leader->config.follower_count;
    CHECK_EQ(own_count_fds(), leader->fds + leader_online(leader));
    shared->stop = 1;
    close(leader->listen_fd);
    for (int i = 0; i < followers; i++)
        if (leader->config.followers[i].fd >= 0)
            close(leader->config.followers[i].fd);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_recover(leader_wal, &store), leader->lsn);
    uint64_t digest = store_digest(&store);
    for (int i = 0; i < followers; i++) {
        const struct report *report = &shared->follower[i];
        char name[32];
        CHECK_EQ(own_reap(pids[i]), 0);
        wal_name(name, i + 1);
        CHECK(report->done);
        CHECK(same_files(leader_wal, name));
        CHECK_EQ(report->keys, kv_store_count(&store));
        CHECK(report->digest == digest);
        CHECK_EQ(report->stale, 0);
        CHECK_EQ(report->fds_last, report->fds_first);
    }
    kv_store_destroy(&store);
    CHECK_EQ(wal_close(&leader->wal), 0);
}

#endif
