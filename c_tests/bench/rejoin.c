/*
 * What a follower costs that comes back, and what it costs the others; logship only, since plain C has none of it.
 *
 * A log ten times as long: opening it with its index file and without, and a follower that missed the last 1,000. A
 * follower that missed everything and stores it: one fsync for what has arrived together, 4 MiB at most, and an ack
 * behind each. One that is behind a compacted log: the checkpoint, then the rest. And the leader's commits, one at a
 * time with a fsync on leader and followers, alone and while a third follower catches up.
 */
#define _GNU_SOURCE
#include "bench.h"

#ifdef PLAIN_C
void bench_rejoin(void)
{
}
#else

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "logship.h"

enum { MISSED = 1000, COMMITS = 2000, BATCH = 4096, LONG = 10, STREAM = 256 * 1024 };

static const char leader_path[] = "leader.wal", long_path[] = "long.wal", follower_path[] = "follower.wal";

struct follower {
    struct repl_node leader;
    const char *path;
    int node;
    const char *memory;         /* the figure that its memory is; NULL for none */
};

/* When the last send(2) of this process came back. The library calls it by its name, which is this one here. */
static double last_send;

ssize_t send(int fd, const void *bytes, size_t count, int flags)
{
    ssize_t sent = sendto(fd, bytes, count, flags, NULL, 0);

    last_send = now_s();
    return sent;
}

/* VmHWM or VmRSS of this process, in KiB. */
static double status_kib(const char *what)
{
    char line[256];
    double value = 0;
    FILE *file = fopen("/proc/self/status", "r");

    MUST(file != NULL);
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, what, strlen(what)) == 0)
            MUST(sscanf(line + strlen(what), ": %lf", &value) == 1);
    fclose(file);
    return value;
}

static void follow(void *argument)
{
    const struct follower *self = argument;
    struct repl_node leader = self->leader;
    struct wal_writer wal;
    struct kv_store store;
    double before = status_kib("VmRSS"), most, full;

    MUST(kv_store_init(&store) == 0);
    MUST(wal_open(&wal, self->path) == 0);
    MUST(logship_set_self(self->node) == 0);
    connect_node(&leader);
    MUST(repl_follower_rejoin(leader.fd, (uint64_t)logship_last_lsn(&wal)) == 0);
    while (logship_follow(leader.fd, &wal, &store) == 0)
        ;
    MUST(errno == ENOTCONN || errno == ECONNRESET || errno == EPIPE); /* the leader has not read the last acks */
    MUST(wal_close(&wal) == 0);
    most = status_kib("VmHWM"), full = status_kib("VmRSS");
    kv_store_destroy(&store);
    /* What destroying it gives back is the store; what else there was at any time is the rejoin's. */
    if (self->memory != NULL)
        emit(self->memory, (most - before - (full - status_kib("VmRSS"))) / 1024, "MiB");
}

static void append_many(struct wal_writer *wal, int first, int count)
{
    struct sample *samples = calloc(BATCH, sizeof *samples);
    struct wal_record *records = calloc(BATCH, sizeof *records);

    MUST(samples != NULL && records != NULL);
    for (int done = 0; done < count;) {
        int now = count - done < BATCH ? count - done : BATCH;

        for (int i = 0; i < now; i++) {
            fill_sample(&samples[i], first + done + i, LARGE_VALUE);
            records[i] = samples[i].record;
        }
        MUST(logship_append_batch(wal, records, (size_t)now) == 0);
        done += now;
    }
    free(samples);
    free(records);
}

/* A configuration with `followers` slots, listening. */
static int listen_as_leader(struct replication_config *config, int followers, const char *path)
{
    MUST(repl_config_init(config) == 0);
    config->follower_count = followers;
    for (int i = 0; i < followers; i++)
        config->followers[i] = config->leader, config->followers[i].fd = -1;
    MUST(repl_set_wal(config, path) == 0);
    return listen_any(&config->leader);
}

