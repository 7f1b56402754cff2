/*
 * What the programs of W11 share: followers as forked processes, a leader that logs before it ships, and the pipe
 * through which a follower tells the leader's process what it has.
 *
 * Only the leader's process prints. A follower writes its lines into its pipe and the leader's process relays them, at
 * the place where they belong: the output has one order, however the processes are scheduled.
 *
 * The including file defines _GNU_SOURCE before its first #include.
 */
#ifndef LESSON_REPL_TEST_UTIL_H
#define LESSON_REPL_TEST_UTIL_H

#include <poll.h>
#include <stdarg.h>
#include <sys/socket.h>

#include "../w10/wal_test_util.h"
#include "w10/wal_recovery.h"
#include "w11/repl_ack.h"
#include "w11/repl_config.h"
#include "w11/repl_quorum.h"
#include "w11/repl_rejoin.h"
#include "w11/repl_ship.h"

/* The name under which repl_catch_up finds the leader's log in the current directory. */
#define LEADER_WAL "leader.wal"

/* Only a lost message makes a wait this long; the tests wait for events, never for time to pass. */
#define PATIENCE_MS 60000

/* ---- the leader -------------------------------------------------------------------------------------------------- */

struct leader {
    struct replication_config config;
    struct wal_writer wal;
    struct kv_store store;
    uint64_t lsn;              /* number of the last record in its log */
};

/* ---- a follower, seen from its own process ----------------------------------------------------------------------- */

struct follower {
    int number;                /* 1 or 2, as the lessons call them */
    char wal_path[32];
    int listen_fd;             /* where the leader connects; -1 if this follower connects by itself */
    struct leader *inherited;  /* what a follower that was forked late has copies of; else NULL */
    int report_fd;             /* the pipe to the leader's process */
    int fd;                    /* the connection to the leader */
    struct wal_writer wal;
    struct kv_store store;
    uint64_t lsn;              /* number of the last record in its log */
};

/* One line for the leader's process, which prints it or reads it. */
static inline void report(const struct follower *self, const char *format, ...)
{
    char line[256];
    va_list args;
    int len;

    va_start(args, format);
    len = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    CHECK(len >= 0 && (size_t)len < sizeof line - 1);
    line[len++] = '\n';
    CHECK_EQ(write_full(self->report_fd, line, (size_t)len), 0);
}

/* All keys with value and timestamp, and an empty line: what hear_store reads at the other end. */
static inline void report_store(const struct follower *self)
{
    const struct kv_store *store = &self->store;

    for (int i = 0; i < store->num_buckets; i++) {
        for (const struct kv_entry *entry = store->buckets[i]; entry != NULL; entry = entry->next)
            report(self, "%s %s %llu", entry->key, entry->value, (unsigned long long)entry->last_write_ts);
    }
    report(self, "%s", "");
}

/*
 * A follower begins with what its log holds: nothing the first time, everything it had stored when it was killed the
 * next time. The number of records in the log is its last LSN.
 */
static inline void follower_open(struct follower *self)
{
    int recovered;

    CHECK_EQ(kv_store_init(&self->store), 0);
    CHECK_EQ(wal_open(&self->wal, self->wal_path), 0);
    recovered = wal_recover(self->wal_path, &self->store);
    CHECK(recovered >= 0);
    self->lsn = (uint64_t)recovered;
}

static inline void follower_accept(struct follower *self)
{
    self->fd = repl_accept(self->listen_fd);
    CHECK(self->fd >= 0);
}

static inline void follower_close(struct follower *self)
{
    CHECK(close(self->fd) == 0);
    CHECK_EQ(wal_close(&self->wal), 0);
    kv_store_destroy(&self->store);
}

/* Stores one record and acknowledges it, or refuses it because it is damaged. 0 when the leader has hung up. */
static inline int follow_once(struct follower *self)
{
    int received = repl_receive_record(self->fd, &self->wal, &self->store);

    if (received == CRC_MISMATCH) {
        CHECK_EQ(repl_send_ack(self->fd, self->lsn + 1, REPL_ACK_CRC_FAIL), 0);
        return 1;
    }
    if (received == 0) {
        self->lsn++;
        CHECK_EQ(repl_send_ack(self->fd, self->lsn, REPL_ACK_OK), 0);
        return 1;
    }
    CHECK_EQ(received, -1);
    CHECK_EQ(errno, ENOTCONN);
    return 0;
}

static inline void follow(struct follower *self)
{
    while (follow_once(self))
        ;
}