static void hang_up(struct replication_config *config, int listen_fd)
{
    for (int i = 0; i < config->follower_count; i++)
        if (config->followers[i].fd >= 0)
            close(config->followers[i].fd);
    close(listen_fd);
}

/*
 * One follower comes. The time until the last byte was sent; until the call came back, for which the follower's answer
 * about its log is waited for; and until all is acknowledged.
 */
static void one_rejoins(const char *name, const char *leader_log, const char *checkpoint, struct follower *follower)
{
    struct replication_config config;
    struct wal_writer wal;
    int listen_fd = listen_as_leader(&config, 1, leader_log), index;
    uint64_t said;
    double came, start, sent, back, acked;
    char line[64];
    pid_t pid;

    /* As in a leader that is running: its log is open, and what is known of it is there. */
    MUST(wal_open(&wal, leader_log) == 0);
    if (checkpoint != NULL)
        MUST(repl_set_checkpoint(&config, checkpoint) == 0);
    follower->leader = config.leader;
    came = now_s();
    pid = start_process(follow, follower);
    MUST(repl_accept_rejoin(&config, listen_fd, &index, &said) == 0);
    start = now_s();
    MUST(repl_catch_up(&config, index, said) >= 0);
    back = now_s() - start;
    sent = last_send - start;
    MUST(repl_wait_quorum(&config, (uint64_t)logship_last_lsn(&wal), PATIENCE_MS) == 0);
    acked = now_s() - start;
    snprintf(line, sizeof line, "rejoin.%s_sent", name);
    emit(line, sent * 1e3, "ms");
    snprintf(line, sizeof line, "rejoin.%s_returned", name);
    emit(line, back * 1e3, "ms");
    snprintf(line, sizeof line, "rejoin.%s_acked", name);
    emit(line, acked * 1e3, "ms");
    snprintf(line, sizeof line, "rejoin.%s_from_start", name);
    emit(line, (acked + start - came) * 1e3, "ms");
    MUST(wal_close(&wal) == 0);
    hang_up(&config, listen_fd);
    reap(pid);
}

static double open_ms(const char *path)
{
    struct wal_writer wal;
    double start = now_s();

    MUST(wal_open(&wal, path) == 0);
    start = now_s() - start;
    MUST(wal_close(&wal) == 0);
    return start * 1e3;
}

static void long_log(int count)
{
    struct wal_writer wal;
    struct follower follower = {.path = follower_path, .node = 1};
    off_t record;

    MUST(wal_open(&wal, long_path) == 0);
    append_many(&wal, 0, count);
    MUST(wal_close(&wal) == 0);
    emit("rejoin.open_long_indexed", open_ms(long_path), "ms");
    MUST(unlink("long.wal.idx") == 0);
    emit("rejoin.open_long_read", (double)file_size(long_path) / open_ms(long_path) / 1e6, "GB/s");

    record = file_size(long_path) / count;
    copy_file(long_path, follower_path, record * (count - MISSED));
    open_ms(follower_path); /* writes its index */
    open_ms(long_path);
    one_rejoins("last_1000_of_long", long_path, NULL, &follower);
    MUST(file_size(follower_path) == file_size(long_path));
    MUST(unlink(follower_path) == 0 && unlink(long_path) == 0);
}

static void everything(int count)
{
    struct follower follower = {.path = follower_path, .node = 1, .memory = "rejoin.follower_memory"};
    struct wal_writer wal;

    MUST(wal_open(&wal, leader_path) == 0);
    append_many(&wal, 0, count);
    double before = status_kib("VmHWM");
    one_rejoins("all_stored", leader_path, NULL, &follower);
    emit("rejoin.leader_memory", (status_kib("VmHWM") - before) / 1024, "MiB");
    MUST(file_size(follower_path) == file_size(leader_path));
    MUST(unlink(follower_path) == 0);
    MUST(wal_close(&wal) == 0);
}

static void snapshot(int count)
{
    struct follower follower = {.path = follower_path, .node = 1, .memory = "rejoin.snapshot_follower_memory"};
    struct wal_writer wal;
    struct kv_store store;

    MUST(kv_store_init(&store) == 0);
    MUST(wal_open(&wal, leader_path) == 0);
    MUST(wal_recover(leader_path, &store) == count);
    MUST(wal_checkpoint_write(&store, "leader.ckpt", wal.offset) == 0);
    MUST(logship_wal_compact(leader_path, "leader.ckpt") == count - 1);
    append_many(&wal, count, MISSED);
    one_rejoins("snapshot", leader_path, "leader.ckpt", &follower);
    MUST(wal_close(&wal) == 0);
    kv_store_destroy(&store);
    MUST(unlink(follower_path) == 0);
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* The 99th percentile of commits, one at a time. */
static double commit_p99(struct replication_config *config, struct wal_writer *wal, int first)
{
    static double taken[COMMITS];
    uint8_t encoded[WAL_RECORD_MAX];
    struct sample sample;

    for (int i = 0; i < COMMITS; i++) {
        double start = now_s();
        int length;

        fill_sample(&sample, first + i, LARGE_VALUE);
        length = wal_record_encode(&sample.record, encoded, sizeof encoded);
        MUST(length > 0 && wal_append(wal, &sample.record) == 0);
        repl_ship_record(config, encoded, (size_t)length);
        MUST(repl_wait_quorum(config, (uint64_t)logship_last_lsn(wal), PATIENCE_MS) == 0);
        taken[i] = now_s() - start;
    }
    qsort(taken, COMMITS, sizeof *taken, by_value);
    return taken[COMMITS * 99 / 100];
}

static void beside_commits(int count)
{
    struct replication_config config;
    struct wal_writer wal;
    struct follower followers[3];
    pid_t pids[3];
    int listen_fd, index;
    uint64_t said;
    double quiet, busy;

    unlink(leader_path), unlink("leader.wal.meta"), unlink("leader.wal.idx");
    MUST(wal_open(&wal, leader_path) == 0);
    append_many(&wal, 0, count);
    listen_fd = listen_as_leader(&config, 3, leader_path);
    for (int i = 0; i < 3; i++) {
        followers[i] = (struct follower){config.leader, i == 0 ? "f1.wal" : i == 1 ? "f2.wal" : "f3.wal", i + 1, NULL};
        if (i < 2)
            copy_file(leader_path, followers[i].path, file_size(leader_path));
    }
    for (int i = 0; i < 2; i++) {
        pids[i] = start_process(follow, &followers[i]);
        MUST(repl_accept_rejoin(&config, listen_fd, &index, &said) == 0 && index == i);
        MUST(repl_catch_up(&config, index, said) == 0);
    }
    quiet = commit_p99(&config, &wal, count);
    pids[2] = start_process(follow, &followers[2]);
    MUST(repl_accept_rejoin(&config, listen_fd, &index, &said) == 0 && index == 2 && said == 0);
    MUST(repl_catch_up_begin(&config, index, said) == 0);
    busy = commit_p99(&config, &wal, count + COMMITS);
    MUST(repl_catch_up_go_on(&config, PATIENCE_MS) == 0 && config.followers[2].online == 1);
    emit("rejoin.commit_p99", quiet * 1e3, "ms");
    emit("rejoin.commit_p99_beside", busy * 1e3, "ms");
    emit("rejoin.commit_p99_ratio", busy / quiet, "x");
    hang_up(&config, listen_fd);
    for (int i = 0; i < 3; i++)
        reap(pids[i]);
    MUST(wal_close(&wal) == 0);
}

/* In a process of its own: what this one has had at most is a figure. */
static void warm_apart(int count)
{
    pid_t pid = fork();

    MUST(pid >= 0);
    if (pid == 0) {
        warm_machine((size_t)count * 1024);
        _exit(0);
    }
    reap(pid);
}

void bench_rejoin(void)
{
    int count = bench_records();

    warm_apart(count);
    everything(count);
    warm_apart(count);
    snapshot(count);
    warm_apart(count);
    beside_commits(count);
    long_log(count * LONG);
}
#endif