/* What most followers do from their first to their last moment. */
static inline void follower_main(struct follower *self)
{
    follower_accept(self);
    follower_open(self);
    follow(self);
    report_store(self);
    follower_close(self);
}

/*
 * What a forked child does with a leader that it has inherited: the descriptors and the memory are its own copies, and
 * a copied socket would keep the connection open after the leader has closed its end. No shutdown(2) here: that would
 * end the leader's connections too.
 */
static inline void forget_leader(struct leader *leader)
{
    for (int i = 0; i < leader->config.follower_count; i++) {
        if (leader->config.followers[i].fd >= 0)
            CHECK(close(leader->config.followers[i].fd) == 0);
    }
    CHECK_EQ(wal_close(&leader->wal), 0);
    kv_store_destroy(&leader->store);
}

/* A follower that was down: it reads its own log, connects to the leader and says how far it got. */
static inline void returning_follower_main(struct follower *self)
{
    struct repl_node leader = self->inherited->config.leader;

    forget_leader(self->inherited);
    CHECK(close(self->listen_fd) == 0); /* the leader's */
    self->listen_fd = -1;
    follower_open(self);
    CHECK_EQ(repl_connect(&leader), 0);
    self->fd = leader.fd;
    CHECK_EQ(repl_follower_rejoin(self->fd, self->lsn), 0);
    report(self, "follower-%d: reconnected, sent last_lsn=%llu", self->number, (unsigned long long)self->lsn);
    follow(self);
    report_store(self);
    follower_close(self);
}

/* ---- a follower, seen from the leader's process ------------------------------------------------------------------ */

struct follower_process {
    pid_t pid;
    int report_fd;             /* the pipe it reports through */
};

static inline void init_follower(struct follower *self, int number, int listen_fd)
{
    memset(self, 0, sizeof *self);
    self->number = number;
    snprintf(self->wal_path, sizeof self->wal_path, "follower-%d.wal", number);
    self->listen_fd = listen_fd;
}

/* Forks a process that becomes *self and runs run(self). When the leader's process dies, the follower dies with it. */
static inline void spawn(struct follower_process *process, struct follower *self, void (*run)(struct follower *self))
{
    int ends[2];
    pid_t leader = getpid();

    CHECK(pipe(ends) == 0);
    fflush(NULL);
    process->pid = fork();
    CHECK(process->pid >= 0);
    if (process->pid == 0) {
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
        CHECK(getppid() == leader);
        alarm(TEST_DEADLINE_S);
        close(ends[0]);
        self->report_fd = ends[1];
        run(self);
        if (self->listen_fd >= 0)
            CHECK(close(self->listen_fd) == 0);
        CHECK(close(self->report_fd) == 0);
        exit(0);
    }
    CHECK(close(ends[1]) == 0);
    process->report_fd = ends[0];
}

/*
 * Starts follower `number`, to which the leader connects at *node. It listens before the fork, on a port that the kernel
 * picks: the leader can connect at once, and two tests never want the same port.
 */
static inline void start_follower(struct follower_process *process, int number, struct repl_node *node,
                                  void (*run)(struct follower *self))
{
    struct follower self;
    int listen_fd;

    node->port = 0;
    listen_fd = repl_listen(node);
    CHECK(listen_fd >= 0);
    CHECK(node->port != 0);
    init_follower(&self, number, listen_fd);
    spawn(process, &self, run);
    CHECK(close(listen_fd) == 0);
}

/*
 * Starts follower `number` again, as a new process which has nothing of the old one but its log. Returns the socket on
 * which the leader waits for it.
 */
static inline int restart_follower(struct follower_process *process, int number, struct leader *leader)
{
    struct follower self;
    int listen_fd;

    leader->config.leader.port = 0;
    listen_fd = repl_listen(&leader->config.leader);
    CHECK(listen_fd >= 0);
    init_follower(&self, number, listen_fd);
    self.inherited = leader;
    spawn(process, &self, returning_follower_main);
    return listen_fd;
}

/* The next line of the follower, without its end. If the follower dies, the line does not come and the test fails. */
static inline void hear(const struct follower_process *process, char *line, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        CHECK_EQ(read_full(process->report_fd, line + i, 1), 1);
        if (line[i] == '\n') {
            line[i] = '\0';
            return;
        }
    }
    CHECK(!"the follower's line fits");
}

static inline void relay_line(const struct follower_process *process)
{
    char line[256];

    hear(process, line, sizeof line);
    printf("%s\n", line);
}

/* Reads what report_store wrote into a fresh store, which the caller destroys. */
static inline void hear_store(const struct follower_process *process, struct kv_store *store)
{
    char line[256], key[64], value[64];

    CHECK_EQ(kv_store_init(store), 0);
    for (hear(process, line, sizeof line); line[0] != '\0'; hear(process, line, sizeof line)) {
        CHECK_EQ(sscanf(line, "%63s %63s", key, value), 2);
        CHECK(kv_store_get(store, key) == NULL);
        CHECK_EQ(kv_store_set(store, key, value), 0);
    }
}

static inline void reap_follower(struct follower_process *process)
{
    int status = 0;

    CHECK(waitpid(process->pid, &status, 0) == process->pid);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
    CHECK(close(process->report_fd) == 0);
}

/* As a power cut would: it has no chance to close anything. The kernel closes its sockets. */
static inline void kill_follower(struct follower_process *process)
{
    int status = 0;

    CHECK(kill(process->pid, SIGKILL) == 0);
    CHECK(waitpid(process->pid, &status, 0) == process->pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK(close(process->report_fd) == 0);
}

/* ---- what the leader does ---------------------------------------------------------------------------------------- */

/*
 * Starts `count` followers that run `run`, opens the leader's log and store and connects. The followers come first, so
 * that they inherit nothing of the leader.
 */
static inline void leader_start(struct leader *leader, struct follower_process *followers, int count,
                                void (*run)(struct follower *self))
{
    memset(leader, 0, sizeof *leader);
    CHECK_EQ(repl_config_init(&leader->config), 0);
    leader->config.follower_count = count;
    for (int i = 0; i < count; i++)
        start_follower(&followers[i], i + 1, &leader->config.followers[i], run);
    CHECK_EQ(kv_store_init(&leader->store), 0);
    CHECK_EQ(wal_open(&leader->wal, LEADER_WAL), 0);
    for (int i = 0; i < count; i++) {
        CHECK_EQ(leader->config.followers[i].online, 0);
        CHECK_EQ(repl_connect(&leader->config.followers[i]), 0);
        CHECK_EQ(leader->config.followers[i].online, 1);
    }
}

/* Nobody closes a socket twice: whoever has closed it before has set fd to -1. */
static inline void close_node(struct repl_node *node)
{
    if (node->fd >= 0)
        CHECK(close(node->fd) == 0);
    node->fd = -1;
    node->online = 0;
}

/*
 * Tells the follower that nothing more comes and waits until it has finished. A close(2) alone, with an ack unread in the
 * buffer, would reset the connection and take from the follower what it had not read yet.
 */
static inline void hang_up(struct repl_node *node)
{
    uint8_t rest[256];

    if (node->fd >= 0 && shutdown(node->fd, SHUT_WR) == 0) {
        while (recv(node->fd, rest, sizeof rest, 0) > 0)
            ;
    }
    close_node(node);
}

/* The followers report their stores and end. */
static inline void leader_hang_up(struct leader *leader)
{
    for (int i = 0; i < leader->config.follower_count; i++)
        hang_up(&leader->config.followers[i]);
}

static inline void leader_close(struct leader *leader)
{
    leader_hang_up(leader);
    CHECK_EQ(wal_close(&leader->wal), 0);
    kv_store_destroy(&leader->store);
}

static inline int ship(struct replication_config *config, const struct wal_record *record)
{
    uint8_t encoded[RECORD_ROOM];
    size_t len = encode_record(record, encoded);

    return repl_ship_record(config, encoded, len);
}

/*
 * One write, up to the point where it waits for the followers: log first (what is shipped must survive a crash of the
 * leader), then the leader's own store, then the followers. Returns to how many followers it went.
 */
static inline int leader_write(struct leader *leader, const struct wal_record *record)
{
    log_and_apply(&leader->wal, &leader->store, record);
    leader->lsn++;
    return ship(&leader->config, record);
}

/* Record n of most tests, SET key-n=value-n with timestamp n, which is also its LSN. */
static inline int leader_write_nth(struct leader *leader, int n)
{
    char key[32], value[32];
    struct wal_record record;

    snprintf(key, sizeof key, "key-%d", n);
    snprintf(value, sizeof value, "value-%d", n);
    record = set_record(key, value, (uint64_t)n);
    return leader_write(leader, &record);
}

/* Writes records first to last, each of them acknowledged by a quorum before the next. */
static inline void leader_commit(struct leader *leader, int first, int last)
{
    for (int n = first; n <= last; n++) {
        CHECK_EQ(leader_write_nth(leader, n), leader->config.follower_count);
        CHECK_EQ(repl_wait_quorum(&leader->config, leader->lsn, PATIENCE_MS), 0);
    }
}

/* Reads acks off one connection until the one for lsn is there; what stood before it is older. */
static inline void wait_for_ack(int fd, uint64_t lsn)
{
    struct repl_ack ack;

    do {
        CHECK_EQ(repl_recv_ack(fd, &ack), 1);
        CHECK_EQ(ack.status, REPL_ACK_OK);
        CHECK(ack.lsn <= lsn);
    } while (ack.lsn != lsn);
}

/* An event and not some time: the kernel has told this socket that its peer is gone. */
static inline void wait_for_hangup(int fd)
{
    struct pollfd watched = { .fd = fd, .events = POLLRDHUP };
    int ready;

    do
        ready = poll(&watched, 1, PATIENCE_MS);
    while (ready < 0 && errno == EINTR);
    CHECK_EQ(ready, 1);
}

/*
 * The write that finds follower-2 gone, n being its number. The record is in the leader's log and on its way to
 * follower-1, but with two followers a quorum is two: no wait can succeed, and the leader must be told so. A wait that
 * returned 0 here would have promised something that one crash of follower-1 breaks.
 */
static inline void leader_loses_follower_2(struct leader *leader, int n)
{
    wait_for_hangup(leader->config.followers[1].fd);
    CHECK(leader_write_nth(leader, n) >= 1);
    CHECK_EQ(repl_wait_quorum(&leader->config, leader->lsn, 200), -1);
    CHECK_EQ(leader->config.followers[0].online, 1);
    CHECK_EQ(leader->config.followers[1].online, 0);
}

/* Records first to last with follower-1 alone: each is durable there before the next, and that is all that is known. */
static inline void leader_write_degraded(struct leader *leader, int first, int last)
{
    for (int n = first; n <= last; n++) {
        CHECK_EQ(leader_write_nth(leader, n), 1);
        wait_for_ack(leader->config.followers[0].fd, leader->lsn);
    }
}

/*
 * Takes the connection of a follower that comes back and puts it into the follower's slot. The old socket is closed
 * first if nobody has done that: it would leak. Returns the LSN up to which the follower has everything.
 */
static inline uint64_t leader_accept_rejoin(struct leader *leader, int index, int listen_fd)
{
    struct repl_node *node = &leader->config.followers[index];
    uint64_t last_lsn = UINT64_MAX;
    int fd = repl_accept(listen_fd);

    CHECK(fd >= 0);
    CHECK(close(listen_fd) == 0);
    CHECK_EQ(repl_read_rejoin(fd, &last_lsn), 0);
    close_node(node);
    node->fd = fd;
    return last_lsn;
}

/* A follower's log, replayed here, must give the leader's store. Returns how many keys were compared. */
static inline int check_wal_replay(const char *wal_path, int expected_records, const struct kv_store *want)
{
    struct kv_store replayed;
    int same;

    CHECK_EQ(kv_store_init(&replayed), 0);
    CHECK_EQ(wal_recover(wal_path, &replayed), expected_records);
    same = check_same_stores(&replayed, want);
    kv_store_destroy(&replayed);
    return same;
}

/* What a follower has in memory, as it reported it, must be the leader's store. Returns how many keys it has. */
static inline int check_reported_store(const struct follower_process *process, const struct kv_store *want)
{
    struct kv_store reported;
    int same;

    hear_store(process, &reported);
    same = check_same_stores(&reported, want);
    kv_store_destroy(&reported);
    return same;
}

/*
 * Ships the records, one by one, to a follower-1 that begins with nothing, and hangs up. What it ended with is in its
 * report and in its log.
 */
static inline void run_on_fresh_follower(struct follower_process *process, const struct wal_record *records, int count)
{
    struct replication_config config;

    unlink("follower-1.wal");
    CHECK_EQ(repl_config_init(&config), 0);
    config.follower_count = 1;
    start_follower(process, 1, &config.followers[0], follower_main);
    CHECK_EQ(repl_connect(&config.followers[0]), 0);
    for (int i = 0; i < count; i++) {
        CHECK_EQ(ship(&config, &records[i]), 1);
        wait_for_ack(config.followers[0].fd, (uint64_t)i + 1);
    }
    hang_up(&config.followers[0]);
}

/* Open descriptors of this process: the same number before and after a test, or a socket has leaked. */
static inline int count_open_fds(void)
{
    DIR *handle = opendir("/proc/self/fd");
    int count = 0;

    CHECK(handle != NULL);
    while (readdir(handle) != NULL)
        count++;
    closedir(handle);
    return count;
}

#endif
